"""Owns the command's way to a running server: requests that AWS's API has no call for, signed if need be."""

from __future__ import annotations

import os
import ssl
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import orjson
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.exceptions import BotoCoreError
from botocore.session import Session

from lake.errors import TerminalError, TransientError

__all__ = ["ask", "path_of"]

_UNSIGNED = "MissingAuthenticationTokenException"
_REGION = "us-east-1"
"""Where the environment names none: a server's own default."""


def path_of(url: str | None, endpoint: str | None, what: str) -> str:
    """Find where the server's own paths begin, by its URL or by that of the local endpoint it stands behind.

    Raises:
        TerminalError: neither is given, so it is AWS; `what` is told.
    """
    if url:
        return f"{url.rstrip('/')}/_lakehose"
    if endpoint:
        return f"{endpoint.rstrip('/')}/_lakehose/firehose"
    raise TerminalError(f"{what} For a local endpoint give --endpoint or set AWS_ENDPOINT_URL, for a server --url")


def ask(what: str, method: str, url: str, body: Any = None, *, timeout: float = 30.0) -> dict[str, Any]:
    """Send a request and return its answer.

    Args:
        what: the command, for errors.
        method: of HTTP.
        url: with path and query.
        body: that orjson can render.
        timeout: seconds.

    Raises:
        TerminalError: the server refuses it, or the URL is not one of a server.
        TransientError: the server can't be reached, or can't do it now.
    """
    if not url.startswith(("http://", "https://")):
        raise TerminalError(f"{what}: got {url!r}, a URL that begins with http:// or https:// is needed")
    content = None if body is None else orjson.dumps(body)
    try:
        status, answer = _send(method, url, content, {}, timeout)
        if _said(answer).get("__type") == _UNSIGNED:
            status, answer = _send(method, url, content, _signed(what, method, url, content), timeout)
    except (URLError, TimeoutError, ConnectionError) as error:
        raise TransientError(f"{what}: {url}: no answer: {getattr(error, 'reason', error)}") from None
    if status >= 400:  # noqa: PLR2004 - HTTP's border
        kind = TerminalError if status < 500 else TransientError  # noqa: PLR2004 - likewise
        raise kind(f"{what}: {url}: {_said(answer).get('message') or f'HTTP status {status}'}")
    found = _said(answer)
    if not found:
        raise TerminalError(f"{what}: {url}: that isn't a Firehose server of lakehose: it answers something else")
    return found


def _send(method: str, url: str, content: bytes | None, headers: dict[str, str], timeout: float) -> tuple[int, bytes]:
    request = Request(url, content, headers, method=method)  # noqa: S310 - its scheme was checked
    context = None
    if url.startswith("https://"):
        # as AWS's own tools find an authority that isn't the system's
        context = ssl.create_default_context(cafile=os.environ.get("AWS_CA_BUNDLE"))
    try:
        with urlopen(request, timeout=timeout, context=context) as answer:  # noqa: S310 - likewise
            return answer.status, answer.read()
    except HTTPError as error:
        return error.code, error.read()


def _signed(what: str, method: str, url: str, content: bytes | None) -> dict[str, str]:
    session = Session()
    try:
        credentials = session.get_credentials()
    except BotoCoreError as error:
        raise TerminalError(f"{what}: the server wants a signature: {error}") from None
    if credentials is None:
        raise TerminalError(f"{what}: the server wants a signature: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    request = AWSRequest(method, url, data=content or b"")
    SigV4Auth(
        credentials.get_frozen_credentials(), "firehose", session.get_config_variable("region") or _REGION
    ).add_auth(request)
    return {**dict(request.headers.items()), "Content-Type": "application/json"}


def _said(body: bytes) -> dict[str, Any]:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}
