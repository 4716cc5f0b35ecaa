"""Owns what `lakehose table health` sees: the state of tables and partitions, from their metadata, without Spark."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from lake.defaults import now
from spark_jobs.compact_look import load_target, rules_of, tables_of
from spark_jobs.compact_plan import SMALL, disorder, groups_of, is_closed
from spark_jobs.history import PUBLISHED, REWRITE_ID, ancestors, staged_batch, summary_of
from spark_jobs.layout import read_layout

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from pyiceberg.table import Table

    from lake.clients import Cloud
    from lake.declaration import Lake
    from spark_jobs.compact_look import TargetTable
    from spark_jobs.compact_plan import Group, Rules
    from spark_jobs.layout import Place

__all__ = ["PartitionHealth", "TableHealth", "look"]

_AT_ONCE = 4


@dataclass(frozen=True)
class PartitionHealth:
    """One partition."""

    partition: str
    """As in paths; empty where the table has none."""
    closed: bool
    """Whether its time is over."""
    rows: int
    """In its data files, deleted ones included."""
    files: int
    bytes: int
    small: int
    """Files below three quarters of the target size."""
    delete_files: int
    """Data files that have rows deleted."""
    deleted: int
    """Rows that position deletes take away, as far as the metadata tells."""
    disorder: int
    """Most writes whose files lie over the same sort key: 1 is perfect order, 0 where that isn't known."""
    to_rewrite: int
    """Files that compaction would rewrite."""
    becomes: int
    """Files that those would become, about."""


@dataclass(frozen=True)
class TableHealth:
    """One table."""

    table: str
    """`database.table`."""
    partitions: tuple[PartitionHealth, ...]
    manifests: int
    snapshots: int
    waiting: int
    """Batches that are staged and not published, but those that a branch holds."""
    oldest_snapshot: str | None
    """When the oldest snapshot of the history was committed, ISO 8601."""
    last_commit: str | None
    last_compaction: str | None
    """Of those in the history that is kept."""

    def total(self, what: str) -> int:
        """Sum over the partitions, of one of their numbers."""
        return sum(getattr(one, what) for one in self.partitions)


def look(
    lake: Lake,
    cloud: Cloud,
    *,
    datasets: Collection[str] | None = None,
    owners: Collection[str] | None = None,
    clock: Callable[[], datetime] = now,
) -> list[TableHealth]:
    """See how tables are; reads all their manifests, and no data.

    Args:
        lake: the declaration.
        cloud: where the lake is.
        datasets: only these tables; quarantine tables too without it.
        owners: only the tables of these tenants, or of `pooled`.
        clock: tells which partitions are closed by now.

    Raises:
        DeclarationError: a dataset or owner isn't declared.
        FindingError: a table is missing.
    """
    moment = clock()

    def one(target: TargetTable) -> TableHealth:
        return _table(load_target(target, cloud), target, rules_of(lake, target), moment)

    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(one, tables_of(lake, datasets, owners)))


def _table(table: Table, target: TargetTable, rules: Rules, moment: datetime) -> TableHealth:
    layout = read_layout(table, target.sort)
    worth = {(one.place.spec_id, one.place.partition): one for one in groups_of(target.name, layout, rules, moment)}
    history = ancestors(table)
    known = {one.snapshot_id for one in history}
    published = {summary_of(one).get(PUBLISHED) for one in history}
    compacted = [one for one in history if REWRITE_ID in summary_of(one)]
    # what a branch holds back waits for a person, not for the next ingest
    held = {one.snapshot_id for one in table.metadata.refs.values()}
    staged = [one for one in table.metadata.snapshots if staged_batch(one) and one.snapshot_id not in known | held]
    return TableHealth(
        table=target.name,
        partitions=tuple(
            _partition(one, worth.get((one.spec_id, one.partition)), rules, moment) for one in layout.places
        ),
        manifests=layout.manifests,
        snapshots=len(table.metadata.snapshots),
        waiting=sum(staged_batch(one) not in published for one in staged),
        oldest_snapshot=_moment(history[-1].timestamp_ms) if history else None,
        last_commit=_moment(history[0].timestamp_ms) if history else None,
        last_compaction=_moment(compacted[0].timestamp_ms) if compacted else None,
    )


def _partition(place: Place, group: Group | None, rules: Rules, moment: datetime) -> PartitionHealth:
    return PartitionHealth(
        partition=place.name,
        closed=is_closed(place, moment),
        rows=sum(one.rows for one in place.files),
        files=len(place.files),
        bytes=sum(one.bytes for one in place.files),
        small=sum(one.bytes < SMALL * rules.target_bytes for one in place.files),
        delete_files=sum(one.delete_files > 0 for one in place.files),
        deleted=sum(one.deleted for one in place.files),
        disorder=disorder(place.files),
        to_rewrite=len(group.files) if group else 0,
        becomes=group.outputs if group else 0,
    )


def _moment(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="seconds")
