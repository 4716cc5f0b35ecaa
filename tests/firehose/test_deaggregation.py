"""Records that hold several: how they are taken apart, and how what can't be goes to the errors."""

from __future__ import annotations

import json

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firehose.deaggregation import SUB_RECORDS, SplitDelimited, SplitJson, json_objects
from firehose.records import Record


def split(raw, maker=None):
    made, failed = (maker or SplitJson()).apply([Record(raw, 5, (("k", "v"),))], 9)
    assert all((one.arrival_ms, one.keys) == (5, (("k", "v"),)) for one in made)
    return [one.raw for one in made], failed


def only_message(raw, maker=None):
    made, (failed,) = split(raw, maker)
    assert made == []
    assert (failed.raw, failed.arrival_ms, failed.ended_ms) == (raw, 5, 9)
    reason = failed.reason
    assert (reason.output_type, reason.code, reason.attempts, reason.lambda_arn) == (
        *("processing-failed", "DynamicPartitioning.RecordDeAggregationFailed"),
        *(1, None),
    )
    return reason.message


@pytest.mark.parametrize(
    ("raw", "parts"),
    [
        (b'{"a":1}', [b'{"a":1}']),
        (b'{"a":1}{"a":2}', [b'{"a":1}', b'{"a":2}']),
        (b'{"a":1}\n{"a":2}\n', [b'{"a":1}', b'{"a":2}']),
        (b'\r\n{"a":1}\r\n\r\n{"a":2}', [b'{"a":1}', b'{"a":2}']),
        (b'{"a":1} \t {"a":2}', [b'{"a":1}', b'{"a":2}']),
        (b'{"a":{}}{}{"b":[{},{}]}', [b'{"a":{}}', b"{}", b'{"b":[{},{}]}']),
        # what looks like a border is in a string
        (b'{"a":"}{"}{"b":"} {"}', [b'{"a":"}{"}', b'{"b":"} {"}']),
        # an object keeps its own bytes, spaces and spelling of numbers too
        (b'{ "a" : 1.10 }\n{"b":1e2}', [b'{ "a" : 1.10 }', b'{"b":1e2}']),
        (
            '{"a":"é"}{"b":"}{\N{GRINNING FACE}"}'.encode(),
            ['{"a":"é"}'.encode(), '{"b":"}{\N{GRINNING FACE}"}'.encode()],
        ),
        # half of a surrogate pair, as logs have it that were cut
        (b'{"a":"\\ud83d"}{"a":2}', [b'{"a":"\\ud83d"}', b'{"a":2}']),
    ],
)
def test_objects_that_follow_one_another_are_records(raw, parts):
    assert split(raw) == (parts, [])


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'[{"a":1},{"a":2}]', "The record holds an array at character 0: allowed are JSON objects"),
        (b'{"a":1}[{"a":2}]', "The record holds an array at character 7: allowed are JSON objects"),
        (b'{"a":1}\n5', "The record holds a value at character 8: allowed are JSON objects"),
        (b"", "The record holds no JSON object"),
        (b" \n\r\n", "The record holds no JSON object"),
        (b'{"a":1},{"a":2}', "The record is not valid JSON at character 7: Expecting value"),
        (b'{"a":1}{"a":', "The record is not valid JSON at character 12: Expecting value"),
        (b"plain text", "The record is not valid JSON at character 0: Expecting value"),
        (b'{"a":NaN}', "The record is not valid JSON: NaN is no number"),
        (b'{"a":"\xff"}', "The record is not valid UTF-8 at byte 6"),
    ],
)
def test_a_record_that_is_anything_else_is_refused_whole(raw, message):
    assert only_message(raw) == message


def test_a_record_nested_without_an_end_is_refused():
    assert "nested too deeply" in only_message(b'{"a":' * 200_000)


def test_500_records_are_taken_and_501_refused():
    assert split(b'{"a":1}' * SUB_RECORDS) == ([b'{"a":1}'] * 500, [])
    assert only_message(b'{"a":1}' * 501) == "The record holds more than 500 records"
    # by the slow way too
    assert len(split(b'{"a":"}{"}' * 500)[0]) == 500
    assert only_message(b'{"a":"}{"}' * 501) == "The record holds more than 500 records"


def test_a_million_braces_in_a_string_take_no_time():
    raw = b'{"a":"' + b"}{" * 500_000 + b'"}'
    assert split(raw) == ([raw], [])


def test_a_delimiter_separates_and_is_gone():
    assert split(b"one####two####\nthree", SplitDelimited(b"####")) == ([b"one", b"two", b"\nthree"], [])


def test_nothing_between_delimiters_is_no_record():
    assert split(b"\n\none\n\ntwo\n", SplitDelimited(b"\n")) == ([b"one", b"two"], [])
    assert only_message(b"\n\n", SplitDelimited(b"\n")) == "The record holds nothing but delimiters"
    assert only_message(b"", SplitDelimited(b"\n")) == "The record holds nothing but delimiters"


def test_more_than_500_delimited_records_are_refused():
    assert len(split(b"x|" * 500, SplitDelimited(b"|"))[0]) == 500
    assert only_message(b"x|" * 501, SplitDelimited(b"|")) == "The record holds more than 500 records"


def test_a_bad_record_does_not_keep_its_neighbours():
    made, failed = SplitJson().apply([Record(b'{"a":1}', 1), Record(b"x", 2), Record(b'{"b":1}{"c":1}', 3)], 9)
    assert [(one.raw, one.arrival_ms) for one in made] == [(b'{"a":1}', 1), (b'{"b":1}', 3), (b'{"c":1}', 3)]
    assert [(one.raw, one.arrival_ms) for one in failed] == [(b"x", 2)]


TEXTS = st.text(st.characters(codec="utf-8"), max_size=6) | st.sampled_from(["}{", "} {", "}\n{", '"', "\\", "{", "}"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.dictionaries(TEXTS, VALUES, max_size=3)
INDENTS = st.sampled_from([None, 1])
GAPS = st.text(st.sampled_from(" \t\r\n"), max_size=2)


@given(st.lists(st.tuples(OBJECTS, INDENTS, st.booleans(), GAPS), min_size=1, max_size=6), GAPS)
def test_whatever_objects_are_put_together_come_apart_as_they_were(given_objects, lead):
    texts = [
        (json.dumps(one, indent=indent, ensure_ascii=ascii_only), gap) for one, indent, ascii_only, gap in given_objects
    ]
    raw = (lead + "".join(text + gap for text, gap in texts)).encode()
    assert json_objects(raw) == [text.encode() for text, _ in texts]


@given(st.binary(max_size=40) | st.text(st.sampled_from('{}[]":,a1 \n\\'), max_size=30).map(str.encode))
def test_whatever_bytes_come_are_objects_that_cover_them_or_are_refused(raw):
    made, failed = split(raw)
    if failed:
        assert made == []
        assert [one.raw for one in failed] == [raw]
    else:
        assert all(type(orjson.loads(part)) is dict for part in made)
        at = 0
        for part in made:
            start = raw.index(part, at)
            assert not raw[at:start].strip()
            at = start + len(part)
        assert not raw[at:].strip()


@given(st.lists(st.binary(min_size=1, max_size=5).filter(lambda part: b"#" not in part), min_size=1), st.booleans())
def test_whatever_is_delimited_comes_apart_as_it_was(parts, closed):
    raw = b"##".join(parts) + (b"##" if closed else b"")
    assert split(raw, SplitDelimited(b"##")) == (parts, [])
