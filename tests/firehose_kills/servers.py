"""Owns the campaign's servers: each a process of its own, forked off one that has imported everything and run nothing.

Importing takes longer than most lives. `python -m tests.firehose_kills.servers` reads lines of JSON, the arguments of
`lakehose firehose`, and forks a process for each, which runs the command as it is; its output is the parent's. A server
may be several processes: their parent, and one for each log.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import psutil

from firehose.commands import app
from tests.faults.processes import Child, EndedError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Servers"]

_PID_SECONDS = 60
_GONE_SECONDS = 60
_LOOK_SECONDS = 1.0
_STILL = (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
_SUBREAPER = 36
"""PR_SET_CHILD_SUBREAPER: those whose parent died become children of this process, and leave nothing behind."""


class Servers:
    """Starts a server, and kills it; one at a time."""

    def __init__(self, log: Path) -> None:
        self._parent = Child.python("tests.firehose_kills.servers", log=log)
        self.pid = 0
        """Of the last one; of its parent, where it has several processes."""
        self.processes = 1
        """Of the last one."""

    @property
    def is_alive(self) -> bool:
        """Whether the last one lives."""
        with suppress(psutil.Error):
            return bool(self.pid) and psutil.Process(self.pid).status() != psutil.STATUS_ZOMBIE
        return False

    def start(self, *arguments: str, processes: int = 1) -> None:
        """Start one of so many processes; it isn't ready yet."""
        self.processes = processes
        self._parent.tell(arguments=(*arguments, "--processes", str(processes)))
        while True:  # behind what the one before may have said
            told = self._parent.line(_PID_SECONDS)
            if told.startswith("pid "):
                self.pid = int(told.removeprefix("pid "))
                return

    def ready(self, seconds: float) -> None:
        """Wait until it takes requests.

        Raises:
            EndedError: it ended.
            TimeoutError: it doesn't.
        """
        deadline = time.monotonic() + seconds
        while True:
            lives = self.is_alive
            try:
                self._parent.line(_LOOK_SECONDS)
            except TimeoutError:
                if not lives:
                    raise EndedError from None
                if time.monotonic() > deadline:
                    raise
            else:
                return

    @property
    def workers(self) -> list[int]:
        """Ids of its processes that have a log: itself, unless it has several; none where they don't run yet."""
        if self.processes == 1:
            return [self.pid]
        with suppress(psutil.Error):
            return [one.pid for one in psutil.Process(self.pid).children()]
        return []

    def worker_at(self, port: int) -> int | None:
        """Id of the process that has a TCP connection from this port."""
        for pid in self.workers:
            with suppress(psutil.Error):
                if any(one.laddr and one.laddr.port == port for one in psutil.Process(pid).net_connections("tcp4")):
                    return pid
        return None

    def kill(self) -> None:
        """Kill it with -9, and wait until all its processes are gone: they end when their parent does.

        Raises:
            TimeoutError: one isn't.
        """
        with suppress(psutil.Error):
            process = psutil.Process(self.pid)
            process.suspend()  # so that none is started between the look and its end
            deadline = time.monotonic() + _GONE_SECONDS
            while process.status() not in _STILL and time.monotonic() < deadline:
                time.sleep(0.001)
            everyone = [process, *process.children()]
            process.kill()
            _, left = psutil.wait_procs(everyone, timeout=_GONE_SECONDS)
            if left:
                raise TimeoutError(f"of a server that was killed {left} go on")

    def kill_one(self, pid: int) -> None:
        """Kill one of its processes with -9, if it is still there; the others go on, and start it again."""
        with suppress(ProcessLookupError):
            if pid:  # 0 is this process's group
                os.kill(pid, signal.SIGKILL)

    def end(self) -> None:
        """Kill it, and end the parent."""
        self.kill()
        self._parent.end()


def _serve(arguments: list[str]) -> None:
    sys.stdout.write(f"pid {os.getpid()}\n")
    sys.stdout.flush()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    app(arguments)


def main() -> None:
    """Fork a server for each line."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how they ended
    ctypes.CDLL(None).prctl(_SUBREAPER, 1, 0, 0, 0)
    while line := sys.stdin.readline():
        if os.fork() == 0:
            _serve(json.loads(line)["arguments"])
            os._exit(0)


if __name__ == "__main__":
    with suppress(EndedError):
        main()
