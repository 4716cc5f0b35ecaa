"""Owns the processes between the campaign and its MiniStack: driver, writers, relay, toxiproxy; and what is killed."""

from __future__ import annotations

import json
import time
import urllib.request
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from tests.faults.checks import DifferenceError
from tests.faults.processes import Child, EndedError
from tests.faults.toxiproxy import Toxiproxy, build

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["Stage"]

_RUN_SECONDS = 600.0
"""A job that takes longer hangs."""
_SPARK_SECONDS = 240.0
_WRITE_SECONDS = 120.0


class Stage:
    """The campaign's processes."""

    def __init__(self, endpoint: str, folder: Path, say: Callable[[str], None], master: str = "") -> None:
        """Start all but the driver.

        Args:
            endpoint: of a MiniStack that is the campaign's own.
            folder: for logs.
            say: takes a line about what can't be had.
            master: Spark's; without it one of this machine, which repeats a failed task in every other driver.
        """
        self._folder = folder
        self._master = master
        self._stack = ExitStack()
        self._driver: Child | None = None
        self._ghosts: list[Child] = []
        self._starts = 0
        self.spark_seconds = 0.0
        """That starts of Spark took, all in all."""
        relay = self._child("tests.faults.relay", "--upstream", endpoint)
        self._relay = f"http://127.0.0.1:{int(relay.line(30))}"
        self._writer = self._child("tests.faults.writer")
        program = build(say)
        self.toxiproxy = Toxiproxy(program, self._relay, folder / "toxiproxy.log") if program else None
        """None where it can't be had."""
        if self.toxiproxy:
            self._stack.callback(self.toxiproxy.end)
        self._way = self.toxiproxy.url if self.toxiproxy else self._relay

    def _child(self, module: str, *arguments: str) -> Child:
        child = Child.python(module, *arguments, log=self._folder / f"{module.rpartition('.')[2]}.log")
        self._stack.callback(child.end)
        return child

    def end(self) -> None:
        """End all of them."""
        for one in (*self._ghosts, *([self._driver] if self._driver else [])):
            one.end()
        self._stack.close()

    # the driver

    @property
    def controls(self) -> dict[str, str]:
        """Where a driver sets its faults."""
        return {"relay": self._relay, "toxiproxy": self.toxiproxy.control if self.toxiproxy else ""}

    def ready(self) -> Child:
        """The driver; a new one where the last was killed."""
        if self._driver is not None and self._driver.is_alive:
            return self._driver
        started = time.monotonic()
        self._starts += 1
        master = self._master or ("local[2,4]" if self._starts % 2 else "local[2]")
        self._driver = Child.python("tests.faults.driver", self._way, master, log=self._folder / "driver.log")
        self._driver.answer(_SPARK_SECONDS)
        self.spark_seconds += time.monotonic() - started
        return self._driver

    def run(self, job: str, company: str, **given: Any) -> dict[str, Any]:
        """Have the driver run a job; answers what became of it, and whether its fault was set.

        Raises:
            DifferenceError: it hangs.
        """
        driver = self.ready()
        is_set = False
        try:
            driver.tell(job=job, company=company, **given)
            driver.remember()
            while True:
                told = driver.answer(_RUN_SECONDS)
                if "fault" not in told:
                    return {**told, "is_set": is_set}
                is_set = True
        except EndedError:
            return {"outcome": "killed", "is_set": is_set}
        except TimeoutError as error:
            raise DifferenceError(f"{job} hangs: {error}") from None

    def give_up(self) -> None:
        """Let go of a driver that was killed, or can do nothing any more; what it has started may live on."""
        if self._driver is None:
            return
        if self._driver.is_alive:
            self._driver.end()
        else:
            self._ghosts.append(self._driver)
        self._driver = None

    def lay_ghosts(self) -> None:
        """End what killed drivers have left; maintenance, whose clock is ahead, would take their files for old."""
        for one in self._ghosts:
            one.settle(5)
            one.end()
        self._ghosts = []

    def clear(self) -> int:
        """Take faults away; answers how many requests the relay failed."""
        with urllib.request.urlopen(f"{self._relay}/_faults", timeout=10) as answer:
            hits = sum(int(one["done"]) for one in json.load(answer)["rules"])
        request = urllib.request.Request(f"{self._relay}/_faults", b"[]", method="PUT")
        urllib.request.urlopen(request, timeout=10).close()
        if self.toxiproxy:
            self.toxiproxy.heal()
        return hits

    # the writers

    def tell_writer(self, do: str, **given: Any) -> None:
        """Send them a command, whose answers have to be collected."""
        self._writer.tell(do=do, **given)

    def delivered(self) -> Iterator[dict[str, Any]]:
        """What they have delivered, until the command is done."""
        while not (told := self._writer.answer(_WRITE_SECONDS)).get("done"):
            yield told
