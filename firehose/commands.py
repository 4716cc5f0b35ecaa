"""Owns the `firehose` part of the `lakehose` command: run the server, look at it, flush its buffers, have it fail."""

from __future__ import annotations

import os
import sys
from pathlib import Path  # noqa: TC003 - typer reads annotations at run time
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import orjson
import typer

from firehose.access import Access
from firehose.admin import ask, path_of
from firehose.admission import LogLimit
from firehose.connections import RequestLimits
from firehose.engine import Limits
from firehose.processes import MOST_PROCESSES, cores
from firehose.serve import Settings, serve
from firehose.server_status import read_status, tell_status, troubles
from firehose.throttling import put_quota
from firehose.uploads import working
from lake.errors import LakehoseError, TerminalError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["app", "flush_server", "flush_streams", "serve_firehose"]

app = typer.Typer(help="The self-hosted Firehose server.", no_args_is_help=True)
_MEBIBYTE, _GIBIBYTE = 1 << 20, 1 << 30
_NO_SUCH_CALL = "AWS has no such call: there, buffers are delivered by their size and interval hints."
_LEAVE_SECONDS = 0.1


def serve_firehose(settings: Settings) -> None:
    """Run the server until it is asked to stop; the process ends with it where S3 still holds up a thread.

    Raises:
        EnvironmentProblemError: the port is taken, or the folder is locked or can't be used.
    """
    serve(settings, lambda line: print(line, flush=True))
    # an upload that S3 doesn't answer ends after a minute, and Python would wait for its thread; the log is closed and
    # holds its records
    for thread in working():
        thread.join(_LEAVE_SECONDS)
    if working():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def flush_streams(endpoint: str | None, stream: str | None = None, *, timeout: float = 630.0) -> dict[str, Any]:
    """Have the server behind an endpoint deliver its buffers now; returns `{streams: {name: {objects, records}}}`.

    Raises:
        TerminalError: there is no endpoint, so it is AWS, which has no such call; or no such stream.
        TransientError: the server can't be reached, or couldn't deliver in time.
    """
    return _flush(path_of(None, endpoint, f"flush: {_NO_SUCH_CALL}"), stream, timeout)


def flush_server(url: str, stream: str | None = None, *, timeout: float = 630.0) -> dict[str, Any]:
    """Have the server at its own URL deliver its buffers now; as `flush_streams`.

    Raises:
        TerminalError: no such stream, or the URL is not one of a server.
        TransientError: the server can't be reached, or couldn't deliver in time.
    """
    return _flush(path_of(url, None, ""), stream, timeout)


def _flush(path: str, stream: str | None, timeout: float) -> dict[str, Any]:
    query = f"?stream={quote(stream)}" if stream else ""
    return ask("flush", "POST", f"{path}/flush{query}", timeout=timeout)


EndpointOption = Annotated[str | None, typer.Option(envvar="AWS_ENDPOINT_URL", help="The local endpoint.")]
UrlOption = Annotated[str | None, typer.Option(help="URL of the server itself, instead of the endpoint.")]


@app.command("serve")
def serve_command(  # noqa: PLR0917 - typer's options
    data_dir: Annotated[Path, typer.Option("--data-dir", help="Folder of the log and the definitions.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 4573,
    s3_endpoint: Annotated[str | None, typer.Option(help="URL of S3; AWS if it's left out.")] = None,
    lambda_endpoint: Annotated[
        str | None,
        typer.Option(help="URL of Lambda, for streams with functions; that of S3 if it's left out; aws is AWS."),
    ] = None,
    glue_endpoint: Annotated[
        str | None, typer.Option(help="URL of Glue, for streams that convert; that of S3 if it's left out; aws is AWS.")
    ] = None,
    schema_seconds: Annotated[
        float, typer.Option(help="How often tables are read again that streams convert by, in seconds.", min=1)
    ] = 60.0,
    region: Annotated[str, typer.Option(help="AWS region that ARNs name.")] = "us-east-1",
    account: Annotated[str, typer.Option(help="AWS account that ARNs name, 12 digits.")] = "000000000000",
    max_pending_mib: Annotated[int, typer.Option(help="Memory for undelivered records, in MiB.", min=1)] = 1024,
    segment_mib: Annotated[int, typer.Option(help="Size of a segment of the log, in MiB.", min=1)] = 64,
    uploads: Annotated[int, typer.Option(help="Objects written to S3 at once.", min=1)] = 8,
    creating_seconds: Annotated[
        float,
        typer.Option(
            help="How long a new stream is CREATING and encryption ENABLING, to try out clients that have to wait.",
            min=0,
        ),
    ] = 0.0,
    cloudwatch_endpoint: Annotated[
        str | None, typer.Option(help="URL of the CloudWatch that is told of streams each minute; aws is AWS itself.")
    ] = None,
    cloudwatch_namespace: Annotated[
        str, typer.Option(help="Namespace of these metrics; on AWS one that doesn't begin with AWS/.")
    ] = "AWS/Firehose",
    cloudwatch_seconds: Annotated[float, typer.Option(help="How often it is told, in seconds.", min=1)] = 60.0,
    credentials: Annotated[
        Path | None,
        typer.Option(help="File of the keys that callers sign with, like AWS's own; everybody may call if left out."),
    ] = None,
    tls_cert: Annotated[Path | None, typer.Option(help="Certificate, PEM: HTTPS.")] = None,
    tls_key: Annotated[Path | None, typer.Option(help="The certificate's key, PEM.")] = None,
    quotas: Annotated[
        str | None,
        typer.Option(
            metavar="REGION[,NAME=N…]",
            help="Throttle each stream as AWS does in a region; records=, requests= and bytes= are figures a second.",
        ),
    ] = None,
    max_log_gib: Annotated[
        float | None, typer.Option(help="Size of the log on disk, in GiB; above it puts are refused.", min=0)
    ] = None,
    max_request_mib: Annotated[
        int, typer.Option(help="Memory for the bodies of requests that are coming in, in MiB.", min=16)
    ] = 64,
    max_connections: Annotated[int, typer.Option(help="Connections open at once.", min=1)] = 4096,
    request_seconds: Annotated[float, typer.Option(help="How long a request may take to come in.", min=1)] = 60.0,
    allow_faults: Annotated[bool, typer.Option("--allow-faults", help="Let `firehose faults` have it fail.")] = False,
    processes: Annotated[
        int, typer.Option(help="Processes that share the streams; 0 is one for each core.", min=0, max=MOST_PROCESSES)
    ] = 1,
) -> None:
    """Run a Firehose server that acknowledges only what is on disk, and delivers it to S3."""
    limits = Limits(max_pending_mib * _MEBIBYTE, segment_mib * _MEBIBYTE, uploads)
    requests = RequestLimits(
        connections=max_connections, request_seconds=request_seconds, body_bytes=max_request_mib * _MEBIBYTE
    )
    log_bytes = None if max_log_gib is None else int(max_log_gib * _GIBIBYTE)

    count = processes or cores()
    segments = LogLimit.LEAST_SEGMENTS * count

    def run() -> None:
        if log_bytes is not None and log_bytes < segments * limits.segment_bytes:
            each = f", {LogLimit.LEAST_SEGMENTS} for each of {count} processes" if count > 1 else ""
            raise TerminalError(
                f"--max-log-gib: got {max_log_gib:g}, at least {segments} segments of --segment-mib"
                f" {segment_mib} are needed{each}"
            )
        settings = Settings(
            *(data_dir, host, port, s3_endpoint, region, account, limits, creating_seconds),
            *(cloudwatch_endpoint, cloudwatch_namespace, cloudwatch_seconds, lambda_endpoint),
            *(glue_endpoint, schema_seconds),
            access=Access(credentials, tls_cert, tls_key),
            requests=requests,
            quota=None if quotas is None else put_quota(quotas),
            log_bytes=log_bytes,
            allow_faults=allow_faults,
            processes=count,
        )
        serve_firehose(settings)

    _run(run)


@app.command("flush")
def flush_command(
    context: typer.Context,
    stream: Annotated[str | None, typer.Argument(help="Name of a stream; all if it's left out.")] = None,
    endpoint: EndpointOption = None,
    url: UrlOption = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for S3.", min=1)] = 630.0,
) -> None:
    """Deliver what is in the buffers now, and wait until it is in S3."""
    given = _endpoint(context, endpoint)

    def flush() -> None:
        found = flush_server(url, stream, timeout=timeout) if url else flush_streams(given, stream, timeout=timeout)
        for name, one in sorted(found["streams"].items()):
            print(f"{name}: {one['records']:,} records in {one['objects']:,} objects")

    _run(flush)


@app.command("status")
def status_command(
    context: typer.Context,
    endpoint: EndpointOption = None,
    url: UrlOption = None,
    max_age: Annotated[
        float | None, typer.Option(help="Seconds that a record may wait for its delivery.", min=0)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Tell each stream's buffers, oldest record and trouble, and the log's size; exit status 1 if all isn't well."""
    given = _endpoint(context, endpoint)

    def tell() -> None:
        path = path_of(url, given, "status: AWS tells this by CloudWatch.")
        answer = ask("status", "GET", f"{path}/status")
        status = read_status(answer)
        found = troubles(status, max_age)
        if as_json:
            print(orjson.dumps({**answer, "troubles": found}, option=orjson.OPT_INDENT_2).decode())
        else:
            for line in tell_status(status, found):
                print(line)
        if found:
            raise typer.Exit(1)

    _run(tell)


@app.command("faults")
def faults_command(  # noqa: PLR0917 - typer's options
    context: typer.Context,
    kind: Annotated[
        str | None,
        typer.Argument(
            help="record, call, throttle, lost-answer, delay, s3, s3-lost-answer, s3-delay; left out, it tells them"
        ),
    ] = None,
    share: Annotated[float | None, typer.Option(help="How many of the times it strikes, above 0 and up to 1.")] = None,
    every: Annotated[int | None, typer.Option(help="It strikes each so many-th time.")] = None,
    count: Annotated[int | None, typer.Option(help="After so many strikes it is over.")] = None,
    seconds: Annotated[float | None, typer.Option(help="After so long it is over.")] = None,
    stream: Annotated[str | None, typer.Option(help="Only this stream.")] = None,
    code: Annotated[str | None, typer.Option(help="What is answered, for example InternalFailure.")] = None,
    delay_seconds: Annotated[float | None, typer.Option(help="How long a delay is.")] = None,
    seed: Annotated[int | None, typer.Option(help="What the share is drawn by.")] = None,
    clear: Annotated[bool, typer.Option("--clear", help="End all faults.")] = False,
    endpoint: EndpointOption = None,
    url: UrlOption = None,
) -> None:
    """Have a server that was started with --allow-faults fail, to try out those who depend on it."""
    given = _endpoint(context, endpoint)
    members = {
        "kind": kind,
        "share": share,
        "every": every,
        "count": count,
        "seconds": seconds,
        "stream": stream,
        "code": code,
        "delaySeconds": delay_seconds,
        "seed": seed,
    }
    fault = {name: value for name, value in members.items() if value is not None}

    def change() -> None:
        path = f"{path_of(url, given, 'faults: AWS makes none on demand.')}/faults"
        if fault and (kind is None or clear):
            raise TerminalError("faults: --clear stands alone" if clear else "faults: the kind is missing")
        if clear:
            answer = ask("faults", "DELETE", path)
        elif fault:
            answer = ask("faults", "POST", path, {"faults": [fault]})
        else:
            answer = ask("faults", "GET", path)
        for one in answer["faults"]:
            said = ", ".join(f"{name} {value}" for name, value in one.items() if name in members and value is not None)
            print(f"{said}: struck {one['struck']:,} of {one['occasions']:,}{', over' if one['over'] else ''}")
        if not answer["faults"]:
            print("no faults")

    _run(change)


def _endpoint(context: typer.Context, given: str | None) -> str | None:
    # `lakehose --endpoint E firehose flush` gives it before the command's name; `python -m firehose` has no such place
    found: str | None = given or getattr(context.obj, "endpoint", None)
    return found


def _run(work: Callable[[], None]) -> None:
    try:
        work()
    except LakehoseError as error:
        print(f"firehose: {error}", file=sys.stderr)
        raise typer.Exit(error.exit_code) from None
