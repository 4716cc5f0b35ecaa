"""Owns how a server's processes speak with each other: requests and replies as they are, over a unix socket.

A message is two lengths and a number (little-endian: of the head u32, of the body u32, number u64), a head in JSON, and
a body, untouched. Many requests are under way on one connection; a reply has its request's number. The socket lies in
the server's folder and is its owner's alone (mode 0600), so what comes over it was checked before.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import orjson

from lake.aws_json import Reply
from lake.errors import EnvironmentProblemError, TransientError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

__all__ = ["Door", "Peer", "PeerAwayError", "PeerLostError", "Request", "listen_at", "stream_name"]

_MESSAGE = struct.Struct("<IIQ")
_BUFFERED = 1 << 20
"""Bytes that a reader takes ahead."""
_MOST_WAITING = 64 << 20
"""Bytes of requests that wait to be taken: those that were given up stay where they are until then."""
_PATH_BYTES = 107
"""Of a unix socket's address, on Linux."""
_CONNECT_SECONDS = 30.0
"""How long a process that is starting may take to answer."""

_KEY = b'"DeliveryStreamName"'
_FIRST = re.compile(rb'\s*\{\s*"DeliveryStreamName"\s*:\s*"([a-zA-Z0-9_.-]{1,64})"\s*[,}]')
_LAST = re.compile(rb',\s*"DeliveryStreamName"\s*:\s*"([a-zA-Z0-9_.-]{1,64})"\s*\}\s*\Z')
_TAIL = 256
"""Bytes at the end of a body that its last member can take, with room to spare."""


class PeerAwayError(TransientError):
    """Another process of the server isn't there: it takes no connections."""


class PeerLostError(TransientError):
    """Another process of the server ended, or said nothing for too long; whether it did what was asked isn't known."""


@dataclass(frozen=True, slots=True)
class Request:
    """What is handed on of a request."""

    method: str
    path: str
    query: str = ""
    target: str = ""
    """X-Amz-Target."""
    body: bytes = b""


def stream_name(body: bytes) -> str | None:
    """Find the stream that a put is for; None where its body names none, or is no JSON object.

    A body that names it once, first or last of its members, needn't be parsed for it: as records are base64, these are
    nearly all. With any escape in it, or the name more than once, it is parsed, as a later member counts.
    """
    if body.count(_KEY) == 1 and b"\\" not in body:
        found = _FIRST.match(body) or _LAST.search(body, max(0, len(body) - _TAIL))
        if found is not None:
            return found[1].decode("ascii")
    try:
        request = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    name = request.get("DeliveryStreamName") if isinstance(request, dict) else None
    return name if isinstance(name, str) else None


def listen_at(path: Path) -> socket.socket:
    """Listen at a unix socket that its owner alone can connect to; one that is there is replaced.

    Raises:
        EnvironmentProblemError: it can't be made.
    """
    fresh = path.with_suffix(".new")
    if len(os.fsencode(fresh)) > _PATH_BYTES:
        raise EnvironmentProblemError(
            f"--data-dir {path.parent}: several processes speak over sockets there, and {fresh} is longer than the"
            f" {_PATH_BYTES} bytes of a socket's name: take a folder with a shorter name, or --processes 1"
        )
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        fresh.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            listener.bind(str(fresh))
        finally:
            os.umask(before)
        listener.listen(128)
        fresh.replace(path)
    except OSError as error:
        listener.close()
        raise EnvironmentProblemError(f"{path}: can't be made a socket: {error.strerror}") from None
    listener.setblocking(False)
    return listener


@dataclass(slots=True)
class _Waiting:
    writer: asyncio.StreamWriter
    replies: dict[int, asyncio.Future[Reply]] = field(default_factory=dict)
    last: int = 0


class Peer:
    """Another process, as one sees it: connected to when there is something to ask, and then kept."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._connection: _Waiting | None = None
        self._reading: asyncio.Task[None] | None = None
        self._connecting = asyncio.Lock()

    async def ask(self, request: Request, *, timeout: float) -> Reply:  # noqa: ASYNC109 - of the message, not of a block
        """Hand a request on and return the reply.

        Args:
            request: what is asked.
            timeout: seconds to wait for the reply.

        Raises:
            PeerAwayError: the process isn't there; it knows nothing of the request.
            PeerLostError: it went away, or didn't answer in time.
        """
        connection = await self._connected()
        if connection.writer.is_closing():  # uvloop would fail by a RuntimeError; `_read` is about to let go of it
            raise PeerLostError(f"{self._path.stem} ended")
        if connection.writer.transport.get_write_buffer_size() + len(request.body) > _MOST_WAITING:
            raise PeerLostError(f"{self._path.stem} takes nothing")
        connection.last += 1
        number = connection.last
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        connection.replies[number] = future
        head = orjson.dumps([request.method, request.path, request.query, request.target])
        try:
            async with asyncio.timeout(timeout):
                connection.writer.writelines([_MESSAGE.pack(len(head), len(request.body), number) + head, request.body])
                await connection.writer.drain()
                return await future
        except TimeoutError:
            raise PeerLostError(f"{self._path.stem} didn't answer within {timeout:g} s") from None
        except OSError as error:
            raise PeerLostError(f"{self._path.stem}: {error}") from None
        finally:
            connection.replies.pop(number, None)
            if future.done() and not future.cancelled():
                future.exception()  # it may have failed while the request was being sent

    def close(self) -> None:
        """Let go of the connection."""
        if self._connection is not None:
            self._connection.writer.close()

    async def _connected(self) -> _Waiting:
        async with self._connecting:
            if self._connection is None:
                try:
                    async with asyncio.timeout(_CONNECT_SECONDS):
                        reader, writer = await asyncio.open_unix_connection(self._path, limit=_BUFFERED)
                except (ConnectionRefusedError, FileNotFoundError):
                    raise PeerAwayError(f"{self._path.stem} isn't there") from None
                except (OSError, TimeoutError) as error:
                    raise PeerLostError(f"{self._path.stem} can't be reached: {error or 'no answer'}") from None
                self._connection = _Waiting(writer)
                self._reading = asyncio.create_task(self._read(reader, self._connection))
            return self._connection

    async def _read(self, reader: asyncio.StreamReader, connection: _Waiting) -> None:
        error = PeerLostError(f"{self._path.stem} ended")
        try:
            while True:
                number, head, body = await _receive(reader)
                status, headers, content_type = orjson.loads(head)
                future = connection.replies.get(number)
                if future is not None and not future.done():
                    future.set_result(Reply(body, status=status, headers=headers, content_type=content_type))
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            if self._connection is connection:
                self._connection = None
            for future in connection.replies.values():
                if not future.done():
                    future.set_exception(error)
            connection.writer.close()


class Door:
    """Where a process takes what others hand on.

    Args:
        answer: answers a request, and never fails.
    """

    def __init__(self, answer: Callable[[Request], Awaitable[Reply]]) -> None:
        self._answer = answer
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._alone = asyncio.Event()
        """Set while nobody is connected."""
        self._alone.set()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, listener: socket.socket) -> None:
        """Begin to answer."""
        self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=_BUFFERED)

    async def close(self, seconds: float) -> None:
        """Wait, but not longer than so many seconds, for the others to let go of their connections; then end them."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._alone.wait()
        if self._server is not None:
            self._server.close()
        for writer in list(self._writers):
            writer.close()
        for task in self._tasks:
            task.cancel()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        self._alone.clear()
        try:
            while True:
                number, head, body = await _receive(reader)
                method, path, query, target = orjson.loads(head)
                task = asyncio.create_task(self._one(writer, number, Request(method, path, query, target, body)))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        except (asyncio.IncompleteReadError, OSError):
            pass
        finally:
            self._writers.discard(writer)
            if not self._writers:
                self._alone.set()
            writer.close()

    async def _one(self, writer: asyncio.StreamWriter, number: int, request: Request) -> None:
        reply = await self._answer(request)
        if writer.is_closing():  # who asked is gone; uvloop would fail by a RuntimeError
            return
        head = orjson.dumps([reply.status, reply.headers, reply.content_type])
        with suppress(OSError):
            writer.writelines([_MESSAGE.pack(len(head), len(reply.body), number) + head, reply.body])
            await writer.drain()


async def _receive(reader: asyncio.StreamReader) -> tuple[int, bytes, bytes]:
    head_length, body_length, number = _MESSAGE.unpack(await reader.readexactly(_MESSAGE.size))
    head = await reader.readexactly(head_length)
    return number, head, await reader.readexactly(body_length)
