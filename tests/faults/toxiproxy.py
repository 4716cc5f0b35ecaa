"""Owns toxiproxy: built once from its Go module at a pinned version, run, and told what to do to connections.

Its API: https://github.com/Shopify/toxiproxy#http-api
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.faults.processes import Child

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Toxiproxy", "build"]

VERSION = "v2.12.0"
_MODULE = "github.com/Shopify/toxiproxy/v2/cmd/server"
_CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lakehose"


def build(say: Callable[[str], None]) -> Path | None:
    """The program, built if it isn't there yet; None where there is neither it nor Go."""
    place = _CACHE / f"toxiproxy-{VERSION}" / "server"
    if place.is_file():
        return place
    go = shutil.which("go") or ("/usr/local/go/bin/go" if Path("/usr/local/go/bin/go").is_file() else None)
    if go is None:
        say(f"toxiproxy {VERSION} is built with Go, and there is none on PATH: faults of TCP are left out")
        return None
    say(f"building toxiproxy {VERSION} (once)")
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = place.parent / f"build-{os.getpid()}"
    done = subprocess.run(
        [go, "install", f"{_MODULE}@{VERSION}"],
        env={**os.environ, "GOBIN": str(fresh), "GOFLAGS": "-buildvcs=false"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    if done.returncode:
        say(f"toxiproxy {VERSION} can't be built; faults of TCP are left out: {done.stderr.strip()[-400:]}")
        return None
    (fresh / "server").replace(place)
    shutil.rmtree(fresh)
    return place


class Toxiproxy:
    """A running toxiproxy with one proxy, `aws`, before an endpoint."""

    def __init__(self, program: Path, upstream: str, log: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.control = f"http://127.0.0.1:{port}"
        self._child = Child([str(program), "-host", "127.0.0.1", "-port", str(port)], log, {"LOG_LEVEL": "error"})
        for _ in range(100):
            try:
                self.call("GET", "/version")
                break
            except urllib.error.URLError:
                time.sleep(0.1)
        made = {"name": "aws", "listen": "127.0.0.1:0", "upstream": upstream.removeprefix("http://"), "enabled": True}
        self.url = f"http://{self.call('POST', '/proxies', made)['listen']}"

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """One call of its API."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.control + path, data, {"User-Agent": "faults"}, method=method)
        with urllib.request.urlopen(request, timeout=10) as answer:
            text = answer.read()
        return json.loads(text) if text[:1] in {b"{", b"["} else text

    def heal(self) -> None:
        """Take all faults away."""
        self.call("POST", "/reset")

    def end(self) -> None:
        """Stop it."""
        self._child.end()
