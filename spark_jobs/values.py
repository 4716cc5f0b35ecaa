"""Owns the contract's types on the way in: which JSON value is taken as which typed one, and Arrow's and Spark's types.

A value is taken only if it is of the JSON type that the contract's type has, and fits: `"5"` is no number, `5.0` no
whole one. Nothing is cast, rounded or cut to make it fit, but fractions of a microsecond.
"""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lake.contract import Field, FieldType, ListOf, Primitive, StructOf
from lake.spellings import ASKED, BITS, EXACT, JSON_NAMES, LARGEST_FLOAT, SPELLED

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "NotTakenError",
    "Trouble",
    "arrow_struct",
    "arrow_type",
    "converter",
    "has_decimal",
    "spark_type",
    "told",
]

_SHOWN = 40  # characters of a wrong value that a message repeats
_MOST_TOLD = 20  # of what is wrong with one record


class NotTakenError(Exception):
    """A value isn't what the contract asks for; says what is."""


class Trouble:
    """What is amiss in one record, by the path of the field."""

    __slots__ = ("missing", "unknown", "wrong")

    def __init__(self) -> None:
        self.missing: list[str] = []
        self.wrong: list[str] = []
        self.unknown: dict[str, Any] = {}
        """Keys that the contract doesn't know, at the depth where they were found."""

    def take(self, convert: Callable[[Any, Trouble], Any], value: Any, path: str) -> Any:
        """Convert a value, or note what is wrong with it."""
        try:
            return convert(value, self)
        except NotTakenError as error:
            if len(self.wrong) <= _MOST_TOLD:
                self.wrong.append(f"{path}: got {_shown(value)}, allowed is {error}")
            return None

    def lacks(self, path: str) -> None:
        """Note that a required field isn't there."""
        if len(self.missing) <= _MOST_TOLD:
            self.missing.append(path)


def told(troubles: Sequence[str], between: str) -> str:
    """Say what is wrong with a record: a list may hold a million wrong elements."""
    rest = [f"and more than these {_MOST_TOLD}"] if len(troubles) > _MOST_TOLD else []
    return between.join([*troubles[:_MOST_TOLD], *rest])


def _shown(value: Any) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    return f"{str(value)[:_SHOWN]!r} ({JSON_NAMES.get(type(value), 'null')})"


def converter(kind: FieldType, path: str) -> Callable[[Any, Trouble], Any]:
    """The function that takes values of a type; it raises `NotTakenError` for what isn't one.

    What is amiss inside a list or an object goes to the trouble it is given.

    Args:
        kind: the contract's type.
        path: how messages call the field, as in `address.city`.
    """
    if isinstance(kind, ListOf):
        return _list(kind, path)
    if isinstance(kind, StructOf):
        return _struct(kind, path)
    return _primitive(kind)


def _primitive(kind: Primitive) -> Callable[[Any, Trouble], Any]:
    if kind.name == "decimal":
        return _decimal(kind)
    asked = ASKED[kind.name]
    if kind.name in BITS:
        low, high = -(1 << BITS[kind.name]), (1 << BITS[kind.name]) - 1

        def whole(value: Any, _: Trouble) -> int:
            # `type is`: Python's True is an int, JSON's isn't
            if type(value) is int and low <= value <= high:
                return value
            raise NotTakenError(asked)

        return whole
    return _PLAIN[kind.name]


def _boolean(value: Any, _: Trouble) -> bool:
    if type(value) is bool:
        return value
    raise NotTakenError(ASKED["boolean"])


def _string(value: Any, _: Trouble) -> str:
    if type(value) is str:
        return value
    raise NotTakenError(ASKED["string"])


def _double(value: Any, _: Trouble) -> float:
    if type(value) is float:
        return value
    if type(value) is int or type(value) is Decimal:
        return float(value)
    raise NotTakenError(ASKED["double"])


def _float(value: Any, trouble: Trouble) -> float:
    found = _double(value, trouble)
    if abs(found) <= LARGEST_FLOAT:
        return found
    raise NotTakenError(ASKED["float"])


def _date(value: Any, _: Trouble) -> date:
    if type(value) is str and SPELLED["date"].fullmatch(value):
        try:
            return date.fromisoformat(value)
        except ValueError:
            # the form of a date, and none: the 30th of February
            raise NotTakenError(ASKED["date"]) from None
    raise NotTakenError(ASKED["date"])


def _timestamptz(value: Any, _: Trouble) -> datetime:
    if type(value) is str and SPELLED["timestamptz"].fullmatch(value):
        try:
            return datetime.fromisoformat(value).astimezone(UTC)
        except (ValueError, OverflowError):
            # the form of a moment, and none: the hour 25, or before the year 1 in UTC
            raise NotTakenError(ASKED["timestamptz"]) from None
    raise NotTakenError(ASKED["timestamptz"])


def _timestamp(value: Any, _: Trouble) -> datetime:
    if type(value) is str and SPELLED["timestamp"].fullmatch(value):
        try:
            return datetime.fromisoformat(value)
        except ValueError:
            # likewise
            raise NotTakenError(ASKED["timestamp"]) from None
    raise NotTakenError(ASKED["timestamp"])


def _binary(value: Any, _: Trouble) -> bytes:
    if type(value) is str:
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            # not the alphabet, or not all of it
            raise NotTakenError(ASKED["binary"]) from None
    raise NotTakenError(ASKED["binary"])


_PLAIN: dict[str, Callable[[Any, Trouble], Any]] = {
    "boolean": _boolean,
    "string": _string,
    "double": _double,
    "float": _float,
    "date": _date,
    "timestamptz": _timestamptz,
    "timestamp": _timestamp,
    "binary": _binary,
}


def _decimal(kind: Primitive) -> Callable[[Any, Trouble], Decimal]:
    limit = Decimal(10) ** (kind.precision - kind.scale)
    step = Decimal(1).scaleb(-kind.scale)
    asked = f"a number that fits {kind}"

    def take(value: Any, _: Trouble) -> Decimal:
        if type(value) is int or type(value) is Decimal:
            found = Decimal(value)
            # before the remainder is made: of the smallest numbers it would be zero
            if found and found.adjusted() < -kind.scale:
                raise NotTakenError(asked)
            if found.copy_abs() < limit and EXACT.remainder(found, step) == 0:
                return found.quantize(step, context=EXACT)
        raise NotTakenError(asked)

    return take


def _list(kind: ListOf, path: str) -> Callable[[Any, Trouble], list[Any]]:
    inside = f"{path}[]"
    convert = converter(kind.element, inside)

    def take(value: Any, trouble: Trouble) -> list[Any]:
        if type(value) is not list:
            raise NotTakenError("a list")
        return [None if one is None else trouble.take(convert, one, inside) for one in value]

    return take


def _struct(kind: StructOf, path: str) -> Callable[[Any, Trouble], dict[str, Any]]:
    fields = [(one, f"{path}.{one.name}", converter(one.type, f"{path}.{one.name}")) for one in kind.fields]
    known = {one.name for one in kind.fields}

    def take(value: Any, trouble: Trouble) -> dict[str, Any]:
        if type(value) is not dict:
            raise NotTakenError("an object")
        taken = {}
        for field, inside, convert in fields:
            one = value.get(field.name)
            if one is None and field.required:
                trouble.lacks(inside)
            taken[field.name] = None if one is None else trouble.take(convert, one, inside)
        if not value.keys() <= known:
            # told by the path, and in a list as often as it comes: nothing is dropped
            found = {key: one for key, one in value.items() if key not in known}
            trouble.unknown.setdefault(path, []).append(found)
        return taken

    return take


def has_decimal(kind: FieldType) -> bool:
    """Whether a decimal is in a type, so that its numbers must not pass through a double."""
    if isinstance(kind, Primitive):
        return kind.name == "decimal"
    parts = [kind.element] if isinstance(kind, ListOf) else [one.type for one in kind.fields]
    return any(has_decimal(one) for one in parts)


_ARROW: dict[str, pa.DataType] = {
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
    "timestamptz": pa.timestamp("us", tz="UTC"),
    "string": pa.string(),
    "binary": pa.binary(),
}
_SPARK = {"timestamp": "timestamp_ntz", "timestamptz": "timestamp", "long": "bigint"}


def arrow_type(kind: FieldType) -> pa.DataType:
    """A contract's type in Arrow."""
    if isinstance(kind, ListOf):
        return pa.list_(arrow_type(kind.element))
    if isinstance(kind, StructOf):
        return arrow_struct(kind.fields)
    return pa.decimal128(kind.precision, kind.scale) if kind.name == "decimal" else _ARROW[kind.name]


def arrow_struct(fields: tuple[Field, ...]) -> pa.DataType:
    """Fields as one struct in Arrow."""
    return pa.struct([(one.name, arrow_type(one.type)) for one in fields])


def spark_type(kind: FieldType) -> str:
    """A contract's type in Spark SQL.

    >>> spark_type(ListOf(Primitive("timestamptz")))
    'array<timestamp>'
    """
    if isinstance(kind, ListOf):
        return f"array<{spark_type(kind.element)}>"
    if isinstance(kind, StructOf):
        return f"struct<{', '.join(f'{one.name}: {spark_type(one.type)}' for one in kind.fields)}>"
    return _SPARK.get(kind.name, str(kind))
