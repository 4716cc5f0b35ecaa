"""Owns the errors that Athena's operations answer with, in the shapes its clients read."""

from __future__ import annotations

from lake.aws_json import ServiceError

__all__ = ["invalid_request", "metadata_error"]


def invalid_request(message: str) -> ServiceError:
    """The error of a request that can't be served as it is."""
    return ServiceError("InvalidRequestException", message, AthenaErrorCode="INVALID_INPUT")


def metadata_error(message: str) -> ServiceError:
    """The error of a name that the catalog doesn't have."""
    return ServiceError("MetadataException", message)
