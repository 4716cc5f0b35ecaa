"""Owns the commit of a batch: numbered in the table's own history, once, whoever else is at it.

A batch is written as a staged snapshot under its id, which no reader sees, and then published. Iceberg refuses to
publish an id that is already in the table's history, inside the commit itself; so of two runs that carry out the same
batch one wins, and a batch that was published is known by the table alone. Source:
https://iceberg.apache.org/docs/1.12.0/spark-procedures/#cherrypick_snapshot

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
from lake.tables import evolve_table, existing_table, lacks
from spark_jobs.history import REFUSED, ancestors, batch_of, staged_batch, summary_of, told_numbers
from spark_jobs.session import CATALOG, literal

if TYPE_CHECKING:
    from pyiceberg.catalog.glue import GlueCatalog
    from pyiceberg.table import Table
    from pyspark.sql import Column, DataFrame, SparkSession

    from lake.contract import Field
    from lake.manifest import BatchId

__all__ = ["Committed", "History", "commit", "stage"]

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
    """A table's snapshots, from the current one back, as they were when it last looked.

    A look is three requests, and reads the list of all snapshots: a run keeps one of these for each table. Each commit
    looks again, before it publishes and after.
    """

    def __init__(self, catalog: GlueCatalog, database: str, table: str) -> None:
        self._identifier = (database, table)
        self._catalog = catalog
        self.name = f"{database}.{table}"
        self._table = self._load()

    def _load(self) -> Table:
        found = existing_table(self._catalog, self._identifier)
        if found.properties.get(_ENABLED) != "true":
            raise FindingError(f"table {self.name}: its property {_ENABLED} must be true, or batches could be doubled")
        return found

    def refresh(self) -> None:
        """Read the table's metadata again."""
        self._table = self._load()

    def evolve(self, fields: tuple[Field, ...]) -> tuple[str, ...]:
        """Give the table what a contract has grown, as `evolve_table` does; answers what, in words."""
        if not lacks(self._table, fields):
            return ()
        grown = evolve_table(self._catalog, self._identifier, fields)
        self.refresh()
        return grown

    @property
    def branches(self) -> frozenset[str]:
        """Names of what points at snapshots, `main` included."""
        return frozenset(self._table.metadata.refs)

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

    def staged(self, batch: BatchId, *, refused: bool = False) -> tuple[int, int] | None:
        """A staged snapshot of the batch and the rows it adds, of a run that didn't come to publish it; None: none.

        Args:
            batch: the batch.
            refused: the one that is published in place of rows that were refused, not the one with rows.
        """
        for one in self._table.metadata.snapshots:
            if staged_batch(one) == str(batch) and (REFUSED in summary_of(one)) is refused:
                return one.snapshot_id, int(summary_of(one).get("added-records", "0"))
        return None


def stage(
    spark: SparkSession,
    history: History,
    batch: BatchId,
    rows: DataFrame,
    *,
    distribution: str,
    refused: bool = False,
) -> tuple[int, int]:
    """Write a batch's rows as a staged snapshot, unless there is one.

    Args:
        spark: a session of the caller's own: the batch's id is one of its settings for as long as this takes.
        history: the table's.
        batch: the batch.
        rows: its rows, with the table's columns.
        distribution: Iceberg's `distribution-mode`: `hash` gathers rows by partition, `none` leaves them.
        refused: the rows, which are none, stand for some that were refused.

    Returns:
        the snapshot's id and the rows it adds.

    Raises:
        CommitConflictError: another run has published the same batch in the meantime.
    """
    if history.staged(batch, refused=refused) is None:
        spark.conf.set("spark.wap.id", str(batch))
        try:
            writer = rows.writeTo(f"{CATALOG}.{history.name}").option("distribution-mode", distribution)
            if refused:
                writer = writer.option(f"snapshot-property.{REFUSED}", "true")
            writer.append()
        finally:
            spark.conf.unset("spark.wap.id")
    # what was seen before may be as old as the run
    history.refresh()
    if history.is_past(batch):
        raise CommitConflictError(f"batch {batch}: another ingest has committed it")
    found = history.staged(batch, refused=refused)
    if found is None:
        raise FindingError(f"table {history.name}: batch {batch} was staged and is not among the table's snapshots")
    return found


def commit(
    spark: SparkSession,
    history: History,
    batch: BatchId,
    rows: DataFrame,
    *,
    distribution: str,
    among: Column,
    refused: bool = False,
) -> Committed:
    """Append a batch's rows, none included, unless it is in the table already.

    Args:
        spark: a session of the caller's own: the batch's id is one of its settings for as long as this takes.
        history: the table's.
        batch: the batch.
        rows: its rows, with the table's columns.
        distribution: Iceberg's `distribution-mode`: `hash` gathers rows by partition, `none` leaves them.
        among: tells the batch's rows from the table's others; asked for only where its snapshot doesn't tell how many.
        refused: the rows, which are none, stand for some that were refused.

    Raises:
        CommitConflictError: another run has published the same batch in the meantime.
    """
    found = history.find(batch)
    if found is not None and found.rows:
        return found
    if history.is_past(batch):
        return history.counted(spark, batch, among)
    snapshot_id, _ = stage(spark, history, batch, rows, distribution=distribution, refused=refused)
    try:
        # what publish_changes does with the first snapshot that has the id: here, there may be two to choose from
        named = f"table => {literal(f'{CATALOG}.{history.name}')}, snapshot_id => {snapshot_id}"
        spark.sql(f"CALL {CATALOG}.system.cherrypick_snapshot({named})").collect()
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
