"""The engine in one process: what no client can time from outside."""

from __future__ import annotations

import asyncio
import gzip
import threading
import time
from uuid import uuid4

import pytest

from firehose.buffers import Buffers
from firehose.delivery import S3UnavailableError
from firehose.engine import Engine, Limits
from firehose.registry import DataFolder, Registry
from firehose.streams import DeliveryStream, parse_destination
from lake.aws_json import ServiceError


class HeldWriter:
    """Takes objects when it may."""

    def __init__(self):
        self.may = threading.Event()
        self.trouble = []
        self.objects = []

    def write(self, bucket, key, body, compression, kms_key):  # noqa: ARG002 - as S3Writer has it
        if self.trouble:
            raise self.trouble.pop()
        assert self.may.wait(30)
        self.objects.append((key, body))


def processor(kind, **parameters):
    given = [{"ParameterName": name, "ParameterValue": value} for name, value in parameters.items()]
    return {"Type": kind, "Parameters": given}


def stream(name, bucket="lake", *processors):
    request = {
        "ExtendedS3DestinationConfiguration": {
            "RoleARN": "arn:aws:iam::000000000000:role/r",
            "BucketARN": f"arn:aws:s3:::{bucket}",
            "BufferingHints": {"SizeInMBs": 1, "IntervalInSeconds": 900},
            **({"ProcessingConfiguration": {"Enabled": True, "Processors": list(processors)}} if processors else {}),
        }
    }
    return DeliveryStream(name, uuid4(), f"arn/{name}", 1, 0.0, request, parse_destination(request))


def run(folder, work, *, writer=None, buckets=None, limits=None):
    """Run work against an engine; returns the faults that ended its tasks."""
    writer, buckets = writer or HeldWriter(), buckets or {}

    async def main():
        data = DataFolder(folder)
        registry = Registry(data)
        for name in ("a", "b"):
            if registry.get(name) is None:
                registry.put(stream(name, buckets.get(name, "lake")))
        engine = Engine(data, registry, writer, time.time, limits)
        faults = []
        engine.start(faults.append)
        try:
            await work(engine, writer)
        finally:
            writer.may.set()
            await engine.stop()
            data.release()
        return faults

    return asyncio.run(main())


def test_a_flush_waits_for_deliveries_that_were_under_way_before(tmp_path):
    async def work(engine, writer):
        await engine.put("a", [b"x" * 1_000_000, b"x" * 100_000])
        await engine.flush("b")  # what was put is processed by then
        assert engine.status()["streams"]["a"]["deliveriesUnderWay"] == 1
        flushing = asyncio.create_task(engine.flush("a"))
        await asyncio.wait([flushing], timeout=0.2)
        assert not flushing.done()
        writer.may.set()
        assert ((await flushing)["a"].objects, len(writer.objects)) == (1, 1)

    assert run(tmp_path, work) == []


def test_a_flush_that_gives_up_does_not_end_the_deliveries(tmp_path):
    async def work(engine, writer):
        await engine.put("a", [b"x"])
        flushing = asyncio.create_task(engine.flush("a"))
        await asyncio.wait([flushing], timeout=0.2)
        flushing.cancel()
        await asyncio.wait([flushing])
        assert engine.status()["streams"]["a"]["deliveriesUnderWay"] == 1
        writer.may.set()
        await engine.flush("a")
        assert len(writer.objects) == 1

    assert run(tmp_path, work) == []


def test_one_streams_flush_leaves_the_others_buffers(tmp_path):
    async def work(engine, writer):
        writer.may.set()
        await engine.put("a", [b"a"])
        await engine.put("b", [b"b"])
        await engine.flush("a")
        assert [body for _, body in writer.objects] == [b"a"]
        assert engine.status()["streams"]["b"]["buffers"] == 1

    assert run(tmp_path, work) == []


def test_a_deleted_streams_records_leave_memory_wherever_they_are(tmp_path):
    async def work(engine, writer):
        await engine.put("a", [b"x" * 1_000_000, b"x" * 100_000])  # being delivered
        await engine.flush("b")
        await engine.put("a", [b"buffered"])
        await engine.flush("b")
        putting = asyncio.create_task(engine.put("a", [b"on its way to the log"]))
        await asyncio.sleep(0)
        assert engine.status()["pendingRecords"] == 4
        engine.remove("a")
        await putting
        await engine.flush("b")
        assert (engine.status()["pendingRecords"], engine.status()["pendingBytes"]) == (0, 0)

    assert run(tmp_path, work) == []


def test_an_object_is_tried_until_it_is_taken_whatever_the_failure(tmp_path):
    async def work(engine, writer):
        writer.may.set()
        writer.trouble = [S3UnavailableError("SlowDown"), RuntimeError("something else")]
        await engine.put("a", [b"x"])
        await engine.flush("a")
        assert [body for _, body in writer.objects] == [b"x"]
        assert engine.status()["streams"]["a"]["trouble"] is None

    assert run(tmp_path, work) == []


def test_what_was_not_delivered_is_taken_up_at_the_next_start(tmp_path):
    async def first(engine, writer):
        await engine.put("a", [b"one", b"two"])
        await engine.put("b", [b"three"])

    async def second(engine, writer):
        assert engine.status()["pendingRecords"] == 3
        writer.may.set()
        flushed = await engine.flush()
        assert {name: one.records for name, one in flushed.items()} == {"a": 2, "b": 1}

    assert run(tmp_path, first) == []
    assert run(tmp_path, second) == []


def test_a_fault_in_the_work_behind_the_puts_is_told(tmp_path):
    class Broken(Buffers):
        def due(self, now_ms):
            raise ZeroDivisionError(now_ms)

    async def work(engine, writer):
        engine._live["a"].buffers = Broken(1, 1)
        await asyncio.sleep(0.6)

    assert [type(fault) for fault in run(tmp_path, work)] == [ZeroDivisionError]


class PickyWriter(HeldWriter):
    """Takes nothing for a bucket that isn't there."""

    def write(self, bucket, key, body, compression, kms_key):
        if bucket == "gone":
            raise S3UnavailableError(f"s3://{bucket}: no such bucket")
        super().write(bucket, key, body, compression, kms_key)


def test_a_stream_that_can_not_be_delivered_does_not_keep_the_others_log(tmp_path):
    async def work(engine, writer):
        writer.may.set()
        await engine.put("a", [b"kept"])
        flushing = asyncio.create_task(engine.flush("a"))
        for _ in range(20):
            await engine.put("b", [b"x" * 1_000_000])
            await engine.flush("b")
        for _ in range(200):  # it is looked at each second
            await asyncio.sleep(0.1)
            if engine.status()["logBytes"] <= 5 << 20:
                break
        assert engine.status()["logBytes"] <= 5 << 20
        assert (engine.status()["streams"]["a"]["pendingRecords"], len(writer.objects)) == (1, 20)
        flushing.cancel()

    async def again(engine, writer):
        writer.may.set()
        await engine.flush()
        assert [body for _, body in writer.objects] == [b"kept"]
        assert engine.status()["pendingRecords"] == 0

    limits = Limits(segment_bytes=1 << 20)
    assert run(tmp_path, work, writer=PickyWriter(), buckets={"a": "gone"}, limits=limits) == []
    assert run(tmp_path, again, limits=limits) == []


def test_what_was_unpacked_for_a_function_counts_until_the_function_has_answered(tmp_path):
    """Packed records are a few bytes: a slow function must not let them pile up unpacked."""
    function = "arn:aws:lambda:us-east-1:123456789012:function:f"
    kinds = (processor("Decompression", CompressionFormat="GZIP"), processor("Lambda", LambdaArn=function))
    may, asked = threading.Event(), threading.Event()

    def invoker(_, __, records):
        asked.set()
        assert may.wait(30)
        return records, []

    async def main():
        data = DataFolder(tmp_path)
        registry = Registry(data)
        registry.put(stream("a", "lake", *kinds))
        limits = Limits(pending_bytes=5_000_000)
        engine = Engine(data, registry, HeldWriter(), time.time, limits, invoker=invoker)
        faults = []
        engine.start(faults.append)
        packed = gzip.compress(b'{"a":"' + b"x" * 6_000_000 + b'"}')
        try:
            await engine.put("a", [packed])
            assert await asyncio.to_thread(asked.wait, 30)
            assert engine.status()["pendingBytes"] > 6_000_000
            with pytest.raises(ServiceError, match="Slow down"):
                await engine.put("a", [packed])
            making = list(engine.streams["a"].making)
            may.set()
            await asyncio.gather(*making)
            # what was made is in a buffer, and counts as records do
            assert engine.status()["pendingBytes"] == 6_000_008
        finally:
            may.set()
            engine._uploads._writer.may.set()
            await engine.stop()
            data.release()
        assert faults == []

    asyncio.run(main())
