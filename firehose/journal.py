"""Owns group commit: many puts wait, one thread appends and syncs them together, and each is told how it went.

It also keeps count of what each segment still holds, and removes the oldest ones when nothing in them is pending. Only
the oldest: a DONE in a later segment has to outlive the records it speaks of. Where little of a long log is pending, as
one stream's bucket is gone and the others deliver, that is carried into the newest segment.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import Counter
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from firehose.found import read_waiting
from firehose.frames import Kind
from firehose.holdings import BUSY, CARRYING, Holdings
from firehose.payloads import (
    Carried,
    Made,
    Stage,
    encode_carried,
    encode_intent,
    encode_made,
    encode_put,
    encode_settled,
)
from firehose.wal import Entry, Log, segment_name
from lake.errors import TransientError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from uuid import UUID

    from firehose.payloads import Intent
    from firehose.records import Failed, Record
    from firehose.recovery import Recovered
    from firehose.wal import Disk

__all__ = ["Journal", "LogUnavailableError"]

_log = logging.getLogger(__name__)
_GROUP_BYTES = 32 << 20
"""Payload that one fsync takes at most, so that a put waits for tens of milliseconds and not for seconds."""


class LogUnavailableError(TransientError):
    """The log can't be written at the moment: the disk is full or fails."""


@dataclass(frozen=True, slots=True)
class _Waiting:
    entry: Entry
    future: asyncio.Future[None]
    first: int = 0
    count: int = 0
    """Of a put, or of what was made: its records."""
    carried: Carried | None = None
    intent: Intent | None = None


@dataclass(slots=True)
class _Open:
    """A delivery that isn't done."""

    intent: Intent
    segment: int
    """Index of the segment that has its intent."""
    were_carried: bool = False
    """Some of its records may be in a later segment than its intent."""
    is_ending: bool = False
    """What says that it is done is on its way to the log."""


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
        self._folder = folder
        self._holdings = Holdings(recovered, segment_bytes)
        self._open: dict[UUID, _Open] = {}
        """Deliveries that aren't done."""
        self._intents_in: Counter[int] = Counter()
        """How many of their intents a segment has, by its index."""
        self._abandoned: set[UUID] = set()
        for one in recovered.deliveries:
            self._opened(one.intent, one.segment)
        self._next_number = recovered.next_number
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
        return self._holdings.size

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

    async def make(
        self, stream: UUID, sources: Sequence[int], records: list[Record], failed: list[Failed], *, sources_stay: bool
    ) -> int:
        """Log what was made of records; returns the first one's number when it is on disk.

        The sources are then done, unless they stay for the backup.

        Raises:
            LogUnavailableError: it isn't in the log, and would be made again after a restart.
        """
        first, count = self._next_number, len(records) + len(failed)
        self._next_number += count
        made = Made(stream, first, sources, sources_stay, records=records, failed=failed)
        # from here on nobody may carry them: where this fails, it is tried until it doesn't
        self._holdings.mark(sources, BUSY)
        await self._append(Entry(Kind.MADE, encode_made(made)), first, count)
        if sources_stay:
            self._holdings.mark(sources, Stage.STAYED)
        else:
            self.forget(sources)
        return first

    async def intend(self, intent: Intent) -> None:
        """Log that an object is about to be written.

        Raises:
            LogUnavailableError: it isn't in the log.
        """
        await self._append(Entry(Kind.INTENT, encode_intent(intent)), intent=intent)

    async def done(self, intent: Intent) -> None:
        """Log that an object is in S3; its records then count as delivered.

        Raises:
            LogUnavailableError: it isn't in the log, and the object would be written again after a restart.
        """
        opened = self._open[intent.delivery]
        opened.were_carried |= self._holdings.were_carried(intent.numbers)
        if opened.were_carried:
            entry = Entry(Kind.SETTLED, encode_settled(intent.delivery, intent.numbers))
        else:
            entry = Entry(Kind.DONE, intent.delivery.bytes)
        # from here on neither its records nor its intent may be carried behind what says that it is done: where that
        # can't be written, it is tried until it can
        self._holdings.mark(intent.numbers, BUSY)
        opened.is_ending = True
        await self._append(entry)
        self._close(intent.delivery)
        self.forget(intent.numbers)

    def forget(self, numbers: Sequence[int]) -> None:
        """Count records as no longer pending: they are delivered, or their stream is deleted."""
        self._holdings.forget(numbers)
        self._remove_delivered()

    def abandon(self, delivery: UUID) -> None:
        """Let go of a delivery whose stream is deleted."""
        if delivery in self._open:
            self._close(delivery)
        else:  # its intent may be on its way to the log
            self._abandoned.add(delivery)

    async def tidy(self) -> bool:
        """Carry on what the oldest segment holds, where little of a long log is pending; answers whether it did.

        Raises:
            LogUnavailableError: it isn't in the log; the segment stays.
            OSError: the segment can't be read; it stays.
        """
        if not self._holdings.is_mostly_settled:
            return False
        oldest = self._holdings.oldest
        wanted = self._holdings.waiting_in(oldest)
        waiting = await asyncio.to_thread(read_waiting, self._folder / segment_name(oldest), wanted)
        self._holdings.is_carrying = True
        try:
            results = await asyncio.gather(*(self._carry(one) for one in waiting), return_exceptions=True)
        finally:
            self._holdings.is_carrying = False
        for failure in results:
            if failure is not None:
                raise failure
        # after their records: an intent says of them only that they are in an object
        for one in [one for one in self._open.values() if one.segment == oldest]:
            if not one.is_ending:
                await self._append(Entry(Kind.INTENT, encode_intent(one.intent)), intent=one.intent)
        self._remove_delivered()
        return self._holdings.oldest != oldest

    async def _carry(self, found: Carried) -> None:
        # some may have been delivered, or be about to be, since they were looked for
        still = {number for number in found.numbers if self._holdings.state(number) == found.stage}
        some = [(number, one) for number, one in zip(found.numbers, found.all, strict=True) if number in still]
        if not some:
            return
        carried = Carried.of(found.stream, found.stage, some)
        self._holdings.mark(carried.numbers, CARRYING)
        try:
            await self._append(Entry(Kind.CARRIED, encode_carried(carried)), carried=carried)
        except LogUnavailableError:
            for number in carried.numbers:
                if self._holdings.state(number) == CARRYING:
                    self._holdings.mark([number], found.stage)
            raise

    def _opened(self, intent: Intent, segment: int) -> None:
        if intent.delivery in self._abandoned:
            self._abandoned.discard(intent.delivery)
            return
        known = self._open.get(intent.delivery)
        if known is None:
            self._open[intent.delivery] = _Open(intent, segment)
        else:  # it was carried
            self._intents_in[known.segment] -= 1
            known.segment = segment
        self._intents_in[segment] += 1

    def _close(self, delivery: UUID) -> None:
        self._intents_in[self._open.pop(delivery).segment] -= 1

    def _remove_delivered(self) -> None:
        # an intent has to outlive what says that it is done, even where its records were carried
        for index in self._holdings.take_settled(lambda index: self._intents_in[index] > 0):
            del self._intents_in[index]
            self._queue.put(index)

    async def _append(
        self, entry: Entry, first: int = 0, count: int = 0, carried: Carried | None = None, intent: Intent | None = None
    ) -> None:
        if self._loop is None:
            raise LogUnavailableError("the log is not open")
        future: asyncio.Future[None] = self._loop.create_future()
        self._queue.put(_Waiting(entry, future, first, count, carried, intent))
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
                stage = Stage.MADE if one.entry.kind is Kind.MADE else Stage.PUT
                self._holdings.note(result, one.first, one.count, stage)
                if one.intent is not None:
                    self._opened(one.intent, result)
                self._remove_delivered()
                if one.carried is not None:
                    self._holdings.note_carried(one.carried)
                if not one.future.done():
                    one.future.set_result(None)
            elif not one.future.done():
                one.future.set_exception(LogUnavailableError(f"the log can't be written: {result.strerror or result}"))
