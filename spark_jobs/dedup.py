"""Owns where in a table the duplicates of a batch can lie: spans of event ids, as narrow as the batch allows.

An event id is a UUIDv7: its first 48 bits are the moment it was made, so ids of one time lie together, and Iceberg's
statistics tell which files hold any of them. A late event beside today's would stretch one span over all that lies
between; so a batch's ids are gathered by the hours they were made in, and neighbouring hours are joined until few
spans are left.
"""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["first_id", "id_spans", "joined"]

_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_DAY_MS = 86_400_000
_MOST_SPANS = 24


def first_id(moment_ms: int) -> str:
    """What no UUIDv7 made at a moment (milliseconds since 1970) or later comes before.

    >>> first_id(1_700_000_000_000)
    '018bcfe5-6800'
    """
    digits = f"{max(moment_ms, 0):012x}"
    return f"{digits[:8]}-{digits[8:]}"


def id_spans(ends: Sequence[tuple[str, str]], days: int, now_ms: int) -> list[tuple[str, str]]:
    """Spans of event ids in which the table may hold duplicates of a batch.

    Args:
        ends: the smallest and the largest id of those made in the same hours, in order.
        days: the contract's window: older ids are not looked for.
        now_ms: when the batch was planned, milliseconds since 1970.
    """
    if not ends:
        return []
    oldest = first_id(now_ms - days * _DAY_MS)
    if _made_ms(ends[-1][1]) - _made_ms(ends[0][0]) < _DAY_MS:
        return _within([(ends[0][0], ends[-1][1])], oldest)
    return _within(joined(ends, _MOST_SPANS), oldest)


def joined(spans: Sequence[tuple[str, str]], most: int) -> list[tuple[str, str]]:
    """Join neighbouring spans, the nearest first, until there are at most so many."""
    found = sorted(spans)
    while len(found) > most:
        gaps = [_made_ms(after[0]) - _made_ms(before[1]) for before, after in pairwise(found)]
        place = gaps.index(min(gaps))
        found[place : place + 2] = [(found[place][0], found[place + 1][1])]
    return found


def _within(spans: Sequence[tuple[str, str]], oldest: str) -> list[tuple[str, str]]:
    """The spans in the window; an id that isn't a UUIDv7 tells no time, and is always looked for."""
    return [
        (max(first, oldest) if _UUID7.fullmatch(first) else first, last)
        for first, last in spans
        if last >= oldest or not _UUID7.fullmatch(last)
    ]


def _made_ms(event_id: str) -> int:
    """When an id was made, milliseconds since 1970; of what is no UUIDv7, some number that keeps the order roughly."""
    if _UUID7.fullmatch(event_id):
        return int(event_id[:8] + event_id[9:13], 16)
    return int.from_bytes(event_id.encode()[:6].ljust(6, b"\0"), "big")
