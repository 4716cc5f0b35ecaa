"""Owns how every room reaches AWS: one frozen `Cloud` that makes boto3 clients, for AWS or for a local endpoint.

The endpoint is the only difference between the two. It comes from `--endpoint` or `AWS_ENDPOINT_URL`; without it, boto3
finds AWS, its credentials and its region the way it always does.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import (
    ClientError,
    ConnectionError,  # noqa: A004 - botocore's name
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
)

if TYPE_CHECKING:
    from mypy_boto3_athena import AthenaClient
    from mypy_boto3_dynamodb import DynamoDBClient
    from mypy_boto3_firehose import FirehoseClient
    from mypy_boto3_glue import GlueClient
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_kms import KMSClient
    from mypy_boto3_logs import CloudWatchLogsClient
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_service_quotas import ServiceQuotasClient
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sts import STSClient

__all__ = ["Cloud", "error_code", "is_passing"]

_LOOPBACK = {"127.0.0.1", "localhost", "::1"}


_PASSING_CODES = {
    *("SlowDown", "ServiceUnavailable", "InternalError", "InternalServerError", "InternalFailure", "RequestTimeout"),
    *("Throttling", "ThrottlingException", "ThrottledException", "RequestLimitExceeded", "TooManyRequestsException"),
    *("ProvisionedThroughputExceededException", "ServiceUnavailableException", "ConcurrentModificationException"),
    *("500", "502", "503", "504"),
}


# how pyarrow, by which PyIceberg reads S3, calls what no other try will change; all it raises is an OSError
_LASTING = ("ACCESS_DENIED", "NO_SUCH_", "RESOURCE_NOT_FOUND", "INVALID_", "SIGNATURE_", "UNRECOGNIZED_CLIENT")


def error_code(error: ClientError) -> str:
    """AWS's code of a failed call, as in `NoSuchBucket`."""
    return str(error.response.get("Error", {}).get("Code", ""))


def is_passing(error: BaseException) -> bool:
    """Whether a failed call may work later: AWS is busy, or the way there is cut; the client's retries have ended."""
    if isinstance(error, ClientError):
        return error_code(error) in _PASSING_CODES
    if isinstance(error, OSError):
        lasting = isinstance(error, FileNotFoundError | PermissionError)
        return not lasting and not any(word in str(error) for word in _LASTING)
    # of a body that breaks off either its length or its checksum is told to be wrong
    return isinstance(error, ConnectionError | HTTPClientError | IncompleteReadError | FlexibleChecksumError)


@dataclass(frozen=True)
class Cloud:
    """Where the lake lives: a region, and an endpoint if it isn't AWS."""

    region: str = "us-east-1"
    """AWS region, for example `eu-west-1`."""
    endpoint: str | None = None
    """URL that answers every service, for example `http://127.0.0.1:4566`; None is AWS."""

    @classmethod
    def from_environment(cls, region: str, endpoint: str | None = None) -> Cloud:
        """Take the endpoint given, or `AWS_ENDPOINT_URL`, or AWS itself."""
        return cls(region=region, endpoint=endpoint or os.environ.get("AWS_ENDPOINT_URL") or None)

    @property
    def is_loopback(self) -> bool:
        """Whether the endpoint is on this machine, where any credentials will do."""
        return self.endpoint is not None and urlsplit(self.endpoint).hostname in _LOOPBACK

    def environment(self) -> dict[str, str]:
        """Environment variables under which any AWS SDK or tool reaches the same place.

        On loopback, credentials that are missing are filled in with `test`, as a local endpoint accepts any.
        """
        found = {"AWS_REGION": self.region, "AWS_DEFAULT_REGION": self.region}
        if self.endpoint:
            found["AWS_ENDPOINT_URL"] = self.endpoint
        if self.is_loopback and not os.environ.get("AWS_ACCESS_KEY_ID") and not os.environ.get("AWS_PROFILE"):
            found |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
        return found

    @cached_property
    def _session(self) -> boto3.Session:
        filled = self.environment()
        return boto3.Session(
            region_name=self.region,
            aws_access_key_id=filled.get("AWS_ACCESS_KEY_ID"),
            aws_secret_access_key=filled.get("AWS_SECRET_ACCESS_KEY"),
        )

    def _config(self, *, attempts: int = 5, pool: int = 16, read_timeout: int = 60) -> Config:
        return Config(
            retries={"mode": "standard", "total_max_attempts": attempts},
            max_pool_connections=pool,
            read_timeout=read_timeout,
            connect_timeout=10,
            # a local endpoint has one host name: buckets go into the path
            s3={"addressing_style": "path"} if self.endpoint else {},
        )

    @cached_property
    def s3(self) -> S3Client:
        """Amazon S3."""
        return self._session.client("s3", endpoint_url=self.endpoint, config=self._config(pool=32))

    @cached_property
    def glue(self) -> GlueClient:
        """AWS Glue Data Catalog."""
        return self._session.client("glue", endpoint_url=self.endpoint, config=self._config())

    @cached_property
    def dynamodb(self) -> DynamoDBClient:
        """Amazon DynamoDB."""
        return self._session.client("dynamodb", endpoint_url=self.endpoint, config=self._config())

    @cached_property
    def firehose(self) -> FirehoseClient:
        """Amazon Data Firehose; one attempt a call, as the producer SDK owns the retries of its records."""
        return self._session.client("firehose", endpoint_url=self.endpoint, config=self._config(attempts=1))

    @cached_property
    def athena(self) -> AthenaClient:
        """Amazon Athena."""
        return self._session.client("athena", endpoint_url=self.endpoint, config=self._config(read_timeout=180))

    @cached_property
    def iam(self) -> IAMClient:
        """AWS IAM."""
        return self._session.client("iam", endpoint_url=self.endpoint, config=self._config())

    @cached_property
    def kms(self) -> KMSClient:
        """AWS KMS."""
        return self._session.client("kms", endpoint_url=self.endpoint, config=self._config())

    @cached_property
    def logs(self) -> CloudWatchLogsClient:
        """Amazon CloudWatch Logs."""
        return self._session.client("logs", endpoint_url=self.endpoint, config=self._config())

    @cached_property
    def quotas(self) -> ServiceQuotasClient:
        """Service Quotas."""
        return self._session.client("service-quotas", endpoint_url=self.endpoint, config=self._config())

    @cached_property
    def eks(self) -> Any:
        """Amazon EKS."""
        return self._session.client("eks", endpoint_url=self.endpoint, config=self._config())

    @cached_property
    def sqs(self) -> SQSClient:
        """Amazon SQS."""
        return self._session.client("sqs", endpoint_url=self.endpoint, config=self._config())

    @cached_property
    def sts(self) -> STSClient:
        """AWS STS."""
        return self._session.client("sts", endpoint_url=self.endpoint, config=self._config())

    def single_try(self, service: str, **options: Any) -> Any:
        """Make a client that tries once, for those who own the retries.

        Args:
            service: `s3`, for example.
            options: of `botocore.config.Config`, beside the timeouts.
        """
        s3: Any = {"addressing_style": "path"} if self.endpoint else {}
        if self.is_loopback:
            # a body's signature is for those who stand between; its checksum goes with it either way, as over TLS
            s3["payload_signing_enabled"] = False
        config = Config(
            **{"connect_timeout": 5, "read_timeout": 60, **options},
            retries={"mode": "standard", "total_max_attempts": 1},
            s3=s3,
        )
        return self._session.client(service, endpoint_url=self.endpoint, config=config)  # type: ignore[call-overload]

    @cached_property
    def account(self) -> str:
        """The account's number, 12 digits, as STS tells it."""
        return self.sts.get_caller_identity()["Account"]
