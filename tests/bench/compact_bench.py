"""Measures compaction: beside Iceberg's own, by what queries gain, and on tiny work."""

from __future__ import annotations

import contextlib
import os
import statistics
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from rows import Row, at_most
from table_bench import CLICKS

from athena.client import run_query
from demo import questions
from demo.flights import flights
from lake.clients import Cloud
from lake.contract import PartitionField
from lake.declaration import Buffering, Dataset, Jobs, Lake, Tenant, Tier, read_lake
from lake.provision import provision_storage
from lake.tables import glue_catalog
from local.endpoint import Endpoint
from spark_jobs import compact
from spark_jobs.compact_look import plan
from spark_jobs.session import CATALOG, create_session

sys.path.insert(0, str(Path(__file__).parents[1]))
from conftest import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pyspark.sql import DataFrame, SparkSession

ROOT = Path(__file__).parents[2]
_ASKED = 3
_OTHERS_SECONDS = 93.0
"""What another compactor takes for 315 KB in 5 files, as its author says."""


def _quiet(_: str) -> None:
    """Say nothing."""


@contextmanager
def _world(folder: Path) -> Iterator[tuple[SparkSession, Cloud]]:
    """The local endpoint, with Athena, and a session on it."""
    endpoint = Endpoint(folder / "endpoint")
    try:
        cloud = Cloud("us-east-1", endpoint.up(free_port(), "us-east-1", _quiet))
        spark = create_session(cloud, app_name="bench")
        try:
            yield spark, cloud
        finally:
            spark.stop()
    finally:
        endpoint.down(_quiet)


def rows(folder: Path, scale: float) -> list[Row]:
    """All comparisons of compaction."""
    with _world(folder) as (spark, cloud):
        cold = _warm_up(spark, cloud, folder)
        return [*_tiny(spark, cloud, cold), *_a_day(spark, cloud, scale), *_demo(spark, cloud, scale)]


def _lake(cloud: Cloud, company: str) -> Lake:
    """A lake of one tenant, whose table is a day a partition."""
    contract = replace(CLICKS, partition=(PartitionField("day", "event_time"),))
    lake = Lake(
        company=company,
        environment="bench",
        region="us-east-1",
        tenants=(Tenant("acme", Tier.DEDICATED),),
        datasets=(Dataset("clicks", contract, Buffering()),),
        jobs=Jobs(),
    )
    for _ in provision_storage(lake, cloud):
        pass
    return lake


def _clicks(lake: Lake) -> str:
    return f"{lake.names.database('acme')}.clicks"


_VALUES = {
    "event_id": "concat('018f0000-0000-7000-8000-', lpad(hex(id), 12, '0'))",
    "tenant": "'acme'",
    "dataset": "'clicks'",
    "producer_id": "concat('phone-', lpad(pmod(id, 40), 4, '0'))",
    "sequence": "id div 40",
    "schema_version": "'1.0.0'",
    "page": "concat('/shop/', pmod(hash(id), 997))",
    "user_id": "concat('user-', lpad(pmod(hash(id, 7), 50021), 8, '0'))",
    "seconds": "CAST(pmod(id, 600) AS int)",
    "amount": "pmod(id, 1000) / 8",
    "_batch": "1L",
}


def _append(spark: SparkSession, table: str, numbers: range, event_time: str, *, files: int = 1) -> None:
    """Append rows of consecutive numbers as one batch, in as many files."""
    values = {**_VALUES, "event_time": event_time}
    made: DataFrame = spark.range(numbers.start, numbers.stop, 1, files)
    named = (f"CAST({values.get(name, 'NULL')} AS {kind}) AS {name}" for name, kind in spark.table(table).dtypes)
    made.selectExpr(*named).writeTo(table).option("distribution-mode", "none").append()


def _compacted(spark: SparkSession, lake: Lake, cloud: Cloud) -> tuple[float, compact.CompactReport]:
    started = time.monotonic()
    report = compact.run(spark, lake, cloud)
    return time.monotonic() - started, report


_TINY_ROWS = 4_200  # of a file of some 63 KB


def _fill_tiny(spark: SparkSession, lake: Lake) -> None:
    # ids without a pattern, or 63 KB would be many more rows than events of that size are
    for number in range(5):
        moment = f"timestamp'2026-03-01 00:00:00' + make_dt_interval(0, {number}, 0, pmod(id, 3600))"
        numbers = range(number * _TINY_ROWS, (number + 1) * _TINY_ROWS)
        _append(spark, f"{CATALOG}.{_clicks(lake)}", numbers, moment)


def _warm_up(spark: SparkSession, cloud: Cloud, folder: Path) -> float:
    """Compact a tiny table in a process of its own, and another in the session; answers the first's seconds."""
    lake = _lake(cloud, "cold")
    _fill_tiny(spark, lake)
    declared = folder / "cold"
    declared.mkdir()
    (declared / "lake.yaml").write_text(_COLD_LAKE, encoding="utf-8")
    (declared / "clicks.yaml").write_text(_COLD_CONTRACT, encoding="utf-8")
    started = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "spark_jobs.compact", "--endpoint", str(cloud.endpoint), "--json"],
        cwd=declared,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
        timeout=300,
    )
    took = time.monotonic() - started
    files = glue_catalog(cloud).load_table((lake.names.database("acme"), "clicks")).inspect.data_files().num_rows
    if files != 1:
        raise RuntimeError(f"one file was to be left, and there are {files}")
    warm = _lake(cloud, "warm")
    _fill_tiny(spark, warm)
    _compacted(spark, warm, cloud)
    return took


_COLD_LAKE = """
company: cold
environment: bench
tenants: {acme: {tier: dedicated}}
datasets: {clicks: {contract: clicks.yaml}}
"""
_COLD_CONTRACT = """
{apiVersion: v3.1.0, kind: DataContract, id: clicks, version: 1.0.0, status: active, schema: [{name: clicks,
 logicalType: object, properties: [
  {name: page, logicalType: string, required: true}, {name: user_id, logicalType: string},
  {name: seconds, logicalType: integer, physicalType: int}, {name: amount, logicalType: number}]}]}
"""


def _tiny(spark: SparkSession, cloud: Cloud, cold: float) -> Iterator[Row]:
    seconds: list[float] = []
    size = 0
    for number in range(3):
        lake = _lake(cloud, f"tiny{number}")
        _fill_tiny(spark, lake)
        took, report = _compacted(spark, lake, cloud)
        (done,) = (one for one in report.tables if one.table == _clicks(lake))
        if (done.files_before, done.files_after) != (5, 1):
            raise RuntimeError(f"5 files were to become 1: {done}")
        seconds.append(took)
        size = done.bytes_before
    name = f"compaction of 5 files of {size / 1000:,.0f} KB together"
    told, limit = "as its author says for 315 KB in 5 files", 3 / _OTHERS_SECONDS
    median = statistics.median(seconds)
    yield replace(
        at_most(name, "seconds, warm session", median, _OTHERS_SECONDS, f"another, {told}", limit), aim="under 3 s"
    )
    yield at_most(name, "seconds, cold: a process of its own", cold, _OTHERS_SECONDS, f"another, {told}", 1)


@dataclass(frozen=True)
class _Gain:
    """What queries cost: files of the table, bytes that Trino read, and its milliseconds."""

    files: int
    bytes: int
    p50: float


def _asked(cloud: Cloud, output: str, statements: list[str], files: Callable[[], int]) -> tuple[_Gain, list[Any]]:
    """Ask through Athena's API; the first time is thrown away, as it warms Trino up."""
    took: list[int] = []
    scanned = 0
    answers: list[Any] = []
    for sql in statements:
        run_query(cloud, sql, database=None, output_location=output)
        for _ in range(_ASKED):
            done = run_query(cloud, sql, database=None, output_location=output)
            took.append(done.took.total_ms)
        scanned += done.took.scanned_bytes
        answers.append(done.rows)
    return _Gain(files(), scanned, statistics.median(took)), answers


def _a_day(spark: SparkSession, cloud: Cloud, scale: float) -> Iterator[Row]:
    """A day of many small files: ours, and Iceberg's own with its defaults on a table of the same files."""
    count, each, batches = max(40, round(2_000 * scale)), 500, 20
    rows_each = count // batches * each
    lake = _lake(cloud, "day")
    ours, twin = _clicks(lake), f"{lake.names.database('acme')}.twin"
    step = 86_400_000_000 // (count * each)
    for number in range(batches):
        # a file holds events of its own minute, and some that come late
        late = f"IF(pmod(hash(id, 3), 20) = 0, pmod(hash(id, 5), 1800000000) + {step}, 0)"
        moment = f"timestamp_micros(1772323200000000L + greatest(0L, id * {step} - {late}))"
        numbers = range(number * rows_each, (number + 1) * rows_each)
        _append(spark, f"{CATALOG}.{ours}", numbers, moment, files=count // batches)
    catalog = glue_catalog(cloud)
    there = catalog.load_table(tuple(ours.split(".")))
    catalog.register_table(tuple(twin.split(".")), there.metadata_location)
    output = f"s3://{lake.names.bucket('acme')}/answers/"

    def statements(table: str) -> list[str]:
        hour = "TIMESTAMP '2026-03-01 09:00:00 UTC' AND TIMESTAMP '2026-03-01 09:59:59 UTC'"
        pages = f"SELECT page, count(*), avg(amount) FROM {table} WHERE event_time BETWEEN {hour} GROUP BY 1 ORDER BY 1"  # noqa: S608
        return [pages, f"SELECT count(*), count(DISTINCT user_id), sum(seconds) FROM {table}"]  # noqa: S608

    def files(name: str) -> Callable[[], int]:
        return lambda: catalog.load_table(tuple(name.split("."))).inspect.data_files().num_rows

    before, wanted = _asked(cloud, output, statements(ours), files(ours))
    started = time.monotonic()
    done = spark.sql(f"CALL {CATALOG}.system.rewrite_data_files(table => '{CATALOG}.{twin}')").collect()[0].asDict()
    stock = time.monotonic() - started
    took, report = _compacted(spark, lake, cloud)
    (own,) = (one for one in report.tables if one.table == ours)
    after_stock, stock_answers = _asked(cloud, output, statements(twin), files(twin))
    after, answers = _asked(cloud, output, statements(ours), files(ours))
    if not wanted == answers == stock_answers:
        raise RuntimeError("compaction changed an answer")
    name = f"compaction of a day of {count:,} files ({before.files:,} there, {own.bytes_before / 2**20:,.0f} MiB)"
    other = "rewrite_data_files with its defaults"
    yield at_most(name, "seconds, proof included", took, stock, other, 1 / 1.5)
    rewritten = float(done["rewritten_bytes_count"])
    yield Row(name, "bytes rewritten", own.bytes_before, rewritten, other, "said", True)
    yield Row(name, "queries after: files", after.files, after_stock.files, other, "the same gain", after.files <= 2)
    yield at_most(name, "queries after: bytes read", after.bytes, after_stock.bytes, other, 1.1)
    yield at_most(name, "queries after: p50 in ms", after.p50, after_stock.p50, other, 1.2)
    yield at_most(name, "queries after: p50 in ms", after.p50, before.p50, "before", 0.2)


_SAME = ("carrier", "flight", "tailnum", "origin", "dest", "year", "month", "day", "distance")
_NUMBERS = ("sched_dep_time", "dep_time", "dep_delay", "sched_arr_time", "arr_time", "arr_delay", "air_time")


def _demo(spark: SparkSession, cloud: Cloud, scale: float) -> Iterator[Row]:
    """The demo's questions on flights that came in a batch an hour, before and after compaction."""
    lake = read_lake(ROOT / "lake.yaml")
    for _ in provision_storage(lake, cloud):
        pass
    source = flights(max(2_000, round(54_000 * scale)))
    for tenant in lake.tenants:
        _append_flights(spark, lake, tenant.id, source[source["origin"] == tenant.id.upper()])
    output = f"s3://{lake.names.bucket(lake.tenants[0].id)}/answers/"
    statements = [one(lake) for one in (questions.busiest_routes, questions.delays)]
    catalog = glue_catalog(cloud)

    def files() -> int:
        named = [(lake.names.database(one.id), "flights") for one in lake.tenants]
        return sum(catalog.load_table(one).inspect.data_files().num_rows for one in named)

    planned = plan(lake, cloud)
    before, answers = _asked(cloud, output, statements, files)
    took, _ = _compacted(spark, lake, cloud)
    after, again = _asked(cloud, output, statements, files)
    if answers != again:
        raise RuntimeError("compaction changed an answer of the demo")
    name = f"the demo's questions, {len(source):,} flights, a file an hour"
    yield at_most(name, "data files", after.files, before.files, "before compaction", 0.2)
    yield at_most(name, "bytes read", after.bytes, before.bytes, "before compaction", 0.2)
    yield at_most(name, "p50 in ms", after.p50, before.p50, "before compaction", 0.2)
    told = f"seconds of the compaction of {sum(len(one.files) for each in planned.tables for one in each.groups)} files"
    yield Row(name, told, took, None, "-", "said", True)


def _append_flights(spark: SparkSession, lake: Lake, tenant: str, own: pd.DataFrame) -> None:
    """Append flights as ingest would have, a file for each hour."""
    table = f"{CATALOG}.{lake.names.database(tenant)}.flights"
    frame = own[[*_SAME, *_NUMBERS, "event_time"]].astype(dict.fromkeys(_NUMBERS, "Float64"))
    frame = frame.assign(hour=pd.factorize(own["event_time"].dt.floor("h"))[0], number=range(len(own)))
    # Spark takes Python's own moments and nulls
    moments = pd.Series(list(own["event_time"].dt.to_pydatetime()), index=own.index, dtype=object)
    frame = frame.astype(object).where(frame.notna(), None).assign(event_time=moments)
    hours = int(frame["hour"].max()) + 1
    kinds = dict(spark.table(table).dtypes)
    schema = ", ".join(f"{name} {'double' if name in _NUMBERS else kinds[name]}" for name in (*_SAME, *_NUMBERS))
    given = spark.createDataFrame(
        frame.to_dict("records"),
        f"{schema}, event_time timestamp, hour int, number bigint",  # type: ignore[arg-type]
    )
    values = {
        "event_id": "uuid()",
        "tenant": f"'{tenant}'",
        "dataset": "'flights'",
        "producer_id": f"'site-{tenant}'",
        "sequence": "number",
        "schema_version": "'1.0.0'",
        "_object": f"concat('s3://{lake.names.bucket(tenant)}/processed/flights/', hour, '.gz')",
        "_batch": "CAST(hour AS bigint)",
    }
    named = [
        f"CAST({values.get(name, name if name in given.columns else 'NULL')} AS {kind}) AS {name}"
        for name, kind in kinds.items()
    ]
    dealt = given.repartitionById(hours, given["hour"]).selectExpr(*named)
    dealt.writeTo(table).option("distribution-mode", "none").append()


if __name__ == "__main__":
    import tempfile

    from rows import print_rows

    with tempfile.TemporaryDirectory() as made, contextlib.suppress(KeyboardInterrupt):
        print_rows(rows(Path(made), float(sys.argv[1]) if len(sys.argv) > 1 else 1.0))
