"""Owns ingest without an end: one warm driver, a round every few seconds, the same code as a single run.

A round that fails for a passing reason (S3 throttles, Glue is away, another run was faster) is followed by the next,
later each time; what can't heal ends the job, and so does an hour without a good round, so that whoever runs it hears
of it. SIGTERM ends it after the round.
"""

from __future__ import annotations

import signal
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from lake.clients import is_passing
from lake.errors import TransientError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from spark_jobs.ingest import IngestReport

__all__ = ["run_rounds", "stop_on_signals"]

_LONGEST_PAUSE = 300.0
_HOPELESS = 3600.0  # seconds without a good round


@contextmanager
def stop_on_signals() -> Iterator[threading.Event]:
    """An event that SIGTERM and SIGINT set, in place of what they did; the main thread's only."""
    stop = threading.Event()
    before = {one: signal.signal(one, lambda *_: stop.set()) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def run_rounds(
    ingest: Callable[[], IngestReport],
    every: float,
    stop: threading.Event,
    *,
    say: Callable[[str], None],
    report: Callable[[IngestReport], None],
    clock: Callable[[], float] = time.monotonic,
    hopeless: float = _HOPELESS,
) -> None:
    """Ingest what is new, round after round, until it is told to stop.

    Args:
        ingest: one round.
        every: seconds from the start of a round to the start of the next; a round that takes longer is followed at
            once.
        stop: ends it, after the round that is under way.
        say: takes a line about a round that failed.
        report: takes what each round did.
        clock: seconds.
        hopeless: seconds without a good round after which it gives up.

    Raises:
        LakehoseError: a round failed for a reason that the next one can't mend, or none was good for too long.
    """
    failed = 0
    good = clock()
    while not stop.is_set():
        started = clock()
        try:
            report(ingest())
            failed, good = 0, clock()
        except (TransientError, ClientError, BotoCoreError) as error:
            if not isinstance(error, TransientError) and not is_passing(error):
                raise
            if clock() - good > hopeless:
                say(f"no round was good for {clock() - good:,.0f} s; it ends here")
                raise
            failed += 1
            say(f"{error}; the next round tries again")
        pause = min(every * 2**failed, max(_LONGEST_PAUSE, every)) if failed else every
        stop.wait(max(0.0, started + pause - clock()))
