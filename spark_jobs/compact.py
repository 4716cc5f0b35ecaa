"""Owns the compact job: many small data files become few, sorted as the contract says, with the rows they had.

`python -m spark_jobs.compact --lake lake.yaml`; `run` is the same for a session that is up already. What is to be
gained is told by the tables' metadata alone; closed partitions come first, a run takes no more than its budget of
bytes, and each rewrite is proven and committed by itself: a run that is stopped has lost only the one it was at.
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lake.defaults import now, silent
from lake.errors import CommitConflictError
from spark_jobs.compact_look import plan
from spark_jobs.compact_plan import Rules, units_of
from spark_jobs.compact_rewrite import Rewriter
from spark_jobs.failures import spoken
from spark_jobs.session import side_by_side

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from datetime import datetime

    from pyspark.sql import SparkSession

    from lake.clients import Cloud
    from lake.declaration import Lake
    from spark_jobs.compact_look import TablePlan

__all__ = ["CompactReport", "TableCompaction", "run"]


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
    """Whether anything was rewritten."""
    bytes_rewritten: int = 0
    """As stored, of the files that were."""
    conflicts: tuple[str, ...] = ()
    """Rewrites that were given up, as somebody else changed the files meanwhile."""
    left: int = 0
    """Partitions that the budget left for later runs, or of which it took a part."""
    seconds: float = 0.0


@dataclass(frozen=True)
class CompactReport:
    """What a run did."""

    tables: tuple[TableCompaction, ...]
    seconds: float


def run(
    spark: SparkSession,
    lake: Lake,
    cloud: Cloud,
    *,
    datasets: Collection[str] | None = None,
    owners: Collection[str] | None = None,
    clock: Callable[[], datetime] = now,
    say: Callable[[str], None] = silent,
    after: Callable[[str], None] = silent,
) -> CompactReport:
    """Compact every table in which something is to be gained.

    Args:
        spark: a session of `create_session`.
        lake: the declaration.
        cloud: where the lake is.
        datasets: only these tables; quarantine tables too without it.
        owners: only the tables of these tenants, or of `pooled`: the quarantine that pooled tenants share.
        clock: tells which partitions are closed by now.
        say: takes a line about each table.
        after: called with `plan` and, for each rewrite, `stage`, `write`, `prove`, `commit` after each step; tests stop
            it there, or change the table.

    Raises:
        DeclarationError: a dataset or owner isn't declared.
        FindingError: a table is missing, or a rewrite would have changed rows; it wasn't committed.
    """
    started = time.monotonic()
    planned = plan(lake, cloud, datasets=datasets, owners=owners, clock=clock)
    after("plan")

    def compact(session: SparkSession, one: TablePlan) -> TableCompaction:
        with spoken(f"compaction of {one.target.name}"):
            return _compact(session, one, planned.rules, say, after)

    for one in planned.tables:
        if not one.groups:
            empty = "nothing to do, it is empty" if one.snapshot_id is None else _nothing(one)
            say(f"table {one.target.name}: {empty}")
    busy = [one for one in planned.tables if one.groups]
    done = {one.table: one for one in side_by_side(spark, busy, compact, say)}
    idle = {one.target.name: _result(one) for one in planned.tables if one.snapshot_id is not None}
    tables = tuple(done.get(name, one) for name, one in idle.items())
    return CompactReport(tables, time.monotonic() - started)


def _nothing(one: TablePlan) -> str:
    size = f"{one.files} files, {one.bytes / 2**20:.1f} MiB"
    later = f"; {one.left} partitions are left to later runs, by the budget" if one.left else ""
    return f"nothing to gain; {size}{later}"


def _compact(
    spark: SparkSession,
    planned: TablePlan,
    rules: Rules,
    say: Callable[[str], None],
    after: Callable[[str], None],
) -> TableCompaction:
    started = time.monotonic()
    target = planned.target
    if planned.snapshot_id is None:
        return _result(planned)
    rewriter = Rewriter(
        spark,
        target.name,
        planned.snapshot_id,
        io=planned.io,
        rules=rules,
        sort=target.sort,
        zorder=target.zorder,
        after=after,
    )
    units = units_of(planned.groups, rules)
    result = _result(planned)
    for number, unit in enumerate(units, 1):
        # only when nothing was left behind does the next run need no more than what is new
        is_last = number == len(units) and not planned.left and not result.conflicts
        try:
            one = rewriter.rewrite(unit, through=planned.sequence if is_last else None)
        except CommitConflictError as error:
            say(f"{error}")
            result = replace(result, conflicts=(*result.conflicts, str(error)))
            continue
        result = replace(
            result,
            files_after=result.files_after - one.files_before + one.files_after,
            bytes_after=result.bytes_after - one.bytes_before + one.bytes_after,
            rewritten=True,
            bytes_rewritten=result.bytes_rewritten + one.bytes_before,
        )
    result = replace(result, seconds=time.monotonic() - started)
    say(_told(result, planned))
    return result


def _told(result: TableCompaction, planned: TablePlan) -> str:
    name = f"table {result.table}: "
    if not result.rewritten:
        return f"{name}nothing was rewritten; {result.seconds:.1f} s"
    sizes = [f"{files} files of {size / 2**20:.1f} MiB" for files, size in _sizes(result)]
    later = f"; {planned.left} partitions are left to later runs, by the budget" if planned.left else ""
    return f"{name}{sizes[0]} became {sizes[1]}, {result.rows:,} rows{later}; {result.seconds:.1f} s"


def _sizes(result: TableCompaction) -> Sequence[tuple[int, int]]:
    return (result.files_before, result.bytes_before), (result.files_after, result.bytes_after)


def _result(planned: TablePlan) -> TableCompaction:
    return TableCompaction(
        table=planned.target.name,
        rows=planned.rows,
        files_before=planned.files,
        files_after=planned.files,
        bytes_before=planned.bytes,
        bytes_after=planned.bytes,
        rewritten=False,
        left=planned.left,
    )


if __name__ == "__main__":
    from spark_jobs.commands import run_job

    sys.exit(run_job("compact", sys.argv[1:]))
