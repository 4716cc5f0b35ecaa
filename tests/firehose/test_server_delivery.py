"""The server process against a real S3: what is put arrives, once, where it belongs."""

from __future__ import annotations

import base64
import gzip
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest


def test_partitions_become_gzip_objects_under_their_prefix(server, s3, bucket, event):
    server.create("flights", bucket.partitioned())
    server.batch("flights", [event(1), event(2, "jfk"), event(3), event(4, day="2013-05-08")])

    assert server.flush("flights") == {"flights": {"objects": 3, "records": 4}}

    first = bucket.objects("processed/tenant=ewr/day=2013-05-07/")
    assert len(first) == 1
    assert re.fullmatch(
        r"processed/tenant=ewr/day=2013-05-07/flights-1-\d{4}(-\d\d){5}-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\.gz",
        first[0],
    )
    head = s3.head_object(Bucket=bucket.name, Key=first[0])
    assert head["ContentEncoding"] == "gzip"
    assert head["ContentType"] == "application/octet-stream"
    assert gzip.decompress(bucket.body(first[0])) == event(1) + b"\n" + event(3) + b"\n"


def test_records_of_a_plain_stream_are_concatenated_without_a_separator(server, bucket):
    server.create("raw", bucket.plain())
    server.batch("raw", [b"one", b"two", b"", b"\x00\xff"])
    server.flush("raw")
    (key,) = bucket.objects()
    assert re.match(r"raw/\d{4}/\d\d/\d\d/\d\d/raw-1-", key)
    assert bucket.body(key) == b"onetwo\x00\xff"


def test_a_refused_record_is_under_the_error_prefix_with_its_raw_data(server, bucket, event):
    server.create("flights", bucket.partitioned())
    server.batch("flights", [event(1), b"not json", b'{"tenant":"","event_time":"2013-05-07"}'])
    server.flush("flights")
    (key,) = bucket.objects("errors/")
    assert key.startswith("errors/processing-failed/flights-1-")
    first, second = [json.loads(line) for line in bucket.body(key).splitlines()]
    assert list(first) == [
        "attemptsMade",
        "arrivalTimestamp",
        "errorCode",
        "errorMessage",
        "attemptEndingTimestamp",
        "rawData",
    ]
    assert first["errorCode"] == "DynamicPartitioning.MetadataExtractionFailed"
    assert first["errorMessage"].startswith("The record is not valid JSON")
    assert base64.b64decode(first["rawData"]) == b"not json"
    assert second["errorMessage"] == "partitionKeys values must not be null or empty"


def test_records_above_the_quota_of_partitions_go_to_the_error_prefix(server, bucket, event):
    server.create("flights", bucket.partitioned())
    for start in (0, 300):
        server.batch("flights", [event(n, f"t{n:04d}") for n in range(start, start + 300)])
    assert server.flush("flights") == {"flights": {"objects": 501, "records": 600}}
    (key,) = bucket.objects("errors/")
    assert key.startswith("errors/activePartitionExceeded/")
    lines = [json.loads(line) for line in bucket.body(key).splitlines()]
    assert len(lines) == 100
    assert {line["errorCode"] for line in lines} == {"DynamicPartitioning.ActivePartitionsLimitExceeded"}


def test_a_raised_quota_lets_more_partitions_be_active(server, bucket, event):
    (quota,) = [
        one
        for one in server.quotas.list_service_quotas(ServiceCode="firehose")["Quotas"]
        if one["QuotaName"] == "Dynamic partitions"
    ]
    assert quota["Value"] == 500
    server.quotas.request_service_quota_increase(ServiceCode="firehose", QuotaCode=quota["QuotaCode"], DesiredValue=600)
    server.create("flights", bucket.partitioned())
    for start in (0, 300):
        server.batch("flights", [event(n, f"t{n:04d}") for n in range(start, start + 300)])
    assert server.status()["streams"]["flights"]["activePartitions"] == 600
    assert server.flush("flights") == {"flights": {"objects": 600, "records": 600}}
    assert bucket.objects("errors/") == []


def test_a_buffer_that_is_full_is_delivered_without_being_asked(server, s3, bucket):
    server.create("raw", bucket.plain(BufferingHints={"SizeInMBs": 1, "IntervalInSeconds": 900}))
    server.batch("raw", [bytes([65 + n]) * 400_000 for n in range(6)])
    server.flush("raw")
    sizes = sorted(one["Size"] for one in s3.list_objects_v2(Bucket=bucket.name)["Contents"])
    assert sizes == [1_200_000, 1_200_000]


def test_a_buffer_that_is_old_is_delivered_without_being_asked(server, bucket, wait_for):
    server.create("raw", bucket.plain(BufferingHints={"SizeInMBs": 1, "IntervalInSeconds": 1}))
    server.batch("raw", [b"x"])
    wait_for(bucket.objects)
    wait_for(lambda: server.status()["pendingRecords"] == 0)  # it is noted when S3 has answered


def test_the_log_is_emptied_by_delivery(servers, bucket):
    server = servers("--segment-mib", "1")
    server.create("raw", bucket.plain())
    for _ in range(8):
        server.batch("raw", [b"x" * 900_000])
    assert server.status()["logBytes"] >= 8 * 900_000
    server.flush("raw")
    server.batch("raw", [b"y"])
    server.flush("raw")
    assert server.status()["logBytes"] <= 2 << 20
    assert sum(path.stat().st_size for path in (server.data / "log").iterdir()) <= 2 << 20


def test_a_deleted_stream_takes_its_pending_records_along(server, bucket):
    server.create("raw", bucket.plain())
    server.batch("raw", [b"old"])
    server.firehose.delete_delivery_stream(DeliveryStreamName="raw")
    server.create("raw", bucket.plain())
    server.batch("raw", [b"new"])
    assert server.flush() == {"raw": {"objects": 1, "records": 1}}
    assert [bucket.body(key) for key in bucket.objects()] == [b"new"]
    assert server.status()["pendingRecords"] == 0


def test_records_wait_for_a_bucket_that_is_missing(server, s3, wait_for, make_bucket):
    later = make_bucket(exists=False)
    server.create("raw", later.plain(BufferingHints={"SizeInMBs": 1, "IntervalInSeconds": 900}))
    server.batch("raw", [b"x" * 1_000_000, b"y" * 100_000])
    trouble = wait_for(lambda: server.status()["streams"]["raw"]["trouble"])
    assert "NoSuchBucket" in trouble
    assert server.status()["pendingRecords"] == 2
    s3.create_bucket(Bucket=later.name)
    assert server.flush("raw") == {"raw": {"objects": 1, "records": 2}}
    assert server.status()["streams"]["raw"]["trouble"] is None


def test_puts_are_refused_while_too_much_is_pending(servers, bucket):
    server = servers("--max-pending-mib", "1")
    server.create("raw", bucket.plain())
    server.batch("raw", [b"x" * 900_000])
    with pytest.raises(server.firehose.exceptions.ServiceUnavailableException) as caught:
        server.firehose.put_record(DeliveryStreamName="raw", Record={"Data": b"x" * 200_000})
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    server.flush("raw")
    server.batch("raw", [b"x" * 900_000])


def test_the_aws_command_line_puts_records(server, bucket, tmp_path):
    server.create("raw", bucket.plain())
    records = tmp_path / "records.json"
    records.write_text(json.dumps([{"Data": base64.b64encode(b"from the cli").decode()}]))
    environment = {
        **os.environ,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    aws = Path(sys.executable).with_name("aws")
    command = [
        *(aws, "--endpoint-url", server.url, "firehose", "put-record-batch"),
        *("--delivery-stream-name", "raw", "--records", f"file://{records}"),
    ]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout)["FailedPutCount"] == 0
    server.flush("raw")
    assert [bucket.body(key) for key in bucket.objects()] == [base64.b64encode(b"from the cli")]
