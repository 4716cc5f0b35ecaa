"""Quality rules on a real Spark, S3, Glue and DynamoDB: what a batch is held to, and what becomes of it."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pytest
from pyspark.sql import functions as F  # noqa: N812 - as Spark's users know it

from lake.audit import balance, gather
from lake.contract import Contract, Field, PartitionField, Primitive, StructOf
from lake.errors import FindingError
from lake.figures import Counts
from lake.manifest import BatchId, Lane, ProducerLedger
from lake.quality import (
    Duplicates,
    Freshness,
    Invalid,
    Limit,
    Missing,
    Nulls,
    Operator,
    RowCount,
    Rule,
    Severity,
    Span,
    Unit,
    Volume,
)
from lake.quality_log import QualityLog, State
from lake.ranges import Ranges
from spark_jobs import backfill, compact, maintain
from spark_jobs.quality import _is_valid
from spark_jobs.quality_hold import Ruling, Verdict, read_ruling, write_ruling
from spark_jobs.series import Series
from spark_jobs.values import spark_type
from tests.spark_jobs.conftest import Stop, stop_after

MADE = datetime(2024, 4, 20, 11, tzinfo=UTC)  # about when the tests' event ids were made
DATA = "visits/events/solo/solo"
NONE = (Limit(Operator.BE, (0.0,)),)
VISITS = Contract(
    dataset="visits",
    version="1.2.0",
    fields=(
        Field("page", Primitive("string"), required=True),
        Field("seconds", Primitive("int")),
        Field("price", Primitive("decimal", 10, 2)),
        Field("home", StructOf((Field("zip", Primitive("string")),))),
    ),
    partition=(PartitionField("day", "event_time"),),
    sort=("event_time",),
    dedup_days=3650,
)
SHORT = Rule("range", Invalid("seconds", minimum=0), NONE, Severity.ERROR)


@pytest.fixture
def ruled(worlds):
    """Make a lake whose contract has these rules."""
    return lambda *rules, **more: worlds(replace(VISITS, quality=rules), **more)


def change_rules(world, *rules):
    (dataset,) = world.lake.datasets
    contract = replace(dataset.contract, quality=rules, version="1.2.1")
    world.lake = replace(world.lake, datasets=(replace(dataset, contract=contract),))


def bad(world, number, **more):
    return world.event(number, payload={"page": "/", "seconds": -1}, **more)


def entries(world):
    log = QualityLog(world.cloud.dynamodb, world.lake.names.manifest_table())
    return list(log.entries("solo", "visits"))


def found(world):
    """Values by rule of the newest batch."""
    return {one.rule: one.value for one in entries(world)[0].results}


def decide(world, verdict, number=1):
    batch = BatchId("solo", "visits", Lane.EVENTS, "solo", number)
    return write_ruling(world.cloud.s3, world.bucket("solo"), Ruling(batch, verdict, "seen", "mia", 0))


def numbers(world):
    return sorted(row["sequence"] for row in world.rows("solo"))


def branches(world):
    return sorted(name for name in world.table("solo").metadata.refs if name != "main")


def audited(world, sent):
    """The audit's sheet, of a phone that sent so many events from number 1 on."""
    world.manifest().report(ProducerLedger("solo", "visits", "solo-phone", sent + 1, sent, 1, 0, Ranges(((0, 0),))))
    return balance(gather(world.lake, world.cloud, "visits"))


def one_held(world):
    """Events 1 and -1 second long, a bad one, held as batch 1; event 3 waits behind it."""
    world.deliver("a", [world.event(1), bad(world, 2), b"{bad"])
    world.ingest()
    world.deliver("b", [world.event(3)])


def test_every_metric_is_measured_of_the_rows_that_are_new(ruled):
    world = ruled(
        Rule("rows", RowCount(), NONE),
        Rule("nulls", Nulls("seconds"), NONE, unit=Unit.PERCENT),
        Rule("deep", Nulls("home.zip"), NONE),
        Rule("missing", Missing("page", (None, "-")), NONE),
        Rule("values", Invalid("page", ("/a", "-")), NONE),
        Rule("pattern", Invalid("page", pattern="^/"), NONE),
        Rule("range", Invalid("seconds", minimum=1, maximum=5), NONE),
        Rule("price", Invalid("price", minimum=0.5, maximum=1e12), NONE),
        Rule("time", Invalid("event_time", minimum="2013-01-01T12:00:00Z"), NONE),
        Rule("twice", Duplicates(("page",)), NONE),
        Rule("both", Duplicates(("page", "seconds")), NONE),
        Rule("fresh", Freshness("event_time"), NONE, unit=Unit.SECONDS),
        Rule("volume", Volume(), NONE, unit=Unit.PERCENT),
    )
    rows = [
        {"page": "/a", "seconds": 1, "price": 0.5, "home": {"zip": "1"}},
        {"page": "/a", "seconds": 6, "price": 0.49},
        {"page": "-", "seconds": None},
        {"page": "/b", "seconds": 5, "price": 99999999.99},
    ]
    events = [world.event(number, payload=payload) for number, payload in enumerate(rows, 1)]
    world.deliver("a", [*events, events[0], b"{bad"])
    said = []
    world.ingest(clock=lambda: datetime(2013, 1, 1, 11, tzinfo=UTC), say=said.append)
    assert found(world) == {
        "rows": 4,
        "nulls": 25,
        "deep": 3,
        "missing": 1,
        "values": 1,
        "pattern": 1,
        "range": 1,
        "price": 1,
        "time": 4,
        "twice": 1,
        "both": 0,
        "fresh": 3600,
        "volume": None,
    }
    assert f"batch {DATA}/1: rule rows (warning): rowCount is 4 rows, must be = 0" in said
    assert sum("rule " in one for one in said) == 11
    assert (len(world.rows("solo")), branches(world)) == (4, [])


@pytest.mark.parametrize(
    ("kind", "check", "right", "wrong"),
    [
        (Primitive("decimal", 20, 0), Invalid("c", (12345678901234567, 0.5)), "12345678901234567", "12345678901234568"),
        (Primitive("decimal", 38, 0), Invalid("c", maximum=10**38 - 1, minimum=10**38 - 1), "9" * 38, "9" * 37),
        (Primitive("decimal", 9, 2), Invalid("c", minimum=0.005, maximum=1e17), "0.01", "0.00"),
        (Primitive("date"), Invalid("c", minimum="2026-01-31"), "2026-01-31", "2026-01-30"),
        (Primitive("timestamptz"), Invalid("c", minimum="2026-01-31T12:00:00+00:00"), "2026-01-31 12:00", "2026-01-31"),
    ],
    ids=str,
)
def test_a_value_is_compared_in_full(spark, kind, check, right, wrong):
    for text, wanted in ((right, True), (wrong, False)):
        rows = spark.createDataFrame([(text,)], "c string").select(F.col("c").cast(spark_type(kind)))
        assert rows.select(_is_valid(check, kind)).first()[0] is wanted


def test_a_batch_without_new_rows_is_measured_too(ruled):
    world = ruled(Rule("rows", RowCount(), NONE), Rule("fresh", Freshness("event_time"), NONE), SHORT)
    world.deliver("a", [world.event(1)])
    world.ingest()
    world.deliver("b", [world.event(1)])
    world.ingest()
    assert found(world) == {"rows": 0, "fresh": None, "range": 0}


def test_a_value_is_held_to_the_tables_recent_events_and_no_others(ruled):
    world = ruled(
        Rule("week", Duplicates(("page",), 7), NONE),
        Rule("hour", Duplicates(("page",), 0), NONE),
        Rule("day", Duplicates(("page",), 1), NONE),
    )
    world.deliver("a", [world.event(1, payload={"page": "/x"})])
    world.ingest(clock=lambda: MADE)
    new = "018f6000-0000-7000-8000-000000000002"  # some 5 days after the first
    world.deliver("b", [world.event(2, payload={"page": "/x"}, event_id=new)])
    world.ingest(clock=lambda: MADE + timedelta(days=5))
    assert found(world) == {"week": 1, "hour": 0, "day": 0}


def test_a_volume_is_held_to_the_batches_before_and_to_the_days_before(ruled):
    world = ruled(
        Rule("batches", Volume(Span.BATCHES, 2), NONE, unit=Unit.PERCENT),
        Rule("days", Volume(Span.DAYS, 2), NONE, unit=Unit.PERCENT),
    )
    number, seen = 0, []
    for day, rows in ((1, 9), (1, 1), (2, 2), (3, 3), (4, 1)):
        world.deliver(f"o{number}", [world.event(number + index) for index in range(rows)])
        number += rows
        world.ingest(clock=lambda day=day: datetime(2026, 1, day, tzinfo=UTC))
        seen.append((found(world)["batches"], found(world)["days"]))
    assert seen == [
        (None, None),
        (pytest.approx(-800 / 9), None),
        (-60.0, None),
        (100.0, -80.0),
        (-60.0, -50.0),
    ]


def test_without_rules_a_batch_costs_what_it_did(world):
    world.deliver("a", [world.event(1)])
    steps = []
    world.ingest(after=steps.append)
    assert steps == ["plan", "quarantine", "data", "receipt"]
    assert entries(world) == []


def test_a_batch_that_breaks_a_blocking_rule_is_held_on_a_branch_and_its_series_waits(ruled):
    world = ruled(SHORT, Rule("warned", RowCount(), NONE))
    world.deliver("a", [world.event(1), bad(world, 2), b"{bad"])
    said = []
    report = world.ingest(say=said.append)
    assert (report.batches, [str(one.batch) for one in report.held]) == ((), [f"{DATA}/1"])
    assert (world.rows("solo"), world.rows("solo", "quarantine")) == ([], [])
    assert said[-1] == (
        f"batch {DATA}/1: held back on branch held_solo_1: rule range (error): invalidValues is 1 rows, must be = 0"
    )
    assert [(one.state, one.rows) for one in entries(world)] == [(State.HELD, 2)]
    assert branches(world) == ["held_solo_1"]
    place = f"lake.{world.lake.names.database('solo')}.visits"
    by_spark = world.spark.sql(f"SELECT sequence FROM {place} VERSION AS OF 'held_solo_1' ORDER BY 1")  # noqa: S608
    table = world.table("solo")
    by_pyiceberg = table.scan(snapshot_id=table.metadata.refs["held_solo_1"].snapshot_id).to_arrow()
    assert [row.sequence for row in by_spark.collect()] == [1, 2]
    assert sorted(by_pyiceberg["sequence"].to_pylist()) == [1, 2]


def test_a_held_batch_is_said_again_and_not_done_again(ruled):
    world = ruled(SHORT)
    one_held(world)
    before, said, steps = world.table("solo").metadata_location, [], []
    report = world.ingest(say=said.append, after=steps.append)
    assert (len(report.held), report.batches, steps) == (1, (), [])
    assert said == [str(report.held[0])]
    assert world.table("solo").metadata_location == before


def test_what_is_held_is_in_flight_in_the_audit_and_counted_once_when_it_is_published(ruled):
    world = ruled(SHORT)
    world.manifest().report(ProducerLedger("solo", "visits", "solo-phone", 4, 4, 0, 0))
    world.deliver("0", [world.event(0)])
    world.ingest()
    one_held(world)
    sheet = balance(gather(world.lake, world.cloud, "visits"))
    assert (sheet.balanced, sheet.total.ingested, sheet.total.in_flight) == (True, 1, 3)
    decide(world, Verdict.PUBLISH, 2)
    world.ingest()
    sheet = balance(gather(world.lake, world.cloud, "visits"))
    assert (sheet.balanced, sheet.total.ingested, sheet.total.in_flight) == (True, 4, 0)
    assert numbers(world) == [0, 1, 2, 3]


def test_a_batch_that_is_ruled_to_be_published_is_so_once_and_the_series_goes_on(ruled):
    world = ruled(SHORT)
    one_held(world)
    decide(world, Verdict.PUBLISH)
    report = world.ingest()
    assert [(one.batch.number, one.counts["solo"]) for one in report.batches] == [
        (1, Counts(records=3, ingested=2, quarantined=1, unidentified=1)),
        (2, Counts(records=1, ingested=1)),
    ]
    assert (numbers(world), branches(world)) == ([1, 2, 3], [])
    assert [one.state for one in entries(world)] == [State.PUBLISHED, State.PUBLISHED]
    assert (report.held, world.ingest().batches) == ((), ())


def test_the_rows_of_a_refused_batch_go_to_quarantine_as_they_were_received(ruled):
    world = ruled(SHORT)
    one_held(world)
    decide(world, Verdict.REFUSE)
    report = world.ingest()
    assert [(one.batch.number, one.counts["solo"]) for one in report.batches] == [
        (1, Counts(records=3, quarantined=3, unidentified=1)),
        (2, Counts(records=1, ingested=1)),
    ]
    assert (numbers(world), branches(world)) == ([3], [])
    kept = [row for row in world.rows("solo", "quarantine") if row["reason"] == "quality"]
    assert [(row["position"], row["sequence"], row["stage"], row["_batch"]) for row in kept] == [
        (0, 1, "ingest", f"{DATA}/1"),
        (1, 2, "ingest", f"{DATA}/1"),
    ]
    assert [json.loads(row["payload"]) for row in kept] == [world.event(1), bad(world, 2)]
    assert kept[0]["message"] == "its batch broke a quality rule and was refused by mia: seen"
    assert [one.state for one in entries(world)] == [State.PUBLISHED, State.REFUSED]
    assert audited(world, 3).balanced
    assert world.ingest().batches == ()


def test_duplicates_of_a_refused_batch_are_counted_as_such(ruled):
    world = ruled(SHORT)
    world.deliver("0", [world.event(1)])
    world.ingest()
    world.deliver("a", [world.event(1), bad(world, 2), bad(world, 2)])
    world.ingest()
    decide(world, Verdict.REFUSE, 2)
    assert world.ingest().totals == {"solo": Counts(records=3, duplicates=2, quarantined=1)}


def test_a_batch_that_other_rules_let_through_is_published_by_the_next_ingest(ruled):
    world = ruled(SHORT)
    one_held(world)
    change_rules(world, replace(SHORT, limits=(Limit(Operator.AT_MOST, (1.0,)),)))
    world.ingest()
    assert (numbers(world), branches(world)) == ([1, 2, 3], [])
    ruling = read_ruling(world.cloud.s3, world.bucket("solo"), BatchId("solo", "visits", Lane.EVENTS, "solo", 1))
    assert (ruling.verdict, ruling.by) == (Verdict.PUBLISH, "contract 1.2.1")


def test_a_batch_that_other_rules_hold_too_stays_held_by_those(ruled):
    world = ruled(SHORT)
    one_held(world)
    change_rules(world, replace(SHORT, name="other"))
    (held,) = world.ingest().held
    assert ("rule other" in str(held), held.contract_version, numbers(world)) == (True, "1.2.1", [])
    assert world.ingest().held == (held,)


def test_a_contract_without_rules_lets_a_held_batch_go(ruled):
    world = ruled(SHORT)
    one_held(world)
    change_rules(world)
    world.ingest()
    assert numbers(world) == [1, 2, 3]


def test_the_first_decision_stays(ruled):
    world = ruled(SHORT)
    one_held(world)
    assert decide(world, Verdict.REFUSE).verdict is Verdict.REFUSE
    assert decide(world, Verdict.PUBLISH).verdict is Verdict.REFUSE


@pytest.mark.parametrize("step", ["plan", "staged", "checked", "branch", "held"])
def test_a_run_that_was_killed_on_its_way_to_holding_a_batch_is_followed_by_one_that_holds_it(ruled, step):
    world = ruled(SHORT)
    world.deliver("a", [world.event(1), bad(world, 2), b"{bad"])
    with pytest.raises(Stop):
        world.ingest(after=stop_after(step))
    assert len(world.ingest().held) == 1
    assert (world.rows("solo"), world.rows("solo", "quarantine"), branches(world)) == ([], [], ["held_solo_1"])
    staged = [one for one in world.table("solo").metadata.snapshots if one.summary["wap.id"] == f"{DATA}/1"]
    assert [one.summary["added-records"] for one in staged] == ["2"]


@pytest.mark.parametrize("step", ["staged", "checked", "quarantine", "data", "receipt"])
def test_a_run_that_was_killed_with_a_batch_that_passes_is_finished_by_the_next_one(ruled, step):
    world = ruled(SHORT)
    world.deliver("a", [world.event(1), world.event(1), b"{bad"])
    with pytest.raises(Stop):
        world.ingest(after=stop_after(step))
    world.deliver("b", [world.event(2)])
    world.ingest()
    assert (numbers(world), len(world.rows("solo", "quarantine"))) == ([1, 2], 1)
    assert [one.rows for one in entries(world)] == [1, 1]
    assert audited(world, 2).balanced


@pytest.mark.parametrize("verdict", list(Verdict))
@pytest.mark.parametrize("step", ["quarantine", "refused", "data", "receipt", "dropped"])
def test_a_run_that_was_killed_while_it_does_what_was_decided_is_finished_by_the_next_one(ruled, verdict, step):
    if (verdict, step) == (Verdict.PUBLISH, "refused"):
        pytest.skip("there is no such step")
    world = ruled(SHORT)
    one_held(world)
    decide(world, verdict)
    with pytest.raises(Stop):
        world.ingest(after=stop_after(step))
    world.ingest()
    kept = [row["reason"] for row in world.rows("solo", "quarantine")]
    assert numbers(world) == ([1, 2, 3] if verdict is Verdict.PUBLISH else [3])
    assert sorted(kept) == ["malformed_json", *(["quality"] * 2 if verdict is Verdict.REFUSE else [])]
    assert branches(world) == []
    sheet = audited(world, 3)
    assert (sheet.balanced, sheet.total.quarantined) == (True, len(kept))


@pytest.mark.parametrize("step", ["staged", "branch"])
def test_of_two_runs_that_check_the_same_batch_both_hold_it_once(ruled, step):
    world = ruled(SHORT)
    world.deliver("a", [bad(world, 1)])
    inner = []

    def meanwhile(done):
        if done == step and not inner:
            inner.append(world.ingest())

    outer = world.ingest(after=meanwhile)
    assert ([len(one.held) for one in (outer, *inner)], branches(world)) == ([1, 1], ["held_solo_1"])
    decide(world, Verdict.PUBLISH)
    world.ingest()
    assert (numbers(world), branches(world)) == ([1], [])


@pytest.mark.parametrize("verdict", list(Verdict))
@pytest.mark.parametrize("step", ["quarantine", "data"])
def test_of_two_runs_that_do_what_was_decided_both_find_it_done_once(ruled, verdict, step):
    world = ruled(SHORT)
    one_held(world)
    decide(world, verdict)
    inner = []

    def meanwhile(done):
        if done == step and not inner:
            inner.append(None)
            world.ingest()

    world.ingest(after=meanwhile)
    world.ingest()
    assert numbers(world) == ([1, 2, 3] if verdict is Verdict.PUBLISH else [3])
    assert len(world.rows("solo", "quarantine")) == (1 if verdict is Verdict.PUBLISH else 3)
    assert audited(world, 3).balanced


@pytest.mark.parametrize("verdict", list(Verdict))
def test_compaction_and_maintenance_leave_a_held_batch_alone(ruled, verdict):
    world = ruled(SHORT)
    for name, number in (("x", 10), ("y", 11)):
        world.deliver(name, [world.event(number)])
        world.ingest()
    one_held(world)
    compact.run(world.spark, world.lake, world.cloud, owners=["solo"])
    later = datetime.now(UTC) + timedelta(days=30)
    maintain.run(world.spark, world.lake, world.cloud, clock=lambda: later)
    assert branches(world) == ["held_solo_3"]
    decide(world, verdict, 3)
    world.ingest()
    assert numbers(world) == ([1, 2, 3, 10, 11] if verdict is Verdict.PUBLISH else [3, 10, 11])
    assert branches(world) == []


def test_one_series_that_is_held_stops_no_other(ruled):
    world = ruled(SHORT, pool=True)
    world.deliver("a", [bad(world, 1)])
    world.deliver("b", [world.event(2, "ann")], "ann")
    report = world.ingest()
    assert ([str(one.batch) for one in report.held], report.totals) == (
        [f"{DATA}/1"],
        {"ann": Counts(records=1, ingested=1)},
    )


def test_a_receipt_of_a_refused_batch_that_was_lost_is_made_again_just_as_it_was(ruled):
    world = ruled(SHORT)
    one_held(world)
    decide(world, Verdict.REFUSE)
    receipt = world.ingest().batches[0]
    key = {"pk": {"S": "solo#visits"}, "sk": {"S": "batch#events#solo#000000001"}}
    world.cloud.dynamodb.delete_item(TableName=world.lake.names.manifest_table(), Key=key)
    assert world.ingest(listed=True).rebuilt == (receipt,)
    assert len(world.rows("solo", "quarantine")) == 3


def test_a_held_batch_whose_rows_were_taken_from_the_table_is_staged_again(ruled):
    world = ruled(SHORT)
    one_held(world)
    table = world.table("solo")
    with table.manage_snapshots() as change:
        change.remove_branch("held_solo_1")
    table.maintenance.expire_snapshots().by_id(table.metadata.snapshots[0].snapshot_id).commit()
    change_rules(world, replace(SHORT, name="other"))
    assert (len(world.ingest().held), branches(world)) == (1, ["held_solo_1"])
    decide(world, Verdict.PUBLISH)
    world.ingest()
    assert numbers(world) == [1, 2, 3]


def test_a_series_asked_for_by_itself_says_that_it_is_held(ruled):
    world = ruled(SHORT)
    one_held(world)
    (stream,) = world.lake.streams()
    report = world.ingest(series=[Series(stream, Lane.EVENTS, "solo")])
    assert len(report.held) == 1


def test_a_batch_that_was_staged_before_the_contract_grew_is_held_to_rules_of_what_is_new(ruled):
    world = ruled(SHORT)
    one_held(world)
    (dataset,) = world.lake.datasets
    grown = (*dataset.contract.fields, Field("gate", Primitive("string")))
    gate = Rule("gate", Nulls("gate"), (Limit(Operator.BE, (2.0,)),), Severity.ERROR)
    contract = replace(dataset.contract, fields=grown, quality=(gate,), version="1.3.0")
    world.lake = replace(world.lake, datasets=(replace(dataset, contract=contract),))
    (held,) = world.ingest().held  # batch 2 has one row without a gate
    assert (held.batch.number, numbers(world), found(world)) == (2, [1, 2], {"gate": 1})


@pytest.fixture
def lost(ruled):
    """A lake that was to hold event 2, which the rules it has got meanwhile don't let in."""
    world = ruled()
    world.deliver("a", [world.event(1), bad(world, 2)])
    world.ingest()
    name = f"lake.{world.lake.names.database('solo')}.visits"
    world.spark.sql(f"DELETE FROM {name} WHERE sequence = 2")  # noqa: S608 - names of the test
    change_rules(world, SHORT)
    return world


def filled(world, **options):
    day = date(2013, 1, 1)
    arguments = {"dataset": "visits", "tenant": "solo", "first": day, "last": day, **options}
    return backfill.run(world.spark, world.lake, world.cloud, **arguments)


def test_a_backfill_whose_batch_is_held_says_so_and_goes_on_after_the_decision(lost):
    with pytest.raises(FindingError, match=r"batch visits/events/solo/solo/2: held back on branch held_solo_2"):
        filled(lost)
    assert numbers(lost) == [1]
    decide(lost, Verdict.PUBLISH, 2)
    filled(lost)
    assert numbers(lost) == [1, 2]


def test_a_backfills_branch_that_breaks_a_rule_is_not_published(lost):
    with pytest.raises(FindingError, match=r"branch repair of .*: rule range \(error\): .*; nothing is published"):
        filled(lost, branch="repair", publish=True)
    assert (numbers(lost), branches(lost)) == ([1], ["repair"])


def test_a_batch_that_was_published_before_it_was_refused_stays_so(ruled):
    world = ruled(SHORT)
    world.deliver("a", [bad(world, 1)])
    other = []

    def meanwhile(step):
        # a run of the contract as it was before has staged and is about to publish, when this one holds the batch
        if step == "quarantine" and not other:
            other.append(None)
            change_rules(world, SHORT)
            world.ingest()
            decide(world, Verdict.REFUSE)

    change_rules(world)
    world.ingest(after=meanwhile)
    world.deliver("b", [world.event(2)])
    world.ingest()
    assert (numbers(world), world.rows("solo", "quarantine")) == ([1, 2], [])
    assert branches(world) == []
