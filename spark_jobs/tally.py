"""Owns counting a batch: records by object, tenant and fate, and which sequence numbers of which producers it held."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspark.sql import functions as F  # noqa: N812 - as Spark's users know it

from lake.manifest import NO_TENANT
from lake.ranges import Ranges

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyspark.sql import DataFrame

__all__ = ["Tally", "tally"]

_IDENTIFIED = "tenant IS NOT NULL AND producer_id IS NOT NULL AND sequence IS NOT NULL"


@dataclass(frozen=True)
class Tally:
    """What a batch holds, before duplicates are looked for."""

    objects: Mapping[str, int]
    """Records by object; an object without records isn't there."""
    good: Mapping[str, int]
    """Records that satisfy the contract, by tenant."""
    bad: Mapping[str, int]
    """Records that don't, by tenant; `-` where it can't be read."""
    unidentified: Mapping[str, int]
    """Of both, those without a readable producer or sequence number, by tenant."""
    seen: Mapping[tuple[str, str], Ranges]
    """Sequence numbers by (tenant, producer), of all whose identity can be read."""
    event_ids: tuple[str, str] | None
    """Smallest and largest event id of the good ones."""


def tally(records: DataFrame) -> Tally:
    """Count judged records; the driver gets sums and ranges only."""
    sums = records.groupBy(
        "object",
        F.expr(f"coalesce(tenant, '{NO_TENANT}')").alias("tenant"),
        F.expr("reason IS NULL").alias("good"),
        F.expr(_IDENTIFIED).alias("identified"),
    ).agg(F.count("*").alias("records"), F.min("event_id").alias("first"), F.max("event_id").alias("last"))
    objects: Counter[str] = Counter()
    good: Counter[str] = Counter()
    bad: Counter[str] = Counter()
    unidentified: Counter[str] = Counter()
    bounds: list[str] = []
    for row in sums.collect():
        objects[row["object"]] += row["records"]
        (good if row["good"] else bad)[row["tenant"]] += row["records"]
        if not row["identified"]:
            unidentified[row["tenant"]] += row["records"]
        if row["good"]:
            bounds += [row["first"], row["last"]]
    known = unidentified.total() < objects.total()
    return Tally(
        objects=objects,
        good=good,
        bad=bad,
        unidentified=unidentified,
        seen=_seen(records) if known else {},
        event_ids=(min(bounds), max(bounds)) if bounds else None,
    )


def _seen(records: DataFrame) -> dict[tuple[str, str], Ranges]:
    # In a run without gaps, number minus rank stays the same; what came twice has the rank of its twin.
    runs = records.where(_IDENTIFIED).selectExpr(
        "tenant",
        "producer_id",
        "sequence",
        "sequence - dense_rank() OVER (PARTITION BY tenant, producer_id ORDER BY sequence) AS run",
    )
    spans: dict[tuple[str, str], list[tuple[int, int]]] = {}
    ends = runs.groupBy("tenant", "producer_id", "run").agg(
        F.min("sequence").alias("first"), F.max("sequence").alias("last")
    )
    for row in ends.collect():
        spans.setdefault((row["tenant"], row["producer_id"]), []).append((row["first"], row["last"]))
    return {key: Ranges.of(found) for key, found in sorted(spans.items())}
