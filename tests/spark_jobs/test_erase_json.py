"""Whose record is it in JSON that isn't a record a line; every other record keeps its bytes."""

import json
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lake.erasure import Key
from spark_jobs.erase_json import cut_json, is_lines
from spark_jobs.erase_match import Matcher

USER = Matcher((Key("user_id", "u-42"),), "solo")
MINE, OTHER = {"user_id": "u-42", "n": [1, {"ä": "]},{"}]}, {"user_id": "u-7", "page": "ö\u2028[{"}


@pytest.mark.parametrize("indent", [None, 2])
@pytest.mark.parametrize("places", [(), (0,), (1,), (2,), (0, 1), (0, 2), (1, 2), (0, 1, 2)])
def test_elements_of_an_array_go_with_one_comma_each(indent, places):
    values = [MINE if at in places else {**OTHER, "at": at} for at in range(3)]
    body = json.dumps(values, indent=indent, ensure_ascii=False).encode() + b"\n"
    cut = cut_json(body, USER, 0)
    assert cut.records == len(places)
    kept = [value for value in values if value is not MINE]
    if kept:
        assert cut.body == json.dumps(kept, indent=indent, ensure_ascii=False).encode() + b"\n"
    assert json.loads(cut.body) == kept


def test_records_printed_over_several_lines_go_whole():
    mine, other = (json.dumps(one, indent=1).encode() for one in (MINE, OTHER))
    cut = cut_json(b"\n".join((other, mine, mine + other, b"")), USER, 0)
    assert (cut.records, cut.body) == (2, other + b"\n\n" + other + b"\n")


def test_arrays_that_follow_each_other_are_records_themselves():
    body = b'[{"user_id":"u-1"}]\n[1,{"user_id":"u-42"}]\n{"user_id":"u-42"}\n[]\n'
    cut = cut_json(body, USER, 0)
    assert (cut.records, cut.body) == (2, b'[{"user_id":"u-1"}]\n\n\n[]\n')


@pytest.mark.parametrize(
    "body",
    [
        b"[",
        b"[1,",
        b"[1,]",
        b"[1]x",
        b"[1 2]",
        b'{"a":1',
        b'{"a":1}]',
        b"[" * 100_000,
        b'[{"user_id":"u-42"}',
        b'{"a":\xff}',
    ],
)
def test_what_is_no_whole_json_is_not_judged(body):
    assert cut_json(body, USER, 0) is None


def test_what_is_whole_and_not_the_subjects_keeps_every_byte():
    for body in (b"[]", b"[]\n[1]", b"[ ] \n", b"[[]]", b' {"a":"\xff"} 7', b"{}[]"):
        assert cut_json(body, USER, len(body) - len(body.lstrip())).body == body


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b'{"a":1}\n{}', True),
        (b'{"a":1}{"a":2}\n\n [1]\r\n', True),
        (b'{"a":1}\n{bad}\n', True),
        (b'{"a":1}\n{\n"a":1}', False),
        (b'{"a":1}\n"a"', False),
        (b'{"a":1}{"a"', False),
        (b'{\n"a":1}', False),
        (b'{"a":\n', False),
    ],
)
def test_a_record_a_line_is_told_by_what_lines_begin_and_end_with(body, expected):
    assert is_lines(body, 0) is expected


_RECORDS = st.sampled_from([MINE, OTHER, {"page": "/"}, [MINE], 7, "u-42", None])


@settings(max_examples=300, deadline=timedelta(seconds=5))
@given(
    st.lists(_RECORDS, max_size=6),
    st.sampled_from([None, 0, 3]),
    st.sampled_from([(",", ":"), (" ,\n", " : ")]),
    st.booleans(),
    st.booleans(),
)
def test_what_stays_is_what_is_not_the_subjects_in_its_order(values, indent, separators, ascii_only, array):
    def text(value):
        return json.dumps(value, indent=indent, separators=separators, ensure_ascii=ascii_only)

    if not array:  # a list that comes first would be an array of records
        values = [one for one in values if not isinstance(one, list)]
    kept = [one for one in values if one not in (MINE, [MINE])]
    body = text(values) if array else "\n".join(map(text, values))
    cut = cut_json(body.encode(), USER, 0)
    assert cut.records == len(values) - len(kept)
    if array:
        assert json.loads(cut.body) == kept
        assert all(text(one).strip("[]{}") in cut.body.decode() for one in kept if indent is None)
    else:
        assert _lines(cut.body.decode()) == _lines("\n".join(map(text, kept)))


def _lines(text):
    return [line for line in text.split("\n") if line.strip()]
