"""Owns `lakehose streams`: what is wrong with a definition, what would be made of it, and where events would go."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import uuid4

import boto3
import typer
from botocore.exceptions import ClientError

from firehose.comparison import Difference, compare
from firehose.definition import create_request
from firehose.definition_file import Definition, read_definitions
from firehose.diagnosis import Finding, Kind, diagnose
from firehose.explain import Landing, explain
from firehose.registry import DEFAULT_PARTITIONS
from firehose.stream_report import tell_differences, tell_findings, tell_landings
from firehose.transform_commands import pack_transform_command
from firehose.validation import path_text
from lake.clients import Cloud, error_code
from lake.context import CommandContext  # noqa: TC001 - typer reads annotations at run time
from lake.errors import TerminalError, known_values
from lake.provision import key_arn

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lake.declaration import Lake, Stream

__all__ = ["streams"]

streams = typer.Typer(
    help="Definitions of delivery streams: what is wrong with them, what they'd make, where events would go.",
    no_args_is_help=True,
)
_NO_ACCOUNT = "000000000000"
"""Stands in where AWS isn't asked."""

FileArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="[FILE]",
        help="A CreateDeliveryStream request, or CloudFormation's resource or template, as JSON or YAML; - is the"
        " standard input. The streams of the declaration if it's left out.",
    ),
]
StreamOption = Annotated[str | None, typer.Option("--stream", help="Only the stream of this name.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON instead of text.")]


@streams.command("validate")
def validate_command(
    context: typer.Context,
    file: FileArgument = None,
    *,
    stream: StreamOption = None,
    as_json: JsonOption = False,
) -> None:
    """Say all that is wrong with each definition, and what to put there; exit status 1 if the service refuses one."""
    found = [(one, diagnose(one.request, one.filled)) for one in _definitions(context.obj, file, stream)]
    if as_json:
        _print_json(
            [
                {
                    "stream": definition.name,
                    "source": definition.source,
                    "valid": not _refused(findings),
                    "findings": [one.to_dict() for one in findings],
                }
                for definition, findings in found
            ]
        )
    else:
        _say(line for definition, findings in found for line in tell_findings(definition, findings))
    if any(_refused(findings) for _, findings in found):
        raise typer.Exit(1)


@streams.command("plan")
def plan_command(
    context: typer.Context,
    file: FileArgument = None,
    *,
    stream: StreamOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compare each definition with the stream that is there; exit status 1 if one differs. Nothing is changed."""
    given: CommandContext = context.obj
    cloud = _cloud(given, file)
    definitions = _definitions(given, file, stream, cloud)
    for one in definitions:
        _require_valid(one)
    plans = [_planned(one, cloud) for one in definitions]
    if as_json:
        _print_json([plan.to_dict() for plan in plans])
    else:
        _say(line for plan in plans for line in tell_differences(plan.definition, plan.action, plan.differences))
    if any(plan.action == "differs" for plan in plans):
        raise typer.Exit(1)


@streams.command("explain")
def explain_command(
    context: typer.Context,
    file: FileArgument = None,
    *,
    event: Annotated[
        str,
        typer.Option(
            "--event",
            metavar="EVENT.json",
            help="A file with one event, or with one in each line; - is the standard input.",
        ),
    ],
    at: Annotated[
        str | None, typer.Option(help="When the events arrive, as in 2026-01-31T10:00:00Z; now if it's left out.")
    ] = None,
    stream: StreamOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell where each event would come to lie: partition keys, prefix and object, or why it is refused."""
    given: CommandContext = context.obj
    if file == event == "-":
        raise TerminalError("explain: FILE and --event can't both be -, there is one standard input")
    at_ms = round(time.time() * 1000) if at is None else _moment(at)
    events = _events(_read("--event", event))
    quota = DEFAULT_PARTITIONS if file is not None else given.lake().active_partitions
    found: list[tuple[Definition, list[Landing]]] = []
    for one in _definitions(given, file, stream):
        _require_valid(one)
        found.append((one, explain(one.request, events, at_ms=at_ms, quota=quota, unique=uuid4)))
    if as_json:
        _print_json(
            [
                {"stream": one.name, "source": one.source, "events": [landing.to_dict() for landing in landings]}
                for one, landings in found
            ]
        )
    else:
        _say(line for one, landings in found for line in tell_landings(one, landings, events))


streams.command("pack-transform")(pack_transform_command)


def _definitions(
    given: CommandContext, file: str | None, stream: str | None, cloud: Cloud | None = None
) -> list[Definition]:
    if file is None:
        lake = given.lake()
        found = [_declared(str(given.lake_path), lake, one, cloud) for one in lake.streams()]
    else:
        found = read_definitions("standard input" if file == "-" else file, _read("FILE", file).decode())
    if stream is None:
        return found
    chosen = [one for one in found if one.name == stream]
    if not chosen:
        raise TerminalError(f"--stream: {known_values(stream, [one.name for one in found])}")
    return chosen


def _declared(source: str, lake: Lake, stream: Stream, cloud: Cloud | None) -> Definition:
    account = _NO_ACCOUNT if cloud is None else cloud.account
    arn = None if cloud is None else key_arn(lake, cloud, stream.owner)
    # before the key is made, its alias says as much
    alias = f"arn:aws:kms:{lake.region}:{account}:{lake.names.key_alias(stream.owner)}"
    return Definition(source, create_request(stream, account=account, key_arn=arn or alias))


def _cloud(given: CommandContext, file: str | None) -> Cloud:
    if file is None or given.lake_path.exists():
        return given.cloud()
    return Cloud.from_environment(boto3.Session().region_name or Cloud.region, given.endpoint)


def _read(option: str, path: str) -> bytes:
    if path == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise TerminalError(f"{option}: {path}: can't be read: {error.strerror}") from None


def _events(content: bytes) -> list[bytes]:
    """Split a file into records: it is one if it is JSON as a whole, however laid out; otherwise each line is one."""
    content = content.strip()
    try:
        json.loads(content)
    except ValueError:
        found = [line for line in content.splitlines() if line.strip()]
    else:
        found = [content]
    if not found:
        raise TerminalError("--event: got nothing, at least one event is needed")
    return found


def _moment(text: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise TerminalError(f"--at: got {text!r}, a time of ISO 8601 is needed, as in 2026-01-31T10:00:00Z") from None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _require_valid(definition: Definition) -> None:
    found = [one for one in diagnose(definition.request, definition.filled) if one.kind is not Kind.ADVICE]
    if found:
        where = f"{path_text(found[0].where)}: " if found[0].where else ""
        more = f", and {len(found) - 1} more" if len(found) > 1 else ""
        raise TerminalError(
            f"{definition.source}: stream {definition.name} can't be made: {where}{found[0].message}{more};"
            " `lakehose streams validate` tells them all"
        )


@dataclass(frozen=True, slots=True)
class _Plan:
    definition: Definition
    action: str
    """`create`, `same` or `differs`."""
    differences: tuple[Difference, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {
            "stream": self.definition.name,
            "source": self.definition.source,
            "action": self.action,
            "differences": [
                {
                    "where": path_text(one.where),
                    "ours": one.ours,
                    "theirs": one.theirs,
                    "inPlace": one.fixed is None,
                    **({"reason": one.fixed} if one.fixed else {}),
                }
                for one in self.differences
            ],
        }


def _planned(definition: Definition, cloud: Cloud) -> _Plan:
    try:
        found: Any = cloud.firehose.describe_delivery_stream(DeliveryStreamName=definition.name)
    except ClientError as error:
        if error_code(error) == "ResourceNotFoundException":
            return _Plan(definition, "create")
        raise
    differing = [
        one
        for one in compare(definition.request, found["DeliveryStreamDescription"])
        if one.where not in {*definition.filled, *definition.composed}
    ]
    return _Plan(definition, "differs" if differing else "same", tuple(differing))


def _refused(findings: list[Finding]) -> bool:
    return any(one.kind is Kind.ERROR for one in findings)


def _print_json(value: Any) -> None:
    _say([json.dumps(value, indent=2, default=str)])


def _say(lines: Iterable[str]) -> None:
    sys.stdout.writelines(f"{line}\n" for line in lines)
