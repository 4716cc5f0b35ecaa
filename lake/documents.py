"""Owns small JSON documents in S3: written over their older selves, or once and for all; read where they are there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, TypeVar

from botocore.exceptions import ClientError

from lake.clients import error_code
from lake.errors import TerminalError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mypy_boto3_s3 import S3Client

__all__ = ["create_document", "is_there_already", "parsed_document", "read_document", "write_document"]

_Parsed = TypeVar("_Parsed")
_THERE = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}


def write_document(s3: S3Client, bucket: str, key: str, body: Mapping[str, Any]) -> None:
    """Write a document, over what is there."""
    s3.put_object(Bucket=bucket, Key=key, Body=_text(body), ContentType="application/json")


def create_document(s3: S3Client, bucket: str, key: str, body: Mapping[str, Any]) -> bool:
    """Write a document that isn't there yet; answers whether it did.

    A reply may be lost and the request be made again, so what is there may be this very document.
    """
    try:
        s3.put_object(Bucket=bucket, Key=key, Body=_text(body), ContentType="application/json", IfNoneMatch="*")
    except ClientError as error:
        if is_there_already(error):
            return False
        raise
    return True


def is_there_already(error: ClientError) -> bool:
    """Whether a put failed because an object has its key, or is just getting it."""
    return error_code(error) in _THERE


def read_document(
    s3: S3Client, bucket: str, key: str, parsed: Callable[[Any], _Parsed], *, what: str = ""
) -> _Parsed | None:
    """A document, or None where there is none.

    Args:
        s3: where it is.
        bucket: its bucket.
        key: its key.
        parsed: makes something of the JSON; ValueError, KeyError or TypeError say that it is none of ours.
        what: what it is, for the message: `plan`.

    Raises:
        TerminalError: it can't be read.
    """
    try:
        body = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    except ClientError as error:
        # by its code: the client's own class for it may be another one where two threads meet their first error
        if error_code(error) == "NoSuchKey":
            return None
        raise
    return parsed_document(body, f"s3://{bucket}/{key}", parsed, what=what)


def parsed_document(body: bytes, where: str, parsed: Callable[[Any], _Parsed], *, what: str = "") -> _Parsed:
    """What a document's bytes say; arguments and errors as for `read_document`."""
    try:
        return parsed(json.loads(body))
    except (ValueError, KeyError, TypeError) as error:
        raise TerminalError(f"{what} {where}: it can't be read: {error!r}".lstrip()) from None


def _text(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, indent=1).encode()
