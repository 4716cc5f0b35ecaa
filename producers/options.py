"""Owns how a producer sends: Firehose's limits, how many calls at once, and how long to back off."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lake.errors import TerminalError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["BATCH_BYTES", "BATCH_RECORDS", "RECORD_BYTES", "SendOptions", "backoff"]

# https://docs.aws.amazon.com/firehose/latest/APIReference/API_PutRecordBatch.html
BATCH_RECORDS = 500
"""Most records one PutRecordBatch takes."""
BATCH_BYTES = 4 * 1024 * 1024
"""Most bytes of records, before base64, one PutRecordBatch takes."""
RECORD_BYTES = 1_024_000
"""Most bytes a record may have, before base64."""


@dataclass(frozen=True)
class SendOptions:
    """How a producer sends."""

    batch_records: int = BATCH_RECORDS
    """Most records of a call; 1 to 500."""
    batch_bytes: int = BATCH_BYTES
    """Most bytes of records of a call; up to 4 MiB."""
    record_bytes: int = RECORD_BYTES
    """Most bytes of an encoded event; a bigger one goes to the dead letters. Up to 1,024,000."""
    max_in_flight: int = 2
    """Calls under way at the same moment."""
    backoff_base: float = 0.1
    """Seconds; the first pause after a failure is up to this long, each further one up to twice the one before."""
    backoff_cap: float = 20.0
    """Seconds; no pause is longer."""
    linger: float = 0.1
    """Seconds the background sender waits for a batch to fill."""
    spool_max_bytes: int | None = None
    """Bytes of events that may wait in the spool, above which it refuses more; None: as the disk has room."""

    def __post_init__(self) -> None:
        _within("batch_records", self.batch_records, 1, BATCH_RECORDS)
        _within("record_bytes", self.record_bytes, 1, RECORD_BYTES)
        _within("batch_bytes", self.batch_bytes, self.record_bytes, BATCH_BYTES)
        _within("max_in_flight", self.max_in_flight, 1, 64)
        _within("backoff_base", self.backoff_base, 0.001, 60)
        _within("backoff_cap", self.backoff_cap, self.backoff_base, 3600)
        _within("linger", self.linger, 0, 60)
        if self.spool_max_bytes is not None:
            _within("spool_max_bytes", self.spool_max_bytes, self.record_bytes, 1 << 50)


def backoff(options: SendOptions, attempt: int, rng: Callable[[], float]) -> float:
    """Seconds to wait after the attempt-th failure in a row, counted from 0: exponential, with full jitter.

    Source: https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/

    Args:
        options: base and cap.
        attempt: failures before this one.
        rng: gives numbers from 0 up to 1, evenly.
    """
    # the exponent is held so that a night without network can't overflow a float
    return rng() * min(options.backoff_cap, options.backoff_base * 2.0 ** min(attempt, 64))


def _within(name: str, given: float, least: float, most: float) -> None:
    if not least <= given <= most:
        raise TerminalError(f"producer option {name}: got {given}, allowed are {least} to {most}")
