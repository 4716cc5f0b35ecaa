"""Owns how a stream is described: the answer of DescribeDeliveryStream, with the service's defaults filled in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from firehose.hints import default_hints
from firehose.streams import requested_destination

if TYPE_CHECKING:
    from firehose.streams import DeliveryStream

__all__ = ["DEFAULTS", "DESTINATION_ID", "describe"]

DESTINATION_ID = "destinationId-000000000001"
"""Of a stream's only destination."""
DEFAULTS: dict[str, Any] = {
    "CompressionFormat": "UNCOMPRESSED",
    "EncryptionConfiguration": {"NoEncryptionConfig": "NoEncryption"},
    "CloudWatchLoggingOptions": {"Enabled": False},
}
"""What the service says of a destination's members that nobody gave, beside its `default_hints`.

Source: their pages of the API's reference.
"""
_PLAIN = (
    *("RoleARN", "BucketARN", "Prefix", "ErrorOutputPrefix", "BufferingHints", "CompressionFormat"),
    *("EncryptionConfiguration", "CloudWatchLoggingOptions"),
)


def describe(stream: DeliveryStream, status: str, encryption: dict[str, Any]) -> dict[str, Any]:
    """Make a DeliveryStreamDescription.

    Args:
        stream: the stream.
        status: its DeliveryStreamStatus.
        encryption: its DeliveryStreamEncryptionConfiguration.
    """
    given = requested_destination(stream.request)
    extended = {
        **DEFAULTS,
        "BufferingHints": default_hints(given),
        "ProcessingConfiguration": {"Enabled": False, "Processors": []},
        "S3BackupMode": "Disabled",
        **{name: value for name, value in given.items() if value not in (None, {})},
    }
    return {
        "DeliveryStreamName": stream.name,
        "DeliveryStreamARN": stream.arn,
        "DeliveryStreamStatus": status,
        "DeliveryStreamEncryptionConfiguration": encryption,
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
