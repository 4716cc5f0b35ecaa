"""Maintenance on a real Spark, Glue and S3, stopped, overtaken and dry: what may go goes, and rows stay."""

import threading

import pytest

from athena.session import Session
from athena.trino import TrinoServer, TrinoSettings
from lake.errors import EnvironmentProblemError
from lake.tables import glue_catalog
from spark_jobs import maintain
from spark_jobs.commit import History
from tests.spark_jobs.conftest import Stop, stop_after
from tests.spark_jobs.upkeep import STEPS


def untidy(kept):
    """A table with something to do for every step."""
    kept.set("write.delete.mode", "merge-on-read")
    kept.set("write.delete.granularity", "partition")
    # as of a table that was made by other means, whose commits don't merge so soon
    kept.set("commit.manifest.min-count-to-merge", "100")
    for number in range(3):
        kept.add(*range(number * 20, number * 20 + 20))
    for number in range(11):
        kept.insert(500 + number)
    kept.delete(3, 25)
    kept.delete(4, 45)
    kept.put(f"{kept.prefix()}/data/stray.parquet")


@pytest.mark.parametrize("step", STEPS)
def test_killed_after_any_step_the_next_run_does_the_rest(kept, step):
    untidy(kept)

    with pytest.raises(Stop):
        kept.maintain(after=stop_after(step))
    assert kept.rows() == kept.model()
    kept.maintain()
    assert kept.rows() == kept.model()
    quiet = kept.maintain()
    assert (quiet.orphans, quiet.manifests <= 11, quiet.conflicts) == (0, True, ())
    assert len(kept.snapshots()) <= 4
    assert f"{kept.prefix()}/data/stray.parquet" not in kept.objects()
    history = History(glue_catalog(kept.world.cloud), kept.database, "visits")
    assert history.last_number("visits/events/solo/solo") == 3


@pytest.mark.parametrize("step", STEPS)
def test_whatever_others_do_meanwhile_every_row_is_right(kept, step):
    untidy(kept)

    def meddle(at):
        if at == step:
            kept.add(900)
            kept.delete(30, 501)
            kept.compact()
            kept.add(901)

    kept.maintain(after=meddle)
    assert kept.rows() == kept.model()
    kept.maintain()
    assert kept.rows() == kept.model()
    kept.add(902)
    assert kept.rows() == kept.model()


def test_two_at_once_do_no_harm(kept):
    untidy(kept)
    done, failed = [], []

    def one():
        try:
            done.append(kept.maintain())
        except Exception as error:  # noqa: BLE001 - said below
            failed.append(error)

    threads = [threading.Thread(target=one) for _ in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert failed == []
    assert len(done) == 2
    assert kept.rows() == kept.model()
    kept.maintain()
    assert kept.rows() == kept.model()


def test_a_dry_run_changes_nothing_and_tells_what_would_be(kept):
    untidy(kept)
    before = kept.objects()
    pointer = kept.world.cloud.glue.get_table(DatabaseName=kept.database, Name="visits")["Table"]["Parameters"]
    said = []
    shown = kept.maintain(dry=True, say=said.append)
    assert kept.objects() == before
    assert kept.world.cloud.glue.get_table(DatabaseName=kept.database, Name="visits")["Table"]["Parameters"] == pointer
    assert (shown.dry, shown.files_deleted, shown.delete_files_removed) == (True, 0, 0)
    done = kept.maintain()
    assert (shown.snapshots, shown.expired, shown.delete_files, shown.orphans, shown.orphan_bytes) == (
        done.snapshots,
        done.expired,
        done.delete_files,
        done.orphans,
        done.orphan_bytes,
    )
    assert said[-1].startswith(
        f"table {kept.database}.visits: would expire {done.expired} of {done.snapshots} snapshots; "
    )
    assert "orphan files of 0.0 MiB to delete" in said[-1]


def test_an_empty_lake_is_maintained_without_a_word_of_harm(world):
    report = maintain.run(world.spark, world.lake, world.cloud, owners=["solo"])
    assert [(one.table.rpartition(".")[2], one.snapshots, one.expired, one.orphans) for one in report.tables] == [
        ("visits", 0, 0, 0),
        ("quarantine", 0, 0, 0),
    ]


def test_trino_reads_the_same_rows_after_compaction_and_maintenance(kept, ministack, tmp_path):
    try:
        trino = TrinoServer.start(tmp_path, TrinoSettings(ministack, "us-east-1", heap="1G"), say=print)
    except EnvironmentProblemError as error:
        pytest.skip(f"there is no Trino: {error}")
    try:
        session = Session(trino.url, catalog="lake", schema=kept.database)

        def by_trino():
            return sorted(row[0] for row in session.query("SELECT sequence FROM visits").execute())

        untidy(kept)
        assert by_trino() == kept.model()
        kept.maintain()
        assert by_trino() == kept.rows() == kept.model()
        kept.compact()
        kept.delete(30, 505)
        kept.maintain()
        assert by_trino() == kept.rows() == kept.model()
    finally:
        trino.stop()
