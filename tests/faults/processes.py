"""Owns the campaign's child processes: started, spoken to in lines of JSON, and ended with all that they started."""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["ROOT", "Child", "EndedError"]

ROOT = Path(__file__).parents[2]


class EndedError(Exception):
    """The process ended while it was waited for."""


class Child:
    """A process in a group of its own, so that it can be killed whole."""

    def __init__(self, command: Sequence[str], log: Path, environment: dict[str, str] | None = None) -> None:
        self._log = log
        self._tree: list[psutil.Process] = []
        with log.open("ab") as out:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), **(environment or {})},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=out,
                text=True,
                start_new_session=True,
            )
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, daemon=True).start()

    @classmethod
    def python(cls, module: str, *arguments: str, log: Path) -> Child:
        """One of the campaign's own modules."""
        return cls([sys.executable, "-m", module, *arguments], log)

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self._lines.put(line)
        self._lines.put(None)

    def tell(self, **given: Any) -> None:
        """Send a command.

        Raises:
            EndedError: there is nobody to take it.
        """
        try:
            self.process.stdin.write(json.dumps(given) + "\n")  # type: ignore[union-attr]
            self.process.stdin.flush()  # type: ignore[union-attr]
        except OSError:
            raise EndedError from None

    def line(self, seconds: float) -> str:
        """The next line.

        Raises:
            EndedError: the process ended.
            TimeoutError: it said nothing in that time.
        """
        try:
            line = self._lines.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError(f"{self.process.args!r} said nothing in {seconds:.0f} s; see {self._log}") from None
        if line is None:
            raise EndedError
        return line

    def answer(self, seconds: float) -> dict[str, Any]:
        """The next line, as JSON."""
        told: dict[str, Any] = json.loads(self.line(seconds))
        return told

    @property
    def is_alive(self) -> bool:
        """Whether the process itself lives."""
        return self.process.poll() is None

    def remember(self) -> None:
        """Note which processes it has started, for it may end before they do."""
        with suppress(psutil.Error):
            self._tree = [*psutil.Process(self.process.pid).children(recursive=True), *self._tree]

    def end(self, *, wait: float = 10.0) -> None:
        """Kill it with all that it started, and wait until they are gone."""
        self.remember()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        # the session's leader may be gone while others of its group aren't; Spark's workers have a group of their own
        for one in self._tree:
            with suppress(psutil.Error):
                one.kill()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(wait)
        psutil.wait_procs(self._tree, timeout=wait)
        self._tree = []

    def settle(self, seconds: float) -> bool:
        """Wait until what it started is gone by itself; answers whether it is."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if not any(one.is_running() and one.status() != psutil.STATUS_ZOMBIE for one in self._tree):
                return True
            time.sleep(0.1)
        return False
