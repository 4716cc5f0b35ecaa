"""Owns a backfill's branch of a table: written batch by batch, audited, moved to."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from py4j.protocol import Py4JError  # type: ignore[import-untyped]
from pyspark.errors import PySparkException
from pyspark.sql import functions as F  # noqa: N812 - as Spark's users know it

from lake.errors import FindingError, TerminalError
from lake.manifest import Counts
from spark_jobs.failures import conflict_of
from spark_jobs.history import PUBLISHED
from spark_jobs.kept import kept_records
from spark_jobs.lanes import Events
from spark_jobs.quality import measured
from spark_jobs.session import CATALOG, literal
from spark_jobs.sheets import POSITION
from spark_jobs.tombstones import living

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from pyspark.sql import DataFrame, SparkSession

    from lake.clients import Cloud
    from lake.manifest import BatchId, Manifest
    from spark_jobs.commit import History
    from spark_jobs.plan import Plan
    from spark_jobs.series import Series

__all__ = ["Branch", "BranchAudit", "check_name"]

_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")
_RECORDS, _REFUSED_RECORDS = "lakehose.records", "lakehose.refused-records"
"""In the summary of a snapshot of a branch: a batch's records, and how many of them were refused."""


@dataclass(frozen=True)
class BranchAudit:
    """What a branch holds beyond the table it was made from."""

    counts: Counts
    """Of the objects' records; `quarantined` are those that would be."""
    rows_before: int
    rows_after: int
    twice: int
    """Events that the branch holds more than once."""
    wrong: int
    """Rows of another tenant or dataset, or without an id or a time."""

    @property
    def told(self) -> str:
        """In words."""
        added = self.rows_after - self.rows_before
        told = f"{self.counts.records:,} records, {added:,} rows new, {self.counts.duplicates:,} duplicates"
        return f"{told}, {self.counts.quarantined:,} refused"


def check_name(name: str) -> None:
    """Hold a branch's name to what SQL takes.

    Raises:
        TerminalError: it is none, or the table's own.
    """
    if name == "main" or not _NAME.fullmatch(name):
        raise TerminalError(f"--branch: got {name!r}, allowed are a-z, 0-9 and _, a letter first, but not main")


@dataclass(frozen=True)
class Branch:
    """A branch of the table of a series."""

    spark: SparkSession
    cloud: Cloud
    manifest: Manifest
    history: Callable[[], History]
    series: Series
    name: str

    @property
    def _table(self) -> str:
        return f"{CATALOG}.{self.history().name}"

    def _refs(self) -> dict[str, int]:
        rows = self.spark.table(f"{self._table}.refs").select("name", "snapshot_id").collect()
        return {row["name"]: row["snapshot_id"] for row in rows}

    def main(self) -> int | None:
        """The table's own snapshot."""
        return self._refs().get("main")

    def exists(self) -> bool:
        """Whether there is a branch of this name."""
        return self.name in self._refs()

    def refuse_anothers(self) -> None:
        """Leave a branch alone that this backfill didn't make.

        Raises:
            TerminalError: there is one.
        """
        if self.exists():
            raise TerminalError(
                f"--branch: {self.name!r} is there already, and isn't this backfill's; give another name, or drop it"
            )

    def base(self) -> int:
        """The table's own snapshot, to make the branch from.

        Raises:
            TerminalError: the table is empty: there is nothing to compare with.
        """
        base = self.main()
        if base is None:
            raise TerminalError(f"--branch: table {self.history().name} is empty; leave the branch out")
        return base

    def create(self, base: int) -> None:
        """Make the branch from a snapshot of the table."""
        self.spark.sql(f"ALTER TABLE {self._table} CREATE BRANCH `{self.name}` AS OF VERSION {base}")

    def drop(self) -> None:
        """Drop the branch, if there is one."""
        self.spark.sql(f"ALTER TABLE {self._table} DROP BRANCH IF EXISTS `{self.name}`")

    def _summaries(self, base: int | None) -> list[dict[str, str]]:
        """Summaries of the branch's snapshots from its head back to where it was made, or to the first."""
        rows = self.spark.table(f"{self._table}.snapshots").select("snapshot_id", "parent_id", "summary").collect()
        by_id = {row["snapshot_id"]: row for row in rows}
        found: list[dict[str, str]] = []
        at: int | None = self._refs()[self.name]
        while at is not None and at != base and at in by_id:
            found.append(by_id[at]["summary"])
            at = by_id[at]["parent_id"]
        return found

    def has(self, batch: BatchId) -> bool:
        """Whether a batch's rows are on the branch."""
        return any(_RECORDS in one and one[PUBLISHED] == str(batch) for one in self._summaries(None))

    def write(self, plan: Plan) -> None:
        """Append a batch's rows that the branch hasn't."""
        dataset = self.series.stream.dataset
        rules = Events(dataset.contract, self.series.tenant, plan.planned_at_ms)
        with kept_records(self.spark, plan.objects, self.cloud, rules) as records:
            counted = records.tally()
            there = None
            if counted.event_ids:
                there = self._rows().where(F.col("event_id").between(*counted.event_ids)).select("event_id")
            fresh = records.rows(counted, there)
            fresh = living(fresh, self.manifest, self.series.tenant, dataset.name, counted.event_ids)
            rows = fresh.drop(POSITION).withColumn("_batch", F.lit(plan.batch.number))
            refused = sum(counted.bad.values())
            told = {PUBLISHED: str(plan.batch), _REFUSED_RECORDS: str(refused)}
            told[_RECORDS] = str(sum(counted.good.values()) + refused)
            writer = rows.writeTo(f"{self._table}.branch_{self.name}").option("distribution-mode", "hash")
            for key, value in told.items():
                writer = writer.option(f"snapshot-property.{key}", value)
            writer.append()

    def _rows(self) -> DataFrame:
        return self.spark.read.option("branch", self.name).table(self._table)

    def audit(self, plans: Sequence[Plan], base: int | None) -> BranchAudit:
        """Hold the branch to what it should be.

        Args:
            plans: of the batches that are on it.
            base: snapshot that it was made from.

        Raises:
            FindingError: an event is there twice, a row is of somebody else, rows are missing, or they break a quality
                rule that blocks; the branch stays.
        """
        summaries = self._summaries(base)
        numbers = [one.batch.number for one in plans]
        rows = self._rows()
        fresh = rows.where(F.col("_batch").isin(numbers))
        ends = fresh.agg(F.min("event_id").alias("first"), F.max("event_id").alias("last")).first()
        twice = 0
        if ends is not None and ends["first"] is not None:
            within = rows.where(F.col("event_id").between(ends["first"], ends["last"]))
            twice = within.groupBy("event_id").count().where("count > 1").count()
        dataset = literal(self.series.stream.dataset.name)
        fits = f"tenant = {literal(self.series.tenant)} AND dataset = {dataset} AND event_time IS NOT NULL"
        sums = fresh.agg(
            F.count("*").alias("rows"),
            F.expr(f"count_if(coalesce(NOT ({fits} AND event_id IS NOT NULL), true))").alias("wrong"),
        ).first()
        added, wrong = (int(sums["rows"]), int(sums["wrong"])) if sums else (0, 0)
        batches = {str(one.batch) for one in plans}
        mine = [one for one in summaries if _RECORDS in one and one[PUBLISHED] in batches]
        others = len(summaries) - len(plans)
        records = sum(int(one[_RECORDS]) for one in mine)
        refused = sum(int(one[_REFUSED_RECORDS]) for one in mine)
        after = rows.count()
        counts = Counts(records, added, records - refused - added, refused)
        found = BranchAudit(counts, after - added, after, twice, wrong)
        written = sum(int(one.get("added-records", "0")) for one in mine)
        if twice or wrong or others or written != added or counts.duplicates < 0:
            raise FindingError(
                f"branch {self.name} of {self.history().name}: {twice} events twice, {wrong} rows of somebody else, "
                f"{others} snapshots of others, {written} rows written and {added} there; nothing is published"
            )
        self._hold_to_rules(rows, fresh, plans)
        return found

    def _hold_to_rules(self, rows: DataFrame, fresh: DataFrame, plans: Sequence[Plan]) -> None:
        """Hold all that is new to the contract's quality rules; how much it is depends on the days asked for."""
        contract = self.series.stream.dataset.contract
        if not contract.quality or not plans:
            return
        before = rows.where(~F.col("_batch").isin([one.batch.number for one in plans]))
        _, results = measured(fresh, before, plans[-1], contract, log=None)
        broken = "; ".join(str(one) for one in results if one.blocks)
        if broken:
            raise FindingError(f"branch {self.name} of {self.history().name}: {broken}; nothing is published")

    def forward(self) -> bool:
        """Move the table to the branch's head; False where the table has moved on meanwhile."""
        named = f"table => {literal(self._table)}, branch => 'main', to => {literal(self.name)}"
        try:
            self.spark.sql(f"CALL {CATALOG}.system.fast_forward({named})").collect()
        except (PySparkException, Py4JError) as error:
            conflict = conflict_of(error)
            if "not an ancestor" not in str(error) and (conflict is None or conflict.is_unknown):
                raise
            return False
        return True
