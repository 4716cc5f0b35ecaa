"""Owns group commit: many puts wait, one thread appends and syncs them together, and each is told how it went.

It also keeps count of what each segment still holds, and removes the oldest ones when nothing in them is pending. Only
the oldest: a DONE in a later segment has to outlive the records it speaks of.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from bisect import bisect_left, bisect_right
from collections import deque
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from firehose.frames import Kind, encode_intent, encode_put
from firehose.wal import Entry, Log
from lake.errors import TransientError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from uuid import UUID

    from firehose.frames import Intent
    from firehose.recovery import Recovered
    from firehose.wal import Disk

__all__ = ["Journal", "LogUnavailableError"]

_log = logging.getLogger(__name__)
_GROUP_BYTES = 32 << 20
"""Payload that one fsync takes at most, so that a put waits for tens of milliseconds and not for seconds."""


class LogUnavailableError(TransientError):
    """The log can't be written at the moment: the disk is full or fails."""


@dataclass(slots=True)
class _Held:
    index: int
    first: int
    """Number of the first record it may hold."""
    pending: int
    size: int


@dataclass(frozen=True, slots=True)
class _Waiting:
    entry: Entry
    future: asyncio.Future[None]
    first: int = 0
    count: int = 0
    """Of a put: its records."""


class Journal:
    """The log as the server uses it: from the event loop, with a thread behind it."""

    def __init__(self, folder: Path, segment_bytes: int, recovered: Recovered, *, disk: Disk | None = None) -> None:
        self._log = Log(
            folder,
            segment_bytes,
            next_index=recovered.next_index,
            previous_end=recovered.previous_end,
            next_sequence=recovered.next_sequence,
            disk=disk,
        )
        self._segment_bytes = segment_bytes
        self._held = deque(_Held(one.index, one.first, one.pending, one.size) for one in recovered.segments)
        self._next_number = recovered.next_number
        self._logged = recovered.next_number
        """Number behind the last record that is in the log."""
        self._queue: SimpleQueue[_Waiting | int | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="firehose-log", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._failing = False

    def start(self) -> None:
        """Start the writing thread; the running event loop is the one that is told."""
        self._loop = asyncio.get_running_loop()
        self._thread.start()
        self._remove_delivered()

    async def stop(self) -> None:
        """Write what is waiting, and close the log."""
        self._queue.put(None)
        await asyncio.to_thread(self._thread.join)

    @property
    def size(self) -> int:
        """Bytes of the log on disk."""
        return sum(one.size for one in self._held)

    @property
    def failing(self) -> bool:
        """Whether the last append failed."""
        return self._failing

    async def put(self, stream: UUID, arrival_ms: int, data: Sequence[bytes]) -> int:
        """Log records; returns the first one's number when they are on disk.

        Raises:
            LogUnavailableError: they are not in the log, and won't be delivered.
        """
        first = self._next_number
        self._next_number += len(data)
        await self._append(Entry(Kind.PUT, encode_put(stream, first, arrival_ms, data)), first, len(data))
        return first

    async def intend(self, intent: Intent) -> None:
        """Log that an object is about to be written.

        Raises:
            LogUnavailableError: it isn't in the log.
        """
        await self._append(Entry(Kind.INTENT, encode_intent(intent)))

    async def done(self, delivery: UUID, numbers: Sequence[int]) -> None:
        """Log that an object is in S3; its records then count as delivered.

        Raises:
            LogUnavailableError: it isn't in the log, and the object would be written again after a restart.
        """
        await self._append(Entry(Kind.DONE, delivery.bytes))
        self.forget(numbers)

    def forget(self, numbers: Sequence[int]) -> None:
        """Count records as no longer pending: they are delivered, or their stream is deleted."""
        ordered = sorted(numbers)
        starts = [one.first for one in self._held]
        at = 0
        while at < len(ordered):
            place = max(bisect_right(starts, ordered[at]) - 1, 0)
            end = bisect_left(ordered, starts[place + 1], at) if place + 1 < len(starts) else len(ordered)
            self._held[place].pending -= end - at
            at = end
        self._remove_delivered()

    def _note(self, segment: int, first: int, count: int) -> None:
        # called in the log's order, so a segment not known yet is a new one behind the others
        if not self._held or self._held[-1].index < segment:
            self._held.append(_Held(segment, first if count else self._logged, 0, self._segment_bytes))
            self._remove_delivered()
        if count:
            self._held[-1].pending += count
            self._logged = first + count

    def _remove_delivered(self) -> None:
        # the last one known may be the one that is written to
        while len(self._held) > 1 and self._held[0].pending == 0:
            self._queue.put(self._held.popleft().index)

    async def _append(self, entry: Entry, first: int = 0, count: int = 0) -> None:
        if self._loop is None:
            raise LogUnavailableError("the log is not open")
        future: asyncio.Future[None] = self._loop.create_future()
        self._queue.put(_Waiting(entry, future, first, count))
        await future

    def _write(self) -> None:
        # the thread: takes all that waits, appends it, reports
        going = True
        while going:
            group: list[_Waiting] = []
            item = self._queue.get()
            size = 0
            while True:
                if item is None:
                    going = False
                    break
                if isinstance(item, int):
                    self._remove(item)
                else:
                    group.append(item)
                    size += len(item.entry.payload)
                if size > _GROUP_BYTES:
                    break
                try:
                    item = self._queue.get_nowait()
                except Empty:
                    break
            if group:
                results = self._log.append([one.entry for one in group])
                self._report(group, results)
        self._log.close()

    def _remove(self, index: int) -> None:
        try:
            self._log.remove(index)
        except OSError as error:
            _log.warning("segment %d of the log is delivered, but can't be removed: %s", index, error)

    def _report(self, group: list[_Waiting], results: list[int | OSError]) -> None:
        if self._loop is None or self._loop.is_closed():
            return
        self._loop.call_soon_threadsafe(self._resolve, group, results)

    def _resolve(self, group: list[_Waiting], results: list[int | OSError]) -> None:
        failure = next((result for result in results if isinstance(result, OSError)), None)
        if failure is not None and not self._failing:
            _log.error("the log can't be written: %s; puts are refused until it can", failure.strerror or failure)
        elif failure is None and self._failing:
            _log.warning("the log can be written again")
        self._failing = failure is not None
        for one, result in zip(group, results, strict=True):
            if not isinstance(result, OSError):
                # counted even if nobody waits any more, or the segment would be removed too early
                self._note(result, one.first, one.count)
                if not one.future.done():
                    one.future.set_result(None)
            elif not one.future.done():
                one.future.set_exception(LogUnavailableError(f"the log can't be written: {result.strerror or result}"))
