"""Owns telling the rows that a batch brought by the day on which their events were made."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pyspark.sql import functions as F  # noqa: N812 - as Spark's users know it

from lake.envelope import day_text
from spark_jobs.session import CATALOG
from spark_jobs.tally import MADE_DAY

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

    from spark_jobs.commit import Committed

__all__ = ["by_day", "rows_by_day"]


def by_day(rows: DataFrame) -> dict[str, int]:
    """Rows with an `event_id`, counted by day."""
    found: dict[str, int] = {}
    for row in rows.groupBy(F.expr(MADE_DAY).alias("day")).count().collect():
        day = day_text(row["day"])
        found[day] = found.get(day, 0) + row["count"]
    return found


def rows_by_day(spark: SparkSession, table: str, committed: Committed, among: Column) -> dict[str, int]:
    """The rows that a commit added, by day: read from the files that its snapshot added, and no others.

    Where that snapshot is expired, or said again without its rows, they are looked for in the whole table.

    Args:
        spark: a session.
        table: `database.table`.
        committed: the commit.
        among: tells its rows from the table's others.
    """
    name = f"{CATALOG}.{table}"
    if committed.snapshot_id is not None:
        spark.catalog.refreshTable(name)
        snapshots = spark.table(f"{name}.snapshots").where(F.col("snapshot_id") == committed.snapshot_id)
        one = snapshots.select("parent_id").first()
        if one is not None:
            reader = spark.read.format("iceberg")
            if one["parent_id"] is None:
                reader = reader.option("versionAsOf", str(committed.snapshot_id))
            else:
                reader = reader.option("start-snapshot-id", str(one["parent_id"]))
                reader = reader.option("end-snapshot-id", str(committed.snapshot_id))
            found = by_day(reader.load(name).where(among))
            if sum(found.values()) == committed.rows:
                return found
    return by_day(spark.table(name).where(among))
