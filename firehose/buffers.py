"""Owns a stream's buffers: one for each active partition and each kind of error, closed by size or by age.

Pure: time comes in as an argument, in milliseconds since the epoch.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple, cast

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from firehose.processing import Refused

__all__ = ["Buffer", "Buffers", "ErrorOutput", "Partition"]


class Partition(NamedTuple):
    """Values of the partition keys, in the stream's order; none without dynamic partitioning."""

    values: tuple[str, ...] = ()


class ErrorOutput(NamedTuple):
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
    is_backup: bool = False
    """It holds source records as they came."""


class Buffers:
    """The open buffers of one stream, or of its backup."""

    def __init__(self, size_bytes: int, interval_ms: int, *, is_backup: bool = False) -> None:
        self._is_backup = is_backup
        self._size = size_bytes
        self._interval = interval_ms
        self._open: dict[tuple[str, ...], Buffer] = {}
        """Of partitions, by their values."""
        self._errors: dict[str, Buffer] = {}
        """Of errors, by their kind."""
        self._latest_ms = 0
        """No open buffer of a partition has a later arrival for its oldest."""

    @property
    def active_partitions(self) -> int:
        """How many partitions have a buffer now."""
        return len(self._open)

    @property
    def oldest_ms(self) -> int | None:
        """Arrival of the oldest record in any buffer."""
        return min((buffer.oldest_ms for buffer in self._all()), default=None)

    def __len__(self) -> int:
        return len(self._open) + len(self._errors)

    def inactive(self, keys: Iterable[tuple[str, ...]]) -> list[tuple[str, ...]]:
        """Tell which partitions, by their values, have no buffer now: each once, in order."""
        return [values for values in dict.fromkeys(keys) if values not in self._open]

    def find(self, keys: Sequence[tuple[str, ...]], arrival_ms: int) -> list[Buffer] | None:
        """Find the buffers of partitions; None where one has none, or one would become older by this arrival."""
        found = [*map(self._open.get, keys)]
        # the clock went back, or the log is replayed, where it is before another's
        return cast("list[Buffer]", found) if all(found) and arrival_ms >= self._latest_ms else None

    def add(self, data: list[bytes], numbers: Sequence[int], arrival_ms: int, suffix: bytes) -> list[Buffer]:
        """Add records where there are no partition keys; returns the buffers that are full by it."""
        size = sum(map(len, data)) + len(suffix) * len(data)
        buffer = self._partition((), arrival_ms, suffix)
        if buffer.size + size < self._size:
            buffer.data += data
            buffer.numbers.extend(numbers)
            buffer.size += size
            return []
        return self.spread([()] * len(data), data, numbers, arrival_ms, suffix)

    def spread(
        self,
        keys: Sequence[tuple[str, ...]],
        data: Sequence[bytes],
        numbers: Sequence[int],
        arrival_ms: int,
        suffix: bytes,
        *,
        found: list[Buffer] | None = None,
    ) -> list[Buffer]:
        """Add records to their partitions; returns the buffers that are full by it.

        Args:
            keys: values of the partition keys of each.
            data: the records.
            numbers: of each in the log.
            arrival_ms: of all of them, milliseconds since the epoch.
            suffix: what goes behind each in its object.
            found: what `find` gave for these keys, just before.
        """
        # record by record: with hundreds of partitions a group of each put has one or two
        full: list[Buffer] = []
        limit, beside = self._size, len(suffix)
        while True:
            into = self._buffers(keys, arrival_ms, suffix) if found is None else found
            for buffer, raw, number in zip(into, data, numbers, strict=True):
                buffer.data.append(raw)
                buffer.numbers.append(number)
                buffer.size += len(raw) + beside
                if buffer.size >= limit:
                    break
            else:
                return full
            full.append(self._close(buffer))
            after = numbers.index(number) + 1
            keys, data, numbers, found = keys[after:], data[after:], numbers[after:], None

    def add_refused(self, refused: Sequence[Refused]) -> list[Buffer]:
        """Add refused records to the buffer of their kind; returns the buffers that are full by it."""
        full: list[Buffer] = []
        for one in refused:
            kind = one.reason.output_type
            buffer = self._errors.get(kind)
            if buffer is None:
                buffer = self._errors[kind] = Buffer(ErrorOutput(kind), one.arrival_ms)
            buffer.oldest_ms = min(buffer.oldest_ms, one.arrival_ms)
            buffer.data.append(one.raw)
            buffer.numbers.append(one.number)
            buffer.refused.append(one)
            buffer.size += len(one.raw)
            if buffer.size >= self._size:
                full.append(self._errors.pop(kind))
        return full

    def due(self, now_ms: int) -> list[Buffer]:
        """Close and return the buffers whose oldest record is as old as the interval."""
        latest = now_ms - self._interval
        return self._take([buffer for buffer in self._all() if buffer.oldest_ms <= latest])

    def take_all(self) -> list[Buffer]:
        """Close and return every buffer."""
        return self._take(list(self._all()))

    def _close(self, buffer: Buffer) -> Buffer:
        return self._take([buffer])[0]

    def _buffers(self, keys: Sequence[tuple[str, ...]], arrival_ms: int, suffix: bytes) -> Sequence[Buffer]:
        return self.find(keys, arrival_ms) or [self._partition(values, arrival_ms, suffix) for values in keys]

    def _all(self) -> Iterator[Buffer]:
        return chain(self._open.values(), self._errors.values())

    def _take(self, buffers: list[Buffer]) -> list[Buffer]:
        for one in buffers:
            if isinstance(one.target, Partition):
                del self._open[one.target.values]
            else:
                del self._errors[one.target.output_type]
        if not self._open:
            self._latest_ms = 0
        return buffers

    def _partition(self, values: tuple[str, ...], arrival_ms: int, suffix: bytes) -> Buffer:
        buffer = self._open.get(values)
        if buffer is None:
            buffer = self._open[values] = Buffer(Partition(values), arrival_ms, suffix, is_backup=self._is_backup)
            self._latest_ms = max(self._latest_ms, arrival_ms)
        buffer.oldest_ms = min(buffer.oldest_ms, arrival_ms)
        return buffer
