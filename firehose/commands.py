"""Owns the `firehose` part of the `lakehose` command: run the server, flush its buffers."""

from __future__ import annotations

import os
import sys
from pathlib import Path  # noqa: TC003 - typer reads annotations at run time
from typing import TYPE_CHECKING, Annotated, Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote
from urllib.request import Request, urlopen

import orjson
import typer

from firehose.engine import Limits, uploading
from firehose.serve import Settings, serve
from lake.errors import LakehoseError, TerminalError, TransientError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["app", "flush_server", "flush_streams", "serve_firehose"]

app = typer.Typer(help="The self-hosted Firehose server.", no_args_is_help=True)
_MEBIBYTE = 1 << 20
_LEAVE_SECONDS = 0.1


def serve_firehose(settings: Settings) -> None:
    """Run the server until it is asked to stop; the process ends with it where S3 still holds up a thread.

    Raises:
        EnvironmentProblemError: the port is taken, or the folder is locked or can't be used.
    """
    serve(settings, lambda line: print(line, flush=True))
    # an upload that S3 doesn't answer ends after a minute, and Python would wait for its thread; the log is closed and
    # holds its records
    for thread in uploading():
        thread.join(_LEAVE_SECONDS)
    if uploading():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def flush_streams(endpoint: str | None, stream: str | None = None, *, timeout: float = 630.0) -> dict[str, Any]:
    """Have the server behind an endpoint deliver its buffers now; returns `{streams: {name: {objects, records}}}`.

    Raises:
        TerminalError: there is no endpoint, so it is AWS, which has no such call; or no such stream.
        TransientError: the server can't be reached, or couldn't deliver in time.
    """
    if not endpoint:
        raise TerminalError(
            "flush: AWS has no such call: there, buffers are delivered by their size and interval hints."
            " For a local endpoint give --endpoint or set AWS_ENDPOINT_URL"
        )
    return _post(f"{endpoint.rstrip('/')}/_lakehose/firehose/flush", stream, timeout)


def flush_server(url: str, stream: str | None = None, *, timeout: float = 630.0) -> dict[str, Any]:
    """Have the server at its own URL deliver its buffers now; as `flush_streams`.

    Raises:
        TerminalError: no such stream, or the URL is not one of a server.
        TransientError: the server can't be reached, or couldn't deliver in time.
    """
    return _post(f"{url.rstrip('/')}/_lakehose/flush", stream, timeout)


def _post(url: str, stream: str | None, timeout: float) -> dict[str, Any]:
    if not url.startswith(("http://", "https://")):
        raise TerminalError(f"flush: got {url!r}, a URL that begins with http:// or https:// is needed")
    full = f"{url}?stream={quote(stream)}" if stream else url
    try:
        with urlopen(Request(full, method="POST"), timeout=timeout) as answer:  # noqa: S310 - checked above
            found: dict[str, Any] = orjson.loads(answer.read())
            return found
    except HTTPError as error:
        message = _message(error.read()) or str(error)
        kind = TerminalError if error.code < 500 else TransientError  # noqa: PLR2004 - HTTP's border
        raise kind(f"flush: {url}: {message}") from None
    except (URLError, TimeoutError, ConnectionError) as error:
        raise TransientError(f"flush: {url}: no answer: {getattr(error, 'reason', error)}") from None


def _message(body: bytes) -> str | None:
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return str(found["message"]) if isinstance(found, dict) and "message" in found else None


@app.command("serve")
def serve_command(  # noqa: PLR0917 - typer's options
    data_dir: Annotated[Path, typer.Option("--data-dir", help="Folder of the log and the definitions.")],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.")] = 4573,
    s3_endpoint: Annotated[str | None, typer.Option(help="URL of S3; AWS if it's left out.")] = None,
    region: Annotated[str, typer.Option(help="AWS region that ARNs name.")] = "us-east-1",
    account: Annotated[str, typer.Option(help="AWS account that ARNs name, 12 digits.")] = "000000000000",
    max_pending_mib: Annotated[int, typer.Option(help="Memory for undelivered records, in MiB.", min=1)] = 1024,
    segment_mib: Annotated[int, typer.Option(help="Size of a segment of the log, in MiB.", min=1)] = 64,
    uploads: Annotated[int, typer.Option(help="Objects written to S3 at once.", min=1)] = 8,
    creating_seconds: Annotated[
        float, typer.Option(help="How long a new stream is CREATING, to try out clients that have to wait.", min=0)
    ] = 0.0,
    cloudwatch_endpoint: Annotated[
        str | None, typer.Option(help="URL of the CloudWatch that is told of streams each minute; aws is AWS itself.")
    ] = None,
    cloudwatch_namespace: Annotated[
        str, typer.Option(help="Namespace of these metrics; on AWS one that doesn't begin with AWS/.")
    ] = "AWS/Firehose",
    cloudwatch_seconds: Annotated[float, typer.Option(help="How often it is told, in seconds.", min=1)] = 60.0,
) -> None:
    """Run a Firehose server that acknowledges only what is on disk, and delivers it to S3."""
    limits = Limits(max_pending_mib * _MEBIBYTE, segment_mib * _MEBIBYTE, uploads)
    settings = Settings(
        *(data_dir, host, port, s3_endpoint, region, account, limits, creating_seconds),
        *(cloudwatch_endpoint, cloudwatch_namespace, cloudwatch_seconds),
    )
    _run(lambda: serve_firehose(settings))


@app.command("flush")
def flush_command(
    context: typer.Context,
    stream: Annotated[str | None, typer.Argument(help="Name of a stream; all if it's left out.")] = None,
    endpoint: Annotated[str | None, typer.Option(envvar="AWS_ENDPOINT_URL", help="The local endpoint.")] = None,
    url: Annotated[str | None, typer.Option(help="URL of the server itself, instead of the endpoint.")] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for S3.", min=1)] = 630.0,
) -> None:
    """Deliver what is in the buffers now, and wait until it is in S3."""
    # `lakehose --endpoint E firehose flush` gives it before the command's name; `python -m firehose` has no such place
    given = endpoint or getattr(context.obj, "endpoint", None)

    def flush() -> None:
        found = flush_server(url, stream, timeout=timeout) if url else flush_streams(given, stream, timeout=timeout)
        for name, one in sorted(found["streams"].items()):
            print(f"{name}: {one['records']:,} records in {one['objects']:,} objects")

    _run(flush)


def _run(work: Callable[[], None]) -> None:
    try:
        work()
    except LakehoseError as error:
        print(f"firehose: {error}", file=sys.stderr)
        raise typer.Exit(error.exit_code) from None
