"""Owns the compact job: many small data files become few, sorted as the contract says, with the rows they had.

`python -m spark_jobs.compact --lake lake.yaml`; `run` is the same for a session that is up already. A table in which
nothing would be gained is left alone. Source: https://iceberg.apache.org/docs/1.12.0/spark-procedures/#rewrite_data_files
"""

from __future__ import annotations

import math
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyiceberg.table.snapshots import Operation
from pyspark.sql import functions as F  # noqa: N812 - as Spark's users know it

from lake.errors import FindingError
from lake.names import POOL
from lake.tables import QUARANTINE, glue_catalog, load_table
from spark_jobs.failures import spoken
from spark_jobs.session import CATALOG, literal, side_by_side

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from pyiceberg.catalog.glue import GlueCatalog
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot
    from pyspark.sql import SparkSession

    from lake.clients import Cloud
    from lake.declaration import Lake

__all__ = ["CompactReport", "TableCompaction", "run"]

_SMALL = 0.75
"""Part of the target size below which a file is small; Iceberg's own default for `min-file-size-bytes`."""


@dataclass(frozen=True)
class TableCompaction:
    """What compaction did to one table."""

    table: str
    """`database.table`."""
    rows: int
    """Rows in the table's files when it began; compaction changes none."""
    files_before: int
    files_after: int
    bytes_before: int
    bytes_after: int
    rewritten: bool
    """Whether there was something to gain."""


@dataclass(frozen=True)
class CompactReport:
    """What a run did."""

    tables: tuple[TableCompaction, ...]
    seconds: float


@dataclass(frozen=True)
class _Target:
    database: str
    table: str
    sort: tuple[str, ...]
    least: int
    """Small files of one partition that are worth a rewrite."""

    @property
    def name(self) -> str:
        return f"{self.database}.{self.table}"


@dataclass(frozen=True)
class _Layout:
    """A table's data files."""

    rows: int
    files: int
    size: int
    gain: int
    """Files fewer that a rewrite would leave."""


def _silent(_: str) -> None:
    """Say nothing."""


def run(
    spark: SparkSession,
    lake: Lake,
    cloud: Cloud,
    *,
    datasets: Collection[str] | None = None,
    owners: Collection[str] | None = None,
    say: Callable[[str], None] = _silent,
) -> CompactReport:
    """Compact every table in which something is to be gained.

    Args:
        spark: a session of `create_session`.
        lake: the declaration.
        cloud: where the lake is.
        datasets: only these tables; quarantine tables too without it.
        owners: only the tables of these tenants, or of `pooled`: the quarantine that pooled tenants share.
        say: takes a line about each table.

    Raises:
        DeclarationError: a dataset or owner isn't declared.
        FindingError: a rewrite changed the number of rows.
    """
    started = time.monotonic()
    target_bytes = lake.jobs.compact_target_mib * 2**20

    def compact(session: SparkSession, target: _Target) -> TableCompaction | None:
        with spoken(f"compaction of {target.name}"):
            return _compact(session, glue_catalog(cloud), target, target_bytes, say)

    done = side_by_side(spark, _targets(lake, datasets, owners), compact, say)
    return CompactReport(tuple(one for one in done if one is not None), time.monotonic() - started)


def _targets(lake: Lake, datasets: Collection[str] | None, owners: Collection[str] | None) -> list[_Target]:
    kinds = [lake.dataset(name) for name in datasets] if datasets else list(lake.datasets)
    found: list[_Target] = []
    for owner in map(lake.owner, owners) if owners else lake.owners():
        database = lake.names.database(owner)
        if owner != POOL:
            found += [_Target(database, one.name, one.contract.sort, least=2) for one in kinds]
        if not datasets:
            # asked rarely, and each batch with a bad record adds a file: a few are no harm
            found.append(_Target(database, QUARANTINE, (), least=10))
    return found


def _compact(
    spark: SparkSession, catalog: GlueCatalog, target: _Target, target_bytes: int, say: Callable[[str], None]
) -> TableCompaction | None:
    started = time.monotonic()
    table = _load(catalog, target)
    snapshot = table.current_snapshot()
    if snapshot is None:
        say(f"table {target.name}: nothing to do, it is empty")
        return None
    before = _layout(spark, target, snapshot.snapshot_id, target_bytes)
    if before.gain <= 0:
        say(f"table {target.name}: nothing to gain; {before.files} files, {before.size / 2**20:.1f} MiB")
        return _result(target, before, before, rewritten=False)
    _rewrite(spark, target, target_bytes)
    table = _load(catalog, target)
    _check_rows(table, target, snapshot.snapshot_id)
    current = table.current_snapshot()
    after = _layout(spark, target, current.snapshot_id if current else snapshot.snapshot_id, target_bytes)
    say(
        f"table {target.name}: {before.files} files of {before.size / 2**20:.1f} MiB became {after.files} of "
        f"{after.size / 2**20:.1f} MiB, {before.rows:,} rows; {time.monotonic() - started:.1f} s"
    )
    return _result(target, before, after, rewritten=True)


def _result(target: _Target, before: _Layout, after: _Layout, *, rewritten: bool) -> TableCompaction:
    return TableCompaction(
        table=target.name,
        rows=before.rows,
        files_before=before.files,
        files_after=after.files,
        bytes_before=before.size,
        bytes_after=after.size,
        rewritten=rewritten,
    )


def _load(catalog: GlueCatalog, target: _Target) -> Table:
    found = load_table(catalog, (target.database, target.table))
    if found is None:
        raise FindingError(f"table {target.name}: there is none; `lakehose apply` makes it")
    return found


def _layout(spark: SparkSession, target: _Target, snapshot_id: int, target_bytes: int) -> _Layout:
    """Data files by partition, from the metadata alone."""
    files = spark.read.option("versionAsOf", snapshot_id).table(f"{CATALOG}.{target.name}.files")
    small = f"file_size_in_bytes < {int(target_bytes * _SMALL)}"
    # the metadata of a table without partitions has no such column
    place = [name for name in ("spec_id", "partition") if name in files.columns]
    sums = (
        files.where("content = 0")
        .selectExpr(*place, "record_count", "file_size_in_bytes AS size", f"{small} AS small")
        .groupBy(*place)
        .agg(
            F.expr("sum(record_count)").alias("rows"),
            F.expr("count(*)").alias("files"),
            F.expr("sum(size)").alias("size"),
            F.expr("count_if(small)").alias("small"),
            F.expr("coalesce(sum(size) FILTER (WHERE small), 0)").alias("small_size"),
        )
        .collect()
    )
    gain = sum(
        row["small"] - math.ceil(row["small_size"] / target_bytes) for row in sums if row["small"] >= target.least
    )
    return _Layout(
        rows=sum(row["rows"] for row in sums),
        files=sum(row["files"] for row in sums),
        size=sum(row["size"] for row in sums),
        gain=gain,
    )


def _rewrite(spark: SparkSession, target: _Target, target_bytes: int) -> None:
    options = {"target-file-size-bytes": target_bytes, "min-input-files": target.least}
    given = ", ".join(f"{literal(name)}, {literal(str(value))}" for name, value in options.items())
    # `sort` without an order takes the table's own, which is the contract's
    strategy = "sort" if target.sort else "binpack"
    table = literal(f"{CATALOG}.{target.name}")
    spark.sql(
        f"CALL {CATALOG}.system.rewrite_data_files(table => {table}, strategy => '{strategy}', options => map({given}))"
    ).collect()


def _check_rows(table: Table, target: _Target, since: int) -> None:
    """Hold every rewrite since a snapshot to leaving as many rows as it took; ingest may commit meanwhile."""
    for snapshot in _since(table, since):
        summary = snapshot.summary
        if summary is None or summary.operation is not Operation.REPLACE:
            continue
        took, left = (int(summary[name] or 0) for name in ("deleted-records", "added-records"))
        if took != left:
            raise FindingError(
                f"table {target.name}: snapshot {snapshot.snapshot_id} rewrote {took} rows into {left}; "
                f"snapshot {snapshot.parent_snapshot_id} still has them all"
            )


def _since(table: Table, snapshot_id: int) -> Iterator[Snapshot]:
    found = table.current_snapshot()
    while found is not None and found.snapshot_id != snapshot_id:
        yield found
        found = table.snapshot_by_id(found.parent_snapshot_id) if found.parent_snapshot_id is not None else None


if __name__ == "__main__":
    from spark_jobs.commands import run_job

    sys.exit(run_job("compact", sys.argv[1:]))
