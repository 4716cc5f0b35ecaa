"""Owns counting a batch: records by object, and by tenant, day and fate, and which sequence numbers it held.

A record's day is the one on which its event was made, as its id tells: what every stage can read, of bad records too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pyspark.sql import functions as F  # noqa: N812 - as Spark's users know it

from lake.envelope import day_text
from lake.ranges import Ranges

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyspark.sql import DataFrame

__all__ = ["IDENTIFIED", "MADE_DAY", "Tally", "seen_spans"]

IDENTIFIED = "tenant IS NOT NULL AND producer_id IS NOT NULL AND sequence IS NOT NULL"
"""Whether a record's producer and number are known, in Spark SQL."""
MADE_DAY = (
    # by its length too: Java's $ matches before a last line end as well
    "CASE WHEN length(event_id) = 36 "
    "AND event_id RLIKE '^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$' "
    "THEN CAST(conv(concat(left(event_id, 8), substr(event_id, 10, 4)), 16, 10) AS bigint) DIV 86400000 END"
)
"""`lake.envelope.made_day` in Spark SQL: days since 1970, null where the id is no UUIDv7."""


@dataclass(frozen=True)
class Tally:
    """What a batch holds, before duplicates are looked for."""

    objects: Mapping[str, int]
    """Records by object; an object without records isn't there."""
    good: Mapping[tuple[str, str], int]
    """Records that satisfy the contract, by tenant and day."""
    bad: Mapping[tuple[str, str], int]
    """Records that don't, by tenant and day; `-` where either can't be read."""
    unidentified: Mapping[tuple[str, str], int]
    """Of both, those without a readable producer or sequence number, by tenant and day."""
    seen: Mapping[tuple[str, str, str], Ranges]
    """Sequence numbers by (tenant, producer, day), of all whose identity can be read."""
    ends: tuple[tuple[str, str], ...]
    """Smallest and largest event id of the good ones, by the hours they were made in."""
    days: int = 0
    """Days on which the good ones' events happened, by their `event_time`."""

    @property
    def event_ids(self) -> tuple[str, str] | None:
        """Smallest and largest event id of the good ones."""
        return (self.ends[0][0], self.ends[-1][1]) if self.ends else None


def seen_spans(dated: DataFrame) -> dict[tuple[str, str, str], Ranges]:
    """Sequence numbers by (tenant, producer, day) of records with their `day`, of those whose identity is known."""
    # In a run without gaps, number minus rank stays the same; what came twice has the rank of its twin.
    runs = dated.where(IDENTIFIED).selectExpr(
        "tenant",
        "producer_id",
        "day",
        "sequence",
        "sequence - dense_rank() OVER (PARTITION BY tenant, producer_id, day ORDER BY sequence) AS run",
    )
    spans: dict[tuple[str, str, str], list[tuple[int, int]]] = {}
    ends = runs.groupBy("tenant", "producer_id", "day", "run").agg(
        F.min("sequence").alias("first"), F.max("sequence").alias("last")
    )
    for row in ends.collect():
        key = (row["tenant"], row["producer_id"], day_text(row["day"]))
        spans.setdefault(key, []).append((row["first"], row["last"]))
    return {key: Ranges.of(found) for key, found in sorted(spans.items())}
