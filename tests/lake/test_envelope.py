from datetime import UTC, datetime, timedelta, timezone

import pytest

from lake.envelope import Event, Identity, new_event_id, salvage, timestamp_text

EVENT = Event(
    event_id="018f0000-0000-7000-8000-000000000000",
    tenant="jfk",
    dataset="flights",
    event_time=datetime(2013, 1, 1, 5, 15, tzinfo=timezone(timedelta(hours=-5))),
    producer_id="site-jfk",
    sequence=41,
    schema_version="1.0.0",
    payload={"carrier": "UA", "tenant": "not the envelope's"},
)


def test_an_event_is_one_line_with_its_identity_first_and_its_time_in_utc():
    assert EVENT.encode() == (
        b'{"event_id":"018f0000-0000-7000-8000-000000000000","tenant":"jfk","dataset":"flights",'
        b'"event_time":"2013-01-01T10:15:00.000Z","producer_id":"site-jfk","sequence":41,"schema_version":"1.0.0",'
        b'"payload":{"carrier":"UA","tenant":"not the envelope\'s"}}'
    )


def test_a_moment_without_a_zone_is_refused():
    with pytest.raises(ValueError, match="without a time zone: 2013-01-01T00:00:00"):
        timestamp_text(datetime(2013, 1, 1))  # noqa: DTZ001


def test_an_event_id_of_a_given_moment_starts_with_it():
    assert new_event_id(datetime(2013, 1, 1, tzinfo=UTC)).startswith("013bf368-5800-7")


def test_event_ids_made_one_after_the_other_are_in_order():
    made = [new_event_id() for _ in range(1000)]
    assert made == sorted(made)


def test_the_identity_of_an_event_cut_short_is_salvaged():
    assert salvage(EVENT.encode()[:-20]) == Identity(EVENT.event_id, "jfk", "site-jfk", 41)


def test_a_sequence_cut_in_the_middle_is_not_taken_for_a_shorter_one():
    raw = EVENT.encode()
    cut = raw[: raw.index(b'"sequence":4') + len(b'"sequence":4')]
    assert salvage(cut).sequence is None


def test_fields_of_the_payload_are_never_taken_for_the_envelopes():
    assert salvage(b'{"payload":{"tenant":"evil","sequence":7}}') == Identity()


def test_bytes_that_are_no_text_have_no_identity():
    assert salvage(b"\xff\x00\xfe") == Identity()
