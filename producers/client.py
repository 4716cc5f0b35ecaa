"""Owns `Producer`: what an application sends events with.

An event is on disk when `send` returns, and leaves the disk when Firehose has acknowledged it by itself. Whatever
happens in between - no network, throttling, a crash, a full disk - it is sent again with the same bytes and event id.

    with Producer(
        "acme-prod-flights-ewr", tenant="ewr", dataset="flights", producer_id="site-1", schema_version="1.0.0",
        spool=Path("/var/lib/lakehose"), firehose=boto3.client("firehose"),
    ) as producer:
        producer.send({"carrier": "UA"}, datetime.now(UTC))
"""

from __future__ import annotations

import logging
import random
import threading
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

from botocore.exceptions import BotoCoreError, ClientError

from lake.envelope import Event, new_event_id
from lake.errors import LakehoseError, TransientError
from lake.manifest import ProducerLedger
from producers.clock import SystemClock
from producers.options import SendOptions
from producers.rendering import NewEvent, Renderer
from producers.sender import Sender
from producers.spool import Spool, SpoolIdentity

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime
    from pathlib import Path
    from types import TracebackType

    from mypy_boto3_firehose import FirehoseClient

    from producers.clock import Clock
    from producers.spool import DeadLetter, NewRow, Tally

__all__ = ["FLUSH_SECONDS", "NewEvent", "Producer", "ProducerStatus"]

_log = logging.getLogger(__name__)

FLUSH_SECONDS = 60.0
"""How long `flush` tries unless told otherwise."""
_GROUP_EVENTS = 2_000
_GROUP_BYTES = 16 * 1024 * 1024


@dataclass(frozen=True)
class ProducerStatus:
    """How a producer is doing, for its metrics."""

    waiting: int
    """Events in the spool."""
    waiting_bytes: int
    oldest_seconds: float
    """Since the first event that waits was taken over; 0 when none waits."""
    not_taken: int
    """How often, since the start, a record was sent and not taken: throttling, or no connection."""
    trouble: str
    """What keeps events from being sent, in words; empty when nothing does."""


class Producer:
    """Sends events of one dataset to one delivery stream, through a durable spool. Threads may share it.

    Args:
        stream: name of the delivery stream.
        tenant: whose events.
        dataset: kind of the events.
        producer_id: who sends them; sequence numbers are gapless for each producer and dataset.
        schema_version: version of the dataset's contract that the payloads follow.
        spool: folder of the spools of this machine; the producer's own file in it is made when it isn't there.
        firehose: boto3's Firehose client. Best with one attempt a call (`total_max_attempts=1`), as retrying is the
            producer's.
        options: batch limits, backoff, calls in flight, the spool's limit.
        encode: renders an event as the bytes of a record.
        ledger_to: is given the producer's ledger after `flush` and at `close`, for example `Manifest.report`.
        clock: time.
        ids: makes event ids.
        rng: gives numbers from 0 up to 1, evenly, for the jitter.

    Raises:
        SpoolError: the spool can't be opened, or another process has it open.
        TerminalError: an argument isn't allowed.
    """

    def __init__(
        self,
        stream: str,
        *,
        tenant: str,
        dataset: str,
        producer_id: str,
        schema_version: str,
        spool: Path,
        firehose: FirehoseClient,
        options: SendOptions | None = None,
        encode: Callable[[Event], bytes] = Event.encode,
        ledger_to: Callable[[ProducerLedger], None] | None = None,
        clock: Clock | None = None,
        ids: Callable[[], str] = new_event_id,
        rng: Callable[[], float] = random.random,
    ) -> None:
        self.stream = stream
        self._identity = SpoolIdentity(tenant, dataset, producer_id)
        self._options = options or SendOptions()
        self._renderer = Renderer(self._identity, schema_version, encode, ids, self._options.record_bytes)
        self._ledger_to = ledger_to
        self._clock = clock or SystemClock()
        self._spool = Spool(spool, self._identity, max_bytes=self._options.spool_max_bytes)
        self._sender = Sender(self._spool, firehose, stream, options=self._options, clock=self._clock, rng=rng)
        self._taking = threading.Lock()
        self._background: threading.Thread | None = None
        self._wake = threading.Event()
        self._stop = threading.Event()
        self._trouble = ""
        self._reported: Tally | None = None
        self._closed = False

    # Taking events over

    def send(self, payload: Mapping[str, Any], event_time: datetime, *, event_id: str | None = None) -> Event:
        """Take one event over; it is on disk when this returns.

        An event that can't be encoded, or is bigger than a record may be, goes to the dead letters with the reason.

        Raises:
            SpoolFullError: no room; the event was not taken, nothing is lost.
            ValueError: the event time has no time zone, or the event id isn't allowed; the event was not taken.
        """
        with self._taking:
            event, row = self._renderer.render(NewEvent(payload, event_time, event_id), self.next_sequence)
            self._append([row])
        return event

    def send_many(
        self,
        events: Iterable[
            NewEvent | tuple[Mapping[str, Any], datetime] | tuple[Mapping[str, Any], datetime, str | None]
        ],
    ) -> int:
        """Take many events over, in order; all are on disk when this returns. Answers how many.

        They go to disk in groups of up to 2,000 events or 16 MiB with one sync each, so any number of them may come
        from a generator. Where this raises, groups before are taken: `next_sequence` tells how many events were.

        Raises:
            SpoolFullError: no room for a group.
            ValueError: as in `send`; its group is not taken.
        """
        count = 0
        pulled = iter(events)
        # pulled before the lock is taken: a slow generator keeps no other thread waiting
        while group := list(islice(pulled, _GROUP_EVENTS)):
            with self._taking:
                self._take_group([one if isinstance(one, NewEvent) else NewEvent(*one) for one in group])
            count += len(group)
        return count

    def _take_group(self, group: list[NewEvent]) -> None:
        rows: list[NewRow] = []
        size = 0
        for new in group:
            _, row = self._renderer.render(new, self.next_sequence + len(rows))
            rows.append(row)
            size += len(row.data)
            if size >= _GROUP_BYTES:
                self._append(rows)
                rows, size = [], 0
        if rows:
            self._append(rows)

    def _append(self, rows: list[NewRow]) -> None:
        first = self.next_sequence
        self._spool.append(rows, self._now_ms())
        for sequence, row in enumerate(rows, first):
            if row.dead is not None:
                _log.warning("%s: event %d (%s) dead-lettered: %s", self._identity, sequence, row.event_id, row.dead)
        self._wake.set()

    # Sending

    def flush(self, timeout: float = FLUSH_SECONDS) -> None:
        """Send until every event taken over so far is acknowledged or dead-lettered; then report the ledger.

        Args:
            timeout: seconds to keep trying; a call under way is waited for.

        Raises:
            TransientError: some still wait after that time. They stay in the spool and are sent later.
            TerminalError: the stream refuses, and only a person can change that. They stay in the spool.
        """
        last = self.next_sequence - 1
        deadline = self._clock.monotonic() + timeout
        while True:
            pause = self._sender.round().pause
            if self.shipped_up_to >= last:
                break
            left = deadline - self._clock.monotonic()
            if left <= 0:
                raise TransientError(self._still_waiting(timeout))
            if pause:
                self._clock.sleep(min(pause, left))
        self._report()

    def _still_waiting(self, timeout: float) -> str:
        words = (
            f"delivery stream {self.stream}: after {timeout:g} s {self._spool.tally.waiting:,} events still wait in "
        )
        words += f"{self._spool.path}, none is lost; they are sent with the next flush or start"
        return f"{words}. What it said last: {self._sender.last_refusal}" if self._sender.last_refusal else words

    def pump(self) -> int:
        """Send what may be sent now, without waiting; answers how many events were acknowledged.

        Raises:
            TerminalError: as in `flush`.
        """
        acknowledged = 0
        while (done := self._sender.round()).tried:
            acknowledged += done.acknowledged
        return acknowledged

    def start(self) -> None:
        """Send in the background from now on, until `close`; starting twice changes nothing.

        Failures are tried again for ever and told by `status`: a stream that refuses may be mended without a restart.
        """
        with self._taking:
            if self._background is None:
                self._background = threading.Thread(target=self._send_for_ever, name="lakehose-producer", daemon=True)
                self._background.start()

    def _send_for_ever(self) -> None:
        while not self._stop.is_set():
            pause = self._send_in_background()
            if pause is None:
                self._wake.wait()
                self._wake.clear()
                if self._spool.tally.waiting < self._options.batch_records:
                    self._stop.wait(self._options.linger)
            elif pause:
                self._stop.wait(pause)

    def _send_in_background(self) -> float | None:
        try:
            pause = self._sender.round().pause
            trouble = self._sender.last_refusal
        except LakehoseError as error:
            pause, trouble = self._options.backoff_cap, str(error)
        except BaseException as error:
            self._trouble = f"the background sender ended: {error!r}"
            raise
        if trouble and not self._trouble:
            _log.warning("%s: events wait: %s", self._identity, trouble)
        self._trouble = trouble
        return pause

    # What is known

    @property
    def next_sequence(self) -> int:
        """Sequence number of the next event, which is how many were taken over: where to go on after a crash."""
        return self._spool.tally.next_sequence

    @property
    def shipped_up_to(self) -> int:
        """Every event up to this sequence number is acknowledged or dead-lettered; -1 when the first one waits."""
        first = self._spool.first_waiting()
        return (first[0] if first else self.next_sequence) - 1

    def ledger(self) -> ProducerLedger:
        """What the producer says of itself, counted since it first started."""
        tally, dead_letters, days = self._spool.account()
        return ProducerLedger(
            tenant=self._identity.tenant,
            dataset=self._identity.dataset,
            producer_id=self._identity.producer_id,
            sent=tally.next_sequence,
            acknowledged=tally.acknowledged,
            dead_lettered=tally.dead_lettered,
            reported_at_ms=self._now_ms(),
            dead_letters=dead_letters,
            days=days,
        )

    def status(self) -> ProducerStatus:
        """How the producer is doing."""
        tally = self._spool.tally
        first = self._spool.first_waiting()
        return ProducerStatus(
            waiting=tally.waiting,
            waiting_bytes=tally.waiting_bytes,
            oldest_seconds=max(0.0, (self._now_ms() - first[1]) / 1000) if first else 0.0,
            not_taken=self._sender.not_taken,
            trouble=self._trouble or self._sender.last_refusal,
        )

    def dead_letters(self) -> list[DeadLetter]:
        """Events that can't be sent, with the reasons."""
        return self._spool.dead_letters()

    # The end

    def close(self) -> None:
        """End the background sender, report the ledger and close the spool; what waits stays, and is sent later."""
        self._close(quietly=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Flush and close; after an error only close."""
        try:
            if error is None:
                self.flush()
        except BaseException:
            self._close(quietly=True)
            raise
        self._close(quietly=error is not None)

    def _close(self, *, quietly: bool) -> None:
        """Quietly: an error is under way, which a report that fails must not hide."""
        if self._closed:
            return
        self._closed = True
        self._stop.set()
        self._wake.set()
        if self._background is not None:
            self._background.join()
        try:
            self._report()
        except (LakehoseError, BotoCoreError, ClientError) as error:
            if not quietly:
                raise
            _log.warning("%s: the ledger was not reported: %s", self._identity, error)
        finally:
            self._sender.close()
            self._spool.close()

    def _report(self) -> None:
        """Hand the ledger on, unless that would tell nothing new."""
        tally = self._spool.tally
        if self._ledger_to is not None and tally != self._reported:
            self._ledger_to(self.ledger())
            self._reported = tally

    def _now_ms(self) -> int:
        return int(self._clock.now().timestamp() * 1000)
