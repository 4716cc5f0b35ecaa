"""S3 prefixes with expressions, and object keys."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from firehose.prefixes import PrefixError, object_key, parse_prefix, unsafe_key

OLDEST = datetime(2013, 5, 7, 9, 4, 2, tzinfo=UTC)


def evaluate(text, values=None, error_type=""):
    return parse_prefix(text).evaluate(OLDEST, values or {}, lambda letters: letters[0], error_type)


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("", "2013/05/07/09/"),
        ("raw/", "raw/2013/05/07/09/"),
        ("raw", "raw2013/05/07/09/"),
        ("raw/!{timestamp:yyyy}/", "raw/2013/"),
        ("a/!{firehose:random-string}/", "a/aaaaaaaaaaa/"),
        ("y=!{timestamp:yyyy}/t=!{timestamp:HH'h'mm}/", "y=2013/t=09h04/"),
    ],
)
def test_a_prefix_is_evaluated_at_the_arrival_of_the_oldest_record(text, made):
    assert evaluate(text) == made


def test_each_random_string_is_fresh():
    letters = iter("abcdefghijklmnopqrstuvwxyz")
    made = parse_prefix("!{firehose:random-string}/!{firehose:random-string}/").evaluate(
        OLDEST, {}, lambda _: next(letters)
    )
    assert made == "abcdefghijk/lmnopqrstuv/"


def test_partition_keys_are_put_in():
    values = {("partitionKeyFromQuery", "tenant"): "ewr", ("partitionKeyFromLambda", "tenant"): "jfk"}
    prefix = "t=!{partitionKeyFromQuery:tenant}/f=!{partitionKeyFromLambda:tenant}/"
    assert evaluate(prefix, values) == "t=ewr/f=jfk/"


def test_the_kind_of_error_is_put_in():
    assert evaluate("e/!{firehose:error-output-type}/", error_type="processing-failed") == "e/processing-failed/"


def test_a_literal_error_prefix_is_followed_by_the_kind_and_the_time():
    assert evaluate("e/", error_type="processing-failed") == "e/processing-failed/2013/05/07/09/"


def test_a_zone_moves_the_time():
    moment = OLDEST.astimezone(ZoneInfo("Asia/Kolkata"))
    assert (
        parse_prefix("!{timestamp:yyyy-MM-dd'T'HH:mm xxx}").evaluate(moment, {}, lambda _: "a")
        == "2013-05-07T14:34 +05:30"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a" * 1025, "1025 characters, at most 1024"),
        ("x/!{timestamp:yyyy", "not closed"),
        ("!{timestamp}", "is not !{namespace:value}"),
        ("!{time:yyyy}", "did you mean 'timestamp'"),
        ("!{firehose:random}", "did you mean 'random-string'"),
        ("!{timestamp:yyyy/bb}", "unknown letter 'b'"),
    ],
)
def test_a_prefix_that_makes_no_sense_is_refused(text, said):
    with pytest.raises(PrefixError, match=said):
        parse_prefix(text)


def test_the_partition_keys_of_a_prefix_are_known():
    prefix = parse_prefix("!{partitionKeyFromQuery:b}/!{partitionKeyFromQuery:a}/!{partitionKeyFromLambda:a}")
    assert (prefix.keys("partitionKeyFromQuery"), prefix.keys("partitionKeyFromLambda")) == ({"a", "b"}, {"a"})


def test_an_object_is_named_after_stream_version_time_and_id():
    key = object_key("raw/", "flights", 3, OLDEST, unique="some-uuid", extension=".gz")
    assert key == "raw/flights-3-2013-05-07-09-04-02-some-uuid.gz"


@pytest.mark.parametrize(
    ("prefix", "said"),
    [
        ("x" * 513, "513 characters, at most 512"),
        ("\N{GRINNING FACE}" * 300, "longer than the 1024 bytes"),
        ("a/\n/", "a control character"),
        ("a/../", "'..' as a folder"),
    ],
)
def test_a_key_that_s3_would_not_take_is_told(prefix, said):
    assert said in unsafe_key(prefix, f"{prefix}name")


def test_a_usual_key_is_safe():
    assert unsafe_key("tenant=é/day=2013-05-07/", "tenant=é/day=2013-05-07/name.gz") is None
