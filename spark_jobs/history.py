"""Owns what a table's history tells: batches and their numbers, compactions, totals. Needs no Spark."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pyiceberg.table import Table
    from pyiceberg.table.snapshots import Snapshot

__all__ = [
    "BATCHES",
    "COMPACTED_THROUGH",
    "ERASURES",
    "PUBLISHED",
    "REFUSED",
    "REWRITE_ID",
    "STAGED",
    "Taken",
    "ancestors",
    "batch_of",
    "batch_parts",
    "compacted_through",
    "compaction_mark",
    "erasure_summary",
    "erasures_of",
    "erasures_property",
    "numbers_of",
    "staged_batch",
    "summary_of",
    "summed",
    "told_numbers",
]

_BATCH = re.compile(r"(.+)/([0-9]{1,18})", re.DOTALL)
STAGED, PUBLISHED = "wap.id", "published-wap-id"
"""In the summary of a snapshot: the batch that was staged with it; the batch that was published with it."""
REFUSED = "lakehose.refused"
"""In the summary of a staged snapshot without rows: the batch's rows were refused; it is published in their place."""
BATCHES = "lakehose.batches"
"""Table property: newest batch number by series, as JSON, of those that expired snapshots told."""
_ERASURE, _ERASED_ROWS, _ERASED_BATCHES = "lakehose.erasure", "lakehose.erased-rows", "lakehose.erased-batches"
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


@dataclass(frozen=True)
class Taken:
    """Rows that an erasure took out of a table."""

    rows: int = 0
    batches: Mapping[str, Mapping[str, Mapping[str, int]]] = field(default_factory=dict)
    """By batch (as the table has it), tenant, and the day on which their events were made."""

    def __add__(self, other: Taken) -> Taken:
        sums: dict[str, dict[str, dict[str, int]]] = {}
        for one in (self, other):
            for batch, tenants in one.batches.items():
                for tenant, days in tenants.items():
                    into = sums.setdefault(batch, {}).setdefault(tenant, {})
                    for day, rows in days.items():
                        into[day] = into.get(day, 0) + rows
        return Taken(self.rows + other.rows, sums)


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
        batch = batch_parts(batch_of(snapshot))
        if batch is not None:
            found.setdefault(*batch)
    for series, told in told_numbers(table).items():
        found[series] = max(found.get(series, 0), told)
    return found


def batch_parts(batch: str) -> tuple[str, int] | None:
    """Series and number of a batch's id; None where it is none of ours, as others may publish by ids of their own.

    >>> batch_parts("visits/events/solo/solo/7"), batch_parts("etl/run-7")
    (('visits/events/solo/solo', 7), None)
    """
    found = _BATCH.fullmatch(batch)
    return (found[1], int(found[2])) if found else None


def told_numbers(table: Table) -> dict[str, int]:
    """Newest batch number by series, as far as the table's property tells."""
    told = table.properties.get(BATCHES)
    return {str(series): int(number) for series, number in json.loads(told).items()} if told else {}


def erasures_of(table: Table, among: Collection[int] | None = None) -> dict[str, Taken]:
    """What erasures took out, by their ids: the most that the table's property or a snapshot of its history tells.

    Args:
        table: the table.
        among: ids of the snapshots to ask; all of the history without it.
    """
    told = json.loads(table.properties.get(ERASURES, "{}"))
    found = {erasure: Taken(one["rows"], one["batches"]) for erasure, one in told.items()}
    for snapshot in ancestors(table):
        summary = summary_of(snapshot)
        erasure, rows = summary.get(_ERASURE), int(summary.get(_ERASED_ROWS, "0"))
        if not erasure or (among is not None and snapshot.snapshot_id not in among):
            continue
        if rows > found.get(erasure, Taken()).rows:
            found[erasure] = Taken(rows, json.loads(summary.get(_ERASED_BATCHES, "{}")))
    return found


def erasures_property(erasures: Mapping[str, Taken]) -> str:
    """What the table's property says of erasures."""
    return _packed({erasure: {"rows": one.rows, "batches": one.batches} for erasure, one in erasures.items()})


def erasure_summary(erasure_id: str, taken: Taken) -> dict[str, str]:
    """What the summary of an erasure's snapshot says."""
    return {_ERASURE: erasure_id, _ERASED_ROWS: str(taken.rows), _ERASED_BATCHES: _packed(taken.batches)}


def _packed(told: Mapping[str, Any]) -> str:
    return json.dumps(told, separators=(",", ":"), sort_keys=True)


def summary_of(snapshot: Snapshot) -> dict[str, str]:
    """A snapshot's summary; empty where it has none."""
    return snapshot.summary.additional_properties if snapshot.summary else {}


def staged_batch(snapshot: Snapshot) -> str:
    """Id under which a snapshot was staged; empty where it wasn't."""
    return summary_of(snapshot).get(STAGED, "")


def batch_of(snapshot: Snapshot) -> str:
    """Id of the batch that a snapshot of the history is of; empty where it is of none."""
    return summary_of(snapshot).get(PUBLISHED) or staged_batch(snapshot)
