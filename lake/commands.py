"""Owns `lakehose validate` and `lakehose audit`, and prints what `lakehose apply` does."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path  # noqa: TC003 - typer reads annotations at run time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from lake.audit import Row, Sheet, balance, gather
from lake.context import CommandContext  # noqa: TC001 - typer reads annotations at run time
from lake.contract import objects_of, only_object, read_contract
from lake.evolution import compare, is_accepted, needed_step, step_between, verdict
from lake.provision import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lake.declaration import Lake
    from lake.provision import Change

__all__ = ["audit", "contract", "contract_diff", "print_changes", "print_sheet", "validate"]

_NARROWEST = 160
"""Columns a table may take, however narrow the terminal or the pipe says it is: a cut name is of no use."""
_out = Console(highlight=False)
_out.width = max(_out.width, _NARROWEST)
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


def validate(context: typer.Context) -> None:
    """Check the declaration and its contracts, and print the names of what they make."""
    given: CommandContext = context.obj
    lake = given.lake()
    print(f"{given.lake_path}: valid; company {lake.company}, environment {lake.environment}, region {lake.region}")
    _out.print(_streams_table(lake))
    tenants = Table("tenant", "tier", "bucket", "database", box=None)
    for tenant in lake.tenants:
        tenants.add_row(tenant.id, tenant.tier, lake.names.bucket(tenant.id), lake.names.database(tenant.id))
    _out.print(tenants)
    if lake.drops:
        drops = Table("drop", "tenant", "dataset", "files", box=None)
        for drop in lake.drops:
            drops.add_row(drop.name, drop.tenant, drop.dataset, drop.uri)
        _out.print(drops)


def _streams_table(lake: Lake) -> Table:
    table = Table("stream", "dataset", "contract", "tenants", "bucket", box=None)
    for stream in lake.streams():
        version = stream.dataset.contract.version
        table.add_row(stream.name, stream.dataset.name, version, ", ".join(stream.tenants), stream.bucket)
    return table


def print_changes(changes: Iterable[Change]) -> dict[Outcome, int]:
    """Print each change as it comes, and the sum; answers the sum."""
    done = dict.fromkeys(Outcome, 0)
    for change in changes:
        done[change.outcome] += 1
        print(f"{change.outcome:<10}{change.kind:<10}{change.name}", flush=True)
    print(", ".join(f"{count} {outcome}" for outcome, count in done.items()))
    return done


contract = typer.Typer(help="Contracts: what a dataset's events look like.", no_args_is_help=True)


@contract.command("diff")
def contract_diff(
    old: Annotated[Path, typer.Argument(help="The contract as it was, as `git show` prints it.")],
    new: Annotated[Path, typer.Argument(help="The contract as it is to be.")],
    dataset: Annotated[str | None, typer.Option(help="Which of the new contract's objects, if it has several.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")] = False,
) -> None:
    """Say what changed between two versions of a contract; exit status 1 if the version doesn't go up far enough."""
    name = dataset or only_object(new)
    # a name that the old one doesn't know is a dataset beside it
    known = objects_of(old)
    own_table = name not in known
    before = read_contract(old, only_object(old) if own_table else name)
    after = read_contract(new, name)
    changes = compare(before, after)
    needed, made = needed_step(changes), step_between(before.version, after.version)
    enough = is_accepted(needed, made, own_table=own_table)
    if as_json:
        told = [{"path": one.path, "step": one.step.name.lower(), "sentence": one.sentence} for one in changes]
        given = {"old": before.version, "new": after.version, "needed": needed.name.lower(), "accepted": enough}
        print(json.dumps({"dataset": name, **given, "changes": told}, indent=2))
    else:
        for one in sorted(changes, key=lambda change: -change.step):
            print(f"{one.step.name.lower():<7}{f'{one.path} {one.sentence}'.strip()}")
        beside = f"{before.dataset} {before.version} to {name} {after.version}"
        told = beside if own_table else f"{name}: {before.version} to {after.version}"
        print(f"{told}: {verdict(needed, made, own_table=own_table)}")
    if not enough:
        raise typer.Exit(1)


def audit(
    context: typer.Context,
    dataset: Annotated[str | None, typer.Option(help="One dataset; all of them without it.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Account for every record of every tenant; exit status 1 if any is not accounted for."""
    given: CommandContext = context.obj
    lake = given.lake()
    names = [lake.dataset(dataset).name] if dataset else [one.name for one in lake.datasets]
    sheets = [balance(gather(lake, given.cloud(), name)) for name in names]
    if as_json:
        print(json.dumps([_as_dict(sheet) for sheet in sheets], indent=2))
    for sheet in sheets if not as_json else []:
        print_sheet(sheet)
    if not all(sheet.balanced for sheet in sheets):
        raise typer.Exit(1)


def _as_dict(sheet: Sheet) -> dict[str, object]:
    return {
        "dataset": sheet.dataset,
        "balanced": sheet.balanced,
        "rows": [asdict(row) for row in sheet.rows],
        "total": asdict(sheet.total),
        "gaps": [{"tenant": g.tenant, "producer_id": g.producer_id, "sequences": str(g.sequences)} for g in sheet.gaps],
        "tables": [asdict(one) for one in sheet.tables],
    }


def print_sheet(sheet: Sheet) -> None:
    """Print a balance sheet as tables, and the verdict in words."""
    total = sheet.total
    shown = [name for name in _COLUMNS if name not in _ONLY_WHEN_NOT_ZERO or getattr(total, name)]
    table = Table("tenant", title=f"audit of {sheet.dataset}", title_justify="left", box=None)
    for name in shown:
        table.add_column(_COLUMNS[name], justify="right")
    for row in sheet.rows:
        table.add_row(row.tenant, *(_number(row, name) for name in shown))
    table.add_section()
    table.add_row("total", *(_number(total, name) for name in shown), style="bold")
    _out.print(table)
    for gap in sheet.gaps:
        print(f"missing: tenant {gap.tenant}, producer {gap.producer_id}: sequences {gap.sequences}")
    for check in sheet.tables:
        if check.rows != check.by_batches:
            print(f"table {check.table}: holds {check.rows} rows, its batches wrote {check.by_batches}")
    print(f"{sheet.dataset}: " + ("balanced: every record is accounted for" if sheet.balanced else "NOT balanced"))


def _number(row: Row, name: str) -> str:
    return f"{getattr(row, name):,}"
