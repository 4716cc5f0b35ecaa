"""Measures compaction of a day of small files beside Iceberg's own: all at once, and hour by hour as they come."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from compact_parts import Gain, append, asked, clicks_of, compacted, lake_of
from rows import Row, at_most, measured

from lake.tables import glue_catalog
from spark_jobs.session import CATALOG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pyiceberg.manifest import DataFile
    from pyspark.sql import SparkSession

    from lake.clients import Cloud
    from lake.declaration import Lake

_BATCHES, _EACH, _HOURS = 20, 500, 24
_ROUNDS = 3
_STOCK = "rewrite_data_files with its defaults"


@dataclass
class _Spent:
    """What compaction took, run by run."""

    seconds: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    bytes: float = 0.0
    """As stored, of the files that were rewritten."""


@dataclass(frozen=True)
class _Twins:
    """A table that is ours to compact, and another that Iceberg compacts; both had the same files."""

    spark: SparkSession
    cloud: Cloud
    lake: Lake

    @property
    def ours(self) -> str:
        """By `database.table`."""
        return clicks_of(self.lake)

    @property
    def stock(self) -> str:
        """By `database.table`."""
        return f"{self.lake.names.database('acme')}.twin"

    def set_to(self, metadata: str) -> None:
        """Let both tables be as a metadata file says."""
        catalog = glue_catalog(self.cloud)
        for name in (self.ours, self.stock):
            one = tuple(name.split("."))
            if catalog.table_exists(one):
                catalog.drop_table(one)
            catalog.register_table(one, metadata)

    def rewrite(self, spent: _Spent) -> None:
        """Have Iceberg's own compact."""
        with measured() as cost:
            call = f"CALL {CATALOG}.system.rewrite_data_files(table => '{CATALOG}.{self.stock}')"
            done = self.spark.sql(call).collect()[0].asDict()
        _add(spent, cost.seconds, cost.cpu, float(done["rewritten_bytes_count"]))

    def compact(self, spent: _Spent) -> None:
        """Compact ours."""
        with measured() as cost:
            _, report = compacted(self.spark, self.lake, self.cloud)
        _add(spent, cost.seconds, cost.cpu, float(sum(one.bytes_rewritten for one in report.tables)))

    def files(self, name: str) -> int:
        """Data files of a table."""
        found = glue_catalog(self.cloud).load_table(tuple(name.split(".")))
        return found.inspect.data_files().num_rows

    def asked(self, name: str) -> tuple[Gain, list[Any]]:
        """What a report would ask: an hour's pages, and the day's users."""
        hour = "TIMESTAMP '2026-03-01 09:00:00 UTC' AND TIMESTAMP '2026-03-01 09:59:59 UTC'"
        pages = f"SELECT page, count(*), avg(amount) FROM {name} WHERE event_time BETWEEN {hour} GROUP BY 1 ORDER BY 1"  # noqa: S608
        users = f"SELECT count(*), count(DISTINCT user_id), sum(seconds) FROM {name}"  # noqa: S608
        output = f"s3://{self.lake.names.bucket('acme')}/answers/"
        return asked(self.cloud, output, [pages, users], lambda: self.files(name))


def _add(spent: _Spent, seconds: float, cpu: float, size: float) -> None:
    spent.seconds.append(seconds)
    spent.cpu.append(cpu)
    spent.bytes += size


def day_rows(spark: SparkSession, cloud: Cloud, scale: float) -> Iterator[Row]:
    """A day of many small files, compacted at its end, and each hour."""
    count = max(240, round(2_000 * scale)) // _BATCHES * _BATCHES
    twins = _Twins(spark, cloud, lake_of(cloud, "day"))
    catalog = glue_catalog(cloud)
    identifier = tuple(twins.ours.split("."))
    empty = catalog.load_table(identifier).metadata_location
    _fill(spark, twins.ours, count)
    full = catalog.load_table(identifier)
    size = sum(one.file_size_in_bytes for one in _files_of(full))
    name = f"a day of {count:,} files, {size / 2**20:,.0f} MiB"
    yield from _at_once(twins, full.metadata_location, name)
    twins.set_to(full.metadata_location)
    arrived = _files_of(catalog.load_table(identifier))
    twins.set_to(empty)
    yield from _by_the_hour(twins, arrived, name)


def _fill(spark: SparkSession, table: str, count: int) -> None:
    rows = count // _BATCHES * _EACH
    step = 86_400_000_000 // (count * _EACH)
    for number in range(_BATCHES):
        # a file holds events of its own minute, and some that come late
        late = f"IF(pmod(hash(id, 3), 20) = 0, pmod(hash(id, 5), 1800000000) + {step}, 0)"
        moment = f"timestamp_micros(1772323200000000L + greatest(0L, id * {step} - {late}))"
        append(spark, f"{CATALOG}.{table}", range(number * rows, (number + 1) * rows), moment, files=count // _BATCHES)


def _files_of(table: Any) -> list[DataFile]:
    """A table's data files, in the order that they came in."""
    manifests = table.current_snapshot().manifests(table.io)
    found = [one for each in manifests for one in each.fetch_manifest_entry(table.io)]
    # the name of a file begins with the number of the task that wrote it
    found.sort(key=lambda one: (one.file_sequence_number, one.data_file.file_path.rpartition("/")[2]))
    return [one.data_file for one in found]


def _at_once(twins: _Twins, metadata: str, name: str) -> Iterator[Row]:
    ours, stock = _Spent(), _Spent()
    before: Gain | None = None
    for number in range(_ROUNDS):
        twins.set_to(metadata)
        if before is None:
            before, wanted = twins.asked(twins.ours)
        # what runs second finds the machine's caches warm: in turn
        steps: Sequence[Callable[[], None]] = (lambda: twins.rewrite(stock), lambda: twins.compact(ours))
        for step in steps if number % 2 == 0 else reversed(steps):
            step()
    name = f"compaction of {name}, all at once"
    seconds = [statistics.median(one.seconds) for one in (ours, stock)]
    yield at_most(name, f"seconds, proof included, median of {_ROUNDS}", *seconds, _STOCK, 1 / 1.5)
    cpu = [statistics.median(one.cpu) for one in (ours, stock)]
    yield _said(name, "seconds of processor, local S3 included", cpu)
    yield Row(name, "bytes rewritten", ours.bytes / _ROUNDS, stock.bytes / _ROUNDS, _STOCK, "said", True)
    yield from _gained(twins, name, before, wanted)


def _by_the_hour(twins: _Twins, arrived: Sequence[DataFile], name: str) -> Iterator[Row]:
    """Files come all day, and each hour's are compacted when they are there."""
    catalog = glue_catalog(twins.cloud)
    ours, stock = _Spent(), _Spent()
    for hour in range(_HOURS):
        part = arrived[len(arrived) * hour // _HOURS : len(arrived) * (hour + 1) // _HOURS]
        for table in (twins.ours, twins.stock):
            with (
                catalog.load_table(tuple(table.split("."))).transaction() as change,
                change.update_snapshot().fast_append() as added,
            ):
                for one in part:
                    added.append_data_file(one)
        twins.rewrite(stock)
        twins.compact(ours)
    name = f"compaction of {name}, each hour what came"
    seconds = [sum(one.seconds) for one in (ours, stock)]
    # 24 small runs cost what a run costs; what they are held to is the bytes
    yield _said(name, f"seconds of {_HOURS} runs, proof included", seconds)
    cpu = [sum(one.cpu) for one in (ours, stock)]
    yield _said(name, "seconds of processor, local S3 included", cpu)
    yield at_most(name, "bytes rewritten", ours.bytes, stock.bytes, _STOCK, 1 / 1.5)
    yield from _gained(twins, name, None, None)


def _said(name: str, measure: str, both: Sequence[float]) -> Row:
    ours, stock = both
    return Row(name, measure, ours, stock, _STOCK, "said", True)


def _gained(twins: _Twins, name: str, before: Gain | None, wanted: list[Any] | None) -> Iterator[Row]:
    theirs, other_answers = twins.asked(twins.stock)
    after, answers = twins.asked(twins.ours)
    if answers != other_answers or (wanted is not None and wanted != answers):
        raise RuntimeError("compaction changed an answer")
    yield Row(name, "queries after: files", after.files, theirs.files, _STOCK, "at most 4", after.files <= 4)
    yield at_most(name, "queries after: bytes read", after.bytes, theirs.bytes, _STOCK, 1.1)
    yield at_most(name, "queries after: p50 in ms", after.p50, theirs.p50, _STOCK, 1.2)
    if before is not None:
        # the hour's question opened few files before as well
        yield Row(name, "queries after: p50 in ms", after.p50, before.p50, "before", "said", True)
