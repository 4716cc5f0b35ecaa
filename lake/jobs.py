"""Owns the jobs of a lake: their order, schedules, resources and retries, declared once for every runner.

A job is `python -m spark_jobs.<job>`. What runs it (this machine, the Spark Operator, Airflow) takes what it needs to
know from here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["COMPACT", "FILES", "INGEST", "MAINTAIN", "Executors", "Job", "PodSize", "Schedule"]


@dataclass(frozen=True)
class PodSize:
    """What a driver or an executor gets."""

    cores: int
    """Tasks at once."""
    memory_mib: int
    """JVM heap. What Python and the JVM's own needs take comes on top, as `Job.overhead` says."""
    cpu: str | None = None
    """Processor time that is reserved, as Kubernetes writes it (`500m`, `2`); as much as the cores without it."""


@dataclass(frozen=True)
class Executors:
    """How many executors a run may have; it grows and shrinks between the two."""

    least: int = 1
    most: int = 4


_FIELD = r"(\*|[0-9A-Za-z]+(-[0-9A-Za-z]+)?)(/[0-9]+)?"
_CRON = re.compile(rf"{_FIELD}(,{_FIELD})*( {_FIELD}(,{_FIELD})*){{4}}")
_EVERY = re.compile(r"@every ([0-9]+)(s|m|h)")
_NAMED = {"@hourly": "0 * * * *", "@daily": "0 0 * * *", "@weekly": "0 0 * * 0", "@monthly": "0 0 1 * *"}
_SECONDS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Schedule:
    """When a job runs by itself, in UTC."""

    text: str
    """As declared: five fields of cron, `@hourly` and its like, or `@every 30s`."""

    @classmethod
    def parse(cls, text: str) -> Schedule:
        """Check a schedule.

        Raises:
            ValueError: it is none, with what is allowed.
        """
        if not (_CRON.fullmatch(text) or text in _NAMED or _EVERY.fullmatch(text)):
            raise ValueError(
                f"no schedule: give five fields of cron (`*/5 * * * *`), one of {', '.join(_NAMED)}, "
                "or `@every` with a number and s, m or h (`@every 90s`)"
            )
        return cls(text)

    @property
    def cron(self) -> str | None:
        """Five fields of cron; None where it is an interval."""
        return None if self.seconds else _NAMED.get(self.text, self.text)

    @property
    def seconds(self) -> int | None:
        """The interval in seconds; None where it is a cron expression."""
        found = _EVERY.fullmatch(self.text)
        return int(found[1]) * _SECONDS[found[2]] if found else None

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Job:
    """One job of the lake."""

    name: str
    """`python -m spark_jobs.<name>` is what it runs."""
    after: tuple[str, ...] = ()
    """Jobs that come before it where a runner runs several in a row."""
    schedule: Schedule | None = None
    """None: only by hand, or after another."""
    retries: int = 3
    """How often a failed run is tried again."""
    retry_seconds: int = 30
    """Wait before the first retry; the second waits twice as long, and so on."""
    timeout_minutes: int = 120
    """A run that takes longer is ended; the next one goes on where it was."""
    driver: PodSize = PodSize(1, 2048)
    executor: PodSize = PodSize(2, 4096)
    executors: Executors = Executors()
    every_seconds: int | None = None
    """Of ingest: by schedule it goes on without an end, a round every so many seconds; the schedule starts it again
    where it has ended."""
    overhead: float = 0.4
    """Share of the heap that a pod gets on top of it: Python judges the records outside of the JVM."""


FILES = Job("files", schedule=Schedule("*/5 * * * *"))
"""Only of a lake that declares drops; ingest then comes after it."""
INGEST = Job("ingest", schedule=Schedule("*/5 * * * *"))
COMPACT = Job("compact", after=("ingest",), schedule=Schedule("17 * * * *"))
MAINTAIN = Job("maintain", after=("compact",), schedule=Schedule("41 3 * * *"))
