"""Owns `lakehose send`: JSON lines through the producer SDK."""

from __future__ import annotations

import os
import re
import secrets
import socket
import sys
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from urllib.parse import urlsplit

import typer
from botocore.exceptions import ClientError

from lake.errors import EnvironmentProblemError, TerminalError
from lake.manifest import Manifest
from producers.client import FLUSH_SECONDS, Producer
from producers.lines import BadLine, parse_line, read_lines
from producers.rendering import NewEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from io import BufferedIOBase

    from lake.clients import Cloud
    from lake.context import CommandContext
    from lake.declaration import Lake
    from lake.manifest import ProducerLedger

__all__ = ["send"]

_BAD_LINES_SHOWN = 20


def send(
    context: typer.Context,
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE|-", help="JSON lines; - is standard input."),
    ],
    *,
    tenant: Annotated[str, typer.Option(help="Whose events.")],
    dataset: Annotated[str, typer.Option(help="Kind of the events.")],
    producer_id: Annotated[
        str | None, typer.Option(help="Who sends them; a name made once for each spool folder without it.")
    ] = None,
    spool: Annotated[Path, typer.Option(help="Folder in which events wait until Firehose has them.")] = Path(
        ".lakehose/spool"
    ),
    event_time_field: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Field of each line with its event time, ISO 8601 with a time zone; now without it."
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait for the last acknowledgements.")] = (
        FLUSH_SECONDS
    ),
) -> None:
    """Send a file's lines as events, each line the payload of one; what earlier runs left in the spool goes first.

    A line that is no JSON object is reported with its number and the others are sent; the exit status is then 1. What
    can't be sent in time stays in the spool and is sent by the next run, whatever file it sends (`/dev/null` will do).
    A file that is sent twice is two sets of events.
    """
    given: CommandContext = context.obj
    lake, cloud = given.lake(), given.cloud()
    stream = lake.stream_of(dataset, tenant)
    folder = spool / _destination(lake, cloud)
    with (
        _opened(file) as source,
        Producer(
            stream.name,
            tenant=tenant,
            dataset=dataset,
            producer_id=producer_id or _made_once(folder),
            schema_version=stream.dataset.contract.version,
            spool=folder,
            firehose=cloud.firehose,
            ledger_to=_reporter(cloud, lake.names.manifest_table()),
        ) as producer,
    ):
        before = producer.ledger()
        try:
            producer.start()
            bad = _send_lines(producer, source, event_time_field, _named(file))
            producer.flush(timeout)
        finally:
            _print_counts(before, producer.ledger())
        buried = _print_dead_letters(producer, before.sent)
    if bad or buried:
        raise typer.Exit(1)


def _send_lines(producer: Producer, source: BufferedIOBase, event_time_field: str | None, name: str) -> int:
    """Take over all good lines; answers how many were bad."""
    bad = 0
    for lines in read_lines(source):
        parsed = [parse_line(number, line, event_time_field) for number, line in lines]
        producer.send_many(one for one in parsed if isinstance(one, NewEvent))
        refused = [one for one in parsed if isinstance(one, BadLine)]
        _print_bad_lines(refused[: max(0, _BAD_LINES_SHOWN - bad)], name)
        bad += len(refused)
    if bad > _BAD_LINES_SHOWN:
        print(f"{name}: and {bad - _BAD_LINES_SHOWN:,} more lines that are no events", file=sys.stderr)
    return bad


def _print_bad_lines(lines: Iterable[BadLine], name: str) -> None:
    for line in lines:
        print(f"{name}: line {line.number}: {line.reason}", file=sys.stderr)


def _print_counts(before: ProducerLedger, after: ProducerLedger) -> None:
    left = before.sent - before.acknowledged - before.dead_lettered
    if left:
        print(f"{left:,} events of earlier runs were waiting", file=sys.stderr)
    print(
        f"sent {after.sent - before.sent:,}, acknowledged {after.acknowledged - before.acknowledged:,}, "
        f"dead-lettered {after.dead_lettered - before.dead_lettered:,}, "
        f"waiting {after.sent - after.acknowledged - after.dead_lettered:,} (producer {after.producer_id})"
    )


def _print_dead_letters(producer: Producer, first: int) -> int:
    """Tell which events of this run can't be sent; answers how many."""
    found = [one for one in producer.dead_letters() if one.sequence >= first]
    for one in found:
        print(f"dead letter: event {one.sequence} ({one.event_id}): {one.reason}", file=sys.stderr)
    return len(found)


def _opened(file: Path) -> AbstractContextManager[BufferedIOBase]:
    if str(file) == "-":
        return nullcontext(sys.stdin.buffer)  # type: ignore[arg-type]
    try:
        return file.open("rb")
    except OSError as error:
        raise TerminalError(f"{file}: can't be read: {error.strerror}; give a file, or - for standard input") from None


def _named(file: Path) -> str:
    return "standard input" if str(file) == "-" else str(file)


def _destination(lake: Lake, cloud: Cloud) -> str:
    """A folder for each lake and place: sequence numbers are gapless only where all of them arrive."""
    place = re.sub(r"[^A-Za-z0-9.]+", "-", urlsplit(cloud.endpoint).netloc) if cloud.endpoint else f"aws-{lake.region}"
    return f"{lake.company}-{lake.environment}-{place}"


def _made_once(folder: Path) -> str:
    """The producer id of a spool folder, which goes when the folder goes: its sequence numbers start at 0 again."""
    path = folder / "producer-id"
    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            host = re.sub(r"[^A-Za-z0-9-]+", "-", socket.gethostname().partition(".")[0])[:40]
            fresh = path.with_name(f"producer-id.{secrets.token_hex(4)}")
            fresh.write_text(f"send-{host}-{secrets.token_hex(3)}\n", encoding="ascii")
            with suppress(FileExistsError):  # another run was quicker: its id it is
                os.link(fresh, path)
            fresh.unlink()
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeError) as error:
        raise EnvironmentProblemError(f"{path}: the producer id of this spool folder can't be kept: {error}") from None


def _reporter(cloud: Cloud, table: str) -> Callable[[ProducerLedger], None]:
    manifest = Manifest(cloud.dynamodb, table)

    def report(ledger: ProducerLedger) -> None:
        try:
            manifest.report(ledger)
        except ClientError as error:
            if error.response["Error"]["Code"] == "ResourceNotFoundException":
                raise TerminalError(f"manifest table {table}: there is none; `lakehose apply` makes it") from None
            raise

    return report
