"""Owns the maintain job: old snapshots, deletes, manifests and stray files of every table, once a day.

`python -m spark_jobs.maintain --lake lake.yaml`; `run` is the same for a session that is up already. Each step of a
table is worth its while or left out, and stands by itself: a run that is stopped has done what it has done. Sources:
https://iceberg.apache.org/docs/1.12.0/maintenance/ and its Spark procedures.
"""

from __future__ import annotations

import math
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from py4j.protocol import Py4JError  # type: ignore[import-untyped]
from pyiceberg.manifest import ManifestContent
from pyspark.errors import PySparkException

from lake.defaults import now, silent
from lake.tables import glue_catalog
from spark_jobs.compact_look import load_target, tables_of
from spark_jobs.compact_rewrite import iceberg_table
from spark_jobs.failures import conflict_of, spoken
from spark_jobs.history import summed
from spark_jobs.orphans import delete_orphans, find_orphans
from spark_jobs.session import CATALOG, literal, side_by_side
from spark_jobs.snapshots import expirable, remember

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator
    from datetime import datetime

    from pyiceberg.table import Table
    from pyspark.sql import SparkSession

    from lake.clients import Cloud
    from lake.declaration import Lake, Upkeep
    from spark_jobs.compact_look import TargetTable
    from spark_jobs.orphans import Orphan
    from spark_jobs.snapshots import Expiry

__all__ = ["MaintainReport", "TableUpkeep", "run"]

_MANIFEST_BYTES = 8 * 2**20
"""Iceberg's own target, `commit.manifest.target-size-bytes`."""
_MANIFESTS_WORTH = 10  # more than there need be
_IDS = 500  # snapshots of one call
_SHOWN = 5  # orphans that are said by name


@dataclass(frozen=True)
class TableUpkeep:
    """What maintenance did to one table, or would do."""

    table: str
    """`database.table`."""
    snapshots: int
    """Before."""
    expired: int
    waiting: int
    """Staged batches that aren't published yet, whose snapshots stay."""
    files_deleted: int
    """Data, delete and metadata files that only expired snapshots knew; not told beforehand."""
    delete_files: int
    """Files of row-level deletes, before."""
    delete_files_removed: int
    """Net: rewritten into fewer, or with nothing left to delete; not told beforehand."""
    manifests: int
    """Before."""
    manifests_after: int
    """The same number where it isn't worth it; beforehand, about."""
    orphans: int
    orphan_bytes: int
    dry: bool = False
    """Whether this only tells what would be done."""
    conflicts: tuple[str, ...] = ()
    """Steps that were left to the next run, as somebody else changed the table meanwhile."""


@dataclass(frozen=True)
class MaintainReport:
    """What a run did."""

    tables: tuple[TableUpkeep, ...]
    seconds: float


def run(
    spark: SparkSession,
    lake: Lake,
    cloud: Cloud,
    *,
    datasets: Collection[str] | None = None,
    owners: Collection[str] | None = None,
    dry: bool = False,
    clock: Callable[[], datetime] = now,
    say: Callable[[str], None] = silent,
    after: Callable[[str], None] = silent,
) -> MaintainReport:
    """Maintain every table.

    Args:
        spark: a session of `create_session`.
        lake: the declaration; `jobs.upkeep` says what is kept.
        cloud: where the lake is.
        datasets: only these tables; quarantine tables too without it.
        owners: only the tables of these tenants, or of `pooled`: the quarantine that pooled tenants share.
        dry: tell what would be done, and do nothing.
        clock: tells how old snapshots and files are.
        say: takes a line about each table, and names of orphan files before they go.
        after: called with `remember`, `expire`, `deletes`, `manifests`, `orphans` after each step of a table; tests
            stop it there.

    Raises:
        DeclarationError: a dataset or owner isn't declared.
        FindingError: a table is missing, or lies elsewhere than its own prefix.
    """
    started = time.monotonic()

    def maintain(session: SparkSession, target: TargetTable) -> TableUpkeep:
        with spoken(f"maintenance of {target.name}"):
            return _Maintenance(session, lake, cloud, target, dry, clock(), say, after).run()

    done = side_by_side(spark, tables_of(lake, datasets, owners), maintain, say)
    return MaintainReport(tuple(done), time.monotonic() - started)


@dataclass(frozen=True)
class _Maintenance:
    """The maintenance of one table."""

    spark: SparkSession
    lake: Lake
    cloud: Cloud
    target: TargetTable
    dry: bool
    now: datetime
    say: Callable[[str], None]
    after: Callable[[str], None]
    conflicts: list[str] = field(default_factory=list)

    @property
    def _upkeep(self) -> Upkeep:
        return self.lake.jobs.upkeep

    def run(self) -> TableUpkeep:
        table = self._load()
        expiry = expirable(table, self._upkeep, self.now)
        expired, files = (len(expiry.ids), 0) if self.dry else self._expire(expiry)
        snapshot = table.current_snapshot()
        deletes = summed(snapshot, "delete-files") if snapshot else 0
        removed = 0 if self.dry else self._tidy_deletes(deletes)
        manifests, fewer = self._rewrite_manifests(table if self.dry else self._load())
        orphans = self._orphans(table if self.dry else self._load())
        found = TableUpkeep(
            table=self.target.name,
            snapshots=len(table.metadata.snapshots),
            expired=expired,
            waiting=expiry.waiting,
            files_deleted=files,
            delete_files=deletes,
            delete_files_removed=removed,
            manifests=manifests,
            manifests_after=fewer,
            orphans=len(orphans),
            orphan_bytes=sum(one.size for one in orphans),
            dry=self.dry,
            conflicts=tuple(self.conflicts),
        )
        self.say(_told(found))
        return found

    def _load(self) -> Table:
        return load_target(self.target, self.cloud)

    def _call(self, procedure: str, arguments: str) -> dict[str, Any]:
        named = f"table => {literal(f'{CATALOG}.{self.target.name}')}{arguments}"
        return self.spark.sql(f"CALL {CATALOG}.system.{procedure}({named})").collect()[0].asDict()

    @contextmanager
    def _yielding(self, step: str) -> Iterator[None]:
        """Leave a step to the next run where another writer came between."""
        try:
            yield
        except (PySparkException, Py4JError) as error:
            conflict = conflict_of(error)
            if conflict is None:
                raise
            self.conflicts.append(f"{step}: {conflict.name}")
            self.say(f"table {self.target.name}: {step} left to the next run, as somebody changed it ({conflict.name})")

    def _expire(self, expiry: Expiry) -> tuple[int, int]:
        """Expire just these snapshots, and delete the files that only they knew; answers how many of each."""
        remember(glue_catalog(self.cloud), (self.target.database, self.target.table), set(expiry.ids))
        self.after("remember")
        deleted = 0
        with self._yielding("expiry of snapshots"):
            for start in range(0, len(expiry.ids), _IDS):
                ids = ", ".join(f"{one}L" for one in expiry.ids[start : start + _IDS])
                # without a moment Iceberg would expire by age as well; which may go was decided above
                chosen = f", snapshot_ids => array({ids}), older_than => TIMESTAMP '1970-01-02 00:00:00'"
                done = self._call("expire_snapshots", chosen)
                deleted += sum(int(value or 0) for key, value in done.items() if key.startswith("deleted_"))
        self.after("expire")
        left = {one.snapshot_id for one in self._load().metadata.snapshots} if expiry.ids else set()
        return len(set(expiry.ids) - left), deleted

    def _tidy_deletes(self, there: int) -> int:
        """Let go of deletes whose files are gone, and write many small ones as few; answers how many fewer they are."""
        if not there:
            return 0
        fewer = 0
        with self._yielding("the removal of deletes that delete nothing"):
            actions: Any = self.spark._jvm.org.apache.iceberg.spark.actions.SparkActions  # type: ignore[union-attr] # noqa: SLF001
            table = iceberg_table(self.spark, self.target.name)
            gone = actions.get(self.spark._jsparkSession).removeDanglingDeleteFiles(table).execute()  # noqa: SLF001
            fewer += sum(1 for _ in gone.removedDeleteFiles())
        with self._yielding("the rewrite of deletes"):
            done = self._call("rewrite_position_delete_files", "")
            fewer += int(done["rewritten_delete_files_count"]) - int(done["added_delete_files_count"])
        self.after("deletes")
        return fewer

    def _rewrite_manifests(self, table: Table) -> tuple[int, int]:
        """Write manifests anew, by partition, if there are many more than need be; answers how many before, after."""
        snapshot = table.current_snapshot()
        found = snapshot.manifests(table.io) if snapshot else []
        sizes = [one.manifest_length for one in found if one.content is ManifestContent.DATA]
        needed = math.ceil(sum(sizes) / _MANIFEST_BYTES)
        after = len(found)
        if len(sizes) < needed + _MANIFESTS_WORTH:
            return len(found), after
        if self.dry:
            return len(found), len(found) - len(sizes) + needed
        with self._yielding("the rewrite of manifests"):
            done = self._call("rewrite_manifests", "")
            after += int(done["added_manifests_count"]) - int(done["rewritten_manifests_count"])
        self.after("manifests")
        return len(found), after

    def _orphans(self, table: Table) -> list[Orphan]:
        names = self.lake.names
        expected = names.table_location(names.bucket(self.target.owner), self.target.table)
        guard = timedelta(hours=self._upkeep.orphan_hours)
        found = find_orphans(self.spark, self.cloud.s3, table, self.target.name, expected, guard=guard, now=self.now)
        for one in found[:_SHOWN]:
            self.say(f"table {self.target.name}: no snapshot knows {one.uri} of {one.modified:%Y-%m-%d %H:%M}")
        if len(found) > _SHOWN:
            self.say(f"table {self.target.name}: no snapshot knows {len(found) - _SHOWN} files more")
        if not self.dry:
            delete_orphans(self.cloud.s3, found)
            self.after("orphans")
        return found


def _told(one: TableUpkeep) -> str:
    would = "would expire" if one.dry else "expired"
    parts = [f"{would} {one.expired} of {one.snapshots} snapshots"]
    if one.waiting:
        parts.append(f"{one.waiting} staged batches wait to be published")
    if one.delete_files:
        now_fewer = "" if one.dry else f", {one.delete_files_removed} fewer now"
        parts.append(f"{one.delete_files} delete files{now_fewer}")
    if one.manifests_after != one.manifests:
        become = "would become about" if one.dry else "became"
        parts.append(f"{one.manifests} manifests {become} {one.manifests_after}")
    if one.orphans:
        size = f"{one.orphan_bytes / 2**20:.1f} MiB"
        parts.append(f"{one.orphans} orphan files of {size} {'to delete' if one.dry else 'deleted'}")
    return f"table {one.table}: {'; '.join(parts)}"


if __name__ == "__main__":
    from spark_jobs.commands import run_job

    sys.exit(run_job("maintain", sys.argv[1:]))
