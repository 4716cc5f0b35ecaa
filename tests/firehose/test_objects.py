"""The bytes of S3 objects."""

from __future__ import annotations

import gzip
import zipfile
from io import BytesIO
from uuid import UUID

import orjson
import pytest

from firehose.objects import Compression, Recipe, notes_of, render
from firehose.processing import Reason, Refused

DELIVERY = UUID("6f1c2d04-8b7e-4c55-9d5e-0a1b2c3d4e5f")


def test_the_suffix_stands_behind_each_record():
    assert render(Recipe(Compression.UNCOMPRESSED, b"\n"), [b"a", b"", b"b"], DELIVERY) == b"a\n\nb\n"


def test_without_a_suffix_records_stand_side_by_side():
    assert render(Recipe(Compression.UNCOMPRESSED), [b"a", b"b"], DELIVERY) == b"ab"


def test_gzip_has_no_time_in_it():
    made = render(Recipe(Compression.GZIP, b"\n"), [b"a" * 1000, b"b"], DELIVERY)
    assert gzip.decompress(made) == b"a" * 1000 + b"\nb\n"
    assert made[4:8] == bytes(4)


def test_a_zips_entry_is_named_by_a_uuid_that_is_not_the_objects():
    made = render(Recipe(Compression.ZIP), [b"a"], DELIVERY)
    with zipfile.ZipFile(BytesIO(made)) as archive:
        assert archive.namelist() == ["51a5e023-20ba-5633-baa3-cd49bfb5337a"]
    assert made != render(Recipe(Compression.ZIP), [b"a"], UUID(int=1))


@pytest.mark.parametrize("compression", Compression)
def test_an_object_written_again_has_the_same_bytes(compression, monkeypatch):
    recipe, data = Recipe(compression, b"\n"), [b"a" * 100_000, b"b"]
    first = render(recipe, data, DELIVERY)
    monkeypatch.setattr("time.time", lambda: 4_000_000_000.0)
    assert render(recipe, data, DELIVERY) == first


@pytest.mark.parametrize(
    ("compression", "extension", "encoding"),
    [
        ("UNCOMPRESSED", "", None),
        ("GZIP", ".gz", "gzip"),
        ("ZIP", ".zip", "zip"),
        ("Snappy", ".snappy", "snappy-java"),
        ("HADOOP_SNAPPY", ".snappy", "hadoop-snappy"),
    ],
)
def test_each_compression_has_its_extension_and_content_encoding(compression, extension, encoding):
    made = Compression(compression)
    assert (made.extension, made.content_encoding) == (extension, encoding)


@pytest.fixture
def refused():
    reason = Reason("processing-failed", "Some.Code", "why")
    return [Refused(1, b"\xff", 10, 20, reason), Refused(2, b"x", 11, 21, reason)]


def test_an_error_object_has_a_line_for_each_record(refused):
    made = render(Recipe(Compression.UNCOMPRESSED, notes=notes_of(refused)), [b"\xff", b"x"], DELIVERY)
    assert made.splitlines() == [
        (
            b'{"attemptsMade":1,"arrivalTimestamp":10,"errorCode":"Some.Code","errorMessage":"why",'
            b'"attemptEndingTimestamp":20,"rawData":"/w=="}'
        ),
        (
            b'{"attemptsMade":1,"arrivalTimestamp":11,"errorCode":"Some.Code","errorMessage":"why",'
            b'"attemptEndingTimestamp":21,"rawData":"eA=="}'
        ),
    ]


@pytest.mark.parametrize("compression", Compression)
def test_a_recipe_survives_the_log(refused, compression):
    recipe = Recipe(compression, b"\r\n", notes_of(refused))
    assert Recipe.from_dict(orjson.loads(orjson.dumps(recipe.to_dict()))) == recipe
