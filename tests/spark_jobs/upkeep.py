"""A lake whose table is maintained, for the tests of maintenance."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa
from pyspark.sql import functions as F  # noqa: N812 - as Spark's users know it

from lake.declaration import Jobs, Upkeep
from lake.manifest import BatchId, Lane
from lake.tables import glue_catalog
from spark_jobs import compact, maintain
from spark_jobs.commit import History, commit

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
