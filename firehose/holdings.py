"""Owns the count of what each segment of the log holds: how far each record has come, and where it was carried."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from firehose.payloads import Stage
from firehose.recovery import SETTLED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from firehose.payloads import Carried
    from firehose.recovery import Recovered

__all__ = ["BUSY", "CARRYING", "Holdings"]

BUSY, CARRYING = 3, 4
"""States of a record beside `Stage`: a frame that settles it is on its way to the log; it is being carried."""
_STAGES = frozenset(int(one) for one in Stage)
_LONG = 4
"""Segments that a log may have, however little in it is pending."""
_LITTLE = 2
"""Less than one part in so many is little."""


@dataclass(slots=True)
class _Held:
    index: int
    first: int
    """Number of the first record it may hold."""
    size: int
    states: bytearray = field(default_factory=bytearray)
    """How far each record has come, from the first on."""
    pending: int = 0
    """Records it is kept for: its own, and those carried into it."""
    carried: int = 0
    """Records that were carried into it, delivered or not."""

    def settle(self, numbers: Sequence[int], state: int) -> None:
        """Note how far some of its own records, in order, have come."""
        states, first = self.states, self.first
        if numbers[0] < first or numbers[-1] >= first + len(states):
            raise RuntimeError(f"segment {self.index} of the log has no records {numbers[0]} to {numbers[-1]}")
        # mostly one behind the other: then one slice is enough
        if numbers[-1] - numbers[0] == len(numbers) - 1:
            start = numbers[0] - first
            states[start : start + len(numbers)] = bytes([state]) * len(numbers)
        else:
            for number in numbers:
                states[number - first] = state


class Holdings:
    """What the log's segments hold, the oldest first.

    Args:
        recovered: what was found at the start.
        segment_bytes: size of a new segment.
    """

    def __init__(self, recovered: Recovered, segment_bytes: int) -> None:
        self._segment_bytes = segment_bytes
        self._held: deque[_Held] = deque()
        self._carried: dict[int, tuple[_Held, int]] = {}
        """Records that were carried, by number: where they are, and how far they have come."""
        for one in recovered.segments:
            held = _Held(one.index, one.first, one.size, one.states, one.pending, len(one.carried))
            self._held.append(held)
            self._carried |= {number: (held, int(stage)) for number, stage in one.carried.items()}
        self.is_carrying = False
        """Whether records may be on their way into the newest segment."""
        self._logged = recovered.next_number
        """Number behind the last record that is in the log."""

    @property
    def size(self) -> int:
        """Bytes of all segments on disk."""
        return sum(one.size for one in self._held)

    @property
    def oldest(self) -> int:
        """Index of the oldest segment."""
        return self._held[0].index

    @property
    def is_mostly_settled(self) -> bool:
        """Whether little of a long log is pending."""
        records = sum(len(one.states) + one.carried for one in self._held)
        return len(self._held) > _LONG and sum(one.pending for one in self._held) * _LITTLE <= records

    def waiting_in(self, index: int) -> dict[int, Stage]:
        """Records of a segment that could be carried on, by number: how far each has come."""
        held = next(one for one in self._held if one.index == index)
        wanted = {held.first + at: Stage(state) for at, state in enumerate(held.states) if state in _STAGES}
        carried = self._carried.items()
        return wanted | {
            number: Stage(state) for number, (place, state) in carried if place is held and state in _STAGES
        }

    def take_settled(self, is_needed: Callable[[int], bool]) -> list[int]:
        """Let go of the oldest segments as far as nothing in them is pending; returns their indexes.

        Args:
            is_needed: tells by its index whether a segment has to stay all the same.
        """
        found = []
        # the last one known may be the one that is written to
        while len(self._held) > 1 and self._held[0].pending == 0 and not is_needed(self._held[0].index):
            found.append(self._held.popleft().index)
        return found

    def forget(self, numbers: Sequence[int]) -> None:
        """Count records as settled."""
        for held, part in self._parts(numbers):
            if held is not None:
                held.pending -= len(part)
                held.settle(part, SETTLED)
            for number in part if held is None else ():
                place, _ = self._carried.pop(number)
                place.pending -= 1

    def state(self, number: int) -> int:
        """How far a record has come."""
        if number in self._carried:
            return self._carried[number][1]
        ((held, _),) = self._parts([number])
        at = -1 if held is None else number - held.first
        return held.states[at] if held is not None and 0 <= at < len(held.states) else SETTLED

    def were_carried(self, numbers: Sequence[int]) -> bool:
        """Tell whether any of these records was carried, or is being carried."""
        if not self._carried and not self.is_carrying:
            return False
        return any(number in self._carried or self.state(number) == CARRYING for number in numbers)

    def mark(self, numbers: Sequence[int], state: int) -> None:
        """Note how far records have come."""
        for held, part in self._parts(numbers):
            if held is not None:
                held.settle(part, state)
            for number in part if held is None else ():
                self._carried[number] = self._carried[number][0], state

    def _parts(self, numbers: Sequence[int]) -> Iterator[tuple[_Held | None, Sequence[int]]]:
        # by the segment that they were put into, in order; those that were carried, for themselves
        ordered = sorted(numbers)
        apart = [number for number in ordered if number in self._carried] if self._carried else []
        if apart:
            # before they are handed out, as whoever takes them may let go of them
            ordered = [number for number in ordered if number not in self._carried]
            yield None, apart
        starts = [one.first for one in self._held]
        at = 0
        while at < len(ordered):
            place = max(bisect_right(starts, ordered[at]) - 1, 0)
            end = bisect_left(ordered, starts[place + 1], at) if place + 1 < len(starts) else len(ordered)
            yield self._held[place], ordered[at:end]
            at = end

    def note(self, segment: int, first: int, count: int, stage: Stage) -> None:
        """Count records that came into the log.

        Args:
            segment: index of the segment; this is called in the log's order, so an unknown one is behind the others.
            first: number of the first record.
            count: how many; 0 of a frame that has none.
            stage: how far they have come.
        """
        if not self._held or self._held[-1].index < segment:
            self._held.append(_Held(segment, first if count else self._logged, self._segment_bytes))
        if count:
            held = self._held[-1]
            held.pending += count
            # numbers of what didn't come into the log are left out
            held.states += bytes([SETTLED]) * (first - held.first - len(held.states)) + bytes([stage]) * count
            self._logged = first + count

    def note_carried(self, carried: Carried) -> None:
        """Count records that were carried into the newest segment."""
        into = self._held[-1]
        for number in carried.numbers:
            state = self.state(number)
            if state == SETTLED:
                continue  # its stream was deleted meanwhile
            ((held, _),) = self._parts([number])
            (held or self._carried[number][0]).pending -= 1
            if held is not None:
                held.settle([number], SETTLED)
            into.pending += 1
            into.carried += 1
            self._carried[number] = into, carried.stage if state == CARRYING else state
