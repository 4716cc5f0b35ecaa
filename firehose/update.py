"""Owns what UpdateDestination makes of a stream's definition: the members given, merged into those that are there.

Members that aren't given stay. ProcessingConfiguration is replaced as a whole, and without `Enabled` it is off;
DataFormatConversionConfiguration is merged member by member, and without `Enabled` it is on. Source:
https://docs.aws.amazon.com/firehose/latest/APIReference/API_UpdateDestination.html, and what floci's authors saw the
service do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from firehose.description import DESTINATION_ID
from firehose.streams import S3_DESTINATIONS, invalid, requested_destination
from lake.aws_json import ServiceError

if TYPE_CHECKING:
    from firehose.streams import DeliveryStream

__all__ = ["updated_request"]

_UPDATES = ("ExtendedS3DestinationUpdate", "S3DestinationUpdate")
_RENAMED = {"S3BackupUpdate": "S3BackupConfiguration"}
_MERGED = ("DataFormatConversionConfiguration", "S3BackupConfiguration")
"""Members that are merged with what is there; all others are replaced."""


def updated_request(stream: DeliveryStream, update: dict[str, Any]) -> dict[str, Any]:
    """Make the CreateDeliveryStream request that the updated stream would have been made of.

    Args:
        stream: the stream as it is.
        update: the UpdateDestination request, already checked against the service's model.

    Raises:
        ServiceError: ConcurrentModificationException: the stream has another version; InvalidArgumentException: another
            destination, or a change that the service doesn't make.
    """
    given_version = update["CurrentDeliveryStreamVersionId"]
    if given_version != str(stream.version):
        raise ServiceError(
            "ConcurrentModificationException",
            f"Firehose {stream.name} has version {stream.version}, CurrentDeliveryStreamVersionId is {given_version}:"
            " it was changed in between",
        )
    if update["DestinationId"] != DESTINATION_ID:
        raise invalid(f"DestinationId: got {update['DestinationId']}, Firehose {stream.name} has {DESTINATION_ID}")
    changes = _changes(update)
    there, _ = requested_destination(stream.request)
    _refuse_switches(there, changes)
    merged = dict(there)
    for name, value in changes.items():
        merged[name] = {**(there.get(name) or {}), **value} if name in _MERGED else value
    conversion = changes.get("DataFormatConversionConfiguration")
    if conversion is not None and "Enabled" not in conversion:
        merged["DataFormatConversionConfiguration"]["Enabled"] = True
    # an update may use what only the extended configuration has, and that one says all that the other does
    kept = {name: value for name, value in stream.request.items() if name not in S3_DESTINATIONS}
    return {**kept, S3_DESTINATIONS[0]: merged}


def _changes(update: dict[str, Any]) -> dict[str, Any]:
    given = [name for name in update if name.endswith("DestinationUpdate") and update[name] is not None]
    foreign = [name for name in given if name not in _UPDATES]
    if foreign:
        raise invalid(f"{foreign[0]}: this server supports: {', '.join(_UPDATES)}")
    if len(given) != 1:
        raise invalid(f"Exactly one destination update is needed, got {len(given)}: {', '.join(_UPDATES)}")
    changes: dict[str, Any] = update[given[0]]
    return {_RENAMED.get(name, name): value for name, value in changes.items() if value is not None}


def _refuse_switches(there: dict[str, Any], changes: dict[str, Any]) -> None:
    partitioned = bool((there.get("DynamicPartitioningConfiguration") or {}).get("Enabled"))
    wanted = changes.get("DynamicPartitioningConfiguration")
    if wanted is not None and bool(wanted.get("Enabled")) != partitioned:
        state = "on" if partitioned else "off"
        raise invalid(
            f"DynamicPartitioningConfiguration: dynamic partitioning is {state}, and is switched when a Firehose is"
            " created only: create another, or leave it out"
        )
    if there.get("S3BackupMode") == "Enabled" and changes.get("S3BackupMode") == "Disabled":
        raise invalid("S3BackupMode: got Disabled, the backup is Enabled and can't be disabled again")
