"""Owns telling CloudWatch: each minute what streams did in it, under the documented names.

A minute that CloudWatch didn't take is told with the next one. Names and units:
https://docs.aws.amazon.com/firehose/latest/dev/monitoring-with-cloudwatch-metrics.html. Not told: what belongs to
things a stream here doesn't have (Lambda, conversion, backup, limits of AWS), and PerPartitionThroughput.
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
    from firehose.metrics import Timings

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
    """

    def __init__(self, client: Any, namespace: str, engine: Engine, now: Callable[[], float]) -> None:
        self._client = client
        self._namespace = namespace
        self._engine = engine
        self._now = now
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
            for one in _figures(live, self._told.get(name, StreamMetrics()), now)
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
    if found.objects > before.objects:
        yield _sum("DeliveryToS3.ObjectCount", "Count", found.objects - before.objects)
        yield _sum("DeliveryToS3.Records", "Count", found.records - before.records)
        yield _sum("DeliveryToS3.Bytes", "Bytes", found.bytes - before.bytes)
    if attempts := found.attempts - before.attempts:
        good = attempts - (found.failures - before.failures)
        shares = _set(attempts, good, float(good == attempts), float(good > 0))
        yield {"MetricName": "DeliveryToS3.Success", "Unit": "None", **shares}
    if live.pending or found.requests > before.requests:
        yield _value("DeliveryToS3.DataFreshness", "Seconds", live.age(now))
    if live.stream.destination.keys is not None:
        yield _value("PartitionCount", "Count", live.buffers.active_partitions)
        yield _value("PartitionCountExceeded", "Count", found.exceeded > before.exceeded)
        yield from _durations("JQProcessing.Duration", found.processing, before.processing)


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


_value = _sum
