"""Owns the campaign: round after round jobs are broken off, healed, and everything is held to the model.

A round has a few strikes: writers deliver, and a job runs until its fault strikes. Then what is left is finished
without faults, as the next scheduled runs would; rows and quarantine as Spark, PyIceberg and Trino read them have to be
the model's, the audit has to balance with the model's own numbers, and what was erased has to be gone. A difference
ends the campaign with the one command that repeats it.
"""

from __future__ import annotations

import random
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

from lake.clients import Cloud
from lake.manifest import Manifest
from lake.provision import provision_storage
from tests.faults.checks import DifferenceError, check_audit, check_tables, snapshots
from tests.faults.model import Model
from tests.faults.readers import by_pyiceberg, by_trino, sorted_tables, start_trino
from tests.faults.schedule import FAULTS, START, Strike, strikes
from tests.faults.stage import Stage
from tests.faults.world import DATASET, REGION, TENANT, lake_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from athena.trino import TrinoServer

__all__ = ["Campaign", "Round", "Struck"]

EPOCH = 8
"""Rounds on one lake: the next begins with an empty one."""
_DAYS = 10
"""By which maintenance's clock is ahead, so that snapshots and stray files are old."""
_QUIET = {"done", "conflict", "transient", "killed"}
"""What a fault that passes may lead to."""
_TCP = frozenset(name for name, one in FAULTS.items() if "toxic" in one)
_BROKEN_DRIVER = {"kill JVM"}
_ENDED = {"killed", "crash", "terminal"}
_AGAIN = 4
"""After each so-many-th round everything is run twice more."""


@dataclass
class Struck:
    """What became of a strike."""

    strike: Strike
    outcome: str = ""
    """Of the run: `done`, `transient`, `conflict`, `killed`; others are differences."""
    is_set: bool = False
    """Whether the fault was set: whether the job came to that step."""
    hits: int = 0
    """Requests that the relay failed, of faults that are the relay's."""
    error: str = ""
    seconds: float = 0.0


@dataclass
class Round:
    """What became of a round."""

    number: int
    struck: list[Struck] = field(default_factory=list)
    rows: int = 0
    quarantine: int = 0
    checks: list[str] = field(default_factory=list)
    difference: str = ""
    seconds: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)
    """Seconds of its parts, and of each job in them."""


class Campaign:
    """Processes, lake and model of the rounds of one seed."""

    def __init__(
        self,
        seed: int,
        endpoint: str,
        folder: Path,
        say: Callable[[str], None],
        *,
        at_once: int = 3,
        trino_every: int = 1,
        master: str = "",
    ) -> None:
        """Start what all rounds share: relay, toxiproxy, writers.

        Args:
            seed: what everything is drawn from.
            endpoint: of a MiniStack that is the campaign's own.
            folder: for logs.
            say: takes a line about what can't be had.
            at_once: strikes of a round.
            trino_every: Trino reads after each so-many-th round; 0 is never.
            master: Spark's; without it one of this machine, which repeats a failed task in every other driver.
        """
        self.seed = seed
        self.cloud = Cloud(REGION, endpoint)
        self.lake = lake_of("none")
        self._endpoint = endpoint
        self._folder = folder
        self._say = say
        self._at_once = at_once
        self._has_executors = bool(master)
        self._stage = Stage(endpoint, folder, say, master)
        self._epoch = -1
        self._model = Model()
        self._open: set[str] = set()
        """Jobs that were struck, or have to tidy up, and are to be run without faults."""
        self._erasing: set[str] = set()
        """Users who are being erased; those of them whose erasure was broken off are `_begun`."""
        self._begun: set[str] = set()
        self._trino: TrinoServer | None = None
        self._trino_every = trino_every
        self._parts: dict[str, float] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._trino:
            self._trino.stop()
        self._stage.end()

    def rounds(self, first: int, count: int, own: Sequence[Strike] = ()) -> Iterator[Round]:
        """Go through rounds; the last one may tell a difference.

        Args:
            first: number of the first; its lake's rounds before it are gone through too.
            count: how many.
            own: strikes of the caller's, in place of the seed's.
        """
        begin = first - first % EPOCH
        left_out = (frozenset() if self._stage.toxiproxy else _TCP) | (
            frozenset() if self._has_executors else {"kill executor"}
        )
        drawn = iter(own) if own else islice(strikes(self.seed, left_out), begin * self._at_once, None)
        for number in range(begin, first + count):
            done = self._round(number, list(islice(drawn, self._at_once)))
            yield done
            if done.difference:
                return

    # a round

    def _round(self, number: int, planned: Sequence[Strike]) -> Round:
        done = Round(number)
        started, spark = time.monotonic(), self._stage.spark_seconds
        self._parts = done.parts
        try:
            if number // EPOCH != self._epoch:
                with self._timed("begin"):
                    self._begin(number // EPOCH)
            for strike in planned:
                with self._timed("strikes"):
                    struck = Struck(strike)
                    done.struck.append(struck)
                    self._strike(struck)
            with self._timed("finish"):
                self._finish()
            with self._timed("checks"):
                self.check(done)
        except DifferenceError as difference:
            done.difference = str(difference)
        done.parts["  Spark's start"] = round(self._stage.spark_seconds - spark, 2)
        done.seconds = round(time.monotonic() - started, 1)
        return done

    @contextmanager
    def _timed(self, part: str) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self._parts[part] = round(self._parts.get(part, 0.0) + time.monotonic() - started, 2)

    def _begin(self, epoch: int) -> None:
        """An empty lake, and first batches in it."""
        self.lake = lake_of(f"faults{self.seed}e{epoch}")
        for _ in provision_storage(self.lake, self.cloud):
            pass
        self._model, self._open, self._erasing, self._begun = Model(), set(), set(), set()
        self._epoch = epoch
        self._to_writer("begin", company=self.lake.company, endpoint=self._endpoint, seed=self.seed * 1000 + epoch)
        self._to_writer("write", objects=5, pause=0.0)
        self._ingest_all()

    def _strike(self, struck: Struck) -> None:
        strike = struck.strike
        started = time.monotonic()
        rng = random.Random(strike.seed)  # noqa: S311 - no secret is drawn
        given = self._prepared(strike, rng)
        self._stage.ready()  # a driver that has to be started first would leave the writers behind
        rival = strike.job != "maintain" and rng.random() < 0.3
        self._stage.tell_writer("write", objects=rng.randrange(1, 4), pause=rng.choice((0.0, 0.1, 0.4)), rival=rival)
        if strike.fault != "none":
            step = None if strike.step == START else strike.step
            fault = {"name": strike.fault, "step": step, "nth": strike.nth, "delay": rng.random() / 2}
            given["fault"] = fault | FAULTS[strike.fault] | self._stage.controls
        self._open.add(strike.job)
        told = self._stage.run(strike.job, self.lake.company, **given)
        if told["outcome"] == "done":
            self._begun.discard(given.get("user", ""))
        struck.outcome, struck.error = told["outcome"], str(told.get("error", ""))[:400]
        struck.is_set, struck.hits = told["is_set"], self._stage.clear()
        self._collect()
        if struck.outcome in _ENDED or strike.fault in _BROKEN_DRIVER:
            self._stage.give_up()
        struck.seconds = round(time.monotonic() - started, 1)
        may = {"done"} if strike.fault == "none" else _QUIET
        if strike.fault in _BROKEN_DRIVER:
            may |= {"terminal"}  # to this process; the next one does it
        if struck.outcome not in may:
            raise DifferenceError(f"{strike} led to {struck.outcome}: {_why(told)}")

    def _prepared(self, strike: Strike, rng: random.Random) -> dict[str, Any]:
        """Bring about what the job needs to have something to do."""
        match strike.job:
            case "erase":
                # a replay that was broken off may have sent an event round or not: which, no model could tell
                self._close("replay")
                free = sorted(set(self._model.users) - self._erasing)
                known = sorted(self._begun)
                user = rng.choice(free) if not known or (free and rng.random() < 0.5) else rng.choice(known)
                if user not in self._erasing:
                    self._erasing.add(user)
                    self._to_writer("retire", user=user, silent=True)
                self._begun.add(user)
                return {"user": user, "erasure": f"e{strike.number}"}
            case "ingest":
                self._to_writer("write", objects=rng.randrange(2, 5), pause=0.0, kind="events")
            case "replay":
                self._close("erase")
                self._to_writer("write", objects=2, pause=0.0, kind="errors")
                self._done("ingest")
            case "compact" | "maintain" if rng.random() < 0.4 or strike.step == "deletes":
                self._done("touch")
                self._open.add("compact")
            case "compact" | "maintain":
                self._to_writer("write", objects=2, pause=0.0, kind="events")
                self._done("ingest")
        if strike.job == "maintain":
            self._stage.lay_ghosts()
            return {"days": _DAYS}
        return {}

    # without faults

    def _finish(self) -> None:
        """Do without faults what the broken runs left undone."""
        self._stage.lay_ghosts()
        self._ingest_all()
        for job in ("erase", "replay", "compact", "maintain"):
            self._close(job)
        self._open = set()

    def _close(self, job: str) -> None:
        if job not in self._open:
            return
        self._open.discard(job)
        self._ingest_all()
        match job:
            case "erase":
                for user in sorted(self._erasing):
                    self._erase(user)
                self._erasing, self._begun = set(), set()
            case "replay":
                self._done("replay")
                self._model.replay()
                self._ingest_all()
            case "maintain":
                self._stage.lay_ghosts()
                self._done("maintain", days=_DAYS)
            case _:
                self._done(job)

    def _erase(self, user: str) -> None:
        # goes on with the one that was broken off, under that one's id
        erasure = self._done("erase", user=user, erasure=f"last-of-{user}")["report"]["id"]
        self._model.erase(user)
        found = self._done("verify", user=user, erasure=erasure)["report"]
        if not found["clean"]:
            raise DifferenceError(f"erasure {erasure} of {user} isn't clean: {found}")
        self._to_writer("retire", user=user, silent=False)

    def _ingest_all(self) -> None:
        """Ingest until nothing waits; a message that a killed run had taken is told again a few seconds later."""
        manifest = Manifest(self.cloud.dynamodb, self.lake.names.manifest_table())
        missing: set[str] = set()
        for _ in range(20):
            self._done("ingest")
            missing = self._model.objects.keys() - manifest.taken(TENANT, DATASET, "s3://")
            if not missing and not manifest.waiting_series(TENANT, DATASET):
                return
            time.sleep(1)
        raise DifferenceError(f"{len(missing)} objects are never ingested: {sorted(missing)[:5]}")

    def _done(self, job: str, **given: Any) -> dict[str, Any]:
        """Run a job without faults; it has to come to its end, or to tell that it is to be run again."""
        told: dict[str, Any] = {}
        for _ in range(4):
            with self._timed(f"  {job}"):
                told = self._stage.run(job, self.lake.company, **given)
            if told["outcome"] == "done":
                return told
            if told["outcome"] not in {"conflict", "transient"}:
                break
            time.sleep(1)
        raise DifferenceError(f"without a fault {job} ended with {told['outcome']}: {_why(told)}")

    # checks

    def check(self, done: Round) -> None:
        """Hold everything to the model.

        Raises:
            DifferenceError: something isn't what it has to be.
        """
        expected = sorted_tables(self._model.expected_rows(), self._model.expected_quarantine())
        done.rows, done.quarantine = len(expected.rows), len(expected.quarantine)
        told = self._done("rows")["report"]
        check_tables("Spark", sorted_tables(told["rows"], told["quarantine"]), expected)
        check_tables("PyIceberg", by_pyiceberg(self.lake, self.cloud), expected)
        done.checks = ["Spark", "PyIceberg", "audit"]
        if self._trino_every and done.number % self._trino_every == 0:
            if self._trino is None:
                self._trino = start_trino(self._folder / "trino", self._endpoint, self._say)
                self._trino_every = self._trino_every if self._trino else 0
            if self._trino:
                check_tables("Trino", by_trino(self._trino, self.lake), expected)
                done.checks.append("Trino")
        check_audit(self.lake, self.cloud, self._model)
        if done.number % _AGAIN == _AGAIN - 1:
            self._again()
            done.checks.append("again")

    def _again(self) -> None:
        """Everything once more: with nothing new, nothing may change."""
        self._done("compact")
        before = snapshots(self.lake, self.cloud)
        for job in ("ingest", "replay", "compact"):
            if job != "replay" or not self._model.refused:
                self._done(job)
        after = snapshots(self.lake, self.cloud)
        if after != before:
            raise DifferenceError(f"a second run with nothing new changed a table: {before}, then {after}")
        check_audit(self.lake, self.cloud, self._model)

    # the writers

    def _to_writer(self, do: str, **given: Any) -> None:
        self._stage.tell_writer(do, **given)
        self._collect()

    def _collect(self) -> None:
        """Take what was delivered into the model."""
        for told in self._stage.delivered():
            self._model.deliver(told)


def _why(told: dict[str, Any]) -> str:
    return f"{told.get('trace') or told.get('error')}; it said {told.get('said')}"
