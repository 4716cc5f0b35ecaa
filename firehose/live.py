"""Owns one stream at work: its buffers, and how chunks become groups of records that belong into one object."""

from __future__ import annotations

import secrets
import time
from array import array
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import uuid4

from firehose.buffers import Buffer, Buffers, ErrorOutput, Partition
from firehose.frames import Intent
from firehose.metrics import StreamMetrics
from firehose.objects import Compression, Recipe, notes_of
from firehose.prefixes import object_key, unsafe_key
from firehose.processing import Chunk, Reason, Refused

if TYPE_CHECKING:
    import asyncio
    from uuid import UUID

    from firehose.streams import DeliveryStream

__all__ = ["LiveStream"]

# Neither the code nor the message is documented; the error-output-type is.
_EXCEEDED = Reason(
    "activePartitionExceeded",
    "DynamicPartitioning.ActivePartitionsLimitExceeded",
    "The quota of active partitions of the stream is reached",
)
# What the service does with values that make no object key isn't documented; a record must not hold up its partition.
_UNSAFE_TYPE, _UNSAFE_CODE = "processing-failed", "DynamicPartitioning.MetadataExtractionFailed"
_BROKEN = Reason("processing-failed", "InternalFailure", "The record made the server's own processing fail")
# Whether the service compresses error objects isn't documented; here they are plain, to be read when in trouble.
_ERROR_COMPRESSION = Compression.UNCOMPRESSED
_CHECKED = 20_000
"""Partitions whose key was checked and is remembered."""


@dataclass(slots=True)
class LiveStream:
    """A stream, its buffers and its deliveries."""

    stream: DeliveryStream
    buffers: Buffers = field(init=False)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    """Deliveries under way."""
    under_way: dict[UUID, int] = field(default_factory=dict)
    """Their oldest records' arrival, by delivery."""
    metrics: StreamMetrics = field(default_factory=StreamMetrics)
    pending: int = 0
    """Records acknowledged and not delivered yet."""
    refused: Counter[str] = field(default_factory=Counter)
    """Records refused, by error code."""
    deleted: bool = False
    trouble: str | None = None
    """Why the last attempt of a delivery failed; None once one succeeds."""
    _checked: dict[tuple[str, ...], Reason | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.become(self.stream)

    def become(self, stream: DeliveryStream) -> None:
        """Go on by a definition, with new buffers: the old ones' partitions and suffixes may mean something else."""
        self.stream = stream
        self.buffers = Buffers(stream.destination.size_bytes, stream.destination.interval_ms)
        self._checked.clear()

    @property
    def oldest_ms(self) -> int | None:
        """Arrival of the oldest record that isn't delivered."""
        arrivals = (
            [*self.under_way.values()]
            if self.buffers.oldest_ms is None
            else [self.buffers.oldest_ms, *self.under_way.values()]
        )
        return min(arrivals, default=None)

    def age(self, now: float) -> float:
        """Seconds since the arrival of the oldest record that isn't delivered; 0 where all is.

        Args:
            now: seconds since the epoch.
        """
        return 0.0 if self.oldest_ms is None else max(0.0, now - self.oldest_ms / 1000)

    def take(self, chunk: Chunk, now_ms: int, quota: int) -> list[Buffer]:
        """Send a chunk through the stream's processors into its buffers; returns the buffers that are full by it."""
        numbers, data = chunk.numbers, chunk.data
        try:
            started = time.perf_counter()
            chunk = self.stream.destination.chain.run(chunk, now_ms)
            self.metrics.processing.note(time.perf_counter() - started)
            groups, refused = self._groups(chunk, now_ms, quota)
        except Exception as error:  # noqa: BLE001 - a fault of ours must not lose records or stop the stream
            reason = Reason(_BROKEN.output_type, _BROKEN.code, f"{_BROKEN.message}: {error!r}")
            groups = []
            refused = [
                Refused(number, raw, chunk.arrival_ms, now_ms, reason)
                for number, raw in zip(numbers, data, strict=True)
            ]
        full: list[Buffer] = []
        for partition, some, their in groups:
            full += self.buffers.add(partition, some, their, chunk.arrival_ms, chunk.suffix)
        for one in refused:
            self.refused[one.reason.code] += 1
            self.metrics.exceeded += one.reason is _EXCEEDED
        return full + self.buffers.add_refused(refused)

    def _groups(
        self, chunk: Chunk, now_ms: int, quota: int
    ) -> tuple[list[tuple[Partition, list[bytes], list[int] | range]], list[Refused]]:
        refused = list(chunk.refused)
        if not chunk.data:
            return [], refused
        if chunk.keys is None:
            return [(Partition(), chunk.data, list(chunk.numbers))], refused
        members: dict[tuple[str, ...], list[int]] = {}
        for index, keys in enumerate(chunk.keys):
            found = members.get(keys)
            if found is None:
                members[keys] = [index]
            else:
                found.append(index)
        groups: list[tuple[Partition, list[bytes], list[int] | range]] = []
        opened = 0
        for keys, indexes in members.items():
            partition = Partition(keys)
            reason = self._check(keys, chunk.arrival_ms)
            if reason is None and not self.buffers.is_active(partition):
                if self.buffers.active_partitions + opened < quota:
                    opened += 1
                else:
                    reason = _EXCEEDED
            data = [chunk.data[index] for index in indexes]
            numbers = [chunk.numbers[index] for index in indexes]
            if reason is None:
                groups.append((partition, data, numbers))
            else:
                refused += [
                    Refused(number, raw, chunk.arrival_ms, now_ms, reason)
                    for number, raw in zip(numbers, data, strict=True)
                ]
        return groups, refused

    def _check(self, values: tuple[str, ...], arrival_ms: int) -> Reason | None:
        if values in self._checked:
            return self._checked[values]
        if len(self._checked) >= _CHECKED:
            self._checked.clear()
        prefix, key = self.name_object(Partition(values), arrival_ms, str(uuid4()))
        problem = unsafe_key(prefix, key)
        reason = Reason(_UNSAFE_TYPE, _UNSAFE_CODE, f"partitionKeys: {problem}") if problem else None
        self._checked[values] = reason
        return reason

    def name_object(self, target: Partition | ErrorOutput, oldest_ms: int, unique: str) -> tuple[str, str]:
        """Make the evaluated prefix of an object, and its key.

        Args:
            target: what it will hold.
            oldest_ms: arrival of its oldest record, milliseconds since the epoch.
            unique: what tells it from all others.
        """
        stream, destination = self.stream, self.stream.destination
        oldest = datetime.fromtimestamp(oldest_ms / 1000, tz=destination.zone)
        if isinstance(target, Partition):
            values = dict(zip(destination.keys or (), target.values, strict=True))
            prefix = destination.prefix.evaluate(oldest, values, _choose)
            extension = destination.extension
        else:
            prefix = destination.error_prefix.evaluate(oldest, {}, _choose, target.output_type)
            extension = _ERROR_COMPRESSION.extension
        return prefix, object_key(prefix, stream.name, stream.version, oldest, unique=unique, extension=extension)

    def intent(self, buffer: Buffer) -> Intent:
        """Decide the object that a closed buffer becomes."""
        destination = self.stream.destination
        delivery = uuid4()
        _, key = self.name_object(buffer.target, buffer.oldest_ms, str(delivery))
        if isinstance(buffer.target, Partition):
            recipe = Recipe(destination.compression, buffer.suffix)
        else:
            recipe = Recipe(_ERROR_COMPRESSION, notes=notes_of(buffer.refused))
        return Intent(
            delivery=delivery,
            stream=self.stream.identity,
            bucket=destination.bucket,
            key=key,
            recipe=recipe,
            numbers=array("Q", buffer.numbers),
            kms_key=destination.kms_key,
        )


def _choose(letters: str) -> str:
    return secrets.choice(letters)
