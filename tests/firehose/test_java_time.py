"""Java's DateTimeFormatter patterns; expectations were taken from its documentation."""

from __future__ import annotations

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from firehose.java_time import PatternError, parse_pattern

MOMENT = datetime(2025, 12, 31, 13, 5, 6, 123456, tzinfo=UTC)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("yyyy/MM/dd/HH", "2025/12/31/13"),
        ("yy y u yyyyy", "25 2025 2025 02025"),
        ("M MM MMM MMMM MMMMM", "12 12 Dec December D"),
        ("D DDD d dd", "365 365 31 31"),
        ("E EEEE EEEEE", "Wed Wednesday W"),
        ("e ee c", "4 04 4"),
        ("Q QQ QQQ QQQQ", "4 04 Q4 4th quarter"),
        ("YYYY w W F", "2026 1 5 5"),
        ("h K k H a", "1 1 13 13 PM"),
        ("s S SSS SSSSSSSSS", "6 1 123 123456000"),
        ("A n N", "47106123 123456000 47106123456000"),
        ("X XXX x xxx Z ZZZZZ O VV G", "Z Z +00 +00:00 +0000 Z GMT UTC AD"),
        ("'year='yyyy''", "year=2025'"),
        ("yyyy-MM-dd'T'HH[:mm]", "2025-12-31T13:05"),
    ],
)
def test_a_moment_is_rendered_as_java_does(pattern, text):
    assert parse_pattern(pattern).format(MOMENT) == text


def test_midnight_has_a_number_in_every_clock():
    assert parse_pattern("H k h K a").format(datetime(2025, 1, 1, tzinfo=UTC)) == "0 24 12 0 AM"


def test_an_offset_is_rendered_in_each_width():
    moment = datetime(2025, 1, 1, tzinfo=ZoneInfo("America/St_Johns"))
    made = parse_pattern("X XX XXX x Z ZZZZ O VV").format(moment)
    assert made == "-0330 -0330 -03:30 -0330 -0330 GMT-03:30 GMT-3:30 America/St_Johns"


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("yyyy-bb", "unknown letter 'b'"),
        ("ddd", "repeated 3 times"),
        ("'open", "not closed"),
        ("{", "reserved"),
        ("", "empty"),
    ],
)
def test_a_pattern_that_java_refuses_is_refused(pattern, said):
    with pytest.raises(PatternError, match=said):
        parse_pattern(pattern)
