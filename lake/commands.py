"""Owns `lakehose validate` and `lakehose contract`, and prints what `lakehose apply` does."""

from __future__ import annotations

import json
from pathlib import Path  # noqa: TC003 - typer reads annotations at run time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from lake.context import CommandContext  # noqa: TC001 - typer reads annotations at run time
from lake.contract import objects_of, only_object, read_contract
from lake.evolution import compare, is_accepted, needed_step, step_between, verdict
from lake.provision import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lake.declaration import Lake
    from lake.provision import Change

__all__ = ["contract", "contract_diff", "print_changes", "validate"]

_NARROWEST = 160
"""Columns a table may take, however narrow the terminal or the pipe says it is: a cut name is of no use."""
_out = Console(highlight=False)
_out.width = max(_out.width, _NARROWEST)


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
        line = beside if own_table else f"{name}: {before.version} to {after.version}"
        print(f"{line}: {verdict(needed, made, own_table=own_table)}")
    if not enough:
        raise typer.Exit(1)
