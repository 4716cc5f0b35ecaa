"""Owns sets of sequence numbers as sorted, disjoint ranges: a year of events is one range when nothing is missing."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Ranges", "dealt"]


@dataclass(frozen=True)
class Ranges:
    """Sorted ranges of whole numbers, both ends included, that neither overlap nor touch."""

    spans: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, spans: Iterable[tuple[int, int]]) -> Ranges:
        """Join any spans, in any order, overlapping or not."""
        joined: list[tuple[int, int]] = []
        for first, last in sorted(spans):
            if last < first:
                raise ValueError(f"a range ends before it starts: {first}-{last}")
            if joined and first <= joined[-1][1] + 1:
                joined[-1] = (joined[-1][0], max(joined[-1][1], last))
            else:
                joined.append((first, last))
        return cls(tuple(joined))

    @classmethod
    def parse(cls, text: str) -> Ranges:
        """Read what `str()` wrote.

        >>> Ranges.parse("0-4,7").spans
        ((0, 4), (7, 7))
        """
        spans = [part.partition("-") for part in text.split(",") if part]
        return cls.of((int(first), int(last or first)) for first, _, last in spans)

    def __str__(self) -> str:
        return ",".join(str(first) if first == last else f"{first}-{last}" for first, last in self.spans)

    def __len__(self) -> int:
        # Python's own lengths end here; only a ledger that tells nonsense has more
        return min(sum(last - first + 1 for first, last in self.spans), sys.maxsize)

    def __or__(self, other: Ranges) -> Ranges:
        return Ranges.of((*self.spans, *other.spans))

    def __and__(self, other: Ranges) -> Ranges:
        common = []
        left, right = list(self.spans), list(other.spans)
        i = j = 0
        while i < len(left) and j < len(right):
            first, last = max(left[i][0], right[j][0]), min(left[i][1], right[j][1])
            if first <= last:
                common.append((first, last))
            if left[i][1] < right[j][1]:
                i += 1
            else:
                j += 1
        return Ranges.of(common)

    def __sub__(self, other: Ranges) -> Ranges:
        left: list[tuple[int, int]] = []
        takers = iter(other.spans)
        taker = next(takers, None)
        for first, last in self.spans:
            start = first
            while taker is not None and taker[1] < start:
                taker = next(takers, None)
            while taker is not None and taker[0] <= last:
                if taker[0] > start:
                    left.append((start, taker[0] - 1))
                start = taker[1] + 1
                if taker[1] > last:
                    break  # it may take of the next as well
                taker = next(takers, None)
            if start <= last:
                left.append((start, last))
        return Ranges(tuple(left))

    def highest(self, count: int) -> Ranges:
        """The so many highest numbers, or all."""
        left: list[tuple[int, int]] = []
        for first, last in reversed(self.spans):
            if count <= 0:
                break
            left.append((max(first, last - count + 1), last))
            count -= last - first + 1
        return Ranges(tuple(reversed(left)))

    def missing_below(self, end: int) -> Ranges:
        """Numbers from 0 up to but without `end` that are not here."""
        gaps: list[tuple[int, int]] = []
        start = 0
        for first, last in self.spans:
            if first >= end:
                break
            if first > start:
                gaps.append((start, first - 1))
            start = last + 1
        if start < end:
            gaps.append((start, end - 1))
        return Ranges(tuple(gaps))


def dealt(numbers: Ranges, takers: Mapping[str, Ranges]) -> tuple[dict[str, Ranges], Ranges]:
    """Numbers by who has them, and those that nobody has; what several have is the first's, in the order given.

    >>> dealt(Ranges(((0, 9),)), {"a": Ranges(((0, 4),)), "b": Ranges(((3, 6), (20, 20)))})
    ({'a': Ranges(spans=((0, 4),)), 'b': Ranges(spans=((5, 6),))}, Ranges(spans=((7, 9),)))
    """
    names = list(takers)
    spans = sorted((*span, place) for place, name in enumerate(names) for span in takers[name].spans)
    # one sweep: a year of days would else be taken from what is left one by one, and what is left has as many holes
    found: dict[str, list[tuple[int, int]]] = {}
    open_: list[tuple[int, int]] = []
    at = seen = 0
    while seen < len(spans) or open_:
        if not open_:
            at = spans[seen][0]
        while seen < len(spans) and spans[seen][0] <= at:
            heappush(open_, (spans[seen][2], spans[seen][1]))
            seen += 1
        while open_ and open_[0][1] < at:
            heappop(open_)
        if open_:
            place, last = open_[0]
            end = min(last, spans[seen][0] - 1) if seen < len(spans) else last
            found.setdefault(names[place], []).append((at, end))
            at = end + 1
    every = Ranges.of(span for taken in takers.values() for span in taken.spans)
    shares = _shares(numbers, found)
    return shares, numbers - every


def _shares(numbers: Ranges, found: Mapping[str, list[tuple[int, int]]]) -> dict[str, Ranges]:
    """What of numbers lies in disjoint spans, by name, in one pass over all."""
    pieces = sorted((*span, name) for name, spans in found.items() for span in spans)
    shares: dict[str, list[tuple[int, int]]] = {}
    place = 0
    for first, last, name in pieces:
        while place < len(numbers.spans) and numbers.spans[place][1] < first:
            place += 1
        here = place
        while here < len(numbers.spans) and numbers.spans[here][0] <= last:
            low, high = numbers.spans[here]
            shares.setdefault(name, []).append((max(low, first), min(high, last)))
            here += 1
        place = max(place, here - 1)
    return {name: Ranges.of(shares[name]) for name in found if name in shares}
