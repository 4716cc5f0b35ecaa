"""Owns running jq's queries, beside the server: one that never ends costs its time, and not the server.

libjq can't be interrupted, and what a query takes depends on the record too. So it runs in a process of its own, which
ends itself where a query takes too long; the next one is started when it is needed.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import TYPE_CHECKING, Any

from firehose.jq_worker import HEAD

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["EndlessQueryError", "Query"]

_log = logging.getLogger(__name__)
_WORKER = Path(__file__).with_name("jq_worker.py")
_SECONDS, _SECONDS_EACH = 1.0, 0.002
"""Time of the processor for a question, and more for each value in it."""
_ENVIRONMENT = ("LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH")
_PATIENCE = 60.0
"""Seconds by the clock, after which a process that says nothing is taken for one that stands still."""
_TOO_OFTEN, _REST_SECONDS = 3, 60.0
"""A query that was given up so often within so many seconds, or took as long, rests: all streams waited for it."""
_SLOW = 0.1
"""Of the time that a value may take: what takes longer counts for the rest."""


class EndlessQueryError(Exception):
    """A query was given up; says why."""


class _EndedError(Exception):
    """The process has ended without an answer."""

    def __init__(self, status: int) -> None:
        super().__init__(f"status {status}")
        self.status = status


class _Worker:
    """The process, of whichever process of ours asks; it is started when it is needed."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._owner = 0

    def ask(self, question: bytes) -> Any:
        """Get an answer; blocks.

        Raises:
            _EndedError: the process ended over it.
        """
        with self._lock:
            process = self._running()
            try:
                return self._asked(process, question)
            except (OSError, EOFError):
                raise _EndedError(self._end(process)) from None
            except BaseException:
                self._end(process)  # of its answer nobody knows how much is read
                raise

    def _running(self) -> subprocess.Popen[bytes]:
        # one that was started before a fork answers the other side
        if self._process is None or self._owner != os.getpid():
            command = [sys.executable, "-P", str(_WORKER)]
            # a query that gets at its environment, whatever its words are, finds no secrets there
            given = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0, env=given
            )
            self._owner = os.getpid()
        return self._process

    def _end(self, process: subprocess.Popen[bytes]) -> int:
        process.kill()
        status = process.wait()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        self._process = None
        return status

    def _asked(self, process: subprocess.Popen[bytes], question: bytes) -> Any:
        if process.stdin is None or process.stdout is None:
            raise RuntimeError("the process has no pipes")
        left = memoryview(len(question).to_bytes(HEAD) + question)
        while left:
            left = left[os.write(process.stdin.fileno(), left) :]
        size = int.from_bytes(self._read(process.stdout.fileno(), HEAD))
        return json.loads(self._read(process.stdout.fileno(), size))

    @staticmethod
    def _read(pipe: int, count: int) -> bytes:
        parts = []
        ready = select.poll()
        ready.register(pipe, select.POLLIN)
        while count:
            part = os.read(pipe, count) if ready.poll(_PATIENCE * 1000) else b""
            if not part:
                raise EOFError
            parts.append(part)
            count -= len(part)
        return b"".join(parts)


_worker = _Worker()


class Query:
    """A query that libjq has compiled before.

    Args:
        text: of the query; it has to collect its outputs, and to catch errors as `{"error": …}`.
        seconds: of the processor, for one value.
        clock: seconds, never going back.
    """

    def __init__(self, text: str, *, seconds: float = _SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        self._text = text
        self._seconds = seconds
        self._clock = clock
        self._slow: deque[tuple[float, float]] = deque()
        """When single values took long, and how long."""
        self._rests_until = float("-inf")

    def answers(self, values: str, count: int = 1) -> list[Any]:
        """Run it on the JSON values of a text.

        Args:
            values: the text.
            count: how many values are in it.

        Returns:
            for each value the list of what the query made of it, or `{"error": …}`; of values inside of an output only
            whether they are lists or objects.

        Raises:
            ValueError: the text is no JSON.
            EndlessQueryError: it took too long, or too much memory; or it did so too often, and rests now.
        """
        now = self._clock()
        if now < self._rests_until:
            raise EndlessQueryError(f"the query took too long too often, and rests for {_REST_SECONDS:.0f} s")
        question = json.dumps([self._text, values, self._seconds + _SECONDS_EACH * (count - 1)]).encode()
        try:
            found = self._ask(question)
        except _EndedError as error:
            raise EndlessQueryError(self._give_up(error.status, count)) from None
        answers, took = found
        if count == 1 and took > _SLOW * self._seconds:
            self._note(took)
        if isinstance(answers, list):
            return answers
        raise ValueError(answers)

    @staticmethod
    def _ask(question: bytes) -> Any:
        try:
            return _worker.ask(question)
        except _EndedError as error:
            if error.status == -signal.SIGPROF:
                raise
            return _worker.ask(question)  # somebody from outside may have ended it

    def _give_up(self, status: int, count: int) -> str:
        limit = f"{self._seconds:g} s of the processor" if status == -signal.SIGPROF else "the memory there is for one"
        if count == 1:  # of many values it isn't known yet which
            self._note(self._seconds)
        return f"the query took more than {limit}"

    def _note(self, seconds: float) -> None:
        now = self._clock()
        self._slow.append((now, seconds))
        while self._slow[0][0] <= now - _REST_SECONDS:
            self._slow.popleft()
        # a little less, as sums of fractions are
        if sum(took for _, took in self._slow) > (_TOO_OFTEN - 0.01) * self._seconds:
            self._slow.clear()
            self._rests_until = now + _REST_SECONDS
            _log.warning("the query %r takes too long again and again: it rests", self._text)
