"""Owns counting what crosses the wire: a relay that notes each call to AWS, and the bytes of its request and answer.

Seconds tell what a machine did beside all else that it did; requests and bytes are the same in each run. The relay is a
process of its own, `python -m tests.bench.wire --upstream URL`; the port is its first line.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.faults.relay import Call, Relay, call_of, main, told

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Crossing", "Wire", "counted_wire"]

_CONTROL = "/_crossed"


@dataclass(frozen=True)
class Crossing:
    """What one kind of call came to."""

    kind: str
    """Service, call and, of S3, what kind of object: `s3 GetObject metadata.json`."""
    requests: int
    sent: int
    """Bytes of the requests, heads included."""
    received: int
    """Bytes of the answers, heads included."""
    seconds: float
    """From the request's end to the answer's, added up: what the server took."""


def kind_of(call: Call) -> str:
    """A call's kind: objects of S3 by what they are, not by their names."""
    if call.service != "s3":
        return f"{call.service} {call.name}"
    _, _, key = call.key.partition("/")
    ends = {".metadata.json": "metadata.json", ".parquet": "data", "-m0.avro": "manifest", "-m1.avro": "manifest"}
    what = next((name for end, name in ends.items() if key.endswith(end)), "")
    if not what and key.endswith(".avro"):
        what = "manifest list" if "/snap-" in key else "manifest"
    if not what:
        what = key.partition("/")[0] or "bucket"
    return f"s3 {call.name} {what}"


class _Counter(Relay):
    """A relay without rules, that counts."""

    def __init__(self, upstream: str) -> None:
        super().__init__(upstream)
        self._crossed: dict[str, Crossing] = {}

    async def _answer(self, request: Any, headers: dict[str, str]) -> bytes | None:
        method, target, _ = request.first.split(" ", 2)
        if target.startswith(_CONTROL):
            return self._told()
        started = time.perf_counter()
        reply = await super()._answer(request, headers)
        seconds = time.perf_counter() - started
        kind = kind_of(call_of(method, target, headers))
        before = self._crossed.get(kind, Crossing(kind, 0, 0, 0, 0.0))
        self._crossed[kind] = Crossing(
            kind,
            before.requests + 1,
            before.sent + len(request.encode()),
            before.received + len(reply or b""),
            before.seconds + seconds,
        )
        return reply

    def _told(self) -> bytes:
        answer = told([astuple(one) for _, one in sorted(self._crossed.items())])
        self._crossed.clear()
        return answer


@dataclass(frozen=True)
class Wire:
    """The way to AWS through the relay."""

    url: str

    def crossed(self) -> tuple[Crossing, ...]:
        """What has crossed since this was last asked."""
        with urllib.request.urlopen(f"{self.url}{_CONTROL}", timeout=10) as answer:
            return tuple(Crossing(*one) for one in json.load(answer))


@contextmanager
def counted_wire(upstream: str) -> Iterator[Wire]:
    """A relay to a URL, for as long as it is needed."""
    command = [sys.executable, "-m", "tests.bench.wire", "--upstream", upstream]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2])
    try:
        if process.stdout is None or not (port := process.stdout.readline().strip()):
            raise RuntimeError("the relay did not start")
        yield Wire(f"http://127.0.0.1:{int(port)}")
    finally:
        process.terminate()
        process.wait(30)


if __name__ == "__main__":
    main(_Counter, "tests.bench.wire", __doc__)
