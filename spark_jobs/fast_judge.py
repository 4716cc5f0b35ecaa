"""Owns judging many lines at once, by columns: what is wholly clean becomes rows, all else is left to `Judge`.

Arrow's parser takes lines under a schema and refuses most of what `Judge` refuses: a key that is there twice, a field
the contract doesn't know, a value of another JSON type, a whole number with a point. What it lets through is looked for
here, a column at a time. So lines that pass are, value for value, what `Judge` makes of each; about the others nothing
is said.

Source: https://arrow.apache.org/docs/python/json.html
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import TYPE_CHECKING, Any, TypeGuard

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from lake.contract import Field, FieldType, ListOf, Primitive, StructOf
from lake.envelope import ENVELOPE, PROCESSED_AT
from lake.spellings import IDENTITY_KEYS, LARGEST_FLOAT, LONGEST_KEY
from spark_jobs.records import ENVELOPE_FIELDS
from spark_jobs.values import arrow_struct, arrow_type, has_decimal

if TYPE_CHECKING:
    from datetime import datetime

    from lake.contract import Contract

__all__ = ["FastJudge", "line_count"]

_WIRE: dict[str, pa.DataType] = {
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    # not as 32 bits: `Judge` rounds twice, by way of 64
    "float": pa.float64(),
    "double": pa.float64(),
    "string": pa.string(),
    # Arrow reads more spellings of times than are allowed
    "date": pa.string(),
    "timestamp": pa.string(),
    "timestamptz": pa.string(),
    "binary": pa.string(),
}
"""How a type is parsed."""
_CLOCK = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?"
_SPELLED = {
    "date": r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$",
    "timestamp": f"{_CLOCK}$",
    "timestamptz": rf"{_CLOCK}(Z|[+-]([01][0-9]|2[0-3]):?[0-5][0-9])$",
}
_DAYS = (-719_162, 2_932_896)
"""The years 1 to 9999, in days since 1970: Python has no others."""
_DAY_US = 86_400_000_000


_NUMBER_BYTES = 64
"""Of a number before its exponent; a longer one counts as one that has it."""
_BEFORE_NUMBER = b":,[ \t\r\n"


class _NotCleanError(Exception):
    """Something among the lines isn't, or may not be."""


def line_count(block: bytes) -> int | None:
    """Lines of a block, if each surely is one whole object; None where one may not be.

    Arrow reads one value after another, wherever a line ends. In JSON no newline can lie between `}` and `{` within a
    value (a comma would have to); so where all do, lines are as many as values only if each line is one.
    """
    inner = block.removesuffix(b"\n")
    breaks = inner.count(b"\n")
    if not inner.startswith(b"{") or not inner.endswith(b"}") or inner.count(b"}\n{") != breaks:
        return None
    return breaks + 1


def has_small_exponent(block: bytes) -> bool:
    """Tell whether a number with a negative exponent may be in a block; in a text one counts too.

    Arrow makes decimals of such numbers without a word about digits it drops (`1e-77` becomes 0.00), and ends the whole
    process at some (`0e-999999999`). They are sought by hand: a regular expression takes three times as long, and many
    a UUID holds `e-`.
    """
    for mark in (b"e-", b"E-"):
        at = block.find(mark)
        while at >= 0:
            digits = block[max(0, at - _NUMBER_BYTES) : at]
            head = digits.rstrip(b"0123456789.")
            if len(head) < len(digits) and head.removesuffix(b"-")[-1:] in _BEFORE_NUMBER:
                return True
            at = block.find(mark, at + 2)
    return False


class FastJudge:
    """Judges blocks of lines of one dataset that lie under one tenant's prefix."""

    def __init__(self, contract: Contract, tenant: str, latest: datetime) -> None:
        self._tenant = tenant
        self._dataset = contract.dataset
        self._version = re.compile(rf"{re.escape(contract.version.partition('.')[0])}\.\d+\.\d+", re.ASCII)
        self._latest = pa.scalar(latest, pa.timestamp("us", tz="UTC"))
        self._fields = contract.fields
        envelope = [(one.name, _wire(one.type)) for one in ENVELOPE_FIELDS]
        wire = [*envelope, (PROCESSED_AT, pa.string()), ("payload", _wire(StructOf(contract.fields)))]
        self._parse = _options(wire, "error")
        # Arrow takes a string for a decimal, for a double none; and it wraps a decimal that is too large around
        exact = [one for one in contract.fields if has_decimal(one.type)]
        self.is_able = all(_is_plain(one.type) for one in exact)
        """Whether blocks can be judged at all: none are where a decimal is inside a list or an object."""
        self._limits = {one.name: 10 ** (one.type.precision - one.type.scale) for one in exact if _is_plain(one.type)}
        doubles = pa.struct([(name, pa.float64()) for name in self._limits])
        self._numbers = _options([("payload", doubles)], "ignore") if exact else None
        self._struct = list(arrow_struct((*ENVELOPE_FIELDS, *contract.fields, Field("_rescued", Primitive("string")))))

    def judge(self, block: bytes) -> pa.StructArray | None:
        """The rows of a block, one a line; None unless every line is clean.

        Args:
            block: lines, each with its newline but perhaps the last.
        """
        lines = line_count(block)
        if lines is None or not self.is_able or (self._numbers is not None and has_small_exponent(block)):
            return None
        try:
            return self._rows(block, lines)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError, _NotCleanError):
            return None

    def _rows(self, block: bytes, lines: int) -> pa.StructArray:
        table = _read(block, self._parse)
        if table.num_rows != lines:
            raise _NotCleanError
        if not block.isascii():
            table.validate(full=True)  # UTF-8: the parser takes any bytes
        if self._numbers is not None:
            self._check_decimals(_one(_read(block, self._numbers).column(0)))
        found = {name: _one(table.column(name)) for name in table.column_names}
        whole = pa.scalar(value=True)
        self._check_envelope(found)
        envelope = [_typed(found[one.name], one, whole) for one in ENVELOPE_FIELDS]
        if pc.greater(pc.max(envelope[ENVELOPE.index("event_time")]), self._latest).as_py():
            raise _NotCleanError
        payload = found["payload"]
        _clean(payload.null_count == 0)
        parts = [_typed(payload.field(one.name), one, whole) for one in self._fields]
        return pa.StructArray.from_arrays([*envelope, *parts, pa.nulls(lines, pa.string())], fields=self._struct)

    def _check_decimals(self, doubles: pa.Array) -> None:
        for name, limit in self._limits.items():
            values = pc.abs(doubles.field(name))
            # a little below the limit, as a double may be a little off
            _clean(pc.all(pc.less(values, limit * (1 - 2**-50)), min_count=0).as_py())

    def _check_envelope(self, found: dict[str, pa.Array]) -> None:
        for name in IDENTITY_KEYS:
            sizes = pc.min_max(pc.utf8_length(found[name])).as_py()
            # None where all are null
            _clean(sizes["min"] is not None and sizes["min"] > 0 and sizes["max"] <= LONGEST_KEY)
        _clean(_all(pc.equal(found["tenant"], self._tenant)))
        _clean(_all(pc.equal(found["dataset"], self._dataset)))
        _clean(_all(pc.greater_equal(found["sequence"], 0)))
        versions = pc.unique(found["schema_version"]).to_pylist()
        _clean(all(one is not None and self._version.fullmatch(one) is not None for one in versions))


def _read(block: bytes, options: pj.ParseOptions) -> pa.Table:
    # one block, as lines have no limit of Arrow's; no threads, as Spark runs a task a core
    reading = pj.ReadOptions(use_threads=False, block_size=len(block) + 1)
    return pj.read_json(pa.BufferReader(block), read_options=reading, parse_options=options)


def _options(fields: list[tuple[str, pa.DataType]], unknown: str) -> pj.ParseOptions:
    return pj.ParseOptions(explicit_schema=pa.schema(fields), unexpected_field_behavior=unknown)


def _wire(kind: FieldType) -> pa.DataType:
    if isinstance(kind, ListOf):
        return pa.list_(_wire(kind.element))
    if isinstance(kind, StructOf):
        return pa.struct([(one.name, _wire(one.type)) for one in kind.fields])
    return arrow_type(kind) if kind.name == "decimal" else _WIRE[kind.name]


def _is_plain(kind: FieldType) -> TypeGuard[Primitive]:
    return isinstance(kind, Primitive)


def _one(column: pa.ChunkedArray) -> pa.Array:
    found = column.combine_chunks()
    return found.chunk(0) if isinstance(found, pa.ChunkedArray) else found


def _clean(holds: bool) -> None:  # noqa: FBT001 - it is an assertion
    if not holds:
        raise _NotCleanError


def _all(flags: pa.Array) -> bool:
    """Whether all are true; a null isn't."""
    return bool(flags.null_count == 0 and pc.all(flags, min_count=0).as_py())


def _typed(given: pa.Array, field: Field, within: pa.Scalar | pa.Array) -> pa.Array:
    """A parsed column as the contract's type.

    Args:
        given: as it was parsed.
        field: what the contract says of it.
        within: where what it is a part of is there; a required field must be too.
    """
    if field.required and given.null_count:
        _clean(not pc.any(pc.and_(pc.is_null(given), within)).as_py())
    kind = field.type
    if isinstance(kind, Primitive):
        return _primitive(given, kind)
    if isinstance(kind, ListOf):
        item = _typed(given.values, Field("", kind.element), pa.scalar(value=True))
        return pa.ListArray.from_arrays(given.offsets, item, type=arrow_type(kind), mask=_nulls(given))
    there = pc.is_valid(given)
    parts = [_typed(given.field(one.name), one, there) for one in kind.fields]
    return pa.StructArray.from_arrays(parts, fields=list(arrow_struct(kind.fields)), mask=_nulls(given))


def _nulls(given: pa.Array) -> pa.Array | None:
    return pc.is_null(given) if given.null_count else None


def _primitive(given: pa.Array, kind: Primitive) -> pa.Array:
    match kind.name:
        case "float" | "double":
            return _real(given, single=kind.name == "float")
        case "date" | "timestamp" | "timestamptz":
            return _time(given, kind)
        case "binary":
            return _bytes(given)
        case _:
            return given


def _real(given: pa.Array, *, single: bool) -> pa.Array:
    _clean(pc.all(pc.is_finite(given), min_count=0).as_py())  # the parser takes NaN and Inf for numbers
    values = given.to_numpy(zero_copy_only=False)
    # `-0` is a whole number, which has no sign of its own; `-0.0` has
    _clean(not (np.signbit(values) & (values == 0)).any())
    if not single:
        return given
    with np.errstate(invalid="ignore"):
        _clean(not (np.abs(values) > LARGEST_FLOAT).any())
    return given.cast(pa.float32(), safe=False)


def _time(given: pa.Array, kind: Primitive) -> pa.Array:
    _clean(pc.all(pc.match_substring_regex(given, _SPELLED[kind.name]), min_count=0).as_py())
    found = given.cast(arrow_type(kind))
    ends: dict[str, Any] = pc.min_max(found.cast(pa.int32() if kind.name == "date" else pa.int64())).as_py()
    if ends["min"] is not None:
        scale = 1 if kind.name == "date" else _DAY_US
        _clean(_DAYS[0] * scale <= ends["min"] and ends["max"] < (_DAYS[1] + 1) * scale)
    return found


def _bytes(given: pa.Array) -> pa.Array:
    try:
        found = [None if one is None else base64.b64decode(one, validate=True) for one in given.to_pylist()]
    except (binascii.Error, ValueError):
        raise _NotCleanError from None
    return pa.array(found, pa.binary())
