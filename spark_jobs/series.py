"""Owns series: what is numbered together, which series have something to do, and what one is worked on with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lake.manifest import BatchId, Lane
from lake.quality_log import QualityLog
from lake.tables import QUARANTINE
from spark_jobs.commit import History
from spark_jobs.plan import planned_series
from spark_jobs.quality_gate import Gate

if TYPE_CHECKING:
    from collections.abc import Callable, Collection
    from datetime import datetime

    from mypy_boto3_s3 import S3Client
    from pyiceberg.catalog.glue import GlueCatalog
    from pyspark.sql import SparkSession

    from lake.clients import Cloud
    from lake.declaration import Lake, Stream
    from lake.manifest import Manifest
    from lake.names import Names

__all__ = ["Series", "Work", "series_of", "streams_of"]


@dataclass(frozen=True)
class Series:
    """What is numbered together: one tenant's prefix in one lane of a stream."""

    stream: Stream
    lane: Lane
    tenant: str

    def batch(self, number: int) -> BatchId:
        """One of its batches."""
        return BatchId(self.stream.owner, self.stream.dataset.name, self.lane, self.tenant, number)

    def table(self, names: Names) -> tuple[str, str]:
        """Database and name of the table whose history numbers its batches: only events become rows."""
        if self.lane is Lane.EVENTS:
            return names.database(self.tenant), self.stream.dataset.name
        return self.stream.database, QUARANTINE


@dataclass(frozen=True)
class Work:
    """What one series is worked on with, for a run."""

    spark: SparkSession
    """A session of its own, as the id of the batch being written is a setting of the session."""
    lake: Lake
    cloud: Cloud
    catalog: GlueCatalog
    manifest: Manifest
    series: Series
    clock: Callable[[], datetime]
    say: Callable[[str], None]
    after: Callable[[str], None]
    histories: dict[str, History] = field(default_factory=dict)

    @property
    def stream(self) -> Stream:
        """The stream that the series came by."""
        return self.series.stream

    @property
    def database(self) -> str:
        """Where its tables are, the quarantine among them."""
        return self.series.table(self.lake.names)[0]

    def history(self, table: str) -> History:
        """The history of one of its tables, read when it is first asked for and at each commit."""
        if table not in self.histories:
            self.histories[table] = History(self.catalog, self.database, table)
        return self.histories[table]

    @property
    def quality_log(self) -> QualityLog:
        """What the quality rules found in earlier batches."""
        return QualityLog(self.cloud.dynamodb, self.lake.names.manifest_table())

    @property
    def gate(self) -> Gate:
        """The quality gate of a series of events."""
        return Gate(
            self.spark,
            self.cloud,
            self.catalog,
            self.history,
            self.quality_log,
            self.stream.bucket,
            self.database,
            self.stream.dataset.contract,
            self.clock,
            self.say,
            self.after,
        )


def streams_of(lake: Lake, datasets: Collection[str] | None, tenants: Collection[str] | None) -> list[Stream]:
    """Streams that carry any of what is asked for, which is everything where it is None.

    Raises:
        DeclarationError: a dataset or tenant isn't declared.
    """
    kinds = {lake.dataset(name).name for name in datasets} if datasets else {one.name for one in lake.datasets}
    asked = _asked(lake, tenants)
    return [one for one in lake.streams() if one.dataset.name in kinds and asked.intersection(one.tenants)]


def series_of(
    lake: Lake,
    manifest: Manifest,
    datasets: Collection[str] | None = None,
    tenants: Collection[str] | None = None,
    *,
    planned_in: S3Client | None = None,
) -> list[Series]:
    """Every series that has new objects, of the datasets and tenants asked for.

    With `planned_in`, every series that ever had a batch too: their plans are listed there.

    Raises:
        DeclarationError: a dataset or tenant isn't declared.
    """
    asked = _asked(lake, tenants)
    found: list[Series] = []
    for stream in streams_of(lake, datasets, tenants):
        everything = asked.issuperset(stream.tenants)
        known = manifest.waiting_series(stream.owner, stream.dataset.name)
        if planned_in is not None:
            known += [one for one in planned_series(planned_in, stream) if one not in known]
        for lane, tenant in known:
            if tenant in asked if lane is Lane.EVENTS else everything:
                found.append(Series(stream, lane, tenant))
    return found


def _asked(lake: Lake, tenants: Collection[str] | None) -> set[str]:
    return {lake.tenant(name).id for name in tenants} if tenants else {one.id for one in lake.tenants}
