"""Owns the three questions of the demo: as Athena SQL, and the same asked of the source data by pandas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pandas as pd

    from lake.declaration import Lake

__all__ = ["Answer", "busiest_routes", "busiest_routes_of", "delays", "delays_of", "differences", "file_sizes", "files"]

_TOP = 10


@dataclass(frozen=True)
class Answer:
    """A question's answer: column names, and rows of text as Athena gives them."""

    columns: tuple[str, ...]
    rows: tuple[tuple[str | None, ...], ...]


def _all_flights(lake: Lake) -> str:
    # each tenant has a database of its own; the operator asks across all of them
    tables = [f'SELECT * FROM "{lake.names.database(tenant.id)}".flights' for tenant in lake.tenants]
    return " UNION ALL ".join(tables)


def busiest_routes(lake: Lake) -> str:
    """SQL: the ten routes with the most departures."""
    return (
        f"SELECT origin, dest, count(*) AS departures FROM ({_all_flights(lake)}) "
        f"GROUP BY origin, dest ORDER BY departures DESC, origin, dest LIMIT {_TOP}"
    )


def busiest_routes_of(flights: pd.DataFrame) -> Answer:
    """The same, asked of the source by pandas."""
    counts = flights.groupby(["origin", "dest"]).size().reset_index(name="departures")
    top = counts.sort_values(["departures", "origin", "dest"], ascending=[False, True, True]).head(_TOP)
    return Answer(("origin", "dest", "departures"), tuple((o, d, str(n)) for o, d, n in top.itertuples(index=False)))


def delays(lake: Lake) -> str:
    """SQL: mean delay at arrival by carrier and month, of flights that arrived."""
    return (
        f"SELECT carrier, month, count(arr_delay) AS flights, round(avg(arr_delay), 4) AS mean_delay "
        f"FROM ({_all_flights(lake)}) GROUP BY carrier, month ORDER BY carrier, month"
    )


def delays_of(flights: pd.DataFrame) -> Answer:
    """The same, asked of the source by pandas."""
    grouped = flights.groupby(["carrier", "month"])["arr_delay"].agg(["count", "mean"]).reset_index()
    return Answer(
        ("carrier", "month", "flights", "mean_delay"),
        tuple(
            (carrier, str(month), str(count), None if mean != mean else str(mean))  # noqa: PLR0124 - NaN
            for carrier, month, count, mean in grouped.sort_values(["carrier", "month"]).itertuples(index=False)
        ),
    )


def files(lake: Lake) -> str:
    """SQL: what the tables' own metadata say of their data files."""
    tables = [
        f"SELECT '{tenant.id}' AS tenant, count(*) AS files, sum(file_size_in_bytes) AS bytes, "
        f'sum(record_count) AS records FROM "{lake.names.database(tenant.id)}"."flights$files"'
        for tenant in lake.tenants
    ]
    return " UNION ALL ".join(tables) + " ORDER BY tenant"


def differences(found: Answer, wanted: Answer, *, tolerance: float = 5e-4) -> list[str]:
    """Sentences on where two answers differ; numbers with a fraction may differ by the tolerance."""
    if len(found.rows) != len(wanted.rows):
        return [f"{len(found.rows)} rows from Athena, {len(wanted.rows)} from pandas"]
    return [
        f"row {index}: {', '.join(map(str, ours))} from Athena, {', '.join(map(str, theirs))} from pandas"
        for index, (ours, theirs) in enumerate(zip(found.rows, wanted.rows, strict=True))
        if not _same(ours, theirs, tolerance)
    ]


def _same(ours: Sequence[str | None], theirs: Sequence[str | None], tolerance: float) -> bool:
    return len(ours) == len(theirs) and all(
        one == other or _close(one, other, tolerance) for one, other in zip(ours, theirs, strict=True)
    )


def _close(one: str | None, other: str | None, tolerance: float) -> bool:
    if one is None or other is None or not ("." in one or "." in other):
        return False
    try:
        return abs(float(one) - float(other)) <= tolerance
    except ValueError:
        return False


def file_sizes(lake: Lake) -> str:
    """SQL: bytes of each data file, by tenant."""
    tables = [
        f"SELECT '{tenant.id}' AS tenant, file_size_in_bytes AS bytes "
        f'FROM "{lake.names.database(tenant.id)}"."flights$files"'
        for tenant in lake.tenants
    ]
    return " UNION ALL ".join(tables) + " ORDER BY 1, 2"
