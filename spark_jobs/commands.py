"""Owns how a job is started, by `lakehose run` and `python -m spark_jobs.<job>`, and how its report is printed."""

from __future__ import annotations

import argparse
import json
import sys
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from botocore.exceptions import BotoCoreError, ClientError
from rich.console import Console

from lake.clients import Cloud
from lake.context import CommandContext  # noqa: TC001 - typer reads annotations at run time
from lake.declaration import read_lake
from lake.errors import FindingError, LakehoseError, TerminalError, known_values
from lake.manifest import Counts
from lake.printing import PlainTable
from spark_jobs.compact_look import plan
from spark_jobs.table_commands import print_compaction, print_plan, print_upkeep

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyspark.sql import SparkSession

    from lake.declaration import Lake
    from spark_jobs.files import FilesReport
    from spark_jobs.ingest import IngestReport

__all__ = ["JOBS", "DryOption", "EveryOption", "RelistOption", "Scope", "run", "run_job"]

JOBS = ("files", "ingest", "compact", "maintain")
"""Jobs by name, in the order they are usually run."""

_EVERY_HELP = "Ingest only: go on without an end, with a round every so many seconds, until SIGTERM."
_RELIST_HELP = "Ingest only: list all objects first, for a lake whose queues came later, or a lost manifest."
_DRY_HELP = "Compact and maintain only: tell what would be done, and do nothing."
EveryOption = Annotated[float | None, typer.Option(help=_EVERY_HELP, min=1)]
RelistOption = Annotated[bool, typer.Option("--relist", help=_RELIST_HELP)]
DryOption = Annotated[bool, typer.Option("--dry-run", help=_DRY_HELP)]
_OWNER_HELP = "Only what this dedicated tenant owns, or `pooled`: everything of all pooled tenants."


@dataclass(frozen=True)
class Scope:
    """What a run is about; None is everything."""

    datasets: list[str] | None
    tenants: list[str] | None
    owners: list[str] | None
    """Owners of tables; the pool's quarantine is the pool's own."""

    @classmethod
    def of(cls, lake: Lake, datasets: list[str] | None, tenants: list[str] | None, owner: str | None) -> Scope:
        """Check what was asked for, before the seconds that Spark takes.

        Raises:
            DeclarationError: a dataset, tenant or owner isn't declared.
            TerminalError: a tenant isn't one of the owner's.
        """
        # named twice is meant once: two rewrites of one table would see its files twice
        datasets, tenants = (list(dict.fromkeys(names)) if names else names for names in (datasets, tenants))
        for name in datasets or ():
            lake.dataset(name)
        for name in tenants or ():
            lake.tenant(name)
        if owner is None:
            return cls(datasets, tenants, tenants)
        workspace = lake.workspace(owner)
        if owner != workspace.owner:
            raise TerminalError(
                f"owner: tenant {owner!r} is pooled; give --owner {workspace.owner}, or --tenant {owner}"
            )
        strange = [name for name in tenants or () if name not in workspace.tenants]
        if strange:
            raise TerminalError(f"tenant: {known_values(strange[0], workspace.tenants)} (the tenants of {owner!r})")
        if tenants:
            return cls(datasets, tenants, tenants)
        shared = [] if owner in workspace.tenants else [owner]
        return cls(datasets, list(workspace.tenants), [*workspace.tenants, *shared])


def run(  # noqa: PLR0917 - typer's options
    context: typer.Context,
    job: Annotated[str, typer.Argument(help=f"One of: {', '.join(JOBS)}.")],
    dataset: Annotated[list[str] | None, typer.Option(help="Only this dataset; may be repeated.")] = None,
    tenant: Annotated[list[str] | None, typer.Option(help="Only this tenant; may be repeated.")] = None,
    owner: Annotated[str | None, typer.Option(help=_OWNER_HELP)] = None,
    relist: RelistOption = False,
    every: EveryOption = None,
    dry_run: DryOption = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Run a Spark job on this machine: the same code that a cluster runs."""
    given: CommandContext = context.obj
    _check_name(job)
    lake = given.lake()
    mode = _Mode(every, relist, dry_run)
    _perform(job, lake, given.cloud(), Scope.of(lake, dataset, tenant, owner), mode, as_json=as_json)


def run_job(job: str, arguments: list[str]) -> int:
    """Be `python -m spark_jobs.<job>`; answers the exit status: 2 for bad input, 1 for a finding."""
    parser = argparse.ArgumentParser(prog=f"python -m spark_jobs.{job}", description=f"The {job} job.")
    parser.add_argument("--lake", type=Path, default=Path("lake.yaml"), help="the declaration (lake.yaml)")
    parser.add_argument("--endpoint", help="URL that answers for AWS; AWS_ENDPOINT_URL, or AWS itself, without it")
    parser.add_argument("--dataset", action="append", help="only this dataset; may be repeated")
    parser.add_argument("--tenant", action="append", help="only this tenant; may be repeated")
    parser.add_argument("--owner", help=_OWNER_HELP)
    parser.add_argument("--every", type=float, metavar="SECONDS", help=_EVERY_HELP)
    parser.add_argument("--relist", action="store_true", help=_RELIST_HELP)
    parser.add_argument("--dry-run", action="store_true", help=_DRY_HELP)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    given = parser.parse_args(arguments)
    try:
        lake = read_lake(given.lake)
        cloud = Cloud.from_environment(lake.region, given.endpoint)
        scope = Scope.of(lake, given.dataset, given.tenant, given.owner)
        _perform(job, lake, cloud, scope, _Mode(given.every, given.relist, given.dry_run), as_json=given.json)
    except LakehoseError as error:
        _say(f"{job}: {error}")
        return error.exit_code
    except (ClientError, BotoCoreError) as error:
        _say(f"{job}: AWS refused: {error}")
        return 1
    return 0


def _check_name(job: str) -> None:
    if job not in JOBS:
        raise TerminalError(f"job: {known_values(job, JOBS)}")


def _perform(job: str, lake: Lake, cloud: Cloud, scope: Scope, mode: _Mode, *, as_json: bool) -> None:
    # Spark's modules take a second to load, which `lakehose --help` need not wait for
    started = datetime.now(UTC)
    mode.check(job)
    if job == "compact" and mode.dry:
        print_plan(plan(lake, cloud, datasets=scope.datasets, owners=scope.owners), as_json=as_json)
        return
    from spark_jobs import compact, files, ingest, maintain  # noqa: PLC0415
    from spark_jobs.continuous import run_rounds, stop_on_signals  # noqa: PLC0415
    from spark_jobs.session import running_session  # noqa: PLC0415

    with ExitStack() as stack:

        @cache
        def spark() -> SparkSession:
            _say(f"{job}: starting Spark")
            return stack.enter_context(running_session(cloud, f"lakehose-{job}"))

        def ingested(*, listed: bool = False) -> IngestReport:
            return ingest.run(
                spark(), lake, cloud, datasets=scope.datasets, tenants=scope.tenants, say=_say, listed=listed
            )

        match job:
            case "files":
                # without a new file, which is most of the time, there is no Spark to start
                taken = files.run(spark, lake, cloud, datasets=scope.datasets, tenants=scope.tenants, say=_say)
                _print_files(taken, as_json=as_json)
            case "ingest" if mode.every is not None:
                with stop_on_signals() as stop:
                    run_rounds(
                        ingested, mode.every, stop, say=_say, report=lambda one: _print_round(one, as_json=as_json)
                    )
            case "ingest":
                report = ingested(listed=mode.relist)
                _print_ingest(report, as_json=as_json)
                if report.held:
                    raise FindingError(_told_held(report))
            case "maintain":
                done = maintain.run(
                    spark(), lake, cloud, datasets=scope.datasets, owners=scope.owners, dry=mode.dry, say=_say
                )
                print_upkeep(done, as_json=as_json)
                if not mode.dry:
                    changed = {one.table: one for one in done.tables if one.expired or one.orphans or one.delete_files}
                    _tell(lake, cloud, job, changed, started)
            case _:
                compacted = compact.run(spark(), lake, cloud, datasets=scope.datasets, owners=scope.owners, say=_say)
                print_compaction(compacted, as_json=as_json)
                _tell(lake, cloud, job, {one.table: one for one in compacted.tables if one.rewritten}, started)


@dataclass(frozen=True)
class _Mode:
    """How a job is run."""

    every: float | None = None
    """Seconds from round to round; None is one round."""
    relist: bool = False
    dry: bool = False

    def check(self, job: str) -> None:
        """Refuse what the job doesn't know.

        Raises:
            TerminalError: it doesn't go on without an end, or doesn't look for objects.
        """
        if job != "ingest" and (self.every is not None or self.relist):
            raise TerminalError(f"--every and --relist: got job {job!r}, allowed is ingest")
        if self.dry and job not in {"compact", "maintain"}:
            raise TerminalError(f"--dry-run: got job {job!r}, allowed are compact and maintain")
        if self.every is not None and (self.relist or self.every < 1):
            raise TerminalError("--every: allowed is a number of seconds from 1, without --relist")


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _print_files(report: FilesReport, *, as_json: bool) -> None:
    if as_json:
        drops = [asdict(one) for one in report.drops]
        refused = [{"uri": one.uri, "message": one.message} for one in report.refused_files]
        print(json.dumps({"drops": drops, "refused_files": refused, "seconds": round(report.seconds, 1)}, indent=2))
        return
    names = ("files", "rows", "events", "refused")
    table = PlainTable("drop", "tenant", "dataset", title="files", title_justify="left", box=None)
    for name in names:
        table.add_column(name, justify="right")
    new = [one for one in report.drops if one.files]
    for one in new:
        table.add_row(one.drop, one.tenant, one.dataset, *(f"{getattr(one, name):,}" for name in names))
    if new:
        Console(highlight=False).print(table)
    files = sum(one.files for one in new)
    print(f"files: {files:,} taken in {report.seconds:.1f} s" if new else "files: nothing new")


def _print_ingest(report: IngestReport, *, as_json: bool) -> None:
    totals = {tenant: asdict(counts) for tenant, counts in sorted(report.totals.items())}
    if as_json:
        batches = [
            {
                "batch": str(one.batch),
                "snapshot_id": one.snapshot_id,
                "objects": len(one.objects),
                "counts": {tenant: asdict(counts) for tenant, counts in one.counts.items()},
            }
            for one in report.batches
        ]
        rebuilt = [str(one.batch) for one in report.rebuilt]
        held = [{"batch": str(one.batch), "branch": one.branch, "told": str(one)} for one in report.held]
        whole = {"batches": batches, "rebuilt": rebuilt, "busy": report.busy, "held": held, "totals": totals}
        print(json.dumps({**whole, "seconds": round(report.seconds, 1)}, indent=2))
        return
    names = list(Counts.__dataclass_fields__)
    table = PlainTable("tenant", title="ingest", title_justify="left", box=None)
    for name in names:
        table.add_column(name, justify="right")
    for tenant, counts in totals.items():
        table.add_row(tenant, *(f"{counts[name]:,}" for name in names))
    if totals:
        Console(highlight=False).print(table)
    for receipt in report.rebuilt:
        print(f"batch {receipt.batch}: its receipt was missing, and is written")
    for series in report.busy:
        print(f"{series}: another ingest is at it; left to it")
    print(f"ingest: {len(report.batches)} batches in {report.seconds:.1f} s" if totals else "ingest: nothing new")


def _tell(lake: Lake, cloud: Cloud, job: str, changed: Mapping[str, Any], started: datetime) -> None:
    """Tell the lineage of the tables that a job changed."""
    from spark_jobs.table_lineage import tell_tables  # noqa: PLC0415 - a second to load

    numbers = {
        name: {key: value for key, value in asdict(one).items() if type(value) is int} for name, one in changed.items()
    }
    if numbers:
        tell_tables(lake, cloud, job, numbers, started, say=_say)


def _told_held(report: IngestReport) -> str:
    names = ", ".join(str(one.batch) for one in report.held)
    return (
        f"ingest: a quality rule holds back batch {names}; `lakehose quality results --failed` tells why, and "
        "`lakehose quality publish` or `refuse` decides"
    )


def _print_round(report: IngestReport, *, as_json: bool) -> None:
    """What a round of many did: a line where a table would be too much, nothing where it did nothing."""
    if as_json:
        _print_ingest(report, as_json=True)
        return
    total = sum(report.totals.values(), Counts())
    if report.batches:
        told = f"{total.records:,} records, {total.ingested:,} ingested, {total.duplicates:,} duplicates"
        refused = total.quarantined + total.refused
        print(f"round: {len(report.batches)} batches, {told}, {refused:,} refused; {report.seconds:.1f} s", flush=True)
