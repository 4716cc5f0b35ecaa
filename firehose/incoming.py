"""Owns the bodies of requests on their way in: how much of them is in memory at once, whoever sends them.

What counts is what came, not what a client announces: announcing costs it nothing. It is counted as it comes off the
wire, and kept here and nowhere else, so that a body is put together once. Where the room is used up, requests that are
still sending after some seconds give theirs up, so that slow or stopped senders don't keep out those that send at once;
then the newest is refused. What is refused is received to its end and not kept: clients only look at the answer then.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lake.aws_json import ServiceError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

__all__ = ["MOST_BYTES", "Incoming", "Room"]

MOST_BYTES = 16 << 20
"""A body above this can't be a valid call: 4 MiB of records are 5.4 MiB in base64."""
_SMALL, _TOGETHER = 1 << 10, 64 << 10
_PATIENCE = 2.0
"""Seconds for which a body that is still coming is left in peace."""


@dataclass(eq=False, slots=True)
class Incoming:
    """One request's body."""

    started: float
    parts: list[bytes | bytearray] = field(default_factory=list)
    """What is kept of it."""
    came: int = 0
    """Bytes, kept or not."""
    size: int = 0
    """Bytes that it uses of the room."""
    refusal: ServiceError | None = None
    """Why nothing of it is kept."""
    ended: bool = False
    """Whether the client has sent all of it, or is gone."""

    def keep(self, piece: bytes) -> None:
        """Put a piece behind the others; small ones together, as each by itself would take more than its bytes."""
        if len(piece) >= _SMALL:
            self.parts.append(piece)
            return
        last = self.parts[-1] if self.parts else b""
        if not isinstance(last, bytearray) or len(last) >= _TOGETHER:
            last = bytearray()
            self.parts.append(last)
        last += piece


class Room:
    """The memory for bodies.

    Args:
        most: bytes for all that are coming or being answered.
        clock: seconds, never going back.
    """

    def __init__(self, most: int, clock: Callable[[], float]) -> None:
        self._most = most
        self._clock = clock
        self._used = 0
        # in the order they began
        self._coming: dict[Incoming, None] = {}

    @property
    def used(self) -> int:
        """Bytes that are held now."""
        return self._used

    def open(self) -> Incoming:
        """Begin with a body; `close` has to follow."""
        body = Incoming(self._clock())
        self._coming[body] = None
        return body

    def take(self, body: Incoming, piece: bytes) -> bool:
        """Keep a piece that came; returns whether it is kept."""
        count = len(piece)
        body.came += count
        if body.refusal is None and body.came > MOST_BYTES:
            self._refuse(body, ServiceError("InvalidArgumentException", "Records size exceeds 4 MB limit"))
        if body.refusal is None and self._used + count > self._most:
            self._evict(body, self._used + count - self._most)
            if self._used + count > self._most:
                self._refuse(body, _slow_down())
        if body.refusal is not None:
            return False
        body.keep(piece)
        body.size += count
        self._used += count
        return True

    async def read(self, body: Incoming, receive: Receive) -> bytes:
        """Receive a body to its end; its room is used until `close`.

        Args:
            body: whose pieces are taken as they come.
            receive: tells of its end, and that the client went away; what its messages hold isn't looked at.

        Raises:
            ServiceError: it is too big, there is no room, or the client went away.
        """
        while not body.ended:
            message = await receive()
            if message["type"] == "http.disconnect":
                body.ended = True
                raise ServiceError("RequestTimeoutException", "The client went away", 408)
            body.ended = not message.get("more_body", False)
        if body.refusal is not None:
            raise body.refusal
        del self._coming[body]
        whole = b"".join(body.parts)
        body.parts.clear()
        return whole

    async def drain(self, body: Incoming, receive: Receive) -> None:
        """Receive the rest of a body that isn't wanted."""
        self.close(body)
        while not body.ended:
            message = await receive()
            body.ended = message["type"] == "http.disconnect" or not message.get("more_body", False)

    def close(self, body: Incoming) -> None:
        """Give back a body's room: it is answered. What still comes of it isn't kept."""
        self._coming.pop(body, None)
        self._refuse(body, _slow_down())

    def _evict(self, newest: Incoming, wanted: int) -> None:
        latest = self._clock() - _PATIENCE
        for body in self._coming:
            if wanted <= 0 or body.started > latest:
                return
            if body is not newest and body.size:
                wanted -= body.size
                self._refuse(body, _slow_down())

    def _refuse(self, body: Incoming, why: ServiceError) -> None:
        body.refusal = why
        self._used -= body.size
        body.size = 0
        body.parts.clear()


def _slow_down() -> ServiceError:
    return ServiceError("ServiceUnavailableException", "Slow down: too many requests are coming in at once.", 503)
