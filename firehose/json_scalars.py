"""Owns what a single JSON value becomes in a column without parts, by each deserializer's rules.

Each reader takes values of orjson or of `json_documents`. What floci's authors saw the service do is followed, its
messages too; where OpenX coerces, Hive's deserializer mostly refuses. Where a number's own digits count, and orjson
made a float of it, a reader raises `Inexact`, and the record is read again by `json_documents`.
Source: https://docs.aws.amazon.com/firehose/latest/dev/record-format-conversion.html,
https://github.com/floci-io/floci/pull/3333, https://github.com/rcongiu/Hive-JSON-Serde, HCatalog's JsonSerDe
"""

from __future__ import annotations

import re
from datetime import date, datetime, timedelta
from decimal import ROUND_FLOOR, ROUND_HALF_UP, Context, Decimal
from typing import TYPE_CHECKING, Any

from firehose.joda_time import micros_of
from firehose.json_documents import DEEPEST, Fraction, rendered

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from firehose.hive_types import Scalar
    from firehose.joda_time import JodaPattern

__all__ = ["Inexact", "Misfit", "orc_reader", "scalar_reader"]

_EPOCH_DAY = date(1970, 1, 1).toordinal()
_EPOCH, _MICRO = datetime(1970, 1, 1), timedelta(microseconds=1)  # noqa: DTZ001 - a file's timestamps have no zone
_RANGES = {
    name: (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)
    for name, bits in (("tinyint", 8), ("smallint", 16), ("int", 32), ("bigint", 64))
}
_FLOAT_MAX = 3.4028235677973366e38
"""From here on a number is infinite in 32 bits."""
_SECONDS_UP_TO = 10**12
"""A number below is seconds since the epoch, from here on milliseconds (seen by floci's authors)."""
_FIRST, _LAST = micros_of(1, 0, 0, 0, 0), micros_of(date.max.toordinal(), 23, 59, 59, 999_999)
_GREGORIAN = date(1582, 10, 15).toordinal()
"""Day from which on all calendars agree that readers of ORC take."""
_MOST_DIGITS = 40
"""Before the point; more fit no type."""
_CONTEXT = Context(prec=2 * _MOST_DIGITS)
_WHOLE = re.compile(r"[+-]?\d{1,40}", re.ASCII)
# possessive: digits are never given back, which would take quadratic time where something else follows them
_NUMBER = re.compile(r"[+-]?(?:\d++\.?+\d*+|\.\d++)(?:[eE][+-]?\d{1,9})?", re.ASCII)
_DATE = re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2})", re.ASCII)
_SPACED = re.compile(r"(\d{4})-(\d{1,2})-(\d{1,2}) (\d{1,2}):(\d{1,2}):(\d{1,2})(?:\.(\d{1,9}))?", re.ASCII)
_ISO = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z?", re.ASCII)
_NOT_NUMERIC = "Current token ({}) not numeric, can not use numeric value accessors"
_BAD_FIELD = "One or more fields have incorrect format. Exception when validating field (root)"
_PREFIX = "Data does not match the schema. "


class Misfit(Exception):  # noqa: N818 - a record's fate, not an error of the program
    """A value that doesn't fit its column; its text is what the error record says."""


class Inexact(Exception):  # noqa: N818 - likewise
    """A float whose own digits are needed."""


def scalar_reader(hive: Scalar, *, lenient: bool, lower: bool, formats: Sequence[JodaPattern]) -> Callable[[Any], Any]:
    """Make the function that turns a JSON value, which isn't null, into a column's.

    Dates are days and timestamps microseconds since the epoch, decimals `Decimal` with the column's scale.

    Args:
        hive: the column's type.
        lenient: as OpenX does; otherwise as Hive's deserializer.
        lower: whether names within text that is made of an object become lower case.
        formats: of timestamps, for Hive's deserializer.
    """
    kind = hive.kind
    if kind == "string":
        return _string_reader(lenient=lenient, lower=lower)
    if kind in _RANGES:
        return _whole_reader(kind, lenient=lenient)
    if kind in {"float", "double"}:
        return _float_reader(kind, lenient=lenient)
    if kind == "decimal":
        return _decimal_reader(hive, lenient=lenient)
    if kind == "boolean":
        return _boolean
    if kind == "date":
        return _date
    return _openx_timestamp if lenient else _hive_timestamp(formats)


def orc_reader(hive: Scalar, take: Callable[[Any], int]) -> Callable[[Any], Any]:
    """Make a column's function that refuses, too, what ORC's readers wouldn't read as it was written.

    Days before 1582-10-15 come out as others by calendar, and a fraction of a second before 1970 makes Java's reader
    fail on the whole column.
    """
    if hive.kind not in {"date", "timestamp"}:
        return take
    of_day = 1 if hive.kind == "date" else 86_400_000_000

    def read(value: Any) -> int:
        made = take(value)
        if made < (_GREGORIAN - _EPOCH_DAY) * of_day or (made < 0 and hive.kind == "timestamp" and made % 1_000_000):
            raise Misfit(f"{_PREFIX}Value {value} of type {hive.kind} can't be written as ORC.")
        return made

    return read


def _string_reader(*, lenient: bool, lower: bool) -> Callable[[Any], str]:
    def read(value: Any) -> str:
        if type(value) is str:
            return value
        if type(value) is Fraction:
            return _java_double(float(value)) if lenient else str(value)
        if not lenient and isinstance(value, (dict, list)):
            raise Misfit(_BAD_FIELD)
        if isinstance(value, (dict, list, float)):
            return _text_of(value, lower=lower)
        return _plain(value)

    return read


def _text_of(value: Any, *, lower: bool) -> str:
    if not _is_exact(value, DEEPEST):
        raise Inexact
    return rendered(value, lower=lower)


def _is_exact(value: Any, levels: int) -> bool:
    if isinstance(value, (dict, list)):
        parts = value.values() if isinstance(value, dict) else value
        return levels > 0 and all(_is_exact(one, levels - 1) for one in parts)
    return not isinstance(value, float)


def _whole_reader(kind: str, *, lenient: bool) -> Callable[[Any], int]:
    low, high = _RANGES[kind]

    def read(value: Any) -> int:
        if type(value) is int:
            number = value
        else:
            text = _digits(value, lenient=lenient)
            if _WHOLE.fullmatch(text):
                number = int(text)
            elif lenient or not _is_whole(text):
                raise _no_number(text)
            else:
                number = int(Decimal(text))
        if not low <= number <= high:
            raise _out_of_range(number, kind)
        return number

    return read


def _is_whole(text: str) -> bool:
    number = Decimal(text if _NUMBER.fullmatch(text) else "0.1")
    return number.adjusted() < _MOST_DIGITS and number == number.to_integral_value()


def _float_reader(kind: str, *, lenient: bool) -> Callable[[Any], float]:
    limit = _FLOAT_MAX if kind == "float" else float("inf")

    def read(value: Any) -> float:
        if type(value) is float:
            number = value
        elif type(value) is int:
            try:
                number = float(value)
            except OverflowError:
                raise _out_of_range(value, kind) from None
        else:
            text = _digits(value, lenient=lenient)
            if not _NUMBER.fullmatch(text):
                raise _no_number(text)
            number = float(text)
        if not -limit < number < limit:
            raise _out_of_range(value, kind)
        return number

    return read


def _decimal_reader(hive: Scalar, *, lenient: bool) -> Callable[[Any], Decimal]:
    step, before = Decimal(1).scaleb(-hive.scale), hive.precision - hive.scale
    limit = Decimal(10) ** before
    told = f"decimal({hive.precision},{hive.scale})"

    def read(value: Any) -> Decimal:
        if type(value) is int:
            text = str(value) if abs(value) < 10**_MOST_DIGITS else f"1e{_MOST_DIGITS}"
        else:
            text = _digits(value, lenient=lenient)
            if not _NUMBER.fullmatch(text):
                raise _no_number(text)
        number = Decimal(text)
        if not number:
            return Decimal(0).quantize(step, context=_CONTEXT)
        # before it is written out: an exponent may stand for millions of digits
        if number.adjusted() >= before + 1:
            raise _out_of_range(value, told)
        if number.adjusted() < -hive.scale - 1:
            return Decimal(0).quantize(step, context=_CONTEXT)
        made = number.quantize(step, ROUND_HALF_UP, _CONTEXT)
        if not -limit < made < limit:
            raise _out_of_range(value, told)
        return made

    return read


def _boolean(value: Any) -> bool:
    if type(value) is bool:
        return value
    if type(value) is str and value.lower() in {"true", "false"}:
        return value.lower() == "true"
    # HCatalog's own code would read anything else as false, which nobody would notice
    raise _no_number(_plain(value))


def _date(value: Any) -> int:
    match = _DATE.fullmatch(value) if type(value) is str else None
    if match is None:
        raise _no_number(_plain(value))
    return _day(value, *match.groups()) - _EPOCH_DAY


def _day(text: str, year: str, month: str, day: str) -> int:
    try:
        return date(int(year), int(month), int(day)).toordinal()
    except ValueError:
        raise _no_number(text) from None


def _clock(match: re.Match[str], text: str) -> int:
    year, month, day, hour, minute, second, fraction = match.groups()
    if int(hour) > 23 or int(minute) > 59 or int(second) > 59:  # noqa: PLR2004 - a clock's
        raise _no_number(text)
    micros = int(fraction[:6].ljust(6, "0")) if fraction else 0
    return micros_of(_day(text, year, month, day), int(hour), int(minute), int(second), micros)


def _openx_timestamp(value: Any) -> int:
    if type(value) is str:
        if _ISO.fullmatch(value):
            try:
                # finer digits than microseconds are cut off
                return (datetime.fromisoformat(value[:26].rstrip("Z")) - _EPOCH) // _MICRO
            except ValueError:
                raise _no_number(value) from None
        match = _SPACED.fullmatch(value)
        if match is not None:
            return _clock(match, value)
        value = Fraction(value.strip())
    if type(value) is int:
        made = value * (1_000_000 if abs(value) < _SECONDS_UP_TO else 1000)
    elif type(value) is Fraction:
        if not _NUMBER.fullmatch(value):
            raise _no_number(value)
        number = Decimal(value)
        if number.adjusted() > _MOST_DIGITS:
            raise _out_of_range(value, "timestamp")
        factor = 1_000_000 if abs(number) < _SECONDS_UP_TO else 1000
        made = int((number * factor).to_integral_value(ROUND_FLOOR))
    elif type(value) is float:
        raise Inexact
    else:
        raise _no_number(_plain(value))
    return _in_years(made, value)


def _in_years(micros: int, value: Any) -> int:
    if not _FIRST <= micros <= _LAST:
        raise _out_of_range(value, "timestamp")
    return micros


def _hive_timestamp(formats: Sequence[JodaPattern]) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if type(value) is float:
            raise Inexact
        text = _plain(value).strip()
        for one in formats:
            made = one.read(text)
            if made is not None:
                return _in_years(made, text)
        match = _SPACED.fullmatch(text)  # java.sql.Timestamp::valueOf
        if match is None:
            raise _no_number(text)
        return _clock(match, text)

    return read


def _digits(value: Any, *, lenient: bool) -> str:
    """Give the text of a number, or of a string that a lenient reader takes for one."""
    if type(value) is Fraction:
        return value
    if type(value) is float:
        raise Inexact
    if lenient:
        return _plain(value).strip()
    tokens = {str: "VALUE_STRING", bool: f"VALUE_{value}".upper(), list: "START_ARRAY", dict: "START_OBJECT"}
    raise Misfit(_PREFIX + _NOT_NUMERIC.format(tokens[type(value)]))


def _plain(value: Any) -> str:
    """Give a value without parts as text."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        raise Inexact
    raise Misfit(f"{_PREFIX}A JSON {'array' if isinstance(value, list) else 'object'} does not fit the column.")


def _no_number(text: str) -> Misfit:
    # the service's words, whatever the type: those of Java's NumberFormatException
    return Misfit(f'{_PREFIX}For input string: "{text}"')


def _out_of_range(value: Any, kind: str) -> Misfit:
    return Misfit(f"{_PREFIX}Value {value} is out of range for type {kind}.")


def _java_double(number: float) -> str:
    """Write a number as Java's Double.toString."""
    if number in {float("inf"), float("-inf")}:
        raise Misfit(f"{_PREFIX}Value {number} is out of range for type double.")
    if number == 0 or 1e-3 <= abs(number) < 1e7:  # noqa: PLR2004 - Java's borders
        text = format(Decimal(repr(number)), "f")
        return text if "." in text else f"{text}.0"
    sign, digits, exponent = Decimal(repr(number)).normalize().as_tuple()
    rest = "".join(map(str, digits[1:])) or "0"
    return f"{'-' if sign else ''}{digits[0]}.{rest}E{int(exponent) + len(digits) - 1}"
