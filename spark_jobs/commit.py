"""Owns the commit of a batch: numbered in the table's own history, once, whoever else is at it.

A batch is written as a staged snapshot under its id, which no reader sees, and then published. Iceberg refuses to
publish an id that is already in the table's history, inside the commit itself; so of two runs that carry out the same
batch one wins, and a batch that was published is known by the table alone. Source:
https://iceberg.apache.org/docs/1.12.0/spark-procedures/#publish_changes

Maintenance expires old snapshots, and Iceberg forgets their ids. Before it does, the newest number of each series goes
into a property of the table: batches of a series are committed in order, so a number up to that one is committed,
whatever is left of the history. It is asked right before a batch is published. Between that moment and the commit lies
what Iceberg itself refuses, as no snapshot is expired that is younger than an hour.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from py4j.protocol import Py4JError  # type: ignore[import-untyped]
from pyspark.errors import PySparkException

from lake.errors import CommitConflictError, FindingError
from lake.tables import load_table
from spark_jobs.history import ancestors, batch_of, staged_batch, summary_of, told_numbers
from spark_jobs.session import CATALOG, literal

if TYPE_CHECKING:
    from pyiceberg.catalog.glue import GlueCatalog
    from pyiceberg.table import Table
    from pyspark.sql import Column, DataFrame, SparkSession

    from lake.manifest import BatchId

__all__ = ["Committed", "History", "commit"]

_ENABLED = "write.wap.enabled"
"""Table property without which Iceberg ignores the id and publishes at once."""


@dataclass(frozen=True)
class Committed:
    """A batch in a table's history."""

    snapshot_id: int | None
    """None where the snapshot is expired."""
    committed_at_ms: int
    """Where the snapshot is expired: when the oldest that is kept was committed, which was later."""
    rows: int
    """Rows that it added; where the snapshot is expired, those that the table still holds."""


class History:
    """A table's snapshots, from the current one back, as they are now."""

    def __init__(self, catalog: GlueCatalog, database: str, table: str) -> None:
        self._identifier = (database, table)
        self._catalog = catalog
        self.name = f"{database}.{table}"
        self._table = self._load()

    def _load(self) -> Table:
        found = load_table(self._catalog, self._identifier)
        if found is None:
            raise FindingError(f"table {self.name}: there is none; `lakehose apply` makes it")
        if found.properties.get(_ENABLED) != "true":
            raise FindingError(f"table {self.name}: its property {_ENABLED} must be true, or batches could be doubled")
        return found

    def refresh(self) -> None:
        """Read the table's metadata again."""
        self._table = self._load()

    @property
    def is_empty(self) -> bool:
        """Whether nothing was ever committed."""
        return self._table.current_snapshot() is None

    def last_number(self, series: str) -> int:
        """Number of the newest batch of a series, or 0."""
        told = told_numbers(self._table).get(series, 0)
        for snapshot in ancestors(self._table):
            name, _, number = batch_of(snapshot).rpartition("/")
            if name == series:
                return max(int(number), told)
        return told

    def find(self, batch: BatchId) -> Committed | None:
        """The batch's commit as its snapshot tells it; None where there is none, or it is expired."""
        for snapshot in ancestors(self._table):
            if batch_of(snapshot) == str(batch):
                added = summary_of(snapshot).get("added-records", "0")
                return Committed(snapshot.snapshot_id, snapshot.timestamp_ms, int(added))
        return None

    def is_past(self, batch: BatchId) -> bool:
        """Whether the batch is committed, as it or a later one of its series is; its snapshot may be expired."""
        return batch.number <= self.last_number(batch.series)

    def counted(self, spark: SparkSession, batch: BatchId, among: Column) -> Committed:
        """A batch that is past, by the rows that the table holds of it.

        Args:
            spark: a session.
            batch: the batch.
            among: tells its rows from others.
        """
        rows = spark.table(f"{CATALOG}.{self.name}").where(among).count()
        found = self.find(batch)
        if found is not None:
            return Committed(found.snapshot_id, found.committed_at_ms, rows)
        kept = ancestors(self._table)
        return Committed(None, kept[-1].timestamp_ms if kept else 0, rows)

    def is_staged(self, batch: BatchId) -> bool:
        """Whether a snapshot of the batch was staged, by a run that didn't come to publish it."""
        return any(staged_batch(one) == str(batch) for one in self._table.metadata.snapshots)


def commit(
    spark: SparkSession, history: History, batch: BatchId, rows: DataFrame, *, distribution: str, among: Column
) -> Committed:
    """Append a batch's rows, none included, unless it is in the table already.

    Args:
        spark: a session of the caller's own: the batch's id is one of its settings for as long as this takes.
        history: the table's.
        batch: the batch.
        rows: its rows, with the table's columns.
        distribution: Iceberg's `distribution-mode`: `hash` gathers rows by partition, `none` leaves them.
        among: tells the batch's rows from the table's others; asked for only where its snapshot doesn't tell how many.

    Raises:
        CommitConflictError: another run has published the same batch in the meantime.
    """
    found = history.find(batch)
    if found is not None and found.rows:
        return found
    if history.is_past(batch):
        return history.counted(spark, batch, among)
    if not history.is_staged(batch):
        spark.conf.set("spark.wap.id", str(batch))
        try:
            writer = rows.writeTo(f"{CATALOG}.{history.name}").option("distribution-mode", distribution)
            writer.append()
        finally:
            spark.conf.unset("spark.wap.id")
        history.refresh()
        if history.is_past(batch):
            raise CommitConflictError(f"batch {batch}: another ingest has committed it")
    try:
        # a batch's id holds a tenant's name as somebody sent it
        named = f"table => {literal(f'{CATALOG}.{history.name}')}, wap_id => {literal(str(batch))}"
        spark.sql(f"CALL {CATALOG}.system.publish_changes({named})").collect()
    except (PySparkException, Py4JError):
        history.refresh()
        if history.is_past(batch):
            raise CommitConflictError(f"batch {batch}: another ingest has committed it") from None
        raise
    history.refresh()
    found = history.find(batch)
    if found is None:
        raise FindingError(f"table {history.name}: batch {batch} was published and is not in the table's history")
    return found
