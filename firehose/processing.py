"""Owns the road of records from the log to the buffers: a chain of steps over chunks of records.

A chunk is what one put brought, as parallel lists, so that a step costs little a record. A step takes a chunk and
returns what goes on; what it refuses it hands over as `Refused`, with the reason. Processors that make other records
(decompression, de-aggregation, Lambda) come before, in `making`: what they made is logged first.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["BROKEN", "NO_KEY", "ORDER", "AppendDelimiter", "Chain", "Chunk", "LambdaKeys", "Reason", "Refused", "Step"]

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
    attempts: int = 1
    """How often it was tried."""
    lambda_arn: str | None = None
    """The function that it was given to."""

    def telling(self, error: BaseException) -> Reason:
        """The same, with the fault that it was."""
        return replace(self, message=f"{self.message}: {error!r}")


NO_KEY = Reason(
    "processing-failed",
    "DynamicPartitioning.MetadataExtractionFailed",
    "partitionKeys values must not be null or empty",
)
"""Of a record that lacks a partition key. No source says which error-output-type it has; here it is the processors'."""
BROKEN = Reason("processing-failed", "InternalFailure", "The record made the server's own processing fail")
"""Of a record by which the server itself failed."""


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
    lambda_keys: list[dict[str, str]] | None = None
    """Partition keys that a Lambda function gave; None where it gave none."""
    suffix: bytes = b""
    """What goes behind each record in the object."""
    refused: list[Refused] = field(default_factory=list)

    def without(self, reasons: Mapping[int, Reason], now_ms: int) -> Chunk:
        """What is left when records are refused.

        Args:
            reasons: why, by place in `data`.
            now_ms: when they were.
        """
        if not reasons:
            return self
        refused = [
            Refused(self.numbers[at], self.data[at], self.arrival_ms, now_ms, reason)
            for at, reason in sorted(reasons.items())
        ]
        kept = [at for at in range(len(self.data)) if at not in reasons]
        return Chunk(
            data=[self.data[at] for at in kept],
            numbers=[self.numbers[at] for at in kept],
            arrival_ms=self.arrival_ms,
            keys=None if self.keys is None else [self.keys[at] for at in kept],
            lambda_keys=None if self.lambda_keys is None else [self.lambda_keys[at] for at in kept],
            suffix=self.suffix,
            refused=[*self.refused, *refused],
        )


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
class LambdaKeys:
    """Takes the partition keys that a Lambda function gave; a record that lacks one is refused."""

    names: tuple[str, ...]

    def apply(self, chunk: Chunk, now_ms: int) -> Chunk:
        """Note each record's keys, before those of others."""
        given: Sequence[Mapping[str, str]] = chunk.lambda_keys or [{}] * len(chunk.data)
        chunk.keys = [tuple(keys.get(name, "") for name in self.names) for keys in given]
        return chunk.without({at: NO_KEY for at, keys in enumerate(chunk.keys) if not all(keys)}, now_ms)


@dataclass(frozen=True, slots=True)
class Chain:
    """All the steps of a stream, in order."""

    steps: tuple[Step, ...] = ()

    def run(self, chunk: Chunk, now_ms: int) -> Chunk:
        """Send a chunk through every step."""
        for step in self.steps:
            chunk = step.apply(chunk, now_ms)
        return chunk
