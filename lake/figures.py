"""Owns the figures of the audit: records by tenant, day and fate, and the sequence numbers that arrived; sums of them.

They are the same for one batch, for a month of batches and for all there ever were, and so is how DynamoDB holds them:
in pieces, as an item takes 400 KB.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lake.envelope import NO_DAY
from lake.ranges import Ranges

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["Counts", "Figures", "from_pieces", "summed", "to_pieces"]

_PIECE_BYTES = 200_000  # an item holds 400 KB
_PIECE_SPANS = 4_000  # of one producer in one entry: at most 160 KB
_MONTH = len("2013-01")


@dataclass(frozen=True)
class Counts:
    """Records of one tenant in one batch. `records` is the sum of the fates that follow it."""

    records: int = 0
    ingested: int = 0
    duplicates: int = 0
    quarantined: int = 0
    refused: int = 0
    unidentified: int = 0
    """Of `records`, those whose producer or sequence can't be read."""

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Figures:
    """What batches found, in sums."""

    counts: Mapping[tuple[str, str], Counts] = field(default_factory=dict)
    """By tenant, as the record claims, and the day on which its event was made; `-` where it tells none."""
    seen: Mapping[tuple[str, str, str], Ranges] = field(default_factory=dict)
    """Sequence numbers by (tenant, producer, day)."""

    def __add__(self, other: Figures) -> Figures:
        return summed((self, other))

    @property
    def by_tenant(self) -> dict[str, Counts]:
        """Counts of all days."""
        found: dict[str, Counts] = {}
        for (tenant, _), one in self.counts.items():
            found[tenant] = found.get(tenant, Counts()) + one
        return found

    def without_days(self) -> Figures:
        """The same with all days in one, which is called `-`."""
        spans: dict[tuple[str, str, str], list[tuple[int, int]]] = {}
        for (tenant, producer, _), ranges in self.seen.items():
            spans.setdefault((tenant, producer, NO_DAY), []).extend(ranges.spans)
        return Figures(
            {(tenant, NO_DAY): one for tenant, one in self.by_tenant.items()},
            {key: Ranges.of(found) for key, found in spans.items()},
        )

    def by_month(self) -> dict[str, Figures]:
        """Taken apart by month, as in `2013-01`; `-` is one too."""
        counts: dict[str, dict[tuple[str, str], Counts]] = {}
        seen: dict[str, dict[tuple[str, str, str], Ranges]] = {}
        for place, count in self.counts.items():
            counts.setdefault(place[1][:_MONTH], {})[place] = count
        for who, ranges in self.seen.items():
            seen.setdefault(who[2][:_MONTH], {})[who] = ranges
        return {month: Figures(counts.get(month, {}), seen.get(month, {})) for month in sorted({*counts, *seen})}


def summed(many: Iterable[Figures]) -> Figures:
    """Sum of any number of figures; what was seen is joined."""
    counts: dict[tuple[str, str], Counts] = {}
    spans: dict[tuple[str, str, str], list[tuple[int, int]]] = {}
    for one in many:
        for place, count in one.counts.items():
            counts[place] = counts[place] + count if place in counts else count
        for who, ranges in one.seen.items():
            spans.setdefault(who, []).extend(ranges.spans)
    return Figures(counts, {key: Ranges.of(found) for key, found in spans.items()})


def to_pieces(figures: Figures) -> list[dict[str, Any]]:
    """Attributes of as many items as it takes, at least one."""
    pieces: list[dict[str, Any]] = []
    counts: list[Any] = []
    seen: list[Any] = []
    size = 0
    for kind, weight, entry in _entries(figures):
        if size and size + weight > _PIECE_BYTES:
            pieces.append({"counts": {"L": counts}, "seen": {"L": seen}})
            counts, seen, size = [], [], 0
        (counts if kind == "counts" else seen).append(entry)
        size += weight
    return [*pieces, {"counts": {"L": counts}, "seen": {"L": seen}}]


def _entries(figures: Figures) -> Iterator[tuple[str, int, Any]]:
    for (tenant, day), one in sorted(figures.counts.items()):
        numbers = ",".join(str(value) for value in vars(one).values())
        yield (
            "counts",
            len(numbers) + len(tenant.encode()) + 60,
            {"M": {"tenant": {"S": tenant}, "day": {"S": day}, "numbers": {"S": numbers}}},
        )
    for (tenant, producer, day), ranges in sorted(figures.seen.items()):
        for start in range(0, len(ranges.spans), _PIECE_SPANS):
            text = str(Ranges(ranges.spans[start : start + _PIECE_SPANS]))
            told = {"tenant": {"S": tenant}, "producer": {"S": producer}, "day": {"S": day}, "sequences": {"S": text}}
            yield "seen", len(text) + len(tenant.encode()) + len(producer.encode()) + 80, {"M": told}


def from_pieces(items: Iterable[Mapping[str, Any]]) -> Figures:
    """What `to_pieces` wrote."""
    counts: dict[tuple[str, str], Counts] = {}
    spans: dict[tuple[str, str, str], list[tuple[int, int]]] = {}
    for item in items:
        for entry in item.get("counts", {}).get("L", []):
            one = entry["M"]
            numbers = (int(value) for value in one["numbers"]["S"].split(","))
            counts[one["tenant"]["S"], one["day"]["S"]] = Counts(*numbers)
        for entry in item.get("seen", {}).get("L", []):
            one = entry["M"]
            key = (one["tenant"]["S"], one["producer"]["S"], one["day"]["S"])
            spans.setdefault(key, []).extend(Ranges.parse(one["sequences"]["S"]).spans)
    return Figures(counts, {key: Ranges.of(found) for key, found in spans.items()})
