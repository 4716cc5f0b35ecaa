"""Owns the envelope: what every event carries around its payload, and how it looks on the wire.

An event is one JSON object. The envelope's keys come first and in a fixed order, so that the identity of an event that
was cut short on its way can often still be read (`salvage`); the payload is the last key.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TYPE_CHECKING, Any

import orjson
import uuid_utils

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "ENVELOPE",
    "NO_DAY",
    "PROCESSED_AT",
    "SYSTEM_COLUMNS",
    "Event",
    "Identity",
    "day_text",
    "made_day",
    "new_event_id",
    "salvage",
    "timestamp_text",
]

ENVELOPE = ("event_id", "tenant", "dataset", "event_time", "producer_id", "sequence", "schema_version")
"""Keys of the envelope, in the order they are written; each is a column of the dataset's table."""
PROCESSED_AT = "processed_at"
"""Key beside the envelope's that a stream's transform adds: when it checked the event. It is no column."""
SYSTEM_COLUMNS = ("_rescued", "_object", "_batch")
"""Columns that ingest adds: fields the contract doesn't know, and where the row came from."""
NO_DAY = "-"
"""Day of an event whose id doesn't tell when it was made."""

_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_DAY_MS = 86_400_000
_EPOCH = date(1970, 1, 1).toordinal()
_LAST_DAY = date.max.toordinal() - _EPOCH


@dataclass(frozen=True, slots=True)
class Event:
    """One event, with its identity."""

    event_id: str
    """UUIDv7 in its 36-character form: ordered by time."""
    tenant: str
    dataset: str
    event_time: datetime
    """When it happened; aware."""
    producer_id: str
    sequence: int
    """Gapless from 0 for each producer and dataset."""
    schema_version: str
    payload: Mapping[str, Any]

    def encode(self) -> bytes:
        """Render as one line of JSON, without a newline: the delivery stream appends it.

        Raises:
            TypeError: the payload holds something JSON can't.
        """
        return orjson.dumps(
            {
                "event_id": self.event_id,
                "tenant": self.tenant,
                "dataset": self.dataset,
                "event_time": timestamp_text(self.event_time),
                "producer_id": self.producer_id,
                "sequence": self.sequence,
                "schema_version": self.schema_version,
                "payload": self.payload,
            }
        )


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose event it was, as far as it can be read from bytes that are no valid event."""

    event_id: str | None = None
    tenant: str | None = None
    producer_id: str | None = None
    sequence: int | None = None


def timestamp_text(moment: datetime) -> str:
    """ISO 8601 in UTC with milliseconds and `Z`: what Firehose, Spark and Athena all read.

    Raises:
        ValueError: the moment has no time zone.
    """
    if moment.tzinfo is None:
        raise ValueError(f"a moment without a time zone: {moment.isoformat()}; give it one, as in tzinfo=UTC")
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def new_event_id(moment: datetime | None = None) -> str:
    """Make a UUIDv7 of now, or of a given moment."""
    if moment is None:
        return str(uuid_utils.uuid7())
    return str(uuid_utils.uuid7(nanoseconds=round(moment.timestamp() * 1000) * 1_000_000))


def day_text(days: int | None) -> str:
    """A day by its number since 1970, as `2013-01-31`; `-` where it is none, or behind the year 9999."""
    if days is None or not 0 <= days <= _LAST_DAY:
        return NO_DAY
    return date.fromordinal(_EPOCH + days).isoformat()


def made_day(event_id: str | None) -> str:
    """The day, in UTC, on which an event was made, as its id tells; `-` where the id is no UUIDv7.

    >>> made_day("013bf3f5-6800-7000-8000-000000000001")
    '2013-01-01'
    """
    if event_id is None or not _UUID7.fullmatch(event_id):
        return NO_DAY
    return day_text(int(event_id[:8] + event_id[9:13], 16) // _DAY_MS)


_TEXT = {
    name: re.compile(rb'"' + name.encode() + rb'"\s*:\s*"([^"\\]{1,256})"')
    for name in ("event_id", "tenant", "producer_id")
}
_SEQUENCE = re.compile(rb'"sequence"\s*:\s*(\d{1,18})(?=\s*[,}])')


def salvage(raw: bytes) -> Identity:
    """Read what can be read of an event's identity from bytes that may not be JSON.

    Only the part before the payload is looked at, so a payload's fields are never taken for the envelope's.
    """
    head = raw[:4096].partition(b'"payload"')[0]
    texts = {name: found[1].decode("utf-8", "replace") for name, rule in _TEXT.items() if (found := rule.search(head))}
    sequence = _SEQUENCE.search(head)
    return Identity(
        event_id=texts.get("event_id"),
        tenant=texts.get("tenant"),
        producer_id=texts.get("producer_id"),
        sequence=int(sequence[1]) if sequence else None,
    )
