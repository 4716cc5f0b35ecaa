"""Owns how a balance sheet is shown: as tables with the verdict in words, or as JSON."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from lake.printing import PlainTable, printable

if TYPE_CHECKING:
    from lake.audit_sheet import Gap, Row, Sheet

__all__ = ["of_tenant", "print_sheet", "sheet_to_dict"]

_NARROWEST = 160
"""Columns a table may take, however narrow the terminal or the pipe says it is: a cut name is of no use."""
_COLUMNS = {
    "sent": "sent",
    "acknowledged": "ack'd",
    "waiting": "waiting",
    "in_flight": "in flight",
    "dead_lettered": "dead letter",
    "refused": "refused",
    "delivered": "delivered",
    "redelivered": "redelivered",
    "ingested": "ingested",
    "duplicates": "duplicates",
    "quarantined": "quarantined",
    "unidentified": "unidentified",
    "difference": "difference",
}
_ONLY_WHEN_NOT_ZERO = {"waiting", "in_flight", "redelivered", "unidentified"}
_NOT_BY_DAY = "acknowledged"


def of_tenant(sheet: Sheet, tenant: str, database: str) -> Sheet:
    """What a sheet says of one tenant, whose tables are in a database."""
    return replace(
        sheet,
        rows=tuple(one for one in sheet.rows if one.tenant == tenant),
        days=tuple(one for one in sheet.days if one.tenant == tenant),
        gaps=tuple(one for one in sheet.gaps if one.tenant == tenant),
        unread=tuple(one for one in sheet.unread if one.tenant == tenant),
        tables=tuple(one for one in sheet.tables if one.table.partition(".")[0] == database),
    )


def sheet_to_dict(sheet: Sheet, *, by_day: bool) -> dict[str, Any]:
    """The sheet as JSON has it."""
    days = [{name: value for name, value in asdict(row).items() if name != _NOT_BY_DAY} for row in sheet.days]
    return {
        "dataset": sheet.dataset,
        "balanced": sheet.balanced,
        "rows": [asdict(row) for row in sheet.rows],
        "total": asdict(sheet.total),
        "gaps": [_gap_to_dict(one) for one in sheet.gaps],
        "tables": [asdict(one) for one in sheet.tables],
        "unread": [asdict(one) for one in sheet.unread],
        **({"days": days} if by_day else {}),
    }


def _gap_to_dict(gap: Gap) -> dict[str, str]:
    told = {"tenant": gap.tenant, "producer_id": gap.producer_id, "sequences": str(gap.sequences)}
    return told if gap.day is None else {**told, "day": gap.day}


def print_sheet(sheet: Sheet, *, by_day: bool = False) -> None:
    """Print a balance sheet as tables, and the verdict in words."""
    out = Console(highlight=False)
    out.width = max(out.width, _NARROWEST)
    shown = [name for name in _COLUMNS if name not in _ONLY_WHEN_NOT_ZERO or getattr(sheet.total, name)]
    if by_day:
        columns = [name for name in shown if name != _NOT_BY_DAY]
        table = _table(f"audit of {sheet.dataset} by the day on which events were made", ["tenant", "day"], columns)
        for line in sheet.days:
            table.add_row(line.tenant, line.day, *(_number(line, name) for name in columns))
        out.print(table)
    table = _table(f"audit of {sheet.dataset}", ["tenant"], shown)
    for row in sheet.rows:
        table.add_row(row.tenant, *(_number(row, name) for name in shown))
    table.add_section()
    table.add_row("total", *(_number(sheet.total, name) for name in shown), style="bold")
    out.print(table)
    for gap in sheet.gaps:
        told = {None: "", "-": ", day unknown"}.get(gap.day, f", day {gap.day}")
        whose = printable(f"tenant {gap.tenant}, producer {gap.producer_id}")
        typer.echo(f"missing: {whose}{told}: sequences {gap.sequences}")
    for one in sheet.unread:
        typer.echo(f"object {printable(one.uri)}: it waits, and nobody can tell whose it is: {one.problem}")
    for check in sheet.tables:
        if check.rows != check.by_batches:
            typer.echo(f"table {check.table}: holds {check.rows} rows, its batches wrote {check.by_batches}")
    typer.echo(f"{sheet.dataset}: " + ("balanced: every record is accounted for" if sheet.balanced else "NOT balanced"))


def _table(title: str, names: list[str], columns: list[str]) -> PlainTable:
    table = PlainTable(*names, title=title, title_justify="left", box=None)
    for name in columns:
        table.add_column(_COLUMNS[name], justify="right")
    return table


def _number(row: Row, name: str) -> str:
    return f"{getattr(row, name):,}"
