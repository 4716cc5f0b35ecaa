"""Owns the server's side of AWS JSON 1.1 for Athena: requests, replies, and errors as the SDKs read them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import orjson

from lake.errors import TerminalError

__all__ = [
    "CONTENT_TYPE",
    "Reply",
    "ServiceError",
    "decode",
    "error_reply",
    "invalid_request",
    "json_reply",
    "metadata_error",
    "not_found",
]

CONTENT_TYPE = "application/x-amz-json-1.1"


class ServiceError(TerminalError):
    """An error that a caller of the API sees, by the code its SDK turns into an exception."""

    def __init__(self, code: str, message: str, status: int = 400, **extra: str) -> None:
        super().__init__(message)
        self.code = code
        """For example `InvalidRequestException`."""
        self.status = status
        """HTTP status."""
        self.extra = extra
        """Further members of the exception, for example `AthenaErrorCode`."""


def invalid_request(message: str) -> ServiceError:
    """The error of a request that can't be served as it is."""
    return ServiceError("InvalidRequestException", message, AthenaErrorCode="INVALID_INPUT")


def metadata_error(message: str) -> ServiceError:
    """The error of a name that the catalog doesn't have."""
    return ServiceError("MetadataException", message)


def not_found(message: str, resource: str) -> ServiceError:
    """The error of a resource that isn't there."""
    return ServiceError("ResourceNotFoundException", message, ResourceName=resource)


@dataclass(frozen=True, slots=True)
class Reply:
    """What goes back over HTTP."""

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


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


def json_reply(value: dict[str, Any]) -> Reply:
    """Make a reply of an operation's output."""
    return Reply(orjson.dumps(value))


def error_reply(error: ServiceError) -> Reply:
    """Make the reply that an AWS SDK turns into the exception named by the error's code."""
    body = {"__type": error.code, "message": str(error), **error.extra}
    return Reply(orjson.dumps(body), status=error.status, headers={"x-amzn-errortype": error.code})
