"""Owns the ingest job: numbered batches of new objects into Iceberg tables, each exactly once, every record counted.

`python -m spark_jobs.ingest --lake lake.yaml`; `run` is the same for a session that is up already.

A batch goes through four steps: its plan is written; what it refuses is committed to the quarantine table; its rows are
committed to the data table, and with them its number; its receipt goes to the manifest. A run that stops anywhere is
taken up by the next one, which finds the plan, or the commits without the receipt, and does what is left.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import reduce
from operator import or_
from typing import TYPE_CHECKING
from uuid import uuid4

from botocore.exceptions import BotoCoreError, ClientError
from py4j.protocol import Py4JError  # type: ignore[import-untyped]
from pyspark.errors import PySparkException
from pyspark.sql import functions as F  # noqa: N812 - as Spark's users know it

from lake.arrivals import Arrivals, relist
from lake.books import Books
from lake.envelope import day_text
from lake.errors import CommitConflictError, FindingError, LakehoseError
from lake.figures import Counts, Figures
from lake.lineage import BatchStory, Parent, Turn, batch_event, job_run_id
from lake.lineage_log import LineageLog, Sender, Told
from lake.manifest import Arrival, BatchId, BatchReceipt, Lane, Manifest
from lake.quality_log import QualityLog
from lake.tables import QUARANTINE, columns, evolve_table, glue_catalog
from spark_jobs.commit import History, commit
from spark_jobs.days import rows_by_day
from spark_jobs.dedup import id_spans
from spark_jobs.failures import sentence, spoken
from spark_jobs.kept import kept_records
from spark_jobs.lanes import Events, Refused, Strays, quarantine_rows
from spark_jobs.objects import StoredObject
from spark_jobs.plan import Plan, carve, planned_series, read_plan, write_plan
from spark_jobs.quality import count_day
from spark_jobs.quality_gate import Gate, Standing
from spark_jobs.quality_hold import HeldError
from spark_jobs.records import Reason
from spark_jobs.session import CATALOG, side_by_side
from spark_jobs.sheets import POSITION
from spark_jobs.tally import MADE_DAY
from spark_jobs.tombstones import living

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from mypy_boto3_s3 import S3Client
    from pyiceberg.catalog.glue import GlueCatalog
    from pyspark.sql import Column, DataFrame, SparkSession

    from lake.clients import Cloud
    from lake.declaration import Lake, Stream
    from lake.quality import Result
    from spark_jobs.commit import Committed
    from spark_jobs.kept import Kept
    from spark_jobs.lanes import Rules
    from spark_jobs.quality_hold import Hold, Ruling
    from spark_jobs.tally import Tally

__all__ = ["IngestReport", "Series", "run", "series_of"]

_QUARANTINE_ROWS = 100_000  # in one file of the quarantine table, about


@dataclass(frozen=True)
class Series:
    """What is numbered together: one tenant's prefix in one lane of a stream."""

    stream: Stream
    lane: Lane
    tenant: str

    def batch(self, number: int) -> BatchId:
        """One of its batches."""
        return BatchId(self.stream.owner, self.stream.dataset.name, self.lane, self.tenant, number)


@dataclass(frozen=True)
class IngestReport:
    """What a run did."""

    batches: tuple[BatchReceipt, ...]
    """Batches it committed, or took up where another run had stopped."""
    rebuilt: tuple[BatchReceipt, ...]
    """Batches that were committed and lacked a receipt."""
    busy: tuple[str, ...]
    """Series that another ingest is at; they were left to it."""
    seconds: float
    held: tuple[Hold, ...] = ()
    """Batches that a quality rule holds back, each with what waits behind it in its series."""

    @property
    def totals(self) -> dict[str, Counts]:
        """Sums over the batches by tenant."""
        sums: dict[str, Counts] = {}
        for receipt in self.batches:
            for tenant, counts in receipt.counts.items():
                sums[tenant] = sums.get(tenant, Counts()) + counts
        return sums


def _now() -> datetime:
    return datetime.now(UTC)


def _silent(_: str) -> None:
    """Say nothing."""


def run(
    spark: SparkSession,
    lake: Lake,
    cloud: Cloud,
    *,
    datasets: Collection[str] | None = None,
    tenants: Collection[str] | None = None,
    clock: Callable[[], datetime] = _now,
    say: Callable[[str], None] = _silent,
    after: Callable[[str], None] = _silent,
    listed: bool = False,
    series: Sequence[Series] | None = None,
) -> IngestReport:
    """Ingest everything that is new.

    Args:
        spark: a session of `create_session`.
        lake: the declaration.
        cloud: where the lake is.
        datasets: only these; all of them without it.
        tenants: only these tenants' events. What a stream refused or delivered astray is taken only when all tenants
            that it carries are among them.
        clock: tells the moment a batch is planned.
        say: takes a line about each batch.
        after: called with `plan`, `quarantine`, `data`, `receipt` after each step of a batch, where the contract has
            quality rules with `staged` and `checked` too, of one that is held back with `branch` and `held`, and once
            it is decided about with `refused` and `dropped`; tests stop it there.
        listed: list all objects first, for a lake whose queues came later than its objects; the cost grows with it.
        series: just these, whether or not they have new objects; nobody is asked for new ones.

    Raises:
        DeclarationError: a dataset or tenant isn't declared.
        FindingError: a table is missing, or its history contradicts the manifest.
        TerminalError: an object can't be read for a reason that isn't its content.
    """
    started = time.monotonic()
    manifest = Manifest(cloud.dynamodb, lake.names.manifest_table())
    if series is None:
        streams = _streams(lake, datasets, tenants)
        if listed:
            relist(cloud, manifest, streams)
        Arrivals(lake, cloud, manifest, say).collect(streams, clock())
        series = series_of(lake, manifest, datasets, tenants, planned_in=cloud.s3 if listed else None)

    sender = Sender(LineageLog(cloud.dynamodb, lake.names.manifest_table()), lake.lineage, say)
    for owner, name in sorted({(one.stream.owner, one.stream.dataset.name) for one in series}):
        sender.resend(owner, name)
    parent = Parent.of("ingest", job_run_id(round(_now().timestamp() * 1000), "ingest", uuid4().hex))

    def ingest(session: SparkSession, one: Series) -> _Outcome:
        # a session of its own, as the id of the batch being written is a setting of the session
        job = _Ingest(
            session, lake, cloud, glue_catalog(cloud), manifest, one, clock, say, after, listed, sender, parent
        )
        with spoken(f"ingest of {one.stream.dataset.name}, {one.lane}, tenant {one.tenant}"):
            return job.run()

    try:
        outcomes = side_by_side(spark, series, ingest, say)
    finally:
        sender.close()
    return IngestReport(
        batches=tuple(receipt for one in outcomes for receipt in one.batches),
        rebuilt=tuple(receipt for one in outcomes for receipt in one.rebuilt),
        busy=tuple(one.busy for one in outcomes if one.busy),
        held=tuple(one.held for one in outcomes if one.held is not None),
        seconds=time.monotonic() - started,
    )


def _streams(lake: Lake, datasets: Collection[str] | None, tenants: Collection[str] | None) -> list[Stream]:
    """Streams that carry any of what is asked for."""
    kinds = {lake.dataset(name).name for name in datasets} if datasets else {one.name for one in lake.datasets}
    asked = {lake.tenant(name).id for name in tenants} if tenants else {one.id for one in lake.tenants}
    return [one for one in lake.streams() if one.dataset.name in kinds and asked.intersection(one.tenants)]


def series_of(
    lake: Lake,
    manifest: Manifest,
    datasets: Collection[str] | None = None,
    tenants: Collection[str] | None = None,
    *,
    planned_in: S3Client | None = None,
) -> list[Series]:
    """Every series that has new objects, of the datasets and tenants asked for.

    With `planned_in`, every series that ever had a batch too: their plans are listed there.

    Raises:
        DeclarationError: a dataset or tenant isn't declared.
    """
    asked = {lake.tenant(name).id for name in tenants} if tenants else {one.id for one in lake.tenants}
    found: list[Series] = []
    for stream in _streams(lake, datasets, tenants):
        everything = asked.issuperset(stream.tenants)
        known = manifest.waiting_series(stream.owner, stream.dataset.name)
        if planned_in is not None:
            known += [one for one in planned_series(planned_in, stream) if one not in known]
        for lane, tenant in known:
            if tenant in asked if lane is Lane.EVENTS else everything:
                found.append(Series(stream, lane, tenant))
    return found


@dataclass(frozen=True)
class _Outcome:
    batches: list[BatchReceipt]
    rebuilt: list[BatchReceipt]
    busy: str = ""
    held: Hold | None = None


@dataclass(frozen=True)
class _Ingest:
    """The ingest of one series."""

    spark: SparkSession
    lake: Lake
    cloud: Cloud
    catalog: GlueCatalog
    manifest: Manifest
    series: Series
    clock: Callable[[], datetime]
    say: Callable[[str], None]
    after: Callable[[str], None]
    listed: bool
    lineage: Sender
    parent: Parent

    @property
    def _stream(self) -> Stream:
        return self.series.stream

    @property
    def _database(self) -> str:
        if self.series.lane is Lane.EVENTS:
            return self.lake.names.database(self.series.tenant)
        return self._stream.database

    def _history(self, table: str) -> History:
        return History(self.catalog, self._database, table)

    def run(self) -> _Outcome:
        """Finish what was begun, then take what is new."""
        outcome = _Outcome([], [])
        self._evolve()
        # the table whose history numbers the batches
        target = self._stream.dataset.name if self.series.lane is Lane.EVENTS else QUARANTINE
        history = self._history(target)
        last = history.last_number(self.series.batch(0).series)
        try:
            for number in self._without_receipt(target, last):
                outcome.rebuilt.append(self._rebuild(self.series.batch(number)))
            if self.series.lane is Lane.EVENTS and any(name.startswith("held_") for name in history.branches):
                self._gate.drop_branches(self._stream.owner, last)
            while (plan := self._next_plan(last + 1)) is not None:
                outcome.batches.append(self._batch(*plan))
                last += 1
        except CommitConflictError as error:
            self.say(str(error))
            return _Outcome(outcome.batches, outcome.rebuilt, self.series.batch(0).series)
        except HeldError as error:
            self.say(str(error))
            return _Outcome(outcome.batches, outcome.rebuilt, held=error.hold)
        return outcome

    @property
    def _gate(self) -> Gate:
        log = QualityLog(self.cloud.dynamodb, self.lake.names.manifest_table())
        contract = self._stream.dataset.contract
        return Gate(
            self.spark,
            self.cloud,
            self.catalog,
            log,
            self._stream.bucket,
            self._database,
            contract,
            self.clock,
            self.say,
            self.after,
        )

    def _evolve(self) -> None:
        """Give the table what the contract has grown, whoever was first to hear of it."""
        dataset = self._stream.dataset
        if self.series.lane is Lane.EVENTS:
            for grown in evolve_table(self.catalog, (self._database, dataset.name), columns(dataset.contract)):
                self.say(
                    f"table {self._database}.{dataset.name}: column {grown}, as contract {dataset.contract.version}"
                )

    def _without_receipt(self, target: str, last: int) -> list[int]:
        """Numbers of the batches that the table holds and the manifest doesn't know.

        Receipts are written in order, so only what comes behind the last one can lack one, unless the manifest itself
        lost some: they are all compared when everything is listed.
        """
        batch = self.series.batch(0)
        known = self.manifest.numbers(batch) if self.listed else {self.manifest.last_receipt(batch)}
        newest = max(known, default=0)
        if newest > last:
            raise FindingError(
                f"table {self._database}.{target}: its history ends at batch {last} of {self.series.batch(0).series}, "
                f"and the manifest knows batch {newest}: the table was rolled back, or its snapshots were expired "
                "too far"
            )
        first = 1 if self.listed else newest + 1
        return [number for number in range(first, last + 1) if number not in known]

    def _rebuild(self, batch: BatchId) -> BatchReceipt:
        plan = read_plan(self.cloud.s3, self._stream.bucket, batch)
        if plan is None:
            raise FindingError(
                f"batch {batch}: the table holds it, the manifest lacks it, and its plan is gone from "
                f"{self._stream.bucket}: it can't be told which objects it took"
            )
        return self._batch(plan, self._standing(plan, past=True))

    def _standing(self, plan: Plan, *, past: bool) -> Standing:
        """What is decided about a batch that isn't new, as only events have quality rules."""
        return self._gate.standing(plan, past=past) if self.series.lane is Lane.EVENTS else Standing()

    def _next_plan(self, number: int) -> tuple[Plan, Standing] | None:
        """The plan that another run left, or a new one for what is new; None when nothing is."""
        batch = self.series.batch(number)
        left = read_plan(self.cloud.s3, self._stream.bucket, batch)
        if left is not None:
            standing = self._standing(left, past=False)
            self.say(f"batch {batch}: planned by a run that didn't finish it; doing so")
            return left, standing
        found = self._waiting()
        if not found:
            return None
        version = self._stream.dataset.contract.version
        moment = round(self.clock().timestamp() * 1000)
        plan = Plan(batch, carve(found, self.lake.jobs), version, moment)
        write_plan(self.cloud.s3, self._stream.bucket, plan)
        self.after("plan")
        return plan, Standing()

    def _waiting(self) -> list[StoredObject]:
        """Objects that no batch has taken, as many as one may take; empty when there are none."""
        owner, dataset = self._stream.owner, self._stream.dataset.name
        while True:
            asked = self.manifest.waiting(
                owner, dataset, self.series.lane, self.series.tenant, self.lake.jobs.ingest_objects
            )
            taken = self.manifest.taken_of(asked)
            # S3 told of them again, after a batch had taken them
            self.manifest.settled(taken)
            found = [StoredObject(one.uri, one.size) for one in asked if one not in taken]
            if found or not taken:
                return found

    def _batch(self, plan: Plan, standing: Standing) -> BatchReceipt:
        """Do of a batch whatever isn't done yet, and tell of it."""
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
            self.lake,
            self._stream,
            story,
            turn,
            round(_now().timestamp() * 1000),
            parent=self.parent,
            receipt=receipt,
            results=results,
            problem=problem,
        )
        self.lineage.tell(Told(plan.batch.owner, plan.batch.dataset, event))

    def _carried_out(self, plan: Plan, standing: Standing) -> BatchReceipt:
        started = time.monotonic()
        turned_away: dict[tuple[str, str], int] = {}
        with kept_records(self.spark, plan.objects, self.cloud, self._rules(plan)) as records:
            counted = records.tally()
            rows = self._rows(plan, records, counted) if self.series.lane is Lane.EVENTS else None
            if rows is not None and standing.ruling is None:
                # before anything is published, the refused ones included: of a batch that is held, nothing is
                shaped, how = self._as_table(plan, rows, counted)
                standing = self._gate.check(plan, shaped, standing, distribution=how)
            refused = self._commit_refused(plan, records, counted)
            self.after("quarantine")
            if rows is not None:
                if standing.ruling is not None and standing.refuses:
                    committed, turned_away = self._turn_away(plan, rows, standing.ruling)
                    if committed.rows:
                        standing = replace(standing, ruling=None)
                else:
                    committed = self._commit_rows(plan, *self._as_table(plan, rows, counted))
                self.after("data")
            elif refused is not None:
                committed = refused
        receipt = self._receipt(plan, counted, committed, turned_away)
        if self.series.lane is Lane.EVENTS and not standing.refuses:
            log = QualityLog(self.cloud.dynamodb, self.lake.names.manifest_table())
            count_day(log, plan, committed.rows, self._stream.dataset.contract.quality)
        # before the receipt: a batch that has one isn't done again, so nobody would tell
        done = Turn.ABORT if standing.refuses else Turn.COMPLETE
        self._tell(plan, done, receipt=receipt, results=standing.results)
        Books(self.cloud.dynamodb, self.lake.names.manifest_table()).record(receipt)
        self.manifest.settled(self._arrivals(plan))
        self.after("receipt")
        if standing.hold is not None:
            self._gate.settle(plan.batch, standing)
        self.say(_told(receipt, time.monotonic() - started))
        return receipt

    def _arrivals(self, plan: Plan) -> list[Arrival]:
        place = (self._stream.owner, self._stream.dataset.name, self.series.lane, self.series.tenant)
        return [Arrival(*place, one.uri, one.size) for one in plan.objects]

    def _rules(self, plan: Plan) -> Rules:
        match self.series.lane:
            case Lane.EVENTS:
                return Events(self._stream.dataset.contract, self.series.tenant, plan.planned_at_ms)
            case Lane.STRAYS:
                return Strays(self.series.tenant, self._stream.tenants)
            case Lane.REFUSED:
                return Refused(self._producers())

    def _producers(self) -> dict[str, str]:
        owners: dict[str, str] = {}
        shared: set[str] = set()
        for tenant in self._stream.tenants:
            for ledger in self.manifest.ledgers(tenant, self._stream.dataset.name):
                if owners.setdefault(ledger.producer_id, tenant) != tenant:
                    shared.add(ledger.producer_id)  # two tenants call a producer the same: it tells nothing
        return {producer: tenant for producer, tenant in owners.items() if producer not in shared}

    def _commit_refused(self, plan: Plan, records: Kept, counted: Tally) -> Committed | None:
        refused = sum(counted.bad.values())
        if self.series.lane is Lane.EVENTS and not refused:
            return None
        rows = quarantine_rows(
            records.refused(),
            dataset=self._stream.dataset.name,
            lane=self.series.lane,
            batch=str(plan.batch),
            moment_ms=plan.planned_at_ms,
        ).coalesce(1 + refused // _QUARANTINE_ROWS)
        # those that a quality rule cost their place are another commit's
        mine = (F.col("_batch") == str(plan.batch)) & (F.col("reason") != Reason.QUALITY)
        done = commit(self.spark, self._history(QUARANTINE), plan.batch, rows, distribution="none", among=mine)
        if done.rows != refused:
            raise FindingError(
                f"batch {plan.batch}: {refused} records are refused, and {self._database}.{QUARANTINE} took {done.rows}"
            )
        return done

    def _commit_rows(self, plan: Plan, rows: DataFrame, how: str) -> Committed:
        history = self._history(self._stream.dataset.name)
        return commit(self.spark, history, plan.batch, rows, distribution=how, among=self._mine(plan))

    def _turn_away(self, plan: Plan, rows: DataFrame, ruling: Ruling) -> tuple[Committed, dict[tuple[str, str], int]]:
        """Send what would be rows to quarantine; answers how many there are, by tenant and day, too."""
        days = rows.groupBy(F.expr(f"coalesce({MADE_DAY}, -1)").alias("day")).count().collect()
        found = {(self.series.tenant, day_text(one["day"])): int(one["count"]) for one in days}
        names = [one.name for one in columns(self._stream.dataset.contract) if one.name in rows.columns]
        shaped = rows.select(
            F.col("_object").alias("object"),
            F.col(POSITION).alias("position"),
            "event_id",
            F.struct(*(one for one in names if one != "_object")).alias("event"),
        )
        done = self._gate.refuse(plan, shaped, ruling, refused=sum(found.values()), among=self._mine(plan))
        return done, {} if done.rows else found

    def _as_table(self, plan: Plan, rows: DataFrame, counted: Tally) -> tuple[DataFrame, str]:
        """A batch's rows with the table's columns, in the parts that its plan says, and how to distribute them."""
        parts, how = plan.spread(counted.days, self._stream.dataset.contract.partition)
        return rows.drop(POSITION).withColumn("_batch", F.lit(plan.batch.number)).coalesce(parts), how

    def _rows(self, plan: Plan, records: Kept, counted: Tally) -> DataFrame:
        """What of a batch becomes rows, as it was judged."""
        history = self._history(self._stream.dataset.name)
        table = None if history.is_empty else f"{CATALOG}.{history.name}"
        days = self._stream.dataset.contract.dedup_days if plan.dedup_days is None else plan.dedup_days
        spans = id_spans(counted.ends, days, plan.planned_at_ms)
        # an event that was erased doesn't come back: it counts as the duplicate that it is
        tenant, dataset = self.series.tenant, self._stream.dataset.name
        fresh = records.rows(counted, _within(self.spark, table, spans))
        return living(fresh, self.manifest, tenant, dataset, counted.event_ids)

    def _receipt(
        self, plan: Plan, counted: Tally, committed: Committed, turned_away: Mapping[tuple[str, str], int]
    ) -> BatchReceipt:
        return BatchReceipt(
            batch=plan.batch,
            snapshot_id=committed.snapshot_id,
            schema_version=plan.schema_version,
            committed_at_ms=committed.committed_at_ms,
            objects={one.uri: counted.objects.get(one.uri, 0) for one in plan.objects},
            figures=Figures(self._counts(plan, counted, committed, turned_away), counted.seen),
        )

    def _counts(
        self, plan: Plan, counted: Tally, committed: Committed, turned_away: Mapping[tuple[str, str], int]
    ) -> dict[tuple[str, str], Counts]:
        ingested = self._ingested(plan, counted, committed)
        refused = self.series.lane is Lane.REFUSED
        counts: dict[tuple[str, str], Counts] = {}
        for key in sorted({*counted.good, *counted.bad}):
            good, bad, turned = counted.good.get(key, 0), counted.bad.get(key, 0), turned_away.get(key, 0)
            counts[key] = Counts(
                records=good + bad,
                ingested=ingested.get(key, 0),
                # what the table didn't take of the good ones, and quarantine neither, it had
                duplicates=good - ingested.get(key, 0) - turned,
                quarantined=0 if refused else bad + turned,
                refused=bad if refused else 0,
                unidentified=counted.unidentified.get(key, 0),
            )
        return counts

    def _ingested(self, plan: Plan, counted: Tally, committed: Committed) -> Mapping[tuple[str, str], int]:
        """Rows that the table took, by tenant and day."""
        if self.series.lane is not Lane.EVENTS:
            return {}
        good = counted.good  # all of the prefix's tenant
        if committed.rows == sum(good.values()):
            return good
        if len(good) < 2 or not committed.rows:  # noqa: PLR2004 - one day, or no rows: nothing to ask the table for
            return dict.fromkeys(good, committed.rows)
        name = self._history(self._stream.dataset.name).name
        days = rows_by_day(self.spark, name, committed, self._mine(plan))
        return {(self.series.tenant, day): rows for day, rows in days.items()}

    def _mine(self, plan: Plan) -> Column:
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


def _told(receipt: BatchReceipt, seconds: float) -> str:
    total = sum(receipt.counts.values(), Counts())
    fates: Mapping[str, int] = {
        "ingested": total.ingested,
        "duplicates": total.duplicates,
        "quarantined": total.quarantined,
        "refused before": total.refused,
    }
    told = ", ".join(f"{count:,} {fate}" for fate, count in fates.items() if count) or "no records"
    return f"batch {receipt.batch}: {len(receipt.objects):,} objects, {told}; {seconds:.1f} s"


if __name__ == "__main__":
    from spark_jobs.commands import run_job

    sys.exit(run_job("ingest", sys.argv[1:]))
