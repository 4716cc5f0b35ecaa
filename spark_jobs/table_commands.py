"""Owns `lakehose table`, and how plans and reports of compaction and maintenance are printed."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.measure import Measurement

from lake.context import CommandContext  # noqa: TC001 - typer reads annotations at run time
from lake.printing import PlainTable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spark_jobs.compact import CompactReport
    from spark_jobs.compact_look import CompactPlan
    from spark_jobs.health import PartitionHealth, TableHealth
    from spark_jobs.maintain import MaintainReport

__all__ = ["health", "print_compaction", "print_plan", "print_upkeep", "table"]

_WIDEST = 1_000
_MIB = 2**20

table = typer.Typer(help="Iceberg tables: how they are.", no_args_is_help=True)


@table.callback()
def _together() -> None:
    """Keep `health` a command of its own, where typer would take a single one as the whole."""


@table.command()
def health(
    context: typer.Context,
    *,
    dataset: Annotated[list[str] | None, typer.Option(help="Only this dataset; may be repeated.")] = None,
    tenant: Annotated[list[str] | None, typer.Option(help="Only this tenant; may be repeated.")] = None,
    owner: Annotated[str | None, typer.Option(help="Only what this dedicated tenant owns, or `pooled`.")] = None,
    partitions: Annotated[bool, typer.Option("--partitions", help="Each partition by itself, too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Show files, sizes, deletes, order and snapshots of every table, and what compaction would gain."""
    # PyIceberg takes a second to load, which `lakehose --help` need not wait for
    from spark_jobs.commands import Scope  # noqa: PLC0415
    from spark_jobs.health import look  # noqa: PLC0415

    given: CommandContext = context.obj
    lake = given.lake()
    scope = Scope.of(lake, dataset, tenant, owner)
    found = look(lake, given.cloud(), datasets=scope.datasets, owners=scope.owners)
    if as_json:
        typer.echo(json.dumps({"tables": [asdict(one) for one in found]}, indent=2))
        return
    _print_health(found)
    for one in found if partitions else ():
        if one.partitions:
            _print_partitions(one)


_COUNTS = ("rows", "files", "small", "MiB", "deleted", "disorder", "gain")


def _print_health(found: Sequence[TableHealth]) -> None:
    shown = _sheet("health", "table", ("partitions", *_COUNTS, "manifests", "snapshots", "waiting"))
    shown.add_column("last commit")
    shown.add_column("last compaction")
    for one in found:
        parts = one.partitions
        numbers = [
            *(_number(one.total(what)) for what in ("rows", "files", "small")),
            f"{one.total('bytes') / _MIB:,.1f}",
            _number(one.total("deleted")),
            _number(max((each.disorder for each in parts), default=0)),
            _number(one.total("to_rewrite") - one.total("becomes")),
        ]
        rest = (_number(one.manifests), _number(one.snapshots), _number(one.waiting))
        shown.add_row(
            one.table, _number(len(parts)), *numbers, *rest, one.last_commit or "-", one.last_compaction or "-"
        )
    _print(shown)


def _print_partitions(one: TableHealth) -> None:
    shown = _sheet(one.table, "partition", _COUNTS)
    shown.add_column("closed")
    for part in one.partitions:
        shown.add_row(part.partition or "(whole table)", *_numbers(part), "yes" if part.closed else "no")
    _print(shown)


def _numbers(part: PartitionHealth) -> list[str]:
    return [
        *(_number(value) for value in (part.rows, part.files, part.small)),
        f"{part.bytes / _MIB:,.1f}",
        *(_number(value) for value in (part.deleted, part.disorder, part.to_rewrite - part.becomes)),
    ]


def print_plan(plan: CompactPlan, *, as_json: bool) -> None:
    """Print what a compaction would rewrite and gain."""
    groups = [one for each in plan.tables for one in each.groups]
    left = {each.target.name: each.left for each in plan.tables if each.left}
    if as_json:
        told = [
            {
                "table": one.table,
                "partition": one.place.name,
                "closed": one.closed,
                "files": len(one.files),
                "becomes": one.outputs,
                "bytes": one.bytes,
                "rows": one.rows,
                "reasons": list(one.reasons),
            }
            for one in groups
        ]
        typer.echo(json.dumps({"rewrites": told, "left_by_the_budget": left}, indent=2))
        return
    shown = _sheet("compaction, if it ran now", "table", ())
    shown.add_column("partition")
    for name in ("files", "become", "MiB", "rows"):
        shown.add_column(name, justify="right")
    shown.add_column("for")
    for one in groups:
        sizes = (_number(len(one.files)), _number(one.outputs), f"{one.bytes / _MIB:,.1f}", _number(one.rows))
        shown.add_row(one.table, one.place.name or "(whole table)", *sizes, ", ".join(one.reasons))
    if groups:
        _print(shown)
    for name, count in left.items():
        typer.echo(f"table {name}: {count} partitions are left to later runs, by the budget")
    gain = sum(one.gain for one in groups)
    size = sum(one.bytes for one in groups) / _MIB
    told_gain = f"{len(groups)} partitions, {size:,.1f} MiB to rewrite, {gain:,} files fewer"
    typer.echo(f"compact: {told_gain}; nothing was done" if groups else "compact: nothing to do")


def print_compaction(report: CompactReport, *, as_json: bool) -> None:
    """Print what a compaction did."""
    if as_json:
        tables = [asdict(one) for one in report.tables]
        typer.echo(json.dumps({"tables": tables, "seconds": round(report.seconds, 1)}, indent=2))
        return
    shown = _sheet("compaction", "table", ("rows", "files before", "after", "MiB before", "after"))
    for one in report.tables:
        sizes = (f"{size / _MIB:.1f}" for size in (one.bytes_before, one.bytes_after))
        shown.add_row(one.table, _number(one.rows), _number(one.files_before), _number(one.files_after), *sizes)
    if report.tables:
        _print(shown)
    rewritten = sum(one.rewritten for one in report.tables)
    given_up = sum(len(one.conflicts) for one in report.tables)
    more = f"; {given_up} rewrites given up, as the files were changed meanwhile" if given_up else ""
    told = f"{rewritten} tables rewritten in {report.seconds:.1f} s" if rewritten else "nothing to do"
    typer.echo(f"compact: {told}{more}")


def print_upkeep(report: MaintainReport, *, as_json: bool) -> None:
    """Print what maintenance did, or would do."""
    if as_json:
        tables = [asdict(one) for one in report.tables]
        typer.echo(json.dumps({"tables": tables, "seconds": round(report.seconds, 1)}, indent=2))
        return
    dry = any(one.dry for one in report.tables)
    names = ("snapshots", "expired", "waiting", "files deleted", "delete files", "removed", "manifests", "after")
    shown = _sheet("maintenance, if it ran now" if dry else "maintenance", "table", (*names, "orphans", "MiB"))
    for one in report.tables:
        numbers = (one.snapshots, one.expired, one.waiting, one.files_deleted, one.delete_files)
        rest = (one.delete_files_removed, one.manifests, one.manifests_after, one.orphans)
        size = f"{one.orphan_bytes / _MIB:,.1f}"
        shown.add_row(one.table, *(_number(value) for value in (*numbers, *rest)), size)
    _print(shown)
    later = sum(len(one.conflicts) for one in report.tables)
    more = "; nothing was done" if dry else f"; {later} steps left to the next run" if later else ""
    typer.echo(f"maintain: {len(report.tables)} tables in {report.seconds:.1f} s{more}")


def _sheet(title: str, first: str, numbers: Sequence[str]) -> PlainTable:
    made = PlainTable(first, title=title, title_justify="left", box=None)
    for name in numbers:
        made.add_column(name, justify="right")
    return made


def _number(value: int) -> str:
    return f"{value:,}"


def _print(shown: PlainTable) -> None:
    """Print a table as wide as it is, however narrow the terminal or the pipe says it is: a cut name is of no use."""
    out = Console(highlight=False)
    wanted = Measurement.get(out, out.options.update(max_width=_WIDEST), shown).maximum
    out.width = max(out.width, wanted)
    out.print(shown)
