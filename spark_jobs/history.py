"""Owns what a table's history tells: batches and their numbers, compactions, totals. Needs no Spark."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot

__all__ = [
    "BATCHES",
    "COMPACTED_THROUGH",
    "ERASED_BATCHES",
    "ERASED_ROWS",
    "ERASURE",
    "ERASURES",
    "PUBLISHED",
    "REFUSED",
    "REWRITE_ID",
    "STAGED",
    "ancestors",
    "batch_of",
    "compacted_through",
    "compaction_mark",
    "numbers_of",
    "staged_batch",
    "summary_of",
    "summed",
    "told_numbers",
]

STAGED, PUBLISHED = "wap.id", "published-wap-id"
"""In the summary of a snapshot: the batch that was staged with it; the batch that was published with it."""
REFUSED = "lakehose.refused"
"""In the summary of a staged snapshot without rows: the batch's rows were refused; it is published in their place."""
BATCHES = "lakehose.batches"
"""Table property: newest batch number by series, as JSON, of those that expired snapshots told."""
ERASURE, ERASED_ROWS, ERASED_BATCHES = "lakehose.erasure", "lakehose.erased-rows", "lakehose.erased-batches"
"""Keys of a snapshot's summary: which erasure it is of, and the rows that it took out; the same as JSON by batch,
tenant and day, by which a balance can be drawn up anew."""
ERASURES = "lakehose.erasures"
"""Table property: what erasures that aren't finished took out, as JSON by id, of those that expired snapshots told."""
REWRITE_ID = "lakehose.rewrite"
"""In the summary of a compaction's snapshot: the id of that rewrite."""
COMPACTED_THROUGH = "lakehose.compacted-through"
"""In the summary of a compaction's last snapshot: the sequence number up to which everything was planned and done,
and the target size in bytes that it was done for, with a slash between. A property of the table once that snapshot is
expired."""


def ancestors(table: Table) -> list[Snapshot]:
    """The current snapshot and those before it, the newest first, as far as they are kept."""
    by_id = {one.snapshot_id: one for one in table.metadata.snapshots}
    found: list[Snapshot] = []
    one = by_id.get(table.metadata.current_snapshot_id or 0)
    while one is not None:
        found.append(one)
        one = by_id.get(one.parent_snapshot_id or 0)
    return found


def summed(snapshot: Snapshot, what: str) -> int:
    """A total of a snapshot's summary: of `data-files`, `delete-files`, `files-size`, `records`."""
    return int(summary_of(snapshot).get(f"total-{what}", "0"))


def compaction_mark(table: Table) -> str | None:
    """What the newest compaction that came to an end noted, in its snapshot or, once that is expired, the table."""
    for snapshot in ancestors(table):
        told = summary_of(snapshot).get(COMPACTED_THROUGH)
        if told is not None:
            return told
    return table.properties.get(COMPACTED_THROUGH)


def compacted_through(table: Table, target_bytes: int) -> int:
    """Sequence number up to which a compaction to this target size has done everything; 0 where none tells."""
    sequence, _, target = (compaction_mark(table) or "").partition("/")
    return int(sequence) if target == str(target_bytes) else 0


def numbers_of(table: Table) -> dict[str, int]:
    """Newest batch number by series, as the history and the table's property tell."""
    found: dict[str, int] = {}
    for snapshot in ancestors(table):
        series, _, number = batch_of(snapshot).rpartition("/")
        if series:
            found.setdefault(series, int(number))
    for series, told in told_numbers(table).items():
        found[series] = max(found.get(series, 0), told)
    return found


def told_numbers(table: Table) -> dict[str, int]:
    """Newest batch number by series, as far as the table's property tells."""
    told = table.properties.get(BATCHES)
    return {str(series): int(number) for series, number in json.loads(told).items()} if told else {}


def summary_of(snapshot: Snapshot) -> dict[str, str]:
    """A snapshot's summary; empty where it has none."""
    return snapshot.summary.additional_properties if snapshot.summary else {}


def staged_batch(snapshot: Snapshot) -> str:
    """Id under which a snapshot was staged; empty where it wasn't."""
    return summary_of(snapshot).get(STAGED, "")


def batch_of(snapshot: Snapshot) -> str:
    """Id of the batch that a snapshot of the history is of; empty where it is of none."""
    return summary_of(snapshot).get(PUBLISHED) or staged_batch(snapshot)
