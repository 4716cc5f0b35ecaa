"""Owns records on their way through processors that make others of them, up to where what was made is logged.

What a put brought stays together: its records, and all that is made of them, are logged in one frame, so that after a
crash either none of it was made or all. A Lambda function is given several puts at once, gathered by size and by age.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from firehose.processing import BROKEN, Chunk
from firehose.records import Failed, Record

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from firehose.processing import Reason
    from firehose.records import Maker

__all__ = ["Batch", "Gathering", "broken", "chunks_of"]


@dataclass(slots=True)
class Batch:
    """Records whose processing is logged together."""

    oldest_ms: int
    """Arrival of the oldest one."""
    sources: list[Chunk] = field(default_factory=list)
    """As they were put."""
    records: list[Record] = field(default_factory=list)
    """What was made of them so far."""
    failed: list[Failed] = field(default_factory=list)
    size: int = 0
    """Bytes of `records`."""

    @property
    def numbers(self) -> array[int]:
        """Numbers of the sources."""
        found = array("Q")
        for one in self.sources:
            found.extend(one.numbers)
        return found

    @property
    def data(self) -> list[bytes]:
        """The sources' bytes."""
        return [raw for one in self.sources for raw in one.data]


class Gathering:
    """What a stream gathers until it is enough for the next processor.

    Args:
        makers: processors that run at once, in order.
        size_bytes: a batch this big is taken on; 0 where each put is one.
        interval_ms: a batch whose oldest record is this old is taken on.
    """

    def __init__(self, makers: Sequence[Maker], size_bytes: int = 0, interval_ms: int = 0) -> None:
        self._makers = makers
        self._size = size_bytes
        self._interval = interval_ms
        self._open: Batch | None = None

    @property
    def oldest_ms(self) -> int | None:
        """Arrival of the oldest record that is gathered."""
        return None if self._open is None else self._open.oldest_ms

    def add(self, chunk: Chunk, now_ms: int) -> list[Batch]:
        """Gather what a put brought; returns the batches that are full by it."""
        batch = self._open
        if batch is None:
            batch = self._open = Batch(chunk.arrival_ms)
        batch.oldest_ms = min(batch.oldest_ms, chunk.arrival_ms)
        batch.sources.append(chunk)
        records, failed = self._made([Record(raw, chunk.arrival_ms) for raw in chunk.data], now_ms)
        batch.records += records
        batch.failed += failed
        batch.size += sum(len(one.raw) for one in records)
        return self.take() if batch.size >= self._size else []

    def due(self, now_ms: int) -> list[Batch]:
        """Close and return the batch whose time has come."""
        oldest = self.oldest_ms
        return self.take() if oldest is not None and oldest <= now_ms - self._interval else []

    def take(self) -> list[Batch]:
        """Close and return what is gathered."""
        batch, self._open = self._open, None
        return [] if batch is None else [batch]

    def _made(self, records: list[Record], now_ms: int) -> tuple[list[Record], list[Failed]]:
        failed: list[Failed] = []
        for maker in self._makers:
            before = records
            try:
                records, more = maker.apply(before, now_ms)
            except Exception:  # noqa: BLE001 - a fault of ours must not lose records, or take those beside it along
                records, more = _one_by_one(maker, before, now_ms)
            failed += more
        return records, failed


def _one_by_one(maker: Maker, before: Sequence[Record], now_ms: int) -> tuple[list[Record], list[Failed]]:
    made: list[Record] = []
    failed: list[Failed] = []
    for one in before:
        try:
            records, more = maker.apply([one], now_ms)
        except Exception as error:  # noqa: BLE001 - as above
            records, more = [], broken([one], now_ms, error)
        made += records
        failed += more
    return made, failed


def broken(records: Sequence[Record], now_ms: int, error: BaseException) -> list[Failed]:
    """Refuse records that made a processor of ours fail."""
    reason: Reason = BROKEN.telling(error)
    return [Failed(one.kept, one.arrival_ms, now_ms, reason) for one in records]


def chunks_of(numbers: Sequence[int], records: Sequence[Record]) -> Iterator[Chunk]:
    """Make chunks of records that were made: one for each run of the same arrival."""
    start = 0
    for at in range(1, len(records) + 1):
        if at == len(records) or records[at].arrival_ms != records[start].arrival_ms:
            part = records[start:at]
            keys = [dict(one.keys) for one in part] if any(one.keys for one in part) else None
            yield Chunk([one.raw for one in part], numbers[start:at], part[0].arrival_ms, lambda_keys=keys)
            start = at
