"""Owns the server's process: the port, the folder's lock, the event loop, the signals."""

from __future__ import annotations

import asyncio
import errno
import gc
import logging
import signal
import socket
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import uvicorn
import uvloop

from firehose.api import FirehoseApi
from firehose.app import App
from firehose.cloudwatch import CloudWatch
from firehose.delivery import S3Writer, s3_client, service_client
from firehose.engine import Engine, Limits
from firehose.exposition import Exposition
from firehose.quotas import Quotas
from firehose.registry import DataFolder, Registry
from lake.errors import EnvironmentProblemError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["Settings", "serve"]

_log = logging.getLogger(__name__)
# Clients keep connections for a minute; one that is closed under a request would be an error to them.
_KEEP_ALIVE = 75
_GRACE = 5


@dataclass(frozen=True)
class Settings:
    """How a server is run."""

    data: Path
    """Folder of the log and the definitions."""
    host: str = "127.0.0.1"
    port: int = 4573
    """0 takes a free one."""
    s3_endpoint: str | None = None
    """URL; None is AWS."""
    region: str = "us-east-1"
    account: str = "000000000000"
    limits: Limits = field(default_factory=Limits)
    creating_seconds: float = 0.0
    """How long a new stream is CREATING."""
    cloudwatch_endpoint: str | None = None
    """URL of CloudWatch; `aws` is AWS itself; None tells it nothing."""
    cloudwatch_namespace: str = "AWS/Firehose"
    cloudwatch_seconds: float = 60.0
    """How often CloudWatch is told."""


def serve(settings: Settings, ready: Callable[[str], None]) -> None:
    """Run the server until SIGTERM or SIGINT; `ready` is called with a line to print when it takes requests.

    Raises:
        EnvironmentProblemError: the port is taken, or the folder is locked, can't be written or can't be read.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s firehose: %(message)s")
    for noisy in ("botocore", "boto3", "urllib3", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    listener = _listen(settings.host, settings.port)
    try:
        folder = DataFolder(settings.data)
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(_run(settings, folder, listener, ready))
        finally:
            folder.release()
    finally:
        listener.close()


async def _run(settings: Settings, folder: DataFolder, listener: socket.socket, ready: Callable[[str], None]) -> None:
    registry = Registry(folder)
    writer = S3Writer(s3_client(settings.s3_endpoint, settings.region, settings.limits.uploads))
    engine = Engine(folder, registry, writer, time.time, settings.limits)
    api = FirehoseApi(
        *(engine, registry, settings.account, settings.region, time.time), creating_seconds=settings.creating_seconds
    )
    app = App(
        api,
        Quotas(registry, settings.account, settings.region, time.time),
        engine,
        Exposition(engine, time.time),
    )
    # what was loaded so far stays: the collector need not walk it again and again while records come and go
    gc.freeze()
    port = listener.getsockname()[1]
    server = _Server(
        uvicorn.Config(
            app,
            lifespan="off",
            access_log=False,
            log_config=None,
            server_header=False,
            date_header=False,
            http="httptools",
            ws="none",
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=_GRACE,
        ),
        lambda: ready(f"firehose: serving on http://{settings.host}:{port}, data in {settings.data}"),
    )
    faults: list[BaseException] = []

    def give_up(fault: BaseException) -> None:
        # acknowledging on without delivering would hide it; the log holds everything
        _log.error("a fault of the server ends its work: %r", fault)
        faults.append(fault)
        server.should_exit = True

    engine.start(give_up)
    telling = _telling(settings, engine)
    try:
        await server.serve(sockets=[listener])
    finally:
        if telling is not None:
            telling.cancel()
        await engine.stop()
    if faults:
        raise faults[0]


def _telling(settings: Settings, engine: Engine) -> asyncio.Task[None] | None:
    if settings.cloudwatch_endpoint is None:
        return None
    endpoint = None if settings.cloudwatch_endpoint == "aws" else settings.cloudwatch_endpoint
    client = service_client("cloudwatch", endpoint, settings.region)
    teller = CloudWatch(client, settings.cloudwatch_namespace, engine, time.time)
    return asyncio.create_task(teller.run(settings.cloudwatch_seconds))


class _Server(uvicorn.Server):
    """Uvicorn's server, that says when it's ready and ends without a signal when it was asked to."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to take requests."""
        await super().startup(sockets=sockets)
        self._ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on SIGTERM and SIGINT; uvicorn would raise them again at the end."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.handle_exit, number, None)
        yield


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(1024)
    except (OSError, OverflowError) as error:
        listener.close()
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        why = "it is taken by another program" if taken else str(error)
        raise EnvironmentProblemError(f"--port {port}: can't listen on {host}:{port}: {why}") from None
    listener.setblocking(False)
    return listener
