from __future__ import annotations

import io
import os
from datetime import UTC, datetime

import pytest

from producers.lines import BadLine, parse_line, read_lines
from producers.rendering import NewEvent

MOMENT = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


def test_lines_are_numbered_from_1_and_blank_ones_are_left_out():
    stream = io.BufferedReader(io.BytesIO(b'{"a":1}\r\n\n  \n{"a":2}\n{"a":3}'))
    assert [one for lines in read_lines(stream) for one in lines] == [
        (1, b'{"a":1}\r'),
        (4, b'{"a":2}'),
        (5, b'{"a":3}'),
    ]


def test_a_line_longer_than_a_read_is_put_together():
    long = b'{"a":"' + b"x" * 3_000_000 + b'"}'
    stream = io.BufferedReader(io.BytesIO(b"{}\n" + long + b"\n{}\n"))
    assert [one for lines in read_lines(stream) for one in lines] == [(1, b"{}"), (2, long), (3, b"{}")]


def test_of_a_line_longer_than_any_event_the_beginning_is_told_and_the_next_ones_are_read():
    class Trickle(io.BytesIO):
        def read1(self, _=-1):
            return super().read(1000)

    body = b'{"a":1}\n{"a":"' + b"x" * (20 << 20) + b'"}\n{"a":2}\n' + b"y" * (17 << 20)
    for stream in (io.BufferedReader(io.BytesIO(body)), Trickle(body)):
        found = [parse_line(*one, None, lambda: MOMENT) for lines in read_lines(stream) for one in lines]
        assert [type(one) for one in found] == [NewEvent, BadLine, NewEvent, BadLine]
        assert [one.number for one in found if isinstance(one, BadLine)] == [2, 4]
        assert found[1].reason.startswith('a line may have 16,777,216 bytes, and this one is longer: got {"a":"xx')


@pytest.mark.parametrize("depth", [300, 1000])
def test_what_is_nested_deep_is_a_bad_line_like_another(depth):
    deep = b"[" * depth + b"]" * depth
    assert parse_line(1, deep, None).reason.endswith("allowed is a JSON object")
    told = parse_line(1, b'{"at":' + deep + b"}", "at").reason
    assert told.startswith("field 'at': got a list or an object, nested too deep to be shown, allowed is ISO 8601")


def test_a_pipes_lines_are_read_before_it_ends():
    reading, writing = os.pipe()
    with os.fdopen(reading, "rb") as stream, os.fdopen(writing, "wb", buffering=0) as feed:
        lines = read_lines(stream)
        feed.write(b'{"a":1}\n{"a":')
        assert next(lines) == [(1, b'{"a":1}')]
        feed.write(b"2}\n")
        assert next(lines) == [(2, b'{"a":2}')]


def test_an_object_is_an_event_of_now():
    assert parse_line(1, b'{"a":1}', None, lambda: MOMENT) == NewEvent({"a": 1}, MOMENT)


def test_a_byte_order_mark_is_taken_off_the_first_line():
    assert parse_line(1, b'\xef\xbb\xbf{"a":1}', None, lambda: MOMENT) == NewEvent({"a": 1}, MOMENT)


@pytest.mark.parametrize("text", ["2026-01-31T12:00:00Z", "2026-01-31T13:00:00.000+01:00", "2026-01-31 12:00:00+00:00"])
def test_the_event_time_is_taken_from_its_field(text):
    found = parse_line(1, b'{"at":"%s"}' % text.encode(), "at")
    assert isinstance(found, NewEvent)
    assert found.event_time == MOMENT


@pytest.mark.parametrize(
    ("line", "field", "reason"),
    [
        (b"[1]", None, "got [1], allowed is a JSON object"),
        (b'"text"', None, 'got "text", allowed is a JSON object'),
        (b'{"a":1}', "at", "no field 'at' for the event time; it has: a"),
        (
            b'{"at":"2026-01-31T12:00:00"}',
            "at",
            "field 'at': got \"2026-01-31T12:00:00\", allowed is ISO 8601 with a time zone, as 2026-01-31T12:00:00Z",
        ),
        (b'{"at":17}', "at", "field 'at': got 17, allowed is ISO 8601 with a time zone, as 2026-01-31T12:00:00Z"),
    ],
)
def test_a_line_that_is_no_event_says_why(line, field, reason):
    assert parse_line(3, line, field) == BadLine(3, reason)


def test_a_line_that_is_not_json_says_what_was_there():
    found = parse_line(3, b'{"a": ' + b"x" * 100, None)
    assert isinstance(found, BadLine)
    assert found.reason.startswith("not JSON (unexpected character")
    assert found.reason.endswith('got {"a": ' + "x" * 54 + "… (106 characters)")
