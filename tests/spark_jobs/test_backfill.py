"""Backfill on a real Spark, S3, Glue and DynamoDB: days taken once more, into the table or onto a branch first."""

from dataclasses import replace
from datetime import date

import pytest

from lake.audit import balance, gather
from lake.contract import Contract, Field, PartitionField, Primitive
from lake.declaration import Jobs
from lake.errors import DeclarationError, FindingError, TerminalError
from lake.manifest import Counts
from spark_jobs import backfill
from spark_jobs.backfill import Source
from tests.spark_jobs.conftest import Stop, stop_after

# the tests' event ids were made in April 2024: by now outside of a window of three days
SHORT = Contract(
    dataset="visits",
    version="1.2.0",
    fields=(Field("page", Primitive("string"), required=True), Field("seconds", Primitive("int"))),
    partition=(PartitionField("day", "event_time"),),
    sort=("event_time",),
    dedup_days=3,
)


def filled(world, **options):
    asked = {"dataset": "visits", "tenant": "solo", "first": date(2013, 1, 1), "last": date(2013, 1, 31)}
    return backfill.run(world.spark, world.lake, world.cloud, **{**asked, **options}, pause=lambda _: None)


def sequences(world, owner="solo"):
    return [row["sequence"] for row in world.rows(owner)]


def lose(world, *numbers):
    """Take rows out of the table, as somebody's mistake does."""
    name = f"lake.{world.lake.names.database('solo')}.visits"
    listed = ", ".join(map(str, numbers))
    world.spark.sql(f"DELETE FROM {name} WHERE sequence IN ({listed})")  # noqa: S608 - numbers of the test


def series(world):
    return [
        (str(batch), figures.by_tenant["solo"].ingested)
        for batch, figures in sorted(world.manifest().batches("solo", "visits"), key=lambda one: one[0])
    ]


def batch(number):
    return f"visits/events/solo/solo/{number}"


@pytest.fixture
def whole(worlds):
    """A lake in which two batches were ingested."""
    made = worlds(SHORT, replace(Jobs(), ingest_objects=2))
    made.deliver("a", [made.event(1), made.event(2)])
    made.deliver("b", [made.event(3), b"{bad"])
    made.ingest()
    made.deliver("c", [made.event(4)])
    made.ingest()
    assert sequences(made) == [1, 2, 3, 4]
    return made


@pytest.fixture
def world(whole):
    """The same after two of the four rows were lost."""
    lose(whole, 2, 3)
    return whole


def test_lost_rows_come_back_and_the_others_are_dropped_however_old_their_ids_are(world):
    report = filled(world)
    assert sequences(world) == [1, 2, 3, 4]
    assert (report.objects, report.left, report.batches) == (3, 0, (batch(3), batch(4)))
    assert report.counts == Counts(records=5, ingested=2, duplicates=2, quarantined=1, unidentified=1)
    assert [(row["sequence"], row["_batch"]) for row in world.rows("solo")] == [(1, 1), (2, 3), (3, 3), (4, 2)]


def test_the_numbering_goes_on_behind_it_and_nothing_is_ingested_again(world):
    filled(world)
    assert world.ingest(listed=True).batches == ()
    world.deliver("d", [world.event(5)])
    assert [str(one.batch) for one in world.ingest().batches] == [batch(5)]
    assert sequences(world) == [1, 2, 3, 4, 5]
    assert series(world) == [(batch(1), 3), (batch(2), 1), (batch(3), 2), (batch(4), 0), (batch(5), 1)]


def test_where_nothing_was_lost_nothing_is_doubled_and_the_sheet_balances(whole):
    report = filled(whole)
    assert (report.counts.ingested, report.counts.duplicates) == (0, 4)
    again = filled(whole)
    assert again.batches == (batch(5), batch(6))
    sheet = balance(gather(whole.lake, whole.cloud, "visits"))
    # numbers start at 0, and no event has it; what was taken three times came twice too often
    assert [(row.redelivered, row.ingested) for row in sheet.rows] == [(8, 4)]
    assert [(one.rows, one.by_batches) for one in sheet.tables] == [(4, 4), (3, 3)]


def test_objects_of_other_days_and_those_that_ingest_has_not_taken_are_left(whole):
    other = "processed/visits/tenant=solo/year=2013/month=01/day=02/x.gz"
    whole.put(whole.bucket("solo"), other, [whole.event(7)])
    report = filled(whole, first=date(2013, 1, 1), last=date(2013, 1, 1))
    assert (report.objects, report.left) == (3, 0)
    report = filled(whole)
    assert (report.objects, report.left) == (3, 1)
    with pytest.raises(
        TerminalError, match="no objects of 2013-01-02 to 2013-01-02 in processed of tenant solo; 1 are"
    ):
        filled(whole, first=date(2013, 1, 2), last=date(2013, 1, 2))


def test_raw_lines_are_taken_by_the_day_in_their_key(whole):
    bucket = whole.bucket("solo")
    whole.put(bucket, "raw/visits/2013/01/05/a.jsonl.gz", [whole.event(5), whole.event(1)])
    whole.put(bucket, "raw/visits/2013/01/05/a.csv", [b"a,b"])
    whole.put(bucket, "raw/visits/2013/02/05/a.jsonl", [whole.event(6)])
    report = filled(whole, source=Source.RAW)
    assert (report.objects, report.left, report.counts.ingested) == (1, 1, 1)
    assert sequences(whole) == [1, 2, 3, 4, 5]
    checks = balance(gather(whole.lake, whole.cloud, "visits")).tables
    assert (checks[0].rows, checks[0].by_batches) == (5, 5)


@pytest.mark.parametrize("step", ["state", "plan", "done"])
def test_one_that_was_killed_goes_on_with_the_same_batches(world, step):
    with pytest.raises(Stop):
        filled(world, after=stop_after(step))
    report = filled(world)
    assert report.batches == (batch(3), batch(4))
    assert report.counts == Counts(records=5, ingested=2, duplicates=2, quarantined=1, unidentified=1)
    assert sequences(world) == [1, 2, 3, 4]


def test_a_plan_it_left_is_carried_out_by_the_next_ingest(world):
    with pytest.raises(Stop):
        filled(world, after=stop_after("plan"))
    world.deliver("d", [world.event(5)])
    assert [str(one.batch) for one in world.ingest().batches] == [batch(3), batch(4)]
    assert sequences(world) == [1, 2, 3, 4, 5]
    filled(world)
    assert sequences(world) == [1, 2, 3, 4, 5]


def test_a_branch_is_written_and_audited_and_the_table_stays_as_it_is(world):
    report = filled(world, branch="repair")
    assert sequences(world) == [1, 4]
    assert (report.branch, report.batches) == ("repair", ())
    assert (report.audit.rows_before, report.audit.rows_after, report.audit.twice) == (2, 4, 0)
    assert report.counts == Counts(records=5, ingested=2, duplicates=2, quarantined=1)
    world.deliver("d", [world.event(5)])
    assert [str(one.batch) for one in world.ingest().batches] == [batch(3)]
    assert sequences(world) == [1, 4, 5]


def test_publishing_moves_the_table_to_the_branch_and_the_batches_are_counted(world):
    filled(world, branch="repair")
    head = world.table("solo").refs()["repair"].snapshot_id
    report = filled(world, branch="repair", publish=True)
    table = world.table("solo")
    assert table.current_snapshot().snapshot_id == head
    assert set(table.refs()) == {"main"}
    assert sequences(world) == [1, 2, 3, 4]
    assert (report.branch, report.batches) == (None, (batch(3), batch(4)))
    assert series(world) == [(batch(1), 3), (batch(2), 1), (batch(3), 2), (batch(4), 0)]
    world.deliver("d", [world.event(5)])
    assert [str(one.batch) for one in world.ingest().batches] == [batch(5)]


def test_a_table_that_has_moved_on_has_the_branch_made_again_from_there(world):
    filled(world, branch="repair")
    world.deliver("d", [world.event(5), world.event(2)])
    world.ingest()
    report = filled(world, branch="repair", publish=True)
    assert report.batches == (batch(4), batch(5))
    assert report.counts == Counts(records=5, ingested=1, duplicates=3, quarantined=1, unidentified=1)
    assert sequences(world) == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("step", ["created", "branch", "claimed", "published", "dropped"])
def test_a_publication_that_was_killed_is_finished_once(world, step):
    with pytest.raises(Stop):
        filled(world, branch="repair", publish=True, after=stop_after(step))
    filled(world, branch="repair", publish=True)
    assert sequences(world) == [1, 2, 3, 4]
    assert set(world.table("solo").refs()) == {"main"}
    world.deliver("d", [world.event(5)])
    world.ingest()
    assert sequences(world) == [1, 2, 3, 4, 5]


def test_a_chunk_whose_number_went_to_others_meanwhile_is_ingested_under_the_next(world):
    lose(world, 4)
    with pytest.raises(Stop):  # between the claims of the two chunks
        filled(world, branch="repair", publish=True, after=stop_after("plan"))
    world.deliver("d", [world.event(5)])
    assert [str(one.batch) for one in world.ingest().batches] == [batch(3), batch(4)]
    report = filled(world, branch="repair", publish=True)
    assert report.batches == (batch(3), batch(5))
    assert sequences(world) == [1, 2, 3, 4, 5]
    assert set(world.table("solo").refs()) == {"main"}


def test_an_ingest_that_finds_the_numbers_claimed_does_the_same_work_once(world):
    with pytest.raises(Stop):
        filled(world, branch="repair", publish=True, after=stop_after("claimed"))
    world.deliver("d", [world.event(5)])
    assert [str(one.batch) for one in world.ingest().batches] == [batch(3), batch(4), batch(5)]
    assert sequences(world) == [1, 2, 3, 4, 5]
    filled(world, branch="repair", publish=True)
    assert sequences(world) == [1, 2, 3, 4, 5]
    assert set(world.table("solo").refs()) == {"main"}


def test_a_branch_that_holds_an_event_twice_is_not_published(world):
    filled(world, branch="repair")
    name = f"lake.{world.lake.names.database('solo')}.visits.branch_repair"
    world.spark.sql(f"INSERT INTO {name} SELECT * FROM {name} WHERE sequence = 2")  # noqa: S608 - name of the test
    said = r"branch repair of .*visits: 1 events twice, 0 rows of somebody else, 1 snapshots of others, 2 rows written"
    with pytest.raises(FindingError, match=rf"{said} and 3 there; nothing is published"):
        filled(world, branch="repair", publish=True)
    assert sequences(world) == [1, 4]


def test_what_makes_no_sense_is_refused(whole):
    with pytest.raises(TerminalError, match="--to: got 2012-12-31, which is before 2013-01-01"):
        filled(whole, last=date(2012, 12, 31))
    with pytest.raises(TerminalError, match="--publish: it moves the table to a branch; name it with --branch"):
        filled(whole, publish=True)
    for name in ("main", "a-b", "A"):
        with pytest.raises(TerminalError, match=f"--branch: got '{name}', allowed are a-z"):
            filled(whole, branch=name)
    with pytest.raises(DeclarationError, match="tenant: got 'sola', allowed are: solo"):
        filled(whole, tenant="sola")
    world = whole
    world.spark.sql(f"ALTER TABLE lake.{world.lake.names.database('solo')}.visits CREATE BRANCH theirs")
    with pytest.raises(TerminalError, match="--branch: 'theirs' is there already, and isn't this backfill's"):
        filled(whole, branch="theirs")
