"""Owns `lakehose quality`: what the rules found, and the decision about a batch that is held back."""

from __future__ import annotations

import getpass
import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from lake.context import CommandContext  # noqa: TC001 - typer reads annotations at run time
from lake.errors import FindingError, TerminalError
from lake.printing import PlainTable
from lake.quality_log import QualityLog, State, result_to_dict
from spark_jobs.plan import read_plan
from spark_jobs.quality_hold import Ruling, Verdict, parse_batch, read_hold, read_ruling, write_ruling

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lake.clients import Cloud
    from lake.declaration import Lake
    from lake.quality_log import Entry

__all__ = ["quality"]

quality = typer.Typer(help="Quality rules: what they found, and what becomes of a batch they hold back.")

_NARROWEST = 160
_Batch = Annotated[str, typer.Option("--batch", help="Id of the batch, as `lakehose run ingest` says it.")]
_Why = Annotated[str, typer.Option(help="Why it is decided so; kept beside the batch.")]
_Later = Annotated[bool, typer.Option("--later", help="Only write it down; the next ingest does it.")]


@quality.command("results")
def results(
    context: typer.Context,
    *,
    dataset: Annotated[str | None, typer.Option(help="Only this dataset's.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            help="Only batches that were planned then or later, in UTC.", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]
        ),
    ] = None,
    failed: Annotated[bool, typer.Option("--failed", help="Only broken rules.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show what the rules found, the newest batch of each tenant first; exit status 1 if any batch is held back."""
    given: CommandContext = context.obj
    least = 0 if since is None else round(since.replace(tzinfo=UTC).timestamp() * 1000)
    found = [one for one in _entries(given.lake(), given.cloud(), dataset, tenant) if one.planned_at_ms >= least]
    shown = [one for one in found if not failed or not all(result.passed for result in one.results)]
    if as_json:
        _tell(json.dumps([_as_dict(one, failed=failed) for one in shown], indent=2))
    else:
        _print(shown, failed=failed)
    if any(one.state is State.HELD for one in found):
        raise typer.Exit(1)


def _entries(lake: Lake, cloud: Cloud, dataset: str | None, tenant: str | None) -> Iterator[Entry]:
    names = [lake.dataset(dataset).name] if dataset else [one.name for one in lake.datasets]
    if tenant is not None:
        lake.tenant(tenant)
    log = QualityLog(cloud.dynamodb, lake.names.manifest_table())
    for stream in lake.streams():
        if stream.dataset.name in names and (tenant is None or tenant in stream.tenants):
            yield from log.entries(stream.owner, stream.dataset.name, tenant)


def _as_dict(one: Entry, *, failed: bool) -> dict[str, object]:
    return {
        "batch": str(one.batch),
        "planned_at": _moment(one.planned_at_ms),
        "rows": one.rows,
        "state": one.state,
        "results": [result_to_dict(result) for result in one.results if not (failed and result.passed)],
    }


def _moment(moment_ms: int) -> str:
    return datetime.fromtimestamp(moment_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _print(entries: list[Entry], *, failed: bool) -> None:
    out = Console(highlight=False)
    out.width = max(out.width, _NARROWEST)
    table = PlainTable("batch", "planned", "state", "rule", "severity", "value", "must be", "passed", box=None)
    for one in entries:
        for result in one.results:
            if failed and result.passed:
                continue
            value = "-" if result.value is None else f"{result.value:,.6g} {result.unit}"
            kept = "yes" if result.passed else "NO"
            cells = (result.rule, result.severity, value, result.limit, kept)
            table.add_row(str(one.batch), _moment(one.planned_at_ms), one.state, *cells)
    if table.row_count:
        out.print(table)
    held = [one for one in entries if one.state is State.HELD]
    for one in held:
        _tell(f"batch {one.batch}: held back; decide by `lakehose quality publish` or `refuse --batch {one.batch}`")
    broken = sum(not result.passed for one in entries for result in one.results)
    _tell(f"quality: {len(entries):,} batches, {broken:,} broken rules, {len(held):,} held back")


@quality.command("publish")
def publish(context: typer.Context, *, batch: _Batch, why: _Why, later: _Later = False) -> None:
    """Publish a batch that is held back as it is, once, and go on with what waits behind it."""
    _decide(context.obj, batch, Verdict.PUBLISH, why, later=later)


@quality.command("refuse")
def refuse(context: typer.Context, *, batch: _Batch, why: _Why, later: _Later = False) -> None:
    """Send the rows of a batch that is held back to quarantine, and go on with what waits behind it."""
    _decide(context.obj, batch, Verdict.REFUSE, why, later=later)


def _decide(given: CommandContext, text: str, verdict: Verdict, why: str, *, later: bool) -> None:
    lake, cloud = given.lake(), given.cloud()
    stream, batch = parse_batch(lake, text)
    if not why.strip():
        raise TerminalError("--why: it is empty; whoever reads the table later wants to know")
    if read_hold(cloud.s3, stream.bucket, batch) is None:
        known = "it isn't planned" if read_plan(cloud.s3, stream.bucket, batch) is None else "no rule holds it back"
        raise TerminalError(f"batch {batch}: {known}; `lakehose quality results` names those that are held back")
    asked = Ruling(batch, verdict, why.strip(), _who(), round(datetime.now(UTC).timestamp() * 1000))
    standing = read_ruling(cloud.s3, stream.bucket, batch) or write_ruling(cloud.s3, stream.bucket, asked)
    if standing.verdict is not verdict:
        raise FindingError(
            f"batch {batch}: {standing.by} decided at {_moment(standing.decided_at_ms)} to {standing.verdict} it: "
            f"{standing.why}; what is decided stays"
        )
    _say(f"batch {batch}: decided: {verdict}")
    if later:
        return
    # Spark's modules take a second to load, which what was refused above need not wait for
    from spark_jobs import ingest  # noqa: PLC0415
    from spark_jobs.session import running_session  # noqa: PLC0415

    with running_session(cloud, "lakehose-quality") as spark:
        report = ingest.run(spark, lake, cloud, datasets=[batch.dataset], tenants=[batch.tenant], say=_say)
    for busy in report.busy:
        _tell(f"{busy}: another ingest is at it, and does what is decided")
    for tenant, counts in sorted(report.totals.items()):
        told = ", ".join(f"{count:,} {name}" for name, count in asdict(counts).items() if count)
        _tell(f"{tenant}: {told or 'no records'}")
    _tell(f"quality: {len(report.batches)} batches in {report.seconds:.1f} s")
    if report.held:
        raise FindingError("; ".join(map(str, report.held)))


def _who() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "somebody without a name on their machine"


def _tell(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
