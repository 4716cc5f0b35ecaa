"""Owns the processes of a server that has several: started together, started again when one dies, ended together.

The first process is the parent. It holds the folder's lock and the listening socket, which all inherit, and does
nothing else, so that it has no thread and no event loop when it forks. One that dies doesn't take the port along: the
others accept from the same queue. Where the parent dies, however it does, the others end as if they were killed too.
"""

from __future__ import annotations

import gc
import json
import logging
import os
import select
import signal
import sys
import threading
import time
import traceback
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from lake.errors import EnvironmentProblemError, LakehoseError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["MOST_PROCESSES", "cores", "run_processes"]

_log = logging.getLogger(__name__)
MOST_PROCESSES = 64
_SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_STEADY_SECONDS = 10.0
"""One that ran so long is started again at once; others after a pause, the longer the oftener."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 5.0
_STOP_SECONDS = 25.0
"""What a process may take to end when it is asked to; it takes about fifteen where S3 and clients hang."""


def cores() -> int:
    """Count the cores that this process may use, up to as many processes as a server may have."""
    return min(len(os.sched_getaffinity(0)), MOST_PROCESSES)


@dataclass(slots=True)
class _Process:
    index: int
    pid: int
    """0 where it doesn't run."""
    says: int
    """Descriptor to read what it says at its start; -1 once that was heard."""
    started: float
    """Monotonic, as `again`."""
    pause: float = _FIRST_PAUSE
    again: float | None = None
    """When it is to be started again."""


def run_processes(
    count: int,
    work: Callable[[int, Callable[[str], None]], None],
    ready: Callable[[str], None],
    reload: Callable[[], None],
    stopping: Callable[[], None],
) -> None:
    """Run so many processes until SIGTERM or SIGINT.

    Args:
        count: how many.
        work: what the process of a number (from 0) does until SIGTERM; it calls what it is given with a line when it
            takes requests. It runs in a process of its own, which is started with SIGHUP blocked.
        ready: called with the first one's line when all take requests.
        reload: called on SIGHUP, before the processes get it: one that is started later has what was read by it.
        stopping: called when they are to end, before they are told.

    Raises:
        EnvironmentProblemError: one couldn't start.
    """
    gc.freeze()
    with _wake_up() as wake, _lifeline() as line:
        _Parent(count, work, reload, stopping, (wake, line)).run(ready)


class _Parent:
    def __init__(
        self,
        count: int,
        work: Callable[[int, Callable[[str], None]], None],
        reload: Callable[[], None],
        stopping: Callable[[], None],
        pipes: tuple[tuple[int, int], tuple[int, int]],
    ) -> None:
        self._work = work
        self._reload = reload
        self._stopping = stopping
        self._wake, self._line = pipes
        self._processes = [_Process(index, 0, -1, 0.0, again=0.0) for index in range(count)]
        self._ready: dict[int, str] = {}
        self._announced = False
        self._stop_by: float | None = None
        self._problem: str | None = None

    def run(self, ready: Callable[[str], None]) -> None:
        try:
            while self._stop_by is None or any(one.pid for one in self._processes):
                self._start_due()
                self._listen()
                self._reap()
                if not self._announced and len(self._ready) == len(self._processes):
                    self._announced = True
                    ready(f"{self._ready[0]}, by {len(self._processes)} processes")
        finally:
            for one in self._processes:  # only where this process fails is one left
                if one.pid:
                    os.kill(one.pid, signal.SIGKILL)
                    os.waitpid(one.pid, 0)
        if self._problem is not None:
            raise EnvironmentProblemError(self._problem)

    def _start_due(self) -> None:
        now = time.monotonic()
        for one in self._processes:
            if self._stop_by is None and one.again is not None and one.again <= now:
                self._start(one)
        if self._stop_by is not None and now > self._stop_by:
            _log.error("a process of the server doesn't end: it is killed; the log holds its records")
            self._signal(signal.SIGKILL)
            self._stop_by = now + _STOP_SECONDS  # one that the system holds ends when it lets go

    def _start(self, one: _Process) -> None:
        hears, says = os.pipe()
        # a signal to the child must not find this process's handlers in it
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            pid = os.fork()
            if pid == 0:
                os.close(hears)
                self._child(one.index, says)
        except OSError as error:
            os.close(hears)
            self._not_started(one, error)
            return
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
            os.close(says)
        one.pid, one.says, one.started, one.again = pid, hears, time.monotonic(), None

    def _not_started(self, one: _Process, error: OSError) -> None:
        said = f"process {one.index} of the server can't be started: {error.strerror or error}"
        if self._announced:
            _log.error("%s; it is tried again", said)
            one.again = time.monotonic() + _LONGEST_PAUSE
        elif self._stop_by is None:
            one.again = None
            self._problem = said
            self._stop()

    def _child(self, index: int, says: int) -> NoReturn:
        code = 1
        said: list[str] = []
        try:
            signal.set_wakeup_fd(-1)
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            # SIGHUP waits until there is something to be done about it
            signal.pthread_sigmask(signal.SIG_UNBLOCK, set(_SIGNALS) - {signal.SIGHUP})
            # so that a terminal's interrupt asks the parent alone, who then asks all
            os.setpgid(0, 0)
            for descriptor in (*self._wake, self._line[1], *(one.says for one in self._processes if one.says >= 0)):
                os.close(descriptor)
            threading.Thread(target=_end_with, args=(self._line[0],), daemon=True).start()
            for handler in logging.getLogger().handlers:
                handler.setFormatter(logging.Formatter(f"%(asctime)s firehose[{index}]: %(message)s"))

            def ready(line: str) -> None:
                said.append(line)
                _say(says, {"ready": line})

            self._work(index, ready)
            code = 0
        except LakehoseError as error:
            if said:  # nobody listens there any more, and the descriptor may be another file's
                _log.error("%s", error)
            else:
                _say(says, {"problem": str(error)})
            code = error.exit_code
        except BaseException:  # noqa: BLE001 - this process ends here, whatever it was
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            # not by Python's end, which would wait for uploads that S3 doesn't answer, and do the parent's work
            os._exit(code)

    def _listen(self) -> None:
        waits = [self._wake[0], *(one.says for one in self._processes if one.says >= 0)]
        due = [one.again for one in self._processes if one.again is not None and self._stop_by is None]
        if self._stop_by is not None:
            due.append(self._stop_by)
        seconds = None if not due else max(0.0, min(due) - time.monotonic())
        found, _, _ = select.select(waits, [], [], seconds)
        for one in self._processes:
            if one.says in found:
                self._hear(one)
        if self._wake[0] in found:
            numbers = set(os.read(self._wake[0], 4096))
            if numbers & {signal.SIGTERM, signal.SIGINT}:
                self._stop()
            if signal.SIGHUP in numbers:
                self._reload()
                self._signal(signal.SIGHUP)

    def _hear(self, one: _Process) -> None:
        raw = os.read(one.says, 65536)
        os.close(one.says)
        one.says = -1
        said: dict[str, str] = json.loads(raw) if raw else {"problem": f"process {one.index} of the server ended"}
        if "ready" in said:
            self._ready[one.index] = said["ready"]
        elif self._announced:
            _log.error("process %d of the server: %s", one.index, said["problem"])
        elif self._stop_by is None:
            self._problem = said["problem"]
            self._stop()

    def _reap(self) -> None:
        for one in self._processes:
            if not one.pid:
                continue
            pid, status = os.waitpid(one.pid, os.WNOHANG)
            if not pid:
                continue
            one.pid = 0
            if one.says >= 0:
                self._hear(one)
            if self._stop_by is not None:
                continue
            now = time.monotonic()
            one.pause = _FIRST_PAUSE if now - one.started > _STEADY_SECONDS else min(2 * one.pause, _LONGEST_PAUSE)
            one.again = now if now - one.started > _STEADY_SECONDS else now + one.pause
            _log.error("process %d of the server ended (%s); it is started again", one.index, _told(status))

    def _stop(self) -> None:
        if self._stop_by is None:
            self._stop_by = time.monotonic() + _STOP_SECONDS
            self._stopping()
        self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        for one in self._processes:
            if one.pid:
                os.kill(one.pid, number)


def _told(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"exit status {code}" if code >= 0 else signal.Signals(-code).name


def _say(descriptor: int, said: dict[str, Any]) -> None:
    # after a restart nobody may listen any more
    with suppress(OSError):
        os.write(descriptor, json.dumps(said).encode())
        os.close(descriptor)


def _end_with(line: int) -> None:
    # nothing is ever written: it ends when the parent is gone
    os.read(line, 1)
    os._exit(1)


@contextmanager
def _wake_up() -> Iterator[tuple[int, int]]:
    """Have signals arrive in a pipe, to be waited for with everything else."""
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
    before = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
    woken = signal.set_wakeup_fd(ends[1], warn_on_full_buffer=False)
    try:
        yield ends
    finally:
        signal.set_wakeup_fd(woken)
        for number, handler in before.items():
            signal.signal(number, handler)
        for end in ends:
            os.close(end)


@contextmanager
def _lifeline() -> Iterator[tuple[int, int]]:
    """A pipe whose writing end is this process's alone."""
    ends = os.pipe()
    try:
        yield ends
    finally:
        for end in ends:
            os.close(end)
