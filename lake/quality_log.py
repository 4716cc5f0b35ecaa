"""Owns what the quality rules found, batch by batch, in the manifest: items for people to look at, and for means.

They are a projection as all of the manifest is. What decides about a batch that is held back are objects beside its
plan; where results are lost, a volume has nothing to be held to until there are new ones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Any

from lake.items import Items, item_key
from lake.manifest import BatchId, Lane
from lake.quality import Result, Severity, Unit

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mypy_boto3_dynamodb import DynamoDBClient

__all__ = ["Entry", "QualityLog", "State", "result_from_dict", "result_to_dict"]


class State(StrEnum):
    """What has become of a batch."""

    PUBLISHED = "published"
    """No rule held it back, or somebody decided so: it is in the table, or just about to be."""
    HELD = "held"
    """On a branch of its own, waiting for somebody to decide."""
    REFUSED = "refused"
    """Somebody decided that its rows go to quarantine."""


@dataclass(frozen=True)
class Entry:
    """What the rules found in one batch."""

    batch: BatchId
    planned_at_ms: int
    rows: int
    """New rows of the batch."""
    state: State
    results: tuple[Result, ...]


def result_to_dict(one: Result) -> dict[str, Any]:
    """A result as JSON takes it."""
    return {**vars(one), "columns": list(one.columns)}


def result_from_dict(raw: dict[str, Any]) -> Result:
    """A result from what JSON gave.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    given = {**raw, "columns": tuple(raw["columns"]), "unit": Unit(raw["unit"]), "severity": Severity(raw["severity"])}
    return Result(**given)


class QualityLog:
    """Results in the manifest table, by its name."""

    def __init__(self, dynamodb: DynamoDBClient, table: str) -> None:
        self._items = Items(dynamodb, table)

    def record(self, entry: Entry) -> None:
        """Note what was found in a batch, replacing what was noted before."""
        self._items.put(
            {
                **item_key(*_key(entry.batch)),
                "planned_at_ms": {"N": str(entry.planned_at_ms)},
                "rows": {"N": str(entry.rows)},
                "state": {"S": entry.state},
                "results": {"L": [_packed(one) for one in entry.results]},
            }
        )

    def decided(self, batch: BatchId, state: State) -> None:
        """Note what has become of a batch whose results are noted; without them there is nothing to note."""
        item = self._items.get(*_key(batch))
        if item is not None:
            self._items.put({**item, "state": {"S": state}})

    def entries(self, owner: str, dataset: str, tenant: str | None = None) -> Iterator[Entry]:
        """What was found in an owner's batches, of one tenant or all, the newest of each first."""
        prefix = "quality#" if tenant is None else f"quality#{tenant}#"
        for item in self._items.beginning(f"{owner}#{dataset}", prefix, newest_first=True):
            # only declared tenants have rows that rules are for, and no declared name has the separator
            _, whose, number = item["sk"]["S"].split("#")
            yield Entry(
                batch=BatchId(owner, dataset, Lane.EVENTS, whose, int(number)),
                planned_at_ms=int(item["planned_at_ms"]["N"]),
                rows=int(item["rows"]["N"]),
                state=State(item["state"]["S"]),
                results=tuple(_unpacked(one["M"]) for one in item["results"]["L"]),
            )

    def rows_before(self, batch: BatchId, last: int) -> list[int]:
        """Rows of the last published batches before one, as many as there are; a request however many there were."""
        pk, end = _key(replace(batch, number=batch.number - 1))
        items = self._items.between(pk, f"quality#{batch.tenant}#", end, newest_first=True, page=last)
        kept = (int(one["rows"]["N"]) for one in items if one["state"]["S"] == State.PUBLISHED)
        return list(islice(kept, last))

    def count_day(self, batch: BatchId, day: str, rows: int) -> None:
        """Add a batch's rows to those of a day (`2026-01-31`), once, as batches of a series come in order."""
        key = (f"{batch.owner}#{batch.dataset}", f"volume#{batch.tenant}#{day}")
        there = self._items.get(*key)
        total = rows + (int(there["rows"]["N"]) if there else 0)
        # where the condition fails it is counted already
        self._items.put_if(
            {**item_key(*key), "rows": {"N": str(total)}, "newest": {"N": str(batch.number)}},
            "attribute_not_exists(newest) OR newest < :number",
            {":number": {"N": str(batch.number)}},
        )

    def days_before(self, batch: BatchId, day: str, last: int) -> list[tuple[str, int]]:
        """The last days before one that had batches, the newest first, with their rows."""
        pk, first = f"{batch.owner}#{batch.dataset}", f"volume#{batch.tenant}#"
        items = self._items.between(pk, first, f"{first}{day}", newest_first=True, page=last + 1)
        found = ((one["sk"]["S"].rpartition("#")[2], int(one["rows"]["N"])) for one in items)
        return list(islice((one for one in found if one[0] < day), last))


def _key(batch: BatchId) -> tuple[str, str]:
    return f"{batch.owner}#{batch.dataset}", f"quality#{batch.tenant}#{batch.number:09d}"


def _packed(one: Result) -> dict[str, Any]:
    value: dict[str, Any] = {"NULL": True} if one.value is None else {"S": repr(one.value)}
    return {
        "M": {
            "rule": {"S": one.rule},
            "metric": {"S": one.metric},
            "columns": {"L": [{"S": name} for name in one.columns]},
            "value": value,
            "unit": {"S": one.unit},
            "limit": {"S": one.limit},
            "severity": {"S": one.severity},
            "passed": {"BOOL": one.passed},
            "description": {"S": one.description},
        }
    }


def _unpacked(raw: dict[str, Any]) -> Result:
    return Result(
        rule=raw["rule"]["S"],
        metric=raw["metric"]["S"],
        columns=tuple(one["S"] for one in raw["columns"]["L"]),
        value=float(raw["value"]["S"]) if "S" in raw["value"] else None,
        unit=Unit(raw["unit"]["S"]),
        limit=raw["limit"]["S"],
        severity=Severity(raw["severity"]["S"]),
        passed=bool(raw["passed"]["BOOL"]),
        description=raw["description"]["S"],
    )
