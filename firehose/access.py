"""Owns the server's doors: TLS and the callers' credentials, read at the start and again when asked to."""

from __future__ import annotations

import ipaddress
import logging
import ssl
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from firehose.credentials import check_private, read_credentials
from firehose.signatures import Verifier
from lake.errors import EnvironmentProblemError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Access", "Doors", "is_loopback"]

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Access:
    """Who may call, and how."""

    credentials: Path | None = None
    """File of those who may; None lets everybody."""
    certificate: Path | None = None
    """PEM, with the certificates between it and its authority; None is plain HTTP."""
    key: Path | None = None
    """PEM, of the certificate."""


class Doors:
    """TLS and credentials as they are now.

    Args:
        access: the files.
        region: that signatures have to be for.
        now: seconds since the epoch.
    """

    def __init__(self, access: Access, region: str, now: Callable[[], float]) -> None:
        """Read the files.

        Raises:
            EnvironmentProblemError: one is missing, wrong, or open to others.
        """
        self._access = access
        self.verifier = (
            None if access.credentials is None else Verifier(read_credentials(access.credentials), region, now)
        )
        """None lets everybody call."""
        self._context: ssl.SSLContext | None = None
        if (access.certificate is None) != (access.key is None):
            raise EnvironmentProblemError("--tls-cert and --tls-key: one is given, both are needed")
        if access.certificate is not None:
            self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            self._load(self._context)

    @property
    def scheme(self) -> str:
        """`https` or `http`."""
        return "http" if self._context is None else "https"

    @property
    def context_factory(self) -> Callable[[Any, Any], ssl.SSLContext] | None:
        """What uvicorn asks for its TLS; None without."""
        context = self._context
        return None if context is None else lambda _config, _default: context

    def reload(self) -> None:
        """Read the files again, for what comes from now on; files that are wrong change nothing."""
        try:
            # both are looked at before one is used
            credentials = None if self._access.credentials is None else read_credentials(self._access.credentials)
            if self._context is not None:
                self._load(ssl.create_default_context(ssl.Purpose.CLIENT_AUTH))
                self._load(self._context)
        except EnvironmentProblemError as error:
            _log.error("the files of --credentials, --tls-cert and --tls-key stay as they were: %s", error)
            return
        if self.verifier is not None and credentials is not None:
            self.verifier.replace(credentials)
        _log.info("the files of --credentials, --tls-cert and --tls-key are read again")

    def _load(self, context: ssl.SSLContext) -> None:
        certificate, key = self._access.certificate, self._access.key
        if certificate is None or key is None:
            return
        check_private("--tls-key", key)
        try:
            # a key with a password would ask for it on the terminal
            context.load_cert_chain(certificate, key, password=lambda: b"")
        except OSError as error:
            why = error.reason if isinstance(error, ssl.SSLError) else error.strerror
            raise EnvironmentProblemError(
                f"--tls-cert {certificate}, --tls-key {key}: {why}: a PEM certificate and its key without a password"
                " are needed"
            ) from None


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
