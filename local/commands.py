"""Owns `lakehose local`: the embedded AWS on this machine."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from local.endpoint import DEFAULT_PORT, DEFAULT_STATE, Endpoint

app = typer.Typer(help="The embedded AWS on one port of this machine.", no_args_is_help=True)

_Port = Annotated[int, typer.Option(min=1, max=65535, help="Port it listens on.")]
_Region = Annotated[str, typer.Option(help="Region the endpoint says it is in.")]
_State = Annotated[Path, typer.Option("--state", help="Folder that holds all of the endpoint's state.")]
_err = Console(stderr=True, highlight=False)


def _say(text: str) -> None:
    _err.print(f"local: {text}", soft_wrap=True)


def how_to_point(url: str, region: str) -> str:
    """Shell lines under which any AWS SDK or tool reaches the endpoint."""
    return (
        f"export AWS_ENDPOINT_URL={url} AWS_REGION={region} AWS_DEFAULT_REGION={region} "
        "AWS_ACCESS_KEY_ID=test AWS_SECRET_ACCESS_KEY=test"
    )


@app.command()
def up(
    port: _Port = DEFAULT_PORT,
    state: _State = DEFAULT_STATE,
    region: _Region = "us-east-1",
) -> None:
    """Start the endpoint (or what of it is missing) on 127.0.0.1, wait until all answers, and leave it running."""
    url = Endpoint(state).up(port, region, _say)
    _say(f"every service answers on {url}; point any AWS client at it with")
    print(how_to_point(url, region))


@app.command()
def serve(
    port: _Port = DEFAULT_PORT,
    state: _State = DEFAULT_STATE,
    region: _Region = "us-east-1",
    host: Annotated[str, typer.Option(help="Address it listens on; who reaches it may do anything.")] = "127.0.0.1",
) -> None:
    """Be the endpoint until told to stop, as a container needs it; exit status 1 if a part of it ends by itself."""
    told = threading.Event()
    for one in (signal.SIGTERM, signal.SIGINT):
        signal.signal(one, lambda *_: told.set())
    endpoint = Endpoint(state)
    endpoint.up(port, region, _say, host)
    _say(f"every service answers on {host}:{port}; SIGTERM or Ctrl-C ends it")
    ended: list[str] = []
    while not ended and not told.wait(1):
        ended = [name for name, part in endpoint.parts().items() if part.process() is None]
    endpoint.down(_say)
    if ended:
        _say(f"{', '.join(ended)} ended by itself; {state / 'log'} tells why")
        raise typer.Exit(1)


@app.command()
def down(state: _State = DEFAULT_STATE) -> None:
    """End the endpoint of this folder, and only this one; its state is kept."""
    Endpoint(state).down(_say)


@app.command()
def status(state: _State = DEFAULT_STATE) -> None:
    """Print each part with its state, port and process; exit status 1 unless all are up."""
    table = Table("part", "state", "port", "process", box=None)
    rows = Endpoint(state).status()
    for name, how, port, pid in rows:
        table.add_row(name, how, str(port or "-"), str(pid or "-"))
    Console(highlight=False).print(table)
    if any(how != "up" for name, how, _, _ in rows if name != "trino"):
        raise typer.Exit(1)


@app.command()
def reset(state: _State = DEFAULT_STATE) -> None:
    """End the endpoint of this folder and remove all it holds."""
    Endpoint(state).reset(_say)
