"""Owns a stream's buffers: one for each active partition and each kind of error, closed by size or by age.

Pure: time comes in as an argument, in milliseconds since the epoch.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firehose.processing import Refused

__all__ = ["Buffer", "Buffers", "ErrorOutput", "Partition"]


@dataclass(frozen=True, slots=True)
class Partition:
    """Values of the partition keys, in the stream's order; none without dynamic partitioning."""

    values: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ErrorOutput:
    """One kind of error."""

    output_type: str


@dataclass(slots=True)
class Buffer:
    """Records that will be one object."""

    target: Partition | ErrorOutput
    oldest_ms: int
    """Arrival of the oldest record."""
    suffix: bytes = b""
    data: list[bytes] = field(default_factory=list)
    numbers: array[int] = field(default_factory=lambda: array("Q"))
    refused: list[Refused] = field(default_factory=list)
    """Of an error output: what was refused, in the order of `data`."""
    size: int = 0
    """Bytes before compression."""


class Buffers:
    """The open buffers of one stream."""

    def __init__(self, size_bytes: int, interval_ms: int) -> None:
        self._size = size_bytes
        self._interval = interval_ms
        self._open: dict[Partition | ErrorOutput, Buffer] = {}
        self._partitions = 0

    @property
    def active_partitions(self) -> int:
        """How many partitions have a buffer now."""
        return self._partitions

    @property
    def oldest_ms(self) -> int | None:
        """Arrival of the oldest record in any buffer."""
        return min((buffer.oldest_ms for buffer in self._open.values()), default=None)

    def __len__(self) -> int:
        return len(self._open)

    def is_active(self, partition: Partition) -> bool:
        """Tell whether the partition has a buffer now."""
        return partition in self._open

    def add(
        self, partition: Partition, data: list[bytes], numbers: Sequence[int], arrival_ms: int, suffix: bytes
    ) -> list[Buffer]:
        """Add records to their partition; returns the buffers that are full by it."""
        full: list[Buffer] = []
        size = sum(map(len, data)) + len(suffix) * len(data)
        buffer = self._buffer(partition, arrival_ms, suffix)
        if buffer.size + size < self._size:
            buffer.data += data
            buffer.numbers.extend(numbers)
            buffer.size += size
            return full
        for raw, number in zip(data, numbers, strict=True):
            buffer = self._buffer(partition, arrival_ms, suffix)
            buffer.data.append(raw)
            buffer.numbers.append(number)
            buffer.size += len(raw) + len(suffix)
            if buffer.size >= self._size:
                full.append(self._close(buffer))
        return full

    def add_refused(self, refused: Sequence[Refused]) -> list[Buffer]:
        """Add refused records to the buffer of their kind; returns the buffers that are full by it."""
        full: list[Buffer] = []
        for one in refused:
            buffer = self._buffer(ErrorOutput(one.reason.output_type), one.arrival_ms, b"")
            buffer.data.append(one.raw)
            buffer.numbers.append(one.number)
            buffer.refused.append(one)
            buffer.size += len(one.raw)
            if buffer.size >= self._size:
                full.append(self._close(buffer))
        return full

    def due(self, now_ms: int) -> list[Buffer]:
        """Close and return the buffers whose oldest record is as old as the interval."""
        latest = now_ms - self._interval
        return [self._close(buffer) for buffer in list(self._open.values()) if buffer.oldest_ms <= latest]

    def take_all(self) -> list[Buffer]:
        """Close and return every buffer."""
        return [self._close(buffer) for buffer in list(self._open.values())]

    def _buffer(self, target: Partition | ErrorOutput, arrival_ms: int, suffix: bytes) -> Buffer:
        buffer = self._open.get(target)
        if buffer is None:
            buffer = self._open[target] = Buffer(target, arrival_ms, suffix)
            self._partitions += isinstance(target, Partition)
        elif arrival_ms < buffer.oldest_ms:  # the clock went back, or the log is replayed
            buffer.oldest_ms = arrival_ms
        return buffer

    def _close(self, buffer: Buffer) -> Buffer:
        del self._open[buffer.target]
        self._partitions -= isinstance(buffer.target, Partition)
        return buffer
