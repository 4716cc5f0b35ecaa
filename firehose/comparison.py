"""Owns how a stream's definition is compared with a stream that runs, as DescribeDeliveryStream tells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["Difference", "compare", "differences"]

Where = tuple[str | int, ...]

_DESTINATIONS = {
    "ExtendedS3DestinationConfiguration": "ExtendedS3DestinationDescription",
    "S3DestinationConfiguration": "S3DestinationDescription",
}
_RENAMED = {"S3BackupConfiguration": "S3BackupDescription"}
"""Members that are described under another name."""
_DEFAULTS: dict[str, Any] = {
    "BufferingHints": {"SizeInMBs": 5, "IntervalInSeconds": 300},
    "CompressionFormat": "UNCOMPRESSED",
    "CustomTimeZone": "UTC",
    "EncryptionConfiguration": {"NoEncryptionConfig": "NoEncryption"},
    "S3BackupMode": "Disabled",
}
"""What the service says of members that nobody gave. Source: the members' own pages of the API's reference."""


@dataclass(frozen=True, slots=True)
class Difference:
    """A member in which a definition and what runs differ."""

    where: Where
    """The member, from the request down; places in lists from 0."""
    ours: Any
    """By the definition; None if it says nothing."""
    theirs: Any
    """What runs; None if there is nothing."""
    fixed: str | None = None
    """Why it can't be changed in a stream that is there; None if it can."""


def compare(request: dict[str, Any], described: dict[str, Any]) -> list[Difference]:
    """List the differences between a CreateDeliveryStream request and a DeliveryStreamDescription.

    A member that only the stream has counts if it isn't the service's default.
    """
    found: list[Difference] = []
    kind, their_kind = request.get("DeliveryStreamType") or "DirectPut", described["DeliveryStreamType"]
    if kind != their_kind:
        fixed = "the source of a stream is chosen when it is created"
        found.append(Difference(("DeliveryStreamType",), kind, their_kind, fixed))
    destination = described["Destinations"][0]
    for name, description in _DESTINATIONS.items():
        if request.get(name) is None:
            continue
        theirs = destination.get(description)
        if theirs is None:
            kinds = [one.removesuffix("Description") for one in destination if one.endswith("DestinationDescription")]
            fixed = "the destination of a stream is of the kind that it was created with"
            found.append(Difference((name,), name.removesuffix("Configuration"), ", ".join(kinds), fixed))
            continue
        found += _of_destination(name, request[name], theirs)
    return found


def _of_destination(name: str, ours: dict[str, Any], theirs: dict[str, Any]) -> list[Difference]:
    theirs = {**theirs, **{ours_: theirs[theirs_] for ours_, theirs_ in _RENAMED.items() if theirs_ in theirs}}
    known = {member for member, value in ours.items() if value is not None}
    found = [
        Difference((name, *one.where), one.ours, one.theirs, _fixed(one)) for one in differences(_given(ours), theirs)
    ]
    for member in sorted(set(theirs) - known - set(_RENAMED.values())):
        value = theirs[member]
        if not _is_default(member, value):
            one = Difference((member,), None, value)
            found.append(Difference((name, member), None, value, _fixed(one)))
    return found


def _given(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def _is_default(member: str, value: Any) -> bool:
    if isinstance(value, dict) and value.get("Enabled") is False:
        return True
    return value in (None, "", {}, [], _DEFAULTS.get(member))


def _fixed(one: Difference) -> str | None:
    # https://docs.aws.amazon.com/firehose/latest/dev/dynamic-partitioning-enable.html
    whole = one.where == ("DynamicPartitioningConfiguration",)
    if one.where == ("DynamicPartitioningConfiguration", "Enabled") or whole:
        ours, theirs = ((side or {}).get("Enabled") if whole else side for side in (one.ours, one.theirs))
        if bool(ours) != bool(theirs):
            return "dynamic partitioning is switched on when a stream is created, or never, and is never switched off"
    # https://docs.aws.amazon.com/firehose/latest/APIReference/API_ExtendedS3DestinationUpdate.html
    if one.where == ("S3BackupMode",) and one.ours == "Disabled" and one.theirs == "Enabled":
        return "a backup that is enabled can't be disabled"
    return None


def differences(wanted: Any, found: Any, where: Where = ()) -> list[Difference]:
    """List where what was found doesn't hold what is wanted; what else was found is of no interest.

    AWS answers with more than was asked, its defaults, so only what is declared is compared.
    """
    if isinstance(wanted, dict) and isinstance(found, dict):
        return [
            one for name, value in wanted.items() for one in differences(value, found.get(name), (*where, str(name)))
        ]
    if isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        pairs = enumerate(zip(wanted, found, strict=True))
        return [one for index, (ours, theirs) in pairs for one in differences(ours, theirs, (*where, index))]
    return [] if wanted == found else [Difference(where, wanted, found)]
