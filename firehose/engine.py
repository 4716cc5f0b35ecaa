"""Owns a record's way through the server: logged, acknowledged, processed, buffered, delivered, forgotten.

A put is acknowledged when its records are on disk. Behind that, one task takes acknowledged puts in order into
their streams' buffers; a closed buffer becomes a delivery: its intent is logged, its object is written until S3 takes
it, its completion is logged. Where processors make other records, or source records are backed up, what was made is
logged before it goes into the buffers: from then on those are the records to be delivered.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Never, TypeVar
from uuid import uuid4

from firehose.found import PendingMade
from firehose.journal import Journal, LogUnavailableError
from firehose.live import LiveStream
from firehose.making import broken
from firehose.processing import Chunk
from firehose.recovery import recover
from firehose.uploads import FIRST_PAUSE, LONGEST_PAUSE, WORKER, Uploads
from lake.aws_json import ServiceError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping, Sequence

    from firehose.buffers import Buffer
    from firehose.delivery import S3Writer
    from firehose.found import PendingPut
    from firehose.lambda_transform import LambdaTransform
    from firehose.making import Batch
    from firehose.payloads import Intent
    from firehose.records import Failed, Record
    from firehose.registry import DataFolder, Registry
    from firehose.streams import DeliveryStream
    from firehose.wal import Disk

__all__ = ["Engine", "Flushed", "Invoker", "Limits"]

_Answer = TypeVar("_Answer")
Invoker = Callable[[str, "LambdaTransform", list["Record"]], tuple[list["Record"], list["Failed"]]]
"""Gives records of the stream with an ARN to a function; blocks, and fails only by a fault of ours."""

_log = logging.getLogger(__name__)
_TICK = 0.25
"""Seconds between looks at the buffers' ages."""
_TIDY_SECONDS = 1.0
"""Between looks at the log's length."""
_BODIES = 8
"""Which part of the memory for records may be in objects that are being written, beside the records themselves."""
_RECORD_OVERHEAD = 100
"""Bytes that a record costs in memory beside its own."""
_STOP_SECONDS = 5.0
"""How long a stop waits for uploads under way; the log holds what isn't done by then."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the server may use."""

    pending_bytes: int = 1 << 30
    """Memory for records that aren't delivered."""
    segment_bytes: int = 64 << 20
    """Size of a segment of the log."""
    uploads: int = 8
    """Objects written to S3 at once."""
    invocations: int = 8
    """Lambda functions invoked at once."""

    @property
    def body_bytes(self) -> int:
        """Records in objects that are written at once: each is in memory once or twice more meanwhile."""
        return self.pending_bytes // _BODIES


@dataclass(slots=True)
class Flushed:
    """What a flush delivered of one stream."""

    objects: int = 0
    records: int = 0


def _no_function(stream_arn: str, function: LambdaTransform, records: list[Record]) -> Never:
    raise RuntimeError(f"{stream_arn}: this server invokes no functions, {len(records)} records are for {function.arn}")


class Engine:
    """All streams at work."""

    def __init__(
        self,
        folder: DataFolder,
        registry: Registry,
        writer: S3Writer,
        now: Callable[[], float],
        limits: Limits | None = None,
        *,
        invoker: Invoker = _no_function,
        disk: Disk | None = None,
    ) -> None:
        """Read the log and take up what it holds; nothing is delivered before `start`.

        Raises:
            EnvironmentProblemError: the log can't be read.
        """
        self._limits = limits or Limits()
        self._registry = registry
        self._now = now
        self._live = {name: LiveStream(stream) for name, stream in registry.streams.items()}
        self._queue: deque[Callable[[], None] | asyncio.Future[None]] = deque()
        self._wake = asyncio.Event()
        self._uploads = Uploads(writer, self._limits.uploads, self._limits.body_bytes)
        self._invoker = invoker
        self._calls = ThreadPoolExecutor(self._limits.invocations, thread_name_prefix=WORKER)
        self._tasks: list[asyncio.Task[None]] = []
        self._on_failure: Callable[[BaseException], None] | None = None
        self._pending_bytes = self._pending_records = 0
        by_identity = {live.stream.identity: live for live in self._live.values()}
        recovered = recover(folder.log, set(by_identity))
        self._journal = Journal(folder.log, self._limits.segment_bytes, recovered, disk=disk)
        self._again = [(by_identity[one.intent.stream], one) for one in recovered.deliveries]
        for live, one in self._again:
            self._hold_all(live, one.data)
        for found in recovered.puts:
            self._queue.append(self._recovered(by_identity[found.stream], found))
        if self._pending_records:
            _log.warning(
                "the log holds %d records that were acknowledged and aren't delivered; %d objects are written again",
                *(self._pending_records, len(self._again)),
            )

    def start(self, on_failure: Callable[[BaseException], None]) -> None:
        """Begin to work, in the running event loop; `on_failure` is told if a fault of ours ends the work."""
        self._on_failure = on_failure
        self._journal.start()
        self._wake.set()
        for live, one in self._again:
            self._deliver(live, one.intent, one.data, sum(map(len, one.data)), one.oldest_ms, logged=True)
        self._again = []
        self._tasks = [asyncio.create_task(work()) for work in (self._process, self._watch, self._tidy)]
        for task in self._tasks:
            task.add_done_callback(self._tell_fault)

    async def stop(self) -> None:
        """Wait a little for uploads under way, then close the log; what isn't delivered stays in it."""
        for task in self._tasks:
            task.cancel()
        making = [task for live in self._live.values() for task in live.making]
        for task in making:
            task.cancel()  # what wasn't logged is made again after the next start
        under_way = [task for live in self._live.values() for task in live.tasks]
        if under_way:
            await asyncio.wait(under_way, timeout=_STOP_SECONDS)
        for task in under_way:
            task.cancel()
        await asyncio.gather(*self._tasks, *making, *under_way, return_exceptions=True)
        await self._journal.stop()
        self._uploads.stop()
        self._calls.shutdown(wait=False, cancel_futures=True)

    def add(self, stream: DeliveryStream) -> None:
        """Take up a stream that was created."""
        self._live[stream.name] = LiveStream(stream)

    def update(self, stream: DeliveryStream) -> None:
        """Go on with a stream as it is now; what is in its buffers is delivered as it was."""
        live = self._live[stream.name]
        self._make_all(live)
        self._deliver_all(live)
        live.become(stream)

    def remove(self, name: str) -> None:
        """Let go of a stream that was deleted, and of its records."""
        live = self._live.pop(name)
        live.deleted = True
        for buffer in live.close():
            self._drop(live, buffer.numbers, buffer.data)
        for batch in live.gathering.take() if live.gathering else ():
            self._drop(live, batch.numbers, batch.data)
        for task in live.tasks:
            task.cancel()

    async def put(self, name: str, data: list[bytes]) -> int:
        """Log records and return the first one's number; they are on disk then.

        Raises:
            ServiceError: ServiceUnavailableException: memory is full, or the log can't be written.
            KeyError: no such stream.
        """
        live = self._live[name]
        count, size = len(data), sum(map(len, data))
        if self._pending_bytes + size + _RECORD_OVERHEAD * count > self._limits.pending_bytes:
            live.metrics.throttled += count
            raise ServiceError("ServiceUnavailableException", "Slow down: too much is not delivered yet.", 503)
        self._hold(live, count, size)
        arrival = int(self._now() * 1000)
        try:
            first = await self._journal.put(live.stream.identity, arrival, data)
        except LogUnavailableError as error:
            self._free(live, count, size)
            raise ServiceError("ServiceUnavailableException", f"The service is unavailable: {error}.", 503) from None
        self._queue.append(partial(self._take, live, Chunk(data, range(first, first + count), arrival)))
        self._wake.set()
        return first

    @property
    def streams(self) -> Mapping[str, LiveStream]:
        """All streams at work, by name."""
        return self._live

    @property
    def log_bytes(self) -> int:
        """Size of the log on disk."""
        return self._journal.size

    async def flush(self, name: str | None = None) -> dict[str, Flushed]:
        """Deliver now what was acknowledged so far, of one stream or of all; returns when it is in S3.

        Raises:
            KeyError: no such stream.
        """
        wanted = [self._live[name]] if name is not None else list(self._live.values())
        marker: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append(marker)
        self._wake.set()
        await marker
        before = {live.stream.name: (live.metrics.s3.objects, live.metrics.s3.records) for live in wanted}
        # a flush that gives up doesn't end the work it waits for
        for live in wanted:
            self._make_all(live)
        if making := [task for live in wanted for task in live.making]:
            await asyncio.wait(making)
        for live in wanted:
            self._deliver_all(live)
        if tasks := [task for live in wanted for task in live.tasks]:
            await asyncio.wait(tasks)
        return {
            live.stream.name: Flushed(
                live.metrics.s3.objects - before[live.stream.name][0],
                live.metrics.s3.records - before[live.stream.name][1],
            )
            for live in wanted
        }

    def status(self) -> dict[str, Any]:
        """Tell what the server holds, as JSON."""
        now = self._now()
        streams = {}
        for name, live in sorted(self._live.items()):
            streams[name] = {
                "buffers": len(live.buffers),
                "activePartitions": live.buffers.active_partitions,
                "pendingRecords": live.pending,
                "oldestRecordAgeSeconds": live.age(now),
                "batchesBeingProcessed": len(live.making),
                "deliveriesUnderWay": len(live.tasks),
                "deliveredObjects": live.metrics.s3.objects,
                "deliveredRecords": live.metrics.s3.records,
                "deliveredBytes": live.metrics.s3.bytes,
                "backedUpRecords": live.metrics.backup.records,
                "refusedRecords": dict(live.refused),
                "trouble": live.trouble,
            }
        return {
            "streams": streams,
            "pendingRecords": self._pending_records,
            "pendingBytes": self._pending_bytes - self._pending_records * _RECORD_OVERHEAD,
            "logBytes": self._journal.size,
            "logFailing": self._journal.failing,
            "activePartitionQuota": self._registry.partitions,
        }

    def _hold(self, live: LiveStream, count: int, size: int) -> None:
        live.pending += count
        self._pending_bytes += size + _RECORD_OVERHEAD * count
        self._pending_records += count

    def _hold_all(self, live: LiveStream, data: Sequence[bytes]) -> None:
        self._hold(live, len(data), sum(map(len, data)))

    def _free(self, live: LiveStream, count: int, size: int) -> None:
        self._hold(live, -count, -size)

    def _free_all(self, live: LiveStream, data: Sequence[bytes]) -> None:
        self._free(live, len(data), sum(map(len, data)))

    def _drop(self, live: LiveStream, numbers: Sequence[int], data: Sequence[bytes]) -> None:
        self._free_all(live, data)
        self._journal.forget(numbers)

    async def _process(self) -> None:
        while True:
            if not self._queue:
                self._wake.clear()
                await self._wake.wait()
            item = self._queue.popleft()
            if isinstance(item, asyncio.Future):
                if not item.done():
                    item.set_result(None)
                continue
            item()
            await asyncio.sleep(0)  # acknowledgements go first

    def _take(self, live: LiveStream, chunk: Chunk) -> None:
        if live.deleted:
            self._drop(live, chunk.numbers, chunk.data)
        elif live.gathering is None:
            for buffer in live.take(chunk, self._now_ms, self._registry.partitions):
                self._deliver_buffer(live, buffer)
        else:
            for batch in live.gathering.add(chunk, self._now_ms):
                self._make(live, batch)

    def _take_made(
        self, live: LiveStream, numbers: Sequence[int], records: Sequence[Record], failed: Sequence[Failed]
    ) -> None:
        if live.deleted:
            self._drop(live, numbers, _bytes_of(records, failed))
            return
        for buffer in live.take_made(numbers, records, failed, self._now_ms, self._registry.partitions):
            self._deliver_buffer(live, buffer)

    def _back_up(self, live: LiveStream, chunk: Chunk) -> None:
        # a backup can't be disabled; where there is none all the same, nothing needs these any more
        if live.deleted or live.backup is None:
            self._drop(live, chunk.numbers, chunk.data)
            return
        for buffer in live.back_up(chunk):
            self._deliver_buffer(live, buffer)

    def _recovered(self, live: LiveStream, one: PendingPut | PendingMade) -> Callable[[], None]:
        if isinstance(one, PendingMade):
            self._hold_all(live, _bytes_of(one.records, one.failed))
            return partial(self._take_made, live, one.numbers, one.records, one.failed)
        self._hold_all(live, one.data)
        chunk = Chunk(one.data, one.numbers, one.arrival_ms)
        return partial(self._back_up if one.is_made else self._take, live, chunk)

    def _tell_fault(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None and self._on_failure is not None:
            self._on_failure(error)

    def _make(self, live: LiveStream, batch: Batch) -> None:
        token = uuid4()
        live.under_way[token] = batch.oldest_ms
        task = asyncio.create_task(self._making(live, live.stream, batch))
        live.making.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            live.making.discard(task)
            del live.under_way[token]
            self._tell_fault(task)

        task.add_done_callback(ended)

    async def _making(self, live: LiveStream, stream: DeliveryStream, batch: Batch) -> None:
        records, failed = batch.records, batch.failed
        function = stream.destination.function
        if function is not None and records:
            loop = asyncio.get_running_loop()
            started = time.perf_counter()
            # what was unpacked for it is in memory beside its sources
            beside = batch.size if stream.destination.makers else 0
            self._pending_bytes += beside
            try:
                records, more = await loop.run_in_executor(self._calls, self._invoker, stream.arn, function, records)
            except Exception as error:  # noqa: BLE001 - a fault of ours must not lose records or stop the stream
                records, more = [], broken(records, self._now_ms, error)
            finally:
                self._pending_bytes -= beside
            failed = failed + more
            size = sum(len(one.raw) for one in records)
            live.metrics.executions.note(
                time.perf_counter() - started, len(records), size, failed=bool(more) and not records
            )
        if live.deleted:
            self._drop(live, batch.numbers, batch.data)
            return
        stays = stream.destination.backup is not None
        made = _bytes_of(records, failed)
        self._hold_all(live, made)
        first = await _until_logged(
            lambda: self._journal.make(live.stream.identity, batch.numbers, records, failed, sources_stay=stays)
        )
        if stays:
            for chunk in batch.sources:
                self._back_up(live, chunk)
        else:
            self._free_all(live, batch.data)
        self._take_made(live, range(first, first + len(made)), records, failed)

    def _make_all(self, live: LiveStream) -> None:
        for batch in live.gathering.take() if live.gathering else ():
            self._make(live, batch)

    def _deliver_all(self, live: LiveStream) -> None:
        for buffer in live.close():
            self._deliver_buffer(live, buffer)

    @property
    def _now_ms(self) -> int:
        return int(self._now() * 1000)

    async def _watch(self) -> None:
        while True:
            now_ms = self._now_ms
            for live in list(self._live.values()):
                for batch in live.gathering.due(now_ms) if live.gathering else ():
                    self._make(live, batch)
                for buffer in live.due(now_ms):
                    self._deliver_buffer(live, buffer)
            await asyncio.sleep(_TICK)

    async def _tidy(self) -> None:
        while True:
            await asyncio.sleep(_TIDY_SECONDS)
            try:
                while await self._journal.tidy():
                    pass
            except (LogUnavailableError, OSError) as error:
                _log.warning("the log's oldest segment stays for now: %s", error)

    def _deliver_buffer(self, live: LiveStream, buffer: Buffer) -> None:
        intent = live.intent(buffer)
        # from what was counted: each look at records that have left the processor's cache costs a hundredth of all work
        size = buffer.size - len(buffer.suffix) * len(buffer.data)
        self._deliver(live, intent, buffer.data, size, buffer.oldest_ms, logged=False)

    def _deliver(
        self, live: LiveStream, intent: Intent, data: list[bytes], size: int, oldest_ms: int, *, logged: bool
    ) -> None:
        under_way = live.backing_up if intent.is_backup else live.under_way
        under_way[intent.delivery] = oldest_ms
        task = asyncio.create_task(self._delivery(live, intent, data, size, logged=logged))
        live.tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            live.tasks.discard(task)
            del under_way[intent.delivery]
            if task.cancelled() and live.deleted:
                self._journal.abandon(intent.delivery)
                self._drop(live, intent.numbers, data)
            self._tell_fault(task)

        task.add_done_callback(ended)

    async def _delivery(self, live: LiveStream, intent: Intent, data: list[bytes], size: int, *, logged: bool) -> None:
        if not logged:
            await _until_logged(lambda: self._journal.intend(intent))
        await self._uploads.write(live, intent, data, size)
        live.written(intent).note(len(data), size)
        await _until_logged(lambda: self._journal.done(intent))
        self._free(live, len(data), size)


async def _until_logged(attempt: Callable[[], Awaitable[_Answer]]) -> _Answer:
    pause = FIRST_PAUSE
    while True:
        try:
            return await attempt()
        except LogUnavailableError:
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_PAUSE)


def _bytes_of(records: Sequence[Record], failed: Sequence[Failed]) -> list[bytes]:
    return [one.raw for one in records] + [one.raw for one in failed]
