"""Partition keys by jq: what is taken, and how what can't be is refused."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firehose.extraction import QueryError, compile_query
from firehose.processing import Chunk


def take(query, *records, keys=None):
    step = compile_query(query)
    if keys is not None:
        step = step.using(keys)
    return step.apply(Chunk(list(records), range(10, 10 + len(records)), 5), 9)


def only_keys(query, record, keys=None):
    chunk = take(query, record, keys=keys)
    assert chunk.refused == []
    return chunk.keys[0]


def only_message(query, record):
    chunk = take(query, record)
    assert chunk.data == []
    (refused,) = chunk.refused
    assert (refused.number, refused.raw, refused.arrival_ms, refused.ended_ms) == (10, record, 5, 9)
    assert refused.reason.output_type == "processing-failed"
    assert refused.reason.code == "DynamicPartitioning.MetadataExtractionFailed"
    return refused.reason.message


PATHS = "{tenant: .tenant, year: .event_time[0:4]}"


def test_paths_and_slices_are_taken():
    assert only_keys(PATHS, b'{"tenant":"ewr","event_time":"2013-05-07"}') == ("ewr", "2013")


def test_a_slice_counts_characters_and_not_bytes():
    assert only_keys("{a: .a[0:2]}", '{"a":"\N{GRINNING FACE}éx"}'.encode()) == ("\N{GRINNING FACE}é",)


@pytest.mark.parametrize(
    ("value", "key"),
    [
        (b"7", "7"),
        (b"-7", "-7"),
        (b"1.5", "1.5"),
        (b"true", "true"),
        (b"false", "false"),
        (b"0", "0"),
        (b"1e3", "1000"),
    ],
)
def test_numbers_and_booleans_are_rendered_as_jq_does(value, key):
    assert only_keys("{a: .a}", b'{"a":' + value + b"}") == (key,)


def test_functions_of_jq_are_run():
    query = '{a: (.when | tonumber | strftime("%Y")), b: ([.xs[] | ascii_downcase] | join("-"))}'
    assert only_keys(query, b'{"when":"86400","xs":["A","B"]}') == ("1970", "a-b")


def test_keys_are_taken_in_the_order_asked_for():
    assert only_keys("{a: .a, b: .b}", b'{"a":"1","b":"2"}', keys=("b", "a")) == ("2", "1")


@pytest.mark.parametrize(
    "record", [b'{"tenant":"x"}', b'{"tenant":null,"event_time":"2013"}', b'{"tenant":"","event_time":"2013"}']
)
def test_a_key_that_is_missing_null_or_empty_is_refused(record):
    assert only_message(PATHS, record) == "partitionKeys values must not be null or empty"


def test_an_empty_string_is_not_rescued_by_an_alternative():
    assert only_message('{a: (.a // "none")}', b'{"a":""}') == "partitionKeys values must not be null or empty"


@pytest.mark.parametrize("record", [b'{"a":[1]}', b'{"a":{"b":1}}'])
def test_a_key_that_is_not_scalar_is_refused(record):
    assert only_message("{a: .a}", record) == "partitionKeys values must be strings, numbers or booleans"


@pytest.mark.parametrize("record", [b"", b"not json", b'{"a":', b'{"a":1}{"a":2}', b"\xff\xfe"])
def test_a_record_that_is_not_json_is_refused_and_said_so(record):
    assert only_message("{a: .a}", record).startswith("The record is not valid JSON")


def test_an_error_of_jq_is_told():
    assert only_message("{a: .a}", b"[1]") == 'jq: Cannot index array with string ("a")'


def test_a_query_that_gives_several_objects_is_refused():
    assert only_message("{a: .a[]}", b'{"a":["x","y"]}').startswith("The query must return one object")


def test_bad_records_do_not_touch_the_good_ones_around_them():
    chunk = take(PATHS, b"bad", b'{"tenant":"a","event_time":"2013"}', b"5", b'{"tenant":1,"event_time":"2014"}')
    assert chunk.keys == [("a", "2013"), ("1", "2014")]
    assert list(chunk.numbers) == [11, 13]
    assert [one.number for one in chunk.refused] == [10, 12]


def test_bytes_that_are_no_utf8_are_replaced_as_jq_does():
    assert only_keys("{a: .a}", b'{"a":"x\xff"}') == ("x\N{REPLACEMENT CHARACTER}",)


@pytest.mark.parametrize(
    "query", ["{a:", "{a: nosuch}", "{a: input}", "{a: $ENV.HOME}", "{a: (.a | ltrimstr)}", "{a: (.a|trim)}"]
)
def test_a_query_that_cannot_be_used_is_refused(query):
    with pytest.raises(QueryError, match="MetadataExtractionQuery"):
        compile_query(query)


def test_a_comment_at_the_end_of_a_query_does_no_harm():
    assert only_keys("{a: .a} # the tenant", b'{"a":"x"}') == ("x",)


@pytest.mark.parametrize(
    ("query", "keys"),
    [
        ("{a: .a, b: .b}", ("a", "b")),
        (".message | fromjson | {a: .a}", ("a",)),
        ('if .x then {a: .a} else {a: "none"} end', ("a",)),
        ('. as $r | {("a" + "b"): $r.a}', ("ab",)),
        ("fromjson", None),
    ],
)
def test_the_keys_of_a_query_are_known_where_they_can_be(query, keys):
    assert compile_query(query).known_keys == keys


SCALARS = st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.text() | st.floats(allow_nan=False)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner)
)


QUERIES = st.sampled_from(["{a: .a, b: .b}", "{b: .b, a: .a, c: .c}", "{a: .a, b: .a.b}"]) | st.sampled_from(
    ["{a: .a}", "{a: .a[0:3], b: .b}", "{a, b: .a.b}", "{a: .a[1:], b: .b[:2]}", '{"a": .b.a[2:1]}', "{a: .a, b: .a}"]
)


def assert_both_ways_agree(data, query):
    direct = compile_query(query)
    assert direct._plain is not None
    by_jq = direct.using(direct.keys)
    by_jq._plain = None
    found = direct.apply(Chunk(data, range(len(data)), 0), 0)
    expected = by_jq.apply(Chunk(data, range(len(data)), 0), 0)
    assert found.keys == expected.keys
    assert found.refused == expected.refused


@given(
    records=st.lists(st.dictionaries(st.sampled_from(["a", "b"]), VALUES) | VALUES, max_size=5),
    query=QUERIES,
)
def test_the_direct_way_gives_what_libjq_gives(records, query):
    data = []
    for record in records:
        try:
            data.append(orjson.dumps(record))
        except TypeError:
            data.append(b"null")  # beyond 64 bits
    assert_both_ways_agree(data, query)


PIECES = st.sampled_from(
    [b'"', b"\\", b",", b":", b"{", b"}", b"[", b"]", b"0", b"1", b".", b"e", b"-", b"+", b"nul", b"true", b"NaN"]
) | st.sampled_from(
    [
        b" ",
        b"\n",
        b"\t",
        b"\x00",
        b"\x7f",
        b"\xff",
        b"\xc3\xa9",
        b"\xef\xbb\xbf",
        b"\\u0061",
        b"\\ud800",
        b"1e999",
        b'"a":',
    ]
)


@st.composite
def bent(draw):
    whole = orjson.dumps(draw(st.dictionaries(st.sampled_from(["a", "b", "other"]), VALUES.filter(fits), min_size=1)))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(whole)))
        whole = whole[:at] + draw(PIECES) + whole[at + draw(st.integers(0, 2)) :]
    return whole


def fits(value):
    try:
        orjson.dumps(value)
    except TypeError:
        return False
    return True


@settings(max_examples=500)
@given(records=st.lists(bent(), min_size=1, max_size=3), query=QUERIES)
def test_both_ways_agree_on_what_is_nearly_json(records, query):
    assert_both_ways_agree(records, query)


@pytest.mark.parametrize(
    "record",
    [
        b'{"a":"x","other":"\xff"}',
        b'{"a":"x","\xff":1}',
        b'{"a":"x","other":1e999}',
        b'{"a":"x","a":"y"}',
        b'{"a":[1],"a":"y"}',
        b'{"a":"y","a":[1]}',
        b'{"\\u0061":"x"}',
        b'{"a":"x","other":"\\ud800"}',
        b'{"a":"x","other":' + b"[" * 300 + b"]" * 300 + b"}",
        b'{"a":"x","other":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"a":1.0}',
        b'{"a":-0}',
        b'{"a":123456789012345678901234567890}',
    ],
)
def test_both_ways_agree_where_readers_of_json_differ(record):
    assert_both_ways_agree([record], "{a: .a}")


@pytest.mark.parametrize(
    ("query", "record"),
    [
        ('{"a\\"b"}', b'{"a\\"b":"x"}'),
        ('{"a\\\\b"}', b'{"a\\\\b":"x"}'),
        ('{"a\\nb"}', b'{"a\\nb":"x"}'),
        ('{"\N{LATIN SMALL LETTER E WITH ACUTE}"}', b'{"\\u00e9":"x"}'),
        ('{"\N{LATIN SMALL LETTER E WITH ACUTE}"}', '{"\N{LATIN SMALL LETTER E WITH ACUTE}":"x"}'.encode()),
        ('{""}', b'{"":"x"}'),
        ("{f1: .f0}", b'{"f1":"y","f0":"x"}'),
    ],
)
def test_any_name_of_a_member_is_read(query, record):
    assert only_keys(query, record) == ("x",)
