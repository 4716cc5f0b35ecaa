"""Measures whether cost follows new data: the same batches into a small table, a large one, and an old one.

The large table is a hundred times the small one, and what a hundred batches, one a day, leave behind hourly compaction
and daily maintenance: a hundred days of one file each, every object and receipt still there. The old one has as many
snapshots besides as maintenance ever leaves. Each request goes through a relay that counts it, for all tables alike:
seconds tell what this machine did in one run, requests and bytes are the same in each.
"""

from __future__ import annotations

import statistics
import sys
import tracemalloc
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from rows import Row, at_most, measured
from table_bench import NOW_MS, Bench, make_lake, objects
from wire import counted_wire

from lake.clients import Cloud
from lake.shape import SNAPSHOTS_MOST
from lake.tables import glue_catalog
from spark_jobs import compact, maintain
from spark_jobs.compact_rewrite import iceberg_table
from spark_jobs.history import summary_of
from spark_jobs.session import create_session

sys.path.insert(0, str(Path(__file__).parents[1]))
from conftest import running_ministack

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from pyspark.sql import SparkSession
    from wire import Crossing, Wire

_BATCHES = 100
_WARM = 2  # batches that are not counted
_TURNS = 20  # that are: a multiple of the ten that Iceberg merges manifests after
_LOOKS = 3  # batches whose memory is looked at
_LIMIT = 1.1
_OLD = 1.5  # of a table with as many snapshots as it ever has, however large it is
_DAY_MS = 86_400_000
_STEPS = {"quarantine": "fetch, judge, look for duplicates", "data": "write and commit", "receipt": "receipt"}
_NO_AIM = {
    "served": "none: a part",
    "received": "none: each commit writes the list of all snapshots, which maintenance bounds",
}


@dataclass
class _Found:
    """What the counted batches into one table took."""

    runs: list[dict[str, float]] = field(default_factory=list)
    calls: Counter[str] = field(default_factory=Counter)
    """Requests by kind, of all of them."""
    looks: list[dict[str, float]] = field(default_factory=list)
    """Megabytes at the most, of batches that weren't counted."""

    def least(self, key: str) -> float:
        """The quickest one's: the least disturbed."""
        return min(one[key] for one in self.runs)

    def mean(self, key: str) -> float:
        """All of them's: what is done in some only is a part of it."""
        return statistics.mean(one[key] for one in self.runs)


@contextmanager
def _place(folder: Path) -> Iterator[tuple[SparkSession, Cloud, Wire]]:
    with running_ministack(folder) as url, counted_wire(url) as wire:
        cloud = Cloud("us-east-1", wire.url)
        spark = create_session(cloud, app_name="bench")
        try:
            yield spark, cloud, wire
        finally:
            spark.stop()


def rows(folder: Path, scale: float) -> list[Row]:
    """All comparisons of cost with a table's size and age."""
    found: list[Row] = []
    events, count = max(100, round(10_000 * scale)), max(2, round(20 * scale))
    batches = max(3, round(_BATCHES * min(1, scale * 10)))
    with _place(folder) as (spark, cloud, wire):
        small, large = (make_lake(spark, cloud, name, objects=count) for name in ("small", "large"))
        _fill(small, 1, events, count)
        _fill(large, batches, events, count)
        turns = _Turns(spark, wire, events, count)
        found += _rows(f"{events:,} events into a table of {batches} batches", turns.take(small, large), _LIMIT)
        snapshots = max(200, round(SNAPSHOTS_MOST * min(1, scale * 10)))
        _age(large, snapshots)
        found += _rows(f"the same, and of {snapshots:,} snapshots", turns.take(small, large), _OLD)
    return found


def _fill(bench: Bench, batches: int, events: int, count: int) -> None:
    """A batch a day, up to yesterday, and the upkeep that comes after."""
    # at the same rate, a table a hundred times as large is a hundred times as old
    for days in range(batches, 0, -1):
        bench.deliver(objects(events, count, first=days * events, made_ms=NOW_MS - days * _DAY_MS), days=days)
    bench.ingest(batches)
    compact.run(bench.spark, bench.lake, bench.cloud)
    # the batches were days apart: of a hundred days maintenance keeps the snapshots of the last three, and the least
    later = datetime.now(UTC) + timedelta(hours=bench.lake.jobs.upkeep.snapshot_hours + 1)
    maintain.run(bench.spark, bench.lake, bench.cloud, clock=lambda: later)


def _age(bench: Bench, snapshots: int) -> None:
    """Commits without files, whose snapshots are as long as those of ingest, up to so many."""
    metadata = glue_catalog(bench.cloud).load_table((bench.lake.names.database("acme"), "clicks")).metadata
    longest = max(len(str(summary_of(one))) for one in metadata.snapshots)
    table = iceberg_table(bench.spark, bench.table.partition(".")[2])
    for _ in range(snapshots - len(metadata.snapshots)):
        table.newFastAppend().set("padding", "x" * (longest // 2)).commit()


@dataclass
class _Turns:
    """Batches into both tables in turn, so that what else the machine does meets both."""

    spark: SparkSession
    wire: Wire
    events: int
    count: int
    done: int = 0

    def take(self, small: Bench, large: Bench) -> tuple[_Found, _Found]:
        """A warm-up and then the counted ones; answers what those into the small and into the large one took."""
        found = (_Found(), _Found())
        for turn in range(_WARM + _TURNS):
            pairs = list(zip((small, large), found, strict=True))
            for bench, one in pairs if turn % 2 else reversed(pairs):
                bench.deliver(objects(self.events, self.count, first=10**9 + self.done * self.events))
                self.wire.crossed()
                crossed: list[tuple[Crossing, ...]] = []
                with measured() as cost:
                    steps = bench.ingest(look=lambda to=crossed: to.append(self.wire.crossed()))
                if turn >= _WARM:
                    served = {f"{step} served": _served(some) for step, some in zip(steps, crossed, strict=True)}
                    every = [some for step in crossed for some in step]
                    one.runs.append({"cpu": cost.cpu, "all": cost.seconds, **steps, **served, **_sums(every)})
                    for some in every:
                        one.calls[some.kind] += some.requests
            self.done += 1
        for _ in range(_LOOKS):
            for bench, one in zip((small, large), found, strict=True):
                bench.deliver(objects(self.events, self.count, first=10**9 + self.done * self.events))
                one.looks.append(self._memory(bench))
            self.done += 1
        return found

    def _memory(self, bench: Bench) -> dict[str, float]:
        """The most that the driver holds on to after any step of a batch."""
        jvm = self.spark._jvm
        runtime, heap = jvm.Runtime.getRuntime(), [0.0]

        def look() -> None:
            jvm.System.gc()
            heap.append((runtime.totalMemory() - runtime.freeMemory()) / 2**20)

        tracemalloc.start()
        bench.ingest(look=look)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return {"heap": max(heap), "python": most / 2**20}


def _sums(crossed: Sequence[Crossing]) -> Mapping[str, float]:
    return {
        "requests": sum(one.requests for one in crossed),
        "received": sum(one.received + one.sent for one in crossed) / 2**20,
        "listed": sum(one.received for one in crossed if one.kind.startswith("s3 ListObjects")) / 1024,
    }


def _served(crossed: Sequence[Crossing]) -> float:
    return sum(one.seconds for one in crossed)


def _rows(name: str, found: tuple[_Found, _Found], limit: float) -> Iterator[Row]:
    small, large = found

    def row(measure: str, ours: float, against: float, why: str = "") -> Row:
        other = "the same on a table of one"
        if why:
            return Row(name, measure, ours, against, other, why, holds=True)
        return at_most(name, measure, ours, against, other, limit)

    yield row("seconds of processor, on average, but for the local AWS", large.mean("cpu"), small.mean("cpu"))
    yield row("seconds, the least", large.least("all"), small.least("all"))
    yield row("seconds: plan, the least", large.least("plan"), small.least("plan"))
    yield row(
        "seconds: plan, of which requests, the least",
        large.least("plan served"),
        small.least("plan served"),
        _NO_AIM["served"],
    )
    for step, told in _STEPS.items():
        yield row(f"seconds: {told}, the least", large.least(step), small.least(step))
    yield row("requests, on average", large.mean("requests"), small.mean("requests"))
    for kind in sorted({*small.calls, *large.calls}):
        one, other = (calls[kind] / _TURNS for calls in (large.calls, small.calls))
        if abs(one - other) >= 1:
            yield row(f"requests, of which {kind}", one, other, "none: a part")
    yield row("MB sent and received", large.mean("received"), small.mean("received"), _NO_AIM["received"])
    yield row("KB of listings", large.mean("listed"), small.mean("listed"))
    heap, python = (
        [statistics.median(look[key] for look in one.looks) for one in (large, small)] for key in ("heap", "python")
    )
    yield row("driver: MB of JVM heap and Python's objects, at the most", heap[0] + python[0], heap[1] + python[1])
    yield row("driver: MB of Python's objects, at the most", *python, "none: a part")
