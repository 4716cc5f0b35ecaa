"""Owns the road of records from the log to the buffers: a chain of steps over chunks of records.

A chunk is what one put brought, as parallel lists, so that a step costs little a record. A step takes a chunk and
returns what goes on; what it refuses it hands over as `Refused`, with the reason. Steps that aren't there yet
(de-aggregation, decompression, Lambda) are more of the same: each has its place in `ORDER`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ORDER", "AppendDelimiter", "Chain", "Chunk", "Reason", "Refused", "Step"]

ORDER = (
    *("Decompression", "CloudWatchLogProcessing", "RecordDeAggregation"),
    *("Lambda", "MetadataExtraction", "AppendDelimiterToRecord"),
)
"""Processor types in the order the service applies them."""


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a record was refused."""

    output_type: str
    """What `!{firehose:error-output-type}` becomes."""
    code: str
    message: str


@dataclass(frozen=True, slots=True)
class Refused:
    """A record that a step refused."""

    number: int
    """The record's number in the log."""
    raw: bytes
    arrival_ms: int
    ended_ms: int
    """When the attempt ended."""
    reason: Reason


@dataclass(slots=True)
class Chunk:
    """Records of one put, as parallel lists."""

    data: list[bytes]
    numbers: Sequence[int]
    """Each record's number in the log."""
    arrival_ms: int
    keys: list[tuple[str, ...]] | None = None
    """Values of the partition keys, in the order of the stream's keys; None without dynamic partitioning."""
    suffix: bytes = b""
    """What goes behind each record in the object."""
    refused: list[Refused] = field(default_factory=list)


class Step(Protocol):
    """One processor of a stream."""

    def apply(self, chunk: Chunk, now_ms: int) -> Chunk:
        """Take a chunk and return what goes on, with what was refused."""
        ...


@dataclass(frozen=True, slots=True)
class AppendDelimiter:
    """AppendDelimiterToRecord: the delimiter goes behind the record as it came, after keys were taken from it."""

    delimiter: bytes

    def apply(self, chunk: Chunk, now_ms: int) -> Chunk:  # noqa: ARG002 - a step's shape
        """Note the delimiter; it is written when the object is put together."""
        chunk.suffix += self.delimiter
        return chunk


@dataclass(frozen=True, slots=True)
class Chain:
    """All the steps of a stream, in order."""

    steps: tuple[Step, ...] = ()

    def run(self, chunk: Chunk, now_ms: int) -> Chunk:
        """Send a chunk through every step."""
        for step in self.steps:
            chunk = step.apply(chunk, now_ms)
        return chunk
