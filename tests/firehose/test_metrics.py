"""What the server tells of itself: to Prometheus, as its own parser reads it, and to a real CloudWatch API."""

from __future__ import annotations

import socket
import socketserver
import threading
import urllib.request
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from urllib.parse import urlsplit

import pytest
from botocore.exceptions import ClientError
from prometheus_client.parser import text_string_to_metric_families

from firehose.metrics import BOUNDS, Timings
from tests.firehose.conftest import client


def scraped(server):
    with urllib.request.urlopen(f"{server.url}/metrics", timeout=30) as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text = answer.read().decode()
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def of(found, name, stream="s", **labels):
    return found[(name, *sorted({"stream": stream, **labels}.items()))]


def test_prometheus_reads_what_went_in_and_what_came_out(server, bucket, event):
    server.create("s", bucket.partitioned())
    server.create("idle", bucket.plain())
    events = [event(number) for number in range(10)]
    server.batch("s", events)
    server.firehose.put_record(DeliveryStreamName="s", Record={"Data": b"no JSON"})
    before = scraped(server)
    assert of(before, "firehose_pending_records") == 11
    assert of(before, "firehose_partition_count") == 1
    assert of(before, "firehose_delivery_to_s3_data_freshness_seconds") > 0
    assert of(before, "firehose_delivery_to_s3_data_freshness_seconds", "idle") == 0
    server.flush()
    after = scraped(server)
    size = sum(map(len, events)) + len(b"no JSON")
    assert of(after, "firehose_incoming_records_total") == of(after, "firehose_delivery_to_s3_records_total") == 11
    assert of(after, "firehose_incoming_bytes_total") == of(after, "firehose_delivery_to_s3_bytes_total") == size
    assert of(after, "firehose_incoming_put_requests_total") == 2
    assert of(after, "firehose_delivery_to_s3_objects_total") == 2
    assert of(after, "firehose_delivery_to_s3_attempts_total") == 2
    assert of(after, "firehose_put_record_latency_seconds_count") == 1
    assert of(after, "firehose_put_record_batch_latency_seconds_bucket", le="+Inf") == 1
    assert of(after, "firehose_processing_duration_seconds_count") == 2
    assert of(after, "firehose_refused_records_total", code="DynamicPartitioning.MetadataExtractionFailed") == 1
    assert of(after, "firehose_pending_records") == of(after, "firehose_delivery_to_s3_data_freshness_seconds") == 0
    assert of(after, "firehose_incoming_records_total", "idle") == 0
    assert after[("firehose_log_bytes",)] > 0
    assert after[("process_resident_memory_bytes",)] > 0


def test_records_that_wait_for_s3_grow_old_and_are_told_as_failing(servers, offline_bucket, wait_for):
    server = servers(s3="http://127.0.0.1:9")
    server.create("s", offline_bucket.plain(BufferingHints={"SizeInMBs": 1, "IntervalInSeconds": 0}))
    server.batch("s", [b"x"])
    wait_for(lambda: of(scraped(server), "firehose_delivery_failing") == 1)
    found = scraped(server)
    # it is in no buffer any more, and not delivered either
    assert of(found, "firehose_buffers") == 0
    assert of(found, "firehose_delivery_to_s3_data_freshness_seconds") > 0
    assert of(found, "firehose_delivery_to_s3_failures_total") >= 1
    server.kill()
    server.start()
    wait_for(lambda: of(scraped(server), "firehose_delivery_to_s3_data_freshness_seconds") > 0)


def test_what_is_turned_away_is_counted(servers, offline_bucket):
    server = servers("--max-pending-mib", "1")
    server.create("s", offline_bucket.plain())
    large = [{"Data": b"x" * 400_000}]
    for _ in range(2):
        server.firehose.put_record_batch(DeliveryStreamName="s", Records=large)
    for _ in range(2):
        with pytest.raises(ClientError, match="ServiceUnavailable"):
            server.firehose.put_record_batch(DeliveryStreamName="s", Records=large)
    assert of(scraped(server), "firehose_throttled_records_total") == 2


def statistics(cloudwatch, name, *kinds, stream="s"):
    now = datetime.now(UTC)
    found = cloudwatch.get_metric_statistics(
        Namespace="AWS/Firehose",
        MetricName=name,
        Dimensions=[{"Name": "DeliveryStreamName", "Value": stream}],
        StartTime=now - timedelta(minutes=10),
        EndTime=now + timedelta(minutes=10),
        Period=3600,
        Statistics=list(kinds),
    )["Datapoints"]
    return [sum(one[kind] for one in found) for kind in kinds] if found else None


def test_cloudwatch_is_told_under_the_documented_names(servers, s3_url, bucket, event, wait_for):
    stream = f"cw-{bucket.name}"
    server = servers("--cloudwatch-endpoint", s3_url, "--cloudwatch-seconds", "1")
    cloudwatch = client("cloudwatch", s3_url)
    server.create(stream, bucket.partitioned())
    events = [event(number) for number in range(10)]
    server.batch(stream, events)
    server.firehose.put_record(DeliveryStreamName=stream, Record={"Data": event(11)})
    server.flush()

    def told(name, *kinds):
        return statistics(cloudwatch, name, *kinds, stream=stream)

    wait_for(lambda: told("DeliveryToS3.Records", "Sum") == [11])
    size = sum(map(len, [*events, event(11)]))
    assert told("IncomingRecords", "Sum") == [11]
    assert told("IncomingBytes", "Sum") == [size]
    assert told("IncomingPutRequests", "Sum") == [2]
    assert told("PutRecordBatch.Records", "Sum") == [10]
    assert told("PutRecordBatch.Requests", "Sum") == [1]
    assert told("DeliveryToS3.ObjectCount", "Sum") == [1]
    assert told("DeliveryToS3.Success", "Sum", "SampleCount") == [1, 1]
    count, longest = told("PutRecord.Latency", "SampleCount", "Maximum")
    assert (count, longest > 0) == (1, True)
    assert told("ThrottledRecords", "Sum") is None
    names = {
        one["MetricName"]
        for page in cloudwatch.get_paginator("list_metrics").paginate(Namespace="AWS/Firehose")
        for one in page["Metrics"]
        if one["Dimensions"] == [{"Name": "DeliveryStreamName", "Value": stream}]
    }
    assert {"DeliveryToS3.DataFreshness", "PartitionCount", "PartitionCountExceeded", "JQProcessing.Duration"} <= names


def forward(port, url):
    """Hand on what comes to a port."""
    target = urlsplit(url)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self):
            with socket.create_connection((target.hostname, target.port)) as there:
                threading.Thread(target=self.copy, args=(there, self.request), daemon=True).start()
                self.copy(self.request, there)

        @staticmethod
        def copy(one, other):
            with suppress(OSError):
                while some := one.recv(65_536):
                    other.sendall(some)

    class Forwarder(socketserver.ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True

    made = Forwarder(("127.0.0.1", port), Handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    return made


def test_what_cloudwatch_was_not_told_comes_with_the_next_minute(servers, s3_url, bucket, wait_for):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    stream, cloudwatch = f"late-{bucket.name}", client("cloudwatch", s3_url)
    server = servers("--cloudwatch-endpoint", f"http://127.0.0.1:{port}", "--cloudwatch-seconds", "1")
    server.create(stream, bucket.plain())
    server.batch(stream, [b"x"] * 5)
    wait_for(lambda: any("CloudWatch:" in line for line in server.errors))
    server.batch(stream, [b"x"] * 5)
    forwarder = forward(port, s3_url)
    try:
        told = wait_for(lambda: statistics(cloudwatch, "IncomingRecords", "Sum", "SampleCount", stream=stream))
    finally:
        forwarder.shutdown()
        forwarder.server_close()
    assert told == [10, 1]
    assert sum("CloudWatch:" in line for line in server.errors) == 1


def test_durations_keep_their_extremes_until_somebody_took_them():
    made = Timings()
    for seconds in (0.2, 0.001, 9.0):
        made.note(seconds)
    assert (made.count, made.least, made.most) == (3, 0.001, 9.0)
    assert made.buckets == [1, *[0] * 4, 1, *[0] * (len(BOUNDS) - 6), 1]
    before = Timings(list(made.buckets), made.total, made.least, made.most)
    made.reset()
    made.note(0.5)
    assert (made.least, made.most) == (0.5, 0.5)
    made.restore(before)
    assert (made.count, made.least, made.most) == (4, 0.001, 9.0)
