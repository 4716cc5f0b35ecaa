"""Owns `lakehose query`: one statement asked of Athena, its answer as a table, CSV or JSON."""

from __future__ import annotations

import csv
import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from athena.client import QueryResult, run_query
from lake.context import CommandContext  # noqa: TC001 - typer reads annotations at run time
from lake.errors import DeclarationError

__all__ = ["OutputFormat", "print_result", "query"]

_err = Console(stderr=True, highlight=False, soft_wrap=True)
_RESULTS = "query-results/"
_NUMBERS = {"tinyint", "smallint", "integer", "bigint", "float", "double", "decimal"}
_UNITS = ("bytes", "KiB", "MiB", "GiB")
_STEP = 1024


class OutputFormat(StrEnum):
    """How an answer is printed."""

    TABLE = "table"
    CSV = "csv"
    JSON = "json"


def query(
    context: typer.Context,
    *,
    sql: Annotated[str | None, typer.Argument(help="One statement in Athena's SQL.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Ask in this tenant's database.")] = None,
    database: Annotated[str | None, typer.Option(help="Ask in this database.")] = None,
    output_location: Annotated[
        str | None, typer.Option(help="s3://bucket/prefix/ for the result file; query-results/ of the lake else.")
    ] = None,
    workgroup: Annotated[str, typer.Option(help="Athena's workgroup.")] = "primary",
    output: Annotated[OutputFormat, typer.Option("--format", help="How to print it.")] = OutputFormat.TABLE,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="File with the statement.")] = None,
) -> None:
    """Ask Athena: prints the answer, and its id, time and bytes on stderr; exit status 1 if the query fails."""
    given: CommandContext = context.obj
    lake = given.lake()
    owner = lake.tenant(tenant).id if tenant else lake.tenants[0].id
    if tenant and database:
        raise DeclarationError("give --tenant or --database, not both")
    result = run_query(
        given.cloud(),
        _statement(sql, file),
        database=database or lake.names.database(owner),
        output_location=output_location or f"s3://{lake.names.bucket(owner)}/{_RESULTS}",
        workgroup=workgroup,
    )
    print_result(result, output)


def _statement(sql: str | None, file: Path | None) -> str:
    if (sql is None) == (file is None):
        raise DeclarationError('give one statement, as in `lakehose query "SELECT 1"`, or a file with --file')
    if sql is not None:
        return sql
    try:
        return Path(str(file)).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DeclarationError(f"--file {file}: can't be read: {error}") from None


def print_result(result: QueryResult, output: OutputFormat) -> None:
    """Print an answer on stdout, and what it took on stderr."""
    names = [one.name for one in result.columns]
    if output is OutputFormat.CSV:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(result.rows)
    elif output is OutputFormat.JSON:
        for row in result.rows:
            print(json.dumps(dict(zip(names, row, strict=False)), ensure_ascii=False))
    elif result.columns:
        Console(highlight=False).print(_table(result))
    rows = f"{len(result.rows):,} rows" if result.columns else f"{result.update_count:,} rows changed"
    took = result.took
    _err.print(
        f"query {result.query_id}: {rows} in {took.total_ms / 1000:.2f} s "
        f"({took.queue_ms / 1000:.2f} s of it queued), {_size(took.scanned_bytes)} scanned"
    )


def _table(result: QueryResult) -> Table:
    table = Table(box=None)
    for column in result.columns:
        table.add_column(Text(column.name), justify="right" if column.type in _NUMBERS else "left", overflow="fold")
    for row in result.rows:
        table.add_row(*(Text("NULL", style="dim") if value is None else Text(value) for value in row))
    return table


def _size(count: int) -> str:
    size = float(count)
    for unit in _UNITS[:-1]:
        if size < _STEP:
            return f"{size:.0f} {unit}" if unit == _UNITS[0] else f"{size:.1f} {unit}"
        size /= _STEP
    return f"{size:.1f} {_UNITS[-1]}"
