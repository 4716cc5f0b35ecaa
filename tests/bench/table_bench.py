"""Measures ingest beside bare Spark, and DuckDB as the limit; owns the lake that benchmarks of the table work on."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
from rows import Row, at_most, measured

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
    from collections.abc import Callable, Iterable, Iterator

    from pyspark.sql import SparkSession

    from lake.clients import Cloud

NOW = datetime(2026, 3, 1, tzinfo=UTC)
NOW_MS = round(NOW.timestamp() * 1000)
_WARM = 2  # batches that are not counted
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


def objects(events: int, count: int, *, first: int = 0, made_ms: int = NOW_MS) -> Iterator[tuple[str, bytes]]:
    """Gzip objects with as many events together, by their names."""
    each = events // count
    for index in range(count):
        body = io.BytesIO()
        with gzip.GzipFile(fileobj=body, mode="wb", compresslevel=1, mtime=0) as out:
            for number in range(first + index * each, first + (index + 1) * each):
                out.write(event(number, made_ms - 3_600_000 + number % 3_600_000) + b"\n")
        yield f"{first:012d}-{index:06d}.gz", body.getvalue()


def _prefix(days: int) -> str:
    return f"processed/clicks/tenant=acme/{NOW - timedelta(days=days):year=%Y/month=%m/day=%d}/"


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

    def deliver(self, named: Iterable[tuple[str, bytes]], *, days: int = 0) -> None:
        """Put objects as Firehose does, so many days ago."""
        for name, body in named:
            self.cloud.s3.put_object(Bucket=self.bucket, Key=_prefix(days) + name, Body=body)

    def fetch(self, name: str) -> None:
        """Get one of the objects."""
        self.cloud.s3.get_object(Bucket=self.bucket, Key=_prefix(0) + name)["Body"].read()

    def ingest(self, batches: int = 1, look: Callable[[], None] = lambda: None) -> dict[str, float]:
        """Ingest what is new in so many batches; answers the seconds that each step of the last took.

        After each step it looks, which isn't counted.
        """
        steps: dict[str, float] = {}
        last = time.monotonic()

        def after(step: str) -> None:
            nonlocal last
            steps[step] = time.monotonic() - last
            look()
            last = time.monotonic()

        report = ingest.run(self.spark, self.lake, self.cloud, after=after, clock=lambda: NOW)
        if len(report.batches) != batches:
            raise RuntimeError(f"{batches} batches were to be measured, and there were {len(report.batches)}")
        return steps


def make_lake(spark: SparkSession, cloud: Cloud, company: str, *, objects: int = 100_000) -> Bench:
    """A lake whose batches take so many objects."""
    lake = Lake(
        company=company,
        environment="bench",
        region="us-east-1",
        tenants=(Tenant("acme", Tier.DEDICATED),),
        datasets=(Dataset("clicks", CLICKS, Buffering()),),
        jobs=replace(Jobs(), ingest_objects=objects, ingest_mib=100_000),
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
    """Ingest beside others."""
    with _world(folder) as (spark, cloud):
        return [*_beside_bare_spark(spark, cloud, folder, scale)]


def _beside_bare_spark(spark: SparkSession, cloud: Cloud, folder: Path, scale: float) -> Iterator[Row]:
    events, count = round(1_000_000 * scale), max(2, round(200 * scale))
    warm = make_lake(spark, cloud, "warm")
    for first in range(_WARM):
        warm.deliver(objects(events // 10, max(2, count // 10), first=first * events))
        warm.ingest()
    bench = make_lake(spark, cloud, "speed")
    bodies = list(objects(events, count))
    bench.deliver(bodies)
    files = folder / "files"
    files.mkdir()
    for name, body in bodies:
        (files / name).write_bytes(body)
    told = f"{events:,} events of 300 B in {count} gzip objects, warm"
    with measured() as fetched, ThreadPoolExecutor(4) as pool:
        list(pool.map(bench.fetch, [name for name, _ in bodies]))
    yield Row(told, "seconds to fetch the objects alone, from the local S3", fetched.seconds, None, "", "", holds=True)
    _bare_spark(bench, "warm_up")
    with measured() as bare:
        _bare_spark(bench, "bare")
    with measured() as ours:
        bench.ingest()
    other = "bare Spark: read.json with the schema, append"
    yield at_most(told, "ingest, deduplicated: seconds", ours.seconds, bare.seconds, other, 1.3)
    yield at_most(told, "ingest, deduplicated: seconds of processor", ours.cpu, bare.cpu, other, 1.3)
    with measured() as least:
        _duckdb(files, folder)
    yield at_most(
        told, "ingest, deduplicated: seconds", ours.seconds, least.seconds, "DuckDB to Parquet (the limit)", 20
    )


def _bare_spark(bench: Bench, name: str) -> None:
    """What one would write without us: no check, no quarantine, no duplicates dropped, no batch number."""
    database = bench.lake.names.database("acme")
    location = f"s3://{bench.bucket}/bare/{name}"
    ensure_table(glue_catalog(bench.cloud), (database, name), columns(CLICKS), location, target_mib=128)
    payload = "struct<page: string, user_id: string, seconds: int, amount: double, visit: string>"
    schema = (
        "event_id string, tenant string, dataset string, event_time timestamp, producer_id string, sequence bigint, "
        f"schema_version string, payload {payload}"
    )
    read = bench.spark.read.schema(schema).json(f"s3a://{bench.bucket}/processed/clicks/")
    flat: Any = read.selectExpr(
        *("event_id", "tenant", "dataset", "event_time", "producer_id", "sequence", "schema_version", "payload.*"),
        *("CAST(NULL AS string) AS _rescued", "CAST(NULL AS string) AS _object", "CAST(NULL AS bigint) AS _batch"),
    )
    flat.writeTo(f"{CATALOG}.{database}.{name}").append()


def _duckdb(files: Path, folder: Path) -> None:
    read = duckdb.read_json(f"{files}/*.gz", format="newline_delimited")
    read.write_parquet(f"{folder}/limit.parquet", compression="zstd")
