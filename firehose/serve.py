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
from typing import TYPE_CHECKING, Any

import uvicorn
import uvloop

from firehose.access import Access, Doors, is_loopback
from firehose.admission import Admission, LogLimit
from firehose.api import FirehoseApi
from firehose.app import App
from firehose.cloudwatch import CloudWatch
from firehose.connections import RequestLimits, protocol, raise_open_files
from firehose.delivery import S3Writer, s3_client
from firehose.encryption import Encryption
from firehose.engine import Engine, Limits
from firehose.exposition import Exposition
from firehose.faults import Faults, FaultyWriter
from firehose.group import Group, OwnEngine, Shared
from firehose.incoming import Room
from firehose.lambda_transform import invoking_client, transform
from firehose.layout import lay_out
from firehose.processes import run_processes
from firehose.quotas import Quotas
from firehose.registry import DataFolder, Registry
from firehose.schemas import Catalog
from firehose.shares import share_of
from lake.clients import Cloud
from lake.errors import EnvironmentProblemError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from firehose.engine import Invoker
    from firehose.throttling import PutQuota

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
    lambda_endpoint: str | None = None
    """URL of the Lambda API; `aws` is AWS itself; None is where S3 is."""
    glue_endpoint: str | None = None
    """URL of Glue; `aws` is AWS itself; None is where S3 is."""
    schema_seconds: float = 60.0
    """How often the tables are read again that streams convert by."""
    access: Access = field(default_factory=Access)
    """Who may call, and whether by TLS."""
    requests: RequestLimits = field(default_factory=RequestLimits)
    quota: PutQuota | None = None
    """Of each stream; None throttles nobody."""
    log_bytes: int | None = None
    """How large the log may be on disk; None leaves it to the disk."""
    allow_faults: bool = False
    """Whether faults may be asked for."""
    processes: int = 1
    """How many share the streams, and the limits."""

    def url_of(self, endpoint: str | None) -> str | None:
        """Find the URL of another service than S3; None is AWS.

        Args:
            endpoint: as it was given: a URL, `aws`, or None for where S3 is.
        """
        return None if endpoint == "aws" else endpoint or self.s3_endpoint


def serve(settings: Settings, ready: Callable[[str], None]) -> None:
    """Run the server until SIGTERM or SIGINT; `ready` is called with a line to print when it takes requests.

    Raises:
        EnvironmentProblemError: the port is taken, or the folder is locked, can't be written or can't be read.
    """
    logging.basicConfig(level=logging.INFO, format="%(asctime)s firehose: %(message)s")
    for noisy in ("botocore", "boto3", "urllib3", "uvicorn"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    doors = Doors(settings.access, settings.region, time.time)
    if not is_loopback(settings.host) and not settings.access.credentials:
        _log.warning(
            "--host %s: whoever reaches this port may create, delete and write to streams;"
            " give --credentials, and --tls-cert with --tls-key",
            settings.host,
        )
    listener = _listen(settings.host, settings.port)
    raise_open_files(settings.requests)
    try:
        folder = DataFolder(settings.data)
        try:
            logs = lay_out(folder, settings.processes, settings.limits.segment_bytes)

            def work(index: int, ready: Callable[[str], None]) -> None:
                folder.log = logs[index]
                group = None if settings.processes == 1 else Group(folder.path, index, settings.processes)
                with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                    runner.run(_run(share_of(settings), doors, folder, listener, ready, group=group))

            if settings.processes == 1:
                work(0, ready)
            else:
                run_processes(settings.processes, work, ready, doors.reload, listener.close)
        finally:
            folder.release()
    finally:
        listener.close()


async def _run(
    settings: Settings,
    doors: Doors,
    folder: DataFolder,
    listener: socket.socket,
    ready: Callable[[str], None],
    *,
    group: Group | None = None,
) -> None:
    registry = Registry(folder)
    clock = time.monotonic
    writer = S3Writer(s3_client(settings.s3_endpoint, settings.region, settings.limits.uploads))
    faults = Faults(clock) if settings.allow_faults else None
    if faults is not None:
        writer = FaultyWriter(writer.client, faults)
        _log.warning("--allow-faults: whoever may call this server can have it fail")
    engine = _engine(settings, folder, registry, writer, group)
    log = None
    if settings.log_bytes is not None:
        log = LogLimit(settings.log_bytes, settings.limits.segment_bytes, lambda: engine.log_bytes, clock)
    glue = settings.url_of(settings.glue_endpoint)
    admission = Admission(settings.quota, faults, log, clock)
    encryption = Encryption(time.time, seconds=settings.creating_seconds, limited=settings.quota is not None)
    api = FirehoseApi(
        *(engine, registry, settings.account, settings.region, time.time),
        catalog=Catalog(lambda region: Cloud(region, glue).single_try("glue"), settings.account, settings.region),
        creating_seconds=settings.creating_seconds,
        admission=admission,
        encryption=encryption,
    )
    room = Room(settings.requests.body_bytes, clock)
    app = App(
        api,
        Quotas(registry, settings.account, settings.region, time.time),
        engine,
        Exposition(engine, time.time, settings.quota),
        room,
        verifier=doors.verifier,
        faults=faults,
        log=log,
        group=group,
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
            # what a proxy says of its clients is of no use here
            proxy_headers=False,
            http=protocol(settings.requests, room),
            ws="none",
            timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=_GRACE,
            ssl_context_factory=doors.context_factory,
        ),
        lambda: ready(f"firehose: serving on {doors.scheme}://{settings.host}:{port}, data in {settings.data}"),
        doors.reload,
    )
    ended: list[BaseException] = []

    def give_up(fault: BaseException) -> None:
        # acknowledging on without delivering would hide it; the log holds everything
        _log.error("a fault of the server ends its work: %r", fault)
        ended.append(fault)
        server.should_exit = True

    engine.start(give_up)
    if group is not None and isinstance(engine, OwnEngine):
        await group.join(app.here, app.handed, Shared(registry, engine, admission, encryption))
    tasks = _tasks(settings, engine, api, group)
    try:
        await server.serve(sockets=[listener])
    finally:
        for task in tasks:
            task.cancel()
        if group is not None:
            await group.leave()
        await engine.stop()
    if ended:
        raise ended[0]


def _engine(
    settings: Settings, folder: DataFolder, registry: Registry, writer: S3Writer, group: Group | None
) -> Engine:
    functions = invoking_client(
        Cloud(settings.region, settings.url_of(settings.lambda_endpoint)), settings.limits.invocations
    )
    if group is None:
        return Engine(folder, registry, writer, time.time, settings.limits, invoker=_invoker(functions))
    engine = OwnEngine(folder, registry, writer, time.time, settings.limits, invoker=_invoker(functions))
    engine.own(group.owns)
    return engine


def _invoker(client: Any) -> Invoker:
    return lambda stream_arn, function, records: transform(function, client, stream_arn, records)


def _tasks(settings: Settings, engine: Engine, api: FirehoseApi, group: Group | None) -> list[asyncio.Task[None]]:
    tasks = []
    # a table that was read again is a change of a definition, so by the one who changes those
    if group is None or group.is_first:
        tasks.append(asyncio.create_task(_refreshing(api, settings.schema_seconds, group)))
    if settings.cloudwatch_endpoint is not None:
        tasks.append(asyncio.create_task(_teller(settings, engine).run(settings.cloudwatch_seconds)))
    return tasks


def _teller(settings: Settings, engine: Engine) -> CloudWatch:
    client = Cloud(settings.region, settings.url_of(settings.cloudwatch_endpoint)).single_try("cloudwatch")
    return CloudWatch(client, settings.cloudwatch_namespace, engine, time.time, settings.quota)


async def _refreshing(api: FirehoseApi, seconds: float, group: Group | None) -> None:
    while True:
        await asyncio.sleep(seconds)
        try:
            await api.refresh_schemas()
        except Exception:  # noqa: BLE001 - whatever it is, streams go on by what was read before, and it is told
            _log.exception("tables that streams convert by could not be read again")
        if group is not None:
            await group.tell_again()


class _Server(uvicorn.Server):
    """Uvicorn's server, that says when it's ready and ends without a signal when it was asked to."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None], reload: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready
        self._reload = reload

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start to take requests."""
        await super().startup(sockets=sockets)
        self._ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop on SIGTERM and SIGINT, which uvicorn would raise again at the end; read files again on SIGHUP."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        # one of several processes is started with it blocked, as until now it would have ended by it
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
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
