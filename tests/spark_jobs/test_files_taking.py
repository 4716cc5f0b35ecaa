"""Taking one file, on a real S3 and DynamoDB: the objects it becomes, what is remembered, and what a crash leaves."""

import base64
import gzip
import itertools
import json
import os
import pickle
import signal
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from botocore.exceptions import ReadTimeoutError

from lake.contract import Contract, Field, Primitive
from lake.declaration import Buffering, Dataset, Lake, Tenant, Tier
from lake.drops import Drop, TakenFiles
from lake.manifest import Manifest
from lake.provision import provision_storage
from spark_jobs import file_objects, file_taking
from spark_jobs.file_taking import FoundFile, Outcome, Target, take_file
from tests.spark_jobs.conftest import Stop, stop_after

ROOT = Path(__file__).parents[2]
CONTRACT = Contract(
    dataset="visits",
    version="1.2.0",
    fields=(
        Field("page", Primitive("string"), required=True),
        Field("seconds", Primitive("int")),
        Field("at", Primitive("timestamptz")),
    ),
    partition=(),
    sort=(),
)
GOOD = b"page,seconds,at\n/a,1,2026-11-20T10:00:00Z\n/b,2,2026-11-21T10:00:00Z\n/c,3,2026-11-20T11:00:00Z\n"
_numbers = itertools.count(1)


class Place:
    """A drop of its own, and what lies around it."""

    def __init__(self, cloud, number):
        lake = Lake(
            company=f"taking{number}",
            environment="test",
            region="us-east-1",
            tenants=(Tenant("solo", Tier.DEDICATED),),
            datasets=(Dataset("visits", CONTRACT, Buffering()),),
        )
        for _ in provision_storage(lake, cloud):
            pass
        self.cloud = cloud
        self.bucket = lake.names.bucket("solo")
        self.table = lake.names.manifest_table()
        self.drop = Drop("visits", "solo", "visits", self.bucket, "raw/visits/", event_time="at")
        self.target = Target(self.drop, CONTRACT, self.bucket, self.table)

    def put(self, body, key="raw/visits/a.csv"):
        etag = self.cloud.s3.put_object(Bucket=self.bucket, Key=key, Body=body)["ETag"].strip('"')
        found = self.cloud.s3.head_object(Bucket=self.bucket, Key=key)
        return FoundFile(key, etag, len(body), round(found["LastModified"].timestamp() * 1000))

    def take(self, found, **options):
        return take_file(found, self.target, self.cloud, **options)

    def objects(self):
        """Every object that the job wrote, by key."""
        pages = self.cloud.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket)
        keys = [one["Key"] for page in pages for one in page.get("Contents", [])]
        return {
            key: self.cloud.s3.get_object(Bucket=self.bucket, Key=key)["Body"].read()
            for key in keys
            if key.startswith(("processed/", "errors/"))
        }

    def lines(self, beginning):
        return [
            json.loads(line)
            for key, body in sorted(self.objects().items())
            if key.startswith(beginning)
            for line in gzip.decompress(body).splitlines()
        ]

    def remembered(self):
        return TakenFiles(self.cloud.dynamodb, self.table).of_drop(self.drop)

    def ledgers(self):
        found = Manifest(self.cloud.dynamodb, self.table).ledgers("solo", "visits")
        return {one.producer_id: (one.sent, one.acknowledged, one.dead_lettered) for one in found}


@pytest.fixture
def place(cloud):
    return Place(cloud, next(_numbers))


def test_a_file_becomes_one_object_a_day_of_its_events(place):
    report = place.take(place.put(GOOD))
    producer = report.producer_id
    assert list(place.objects()) == [
        f"processed/visits/tenant=solo/year=2026/month=11/day=20/{producer}-00001.gz",
        f"processed/visits/tenant=solo/year=2026/month=11/day=21/{producer}-00001.gz",
    ]
    assert [(one["sequence"], one["payload"]["page"]) for one in place.lines("processed/")] == [
        (0, "/a"),
        (2, "/c"),
        (1, "/b"),
    ]
    assert (report.outcome, report.rows, report.refused, report.objects) == (Outcome.TAKEN, 3, 0, 2)


def test_objects_are_gzip_as_the_stream_doors_are(place):
    place.take(place.put(GOOD))
    key = next(iter(place.objects()))
    found = place.cloud.s3.head_object(Bucket=place.bucket, Key=key)
    assert (found["ContentEncoding"], found["ContentType"]) == ("gzip", "application/octet-stream")


def test_the_ledger_says_how_many_rows_the_file_has(place):
    report = place.take(place.put(GOOD + b"/d\n"))
    assert place.ledgers() == {report.producer_id: (4, 4, 0)}


def test_a_row_that_is_no_event_is_an_error_record_with_its_bytes_reason_and_number(place):
    found = place.put(GOOD + b'/d,"4\n/e,5,2026-11-20T12:00:00Z\n')
    report = place.take(found)
    (key,) = [one for one in place.objects() if one.startswith("errors/")]
    assert key == f"errors/file-failed/visits/{report.producer_id}-00001.gz"
    (record,) = place.lines("errors/")
    assert base64.b64decode(record.pop("rawData")) == b'/d,"4'
    assert record == {
        "attemptsMade": 1,
        "arrivalTimestamp": found.modified_ms,
        "errorCode": "malformed_csv",
        "errorMessage": f"s3://{place.bucket}/raw/visits/a.csv, line 5: a quote is opened and never closed",
        "attemptEndingTimestamp": found.modified_ms,
        "stage": "files",
        "identity": {"tenant": "solo", "producer_id": report.producer_id, "sequence": 3},
    }
    assert [one["sequence"] for one in place.lines("processed/")] == [0, 2, 4, 1]


def test_a_file_that_cannot_be_read_is_one_refused_record_and_nothing_of_it_an_event(place):
    body = gzip.compress(GOOD * 100)[:-4]
    report = place.take(place.put(body))
    assert (report.outcome, report.rows, report.refused) == (Outcome.REFUSED, 1, 1)
    (record,) = place.lines("")
    assert base64.b64decode(record["rawData"]) == body
    assert (record["errorCode"], record["identity"]["sequence"]) == ("unreadable_file", 0)
    assert report.message.startswith("the file is no whole gzip: ")
    assert place.ledgers() == {report.producer_id: (1, 1, 0)}


def test_of_a_large_unreadable_file_the_beginning_is_kept_and_its_size_told(place, monkeypatch):
    monkeypatch.setattr(file_taking, "LONGEST_ROW", 10)
    place.take(place.put(b"a;b;c\n1;2;3\n"))
    (record,) = place.lines("")
    assert base64.b64decode(record["rawData"]) == b"a;b;c\n1;2;"
    assert record["errorMessage"].endswith("; its first 10 bytes of 12 are kept here")


def test_a_file_of_a_header_alone_is_taken_and_makes_no_object(place):
    report = place.take(place.put(b"page,at\n"))
    assert (report.outcome, report.rows, place.objects()) == (Outcome.TAKEN, 0, {})
    assert len(place.remembered()) == 1


def test_the_same_content_put_there_again_is_nothing_new(place):
    first = place.take(place.put(GOOD))
    before = place.objects()
    again = place.take(place.put(GOOD))
    assert (again.outcome, again.producer_id, again.rows) == (Outcome.SAME, first.producer_id, 3)
    assert place.objects() == before


def test_another_etag_with_the_same_content_is_remembered_too(place):
    place.take(place.put(GOOD))
    other = _multipart(place, GOOD)
    assert place.take(other).outcome is Outcome.SAME
    assert {etag for _, etag in place.remembered()} == {place.put(GOOD).etag, other.etag}


def _multipart(place, body, key="raw/visits/a.csv"):
    """The bytes as a large file is uploaded: with another ETag, as the same ones get in a bucket with a KMS key."""
    s3 = place.cloud.s3
    upload = s3.create_multipart_upload(Bucket=place.bucket, Key=key)["UploadId"]
    part = s3.upload_part(Bucket=place.bucket, Key=key, UploadId=upload, PartNumber=1, Body=body)
    parts = {"Parts": [{"ETag": part["ETag"], "PartNumber": 1}]}
    s3.complete_multipart_upload(Bucket=place.bucket, Key=key, UploadId=upload, MultipartUpload=parts)
    found = s3.head_object(Bucket=place.bucket, Key=key)
    return FoundFile(key, found["ETag"].strip('"'), len(body), round(found["LastModified"].timestamp() * 1000))


def test_other_content_under_the_same_key_is_a_new_file(place):
    first = place.take(place.put(GOOD))
    second = place.take(place.put(GOOD + b"/d,4,2026-11-20T12:00:00Z\n"))
    assert second.outcome is Outcome.TAKEN
    assert place.ledgers() == {first.producer_id: (3, 3, 0), second.producer_id: (4, 4, 0)}


def test_the_same_content_under_another_key_is_another_file(place):
    producers = {place.take(place.put(GOOD, f"raw/visits/{name}#1.csv")).producer_id for name in "ab"}
    assert len(producers) == 2
    assert len({one["event_id"] for one in place.lines("processed/")}) == 6


def test_a_file_that_was_replaced_after_it_was_found_is_left_to_the_next_run(place):
    found = place.put(GOOD)
    place.put(GOOD + b"/d,4,2026-11-20T12:00:00Z\n")
    assert place.take(found).outcome is Outcome.CHANGED
    assert (place.objects(), place.ledgers(), place.remembered()) == ({}, {}, set())


def test_a_file_that_was_removed_after_it_was_found_is_left_too(place):
    found = place.put(GOOD)
    place.cloud.s3.delete_object(Bucket=place.bucket, Key=found.key)
    assert place.take(found).outcome is Outcome.CHANGED


def test_a_download_that_breaks_off_is_begun_again_and_never_mixed(place, monkeypatch):
    found = place.put(GOOD)
    whole, broken = file_taking._download, []

    def download(cloud, bucket, one, body):
        if not broken:
            broken.append(True)
            body.write(b"half of it")
            raise ReadTimeoutError(endpoint_url="s3")
        return whole(cloud, bucket, one, body)

    monkeypatch.setattr(file_taking, "_download", download)
    assert place.take(found).rows == 3
    assert place.lines("processed/")[0]["payload"]["page"] == "/a"


def test_a_service_that_fails_is_told_and_leaves_the_file_to_the_next_run(place):
    found = place.put(GOOD)
    nowhere = replace(place.target, manifest_table="nobodys-table")
    report = take_file(found, nowhere, place.cloud)
    assert report.outcome is Outcome.FAILED
    assert report.message.startswith(f"s3://{place.bucket}/raw/visits/a.csv: An error occurred (ResourceNotFoundEx")
    assert place.take(found).outcome is Outcome.TAKEN


def test_a_file_larger_than_memory_may_hold_is_written_in_parts_and_loses_no_row(place, monkeypatch):
    monkeypatch.setattr(file_objects, "_OBJECT_BYTES", 2_000)
    monkeypatch.setattr(file_objects, "_BUFFERED_BYTES", 5_000)
    monkeypatch.setattr(file_taking, "_IN_MEMORY", 100)
    rows = [f"/{number},{number},2026-{1 + number % 12:02d}-01T10:00:00Z" for number in range(200)]
    body = "\n".join(["page,seconds,at", *rows]).encode()
    report = place.take(place.put(body))
    assert report.rows == 200
    assert sorted(one["sequence"] for one in place.lines("processed/")) == list(range(200))
    first = place.objects()
    assert report.objects == len(first) > 12
    assert max(len(gzip.decompress(one)) for one in first.values()) < 2_500
    place.cloud.s3.delete_object(Bucket=place.bucket, Key=next(iter(first)))
    place.cloud.dynamodb.delete_item(TableName=place.table, Key=_mark(place, body))
    place.take(place.put(body))
    assert place.objects() == first


@pytest.mark.parametrize("name", ["a b+c%20.csv", "é😀.csv", "#?&=.csv", "x" * 900])
def test_a_file_is_taken_whatever_its_key_holds(place, name):
    found = place.put(GOOD, f"raw/visits/{name}")
    assert place.take(found).rows == 3
    assert place.remembered() == {(f"s3://{place.bucket}/raw/visits/{name}", found.etag)}


def _mark(place, body):
    sk = f"file#s3://{place.bucket}/raw/visits/a.csv#{place.put(body).etag}"
    return {"pk": {"S": "solo#visits"}, "sk": {"S": sk}}


@pytest.mark.parametrize("step", ["objects", "ledger"])
def test_a_run_that_stopped_after_any_step_is_finished_by_the_next_one_with_the_same_objects(place, step):
    found = place.put(GOOD + b"/d\n")

    with pytest.raises(Stop):
        place.take(found, after=stop_after(step))
    before = place.objects()
    assert place.remembered() == set()
    report = place.take(found)
    assert (report.outcome, report.rows, report.refused) == (Outcome.TAKEN, 4, 1)
    assert place.objects() == before
    assert len(place.remembered()) == 1


KILLED = """
import os, pickle, signal, sys
from lake.clients import Cloud
from spark_jobs.file_taking import take_file

endpoint, at, found, target = pickle.loads(bytes.fromhex(sys.argv[1]))
cloud = Cloud("us-east-1", endpoint)
calls = 0

def strike(**_):
    global calls
    calls += 1
    if calls == at:
        os.kill(os.getpid(), signal.SIGKILL)

for client, names in ((cloud.s3, ("PutObject",)), (cloud.dynamodb, ("PutItem",))):
    for name in names:
        client.meta.events.register(f"before-call.*.{name}", strike)
print(take_file(found, target, cloud).outcome)
"""


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5])
def test_a_process_killed_before_any_of_its_writes_loses_and_doubles_nothing(place, ministack, at):
    found = place.put(GOOD + b"/d\n")  # three objects, the ledger, the mark
    given = pickle.dumps((ministack, at, found, place.target)).hex()
    done = subprocess.run(
        [sys.executable, "-c", KILLED, given],
        env={**os.environ, "PYTHONPATH": str(ROOT), **place.cloud.environment()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert place.remembered() == set()
    left = place.objects()
    assert len(left) <= 3
    report = place.take(found)
    assert (report.outcome, report.rows, report.refused, report.objects) == (Outcome.TAKEN, 4, 1, 3)
    after = place.objects()
    assert len(after) == 3
    assert left.items() <= after.items()
    assert sorted(one["sequence"] for one in place.lines("processed/")) == [0, 1, 2]
    assert place.ledgers() == {report.producer_id: (4, 4, 0)}


def test_the_moment_of_taking_is_the_clocks(place):
    noon = datetime(2026, 11, 20, 12, tzinfo=UTC)
    report = place.take(place.put(GOOD), clock=lambda: noon)
    found = TakenFiles(place.cloud.dynamodb, place.table).of_file(place.drop, f"s3://{place.bucket}/raw/visits/a.csv")
    assert [(one.producer_id, one.taken_at_ms) for one in found] == [
        (report.producer_id, round(noon.timestamp() * 1000))
    ]
