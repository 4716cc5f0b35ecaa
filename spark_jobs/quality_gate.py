"""Owns the gate between the staging of a batch and its publishing: a contract's quality rules, and what overrules them.

A batch that breaks no blocking rule passes. One that does is held back: nothing of it is published, and what comes
after it in its series waits, as numbers are in order. It passes once somebody has decided so, or once the contract's
blocking rules are others, and it keeps those. Each step can be done again, as the next run does after one was killed.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from pyspark.sql import functions as F  # noqa: N812 - as Spark's users know it

from lake.lines import Block
from lake.manifest import BatchId, Lane
from lake.quality import digest
from lake.quality_log import Entry, State
from lake.tables import QUARANTINE
from spark_jobs.commit import commit, stage
from spark_jobs.lanes import quarantine_rows
from spark_jobs.objects import read_objects
from spark_jobs.quality import Watch, found_in
from spark_jobs.quality_hold import (
    HeldError,
    Hold,
    Ruling,
    Verdict,
    drop_branches,
    held_branch,
    keep_branch,
    read_hold,
    read_ruling,
    write_hold,
    write_ruling,
)
from spark_jobs.records import Reason
from spark_jobs.session import CATALOG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from datetime import datetime

    from pyiceberg.catalog.glue import GlueCatalog
    from pyspark.sql import Column, DataFrame, SparkSession

    from lake.clients import Cloud
    from lake.contract import Contract
    from lake.lines import Piece
    from lake.quality import Result
    from lake.quality_log import QualityLog
    from spark_jobs.commit import Committed, History
    from spark_jobs.plan import Plan

__all__ = ["Gate", "Standing"]


@dataclass(frozen=True)
class Standing:
    """What is written down of a batch before it is carried out."""

    hold: Hold | None = None
    """What held it back."""
    ruling: Ruling | None = None
    """What is decided about it."""
    results: tuple[Result, ...] = ()
    """What the rules found, as far as they were asked."""

    @property
    def refuses(self) -> bool:
        """Whether its rows go to quarantine."""
        return self.ruling is not None and self.ruling.verdict is Verdict.REFUSE


@dataclass(frozen=True)
class Gate:
    """The gate of one series of events."""

    spark: SparkSession
    cloud: Cloud
    catalog: GlueCatalog
    history: Callable[[str], History]
    """The history of a table of the owner's, the quarantine among them."""
    log: QualityLog
    bucket: str
    """Where the series' plans are."""
    database: str
    contract: Contract
    clock: Callable[[], datetime]
    say: Callable[[str], None]
    after: Callable[[str], None]

    @property
    def _identifier(self) -> tuple[str, str]:
        return self.database, self.contract.dataset

    def standing(self, plan: Plan, *, past: bool) -> Standing:
        """What is written down of a batch that another run has planned; a request where no rule ever held it.

        Args:
            plan: the batch's.
            past: whether it is committed already.

        Raises:
            HeldError: it is held back, and nothing has changed since.
        """
        hold = read_hold(self.cloud.s3, self.bucket, plan.batch)
        if hold is None:
            return Standing()
        ruling = read_ruling(self.cloud.s3, self.bucket, plan.batch)
        if ruling is not None or past:
            return Standing(hold, ruling, hold.results)
        if hold.digest == digest(self.contract.quality):
            raise HeldError(hold)
        self.say(f"batch {plan.batch}: held back by contract {hold.contract_version}, whose rules have changed since")
        history = self.history(self.contract.dataset)
        staged = history.staged(plan.batch)
        # without its rows, which an erasure may have taken, it is carried out as a new one
        return Standing(hold) if staged is None else self._hold_to_rules(plan, history, staged, None, Standing(hold))

    def check(self, plan: Plan, rows: DataFrame, standing: Standing, *, distribution: str) -> Standing:
        """Stage a batch that nothing is decided about, and hold it to the rules.

        Args:
            plan: the batch's.
            rows: its new rows, with the table's columns.
            standing: what is written down of it.
            distribution: as `commit` takes it.

        Raises:
            HeldError: it breaks a rule that blocks, and is held back.
            CommitConflictError: another run has published it in the meantime.
        """
        if not self.contract.quality:
            return standing
        history = self.history(self.contract.dataset)
        if history.is_past(plan.batch):
            return standing
        staged, counts = history.staged(plan.batch), None
        if staged is None:
            watched, watch = Watch.over(rows, self.contract)
            staged = stage(self.spark, history, plan.batch, watched, distribution=distribution)
            # of a plan that Spark found to be empty while it ran, it tells no counts
            counts = watch.counted() if staged[1] else None
        self.after("staged")
        return self._hold_to_rules(plan, history, staged, counts, standing)

    def _hold_to_rules(
        self,
        plan: Plan,
        history: History,
        staged: tuple[int, int],
        counts: Mapping[str, Any] | None,
        standing: Standing,
    ) -> Standing:
        rows, results = found_in(
            self.spark,
            history.name,
            staged,
            plan,
            self.contract,
            log=self.log,
            watched=counts,
            has_history=not history.is_empty,
        )
        blocked = any(one.blocks for one in results)
        state = State.HELD if blocked else State.PUBLISHED
        self.log.record(Entry(plan.batch, plan.planned_at_ms, rows, state, results))
        self.after("checked")
        for one in results:
            if not one.passed:
                self.say(f"batch {plan.batch}: {one}")
        if blocked:
            raise HeldError(self._hold(plan, staged[0], results, standing))
        found = replace(standing, results=results)
        if standing.hold is None:
            return found
        # somebody may be deciding at this moment: whoever writes first has decided
        who = f"contract {self.contract.version}"
        kept = Ruling(plan.batch, Verdict.PUBLISH, f"{who}: its rules are kept", who, self._now())
        return replace(found, ruling=write_ruling(self.cloud.s3, self.bucket, kept))

    def _hold(self, plan: Plan, snapshot_id: int, results: tuple[Result, ...], standing: Standing) -> Hold:
        branch = held_branch(plan.batch)
        keep_branch(self.catalog, self._identifier, branch, snapshot_id)
        self.after("branch")
        since = standing.hold.held_at_ms if standing.hold else self._now()
        hold = Hold(plan.batch, branch, since, self.contract.version, digest(self.contract.quality), results)
        write_hold(self.cloud.s3, self.bucket, hold)
        self.after("held")
        return hold

    def _now(self) -> int:
        return round(self.clock().timestamp() * 1000)

    def refuse(self, plan: Plan, rows: DataFrame, ruling: Ruling, *, refused: int, among: Column) -> Committed:
        """Commit a batch's number without rows, and its rows to quarantine; one that was published first stays so.

        Args:
            plan: the batch's.
            rows: its judged records that would be its rows: `object`, `event_id` and `event`.
            ruling: that decided so.
            refused: how many they are.
            among: tells the batch's rows from the table's others.

        Raises:
            CommitConflictError: another run has done so in the meantime.
        """
        history = self.history(self.contract.dataset)
        none = self.spark.table(f"{CATALOG}.{history.name}").where("false")
        done = commit(self.spark, history, plan.batch, none, distribution="none", among=among, refused=True)
        self.after("refused")
        if done.rows:
            # by a run that knew a contract whose rules it keeps, at the very time that another held it
            self.say(f"batch {plan.batch}: it was published before {ruling.by} refused it, and stays so")
            return done
        if refused:
            shaped = self._as_refused(plan, rows, ruling, refused)
            ours = (F.col("_batch") == str(plan.batch)) & (F.col("reason") == Reason.QUALITY)
            kept = self.history(QUARANTINE)
            commit(self.spark, kept, _second_commit(plan.batch), shaped, distribution="none", among=ours)
        return done

    def _as_refused(self, plan: Plan, rows: DataFrame, ruling: Ruling, count: int) -> DataFrame:
        """A batch's rows as the quarantine table has them, each with the line that it was received as."""
        # of an event's records in one object, the first became the row
        lines = _lines(self.spark, plan, self.cloud)
        mine = rows.select("object", "event_id", "position", "event")
        shaped = mine.join(lines, ["object", "position"], "left").select(
            "object",
            "position",
            F.lit(Reason.QUALITY.value).alias("reason"),
            F.lit(f"its batch broke a quality rule and was refused by {ruling.by}: {ruling.why}").alias("message"),
            # where the object is gone, what became of the line
            F.coalesce("raw", F.to_json("event").cast("binary")).alias("raw"),
            "event_id",
            F.col("event.tenant").alias("tenant"),
            F.col("event.producer_id").alias("producer_id"),
            F.col("event.sequence").alias("sequence"),
            F.lit(None).cast("timestamp").alias("arrival_time"),
            F.lit(None).cast("string").alias("stage"),
        )
        return quarantine_rows(
            shaped,
            dataset=self.contract.dataset,
            lane=Lane.EVENTS,
            batch=str(plan.batch),
            moment_ms=plan.planned_at_ms,
            count=count,
        )

    def settle(self, batch: BatchId, standing: Standing) -> None:
        """Note what has become of a batch that was held back, and let its branch go."""
        if standing.ruling is not None:
            self.log.decided(batch, State.REFUSED if standing.refuses else State.PUBLISHED)
        if standing.hold is not None:
            self.drop_branches(batch.owner, batch.number)
            self.after("dropped")

    def drop_branches(self, owner: str, through: int) -> None:
        """Let go of the branches of batches that aren't held any more."""
        for name in drop_branches(self.catalog, self._identifier, owner, through):
            self.say(f"table {'.'.join(self._identifier)}: branch {name} is dropped, as its batch isn't held any more")


def _second_commit(batch: BatchId) -> BatchId:
    """Id of a batch's second commit to the quarantine table, of rows that were refused for their quality.

    >>> str(_second_commit(BatchId("pooled", "flights", Lane.EVENTS, "acme", 12)))
    'quality/flights/events/pooled/acme/12'
    """
    return replace(batch, dataset=f"quality/{batch.dataset}")


def _lines(spark: SparkSession, plan: Plan, cloud: Cloud) -> DataFrame:
    """The lines of a batch's objects, as they were received."""
    schema = pa.schema([("object", pa.string()), ("position", pa.int64()), ("raw", pa.binary())])

    def render(pieces: Iterator[Piece]) -> Iterator[pa.RecordBatch]:
        for one in pieces:
            # what isn't whole lines was refused before, for that
            if isinstance(one, Block):
                yield _turned([(one.uri, position, line) for position, line in one.lines()], schema)

    return read_objects(spark, plan.objects, cloud, render, "object string, position bigint, raw binary")


def _turned(rows: list[tuple[str, int, bytes]], schema: pa.Schema) -> pa.RecordBatch:
    columns = list(zip(*rows, strict=True)) if rows else [()] * len(schema)
    return pa.record_batch(
        [pa.array(one, kind) for one, kind in zip(columns, schema.types, strict=True)], schema=schema
    )
