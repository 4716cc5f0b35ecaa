"""Owns the load of the Firehose benchmark: requests made beforehand, sent from many connections, each answer checked.

A process of its own, `python -m tests.bench.put_load '{…}'` with the members of `Load`. It prints `ready` when its
requests are made, waits for a line, and prints what it saw as JSON.
"""

from __future__ import annotations

import asyncio
import base64
import json
import random
import string
import sys
import time
from dataclasses import dataclass, field
from typing import Any

import orjson
import uvloop

__all__ = ["Load", "events", "request_bodies"]

_DISTINCT = 24
"""Different requests; they are sent in turn. Enough that nothing is in a processor's cache."""
_RESEND_SECONDS = 0.05
_ANSWER_SECONDS = 60.0


@dataclass(frozen=True)
class Load:
    """What is sent."""

    port: int
    stream: str
    event_bytes: int
    partitions: int
    records: int
    """Of a request."""
    requests: int = 0
    """In all; 0 goes on for `seconds`."""
    connections: int = 8
    every: float = 0.0
    """Seconds between a connection's requests, counted from when each was due; 0 sends the next at once."""
    seconds: float = 0.0


@dataclass
class Seen:
    """What came back."""

    acknowledged: int = 0
    """Records."""
    refused: int = 0
    """Requests answered by 503."""
    seconds: float = 0.0
    latencies: list[float] = field(default_factory=list)


def events(load: Load) -> list[bytes]:
    """The records: JSON of about the size asked for, as phones send it. gzip makes about a quarter of them."""
    draw = random.Random(7)  # noqa: S311 - the same requests every time
    words = ["".join(draw.choices(string.ascii_lowercase, k=draw.randint(2, 11))) for _ in range(2_000)]
    common = [1 / rank for rank in range(1, len(words) + 1)]
    made = []
    for number in range(_DISTINCT * load.records):
        event: dict[str, Any] = {
            "event_id": f"01980000-{number:04x}-7{draw.randrange(4096):03x}-8000-{draw.randrange(1 << 48):012x}",
            "tenant": f"tenant-{number * 7919 % load.partitions:03d}",
            "event_time": f"2026-03-01T10:{number // 60 % 60:02d}:{number % 60:02d}.{number % 1000:03d}Z",
            "producer_id": f"phone-{number % 97}",
            "sequence": number,
            "page": f"/products/{number % 1013}/reviews",
            "seconds": number % 613,
        }
        left = load.event_bytes - len(orjson.dumps(event)) - len(',"text":""')
        event["text"] = " ".join(draw.choices(words, common, k=left // 4 + 1))[: max(0, left)]
        made.append(orjson.dumps(event))
    return made


def request_bodies(load: Load) -> list[bytes]:
    """The bodies of the PutRecordBatch calls."""
    records = [{"Data": base64.b64encode(one).decode()} for one in events(load)]
    return [
        orjson.dumps({"DeliveryStreamName": load.stream, "Records": records[at : at + load.records]})
        for at in range(0, len(records), load.records)
    ]


def _wire(body: bytes) -> bytes:
    head = (
        "POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Amz-Target: Firehose_20150804.PutRecordBatch\r\n"
        "Content-Type: application/x-amz-json-1.1\r\nX-Amz-Date: 20260301T000000Z\r\n"
        "Authorization: AWS4-HMAC-SHA256 Credential=test/20260301/us-east-1/firehose/aws4_request,"
        " SignedHeaders=host, Signature=0\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


class _Connection(asyncio.Protocol):
    """One request at a time; reads as much of an answer as is needed to know that it is whole and good."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None
        self._transport: Any = None
        self.open = True

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    async def send(self, wire: bytes) -> tuple[int, bytes]:
        self._data.clear()
        self._answer = asyncio.get_running_loop().create_future()
        self._transport.write(wire)
        return await self._answer

    def data_received(self, data: bytes) -> None:
        self._data += data
        end = self._data.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._data[:end]).lower()
        self.open = self.open and b"connection: close" not in head
        at = head.index(b"content-length:") + 15
        length = int(head[at:].split(b"\r\n", 1)[0])
        if len(self._data) >= end + 4 + length and self._answer is not None and not self._answer.done():
            self._answer.set_result((int(head[9:12]), bytes(self._data[end + 4 :])))

    def connection_lost(self, exc: Exception | None) -> None:
        self.open = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(exc or ConnectionResetError("closed before the answer"))


async def _connect(port: int) -> _Connection:
    _, connection = await asyncio.get_running_loop().create_connection(_Connection, "127.0.0.1", port)
    return connection


async def _work(load: Load, wires: list[bytes], turn: list[int], seen: Seen, *, until: float, offset: float) -> None:
    connection = await _connect(load.port)
    due = time.monotonic() + offset
    while True:
        number = turn[0]
        if (load.requests and number >= load.requests) or (until and time.monotonic() > until):
            return
        turn[0] += 1
        if load.every:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        started = due if load.every else time.monotonic()
        if not connection.open:  # a server that closes after each answer
            connection = await _connect(load.port)
        async with asyncio.timeout(_ANSWER_SECONDS):
            status, body = await connection.send(wires[number % len(wires)])
        seen.latencies.append(time.monotonic() - started)
        due += load.every
        if status == 200 and (b'"FailedPutCount":0' in body or b'"FailedPutCount": 0' in body):
            seen.acknowledged += load.records
        elif status == 503:
            seen.refused += 1
            await asyncio.sleep(_RESEND_SECONDS)
        else:
            raise RuntimeError(f"{status}: {body[:500]!r}")


async def _run(load: Load, wires: list[bytes]) -> Seen:
    seen, turn = Seen(), [0]
    started = time.monotonic()
    until = started + load.seconds if load.seconds else 0.0
    offsets = [load.every * one / load.connections for one in range(load.connections)]
    async with asyncio.TaskGroup() as group:
        for offset in offsets:
            group.create_task(_work(load, wires, turn, seen, until=until, offset=offset))
    seen.seconds = time.monotonic() - started
    return seen


def main() -> None:
    """Make the requests, wait for a line, send them, tell what came back."""
    load = Load(**json.loads(sys.argv[1]))
    wires = [_wire(body) for body in request_bodies(load)]
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        seen = runner.run(_run(load, wires))
    seen.latencies.sort()
    many = len(seen.latencies)
    told = {"acknowledged": seen.acknowledged, "refused": seen.refused, "seconds": seen.seconds, "requests": many}
    told |= {f"p{share}": seen.latencies[many * share // 100] for share in (50, 99)} if many else {}
    sys.stdout.write(f"{json.dumps(told)}\n")


if __name__ == "__main__":
    main()
