"""Owns the one port of the local endpoint: an ASGI app that hands each request to the service it is for.

Firehose (with the Service Quotas it answers for itself) is a process of its own, reached over loopback; Athena runs in
this process and starts its Trino at the first query; everything else is MiniStack, mounted as it is. Which service a
request wants stands in its `X-Amz-Target`, as the JSON protocol of these services has it.
"""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping

    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
    App = Callable[[Scope, Receive, Send], Awaitable[None]]

__all__ = ["Gateway", "main", "ministack_environment"]

_TO_FIREHOSE = (b"Firehose_20150804.", b"ServiceQuotasV20190624.")
_TO_ATHENA = b"AmazonAthena."
_ADMIN = "/_lakehose/firehose/"
_HOP_BY_HOP = {b"connection", b"keep-alive", b"transfer-encoding", b"te", b"trailer", b"upgrade", b"host"}
_AWAY = (
    "the Firehose server is away; nothing of this call was taken. Start it again with `lakehose local up`; "
    "clients that retry go on by themselves"
)


@dataclass(frozen=True)
class Gateway:
    """Routes requests; all state lives in the services."""

    ministack: App
    athena: App
    firehose: httpx.AsyncClient

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or one lifespan, by ASGI."""
        if scope["type"] != "http":
            await self.ministack(scope, receive, send)
            return
        target = next((value for name, value in scope["headers"] if name == b"x-amz-target"), b"")
        if target.startswith(_TO_FIREHOSE):
            await self._to_firehose("/", scope, receive, send)
        elif scope["path"].startswith(_ADMIN):
            await self._to_firehose(f"/_lakehose/{scope['path'].removeprefix(_ADMIN)}", scope, receive, send)
        elif target.startswith(_TO_ATHENA):
            await self.athena(scope, receive, send)
        else:
            await self.ministack(scope, receive, send)

    async def _to_firehose(self, path: str, scope: Scope, receive: Receive, send: Send) -> None:
        body = bytearray()
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = [(name, value) for name, value in scope["headers"] if name not in _HOP_BY_HOP]
        query = scope.get("query_string", b"")
        url = httpx.URL(path, query=query) if query else httpx.URL(path)
        try:
            answer = await self.firehose.request(scope["method"], url, headers=headers, content=bytes(body))
        except httpx.TransportError:
            # AWS's own code for "try again": producers keep what they have and back off
            content = json.dumps({"__type": "ServiceUnavailableException", "message": _AWAY}).encode()
            await _answer(send, 503, [(b"content-type", b"application/x-amz-json-1.1")], content)
            return
        kept = [(name.lower(), value) for name, value in answer.headers.raw if name.lower() not in _HOP_BY_HOP]
        await _answer(send, answer.status_code, kept, answer.content)


async def _answer(send: Send, status: int, headers: list[tuple[bytes, bytes]], content: bytes) -> None:
    lengthless = [(name, value) for name, value in headers if name not in (b"content-length", b"content-encoding")]
    lengthless.append((b"content-length", str(len(content)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": lengthless})
    await send({"type": "http.response.body", "body": content})


def ministack_environment(state: Path, port: int, region: str) -> dict[str, str]:
    """Settings under which MiniStack keeps all it has below `state`; it reads them when it is imported."""
    return {
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "MINISTACK_REGION": region,
        "PERSIST_STATE": "1",
        "STATE_DIR": str(state / "services"),
        "S3_PERSIST": "1",
        "S3_DATA_DIR": str(state / "s3"),
        "LOG_LEVEL": os.environ.get("LOG_LEVEL", "WARNING"),
    }


def main() -> None:
    """Serve until told to stop; `lakehose local up` starts this."""
    parser = argparse.ArgumentParser(prog="python -m local.gateway", description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--firehose-port", type=int, required=True)
    parser.add_argument("--state", type=Path, required=True)
    parser.add_argument("--region", required=True)
    given = parser.parse_args()
    os.environ.update(ministack_environment(given.state, given.port, given.region))

    import uvicorn  # noqa: PLC0415 - after the environment, like MiniStack below
    from ministack.app import app as ministack  # noqa: PLC0415

    from athena.app import AthenaSettings, create_app  # noqa: PLC0415

    athena = create_app(
        AthenaSettings(
            endpoint=f"http://127.0.0.1:{given.port}",
            region=given.region,
            state_dir=given.state / "athena",
        )
    )
    # a flush answers when every object is in S3, which may take minutes
    client = httpx.AsyncClient(
        base_url=f"http://127.0.0.1:{given.firehose_port}",
        timeout=httpx.Timeout(900, connect=5),
        limits=httpx.Limits(max_connections=64),
    )
    uvicorn.run(
        Gateway(ministack, athena, client),
        host=given.host,
        port=given.port,
        log_level="warning",
        access_log=False,
        server_header=False,
        # idle connections of connection pools would hold the stop up
        timeout_graceful_shutdown=10,
        timeout_keep_alive=75,
    )


if __name__ == "__main__":
    main()
