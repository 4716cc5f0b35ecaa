"""Owns what becomes of one record: a row that satisfies the contract, or a reason why not.

Pure, and the same for a line of an object wherever it is read. A record is parsed strictly: one JSON object in UTF-8
and nothing behind it, no NaN, no half of a surrogate pair, no key twice. A refused one keeps its identity as far as it
can be read.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NoReturn

import orjson

from lake.contract import Field, Primitive
from lake.envelope import ENVELOPE, PROCESSED_AT, Identity, salvage
from lake.errors import first_repeated
from lake.spellings import LONGEST_KEY, VERSION, envelope_troubles, identity_texts
from spark_jobs.values import Trouble, converter, has_decimal, told

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from lake.contract import Contract

__all__ = ["ENVELOPE_FIELDS", "Judge", "Reason", "Refusal", "Row", "identity_in"]


class Reason(StrEnum):
    """Why ingest refuses a record."""

    UNREADABLE_OBJECT = "unreadable_object"
    """The whole object: not gzip although it says so, cut short, or gone."""
    TOO_LARGE = "too_large"
    """A line longer than any that a door delivers; only its beginning is kept."""
    MALFORMED_JSON = "malformed_json"
    MISSING_FIELD = "missing_field"
    WRONG_TYPE = "wrong_type"
    TENANT_MISMATCH = "tenant_mismatch"
    """The record names another tenant than the prefix it lies under."""
    UNKNOWN_DATASET = "unknown_dataset"
    UNKNOWN_SCHEMA_VERSION = "unknown_schema_version"
    """Another major version than the contract's."""
    CLOCK_SKEW = "clock_skew"
    """It says it happened later than the contract's limit from now."""
    UNKNOWN_TENANT = "unknown_tenant"
    """The stream doesn't carry the tenant that it was delivered under."""
    MALFORMED_ERROR_RECORD = "malformed_error_record"
    """A line of an error object that is no error record."""
    QUALITY = "quality"
    """Its batch broke a quality rule of the contract, and somebody decided that none of it becomes rows."""


@dataclass(frozen=True, slots=True)
class Row:
    """A record that satisfies the contract."""

    values: tuple[Any, ...]
    """Of the envelope's fields, the contract's, and `_rescued`: JSON of the fields that the contract doesn't know."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """A record that doesn't."""

    reason: str
    message: str
    identity: Identity


ENVELOPE_FIELDS = tuple(
    Field(name, Primitive({"event_time": "timestamptz", "sequence": "long"}.get(name, "string")), required=True)  # type: ignore[arg-type]
    for name in ENVELOPE
)
_EVENT_TIME = ENVELOPE.index("event_time")
_LARGEST_SEQUENCE = 2**63 - 1
_SPACED = re.compile(rb'"\s+:')
_ENVELOPE_KEYS = frozenset((*ENVELOPE, PROCESSED_AT, "payload"))


class Judge:
    """Judges the records of one dataset that lie under one tenant's prefix."""

    def __init__(self, contract: Contract, tenant: str, now: datetime) -> None:
        self._now = now
        self._latest = now + timedelta(minutes=contract.skew_minutes)
        self._contract = contract
        self._tenant = tenant
        self._major = contract.version.partition(".")[0]
        self._envelope = _converters(ENVELOPE_FIELDS)
        self._fields = _converters(contract.fields)
        self._known = frozenset(contract.field_names())
        self._exact = any(has_decimal(one.type) for one in contract.fields)

    def judge(self, raw: bytes) -> Row | Refusal:
        """Decide on one record, by its bytes."""
        try:
            return self._judged(raw)
        except RecursionError:  # how deep is too deep depends on who calls, and on what is done with it
            return Refusal(Reason.MALFORMED_JSON, "the record is nested too deeply", salvage(raw))

    def _judged(self, raw: bytes) -> Row | Refusal:
        try:
            record = self._parse(raw)
        except ValueError as error:
            return Refusal(Reason.MALFORMED_JSON, f"the record is no JSON: {error}", salvage(raw))
        except InvalidOperation:  # Decimal's exponents have nineteen digits at the most
            said = "the record is no JSON: a number's exponent is too long"
            return Refusal(Reason.MALFORMED_JSON, said, salvage(raw))
        if type(record) is not dict:
            return Refusal(Reason.MALFORMED_JSON, "the record is JSON, but no object", salvage(raw))
        trouble = Trouble()
        values = _take(record, self._envelope, trouble)
        payload: Any = record.get("payload")
        missing, wrong = envelope_troubles(record, payload)
        trouble.missing += missing
        trouble.wrong += wrong
        refused = self._refused(record, trouble) or self._ahead(record, values)
        if refused is not None:
            return refused
        values += _take(payload, self._fields, trouble)
        refused = self._refused(record, trouble)
        if refused is not None:
            return refused
        values.append(self._rescued(record, payload, trouble))
        return Row(tuple(values))

    def _parse(self, raw: bytes) -> Any:
        record = orjson.loads(raw)
        # Of a key that is there twice the parser keeps one, silently. Without spaces before colons every key ends in
        # `":`, and only texts can hold more of those: where the count is right, no key is there twice.
        if self._exact or raw.count(b'":') != _keys(record) or _SPACED.search(raw):
            return json.loads(
                raw, object_pairs_hook=_unique, parse_float=Decimal if self._exact else None, parse_constant=_no_number
            )
        return record

    def _refused(self, record: dict[str, Any], trouble: Trouble) -> Refusal | None:
        """The first of the reasons that apply."""
        if trouble.missing:
            return Refusal(Reason.MISSING_FIELD, f"missing: {told(trouble.missing, ', ')}", identity_in(record))
        if trouble.wrong:
            return Refusal(Reason.WRONG_TYPE, told(trouble.wrong, "; "), identity_in(record))
        tenant, dataset, version = record["tenant"], record["dataset"], record["schema_version"]
        if tenant != self._tenant:
            message = f"the record says tenant {tenant}, and it lies under tenant={self._tenant}"
            return Refusal(Reason.TENANT_MISMATCH, message, identity_in(record))
        if dataset != self._contract.dataset:
            message = f"the record says dataset {dataset[:LONGEST_KEY]}, and it lies under {self._contract.dataset}"
            return Refusal(Reason.UNKNOWN_DATASET, message, identity_in(record))
        found = VERSION.fullmatch(version)
        if found is None or found[1] != self._major:
            contract = f"the contract is {self._contract.version}"
            message = f"the record says schema_version {version[:LONGEST_KEY]}, and {contract}"
            return Refusal(Reason.UNKNOWN_SCHEMA_VERSION, message, identity_in(record))
        return None

    def _ahead(self, record: dict[str, Any], values: list[Any]) -> Refusal | None:
        if values[_EVENT_TIME] <= self._latest:
            return None
        limit = f"{self._contract.skew_minutes:,} minutes from {self._now:%Y-%m-%dT%H:%M:%SZ}"
        message = f"event_time: got {record['event_time']}, allowed is at most {limit}, when it was ingested"
        return Refusal(Reason.CLOCK_SKEW, message, identity_in(record))

    def _rescued(self, record: dict[str, Any], payload: dict[str, Any], trouble: Trouble) -> str | None:
        kept = {} if payload.keys() <= self._known else {k: v for k, v in payload.items() if k not in self._known}
        for path, found in trouble.unknown.items():
            kept[_free(path, kept)] = found[0] if len(found) == 1 else found
        if not record.keys() <= _ENVELOPE_KEYS:
            # below a name that no field of a contract can have
            strange = {key: value for key, value in record.items() if key not in _ENVELOPE_KEYS}
            kept[_free("$envelope", kept)] = strange
        if not kept:
            return None
        try:
            return orjson.dumps(kept, default=_plain_number).decode()
        except TypeError:  # a whole number beyond 64 bits, which only a contract with decimals keeps as one
            return json.dumps(kept, default=_plain_number, ensure_ascii=False, separators=(",", ":"))


_Converters = list[tuple[Field, "Callable[[Any, Trouble], Any]"]]


def _converters(fields: tuple[Field, ...]) -> _Converters:
    return [(one, converter(one.type, one.name)) for one in fields]


def _take(source: dict[str, Any], fields: _Converters, trouble: Trouble) -> list[Any]:
    values: list[Any] = []
    for field, convert in fields:
        value = source.get(field.name)
        if value is None:
            if field.required:
                trouble.missing.append(field.name)
            values.append(None)
        else:
            values.append(trouble.take(convert, value, field.name))
    return values


def identity_in(record: dict[str, Any]) -> Identity:
    """Whose record it is; what is no string, empty or endless identifies nobody."""
    found: dict[str, Any] = identity_texts(record)
    sequence = record.get("sequence")
    if type(sequence) is int and 0 <= sequence <= _LARGEST_SEQUENCE:
        found["sequence"] = sequence
    return Identity(**found)


def _keys(value: Any) -> int:
    """Keys of all objects in a JSON value."""
    if type(value) is dict:
        count = len(value)
        for one in value.values():
            if type(one) is dict or type(one) is list:
                count += _keys(one)
        return count
    return sum(_keys(one) for one in value if type(one) is dict or type(one) is list) if type(value) is list else 0


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = first_repeated(name for name, _ in pairs) or ""
        raise ValueError(f"the key {twice[:LONGEST_KEY]!r} is there twice")
    return found


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number")


def _free(name: str, taken: dict[str, Any]) -> str:
    while name in taken:  # a producer may call a field anything
        name = f"${name}"
    return name


def _plain_number(value: Any) -> float:
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(f"no JSON: {type(value).__name__}")
