"""Owns sending what waits in a spool, round by round, and settling each record by its own acknowledgement.

The spool is the queue: a round reads the first events that wait, sends them in batches, and notes what became of each
in one transaction. What failed by itself is held back for a while of its own, exponential with full jitter, so that one
record that never passes can't slow the others; when a whole call fails, or too many records are held, sending pauses.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lake.errors import TerminalError
from producers.answers import CALL_ERRORS, Outcome, Verdict, judge, read_answer, said
from producers.options import backoff

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mypy_boto3_firehose import FirehoseClient

    from producers.clock import Clock
    from producers.options import SendOptions
    from producers.spool import Spool, WaitingEvent

__all__ = ["Round", "Sender", "batches"]


@dataclass(frozen=True)
class Round:
    """What one round did, and when the next may follow."""

    acknowledged: int = 0
    tried: int = 0
    """Records that were sent, whatever became of them."""
    pause: float | None = None
    """Seconds until something may be sent again; None when nothing waits."""


@dataclass
class _Held:
    attempts: int
    until: float


@dataclass
class _Unnoted:
    """What became of events, until the spool has noted it: a full disk must not make them be sent again."""

    acknowledged: set[int] = field(default_factory=set)
    dead: dict[int, str] = field(default_factory=dict)


def batches(records: Sequence[WaitingEvent], most_records: int, most_bytes: int) -> Iterator[list[WaitingEvent]]:
    """Cut records into batches, in order, each within both limits; a record too big by itself is a batch of its own."""
    batch: list[WaitingEvent] = []
    size = 0
    for record in records:
        if batch and (len(batch) == most_records or size + len(record.data) > most_bytes):
            yield batch
            batch, size = [], 0
        batch.append(record)
        size += len(record.data)
    if batch:
        yield batch


class Sender:
    """Sends one spool's events to one delivery stream. Several threads may call it; rounds follow one another."""

    def __init__(
        self,
        spool: Spool,
        firehose: FirehoseClient,
        stream: str,
        *,
        options: SendOptions,
        clock: Clock,
        rng: Callable[[], float],
    ) -> None:
        self._spool = spool
        self._firehose = firehose
        self._stream = stream
        self._options = options
        self._clock = clock
        self._rng = rng
        self._turn = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._held: dict[int, _Held] = {}
        self._unnoted = _Unnoted()
        self._failures = 0  # calls in a row that were refused as a whole
        self._paused_until = 0.0
        self.last_refusal = ""
        """What Firehose, or the way to it, said in the last round when something wasn't taken; empty when all was."""
        self.not_taken = 0
        """How often a record was sent and not taken, for throttling or for want of a connection."""

    def round(self) -> Round:
        """Send what may be sent now: at most `max_in_flight` batches, each once.

        Raises:
            TerminalError: Firehose refuses in a way that only a person can change.
            SpoolFullError: what became of events can't be noted for want of room; it is remembered and noted later.
        """
        with self._turn:
            self._note(Outcome())
            now = self._clock.monotonic()
            if not self._spool.tally.waiting:
                return Round()
            if now < self._paused_until:
                return Round(pause=self._paused_until - now)
            held = {sequence: one.until for sequence, one in self._held.items() if one.until > now}
            most = self._options.max_in_flight
            records = []
            if len(held) < most * self._options.batch_records:
                records = self._spool.read(
                    skip=held, records=most * self._options.batch_records, size=most * self._options.batch_bytes
                )
            if not records:
                return Round(pause=min(held.values()) - now)
            outcome = self._send(records)
            self._note(outcome)
            return Round(len(outcome.acknowledged), len(records), self._after(outcome))

    def close(self) -> None:
        """End the threads of calls; waits for those under way."""
        with self._turn:
            if self._pool is not None:
                self._pool.shutdown()
                self._pool = None

    def _send(self, records: list[WaitingEvent]) -> Outcome:
        found = list(batches(records, self._options.batch_records, self._options.batch_bytes))
        if len(found) == 1:
            return self._put(found[0])
        if self._pool is None:
            self._pool = ThreadPoolExecutor(self._options.max_in_flight, thread_name_prefix="lakehose-put")
        return sum(self._pool.map(self._put, found), Outcome())

    def _put(self, records: list[WaitingEvent]) -> Outcome:
        """Make one call; one that is too big is made again as two, down to the record that is at fault."""
        try:
            answer = self._firehose.put_record_batch(
                DeliveryStreamName=self._stream, Records=[{"Data": record.data} for record in records]
            )
        except CALL_ERRORS as error:
            if judge(error) is not Verdict.TOO_BIG:
                return Outcome(untried=len(records), error=error, last_refusal=said(error))
            if len(records) == 1:
                size = len(records[0].data)
                return Outcome(dead={records[0].sequence: f"Firehose refuses its {size:,} bytes: {said(error)}"})
            half = len(records) // 2
            return self._put(records[:half]) + self._put(records[half:])
        return read_answer(records, answer)

    def _note(self, outcome: Outcome) -> None:
        self._unnoted.acknowledged.update(outcome.acknowledged)
        self._unnoted.dead.update(outcome.dead)
        self._spool.settle(self._unnoted.acknowledged, self._unnoted.dead)
        for sequence in (*self._unnoted.acknowledged, *self._unnoted.dead):
            self._held.pop(sequence, None)
        self._unnoted = _Unnoted()

    def _after(self, outcome: Outcome) -> float | None:
        """Decide when to go on, and hold back what failed."""
        now = self._clock.monotonic()
        self.last_refusal = outcome.last_refusal
        self.not_taken += len(outcome.failed) + outcome.untried
        draws: dict[int, float] = {}
        for sequence in outcome.failed:
            attempts = self._held[sequence].attempts if sequence in self._held else 0
            if attempts not in draws:
                # what failed together is sent together again
                draws[attempts] = backoff(self._options, attempts, self._rng)
            self._held[sequence] = _Held(attempts + 1, now + draws[attempts])
        if outcome.error is None:
            self._failures = 0
            return 0.0 if self._spool.tally.waiting else None
        if judge(outcome.error) is Verdict.GIVE_UP:
            raise TerminalError(
                f"delivery stream {self._stream}: {_sentence(outcome.error)}; {self._spool.tally.waiting:,} events "
                f"wait in {self._spool.path}, none is lost"
            ) from outcome.error
        pause = backoff(self._options, self._failures, self._rng)
        self._failures += 1
        self._paused_until = now + pause
        return pause


def _sentence(error: Exception) -> str:
    told = said(error)
    if told.startswith("ResourceNotFoundException"):
        return f"there is none of this name; `lakehose apply` makes it ({told})"
    return f"it takes nothing, and trying again can't help: {told}"
