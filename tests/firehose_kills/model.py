"""Owns what the campaign sent, what of it has to be in S3, each item of a record by its place, and the comparison."""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["BACKUP", "DESTINATION", "ERRORS", "DifferenceError", "Model", "Put", "Sent"]

DESTINATION, BACKUP = "destination", "backup"
ERRORS = "errors/"
"""With the error-output-type behind it."""
_Item = tuple[str, str, bytes]
"""A stream's name, a place of it, and a hash of what lies there."""


class DifferenceError(AssertionError):
    """S3 doesn't hold what it has to."""


@dataclass(frozen=True, slots=True)
class Sent:
    """A record to send."""

    raw: bytes
    makes: tuple[tuple[str, bytes], ...]
    """What has to be in S3 of it: the place, and the bytes there."""


@dataclass(frozen=True, slots=True)
class Put:
    """Records that were sent together."""

    number: int
    items: list[_Item]


@dataclass
class Model:
    """All since the last comparison; used by many threads."""

    acknowledged: set[_Item] = field(default_factory=set)
    unsure: dict[int, Put] = field(default_factory=dict)
    """Sent, and not answered, or refused: all of a put may be there, or nothing."""
    total: Counter[str] = field(default_factory=Counter)
    places: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Items found, by stream and place."""
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _numbers: Iterator[int] = field(default_factory=count)

    def sending(self, stream: str, records: Iterable[Sent]) -> Put:
        """Note what is about to be sent."""
        items = [(stream, place, _hash(raw)) for one in records for place, raw in one.makes]
        with self._lock:
            put = Put(next(self._numbers), items)
            self.unsure[put.number] = put
        return put

    def answered(self, put: Put) -> None:
        """Note that it was acknowledged."""
        with self._lock:
            self.acknowledged.update(put.items)
            del self.unsure[put.number]

    def compare(self, found: Iterable[tuple[str, str, bytes]]) -> None:
        """Hold what is in S3 to what was sent; then forget both.

        Args:
            found: each item with its stream and its place.

        Raises:
            DifferenceError: what an acknowledged record makes isn't there, something is there that nobody sent, or is
                there twice, or a put is there in part.
        """
        there = Counter((stream, place, _hash(raw)) for stream, place, raw in found)
        unsure = {item for put in self.unsure.values() for item in put.items}
        different = {
            "missing": [one for one in self.acknowledged if one not in there],
            "nobody's": [one for one in there if one not in self.acknowledged and one not in unsure],
            "twice": [one for one, times in there.items() if times > 1],
            "in part": [
                put.items[0]
                for put in self.unsure.values()
                if 0 < sum(1 for one in put.items if one in there) < len(put.items)
            ],
        }
        self.total.update(
            acknowledged=len(self.acknowledged),
            delivered=len(there),
            unanswered=len(unsure),
            unanswered_delivered=len(there.keys() & unsure),
        )
        self.places.update((stream, place) for stream, place, _ in there)
        if any(different.values()):
            by = {
                what: dict(Counter(f"{stream} {place}" for stream, place, _ in those))
                for what, those in different.items()
                if those
            }
            raise DifferenceError(f"of {len(self.acknowledged)} acknowledged items: {by}")
        self.acknowledged.clear()
        self.unsure.clear()


def _hash(item: bytes) -> bytes:
    return hashlib.blake2b(item, digest_size=12).digest()
