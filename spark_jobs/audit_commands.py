"""Owns `lakehose audit`."""

from __future__ import annotations

import json
import sys
from datetime import datetime  # noqa: TC003 - typer reads annotations at run time
from typing import Annotated

import typer

from lake.audit import balance, gather
from lake.audit_report import of_tenant, print_sheet, sheet_to_dict
from lake.context import CommandContext  # noqa: TC001 - typer reads annotations at run time

__all__ = ["audit"]


def audit(
    context: typer.Context,
    *,
    dataset: Annotated[str | None, typer.Option(help="One dataset; all of them without it.")] = None,
    tenant: Annotated[str | None, typer.Option(help="One tenant; all of them without it.")] = None,
    by_day: Annotated[
        bool, typer.Option("--by-day", help="Also a line for each day on which events were made, in UTC.")
    ] = False,
    since: Annotated[
        datetime | None, typer.Option(help="By day, from this one on, as in 2026-01-31.", formats=["%Y-%m-%d"])
    ] = None,
    rebuild: Annotated[
        bool,
        typer.Option("--rebuild", help="First draw the books up anew, from S3 and the tables; it reads all of them."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Account for every record of every tenant; exit status 1 if any is not accounted for."""
    given: CommandContext = context.obj
    lake = given.lake()
    names = [lake.dataset(dataset).name] if dataset else [one.name for one in lake.datasets]
    database = lake.names.database(lake.tenant(tenant).id) if tenant else ""
    if rebuild:
        # Spark's modules take a second to load, which an audit need not wait for
        from spark_jobs.rebuild import run as draw_up  # noqa: PLC0415
        from spark_jobs.session import running_session  # noqa: PLC0415

        with running_session(given.cloud(), "lakehose-rebuild") as spark:
            draw_up(spark, lake, given.cloud(), datasets=names, say=_say)
    days = by_day or since is not None
    first = since.date() if since else None
    sheets = [balance(gather(lake, given.cloud(), name, by_day=days, since=first)) for name in names]
    if tenant:
        sheets = [of_tenant(one, tenant, database) for one in sheets]
    if as_json:
        typer.echo(json.dumps([sheet_to_dict(sheet, by_day=days) for sheet in sheets], indent=2))
    for sheet in sheets if not as_json else []:
        print_sheet(sheet, by_day=days)
    if not all(sheet.balanced for sheet in sheets):
        raise typer.Exit(1)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
