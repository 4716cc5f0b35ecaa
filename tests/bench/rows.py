"""Owns what a benchmark says: one comparison a row, on the screen and in a file."""

from __future__ import annotations

import json
import os
import platform
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

import psutil
from rich.console import Console
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


@dataclass(frozen=True)
class Row:
    """Ours beside another, measured in one run."""

    name: str
    measure: str
    """What the numbers are, with their unit."""
    ours: float
    against: float | None
    """The other's number; None where there is none to be had."""
    other: str
    """What the other is."""
    aim: str
    holds: bool

    @property
    def ratio(self) -> float | None:
        """Ours divided by the other."""
        return self.ours / self.against if self.against else None


def at_most(name: str, measure: str, ours: float, against: float, other: str, limit: float) -> Row:  # noqa: PLR0917 - read like a row
    """A row that holds when ours is at most so many times the other."""
    return Row(name, measure, ours, against, other, f"at most {limit:g} times", ours <= limit * against)


_STAND_INS = {"ministack", "tests.bench.wire"}
"""Modules run as processes in place of what AWS does."""


@dataclass
class Cost:
    """What a piece of work took."""

    seconds: float = 0.0
    cpu: float = 0.0
    """Seconds of processor, of this process and those that it started, but for the local AWS."""


@contextmanager
def measured() -> Iterator[Cost]:
    """Measure what is done within; other work on the machine stretches the seconds, and hardly the processor's."""
    cost = Cost()
    cpu, started = _cpu_seconds(), time.monotonic()
    yield cost
    cost.seconds, cost.cpu = time.monotonic() - started, _cpu_seconds() - cpu


def _cpu_seconds() -> float:
    found = 0.0
    me = psutil.Process()
    for one in (me, *me.children(recursive=True)):
        with suppress(psutil.Error):
            if one != me and _STAND_INS.intersection(one.cmdline()):
                continue
            times = one.cpu_times()
            found += times.user + times.system
    return found


def print_rows(rows: Sequence[Row]) -> None:
    """Print the table."""
    table = Table("benchmark", "measure", title=f"{platform.machine()}, {os.cpu_count()} cores", title_justify="left")
    for name in ("ours", "against", "ratio"):
        table.add_column(name, justify="right")
    for name in ("what against", "aim", "holds"):
        table.add_column(name)
    for row in rows:
        against = "" if row.against is None else f"{row.against:,.2f}"
        ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        numbers = (f"{row.ours:,.2f}", against, ratio)
        table.add_row(row.name, row.measure, *numbers, row.other, row.aim, "yes" if row.holds else "NO")
    console = Console(highlight=False)
    console.width = max(console.width, 160)
    console.print(table)


def write_rows(rows: Sequence[Row], path: Path) -> None:
    """Write them as JSON: name, measure, ours, against, ratio, aim, holds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([{**asdict(one), "ratio": one.ratio} for one in rows], indent=2), encoding="utf-8")
