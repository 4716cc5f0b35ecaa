"""Owns reading the log at the server's start: which records are still to be delivered, which objects to write again."""

from __future__ import annotations

import logging
import mmap
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from firehose.frames import (
    HEADER_BYTES,
    FormatError,
    Frame,
    Intent,
    Kind,
    SegmentHeader,
    decode_done,
    decode_intent,
    decode_put,
    payload_at,
    read_frames,
    read_put_head,
)
from lake.errors import EnvironmentProblemError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from uuid import UUID

__all__ = ["PendingDelivery", "PendingPut", "PendingSegment", "Recovered", "recover"]

_log = logging.getLogger(__name__)
_FREE, _CLAIMED, _DELIVERED = 0, 1, 2
_LOOKED_AT = 1 << 16
"""Bytes behind the last frame that are looked at to tell a torn one from room that was never used."""


@dataclass(frozen=True, slots=True)
class PendingPut:
    """Records of one put that are in no delivery yet."""

    stream: UUID
    arrival_ms: int
    numbers: list[int]
    data: list[bytes]


@dataclass(frozen=True, slots=True)
class PendingDelivery:
    """An object to write again."""

    intent: Intent
    data: list[bytes]
    """Its records, in order."""
    oldest_ms: int
    """Arrival of the oldest of them."""


@dataclass(frozen=True, slots=True)
class PendingSegment:
    """A segment found, and how many of its records aren't delivered."""

    index: int
    first: int
    """Number of its first record, or of the one that would come next."""
    pending: int
    size: int
    """Bytes on disk."""


@dataclass(slots=True)
class Recovered:
    """What the log holds."""

    puts: list[PendingPut] = field(default_factory=list)
    deliveries: list[PendingDelivery] = field(default_factory=list)
    segments: list[PendingSegment] = field(default_factory=list)
    next_index: int = 1
    previous_end: int = 0
    next_sequence: int = 1
    next_number: int = 1


@dataclass(slots=True)
class _FoundPut:
    segment: int
    offset: int
    first: int
    state: bytearray


@dataclass(slots=True)
class _FoundSegment:
    index: int
    path: Path
    end: int = HEADER_BYTES
    first: int = 0


def recover(folder: Path, streams: set[UUID]) -> Recovered:
    """Read the log of a folder; records of streams that don't exist any more count as delivered.

    Raises:
        EnvironmentProblemError: a file there is no segment, or of another format version.
    """
    segments = _segments(folder)
    ends = {header.index - 1: header.previous_end for header, _ in segments}
    reading = _Reading(streams)
    for header, path in segments:
        reading.read(header, path, ends.get(header.index))
    return reading.result()


def _segments(folder: Path) -> list[tuple[SegmentHeader, Path]]:
    found = []
    paths = sorted(folder.glob("*.wal"))
    for path in paths:
        with path.open("rb") as file:
            raw = file.read(HEADER_BYTES)
        try:
            found.append((SegmentHeader.decode(raw), path))
        except FormatError as error:
            # the last segment may have been cut short between its creation and its header: nothing is in it
            if path == paths[-1] and not any(raw):
                path.unlink()
                continue
            raise EnvironmentProblemError(f"{path}: {error}; move it away if it isn't this server's") from None
    return found


class _Reading:
    """What was read so far, segment by segment, in the log's order."""

    def __init__(self, streams: set[UUID]) -> None:
        self._streams = streams
        self._found = Recovered()
        self._segments: list[_FoundSegment] = []
        self._puts: list[_FoundPut] = []
        self._intents: dict[UUID, Intent] = {}

    def read(self, header: SegmentHeader, path: Path, limit: int | None) -> None:
        """Read a segment, up to where the next one's header says that it ends."""
        segment = _FoundSegment(header.index, path, first=self._found.next_number)
        self._segments.append(segment)
        with _mapped(path) as data:
            within = data[:limit]
            for frame in read_frames(within, self._found.next_sequence - 1):
                segment.end, self._found.next_sequence = frame.end, frame.sequence + 1
                self._take(frame)
                frame.payload.release()
            within.release()
            torn = limit is None and any(data[segment.end : segment.end + _LOOKED_AT])
        if limit is not None and segment.end < limit:
            kept = path.with_suffix(".damaged")
            kept.unlink(missing_ok=True)
            kept.hardlink_to(path)
            _log.error(
                "%s is damaged at offset %d: up to %d bytes of acknowledged records can't be read; it is kept as %s",
                *(path, segment.end, limit - segment.end, kept.name),
            )
        elif torn:
            _log.warning("%s ended in a frame that isn't whole: it is cut off at offset %d", path, segment.end)

    def _take(self, frame: Frame) -> None:
        if frame.kind is Kind.PUT:
            stream, first, _, count = read_put_head(frame.payload)
            state = _FREE if stream in self._streams else _DELIVERED
            place = len(self._segments) - 1
            self._puts.append(_FoundPut(place, frame.offset, first, bytearray([state]) * count))
            self._found.next_number = first + count
        elif frame.kind is Kind.INTENT:
            intent = decode_intent(frame.payload)
            self._intents[intent.delivery] = intent
        else:
            for delivery in decode_done(frame.payload):
                done = self._intents.pop(delivery, None)
                if done is not None:
                    _mark(self._puts, done.numbers, _DELIVERED)

    def result(self) -> Recovered:
        """Read the records that are still to be delivered, and sum up."""
        found, segments = self._found, self._segments
        for intent in self._intents.values():
            _mark(self._puts, intent.numbers, _CLAIMED)
        claimed: dict[int, tuple[int, bytes]] = {}
        for place, segment in enumerate(segments):
            puts = [one for one in self._puts if one.segment == place]
            claimed |= _collect(segment.path, puts, found.puts)
            pending = sum(len(one.state) - one.state.count(_DELIVERED) for one in puts)
            found.segments.append(PendingSegment(segment.index, segment.first, pending, segment.path.stat().st_size))
        for intent in self._intents.values():
            if intent.stream in self._streams:
                records = [claimed[number] for number in intent.numbers]
                oldest = min((arrival for arrival, _ in records), default=0)
                found.deliveries.append(PendingDelivery(intent, [raw for _, raw in records], oldest))
        if segments:
            found.next_index, found.previous_end = segments[-1].index + 1, segments[-1].end
        return found


class _mapped:  # noqa: N801 - used like a function
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


def _mark(puts: list[_FoundPut], numbers: Iterable[int], state: int) -> None:
    for put, at in _places(puts, numbers):
        put.state[at] = max(put.state[at], state)


def _places(puts: list[_FoundPut], numbers: Iterable[int]) -> Iterator[tuple[_FoundPut, int]]:
    # an object's records mostly come put after put, so the put is looked up only when it changes
    put: _FoundPut | None = None
    for number in numbers:
        if put is None or not put.first <= number < put.first + len(put.state):
            place = bisect_right(puts, number, key=lambda one: one.first) - 1
            if place < 0 or number >= puts[place].first + len(puts[place].state):
                continue  # its segment was removed, so it is delivered
            put = puts[place]
        yield put, number - put.first


def _collect(path: Path, puts: list[_FoundPut], free_puts: list[PendingPut]) -> dict[int, tuple[int, bytes]]:
    """Read a segment's records that aren't delivered: the free ones into puts, those of an intent by number.

    The latter with their arrival, in milliseconds since the epoch.
    """
    claimed: dict[int, tuple[int, bytes]] = {}
    wanted = [one for one in puts if one.state.count(_DELIVERED) < len(one.state)]
    if not wanted:
        return claimed
    with _mapped(path) as data:
        for one in wanted:
            payload = payload_at(data, one.offset)
            put = decode_put(payload)
            payload.release()
            free = [at for at, state in enumerate(one.state) if state == _FREE]
            claimed |= {
                put.first + at: (put.arrival_ms, put.data[at])
                for at, state in enumerate(one.state)
                if state == _CLAIMED
            }
            if free:
                numbers = [put.first + at for at in free]
                free_puts.append(PendingPut(put.stream, put.arrival_ms, numbers, [put.data[at] for at in free]))
    return claimed
