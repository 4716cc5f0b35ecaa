"""A batch's commit: once, whoever else is at it."""

from dataclasses import replace

import pytest
from pyspark.sql import functions as F  # noqa: N812 - as Spark's users know it

from lake.errors import CommitConflictError, FindingError
from lake.manifest import BatchId, Lane
from lake.tables import QUARANTINE, glue_catalog
from spark_jobs.commit import History, commit
from spark_jobs.session import literal

BATCH = BatchId("solo", "visits", Lane.STRAYS, "it's", 1)
SERIES = "visits/strays/solo/it's"


@pytest.fixture
def history(world):
    """Make a view of the quarantine table as it is at that moment."""
    return lambda: History(glue_catalog(world.cloud), world.lake.names.database("solo"), QUARANTINE)


@pytest.fixture
def append(world):
    """Commit so many rows as a batch, in a session of its own."""

    def append(view, rows, batch=BATCH):
        spark = world.spark.newSession()
        table = spark.table(f"lake.{view.name}")
        names = [f"CAST(NULL AS {kind}) AS {name}" for name, kind in table.dtypes if name != "_batch"]
        made = spark.range(rows).selectExpr(*names, f"{literal(str(batch))} AS _batch")
        return commit(spark, view, batch, made, distribution="none", among=F.col("_batch") == str(batch))

    return append


def test_a_batch_is_in_the_history_with_its_rows(history, append):
    assert history().last_number(SERIES) == 0
    done = append(history(), 3)
    assert done.rows == 3
    assert history().find(BATCH) == done
    assert history().last_number(SERIES) == 1


def test_a_batch_that_is_there_is_not_committed_again(history, append, world):
    done = append(history(), 3)
    assert append(history(), 3) == done
    assert len(world.rows("solo", QUARANTINE)) == 3


def test_a_batch_without_rows_has_its_number_too(history, append):
    assert append(history(), 0).rows == 0
    assert history().last_number(SERIES) == 1


def test_a_commit_reads_the_table_twice_before_it_publishes_and_after(world, append):
    catalog, looks = glue_catalog(world.cloud), []
    catalog.glue.meta.events.register("before-call.glue.GetTable", lambda **_: looks.append("look"))
    view = History(catalog, world.lake.names.database("solo"), QUARANTINE)
    append(view, 3)
    append(view, 2, replace(BATCH, number=2))
    assert view.last_number(SERIES) == 2
    assert len(looks) == 1 + 2 + 2


def test_of_two_writers_that_both_saw_no_batch_one_commits(history, append, world):
    one, other = history(), history()
    done = append(one, 3)
    with pytest.raises(CommitConflictError, match=r"batch visits/strays/solo/it's/1: another ingest has committed it"):
        append(other, 3)
    assert len(world.rows("solo", QUARANTINE)) == 3
    assert history().find(BATCH) == done


@pytest.fixture
def stage(history, world):
    """Write so many rows as the batch without publishing them, as a run does that dies in between."""

    def stage(rows):
        name = f"lake.{history().name}"
        spark = world.spark.newSession()
        names = [f"CAST(NULL AS {kind}) AS {column}" for column, kind in spark.table(name).dtypes]
        spark.conf.set("spark.wap.id", str(BATCH))
        spark.range(rows).selectExpr(*names).writeTo(name).append()

    return stage


def test_a_batch_that_was_staged_by_a_run_that_died_is_published_and_not_written_again(history, append, stage, world):
    stage(3)
    assert world.rows("solo", QUARANTINE) == []
    assert append(history(), 99).rows == 3
    assert len(world.rows("solo", QUARANTINE)) == 3


@pytest.mark.parametrize("rows", [0, 3])
def test_a_batch_that_another_writer_overtook_is_put_on_top_and_found(history, append, stage, world, rows):
    stage(rows)
    other = BatchId("solo", "visits", Lane.REFUSED, "-", 1)
    append(history(), 1, other)
    done = append(history(), 99)
    assert done.rows == rows
    assert len(world.rows("solo", QUARANTINE)) == rows + 1
    assert (history().find(BATCH), history().last_number(SERIES)) == (done, 1)
    assert history().last_number("visits/refused/solo/-") == 1


def test_a_table_that_would_publish_at_once_is_refused(history, world):
    table = world.table("solo", QUARANTINE)
    with table.transaction() as change:
        change.remove_properties("write.wap.enabled")
    with pytest.raises(FindingError, match=r"quarantine: its property write.wap.enabled must be true"):
        history()
