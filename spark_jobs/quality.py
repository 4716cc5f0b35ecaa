"""Owns measuring what a contract's quality rules ask of a batch's new rows.

What can be counted row by row is counted while the rows are written, as Spark's observed metrics: no row is read twice
for it. Spark may count rows of a task that it ran twice, so the sum is held to the number of rows in the staged
snapshot, and where that is another one, or another run has staged the batch, the snapshot's own rows are read. What
repeats is always looked for there, reading the columns in question only. Source:
https://spark.apache.org/docs/4.1.1/api/python/reference/pyspark.sql/api/pyspark.sql.Observation.html
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from functools import reduce
from operator import and_, or_
from typing import TYPE_CHECKING, Any

from pyspark.sql import Observation
from pyspark.sql import functions as F  # noqa: N812 - as Spark's users know it

from lake.contract import Primitive
from lake.quality import (
    Duplicates,
    Freshness,
    Invalid,
    Missing,
    Nulls,
    RowCount,
    Span,
    Volume,
    deviation,
    judge,
)
from spark_jobs.dedup import first_id
from spark_jobs.session import CATALOG
from spark_jobs.values import spark_type

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pyspark.sql import Column, DataFrame, SparkSession

    from lake.contract import Contract
    from lake.manifest import BatchId
    from lake.quality import Result, Rule, Scalar
    from lake.quality_log import QualityLog
    from spark_jobs.plan import Plan

__all__ = ["Watch", "count_day", "found_in", "measured"]

_ROWS = "rows"
_DAY_MS = 86_400_000


@dataclass(frozen=True)
class Watch:
    """Counts of rows on their way into a table."""

    contract: Contract
    observation: Observation

    @classmethod
    def over(cls, rows: DataFrame, contract: Contract) -> tuple[DataFrame, Watch]:
        """Rows that are counted while they are written."""
        watch = cls(contract, Observation())
        return rows.observe(watch.observation, *_counts(contract)), watch

    def counted(self) -> Mapping[str, Any]:
        """What was counted; only once the rows are written."""
        return self.observation.get


def found_in(
    spark: SparkSession,
    table: str,
    snapshot: tuple[int, int],
    plan: Plan,
    contract: Contract,
    *,
    log: QualityLog,
    watched: Mapping[str, Any] | None,
    has_history: bool,
) -> tuple[int, tuple[Result, ...]]:
    """Hold a staged batch to the rules.

    Args:
        spark: a session.
        table: `database.table`.
        snapshot: id of the batch's staged snapshot, and the rows that it added.
        plan: the batch's.
        contract: the dataset's.
        log: results of earlier batches.
        watched: what a watch counted while the rows were written; None where another run wrote them.
        has_history: whether anything was committed to the table.

    Returns:
        the batch's new rows, and what each rule found.
    """
    place, (snapshot_id, added) = f"{CATALOG}.{table}", snapshot
    staged = (
        spark.read.option("versionAsOf", snapshot_id)
        .table(place)
        .where((F.col("_batch") == plan.batch.number) & F.col("_object").isin([one.uri for one in plan.objects]))
    )
    counts = watched if watched is not None and watched[_ROWS] == added else None
    before = spark.table(place) if has_history else None
    return measured(staged, before, plan, contract, log=log, counts=counts)


def measured(
    rows_of: DataFrame,
    before: DataFrame | None,
    plan: Plan,
    contract: Contract,
    *,
    log: QualityLog | None,
    counts: Mapping[str, Any] | None = None,
) -> tuple[int, tuple[Result, ...]]:
    """Hold rows to the rules.

    Args:
        rows_of: the rows.
        before: what the table held before them; None: nothing.
        plan: of the batch, or the last of several.
        contract: the dataset's.
        log: results of earlier batches; None where a volume isn't to be looked at.
        counts: what is counted of them already.

    Returns:
        how many rows they are, and what each rule found.
    """
    # they may have been staged before the contract grew
    kinds = {one.name: spark_type(one.type) for one in contract.fields if one.name not in rows_of.columns}
    staged = rows_of.select("*", *(F.lit(None).cast(kind).alias(name) for name, kind in kinds.items()))
    if counts is None:
        first = staged.agg(*_counts(contract)).first()
        counts = first.asDict() if first is not None else {}
    rows = int(counts[_ROWS])
    values: dict[str, float | None] = {}
    for index, rule in enumerate(contract.quality):
        match rule.check:
            case RowCount():
                values[rule.name] = float(rows)
            case Volume() as check:
                values[rule.name] = _volume(check, plan.batch, rows, plan.planned_at_ms, log) if log else None
            case Duplicates() as check:
                values[rule.name] = float(_repeated(staged, before, check, plan.planned_at_ms))
            case Freshness():
                newest = counts[_name(index)]
                values[rule.name] = None if newest is None else (plan.planned_at_ms - int(newest)) / 1000
            case _:
                values[rule.name] = float(counts[_name(index)])
    return rows, judge(contract.quality, values, rows)


def _name(index: int) -> str:
    return f"rule_{index}"


def _counts(contract: Contract) -> list[Column]:
    """Sums over rows, by a name of each rule that counts rows one by one."""
    kinds = _kinds(contract)
    found = [F.count(F.lit(1)).alias(_ROWS)]
    for index, rule in enumerate(contract.quality):
        one = _count(rule, kinds)
        if one is not None:
            found.append(one.alias(_name(index)))
    return found


def _count(rule: Rule, kinds: Mapping[str, Primitive]) -> Column | None:
    match rule.check:
        case Nulls(name):
            return F.count_if(_column(name).isNull())
        case Missing(name, values):
            column = _column(name)
            there = [column == _literal(one, kinds[name]) for one in values if one is not None]
            if None in values:
                there.append(column.isNull())
            return F.count_if(F.coalesce(reduce(or_, there), F.lit(False)))
        case Invalid() as check:
            return F.count_if(~F.coalesce(_is_valid(check, kinds[check.column]), F.lit(True)))
        case Freshness(name):
            return F.max(F.unix_millis(_column(name).cast("timestamp")))
        case _:
            return None


def _is_valid(check: Invalid, kind: Primitive) -> Column:
    column = _column(check.column)
    parts = []
    if check.valid:
        parts.append(column.isin([_literal(one, kind) for one in check.valid]))
    if check.pattern is not None:
        parts.append(column.rlike(check.pattern))
    if check.minimum is not None:
        parts.append(column >= _literal(check.minimum, kind))
    if check.maximum is not None:
        # Spark takes NaN for larger than all numbers
        parts.append(column <= _literal(check.maximum, kind))
    if kind.name in {"float", "double"} and check.minimum is not None:
        parts.append(~F.isnan(column))
    return reduce(and_, parts)


def _column(path: str) -> Column:
    return F.col(".".join(f"`{part}`" for part in path.split(".")))


def _literal(value: Scalar, kind: Primitive) -> Column:
    if kind.name in {"date", "timestamp", "timestamptz", "float"}:
        return F.lit(value).cast(spark_type(kind))
    if kind.name == "decimal":
        # of a type of its own: the column's might have no room for it
        return F.lit(Decimal(str(value)))
    return F.lit(value)


def _kinds(contract: Contract) -> dict[str, Primitive]:
    found = {"event_time": Primitive("timestamptz"), "sequence": Primitive("long")}
    waiting = [("", one) for one in contract.fields]
    while waiting:
        above, one = waiting.pop()
        if isinstance(one.type, Primitive):
            found[f"{above}{one.name}"] = one.type
        else:
            inner = getattr(one.type, "fields", ())
            waiting += [(f"{above}{one.name}.", part) for part in inner]
    return found


def _repeated(staged: DataFrame, before: DataFrame | None, check: Duplicates, planned_at_ms: int) -> int:
    """Rows that repeat another of the batch, or one of the table's recent events."""
    names = [f"key_{index}" for index in range(len(check.columns))]
    columns = [_column(path).alias(name) for path, name in zip(check.columns, names, strict=True)]
    keys = staged.select(*columns).dropna().groupBy(*names).agg(F.count(F.lit(1)).alias("times"))
    known = F.lit(False)
    if before is not None and check.days:
        recent = before.where(F.col("event_id") >= first_id(planned_at_ms - check.days * _DAY_MS))
        there = recent.select(*columns).dropna().distinct().withColumn("known", F.lit(True))
        keys = keys.join(there, names, "left")
        known = F.coalesce("known", F.lit(False))
    total = keys.agg(F.sum(F.when(known, F.col("times")).otherwise(F.col("times") - 1)).alias("total")).first()
    return int(total["total"] or 0) if total is not None else 0


def _volume(check: Volume, batch: BatchId, rows: int, planned_at_ms: int, log: QualityLog) -> float | None:
    if check.of is Span.BATCHES:
        return deviation(rows, log.rows_before(batch, check.last))
    today = _day(planned_at_ms)
    ended = log.days_before(batch, today, check.last + 1)
    return deviation(ended[0][1], [count for _, count in ended[1:]]) if ended else None


def _day(moment_ms: int) -> str:
    return datetime.fromtimestamp(moment_ms / 1000, UTC).date().isoformat()


def count_day(log: QualityLog, plan: Plan, rows: int, rules: Sequence[Rule]) -> None:
    """Add a batch's rows to its day's, where a rule is about days."""
    if any(isinstance(one.check, Volume) and one.check.of is Span.DAYS for one in rules):
        log.count_day(plan.batch, _day(plan.planned_at_ms), rows)
