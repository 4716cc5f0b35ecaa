"""Owns the records that processors make of others: what goes on, what failed, and the shape of such a processor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firehose.processing import Reason

__all__ = ["Failed", "Maker", "Record"]


@dataclass(frozen=True, slots=True)
class Record:
    """A record on its way."""

    raw: bytes
    arrival_ms: int
    """When it was received, milliseconds since 1970; what is made of a record has the record's own."""
    keys: tuple[tuple[str, str], ...] = ()
    """Partition keys that a Lambda function gave it, as pairs of name and value."""
    packed: bytes | None = None
    """As it came, if it is the one record that came of decompressing it: where it fails later, this is stored."""

    @property
    def kept(self) -> bytes:
        """What is stored of it where it fails."""
        return self.raw if self.packed is None else self.packed


@dataclass(frozen=True, slots=True)
class Failed:
    """A record that a processor couldn't do anything with."""

    raw: bytes
    """As it came to the processor; to Firehose, if it was decompressed since."""
    arrival_ms: int
    ended_ms: int
    """When the attempt ended, milliseconds since 1970."""
    reason: Reason


class Maker(Protocol):
    """A processor that makes none, one or many records of each, in their order."""

    def apply(self, records: Sequence[Record], now_ms: int) -> tuple[list[Record], list[Failed]]:
        """Make records of these; returns what goes on, and what failed."""
        ...
