"""Owns what UpdateDestination makes of a stream's definition: the members given, merged into those that are there.

Members that aren't given stay. ProcessingConfiguration is replaced as a whole, and without `Enabled` it is off;
DataFormatConversionConfiguration is merged member by member, its schema's too, and without `Enabled` it is on. Source:
https://docs.aws.amazon.com/firehose/latest/APIReference/API_UpdateDestination.html, and what floci's authors saw the
service do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from firehose.definition_error import invalid
from firehose.description import DESTINATION_ID
from firehose.partitioning import is_partitioned
from firehose.streams import S3_DESTINATIONS, only_destination, requested_destination
from lake.aws_json import ServiceError

if TYPE_CHECKING:
    from firehose.streams import DeliveryStream

__all__ = ["ends_backup", "switches_partitioning", "updated_request"]

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
    there = requested_destination(stream.request)
    _refuse_switches(there, changes)
    merged = dict(there)
    for name, value in changes.items():
        merged[name] = {**(there.get(name) or {}), **value} if name in _MERGED else value
    conversion = changes.get("DataFormatConversionConfiguration")
    if conversion is not None:
        made = merged["DataFormatConversionConfiguration"]
        made["Enabled"] = conversion.get("Enabled", True)
        before = (there.get("DataFormatConversionConfiguration") or {}).get("SchemaConfiguration") or {}
        if conversion.get("SchemaConfiguration") is not None:
            made["SchemaConfiguration"] = {**before, **conversion["SchemaConfiguration"]}
    # an update may use what only the extended configuration has, and that one says all that the other does
    kept = {name: value for name, value in stream.request.items() if name not in S3_DESTINATIONS}
    return {**kept, S3_DESTINATIONS[0]: merged}


def switches_partitioning(there: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Tell whether a change of a destination would switch dynamic partitioning, which is done at creation only.

    Source: https://docs.aws.amazon.com/firehose/latest/dev/dynamic-partitioning-enable.html
    """
    given = wanted.get("DynamicPartitioningConfiguration") is not None
    return given and is_partitioned(wanted) != is_partitioned(there)


def ends_backup(there: dict[str, Any], wanted: dict[str, Any]) -> bool:
    """Tell whether a change of a destination would disable its backup, which can't be done.

    Source: https://docs.aws.amazon.com/firehose/latest/APIReference/API_ExtendedS3DestinationUpdate.html
    """
    return there.get("S3BackupMode") == "Enabled" and wanted.get("S3BackupMode") == "Disabled"


def _changes(update: dict[str, Any]) -> dict[str, Any]:
    needed = f"Exactly one destination update is needed, got {{}}: {', '.join(_UPDATES)}"
    changes: dict[str, Any] = update[only_destination(update, "Update", _UPDATES, needed=needed)]
    return {_RENAMED.get(name, name): value for name, value in changes.items() if value is not None}


def _refuse_switches(there: dict[str, Any], changes: dict[str, Any]) -> None:
    if switches_partitioning(there, changes):
        state = "on" if is_partitioned(there) else "off"
        raise invalid(
            f"DynamicPartitioningConfiguration: dynamic partitioning is {state}, and is switched when a Firehose is"
            " created only: create another, or leave it out"
        )
    if ends_backup(there, changes):
        raise invalid("S3BackupMode: got Disabled, the backup is Enabled and can't be disabled again")
