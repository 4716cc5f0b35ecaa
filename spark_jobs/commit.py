"""Owns the commit of a batch: numbered in the table's own history, once, whoever else is at it.

A batch is written as a staged snapshot under its id, which no reader sees, and then published. Iceberg refuses to
publish an id that is already in the table's history, inside the commit itself; so of two runs that carry out the same
batch one wins, and a batch that was published is known by the table alone. Source:
https://iceberg.apache.org/docs/1.12.0/spark-procedures/#publish_changes
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from py4j.protocol import Py4JError  # type: ignore[import-untyped]
from pyspark.errors import PySparkException

from lake.errors import CommitConflictError, FindingError
from lake.tables import load_table
from spark_jobs.session import CATALOG, literal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyiceberg.catalog.glue import GlueCatalog
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot
    from pyspark.sql import DataFrame, SparkSession

    from lake.manifest import BatchId

__all__ = ["Committed", "History", "commit"]

_STAGED, _PUBLISHED = "wap.id", "published-wap-id"
_ENABLED = "write.wap.enabled"
"""Table property without which Iceberg ignores the id and publishes at once."""


@dataclass(frozen=True)
class Committed:
    """A batch in a table's history."""

    snapshot_id: int
    committed_at_ms: int
    rows: int
    """Rows that its snapshot added."""


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

    def _ancestors(self) -> Iterator[Snapshot]:
        found = self._table.current_snapshot()
        while found is not None:
            yield found
            parent = found.parent_snapshot_id
            found = self._table.snapshot_by_id(parent) if parent is not None else None

    def last_number(self, series: str) -> int:
        """Number of the newest batch of a series, or 0."""
        for snapshot in self._ancestors():
            name, _, number = _batch_of(snapshot).rpartition("/")
            if name == series:
                return int(number)
        return 0

    def find(self, batch: BatchId) -> Committed | None:
        """The batch's commit, or None where it has none."""
        for snapshot in self._ancestors():
            if _batch_of(snapshot) == str(batch):
                added = _summary(snapshot).get("added-records", "0")
                return Committed(snapshot.snapshot_id, snapshot.timestamp_ms, int(added))
        return None

    def is_staged(self, batch: BatchId) -> bool:
        """Whether a snapshot of the batch was staged, by a run that didn't come to publish it."""
        return any(_summary(one).get(_STAGED) == str(batch) for one in self._table.metadata.snapshots)


def _summary(snapshot: Snapshot) -> dict[str, str]:
    return snapshot.summary.additional_properties if snapshot.summary else {}


def _batch_of(snapshot: Snapshot) -> str:
    summary = _summary(snapshot)
    return summary.get(_PUBLISHED) or summary.get(_STAGED) or ""


def commit(spark: SparkSession, history: History, batch: BatchId, rows: DataFrame, *, distribution: str) -> Committed:
    """Append a batch's rows, none included, unless it is in the table already.

    Args:
        spark: a session of the caller's own: the batch's id is one of its settings for as long as this takes.
        history: the table's.
        batch: the batch.
        rows: its rows, with the table's columns.
        distribution: Iceberg's `distribution-mode`: `hash` gathers rows by partition, `none` leaves them.

    Raises:
        CommitConflictError: another run has published the same batch in the meantime.
    """
    found = history.find(batch)
    if found is not None:
        return found
    if not history.is_staged(batch):
        spark.conf.set("spark.wap.id", str(batch))
        try:
            writer = rows.writeTo(f"{CATALOG}.{history.name}").option("distribution-mode", distribution)
            writer.append()
        finally:
            spark.conf.unset("spark.wap.id")
    try:
        # a batch's id holds a tenant's name as somebody sent it
        named = f"table => {literal(f'{CATALOG}.{history.name}')}, wap_id => {literal(str(batch))}"
        spark.sql(f"CALL {CATALOG}.system.publish_changes({named})").collect()
    except (PySparkException, Py4JError):
        history.refresh()
        if history.find(batch) is not None:
            raise CommitConflictError(f"batch {batch}: another ingest has committed it") from None
        raise
    history.refresh()
    found = history.find(batch)
    if found is None:
        raise FindingError(f"table {history.name}: batch {batch} was published and is not in the table's history")
    return found
