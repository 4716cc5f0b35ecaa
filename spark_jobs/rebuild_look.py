"""Owns looking at what batches left behind: lines of their objects, rows of the tables, records in quarantine."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
from pyspark.sql import functions as F  # noqa: N812 - as Spark's users know it

from lake.envelope import day_text
from lake.lines import Block, Broken
from lake.manifest import NO_TENANT
from lake.ranges import Ranges
from spark_jobs.objects import StoredObject, read_objects
from spark_jobs.session import CATALOG
from spark_jobs.tally import IDENTIFIED, MADE_DAY

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pyspark.sql import Column, DataFrame, SparkSession

    from lake.clients import Cloud
    from lake.lines import Piece
    from spark_jobs.plan import Plan

__all__ = ["Found", "look_at_events", "look_at_refused", "rows_of"]

_LINE = pa.schema(
    [
        ("object", pa.string()),
        ("position", pa.int64()),
        ("event_id", pa.string()),
        ("producer_id", pa.string()),
        ("sequence", pa.int64()),
    ]
)
_LINE_SQL = "object string, position bigint, event_id string, producer_id string, sequence bigint"
_ROWS = 20_000  # in an Arrow batch
_Places = dict[int, Counter[tuple[str, str]]]


@dataclass
class Found:
    """What batches left, by their numbers."""

    good: _Places = field(default_factory=dict)
    """Lines of objects that were not refused, by tenant and day."""
    bad: _Places = field(default_factory=dict)
    """Records in quarantine, by tenant and day."""
    unidentified: _Places = field(default_factory=dict)
    rows: _Places = field(default_factory=dict)
    """In the data table, by tenant and day."""
    seen: dict[tuple[int, str, str, str], Ranges] = field(default_factory=dict)
    """By (number, tenant, producer, day)."""
    objects: Counter[tuple[int, str]] = field(default_factory=Counter)
    """Records by number and object."""
    broken: dict[int, set[str]] = field(default_factory=dict)
    """Objects that can't be read now, and could when they were taken."""


def rows_of(plan: Plan) -> Column:
    """Tells a batch's rows in the data table from others."""
    return (F.col("_batch") == plan.batch.number) & F.col("_object").isin([one.uri for one in plan.objects])


def look_at_events(
    spark: SparkSession, cloud: Cloud, plans: Sequence[Plan], *, rows: str, refused: str, tenant: str
) -> Found:
    """What batches of events left.

    Args:
        spark: a session.
        cloud: where the objects are.
        plans: of the batches, all of one series.
        rows: the data table, `database.table`.
        refused: the quarantine table.
        tenant: of the objects' prefix, and so of every good record.
    """
    taken = spark.createDataFrame(
        [(plan.batch.number, str(plan.batch), one.uri) for plan in plans for one in plan.objects],
        "number int, batch string, object string",
    ).persist()
    kept = _refused(spark, plans, refused).persist()
    stored = sorted({one.uri: one for plan in plans for one in plan.objects}.values())
    lines = _lines(spark, cloud, stored).persist()
    try:
        found = Found()
        _count_refused(found, kept)
        mine = lines.where("position IS NOT NULL").join(taken, "object")
        # an object that couldn't be read then is one record, whatever it is now
        known = kept.where("position IS NULL").select("batch", "object")
        mine = mine.join(known, ["batch", "object"], "left_anti")
        good = mine.join(kept.select("batch", "object", "position"), ["batch", "object", "position"], "left_anti")
        _count(found, found.good, good.withColumn("tenant", F.lit(tenant)))
        table = spark.table(f"{CATALOG}.{rows}").select("event_id", "_object", "_batch")
        both = (table["_batch"] == taken["number"]) & (table["_object"] == taken["object"])
        _sum(
            found.rows, table.join(F.broadcast(taken), both).select("number", F.lit(tenant).alias("tenant"), "event_id")
        )
        known = kept.where("position IS NULL").select("batch", "object")
        lost = lines.where("position IS NULL").join(taken, "object").join(known, ["batch", "object"], "left_anti")
        for row in lost.select("number", "object").collect():
            found.broken.setdefault(row["number"], set()).add(row["object"])
        _merge_seen(found, good.withColumn("tenant", F.lit(tenant)), kept)
        if found.broken:
            _seen_in_rows(found, taken, spark, rows)
        return found
    finally:
        for one in (taken, kept, lines):
            one.unpersist()


def look_at_refused(spark: SparkSession, plans: Sequence[Plan], *, refused: str) -> Found:
    """What batches left of which every record is in quarantine, as it was told apart then.

    Args:
        spark: a session.
        plans: of the batches, all of one series.
        refused: the quarantine table, `database.table`.
    """
    found = Found()
    kept = _refused(spark, plans, refused).persist()
    try:
        _count_refused(found, kept)
        _merge_seen(found, kept)
    finally:
        kept.unpersist()
    return found


def _refused(spark: SparkSession, plans: Sequence[Plan], table: str) -> DataFrame:
    numbers = spark.createDataFrame([(str(one.batch), one.batch.number) for one in plans], "batch string, number int")
    rows = spark.table(f"{CATALOG}.{table}").withColumnRenamed("_batch", "batch")
    columns = ("number", "batch", "object", "position", "tenant", "event_id", "producer_id", "sequence")
    return rows.join(F.broadcast(numbers), "batch").select(*columns)


def _count_refused(found: Found, kept: DataFrame) -> None:
    _count(found, found.bad, kept)


def _count(found: Found, into: _Places, records: DataFrame) -> None:
    """Count records by tenant, day and object."""
    dated = records.selectExpr(
        "number", "object", f"coalesce(tenant, '{NO_TENANT}') AS tenant", f"coalesce({MADE_DAY}, -1) AS day",
        f"({IDENTIFIED}) AS identified",
    )  # fmt: skip
    by = [F.col(name) for name in ("number", "object", "tenant", "day", "identified")]
    sums = dated.groupingSets([by[:2], [by[0], *by[2:]]], *by)
    for row in sums.agg(F.count("*").alias("records"), F.grouping("object").alias("of_a_day")).collect():
        if not row["of_a_day"]:
            found.objects[row["number"], row["object"]] += row["records"]
            continue
        key = (row["tenant"], day_text(row["day"]))
        into.setdefault(row["number"], Counter())[key] += row["records"]
        if not row["identified"]:
            found.unidentified.setdefault(row["number"], Counter())[key] += row["records"]


def _sum(into: _Places, records: DataFrame) -> None:
    for row in records.groupBy("number", "tenant", F.expr(MADE_DAY).alias("day")).count().collect():
        into.setdefault(row["number"], Counter())[row["tenant"], day_text(row["day"])] += row["count"]


def _merge_seen(found: Found, *many: DataFrame) -> None:
    columns = ("number", "tenant", "producer_id", "event_id", "sequence")
    for records in many:
        dated = records.where(IDENTIFIED).select(*columns, F.expr(MADE_DAY).alias("day"))
        # in a run without gaps, number minus rank stays the same; what came twice has the rank of its twin
        rank = "dense_rank() OVER (PARTITION BY number, tenant, producer_id, day ORDER BY sequence)"
        runs = dated.selectExpr("number", "tenant", "producer_id", "day", "sequence", f"sequence - {rank} AS run")
        ends = runs.groupBy("number", "tenant", "producer_id", "day", "run").agg(
            F.min("sequence").alias("first"), F.max("sequence").alias("last")
        )
        spans: dict[tuple[int, str, str, str], list[tuple[int, int]]] = {}
        for row in ends.collect():
            key = (row["number"], row["tenant"], row["producer_id"], day_text(row["day"]))
            spans.setdefault(key, []).append((row["first"], row["last"]))
        for key, given in spans.items():
            found.seen[key] = Ranges.of((*found.seen.get(key, Ranges()).spans, *given))


def _seen_in_rows(found: Found, taken: DataFrame, spark: SparkSession, rows: str) -> None:
    """Numbers that the data table tells, of batches whose objects don't any more."""
    numbers = spark.createDataFrame([(one,) for one in found.broken], "number int")
    table = spark.table(f"{CATALOG}.{rows}").select(
        "tenant", "producer_id", "sequence", "event_id", "_object", "_batch"
    )
    mine = taken.select("number", F.col("object").alias("_object")).distinct().join(numbers, "number")
    both = (table["_batch"] == mine["number"]) & (table["_object"] == mine["_object"])
    _merge_seen(found, table.join(F.broadcast(mine), both).drop("_object"))


def _lines(spark: SparkSession, cloud: Cloud, objects: Sequence[StoredObject]) -> DataFrame:
    """Every line with whose it is; an object that can't be read is one without a position."""

    def render(pieces: Iterator[Piece]) -> Iterator[pa.RecordBatch]:
        rows: list[tuple[Any, ...]] = []
        for piece in pieces:
            if isinstance(piece, Broken):
                rows.append((piece.uri, None, None, None, None))
            elif isinstance(piece, Block):  # a line too long is in quarantine
                rows += [(piece.uri, position, *_identity(line)) for position, line in piece.lines()]
            if len(rows) >= _ROWS:
                yield _batch(rows)
                rows = []
        yield _batch(rows)

    return read_objects(spark, objects, cloud, render, _LINE_SQL)


def _batch(rows: list[tuple[Any, ...]]) -> pa.RecordBatch:
    turned: list[Any] = list(zip(*rows, strict=True)) if rows else [()] * len(_LINE)
    return pa.record_batch(
        [pa.array(column, kind) for column, kind in zip(turned, _LINE.types, strict=True)], schema=_LINE
    )


def _identity(line: bytes) -> tuple[str | None, str | None, int | None]:
    """Of a good record; what is none is in quarantine, and is told there."""
    try:
        record: Mapping[str, Any] = orjson.loads(line)
        event_id, producer, sequence = (record.get(name) for name in ("event_id", "producer_id", "sequence"))
    except (ValueError, AttributeError):
        return None, None, None
    whole = int(sequence) if isinstance(sequence, int | float) and abs(sequence) < 2**63 else None
    return (
        event_id if isinstance(event_id, str) else None,
        producer if isinstance(producer, str) else None,
        whole,
    )
