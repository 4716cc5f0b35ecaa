"""Owns who may call: the check of a request's Signature Version 4, with the errors that AWS answers.

The canonical request, the string to sign and the signature are botocore's own, made of what came over the wire. Rules:
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv.html
"""

from __future__ import annotations

import hashlib
import hmac
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from botocore.auth import SigV4Auth
from botocore.credentials import Credentials

from lake.aws_json import ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from firehose.credentials import Credential

__all__ = ["Claim", "Verifier"]

_SKEW_SECONDS = 300
"""How far a request's time may be from ours, either way."""
_ALGORITHM = "AWS4-HMAC-SHA256"
_TIME = "%Y%m%dT%H%M%SZ"
_SIGNATURE = re.compile(r"[0-9a-f]{64}")
_PAYLOAD = "x-amz-content-sha256"
_PARTS = ("Credential", "SignedHeaders", "Signature")
_SCOPE_PARTS = 5
_MISMATCH = (
    "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key"
    " and signing method. Consult the service documentation for details."
)
_INVALID_TOKEN = "The security token included in the request is invalid."  # noqa: S105 - a message


@dataclass(frozen=True, slots=True)
class Claim:
    """What a request's headers say of its sender, to be proven by the signature over all of it."""

    credential: Credential
    service: str
    """As in a signature's scope, for example `firehose`."""
    signed: tuple[str, ...]
    """Names of the headers that are signed, in lower case."""
    signature: str
    moment: str
    """As `20260301T100000Z`."""


@dataclass(slots=True)
class _Request:
    """What botocore reads of a request."""

    method: str
    url: str
    headers: Any
    context: dict[str, Any]
    params: None = field(default=None)


class _Headers(dict[str, list[str]]):
    """Signed headers, as botocore asks about them; its own class takes ten times as long."""

    def get_all(self, name: str) -> list[str]:
        """All values of one."""
        return self[name]


class _Signer(SigV4Auth):
    """Botocore's signature over headers and a body's hash that are given."""

    _region_name: str
    _service_name: str
    _day = ""
    _key = b""

    def headers_to_sign(self, request: Any) -> Any:
        """All that there are."""
        return request.headers

    def payload(self, request: Any) -> str:
        """The hash."""
        found: str = request.context["payload"]
        return found

    def signature(self, string_to_sign: str, request: Any) -> str:
        """Botocore's, with a day's key made once."""
        day = request.context["timestamp"][:8]
        if day != self._day:
            key = f"AWS4{self.credentials.secret_key}".encode()
            for part in (day, self._region_name, self._service_name, "aws4_request"):
                key = hmac.digest(key, part.encode(), "sha256")
            self._day, self._key = day, key
        return hmac.digest(self._key, string_to_sign.encode(), "sha256").hex()


class Verifier:
    """Checks requests.

    Args:
        credentials: by access key.
        region: that requests have to be for.
        now: seconds since the epoch.
    """

    def __init__(self, credentials: Mapping[str, Credential], region: str, now: Callable[[], float]) -> None:
        self._region = region
        self._now = now
        self._credentials: Mapping[str, Credential] = {}
        self._signers: dict[tuple[str, str], _Signer] = {}
        self.replace(credentials)

    def replace(self, credentials: Mapping[str, Credential]) -> None:
        """Go on with other credentials."""
        self._credentials = credentials
        self._signers = {}

    def claim(self, headers: Sequence[tuple[bytes, bytes]], service: str) -> Claim:
        """Check what can be checked before a request's body is there.

        Args:
            headers: of the request, names in lower case.
            service: as in a signature's scope, for example `firehose`.

        Raises:
            ServiceError: with AWS's code: unsigned, an unknown key, another region, too old.
        """
        found = {name: value.decode("latin-1") for name, value in headers}
        given = found.get(b"authorization")
        if given is None:
            raise ServiceError("MissingAuthenticationTokenException", "Missing Authentication Token")
        parts = _parts(given)
        credential = self._scoped(parts["Credential"], found, service)
        signed = tuple(parts["SignedHeaders"].split(";"))
        # what isn't signed could be another's: the operation first of all
        for name in [b"host", *(name for name in found if name.startswith(b"x-amz-"))]:
            if name.decode("latin-1") not in signed:
                shown = "'Host' or ':authority'" if name == b"host" else f"'{name.decode('latin-1')}'"
                raise _invalid(f"{shown} must be a 'SignedHeader' in the AWS Authorization.")
        for text in signed:
            if text.encode("latin-1", "replace") not in found:
                raise _invalid(_MISMATCH)
        return Claim(credential, service, signed, parts["Signature"], self._moment(found, parts["Credential"]))

    def verify(
        self, claim: Claim, method: str, target: str, headers: Sequence[tuple[bytes, bytes]], body: bytes
    ) -> None:
        """Check a request's signature.

        Args:
            claim: of its headers.
            method: of HTTP.
            target: path and query, as they came.
            headers: of the request, names in lower case.
            body: of the request.

        Raises:
            ServiceError: InvalidSignatureException.
        """
        payload = hashlib.sha256(body).hexdigest()
        signed = _Headers()
        for name, value in headers:
            text = name.decode("latin-1")
            if text in claim.signed:
                signed.setdefault(text, []).append(value.decode("latin-1"))
        # botocore would go by it
        if signed.pop(_PAYLOAD, [payload]) != [payload]:
            raise _invalid(_MISMATCH)
        if _PAYLOAD in claim.signed:
            signed[_PAYLOAD] = [payload]
        signer = self._signer(claim.credential, claim.service)
        context = {"timestamp": claim.moment, "payload": payload}
        try:
            request: Any = _Request(method, f"http://-{target}", signed, context)
            text = signer.string_to_sign(request, signer.canonical_request(request))
            expected = signer.signature(text, request)
        except ValueError:  # no URL
            raise _invalid(_MISMATCH) from None
        if not hmac.compare_digest(expected, claim.signature):
            raise _invalid(_MISMATCH)

    def _scoped(self, scope: str, found: Mapping[bytes, str], service: str) -> Credential:
        pieces = scope.split("/")
        if len(pieces) < _SCOPE_PARTS or pieces[-1] != "aws4_request":
            raise ServiceError(
                "IncompleteSignatureException",
                f"Credential must have exactly {_SCOPE_PARTS} slash-delimited elements, e.g."
                f" keyid/date/region/service/term, got '{scope[:100]}'",
            )
        credential = self._credentials.get("/".join(pieces[:-4]))
        token = found.get(b"x-amz-security-token")
        if credential is None or not hmac.compare_digest((token or "").encode(), (credential.token or "").encode()):
            raise ServiceError("UnrecognizedClientException", _INVALID_TOKEN)
        if credential.expires is not None and self._now() >= credential.expires:
            raise ServiceError("ExpiredTokenException", "The security token included in the request is expired")
        if pieces[-3] != self._region:
            raise _invalid(f"Credential should be scoped to a valid region: '{self._region}', got '{pieces[-3][:40]}'.")
        if pieces[-2] != service:
            raise _invalid(f"Credential should be scoped to correct service: '{service}'.")
        return credential

    def _moment(self, found: Mapping[bytes, str], scope: str) -> str:
        given = found.get(b"x-amz-date", "")
        try:
            moment = datetime.strptime(given, _TIME).replace(tzinfo=UTC)
        except ValueError:
            raise ServiceError(
                "IncompleteSignatureException",
                f"Authorization header requires existence of 'X-Amz-Date' as 20260301T100000Z, got '{given[:40]}'.",
            ) from None
        if scope.split("/")[-4] != given[:8]:
            raise _invalid(
                f"Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP:"
                f" '{scope.split('/')[-4][:40]}' != '{given[:8]}', from '{given}'."
            )
        now = self._now()
        if abs(moment.timestamp() - now) <= _SKEW_SECONDS:
            return given
        ours = datetime.fromtimestamp(now, UTC).strftime(_TIME)
        if moment.timestamp() < now:
            earliest = datetime.fromtimestamp(now - _SKEW_SECONDS, UTC).strftime(_TIME)
            raise _invalid(f"Signature expired: {given} is now earlier than {earliest} ({ours} - 5 min.)")
        latest = datetime.fromtimestamp(now + _SKEW_SECONDS, UTC).strftime(_TIME)
        raise _invalid(f"Signature not yet current: {given} is still later than {latest} ({ours} + 5 min.)")

    def _signer(self, credential: Credential, service: str) -> _Signer:
        key = (credential.access_key, service)
        signer = self._signers.get(key)
        if signer is None:
            keys = Credentials(credential.access_key, credential.secret_key)
            signer = self._signers[key] = _Signer(keys, service, self._region)
        return signer


def _parts(given: str) -> dict[str, str]:
    algorithm, _, rest = given.partition(" ")
    if algorithm != _ALGORITHM:
        raise ServiceError(
            "IncompleteSignatureException",
            f"Unsupported AWS 'algorithm': '{algorithm[:40]}'. {_ALGORITHM} is supported.",
        )
    found = {}
    for one in rest.split(","):
        name, _, value = one.strip().partition("=")
        found[name] = value
    for name in _PARTS:
        if not found.get(name):
            raise ServiceError("IncompleteSignatureException", f"Authorization header requires '{name}' parameter.")
    if not _SIGNATURE.fullmatch(found["Signature"]):
        raise _invalid(_MISMATCH)
    return found


def _invalid(message: str) -> ServiceError:
    return ServiceError("InvalidSignatureException", message)
