"""What maintenance does to files, on a real Spark, Glue and S3: deletes, manifests, and what no snapshot knows."""

from dataclasses import replace
from datetime import timedelta

import pytest

from lake.errors import FindingError
from tests.spark_jobs.upkeep import TIDY, Kept


def test_deletes_are_gathered_and_those_that_delete_nothing_go(kept):
    kept.set("write.delete.mode", "merge-on-read")
    kept.set("write.delete.granularity", "partition")
    kept.add(*range(20))
    kept.add(*range(20, 40))
    for number in range(6):  # Iceberg gathers five or more
        kept.delete(number, 20 + number)
    done = kept.maintain()
    left = kept.table().inspect.delete_files().num_rows
    assert (done.delete_files, done.delete_files_removed, left) == (6, 5, 1)
    assert kept.rows() == kept.model()
    # what they delete from is written anew, and nothing is left for them to do
    kept.compact()
    kept.sql(f"DELETE FROM {kept.name} WHERE sequence = 39")  # noqa: S608
    kept.wanted.remove(39)
    kept.compact()
    kept.maintain()
    assert kept.rows() == kept.model()


def test_deletes_without_a_file_left_are_removed(kept):
    kept.set("write.delete.mode", "merge-on-read")
    kept.set("write.delete.granularity", "partition")
    kept.add(*range(20))
    kept.add(*range(20, 40))
    kept.delete(3, 25)
    # a writer that isn't ours writes the files anew, and leaves the delete that names them behind
    kept.set("write.delete.mode", "copy-on-write")
    kept.delete(4, 26)
    assert kept.table().inspect.delete_files().num_rows == 1
    done = kept.maintain()
    assert (done.delete_files, done.delete_files_removed) == (1, 1)
    assert kept.table().inspect.delete_files().num_rows == 0
    assert kept.rows() == kept.model()


def test_many_manifests_become_few_and_few_are_left_alone(kept):
    for number in range(11):
        kept.insert(number)
    before = kept.maintain(dry=True)
    assert (before.manifests, before.manifests_after) == (11, 1)
    done = kept.maintain()
    assert (done.manifests, done.manifests_after) == (11, 1)
    table = kept.table()
    assert len(table.current_snapshot().manifests(table.io)) == 1
    assert kept.rows() == kept.model()
    assert kept.maintain().manifests_after == 1


ODD = ("a b", "ä€😀", "100%", "a%20b", "a+b", "q?x=1&y", "h#1", "c:d", "semi;colon", "quote'\"", "back\\slash", "e=f")


def test_files_that_no_snapshot_knows_are_shown_then_deleted_and_neighbours_are_left_alone(kept):
    kept.add(0)
    own, above = kept.prefix(), kept.prefix().removesuffix("/visits")
    strays = [
        *(f"{own}/data/event_time_day=2013-01-01/{odd}.parquet" for odd in ODD),
        f"{own}/metadata/stray-m0.avro",
        f"{own}/data/stray.parquet",
    ]
    neighbours = [
        f"{above}/visits2/data/a.parquet",
        f"{above}/visits_old/metadata/a.avro",
        f"{above}/visit/data/a.parquet",
        f"{above}/visits",
        f"{own}/datax/a.parquet",
        f"{own}/notes.txt",
        "processed/visits/data/a.parquet",
    ]
    for key in (*strays, *neighbours):
        kept.put(key)
    young = kept.maintain(timedelta(hours=71))
    assert (young.orphans, young.orphan_bytes) == (0, 0)
    before = kept.objects()
    shown = kept.maintain(dry=True)
    assert (shown.orphans, shown.orphan_bytes) == (len(strays), 5 * len(strays))
    assert kept.objects() == before
    said = []
    done = kept.maintain(say=said.append)
    assert (done.orphans, done.orphan_bytes) == (len(strays), 5 * len(strays))
    after = kept.objects()
    assert not after.keys() & set(strays)
    assert after.keys() >= set(neighbours)
    named = [one for one in said if "no snapshot knows" in one]
    assert len(named) == 6
    assert named[-1] == f"table {kept.database}.visits: no snapshot knows {len(strays) - 5} files more"
    assert kept.rows() == kept.model()


def test_a_file_of_a_day_is_never_asked_for_whatever_the_guard(worlds):
    hasty = replace(TIDY, upkeep=replace(TIDY.upkeep, orphan_hours=23))
    kept = Kept(worlds(jobs=hasty))
    kept.put(f"{kept.prefix()}/data/stray.parquet")
    with pytest.raises(FindingError, match=r"orphan files must be a day old at least, got a guard of 23:00:00"):
        kept.maintain()
    assert f"{kept.prefix()}/data/stray.parquet" in kept.objects()


def test_a_table_that_lies_elsewhere_has_no_file_looked_for(kept):
    kept.add(0)
    kept.sql(f"ALTER TABLE {kept.name} SET LOCATION 's3://{kept.bucket}/analytics-ready'")
    kept.put("analytics-ready/data/somebodys.parquet")
    with pytest.raises(FindingError, match=r"it lies at s3://\S+/analytics-ready, where \S+/visits is its own"):
        kept.maintain()
    assert "analytics-ready/data/somebodys.parquet" in kept.objects()
