"""Owns reading records out of the log's segments: those that are still to be delivered, and those to be carried on."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from firehose.frames import Kind, payload_at, read_frames
from firehose.payloads import (
    Carried,
    Stage,
    decode_carried,
    decode_made,
    decode_put,
    read_carried_head,
    read_made_head,
    read_put_head,
)
from firehose.records import Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path
    from uuid import UUID

    from firehose.frames import Frame
    from firehose.records import Failed

__all__ = [
    "CLAIMED",
    "DELIVERED",
    "FREE",
    "STAYED",
    "FoundRecords",
    "PendingMade",
    "PendingPut",
    "collect",
    "mapped",
    "read_waiting",
]

FREE, STAYED, CLAIMED, DELIVERED = 0, 1, 2, 3
"""States of a record: not looked at; processed, and not in the backup yet; in an object to be written again; done."""


@dataclass(frozen=True, slots=True)
class PendingPut:
    """Records of one put that are in no delivery yet."""

    stream: UUID
    arrival_ms: int
    numbers: list[int]
    data: list[bytes]
    is_made: bool = False
    """Processors made others of them: only the backup still needs them."""


@dataclass(frozen=True, slots=True)
class PendingMade:
    """Records that processors made, and that are in no delivery yet."""

    stream: UUID
    numbers: list[int]
    """Of the records that go on, and then of those that failed."""
    records: list[Record]
    failed: list[Failed]


@dataclass(slots=True)
class FoundRecords:
    """Records of one frame, and the state of each."""

    segment: int
    offset: int
    first: int
    """Number of the first record, unless they were carried."""
    state: bytearray
    kind: Kind = Kind.PUT
    numbers: Sequence[int] = ()
    """Of records that were carried."""
    stage: Stage = Stage.PUT
    """Of all of them, but for those put that stay since."""

    def of(self, state: int) -> list[int]:
        """Places of the records in a state."""
        return [at for at, found in enumerate(self.state) if found == state]

    def number(self, at: int) -> int:
        """Number of the record at a place."""
        return self.numbers[at] if self.numbers else self.first + at


class mapped:  # noqa: N801 - used like a function
    """A file's bytes for the length of a `with`, without reading them all at once."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        self._view = memoryview(self._map)

    def __enter__(self) -> memoryview:
        return self._view

    def __exit__(self, *_: object) -> None:
        self._view.release()
        self._map.close()
        self._file.close()


def collect(
    path: Path, puts: list[FoundRecords], pending: list[PendingPut | PendingMade]
) -> dict[int, tuple[int, bytes]]:
    """Read a segment's records that aren't delivered: those in no object into `pending`, the others by number.

    The latter with their arrival, in milliseconds since the epoch.
    """
    claimed: dict[int, tuple[int, bytes]] = {}
    wanted = [one for one in puts if one.state.count(DELIVERED) < len(one.state)]
    if not wanted:
        return claimed
    with mapped(path) as data:
        for one in wanted:
            payload = payload_at(data, one.offset)
            found = _READERS[one.kind](one, payload)
            payload.release()
            claimed |= found[0]
            pending += found[1]
    return claimed


_Read = tuple[dict[int, tuple[int, bytes]], list[PendingPut | PendingMade]]
"""Of a frame: records in objects that are written again, with their arrival, by number; and what is to be processed."""


def _read_put(one: FoundRecords, payload: memoryview) -> _Read:
    put = decode_put(payload)
    pending: list[PendingPut | PendingMade] = []
    for state in (FREE, STAYED):
        if there := one.of(state):
            numbers = [put.first + at for at in there]
            data = [put.data[at] for at in there]
            pending.append(PendingPut(put.stream, put.arrival_ms, numbers, data, is_made=state == STAYED))
    return {put.first + at: (put.arrival_ms, put.data[at]) for at in one.of(CLAIMED)}, pending


def _read_made(one: FoundRecords, payload: memoryview) -> _Read:
    made = decode_made(payload)
    return _read_records(one, made.stream, made.records, made.failed)


def _read_carried(one: FoundRecords, payload: memoryview) -> _Read:
    carried = decode_carried(payload)
    if carried.stage is Stage.MADE:
        return _read_records(one, carried.stream, carried.records, carried.failed)
    claimed = {one.number(at): (carried.all[at].arrival_ms, carried.all[at].raw) for at in one.of(CLAIMED)}
    pending: list[PendingPut | PendingMade] = []
    for state in (FREE, STAYED):
        # one put is one chunk, and they came with one arrival
        for arrival, group in groupby(one.of(state), key=lambda at: carried.records[at].arrival_ms):
            there = list(group)
            data = [carried.records[at].raw for at in there]
            numbers = [one.number(at) for at in there]
            pending.append(PendingPut(carried.stream, arrival, numbers, data, is_made=state == STAYED))
    return claimed, pending


def _read_records(one: FoundRecords, stream: UUID, records: list[Record], failed: list[Failed]) -> _Read:
    made: list[Record | Failed] = [*records, *failed]
    claimed = {one.number(at): (made[at].arrival_ms, made[at].raw) for at in one.of(CLAIMED)}
    there, good = one.of(FREE), len(records)
    if not there:
        return claimed, []
    some = [records[at] for at in there if at < good], [failed[at - good] for at in there if at >= good]
    return claimed, [PendingMade(stream, [one.number(at) for at in there], *some)]


_READERS: dict[Kind, Callable[[FoundRecords, memoryview], _Read]] = {
    Kind.PUT: _read_put,
    Kind.MADE: _read_made,
    Kind.CARRIED: _read_carried,
}


def read_waiting(path: Path, wanted: Mapping[int, Stage]) -> list[Carried]:
    """Read records of a segment that was closed, to carry them on: for each frame those that are wanted.

    Args:
        path: the segment.
        wanted: numbers of records, and how far each has come.
    """
    found: list[Carried] = []
    with mapped(path) as data:
        for frame in read_frames(data, 0):
            found += _waiting(frame, wanted)
            frame.payload.release()
    return found


def _waiting(frame: Frame, wanted: Mapping[int, Stage]) -> Iterator[Carried]:
    if frame.kind is Kind.PUT:
        stream, first, _, count = read_put_head(frame.payload)
        numbers: Sequence[int] = range(first, first + count)
    elif frame.kind is Kind.MADE:
        stream, first, count, _, _ = read_made_head(frame.payload)
        numbers = range(first, first + count)
    elif frame.kind is Kind.CARRIED:
        stream, _, numbers = read_carried_head(frame.payload)
    else:
        return
    if not any(number in wanted for number in numbers):
        return
    records, failed = _contents(frame)
    both: list[Record | Failed] = [*records, *failed]
    made = list(zip(numbers, both, strict=True))
    for stage in Stage:
        there = [(number, one) for number, one in made if wanted.get(number) is stage]
        if there:
            yield Carried.of(stream, stage, there)


def _contents(frame: Frame) -> tuple[list[Record], list[Failed]]:
    if frame.kind is Kind.PUT:
        put = decode_put(frame.payload)
        return [Record(raw, put.arrival_ms) for raw in put.data], []
    made = decode_made(frame.payload) if frame.kind is Kind.MADE else decode_carried(frame.payload)
    return made.records, made.failed
