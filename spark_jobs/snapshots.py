"""Owns which snapshots of a table may go, and that the table remembers what only they told.

Kept are: the newest of the history, by count and by age; whatever a tag names and a branch leads to; and a batch that
was staged and isn't published yet, however old, as the next ingest publishes it. What was staged by a run that another
overtook can't be published any more, and goes. No snapshot goes within an hour of its commit, whatever is declared:
so long may a reader, or the publishing of a batch, have begun with it.

Before snapshots go, the newest batch number of every series is put into a property of the table, and the point up to
which compaction has come. A tag for each series would do it too, and keep the data files of months alive with it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

from lake.tables import change_table
from spark_jobs.history import (
    BATCHES,
    COMPACTED_THROUGH,
    ERASURES,
    ancestors,
    batch_parts,
    compaction_mark,
    erasures_of,
    erasures_property,
    numbers_of,
    staged_batch,
)

if TYPE_CHECKING:
    from datetime import datetime

    from pyiceberg.catalog.glue import GlueCatalog
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot

    from lake.declaration import Upkeep

__all__ = ["Expiry", "expirable", "forget_erasure", "remember"]

_FLOOR = timedelta(hours=1)


@dataclass(frozen=True)
class Expiry:
    """What may go of a table's snapshots."""

    history: tuple[int, ...]
    """Of the history, the newest first."""
    staged: tuple[int, ...]
    """Staged batches that were published otherwise."""
    stray: tuple[int, ...]
    """What nothing leads to: of a branch that was dropped, or a history that was rolled back."""
    waiting: int
    """Staged batches that aren't published yet; they stay."""

    @property
    def ids(self) -> tuple[int, ...]:
        """All of them."""
        return (*self.history, *self.staged, *self.stray)


def expirable(table: Table, upkeep: Upkeep, now: datetime) -> Expiry:
    """Decide what may go; pure."""
    history = ancestors(table)
    by_id = {one.snapshot_id: one for one in table.metadata.snapshots}
    known = {one.snapshot_id for one in history}
    held = _held_by_refs(table, by_id, known)
    numbers = numbers_of(table)
    gone = _old(history, upkeep, now)
    staged: list[int] = []
    stray: list[int] = []
    waiting = 0
    for one in table.metadata.snapshots:
        if one.snapshot_id in held or one.snapshot_id in known:
            continue
        batch = staged_batch(one)
        if batch and not _is_past(batch, numbers):
            waiting += 1
        elif _age(one, now) >= (_FLOOR if batch else max(_FLOOR, timedelta(hours=upkeep.snapshot_hours))):
            (staged if batch else stray).append(one.snapshot_id)
    kept = tuple(one.snapshot_id for one in gone if one.snapshot_id not in held)
    return Expiry(kept, tuple(staged), tuple(stray), waiting)


def _old(history: list[Snapshot], upkeep: Upkeep, now: datetime) -> list[Snapshot]:
    """The end of the history; nothing between two that stay, or the way from one to the other were lost."""
    for place, one in enumerate(history):
        age = _age(one, now)
        young = age < timedelta(hours=upkeep.snapshot_hours) and place < upkeep.snapshots_most
        if place >= upkeep.snapshots_least and not young and age >= _FLOOR:
            return history[place:]
    return []


def _held_by_refs(table: Table, by_id: dict[int, Snapshot], history: set[int]) -> set[int]:
    held: set[int] = set()
    for name, ref in table.metadata.refs.items():
        if name == "main":
            continue
        held.add(ref.snapshot_id)
        one = by_id.get(ref.snapshot_id) if ref.snapshot_ref_type == "branch" else None
        # a branch's own snapshots, down to where it left the history
        while one is not None and one.snapshot_id not in history:
            held.add(one.snapshot_id)
            one = by_id.get(one.parent_snapshot_id or 0)
    return held


def _is_past(batch: str, numbers: dict[str, int]) -> bool:
    parts = batch_parts(batch)
    # an id that isn't one of ours is somebody's own affair
    return parts is not None and parts[1] <= numbers.get(parts[0], 0)


def _age(one: Snapshot, now: datetime) -> timedelta:
    return timedelta(milliseconds=now.timestamp() * 1000 - one.timestamp_ms)


def remember(catalog: GlueCatalog, identifier: tuple[str, str], going: set[int]) -> bool:
    """Put into the table's properties what only snapshots tell that are to go; answers whether anything was.

    Args:
        catalog: the table's.
        identifier: database and table.
        going: ids of the snapshots.

    Raises:
        FindingError: the table is gone.
        CommitConflictError: other writers were faster, again and again.
    """

    def change(table: Table) -> bool:
        wanted = _properties(table, going)
        if all(table.properties.get(name) == value for name, value in wanted.items()):
            return False
        with table.transaction() as work:
            work.set_properties(wanted)
        return True

    return change_table(catalog, identifier, change)


def _properties(table: Table, going: set[int]) -> dict[str, str]:
    if not going:
        return {}
    told = {BATCHES: json.dumps(numbers_of(table), sort_keys=True)}
    if mark := compaction_mark(table):
        told[COMPACTED_THROUGH] = mark
    if erased := erasures_of(table, going):  # one that isn't finished may have its count nowhere else
        told[ERASURES] = erasures_property(erased)
    return told


def forget_erasure(catalog: GlueCatalog, identifier: tuple[str, str], erasure_id: str) -> None:
    """Take out of a table's properties what an erasure took out: it is finished, and its receipt tells.

    Raises:
        FindingError: the table is gone.
        CommitConflictError: other writers were faster, again and again.
    """

    def change(table: Table) -> bool:
        there = erasures_of(table, among=())
        if there.pop(erasure_id, None) is None:
            return False
        with table.transaction() as work:
            if there:
                work.set_properties({ERASURES: erasures_property(there)})
            else:
                work.remove_properties(ERASURES)
        return True

    change_table(catalog, identifier, change)
