"""Ingest that is stopped, doubled or overtaken, on a real Spark: each batch is carried out once."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from lake.errors import FindingError
from lake.manifest import Counts
from spark_jobs import compact
from tests.spark_jobs.conftest import Stop, stop_after

AT_NOON = datetime(2013, 2, 1, 12, tzinfo=UTC)
DATA = "visits/events/solo/solo"


def ids(world, owner="solo"):
    return [row["event_id"][-4:] for row in world.rows(owner)]


@pytest.mark.parametrize("step", ["plan", "quarantine", "data"])
def test_a_run_that_stopped_after_any_step_is_finished_by_the_next_one(world, step):
    world.deliver("a", [world.event(1), world.event(1), world.event(2), b"{bad"])
    with pytest.raises(Stop):
        world.ingest(after=stop_after(step))
    world.deliver("b", [world.event(3)])
    report = world.ingest()
    assert ids(world) == ["0001", "0002", "0003"]
    assert len(world.rows("solo", "quarantine")) == 1
    assert [row["_batch"] for row in world.rows("solo")] == [1, 1, 2]
    receipts = sorted((*report.batches, *report.rebuilt), key=lambda one: one.batch)
    assert [(one.batch.number, one.counts["solo"]) for one in receipts] == [
        (1, Counts(records=4, ingested=2, duplicates=1, quarantined=1, unidentified=1)),
        (2, Counts(records=1, ingested=1)),
    ]


def test_a_receipt_that_was_lost_is_made_again_just_as_it_was(world):
    world.deliver("a", [world.event(1), world.event(1), world.event(4), b"{bad"])
    (receipt,) = world.ingest().batches
    world.deliver("b", [world.event(5)])
    world.ingest()
    lake = world.lake
    world.cloud.dynamodb.delete_item(
        TableName=lake.names.manifest_table(),
        Key={"pk": {"S": "solo#visits"}, "sk": {"S": "batch#events#solo#000000001"}},
    )
    report = world.ingest(listed=True)
    assert (report.rebuilt, report.batches) == ((receipt,), ())


def test_of_two_runs_that_plan_the_same_batch_one_leaves(world):
    world.deliver("a", [world.event(1)])
    inner, asked = [], []

    def meanwhile():
        # the moment is asked for first when a run begins, then between finding what is new and writing the plan
        asked.append(None)
        if len(asked) == 2:
            inner.append(world.ingest())
        return AT_NOON

    outer = world.ingest(clock=meanwhile)
    assert [str(one.batch) for one in inner[0].batches] == [f"{DATA}/1"]
    assert (outer.batches, outer.busy) == ((), (DATA,))
    assert ids(world) == ["0001"]


def test_of_two_runs_that_carry_out_the_same_batch_both_find_it_committed_once(world):
    world.deliver("a", [world.event(1), world.event(2), b"{bad"])
    inner = []

    def meanwhile(step):
        if step == "plan":
            inner.append(world.ingest())

    outer = world.ingest(after=meanwhile)
    assert inner[0].batches == outer.batches
    assert outer.totals == {"solo": Counts(records=3, ingested=2, quarantined=1, unidentified=1)}
    assert ids(world) == ["0001", "0002"]
    assert len(world.rows("solo", "quarantine")) == 1
    assert world.ingest().batches == ()


def test_a_compaction_between_a_batchs_two_commits_does_no_harm(world):
    for name, number in (("a", 1), ("b", 2)):
        world.deliver(name, [world.event(number)])
        world.ingest()
    world.deliver("c", [world.event(3), world.event(1)])
    compacted = []

    def meanwhile(step):
        if step == "quarantine":
            compacted.append(compact.run(world.spark, world.lake, world.cloud, owners=["solo"]))

    report = world.ingest(after=meanwhile)
    assert [one.rewritten for one in compacted[0].tables if one.table.endswith(".visits")] == [True]
    assert report.totals == {"solo": Counts(records=2, ingested=1, duplicates=1)}
    assert ids(world) == ["0001", "0002", "0003"]
    assert world.ingest().batches == ()


def test_a_table_that_lost_its_history_is_not_ingested_again(world):
    world.deliver("a", [world.event(1)])
    world.ingest()
    (batch,) = (one for one, _ in world.manifest().batches("solo", "visits"))
    later = replace(batch, number=2)
    world.cloud.dynamodb.put_item(
        TableName=world.lake.names.manifest_table(),
        Item={
            "pk": {"S": "solo#visits"},
            "sk": {"S": f"batch#events#solo#{later.number:09d}"},
            "counts": {"M": {}},
        },
    )
    world.deliver("b", [world.event(2)])
    with pytest.raises(
        FindingError, match=r"its history ends at batch 1 of visits/events/solo/solo, and the manifest knows"
    ):
        world.ingest()
