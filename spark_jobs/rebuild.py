"""Owns drawing the audit's books up anew: from plans and objects in S3, and from the rows of the tables.

What the manifest says of batches is a projection. A batch's plan tells its objects; the quarantine table tells which of
their records were refused, and whose they were; the rest of the objects' lines were good; the data table tells which of
those became rows, and what it didn't take, it had. What an erasure took out of all of these is told by its receipt.

A batch whose objects are gone can't be told in full. Its receipt stays as it is, and it is said by name.
"""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from lake.books import Books
from lake.defaults import silent
from lake.erasure import receipts
from lake.errors import FindingError
from lake.figures import Counts, Figures
from lake.manifest import NO_TENANT, BatchReceipt, Lane, Manifest
from lake.ranges import Ranges
from lake.tables import QUARANTINE, existing_table, glue_catalog
from spark_jobs.commit import Committed
from spark_jobs.days import rows_by_day
from spark_jobs.failures import spoken
from spark_jobs.history import ancestors, batch_of, numbers_of, summary_of
from spark_jobs.plan import planned_series, read_plan
from spark_jobs.rebuild_look import Found, look_at_events, look_at_refused, rows_of
from spark_jobs.series import Series
from spark_jobs.tombstones import buried_events

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence

    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot
    from pyspark.sql import SparkSession

    from lake.clients import Cloud
    from lake.declaration import Lake
    from lake.erasure import Receipt
    from lake.manifest import BatchId
    from spark_jobs.plan import Plan

__all__ = ["RebuildReport", "run"]

_OBJECTS = 20_000  # looked at together
_READERS = 16


@dataclass
class RebuildReport:
    """What was drawn up."""

    batches: int = 0
    """Whose receipts were written anew."""
    kept: list[str] = field(default_factory=list)
    """Batches that can't be told in full any more, with what is known; their receipts stay as they were."""
    seconds: float = 0.0


def run(
    spark: SparkSession,
    lake: Lake,
    cloud: Cloud,
    *,
    datasets: Collection[str] | None = None,
    say: Callable[[str], None] = silent,
    after: Callable[[str], None] = silent,
) -> RebuildReport:
    """Write every batch's receipt anew, and the books; its cost grows with the lake, and a person asks for it.

    Args:
        spark: a session of `create_session`.
        lake: the declaration.
        cloud: where the lake is.
        datasets: only these; all of them without it.
        say: takes a line about each series, and about each batch that can't be told.
        after: called with `receipts`, `books` after each step of a series; tests stop it there.

    Raises:
        DeclarationError: a dataset isn't declared.
        FindingError: an erasure isn't finished, or a table is missing.
    """
    started = time.monotonic()
    names = {lake.dataset(name).name for name in datasets} if datasets else {one.name for one in lake.datasets}
    report = RebuildReport()
    erasures = [one for tenant in lake.tenants for one in receipts(cloud.s3, lake.names.bucket(tenant.id))]
    for one in erasures:
        if not one.is_finished:
            raise FindingError(
                f"erasure {one.id} of tenant {one.tenant}: it isn't finished, so nobody can tell what is gone; "
                "the command that began it goes on with it"
            )
    job = _Rebuild(spark, lake, cloud, erasures, say, after, report)
    job.restore_erasures(names)
    for stream in lake.streams():
        if stream.dataset.name in names:
            for lane, tenant in planned_series(cloud.s3, stream):
                with spoken(f"books of {stream.dataset.name}, {lane}, tenant {tenant}"):
                    job.rebuild(Series(stream, lane, tenant))
    report.seconds = time.monotonic() - started
    say(f"books: {report.batches:,} batches drawn up anew, {len(report.kept):,} kept; {report.seconds:.1f} s")
    return report


@dataclass(frozen=True)
class _Rebuild:
    spark: SparkSession
    lake: Lake
    cloud: Cloud
    erasures: Sequence[Receipt]
    say: Callable[[str], None]
    after: Callable[[str], None]
    report: RebuildReport

    @property
    def _manifest(self) -> Manifest:
        return Manifest(self.cloud.dynamodb, self.lake.names.manifest_table())

    def restore_erasures(self, datasets: Collection[str]) -> None:
        """Note in the manifest what erasures took out of tables, and the events that must not come back."""
        owners = {self.lake.names.database(one): one for one in self.lake.owners()}
        for one in self.erasures:
            for dataset in datasets:
                for table, rows in one.erased_rows.get(dataset, {}).items():
                    owner = owners.get(table.partition(".")[0])
                    if owner is not None:
                        self._manifest.erased(owner, dataset, one.id, table, rows)
                if one.events.get(dataset):
                    stones = buried_events(self.cloud.s3, self.lake.names.bucket(one.tenant), one.id, dataset)
                    # a run that was killed may have kept a stone twice
                    self._manifest.bury(one.tenant, dataset, set(stones))

    def rebuild(self, series: Series) -> None:
        """Write the receipts of a series anew, and its books."""
        table = self._table(series)
        nothing = series.batch(0)
        last = numbers_of(table).get(nothing.series, 0)
        snapshots = {batch_of(one): one for one in ancestors(table) if batch_of(one)}
        started = time.monotonic()
        written = 0
        for plans in _chunks(self._plans(series, last)):
            found = self._look(series, plans)
            for plan in plans:
                receipt = self._receipt(series, plan, found, snapshots.get(str(plan.batch)), table)
                if receipt is not None:
                    self._manifest.record(receipt)
                    written += 1
        self.after("receipts")
        if self._manifest.last_receipt(nothing):
            Books(self.cloud.dynamodb, self.lake.names.manifest_table()).start_anew(nothing)
        self.after("books")
        self.report.batches += written
        if last:
            told = f"{written:,} of {last:,} batches drawn up anew"
            self.say(f"books of {nothing.series}: {told}; {time.monotonic() - started:.1f} s")

    def _database(self, series: Series) -> str:
        return series.table(self.lake.names)[0]

    def _table(self, series: Series) -> Table:
        return existing_table(glue_catalog(self.cloud), series.table(self.lake.names))

    def _plans(self, series: Series, last: int) -> list[Plan]:
        bucket = series.stream.bucket
        with ThreadPoolExecutor(_READERS) as pool:
            numbers = range(1, last + 1)
            found = list(pool.map(lambda number: read_plan(self.cloud.s3, bucket, series.batch(number)), numbers))
        for number, plan in zip(range(1, last + 1), found, strict=True):
            if plan is None:
                self._keep(series.batch(number), f"its plan is gone from {bucket}", lost=True)
        return [one for one in found if one is not None]

    def _keep(self, batch: BatchId, why: str, *, lost: bool = False) -> None:
        there = self._manifest.figures_of(batch) is not None
        kept = "its receipt stays as it is" if there else "it has no receipt"
        if not there and not lost:
            kept = "it has no receipt, and gets one of what the tables hold: its duplicates are unknown"
        sentence = f"batch {batch}: {why}; {kept}"
        self.report.kept.append(sentence)
        self.say(sentence)

    def _look(self, series: Series, plans: Sequence[Plan]) -> Found:
        refused = f"{self._database(series)}.{QUARANTINE}"
        if series.lane is Lane.EVENTS:
            rows = f"{self._database(series)}.{series.stream.dataset.name}"
            return look_at_events(self.spark, self.cloud, plans, rows=rows, refused=refused, tenant=series.tenant)
        return look_at_refused(self.spark, plans, refused=refused)

    def _receipt(
        self, series: Series, plan: Plan, found: Found, snapshot: Snapshot | None, table: Table
    ) -> BatchReceipt | None:
        """A batch's receipt; None where the one that it has is better."""
        gone = self._gone(series, plan)
        refused = _added(found.bad.get(plan.batch.number, {}), gone.refused)
        records = _added(found.good.get(plan.batch.number, {}), found.bad.get(plan.batch.number, {}), gone.records)
        ingested = _added(found.rows.get(plan.batch.number, {}), gone.rows)
        committed = _committed(snapshot, sum(ingested.values()))
        known = self._manifest.figures_of(plan.batch)
        if series.lane is Lane.EVENTS and committed.rows > sum(ingested.values()):
            # rows that others deleted were ingested all the same: the snapshot's own files tell of which days
            name = f"{self._database(series)}.{series.stream.dataset.name}"
            days = rows_by_day(self.spark, name, committed, rows_of(plan))
            ingested = {(series.tenant, day): count for day, count in days.items()}
            self.say(f"batch {plan.batch}: of the {committed.rows:,} rows it wrote the table holds fewer")
        if found.broken.get(plan.batch.number) and not self._as_far_as_known(plan, found, known):
            return None
        figures = _figures(series.lane, records, refused, ingested, (found, gone), plan.batch.number)
        if known is not None and snapshot is None and _rows(known) > _rows(figures) and _same_but_rows(known, figures):
            self._keep(plan.batch, f"the table holds {_rows(figures):,} of the {_rows(known):,} rows that it wrote")
            return None
        return BatchReceipt(
            batch=plan.batch,
            snapshot_id=committed.snapshot_id,
            schema_version=plan.schema_version,
            committed_at_ms=committed.committed_at_ms or table.metadata.last_updated_ms,
            objects={
                one.uri: found.objects.get((plan.batch.number, one.uri), 0) + gone.objects.get(one.uri, 0)
                for one in plan.objects
            },
            figures=figures,
        )

    def _as_far_as_known(self, plan: Plan, found: Found, known: Figures | None) -> bool:
        """Say that objects of a batch are gone; whether it needs a receipt all the same."""
        missing = sorted(found.broken[plan.batch.number])
        more = f" and {len(missing) - 1} more" if len(missing) > 1 else ""
        self._keep(plan.batch, f"{missing[0]}{more} of its {len(plan.objects)} objects can't be read any more")
        return known is None

    def _gone(self, series: Series, plan: Plan) -> _Gone:
        """What erasures took out of a batch."""
        gone = _Gone()
        numbered = str(plan.batch.number) if series.lane is Lane.EVENTS else str(plan.batch)
        for one in self.erasures:
            for table, batches in one.erased_batches.items():
                database, _, name = table.partition(".")
                if database != self._database(series):
                    continue
                if name == QUARANTINE:
                    gone.refused.update(_by_place(batches.get(str(plan.batch), {})))
                elif series.lane is Lane.EVENTS and name == series.stream.dataset.name:
                    gone.rows.update(_by_place(batches.get(numbered, {})))
            for stored in plan.objects:
                cut = one.erased_objects.get(stored.uri)
                # a batch that took the object later took what was left of it
                if cut is None or plan.batch.number > one.numbers[cut.round].get(plan.batch.series, 0):
                    continue
                for record in cut.records:
                    gone.take(stored.uri, record.tenant, record.producer_id, record.day, record.count, record.sequences)
        return gone


@dataclass
class _Gone:
    """What erasures took out of one batch, by (tenant, day)."""

    records: Counter[tuple[str, str]] = field(default_factory=Counter)
    """From objects."""
    unidentified: Counter[tuple[str, str]] = field(default_factory=Counter)
    objects: Counter[str] = field(default_factory=Counter)
    seen: dict[tuple[str, str, str], Ranges] = field(default_factory=dict)
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    """From quarantine."""
    rows: Counter[tuple[str, str]] = field(default_factory=Counter)
    """From the data table."""

    def take(  # noqa: PLR0917 - what one line of an erasure's receipt tells
        self, uri: str, tenant: str, producer_id: str | None, day: str, count: int, sequences: str
    ) -> None:
        """Add records of one object."""
        self.records[tenant, day] += count
        self.objects[uri] += count
        if producer_id is None or not sequences or tenant == NO_TENANT:
            self.unidentified[tenant, day] += count
            return
        key = (tenant, producer_id, day)
        self.seen[key] = self.seen.get(key, Ranges()) | Ranges.parse(sequences)


def _by_place(days: Mapping[str, Mapping[str, int]]) -> Counter[tuple[str, str]]:
    return Counter({(tenant, day): rows for tenant, told in days.items() for day, rows in told.items()})


def _added(*many: Mapping[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    total: Counter[tuple[str, str]] = Counter()
    for one in many:
        total.update(one)
    return dict(total)


def _committed(snapshot: Snapshot | None, rows: int) -> Committed:
    if snapshot is None:
        return Committed(None, 0, rows)
    # said again without its rows, as its first snapshot held what was erased, it tells none
    told = int(summary_of(snapshot).get("added-records", "0"))
    return Committed(snapshot.snapshot_id, snapshot.timestamp_ms, told or rows)


def _figures(  # noqa: PLR0917 - one line of the balance sheet
    lane: Lane,
    records: Mapping[tuple[str, str], int],
    refused: Mapping[tuple[str, str], int],
    ingested: Mapping[tuple[str, str], int],
    places: tuple[Found, _Gone],
    number: int,
) -> Figures:
    found, gone = places
    unidentified = _added(found.unidentified.get(number, {}), gone.unidentified)
    before = lane is Lane.REFUSED
    counts: dict[tuple[str, str], Counts] = {}
    for key in sorted({*records, *refused, *ingested}):
        bad, rows = refused.get(key, 0), ingested.get(key, 0)
        # of a batch whose objects are gone, the tables' own are all that is known
        whole = max(records.get(key, 0), bad + rows)
        counts[key] = Counts(
            records=whole,
            ingested=rows,
            duplicates=whole - bad - rows,
            quarantined=0 if before else bad,
            refused=bad if before else 0,
            unidentified=unidentified.get(key, 0),
        )
    seen = {key[1:]: ranges for key, ranges in found.seen.items() if key[0] == number}
    for who, ranges in gone.seen.items():
        seen[who] = seen.get(who, Ranges()) | ranges
    return Figures(counts, seen)


def _rows(figures: Figures) -> int:
    return sum(one.ingested for one in figures.counts.values())


def _same_but_rows(one: Figures, other: Figures) -> bool:
    def rest(figures: Figures) -> dict[str, Counts]:
        return {key: replace(count, ingested=0, duplicates=0) for key, count in figures.by_tenant.items()}

    return rest(one) == rest(other)


def _chunks(plans: Sequence[Plan]) -> list[list[Plan]]:
    """Plans together, as far as their objects may be looked at together."""
    chunks: list[list[Plan]] = []
    room = 0
    for plan in plans:
        if not chunks or room < len(plan.objects):
            chunks.append([])
            room = _OBJECTS
        chunks[-1].append(plan)
        room -= len(plan.objects)
    return chunks
