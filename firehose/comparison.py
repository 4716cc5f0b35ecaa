"""Owns how a stream's definition is compared with a stream that runs, as DescribeDeliveryStream tells it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from firehose.description import DEFAULTS
from firehose.hints import default_hints
from firehose.update import ends_backup, switches_partitioning

if TYPE_CHECKING:
    from firehose.validation import Where

__all__ = ["Difference", "compare", "differences"]

_DESTINATIONS = {
    "ExtendedS3DestinationConfiguration": "ExtendedS3DestinationDescription",
    "S3DestinationConfiguration": "S3DestinationDescription",
}
_RENAMED = {"S3BackupConfiguration": "S3BackupDescription"}
"""Members that are described under another name."""
_DEFAULTS = {**DEFAULTS, "CustomTimeZone": "UTC", "S3BackupMode": "Disabled"}


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
        if not _is_default(member, value, theirs):
            one = Difference((member,), None, value)
            found.append(Difference((name, member), None, value, _fixed(one)))
    return found


def _given(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def _is_default(member: str, value: Any, destination: dict[str, Any]) -> bool:
    if isinstance(value, dict) and value.get("Enabled") is False:
        return True
    default = default_hints(destination) if member == "BufferingHints" else _DEFAULTS.get(member)
    return value in (None, "", {}, [], default)


def _fixed(one: Difference) -> str | None:
    # what a definition is silent on, it wants off
    there, wanted = _member(one.where, one.theirs), _member(one.where, {} if one.ours is None else one.ours)
    if switches_partitioning(there, wanted):
        return "dynamic partitioning is switched on when a stream is created, or never, and is never switched off"
    if ends_backup(there, wanted):
        return "a backup that is enabled can't be disabled"
    return None


def _member(where: Where, value: Any) -> dict[str, Any]:
    """A destination that has this at that place, and nothing else."""
    for step in reversed(where):
        value = {step: value}
    destination: dict[str, Any] = value
    return destination


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
