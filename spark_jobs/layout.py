"""Owns what a table's metadata tells of its layout: files by partition, their runs, key ranges and deleted rows.

No data is read, and no Spark is needed: PyIceberg reads the manifests. What was planned through before is left out, so
that a look at what is new costs the same on a table a hundred times the size: a manifest that is older than the last
compaction, and holds none of the partitions that were touched since, isn't opened.

Source: https://iceberg.apache.org/spec/#manifests
"""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pyiceberg.conversions import from_bytes
from pyiceberg.manifest import DataFileContent
from pyiceberg.transforms import DayTransform, HourTransform, MonthTransform, YearTransform
from pyiceberg.types import DoubleType, FloatType, IntegerType, LongType, PrimitiveType

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pyiceberg.manifest import DataFile, ManifestEntry, ManifestFile
    from pyiceberg.partitioning import PartitionSpec
    from pyiceberg.table import Table

__all__ = ["FileFacts", "Layout", "Place", "read_layout"]

_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_PATH_COLUMN = 2147483546
"""Field id of `file_path` in a file of position deletes."""
_READERS = 8
_NARROW = 4  # bytes of an int or a float
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class FileFacts:
    """One data file."""

    path: str
    bytes: int
    rows: int
    run: str
    """The write it came from: files of one write are sorted among each other."""
    low: Any = None
    """Smallest value of the first sort key; None where it isn't known."""
    high: Any = None
    deleted: int = 0
    """Rows that position deletes take away, as far as the metadata tells."""
    delete_files: int = 0
    """Files of deletes that name it, or may."""


@dataclass(frozen=True)
class Place:
    """A partition, and what is in it."""

    spec_id: int
    partition: tuple[Any, ...]
    """Values as manifests hold them: days, months and hours are counted from 1970."""
    name: str
    """As in paths: `event_time_day=2013-01-01`; empty where the table has no partitions."""
    until: datetime | None
    """When its time is over; None where no part of it is a time."""
    files: tuple[FileFacts, ...]
    touched_at: int = 0
    """Sequence number of the newest change to it."""


@dataclass(frozen=True)
class Layout:
    """A table as one snapshot has it, or the part of it that was touched since some sequence number."""

    snapshot_id: int | None
    sequence: int
    """The snapshot's own sequence number."""
    places: tuple[Place, ...]
    manifests: int = 0
    manifest_bytes: int = 0
    manifests_read: int = 0
    whole: bool = True
    """Whether every partition is in it."""


def read_layout(table: Table, sort: Sequence[str] = (), *, since: int = 0) -> Layout:
    """What is in a table's current snapshot.

    Args:
        table: the table.
        sort: its sort keys; the ranges of the first are read.
        since: leave out the partitions that were last touched at this sequence number or before.
    """
    snapshot = table.current_snapshot()
    if snapshot is None:
        return Layout(None, 0, ())
    sequence = snapshot.sequence_number or 0
    manifests = snapshot.manifests(table.io)
    totals = (len(manifests), sum(one.manifest_length for one in manifests))
    if since >= sequence:
        return Layout(snapshot.snapshot_id, sequence, (), *totals, whole=False)
    newer = [one for one in manifests if one.sequence_number > since]
    read = _entries(table, newer)
    touched = {_key(one.data_file) for one in read if (one.file_sequence_number or 0) > since}
    if since:
        # a change that only takes files away leaves no newer entry behind, and nothing to compact either
        older = [one for one in manifests if one.sequence_number <= since and _may_hold(one, touched, table)]
        read = [one for one in [*read, *_entries(table, older)] if _key(one.data_file) in touched]
        newer += older
    places = _Collector(table, sort).places(read)
    return Layout(snapshot.snapshot_id, sequence, places, *totals, manifests_read=len(newer), whole=not since)


def _entries(table: Table, manifests: Sequence[ManifestFile]) -> list[ManifestEntry]:
    with ThreadPoolExecutor(_READERS) as pool:
        found = pool.map(lambda one: one.fetch_manifest_entry(table.io), manifests)
    return [entry for entries in found for entry in entries]


def _key(one: DataFile) -> tuple[int, tuple[Any, ...]]:
    return one.spec_id, _values(one)


def _values(one: DataFile) -> tuple[Any, ...]:
    return tuple(one.partition[index] for index in range(len(one.partition)))


def _may_hold(manifest: ManifestFile, touched: Iterable[tuple[int, tuple[Any, ...]]], table: Table) -> bool:
    """Whether a manifest's summaries let any of the touched partitions be in it."""
    spec = table.specs()[manifest.partition_spec_id]
    summaries = manifest.partitions or []
    kinds = [one.field_type for one in spec.partition_type(table.schema()).fields]
    if len(summaries) != len(kinds) or not kinds:
        return True
    spans = [
        (one.contains_null, _ordinal(_bound(kind, one.lower_bound)), _ordinal(_bound(kind, one.upper_bound)))
        for one, kind in zip(summaries, kinds, strict=True)
    ]
    return any(
        spec_id == spec.spec_id
        and all(
            has_null if value is None else low is None or high is None or low <= _ordinal(value) <= high
            for value, (has_null, low, high) in zip(values, spans, strict=True)
        )
        for spec_id, values in touched
    )


def _bound(kind: Any, bound: bytes | None) -> Any:
    """A bound's value; None where it isn't known."""
    if bound is None or not isinstance(kind, PrimitiveType):
        return None
    if isinstance(kind, (LongType, DoubleType)) and len(bound) == _NARROW:
        # written before the column was widened
        return from_bytes(IntegerType() if isinstance(kind, LongType) else FloatType(), bound)
    return from_bytes(kind, bound)


def _ordinal(value: Any) -> Any:
    """A date as the number of days that manifests hold."""
    return (value - _EPOCH.date()).days if isinstance(value, date) and not isinstance(value, datetime) else value


@dataclass
class _Deletes:
    """Deletes that a partition's files are subject to."""

    by_path: dict[str, list[int]] = field(default_factory=dict)
    loose: list[tuple[str, str, int, int, bool]] = field(default_factory=list)
    """Of several files: paths from, to; sequence number; rows; whether they are equality deletes."""


class _Collector:
    """Turns manifest entries into places."""

    def __init__(self, table: Table, sort: Sequence[str]) -> None:
        self._table = table
        self._schema = table.schema()
        # a contract may have grown a column that the table hasn't got yet
        self._key = self._schema.find_field(sort[0]) if sort and sort[0] in self._schema.column_names else None

    def places(self, entries: Sequence[ManifestEntry]) -> tuple[Place, ...]:
        data: dict[tuple[int, tuple[Any, ...]], list[ManifestEntry]] = {}
        deletes: dict[tuple[int, tuple[Any, ...]], _Deletes] = {}
        newest: dict[tuple[int, tuple[Any, ...]], int] = {}
        for one in entries:
            key = _key(one.data_file)
            newest[key] = max(newest.get(key, 0), one.file_sequence_number or 0)
            if one.data_file.content is DataFileContent.DATA:
                data.setdefault(key, []).append(one)
            else:
                self._add(deletes.setdefault(key, _Deletes()), one)
        made = [self._place(key, found, deletes.get(key, _Deletes()), newest[key]) for key, found in data.items()]
        return tuple(sorted(made, key=lambda one: (one.spec_id, one.name)))

    def _add(self, deletes: _Deletes, entry: ManifestEntry) -> None:
        one = entry.data_file
        low = (one.lower_bounds or {}).get(_PATH_COLUMN, b"").decode("utf-8", "replace")
        high = (one.upper_bounds or {}).get(_PATH_COLUMN, b"").decode("utf-8", "replace")
        if one.content is DataFileContent.POSITION_DELETES and low and low == high:
            known = deletes.by_path.setdefault(low, [0, 0])
            known[0] += one.record_count
            known[1] += 1
        else:
            by_value = one.content is DataFileContent.EQUALITY_DELETES
            deletes.loose.append((low, high, entry.sequence_number or 0, one.record_count, by_value))

    def _place(
        self, key: tuple[int, tuple[Any, ...]], entries: Sequence[ManifestEntry], deletes: _Deletes, touched_at: int
    ) -> Place:
        spec = self._table.specs()[key[0]]
        return Place(
            spec_id=key[0],
            partition=key[1],
            name=spec.partition_to_path(entries[0].data_file.partition, self._schema) if spec.fields else "",
            until=_until(spec, key[1]),
            files=tuple(sorted((self._file(one, deletes) for one in entries), key=lambda one: one.path)),
            touched_at=touched_at,
        )

    def _file(self, entry: ManifestEntry, deletes: _Deletes) -> FileFacts:
        one = entry.data_file
        path = one.file_path
        deleted, files = deletes.by_path.get(path, (0, 0))
        for low, high, sequence, rows, by_value in deletes.loose:
            # deletes by position were written by one who saw the file; those by value are for what was there before
            if by_value:
                applies = (entry.sequence_number or 0) < sequence
            else:
                applies = (entry.file_sequence_number or 0) <= sequence and (not low or low <= path <= high)
            if applies:
                deleted, files = deleted + rows, files + 1
        low_key, high_key = self._range(one)
        found = _UUID.search(path.rpartition("/")[2])
        return FileFacts(
            path=path,
            bytes=one.file_size_in_bytes,
            rows=one.record_count,
            run=found[0] if found else path,
            low=low_key,
            high=high_key,
            deleted=min(deleted, one.record_count),
            delete_files=files,
        )

    def _range(self, one: DataFile) -> tuple[Any, Any]:
        if self._key is None:
            return None, None
        kind, field_id = self._key.field_type, self._key.field_id
        low = _bound(kind, (one.lower_bounds or {}).get(field_id))
        high = _bound(kind, (one.upper_bounds or {}).get(field_id))
        return (None, None) if low is None or high is None else (low, high)


def _until(spec: PartitionSpec, values: tuple[Any, ...]) -> datetime | None:
    """The end of the first part of a partition that is a time; None where there is none that Python can tell."""
    for one, value in zip(spec.fields, values, strict=True):
        if value is not None:
            try:
                found = _end(one.transform, _ordinal(value))
            except (OverflowError, ValueError):  # 9999-12-31 stands for "never" in many a system
                return None
            if found is not None:
                return found
    return None


def _end(transform: object, ordinal: int) -> datetime | None:
    match transform:
        case HourTransform():
            return _EPOCH + timedelta(hours=ordinal + 1)
        case DayTransform():
            return _EPOCH + timedelta(days=ordinal + 1)
        case MonthTransform():
            return datetime(1970 + (ordinal + 1) // 12, (ordinal + 1) % 12 + 1, 1, tzinfo=UTC)
        case YearTransform():
            return datetime(1971 + ordinal, 1, 1, tzinfo=UTC)
    return None
