"""Owns Joda-Time's DateTimeFormat patterns, by which the Hive JSON deserializer reads timestamps.

A pattern becomes one regular expression. As with Joda, a number may have fewer digits than letters, names of months and
days are read in either length and any case, and what the pattern doesn't hold is that of 1970-01-01T00:00:00Z.
Source: https://www.joda.org/joda-time/apidocs/org/joda/time/format/DateTimeFormat.html and Hive's TimestampParser.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, available_timezones

from firehose.java_time import PatternError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MICROS_PER_DAY", "JodaPattern", "micros_of", "parse_joda"]

MICROS_PER_DAY = 86_400_000_000
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_TOKEN = re.compile(r"'((?:[^']|'')*)'|(([A-Za-z])\3*)|([^A-Za-z'])")
_MONTHS = (
    *("january", "february", "march", "april", "may", "june"),
    *("july", "august", "september", "october", "november", "december"),
)
_DAYS = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_TEXT_MONTH = 3
_YEAR_DIGITS = 9
_FIRST_OF_TWO_DIGITS = 1946
"""`yy` is a year of this one and the 99 behind it. Joda takes those around 30 years ago, so its answer changes with
the calendar; these are its of 2026."""
_DIGITS = dict.fromkeys("dKhHkmsM", 2) | {"y": _YEAR_DIGITS, "Y": _YEAR_DIGITS, "D": 3, "S": 9}
"""Digits that a field's number has at most."""
_ZONES = dict.fromkeys(("UT", "UTC", "GMT"), 0) | {
    name + kind: hours + (kind == "DT")
    for name, hours in (("E", -5), ("C", -6), ("M", -7), ("P", -8))
    for kind in ("ST", "DT")
}
"""Joda's short names, hours from UTC."""
_TEXTS = {
    "E": "|".join([*_DAYS, *(name[:3] for name in _DAYS)]),
    "a": "am|pm",
    "G": "ad|bc|ce|bce",
    "z": "|".join(sorted(_ZONES, key=len, reverse=True)),
}
"""What letters of texts look like."""
_OFFSET = re.compile(r"([+-])(\d\d)(?::?(\d\d)(?::?(\d\d))?)?", re.ASCII)


def micros_of(day: int, hour: int, minute: int, second: int, micros: int) -> int:
    """Count microseconds since the epoch.

    Args:
        day: its ordinal, as of `date.toordinal`.
        hour: 0 to 23.
        minute: 0 to 59.
        second: 0 to 59.
        micros: 0 to 999,999.
    """
    return (day - _EPOCH_DAY) * MICROS_PER_DAY + ((hour * 60 + minute) * 60 + second) * 1_000_000 + micros


@dataclass(frozen=True, slots=True)
class JodaPattern:
    """A parsed pattern."""

    text: str
    expression: re.Pattern[str]
    fields: tuple[str, ...]
    """Letter of each group, in order."""

    def read(self, text: str) -> int | None:
        """Read a text whole, as microseconds since the epoch; None if it doesn't fit. Milliseconds are the finest."""
        match = self.expression.fullmatch(text)
        if match is None:
            return None
        found: dict[str, str] = dict(zip(self.fields, match.groups(), strict=True))
        try:
            return _micros(found)
        except (ValueError, OverflowError):
            return None


def parse_joda(text: str) -> JodaPattern:
    """Parse a pattern such as `dd/MMM/yyyy:HH:mm:ss Z`, or the word `millis`.

    Raises:
        PatternError: an unknown letter, one that can't be read, or an open quote.
    """
    if text == "millis":
        return JodaPattern(text, re.compile(r"(-?\d{1,15})(?:\.\d+)?", re.ASCII), ("millis",))
    tokens: list[tuple[str, bool]] = []
    position = 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            raise PatternError(f"timestamp format {text!r}: a quote is opened and not closed")
        quoted, run, _, literal = token.groups()
        tokens.append((run, True) if run else ((literal or quoted.replace("''", "'") or "'"), False))
        position = token.end()
    parts: list[str] = []
    fields: list[str] = []
    for index, (token_text, is_field) in enumerate(tokens):
        if not is_field:
            parts.append(re.escape(token_text))
            continue
        beside = index + 1 < len(tokens) and _is_number(*tokens[index + 1])
        name, expression = _field(token_text, text, beside=beside)
        fields.append(name)
        parts.append(f"({expression})")
    if not fields:
        raise PatternError(f"timestamp format {text!r}: it has no field, as in yyyy-MM-dd HH:mm:ss")
    for name in {one for one in fields if fields.count(one) > 1}:
        raise PatternError(f"timestamp format {text!r}: {name!r} is there twice")
    return JodaPattern(text, re.compile("".join(parts), re.ASCII | re.IGNORECASE), tuple(fields))


def _is_number(run: str, is_field: bool) -> bool:  # noqa: FBT001 - a token's second part
    return is_field and run[0] in _DIGITS and not (run[0] == "M" and len(run) >= _TEXT_MONTH)


def _field(run: str, whole: str, *, beside: bool) -> tuple[str, str]:
    # `beside` another number, one has as many digits as letters
    letter, count = run[0], len(run)
    if letter == "M" and count >= _TEXT_MONTH:
        return "month", "|".join([*_MONTHS, *(name[:3] for name in _MONTHS)])
    if letter in _TEXTS:
        return ("zone" if letter == "z" else letter), _TEXTS[letter]
    if letter == "Z":
        named = "|[A-Za-z_]+(?:/[A-Za-z_+0-9-]+)*" if count > 2 else ""  # noqa: PLR2004 - ZZZ is a zone's name
        return "zone", rf"{_OFFSET.pattern.replace('(', '(?:').replace('(?:?:', '(?:')}|Z{named}"
    most = _DIGITS.get(letter)
    if most is None:
        allowed = " ".join(sorted({*_DIGITS, *_TEXTS, "Z"}))
        raise PatternError(f"timestamp format {whole!r}: letter {letter!r}: allowed are: {allowed}")
    sign = "[+-]?" if letter in "yY" and not beside else ""
    digits = f"{count}" if beside else f"1,{count if letter == 'S' else max(count, most)}"
    name = "y" if letter in "yY" else letter
    return ("yy" if name == "y" and count == 2 else name), rf"{sign}\d{{{digits}}}"  # noqa: PLR2004 - of two digits


def _micros(found: dict[str, Any]) -> int:
    if "millis" in found:
        return int(found["millis"]) * 1000
    number: Callable[[str, int], int] = lambda name, default: int(found.get(name, default))  # noqa: E731 - three words
    year = number("y", 1970)
    if "yy" in found:
        digits = found["yy"]
        year = int(digits)
        if len(digits) == 2 and digits.isdigit():  # noqa: PLR2004 - yy
            year = _FIRST_OF_TWO_DIGITS + (year - _FIRST_OF_TWO_DIGITS) % 100
    if found.get("G", "ad").lower().startswith("b"):
        raise ValueError("before year 1")
    month = number("M", 1)
    if "month" in found:
        month = 1 + [name[:3] for name in _MONTHS].index(found["month"][:3].lower())
    day = date(year, month, number("d", 1))
    if "D" in found:
        day = date(year, 1, 1) + timedelta(days=number("D", 1) - 1)
        if day.year != year or number("D", 1) < 1:
            raise ValueError("no such day of the year")
    if "E" in found and not ({"d", "D"} & set(found)):
        raise ValueError("a day of the week alone is no date")
    hour, minute, second = _hour(found, number), number("m", 0), number("s", 0)
    if max(minute, second) > 59:  # noqa: PLR2004 - of 60
        raise ValueError("no such minute or second")
    micros = int(found.get("S", "0").ljust(3, "0")[:3]) * 1000
    made = micros_of(day.toordinal(), hour, minute, second, micros)
    return made - _offset(found["zone"], made) if "zone" in found else made


def _hour(found: dict[str, Any], number: Callable[[str, int], int]) -> int:
    if "H" in found or "k" in found:
        hour = number("H", 0) if "H" in found else number("k", 24) % 24
    else:
        half = number("K", 0) if "K" in found else number("h", 12) % 12
        if half > 11 or number("h", 1) > 12 or ("h" in found and number("h", 1) < 1):  # noqa: PLR2004 - a clock's
            raise ValueError("no such hour of half a day")
        hour = half + (12 if found.get("a", "am").lower() == "pm" else 0)
    if hour > 23 or number("k", 1) > 24 or number("k", 1) < 1:  # noqa: PLR2004 - a day's
        raise ValueError("no such hour")
    return hour


@lru_cache(maxsize=1)
def _zone_names() -> frozenset[str]:
    # it walks the database's folder each time
    return frozenset(available_timezones())


def _offset(zone: str, local_micros: int) -> int:
    # microseconds that the zone is ahead of UTC
    match = _OFFSET.fullmatch(zone)
    if match is not None:
        sign, hours, minutes, seconds = match.groups()
        found = (int(hours) * 60 + int(minutes or 0)) * 60 + int(seconds or 0)
        return (-found if sign == "-" else found) * 1_000_000
    if zone.upper() in {"Z", *_ZONES}:
        return _ZONES.get(zone.upper(), 0) * 3_600_000_000
    if zone not in _zone_names():
        raise ValueError("no such zone")
    local = datetime.fromtimestamp(local_micros // 1_000_000, UTC).replace(tzinfo=ZoneInfo(zone))
    return round((local.utcoffset() or timedelta()).total_seconds()) * 1_000_000
