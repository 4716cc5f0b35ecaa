"""Owns an S3 that only takes objects in: what a store costs by itself must not count as the Firehose server's.

A process of its own, `python -m tests.bench.s3_sink`; its port is the first line. `GET /_taken` tells how many objects
came and how many lines they hold once unpacked, and forgets them.
"""

from __future__ import annotations

import gzip
import json
import socket
import sys
from typing import Any

import uvicorn

_TAKEN = "/_taken"


class Sink:
    """The ASGI application: a PUT is kept until it is counted."""

    def __init__(self) -> None:
        self._bodies: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Take an object, or tell what came."""
        parts = []
        while True:
            message = await receive()
            parts.append(message.get("body", b""))
            if not message.get("more_body", False):
                break
        answer = b""
        if scope["method"] == "PUT":
            self._bodies.append(b"".join(parts))
        elif scope["path"] == _TAKEN:
            answer = json.dumps(self._counted()).encode()
        headers = [(b"content-length", str(len(answer)).encode()), (b"etag", b'"0"')]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})

    def _counted(self) -> dict[str, int]:
        bodies, self._bodies = self._bodies, []
        lines = sum((gzip.decompress(one) if one[:2] == b"\x1f\x8b" else one).count(b"\n") for one in bodies)
        return {"objects": len(bodies), "bytes": sum(map(len, bodies)), "lines": lines}


def main() -> None:
    """Serve until it is ended."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    config = uvicorn.Config(Sink(), lifespan="off", access_log=False, log_config=None, http="httptools", ws="none")
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
