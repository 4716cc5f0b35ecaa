"""Owns the schedule: which job is struck by which fault behind which of its steps, drawn from a seed.

Steps are read off the jobs' own sources, so one that is added is in the campaign. Every step gets its turn before any
gets its second, each time with another fault: all steps have had theirs after as many strikes as there are steps, and
all pairs of a step and a fault after as many as there are pairs.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

from spark_jobs.erase import STEPS as ERASE_STEPS
from tests.faults.processes import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["FAULTS", "START", "Strike", "steps", "strikes"]

START = "start"
"""In place of a step: before the job begins."""
_SOURCES = {
    "ingest": ("ingest.py", "batch.py"),
    "compact": ("compact.py", "compact_rewrite.py"),
    "maintain": ("maintain.py",),
    "replay": ("replay.py",),
}
_AFTER = re.compile(r"after\(\"([a-z ]+)\"\)")


def steps() -> dict[str, tuple[str, ...]]:
    """Named steps of each job, the start among them."""
    found = {"erase": (START, *ERASE_STEPS)}
    for job, files in _SOURCES.items():
        text = "".join((ROOT / "spark_jobs" / name).read_text() for name in files)
        found[job] = (START, *dict.fromkeys(_AFTER.findall(text)))
    return found


def _refuse(code: str, times: int, **where: Any) -> dict[str, Any]:
    return {"rules": [{"action": "refuse", "code": code, "times": times, **where}]}


def _rule(action: str, times: int = 1, **where: Any) -> dict[str, Any]:
    return {"rules": [{"action": action, "times": times, **where}]}


def _toxic(kind: str, seconds: float, stream: str = "downstream", **attributes: int) -> dict[str, Any]:
    return {"toxic": {"type": kind, "seconds": seconds, "stream": stream, "with": attributes}}


_S3, _COMMIT = {"service": "s3"}, {"service": "glue", "call": "UpdateTable"}
_NOTES = {"service": "dynamodb", "call": "BatchWriteItem|PutItem"}
_TABLE_FILE = {"service": "s3", "call": "PutObject", "key": "/analytics-ready/"}
_OWN_FILE = {"service": "s3", "call": "PutObject", "key": "/(batches|erasures|processed|errors)/"}

FAULTS: dict[str, dict[str, Any]] = {
    "none": {},
    # processes
    "kill driver": {"kill": "driver"},
    "kill driver, its JVM lives on": {"kill": "python"},
    "kill JVM": {"kill": "jvm"},
    "kill workers": {"kill": "workers"},
    "kill executor": {"kill": "executor"},
    "kill before the commit": _rule("kill", **_COMMIT),
    "kill after the commit": _rule("kill after", **_COMMIT),
    "kill after an object": _rule("kill after", **_OWN_FILE),
    "kill after a table's file": _rule("kill after", **_TABLE_FILE),
    "kill after a note": _rule("kill after", **_NOTES),
    # answers of AWS's
    "S3 503 SlowDown": _refuse("SlowDown", 3, **_S3),
    "S3 503 SlowDown, long": _refuse("SlowDown", 60, **_S3),
    "S3 500": _refuse("InternalError", 3, **_S3),
    "Glue conflict": _refuse("ConcurrentModificationException", 1, **_COMMIT),
    "Glue conflict, long": _refuse("ConcurrentModificationException", 12, **_COMMIT),
    "Glue throttles": _refuse("ThrottlingException", 3, service="glue"),
    "DynamoDB throttles": _refuse("ProvisionedThroughputExceededException", 3, service="dynamodb"),
    "DynamoDB throttles, long": _refuse("ProvisionedThroughputExceededException", 20, service="dynamodb"),
    "SQS 503": _refuse("ServiceUnavailable", 4, service="sqs"),
    # replies that never come
    "reply of the commit lost": _rule("lose", **_COMMIT),
    "reply of the commit lost, long": _rule("lose", 8, **_COMMIT),
    "reply of an object lost": _rule("lose", **_OWN_FILE),
    "reply of a table's file lost": _rule("lose", 2, **_TABLE_FILE),
    "reply of a note lost": _rule("lose", 2, **_NOTES),
    "reply of SQS lost": _rule("lose", 2, service="sqs"),
    "S3 cut": _rule("cut", 3, **_S3),
    "Glue cut": _rule("cut", 3, service="glue"),
    "S3 stalls": _rule("stall", 2, seconds=4.0, **_S3),
    # the way to AWS as a whole
    "connections reset": _toxic("reset_peer", 2.0, timeout=0),
    "connections end after 20 KB": _toxic("limit_data", 3.0, bytes=20_000),
    "nothing comes through": _toxic("timeout", 4.0, "upstream", timeout=0),
    "20 KB a second": _toxic("bandwidth", 5.0, rate=20),
    "0.3 s late": _toxic("latency", 5.0, latency=300, jitter=200),
    "nobody listens": _toxic("down", 3.0),
}
"""What can happen, by its name in the log."""


@dataclass(frozen=True)
class Strike:
    """One run of a job that is broken off, or made hard."""

    number: int
    """From 0, of its seed."""
    job: str
    step: str
    nth: int
    """Which time of that step."""
    fault: str
    seed: int
    """Of what else is drawn for it."""

    def __str__(self) -> str:
        nth = f" ({self.nth}.)" if self.nth > 1 else ""
        return f"{self.number}: {self.job}, {self.step}{nth}: {self.fault}"


def strikes(seed: int, left_out: frozenset[str] = frozenset()) -> Iterator[Strike]:
    """All strikes of a seed, without an end; the same each time.

    Args:
        seed: what they are drawn from.
        left_out: faults that can't be had on this machine.
    """
    rng = random.Random(seed)  # noqa: S311 - no secret is drawn
    places = [(job, step) for job, names in sorted(steps().items()) for step in names]
    faults = sorted(FAULTS.keys() - left_out)
    orders = {place: rng.sample(faults, len(faults)) for place in places}
    numbers = count()
    for turn in count():
        for place in rng.sample(places, len(places)):
            fault = orders[place][turn % len(faults)]
            # of ingest's steps there are several: it has three objects a batch, and two lanes
            nth = rng.choice((1, 1, 2)) if place[0] == "ingest" and place[1] not in {START, "data"} else 1
            yield Strike(next(numbers), *place, nth, fault, rng.getrandbits(32))
