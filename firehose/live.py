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
from firehose.conversion import Unconverted
from firehose.making import Gathering, chunks_of
from firehose.metrics import StreamMetrics, Written
from firehose.objects import Compression, Recipe, notes_of
from firehose.payloads import Intent
from firehose.prefixes import object_key, unsafe_key
from firehose.processing import BROKEN, Chunk, Reason, Refused

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Sequence
    from uuid import UUID

    from firehose.records import Failed, Record
    from firehose.streams import DeliveryStream, Destination

__all__ = ["LiveStream"]

# Neither the code nor the message is documented; the error-output-type is.
_EXCEEDED = Reason(
    "activePartitionExceeded",
    "DynamicPartitioning.ActivePartitionsLimitExceeded",
    "The quota of active partitions of the stream is reached",
)
# What the service does with values that make no object key isn't documented; a record must not hold up its partition.
_UNSAFE_TYPE, _UNSAFE_CODE = "processing-failed", "DynamicPartitioning.MetadataExtractionFailed"
# Whether the service compresses error objects isn't documented; here they are plain, to be read when in trouble.
_ERROR_COMPRESSION = Compression.UNCOMPRESSED
_CHECKED = 20_000
"""Partitions whose key was checked and is remembered."""


@dataclass(slots=True)
class LiveStream:
    """A stream, its buffers and its deliveries."""

    stream: DeliveryStream
    buffers: Buffers = field(init=False)
    gathering: Gathering | None = field(init=False)
    """Records on their way through processors that make others; None where nothing makes any."""
    backup: Buffers | None = field(init=False)
    """Source records that are to be backed up."""
    making: set[asyncio.Task[None]] = field(default_factory=set)
    """Batches that are being processed."""
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    """Deliveries under way."""
    under_way: dict[UUID, int] = field(default_factory=dict)
    """Arrival of the oldest record of each, by its id; of the batches that are being processed too."""
    backing_up: dict[UUID, int] = field(default_factory=dict)
    """The same of the backup's deliveries."""
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
        destination = stream.destination
        self.buffers = Buffers(destination.size_bytes, destination.interval_ms)
        self.gathering = destination.gathering()
        kept = destination.backup
        self.backup = None if kept is None else Buffers(kept.size_bytes, kept.interval_ms, is_backup=True)
        self._checked.clear()

    def close(self) -> list[Buffer]:
        """Close and return every buffer, the backup's too."""
        return self.buffers.take_all() + ([] if self.backup is None else self.backup.take_all())

    def due(self, now_ms: int) -> list[Buffer]:
        """Close and return the buffers whose time has come, the backup's too."""
        return self.buffers.due(now_ms) + ([] if self.backup is None else self.backup.due(now_ms))

    @property
    def oldest_ms(self) -> int | None:
        """Arrival of the oldest record that isn't delivered."""
        gathered = None if self.gathering is None else self.gathering.oldest_ms
        return _least(self.buffers.oldest_ms, gathered, *self.under_way.values())

    @property
    def backup_oldest_ms(self) -> int | None:
        """Arrival of the oldest source record that the backup lacks, of those that were processed."""
        return _least(None if self.backup is None else self.backup.oldest_ms, *self.backing_up.values())

    def age(self, now: float) -> float | None:
        """Seconds since the arrival of the oldest record that isn't delivered; None where all is.

        Args:
            now: seconds since the epoch.
        """
        return _age(now, self.oldest_ms)

    def backup_age(self, now: float) -> float | None:
        """The same of the backup."""
        return _age(now, self.backup_oldest_ms)

    def take_made(
        self, numbers: Sequence[int], records: Sequence[Record], failed: Sequence[Failed], now_ms: int, quota: int
    ) -> list[Buffer]:
        """Take what was made of records into the buffers; returns those that are full by it.

        Args:
            numbers: of `records`, and then of `failed`.
            records: those that go on.
            failed: those that are refused.
            now_ms: milliseconds since the epoch.
            quota: partitions that may be active.
        """
        full: list[Buffer] = []
        for chunk in chunks_of(numbers, records):
            full += self.take(chunk, now_ms, quota)
        refused = [
            Refused(number, one.raw, one.arrival_ms, one.ended_ms, one.reason)
            for number, one in zip(numbers[len(records) :], failed, strict=True)
        ]
        return full + self._refuse(refused)

    def written(self, intent: Intent) -> Written:
        """Where an object's delivery is counted."""
        return self.metrics.backup if intent.is_backup else self.metrics.s3

    def back_up(self, chunk: Chunk) -> list[Buffer]:
        """Take source records into the backup; returns the buffers that are full by it."""
        if self.backup is None:
            raise RuntimeError(f"stream {self.stream.name} has no backup")
        return self.backup.add(chunk.data, chunk.numbers, chunk.arrival_ms, b"")

    def take(self, chunk: Chunk, now_ms: int, quota: int) -> list[Buffer]:
        """Send a chunk through the stream's processors into its buffers; returns the buffers that are full by it."""
        given = chunk
        try:
            started = time.perf_counter()
            chunk = self.stream.destination.chain.run(chunk, now_ms)
            self.metrics.processing.note(time.perf_counter() - started)
            self._note_conversion(chunk)
            found = None if chunk.keys is None else self.buffers.find(chunk.keys, chunk.arrival_ms)
            if chunk.keys is not None and found is None:
                chunk = chunk.without(self._unopened(chunk.keys, chunk.arrival_ms, quota), now_ms)
        except Exception as error:  # noqa: BLE001 - a fault of ours must not lose records or stop the stream
            reason = BROKEN.telling(error)
            chunk = given.without(dict.fromkeys(range(len(given.data)), reason), now_ms)
            found = None
        return self._add(chunk, found) + self._refuse(chunk.refused)

    def _add(self, chunk: Chunk, found: list[Buffer] | None) -> list[Buffer]:
        if not chunk.data:
            return []
        if chunk.keys is None:
            return self.buffers.add(chunk.data, chunk.numbers, chunk.arrival_ms, chunk.suffix)
        return self.buffers.spread(chunk.keys, chunk.data, chunk.numbers, chunk.arrival_ms, chunk.suffix, found=found)

    def _note_conversion(self, chunk: Chunk) -> None:
        if self.stream.destination.conversion is None:
            return
        failed = [one.raw for one in chunk.refused if isinstance(one.reason, Unconverted)]
        found = self.metrics.conversions
        found.records += len(chunk.data)
        found.bytes += sum(map(len, chunk.data))
        found.failed_records += len(failed)
        found.failed_bytes += sum(map(len, failed))

    def _refuse(self, refused: Sequence[Refused]) -> list[Buffer]:
        for one in refused:
            self.refused[one.reason.code] += 1
            self.metrics.exceeded += one.reason is _EXCEEDED
        return self.buffers.add_refused(refused)

    def _unopened(self, keys: Sequence[tuple[str, ...]], arrival_ms: int, quota: int) -> dict[int, Reason]:
        """Tell whose partition can't be made active, by their place, and why."""
        opened = 0
        wrong: dict[tuple[str, ...], Reason] = {}
        for values in self.buffers.inactive(keys):
            reason = self._check(values, arrival_ms)
            if reason is None and self.buffers.active_partitions + opened >= quota:
                reason = _EXCEEDED
            if reason is None:
                opened += 1
            else:
                wrong[values] = reason
        return {at: wrong[values] for at, values in enumerate(keys) if values in wrong} if wrong else {}

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
        return self._named(self.stream.destination, target, oldest_ms, unique)

    def _named(
        self, destination: Destination, target: Partition | ErrorOutput, oldest_ms: int, unique: str
    ) -> tuple[str, str]:
        stream = self.stream
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
        if buffer.is_backup and destination.backup is not None:
            destination = destination.backup
        delivery = uuid4()
        _, key = self._named(destination, buffer.target, buffer.oldest_ms, str(delivery))
        if isinstance(buffer.target, Partition):
            recipe = Recipe(destination.compression, buffer.suffix, conversion=destination.conversion)
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
            is_backup=buffer.is_backup,
        )


def _least(*arrivals: int | None) -> int | None:
    return min((one for one in arrivals if one is not None), default=None)


def _age(now: float, oldest_ms: int | None) -> float | None:
    return None if oldest_ms is None else max(0.0, now - oldest_ms / 1000)


def _choose(letters: str) -> str:
    return secrets.choice(letters)
