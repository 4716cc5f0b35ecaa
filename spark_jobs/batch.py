"""Owns carrying out one batch: judged, held to the quality rules, committed, counted, and told of.

Whatever of it another run has done already is found in the tables, and not done again.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError
from py4j.protocol import Py4JError  # type: ignore[import-untyped]
from pyspark.errors import PySparkException
from pyspark.sql import functions as F  # noqa: N812 - as Spark's users know it

from lake.books import Books
from lake.defaults import now
from lake.envelope import day_text
from lake.errors import CommitConflictError, FindingError, LakehoseError
from lake.lineage import BatchStory, Turn, batch_event
from lake.lineage_log import Told
from lake.manifest import Arrival, Lane
from lake.tables import QUARANTINE, columns
from spark_jobs.commit import commit
from spark_jobs.dedup import id_spans
from spark_jobs.failures import sentence
from spark_jobs.kept import kept_records
from spark_jobs.lanes import Events, Refused, Strays, quarantine_rows
from spark_jobs.quality import count_day
from spark_jobs.quality_hold import HeldError
from spark_jobs.receipts import ingested_rows, receipt_of, told
from spark_jobs.records import Reason
from spark_jobs.session import CATALOG
from spark_jobs.sheets import POSITION
from spark_jobs.tally import MADE_DAY
from spark_jobs.tombstones import living

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyspark.sql import Column, DataFrame, SparkSession

    from lake.lineage import Parent
    from lake.lineage_log import Sender
    from lake.manifest import BatchReceipt
    from lake.quality import Result
    from spark_jobs.commit import Committed
    from spark_jobs.kept import Kept
    from spark_jobs.lanes import Rules
    from spark_jobs.plan import Plan
    from spark_jobs.quality_gate import Standing
    from spark_jobs.quality_hold import Ruling
    from spark_jobs.series import Work
    from spark_jobs.tally import Tally

__all__ = ["Batches"]


@dataclass(frozen=True)
class Batches:
    """Carries out the batches of one series, one after another."""

    work: Work
    lineage: Sender
    parent: Parent
    """The run that they are a part of."""

    def carry_out(self, plan: Plan, standing: Standing) -> BatchReceipt:
        """Do of a batch whatever isn't done yet, and tell of it.

        Args:
            plan: the batch's.
            standing: what is decided about it.

        Raises:
            HeldError: a quality rule holds it back.
            CommitConflictError: another run is at the same batch, and was faster.
            FindingError: a table didn't take what it should have.
        """
        self._tell(plan, Turn.START)
        try:
            return self._carried_out(plan, standing)
        except HeldError as error:
            self._tell(plan, Turn.RUNNING, results=error.hold.results)
            raise
        except CommitConflictError:
            raise  # whoever was faster tells of it
        except (LakehoseError, PySparkException, Py4JError, ClientError, BotoCoreError) as error:
            self._tell(plan, Turn.FAIL, problem=sentence(f"batch {plan.batch}", error))
            raise

    def _tell(
        self,
        plan: Plan,
        turn: Turn,
        *,
        receipt: BatchReceipt | None = None,
        results: Sequence[Result] = (),
        problem: str = "",
    ) -> None:
        sizes = {one.uri: one.size for one in plan.objects}
        story = BatchStory(plan.batch, plan.planned_at_ms, plan.schema_version, sizes)
        event = batch_event(
            self.work.lake,
            self.work.stream,
            story,
            turn,
            round(now().timestamp() * 1000),
            parent=self.parent,
            receipt=receipt,
            results=results,
            problem=problem,
        )
        self.lineage.tell(Told(plan.batch.owner, plan.batch.dataset, event))

    def _carried_out(self, plan: Plan, standing: Standing) -> BatchReceipt:
        started = time.monotonic()
        work, is_events = self.work, self.work.series.lane is Lane.EVENTS
        turned_away: dict[tuple[str, str], int] = {}
        with kept_records(work.spark, plan.objects, work.cloud, self._rules(plan)) as records:
            counted = records.tally()
            rows = self._rows(plan, records, counted) if is_events else None
            if rows is not None and standing.ruling is None:
                # before anything is published, the refused ones included: of a batch that is held, nothing is
                shaped, how = self._as_table(plan, rows, counted)
                standing = work.gate.check(plan, shaped, standing, distribution=how)
            refused = self._commit_refused(plan, records, counted)
            work.after("quarantine")
            if rows is not None:
                if standing.ruling is not None and standing.refuses:
                    committed, turned_away = self._turn_away(plan, rows, standing.ruling)
                    if committed.rows:
                        standing = replace(standing, ruling=None)
                else:
                    committed = self._commit_rows(plan, *self._as_table(plan, rows, counted))
                work.after("data")
            elif refused is not None:
                committed = refused
        table = ".".join(work.series.table(work.lake.names))
        ingested = ingested_rows(work.spark, table, plan, counted, committed, among=_mine(plan))
        receipt = receipt_of(plan, counted, committed, ingested, turned_away)
        if is_events and not standing.refuses:
            count_day(work.quality_log, plan, committed.rows, work.stream.dataset.contract.quality)
        # before the receipt: a batch that has one isn't done again, so nobody would tell
        done = Turn.ABORT if standing.refuses else Turn.COMPLETE
        self._tell(plan, done, receipt=receipt, results=standing.results)
        Books(work.cloud.dynamodb, work.lake.names.manifest_table()).record(receipt)
        work.manifest.settled(self._arrivals(plan))
        work.after("receipt")
        if standing.hold is not None:
            work.gate.settle(plan.batch, standing)
        work.say(told(receipt, time.monotonic() - started))
        return receipt

    def _arrivals(self, plan: Plan) -> list[Arrival]:
        place = (plan.batch.owner, plan.batch.dataset, plan.batch.lane, plan.batch.tenant)
        return [Arrival(*place, one.uri, one.size) for one in plan.objects]

    def _rules(self, plan: Plan) -> Rules:
        series = self.work.series
        match series.lane:
            case Lane.EVENTS:
                return Events(series.stream.dataset.contract, series.tenant, plan.planned_at_ms)
            case Lane.STRAYS:
                return Strays(series.tenant, series.stream.tenants)
            case Lane.REFUSED:
                stream = series.stream
                return Refused(self._producers(), stream.dataset.contract, stream.tenants, plan.planned_at_ms)

    def _producers(self) -> dict[str, str]:
        stream = self.work.stream
        owners: dict[str, str] = {}
        shared: set[str] = set()
        for tenant in stream.tenants:
            for ledger in self.work.manifest.ledgers(tenant, stream.dataset.name):
                if owners.setdefault(ledger.producer_id, tenant) != tenant:
                    shared.add(ledger.producer_id)  # two tenants call a producer the same: it tells nothing
        return {producer: tenant for producer, tenant in owners.items() if producer not in shared}

    def _commit_refused(self, plan: Plan, records: Kept, counted: Tally) -> Committed | None:
        refused = sum(counted.bad.values())
        if self.work.series.lane is Lane.EVENTS and not refused:
            return None
        rows = quarantine_rows(
            records.refused(),
            dataset=self.work.stream.dataset.name,
            lane=self.work.series.lane,
            batch=str(plan.batch),
            moment_ms=plan.planned_at_ms,
            count=refused,
        )
        # those that a quality rule cost their place are another commit's
        mine = (F.col("_batch") == str(plan.batch)) & (F.col("reason") != Reason.QUALITY)
        history = self.work.history(QUARANTINE)
        done = commit(self.work.spark, history, plan.batch, rows, distribution="none", among=mine)
        if done.rows != refused:
            raise FindingError(
                f"batch {plan.batch}: {refused} records are refused, and {history.name} took {done.rows}"
            )
        return done

    def _commit_rows(self, plan: Plan, rows: DataFrame, how: str) -> Committed:
        history = self.work.history(self.work.stream.dataset.name)
        return commit(self.work.spark, history, plan.batch, rows, distribution=how, among=_mine(plan))

    def _turn_away(self, plan: Plan, rows: DataFrame, ruling: Ruling) -> tuple[Committed, dict[tuple[str, str], int]]:
        """Send what would be rows to quarantine; answers how many there are, by tenant and day, too."""
        days = rows.groupBy(F.expr(f"coalesce({MADE_DAY}, -1)").alias("day")).count().collect()
        found = {(self.work.series.tenant, day_text(one["day"])): int(one["count"]) for one in days}
        names = [one.name for one in columns(self.work.stream.dataset.contract) if one.name in rows.columns]
        shaped = rows.select(
            F.col("_object").alias("object"),
            F.col(POSITION).alias("position"),
            "event_id",
            F.struct(*(one for one in names if one != "_object")).alias("event"),
        )
        done = self.work.gate.refuse(plan, shaped, ruling, refused=sum(found.values()), among=_mine(plan))
        return done, {} if done.rows else found

    def _as_table(self, plan: Plan, rows: DataFrame, counted: Tally) -> tuple[DataFrame, str]:
        """A batch's rows with the table's columns, in the parts that its plan says, and how to distribute them."""
        parts, how = plan.spread(counted.days, self.work.stream.dataset.contract.partition)
        return rows.drop(POSITION).withColumn("_batch", F.lit(plan.batch.number)).coalesce(parts), how

    def _rows(self, plan: Plan, records: Kept, counted: Tally) -> DataFrame:
        """What of a batch becomes rows, as it was judged."""
        dataset = self.work.stream.dataset
        history = self.work.history(dataset.name)
        if history.is_empty:
            history.refresh()  # a backfill may have come before
        table = None if history.is_empty else f"{CATALOG}.{history.name}"
        days = dataset.contract.dedup_days if plan.dedup_days is None else plan.dedup_days
        spans = id_spans(counted.ends, days, plan.planned_at_ms)
        fresh = records.rows(counted, _within(self.work.spark, table, spans))
        # an event that was erased doesn't come back: it counts as the duplicate that it is
        return living(fresh, self.work.manifest, self.work.series.tenant, dataset.name, counted.event_ids)


def _mine(plan: Plan) -> Column:
    """Tells a batch's rows from the table's others."""
    return (F.col("_batch") == plan.batch.number) & F.col("_object").isin([one.uri for one in plan.objects])


def _within(spark: SparkSession, table: str | None, spans: Sequence[tuple[str, str]]) -> DataFrame | None:
    """Event ids of a table in the spans that a batch's lie in.

    They are ordered by time, so files of other times are left out by their statistics.
    """
    if table is None or not spans:
        return None
    within = reduce(or_, (F.col("event_id").between(*span) for span in spans))
    return spark.table(table).where(within).select("event_id")
