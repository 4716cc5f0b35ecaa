"""Owns text as values: what a cell of a CSV file is, as the contract's type of its field.

A cell has no type of its own, so what is written exactly is taken: `17850.0` is a whole number, `yes` is true. Nothing
is rounded or guessed: text that is none of the type stays text, and ingest refuses it with its reason.
"""

from __future__ import annotations

import math
import re
from datetime import UTC, datetime, tzinfo
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeAlias

import orjson

from lake.contract import FieldType, ListOf, Primitive

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Convert", "moment", "text_converter"]

Convert: TypeAlias = "Callable[[str], Any]"
"""Makes a JSON value of a cell; None where there is none."""

_WHOLE = re.compile(r"([+-]?\d{1,19})(?:\.0*)?", re.ASCII)
_NUMBER = re.compile(r"[+-]?(?:\d{1,60}(?:\.\d{0,60})?|\.\d{1,60})(?:[eE][+-]?\d{1,4})?", re.ASCII)
_DAY = r"\d{4}-\d{2}-\d{2}"
_MOMENT = re.compile(
    rf"({_DAY})[T ](\d{{2}}:\d{{2}})(:\d{{2}}(?:\.\d{{1,9}})?)? ?(Z|[+-]\d{{2}}(?::?\d{{2}})?)?", re.ASCII
)
_DATE = re.compile(_DAY, re.ASCII)
_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_FARTHEST = 300  # power of ten of a number; a parser of JSON takes little more
_SMALLEST, _LARGEST = -(2**63), 2**63 - 1


def text_converter(kind: FieldType, zone: tzinfo) -> Convert:
    """The function that takes cells of a field.

    Args:
        kind: the contract's type.
        zone: of moments that are written without one.
    """
    if not isinstance(kind, Primitive):
        return _nested(list if isinstance(kind, ListOf) else dict)
    if kind.name == "timestamptz":
        return lambda text: _moment_with_zone(text, zone)
    return _PLAIN[kind.name]


def moment(text: str, zone: tzinfo) -> datetime | None:
    """When something happened, of ISO 8601: a moment, with or without a zone, or a day, which is its first moment.

    Args:
        text: as `2026-11-20T10:00:00+01:00`, `2026-11-20 10:00` or `2026-11-20`.
        zone: where the text tells none.

    Returns:
        The moment in UTC, or None where the text is no moment.
    """
    text = text.strip()
    found = _parsed(text.upper())
    if found is None and _DATE.fullmatch(text):
        found = _date(text)
    return None if found is None else _in_utc(found, zone)


def _parsed(text: str) -> datetime | None:
    match = _MOMENT.fullmatch(text)
    if match is None:
        return None
    day, minute, second, offset = match.groups()
    try:
        return datetime.fromisoformat(f"{day}T{minute}{second or ':00'}{offset or ''}")
    except ValueError:
        return None  # the form of a moment, and none: the hour 25


def _date(text: str) -> datetime | None:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None  # likewise: the 30th of February


def _in_utc(found: datetime, zone: tzinfo) -> datetime | None:
    try:
        return (found.replace(tzinfo=zone) if found.tzinfo is None else found).astimezone(UTC)
    except OverflowError:
        return None  # before the year 1, or after 9999


def _string(text: str) -> Any:
    return text


def _stripped(text: str) -> Any:
    return text.strip() or None


def _whole(text: str) -> Any:
    text = text.strip()
    match = _WHOLE.fullmatch(text)
    if match is None:
        return text or None
    found = int(match[1])
    return found if _SMALLEST <= found <= _LARGEST else text


def _fraction(text: str) -> Any:
    text = text.strip()
    if not _NUMBER.fullmatch(text):
        return text or None
    found = float(text)
    return found if math.isfinite(found) else text


def _decimal(text: str) -> Any:
    text = text.strip()
    found = Decimal(text) if _NUMBER.fullmatch(text) else None
    if found is None or abs(found.adjusted()) > _FARTHEST:
        return text or None
    # digit by digit as written: a double would change them
    return orjson.Fragment(str(found))


def _boolean(text: str) -> Any:
    text = text.strip()
    return _BOOLEANS.get(text.lower(), text or None)


def _timestamp(text: str) -> Any:
    text = text.strip()
    found = _parsed(text.upper())
    return text or None if found is None or found.tzinfo else found.isoformat()


def _moment_with_zone(text: str, zone: tzinfo) -> Any:
    text = text.strip()
    found = _parsed(text.upper())
    known = None if found is None else _in_utc(found, zone)
    return text or None if known is None else known.isoformat().replace("+00:00", "Z")


_PLAIN: dict[str, Convert] = {
    "string": _string,
    "boolean": _boolean,
    "int": _whole,
    "long": _whole,
    "float": _fraction,
    "double": _fraction,
    "decimal": _decimal,
    "date": _stripped,
    "timestamp": _timestamp,
    "binary": _stripped,
}


def _nested(wanted: type[list[Any] | dict[str, Any]]) -> Convert:
    def take(text: str) -> Any:
        text = text.strip()
        try:
            value = orjson.loads(text)
        except orjson.JSONDecodeError:
            return text or None
        if type(value) is not wanted:
            return text
        # As written, so that ingest sees every digit and every key. A line's end can only stand between tokens there,
        # and a record is one line.
        return orjson.Fragment(text.replace("\n", " ").replace("\r", " "))

    return take
