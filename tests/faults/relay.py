"""Owns the relay: an HTTP proxy that understands AWS's calls and fails the ones it is told to.

A process of its own, `python -m tests.faults.relay --upstream URL`; the port is its first line. Rules come and go by
`/_faults`. A rule names a service, calls of it and keys, and what becomes of a request that fits:

- `refuse`: it is answered with an error of AWS's and never carried out;
- `cut`: the connection is reset and it is never carried out;
- `lose`: it is carried out, and the connection is reset before the reply: whoever asked can't know;
- `stall`: it is carried out late;
- `kill`, `kill after`: the process that asked is killed before it is carried out, or after it and before the reply.

TCP alone can't tell these apart: which request is on the wire is told by HTTP.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import signal
import socket
import struct
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Call", "Relay", "Rule", "call_of", "main", "told"]

CONTROL = "/_faults"
_HEAD_BYTES = 2**20
_TARGETS = {"AWSGlue": "glue", "DynamoDB_20120810": "dynamodb", "AmazonSQS": "sqs"}
_STATUS = {"SlowDown": 503, "ServiceUnavailable": 503, "InternalError": 500, "InternalServiceException": 500}


@dataclass(frozen=True)
class Call:
    """What a request asks of AWS."""

    service: str
    name: str
    """As AWS calls it: `PutObject`, `UpdateTable`."""
    key: str
    """`bucket/key` of S3; the service's own otherwise."""


def call_of(method: str, target: str, headers: dict[str, str]) -> Call:
    """Tell a request's call by what is on its first line and in its headers."""
    prefix, dot, name = headers.get("x-amz-target", "").partition(".")
    if dot and prefix in _TARGETS:
        return Call(_TARGETS[prefix], name, target)
    if prefix:
        return Call(prefix, name, target)
    parts = urlsplit(target)
    place = unquote(parts.path).lstrip("/")
    query = parse_qs(parts.query, keep_blank_values=True)
    return Call("s3", _s3_name(method, place.partition("/")[2], query), place)


def _s3_name(method: str, key: str, query: dict[str, list[str]]) -> str:
    if method == "POST":
        known = {"delete": "DeleteObjects", "uploads": "CreateMultipartUpload", "uploadId": "CompleteMultipartUpload"}
        return next((name for word, name in known.items() if word in query), "Post")
    if not key:
        return "ListObjectVersions" if "versions" in query else "ListObjects" if method == "GET" else f"{method} bucket"
    if "tagging" in query:
        return f"{method.title()}ObjectTagging"
    if method == "PUT" and "partNumber" in query:
        return "UploadPart"
    return f"{method.title()}Object"


@dataclass
class Rule:
    """What becomes of the requests that fit."""

    action: str
    service: str = ""
    """Empty is any."""
    call: str = ""
    """Expression that the call's whole name fits; empty is any."""
    key: str = ""
    """Expression that is found in the key; empty is any."""
    times: int = 1
    """Requests that it is done to; the rest passes."""
    skip: int = 0
    """Fitting requests that pass before."""
    code: str = ""
    """Of the error, for `refuse`."""
    seconds: float = 0.0
    """For `stall`."""
    group: int = 0
    """Process group that is killed."""
    done: int = 0
    """How often it was done."""

    def takes(self, call: Call) -> bool:
        """Whether it is this request's turn."""
        if self.times <= 0 or (self.service and call.service != self.service):
            return False
        if (self.call and not re.fullmatch(self.call, call.name)) or (self.key and not re.search(self.key, call.key)):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.times -= 1
        self.done += 1
        return True


def refusal(call: Call, code: str, method: str) -> bytes:
    """An error as AWS would say it."""
    status = _STATUS.get(code, 400)
    if call.service == "s3":
        body = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>made by the relay</Message></Error>'.encode()
        kind = "application/xml"
    else:
        body = json.dumps({"__type": code, "message": "made by the relay"}).encode()
        kind = "application/x-amz-json-1.1"
    head = f"HTTP/1.1 {status} Refused\r\ncontent-type: {kind}\r\ncontent-length: {len(body)}\r\n"
    head += f"x-amzn-errortype: {code}\r\nx-amzn-requestid: relay\r\n\r\n"
    return head.encode() + (b"" if method == "HEAD" else body)


@dataclass(frozen=True)
class _Message:
    """A request or a reply as it was on the wire, its body without chunks."""

    first: str
    headers: list[tuple[str, str]]
    body: bytes

    def encode(self, *, drop: frozenset[str] = frozenset()) -> bytes:
        lengths = {"content-length", "transfer-encoding", *drop}
        lines = [self.first, *(f"{name}: {value}" for name, value in self.headers if name.lower() not in lengths)]
        return "\r\n".join([*lines, f"content-length: {len(self.body)}", "", ""]).encode("latin-1") + self.body


async def _head(reader: asyncio.StreamReader) -> tuple[str, list[tuple[str, str]]] | None:
    try:
        raw = await reader.readuntil(b"\r\n\r\n")
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    first, *lines = raw[:-4].decode("latin-1").split("\r\n")
    return first, [(name, value.strip()) for name, _, value in (line.partition(":") for line in lines)]


async def _body(reader: asyncio.StreamReader, headers: dict[str, str]) -> bytes:
    if headers.get("transfer-encoding", "").lower() == "chunked":
        parts: list[bytes] = []
        while size := int((await reader.readline()).split(b";")[0], 16):
            parts.append(await reader.readexactly(size))
            await reader.readexactly(2)
        while (await reader.readline()) not in {b"\r\n", b""}:
            pass
        return b"".join(parts)
    return await reader.readexactly(int(headers.get("content-length", "0")))


class Relay:
    """All connections of one relay, and the rules they go by."""

    def __init__(self, upstream: str) -> None:
        place = urlsplit(upstream)
        self._upstream = (place.hostname or "127.0.0.1", place.port or 80)
        self._idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        self.rules: list[Rule] = []
        self.requests = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one connection until it ends."""
        with suppress(ConnectionError, asyncio.IncompleteReadError, TimeoutError):
            while (head := await _head(reader)) is not None:
                first, pairs = head
                headers = {name.lower(): value for name, value in pairs}
                if headers.get("expect", "").lower() == "100-continue":
                    writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
                body = await _body(reader, headers)
                reply = await self._answer(_Message(first, pairs, body), headers)
                if reply is None:
                    _reset(writer)
                    return
                writer.write(reply)
                await writer.drain()
        writer.close()

    async def _answer(self, request: _Message, headers: dict[str, str]) -> bytes | None:
        method, target, _ = request.first.split(" ", 2)
        if target.startswith(CONTROL):
            return self._control(method, request.body)
        self.requests += 1
        call = call_of(method, target, headers)
        rule = next((one for one in self.rules if one.takes(call)), None)
        match rule.action if rule else "":
            case "refuse":
                return refusal(call, rule.code, method)  # type: ignore[union-attr]
            case "cut":
                return None
            case "stall":
                await asyncio.sleep(rule.seconds)  # type: ignore[union-attr]
            case "kill":
                _kill(rule)
                return None
        reply = await self._forward(request, method)
        if rule and rule.action == "kill after":
            _kill(rule)
            return None
        return None if rule and rule.action == "lose" else reply

    def _control(self, method: str, body: bytes) -> bytes:
        if method == "PUT":
            self.rules = [Rule(**one) for one in json.loads(body)]
        return told({"rules": [asdict(one) for one in self.rules], "requests": self.requests})

    async def _forward(self, request: _Message, method: str) -> bytes | None:
        raw = request.encode(drop=frozenset({"expect", "connection"}))
        while True:
            fresh = not self._idle
            reader, writer = self._idle.pop() if self._idle else await self._connect()
            try:
                writer.write(raw)
                await writer.drain()
                head = await _head(reader)
            except ConnectionError:
                head = None
            if head is None:
                writer.close()
                if fresh:
                    return None
                continue  # it had been closed while it was idle
            first, pairs = head
            headers = {name.lower(): value for name, value in pairs}
            bare = method == "HEAD" or first.split(" ")[1] in {"204", "304"}
            body = b"" if bare else await _body(reader, headers)
            if headers.get("connection", "").lower() == "close":
                writer.close()
            else:
                self._idle.append((reader, writer))
            if bare:
                lines = [first, *(f"{name}: {value}" for name, value in pairs), "", ""]
                return "\r\n".join(lines).encode("latin-1")
            return _Message(first, pairs, body).encode(drop=frozenset({"connection"}))

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self._upstream, limit=_HEAD_BYTES)


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection by RST, as a peer that is gone does."""
    raw: Any = writer.get_extra_info("socket")
    with suppress(OSError):
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def _kill(rule: Rule | None) -> None:
    if rule is not None and rule.group > 1:
        with suppress(ProcessLookupError):
            os.killpg(rule.group, signal.SIGKILL)


def told(about: Any) -> bytes:
    """An answer of the relay's own, as JSON."""
    body = json.dumps(about).encode()
    return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body


def main(kind: Callable[[str], Relay], program: str, about: str | None) -> None:
    """Serve a relay to the URL of the command line until somebody ends it; its port is the first line."""
    parser = argparse.ArgumentParser(prog=f"python -m {program}", description=about)
    parser.add_argument("--upstream", required=True, help="URL that answers for AWS")
    with suppress(KeyboardInterrupt):
        asyncio.run(_serve(kind(parser.parse_args().upstream)))


async def _serve(relay: Relay) -> None:
    server = await asyncio.start_server(relay.serve, "127.0.0.1", 0, limit=_HEAD_BYTES)
    print(server.sockets[0].getsockname()[1], flush=True)  # noqa: T201 - whoever started it reads the port
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    main(Relay, "tests.faults.relay", __doc__)
