"""Reading objects from S3, and planning which ones a batch takes."""

import gzip
import json
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from uuid import uuid4

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lake import lines as lake_lines
from lake.contract import PartitionField
from lake.declaration import Jobs, Stream
from lake.errors import CommitConflictError, TerminalError, TransientError
from lake.lines import Block, Broken, LongLine, unpack
from lake.manifest import BatchId, Lane
from spark_jobs import objects
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
    """Pieces of objects, as a task reads them; their sizes are as S3 tells."""
    found = []
    for key in keys:
        try:
            size = cloud.s3.head_object(Bucket=stream.bucket, Key=key)["ContentLength"]
        except cloud.s3.exceptions.ClientError:
            size = 1
        found.append(StoredObject(f"s3://{stream.bucket}/{key}", size))
    return list(_contents(cloud.s3, found))


def lines(pieces):
    return [found for one in pieces for found in one.lines()]


def test_blank_lines_are_counted_and_are_no_records(cloud, stream, put):
    put("a.gz", body=gzip.compress(b"one\n\n \t\r\ntwo\r\nthree"))
    assert lines(contents(cloud, stream, "a.gz")) == [(0, b"one"), (3, b"two\r"), (4, b"three")]


def test_an_object_may_be_plain_or_several_gzips_in_a_row_and_padded(cloud, stream, put):
    put("plain", body=b"one\n")
    put("row.gz", body=gzip.compress(b"one\n") + gzip.compress(b"two\n") + b"\0" * 700)
    assert lines(contents(cloud, stream, "plain")) == [(0, b"one")]
    assert lines(contents(cloud, stream, "row.gz")) == [(0, b"one"), (1, b"two")]


def test_an_empty_object_has_no_lines(cloud, stream, put):
    put("plain", body=b"")
    put("packed.gz", body=gzip.compress(b""))
    assert contents(cloud, stream, "plain", "packed.gz") == []


def test_an_object_that_cannot_be_unpacked_says_why_and_gives_none_of_its_lines(cloud, stream, put):
    whole = gzip.compress(b"line\n" * 9000)
    put("cut.gz", body=whole[:-9])
    put("torn.gz", body=whole[:-8] + b"\x01\x02\x03\x04" + whole[-4:])
    put("tail.gz", body=whole + b"tail")
    put("text.gz", body=b"one\n")
    found = contents(cloud, stream, "cut.gz", "torn.gz", "tail.gz", "text.gz", "gone.gz")
    assert [one.problem for one in found] == [
        "the object is no whole gzip: it ends before its end-of-stream marker",
        "the object is no whole gzip: Error -3 while decompressing data: incorrect data check",
        "the object is no whole gzip: Error -3 while decompressing data: incorrect header check",
        "the object's name ends with .gz, and it isn't gzip",
        "the object is gone: it was there when S3 told of it",
    ]


MANY = b"".join(b"%09d" % number + b"x" * 91 + b"\n" for number in range(80_000))


@pytest.fixture
def small_limits(monkeypatch):
    """A tenth of every limit, so that what is large is quickly made."""
    for name in ("_BLOCK_BYTES", "_WHOLE_BYTES", "LINE_BYTES"):
        monkeypatch.setattr(lake_lines, name, getattr(lake_lines, name) // 16)
    monkeypatch.setattr(objects, "_AHEAD_BYTES", objects._AHEAD_BYTES // 16)


@pytest.mark.parametrize("key", ["plain", "packed.gz"])
def test_a_large_object_is_read_in_pieces_of_whole_lines(cloud, stream, put, small_limits, key):
    put(key, body=gzip.compress(MANY, 0) if key.endswith(".gz") else MANY)
    found = contents(cloud, stream, key)
    assert len(found) > 10
    assert max(len(one.body) for one in found) < 2**20
    assert lines(found) == list(enumerate(MANY.splitlines()))


def test_a_large_object_that_is_cut_short_gives_none_of_its_lines(cloud, stream, put, small_limits):
    put("cut.gz", body=gzip.compress(MANY, 0)[:-9])
    assert [type(one) for one in contents(cloud, stream, "cut.gz")] == [Broken]


def test_a_large_object_that_was_replaced_between_two_reads_is_tried_again(
    cloud, stream, put, small_limits, monkeypatch
):
    put("packed.gz", body=gzip.compress(MANY, 0))
    unpacked = lake_lines._unpacked

    def replaced(packed, most):
        found = unpacked(packed, most)
        put("packed.gz", body=gzip.compress(MANY[:99], 0))
        return found

    monkeypatch.setattr(lake_lines, "_unpacked", replaced)
    with pytest.raises(TransientError, match=r"packed\.gz: it can't be read"):
        contents(cloud, stream, "packed.gz")


def test_of_a_line_that_is_too_long_the_head_is_kept_and_its_neighbours_are_read(cloud, stream, put, small_limits):
    long = b"<" + b"y" * 3 * 2**20
    put("a.gz", body=gzip.compress(b"one\n" + long + b"\ntwo\n" + long))
    put("most", body=b"z" * 2**20 + b"\n" + b"z" * (2**20 + 1) + b"\nlast")
    head = b"<" + b"y" * (64 * 1024 - 1)
    where, other = f"s3://{stream.bucket}/a.gz", f"s3://{stream.bucket}/most"
    assert contents(cloud, stream, "a.gz") == [
        Block(where, 0, b"one\n"),
        LongLine(where, 1, head, len(long)),
        Block(where, 2, b"two\n"),
        LongLine(where, 3, head, len(long)),
    ]
    assert [one for one in contents(cloud, stream, "most") if not isinstance(one, Block)] == [
        LongLine(other, 1, b"z" * 64 * 1024, 2**20 + 1)
    ]
    assert [
        (at, len(one)) for at, one in lines(x for x in contents(cloud, stream, "most") if isinstance(x, Block))
    ] == [
        (0, 2**20),
        (2, 4),
    ]


def test_an_object_that_unpacks_to_more_than_any_door_writes_is_not_read(cloud, stream, put, small_limits, monkeypatch):
    monkeypatch.setattr(lake_lines, "_MOST_BYTES", 5 * 2**20)
    put("bomb.gz", body=gzip.compress(b"\n" * 20 * 2**20))
    assert [one.problem for one in contents(cloud, stream, "bomb.gz")] == [
        "the object unpacks to more than 5,242,880 bytes"
    ]


def test_a_line_of_over_a_gigabyte_takes_little_memory(tmp_path):
    """In a process of its own, whose peak is its own; the object comes from a file in place of S3."""
    path = tmp_path / "zeros.gz"
    with gzip.open(path, "wb", compresslevel=1) as out:
        for _ in range(1040):
            out.write(b"0" * 2**20)
    done = subprocess.run([sys.executable, "-c", _PEAK, str(path)], capture_output=True, text=True, check=True)
    kind, size, peak = done.stdout.split()
    assert (kind, int(size)) == ("LongLine", 1040 * 2**20)
    assert int(peak) < 120 * 2**10  # KiB more than before


_PEAK = """
import resource, sys
from spark_jobs.objects import StoredObject, _contents
body = open(sys.argv[1], "rb").read()

class S3:
    def get_object(self, **_):
        import io
        return {"ETag": "x", "Body": io.BytesIO(body)}

before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
(one,) = _contents(S3(), [StoredObject("s3://b/zeros.gz", len(body))])
print(type(one).__name__, one.size, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_an_object_that_may_not_be_read_is_named(cloud, bucket):
    with pytest.raises(TerminalError, match=r"object s3://no-such-bucket-here/a: it can't be read: .*NoSuchBucket"):
        list(_contents(cloud.s3, [StoredObject("s3://no-such-bucket-here/a", 1)]))


def test_objects_are_dealt_out_by_size_and_the_same_every_time():
    given = [StoredObject(f"s3://b/{size}", size * MIB) for size in (1, 2, 3, 4)]
    assert shares(given, 2) == [["s3://b/4", "s3://b/1"], ["s3://b/3", "s3://b/2"]]
    assert shares(given[::-1], 2) == shares(given, 2)


def test_a_batch_takes_at_most_so_many_objects():
    given = [StoredObject(f"s3://b/{number}", 1) for number in range(5)]
    assert carve(given, replace(Jobs(), ingest_objects=3)) == tuple(given[:3])


def test_a_batch_takes_at_most_so_many_bytes_and_at_least_one_object():
    given = [StoredObject(f"s3://b/{number}", 3 * MIB) for number in range(3)]
    assert carve(given, replace(Jobs(), ingest_mib=6)) == tuple(given[:2])
    assert carve(given, replace(Jobs(), ingest_mib=1)) == tuple(given[:1])


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


DAY, BUCKET = PartitionField("day", "event_time"), PartitionField("bucket[8]", "user_id")


@pytest.mark.parametrize(
    ("mib", "days", "partition", "expected"),
    [
        (1, 1, (DAY,), (1, "none")),
        # one part writes one file a partition as it is
        (1, 300, (DAY,), (1, "none")),
        (1, 1, (BUCKET,), (1, "none")),
        (40, 2, (DAY,), (11, "none")),
        (40, 30, (DAY,), (11, "hash")),
        (40, 60, (PartitionField("month", "event_time"),), (11, "none")),
        (40, 1, (PartitionField("hour", "event_time"),), (11, "hash")),
        (40, 1, (PartitionField("day", "shipped_at"),), (11, "hash")),
        (40, 1, (DAY, BUCKET), (11, "hash")),
        (40, 300, (), (11, "none")),
    ],
)
def test_rows_are_gathered_by_partition_only_where_they_would_be_many_small_files(mib, days, partition, expected):
    plan = Plan(BATCH, (StoredObject("s3://b/a", mib * MIB),), "1.2.0", 1)
    assert plan.spread(days, partition) == expected


@settings(max_examples=200, deadline=None)
@given(
    members=st.lists(st.binary(max_size=300) | st.sampled_from([b"", b"x" * 40_000]), min_size=1, max_size=30),
    padding=st.integers(0, 40_000),
    cuts=st.lists(st.integers(0, 100_000), max_size=5),
)
def test_members_of_a_gzip_come_out_whole_however_they_are_cut(members, padding, cuts):
    packed = b"".join(map(gzip.compress, members)) + b"\0" * padding
    ends = sorted({min(one, len(packed)) for one in (0, *cuts, len(packed))})
    pieces = [packed[start:end] for start, end in pairwise(ends)]
    assert b"".join(unpack(pieces)) == b"".join(members)


@pytest.mark.timeout(60)
def test_an_object_of_very_many_empty_members_is_read_soon():
    assert b"".join(unpack([gzip.compress(b"") * 200_000, gzip.compress(b"line\n")])) == b"line\n"


@pytest.mark.timeout(60)
def test_an_object_of_very_many_members_of_a_byte_is_read_soon():
    one = gzip.compress(b"x")
    found = list(lake_lines._Cutter("s3://b/k").cut(unpack([one * 400_000])))
    assert [piece.body for piece in found] == [b"x" * 400_000]
