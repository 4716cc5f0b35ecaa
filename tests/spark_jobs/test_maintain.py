"""Maintenance on a real Spark, Glue and S3: what may go goes, and rows, batches and neighbours stay."""

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
from pyspark.sql import functions as F  # noqa: N812 - as Spark's users know it

from athena.session import Session
from athena.trino import TrinoServer, TrinoSettings
from lake.declaration import Jobs, Upkeep
from lake.errors import EnvironmentProblemError, FindingError
from lake.manifest import BatchId, Lane
from lake.tables import QUARANTINE, glue_catalog
from spark_jobs import compact, maintain
from spark_jobs.commit import History, commit
from spark_jobs.history import BATCHES, COMPACTED_THROUGH, ancestors
from spark_jobs.session import literal

STEPS = ("remember", "expire", "deletes", "manifests", "orphans")
TIDY = replace(Jobs(), ingest_objects=10, upkeep=Upkeep(snapshot_hours=1, snapshots_least=2))
LATER = timedelta(hours=100)


class Kept:
    """A lake whose table `visits` is maintained, and the sequence numbers that it is to hold."""

    def __init__(self, world):
        self.world = world
        self.database = world.lake.names.database("solo")
        self.name = f"lake.{self.database}.visits"
        self.bucket = world.bucket("solo")
        self.wanted = set()
        self.batches = 0

    def ingest(self, *records):
        """Deliver an object and ingest it."""
        self.batches += 1
        self.world.deliver(f"a{self.batches}", records)
        return self.world.ingest(tenants=["solo"])

    def add(self, *numbers):
        """Append rows as the next batch of a series, by the commit that ingest makes."""
        self.batches += 1
        session = self.world.spark.newSession()
        batch = BatchId("solo", "visits", Lane.EVENTS, "solo", self.batches)
        history = History(glue_catalog(self.world.cloud), self.database, "visits")
        mine = F.col("_batch") == self.batches
        rows = self.made(session.createDataFrame([(one,) for one in numbers], "id long"), _batch=f"{self.batches}L")
        commit(session, history, batch, rows.coalesce(1), distribution="none", among=mine)
        self.wanted |= set(numbers)

    def made(self, numbered, **values):
        """Rows of the table's columns for numbers in `id`."""
        given = {"sequence": "id", "event_time": "timestamp'2013-01-01 10:00:00'", "page": "'/'", **values}
        return numbered.selectExpr(
            *(
                f"CAST({given.get(name, 'NULL')} AS {kind}) AS {name}"
                for name, kind in numbered.sparkSession.table(self.name).dtypes
            )
        )

    def insert(self, number):
        """A row of somebody else's, in no batch, written by PyIceberg."""
        moment = pa.array([datetime(2013, 1, 1, tzinfo=UTC)], pa.timestamp("us", "UTC"))
        self.table().append(pa.table({"sequence": pa.array([number], pa.int64()), "event_time": moment}))
        self.wanted.add(number)

    def sql(self, text, **settings):
        session = self.world.spark.newSession()
        for name, value in settings.items():
            session.conf.set(name, value)
        return session.sql(text).collect()

    def set(self, name, value):
        self.sql(f"ALTER TABLE {self.name} SET TBLPROPERTIES ('{name}' = '{value}')")

    def delete(self, *numbers):
        self.sql(f"DELETE FROM {self.name} WHERE sequence IN ({', '.join(map(str, numbers))})")  # noqa: S608
        self.wanted -= set(numbers)

    def maintain(self, later=LATER, **options):
        given = {"datasets": ["visits"], "owners": ["solo"], **options}
        moment = datetime.now(UTC) + later
        (done,) = maintain.run(
            self.world.spark, self.world.lake, self.world.cloud, clock=lambda: moment, **given
        ).tables
        return done

    def compact(self):
        (done,) = compact.run(
            self.world.spark, self.world.lake, self.world.cloud, datasets=["visits"], owners=["solo"]
        ).tables
        return done

    def table(self, name="visits"):
        return self.world.table("solo", name)

    def snapshots(self):
        return [one.snapshot_id for one in self.table().metadata.snapshots]

    def rows(self):
        """Sequence numbers, as PyIceberg and Spark read them."""
        ours = sorted(row["sequence"] for row in self.world.rows("solo"))
        found = self.sql(f"SELECT sequence FROM {self.name}")  # noqa: S608
        assert sorted(row["sequence"] for row in found) == ours
        return ours

    def model(self):
        return sorted(self.wanted)

    def put(self, key):
        self.world.cloud.s3.put_object(Bucket=self.bucket, Key=key, Body=b"stray")

    def prefix(self):
        return self.table().location().removeprefix(f"s3://{self.bucket}/")

    def objects(self, under=""):
        """Every object of the bucket below a prefix, with what tells its content."""
        pages = self.world.cloud.s3.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=under)
        return {one["Key"]: one["ETag"] for page in pages for one in page.get("Contents", [])}


@pytest.fixture
def kept(worlds):
    return Kept(worlds(jobs=TIDY))


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


def untidy(kept):
    """A table with something to do for every step."""
    kept.set("write.delete.mode", "merge-on-read")
    kept.set("write.delete.granularity", "partition")
    for number in range(3):
        kept.add(*range(number * 20, number * 20 + 20))
    for number in range(11):
        kept.insert(500 + number)
    kept.delete(3, 25)
    kept.delete(4, 45)
    kept.put(f"{kept.prefix()}/data/stray.parquet")


class Killed(BaseException):
    """The run ends here, as by a kill: nothing of it goes on."""


@pytest.mark.parametrize("step", STEPS)
def test_killed_after_any_step_the_next_run_does_the_rest(kept, step):
    untidy(kept)

    def die(at):
        if at == step:
            raise Killed

    with pytest.raises(Killed):
        kept.maintain(after=die)
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
