"""Owns the server's side of AWS JSON 1.1, which our Firehose and Athena speak: requests, replies, errors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from lake.errors import TerminalError

__all__ = ["CONTENT_TYPE", "Reply", "ServiceError", "decode", "error_reply", "json_reply"]

CONTENT_TYPE = "application/x-amz-json-1.1"


class ServiceError(TerminalError):
    """An error that a caller of the API sees, by the code its SDK turns into an exception."""

    def __init__(self, code: str, message: str, status: int = 400, **extra: str) -> None:
        super().__init__(message)
        self.code = code
        """For example `ResourceNotFoundException`."""
        self.status = status
        """HTTP status."""
        self.extra = extra
        """Further members of the exception, for example `AthenaErrorCode`."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back over HTTP."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    content_type: str = CONTENT_TYPE


def decode(body: bytes) -> dict[str, Any]:
    """Parse a request's body; an empty one is an empty request.

    Raises:
        ServiceError: SerializationException, as AWS says it, when the body is no JSON object.
    """
    try:
        request = orjson.loads(body or b"{}")
    except orjson.JSONDecodeError as error:
        raise ServiceError("SerializationException", f"The request's body is not JSON: {error}") from None
    if not isinstance(request, dict):
        raise ServiceError("SerializationException", "The request's body is not a JSON object")
    return request


def json_reply(value: Any, *, status: int = 200, content_type: str = CONTENT_TYPE) -> Reply:
    """Make a reply of a value that orjson can render."""
    return Reply(orjson.dumps(value), status=status, content_type=content_type)


def error_reply(error: ServiceError) -> Reply:
    """Make the reply that an AWS SDK turns into the exception named by the error's code."""
    return Reply(
        orjson.dumps({"__type": error.code, "message": str(error), **error.extra}),
        status=error.status,
        headers={"x-amzn-ErrorType": error.code},
    )
