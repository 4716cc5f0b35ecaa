"""Reading objects from S3, and planning which ones a batch takes."""

import gzip
import json
from dataclasses import replace
from uuid import uuid4

import pytest

from lake.declaration import Jobs, Stream
from lake.errors import CommitConflictError, TerminalError
from lake.manifest import BatchId, Lane
from spark_jobs.objects import StoredObject, _contents, shares
from spark_jobs.plan import Plan, carve, read_plan, write_plan

MIB = 2**20
BATCH = BatchId("pooled", "visits", Lane.EVENTS, "ann", 1)


class _Dataset:
    name = "visits"


@pytest.fixture
def bucket(cloud):
    name = f"lake-{uuid4().hex[:12]}"
    cloud.s3.create_bucket(Bucket=name)
    return name


@pytest.fixture
def stream(bucket):
    return Stream("s", _Dataset(), "pooled", bucket, "role", "database", ("ann", "bob"))


@pytest.fixture
def put(cloud, bucket):
    def put(*keys, body=b"x"):
        for key in keys:
            cloud.s3.put_object(Bucket=bucket, Key=key, Body=body)

    return put


def contents(cloud, stream, *keys):
    return list(_contents(cloud.s3, [f"s3://{stream.bucket}/{key}" for key in keys]))


def test_blank_lines_are_counted_and_are_no_records(cloud, stream, put):
    put("a.gz", body=gzip.compress(b"one\n\n \t\r\ntwo\r\nthree"))
    (read,) = contents(cloud, stream, "a.gz")
    assert list(read.lines()) == [(0, b"one"), (3, b"two\r"), (4, b"three")]


def test_an_object_may_be_plain_or_several_gzips_in_a_row(cloud, stream, put):
    put("plain", body=b"one\n")
    put("row.gz", body=gzip.compress(b"one\n") + gzip.compress(b"two\n"))
    assert [list(one.lines()) for one in contents(cloud, stream, "plain", "row.gz")] == [
        [(0, b"one")],
        [(0, b"one"), (1, b"two")],
    ]


def test_an_object_that_cannot_be_unpacked_says_why(cloud, stream, put):
    put("cut.gz", body=gzip.compress(b"x" * 9000)[:-9])
    put("text.gz", body=b"one\n")
    assert [(one.problem, list(one.lines())) for one in contents(cloud, stream, "cut.gz", "text.gz", "gone.gz")] == [
        (
            "the object is no whole gzip: Compressed file ended before the end-of-stream marker was reached",
            [],
        ),
        ("the object's name ends with .gz, and it isn't gzip", []),
        ("the object is gone: it was there when the batch was planned", []),
    ]


def test_an_object_that_may_not_be_read_is_named(cloud, bucket):
    with pytest.raises(TerminalError, match=r"object s3://no-such-bucket-here/a: it can't be read: .*NoSuchBucket"):
        list(_contents(cloud.s3, ["s3://no-such-bucket-here/a"]))


def test_objects_are_dealt_out_by_size_and_the_same_every_time():
    objects = [StoredObject(f"s3://b/{size}", size * MIB) for size in (1, 2, 3, 4)]
    assert shares(objects, 2) == [["s3://b/4", "s3://b/1"], ["s3://b/3", "s3://b/2"]]
    assert shares(objects[::-1], 2) == shares(objects, 2)


def test_a_batch_takes_at_most_so_many_objects():
    objects = [StoredObject(f"s3://b/{number}", 1) for number in range(5)]
    assert carve(objects, replace(Jobs(), ingest_objects=3)) == tuple(objects[:3])


def test_a_batch_takes_at_most_so_many_bytes_and_at_least_one_object():
    objects = [StoredObject(f"s3://b/{number}", 3 * MIB) for number in range(3)]
    assert carve(objects, replace(Jobs(), ingest_mib=6)) == tuple(objects[:2])
    assert carve(objects, replace(Jobs(), ingest_mib=1)) == tuple(objects[:1])


def test_a_plan_is_read_as_it_was_written(cloud, bucket):
    plan = Plan(BATCH, (StoredObject("s3://b/é", 5),), "1.2.0", 1357034400000)
    write_plan(cloud.s3, bucket, plan)
    assert read_plan(cloud.s3, bucket, BATCH) == plan
    assert read_plan(cloud.s3, bucket, replace(BATCH, number=2)) is None


def test_a_batch_is_planned_once(cloud, bucket):
    plan = Plan(BATCH, (StoredObject("s3://b/a", 5),), "1.2.0", 1)
    write_plan(cloud.s3, bucket, plan)
    with pytest.raises(CommitConflictError, match="visits/events/pooled/ann/1: another ingest has planned it"):
        write_plan(cloud.s3, bucket, replace(plan, objects=()))
    assert read_plan(cloud.s3, bucket, BATCH) == plan


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("{", "it can't be read"),
        ("{}", "it can't be read: KeyError"),
        (
            json.dumps(
                {"batch": "visits/events/pooled/bob/1", "objects": [], "schema_version": "1", "planned_at_ms": 1}
            ),
            "it is of batch visits/events/pooled/bob/1, not visits/events/pooled/ann/1",
        ),
    ],
)
def test_a_plan_that_is_none_of_ours_stops_the_series(cloud, bucket, put, body, message):
    put("batches/visits/events/tenant=ann/000000001.json", body=body.encode())
    with pytest.raises(TerminalError, match=message):
        read_plan(cloud.s3, bucket, BATCH)
