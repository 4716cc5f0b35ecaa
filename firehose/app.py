"""Owns the server's HTTP side: an ASGI application that sends each request to the API it is for."""

from __future__ import annotations

import asyncio
import logging
import random
from collections import Counter
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import orjson

from firehose.exposition import CONTENT_TYPE
from firehose.faults import parse_faults
from firehose.handing_on import Request
from lake.aws_json import Reply, ServiceError, error_reply, json_reply
from lake.errors import TerminalError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    from firehose.admission import LogLimit
    from firehose.api import FirehoseApi
    from firehose.engine import Engine
    from firehose.exposition import Exposition
    from firehose.faults import Faults
    from firehose.group import Group
    from firehose.incoming import Incoming, Room
    from firehose.quotas import Quotas
    from firehose.signatures import Verifier

    Scope = MutableMapping[str, Any]
    Message = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[Message]]
    Send = Callable[[Message], Awaitable[None]]

__all__ = ["App"]

_log = logging.getLogger(__name__)
_FIREHOSE, _QUOTAS = "Firehose_20150804", "ServiceQuotasV20190624"
_ADMIN = "/_lakehose/"
_JSON = "application/json"
_OPEN = (("GET", f"{_ADMIN}health"), ("GET", "/metrics"))
"""What needs no signature: probes and Prometheus have none. With another method the path would be a call's."""
_SIGNED_FOR = {_QUOTAS: "servicequotas"}
"""Services in signatures' scopes; `firehose` for all else."""
_FLUSH_SECONDS = 600.0


class App:
    """The application: POST / is AWS JSON 1.1; `/_lakehose/…` and `/metrics` are for the one who runs the server."""

    def __init__(
        self,
        api: FirehoseApi,
        quotas: Quotas,
        engine: Engine,
        exposition: Exposition,
        room: Room,
        *,
        verifier: Verifier | None = None,
        faults: Faults | None = None,
        log: LogLimit | None = None,
        group: Group | None = None,
    ) -> None:
        """Put the parts together.

        Args:
            api: answers Firehose's calls.
            quotas: answers those of Service Quotas.
            engine: whose status is told.
            exposition: of its figures.
            room: the memory for requests' bodies, which connections count into.
            verifier: checks signatures; None lets everybody call.
            faults: on demand; None where none may be asked for.
            log: its limit, to be told.
            group: the processes that this one is one of; None where it is alone.
        """
        self._api = api
        self._quotas = quotas
        self._engine = engine
        self._exposition = exposition
        self._room = room
        self._verifier = verifier
        self._faults = faults
        self._log = log
        self._group = group
        self.errors: Counter[str] = Counter()
        """Requests that were answered with an error, by its code."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"an HTTP server only, got {scope['type']}")
        request_id = _new_request_id()
        incoming: Incoming = scope["state"]["incoming"]
        try:
            # those who aren't known needn't be listened to
            claim = None
            if self._verifier is not None and (scope["method"], scope["path"]) not in _OPEN:
                service = _SIGNED_FOR.get(_target(scope).partition(".")[0], "firehose")
                claim = self._verifier.claim(scope["headers"], service)
            body = await self._room.read(incoming, receive)
            if self._verifier is not None and claim is not None:
                target = _request_target(scope)
                self._verifier.verify(claim, scope["method"], target, scope["headers"], body)
            if self._group is None:
                reply = await self._answer(scope, body)
            else:
                reply = await self._group.answer(_request(scope, body))
        except ServiceError as error:
            await self._room.drain(incoming, receive)
            self.errors[error.code] += 1
            reply = error_reply(error)
        except Exception:  # noqa: BLE001 - whatever fails, the caller gets an answer
            _log.exception("request %s failed", request_id)
            self.errors["InternalFailure"] += 1
            reply = error_reply(ServiceError("InternalFailure", f"The server failed on request {request_id}", 500))
        finally:
            self._room.close(incoming)
            body = b""
        headers = {
            "content-type": reply.content_type,
            "content-length": str(len(reply.body)),
            "x-amzn-requestid": request_id,
            **reply.headers,
        }
        encoded = [(name.lower().encode(), value.encode("latin-1", "replace")) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": reply.status, "headers": encoded})
        await send({"type": "http.response.body", "body": reply.body})

    async def here(self, request: Request) -> Reply:
        """Answer a request that was let in, in this process.

        Raises:
            ServiceError: anything the caller has to know.
        """
        scope = {
            "method": request.method,
            "path": request.path,
            "query_string": request.query.encode("latin-1"),
            "headers": [(b"x-amz-target", request.target.encode("latin-1"))],
        }
        return await self._answer(scope, request.body)

    async def handed(self, request: Request) -> Reply:
        """Answer a request that another process handed on; errors are answers, too, and are counted here."""
        if self._group is None:
            raise RuntimeError("a server with one process is handed nothing")
        try:
            return await self._group.take(request)
        except ServiceError as error:
            self.errors[error.code] += 1
            return error_reply(error)
        except Exception:  # noqa: BLE001 - as for a client
            _log.exception("a request that was handed on failed: %s %s", request.path, request.target)
            self.errors["InternalFailure"] += 1
            return error_reply(ServiceError("InternalFailure", "The server failed on a request", 500))

    async def _answer(self, scope: Scope, body: bytes) -> Reply:
        path: str = scope["path"]
        if path.startswith(_ADMIN):
            return await self._admin(scope["method"], path.removeprefix(_ADMIN), scope["query_string"].decode(), body)
        if (scope["method"], path) == ("GET", "/metrics"):
            return Reply(self._exposition.render(self.errors), content_type=CONTENT_TYPE)
        target = _target(scope)
        service, _, operation = target.partition(".")
        if service == _FIREHOSE:
            return await self._api.call(operation, body)
        if service == _QUOTAS:
            return self._quotas.call(operation, body)
        said = f"X-Amz-Target: {target}" if target else "no X-Amz-Target"
        raise ServiceError("UnknownOperationException", f"{said}: allowed are {_FIREHOSE}.… and {_QUOTAS}.…")

    async def _admin(self, method: str, name: str, query: str, body: bytes) -> Reply:
        if (method, name) == ("GET", "health"):
            return json_reply({"status": "ok"}, content_type=_JSON)
        if (method, name) == ("GET", "status"):
            return json_reply(self._status(), content_type=_JSON)
        if (method, name) == ("POST", "flush"):
            return await self._flush(parse_qs(query).get("stream", [None])[0])
        if name == "faults" and method in {"GET", "POST", "DELETE"}:
            return self._change_faults(method, body)
        allowed = "GET health, GET status, POST flush, GET, POST and DELETE faults"
        return _problem(f"{method} {_ADMIN}{name}: allowed are {allowed}", 404)

    def _status(self) -> dict[str, Any]:
        limit = None if self._log is None else self._log.most
        return {
            **self._engine.status(),
            "logLimitBytes": limit,
            "logFull": self._log is not None and self._log.full,
            "faults": self._faults is not None and any(not one["over"] for one in self._faults.to_dict()["faults"]),
        }

    def _change_faults(self, method: str, body: bytes) -> Reply:
        if self._faults is None:
            return _problem("faults: this server makes none on demand: start it with --allow-faults", 403)
        if method == "DELETE":
            self._faults.clear()
        elif method == "POST":
            try:
                self._faults.add(parse_faults(orjson.loads(body)))
            except orjson.JSONDecodeError as error:
                return _problem(f"faults: the body is not JSON: {error}", 400)
            except TerminalError as error:
                return _problem(str(error), 400)
        return json_reply(self._faults.to_dict(), content_type=_JSON)

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


def _new_request_id() -> str:
    # of a version 4 UUID's shape; it only has to be another one, and asking the system each time takes longer than that
    digits = f"{random.getrandbits(128):032x}"
    return f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-a{digits[17:20]}-{digits[20:]}"


def _problem(message: str, status: int) -> Reply:
    return json_reply({"message": message}, status=status, content_type=_JSON)


def _target(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-amz-target":
            found: str = value.decode("latin-1")
            return found
    return ""


def _request(scope: Scope, body: bytes) -> Request:
    return Request(scope["method"], scope["path"], scope["query_string"].decode("latin-1"), _target(scope), body)


def _request_target(scope: Scope) -> str:
    path, query = scope["raw_path"].decode("latin-1"), scope["query_string"].decode("latin-1")
    return f"{path}?{query}" if query else path
