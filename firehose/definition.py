"""Owns a delivery stream's definition, derived from dataset, contract and tier.

`create_request` has the shape that both CreateDeliveryStream and CloudFormation
(`AWS::KinesisFirehose::DeliveryStream`) take. Source:
https://docs.aws.amazon.com/firehose/latest/APIReference/API_CreateDeliveryStream.html and
https://docs.aws.amazon.com/firehose/latest/dev/dynamic-partitioning.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lake.declaration import Stream

__all__ = [
    "KEYS_QUERY",
    "LOG_STREAM",
    "create_request",
    "error_prefix",
    "log_group",
    "log_options",
    "object_prefix",
    "role_policy",
    "trust_policy",
]

KEYS_QUERY = "{tenant: .tenant, year: .event_time[0:4], month: .event_time[5:7], day: .event_time[8:10]}"
"""jq program for the partition keys. `event_time` is UTC by the envelope, so the day is the UTC day of the event."""

LOG_STREAM = "DestinationDelivery"
"""Where in a stream's log group the service tells of deliveries."""


def object_prefix(dataset: str) -> str:
    """Where good records go: one folder a tenant and UTC day of the event."""
    keys = "".join(f"{key}=!{{partitionKeyFromQuery:{key}}}/" for key in ("tenant", "year", "month", "day"))
    return f"processed/{dataset}/{keys}"


def error_prefix(dataset: str) -> str:
    """Where refused records go, by the reason's kind and the day of arrival."""
    return f"errors/!{{firehose:error-output-type}}/{dataset}/!{{timestamp:yyyy/MM/dd}}/"


def log_group(stream: str) -> str:
    """Name the log group of a stream, as the service's console does."""
    return f"/aws/kinesisfirehose/{stream}"


def log_options(stream: str) -> dict[str, Any]:
    """CloudWatchLoggingOptions by which deliveries of a stream are told in its log group."""
    return {"Enabled": True, "LogGroupName": log_group(stream), "LogStreamName": LOG_STREAM}


def create_request(stream: Stream, *, account: str, key_arn: str) -> dict[str, Any]:
    """Arguments of CreateDeliveryStream.

    Args:
        stream: the stream to create.
        account: the account's number, 12 digits.
        key_arn: ARN of the KMS key that encrypts what is delivered.
    """
    buffering = stream.dataset.buffering
    return {
        "DeliveryStreamName": stream.name,
        "DeliveryStreamType": "DirectPut",
        "ExtendedS3DestinationConfiguration": {
            "RoleARN": f"arn:aws:iam::{account}:role/{stream.role}",
            "BucketARN": f"arn:aws:s3:::{stream.bucket}",
            "Prefix": object_prefix(stream.dataset.name),
            "ErrorOutputPrefix": error_prefix(stream.dataset.name),
            "BufferingHints": {"SizeInMBs": buffering.size_mib, "IntervalInSeconds": buffering.interval_seconds},
            "CompressionFormat": buffering.compression,
            "EncryptionConfiguration": {"KMSEncryptionConfig": {"AWSKMSKeyARN": key_arn}},
            "CloudWatchLoggingOptions": log_options(stream.name),
            "DynamicPartitioningConfiguration": {"Enabled": True, "RetryOptions": {"DurationInSeconds": 300}},
            "ProcessingConfiguration": {
                "Enabled": True,
                "Processors": [
                    {
                        "Type": "MetadataExtraction",
                        "Parameters": [
                            {"ParameterName": "MetadataExtractionQuery", "ParameterValue": KEYS_QUERY},
                            {"ParameterName": "JsonParsingEngine", "ParameterValue": "JQ-1.6"},
                        ],
                    },
                    {
                        # records are concatenated with nothing between them; any client may then send plain JSON
                        "Type": "AppendDelimiterToRecord",
                        "Parameters": [{"ParameterName": "Delimiter", "ParameterValue": "\\n"}],
                    },
                ],
            },
        },
    }


def trust_policy(account: str) -> dict[str, Any]:
    """Who may assume the stream's role: Firehose, on behalf of this account only."""
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "firehose.amazonaws.com"},
                "Action": "sts:AssumeRole",
                "Condition": {"StringEquals": {"sts:ExternalId": account}},
            }
        ],
    }


def role_policy(stream: Stream, *, region: str, account: str, key_arn: str) -> dict[str, Any]:
    """What the stream's role may do: write below its own two prefixes, with its own key, and log.

    Source: https://docs.aws.amazon.com/firehose/latest/dev/controlling-access.html, narrowed to the stream's prefixes.
    """
    bucket = f"arn:aws:s3:::{stream.bucket}"
    prefixes = [f"processed/{stream.dataset.name}/*", f"errors/*/{stream.dataset.name}/*"]
    logs = f"arn:aws:logs:{region}:{account}:log-group:{log_group(stream.name)}"
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Sid": "FindBucket",
                "Effect": "Allow",
                "Action": ["s3:GetBucketLocation", "s3:ListBucketMultipartUploads"],
                "Resource": bucket,
            },
            {
                "Sid": "ListOwnPrefixes",
                "Effect": "Allow",
                "Action": "s3:ListBucket",
                "Resource": bucket,
                "Condition": {"StringLike": {"s3:prefix": prefixes}},
            },
            {
                "Sid": "WriteOwnPrefixes",
                "Effect": "Allow",
                "Action": ["s3:AbortMultipartUpload", "s3:PutObject"],
                "Resource": [f"{bucket}/{prefix}" for prefix in prefixes],
            },
            {
                "Sid": "EncryptWithOwnKey",
                "Effect": "Allow",
                "Action": ["kms:Decrypt", "kms:GenerateDataKey"],
                "Resource": key_arn,
                "Condition": {
                    "StringEquals": {"kms:ViaService": f"s3.{region}.amazonaws.com"},
                    "StringLike": {"kms:EncryptionContext:aws:s3:arn": [bucket, f"{bucket}/*"]},
                },
            },
            {
                "Sid": "Log",
                "Effect": "Allow",
                "Action": "logs:PutLogEvents",
                "Resource": f"{logs}:log-stream:*",
            },
        ],
    }
