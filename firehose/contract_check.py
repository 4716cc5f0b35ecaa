"""Owns checking one event against its contract with nothing but the standard library: for the Lambda function.

Ingest judges the same events by `spark_jobs.records`, with what a Lambda function shouldn't have to pack. Both refuse
the same events for the same reasons, which a property test holds. A message tells no values: a function's log is no
place for what may be personal data.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, NoReturn

from lake.spellings import (
    ASKED,
    BITS,
    EXACT,
    JSON_NAMES,
    LARGEST_FLOAT,
    LONGEST_KEY,
    SPELLED,
    VERSION,
    envelope_troubles,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable

__all__ = ["Checked", "EventCheck", "RefusedError", "parse_event"]

Type = dict[str, Any]
"""A contract's type as JSON: `{"name": "decimal", "precision": 9, "scale": 2}`, `{"list": Type}` or
`{"struct": [Field, …]}`."""
Field = dict[str, Any]
"""A contract's field as JSON: `{"name": "page", "type": Type, "required": true}`."""

_TEXT: Type = {"name": "string"}
_ENVELOPE: tuple[tuple[str, Type], ...] = (
    ("event_id", _TEXT),
    ("tenant", _TEXT),
    ("dataset", _TEXT),
    ("event_time", {"name": "timestamptz"}),
    ("producer_id", _TEXT),
    ("sequence", {"name": "long"}),
    ("schema_version", _TEXT),
)
_MOST_UNSIGNED = 2**64 - 1
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class RefusedError(Exception):
    """An event that doesn't satisfy its contract."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        """The reason, as ingest calls it."""


@dataclass(frozen=True)
class Checked:
    """An event that does."""

    tenant: str
    event_time: datetime
    """In UTC."""


@dataclass
class _Trouble:
    missing: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def parse_event(raw: bytes, *, exact: bool = False) -> dict[str, Any]:
    """Parse one JSON object, strictly: UTF-8, nothing behind it, no NaN, no half of a surrogate pair, no key twice.

    Args:
        raw: the event's bytes.
        exact: whether fractions are read as `Decimal`.

    Raises:
        RefusedError: `malformed_json`.
    """
    try:
        record: Any = json.loads(
            raw.decode(),
            object_pairs_hook=_unique,
            parse_float=Decimal if exact else _float,
            parse_int=None if exact else _int,
            parse_constant=_no_number,
        )
        if _SURROGATE.search(raw):
            json.dumps(record, ensure_ascii=False, default=str).encode()
    except ValueError as error:
        raise RefusedError("malformed_json", f"the record is no JSON: {error}") from None
    except InvalidOperation:  # Decimal's exponents have nineteen digits at the most
        raise RefusedError("malformed_json", "the record is no JSON: a number's exponent is too long") from None
    except RecursionError:
        raise RefusedError("malformed_json", "the record is nested too deeply") from None
    if type(record) is not dict:
        raise RefusedError("malformed_json", "the record is JSON, but no object")
    return record


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = _repeated(name for name, _ in pairs)
        raise ValueError(f"the key {twice[:LONGEST_KEY]!r} is there twice")
    return found


def _repeated(names: Iterable[str]) -> str:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return ""


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _float(text: str) -> float:
    found = float(text)
    return found if abs(found) != float("inf") else _no_number(text)


def _int(text: str) -> int | float:
    # beyond 64 bits a number is a fraction to ingest's parser
    found = int(text)
    return found if -(2**63) <= found <= _MOST_UNSIGNED else _float(text)


class EventCheck:
    """Checks the events of one dataset.

    Args:
        dataset: its name.
        contract: `{"version": "1.0.0", "skew_minutes": 1440, "fields": [Field, …]}`.
        tenants: whose events may come; anybody's if it's None.
    """

    def __init__(self, dataset: str, contract: dict[str, Any], tenants: Collection[str] | None) -> None:
        self._dataset = dataset
        self._tenants = tenants
        self.version: str = contract["version"]
        """Of the contract."""
        self._skew = timedelta(minutes=contract["skew_minutes"])
        self._fields: list[Field] = contract["fields"]
        self.exact = any(_has_decimal(one["type"]) for one in self._fields)
        """Whether events have to be parsed with exact fractions."""

    def check(self, record: dict[str, Any], now: datetime) -> Checked:
        """Check a parsed event.

        Raises:
            RefusedError: the first of the reasons that apply.
        """
        trouble = _Trouble()
        for name, kind in _ENVELOPE:
            _take({"name": name, "type": kind, "required": True}, record, name, trouble)
        payload: Any = record.get("payload")
        missing, wrong = envelope_troubles(record, payload)
        trouble.missing += missing
        trouble.wrong += wrong
        _raise(trouble)
        self._check_names(record)
        moment = datetime.fromisoformat(record["event_time"]).astimezone(UTC)
        if moment > now + self._skew:
            limit = f"{self._skew // timedelta(minutes=1):,} minutes from {now:%Y-%m-%dT%H:%M:%SZ}"
            raise RefusedError("clock_skew", f"event_time: got {moment:%Y-%m-%dT%H:%M:%SZ}, allowed is at most {limit}")
        for one in self._fields:
            _take(one, payload, one["name"], trouble)
        _raise(trouble)
        return Checked(record["tenant"], moment)

    def _check_names(self, record: dict[str, Any]) -> None:
        tenant, dataset, version = record["tenant"], record["dataset"], record["schema_version"]
        if self._tenants is not None and tenant not in self._tenants:
            carried = ", ".join(sorted(self._tenants))
            raise RefusedError("unknown_tenant", f"the record says tenant {tenant}, and the stream carries: {carried}")
        if dataset != self._dataset:
            message = f"the record says dataset {dataset[:LONGEST_KEY]}, and it lies under {self._dataset}"
            raise RefusedError("unknown_dataset", message)
        found = VERSION.fullmatch(version)
        if found is None or found[1] != self.version.partition(".")[0]:
            message = f"the record says schema_version {version[:LONGEST_KEY]}, and the contract is {self.version}"
            raise RefusedError("unknown_schema_version", message)


def _raise(trouble: _Trouble) -> None:
    if trouble.missing:
        raise RefusedError("missing_field", f"missing: {', '.join(trouble.missing)}")
    if trouble.wrong:
        raise RefusedError("wrong_type", "; ".join(trouble.wrong))


def _take(one: Field, source: dict[str, Any], path: str, trouble: _Trouble) -> None:
    value = source.get(one["name"])
    if value is not None:
        _check(one["type"], value, path, trouble)
    elif one["required"]:
        trouble.missing.append(path)


def _check(kind: Type, value: Any, path: str, trouble: _Trouble) -> None:
    """Note what is wrong with a value that isn't null."""
    if "list" in kind and type(value) is list:
        for inner in value:
            if inner is not None:
                _check(kind["list"], inner, f"{path}[]", trouble)
    elif "struct" in kind and type(value) is dict:
        for one in kind["struct"]:
            _take(one, value, f"{path}.{one['name']}", trouble)
    elif "name" not in kind:
        _note("a list" if "list" in kind else "an object", value, path, trouble)
    elif kind["name"] == "decimal":
        if not _is_decimal(kind, value):
            _note(f"a number that fits decimal({kind['precision']}, {kind['scale']})", value, path, trouble)
    elif not _IS[kind["name"]](value):
        _note(ASKED[kind["name"]], value, path, trouble)


def _note(asked: str, value: Any, path: str, trouble: _Trouble) -> None:
    trouble.wrong.append(f"{path}: got {JSON_NAMES[type(value)]}, allowed is {asked}")


def _whole(bits: int) -> Callable[[Any], bool]:
    # `type is`: Python's True is an int, JSON's isn't
    return lambda value: type(value) is int and -(1 << bits) <= value < 1 << bits


def _is_double(value: Any) -> bool:
    return type(value) is float or type(value) is int or type(value) is Decimal


def _spelled(name: str, parse: Callable[[str], object]) -> Callable[[Any], bool]:
    rule = SPELLED[name]

    def holds(value: Any) -> bool:
        if type(value) is not str or not rule.fullmatch(value):
            return False
        try:
            parse(value)
        except (ValueError, OverflowError):
            return False  # the form of one, and none: the 30th of February, or before the year 1 in UTC
        return True

    return holds


def _is_binary(value: Any) -> bool:
    if type(value) is not str:
        return False
    try:
        base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return False
    return True


def _is_decimal(kind: Type, value: Any) -> bool:
    if type(value) is not int and type(value) is not Decimal:
        return False
    found = Decimal(value)
    # before the remainder is made: of the smallest numbers it would be zero
    if found and found.adjusted() < -kind["scale"]:
        return False
    if not found.copy_abs() < Decimal(10) ** (kind["precision"] - kind["scale"]):
        return False
    return EXACT.remainder(found, Decimal(1).scaleb(-kind["scale"])) == 0


_IS: dict[str, Callable[[Any], bool]] = {
    "boolean": lambda value: type(value) is bool,
    "int": _whole(BITS["int"]),
    "long": _whole(BITS["long"]),
    "float": lambda value: _is_double(value) and abs(float(value)) <= LARGEST_FLOAT,
    "double": _is_double,
    "string": lambda value: type(value) is str,
    "date": _spelled("date", date.fromisoformat),
    "timestamp": _spelled("timestamp", datetime.fromisoformat),
    "timestamptz": _spelled("timestamptz", lambda text: datetime.fromisoformat(text).astimezone(UTC)),
    "binary": _is_binary,
}


def _has_decimal(kind: Type) -> bool:
    if "list" in kind:
        return _has_decimal(kind["list"])
    return any(_has_decimal(one["type"]) for one in kind.get("struct", [])) or kind.get("name") == "decimal"
