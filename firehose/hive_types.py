"""Owns Hive's type strings, as a Glue table's columns have them: `array<struct<sku:string,price:decimal(10,2)>>`.

A type is parsed into a tree; whoever reads JSON by it, or writes columns by it, walks the tree.
Source: https://docs.aws.amazon.com/athena/latest/ug/data-types.html and
https://cwiki.apache.org/confluence/display/Hive/LanguageManual+Types
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lake.errors import TerminalError

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["HiveType", "HiveTypeError", "ListOf", "MapOf", "Scalar", "StructOf", "arrow_type", "parse_hive_type"]

_DEPTH = 32
"""Levels a type may have: more than any schema has, and far from Python's own limit."""
_PLAIN = ("boolean", "tinyint", "smallint", "int", "bigint", "float", "double", "string", "date", "timestamp")
_ALIASES = {"integer": "int", "real": "float", "char": "string", "varchar": "string"}
_KINDS = dict(zip(_PLAIN, _PLAIN, strict=True)) | _ALIASES
_WIDTHS = {"char": 255, "varchar": 65_535}
_PRECISION, _DEFAULT_PRECISION = 38, 10
# What the deserializers do with bytes isn't documented; HCatalog's refuses them.
_REFUSED = ("binary", "uniontype", "interval_year_month", "interval_day_time", "void")
_TOKEN = re.compile(r"\s*(?:([\w.$]+)|`((?:[^`]|``)+)`|([<>(),:]))")


class HiveTypeError(TerminalError):
    """A type that isn't one of Hive's, or that JSON can't be converted to."""


@dataclass(frozen=True, slots=True)
class Scalar:
    """A type without parts."""

    kind: str
    """boolean, tinyint, smallint, int, bigint, float, double, decimal, string (char, varchar), date or timestamp."""
    precision: int = 0
    """Digits of a decimal."""
    scale: int = 0
    """Of these, behind the point."""


@dataclass(frozen=True, slots=True)
class ListOf:
    """`array<element>`."""

    element: HiveType


@dataclass(frozen=True, slots=True)
class StructOf:
    """`struct<name:type,…>`."""

    fields: tuple[tuple[str, HiveType], ...]


@dataclass(frozen=True, slots=True)
class MapOf:
    """`map<key,value>`."""

    key: Scalar
    value: HiveType


HiveType = Scalar | ListOf | StructOf | MapOf


def parse_hive_type(text: str) -> HiveType:
    """Parse a type.

    >>> parse_hive_type("decimal(10, 2)")
    Scalar(kind='decimal', precision=10, scale=2)

    Raises:
        HiveTypeError: it isn't a type, or one that JSON can't be converted to.
    """
    parser = _Parser(text)
    found = parser.type(0)
    parser.end()
    return found


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[tuple[str, bool]] = []
        position = 0
        while text[position:].strip():
            token = _TOKEN.match(text, position)
            if token is None:
                raise self._wrong(f"unexpected {text[position:].strip()[0]!r}")
            word, quoted, mark = token.groups()
            self._tokens.append((mark, False) if mark else (word or quoted.replace("``", "`"), True))
            position = token.end()
        self._at = 0

    def type(self, depth: int) -> HiveType:
        if depth > _DEPTH:
            raise self._wrong(f"deeper than {_DEPTH} levels")
        word = self._word("a type").lower()
        if word == "array":
            self._mark("<")
            element = self.type(depth + 1)
            self._mark(">")
            return ListOf(element)
        if word == "map":
            return self._map(depth)
        if word == "struct":
            return self._struct(depth)
        if word in _REFUSED:
            raise self._wrong(f"{word} can't be converted from JSON")
        return self._scalar(word)

    def end(self) -> None:
        if self._at < len(self._tokens):
            raise self._wrong(f"unexpected {self._tokens[self._at][0]!r} behind it")

    def _map(self, depth: int) -> MapOf:
        self._mark("<")
        key = self.type(depth + 1)
        if not isinstance(key, Scalar):
            raise self._wrong("the key of a map is a type without parts")
        self._mark(",")
        value = self.type(depth + 1)
        self._mark(">")
        return MapOf(key, value)

    def _struct(self, depth: int) -> StructOf:
        self._mark("<")
        fields: dict[str, tuple[str, HiveType]] = {}
        while True:
            name = self._word("a field's name")
            if name.lower() in fields:
                raise self._wrong(f"field {name} is there twice")
            self._mark(":")
            fields[name.lower()] = (name, self.type(depth + 1))
            if not self._is(","):
                break
        self._mark(">")
        return StructOf(tuple(fields.values()))

    def _scalar(self, word: str) -> Scalar:
        if word in {"decimal", "numeric", "dec"}:
            numbers = self._numbers()
            precision, scale = (*numbers, 0)[:2] if numbers else (_DEFAULT_PRECISION, 0)
            if len(numbers) > 2 or not 1 <= precision <= _PRECISION or scale > precision:  # noqa: PLR2004 - (p,s)
                raise self._wrong(f"a decimal has 1 to {_PRECISION} digits, and at most these behind the point")
            return Scalar("decimal", precision, scale)
        if word == "double" and self._next() == ("precision", True):
            self._at += 1
        if word not in _KINDS:
            allowed = ", ".join(sorted({*_KINDS, "decimal(p,s)", "array<…>", "map<…>", "struct<…>"}))
            raise self._wrong(f"no such type: {word}; allowed are: {allowed}")
        if word in _WIDTHS:
            numbers = self._numbers()
            if len(numbers) != 1 or not 1 <= numbers[0] <= _WIDTHS[word]:
                raise self._wrong(f"{word} has a length of 1 to {_WIDTHS[word]}")
        return Scalar(_KINDS[word])

    def _numbers(self) -> list[int]:
        found: list[int] = []
        if self._is("("):
            while True:
                word = self._word("a number")
                if not word.isascii() or not word.isdigit() or len(word) > len(str(_WIDTHS["varchar"])):
                    raise self._wrong(f"got {word!r}, a number is needed")
                found.append(int(word))
                if not self._is(","):
                    break
            self._mark(")")
        return found

    def _next(self) -> tuple[str, bool] | None:
        return self._tokens[self._at] if self._at < len(self._tokens) else None

    def _word(self, wanted: str) -> str:
        token = self._next()
        if token is None or not token[1]:
            raise self._wrong(f"{wanted} is needed, got {token[0] if token else 'the end'!r}")
        self._at += 1
        return token[0]

    def _is(self, mark: str) -> bool:
        if self._next() != (mark, False):
            return False
        self._at += 1
        return True

    def _mark(self, mark: str) -> None:
        if not self._is(mark):
            token = self._next()
            raise self._wrong(f"{mark!r} is needed, got {token[0] if token else 'the end'!r}")

    def _wrong(self, what: str) -> HiveTypeError:
        return HiveTypeError(f"Hive type {self._text!r}: {what}")


def arrow_type(hive: HiveType) -> pa.DataType:
    """Give the Arrow type whose columns hold such values.

    Timestamps are microseconds without a zone: years 1 to 9999, as Spark and Iceberg have them.
    """
    import pyarrow as pa  # noqa: PLC0415 - 27 MB of memory, for streams that convert only

    match hive:
        case ListOf(element):
            return pa.list_(pa.field("element", arrow_type(element)))
        case MapOf(key, value):
            return pa.map_(arrow_type(key), arrow_type(value))
        case StructOf(fields):
            return pa.struct([pa.field(name, arrow_type(one)) for name, one in fields])
        case Scalar("decimal", precision, scale):
            return pa.decimal128(precision, scale)
        case Scalar(kind):
            made: dict[str, pa.DataType] = dict(
                zip(
                    _PLAIN,
                    (
                        *(pa.bool_(), pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64()),
                        *(pa.string(), pa.date32(), pa.timestamp("us")),
                    ),
                    strict=True,
                )
            )
            return made[kind]
