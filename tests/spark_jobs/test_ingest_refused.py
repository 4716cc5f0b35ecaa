"""What ingest refuses, on a real Spark, S3, Glue and DynamoDB: kept in quarantine with its reason, and counted."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from lake.contract import Contract, Field, Primitive
from lake.errors import TerminalError
from lake.manifest import Counts, ProducerLedger
from lake.ranges import Ranges
from tests.spark_jobs.conftest import Stop, stop_after

AT_NOON = datetime(2013, 2, 1, 12, tzinfo=UTC)
DATA = "visits/events/solo/solo"


def world_contract():
    return Contract("visits", "1.2.0", (Field("page", Primitive("string")), Field("seconds", Primitive("int"))), (), ())


def ids(world, owner="solo"):
    return [row["event_id"][-4:] for row in world.rows(owner)]


def test_a_bad_record_is_quarantined_with_its_reason_place_and_bytes(world):
    bad = b'{"event_id":"e-9","tenant":"solo","producer_id":"solo-phone","sequence":9,"payload":{"page'
    uri = world.deliver("a", [world.event(1), b"", bad])
    report = world.ingest(clock=lambda: AT_NOON)
    (row,) = world.rows("solo", "quarantine")
    assert row == {
        "quarantined_at": AT_NOON,
        "dataset": "visits",
        "tenant": "solo",
        "stage": "ingest",
        "reason": "malformed_json",
        "message": "the record is no JSON: unexpected end of data: line 1 column 91 (char 90)",
        "payload": bad,
        "object": uri,
        "position": 2,
        "event_id": "e-9",
        "producer_id": "solo-phone",
        "sequence": 9,
        "arrival_time": None,
        "_batch": f"{DATA}/1",
    }
    assert report.totals == {"solo": Counts(records=2, ingested=1, quarantined=1)}
    assert report.batches[0].figures.without_days().seen == {("solo", "solo-phone", "-"): Ranges(((1, 1), (9, 9)))}


def test_each_reason_reaches_the_quarantine_and_the_counts(world):
    records = [
        b"{",
        world.event(1, payload={"seconds": 1}),
        world.event(2, payload={"page": 2}),
        world.event(3, tenant="ann"),
        world.event(4, dataset="sales"),
        world.event(5, schema_version="2.0.0"),
    ]
    world.deliver("a", records)
    report = world.ingest()
    assert [(row["position"], row["tenant"], row["reason"]) for row in world.rows("solo", "quarantine")] == [
        (0, "solo", "malformed_json"),
        (1, "solo", "missing_field"),
        (2, "solo", "wrong_type"),
        (3, "ann", "tenant_mismatch"),
        (4, "solo", "unknown_dataset"),
        (5, "solo", "unknown_schema_version"),
    ]
    assert report.totals == {
        "ann": Counts(records=1, quarantined=1),
        "solo": Counts(records=5, quarantined=5, unidentified=1),
    }


def test_an_object_that_cannot_be_read_is_one_quarantined_record_and_stops_nothing(world):
    world.deliver("a", [world.event(1)])
    bucket, key = world.bucket("solo"), "processed/visits/tenant=solo/b.gz"
    world.cloud.s3.put_object(Bucket=bucket, Key=key, Body=b"no gzip")
    report = world.ingest()
    (row,) = world.rows("solo", "quarantine")
    assert (row["reason"], row["object"], row["position"], row["payload"]) == (
        "unreadable_object",
        f"s3://{bucket}/{key}",
        None,
        None,
    )
    assert report.totals == {"solo": Counts(records=2, ingested=1, quarantined=1, unidentified=1)}


def test_an_object_that_vanished_after_it_was_planned_does_not_stop_the_series_for_good(world):
    world.deliver("a", [world.event(1)])
    gone = world.deliver("b", [world.event(2)])
    with pytest.raises(Stop):
        world.ingest(after=stop_after("plan"))
    world.cloud.s3.delete_object(Bucket=world.bucket("solo"), Key=gone.partition(f"{world.bucket('solo')}/")[2])
    world.ingest()
    assert ids(world) == ["0001"]
    assert [(row["reason"], row["object"]) for row in world.rows("solo", "quarantine")] == [("unreadable_object", gone)]


def test_an_object_that_may_not_be_read_is_named_in_one_sentence_and_stops_no_other_series(shared):
    shared.deliver("a", [shared.event(1, "ann")], "ann")
    shared.deliver("b", [shared.event(1)])
    shared.plan_nobodys()
    with pytest.raises(TerminalError) as caught:
        shared.ingest()
    assert str(caught.value).startswith(
        "ingest of visits, events, tenant solo: object s3://nobodys-bucket/a.gz: it can't be read: An error occurred"
    )
    assert "\n" not in str(caught.value)
    assert ids(shared, "ann") == ["0001"]


def test_what_was_delivered_astray_is_quarantined_under_the_tenant_it_claims(shared):
    uri = shared.deliver("a", [shared.event(1, "eve")], "ann", under="eve#'1")
    shared.put(shared.bucket("ann"), "processed/visits/loose", [shared.event(2, "ann")])
    report = shared.ingest()
    astray = shared.rows("pooled", "quarantine")
    assert [(row["tenant"], row["reason"], row["message"]) for row in astray] == [
        (None, "unknown_tenant", "it was delivered under no tenant, and the stream carries: ann, bob"),
        ("eve#'1", "unknown_tenant", "it was delivered under tenant=eve#'1, and the stream carries: ann, bob"),
    ]
    assert (astray[1]["object"], astray[1]["sequence"]) == (uri, 1)
    assert report.totals == {
        "-": Counts(records=1, quarantined=1, unidentified=1),
        "eve#'1": Counts(records=1, quarantined=1),
    }
    assert shared.ingest().batches == ()


def test_a_declared_tenant_in_another_streams_bucket_is_astray(shared):
    shared.deliver("a", [shared.event(1)], "solo", bucket=shared.bucket("ann"))
    assert shared.ingest().totals == {"solo": Counts(records=1, quarantined=1)}
    assert shared.rows("solo") == []


def test_what_firehose_refused_is_kept_with_its_reason_and_counted_by_tenant(shared):
    whole = json.dumps(shared.event(5, "ann")).encode()
    uri = shared.refuse("a", [whole[:-9], b"noise"], "ann")
    report = shared.ingest()
    first, second = shared.rows("pooled", "quarantine")
    assert {name: first[name] for name in first if name != "quarantined_at"} == {
        "dataset": "visits",
        "tenant": "ann",
        "stage": "firehose",
        "reason": "DynamicPartitioning.MetadataExtractionFailed",
        "message": "partition keys can't be read",
        "payload": whole[:-9],
        "object": uri,
        "position": 0,
        "event_id": "018f0000-0000-7000-8000-000000000005",
        "producer_id": "ann-phone",
        "sequence": 5,
        "arrival_time": datetime(2013, 1, 1, 10, tzinfo=UTC),
        "_batch": "visits/refused/pooled/-/1",
    }
    assert (second["tenant"], second["payload"]) == (None, b"noise")
    assert report.totals == {
        "-": Counts(records=1, refused=1, unidentified=1),
        "ann": Counts(records=1, refused=1),
    }


def test_a_refused_record_without_a_tenant_is_its_producers(shared):
    shared.manifest().report(ProducerLedger("bob", "visits", "van-7", 9, 9, 0, 0))
    raws = [
        b'{"event_id":"e","producer_id":"van-7","sequence":3,"payload":{}}',
        b'{"producer_id":"van-8","sequence":3}',
    ]
    shared.refuse("a", raws, "bob")
    report = shared.ingest()
    assert report.totals == {"-": Counts(records=1, refused=1, unidentified=1), "bob": Counts(records=1, refused=1)}
    assert [one.seen for _, one in shared.manifest().batches("pooled", "visits")] == [
        {("bob", "van-7", "-"): Ranges(((3, 3),))}
    ]


def test_a_line_that_is_no_error_record_is_kept_too(world):
    world.refuse("a", ["oops", '{"errorCode": "E", "rawData": "*"}'])
    world.ingest()
    assert [(row["reason"], row["payload"]) for row in world.rows("solo", "quarantine")] == [
        ("malformed_error_record", b"oops"),
        ("malformed_error_record", b'{"errorCode": "E", "rawData": "*"}'),
    ]


def test_an_event_of_a_clock_far_ahead_is_quarantined_with_the_limit(worlds):
    world = worlds(replace(world_contract(), skew_minutes=60))
    noon = datetime(2013, 1, 1, 12, tzinfo=UTC)
    ahead = {minutes: (noon + timedelta(minutes=minutes)).isoformat() for minutes in (59, 61)}
    world.deliver("a", [world.event(number, event_time=time) for number, time in enumerate(ahead.values(), 1)])
    world.ingest(clock=lambda: noon)
    assert [row["sequence"] for row in world.rows("solo")] == [1]
    (refused,) = world.rows("solo", "quarantine")
    assert (refused["reason"], refused["sequence"]) == ("clock_skew", 2)
    assert refused["message"] == (
        "event_time: got 2013-01-01T13:01:00+00:00, allowed is at most 60 minutes from 2013-01-01T12:00:00Z, "
        "when it was ingested"
    )
