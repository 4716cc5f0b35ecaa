"""Owns `lakehose lineage`: the OpenLineage events of a batch, or of a dataset's runs, from the manifest."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from lake.context import CommandContext  # noqa: TC001 - typer reads annotations at run time
from lake.errors import TerminalError, known_values
from lake.lineage_log import LineageLog, Told
from lake.manifest import BatchId, Lane
from lake.printing import PlainTable
from spark_jobs.dedup import first_id
from spark_jobs.plan import read_plan

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lake.clients import Cloud
    from lake.declaration import Lake, Stream

__all__ = ["lineage"]

_NARROWEST = 160
_PARTS = 5  # of a batch's id, of which the tenant, as somebody sent it, may hold more slashes


def lineage(
    context: typer.Context,
    batch: Annotated[str | None, typer.Argument(help="Id of a batch, as `lakehose run ingest` says it.")] = None,
    *,
    dataset: Annotated[str | None, typer.Option(help="All runs about this dataset.")] = None,
    tenant: Annotated[
        str | None, typer.Option(help="Only of this tenant's table, and the stream that carries it.")
    ] = None,
    since: Annotated[
        datetime | None,
        typer.Option(help="Only runs that began then or later, in UTC.", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the events as JSON lines.")] = False,
) -> None:
    """Print the lineage of a batch, or of a dataset's runs: OpenLineage events, as they were sent."""
    given: CommandContext = context.obj
    lake, cloud = given.lake(), given.cloud()
    if (batch is None) == (dataset is None):
        raise TerminalError("lineage: give the id of a batch, or --dataset")
    if batch is not None:
        found = list(_of_batch(lake, cloud, batch))
        if not found:
            raise TerminalError(f"batch {batch}: nothing is told of it yet")
    else:
        found = list(_of_dataset(lake, cloud, str(dataset), tenant, since))
    if as_json:
        for one in found:
            sys.stdout.write(f"{json.dumps(one.event, sort_keys=True)}\n")
        return
    _print(found)


def _of_batch(lake: Lake, cloud: Cloud, text: str) -> Iterator[Told]:
    from lake.lineage import batch_run_id  # noqa: PLC0415 - a second to load

    stream, batch = _parsed(lake, text)
    plan = read_plan(cloud.s3, stream.bucket, batch)
    if plan is None:
        raise TerminalError(f"batch {text}: it isn't planned")
    log = LineageLog(cloud.dynamodb, lake.names.manifest_table())
    return log.events(batch.owner, batch.dataset, run=batch_run_id(batch, plan.planned_at_ms))


def _parsed(lake: Lake, text: str) -> tuple[Stream, BatchId]:
    parts = text.split("/")
    if len(parts) < _PARTS or not parts[-1].isdecimal():
        raise TerminalError(f"batch: got {text!r}, allowed is DATASET/LANE/OWNER/TENANT/NUMBER, as ingest prints it")
    dataset, lane, owner, number = parts[0], parts[1], parts[2], int(parts[-1])
    lake.dataset(dataset)
    if lane not in tuple(Lane):
        raise TerminalError(f"batch: lane: {known_values(lane, Lane)}")
    streams = {one.owner: one for one in lake.streams() if one.dataset.name == dataset}
    if owner not in streams:
        raise TerminalError(f"batch: owner: {known_values(owner, streams)}")
    return streams[owner], BatchId(owner, dataset, Lane(lane), "/".join(parts[3:-1]), number)


def _of_dataset(lake: Lake, cloud: Cloud, dataset: str, tenant: str | None, since: datetime | None) -> Iterator[Told]:
    lake.dataset(dataset)
    log = LineageLog(cloud.dynamodb, lake.names.manifest_table())
    # a run's id begins with its time, as an event's does
    least = "" if since is None else first_id(round(since.replace(tzinfo=UTC).timestamp() * 1000))
    streams = [lake.stream_of(dataset, tenant)] if tenant is not None else lake.streams()
    for stream in streams:
        if stream.dataset.name == dataset:
            # batches are the stream's, tables the tenants'
            tables = (tenant,) if tenant is not None else stream.tenants
            for owner in dict.fromkeys((stream.owner, *tables)):
                yield from log.events(owner, dataset, since=least)


def _print(found: list[Told]) -> None:
    out = Console(highlight=False)
    out.width = max(out.width, _NARROWEST)
    table = PlainTable("time", "job", "turn", "inputs", "outputs", box=None)
    for one in found:
        event = one.event
        cells = (event["job"]["name"], event["eventType"], _places(event["inputs"]), _places(event["outputs"]))
        table.add_row(event["eventTime"], *cells)
    if found:
        out.print(table)
    out.print(f"lineage: {len(found):,} events")


def _places(datasets: list[dict[str, Any]]) -> str:
    return "\n".join(_place(one) for one in datasets)


def _place(one: dict[str, Any]) -> str:
    counted = one.get("outputFacets", {}).get("outputStatistics") or one.get("inputFacets", {}).get("inputStatistics")
    rows = (counted or {}).get("rowCount")
    return f"{one['namespace']}/{one['name']}" + (f" ({rows:,})" if rows is not None else "")
