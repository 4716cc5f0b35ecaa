from collections import Counter
from datetime import UTC, datetime
from itertools import islice

import orjson
import pytest

from demo.flights import Departure, Expected, Kind, departures, encode, expected, flights
from lake.envelope import Event, salvage

FEW = 3000


def event(departure: Departure, sequence=0):
    return Event(
        departure.event_id, "jfk", "flights", departure.event_time, "site-jfk", sequence, "1.0.0", departure.payload
    )


def test_all_flights_are_there_in_departure_order():
    found = flights()
    assert len(found) == 336_776
    assert found["event_time"].is_monotonic_increasing


def test_a_site_sends_what_is_expected_of_it():
    kinds = Counter(one.kind for one in departures("jfk", FEW))
    fate = expected("jfk", FEW)
    assert fate == Expected(
        sent=kinds.total(), ingested=kinds[Kind.GOOD], duplicates=20, refused=40, quarantined=40, dead_lettered=20
    )
    assert kinds[Kind.GOOD] == int((flights(FEW)["origin"] == "JFK").sum())


def test_a_site_that_starts_over_sends_the_same():
    assert list(departures("lga", FEW)) == list(departures("lga", FEW))


def test_event_ids_are_uuids_of_version_7_that_start_with_the_events_time_and_repeat_only_for_duplicates():
    sent = list(departures("ewr", FEW))
    assert all(one.event_id[14] == "7" and one.event_id[19] in "89ab" for one in sent)
    first = sent[0]
    assert int(first.event_id.replace("-", "")[:12], 16) == int(first.event_time.timestamp() * 1000)
    ids = Counter(one.event_id for one in sent)
    twins = [one for one in sent if one.kind is Kind.DUPLICATE]
    assert all(ids[one.event_id] >= 2 for one in twins)
    assert len(ids) == len(sent) - len(twins)


def test_a_duplicate_is_its_earlier_event_to_the_letter():
    seen = {}
    for one in departures("ewr", FEW):
        if one.kind is Kind.DUPLICATE:
            assert (one.event_time, one.payload) == seen[one.event_id]
        seen[one.event_id] = (one.event_time, one.payload)


def spoiled(kind):
    return [one for one in departures("jfk", FEW) if one.kind is kind]


def test_a_broken_event_is_no_json_but_its_producer_can_be_read():
    for one in spoiled(Kind.BROKEN_JSON):
        raw = encode(event(one, 7))
        with pytest.raises(orjson.JSONDecodeError):
            orjson.loads(raw)
        assert (salvage(raw).producer_id, salvage(raw).sequence) == ("site-jfk", 7)


def test_a_missing_key_is_the_tenant_or_the_event_time():
    lacking = Counter(
        key
        for one in spoiled(Kind.MISSING_KEY)
        for key in ("tenant", "event_time")
        if key not in orjson.loads(encode(event(one)))
    )
    assert lacking == {"tenant": 10, "event_time": 10}


def test_an_oversize_event_is_over_what_firehose_takes():
    assert all(len(encode(event(one))) > 1_024_000 for one in spoiled(Kind.OVERSIZE))


def test_a_cancelled_flight_has_nulls_and_no_nan():
    cancelled = next(one for one in departures("ewr", FEW) if one.payload["dep_time"] is None)
    assert cancelled.payload["dep_delay"] is None
    assert b"NaN" not in encode(event(cancelled))


def test_times_of_the_day_are_whole_numbers():
    one = next(islice(departures("jfk", FEW), 1))
    assert one.event_time == datetime(2013, 1, 1, 10, 40, tzinfo=UTC)
    assert (one.payload["dep_time"], type(one.payload["dep_time"])) == (542, int)
