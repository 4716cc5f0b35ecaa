"""Owns the Trino process under the local Athena: starting it, knowing it again from another process, stopping it.

All it leaves lies in the state folder: `trino.json` says which process it is, `trino/` has its configuration and logs.
Run as `python -m athena.trino --fetch`, it installs Trino and does nothing else.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import requests
from trino.exceptions import Error as TrinoError
from trino.exceptions import HttpError

from athena._config import TrinoSettings, java_command, write_configuration
from athena._install import ARCHIVE, installed
from athena.session import Session
from lake.errors import EnvironmentProblemError, LakehoseError
from lake.processes import living_process

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["TrinoServer", "TrinoSettings", "fetch"]

_MARK = "trino.json"
_FOLDER = "trino"
_START_SECONDS = 180
_STOP_SECONDS = 20
_WARM_UP_SECONDS = 180
_NOWHERE = TrinoSettings(endpoint="http://127.0.0.1:9", region="us-east-1", heap="1G")
_ACTIVE_NODES = "SELECT count(*) FROM system.runtime.nodes WHERE state = 'active'"
_WARM_UP = (
    "SELECT count(*), sum(x), avg(x * 1.5e0), max(cast(x AS varchar)) FROM UNNEST(sequence(1, 1000)) t(x)",
    "SELECT x % 7, count(*), approx_distinct(x) FROM UNNEST(sequence(1, 1000)) t(x) GROUP BY 1 ORDER BY 2 DESC LIMIT 3",
    "WITH s AS (SELECT x FROM UNNEST(sequence(1, 9)) t(x)) SELECT a.x, now() FROM s a JOIN s b ON a.x = b.x",
    "SHOW CATALOGS",
)


@dataclass(frozen=True)
class TrinoServer:
    """A Trino process of one state folder."""

    pid: int
    port: int
    created: float
    """When the process started, seconds since 1970, as the system tells it."""
    settings: TrinoSettings

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def is_running(self) -> bool:
        """Whether the process lives (and its number has not gone to another)."""
        return self._process() is not None

    @classmethod
    def running(cls, state_dir: Path) -> TrinoServer | None:
        """The living Trino of a state folder, whoever started it; it may still be starting."""
        try:
            raw = json.loads((state_dir / _MARK).read_text(encoding="utf-8"))
            found = cls(**{**raw, "settings": TrinoSettings(**raw["settings"])})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise EnvironmentProblemError(f"{state_dir / _MARK}: can't be read: {error}") from None
        return found if found.is_running else None

    @classmethod
    def start(
        cls, state_dir: Path, settings: TrinoSettings, *, say: Callable[[str], None], cache: Path | None = None
    ) -> TrinoServer:
        """Answer the folder's Trino when it takes queries; starts it, and fetches it before, where that's needed.

        One that runs with other settings, or doesn't answer, is replaced.

        Raises:
            EnvironmentProblemError: it can't be fetched, or doesn't come up.
        """
        state_dir.mkdir(parents=True, exist_ok=True)
        with (state_dir / f"{_MARK}.lock").open("a") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            found = cls.running(state_dir)
            if found is not None:
                if found.settings == settings and found.takes_queries_within(30):
                    return found
                say(f"replacing Trino (process {found.pid}): it reads another endpoint or doesn't answer")
                found.stop()
            home = installed(say, lambda fresh: _warm_up(fresh, say), cache)
            clock = time.monotonic()
            archive = home / ARCHIVE
            server = cls._launch(state_dir, settings, home, [f"-XX:AOTCache={archive}"] if archive.is_file() else [])
            say(f"starting Trino on 127.0.0.1:{server.port} (process {server.pid})")
            if not server.takes_queries_within(_START_SECONDS):
                ended = not server.is_running
                server.stop()
                how = "ended" if ended else f"took no query in {_START_SECONDS} s"
                raise EnvironmentProblemError(f"Trino {how}; {_log_tail(state_dir)}")
            say(f"Trino takes queries after {time.monotonic() - clock:.1f} s")
            return server

    @classmethod
    def _launch(cls, state_dir: Path, settings: TrinoSettings, home: Path, archive: list[str]) -> TrinoServer:
        folder = (state_dir / _FOLDER).resolve()
        folder.mkdir(parents=True, exist_ok=True)
        port = _free_port()
        write_configuration(folder, settings, port)
        with (folder / "console.log").open("wb") as out:
            process = subprocess.Popen(
                java_command(home, folder, settings.heap, archive),
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # it outlives the process that needed it first, and Ctrl-C
                # no JAVA_TOOL_OPTIONS that are meant for Spark, no credentials that are meant for AWS
                env={name: os.environ[name] for name in ("PATH", "TMPDIR", "HOME") if name in os.environ}
                | {"LANG": "C.UTF-8"},
            )
        server = cls(process.pid, port, psutil.Process(process.pid).create_time(), settings)
        server._remember(state_dir)
        return server

    def _remember(self, state_dir: Path) -> None:
        fresh = state_dir / f"{_MARK}.new"
        fresh.write_text(json.dumps(asdict(self), indent=2), encoding="utf-8")
        fresh.chmod(0o600)
        fresh.replace(state_dir / _MARK)

    def takes_queries_within(self, seconds: float) -> bool:
        """Wait until it answers a query; False if it ends or doesn't in that time."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.is_running:
            if self._takes_queries():
                return True
            time.sleep(0.1)
        return False

    def _takes_queries(self) -> bool:
        try:
            with requests.Session() as http:
                http.trust_env = False
                info = http.get(f"{self.url}/v1/info", timeout=5)
            # a server that has started may still see no node that takes work, itself among them
            return info.ok and not info.json()["starting"] and Session(self.url).value(_ACTIVE_NODES) == 1
        except (requests.RequestException, TrinoError, HttpError, ValueError):
            return False

    def stop(self) -> None:
        """End the process: asked first, killed when it doesn't listen. One that has ended is fine."""
        process = self._process()
        if process is None:
            return
        try:
            process.terminate()
            process.wait(_STOP_SECONDS)
        except psutil.TimeoutExpired:
            process.kill()
            process.wait(10)
        except psutil.NoSuchProcess:
            return

    def _process(self) -> psutil.Process | None:
        return living_process(self.pid, self.created)


def fetch(say: Callable[[str], None], cache: Path | None = None) -> Path:
    """Install Trino if it isn't there; answers its folder.

    Raises:
        EnvironmentProblemError: it can't be fetched.
    """
    return installed(say, lambda fresh: _warm_up(fresh, say), cache)


def _warm_up(home: Path, say: Callable[[str], None]) -> None:
    """Run Trino once and keep what its JVM learned (JEP 514), which saves every later start a third of its work."""
    say("warming Trino up, once, for quicker starts")
    part = home / f"{ARCHIVE}.part"
    with tempfile.TemporaryDirectory(prefix="lakehose-trino-") as folder:
        state = Path(folder)
        server = TrinoServer._launch(state, _NOWHERE, home, [f"-XX:AOTCacheOutput={part}"])  # noqa: SLF001
        try:
            if server.takes_queries_within(_START_SECONDS):
                for sql in _WARM_UP:
                    Session(server.url).value(sql)
            process = psutil.Process(server.pid)
            process.terminate()
            process.wait(_WARM_UP_SECONDS)  # the cache is written on the way out
        except (psutil.Error, TrinoError, HttpError) as error:
            say(f"Trino could not be warmed up ({error}); it works, its starts take a few seconds more")
        finally:
            server.stop()
    if part.is_file():
        part.rename(home / ARCHIVE)
    else:
        say("the JVM left no cache; Trino works, its starts take a few seconds more")
        part.with_name(f"{part.name}.config").unlink(missing_ok=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _log_tail(state_dir: Path) -> str:
    log = state_dir / _FOLDER / "console.log"
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()[-15:] if log.exists() else []
    return f"the end of {log}:\n" + "\n".join(lines)


def _say(text: str) -> None:
    sys.stderr.write(f"trino: {text}\n")


def main() -> int:
    """Install Trino; answers the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m athena.trino", description="Install the Trino of the local Athena."
    )
    parser.add_argument("--fetch", action="store_true", required=True, help="fetch it, if it isn't there")
    parser.add_argument("--cache", type=Path, help="folder to install into; LAKEHOSE_CACHE or ~/.cache/lakehose else")
    given = parser.parse_args()
    try:
        _say(f"installed in {fetch(_say, given.cache)}")
    except LakehoseError as error:
        _say(str(error))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
