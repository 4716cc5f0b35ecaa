"""Owns what one client's connection may take: headers, time, its place among the others.

Uvicorn itself bounds neither the size of headers nor the time a client takes for a request, and a connection that never
asks for anything stays open for ever. Here a request has to be there within `request_seconds` of its beginning, and the
first one of the connection's; an answer has to be taken within the same. A connection that breaks this is closed.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

if TYPE_CHECKING:
    from firehose.incoming import Incoming, Room

__all__ = ["Connection", "Intake", "RequestLimits", "protocol", "raise_open_files"]

_log = logging.getLogger(__name__)
_PIPELINED = 8
"""Requests that wait behind the one that is answered, on one connection."""
_TELL_SECONDS = 60.0
_LINGER_SECONDS = 5.0
_RECEIVED_AT_ONCE = 256 << 10
"""Bytes; uvloop has as much for those that aren't buffered."""
_OTHER_FILES = 256
"""Files that the server has open beside connections: the log's segments, uploads, what it was started with."""


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What requests may take of the server."""

    connections: int = 4096
    """Open at once."""
    header_bytes: int = 64 << 10
    """Of one request, with its path."""
    request_seconds: float = 60.0
    """For a request to come in, headers and body, and for its answer to be taken."""
    body_bytes: int = 64 << 20
    """Of all requests at once. A put takes about four times its body while it is answered."""


class Connection(HttpToolsProtocol):
    """One connection, as uvicorn speaks HTTP on it, within limits.

    Args:
        limits: it keeps to.
        room: for requests' bodies; a request's own part of it is its scope's state's `incoming`, for the application to
            close.
        arguments: uvicorn's own.
    """

    _told = float("-inf")

    def __init__(self, *, limits: RequestLimits, room: Room, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._room = room
        self._incoming: Incoming | None = None
        self._limits = limits
        # one timer a connection, which looks how long it is: one for each request would cost each request
        self._timer: asyncio.TimerHandle | None = None
        self._waiting_since: float | None = None
        self._answer_deadline: asyncio.TimerHandle | None = None
        self._in_headers = False
        self._header_bytes = 0
        self._chunk = 0
        self._over = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # uvicorn's
        """Begin, or turn the client away where there are too many."""
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections:
            if self.loop.time() - Connection._told > _TELL_SECONDS:
                Connection._told = self.loop.time()
                _log.warning("%d connections are open: further ones are turned away", self._limits.connections)
            self._refuse(503, "ServiceUnavailableException", "Slow down: too many connections.")
            return
        self._waiting_since = self.loop.time()
        self._look_after(self._limits.request_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._over = True
        self._stop(self._timer)
        self._stop(self._answer_deadline)
        for cycle, _ in self.pipeline:  # nobody is going to answer these
            self._room.close(cycle.scope["state"]["incoming"])
        super().connection_lost(exc)

    def data_received(self, data: bytes | memoryview) -> None:
        """Take what came."""
        if self._over:
            return
        self._chunk = len(data)
        super().data_received(data)  # type: ignore[arg-type]  # the parser takes either
        # the parser keeps a header until its end, so an endless one only shows by what came
        if self._in_headers and not self._over:
            self._header_bytes += self._chunk
            self._check_headers()

    def on_message_begin(self) -> None:
        """Begin with a request."""
        super().on_message_begin()
        self._in_headers = True
        self._header_bytes = 0
        if self._waiting_since is None:
            self._waiting_since = self.loop.time()

    def on_headers_complete(self) -> None:
        """Check a request's headers, and begin to answer."""
        self._in_headers = False
        if self._header_bytes + self._chunk > self._limits.header_bytes:
            self._header_bytes = len(self.url) + sum(len(name) + len(value) for name, value in self.headers)
        if len(self.pipeline) >= _PIPELINED:
            self._leave()
        self._check_headers()
        if not self._over:
            incoming = self._incoming = self.scope["state"]["incoming"] = self._room.open()
            try:
                super().on_headers_complete()
            except BaseException:  # no path that could be answered: there will be no application to close it
                self._room.close(incoming)
                raise

    def on_body(self, body: bytes) -> None:
        """Take a piece of a request's body.

        Uvicorn would copy it twice more, stop reading after 64 KiB and wake the application for each of them, which
        has nothing to do before the end.
        """
        if not self._over and self._incoming is not None and not self.cycle.response_complete:
            self._room.take(self._incoming, body)

    def on_message_complete(self) -> None:
        """Take a request's end."""
        self._waiting_since = None
        if not self._over:
            super().on_message_complete()

    def pause_writing(self) -> None:
        """Wait for the client to take its answer."""
        super().pause_writing()
        if self._answer_deadline is None:
            self._answer_deadline = self.loop.call_later(self._limits.request_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Go on writing."""
        self._stop(self._answer_deadline)
        self._answer_deadline = None
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that idles, whatever of its answer the client didn't take."""
        self._leave()

    def _look_after(self, seconds: float) -> None:
        self._timer = self.loop.call_later(seconds, self._look)

    def _look(self) -> None:
        if self._over:
            return
        cycle, now, most = self.cycle, self.loop.time(), self._limits.request_seconds
        if self.pipeline or (cycle is not None and not cycle.more_body and not cycle.response_complete):
            # what comes in waits for an answer of ours
            self._waiting_since = None if self._waiting_since is None else now
        waited = 0.0 if self._waiting_since is None else now - self._waiting_since
        if waited < most:
            self._look_after(most - waited)
        elif self._in_headers or (cycle is not None and not cycle.response_started):
            self._refuse(408, "RequestTimeoutException", f"No request within {most:g} s.")
        else:
            self._leave()

    def _check_headers(self) -> None:
        if self._header_bytes <= self._limits.header_bytes or self._over:
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self._leave()  # an answer here would be taken for that of the request before
        else:
            self._refuse(
                431, "RequestHeaderSectionTooLarge", f"More than {self._limits.header_bytes} bytes of headers."
            )

    def _refuse(self, status: int, code: str, message: str) -> None:
        body = f'{{"__type":"{code}","message":"{message}"}}'
        head = f"HTTP/1.1 {status} \r\ncontent-type: application/x-amz-json-1.1\r\nx-amzn-errortype: {code}\r\n"
        self.transport.write(f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n{body}".encode())
        self._leave()

    def _leave(self) -> None:
        self._over = True
        self._stop(self._timer)
        self.transport.close()
        # a close waits for the client to read
        self.loop.call_later(_LINGER_SECONDS, self.transport.abort)

    @staticmethod
    def _stop(timer: asyncio.TimerHandle | None) -> None:
        if timer is not None:
            timer.cancel()


class Intake(asyncio.BufferedProtocol):
    """What a connection's bytes come in by: into one piece of memory for all of them, as each takes them at once.

    A protocol that isn't buffered is given a copy of what came, and what it makes of that is a copy again.

    Args:
        arguments: of `Connection`.
    """

    # a view, as TLS fills it piece by piece by slices of it, which of a bytearray are copies
    _buffer = memoryview(bytearray(_RECEIVED_AT_ONCE))

    def __init__(self, **arguments: Any) -> None:
        self._connection = Connection(**arguments)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._connection.connection_made(cast("asyncio.Transport", transport))

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._connection.connection_lost(exc)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - asyncio's
        """Tell where what comes next is to go."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Take what came; the memory is free when this returns."""
        self._connection.data_received(self._buffer[:nbytes])

    def eof_received(self) -> bool | None:
        """The client sends no more."""
        self._connection.eof_received()
        return None

    def pause_writing(self) -> None:
        """Wait for the client to take its answer."""
        self._connection.pause_writing()

    def resume_writing(self) -> None:
        """Go on writing."""
        self._connection.resume_writing()


def protocol(limits: RequestLimits, room: Room) -> Any:
    """Make what uvicorn makes connections by."""
    return partial(Intake, limits=limits, room=room)


def raise_open_files(limits: RequestLimits) -> None:
    """Let the process have as many files open as the connections need, as far as the system allows."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = limits.connections + _OTHER_FILES
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    allowed = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    if allowed < wanted:
        _log.warning("--max-connections %d: the system allows %d open files only", limits.connections, allowed)
