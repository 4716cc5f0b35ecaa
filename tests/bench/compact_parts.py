"""Owns what comparisons of compaction stand on: the local AWS with a session, lakes, tables of clicks, questions."""

from __future__ import annotations

import statistics
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from table_bench import CLICKS

from athena.client import run_query
from lake.clients import Cloud
from lake.contract import PartitionField
from lake.declaration import Buffering, Dataset, Jobs, Lake, Tenant, Tier
from lake.provision import provision_storage
from local.endpoint import Endpoint
from spark_jobs import compact
from spark_jobs.session import create_session

sys.path.insert(0, str(Path(__file__).parents[1]))
from conftest import free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pyspark.sql import DataFrame, SparkSession

_ASKED = 5


def _quiet(_: str) -> None:
    """Say nothing."""


@contextmanager
def world(folder: Path) -> Iterator[tuple[SparkSession, Cloud]]:
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


def lake_of(cloud: Cloud, company: str) -> Lake:
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


def clicks_of(lake: Lake) -> str:
    """The table of `lake_of`, by `database.table`."""
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


def append(spark: SparkSession, table: str, numbers: range, event_time: str, *, files: int = 1) -> None:
    """Append rows of consecutive numbers as one batch, in as many files."""
    values = {**_VALUES, "event_time": event_time}
    made: DataFrame = spark.range(numbers.start, numbers.stop, 1, files)
    named = (f"CAST({values.get(name, 'NULL')} AS {kind}) AS {name}" for name, kind in spark.table(table).dtypes)
    made.selectExpr(*named).writeTo(table).option("distribution-mode", "none").append()


def compacted(spark: SparkSession, lake: Lake, cloud: Cloud) -> tuple[float, compact.CompactReport]:
    """Compact a lake; answers the seconds too."""
    started = time.monotonic()
    report = compact.run(spark, lake, cloud)
    return time.monotonic() - started, report


@dataclass(frozen=True)
class Gain:
    """What queries cost: files of the table, bytes that Trino read, and medians in milliseconds."""

    files: int
    bytes: int
    p50: float
    """From the submission to the result in S3."""
    engine_p50: float
    """Of it, the query engine's."""


def asked(cloud: Cloud, output: str, statements: list[str], files: Callable[[], int]) -> tuple[Gain, list[Any]]:
    """Ask through Athena's API; the first time is thrown away, as it warms Trino up."""
    took: list[int] = []
    engine: list[int] = []
    scanned = 0
    answers: list[Any] = []
    for sql in statements:
        run_query(cloud, sql, database=None, output_location=output)
        for _ in range(_ASKED):
            done = run_query(cloud, sql, database=None, output_location=output)
            took.append(done.took.total_ms)
            engine.append(done.took.engine_ms)
        scanned += done.took.scanned_bytes
        answers.append(done.rows)
    return Gain(files(), scanned, statistics.median(took), statistics.median(engine)), answers
