"""Timestamps read by Joda-Time's patterns."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firehose.java_time import PatternError
from firehose.joda_time import parse_joda

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read(pattern, text):
    micros = parse_joda(pattern).read(text)
    return None if micros is None else (EPOCH + timedelta(microseconds=micros)).isoformat()[:-6]


@pytest.mark.parametrize(
    ("pattern", "text", "moment"),
    [
        ("dd/MMM/yyyy:HH:mm:ss Z", "07/Feb/2017:15:13:01 +0130", "2017-02-07T13:43:01"),
        ("yyyyMMddHHmmss", "20170207151301", "2017-02-07T15:13:01"),
        ("yyyy-MM-dd'T'HH:mm:ss.SSSZZ", "2017-02-07T15:13:01.39-05:00", "2017-02-07T20:13:01.390000"),
        ("yyyy-MM-dd'T'HH:mm:ssZ", "2017-02-07T15:13:01Z", "2017-02-07T15:13:01"),
        ("yyyy-MM-dd HH:mm:ss ZZZ", "2017-07-07 10:00:00 Europe/Berlin", "2017-07-07T08:00:00"),
        ("EEE MMM dd HH:mm:ss z yyyy", "tue FEB 07 15:13:01 PST 2017", "2017-02-07T23:13:01"),
        ("MMMM d, yyyy h:mm a", "February 7, 2017 12:13 AM", "2017-02-07T00:13:00"),
        ("MM/dd/yyyy hh:mm:ss a", "02/07/2017 12:13:01 PM", "2017-02-07T12:13:01"),
        ("K a", "11 pm", "1970-01-01T23:00:00"),
        ("kk", "24", "1970-01-01T00:00:00"),
        ("yyyy-MM-dd", "2017-2-7", "2017-02-07T00:00:00"),
        ("yy-MM-dd", "45-02-07", "2045-02-07T00:00:00"),
        ("yy-MM-dd", "46-02-07", "1946-02-07T00:00:00"),
        ("yyyy-DDD", "2016-366", "2016-12-31T00:00:00"),
        ("HH''mm", "15'13", "1970-01-01T15:13:00"),
        ("ss.SSSSSS", "01.123456", "1970-01-01T00:00:01.123000"),
        ("millis", "1518033528123", "2018-02-07T19:58:48.123000"),
        ("millis", "-1.9", "1969-12-31T23:59:59.999000"),
    ],
)
def test_a_text_that_fits_is_a_moment(pattern, text, moment):
    assert read(pattern, text) == moment


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("yyyy-MM-dd", "2017-02-30"),
        ("yyyy-MM-dd", "2017-02-07 "),
        ("yyyy-MM-dd", "2017-13-01"),
        ("yyyy-DDD", "2017-366"),
        ("HH", "24"),
        ("hh a", "13 am"),
        ("HH:mm", "10:60"),
        ("yyyy ZZZ", "2017 Mars/Olympus"),
        ("yyyyMMdd", "201727"),
        ("millis", "1e3"),
        ("yyyy G", "0044 BC"),
    ],
)
def test_a_text_that_does_not_fit_is_none(pattern, text):
    assert read(pattern, text) is None


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("foo", "letter 'f': allowed are: D E G H K M S Y Z a d h k m s y z"),
        ("yyyy'", "a quote is opened and not closed"),
        ("''", "it has no field"),
        ("yyyy yyyy", "'y' is there twice"),
    ],
)
def test_a_pattern_that_is_none_is_refused(pattern, said):
    with pytest.raises(PatternError, match="timestamp format") as caught:
        parse_joda(pattern)
    assert said in str(caught.value)


@given(st.datetimes(min_value=datetime(1000, 1, 1), max_value=datetime(9999, 12, 31)))  # noqa: DTZ001 - without a zone
def test_a_moment_written_by_a_pattern_is_read_again(moment):
    moment = moment.replace(microsecond=moment.microsecond // 1000 * 1000)
    text = moment.strftime("%A %d %B %Y %H:%M:%S.") + f"{moment.microsecond // 1000:03d}"
    assert read("EEEE dd MMMM yyyy HH:mm:ss.SSS", text) == moment.isoformat()
