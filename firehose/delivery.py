"""Owns writing objects to S3: one attempt a call, told apart by whether trying again can help."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from lake.clients import Cloud
from lake.errors import TransientError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from firehose.objects import Compression

__all__ = ["S3UnavailableError", "S3Writer", "s3_client"]

_CONTENT_TYPE = "application/octet-stream"


class S3UnavailableError(TransientError):
    """S3 didn't take an object; the records stay in the log, and it is tried again."""


@dataclass(frozen=True, slots=True)
class S3Writer:
    """Writes objects through one client, from any thread."""

    client: S3Client

    def write(self, bucket: str, key: str, body: bytes, compression: Compression, kms_key: str | None) -> None:
        """Write one object; blocks.

        Raises:
            S3UnavailableError: S3 answered with an error, or didn't answer.
        """
        extra: dict[str, Any] = {}
        if compression.content_encoding:
            extra["ContentEncoding"] = compression.content_encoding
        if kms_key:
            extra |= {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": kms_key}
        try:
            self.client.put_object(Bucket=bucket, Key=key, Body=body, ContentType=_CONTENT_TYPE, **extra)
        except (ClientError, BotoCoreError) as error:
            told = f"s3://{bucket}/{key}: {error}"
        else:
            return
        # the frames of a traceback would hold the body until the collector comes by, and the next attempt makes another
        del body
        raise S3UnavailableError(told)


def s3_client(endpoint: str | None, region: str, uploads: int) -> S3Client:
    """Make the client: no retries of its own, as delivery goes on trying until S3 takes the object."""
    client: S3Client = Cloud(region, endpoint).single_try("s3", max_pool_connections=uploads)
    return client
