"""Owns reading the log at the server's start: which records are still to be delivered, which objects to write again."""

from __future__ import annotations

import logging
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from firehose.found import CLAIMED, DELIVERED, FREE, STAYED, FoundRecords, PendingMade, PendingPut, collect, mapped
from firehose.frames import HEADER_BYTES, FormatError, Frame, Kind, SegmentHeader, read_frames
from firehose.payloads import (
    Intent,
    Stage,
    decode_done,
    decode_intent,
    decode_settled,
    read_carried_head,
    read_made_head,
    read_put_head,
)
from lake.errors import EnvironmentProblemError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path
    from uuid import UUID


__all__ = [
    "SETTLED",
    "PendingDelivery",
    "PendingSegment",
    "Recovered",
    "recover",
]

_log = logging.getLogger(__name__)
SETTLED = 255
"""State of a record that a segment needs no more."""
_LOOKED_AT = 1 << 16
"""Bytes behind the last frame that are looked at to tell a torn one from room that was never used."""


@dataclass(frozen=True, slots=True)
class PendingDelivery:
    """An object to write again."""

    intent: Intent
    data: list[bytes]
    """Its records, in order."""
    oldest_ms: int
    """Arrival of the oldest of them."""
    segment: int
    """Index of the segment that has its intent."""


@dataclass(frozen=True, slots=True)
class PendingSegment:
    """A segment found, and how many of its records aren't delivered."""

    index: int
    first: int
    """Number of its first record, or of the one that would come next."""
    states: bytearray
    """How far each record from `first` on has come: a `Stage`, or `SETTLED`; one that was carried is settled here."""
    carried: dict[int, Stage]
    """Records that were carried into it and aren't delivered, by number."""
    size: int
    """Bytes on disk."""

    @property
    def pending(self) -> int:
        """Records that aren't delivered."""
        return len(self.states) - self.states.count(SETTLED) + len(self.carried)


@dataclass(slots=True)
class Recovered:
    """What the log holds."""

    puts: list[PendingPut | PendingMade] = field(default_factory=list)
    """In the log's order."""
    deliveries: list[PendingDelivery] = field(default_factory=list)
    segments: list[PendingSegment] = field(default_factory=list)
    next_index: int = 1
    previous_end: int = 0
    next_sequence: int = 1
    next_number: int = 1


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
        self._puts: list[FoundRecords] = []
        self._carried: list[FoundRecords] = []
        self._moved: dict[int, tuple[FoundRecords, int]] = {}
        """Where the records are that were carried, by number."""
        self._intents: dict[UUID, tuple[Intent, int]] = {}
        """Those that aren't done, with their segment's index."""

    def read(self, header: SegmentHeader, path: Path, limit: int | None) -> None:
        """Read a segment, up to where the next one's header says that it ends."""
        segment = _FoundSegment(header.index, path, first=self._found.next_number)
        self._segments.append(segment)
        with mapped(path) as data:
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
            self._found_put(frame, stream, first, count)
        elif frame.kind is Kind.MADE:
            stream, first, count, sources, stay = read_made_head(frame.payload)
            self._mark(sources, STAYED if stay else DELIVERED)
            self._found_put(frame, stream, first, count)
        elif frame.kind is Kind.CARRIED:
            self._found_carried(frame, *read_carried_head(frame.payload))
        elif frame.kind is Kind.INTENT:
            intent = decode_intent(frame.payload)
            self._intents[intent.delivery] = intent, self._segments[-1].index
        elif frame.kind is Kind.SETTLED:
            delivery, numbers = decode_settled(frame.payload)
            self._intents.pop(delivery, None)
            self._mark(numbers, DELIVERED)
        else:
            for delivery in decode_done(frame.payload):
                done, _ = self._intents.pop(delivery, (None, 0))
                if done is not None:
                    self._mark(done.numbers, DELIVERED)

    def _found_put(self, frame: Frame, stream: UUID, first: int, count: int) -> None:
        state = FREE if stream in self._streams else DELIVERED
        stage = Stage.MADE if frame.kind is Kind.MADE else Stage.PUT
        place = len(self._segments) - 1
        self._puts.append(FoundRecords(place, frame.offset, first, bytearray([state]) * count, frame.kind, stage=stage))
        self._found.next_number = first + count

    def _found_carried(self, frame: Frame, stream: UUID, stage: Stage, numbers: Sequence[int]) -> None:
        state = DELIVERED if stream not in self._streams else STAYED if stage is Stage.STAYED else FREE
        found = FoundRecords(
            *(len(self._segments) - 1, frame.offset, 0, bytearray([state]) * len(numbers), frame.kind, numbers, stage)
        )
        for put, at in self._places(numbers):
            put.state[at] = DELIVERED
        self._carried.append(found)
        self._moved |= {number: (found, at) for at, number in enumerate(numbers)}
        self._found.next_number = max(self._found.next_number, *(number + 1 for number in numbers))

    def result(self) -> Recovered:
        """Read the records that are still to be delivered, and sum up."""
        found, segments = self._found, self._segments
        intents = [one for one in self._intents.values() if self._claim(one[0])]
        claimed: dict[int, tuple[int, bytes]] = {}
        for place, segment in enumerate(segments):
            puts = [one for one in (*self._puts, *self._carried) if one.segment == place]
            puts.sort(key=lambda one: one.offset)
            claimed |= collect(segment.path, puts, found.puts)
            found.segments.append(_summed(segment, puts))
        for intent, index in intents:
            records = [claimed[number] for number in intent.numbers]
            oldest = min((arrival for arrival, _ in records), default=0)
            found.deliveries.append(PendingDelivery(intent, [raw for _, raw in records], oldest, index))
        if segments:
            found.next_index, found.previous_end = segments[-1].index + 1, segments[-1].end
        return found

    def _claim(self, intent: Intent) -> bool:
        if intent.stream not in self._streams:
            return False
        places = list(self._places(intent.numbers))
        if len(places) < len(intent.numbers):
            _log.error(
                "%s can't be written again: %d of its %d records can't be read; the others are delivered anew",
                *(intent.key, len(intent.numbers) - len(places), len(intent.numbers)),
            )
            return False
        for put, at in places:
            put.state[at] = max(put.state[at], CLAIMED)
        return True

    def _mark(self, numbers: Iterable[int], state: int) -> None:
        for put, at in self._places(numbers):
            put.state[at] = max(put.state[at], state)

    def _places(self, numbers: Iterable[int]) -> Iterator[tuple[FoundRecords, int]]:
        # an object's records mostly come put after put, so the put is looked up only when it changes
        puts, put = self._puts, None
        for number in numbers:
            if number in self._moved:
                yield self._moved[number]
                continue
            if put is None or not put.first <= number < put.first + len(put.state):
                place = bisect_right(puts, number, key=lambda one: one.first) - 1
                if place < 0 or number >= puts[place].first + len(puts[place].state):
                    continue  # its segment was removed, so it is delivered
                put = puts[place]
            yield put, number - put.first


def _summed(segment: _FoundSegment, puts: list[FoundRecords]) -> PendingSegment:
    states, carried = bytearray(), {}
    for one in puts:
        for at, state in enumerate(one.state):
            if state == DELIVERED:
                continue
            # an intent of the backup's is known by its stage being that of a source
            stage = Stage.STAYED if state == STAYED else one.stage
            if one.kind is Kind.CARRIED:
                carried[one.number(at)] = stage
            else:
                place = one.number(at) - segment.first
                states.extend([SETTLED] * (place + 1 - len(states)))
                states[place] = stage
    return PendingSegment(segment.index, segment.first, states, carried, segment.path.stat().st_size)
