"""Owns telling CloudWatch: each minute what streams did in it, under the documented names.

A minute that CloudWatch didn't take is told with the next one. Names and units:
https://docs.aws.amazon.com/firehose/latest/dev/monitoring-with-cloudwatch-metrics.html. Not told:
PerPartitionThroughput.
"""

from __future__ import annotations

import asyncio
import logging
from copy import deepcopy
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from firehose.metrics import Calls, StreamMetrics

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from firehose.engine import Engine
    from firehose.live import LiveStream
    from firehose.metrics import Conversions, Executions, Timings, Written
    from firehose.throttling import PutQuota

__all__ = ["CloudWatch"]

_log = logging.getLogger(__name__)
_AT_ONCE = 500
"""Figures of one call: CloudWatch takes 1,000, and 1 MB."""


class CloudWatch:
    """Tells CloudWatch what the streams did.

    Args:
        client: CloudWatch's.
        namespace: of the metrics. `AWS/Firehose` is what dashboards and alarms look at; AWS itself lets nobody else
            write to a namespace that begins with `AWS/`.
        engine: whose figures.
        now: seconds since the epoch.
        quota: of each stream, if there is one.
    """

    def __init__(
        self, client: Any, namespace: str, engine: Engine, now: Callable[[], float], quota: PutQuota | None = None
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._engine = engine
        self._now = now
        self._quota = quota
        self._told: dict[str, StreamMetrics] = {}
        self._failing = False

    async def run(self, seconds: float) -> None:
        """Tell it each so many seconds, for ever."""
        while True:
            await asyncio.sleep(seconds)
            await self.tell()

    async def tell(self) -> None:
        """Tell what was done since the last time."""
        streams, now = dict(self._engine.streams), self._now()
        data = [
            {
                **one,
                "Timestamp": datetime.fromtimestamp(now, UTC),
                "Dimensions": [{"Name": "DeliveryStreamName", "Value": name}],
            }
            for name, live in streams.items()
            for one in (*_figures(live, self._told.get(name, StreamMetrics()), now), *_limits(self._quota))
        ]
        seen = {name: deepcopy(live.metrics) for name, live in streams.items()}
        for live in streams.values():
            for timings in live.metrics.timings:
                timings.reset()
        try:
            for start in range(0, len(data), _AT_ONCE):
                await asyncio.to_thread(
                    self._client.put_metric_data, Namespace=self._namespace, MetricData=data[start : start + _AT_ONCE]
                )
        except (ClientError, BotoCoreError) as error:
            if not self._failing:
                _log.warning("CloudWatch: %s; what it wasn't told it is told with the next minute", error)
            self._failing = True
            for name, live in streams.items():
                for timings, before in zip(live.metrics.timings, seen[name].timings, strict=True):
                    timings.restore(before)
            return
        self._failing = False
        self._told = seen


def _figures(live: LiveStream, before: StreamMetrics, now: float) -> Iterator[dict[str, Any]]:
    found = live.metrics
    if found.requests > before.requests:
        yield _sum("IncomingRecords", "Count", found.incoming_records - before.incoming_records)
        yield _sum("IncomingBytes", "Bytes", found.incoming_bytes - before.incoming_bytes)
        yield _sum("IncomingPutRequests", "Count", found.requests - before.requests)
    yield from _calls("PutRecord", found.put_record, before.put_record)
    yield from _calls("PutRecordBatch", found.put_record_batch, before.put_record_batch)
    if found.put_record_batch.records > before.put_record_batch.records:
        yield _sum("PutRecordBatch.Records", "Count", found.put_record_batch.records - before.put_record_batch.records)
    if found.throttled > before.throttled:
        yield _sum("ThrottledRecords", "Count", found.throttled - before.throttled)
    if found.s3.objects > before.s3.objects:
        yield _sum("DeliveryToS3.ObjectCount", "Count", found.s3.objects - before.s3.objects)
    yield from _written("DeliveryToS3", found.s3, before.s3)
    if live.pending or found.requests > before.requests:
        yield _sum("DeliveryToS3.DataFreshness", "Seconds", live.age(now) or 0.0)
    if live.stream.destination.backup is not None:
        yield from _written("BackupToS3", found.backup, before.backup)
        yield _sum("BackupToS3.DataFreshness", "Seconds", live.backup_age(now) or 0.0)
    yield from _executed(found.executions, before.executions)
    yield from _converted(found.conversions, before.conversions)
    if live.stream.destination.keys is not None:
        yield _sum("PartitionCount", "Count", live.buffers.active_partitions)
        yield _sum("PartitionCountExceeded", "Count", found.exceeded > before.exceeded)
        yield from _durations("JQProcessing.Duration", found.processing, before.processing)


def _written(name: str, found: Written, before: Written) -> Iterator[dict[str, Any]]:
    if found.objects > before.objects:
        yield _sum(f"{name}.Records", "Count", found.records - before.records)
        yield _sum(f"{name}.Bytes", "Bytes", found.bytes - before.bytes)
    yield from _success(f"{name}.Success", found.attempts - before.attempts, found.failures - before.failures)


def _executed(found: Executions, before: Executions) -> Iterator[dict[str, Any]]:
    count = found.latency.count - before.latency.count
    yield from _success("ExecuteProcessing.Success", count, found.failed - before.failed)
    yield from _durations("ExecuteProcessing.Duration", found.latency, before.latency)
    if count:
        yield _sum("SucceedProcessing.Records", "Count", found.records - before.records)
        yield _sum("SucceedProcessing.Bytes", "Bytes", found.bytes - before.bytes)


def _converted(found: Conversions, before: Conversions) -> Iterator[dict[str, Any]]:
    if found.records + found.failed_records > before.records + before.failed_records:
        yield _sum("SucceedConversion.Records", "Count", found.records - before.records)
        yield _sum("SucceedConversion.Bytes", "Bytes", found.bytes - before.bytes)
        yield _sum("FailedConversion.Records", "Count", found.failed_records - before.failed_records)
        yield _sum("FailedConversion.Bytes", "Bytes", found.failed_bytes - before.failed_bytes)


def _success(name: str, attempts: int, failures: int) -> Iterator[dict[str, Any]]:
    if attempts:
        good = attempts - failures
        shares = _set(attempts, good, float(good == attempts), float(good > 0))
        yield {"MetricName": name, "Unit": "None", **shares}


def _limits(quota: PutQuota | None) -> Iterator[dict[str, Any]]:
    if quota is not None:
        yield _sum("RecordsPerSecondLimit", "Count", quota.records)
        yield _sum("BytesPerSecondLimit", "Bytes", quota.bytes)
        yield _sum("PutRequestsPerSecondLimit", "Count", quota.requests)


def _calls(name: str, found: Calls, before: Calls) -> Iterator[dict[str, Any]]:
    count = found.latency.count - before.latency.count
    if not count:
        return
    yield _sum(f"{name}.Requests", "Count", count)
    yield _sum(f"{name}.Bytes", "Bytes", found.bytes - before.bytes)
    yield from _durations(f"{name}.Latency", found.latency, before.latency)


def _durations(name: str, found: Timings, before: Timings) -> Iterator[dict[str, Any]]:
    count = found.count - before.count
    if count and found.least is not None and found.most is not None:
        total = (found.total - before.total) * 1000
        yield {"MetricName": name, "Unit": "Milliseconds", **_set(count, total, found.least * 1000, found.most * 1000)}


def _set(count: float, total: float, least: float, most: float) -> dict[str, Any]:
    return {"StatisticValues": {"SampleCount": count, "Sum": total, "Minimum": least, "Maximum": most}}


def _sum(name: str, unit: str, value: float) -> dict[str, Any]:
    return {"MetricName": name, "Unit": unit, "Value": float(value)}
