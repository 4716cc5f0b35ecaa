"""Measures the table: ingest beside bare Spark and DuckDB, and beside itself on a table a hundred times larger."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
from rows import at_most

from lake.contract import Contract, Field, PartitionField, Primitive
from lake.declaration import Buffering, Dataset, Jobs, Lake, Tenant, Tier
from lake.provision import provision_storage
from lake.tables import columns, ensure_table, glue_catalog
from spark_jobs import ingest
from spark_jobs.dedup import first_id
from spark_jobs.session import CATALOG, create_session

sys.path.insert(0, str(Path(__file__).parents[1]))
from conftest import running_ministack

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyspark.sql import SparkSession
    from rows import Row

    from lake.clients import Cloud

_NOW = datetime(2026, 3, 1, tzinfo=UTC)
_NOW_MS = round(_NOW.timestamp() * 1000)
CLICKS = Contract(
    dataset="clicks",
    version="1.0.0",
    fields=(
        Field("page", Primitive("string"), required=True),
        Field("user_id", Primitive("string")),
        Field("seconds", Primitive("int")),
        Field("amount", Primitive("double")),
        Field("visit", Primitive("string")),
    ),
    partition=(PartitionField("day", "event_time"),),
    sort=("event_time",),
)


def event(number: int, made_ms: int) -> bytes:
    """One event of 300 bytes, as it is on the wire."""
    head = first_id(made_ms)
    moment = datetime.fromtimestamp(made_ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    payload = {
        "page": f"/shop/{number % 997}",
        "user_id": f"user-{number % 50_021:08d}",
        "seconds": number % 600,
        "amount": number % 1000 / 8,
        "visit": hashlib.blake2b(str(number).encode(), digest_size=8).hexdigest(),
    }
    made = {
        "event_id": f"{head}-7{number >> 36 & 0xFFF:03x}-8000-{number & 0xFFFFFFFFF:012x}",
        "tenant": "acme",
        "dataset": "clicks",
        "event_time": moment,
        "producer_id": f"phone-{number % 40:04d}",
        "sequence": number // 40,
        "schema_version": "1.0.0",
        "payload": payload,
    }
    return json.dumps(made, separators=(",", ":")).encode()


def objects(events: int, count: int, *, first: int = 0, made_ms: int = _NOW_MS) -> Iterator[tuple[str, bytes]]:
    """Gzip objects with as many events together, by their names."""
    each = events // count
    for index in range(count):
        body = io.BytesIO()
        with gzip.GzipFile(fileobj=body, mode="wb", compresslevel=1, mtime=0) as out:
            for number in range(first + index * each, first + (index + 1) * each):
                out.write(event(number, made_ms - 3_600_000 + number % 3_600_000) + b"\n")
        yield f"{first:012d}-{index:06d}.gz", body.getvalue()


@dataclass
class Bench:
    """A lake of one tenant, and the session that works on it."""

    spark: SparkSession
    cloud: Cloud
    lake: Lake

    @property
    def bucket(self) -> str:
        return self.lake.names.bucket("acme")

    @property
    def table(self) -> str:
        return f"{CATALOG}.{self.lake.names.database('acme')}.clicks"

    def deliver(self, named: Iterator[tuple[str, bytes]]) -> None:
        """Put objects as Firehose does."""
        prefix = f"processed/clicks/tenant=acme/year={_NOW:%Y}/month={_NOW:%m}/day={_NOW:%d}/"
        for name, body in named:
            self.cloud.s3.put_object(Bucket=self.bucket, Key=prefix + name, Body=body)

    def ingest(self) -> tuple[float, dict[str, float]]:
        """Ingest what is new in one batch; answers the seconds in all, and until each step was done."""
        steps: dict[str, float] = {}
        started = time.monotonic()

        def after(step: str) -> None:
            steps[step] = time.monotonic() - started

        report = ingest.run(self.spark, self.lake, self.cloud, after=after, clock=lambda: _NOW)
        if len(report.batches) != 1:
            raise RuntimeError(f"one batch was to be measured, and there were {len(report.batches)}")
        return time.monotonic() - started, steps


def make_lake(spark: SparkSession, cloud: Cloud, company: str) -> Bench:
    """A lake whose batches are as large as may be."""
    lake = Lake(
        company=company,
        environment="bench",
        region="us-east-1",
        tenants=(Tenant("acme", Tier.DEDICATED),),
        datasets=(Dataset("clicks", CLICKS, Buffering()),),
        jobs=replace(Jobs(), ingest_objects=100_000, ingest_mib=100_000),
    )
    for _ in provision_storage(lake, cloud):
        pass
    return Bench(spark, cloud, lake)


@contextmanager
def _world(folder: Path) -> Iterator[tuple[SparkSession, Cloud]]:
    from lake.clients import Cloud  # noqa: PLC0415 - beside the process that it reaches

    with running_ministack(folder) as url:
        cloud = Cloud("us-east-1", url)
        spark = create_session(cloud, app_name="bench")
        try:
            yield spark, cloud
        finally:
            spark.stop()


def rows(folder: Path, scale: float) -> list[Row]:
    """All comparisons of the table."""
    with _world(folder) as (spark, cloud):
        return [*_beside_bare_spark(spark, cloud, folder, scale), *_flat(spark, cloud, scale)]


def _beside_bare_spark(spark: SparkSession, cloud: Cloud, folder: Path, scale: float) -> Iterator[Row]:
    events, count = round(1_000_000 * scale), max(2, round(200 * scale))
    warm = make_lake(spark, cloud, "warm")
    warm.deliver(objects(events // 10, max(2, count // 10)))
    warm.ingest()
    bench = make_lake(spark, cloud, "speed")
    bodies = list(objects(events, count))
    bench.deliver(iter(bodies))
    files = folder / "files"
    files.mkdir()
    for name, body in bodies:
        (files / name).write_bytes(body)
    _bare_spark(bench, "warm_up")
    bare = _bare_spark(bench, "bare")
    ours, _ = bench.ingest()
    told = f"seconds for {events:,} events of 300 B in {count} gzip objects, warm"
    yield at_most("ingest, deduplicated", told, ours, bare, "bare Spark: read.json with the schema, append", 1.3)
    yield at_most("ingest, deduplicated", told, ours, _duckdb(files, folder), "DuckDB to Parquet (the limit)", 20)


def _bare_spark(bench: Bench, name: str) -> float:
    """What one would write without us: no check, no quarantine, no duplicates dropped, no batch number."""
    database = bench.lake.names.database("acme")
    location = f"s3://{bench.bucket}/bare/{name}"
    ensure_table(glue_catalog(bench.cloud), (database, name), columns(CLICKS), location, target_mib=128)
    payload = "struct<page: string, user_id: string, seconds: int, amount: double, visit: string>"
    schema = (
        "event_id string, tenant string, dataset string, event_time timestamp, producer_id string, sequence bigint, "
        f"schema_version string, payload {payload}"
    )
    started = time.monotonic()
    read = bench.spark.read.schema(schema).json(f"s3a://{bench.bucket}/processed/clicks/")
    flat: Any = read.selectExpr(
        *("event_id", "tenant", "dataset", "event_time", "producer_id", "sequence", "schema_version", "payload.*"),
        *("CAST(NULL AS string) AS _rescued", "CAST(NULL AS string) AS _object", "CAST(NULL AS bigint) AS _batch"),
    )
    flat.writeTo(f"{CATALOG}.{database}.{name}").append()
    return time.monotonic() - started


def _duckdb(files: Path, folder: Path) -> float:
    started = time.monotonic()
    duckdb.sql(
        f"COPY (SELECT * FROM read_json('{files}/*.gz', format = 'newline_delimited')) "
        f"TO '{folder}/limit.parquet' (FORMAT parquet, COMPRESSION zstd)"
    )
    return time.monotonic() - started


_STEPS = {"plan": "plan", "data": "dedup and commit", "receipt": "receipt"}


def _flat(spark: SparkSession, cloud: Cloud, scale: float) -> Iterator[Row]:
    """The same batch into an empty table, and into one a hundred times as large with as many more objects."""
    events, count = round(50_000 * scale), max(2, round(20 * scale))
    small, large = make_lake(spark, cloud, "small"), make_lake(spark, cloud, "large")
    for hours in range(100):
        made = _NOW_MS - (hours + 2) * 3_600_000
        large.deliver(objects(events, count, first=(hours + 1) * events, made_ms=made))
        large.ingest()
    for bench in (small, large):
        bench.deliver(objects(events // 10, max(2, count // 10), first=10**9))
        bench.ingest()
    for bench in (small, large):
        bench.deliver(objects(events, count))
    before, steps_before = small.ingest()
    after, steps_after = large.ingest()
    name = f"{events:,} events into a table of {100 * events:,}"
    yield at_most(name, "seconds in all", after, before, "the same on an empty table", 1.1)
    last_before = last_after = 0.0
    for step, told in _STEPS.items():
        took_before, took_after = steps_before[step] - last_before, steps_after[step] - last_after
        yield at_most(name, f"seconds: {told}", took_after, took_before, "the same on an empty table", 1.1)
        last_before, last_after = steps_before[step], steps_after[step]
