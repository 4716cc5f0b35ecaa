"""Owns what a stream's traffic is counted in: the figures behind `/metrics` and CloudWatch.

Counts only ever rise; what takes a period's share of them keeps what it saw last. Names and meanings:
https://docs.aws.amazon.com/firehose/latest/dev/monitoring-with-cloudwatch-metrics.html
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

__all__ = ["BOUNDS", "Calls", "Conversions", "Executions", "StreamMetrics", "Timings", "Written"]

BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper bounds of a histogram's buckets, in seconds; behind the last there is one more."""


@dataclass(slots=True)
class Timings:
    """Durations, in seconds."""

    buckets: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    """How many fell between each bound and the one before it."""
    total: float = 0.0
    least: float | None = None
    """Since `reset`, as is `most`: sums can be subtracted, extremes can't."""
    most: float | None = None

    @property
    def count(self) -> int:
        """How many."""
        return sum(self.buckets)

    def note(self, seconds: float) -> None:
        """Count one."""
        self.buckets[bisect_left(BOUNDS, seconds)] += 1
        self.total += seconds
        self._widen(seconds)

    def reset(self) -> None:
        """Begin to look for extremes anew."""
        self.least = self.most = None

    def restore(self, before: Timings) -> None:
        """Let the extremes be those since the `reset` before the last one, which `before` was copied at."""
        for seconds in (before.least, before.most):
            if seconds is not None:
                self._widen(seconds)

    def _widen(self, seconds: float) -> None:
        if self.least is None or seconds < self.least:
            self.least = seconds
        if self.most is None or seconds > self.most:
            self.most = seconds


@dataclass(slots=True)
class Calls:
    """Calls of PutRecord or of PutRecordBatch that were taken."""

    records: int = 0
    bytes: int = 0
    latency: Timings = field(default_factory=Timings)

    def note(self, records: int, size: int, seconds: float) -> None:
        """Count a call of so many records and bytes."""
        self.records += records
        self.bytes += size
        self.latency.note(seconds)


@dataclass(slots=True)
class Written:
    """Objects on their way to S3, and in it."""

    objects: int = 0
    """Written to S3."""
    records: int = 0
    """In them."""
    bytes: int = 0
    """Of these records, as they came."""
    attempts: int = 0
    """At writing an object to S3."""
    failures: int = 0
    """Of these."""

    def note(self, records: int, size: int) -> None:
        """Count an object of so many records and bytes."""
        self.objects += 1
        self.records += records
        self.bytes += size


@dataclass(slots=True)
class Executions:
    """Batches given to a Lambda function."""

    latency: Timings = field(default_factory=Timings)
    failed: int = 0
    """Batches of which nothing came back."""
    records: int = 0
    """That the function made."""
    bytes: int = 0
    """Of these."""

    def note(self, seconds: float, records: int, size: int, *, failed: bool) -> None:
        """Count a batch that took so long, and of which so many records and bytes came back."""
        self.latency.note(seconds)
        self.failed += failed
        self.records += records
        self.bytes += size


@dataclass(slots=True)
class Conversions:
    """Records that were looked at by a table's columns."""

    records: int = 0
    """That fit."""
    bytes: int = 0
    """Of these, as they came."""
    failed_records: int = 0
    failed_bytes: int = 0


@dataclass(slots=True)
class StreamMetrics:
    """One stream's figures since the server started."""

    put_record: Calls = field(default_factory=Calls)
    put_record_batch: Calls = field(default_factory=Calls)
    throttled: int = 0
    """Records that were turned away because too much wasn't delivered yet, or a quota was used up."""
    s3: Written = field(default_factory=Written)
    """Objects of what is delivered, errors among them."""
    backup: Written = field(default_factory=Written)
    """Objects of source records."""
    executions: Executions = field(default_factory=Executions)
    conversions: Conversions = field(default_factory=Conversions)
    exceeded: int = 0
    """Records that the quota of active partitions turned away."""
    processing: Timings = field(default_factory=Timings)
    """Of one put's records through the stream's processors."""

    @property
    def timings(self) -> tuple[Timings, ...]:
        """All durations."""
        return self.put_record.latency, self.put_record_batch.latency, self.processing, self.executions.latency

    @property
    def incoming_records(self) -> int:
        """Records taken."""
        return self.put_record.records + self.put_record_batch.records

    @property
    def incoming_bytes(self) -> int:
        """Bytes taken."""
        return self.put_record.bytes + self.put_record_batch.bytes

    @property
    def requests(self) -> int:
        """Put calls taken."""
        return self.put_record.latency.count + self.put_record_batch.latency.count
