"""Compaction on a real Spark: fewer files, the same rows."""

import pytest

from lake.errors import FindingError
from spark_jobs import compact


def run(world, **options):
    return compact.run(world.spark, world.lake, world.cloud, **options)


def files(world, owner="solo", name="visits"):
    return world.table(owner, name).inspect.files().num_rows


def test_compaction_leaves_one_file_a_partition_with_the_same_rows(world):
    for number in range(4):
        world.deliver(f"a{number}", [world.event(2 * number, day=1), world.event(2 * number + 1, day=2)])
        world.ingest(tenants=["solo"])
    before = world.rows("solo")
    assert files(world) == 8
    report = run(world, owners=["solo"])
    done = next(one for one in report.tables if one.table.endswith(".visits"))
    assert (done.rows, done.files_before, done.files_after, done.rewritten) == (8, 8, 2, True)
    assert done.bytes_after < done.bytes_before
    assert files(world) == 2
    assert world.rows("solo") == before


def test_compacting_again_finds_nothing_to_gain(world):
    for number in range(2):
        world.deliver(f"a{number}", [world.event(number)])
        world.ingest(tenants=["solo"])
    run(world, owners=["solo"])
    snapshot = world.table("solo").current_snapshot()
    said = []
    report = run(world, owners=["solo"], say=said.append)
    assert [one.rewritten for one in report.tables] == [False]
    wanted = f"table {world.lake.names.database('solo')}.visits: nothing to gain; 1 files"
    assert [one for one in said if one.startswith(wanted)]
    assert world.table("solo").current_snapshot() == snapshot


def test_a_compacted_file_is_sorted_as_the_contract_says(world):
    times = [f"2013-01-01T{hour:02d}:00:00Z" for hour in (9, 3, 7, 1)]
    for number, moment in enumerate(times):
        world.deliver(f"a{number}", [world.event(number, event_time=moment)])
        world.ingest(tenants=["solo"])
    run(world, owners=["solo"])
    found = world.table("solo").scan().to_arrow()["event_time"].to_pylist()
    assert [moment.hour for moment in found] == [1, 3, 7, 9]


def test_an_empty_table_and_a_quarantine_of_few_files_are_left_alone(world):
    for number in range(2):
        world.deliver(f"a{number}", [b"{bad"])
        world.ingest(tenants=["solo"])
    report = run(world)
    assert {one.table: (one.files_before, one.rewritten) for one in report.tables} == {
        f"{world.lake.names.database('solo')}.visits": (0, False),
        f"{world.lake.names.database('solo')}.quarantine": (2, False),
    }


def test_ingest_goes_on_after_a_compaction(world):
    for number in range(3):
        world.deliver(f"a{number}", [world.event(number)])
        world.ingest(tenants=["solo"])
        run(world, owners=["solo"])
    world.deliver("again", [world.event(1)])
    report = world.ingest(tenants=["solo"])
    assert [(one.batch.number, one.counts["solo"].duplicates) for one in report.batches] == [(4, 1)]
    assert [row["event_id"][-1] for row in world.rows("solo")] == ["0", "1", "2"]


def test_a_table_that_was_never_made_is_named(world):
    database = world.lake.names.database("solo")
    world.cloud.glue.delete_table(DatabaseName=database, Name="visits")
    with pytest.raises(FindingError, match=f"table {database}.visits: there is none; `lakehose apply` makes it"):
        run(world, datasets=["visits"])
