"""Owns a record's way through the server: logged, acknowledged, processed, buffered, delivered, forgotten.

A put is acknowledged when its records are on disk. Behind that, one task takes acknowledged puts in order into
their streams' buffers; a closed buffer becomes a delivery: its intent is logged, its object is written until S3 takes
it, its completion is logged.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from firehose.journal import Journal, LogUnavailableError
from firehose.live import LiveStream
from firehose.objects import render
from firehose.processing import Chunk
from firehose.recovery import recover
from lake.aws_json import ServiceError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from firehose.buffers import Buffer
    from firehose.delivery import S3Writer
    from firehose.frames import Intent
    from firehose.registry import DataFolder, Registry
    from firehose.streams import DeliveryStream
    from firehose.wal import Disk

__all__ = ["Engine", "Flushed", "Limits", "uploading"]

_log = logging.getLogger(__name__)
_TICK = 0.25
"""Seconds between looks at the buffers' ages."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 10.0
"""Seconds between attempts of a delivery: doubling, with jitter."""
_BODIES = 8
"""Which part of the memory for records may be in objects that are being written, beside the records themselves."""
_RECORD_OVERHEAD = 100
"""Bytes that a record costs in memory beside its own."""
_UPLOADER = "firehose-upload"
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

    @property
    def body_bytes(self) -> int:
        """Records in objects that are written at once: each is in memory once or twice more meanwhile."""
        return self.pending_bytes // _BODIES


@dataclass(slots=True)
class Flushed:
    """What a flush delivered of one stream."""

    objects: int = 0
    records: int = 0


@dataclass(frozen=True, slots=True)
class _Accepted:
    live: LiveStream
    chunk: Chunk


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
        disk: Disk | None = None,
    ) -> None:
        """Read the log and take up what it holds; nothing is delivered before `start`.

        Raises:
            EnvironmentProblemError: the log can't be read.
        """
        self._limits = limits or Limits()
        self._registry = registry
        self._writer = writer
        self._now = now
        self._live = {name: LiveStream(stream) for name, stream in registry.streams.items()}
        self._queue: deque[_Accepted | asyncio.Future[None]] = deque()
        self._wake = asyncio.Event()
        self._pool = ThreadPoolExecutor(self._limits.uploads, thread_name_prefix=_UPLOADER)
        self._uploads = asyncio.Semaphore(self._limits.uploads)
        self._turn = asyncio.Lock()
        self._writing = 0
        self._written = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._pending_bytes = self._pending_records = 0
        by_identity = {live.stream.identity: live for live in self._live.values()}
        recovered = recover(folder.log, set(by_identity))
        self._journal = Journal(folder.log, self._limits.segment_bytes, recovered, disk=disk)
        self._again = [(by_identity[one.intent.stream], one) for one in recovered.deliveries]
        for live, one in self._again:
            self._hold(live, one.data)
        for put in recovered.puts:
            self._hold(by_identity[put.stream], put.data)
            self._queue.append(_Accepted(by_identity[put.stream], Chunk(put.data, put.numbers, put.arrival_ms)))
        if self._pending_records:
            _log.warning(
                "the log holds %d records that were acknowledged and aren't delivered; %d objects are written again",
                *(self._pending_records, len(self._again)),
            )

    def start(self, on_failure: Callable[[BaseException], None]) -> None:
        """Begin to work, in the running event loop; `on_failure` is told if a fault of ours ends the work."""

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                on_failure(error)

        self._journal.start()
        self._wake.set()
        for live, one in self._again:
            self._deliver(live, one.intent, one.data, one.oldest_ms, logged=True)
        self._again = []
        self._tasks = [asyncio.create_task(self._process()), asyncio.create_task(self._watch())]
        for task in self._tasks:
            task.add_done_callback(ended)

    async def stop(self) -> None:
        """Wait a little for uploads under way, then close the log; what isn't delivered stays in it."""
        for task in self._tasks:
            task.cancel()
        under_way = [task for live in self._live.values() for task in live.tasks]
        if under_way:
            await asyncio.wait(under_way, timeout=_STOP_SECONDS)
        for task in under_way:
            task.cancel()
        await asyncio.gather(*self._tasks, *under_way, return_exceptions=True)
        await self._journal.stop()
        self._pool.shutdown(wait=False, cancel_futures=True)

    def add(self, stream: DeliveryStream) -> None:
        """Take up a stream that was created."""
        self._live[stream.name] = LiveStream(stream)

    def update(self, stream: DeliveryStream) -> None:
        """Go on with a stream as it is now; what is in its buffers is delivered as it was."""
        live = self._live[stream.name]
        for buffer in live.buffers.take_all():
            self._deliver_buffer(live, buffer)
        live.become(stream)

    def remove(self, name: str) -> None:
        """Let go of a stream that was deleted, and of its records."""
        live = self._live.pop(name)
        live.deleted = True
        for buffer in live.buffers.take_all():
            self._drop(live, buffer.numbers, buffer.data)
        for task in live.tasks:
            task.cancel()

    async def put(self, name: str, data: list[bytes]) -> int:
        """Log records and return the first one's number; they are on disk then.

        Raises:
            ServiceError: ServiceUnavailableException: memory is full, or the log can't be written.
            KeyError: no such stream.
        """
        live = self._live[name]
        cost = sum(map(len, data)) + _RECORD_OVERHEAD * len(data)
        if self._pending_bytes + cost > self._limits.pending_bytes:
            live.metrics.throttled += len(data)
            raise ServiceError("ServiceUnavailableException", "Slow down: too much is not delivered yet.", 503)
        self._hold(live, data)
        arrival = int(self._now() * 1000)
        try:
            first = await self._journal.put(live.stream.identity, arrival, data)
        except LogUnavailableError as error:
            self._release(live, data)
            raise ServiceError("ServiceUnavailableException", f"The service is unavailable: {error}.", 503) from None
        self._queue.append(_Accepted(live, Chunk(data, range(first, first + len(data)), arrival)))
        self._wake.set()
        return first

    @property
    def streams(self) -> Mapping[str, LiveStream]:
        """All streams at work, by name."""
        return self._live

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
        before = {live.stream.name: (live.metrics.objects, live.metrics.records) for live in wanted}
        tasks = []
        for live in wanted:
            for buffer in live.buffers.take_all():
                self._deliver_buffer(live, buffer)
            tasks += list(live.tasks)
        if tasks:
            await asyncio.wait(tasks)  # a flush that gives up doesn't end the deliveries it waits for
        return {
            live.stream.name: Flushed(
                live.metrics.objects - before[live.stream.name][0],
                live.metrics.records - before[live.stream.name][1],
            )
            for live in wanted
        }

    def status(self) -> dict[str, Any]:
        """Tell what the server holds, as JSON."""
        now_ms = int(self._now() * 1000)
        streams = {}
        for name, live in sorted(self._live.items()):
            oldest = live.oldest_ms
            streams[name] = {
                "buffers": len(live.buffers),
                "activePartitions": live.buffers.active_partitions,
                "pendingRecords": live.pending,
                "oldestRecordAgeSeconds": None if oldest is None else max(0, now_ms - oldest) / 1000,
                "deliveriesUnderWay": len(live.tasks),
                "deliveredObjects": live.metrics.objects,
                "deliveredRecords": live.metrics.records,
                "deliveredBytes": live.metrics.bytes,
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

    def _hold(self, live: LiveStream, data: Sequence[bytes]) -> None:
        live.pending += len(data)
        self._pending_bytes += sum(map(len, data)) + _RECORD_OVERHEAD * len(data)
        self._pending_records += len(data)

    def _release(self, live: LiveStream, data: Sequence[bytes]) -> None:
        live.pending -= len(data)
        self._pending_bytes -= sum(map(len, data)) + _RECORD_OVERHEAD * len(data)
        self._pending_records -= len(data)

    def _drop(self, live: LiveStream, numbers: Sequence[int], data: Sequence[bytes]) -> None:
        self._release(live, data)
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
            live, chunk = item.live, item.chunk
            if live.deleted:
                self._drop(live, chunk.numbers, chunk.data)
                continue
            for buffer in live.take(chunk, int(self._now() * 1000), self._registry.partitions):
                self._deliver_buffer(live, buffer)
            await asyncio.sleep(0)  # acknowledgements go first

    async def _watch(self) -> None:
        while True:
            now_ms = int(self._now() * 1000)
            for live in list(self._live.values()):
                for buffer in live.buffers.due(now_ms):
                    self._deliver_buffer(live, buffer)
            await asyncio.sleep(_TICK)

    def _deliver_buffer(self, live: LiveStream, buffer: Buffer) -> None:
        self._deliver(live, live.intent(buffer), buffer.data, buffer.oldest_ms, logged=False)

    def _deliver(self, live: LiveStream, intent: Intent, data: list[bytes], oldest_ms: int, *, logged: bool) -> None:
        live.under_way[intent.delivery] = oldest_ms
        task = asyncio.create_task(self._delivery(live, intent, data, logged=logged))
        live.tasks.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            live.tasks.discard(task)
            del live.under_way[intent.delivery]
            if task.cancelled() and live.deleted:
                self._drop(live, intent.numbers, data)

        task.add_done_callback(ended)

    async def _delivery(self, live: LiveStream, intent: Intent, data: list[bytes], *, logged: bool) -> None:
        if not logged:
            await _until_logged(lambda: self._journal.intend(intent))
        await self._upload(live, intent, data)
        live.metrics.objects += 1
        live.metrics.records += len(data)
        live.metrics.bytes += sum(map(len, data))
        await _until_logged(lambda: self._journal.done(intent.delivery, intent.numbers))
        self._release(live, data)

    async def _upload(self, live: LiveStream, intent: Intent, data: list[bytes]) -> None:
        loop = asyncio.get_running_loop()
        pause = _FIRST_PAUSE
        size = sum(map(len, data))
        while True:
            live.metrics.attempts += 1
            try:
                async with self._room(size), self._uploads:
                    await loop.run_in_executor(self._pool, self._write, intent, data)
            except Exception as error:  # noqa: BLE001 - whatever it is, the records stay, and it is told and tried again
                live.metrics.failures += 1
                if live.trouble is None:
                    _log.warning("stream %s: %s; it is tried until it succeeds", live.stream.name, error)
                live.trouble = str(error) or repr(error)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                pause = min(pause * 2, _LONGEST_PAUSE)
            else:
                if live.trouble is not None:
                    _log.warning("stream %s: S3 takes objects again", live.stream.name)
                live.trouble = None
                return

    @asynccontextmanager
    async def _room(self, size: int) -> AsyncIterator[None]:
        async with self._turn:  # in order: small objects must not keep a large one waiting for ever
            while self._writing and self._writing + size > self._limits.body_bytes:
                self._written.clear()
                await self._written.wait()
            self._writing += size
        try:
            yield
        finally:
            self._writing -= size
            self._written.set()

    def _write(self, intent: Intent, data: list[bytes]) -> None:
        compression = intent.recipe.compression
        # without a name here the body is gone as soon as the attempt is over, however it ended
        self._writer.write(
            intent.bucket, intent.key, render(intent.recipe, data, intent.delivery), compression, intent.kms_key
        )


def uploading() -> list[threading.Thread]:
    """Threads of this process that upload, or are about to end."""
    return [one for one in threading.enumerate() if one.name.startswith(_UPLOADER)]


async def _until_logged(attempt: Callable[[], Any]) -> None:
    pause = _FIRST_PAUSE
    while True:
        try:
            await attempt()
        except LogUnavailableError:
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)
        else:
            return
