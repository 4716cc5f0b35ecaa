"""Owns the way from the server to S3 in the campaign: a relay of bytes that can be cut, and that notes what passes.

S3 itself is left alive. A watcher is told of the first bytes of a request or of an answer that pass, once; what it does
is done before they go on, and it says whether they go on at all.
"""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Way"]

_PIECE = 16 << 10


class Way:
    """A relay on a port of its own, in a thread of its own."""

    def __init__(self, upstream: str) -> None:
        parts = urlsplit(upstream)
        self._upstream = (parts.hostname, parts.port)
        self._open = True
        self._watch: tuple[str, Callable[[int], bool]] | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._server: Any = self._loop.run_until_complete(asyncio.start_server(self._serve, "127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def cut(self) -> None:
        """Break all connections off, and every new one."""
        self._open = False
        self._loop.call_soon_threadsafe(self._abort)

    def heal(self) -> None:
        """Let everything through again."""
        self._open = True
        self._watch = None

    def watch(self, what: str, then: Callable[[int], bool]) -> None:
        """Call once when bytes of a `request` or of an `answer` come; they go on if it returns true.

        It is given the port that the connection comes from.
        """
        self._watch = (what, then)

    def stop(self) -> None:
        """End it."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def _abort(self) -> None:
        for writer in self._writers:
            writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._open:
            writer.transport.abort()
            return
        try:
            there, back = await asyncio.open_connection(*self._upstream)
        except OSError:
            writer.transport.abort()
            return
        port = writer.get_extra_info("peername")[1]
        both = {writer, back}
        self._writers |= both
        try:
            await asyncio.gather(self._pass(reader, back, "request", port), self._pass(there, writer, "answer", port))
        finally:
            self._writers -= both
            for one in both:
                one.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, what: str, port: int) -> None:
        with suppress(OSError):
            while piece := await reader.read(_PIECE):
                watched = self._watch
                if watched is not None and watched[0] == what:
                    self._watch = None
                    if not watched[1](port):
                        break
                writer.write(piece)
                await writer.drain()
        if what == "request":
            writer.transport.abort()
        else:
            with suppress(OSError):
                writer.close()
