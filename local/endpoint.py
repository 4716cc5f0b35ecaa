"""Owns the processes of the local endpoint: starting what is missing, stopping them, telling how they are.

All state lies in one folder: `endpoint.json` names the processes (with the moment each started, as numbers of processes
are used again), `log/` has what they print, the rest is the services' own. The folder outlives the processes.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import psutil
from botocore.exceptions import BotoCoreError, ClientError

from athena.trino import TrinoServer
from lake.clients import Cloud
from lake.errors import EnvironmentProblemError
from lake.processes import living_process

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DEFAULT_PORT", "DEFAULT_STATE", "Endpoint", "Part"]

DEFAULT_PORT = 4566
DEFAULT_STATE = Path(".lakehose")
_START_SECONDS = 90
_STOP_SECONDS = 60
_CLOUDWATCH_SECONDS = 10
_MARK = "endpoint.json"


@dataclass(frozen=True)
class Part:
    """One process of the endpoint."""

    name: str
    pid: int
    port: int
    created: float
    """When the process started, seconds since 1970, as the system tells it."""

    def process(self) -> psutil.Process | None:
        """The living process, or None when it has ended (even if its number is in use again)."""
        return living_process(self.pid, self.created)


@dataclass(frozen=True)
class Endpoint:
    """The local endpoint of one state folder."""

    state: Path

    def up(self, port: int, region: str, say: Callable[[str], None], host: str = "127.0.0.1") -> str:
        """Start what isn't running and wait until every service answers.

        Args:
            port: where it listens.
            region: what it says it is in.
            say: takes a line about each step.
            host: address it listens on; anybody who reaches it may do anything with it.

        Returns:
            the endpoint's URL.

        Raises:
            EnvironmentProblemError: the port is taken, or a part doesn't come up.
        """
        self.state.mkdir(parents=True, exist_ok=True)
        (self.state / "log").mkdir(exist_ok=True)
        parts = self.parts()
        gateway, firehose = parts.get("gateway"), parts.get("firehose")
        if gateway and gateway.process():
            if gateway.port != port:
                raise EnvironmentProblemError(
                    f"the endpoint of {self.state} is up on port {gateway.port}; asked for {port}. "
                    f"`lakehose local down --state {self.state}` ends it"
                )
        else:
            gateway = None
            _check_free(port)
        firehose_running = firehose is not None and firehose.process() is not None
        # a gateway that is up keeps looking for its Firehose server at the port it knows
        firehose_port = firehose.port if firehose and gateway else _free_port()
        if gateway is None:
            if firehose_running and firehose:
                self._stop(firehose)  # it delivers to a gateway that is gone
                firehose_running = False
            say(f"starting MiniStack and Athena on {host}:{port}")
            command = _gateway_command(host, port, firehose_port, self.state, region)
            gateway = self._start("gateway", port, command)
        else:
            say(f"MiniStack and Athena are up on 127.0.0.1:{port}")
        self._remember(gateway)
        url = f"http://127.0.0.1:{port}"
        self._wait(gateway, lambda: _answers(f"{url}/_ministack/health"))
        if firehose_running and firehose:
            say(f"the Firehose server is up on 127.0.0.1:{firehose.port}")
        else:
            say(f"starting the Firehose server on 127.0.0.1:{firehose_port}")
            command = _firehose_command(firehose_port, self.state, url, region)
            firehose = self._start("firehose", firehose_port, command, Cloud(region, url).environment())
            self._remember(firehose)
        self._wait(firehose, lambda: _answers(f"{url}/_lakehose/firehose/health"))
        self._wait(gateway, lambda: _services_answer(Cloud(region, url)))
        return url

    def down(self, say: Callable[[str], None]) -> None:
        """End this folder's processes, and only these; each writes down what it holds first."""
        parts = self.parts()
        running = [one for one in parts.values() if one.process()]
        # Firehose first: it still may be delivering to the gateway
        for part in sorted(running, key=lambda one: one.name):
            say(f"stopping {part.name} (process {part.pid})")
            self._stop(part)
        trino = TrinoServer.running(self.state / "athena")
        if trino is not None:
            say(f"stopping Trino (process {trino.pid})")
            trino.stop()
        if not running:
            say(f"nothing of {self.state} is running")
        (self.state / _MARK).unlink(missing_ok=True)

    def reset(self, say: Callable[[str], None]) -> None:
        """End the processes and remove the folder with all it holds."""
        if self.state.exists() and not self._is_ours():
            raise EnvironmentProblemError(
                f"{self.state} holds something that is not a local endpoint's; it is left as it is"
            )
        self.down(say)
        if self.state.exists():
            shutil.rmtree(self.state)
            say(f"removed {self.state}")

    def _is_ours(self) -> bool:
        ours = {_MARK, "log", "services", "s3", "athena", "firehose", "demo.json", "sites"}
        return all(one.name in ours for one in self.state.iterdir())

    def parts(self) -> dict[str, Part]:
        """The processes that were started last, whether they live or not."""
        try:
            raw = json.loads((self.state / _MARK).read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except (json.JSONDecodeError, OSError) as error:
            raise EnvironmentProblemError(f"{self.state / _MARK}: can't be read: {error}") from None
        return {one["name"]: Part(**one) for one in raw["parts"]}

    def url(self) -> str | None:
        """Where the endpoint is, if its gateway lives."""
        gateway = self.parts().get("gateway")
        return f"http://127.0.0.1:{gateway.port}" if gateway and gateway.process() else None

    def status(self) -> list[tuple[str, str, int | None, int | None]]:
        """Name, state, port and process of each part."""
        found: list[tuple[str, str, int | None, int | None]] = []
        parts = self.parts()
        for name in ("gateway", "firehose"):
            part = parts.get(name)
            if part is None:
                found.append((name, "stopped", None, None))
            elif part.process() is None:
                found.append((name, "dead", part.port, None))
            else:
                path = "/_ministack/health" if name == "gateway" else "/_lakehose/health"
                well = _answers(f"http://127.0.0.1:{part.port}{path}")
                found.append((name, "up" if well else "not answering", part.port, part.pid))
        trino = TrinoServer.running(self.state / "athena")
        state = "up" if trino else "not started (starts at the first query)"
        found.append(("trino", state, trino.port if trino else None, trino.pid if trino else None))
        return found

    def _start(self, name: str, port: int, command: list[str], extra: dict[str, str] | None = None) -> Part:
        log = self.state / "log" / f"{name}.log"
        with log.open("ab") as out:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # it outlives the command, and its terminal's Ctrl-C
                env={**os.environ, **(extra or {})},
            )
        return Part(name, process.pid, port, psutil.Process(process.pid).create_time())

    def _remember(self, part: Part) -> None:
        parts = {**self.parts(), part.name: part}
        fresh = self.state / f"{_MARK}.new"
        fresh.write_text(json.dumps({"parts": [asdict(one) for one in parts.values()]}, indent=2), encoding="utf-8")
        fresh.replace(self.state / _MARK)

    def _wait(self, part: Part, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline:
            if ready():
                return
            if part.process() is None:
                break
            time.sleep(0.1)
        log = self.state / "log" / f"{part.name}.log"
        tail = "\n".join(log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:])
        how = "ended" if part.process() is None else f"gave no answer in {_START_SECONDS} s"
        raise EnvironmentProblemError(f"{part.name} {how}; the end of {log}:\n{tail}")

    def _stop(self, part: Part) -> None:
        process = part.process()
        if process is None:
            return
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(10)


def _gateway_command(host: str, port: int, firehose_port: int, state: Path, region: str) -> list[str]:
    return [
        *(sys.executable, "-m", "local.gateway", "--host", host),
        *("--port", str(port), "--firehose-port", str(firehose_port)),
        *("--state", str(state.resolve()), "--region", region),
    ]


def _firehose_command(port: int, state: Path, url: str, region: str) -> list[str]:
    return [
        *(sys.executable, "-m", "lakehose", "firehose", "serve", "--port", str(port)),
        *("--data-dir", str(state.resolve() / "firehose"), "--s3-endpoint", url, "--region", region),
        # a minute is long for somebody who tries out an alarm
        *("--cloudwatch-endpoint", url, "--cloudwatch-seconds", str(_CLOUDWATCH_SECONDS)),
    ]


def _check_free(port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            raise EnvironmentProblemError(
                f"port {port} is taken{_holder(port)}; end that process, or take another with --port"
            ) from None


def _holder(port: int) -> str:
    try:
        for one in psutil.net_connections("tcp"):
            if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port and one.pid:
                return f" by process {one.pid} ({psutil.Process(one.pid).name()})"
    except psutil.Error:
        return ""  # who holds it is another user's secret
    return ""


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).status_code < 400  # noqa: PLR2004 - any good answer
    except httpx.TransportError:
        return False


def _services_answer(cloud: Cloud) -> bool:
    calls: list[Callable[[], Any]] = [
        cloud.s3.list_buckets,
        cloud.glue.get_databases,
        cloud.dynamodb.list_tables,
        cloud.firehose.list_delivery_streams,
        cloud.athena.list_work_groups,
    ]
    try:
        for call in calls:
            call()
    except (BotoCoreError, ClientError):
        return False
    return True
