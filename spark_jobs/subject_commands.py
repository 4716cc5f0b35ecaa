"""Owns `lakehose erase` with its `verify`, `lakehose replay` and `lakehose backfill`, and prints what they did."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
import uuid_utils
from rich.console import Console

from lake.context import CommandContext  # noqa: TC001 - typer reads annotations at run time
from lake.erasure import parse_subject, read_receipt
from lake.errors import TerminalError, known_values
from lake.printing import PlainTable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import date

    from lake.erasure import Receipt
    from spark_jobs.backfill import BackfillReport
    from spark_jobs.erase_verify import Verification
    from spark_jobs.replay import ReplayReport

__all__ = ["backfill", "erase", "replay"]

_SUBJECT_HELP = (
    "FIELD=VALUE, a field that a contract classifies as personal data; may be repeated: whatever holds any of them."
)
_Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
_Tenant = Annotated[str, typer.Option(help="Whose data; its receipts are in its bucket.")]
_Subject = Annotated[list[str], typer.Option(help=_SUBJECT_HELP)]

erase = typer.Typer(help="Erase a person's data, and prove it.", invoke_without_command=True)


@erase.callback()
def erase_subject(
    context: typer.Context,
    *,
    tenant: Annotated[str | None, typer.Option(help="Whose data.")] = None,
    subject: Annotated[list[str] | None, typer.Option(help=_SUBJECT_HELP)] = None,
    resume: Annotated[
        str | None, typer.Option(help="Go on with this receipt; the same command finds its own unfinished one.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell where it is.")] = False,
    as_json: _Json = False,
) -> None:
    """Erase a subject from tables, objects, errors, quarantine and query results; leaves a receipt."""
    if context.invoked_subcommand is not None:
        return
    given: CommandContext = context.obj
    lake = given.lake()
    if tenant is None:
        raise TerminalError(f"--tenant: {known_values('', [one.id for one in lake.tenants])}")
    who = parse_subject(lake, tenant, subject or [])
    if resume is not None:
        read_receipt(given.cloud().s3, lake.names.bucket(tenant), resume)
    # Spark's modules take a second to load, which what was refused above need not wait for
    from spark_jobs import erase as job  # noqa: PLC0415
    from spark_jobs.session import running_session  # noqa: PLC0415

    with running_session(given.cloud(), "lakehose-erase") as spark:
        if dry_run:
            _print_findings(job.look(spark, lake, given.cloud(), who).counts(), as_json=as_json)
            return
        started = datetime.now(UTC)
        receipt = job.run(spark, lake, given.cloud(), who, str(uuid_utils.uuid7()), resume=resume, say=_say)
    from spark_jobs.table_lineage import tell_tables  # noqa: PLC0415 - as above

    erased = {table: {"rows": rows} for tables in receipt.erased_rows.values() for table, rows in tables.items()}
    tell_tables(lake, given.cloud(), "erase", erased, started, say=_say)
    _print_receipt(receipt, as_json=as_json)


@erase.command("verify")
def erase_verify(
    context: typer.Context,
    erasure: Annotated[str, typer.Argument(help="Id of the receipt.")],
    *,
    tenant: _Tenant,
    subject: _Subject,
    as_json: _Json = False,
) -> None:
    """Search everything again; exit status 1 if anything of the subject is left."""
    given: CommandContext = context.obj
    lake = given.lake()
    who = parse_subject(lake, tenant, subject)
    read_receipt(given.cloud().s3, lake.names.bucket(tenant), erasure)
    from spark_jobs.erase_verify import verify  # noqa: PLC0415 - as above
    from spark_jobs.session import running_session  # noqa: PLC0415

    with running_session(given.cloud(), "lakehose-erase-verify") as spark:
        found = verify(spark, lake, given.cloud(), who, erasure)
    _print_verification(found, as_json=as_json)
    if not found.is_clean:
        raise typer.Exit(1)


def replay(
    context: typer.Context,
    *,
    dataset: Annotated[str, typer.Option(help="Whose records.")],
    reason: Annotated[str, typer.Option(help="Reason code that refused them, ingest's or Firehose's.")],
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's.")] = None,
    since: Annotated[
        datetime | None,
        typer.Option(
            help="Only what was quarantined then or later, in UTC.", formats=["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only tell what would go round.")] = False,
    as_json: _Json = False,
) -> None:
    """Send quarantined records round again after a fix, once, with their own identity; `run ingest` then takes them."""
    given: CommandContext = context.obj
    lake = given.lake()
    lake.dataset(dataset)
    if tenant is not None:
        lake.tenant(tenant)
    from spark_jobs import replay as job  # noqa: PLC0415 - as above
    from spark_jobs.session import running_session  # noqa: PLC0415

    with running_session(given.cloud(), "lakehose-replay") as spark:
        report = job.run(
            spark,
            lake,
            given.cloud(),
            dataset=dataset,
            reason=reason,
            tenant=tenant,
            since=None if since is None else since.replace(tzinfo=UTC),
            dry_run=dry_run,
            say=_say,
        )
    _print_replay(report, dry_run=dry_run, as_json=as_json)


def backfill(
    context: typer.Context,
    *,
    dataset: Annotated[str, typer.Option(help="Whose objects.")],
    tenant: Annotated[str, typer.Option(help="Whose objects.")],
    first: Annotated[datetime, typer.Option("--from", help="First day.", formats=["%Y-%m-%d"])],
    last: Annotated[datetime, typer.Option("--to", help="Last day, included.", formats=["%Y-%m-%d"])],
    source: Annotated[str, typer.Option(help="`processed`, or `raw`: JSON lines below raw/DATASET/.")] = "processed",
    branch: Annotated[str | None, typer.Option(help="Into this branch of the table, audited there.")] = None,
    publish: Annotated[bool, typer.Option("--publish", help="Move the table to the branch's head.")] = False,
    as_json: _Json = False,
) -> None:
    """Take the objects of some days into the table once more; what it has already is dropped by event id."""
    given: CommandContext = context.obj
    lake = given.lake()
    lake.stream_of(dataset, tenant)
    from spark_jobs import backfill as job  # noqa: PLC0415 - as above
    from spark_jobs.session import running_session  # noqa: PLC0415

    if source not in list(job.Source):
        raise TerminalError(f"--source: {known_values(source, map(str, job.Source))}")
    job.check(_day(first), _day(last), branch, publish=publish)
    with running_session(given.cloud(), "lakehose-backfill") as spark:
        report = job.run(
            spark,
            lake,
            given.cloud(),
            dataset=dataset,
            tenant=tenant,
            first=_day(first),
            last=_day(last),
            source=job.Source(source),
            branch=branch,
            publish=publish,
            say=_say,
        )
    _print_backfill(report, as_json=as_json)


def _day(moment: datetime) -> date:
    return moment.date()


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _print_table(title: str, columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    table = PlainTable(columns[0], title=title, title_justify="left", box=None)
    for name in columns[1:]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False)
    # an address that is cut is of no use
    console.width = max(console.width, 160)
    console.print(table)


def _print_findings(counts: Mapping[str, int], *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"found": dict(counts)}, indent=2))
        return
    rows = [(name, f"{count:,}") for name, count in counts.items()]
    _print_table("found, nothing changed", ("place", "records"), rows)


_UNREAD = "not all of it can be searched record by record, or it has the value where no record has; look at it"


def _print_receipt(receipt: Receipt, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps(asdict(receipt), indent=2))
        return
    rows = [
        (name, f"{place.records:,}", f"{place.removed:,}", f"{place.gone:,}", f"{place.remaining or 0:,}")
        for name, place in receipt.places.items()
    ]
    _print_table(f"erasure {receipt.id}", ("place", "found", "removed", "files gone", "remaining"), rows)
    for note in receipt.notes:
        typer.echo(note)
    for place in receipt.places.values():
        for uri in place.unread:
            typer.echo(f"object {uri}: {_UNREAD}")
    typer.echo(f"erasure {receipt.id}: finished at {receipt.finished_at}; {sum(receipt.events.values()):,} events")


def _print_verification(found: Verification, *, as_json: bool) -> None:
    if as_json:
        whole = {
            "erasure": found.receipt.id,
            "clean": found.is_clean,
            "finished_at": found.receipt.finished_at,
            "remaining": dict(found.remaining),
            "snapshots": dict(found.snapshots),
            "tombstones_missing": dict(found.tombstones_missing),
            "unread": list(found.unread),
        }
        typer.echo(json.dumps(whole, indent=2))
        return
    _print_table("verification", ("place", "remaining"), [(name, f"{one:,}") for name, one in found.remaining.items()])
    for table, count in found.snapshots.items():
        if count:
            typer.echo(f"table {table}: {count} snapshots name files that held the subject")
    for dataset, count in found.tombstones_missing.items():
        if count:
            typer.echo(f"{dataset}: {count} erased events are unknown to the manifest, and could come back")
    for uri in found.unread:
        typer.echo(f"object {uri}: {_UNREAD}")
    if not found.receipt.is_finished:
        typer.echo(f"erasure {found.receipt.id}: not finished; `lakehose erase --resume` goes on with it")
    typer.echo(f"erasure {found.receipt.id}: " + ("nothing is left" if found.is_clean else "NOT clean"))


def _print_replay(report: ReplayReport, *, dry_run: bool, as_json: bool) -> None:
    if as_json:
        # `asdict` would make a Counter of pairs
        whole = {**vars(report), "replayed": dict(report.replayed), "stay": dict(report.stay)}
        typer.echo(json.dumps({**whole, "seconds": round(report.seconds, 1)}, indent=2))
        return
    verb = "would go" if dry_run else "went"
    for tenant, count in sorted(report.replayed.items()):
        typer.echo(f"tenant {tenant}: {count:,} records {verb} round again")
    for reason, count in sorted(report.stay.items()):
        typer.echo(f"{reason}: {count:,} records would be refused again, and stay")
    told = f"{report.found:,} records looked at, {report.already:,} done before, {report.erased:,} erased"
    typer.echo(f"replay: {told}; {len(report.objects)} objects in {report.seconds:.1f} s")


def _print_backfill(report: BackfillReport, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({**asdict(report), "seconds": round(report.seconds, 1)}, indent=2))
        return
    counts = report.counts
    fates = f"{counts.ingested:,} new, {counts.duplicates:,} duplicates, {counts.quarantined:,} refused"
    typer.echo(f"backfill {report.id}: {report.objects:,} objects, {counts.records:,} records: {fates}")
    if report.left:
        typer.echo(
            f"{report.left:,} objects of these days were left: no batch has taken them, or they are no JSON lines"
        )
    if report.branch is not None:
        typer.echo(f"on branch {report.branch}, audited; the same command with --publish moves the table there")
    for batch in report.batches:
        typer.echo(f"batch {batch}")
    typer.echo(f"backfill: {report.seconds:.1f} s")
