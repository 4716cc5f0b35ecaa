"""Owns `/metrics`: the server's figures as Prometheus reads them.

A name is the documented CloudWatch metric's, in Prometheus's manner: `DeliveryToS3.DataFreshness` is
`firehose_delivery_to_s3_data_freshness_seconds`. What CloudWatch has no name for (the log, memory) is told beside it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from firehose.metrics import BOUNDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from prometheus_client.core import Metric

    from firehose.engine import Engine
    from firehose.live import LiveStream
    from firehose.metrics import Timings
    from firehose.throttling import PutQuota

__all__ = ["CONTENT_TYPE", "Exposition"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_COUNTERS: dict[str, tuple[str, Callable[[LiveStream], float]]] = {
    "firehose_incoming_records": ("Records taken", lambda live: live.metrics.incoming_records),
    "firehose_incoming_bytes": ("Bytes of records taken", lambda live: live.metrics.incoming_bytes),
    "firehose_incoming_put_requests": ("PutRecord and PutRecordBatch calls taken", lambda live: live.metrics.requests),
    "firehose_throttled_records": (
        "Records turned away: too much isn't delivered, or the stream's quota is used up",
        lambda live: live.metrics.throttled,
    ),
    "firehose_delivery_to_s3_objects": ("Objects written to S3", lambda live: live.metrics.s3.objects),
    "firehose_delivery_to_s3_records": ("Records in objects written to S3", lambda live: live.metrics.s3.records),
    "firehose_delivery_to_s3_bytes": ("Bytes of these records, as they came", lambda live: live.metrics.s3.bytes),
    "firehose_delivery_to_s3_attempts": ("Attempts at writing an object", lambda live: live.metrics.s3.attempts),
    "firehose_delivery_to_s3_failures": ("Attempts that S3 didn't take", lambda live: live.metrics.s3.failures),
    "firehose_backup_to_s3_objects": ("Objects of the backup written to S3", lambda live: live.metrics.backup.objects),
    "firehose_backup_to_s3_records": ("Source records in them", lambda live: live.metrics.backup.records),
    "firehose_backup_to_s3_bytes": ("Bytes of these records", lambda live: live.metrics.backup.bytes),
    "firehose_backup_to_s3_attempts": ("Attempts at writing such an object", lambda live: live.metrics.backup.attempts),
    "firehose_backup_to_s3_failures": ("Attempts that S3 didn't take", lambda live: live.metrics.backup.failures),
    "firehose_execute_processing_failures": (
        "Batches of which a Lambda function gave nothing back",
        lambda live: live.metrics.executions.failed,
    ),
    "firehose_succeed_processing_records": (
        "Records that Lambda functions made",
        lambda live: live.metrics.executions.records,
    ),
    "firehose_succeed_processing_bytes": ("Bytes of these", lambda live: live.metrics.executions.bytes),
    "firehose_succeed_conversion_records": (
        "Records that fit the table they are converted by",
        lambda live: live.metrics.conversions.records,
    ),
    "firehose_succeed_conversion_bytes": ("Bytes of these", lambda live: live.metrics.conversions.bytes),
    "firehose_failed_conversion_records": (
        "Records that don't fit it",
        lambda live: live.metrics.conversions.failed_records,
    ),
    "firehose_failed_conversion_bytes": ("Bytes of these", lambda live: live.metrics.conversions.failed_bytes),
    "firehose_partition_count_exceeded_records": (
        "Records that the quota of active partitions turned away",
        lambda live: live.metrics.exceeded,
    ),
}
_GAUGES: dict[str, tuple[str, Callable[[LiveStream], float]]] = {
    "firehose_pending_records": ("Records acknowledged and not delivered", lambda live: live.pending),
    "firehose_partition_count": ("Active partitions", lambda live: live.buffers.active_partitions),
    "firehose_buffers": ("Open buffers, those of errors too", lambda live: len(live.buffers)),
    "firehose_deliveries_under_way": ("Objects being written", lambda live: len(live.tasks)),
    "firehose_delivery_failing": ("1 while S3 doesn't take a stream's objects", lambda live: live.trouble is not None),
}
_TIMINGS: dict[str, tuple[str, Callable[[LiveStream], Timings]]] = {
    "firehose_put_record_latency_seconds": (
        "From a PutRecord's arrival to its acknowledgement",
        lambda live: live.metrics.put_record.latency,
    ),
    "firehose_put_record_batch_latency_seconds": (
        "From a PutRecordBatch's arrival to its acknowledgement",
        lambda live: live.metrics.put_record_batch.latency,
    ),
    "firehose_processing_duration_seconds": (
        "Of one put's records through the processors, jq's part first of all",
        lambda live: live.metrics.processing,
    ),
    "firehose_execute_processing_duration_seconds": (
        "Of one batch's way through a Lambda function, its retries among it",
        lambda live: live.metrics.executions.latency,
    ),
}


class Exposition:
    """Renders the figures when they are asked for.

    Args:
        engine: whose figures.
        now: seconds since the epoch.
        quota: of each stream, if there is one.
    """

    def __init__(self, engine: Engine, now: Callable[[], float], quota: PutQuota | None = None) -> None:
        self._engine = engine
        self._quota = quota
        self._now = now
        self._errors: Mapping[str, int] = {}
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def render(self, errors: Mapping[str, int]) -> bytes:
        """All figures, in Prometheus's text format.

        Args:
            errors: requests that were answered with an error, by its code.
        """
        self._errors = errors
        return generate_latest(self._registry)

    def collect(self) -> Iterator[Metric]:
        """What the library asks for."""
        streams = sorted(self._engine.streams.items())
        for name, (told, figure) in _COUNTERS.items():
            counter = CounterMetricFamily(name, told, labels=["stream"])
            for stream, live in streams:
                counter.add_metric([stream], figure(live))
            yield counter
        for name, (told, figure) in _GAUGES.items():
            gauge = GaugeMetricFamily(name, told, labels=["stream"])
            for stream, live in streams:
                gauge.add_metric([stream], figure(live))
            yield gauge
        for name, (told, timings) in _TIMINGS.items():
            histogram = HistogramMetricFamily(name, told, labels=["stream"])
            for stream, live in streams:
                found = timings(live)
                histogram.add_metric([stream], _buckets(found), found.total)
            yield histogram
        now = self._now()
        told = "Age of the oldest record that isn't delivered"
        yield self._ages("firehose_delivery_to_s3_data_freshness_seconds", told, lambda live: live.age(now))
        told = "Age of the oldest source record that the backup lacks"
        yield self._ages("firehose_backup_to_s3_data_freshness_seconds", told, lambda live: live.backup_age(now))
        yield from self._limits()
        refused = CounterMetricFamily(
            "firehose_refused_records", "Records sent to the error prefix", labels=["stream", "code"]
        )
        for stream, live in streams:
            for code, count in sorted(live.refused.items()):
                refused.add_metric([stream, code], count)
        yield refused
        yield self._answered()
        status = self._engine.status()
        for name, told, value in (
            ("firehose_log_bytes", "Size of the log on disk", status["logBytes"]),
            ("firehose_log_failing", "1 while the log can't be written", status["logFailing"]),
            ("firehose_pending_bytes", "Bytes of records that aren't delivered", status["pendingBytes"]),
            ("firehose_active_partition_quota", "Partitions a stream may have", status["activePartitionQuota"]),
        ):
            yield GaugeMetricFamily(name, told, value=float(value))

    def _answered(self) -> Metric:
        family = CounterMetricFamily("firehose_errors", "Requests answered with an error", labels=["code"])
        for code, count in sorted(self._errors.items()):
            family.add_metric([code], count)
        return family

    def _limits(self) -> Iterator[Metric]:
        if self._quota is None:
            return
        for name, told, value in (
            ("firehose_records_per_second_limit", "Records a stream takes in a second", self._quota.records),
            ("firehose_bytes_per_second_limit", "Bytes of records that it takes", self._quota.bytes),
            ("firehose_put_requests_per_second_limit", "Put calls that it takes", self._quota.requests),
        ):
            family = GaugeMetricFamily(name, told, labels=["stream"])
            for stream in sorted(self._engine.streams):
                family.add_metric([stream], value)
            yield family

    def _ages(self, name: str, told: str, age: Callable[[LiveStream], float | None]) -> Metric:
        family = GaugeMetricFamily(name, told, labels=["stream"])
        for stream, live in sorted(self._engine.streams.items()):
            family.add_metric([stream], age(live) or 0.0)
        return family


def _buckets(timings: Timings) -> list[tuple[str, float]]:
    made, sofar = [], 0
    for bound, count in zip((*map(str, BOUNDS), "+Inf"), timings.buckets, strict=True):
        sofar += count
        made.append((bound, float(sofar)))
    return made
