"""Owns backfill: objects of a range of days taken into the table once more; events that are there already are dropped.

A backfill is cut into batches of the tenant's own series, each planned as any other, so that ingest carries them out,
numbers them, counts them, and takes them up where a run was ended. Such a plan says that duplicates are looked for in
the whole table, not only within the contract's window.

With a branch, the rows go there first (`branch`), and are audited; `publish` then claims the batches' numbers and moves
the table to the branch's head. Nothing else can be ingested under a number that is claimed, so the table stays where
the branch began, or, if it has moved on before, the branch is made again from there. Source:
https://iceberg.apache.org/docs/1.12.0/branching/#audit-branch
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lake.defaults import now, silent
from lake.errors import CommitConflictError, FindingError, TerminalError, TransientError
from lake.manifest import Counts, Lane, Manifest
from lake.tables import glue_catalog
from spark_jobs import ingest
from spark_jobs.backfill_branch import Branch, check_name
from spark_jobs.backfill_state import Chunk, Source, State, backfill_objects, carved, read_state, write_state
from spark_jobs.commit import History
from spark_jobs.failures import spoken
from spark_jobs.plan import Plan, read_plan, write_plan
from spark_jobs.series import Series

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import date, datetime

    from pyspark.sql import SparkSession

    from lake.clients import Cloud
    from lake.declaration import Lake
    from spark_jobs.backfill_branch import BranchAudit

__all__ = ["EVER", "BackfillReport", "Source", "check", "run"]

EVER = 100_000
"""Days in which a backfill looks for duplicates: longer than events have been."""

_ATTEMPTS = 30
_WAIT_SECONDS = 2.0


@dataclass(frozen=True)
class BackfillReport:
    """What a backfill did."""

    id: str
    objects: int
    left: int
    """Objects of these days that were left alone: no batch has taken them yet, or they are no JSON lines."""
    batches: tuple[str, ...]
    """Ids of the batches; empty while the rows are on a branch only."""
    counts: Counts
    branch: str | None = None
    """Where the rows are, if they aren't in the table."""
    audit: BranchAudit | None = None
    seconds: float = 0.0


def run(
    spark: SparkSession,
    lake: Lake,
    cloud: Cloud,
    *,
    dataset: str,
    tenant: str,
    first: date,
    last: date,
    source: Source = Source.PROCESSED,
    branch: str | None = None,
    publish: bool = False,
    clock: Callable[[], datetime] = now,
    pause: Callable[[float], None] = time.sleep,
    say: Callable[[str], None] = silent,
    after: Callable[[str], None] = silent,
) -> BackfillReport:
    """Take the objects of some days into the table, or into a branch of it.

    Args:
        spark: a session of `create_session`.
        lake: the declaration.
        cloud: where the lake is.
        dataset: whose objects.
        tenant: whose objects.
        first: first day.
        last: last day, included.
        source: where the objects lie.
        branch: name of the branch that takes the rows first; straight into the table without it.
        publish: move the table to the branch's head.
        clock: "now" for the records.
        pause: waits so many seconds for another ingest.
        say: takes a line about each step.
        after: called with `state`, `plan`, `done` for each batch, and `created`, `branch`, `claimed`, `published`,
            `dropped`; tests stop it there.

    Raises:
        DeclarationError: the dataset or tenant isn't declared.
        TerminalError: the days are none, or there are no objects.
        FindingError: the branch doesn't hold what it should; it stays, and nothing is published.
        TransientError: another ingest is at the series and doesn't end.
    """
    started = time.monotonic()
    stream = lake.stream_of(dataset, tenant)
    check(first, last, branch, publish=publish)
    manifest = Manifest(cloud.dynamodb, lake.names.manifest_table())
    bucket = stream.bucket if source is Source.PROCESSED else lake.names.bucket(tenant)
    moment, version = round(clock().timestamp() * 1000), stream.dataset.contract.version
    objects, left = backfill_objects(
        cloud.s3, manifest, stream, tenant, bucket=bucket, source=source, days=(first, last)
    )
    chunks = carved(objects, lake.jobs)
    state = State.new(dataset, tenant, source, (first, last), chunks=chunks, version=version, planned_at_ms=moment)
    begun = read_state(cloud.s3, bucket, state)
    if begun is not None and not begun.finished:
        say(f"backfill {state.id}: begun before and not finished; going on with the objects it began with")
        state = begun
    if not state.chunks:
        told = f"; {left} are left to ingest, or are no JSON lines" if left else ""
        raise TerminalError(f"backfill: no objects of {first} to {last} in {source} of tenant {tenant}{told}")
    job = _Backfill(spark, lake, cloud, manifest, Series(stream, Lane.EVENTS, tenant), bucket, pause, say, after)
    with spoken(f"backfill {state.id} of {dataset}, tenant {tenant}"):
        audit = None
        if branch is None:
            state = job.into_table(state)
        else:
            state, audit = job.into_branch(state, branch)
            if publish:
                state, audit = job.publish(state, branch, audit)
    waits = branch is not None and not publish
    return BackfillReport(
        id=state.id,
        objects=state.objects,
        left=left,
        batches=() if waits else tuple(str(job.series.batch(one.number or 0)) for one in state.chunks),
        counts=audit.counts if waits and audit else job.counted(state),
        branch=branch if waits else None,
        audit=audit,
        seconds=time.monotonic() - started,
    )


def check(first: date, last: date, branch: str | None, *, publish: bool) -> None:
    """Refuse what makes no sense, before anything is started.

    Raises:
        TerminalError: the days are none, a branch has no name that SQL takes, or what to publish isn't named.
    """
    if last < first:
        raise TerminalError(f"--to: got {last}, which is before {first}")
    if publish and branch is None:
        raise TerminalError("--publish: it moves the table to a branch; name it with --branch")
    if branch is not None:
        check_name(branch)


@dataclass(frozen=True)
class _Backfill:
    spark: SparkSession
    lake: Lake
    cloud: Cloud
    manifest: Manifest
    series: Series
    bucket: str
    pause: Callable[[float], None]
    say: Callable[[str], None]
    after: Callable[[str], None]

    def _history(self) -> History:
        return History(glue_catalog(self.cloud), *self.series.table(self.lake.names))

    def _last(self) -> int:
        return self._history().last_number(self.series.batch(0).series)

    def _note(self, state: State) -> None:
        write_state(self.cloud.s3, self.bucket, state)

    def _plan(self, state: State, chunk: Chunk, number: int) -> Plan:
        batch = self.series.batch(number)
        return Plan(batch, chunk.objects, state.schema_version, state.planned_at_ms, EVER)

    def _is_planned(self, state: State, chunk: Chunk, number: int) -> bool:
        """Whether a number's plan is this chunk's."""
        found = read_plan(self.cloud.s3, self.series.stream.bucket, self.series.batch(number))
        return found == self._plan(state, chunk, number)

    def _ingest(self) -> None:
        """Carry out what is planned in the series."""
        for _ in range(_ATTEMPTS):
            report = ingest.run(self.spark, self.lake, self.cloud, series=[self.series], say=self.say)
            if report.held:
                raise FindingError(f"{report.held[0]}; once it is decided about, the same command goes on")
            if not report.busy:
                return
            self.pause(_WAIT_SECONDS)
        raise TransientError(f"{self.series.batch(0).series}: another ingest doesn't end; the same command goes on")

    def into_table(self, state: State) -> State:
        """Plan the chunks that aren't planned, each as the next batch, and have them carried out."""
        return self._finished(self._into_next(state))

    def _into_next(self, state: State) -> State:
        for place, chunk in enumerate(state.chunks):
            number = chunk.number
            if number is None or not self._is_planned(state, chunk, number):
                number = self._claim_next(state, place)
                state = state.with_number(place, number)
            if self._last() < number:
                self._ingest()
            self.after("done")
        return state

    def _finished(self, state: State) -> State:
        return self._noted(replace(state, finished=True))

    def _noted(self, state: State) -> State:
        self._note(state)
        return state

    def _claim_next(self, state: State, place: int) -> int:
        for _ in range(_ATTEMPTS):
            number = self._last() + 1
            # noted first: a run that is killed behind the plan would not know it for its own
            self._note(state.with_number(place, number))
            self.after("state")
            try:
                write_plan(self.cloud.s3, self.series.stream.bucket, self._plan(state, state.chunks[place], number))
            except CommitConflictError:
                self._ingest()  # of another run, which goes first
                continue
            self.after("plan")
            return number
        raise TransientError(f"{self.series.batch(0).series}: others plan every batch first; try again")

    def into_branch(self, state: State, name: str) -> tuple[State, BranchAudit]:
        """Write what isn't there yet to the branch, made from the table as it is if it has none, and audit it."""
        branch = self._branch(name)
        if state.branch != name or not branch.exists():
            branch.refuse_anothers()
            state = self._fresh_branch(state, branch)
        plans = [self._plan(state, one, one.number or 0) for one in state.chunks]
        missing = [one for one in plans if not branch.has(one.batch)]
        if missing or state.writing:
            # an erasure leaves files alone that a branch may be about to have
            state = self._noted(replace(state, writing=True))
            for plan in missing:
                branch.write(plan)
                self.after("branch")
            state = self._noted(replace(state, writing=False))
        audit = branch.audit(plans, state.base)
        self.say(f"branch {name}: {audit.told}")
        return state, audit

    def _branch(self, name: str) -> Branch:
        return Branch(self.spark, self.cloud, self.manifest, self._history, self.series, name)

    def _fresh_branch(self, state: State, branch: Branch) -> State:
        base, after = branch.base(), self._last()
        for place in range(len(state.chunks)):
            state = state.with_number(place, after + 1 + place)
        # noted first: a run that is killed behind the branch would not know it for its own
        state = self._noted(replace(state, branch=branch.name, base=base))
        branch.create(base)
        self.after("created")
        return state

    def publish(self, state: State, name: str, audit: BranchAudit) -> tuple[State, BranchAudit]:
        """Claim the numbers, and move the table to the branch's head."""
        branch = self._branch(name)
        for _ in range(_ATTEMPTS):
            if branch.main() != state.base or self._last() + 1 != state.chunks[0].number:
                if self._is_planned(state, state.chunks[0], state.chunks[0].number or 0):
                    # claimed already: moved, or carried out by an ingest; a run that was killed between two claims
                    # has left chunks without, and their numbers may be another's by now
                    state = self._into_next(state)
                    break
                self.say(f"branch {name}: the table has moved on; the branch is made again from there")
                branch.drop()
                state, audit = self.into_branch(replace(state, branch=None, base=None), name)
                continue
            if not self._claim(state):
                self._ingest()
                continue
            self.after("claimed")
            branch.forward()
            self.after("published")
            break
        else:
            raise TransientError(f"branch {name}: the table moved on {_ATTEMPTS} times; try again")
        # writes the receipts; where an ingest was faster than the branch, it carries out the plans
        self._ingest()
        branch.drop()
        self.after("dropped")
        return self._finished(state), audit

    def _claim(self, state: State) -> bool:
        for chunk in state.chunks:
            plan = self._plan(state, chunk, chunk.number or 0)
            try:
                write_plan(self.cloud.s3, self.series.stream.bucket, plan)
            except CommitConflictError:
                if not self._is_planned(state, chunk, chunk.number or 0):
                    return False
            self.after("plan")
        return True

    def counted(self, state: State) -> Counts:
        """What the batches found, by their receipts."""
        found = (self.manifest.figures_of(self.series.batch(one.number or 0)) for one in state.chunks)
        ours = [counts for one in found if one is not None for counts in one.by_tenant.values()]
        return sum(ours, Counts())
