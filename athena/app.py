"""Owns Athena's HTTP side: an ASGI application for `X-Amz-Target: AmazonAthena.…`, and the Trino it starts."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from athena.api import Api
from athena.catalog import Catalog
from athena.engine import Engine
from athena.executions import Executions
from athena.trino import TrinoServer, TrinoSettings
from athena.workgroups import Workgroups
from lake.aws_json import CONTENT_TYPE, Reply, ServiceError, decode, error_reply, json_reply
from lake.clients import Cloud

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping
    from pathlib import Path

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

__all__ = ["AthenaApp", "AthenaSettings", "create_app"]

_log = logging.getLogger(__name__)
_PREFIX = "AmazonAthena."
_MOST_BYTES = 2 << 20
_API_THREADS = 8


@dataclass(frozen=True)
class AthenaSettings:
    """What the local Athena stands on."""

    endpoint: str
    """URL that answers for S3 and Glue, for example `http://127.0.0.1:4566`."""
    region: str
    state_dir: Path
    """Folder of the history of queries, of the workgroups, and of Trino's process."""
    cache_dir: Path | None = None
    """Where Trino is installed; LAKEHOSE_CACHE or `~/.cache/lakehose` when None."""
    queries_at_once: int = 6
    """More than these wait as QUEUED."""


class _OnDemand:
    """A Trino that is started when a query wants it, and again when it has gone."""

    def __init__(self, settings: AthenaSettings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._server: TrinoServer | None = None

    def url(self) -> str:
        """Where Trino takes queries."""
        with self._lock:
            if self._server is None or not self._server.is_running:
                settings = TrinoSettings(self._settings.endpoint, self._settings.region)
                self._server = TrinoServer.start(
                    self._settings.state_dir, settings, say=_say, cache=self._settings.cache_dir
                )
            return self._server.url


def _say(text: str) -> None:
    _log.warning("athena: %s", text)


def create_app(settings: AthenaSettings) -> AthenaApp:
    """Make the application; queries that ran when the last process ended are failed now.

    Nothing is asked of the endpoint, and no Trino started, before a call needs it.
    """
    clock = time.time
    settings.state_dir.mkdir(parents=True, exist_ok=True)
    cloud = Cloud(settings.region, settings.endpoint)
    executions = Executions(settings.state_dir / "executions.sqlite")
    executions.fail_unfinished(clock())
    engine = Engine(
        executions=executions,
        trino=_OnDemand(settings),
        s3=cloud.s3,
        spill=settings.state_dir / "spill",
        clock=clock,
        threads=settings.queries_at_once,
    )
    workgroups = Workgroups(settings.state_dir / "workgroups.json", clock())
    return AthenaApp(Api(executions, workgroups, engine, Catalog(cloud.glue), cloud.s3, clock))


class AthenaApp:
    """The application. `close` ends its queries and threads, not Trino, which the next process takes on."""

    def __init__(self, api: Api) -> None:
        self._api = api
        # threads of its own: a call waits for S3 and Glue, which may be served by this very process
        self._threads = ThreadPoolExecutor(_API_THREADS, thread_name_prefix="athena-api")

    def close(self) -> None:
        """End what runs."""
        self._threads.shutdown()
        self._api.engine.close()
        self._api.executions.close()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or a server's start and end."""
        if scope["type"] == "lifespan":
            await self._lifespan(receive, send)
            return
        if scope["type"] != "http":
            raise RuntimeError(f"an HTTP server only, got {scope['type']}")
        request_id = str(uuid4())
        try:
            reply = await self._answer(scope, receive)
        except ServiceError as error:
            reply = error_reply(error)
        except Exception:  # noqa: BLE001 - whatever fails, the caller gets an answer
            _log.exception("request %s failed", request_id)
            reply = error_reply(
                ServiceError("InternalServerException", f"The server failed on request {request_id}", 500)
            )
        headers = {
            "content-type": CONTENT_TYPE,
            "content-length": str(len(reply.body)),
            "x-amzn-requestid": request_id,
            **reply.headers,
        }
        encoded = [(name.encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": reply.status, "headers": encoded})
        await send({"type": "http.response.body", "body": reply.body})

    async def _answer(self, scope: Scope, receive: Receive) -> Reply:
        target = next((value for name, value in scope["headers"] if name == b"x-amz-target"), b"").decode("latin-1")
        if not target.startswith(_PREFIX):
            said = f"X-Amz-Target: {target}" if target else "no X-Amz-Target"
            raise ServiceError("UnknownOperationException", f"{said}: allowed is {_PREFIX}…")
        request = decode(await _body(receive))
        loop = asyncio.get_running_loop()
        answer = await loop.run_in_executor(self._threads, self._api.call, target.removeprefix(_PREFIX), request)
        return json_reply(answer)

    async def _lifespan(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                self.close()
                await send({"type": "lifespan.shutdown.complete"})
                return


async def _body(receive: Receive) -> bytes:
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ServiceError("RequestTimeoutException", "The client went away", 408)
        body += message.get("body", b"")
        if len(body) > _MOST_BYTES:
            raise ServiceError("RequestEntityTooLargeException", f"A request is {_MOST_BYTES} bytes at most", 413)
        if not message.get("more_body", False):
            return bytes(body)
