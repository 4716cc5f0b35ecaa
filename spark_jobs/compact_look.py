"""Owns the look at tables before compaction: which there are, and what is to be gained in each; needs no Spark."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lake.defaults import now
from lake.names import POOL
from lake.tables import QUARANTINE, existing_table, glue_catalog
from spark_jobs.compact_plan import Group, Rules, groups_of, within_budget
from spark_jobs.failures import spoken
from spark_jobs.history import compacted_through, summed
from spark_jobs.layout import read_layout

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from datetime import datetime

    from pyiceberg.io import FileIO
    from pyiceberg.table import Table

    from lake.clients import Cloud
    from lake.declaration import Lake

__all__ = ["CompactPlan", "TablePlan", "TargetTable", "load_target", "plan", "rules_of", "tables_of"]

_AT_ONCE = 4


@dataclass(frozen=True)
class TargetTable:
    """A table that compaction and maintenance look after."""

    owner: str
    database: str
    table: str
    sort: tuple[str, ...]
    least: int
    """Small files of one partition that are worth a rewrite."""
    zorder: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """`database.table`."""
        return f"{self.database}.{self.table}"


@dataclass(frozen=True)
class TablePlan:
    """What is to be done in one table."""

    target: TargetTable
    snapshot_id: int | None
    """Snapshot that was looked at; None where the table is empty."""
    sequence: int
    """That snapshot's sequence number."""
    io: FileIO
    """What its files are read by."""
    files: int
    bytes: int
    rows: int
    groups: tuple[Group, ...] = ()
    left: int = 0
    """Partitions that the budget leaves for later runs, or of which it takes a part."""


@dataclass(frozen=True)
class CompactPlan:
    """What a run would do."""

    tables: tuple[TablePlan, ...]
    rules: Rules


def tables_of(lake: Lake, datasets: Collection[str] | None, owners: Collection[str] | None) -> list[TargetTable]:
    """The tables of the datasets and owners asked for, quarantine where all datasets are.

    Raises:
        DeclarationError: a dataset or owner isn't declared.
    """
    kinds = [lake.dataset(name) for name in datasets] if datasets else list(lake.datasets)
    found: list[TargetTable] = []
    for owner in map(lake.owner, owners) if owners else lake.owners():
        database = lake.names.database(owner)
        if owner != POOL:
            found += [
                TargetTable(owner, database, one.name, one.contract.sort, least=2, zorder=one.contract.zorder)
                for one in kinds
            ]
        if not datasets:
            # asked rarely, and each batch with a bad record adds a file: a few are no harm
            found.append(TargetTable(owner, database, QUARANTINE, (), least=10))
    return found


def rules_of(lake: Lake, target: TargetTable | None = None) -> Rules:
    """What compaction aims at, in one table or in general."""
    rules = Rules(lake.jobs.compact_target_mib * 2**20)
    return rules if target is None else replace(rules, least=target.least)


def load_target(target: TargetTable, cloud: Cloud) -> Table:
    """The table as PyIceberg sees it.

    Raises:
        FindingError: there is none.
    """
    # a catalog of its own: its client isn't made for several threads
    return existing_table(glue_catalog(cloud), (target.database, target.table))


def plan(
    lake: Lake,
    cloud: Cloud,
    *,
    datasets: Collection[str] | None = None,
    owners: Collection[str] | None = None,
    clock: Callable[[], datetime] = now,
) -> CompactPlan:
    """Look what is to be gained; reads metadata only, needs no Spark and changes nothing.

    Args:
        lake: the declaration.
        cloud: where the lake is.
        datasets: only these tables; quarantine tables too without it.
        owners: only the tables of these tenants, or of `pooled`: the quarantine that pooled tenants share.
        clock: tells which partitions are closed by now.

    Raises:
        DeclarationError: a dataset or owner isn't declared.
        FindingError: a table is missing.
    """
    rules = rules_of(lake)
    moment = clock()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        found = list(pool.map(lambda one: _look(one, cloud, rules, moment), tables_of(lake, datasets, owners)))
    every = [group for one in found for group in one.groups]
    taken, left = within_budget(every, lake.jobs.compact_max_mib * 2**20, rules)
    tables = tuple(
        replace(
            one,
            groups=tuple(group for group in taken if group.table == one.target.name),
            left=sum(group.table == one.target.name for group in left),
        )
        for one in found
    )
    return CompactPlan(tables, rules)


def _look(target: TargetTable, cloud: Cloud, rules: Rules, moment: datetime) -> TablePlan:
    table = load_target(target, cloud)
    snapshot = table.current_snapshot()
    if snapshot is None:
        return TablePlan(target, None, 0, table.io, 0, 0, 0)
    with spoken(f"look at {target.name}"):
        layout = read_layout(table, target.sort, since=compacted_through(table, rules.target_bytes))
    groups = groups_of(target.name, layout, replace(rules, least=target.least), moment)
    totals = (summed(snapshot, "data-files"), summed(snapshot, "files-size"), summed(snapshot, "records"))
    return TablePlan(target, layout.snapshot_id, layout.sequence, table.io, *totals, tuple(groups))
