"""Owns reading the two tables by the engines that aren't the jobs' own: PyIceberg, and Trino."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from athena.session import Session
from athena.trino import TrinoServer, TrinoSettings
from lake.errors import EnvironmentProblemError
from lake.tables import QUARANTINE, glue_catalog
from tests.faults.world import DATASET, REGION, TENANT

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lake.clients import Cloud
    from lake.declaration import Lake

__all__ = ["Tables", "by_pyiceberg", "by_trino", "sorted_tables", "start_trino"]

_COLUMNS = ("event_id", "producer_id", "sequence", "event_time", "page", "user_id", "seconds")


@dataclass(frozen=True)
class Tables:
    """What one engine reads, sorted."""

    rows: list[tuple[Any, ...]]
    quarantine: list[tuple[str, int, str]]
    """Object, line (-1 is the object as a whole), reason."""


def sorted_tables(rows: list[Any], quarantine: list[Any]) -> Tables:
    """Bring what an engine answered into the one form."""
    bad = sorted((uri, -1 if position is None else position, reason) for uri, position, reason in quarantine)
    return Tables(sorted(map(tuple, rows)), bad)


def by_pyiceberg(lake: Lake, cloud: Cloud) -> Tables:
    """As PyIceberg reads them."""
    catalog = glue_catalog(cloud)
    database = lake.names.database(TENANT)
    found = catalog.load_table((database, DATASET)).scan(selected_fields=_COLUMNS).to_arrow().to_pylist()
    rows = [[_millis(one[name]) if name == "event_time" else one[name] for name in _COLUMNS] for one in found]
    fields = ("object", "position", "reason")
    bad = catalog.load_table((database, QUARANTINE)).scan(selected_fields=fields).to_arrow().to_pylist()
    return sorted_tables(rows, [[one[name] for name in fields] for one in bad])


def _millis(moment: Any) -> int:
    return round(moment.timestamp() * 1000)


def start_trino(folder: Path, endpoint: str, say: Callable[[str], None]) -> TrinoServer | None:
    """A Trino on an endpoint; None where it can't be had."""
    try:
        return TrinoServer.start(folder, TrinoSettings(endpoint, REGION, heap="1G"), say=say)
    except EnvironmentProblemError as error:
        say(f"Trino reads nothing: {error}")
        return None


def by_trino(server: TrinoServer, lake: Lake) -> Tables:
    """As Trino reads them."""
    session = Session(server.url, catalog="lake", schema=lake.names.database(TENANT))
    columns = "event_id, producer_id, sequence, to_unixtime(event_time), page, user_id, seconds"
    rows = [list(one) for one in session.query(f"SELECT {columns} FROM {DATASET}").execute()]  # noqa: S608 - names of ours
    for one in rows:
        one[3] = round(one[3] * 1000)
    bad = session.query("SELECT object, position, reason FROM quarantine").execute()
    return sorted_tables(rows, [list(one) for one in bad])
