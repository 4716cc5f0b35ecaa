"""Owns one process's part in a server of several: which requests it answers, which it hands on, and to whom.

A put goes to the process that has its stream. What changes a definition is carried out by process 0, which has written
it to disk and been told by all others that they read it before it answers; so whoever is asked next knows of it. Those
who look at definitions are answered by any process, and those who look at the server by all.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import orjson

from firehose.engine import Engine
from firehose.handing_on import Door, Peer, PeerAwayError, PeerLostError, Request, listen_at, stream_name
from firehose.layout import owner
from firehose.merging import merge_faults, merge_metrics, merge_statuses
from lake.aws_json import Reply, ServiceError, json_reply
from lake.errors import EnvironmentProblemError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from firehose.admission import Admission
    from firehose.encryption import Encryption
    from firehose.registry import Registry
    from firehose.streams import DeliveryStream

__all__ = ["Group", "OwnEngine", "Shared"]

_log = logging.getLogger(__name__)
_ADMIN = "/_lakehose/"
_STATUS, _METRICS = f"{_ADMIN}status", "/metrics"
_HANDED_ON = b"""# HELP firehose_handed_on_requests_total Requests that a process gave to the one they concern
# TYPE firehose_handed_on_requests_total counter
firehose_handed_on_requests_total """
_JSON = "application/json"
_PUTS = {f"Firehose_20150804.{name}" for name in ("PutRecord", "PutRecordBatch")}
_LOOKS = {f"Firehose_20150804.{name}" for name in ("DescribeDeliveryStream", "ListDeliveryStreams")}
_LOOKS |= {"Firehose_20150804.ListTagsForDeliveryStream"}
_CHANGES = "Firehose_20150804."
_QUOTA_CHANGE = "ServiceQuotasV20190624.RequestServiceQuotaIncrease"
_RELOAD = ("POST", f"{_ADMIN}reload")
"""Asked by process 0 alone, with the encryption that is under way: over HTTP there is no such path."""
_FIRST = 0
"""The process that changes definitions."""
_PUT_SECONDS = 60.0
_TELL_SECONDS = 30.0
_CHANGE_SECONDS = _PUT_SECONDS + _TELL_SECONDS
_LOOK_SECONDS = 5.0
_HEALTH_SECONDS = 2.0
"""Less than whoever probes it waits: a process that stands still must not look like all of them."""
_FLUSH_SECONDS = 630.0
"""A little more than a process itself gives up after."""
_LEAVE_SECONDS = 6.0
"""How long those who still answer may hand on; uvicorn waits five."""
_AGAIN_SECONDS = 0.05


class OwnEngine(Engine):
    """The engine of a process that has some of the streams."""

    _owns: Callable[[str], bool]

    def own(self, owns: Callable[[str], bool]) -> None:
        """Let go of the streams of others.

        Raises:
            EnvironmentProblemError: the log holds records of one.
        """
        self._owns = owns
        for name in [name for name in self._live if not owns(name)]:
            live = self._live.pop(name)
            if live.pending:
                raise EnvironmentProblemError(f"the log holds {live.pending} records of {name}, another process's")

    def add(self, stream: DeliveryStream) -> None:
        """Take up a stream that was created, if it's one of this process."""
        if self._owns(stream.name):
            super().add(stream)

    def update(self, stream: DeliveryStream) -> None:
        """Go on with a stream as it is now, if it's one of this process."""
        if self._owns(stream.name):
            super().update(stream)

    def remove(self, name: str) -> None:
        """Let go of a stream that was deleted, if it's one of this process."""
        if self._owns(name):
            super().remove(name)

    def follow(self, changes: list[tuple[DeliveryStream | None, DeliveryStream | None]]) -> None:
        """Do what the API does in the process that made these changes: each stream as it was, and as it is."""
        for before, after in changes:
            another = before is None or after is None or before.identity != after.identity
            if before is not None and another:
                self.remove(before.name)
            if after is not None and another:
                self.add(after)
            elif before is not None and after is not None and _works_otherwise(before, after):
                self.update(after)


def _works_otherwise(before: DeliveryStream, after: DeliveryStream) -> bool:
    # tags and encryption change nothing of it
    return (before.version, before.schema) != (after.version, after.schema)


@dataclass(frozen=True, slots=True)
class Shared:
    """What a process does again when process 0 has changed something."""

    registry: Registry
    engine: OwnEngine
    admission: Admission
    encryption: Encryption

    def follow(self, encryption_under_way: dict[str, Any]) -> None:
        """Go on by what is on disk now, and by what process 0 says of encryption.

        Raises:
            EnvironmentProblemError: a file is damaged.
        """
        changes = self.registry.reload()
        self.engine.follow(changes)
        for before, after in changes:
            if before is not None and (after is None or before.identity != after.identity):
                self.admission.forget(before.identity)
                self.encryption.forget(before)
        self.encryption.follow(encryption_under_way)


class Group:
    """All processes of a server, as one of them sees them.

    Args:
        folder: the server's.
        index: of this process, from 0.
        count: of all.
    """

    def __init__(self, folder: Path, index: int, count: int) -> None:
        """Take a place among them: from now on others can connect, and are answered after `join`.

        Before the definitions are read: whoever changes them later finds this process listening, and waits for it.

        Raises:
            EnvironmentProblemError: the folder's name is too long for a socket.
        """
        self.index = index
        self.count = count
        self._peers = {other: Peer(_socket_of(folder, other)) for other in range(count) if other != index}
        self._path = _socket_of(folder, index)
        self._listener = listen_at(self._path)
        self._door: Door | None = None
        self._handed_on = 0
        self._telling = asyncio.Lock()
        self._greeting: asyncio.Task[None] | None = None

    @property
    def is_first(self) -> bool:
        """Whether this is the process that changes definitions."""
        return self.index == _FIRST

    def owns(self, stream: str) -> bool:
        """Tell whether a stream is this process's."""
        return owner(stream, self.count) == self.index

    async def join(
        self,
        here: Callable[[Request], Awaitable[Reply]],
        handed: Callable[[Request], Awaitable[Reply]],
        shared: Shared,
    ) -> None:
        """Begin to answer.

        Args:
            here: answers a request in this process, or raises ServiceError.
            handed: answers one that was handed on, by `take`; it never fails.
            shared: with process 0.
        """
        self._here = here
        self._shared = shared
        self._door = Door(handed)
        await self._door.open(self._listener)
        if self.is_first:
            # an end between writing a change and telling of it would leave the others without it
            self._greeting = asyncio.create_task(self.tell_again())

    async def leave(self) -> None:
        """Ask the others nothing more, answer what they still ask, and go."""
        if self._greeting is not None:
            self._greeting.cancel()
        for peer in self._peers.values():
            peer.close()
        if self._door is not None:
            await self._door.close(_LEAVE_SECONDS)
        self._path.unlink(missing_ok=True)

    async def answer(self, request: Request) -> Reply:
        """Answer a client's request, here or by handing it on.

        Raises:
            ServiceError: anything the caller has to know.
        """
        if request.path.startswith(_ADMIN):
            return await self._admin(request)
        if _is_metrics(request):
            return await self._metrics(request)
        if request.target in _PUTS:
            name = stream_name(request.body)
            return await self._ask(self.index if name is None else owner(name, self.count), request, _PUT_SECONDS)
        if _is_change(request):
            return await self._ask(_FIRST, request, _CHANGE_SECONDS)
        return await self._here(request)

    async def take(self, request: Request) -> Reply:
        """Answer a request that was handed on.

        Raises:
            ServiceError: anything the caller has to know.
        """
        if (request.method, request.path) == _RELOAD:
            self._shared.follow(orjson.loads(request.body))
            return json_reply({}, content_type=_JSON)
        return await self._carry_out(request)

    async def _ask(self, index: int, request: Request, seconds: float) -> Reply:
        if index == self.index:
            return await self._carry_out(request)
        self._handed_on += 1
        try:
            return await self._peers[index].ask(request, timeout=seconds)
        except PeerAwayError as error:
            raise _unavailable(f"{error}, it is being started again") from None
        except PeerLostError as error:
            raise _unavailable(f"{error}; what was asked may have been done") from None

    async def _carry_out(self, request: Request) -> Reply:
        try:
            reply = await self._here(request)
        except ServiceError:
            if _is_change(request):
                async with self._telling:  # what it is refused by may not be known everywhere yet
                    pass
            raise
        if request.path == _STATUS:
            return json_reply({**orjson.loads(reply.body), "pid": os.getpid()}, content_type=_JSON)
        if _is_metrics(request):
            return replace(reply, body=reply.body + _HANDED_ON + b"%d\n" % self._handed_on)
        if _is_change(request):
            async with self._telling:  # a change that this one was made upon is told before
                await asyncio.gather(*(self._tell(peer) for peer in self._peers.values()))
        return reply

    async def _tell(self, peer: Peer) -> None:
        reload = Request(*_RELOAD, body=orjson.dumps(self._shared.encryption.under_way))
        deadline = time.monotonic() + _TELL_SECONDS
        while True:
            try:
                reply = await peer.ask(reload, timeout=_TELL_SECONDS)
            except PeerAwayError:
                return  # it listens before it reads the definitions, so it will read these
            except PeerLostError as error:
                if time.monotonic() > deadline:
                    raise _unavailable(f"the change is made, but not known everywhere yet: {error}") from None
                await asyncio.sleep(_AGAIN_SECONDS)
            else:
                if reply.status != 200:  # noqa: PLR2004 - HTTP's
                    raise _unavailable(f"the change is made, but not known everywhere: {reply.body.decode()}")
                return

    async def tell_again(self) -> None:
        """Tell all others whatever they may have missed; who can't be told is logged."""
        async with self._telling:
            found = await asyncio.gather(*(self._tell(peer) for peer in self._peers.values()), return_exceptions=True)
        for error in found:
            if isinstance(error, Exception):
                _log.error("%s", error)

    async def _admin(self, request: Request) -> Reply:
        name = request.path.removeprefix(_ADMIN)
        if (request.method, name) == ("GET", "health"):
            found = await self._ask_all(request, _HEALTH_SECONDS)
            away = sorted(index for index, reply in found.items() if reply is None)
            # the others serve on, so whoever asks must not take all of them for dead
            status = {"status": "degraded", "away": away} if away else {"status": "ok"}
            return json_reply(status, content_type=_JSON)
        if (request.method, name) == ("GET", "status"):
            found = await self._ask_all(request, _LOOK_SECONDS)
            told = {index: None if one is None else _parsed(one) for index, one in found.items()}
            return json_reply(merge_statuses(told), content_type=_JSON)
        if (request.method, name) == ("POST", "flush"):
            return await self._flush(request)
        if name == "faults":
            return await self._faults(request)
        return await self._here(request)

    async def _faults(self, request: Request) -> Reply:
        found = await self._all_there(request, _LOOK_SECONDS, "faults are as they were")
        if isinstance(found, Reply):
            return found
        return json_reply(merge_faults([_parsed(one) for one in found]), content_type=_JSON)

    async def _flush(self, request: Request) -> Reply:
        if name := parse_qs(request.query).get("stream", [""])[0]:
            return await self._ask(owner(name, self.count), request, _FLUSH_SECONDS)
        streams: dict[str, Any] = {}
        found = await self._all_there(request, _FLUSH_SECONDS, "its streams were not flushed")
        if isinstance(found, Reply):
            return found
        for reply in found:
            streams |= _parsed(reply)["streams"]
        return json_reply({"streams": dict(sorted(streams.items()))}, content_type=_JSON)

    async def _all_there(self, request: Request, seconds: float, otherwise: str) -> list[Reply] | Reply:
        """Ask all; returns their replies, or the one that says why it isn't done."""
        # one that is away is told at once, before the others begin
        found = await self._ask_all(Request("GET", f"{_ADMIN}health"), _LOOK_SECONDS)
        if None not in found.values():
            found = await self._ask_all(request, seconds)
        replies = []
        for index, reply in found.items():
            if reply is None:
                text = f"process {index} of the server is away: {otherwise}"
                return json_reply({"message": text}, status=503, content_type=_JSON)
            if reply.status != 200:  # noqa: PLR2004 - HTTP's
                return reply
            replies.append(reply)
        return replies

    async def _metrics(self, request: Request) -> Reply:
        found = await self._ask_all(request, _LOOK_SECONDS)
        merged = merge_metrics(
            {index: None if reply is None else reply.body.decode() for index, reply in found.items()}
        )
        own = found[self.index]
        return Reply(merged.encode(), content_type=own.content_type if own else "text/plain")

    async def _ask_all(self, request: Request, seconds: float) -> dict[int, Reply | None]:
        async def one(index: int) -> Reply | None:
            if index == self.index:
                return await self._carry_out(request)
            try:
                return await self._peers[index].ask(request, timeout=seconds)
            except (PeerAwayError, PeerLostError):
                return None

        return dict(enumerate(await asyncio.gather(*(one(index) for index in range(self.count)))))


def _is_metrics(request: Request) -> bool:
    return (request.method, request.path) == ("GET", _METRICS)


def _is_change(request: Request) -> bool:
    # what it is for is said by its target, whatever its path, as long as that has no answer of its own
    if request.path.startswith(_ADMIN) or _is_metrics(request) or request.target in _PUTS | _LOOKS:
        return False
    return request.target == _QUOTA_CHANGE or request.target.startswith(_CHANGES)


def _parsed(reply: Reply) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(reply.body)
    return found


def _unavailable(text: str) -> ServiceError:
    return ServiceError("ServiceUnavailableException", f"The service is unavailable: {text}.", 503)


def _socket_of(folder: Path, index: int) -> Path:
    return folder / f"process-{index}.sock"
