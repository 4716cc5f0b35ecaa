"""The bytes of S3 objects."""

from __future__ import annotations

import gzip

import orjson
import pytest

from firehose.objects import Compression, Recipe, notes_of, render
from firehose.processing import Reason, Refused


def test_the_suffix_stands_behind_each_record():
    assert render(Recipe(Compression.UNCOMPRESSED, b"\n"), [b"a", b"", b"b"]) == b"a\n\nb\n"


def test_without_a_suffix_records_stand_side_by_side():
    assert render(Recipe(Compression.UNCOMPRESSED), [b"a", b"b"]) == b"ab"


def test_gzip_gives_the_same_bytes_every_time():
    recipe = Recipe(Compression.GZIP, b"\n")
    first = render(recipe, [b"a" * 1000, b"b"])
    assert first == render(recipe, [b"a" * 1000, b"b"])
    assert gzip.decompress(first) == b"a" * 1000 + b"\nb\n"
    assert first[4:8] == bytes(4)  # no time in it


@pytest.fixture
def refused():
    reason = Reason("processing-failed", "Some.Code", "why")
    return [Refused(1, b"\xff", 10, 20, reason), Refused(2, b"x", 11, 21, reason)]


def test_an_error_object_has_a_line_for_each_record(refused):
    made = render(Recipe(Compression.UNCOMPRESSED, notes=notes_of(refused)), [b"\xff", b"x"])
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


def test_a_recipe_survives_the_log(refused):
    recipe = Recipe(Compression.GZIP, b"\r\n", notes_of(refused))
    assert Recipe.from_dict(orjson.loads(orjson.dumps(recipe.to_dict()))) == recipe
