"""The books drawn up anew, from real objects and tables: the sheet is the same, line by line."""

import gzip
import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest

from lake.audit import balance, gather
from lake.contract import Contract, Field, PartitionField, Primitive
from lake.declaration import Jobs, Upkeep
from lake.drops import Drop
from lake.envelope import new_event_id
from lake.erasure import parse_subject
from lake.errors import FindingError
from lake.manifest import ProducerLedger
from lake.ranges import Ranges
from spark_jobs import backfill, compact, erase, files, maintain, rebuild, replay
from spark_jobs.dedup import first_id
from tests.spark_jobs.conftest import Stop, stop_after

DAY_MS = 86_400_000
JANUARY = 1_704_067_200_000  # 2024-01-01
PEOPLE = Contract(
    dataset="visits",
    version="1.2.0",
    fields=(
        Field("page", Primitive("string"), required=True),
        Field("user_id", Primitive("string"), pii=True),
    ),
    partition=(PartitionField("day", "event_time"),),
    sort=("event_time",),
    dedup_days=3650,
)
KINDS = ("batch#", "more#", "object#", "sum#", "month#", "piece#", "erasure#", "erased#")


@pytest.fixture
def world(worlds):
    return worlds(PEOPLE, replace(Jobs(), ingest_objects=2))


@pytest.fixture
def shared(worlds):
    return worlds(PEOPLE, replace(Jobs(), ingest_objects=2), pool=True)


def made(day, number):
    """Id of an event that was made on a day of January 2024."""
    return f"{first_id(JANUARY + (day - 1) * DAY_MS + number)}-7000-8000-{number:012d}"


def visit(world, number, tenant="solo", *, day=1, user="u", **changes):
    changes.setdefault("event_id", made(day, number))
    changes.setdefault("payload", {"page": "/", "user_id": user})
    return world.event(number, tenant, day=day, **changes)


def report(world, sent, tenant="solo", **days):
    told = {f"2024-01-{day[1:]}": Ranges.parse(text) for day, text in days.items()}
    world.manifest().report(ProducerLedger(tenant, "visits", f"{tenant}-phone", sent, sent, 0, 0, days=told))


def sheet(world, **options):
    return balance(gather(world.lake, world.cloud, "visits", by_day=True, **options))


def items(world):
    pages = world.cloud.dynamodb.get_paginator("scan").paginate(TableName=world.lake.names.manifest_table())
    return [item for page in pages for item in page["Items"]]


def lose(world, kinds=KINDS):
    """Delete what the manifest knows of batches, as far as it can be told again; answers how many items."""
    table = world.lake.names.manifest_table()
    gone = [item for item in items(world) if item["sk"]["S"].startswith(kinds)]
    for item in gone:
        world.cloud.dynamodb.delete_item(TableName=table, Key={"pk": item["pk"], "sk": item["sk"]})
    return len(gone)


def receipts(world):
    """All that the manifest tells of batches and objects, but not how the books are folded."""
    kinds = ("batch#", "more#", "object#", "erasure#", "erased#")
    return {(one["pk"]["S"], one["sk"]["S"]): one for one in items(world) if one["sk"]["S"].startswith(kinds)}


def without_snapshots(told):
    """The same without which snapshots held what: an erasure has expired some; and without what it found nowhere."""
    return {
        key: {name: value for name, value in item.items() if name not in {"snapshot_id", "committed_at_ms"}}
        for key, item in told.items()
        if item.get("rows") != {"N": "0"}
    }


def draw_up(world, **options):
    said = []
    done = rebuild.run(world.spark, world.lake, world.cloud, say=said.append, **options)
    return done, said


def assert_same_again(world, *, expired=False):
    """Lose the books and draw them up: the sheet, every receipt, and what comes next are as before."""
    before, known = sheet(world), receipts(world)
    assert lose(world)
    done, _ = draw_up(world)
    assert done.kept == []
    assert sheet(world) == before
    if expired:
        assert without_snapshots(receipts(world)) == without_snapshots(known)
    else:
        assert receipts(world) == known
    assert world.ingest(listed=True).batches == ()
    assert sheet(world) == before
    return before


def test_duplicates_bad_records_and_several_batches_and_days_come_out_the_same(world):
    world.deliver("a", [visit(world, 0), visit(world, 1, day=2), visit(world, 1, day=2), b"{bad", b"", visit(world, 2)])
    world.deliver("b", [visit(world, 3, day=3), visit(world, 0), visit(world, 4, day=2, payload={})])
    world.deliver("c", [visit(world, 5, day=3), visit(world, 1, day=2), visit(world, 6, event_id="no-uuid")])
    world.cloud.s3.put_object(
        Bucket=world.bucket("solo"),
        Key="processed/visits/tenant=solo/year=2013/month=01/day=01/d.gz",
        Body=gzip.compress(json.dumps(visit(world, 7)).encode())[:-9],
    )
    report(world, 8, d01="0,2,6-7", d02="1,4", d03="3,5")
    world.ingest()
    before = assert_same_again(world)
    assert {row.day: (row.sent, row.ingested, row.duplicates, row.quarantined) for row in before.days} == {
        "2024-01-01": (3, 2, 1, 0),
        "2024-01-02": (2, 1, 2, 1),
        "2024-01-03": (2, 2, 0, 0),
        "-": (1, 1, 0, 2),
    }
    # the object that is no whole gzip held number 7: missing, as nobody can read it
    assert [(one.producer_id, str(one.sequences), one.day) for one in before.gaps] == [
        ("solo-phone", "7", "2024-01-01")
    ]


def test_what_was_refused_and_what_was_delivered_astray_come_out_the_same(shared):
    shared.deliver("a", [visit(shared, 0, "ann"), visit(shared, 1, "ann", day=2)], "ann")
    shared.deliver("b", [visit(shared, 0, "bob"), visit(shared, 1, "ann")], "bob")
    shared.deliver("c", [visit(shared, 0, "zoe", day=4), b"noise"], "ann", under="zoe")
    shared.deliver("d", [visit(shared, 1)], "solo")
    landing = shared.bucket("ann")
    shared.put(landing, "processed/visits/nobody.gz", [visit(shared, 2, "zoe")])
    cut = json.dumps(visit(shared, 2, "ann", day=5)).encode()[:-9]
    nameless = visit(shared, 3, "ann", day=5)
    del nameless["tenant"]
    report(shared, 4, "ann")
    shared.refuse("e.gz", [cut, json.dumps(nameless).encode(), b"noise", "no record"], "ann")
    shared.ingest()
    assert_same_again(shared)


@pytest.mark.parametrize("step", ["plan", "quarantine", "data", "receipt"])
def test_a_batch_that_was_killed_in_between_is_left_to_ingest(world, step):
    world.deliver("a", [visit(world, 0), b"{bad"])
    world.ingest()
    world.deliver("b", [visit(world, 1, day=2), visit(world, 0), b"{bad"])
    with pytest.raises(Stop):
        world.ingest(after=stop_after(step))
    before = sheet(world)
    assert before.balanced
    lose(world)
    draw_up(world)
    after = sheet(world)
    if step in {"plan", "quarantine"}:  # not committed: its objects are still told of as new
        assert after == before
    world.ingest()
    assert sheet(world).balanced
    assert [row["_batch"] for row in world.rows("solo")] == [1, 2]
    assert (len(world.rows("solo", "quarantine")), sheet(world).total.quarantined) == (2, 2)


@pytest.mark.parametrize("step", ["receipts", "books"])
def test_drawing_up_that_is_killed_is_begun_again(world, step):
    world.deliver("a", [visit(world, 0), b"{bad"])
    world.refuse("e.gz", [b"noise"])
    world.ingest()
    before, known = sheet(world), receipts(world)
    lose(world)
    with pytest.raises(Stop):
        draw_up(world, after=stop_after(step))
    draw_up(world)
    assert (sheet(world), receipts(world)) == (before, known)
    draw_up(world)
    assert (sheet(world), receipts(world)) == (before, known)


def test_after_maintenance_expired_the_history_it_comes_out_the_same(world):
    for name, number in (("a", 0), ("b", 1), ("c", 2)):
        world.deliver(name, [visit(world, number, day=1 + number), visit(world, 0)])
        world.ingest()
    before = sheet(world)
    assert before.balanced
    compact.run(world.spark, world.lake, world.cloud)
    world.lake = replace(
        world.lake, jobs=replace(world.lake.jobs, upkeep=Upkeep(snapshot_hours=1, snapshots_least=1, snapshots_most=1))
    )
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    maintain.run(world.spark, world.lake, world.cloud, clock=lambda: tomorrow)
    assert len(world.table("solo").metadata.snapshots) < 3
    lose(world)
    done, _ = draw_up(world)
    assert (done.kept, sheet(world)) == ([], before)
    assert world.ingest(listed=True).batches == ()
    assert sheet(world) == before


def test_an_erasure_leaves_the_sheet_as_it_was_and_so_does_drawing_it_up(world):
    bad = visit(world, 3, day=2, user="eve", event_time="never")
    world.deliver("a", [visit(world, 0), visit(world, 1, user="eve"), visit(world, 1, user="eve"), bad])
    world.deliver("b", [visit(world, 2, day=3), visit(world, 4, day=3, user="eve")])
    world.deliver("c", [visit(world, 4, day=3, user="eve"), visit(world, 5, user="eve", event_id="odd")])
    world.refuse("e.gz", [json.dumps(visit(world, 6, day=4, user="eve")).encode()[:-2], b"noise"])
    report(world, 7)
    world.ingest()
    before = sheet(world)
    who = parse_subject(world.lake, "solo", ["user_id=eve"])
    erase.run(world.spark, world.lake, world.cloud, who, "e1")
    erased = sheet(world)
    assert (erased.rows, erased.days, erased.gaps) == (before.rows, before.days, before.gaps)
    assert before.balanced
    assert erased.balanced
    # afterwards: an event that was erased comes again, and is the duplicate that it is
    world.deliver("d", [visit(world, 4, day=3, user="eve"), visit(world, 7, day=5)])
    world.ingest()
    assert_same_again(world, expired=True)
    assert [row["sequence"] for row in world.rows("solo")] == [0, 2, 7]


def test_an_erasure_counts_what_no_batch_had_taken_yet_and_so_does_drawing_it_up(world):
    world.deliver("a", [visit(world, 0), visit(world, 1, user="eve")])
    world.ingest()
    world.deliver("b", [visit(world, 1, user="eve"), visit(world, 2, day=2, user="eve"), visit(world, 3, day=3)])
    report(world, 4)
    world.withhold_messages("solo")
    who = parse_subject(world.lake, "solo", ["user_id=eve"])
    erase.run(world.spark, world.lake, world.cloud, who, "e1")
    before = assert_same_again(world, expired=True)
    assert before.balanced
    assert (before.total.ingested, before.total.duplicates) == (4, 1)


def test_one_tenants_erasure_in_what_pooled_tenants_share_is_told_too(shared):
    shared.deliver("a", [visit(shared, 0, "ann"), visit(shared, 1, "ann", day=2, user="eve")], "ann")
    shared.deliver("b", [visit(shared, 0, "bob", user="eve")], "bob")
    shared.refuse("e.gz", [json.dumps(visit(shared, 2, "ann", user="eve")).encode()[:-2], b"noise"], "ann")
    report(shared, 3, "ann")
    report(shared, 1, "bob")
    shared.ingest()
    who = parse_subject(shared.lake, "ann", ["user_id=eve"])
    erase.run(shared.spark, shared.lake, shared.cloud, who, "e1")
    assert sheet(shared).balanced
    assert_same_again(shared, expired=True)


def test_rows_of_files_that_were_refused_and_erased_are_told_by_whose_they_were(shared):
    lake = shared.lake
    drops = [Drop(name, name, "visits", lake.names.bucket(name), "raw/people/") for name in ("ann", "bob")]
    shared.lake = replace(lake, drops=tuple(drops))
    for drop in drops:
        key = "raw/people/year=2024/month=01/day=02/a.csv"
        body = b"page,user_id\n/,eve\n/,u\n/,eve,x\n/,u,x\n"
        shared.cloud.s3.put_object(Bucket=drop.bucket, Key=key, Body=body)
    files.run(lambda: shared.spark, shared.lake, shared.cloud)
    shared.ingest()
    before = sheet(shared)
    who = parse_subject(shared.lake, "ann", ["user_id=eve"])
    erase.run(shared.spark, shared.lake, shared.cloud, who, "e1")
    erased = assert_same_again(shared, expired=True)
    assert (erased.rows, erased.days, erased.balanced) == (before.rows, before.days, True)
    assert len(shared.rows("pooled", "quarantine") + shared.rows("ann", "quarantine")) == 3


def test_an_erasure_that_is_not_finished_is_named(world):
    world.deliver("a", [visit(world, 0, user="eve")])
    world.ingest()
    who = parse_subject(world.lake, "solo", ["user_id=eve"])
    with pytest.raises(Stop):
        erase.run(world.spark, world.lake, world.cloud, who, "e1", after=stop_after("objects"))
    with pytest.raises(FindingError, match="erasure e1 of tenant solo: it isn't finished"):
        draw_up(world)
    erase.run(world.spark, world.lake, world.cloud, who, "e2")
    assert_same_again(world, expired=True)


@pytest.mark.parametrize(("step", "nth"), [("object", 1), ("objects", 1), ("rows", 1), ("rows", 2), ("counted", 1)])
def test_an_erasure_that_was_killed_and_went_on_tells_all_that_it_took(world, step, nth):
    world.deliver(
        "a", [visit(world, 0), visit(world, 1, day=2, user="eve"), visit(world, 2, user="eve", event_time="x")]
    )
    world.deliver("b", [visit(world, 3, day=3, user="eve"), visit(world, 3, day=3, user="eve")])
    world.ingest()
    before = sheet(world)
    who = parse_subject(world.lake, "solo", ["user_id=eve"])
    with pytest.raises(Stop):
        erase.run(world.spark, world.lake, world.cloud, who, "e1", after=stop_after(step, nth))
    erase.run(world.spark, world.lake, world.cloud, who, "e2")
    erased = assert_same_again(world, expired=True)
    assert (erased.rows, erased.days) == (before.rows, before.days)
    assert erased.balanced


def test_a_replay_and_a_backfill_come_out_the_same(world):
    world.deliver("a", [visit(world, 0), visit(world, 1, day=2, payload={"user_id": "u"})])
    world.deliver("b", [visit(world, 2, day=3)])
    world.ingest()
    (dataset,) = world.lake.datasets
    looser = tuple(replace(one, required=False) for one in dataset.contract.fields)
    world.lake = replace(
        world.lake, datasets=(replace(dataset, contract=replace(dataset.contract, version="1.3.0", fields=looser)),)
    )
    replay.run(world.spark, world.lake, world.cloud, dataset="visits", reason="missing_field")
    world.ingest()
    who = parse_subject(world.lake, "solo", ["user_id=u"])
    first = sheet(world)
    assert (first.total.ingested, first.total.redelivered) == (3, 1)
    january = {"first": date(2013, 1, 1), "last": date(2013, 1, 31)}
    backfill.run(world.spark, world.lake, world.cloud, dataset="visits", tenant="solo", **january)
    # the contract is another now than when number 1 was refused: it stays refused
    before = assert_same_again(world)
    assert (before.total.ingested, before.total.quarantined) == (3, 1)
    # an object of two batches, and then rewritten
    erase.run(world.spark, world.lake, world.cloud, who, "e1")
    after = sheet(world)
    assert (after.rows, after.days) == (before.rows, before.days)
    backfill.run(world.spark, world.lake, world.cloud, dataset="visits", tenant="solo", **january)
    assert_same_again(world, expired=True)


def test_of_a_batch_whose_objects_are_gone_the_receipt_stays(world):
    world.deliver("a", [visit(world, 0), visit(world, 0), b"{bad"])
    world.deliver("b", [visit(world, 1)])
    world.ingest()
    world.deliver("c", [visit(world, 2, day=2)])
    world.ingest()
    before, known = sheet(world), receipts(world)
    key = "processed/visits/tenant=solo/year=2013/month=01/day=01/a.gz"
    world.cloud.s3.delete_object(Bucket=world.bucket("solo"), Key=key)
    lose(world, ("sum#", "month#"))
    done, said = draw_up(world)
    (kept,) = done.kept
    assert kept.startswith("batch visits/events/solo/solo/1: s3://")
    assert kept.endswith("a.gz of its 2 objects can't be read any more; its receipt stays as it is")
    assert kept in said
    assert (sheet(world), receipts(world)) == (before, known)


def test_of_a_batch_whose_objects_and_receipt_are_gone_the_tables_tell(world):
    world.deliver("a", [visit(world, 0), visit(world, 0), visit(world, 1, day=2, payload={})])
    world.ingest()
    before = sheet(world)
    key = "processed/visits/tenant=solo/year=2013/month=01/day=01/a.gz"
    world.cloud.s3.delete_object(Bucket=world.bucket("solo"), Key=key)
    lose(world)
    done, _ = draw_up(world)
    (kept,) = done.kept
    assert kept.endswith("it has no receipt, and gets one of what the tables hold: its duplicates are unknown")
    after = sheet(world)
    assert after.balanced
    assert (before.total.duplicates, after.total.duplicates) == (1, 0)
    assert (after.total.ingested, after.total.quarantined, after.total.sent) == (1, 1, 2)


def test_rows_that_others_deleted_are_found_missing_afterwards_too(world):
    world.deliver("a", [visit(world, 0), visit(world, 1, day=2), visit(world, 2, day=2)])
    world.ingest()
    name = f"lake.{world.lake.names.database('solo')}.visits"
    world.spark.sql(f"DELETE FROM {name} WHERE sequence = 1")  # noqa: S608 - the test's own
    before = sheet(world)
    assert not before.balanced
    lose(world)
    draw_up(world)
    assert sheet(world) == before


def test_ids_of_now_have_their_day(world):
    world.deliver("a", [visit(world, 0, event_id=new_event_id())])
    world.ingest()
    (day,) = sheet(world).days
    assert (day.day[:3], day.ingested) == ("202", 1)
