"""Owns how Trino's columns and values look in Athena: names of types, precisions, and every value as text."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Column", "TrinoType", "column_of", "java_double", "renderer"]

_MOST_PLAIN, _LEAST_PLAIN = 1e7, 1e-3
_MILLISECOND_DIGITS = 3
_VARCHAR_MOST = 2147483647
_PRECISION = {
    "tinyint": 3,
    "smallint": 5,
    "integer": 10,
    "bigint": 19,
    "real": 17,
    "double": 17,
    "varchar": _VARCHAR_MOST,
    "varbinary": 1073741824,
    "timestamp": 3,
    "timestamp with time zone": 3,
    "time": 3,
}
_ATHENAS_NAMES = {"real": "float"}
_TEXT = {"varchar", "char"}


@dataclass(frozen=True)
class TrinoType:
    """A type as Trino's protocol spells it."""

    name: str
    """Without arguments, for example `decimal`, `timestamp with time zone`, `row`."""
    numbers: tuple[int, ...] = ()
    """Length, or precision and scale."""
    inner: tuple[TrinoType, ...] = ()
    """Types of elements, of key and value, of fields."""
    fields: tuple[str | None, ...] = ()
    """Names of a row's fields; None where a field has none."""

    @classmethod
    def parse(cls, signature: Mapping[str, Any]) -> TrinoType:
        """Read a `typeSignature` of the client protocol."""
        numbers: list[int] = []
        inner: list[TrinoType] = []
        fields: list[str | None] = []
        for argument in signature.get("arguments", ()):
            value = argument["value"]
            if argument["kind"] == "LONG":
                numbers.append(value)
            elif argument["kind"] == "TYPE":
                inner.append(cls.parse(value))
            elif argument["kind"] == "NAMED_TYPE":
                name = value.get("fieldName")
                fields.append(name["name"] if name else None)
                inner.append(cls.parse(value["typeSignature"]))
        return cls(signature["rawType"], tuple(numbers), tuple(inner), tuple(fields))


@dataclass(frozen=True)
class Column:
    """A column of a result, as Athena's ColumnInfo describes it."""

    name: str
    type: str
    """Athena's name of the type, without arguments, for example `decimal` or `varchar`."""
    precision: int
    scale: int = 0

    def as_column_info(self) -> dict[str, Any]:
        """The shape of the API."""
        return {
            "CatalogName": "hive",
            "SchemaName": "",
            "TableName": "",
            "Name": self.name,
            "Label": self.name,
            "Type": self.type,
            "Precision": self.precision,
            "Scale": self.scale,
            "Nullable": "UNKNOWN",
            "CaseSensitive": self.type in _TEXT,
        }


def column_of(name: str, kind: TrinoType) -> Column:
    """Describe a column of Trino's in Athena's words."""
    athenas = _ATHENAS_NAMES.get(kind.name, kind.name)
    if kind.name == "decimal":
        return Column(name, athenas, kind.numbers[0], kind.numbers[1])
    if kind.name in _TEXT and kind.numbers:
        return Column(name, athenas, min(kind.numbers[0], _VARCHAR_MOST))
    return Column(name, athenas, _PRECISION.get(kind.name, 0))


def renderer(kind: TrinoType) -> Callable[[Any], str]:
    """The function that turns a value of Trino's JSON (never None) into Athena's text."""
    if kind.name in {"double", "real"}:
        return java_double
    if kind.name == "boolean":
        return _boolean
    if kind.name in {"timestamp", "timestamp with time zone"}:
        return _timestamp
    if kind.name == "varbinary":
        return _hex
    if kind.name == "array":
        return _array(renderer(kind.inner[0]))
    if kind.name == "map":
        return _map(kind.inner[0], renderer(kind.inner[1]))
    if kind.name == "row":
        return _row(kind.fields, [renderer(one) for one in kind.inner])
    return str


def java_double(value: float | str) -> str:
    """Write a number as Java's Double.toString does.

    >>> java_double(12345678.9), java_double(0.5), java_double(100)
    ('1.23456789E7', '0.5', '100.0')
    """
    number = float(value)
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "Infinity" if number > 0 else "-Infinity"
    sign = "-" if math.copysign(1, number) < 0 else ""
    size = abs(number)
    if size == 0:
        return f"{sign}0.0"
    if _LEAST_PLAIN <= size < _MOST_PLAIN:
        plain = format(Decimal(repr(size)), "f")
        return sign + (plain if "." in plain else f"{plain}.0")
    _, digits, exponent = Decimal(repr(size)).as_tuple()
    text = "".join(map(str, digits))
    power = len(text) + int(exponent) - 1
    return f"{sign}{text[0]}.{text[1:].rstrip('0') or '0'}E{power}"


def _boolean(value: bool | str) -> str:  # noqa: FBT001 - a value, no flag
    return str(value).lower()


def _timestamp(value: str) -> str:
    # Athena's text has milliseconds, however fine the column is
    day, clock, *zone = value.split(" ", 2)
    seconds, _, fraction = clock.partition(".")
    milliseconds = fraction[:_MILLISECOND_DIGITS].ljust(_MILLISECOND_DIGITS, "0")
    return " ".join([day, f"{seconds}.{milliseconds}", *zone])


def _hex(value: str) -> str:
    return base64.b64decode(value).hex(" ")


def _inside(render: Callable[[Any], str], value: Any) -> str:
    return "null" if value is None else render(value)


def _array(render: Callable[[Any], str]) -> Callable[[Any], str]:
    def text(value: Sequence[Any]) -> str:
        return f"[{', '.join(_inside(render, one) for one in value)}]"

    return text


def _map(key: TrinoType, render: Callable[[Any], str]) -> Callable[[Any], str]:
    # keys are strings in JSON, so only those that look different in Athena are written anew
    render_key = renderer(key) if key.name not in {"array", "map", "row"} else str

    def text(value: Mapping[str, Any]) -> str:
        return "{" + ", ".join(f"{render_key(name)}={_inside(render, one)}" for name, one in value.items()) + "}"

    return text


def _row(names: Sequence[str | None], renders: Sequence[Callable[[Any], str]]) -> Callable[[Any], str]:
    # Java's Row names what has no name by its place
    labels = [name if name is not None else f"field{index}" for index, name in enumerate(names)]

    def text(value: Sequence[Any]) -> str:
        return (
            "{"
            + ", ".join(
                f"{label}={_inside(render, one)}" for label, render, one in zip(labels, renders, value, strict=True)
            )
            + "}"
        )

    return text
