"""Owns the server's HTTP side: an ASGI application that sends each request to the API it is for."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs
from uuid import uuid4

from firehose.exposition import CONTENT_TYPE
from lake.aws_json import Reply, ServiceError, error_reply, json_reply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from firehose.api import FirehoseApi
    from firehose.engine import Engine
    from firehose.exposition import Exposition
    from firehose.quotas import Quotas

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

__all__ = ["App"]

_log = logging.getLogger(__name__)
_FIREHOSE, _QUOTAS = "Firehose_20150804", "ServiceQuotasV20190624"
_ADMIN = "/_lakehose/"
_JSON = "application/json"
_MOST_BYTES = 16 << 20
"""A body above this can't be a valid call: 4 MiB of records are 5.4 MiB in base64."""
_FLUSH_SECONDS = 600.0


class App:
    """The application: POST / is AWS JSON 1.1; `/_lakehose/…` and `/metrics` are for the one who runs the server."""

    def __init__(self, api: FirehoseApi, quotas: Quotas, engine: Engine, exposition: Exposition) -> None:
        self._api = api
        self._quotas = quotas
        self._engine = engine
        self._exposition = exposition

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"an HTTP server only, got {scope['type']}")
        request_id = str(uuid4())
        try:
            body = await _body(receive)
            reply = await self._answer(scope, body)
        except ServiceError as error:
            reply = error_reply(error)
        except Exception:  # noqa: BLE001 - whatever fails, the caller gets an answer
            _log.exception("request %s failed", request_id)
            reply = error_reply(ServiceError("InternalFailure", f"The server failed on request {request_id}", 500))
        headers = {
            "content-type": reply.content_type,
            "content-length": str(len(reply.body)),
            "x-amzn-requestid": request_id,
            **reply.headers,
        }
        encoded = [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": reply.status, "headers": encoded})
        await send({"type": "http.response.body", "body": reply.body})

    async def _answer(self, scope: Scope, body: bytes) -> Reply:
        path: str = scope["path"]
        if path.startswith(_ADMIN):
            return await self._admin(scope["method"], path.removeprefix(_ADMIN), scope["query_string"].decode())
        if (scope["method"], path) == ("GET", "/metrics"):
            return Reply(self._exposition.render(), content_type=CONTENT_TYPE)
        target = next((value for name, value in scope["headers"] if name == b"x-amz-target"), b"").decode("latin-1")
        service, _, operation = target.partition(".")
        if service == _FIREHOSE:
            return await self._api.call(operation, body)
        if service == _QUOTAS:
            return self._quotas.call(operation, body)
        said = f"X-Amz-Target: {target}" if target else "no X-Amz-Target"
        raise ServiceError("UnknownOperationException", f"{said}: allowed are {_FIREHOSE}.… and {_QUOTAS}.…")

    async def _admin(self, method: str, name: str, query: str) -> Reply:
        if (method, name) == ("GET", "health"):
            return json_reply({"status": "ok"}, content_type=_JSON)
        if (method, name) == ("GET", "status"):
            return json_reply(self._engine.status(), content_type=_JSON)
        if (method, name) == ("POST", "flush"):
            return await self._flush(parse_qs(query).get("stream", [None])[0])
        return _problem(f"{method} {_ADMIN}{name}: allowed are GET health, GET status, POST flush", 404)

    async def _flush(self, stream: str | None) -> Reply:
        try:
            async with asyncio.timeout(_FLUSH_SECONDS):
                flushed = await self._engine.flush(stream)
        except KeyError:
            return _problem(f"no stream {stream!r}", 404)
        except TimeoutError:
            troubles = {
                name: one["trouble"] for name, one in self._engine.status()["streams"].items() if one["trouble"]
            }
            return _problem(f"not delivered after {_FLUSH_SECONDS:.0f} s: {troubles or 'S3 is slow'}", 504)
        streams = {name: {"objects": one.objects, "records": one.records} for name, one in flushed.items()}
        return json_reply({"streams": streams}, content_type=_JSON)


def _problem(message: str, status: int) -> Reply:
    return json_reply({"message": message}, status=status, content_type=_JSON)


async def _body(receive: Receive) -> bytes:
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ServiceError("RequestTimeoutException", "The client went away", 408)
        part = message.get("body", b"")
        size += len(part)
        # one that is too big is read to its end, as clients only look at the answer then, but not kept
        if size <= _MOST_BYTES:
            parts.append(part)
        if not message.get("more_body", False):
            break
    if size > _MOST_BYTES:
        raise ServiceError("InvalidArgumentException", "Records size exceeds 4 MB limit")
    return b"".join(parts)
