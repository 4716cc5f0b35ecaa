"""Processors that make other records, and the backup, in the running server: all arrives once, killed or not."""

from __future__ import annotations

import base64
import gzip
import json
import threading
import urllib.request
import zipfile
from collections import Counter
from datetime import UTC, datetime, timedelta
from io import BytesIO
from uuid import uuid4

import orjson
import pytest

from tests.firehose.conftest import client

MARKING = """
import base64, json, time

def handler(event, context):
    answers = []
    for record in event["records"]:
        one = json.loads(base64.b64decode(record["data"]))
        time.sleep(one.get("sleep", 0))
        if one.get("fate") == "drop":
            answers.append({"recordId": record["recordId"], "result": "Dropped"})
        elif one.get("fate") == "fail":
            answers.append({"recordId": record["recordId"], "result": "ProcessingFailed"})
        else:
            data = base64.b64encode(json.dumps({**one, "made": True}).encode()).decode()
            keys = {"kind": one["kind"]} if "kind" in one else {}
            answer = {"recordId": record["recordId"], "result": "Ok", "data": data}
            answers.append({**answer, "metadata": {"partitionKeys": keys}})
    return {"records": answers}
"""


@pytest.fixture(scope="module")
def marking(ministack):
    """A function that marks what it is given, in a real Lambda; its ARN."""
    packed = BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("function.py", MARKING)
    made = client("lambda", ministack).create_function(
        FunctionName=f"marking-{uuid4().hex[:8]}",
        Runtime="python3.11",
        Role="arn:aws:iam::000000000000:role/function",
        Handler="function.handler",
        Code={"ZipFile": packed.getvalue()},
        Timeout=30,
    )
    return made["FunctionArn"]


def processor(kind, **parameters):
    return {
        "Type": kind,
        "Parameters": [{"ParameterName": name, "ParameterValue": value} for name, value in parameters.items()],
    }


def processing(*processors):
    return {"ProcessingConfiguration": {"Enabled": True, "Processors": list(processors)}}


def calling(function, **parameters):
    return processor(
        "Lambda", LambdaArn=function, **{"BufferSizeInMBs": "1", "BufferIntervalInSeconds": "0", **parameters}
    )


NEWLINE = processor("AppendDelimiterToRecord", Delimiter="\\n")


def lines(bucket, prefix):
    """Every line of the objects below a prefix, parsed, with how often it is there."""
    found = Counter()
    for key in bucket.objects(prefix):
        raw = bucket.body(key)
        found.update((gzip.decompress(raw) if key.endswith(".gz") else raw).splitlines())
    return found


def parsed(bucket, prefix):
    return [orjson.loads(line) for line in lines(bucket, prefix)]


def test_a_function_transforms_drops_and_fails_records_and_gives_partition_keys(server, bucket, marking):
    destination = bucket.plain(
        Prefix="kind=!{partitionKeyFromLambda:kind}/made=!{partitionKeyFromQuery:made}/",
        ErrorOutputPrefix="errors/!{firehose:error-output-type}/",
        DynamicPartitioningConfiguration={"Enabled": True},
        **processing(
            calling(marking),
            processor("MetadataExtraction", MetadataExtractionQuery="{made: .made}", JsonParsingEngine="JQ-1.6"),
            NEWLINE,
        ),
    )
    server.create("s", destination)
    given = [{"n": n, "kind": "ab"[n % 2]} for n in range(10)]
    lost = [{"n": 10, "fate": "drop"}, {"n": 11, "fate": "fail"}, {"n": 12}]  # the last one gets no key
    server.batch("s", [orjson.dumps(one) for one in (*given, *lost)])
    server.flush()

    for kind in "ab":
        found = parsed(bucket, f"kind={kind}/made=true/")
        assert found == [{**one, "made": True} for one in given if one["kind"] == kind]
    failed = {one["errorCode"]: one for one in parsed(bucket, "errors/processing-failed/")}
    assert json.loads(base64.b64decode(failed["Lambda.ProcessingFailedStatus"]["rawData"])) == lost[1]
    assert (
        failed["Lambda.ProcessingFailedStatus"]["attemptsMade"],
        failed["Lambda.ProcessingFailedStatus"]["lambdaArn"],
    ) == (1, marking)
    keyless = failed["DynamicPartitioning.MetadataExtractionFailed"]
    assert json.loads(base64.b64decode(keyless["rawData"])) == {**lost[2], "made": True}
    assert "lambdaArn" not in keyless
    assert len(failed) == 2
    assert server.status()["pendingRecords"] == 0


def test_records_are_taken_apart_before_their_keys_are_taken(server, bucket, event):
    destination = bucket.partitioned(Prefix="tenant=!{partitionKeyFromQuery:tenant}/day=!{partitionKeyFromQuery:day}/")
    destination["ProcessingConfiguration"]["Processors"].append(processor("RecordDeAggregation", SubRecordType="JSON"))
    server.create("s", destination)
    server.batch("s", [event(1, "ewr") + event(2, "jfk"), event(3, "ewr"), b"[1, 2]"])
    server.flush()
    assert lines(bucket, "tenant=ewr/") == Counter([event(1, "ewr"), event(3, "ewr")])
    assert lines(bucket, "tenant=jfk/") == Counter([event(2, "jfk")])
    (failed,) = parsed(bucket, "errors/")
    assert base64.b64decode(failed["rawData"]) == b"[1, 2]"


def test_the_backup_holds_what_came_and_the_destination_what_was_made(server, make_bucket, bucket, marking):
    kept = make_bucket()
    destination = bucket.plain(
        **processing(calling(marking), NEWLINE),
        S3BackupMode="Enabled",
        S3BackupConfiguration=kept.plain(
            Prefix="source/!{timestamp:yyyy}/", ErrorOutputPrefix="e/!{firehose:error-output-type}/"
        ),
    )
    server.create("s", destination)
    given = [orjson.dumps({"n": n}) + b"\n" for n in range(20)]
    dropped = orjson.dumps({"n": 20, "fate": "drop"}) + b"\n"
    server.batch("s", [*given, dropped])
    assert server.flush()["s"] == {"objects": 1, "records": 20}
    assert lines(kept, "source/") == Counter(one.strip() for one in (*given, dropped))
    assert [one["made"] for one in parsed(bucket, "raw/")] == [True] * 20
    status = server.status()
    assert (status["pendingRecords"], status["streams"]["s"]["backedUpRecords"]) == (0, 21)


def test_prometheus_and_cloudwatch_are_told_of_functions_and_of_the_backup(
    servers, s3_url, make_bucket, marking, wait_for
):
    bucket, kept = make_bucket(), make_bucket()
    server = servers("--cloudwatch-endpoint", s3_url, "--cloudwatch-seconds", "1")
    stream = f"told-{bucket.name}"
    backup = {"S3BackupMode": "Enabled", "S3BackupConfiguration": kept.plain()}
    server.create(stream, bucket.plain(**processing(calling(marking, NumberOfRetries="0")), **backup))
    server.batch(stream, [b'{"n": 1}', b'{"n": 2, "fate": "fail"}'])
    server.flush()
    server.batch(stream, [b"no JSON, so that the function itself fails"])
    server.flush()

    with urllib.request.urlopen(f"{server.url}/metrics", timeout=30) as answer:
        shown = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if line[0] != "#")
    figures = {
        "firehose_succeed_processing_records_total": 1,
        "firehose_succeed_processing_bytes_total": len(b'{"n": 1, "made": true}'),
        "firehose_execute_processing_failures_total": 1,
        "firehose_execute_processing_duration_seconds_count": 2,
        "firehose_backup_to_s3_records_total": 3,
        "firehose_backup_to_s3_data_freshness_seconds": 0,
        "firehose_delivery_to_s3_records_total": 3,
    }
    assert {name: float(shown[f'{name}{{stream="{stream}"}}']) for name in figures} == figures

    cloudwatch = client("cloudwatch", s3_url)

    def told(name, kind="Sum"):
        found = cloudwatch.get_metric_statistics(
            Namespace="AWS/Firehose",
            MetricName=name,
            Dimensions=[{"Name": "DeliveryStreamName", "Value": stream}],
            StartTime=datetime.now(UTC) - timedelta(minutes=10),
            EndTime=datetime.now(UTC) + timedelta(minutes=10),
            Period=3600,
            Statistics=[kind],
        )
        return sum(one[kind] for one in found["Datapoints"])

    wait_for(lambda: told("BackupToS3.Records") == 3)
    assert (told("BackupToS3.Success"), told("BackupToS3.Success", "SampleCount")) == (2, 2)
    assert (told("ExecuteProcessing.Success"), told("ExecuteProcessing.Success", "SampleCount")) == (1, 2)
    assert told("SucceedProcessing.Records") == 1
    assert told("ExecuteProcessing.Duration", "SampleCount") == 2


def test_a_backup_needs_no_processors(server, make_bucket, bucket):
    kept = make_bucket()
    server.create("s", bucket.plain(S3BackupMode="Enabled", S3BackupConfiguration=kept.plain()))
    server.batch("s", [b"a\n", b"b\n"])
    server.flush()
    assert lines(kept, "raw/") == lines(bucket, "raw/") == Counter([b"a", b"b"])


@pytest.mark.parametrize("seconds", [0.3, 0.8, 1.4])
def test_records_that_are_being_made_when_the_server_is_killed_arrive_once(
    servers, make_bucket, marking, wait_for, seconds
):
    bucket, kept = make_bucket(), make_bucket()
    server = servers()
    server.create(
        "s",
        bucket.plain(
            **processing(processor("RecordDeAggregation", SubRecordType="JSON"), calling(marking), NEWLINE),
            S3BackupMode="Enabled",
            S3BackupConfiguration=kept.plain(BufferingHints={"SizeInMBs": 1, "IntervalInSeconds": 1}),
            BufferingHints={"SizeInMBs": 1, "IntervalInSeconds": 1},
        ),
    )
    given = []
    for batch in range(6):
        # some functions are under way for longer than others when the server is killed
        records = [
            b"".join(orjson.dumps({"n": [batch, n, part], "sleep": 0.1 * (n == part == 0)}) + b"\n" for part in "ab")
            for n in range(5)
        ]
        server.batch("s", records)
        given += records
    threading.Event().wait(seconds)
    server.kill()
    server.start()
    wait_for(lambda: server.status()["pendingRecords"] == 0)
    server.flush()
    sent = [line for record in given for line in record.splitlines()]
    assert lines(kept, "raw/") == Counter(sent)
    assert Counter(str(one["n"]) for one in map(orjson.loads, lines(bucket, "raw/").elements())) == Counter(
        str(orjson.loads(line)["n"]) for line in sent
    )


def test_what_waits_for_a_function_goes_with_its_stream_and_leaves_the_log(servers, bucket, marking, wait_for):
    server = servers()
    waiting = processing(calling(marking, BufferIntervalInSeconds="900"))
    server.create("s", bucket.plain(**waiting))
    server.create("other", bucket.plain(BufferingHints={"SizeInMBs": 1, "IntervalInSeconds": 1}))
    server.batch("s", [orjson.dumps({"sleep": 0, "n": n}) for n in range(10)])
    assert wait_for(lambda: server.status()["streams"]["s"]["oldestRecordAgeSeconds"])
    server.firehose.delete_delivery_stream(DeliveryStreamName="s")
    for _ in range(8):
        server.batch("other", [b"x" * 1_000_000])
    server.flush()
    assert wait_for(lambda: server.status()["logBytes"] <= 2 * 4 * 2**20)
    assert server.status()["pendingRecords"] == 0
    server.kill()
    server.start()
    assert server.status()["pendingRecords"] == 0


def test_an_update_takes_gathered_records_through_the_function_they_came_for(server, bucket, marking):
    server.create("s", bucket.plain(**processing(calling(marking, BufferIntervalInSeconds="900"), NEWLINE)))
    server.batch("s", [orjson.dumps({"n": 1})])
    server.flush("s")
    server.batch("s", [orjson.dumps({"n": 2})])
    server.firehose.update_destination(
        DeliveryStreamName="s",
        CurrentDeliveryStreamVersionId="1",
        DestinationId="destinationId-000000000001",
        ExtendedS3DestinationUpdate=processing(NEWLINE),
    )
    server.batch("s", [orjson.dumps({"n": 3})])
    server.flush()
    assert sorted((one["n"], "made" in one) for one in parsed(bucket, "raw/")) == [(1, True), (2, True), (3, False)]


def test_a_function_that_is_not_there_fails_its_records_after_its_retries(server, bucket, marking):
    missing = marking.rpartition(":")[0] + ":nobody"
    destination = bucket.plain(
        ErrorOutputPrefix="errors/!{firehose:error-output-type}/", **processing(calling(missing, NumberOfRetries="0"))
    )
    server.create("s", destination)
    server.batch("s", [b"1", b"2"])
    server.flush()
    found = parsed(bucket, "errors/processing-failed/")
    assert [one["errorCode"] for one in found] == ["Lambda.ResourceNotFound"] * 2
    assert sorted(base64.b64decode(one["rawData"]) for one in found) == [b"1", b"2"]
