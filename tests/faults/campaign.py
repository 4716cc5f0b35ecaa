"""Owns the campaign: round after round a job is broken off, healed, and everything is held to the model.

A round: writers begin to deliver; a job runs until its fault strikes; what is left is finished without faults, as the
next scheduled run would; then rows and quarantine as Spark, PyIceberg and Trino read them have to be the model's, the
audit has to balance with the model's own numbers, and what was erased has to be gone. A difference ends the campaign
with the one command that repeats it.
"""

from __future__ import annotations

import json
import random
import time
import urllib.request
from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from lake.audit import balance, gather
from lake.clients import Cloud
from lake.manifest import Manifest
from lake.provision import provision_storage
from lake.tables import glue_catalog
from tests.faults.model import Model
from tests.faults.processes import Child, EndedError
from tests.faults.readers import by_pyiceberg, by_trino, sorted_tables, start_trino
from tests.faults.schedule import EPOCH, FAULTS, START, Round, rounds
from tests.faults.toxiproxy import Toxiproxy, build
from tests.faults.world import DATASET, REGION, TENANT, lake_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from athena.trino import TrinoServer
    from tests.faults.readers import Tables

__all__ = ["Campaign", "DifferenceError", "Outcome"]

_RUN_SECONDS = 300.0
"""A job that takes longer hangs."""
_SPARK_SECONDS = 240.0
_DAYS = 10
"""By which maintenance's clock is ahead, so that snapshots and stray files are old."""
_QUIET = {"done", "conflict", "transient", "killed"}
"""What a fault that passes may lead to."""
_TCP = frozenset(name for name, one in FAULTS.items() if "toxic" in one)
_BROKEN_DRIVER = {"kill JVM"}


class DifferenceError(AssertionError):
    """The tables, the audit or a job's end aren't what they have to be."""


@dataclass
class Outcome:
    """What became of a round."""

    round: Round
    outcome: str = ""
    """Of the run that was broken off: `done`, `transient`, `conflict`, `killed`; others are differences."""
    struck: bool = False
    """Whether the fault was set: whether the job came to that step."""
    hits: int = 0
    """Requests that the relay failed, of faults that are the relay's."""
    error: str = ""
    seconds: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)
    """Seconds of its parts, and of each job in them."""
    rows: int = 0
    quarantine: int = 0
    checks: list[str] = field(default_factory=list)
    difference: str = ""

    def as_json(self, seed: int) -> dict[str, Any]:
        """Its line of the log."""
        one = self.round
        place = {
            "seed": seed,
            "round": one.number,
            "job": one.job,
            "step": one.step,
            "nth": one.nth,
            "fault": one.fault,
        }
        return {**place, **{name: value for name, value in vars(self).items() if name != "round"}}


class Campaign:
    """Processes, lake and model of the rounds of one seed."""

    def __init__(
        self, seed: int, endpoint: str, folder: Path, say: Callable[[str], None], *, trino_every: int = 1
    ) -> None:
        """Start what all rounds share: relay, toxiproxy, writers.

        Args:
            seed: what everything is drawn from.
            endpoint: of a MiniStack that is the campaign's own.
            folder: for logs.
            say: takes a line about each round.
            trino_every: Trino reads after each so-many-th round; 0 is never.
        """
        self.seed = seed
        self._endpoint = endpoint
        self._folder = folder
        self._say = say
        self._cloud = Cloud(REGION, endpoint)
        self._stack = ExitStack()
        self._driver: Child | None = None
        self._lake = lake_of("none")
        self._model = Model()
        self._trino: TrinoServer | None = None
        self._trino_every = trino_every
        self._starts = 0
        self._relay = self._child("tests.faults.relay", "--upstream", endpoint)
        self._relay_url = f"http://127.0.0.1:{int(self._relay.line(30))}"
        self._writer = self._child("tests.faults.writer")
        program = build(say)
        self._toxiproxy = Toxiproxy(program, self._relay_url, folder / "toxiproxy.log") if program else None
        if self._toxiproxy:
            self._stack.callback(self._toxiproxy.end)
        self._way = self._toxiproxy.url if self._toxiproxy else self._relay_url
        self._epoch = -1
        self._parts: dict[str, float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._driver:
            self._driver.end()
        if self._trino:
            self._trino.stop()
        self._stack.close()

    def _child(self, module: str, *arguments: str) -> Child:
        child = Child.python(module, *arguments, log=self._folder / f"{module.rpartition('.')[2]}.log")
        self._stack.callback(child.end)
        return child

    def rounds(self, first: int, count: int) -> Iterator[Outcome]:
        """Go through rounds; the last one may tell a difference.

        Args:
            first: number of the first; its lake's rounds before it are gone through too.
            count: how many.
        """
        begin = first - first % EPOCH
        left_out = frozenset() if self._toxiproxy else _TCP
        for one in rounds(self.seed, left_out):
            if one.number < begin:
                continue
            if one.number >= first + count:
                return
            outcome = self._round(one)
            yield outcome
            if outcome.difference:
                return

    # a round

    def _round(self, one: Round) -> Outcome:
        outcome = Outcome(one)
        started = time.monotonic()
        try:
            self._parts = outcome.parts
            if one.epoch != self._epoch:
                with self._timed("begin"):
                    self._begin(one.epoch)
            with self._timed("strike"):
                self._strike(one, outcome)
            with self._timed("heal"):
                self._heal(outcome)
            with self._timed("check"):
                self._check(one, outcome)
        except DifferenceError as difference:
            outcome.difference = str(difference)
        outcome.seconds = round(time.monotonic() - started, 1)
        return outcome

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self._parts[part] = round(self._parts.get(part, 0.0) + time.monotonic() - started, 2)

    def _begin(self, epoch: int) -> None:
        """An empty lake, and a first batch in it."""
        self._lake = lake_of(f"faults{self.seed}e{epoch}")
        for _ in provision_storage(self._lake, self._cloud):
            pass
        self._model = Model()
        self._epoch = epoch
        self._to_writer("begin", company=self._lake.company, endpoint=self._endpoint, seed=self.seed * 1000 + epoch)
        self._to_writer("write", objects=5, pause=0.0, rival=False)
        self._finish("ingest")

    def _strike(self, one: Round, outcome: Outcome) -> None:
        rng = random.Random(one.seed)  # noqa: S311 - no secret is drawn
        given = self._prepared(one, rng)
        rival = one.job != "maintain" and rng.random() < 0.3
        self._ready()  # a driver that has to be started first would leave the writers behind
        self._writer.tell(do="write", objects=rng.randrange(2, 6), pause=rng.choice((0.0, 0.1, 0.4)), rival=rival)
        fault = FAULTS[one.fault]
        if one.fault != "none":
            urls = {"relay": self._relay_url, "toxiproxy": self._toxiproxy.control if self._toxiproxy else ""}
            step = None if one.step == START else one.step
            given["fault"] = {"name": one.fault, "step": step, "nth": one.nth, "delay": rng.random() / 2}
            given["fault"] |= fault | urls
        told = self._run(one.job, outcome, **given)
        outcome.outcome, outcome.error = told["outcome"], str(told.get("error", ""))[:400]
        self._collect()
        if one.fault == "none" and outcome.outcome != "done":
            raise DifferenceError(f"without a fault it ended with {outcome.outcome}: {_why(told)}")
        if outcome.outcome not in _QUIET and one.fault not in _BROKEN_DRIVER:
            raise DifferenceError(f"a fault that passes led to {outcome.outcome}: {_why(told)}")

    def _prepared(self, one: Round, rng: random.Random) -> dict[str, Any]:
        given: dict[str, Any] = {}
        if one.job == "erase":
            self._subject = rng.choice(self._model.users)
            self._to_writer("retire", user=self._subject, silent=True)
            given = {"user": self._subject, "erasure": f"e{one.number}"}
        elif one.job == "maintain":
            given = {"days": _DAYS}
        if one.job in {"compact", "maintain"} and rng.random() < 0.4:
            self._done("touch")
        self._given = given
        return dict(given)

    def _run(self, job: str, outcome: Outcome | None, **given: Any) -> dict[str, Any]:
        """Have the driver run a job; answers what became of it."""
        driver = self._ready()
        try:
            driver.tell(job=job, company=self._lake.company, **given)
            driver.remember()
            while True:
                told = driver.answer(_RUN_SECONDS)
                if "fault" not in told:
                    return told
                if outcome:
                    outcome.struck = True
        except EndedError:
            return {"outcome": "killed"}
        except TimeoutError as error:
            raise DifferenceError(f"{job} hangs: {error}") from None

    def _ready(self) -> Child:
        """The driver; a new one where the last was killed, or can do nothing without its JVM."""
        if self._driver is not None and self._driver.is_alive:
            return self._driver
        if self._driver is not None:
            self._driver.end()
        with self._timed("  Spark's start"):
            return self._start()

    def _start(self) -> Child:
        self._starts += 1
        master = "local[2,4]" if self._starts % 2 else "local[2]"
        self._driver = Child.python("tests.faults.driver", self._way, master, log=self._folder / "driver.log")
        self._driver.answer(_SPARK_SECONDS)
        return self._driver

    # after it

    def _heal(self, outcome: Outcome) -> None:
        """Take faults away, and do without them what the broken run didn't."""
        outcome.hits = self._clear()
        driver = self._driver
        if driver and (outcome.outcome in {"killed", "crash", "terminal"} or outcome.round.fault in _BROKEN_DRIVER):
            # what a dead driver has left behind may go on for a while, as it would anywhere
            if outcome.round.job == "maintain":
                driver.settle(20)
            driver.end()
            self._driver = None
        self._finish(outcome.round.job)

    def _clear(self) -> int:
        with urllib.request.urlopen(f"{self._relay_url}/_faults", timeout=10) as answer:
            hits = sum(int(one["done"]) for one in json.load(answer)["rules"])
        request = urllib.request.Request(f"{self._relay_url}/_faults", b"[]", method="PUT")
        urllib.request.urlopen(request, timeout=10).close()
        if self._toxiproxy:
            self._toxiproxy.heal()
        return hits

    def _finish(self, job: str) -> None:
        self._ingest_all()
        if job == "erase":
            self._done("erase", **self._given)
            self._model.erase(self._subject)
            found = self._done("verify", **self._given)["report"]
            if not found["clean"]:
                raise DifferenceError(f"erasure of {self._subject} isn't clean: {found}")
            self._to_writer("retire", user=self._subject, silent=False)
        elif job == "replay":
            self._done("replay")
            self._model.replay()
            self._ingest_all()
        elif job != "ingest":
            self._done(job, **self._given)
            if job == "maintain":
                self._done("compact")

    def _ingest_all(self) -> None:
        """Ingest until nothing waits; a message that a killed run had taken is told again a few seconds later."""
        manifest = Manifest(self._cloud.dynamodb, self._lake.names.manifest_table())
        missing: set[str] = set()
        for _ in range(20):
            self._done("ingest")
            taken = manifest.taken(TENANT, DATASET, "s3://")
            missing = self._model.objects.keys() - taken
            if not missing and not manifest.waiting_series(TENANT, DATASET):
                return
            time.sleep(1)
        raise DifferenceError(f"{len(missing)} objects are never ingested: {sorted(missing)[:5]}")

    def _done(self, job: str, **given: Any) -> dict[str, Any]:
        """Run a job without faults; it has to come to its end, or be told in words that it is to be run again."""
        told: dict[str, Any] = {}
        for _ in range(4):
            with self._timed(f"  {job}"):
                told = self._run(job, None, **given)
            if told["outcome"] == "done":
                return told
            if told["outcome"] not in {"conflict", "transient"}:
                break
            time.sleep(1)
        raise DifferenceError(f"without a fault {job} ended with {told['outcome']}: {_why(told)}")

    # checks

    def _check(self, one: Round, outcome: Outcome) -> None:
        expected = sorted_tables(self._model.expected_rows(), self._model.expected_quarantine())
        outcome.rows, outcome.quarantine = len(expected.rows), len(expected.quarantine)
        told = self._done("rows")["report"]
        _same("Spark", sorted_tables(told["rows"], told["quarantine"]), expected)
        _same("PyIceberg", by_pyiceberg(self._lake, self._cloud), expected)
        outcome.checks = ["Spark", "PyIceberg", "audit"]
        if self._trino_every and one.number % self._trino_every == 0:
            if self._trino is None:
                self._trino = start_trino(self._folder / "trino", self._endpoint, self._say)
                self._trino_every = self._trino_every if self._trino else 0
            if self._trino:
                _same("Trino", by_trino(self._trino, self._lake), expected)
                outcome.checks.append("Trino")
        self._audit()
        if one.number % 4 == 3:
            self._again()
            outcome.checks.append("again")

    def _audit(self) -> None:
        sheet = balance(gather(self._lake, self._cloud, DATASET))
        (row,) = [one for one in sheet.rows if one.tenant == TENANT]
        total = vars(sheet.total)
        found = {name: total[name] for name in self._model.expected_counts()}
        if found != self._model.expected_counts():
            raise DifferenceError(f"audit: {found}, expected {self._model.expected_counts()}; the sheet: {sheet}")
        if not sheet.balanced or sheet.gaps:
            raise DifferenceError(f"audit: {row} doesn't balance, or has gaps: {sheet.gaps}, {sheet.tables}")

    def _again(self) -> None:
        """Everything once more: with nothing new, nothing may change."""
        for job in ("ingest", "compact"):
            self._done(job)
        before = self._snapshots()
        for job in ("ingest", "compact"):
            self._done(job)
        if self._snapshots() != before:
            raise DifferenceError(f"a second run with nothing new changed a table: {before}, then {self._snapshots()}")
        self._audit()

    def _snapshots(self) -> list[int | None]:
        catalog, database = glue_catalog(self._cloud), self._lake.names.database(TENANT)
        tables = (catalog.load_table((database, name)) for name in (DATASET, "quarantine"))
        return [one.metadata.current_snapshot_id for one in tables]

    # the writers

    def _to_writer(self, do: str, **given: Any) -> None:
        self._writer.tell(do=do, **given)
        self._collect()

    def _collect(self) -> None:
        """Take what was delivered into the model, until the command is done."""
        while not (told := self._writer.answer(120)).get("done"):
            self._model.deliver(told)


def _why(told: dict[str, Any]) -> str:
    return f"{told.get('trace') or told.get('error')}; it said {told.get('said')}"


def _same(who: str, found: Tables, expected: Tables) -> None:
    for what in ("rows", "quarantine"):
        there, wanted = Counter(getattr(found, what)), Counter(getattr(expected, what))
        if there != wanted:
            lost, odd = wanted - there, there - wanted
            raise DifferenceError(
                f"{who}: {what} aren't the model's: {lost.total()} missing, as {list(lost)[:3]}; "
                f"{odd.total()} too many, as {list(odd)[:3]}"
            )
