"""Owns how a stream is described: the answer of DescribeDeliveryStream, with the service's defaults filled in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from firehose.streams import DEFAULT_INTERVAL, DEFAULT_SIZE_MB, requested_destination

if TYPE_CHECKING:
    from firehose.streams import DeliveryStream

__all__ = ["DESTINATION_ID", "describe"]

DESTINATION_ID = "destinationId-000000000001"
"""Of a stream's only destination."""
_PLAIN = (
    *("RoleARN", "BucketARN", "Prefix", "ErrorOutputPrefix", "BufferingHints", "CompressionFormat"),
    *("EncryptionConfiguration", "CloudWatchLoggingOptions"),
)


def describe(stream: DeliveryStream, status: str) -> dict[str, Any]:
    """Make a DeliveryStreamDescription.

    Args:
        stream: the stream.
        status: its DeliveryStreamStatus.
    """
    given, _ = requested_destination(stream.request)
    defaults: dict[str, Any] = {
        "BufferingHints": {"SizeInMBs": DEFAULT_SIZE_MB, "IntervalInSeconds": DEFAULT_INTERVAL},
        "CompressionFormat": "UNCOMPRESSED",
        "EncryptionConfiguration": {"NoEncryptionConfig": "NoEncryption"},
        "CloudWatchLoggingOptions": {"Enabled": False},
    }
    extended = {
        **defaults,
        "ProcessingConfiguration": {"Enabled": False, "Processors": []},
        "S3BackupMode": "Disabled",
        **{name: value for name, value in given.items() if value not in (None, {})},
    }
    return {
        "DeliveryStreamName": stream.name,
        "DeliveryStreamARN": stream.arn,
        "DeliveryStreamStatus": status,
        "DeliveryStreamEncryptionConfiguration": {"Status": "DISABLED"},
        "DeliveryStreamType": "DirectPut",
        "VersionId": str(stream.version),
        "CreateTimestamp": stream.created,
        **({} if stream.updated is None else {"LastUpdateTimestamp": stream.updated}),
        "Destinations": [
            {
                "DestinationId": DESTINATION_ID,
                "S3DestinationDescription": {name: extended[name] for name in _PLAIN if name in extended},
                "ExtendedS3DestinationDescription": extended,
            }
        ],
        "HasMoreDestinations": False,
    }
