"""Rewrites on a real Spark: proven before they are committed, whatever happens to the table meanwhile."""

import random
import threading
from dataclasses import replace
from itertools import pairwise

import pytest
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException

from lake.contract import Contract, Field, PartitionField, Primitive
from lake.declaration import Jobs
from lake.errors import FindingError
from lake.manifest import BatchId, Lane
from lake.tables import glue_catalog
from spark_jobs import compact
from spark_jobs.commit import History
from spark_jobs.compact_digest import sums
from spark_jobs.compact_look import plan
from spark_jobs.history import COMPACTED_THROUGH, ancestors, summary_of

STEPS = ("plan", "stage", "write", "prove")


class Visits:
    """The table of a world, and the sequence numbers that it is to hold."""

    def __init__(self, world):
        self.world = world
        self.database = world.lake.names.database("solo")
        self.name = f"lake.{self.database}.visits"
        self.spark = world.spark.newSession()
        self.wanted = set()

    def add(self, first, count, *, days=1):
        """Append rows as one write: a file for each day."""
        self.write(first, count, event_time=f"timestamp'2013-01-01' + make_dt_interval(int(id % {days}), 1, 0, id)")
        self.wanted |= set(range(first, first + count))

    def write(
        self, first, count, *, event_id="string(id)", event_time="timestamp'2013-01-01'", page="concat('/p', id)"
    ):
        """Append rows by expressions over their numbers, as one write."""
        values = {
            "event_id": event_id,
            "tenant": "'solo'",
            "dataset": "'visits'",
            "event_time": event_time,
            "producer_id": "'phone'",
            "sequence": "id",
            "schema_version": "'1.0.0'",
            "page": page,
            "seconds": "IF(id % 7 = 0, null, int(id % 100))",
            "_rescued": "string(null)",
            "_object": "'o'",
            "_batch": "1L",
        }
        rows = self.spark.range(first, first + count, 1, 1)
        rows.selectExpr(*(f"{value} AS {name}" for name, value in values.items())).writeTo(self.name).append()

    def delete(self, *numbers):
        self.delete_where(f"sequence IN ({', '.join(map(str, numbers))})")
        self.wanted -= set(numbers)

    def delete_where(self, condition):
        self.spark.sql(f"DELETE FROM {self.name} WHERE {condition}")  # noqa: S608 - the test's own

    def set(self, name, value):
        self.spark.sql(f"ALTER TABLE {self.name} SET TBLPROPERTIES ('{name}' = '{value}')")

    def merge_on_read(self):
        self.set("write.delete.mode", "merge-on-read")

    def rows(self):
        """The rows as Spark reads them now."""
        found = self.world.spark.newSession().table(self.name).select("sequence", "page", "seconds").collect()
        return sorted(tuple(row) for row in found)

    def model(self):
        """The rows that there are to be."""
        return [(one, f"/p{one}", None if one % 7 == 0 else one % 100) for one in sorted(self.wanted)]

    def compact(self, **options):
        given = {"datasets": ["visits"], "owners": ["solo"], **options}
        (done,) = compact.run(self.world.spark, self.world.lake, self.world.cloud, **given).tables
        return done

    def table(self):
        return self.world.table("solo")

    def files(self):
        return self.table().inspect.data_files().to_pylist()

    def objects(self):
        """Keys of data files in the bucket, whether a snapshot knows them or not."""
        prefix = self.table().location().partition("/")[2].partition("/")[2].partition("/")[2] + "/data/"
        pages = self.world.cloud.s3.get_paginator("list_objects_v2").paginate(
            Bucket=self.world.bucket("solo"), Prefix=prefix
        )
        return {one["Key"] for page in pages for one in page.get("Contents", [])}


@pytest.fixture
def visits(world):
    return Visits(world)


def once(step, act):
    """Act after the first such step, and no more."""
    done = []

    def after(at):
        if at == step and not done:
            done.append(at)
            act()

    return after


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("mode", ["merge-on-read", "copy-on-write"])
def test_no_row_that_is_deleted_meanwhile_comes_back(visits, mode, step):
    visits.set("write.delete.mode", mode)
    for number in range(4):
        visits.add(number * 20, 20)
    visits.delete(3, 25)
    done = visits.compact(after=once(step, lambda: visits.delete(41, 62)))
    assert [one.count("somebody changed it meanwhile") for one in done.conflicts] == [1]
    assert not done.rewritten
    assert visits.rows() == visits.model()
    again = visits.compact()
    assert (again.rewritten, again.conflicts) == (True, ())
    assert visits.rows() == visits.model()
    assert sorted(row["sequence"] for row in visits.world.rows("solo")) == sorted(visits.wanted)
    assert len(visits.files()) == 1


@pytest.mark.parametrize("step", STEPS)
def test_rows_that_are_added_meanwhile_are_no_obstacle(visits, step):
    for number in range(3):
        visits.add(number * 20, 20)
    done = visits.compact(after=once(step, lambda: visits.add(100, 20)))
    assert (done.rewritten, done.conflicts) == (True, ())
    assert visits.rows() == visits.model()
    assert len(visits.files()) == 2


@pytest.mark.parametrize("step", STEPS)
def test_deletes_in_another_partition_are_no_obstacle(visits, step):
    visits.merge_on_read()
    for number in range(3):
        visits.add(number * 20, 20)
    other = 1000
    visits.write(other, 1, event_time="timestamp'2014-05-05'")
    visits.wanted.add(other)
    done = visits.compact(after=once(step, lambda: visits.delete(other)))
    assert (done.rewritten, done.conflicts) == (True, ())
    assert visits.rows() == visits.model()


def test_writers_that_go_on_all_the_time_find_every_row_right(visits):
    """Rows come and go in a thread while compaction runs again and again."""
    visits.merge_on_read()
    for number in range(6):
        visits.add(number * 30, 30)
    chance, stop, refused = random.Random(5), threading.Event(), []  # noqa: S311 - no secret

    def write():
        following = 1000
        while not stop.is_set():
            try:
                if chance.random() < 0.5:
                    visits.add(following, 10)
                    following += 10
                else:
                    gone = chance.sample(sorted(visits.wanted), 3)
                    visits.delete(*gone)
            except (PySparkException, Py4JJavaError) as error:
                refused.append(error)  # Iceberg refused it, as compaction was faster: nothing was changed
            stop.wait(chance.random())

    writer = threading.Thread(target=write)
    writer.start()
    try:
        done = [visits.compact() for _ in range(8)]
    finally:
        stop.set()
        writer.join()
    # on a machine that is busy the writer may win each time; once it rests there is nobody to win against
    done.append(visits.compact())
    assert any(one.rewritten for one in done)
    assert visits.rows() == visits.model()
    assert sorted(row["sequence"] for row in visits.world.rows("solo")) == sorted(visits.wanted)


def test_a_deleted_row_is_gone_from_the_files_and_so_is_what_deleted_it(visits):
    visits.merge_on_read()
    for number in range(2):
        visits.add(number * 20, 20)
    visits.delete(3, 25)
    assert visits.table().inspect.delete_files().num_rows == 2
    visits.compact()
    assert visits.rows() == visits.model()
    assert visits.table().inspect.delete_files().num_rows == 0
    assert [one["record_count"] for one in visits.files()] == [38]


def test_a_delete_that_names_several_files_goes_once_all_of_its_partition_are_rewritten(visits):
    visits.merge_on_read()
    visits.set("write.delete.granularity", "partition")
    for number in range(3):
        visits.add(number * 20, 20)
    visits.delete(3, 25, 45)
    assert visits.table().inspect.delete_files().num_rows == 1
    visits.compact()
    assert visits.table().inspect.delete_files().num_rows == 0
    assert visits.rows() == visits.model()


def test_a_partition_with_nothing_left_in_it_loses_its_files(visits):
    visits.merge_on_read()
    visits.add(0, 10)
    visits.add(10, 10)
    for rest in (0, 1):
        visits.delete_where(f"sequence % 2 = {rest} AND seconds IS NOT NULL")
        visits.delete_where(f"sequence % 2 = {rest} AND seconds IS NULL")
    visits.compact()
    assert (visits.rows(), visits.files()) == ([], [])


def test_files_with_other_content_than_was_read_are_never_committed(visits):
    visits.set("write.parquet.compression-codec", "uncompressed")
    for number in range(3):
        visits.add(number * 20, 20)
    before = visits.objects()
    bucket = visits.world.bucket("solo")

    def spoil():
        (key,) = visits.objects() - before
        body = visits.world.cloud.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
        assert b"/p17" in body
        visits.world.cloud.s3.put_object(Bucket=bucket, Key=key, Body=body.replace(b"/p17", b"/p71"))

    snapshot = visits.table().current_snapshot()
    wanted = (
        rf"table {visits.database}.visits, event_time_day=2013-01-01: 60 rows went in and 60 came out, or with other"
    )
    with pytest.raises(FindingError, match=wanted):
        visits.compact(after=once("write", spoil))
    assert visits.table().current_snapshot() == snapshot
    assert visits.objects() == before
    assert visits.rows() == visits.model()


def test_a_value_that_moved_to_the_neighbouring_column_is_other_content(spark):
    rows, moved, twice = (spark.createDataFrame([one], "a int, b int") for one in [(1, None), (None, 1), (1, 1)])
    assert len({tuple(one.agg(*sums(one)).collect()[0]) for one in (rows, moved, twice)}) == 3


def test_a_batch_that_is_staged_is_published_after_a_compaction_as_before(visits):
    for number in range(3):
        visits.add(number * 20, 20)
    batch = BatchId("solo", "visits", Lane.EVENTS, "solo", 1)
    session = visits.world.spark.newSession()
    session.conf.set("spark.wap.id", str(batch))
    visits.spark, plain = session, visits.spark
    visits.add(200, 20)
    visits.spark = plain
    done = visits.compact()
    assert (done.rewritten, len(visits.rows())) == (True, 60)
    session.conf.unset("spark.wap.id")
    session.sql(f"CALL lake.system.publish_changes('{visits.name}', '{batch}')").collect()
    assert visits.rows() == visits.model()
    history = History(glue_catalog(visits.world.cloud), visits.database, "visits")
    assert history.last_number(batch.series) == 1
    visits.compact()
    history.refresh()
    assert history.last_number(batch.series) == 1
    assert visits.rows() == visits.model()


def test_many_partitions_are_rewritten_in_one_commit(visits):
    for number in range(3):
        visits.add(number * 40, 40, days=12)
    before = len(visits.table().metadata.snapshots)
    visits.compact()
    assert len(visits.table().metadata.snapshots) == before + 1
    assert len(visits.files()) == 12
    assert visits.rows() == visits.model()


def test_what_is_larger_than_one_file_becomes_several_that_do_not_overlap(worlds):
    small = replace(Jobs(), compact_target_mib=1)
    visits = Visits(worlds(jobs=small))
    visits.set("write.parquet.compression-codec", "uncompressed")
    for number in range(4):
        moment = "timestamp'2013-01-01' + make_dt_interval(0, 0, 0, (id * 7919) % 86400)"
        visits.write(number * 9000, 9000, event_time=moment, page=f"concat('{'x' * 40}', uuid())")
    there = len(visits.files())
    before = visits.rows()
    done = visits.compact()
    assert (done.files_before, done.files_after) == (there, len(visits.files()))
    assert 3 <= done.files_after <= 6
    assert visits.rows() == before
    spans = sorted(
        (one["readable_metrics"]["event_time"]["lower_bound"], one["readable_metrics"]["event_time"]["upper_bound"])
        for one in visits.files()
    )
    assert all(one[1] <= other[0] for one, other in pairwise(spans))
    assert {one["sort_order_id"] for one in visits.files()} == {1}
    assert not visits.compact().rewritten


def test_a_table_that_is_sorted_by_words_and_has_no_partitions_is_split_by_a_sample(worlds):
    contract = Contract(
        dataset="visits",
        version="1.0.0",
        fields=(Field("page", Primitive("string")), Field("seconds", Primitive("int"))),
        partition=(),
        sort=("page", "event_time"),
    )
    visits = Visits(worlds(contract, replace(Jobs(), compact_target_mib=1)))
    visits.set("write.parquet.compression-codec", "uncompressed")
    for number in range(4):
        visits.write(number * 9000, 9000, event_id="uuid()", page="uuid()")
    before = visits.rows()
    done = visits.compact()
    assert 2 <= done.files_after <= 5
    assert visits.rows() == before
    assert visits.world.spark.table(visits.name).select("page").distinct().count() == 36_000
    assert not visits.compact().rewritten


@pytest.mark.parametrize(
    "terms", ["bucket[4](page)", "truncate[2](page)", "seconds", "month(event_time),bucket[2](page)"]
)
def test_partitions_of_every_kind_are_gathered(worlds, terms):
    parts = []
    for term in terms.split(","):
        transform, _, column = term.rstrip(")").rpartition("(")
        parts.append(PartitionField(transform or "identity", column))
    contract = Contract(
        dataset="visits",
        version="1.0.0",
        fields=(Field("page", Primitive("string")), Field("seconds", Primitive("int"))),
        partition=tuple(parts),
        sort=("event_time",),
    )
    visits = Visits(worlds(contract))
    for number in range(2):
        visits.add(number * 100, 15, days=40)
    before = len(visits.files())
    visits.compact()
    assert len(visits.files()) < before
    assert visits.rows() == visits.model()
    assert not visits.compact().rewritten


def test_the_next_look_opens_only_what_is_new(visits):
    for number in range(3):
        visits.add(number * 20, 20, days=3)
    visits.compact()
    table = visits.table()
    assert summary_of(ancestors(table)[0]).get(COMPACTED_THROUGH) == f"3/{128 * 2**20}"
    (quiet,) = plan(visits.world.lake, visits.world.cloud, datasets=["visits"], owners=["solo"]).tables
    assert quiet.groups == ()
    visits.add(100, 1)
    (found,) = plan(visits.world.lake, visits.world.cloud, datasets=["visits"], owners=["solo"]).tables
    assert [one.place.name for one in found.groups] == ["event_time_day=2013-01-01"]


def test_what_the_budget_left_is_done_by_the_next_run(worlds):
    visits = Visits(worlds(jobs=replace(Jobs(), compact_max_mib=1)))
    visits.set("write.parquet.compression-codec", "uncompressed")
    for number in range(2):
        for day in (1, 2):
            page = f"concat('{'x' * 200}', uuid())"
            visits.write(number * 1500, 1500, event_time=f"timestamp'2013-01-0{day}'", page=page)
    before = visits.rows()
    first = visits.compact()
    assert (first.files_before, first.files_after, first.left) == (4, 3, 1)
    second = visits.compact()
    assert (second.files_before, second.files_after, second.left) == (3, 2, 0)
    assert not visits.compact().rewritten
    assert visits.rows() == before
