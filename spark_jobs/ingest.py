"""Owns the ingest job: numbered batches of new objects into Iceberg tables, each exactly once, every record counted.

`python -m spark_jobs.ingest --lake lake.yaml`; `run` is the same for a session that is up already.

A batch goes through four steps: its plan is written; what it refuses is committed to the quarantine table; its rows are
committed to the data table, and with them its number; its receipt goes to the manifest. A run that stops anywhere is
taken up by the next one, which finds the plan, or the commits without the receipt, and does what is left.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING
from uuid import uuid4

from lake.arrivals import Arrivals, relist
from lake.defaults import now, silent
from lake.errors import CommitConflictError, FindingError
from lake.figures import Counts
from lake.lineage import Parent, job_run_id
from lake.lineage_log import LineageLog, Sender
from lake.manifest import Lane, Manifest
from lake.tables import columns, glue_catalog
from spark_jobs.batch import Batches
from spark_jobs.failures import spoken
from spark_jobs.objects import StoredObject
from spark_jobs.plan import Plan, carve, read_plan, write_plan
from spark_jobs.quality_gate import Standing
from spark_jobs.quality_hold import HeldError
from spark_jobs.series import Work, series_of, streams_of
from spark_jobs.session import side_by_side

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from datetime import datetime

    from pyspark.sql import SparkSession

    from lake.clients import Cloud
    from lake.declaration import Lake
    from lake.manifest import BatchId, BatchReceipt
    from spark_jobs.commit import History
    from spark_jobs.quality_hold import Hold
    from spark_jobs.series import Series

__all__ = ["IngestReport", "run"]


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


def run(
    spark: SparkSession,
    lake: Lake,
    cloud: Cloud,
    *,
    datasets: Collection[str] | None = None,
    tenants: Collection[str] | None = None,
    clock: Callable[[], datetime] = now,
    say: Callable[[str], None] = silent,
    after: Callable[[str], None] = silent,
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
        streams = streams_of(lake, datasets, tenants)
        if listed:
            relist(cloud, manifest, streams)
        Arrivals(lake, cloud, manifest, say).collect(streams, clock())
        series = series_of(lake, manifest, datasets, tenants, planned_in=cloud.s3 if listed else None)

    sender = Sender(LineageLog(cloud.dynamodb, lake.names.manifest_table()), lake.lineage, say)
    for owner, name in sorted({(one.stream.owner, one.stream.dataset.name) for one in series}):
        sender.resend(owner, name)
    parent = Parent.of("ingest", job_run_id(round(now().timestamp() * 1000), "ingest", uuid4().hex))

    def ingest(session: SparkSession, one: Series) -> _Outcome:
        work = Work(session, lake, cloud, glue_catalog(cloud), manifest, one, clock, say, after)
        with spoken(f"ingest of {one.stream.dataset.name}, {one.lane}, tenant {one.tenant}"):
            return _Ingest(work, Batches(work, sender, parent), listed).run()

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


@dataclass(frozen=True)
class _Outcome:
    batches: list[BatchReceipt]
    rebuilt: list[BatchReceipt]
    busy: str = ""
    held: Hold | None = None


@dataclass(frozen=True)
class _Ingest:
    """The ingest of one series: which batches there are to carry out."""

    work: Work
    batches: Batches
    listed: bool

    def run(self) -> _Outcome:
        """Finish what was begun, then take what is new."""
        outcome = _Outcome([], [])
        work, series = self.work, self.work.series
        history = work.history(series.table(work.lake.names)[1])
        self._evolve(history)
        last = history.last_number(series.batch(0).series)
        try:
            for number in self._without_receipt(history.name, last):
                outcome.rebuilt.append(self._rebuild(series.batch(number)))
            if series.lane is Lane.EVENTS and any(name.startswith("held_") for name in history.branches):
                work.gate.drop_branches(work.stream.owner, last)
            while (plan := self._next_plan(last + 1)) is not None:
                outcome.batches.append(self.batches.carry_out(*plan))
                last += 1
        except CommitConflictError as error:
            work.say(str(error))
            return _Outcome(outcome.batches, outcome.rebuilt, series.batch(0).series)
        except HeldError as error:
            work.say(str(error))
            return _Outcome(outcome.batches, outcome.rebuilt, held=error.hold)
        return outcome

    def _evolve(self, history: History) -> None:
        """Give the table what the contract has grown, whoever was first to hear of it."""
        contract = self.work.stream.dataset.contract
        if self.work.series.lane is Lane.EVENTS:
            for grown in history.evolve(columns(contract)):
                self.work.say(f"table {history.name}: column {grown}, as contract {contract.version}")

    def _without_receipt(self, table: str, last: int) -> list[int]:
        """Numbers of the batches that the table holds and the manifest doesn't know.

        Receipts are written in order, so only what comes behind the last one can lack one, unless the manifest itself
        lost some: they are all compared when everything is listed.
        """
        batch, manifest = self.work.series.batch(0), self.work.manifest
        known = manifest.numbers(batch) if self.listed else {manifest.last_receipt(batch)}
        newest = max(known, default=0)
        if newest > last:
            raise FindingError(
                f"table {table}: its history ends at batch {last} of {batch.series}, and the manifest knows batch "
                f"{newest}: the table was rolled back, or its snapshots were expired too far"
            )
        first = 1 if self.listed else newest + 1
        return [number for number in range(first, last + 1) if number not in known]

    def _rebuild(self, batch: BatchId) -> BatchReceipt:
        bucket = self.work.stream.bucket
        plan = read_plan(self.work.cloud.s3, bucket, batch)
        if plan is None:
            raise FindingError(
                f"batch {batch}: the table holds it, the manifest lacks it, and its plan is gone from {bucket}: it "
                "can't be told which objects it took"
            )
        return self.batches.carry_out(plan, self._standing(plan, past=True))

    def _standing(self, plan: Plan, *, past: bool) -> Standing:
        """What is decided about a batch that isn't new, as only events have quality rules."""
        return self.work.gate.standing(plan, past=past) if self.work.series.lane is Lane.EVENTS else Standing()

    def _next_plan(self, number: int) -> tuple[Plan, Standing] | None:
        """The plan that another run left, or a new one for what is new; None when nothing is."""
        work = self.work
        batch = work.series.batch(number)
        left = read_plan(work.cloud.s3, work.stream.bucket, batch)
        if left is not None:
            standing = self._standing(left, past=False)
            work.say(f"batch {batch}: planned by a run that didn't finish it; doing so")
            return left, standing
        found = self._waiting()
        if not found:
            return None
        version = work.stream.dataset.contract.version
        moment = round(work.clock().timestamp() * 1000)
        plan = Plan(batch, carve(found, work.lake.jobs), version, moment)
        write_plan(work.cloud.s3, work.stream.bucket, plan)
        work.after("plan")
        return plan, Standing()

    def _waiting(self) -> list[StoredObject]:
        """Objects that no batch has taken, as many as one may take; empty when there are none."""
        work, series = self.work, self.work.series
        place, most = (series.stream.owner, series.stream.dataset.name), work.lake.jobs.ingest_objects
        while True:
            asked = work.manifest.waiting(*place, series.lane, series.tenant, most)
            taken = work.manifest.taken_of(asked)
            # S3 told of them again, after a batch had taken them
            work.manifest.settled(taken)
            found = [StoredObject(one.uri, one.size) for one in asked if one not in taken]
            if found or not taken:
                return found


if __name__ == "__main__":
    from spark_jobs.commands import run_job

    sys.exit(run_job("ingest", sys.argv[1:]))
