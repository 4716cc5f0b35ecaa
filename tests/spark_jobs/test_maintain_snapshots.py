"""Which snapshots maintenance expires, on a real Spark, Glue and S3, and that no batch is forgotten with them."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from lake.declaration import Upkeep
from lake.manifest import BatchId, Lane
from lake.tables import QUARANTINE, glue_catalog
from spark_jobs import maintain
from spark_jobs.commit import History
from spark_jobs.history import BATCHES, COMPACTED_THROUGH, ancestors
from spark_jobs.session import literal
from tests.spark_jobs.upkeep import LATER, TIDY, Kept


def test_old_snapshots_go_and_so_do_the_files_that_only_they_knew(kept):
    for number in range(4):
        kept.add(number)
    kept.compact()
    kept.add(9)
    before = kept.objects(kept.prefix())
    done = kept.maintain()
    assert (done.snapshots, done.expired, done.waiting) == (6, 4, 0)
    assert kept.snapshots() == [one.snapshot_id for one in reversed(ancestors(kept.table()))]
    assert len(kept.snapshots()) == 2
    gone = {one for one in before.keys() - kept.objects(kept.prefix()).keys() if not one.endswith(".metadata.json")}
    assert done.files_deleted == len(gone)
    assert len([one for one in gone if one.endswith(".parquet")]) == 4
    assert kept.rows() == kept.model()
    again = kept.maintain()
    assert (again.snapshots, again.expired, again.files_deleted, again.orphans) == (2, 0, 0, 0)


def test_young_snapshots_stay_and_so_do_those_within_the_hour(kept):
    for number in range(4):
        kept.add(number)
    assert kept.maintain(timedelta(minutes=55)).expired == 0
    assert kept.maintain(timedelta(minutes=65)).expired == 2


def test_above_a_number_of_snapshots_the_oldest_go_although_they_are_young(worlds):
    upkeep = Upkeep(snapshot_hours=1000, snapshots_least=1, snapshots_most=3)
    kept = Kept(worlds(jobs=replace(TIDY, upkeep=upkeep)))
    for number in range(5):
        kept.add(number)
    assert (kept.maintain().expired, len(kept.snapshots())) == (2, 3)


def test_what_a_tag_or_a_branch_names_stays(kept):
    for number in range(5):
        kept.add(number)
    oldest = kept.snapshots()[0]
    kept.sql(f"ALTER TABLE {kept.name} CREATE TAG year_end AS OF VERSION {oldest}")
    kept.sql(f"ALTER TABLE {kept.name} CREATE BRANCH repair")
    kept.sql(f"DELETE FROM {kept.name}.branch_repair WHERE sequence = 0")  # noqa: S608
    kept.add(6)
    kept.add(7)
    done = kept.maintain()
    assert done.expired == 4
    assert len(kept.snapshots()) == 4
    tagged = kept.sql(f"SELECT sequence FROM {kept.name} VERSION AS OF 'year_end'")  # noqa: S608
    branched = kept.sql(f"SELECT sequence FROM {kept.name} VERSION AS OF 'repair'")  # noqa: S608
    assert [row["sequence"] for row in tagged] == [0]
    assert sorted(row["sequence"] for row in branched) == [1, 2, 3, 4]
    assert kept.rows() == kept.model()


def stage(kept, batch, number):
    """Write a row under a batch's id and don't publish it, as a run does that dies in between."""
    session = kept.world.spark.newSession()
    session.conf.set("spark.wap.id", str(batch))
    kept.made(session.range(number, number + 1)).coalesce(1).writeTo(kept.name).append()


def test_a_batch_that_is_staged_and_not_published_stays_however_old_and_is_published_later(kept):
    kept.add(0)
    batch = BatchId("solo", "visits", Lane.EVENTS, "solo", 2)
    stage(kept, batch, 77)
    for number in range(1, 4):
        # another series' commits, by which the staged snapshot's parent gets old
        kept.insert(number)
    done = kept.maintain(timedelta(days=1000))
    assert (done.expired, done.waiting) == (2, 1)
    kept.compact()
    kept.maintain(timedelta(days=1000))
    kept.sql(f"CALL lake.system.publish_changes({literal(kept.name)}, {literal(str(batch))})")
    kept.wanted.add(77)
    assert kept.rows() == kept.model()
    history = History(glue_catalog(kept.world.cloud), kept.database, "visits")
    assert history.last_number(batch.series) == 2
    done = kept.maintain(timedelta(days=1000))
    assert done.waiting == 0
    assert kept.rows() == kept.model()


def test_a_staged_batch_that_a_branch_holds_stays_and_is_no_waiting_one(kept):
    for number in range(3):
        kept.add(number)
    batch = BatchId("solo", "visits", Lane.EVENTS, "solo", 4)
    stage(kept, batch, 77)
    (staged,) = set(kept.snapshots()) - {one.snapshot_id for one in ancestors(kept.table())}
    kept.sql(f"ALTER TABLE {kept.name} CREATE BRANCH held_4 AS OF VERSION {staged}")
    for number in range(2):
        kept.insert(90 + number)
    done = kept.maintain(timedelta(days=1000))
    assert (done.waiting, staged in kept.snapshots()) == (0, True)
    kept.compact()
    held = kept.sql(f"SELECT sequence FROM {kept.name} VERSION AS OF 'held_4'")  # noqa: S608
    assert sorted(row["sequence"] for row in held) == [0, 1, 2, 77]
    kept.sql(f"ALTER TABLE {kept.name} DROP BRANCH held_4")
    kept.sql(f"CALL lake.system.publish_changes({literal(kept.name)}, {literal(str(batch))})")
    kept.wanted.add(77)
    assert kept.rows() == kept.model()


def test_a_staged_copy_of_a_batch_that_was_published_otherwise_goes(kept):
    kept.add(0)
    stage(kept, BatchId("solo", "visits", Lane.EVENTS, "solo", 1), 77)
    assert kept.maintain(timedelta(minutes=30)).expired == 0
    done = kept.maintain(timedelta(minutes=70))
    assert (done.expired, done.waiting) == (1, 0)
    assert kept.rows() == kept.model()


def forget(kept, number, lane="events#solo"):
    kept.world.cloud.dynamodb.delete_item(
        TableName=kept.world.lake.names.manifest_table(),
        Key={"pk": {"S": "solo#visits"}, "sk": {"S": f"batch#{lane}#{number:09d}"}},
    )


def test_a_batch_whose_snapshot_is_expired_is_never_appended_again(kept):
    receipts = []
    for number in range(4):
        report = kept.ingest(kept.world.event(number), kept.world.event(number), b"{bad")
        kept.wanted.add(number)
        receipts += report.batches
    moment = datetime.now(UTC) + LATER
    maintain.run(kept.world.spark, kept.world.lake, kept.world.cloud, clock=lambda: moment)
    assert len(kept.table().metadata.snapshots) == len(kept.table(QUARANTINE).metadata.snapshots) == 2
    assert kept.table().properties[BATCHES] == '{"visits/events/solo/solo": 4}'
    assert kept.table(QUARANTINE).properties[BATCHES] == '{"visits/events/solo/solo": 4}'
    # the manifest lost everything: what is there is told by the plans and the tables
    for number in range(1, 5):
        forget(kept, number)
    report = kept.world.ingest(listed=True)
    assert [(one.batch, one.counts, one.objects) for one in report.rebuilt] == [
        (one.batch, one.counts, one.objects) for one in receipts
    ]
    assert report.batches == ()
    assert kept.rows() == kept.model()
    assert len(kept.world.rows("solo", QUARANTINE)) == 4
    # and what comes next is numbered on
    assert [one.batch.number for one in kept.ingest(kept.world.event(9)).batches] == [5]


def test_a_table_whose_snapshots_are_all_of_other_writers_still_knows_its_numbers(kept):
    kept.add(0)
    kept.add(1)
    for number in range(3):
        kept.insert(90 + number)
        kept.maintain()
    history = History(glue_catalog(kept.world.cloud), kept.database, "visits")
    assert history.last_number("visits/events/solo/solo") == 2
    kept.add(2)
    assert kept.rows() == kept.model()


def test_how_far_compaction_has_come_is_remembered(kept):
    for number in range(3):
        kept.add(number)
    kept.compact()
    for number in range(3, 6):
        kept.sql(f"DELETE FROM {kept.name} WHERE sequence = {number}")  # noqa: S608
        kept.add(number)
    kept.maintain()
    assert kept.table().properties[COMPACTED_THROUGH] == f"3/{128 * 2**20}"
