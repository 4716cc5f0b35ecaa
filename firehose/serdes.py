"""Owns the two deserializers: how a record's JSON becomes rows of a table's columns.

A row is a list in the order of the columns. Unknown members are dropped, missing ones are null. A record that holds
several documents is several rows; if one of them doesn't fit, none of the record does.
Source: https://docs.aws.amazon.com/firehose/latest/APIReference/API_Deserializer.html; see `json_scalars` too
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import orjson

from firehose.hive_types import HiveType, ListOf, MapOf, Scalar, StructOf
from firehose.json_documents import Fraction, JsonError, documents
from firehose.json_scalars import Inexact, Misfit, orc_reader, scalar_reader

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from firehose.joda_time import JodaPattern

    Read = Callable[[Any], Any]

__all__ = ["ConversionError", "RowReader", "Serde"]

_PARSE, _MALFORMED = "DataFormatConversion.ParseError", "DataFormatConversion.MalformedData"
_PREFIX = "Data does not match the schema. "
_REMEMBERED, _REMEMBERED_LENGTH = 10_000, 100
"""Names of members that are known to be as they would be looked up, and how long they may be."""
_MOST_VALUES = 1_000_000
"""Values of columns that a record may come to: `{}{}{}…` takes two bytes for a row of nulls."""
_SAID = 400
"""Characters of why a record can't be converted: it goes into the log, and into an error record."""


class ConversionError(Exception):
    """A record that can't be converted."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message if len(message) <= _SAID else f"{message[:_SAID]}…")
        self.code = code
        """What the error record has as `lastErrorCode`."""


@dataclass(frozen=True, slots=True)
class Serde:
    """A deserializer with its options."""

    lenient: bool
    """OpenX: takes strings for numbers, one value for a list, and so on; Hive's refuses these."""
    case_insensitive: bool = True
    """Names of members match in any case; Hive's always do."""
    dots: bool = False
    """A dot in a member's name counts as an underscore."""
    keys: Mapping[str, str] = field(default_factory=dict)
    """Name in the JSON by name of the column, where they differ."""
    formats: tuple[JodaPattern, ...] = ()
    """Of timestamps, for Hive's."""
    for_orc: bool = False
    """Dates and timestamps are refused that readers of ORC take for others, or can't read."""

    @property
    def lowers(self) -> bool:
        """Whether names that are data, a map's keys, become lower case: OpenX lowers all before it looks at any."""
        return self.lenient and self.case_insensitive

    def fold(self, name: str) -> str:
        """Give a member's name as it is looked up."""
        folded = name.replace(".", "_") if self.dots else name
        return folded.lower() if self.case_insensitive else folded


class RowReader:
    """Reads records by a table's columns; the same record always gives the same rows."""

    def __init__(self, columns: Sequence[tuple[str, HiveType]], serde: Serde) -> None:
        self._read = _members(columns, serde)
        self._widest = max([1, len(columns), *(_widest(hive) for _, hive in columns)])

    def check(self, raw: bytes) -> None:
        """Tell whether a record is to be taken: not all that could be read is.

        Raises:
            ConversionError: it isn't JSON, doesn't fit the columns, or is too much.
        """
        most = _MOST_VALUES // self._widest
        if raw.count(b"{") + raw.count(b"[") > most and _holders(raw) > most:
            raise ConversionError(
                _MALFORMED, f"The record comes to more than {_MOST_VALUES:,} values of the table's columns."
            )
        self.rows(raw)

    def rows(self, raw: bytes) -> list[list[Any]]:
        """Make a record's rows; values are as `json_scalars` says, structs are dicts, maps lists of pairs.

        Raises:
            ConversionError: it isn't JSON, or doesn't fit the columns.
        """
        try:
            document = orjson.loads(raw)
            if type(document) is dict:
                return [self._read(document)]
        except (orjson.JSONDecodeError, Inexact):
            pass  # several documents, digits that count, or wrong: it is looked at closely
        except Misfit as error:
            raise ConversionError(_MALFORMED, str(error)) from None
        return self._closely(raw)

    def _closely(self, raw: bytes) -> list[list[Any]]:
        try:
            found = documents(raw)
        except JsonError as error:
            raise ConversionError(_PARSE, f"Encountered malformed JSON. {error}") from None
        if not found:
            raise ConversionError(_MALFORMED, "The record was empty or contained only whitespace.")
        for one in found:
            if isinstance(one, list):
                raise ConversionError(_MALFORMED, f"{_PREFIX}An array of JSON documents is not a valid input.")
            if not isinstance(one, dict):
                raise ConversionError(
                    _MALFORMED,
                    "The input JSON contained a primitive at the top level. The top level must be an object or array.",
                )
        try:
            return [self._read(one) for one in found]
        except Misfit as error:
            raise ConversionError(_MALFORMED, str(error)) from None


def _widest(hive: HiveType) -> int:
    match hive:
        case ListOf(element):
            return _widest(element)
        case MapOf(_, value):
            return _widest(value)
        case StructOf(fields):
            return max([len(fields), *(_widest(one) for _, one in fields)])
    return 1


def _holders(raw: bytes) -> int:
    """Count a record's objects and lists; those of one that is no JSON don't matter."""
    try:
        left = documents(raw)
    except JsonError:
        return 0
    count = 0
    while left:
        one = left.pop()
        if isinstance(one, (dict, list)):
            count += 1
            left += one.values() if isinstance(one, dict) else one
    return count


def _members(columns: Sequence[tuple[str, HiveType]], serde: Serde) -> Callable[[dict[str, Any]], list[Any]]:
    plan = [
        (key, serde.fold(key), _reader(hive, serde))
        for key, hive in ((serde.keys.get(name, name), hive) for name, hive in columns)
    ]
    folds = serde.case_insensitive or serde.dots
    plain: set[str] = set()
    names: dict[str, str] = {}

    def folded_of(document: dict[str, Any]) -> dict[str, Any]:
        if len(names) + len(document) > _REMEMBERED:
            plain.clear()
            names.clear()
        for name in document if len(document) <= _REMEMBERED else ():
            if len(name) <= _REMEMBERED_LENGTH and name not in names:
                names[name] = serde.fold(name)
        if all(names.get(name) == name for name in document):
            plain.update(document)
            return document
        return {names.get(name) or serde.fold(name): value for name, value in document.items()}

    def read(document: dict[str, Any]) -> list[Any]:
        folded = folded_of(document) if folds and not plain.issuperset(document) else document
        row = []
        for key, other, take in plan:
            value = document.get(key)
            if value is None and (folded is not document or other != key) and key not in document:
                value = folded.get(other)
            row.append(None if value is None else take(value))
        return row

    return read


def _reader(hive: HiveType, serde: Serde) -> Read:
    match hive:
        case Scalar():
            return _scalar(hive, serde, lenient=serde.lenient, lower=serde.lowers, formats=serde.formats)
        case ListOf(element):
            return _list_reader(_reader(element, serde), lenient=serde.lenient)
        case MapOf(key, value):
            return _map_reader(key, _reader(value, serde), serde)
        case StructOf(fields):
            return _struct_reader(fields, serde)


def _scalar(hive: Scalar, serde: Serde, *, lenient: bool, lower: bool, formats: Sequence[JodaPattern]) -> Read:
    take = scalar_reader(hive, lenient=lenient, lower=lower, formats=formats)
    return orc_reader(hive, take) if serde.for_orc else take


def _list_reader(take: Read, *, lenient: bool) -> Read:
    def read(value: Any) -> list[Any]:
        if type(value) is list:
            return [None if one is None else take(one) for one in value]
        if not lenient:
            raise Misfit(f"{_PREFIX}java.io.IOException: Start of Array expected")
        return [take(value)]

    return read


def _map_reader(key: Scalar, take: Read, serde: Serde) -> Read:
    # a member's name is text, whatever type it stands for
    key_of = _scalar(key, serde, lenient=True, lower=False, formats=())
    lowers = serde.lowers

    def read(value: Any) -> list[tuple[Any, Any]]:
        if type(value) is not dict:
            what = (
                "A JSON object is needed for a map."
                if serde.lenient
                else "java.io.IOException: Start of Object expected"
            )
            raise Misfit(_PREFIX + what)
        made = {
            key_of(name.lower() if lowers else name): None if one is None else take(one) for name, one in value.items()
        }
        return list(made.items())

    return read


def _struct_reader(fields: Sequence[tuple[str, HiveType]], serde: Serde) -> Read:
    names = [name for name, _ in fields]
    members = _members(fields, serde)
    takes = [_reader(hive, serde) for _, hive in fields]

    def read(value: Any) -> dict[str, Any]:
        if type(value) is dict:
            return dict(zip(names, members(value), strict=True))
        if not serde.lenient:
            raise Misfit(f"{_PREFIX}java.io.IOException: Start of Object expected")
        if type(value) is not list:
            raise Misfit(f"{_PREFIX}Data is not JSONObject  but {_java_class(value)} with value {_shown(value)}")
        made = [None if one is None else take(one) for one, take in zip(value, takes, strict=False)]
        return dict(zip(names, made + [None] * (len(names) - len(made)), strict=True))

    return read


def _java_class(value: Any) -> str:
    if isinstance(value, float):
        raise Inexact
    if isinstance(value, bool):
        return "java.lang.Boolean"
    if isinstance(value, int):
        return "java.lang.Long"
    return "java.lang.Double" if isinstance(value, Fraction) else "java.lang.String"


def _shown(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
