"""Owns what becomes of a row: an event of the drop's dataset, or a refusal.

Pure: the same file and declaration make the same events, byte for byte, wherever and however often it is done.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

from lake.drops import zone
from lake.envelope import Event
from lake.errors import first_repeated
from spark_jobs.csv_rows import CsvReason, UnreadableFileError
from spark_jobs.csv_values import moment, text_converter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lake.contract import Contract
    from lake.drops import Drop
    from spark_jobs.csv_rows import Row
    from spark_jobs.csv_values import Convert

__all__ = ["EventRow", "Events", "RefusedRow", "day_of_key", "event_id", "plain_name"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)
_DAY_OF_KEY = re.compile(r"(?:^|/)year=(\d{4})/month=(\d{1,2})/day=(\d{1,2})/", re.ASCII)
_PASSED_OVER = re.compile(r"[\s_-]+")
_SHOWN = 60  # characters of a wrong value that a message repeats


@dataclass(frozen=True, slots=True)
class EventRow:
    """A row that became an event."""

    day: date
    """UTC day of the event, which is its partition."""
    line: bytes
    """The event as JSON, without a line's end."""


@dataclass(frozen=True, slots=True)
class RefusedRow:
    """A row that can't become one."""

    reason: CsvReason
    message: str


@dataclass(frozen=True, slots=True)
class _Column:
    """A column of the file."""

    key: str
    """Key of the payload."""
    convert: Convert | None
    """None: the contract doesn't know it, and its text is kept as it is."""


def event_id(producer_id: str, number: int, happened: datetime) -> str:
    """The id of a row's event: a UUIDv7 by its form, and the same each time.

    Args:
        producer_id: tells the file's place and content.
        number: the row's sequence number.
        happened: when, in UTC; what lies before 1970 has the time 0.

    Source: https://www.rfc-editor.org/rfc/rfc9562#section-5.7
    """
    milliseconds = max(0, (happened - _EPOCH) // _MILLISECOND)
    noise = hashlib.sha256(f"{producer_id}/{number}".encode()).hexdigest()
    moment_part = f"{milliseconds:012x}"
    variant = f"{int(noise[3], 16) & 0x3 | 0x8:x}"
    return f"{moment_part[:8]}-{moment_part[8:]}-7{noise[:3]}-{variant}{noise[4:7]}-{noise[7:19]}"


def day_of_key(key: str) -> date | None:
    """The day that folders `year=/month=/day=/` of a key name.

    >>> day_of_key("in/year=2026/month=11/day=20/a.csv")
    datetime.date(2026, 11, 20)
    """
    found = _DAY_OF_KEY.findall(key)
    try:
        return date(*map(int, found[-1])) if found else None
    except ValueError:
        return None  # the 30th of February


class Events:
    """Makes events of the rows of one file."""

    def __init__(self, drop: Drop, contract: Contract, *, producer_id: str, key: str, header: Sequence[str]) -> None:
        """Match the header with the contract.

        Args:
            drop: where the file lies.
            contract: of its dataset.
            producer_id: producer of its events.
            key: its key in the bucket.
            header: names of its columns.

        Raises:
            UnreadableFileError: the columns are not the contract's, or no row's time can be told.
        """
        self._drop = drop
        self._version = contract.version
        self._producer_id = producer_id
        self._zone = zone(drop.timezone)
        self._columns = _columns(header, contract, drop)
        self._time = next((at for at, one in enumerate(self._columns) if one.key == drop.event_time), None)
        self._day = self._fixed_day(key) if self._time is None else None

    def _fixed_day(self, key: str) -> datetime | None:
        if self._drop.event_time is not None:
            raise UnreadableFileError(
                CsvReason.BAD_HEADER, f"there is no column {self._drop.event_time}, which tells when an event happened"
            )
        day = day_of_key(key)
        if day is None:
            raise UnreadableFileError(
                CsvReason.NO_EVENT_TIME,
                f"drop {self._drop.name} declares no event_time, and the key names no day: put the file below "
                "year=YYYY/month=MM/day=DD/, or declare the field that tells when an event happened",
            )
        # folders name days of UTC, as the stream door's do
        return datetime.combine(day, time(), UTC)

    def take(self, row: Row) -> EventRow | RefusedRow:
        """Make the event of a row."""
        values = row.values
        if len(values) != len(self._columns):
            message = f"the row has {len(values)} columns, and the header has {len(self._columns)}"
            return RefusedRow(CsvReason.WRONG_COLUMN_COUNT, message)
        happened = self._day if self._time is None else moment(values[self._time], self._zone)
        if happened is None:
            return RefusedRow(CsvReason.NO_EVENT_TIME, self._no_time(values))
        payload: dict[str, Any] = {}
        for column, text in zip(self._columns, values, strict=True):
            value = text if column.convert is None else column.convert(text)
            if value is not None:
                payload[column.key] = value
        sequence = row.number - 1  # the header is row 0
        event = Event(
            event_id=event_id(self._producer_id, sequence, happened),
            tenant=self._drop.tenant,
            dataset=self._drop.dataset,
            event_time=happened,
            producer_id=self._producer_id,
            sequence=sequence,
            schema_version=self._version,
            payload=payload,
        )
        return EventRow(happened.date(), event.encode())

    def _no_time(self, values: list[str]) -> str:
        given = values[self._time] if self._time is not None else ""
        return (
            f"{self._drop.event_time}: got {given[:_SHOWN]!r}, allowed is ISO 8601, as 2026-11-20T10:00:00Z, "
            f"2026-11-20 10:00:00 ({self._drop.timezone}) or 2026-11-20"
        )


def plain_name(name: str) -> str:
    """A name without what people write differently.

    >>> plain_name(" Invoice No"), plain_name("invoice_no")
    ('invoiceno', 'invoiceno')
    """
    return _PASSED_OVER.sub("", name).casefold()


def _columns(header: Sequence[str], contract: Contract, drop: Drop) -> list[_Column]:
    fields = contract.field_names()
    owners = [_field(name, fields) for name in header]
    columns = ", ".join(repr(name[:_SHOWN]) for name in header[:_SHOWN])
    if not any(owners):
        raise UnreadableFileError(
            CsvReason.BAD_HEADER,
            f"the first line is no header of {drop.dataset}: it has {columns}, and the contract: {', '.join(fields)}; "
            f"columns are told apart by {drop.delimiter!r}",
        )
    for name in fields:
        rivals = [header[at] for at, owner in enumerate(owners) if owner == name]
        if len(rivals) > 1:
            raise UnreadableFileError(
                CsvReason.BAD_HEADER, f"the columns {', '.join(map(repr, rivals))} all are the contract's {name}"
            )
    missing = [name for name in contract.required_names() if name not in owners]
    if missing:
        raise UnreadableFileError(
            CsvReason.BAD_HEADER,
            f"required columns are missing: {', '.join(missing)}; the file has {columns}",
        )
    zone_of_drop = zone(drop.timezone)
    kinds = {one.name: text_converter(one.type, zone_of_drop) for one in contract.fields}
    found: list[_Column] = []
    for at, (name, owner) in enumerate(zip(header, owners, strict=True)):
        found.append(_Column(owner, kinds[owner]) if owner else _extra(name, at))
    twice = first_repeated(one.key for one in found)
    if twice is not None:
        raise UnreadableFileError(CsvReason.BAD_HEADER, f"the column {twice[:_SHOWN]!r} is there twice")
    return found


def _field(name: str, fields: Sequence[str]) -> str | None:
    """The contract's field that a column is."""
    if name in fields:
        return name
    plain = plain_name(name)
    alike = [one for one in fields if plain_name(one) == plain] if plain else []
    if len(alike) > 1:
        raise UnreadableFileError(
            CsvReason.BAD_HEADER, f"the column {name!r} may be {' or '.join(alike)} of the contract"
        )
    return alike[0] if alike else None


def _extra(name: str, at: int) -> _Column:
    """A column that the contract doesn't know."""
    if name.strip():
        return _Column(name, None)
    # spreadsheets leave columns without a name, most of them empty
    return _Column(f"${at + 1}", lambda text: text or None)
