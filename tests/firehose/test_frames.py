"""Frames of the log: what is written is what is read."""

from __future__ import annotations

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from firehose.payloads import Made, decode_made, decode_put, encode_made, encode_put, read_made_head
from firehose.processing import Reason
from firehose.records import Failed, Record

MILLIS = st.integers(0, 2**53)
TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
RECORDS = st.builds(
    Record,
    st.binary(max_size=40),
    MILLIS,
    st.lists(st.tuples(TEXT, TEXT), max_size=2, unique_by=lambda pair: pair[0]).map(tuple),
)
REASONS = st.builds(Reason, TEXT, TEXT, TEXT, st.integers(1, 5), st.none() | TEXT)
FAILED = st.builds(Failed, st.binary(max_size=40), MILLIS, MILLIS, REASONS)


@given(
    st.builds(
        Made,
        st.uuids(),
        st.integers(0, 2**63),
        st.lists(st.integers(0, 2**63), max_size=5),
        st.booleans(),
        records=st.lists(RECORDS, max_size=5),
        failed=st.lists(FAILED, max_size=5),
    )
)
def test_what_was_made_is_read_as_it_was_written(made):
    payload = memoryview(encode_made(made))
    stream, first, count, sources, stay = read_made_head(payload)
    assert (stream, first, count, list(sources), stay) == (
        *(made.stream, made.first, len(made.all), made.sources, made.sources_stay),
    )
    found = decode_made(payload)
    assert (found.records, found.failed, list(found.sources)) == (made.records, made.failed, made.sources)


@given(st.uuids(), st.integers(0, 2**63), MILLIS, st.lists(st.binary(max_size=40), max_size=5))
def test_a_put_is_read_as_it_was_written(stream, first, arrival, data):
    found = decode_put(memoryview(encode_put(stream, first, arrival, data)))
    assert (found.stream, found.first, found.arrival_ms, found.data) == (stream, first, arrival, data)


def test_nothing_made_is_written_too():
    made = Made(UUID(int=1), 7, [3], sources_stay=False, records=[], failed=[])
    assert read_made_head(memoryview(encode_made(made)))[2] == 0
