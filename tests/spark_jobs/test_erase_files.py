"""What an object holds of a subject and what is left of it then, on a real S3: damaged, large, or of a strange form."""

import gzip
import io
import itertools
import json
import zlib

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lake.erasure import Key
from spark_jobs import erase_files
from spark_jobs.erase_files import Form, Stored, held_in, rewrite
from spark_jobs.erase_match import Matcher

USER = Matcher((Key("user_id", "u-42"),), "solo")
MINE, OTHERS = b'{"user_id":"u-42"}', b'{"user_id":"u-7"}'
_numbers = itertools.count(1)


class Objects:
    """A bucket of its own, with one object at a time."""

    def __init__(self, s3, bucket):
        self.s3 = s3
        self.bucket = bucket
        s3.create_bucket(Bucket=bucket)

    def put(self, body, key="raw/x"):
        self.s3.put_object(Bucket=self.bucket, Key=key, Body=body)
        return Stored(self.bucket, key, len(body))

    def read(self, one):
        return self.s3.get_object(Bucket=one.bucket, Key=one.key)["Body"].read()

    def held(self, body, form=Form.RAW, matcher=USER):
        """Records that are told of it; None where nothing is."""
        found = held_in(self.s3, self.put(body), form, {"": matcher})
        return None if found is None else (found.records, len(found.identities))

    def rewritten(self, body, form=Form.RAW, matcher=USER):
        """Records that are taken out, and what is left."""
        one = self.put(body)
        return rewrite(self.s3, one, form, matcher).records, self.read(one)


@pytest.fixture
def objects(cloud):
    return Objects(cloud.s3, f"erase-files-{next(_numbers)}")


def damaged_within():
    """A gzip of three members, of which the middle one can't be unpacked."""
    noise = bytearray(gzip.compress(bytes(range(256)) * 40))
    noise[20] ^= 0xFF
    return gzip.compress(MINE + b"\n" + OTHERS + b"\n") + bytes(noise) + gzip.compress(OTHERS + b"\n")


@pytest.mark.parametrize("form", [Form.RAW, Form.LINES])
def test_a_damaged_gzip_is_told_and_stays_as_it_is(objects, form):
    cut_short = gzip.compress(MINE + b"\n" + OTHERS + b"\n")[:-4]
    for body in (damaged_within(), cut_short):
        assert objects.held(body, form) == (1, 0)
        assert objects.rewritten(body, form) == (0, body)
    nobodys = damaged_within().replace(gzip.compress(MINE), b"")
    assert objects.held(gzip.compress(OTHERS)[:-4], form) == (0, 0)
    assert objects.rewritten(nobodys, form) == (0, nobodys)


def test_of_a_damaged_gzip_an_older_version_goes(objects):
    versioning = {"Status": "Enabled"}
    objects.s3.put_bucket_versioning(Bucket=objects.bucket, VersioningConfiguration=versioning)
    objects.put(damaged_within())
    objects.put(OTHERS)
    old = next(one for one in erase_files.list_objects(objects.s3, objects.bucket, "raw/") if not one.is_newest)
    assert rewrite(objects.s3, old, Form.RAW, USER).records == 1
    assert [one.is_newest for one in erase_files.list_objects(objects.s3, objects.bucket, "raw/")] == [True]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("form", [Form.RAW, Form.LINES, Form.ERRORS, Form.RESULT])
def test_what_is_too_large_is_searched_in_parts_and_told(objects, monkeypatch, form, packed):
    monkeypatch.setattr(erase_files, "_MOST_BYTES", 2**20)
    for before, found in ((0, MINE), (2**20, MINE), (4 * 2**20 - 15, MINE), (2**23, MINE), (2**23, OTHERS)):
        plain = b" " * before + found + b"\n" + b" " * 2**20
        body = gzip.compress(plain, compresslevel=1) if packed else plain
        assert objects.held(body, form) == (int(found is MINE), 0)
        if form is not Form.RESULT:
            assert objects.rewritten(body, form) == (0, body)


def test_what_is_too_large_is_unpacked_as_far_as_it_can_be(objects, monkeypatch):
    monkeypatch.setattr(erase_files, "_MOST_BYTES", 2**16)
    first, mine = gzip.compress(bytes(2**20)), gzip.compress(MINE)
    others = gzip.compress(OTHERS)
    for body in (first + mine, first + b"\0" * 5000 + mine, first + MINE, first + b"\0\0" + MINE, first + mine[:-6]):
        assert objects.held(body) == (1, 0)
    for body in (first + others, first + b"\0" * 5000, first + b"\x1f", first[:-6], first + b"\x1f\x8bx" + MINE):
        assert objects.held(body) == (0, 0)
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(packer.compress(bytes(2**20)) for _ in range(64)) + packer.flush()
    assert objects.held(bomb + mine) == (1, 0)


def test_a_record_that_is_too_long_to_be_parsed_is_told_and_stays(objects):
    long = b'{"x":"' + b"y" * 33 * 2**20 + b'","user_id":"u-42"}\n'
    for body in (OTHERS + b"\n" + long, b"[" + long + b"]"):
        assert objects.held(body) == (1, 0)
        assert objects.rewritten(body) == (0, body)
    assert objects.held(long.replace(b"user_id", b"page")) == (0, 0)
    fine = OTHERS + b"\n" + long.replace(b"user_id", b"page") + MINE
    assert objects.rewritten(fine) == (1, fine.removesuffix(MINE))


def printed(record):
    return json.dumps(json.loads(record), indent=1).encode()


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_records_over_several_lines_go_whole_where_the_first_is_in_one(objects, end):
    long = b'{"name":"Zoe","user_id":["u-42"],"x":{"y":[1,{}]}}'
    other = printed(b'{"name":"Bob","user_id":["u-7"],"x":{"y":[1,{}]}}')
    for first in (OTHERS, OTHERS + OTHERS, b"\xef\xbb\xbf" + OTHERS):
        body = b"\n".join((first, printed(long), other + end))
        assert objects.held(body) == (1, 1)
        assert objects.rewritten(body) == (1, b"\n".join((first, b"", other + end)))
    # a record a line, of which one is broken
    for broken in (b'{"user_id":"u-7", bad', b"no json", b'{"user_id":"u-7"'):
        body = b"\n".join((OTHERS, broken, MINE, OTHERS + end))
        assert objects.rewritten(body) == (1, b"\n".join((OTHERS, broken, b"", OTHERS + end)))


def parquet(column, **options):
    body = io.BytesIO()
    pq.write_table(pa.table({"a": list(range(len(column))), "c": column}), body, compression="zstd", **options)
    return body.getvalue()


@pytest.mark.parametrize(
    "value",
    [
        "u-42",
        ["u-1", "u-42"],
        {"x": {"user_id": "u-42"}},
        [{"x": ["u-42"]}],
        '{"user_id":"u-42"}',
        b'{"user_id":"u-42"}',
    ],
)
def test_a_result_in_parquet_is_looked_through_however_deep(objects, value):
    other = json.loads(json.dumps(value).replace("u-42", "u-7")) if not isinstance(value, bytes) else b"u-7"
    assert objects.held(parquet([other] * 40 + [value]), Form.RESULT) == (1, 0)
    assert objects.held(parquet([other] * 40), Form.RESULT) is None


def test_a_map_in_a_result_is_looked_through(objects):
    kind = pa.map_(pa.string(), pa.int64())
    number = Matcher((Key("user_id", "42"),), "solo")
    for pair, told in ((("u-42", 1), USER), (("u-1", 42), number)):
        body = parquet(pa.array([[("u-7", 7)]] * 40 + [[pair]], kind))
        assert objects.held(body, Form.RESULT, told) == (1, 0)
    assert objects.held(parquet(pa.array([[("u-7", 7)]], kind)), Form.RESULT) is None


def test_a_result_that_begins_as_parquet_and_is_none_is_searched_as_bytes_and_told(objects):
    assert objects.held(b"PAR1,b\n1,2\n", Form.RESULT) == (0, 0)
    assert objects.held(b"PAR1,b\n1,u-42\n", Form.RESULT) == (1, 0)
    assert objects.held(b"PAR1" + parquet(["u-7"])[4:-20] + b"x" * 12 + b"\xff\0\0\0PAR1", Form.RESULT) == (0, 0)
    body = bytearray(parquet(["u-7"] * 1000))
    body[10:40] = b"\xff" * 30
    assert objects.held(bytes(body), Form.RESULT) == (0, 0)
