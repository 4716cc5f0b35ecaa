"""Owns Java's DateTimeFormatter patterns, which `!{timestamp:…}` is written in.

All pattern letters of java.time.format.DateTimeFormatter that apply to a date and time in a zone, in English. A pattern
is parsed once; a letter Java doesn't know, or repeats it doesn't allow, is an error when the stream is created.
Source: https://docs.oracle.com/en/java/javase/17/docs/api/java.base/java/time/format/DateTimeFormatter.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from lake.errors import TerminalError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["JavaPattern", "PatternError", "parse_pattern"]

_MONTHS = (
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_ORDINALS = ("1st", "2nd", "3rd", "4th")
_FULL, _NARROW = 4, 5
_TOKEN = re.compile(r"'((?:[^']|'')*)'|(([A-Za-z])\3*)|([\[\]])|([^A-Za-z'\[\]])")


class PatternError(TerminalError):
    """A timestamp pattern that Java's DateTimeFormatter would refuse."""


@dataclass(frozen=True, slots=True)
class JavaPattern:
    """A parsed pattern."""

    text: str
    parts: tuple[str | Callable[[datetime], str], ...]

    def format(self, moment: datetime) -> str:
        """Render a moment; it must be aware, in the zone wanted."""
        return "".join(part if isinstance(part, str) else part(moment) for part in self.parts)


def parse_pattern(text: str) -> JavaPattern:
    """Parse a pattern such as `yyyy/MM/dd/HH`.

    Raises:
        PatternError: an unknown letter, too many repeats of one, an open quote, or a reserved character.
    """
    if not text:
        raise PatternError("a timestamp pattern is empty; one is needed, as in yyyy/MM/dd")
    parts: list[str | Callable[[datetime], str]] = []
    position = 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            raise PatternError(f"timestamp pattern {text!r}: a quote is opened and not closed")
        quoted, run, letter, bracket, literal = token.groups()
        if quoted is not None:
            parts.append(quoted.replace("''", "'") or "'")
        elif run is not None:
            parts.append(_field(letter, len(run), text))
        elif literal is not None:
            if literal in "{}#":
                raise PatternError(f"timestamp pattern {text!r}: {literal!r} is reserved by Java; quote it")
            parts.append(literal)
        elif bracket is None:  # pragma: no cover - the token has no sixth group
            raise AssertionError(token)
        # [ and ] mark an optional section, which is always there when a moment is rendered
        position = token.end()
    return JavaPattern(text, tuple(parts))


def _field(letter: str, count: int, text: str) -> Callable[[datetime], str]:
    known = _FIELDS.get(letter)
    if known is None:
        allowed = " ".join(sorted(_FIELDS))
        raise PatternError(f"timestamp pattern {text!r}: unknown letter {letter!r}; the letters are: {allowed}")
    most, make = known
    if count > most:
        raise PatternError(
            f"timestamp pattern {text!r}: {letter!r} is repeated {count} times, at most {most} are allowed"
        )
    return lambda moment: make(moment, count)


def _year(moment: datetime, count: int) -> str:
    return f"{moment.year % 100:02d}" if count == 2 else f"{moment.year:0{count}d}"  # noqa: PLR2004 - yy is Java's case


def _names(names: tuple[str, ...], index: int, count: int) -> str:
    return names[index] if count == _FULL else names[index][0] if count == _NARROW else names[index][:3]


def _month(moment: datetime, count: int) -> str:
    return f"{moment.month:0{count}d}" if count < 3 else _names(_MONTHS, moment.month - 1, count)  # noqa: PLR2004


def _quarter(moment: datetime, count: int) -> str:
    quarter = (moment.month + 2) // 3
    if count < 3:  # noqa: PLR2004 - one or two letters are digits
        return f"{quarter:0{count}d}"
    return (
        f"{_ORDINALS[quarter - 1]} quarter" if count == _FULL else str(quarter) if count == _NARROW else f"Q{quarter}"
    )


def _weekday(moment: datetime, count: int) -> str:
    return _names(_DAYS, moment.weekday(), count)


def _local_weekday(moment: datetime, count: int) -> str:
    return f"{moment.isoweekday() % 7 + 1:0{count}d}" if count < 3 else _weekday(moment, count)  # noqa: PLR2004


# Y, w, W, e and c depend on the locale. The service's is not documented; US English is taken: weeks begin on Sunday,
# and the week that holds 1 January is the first.
def _sunday_before(moment: datetime) -> datetime:
    return moment - timedelta(days=moment.isoweekday() % 7)


def _week_year(moment: datetime) -> int:
    return (_sunday_before(moment) + timedelta(days=6)).year


def _week(moment: datetime) -> int:
    start = _sunday_before(moment)
    first = _sunday_before(moment.replace(year=_week_year(moment), month=1, day=1))
    return (start.date() - first.date()).days // 7 + 1


def _week_of_month(moment: datetime) -> int:
    first = _sunday_before(moment.replace(day=1))
    return (_sunday_before(moment).date() - first.date()).days // 7 + 1


def _based_year(moment: datetime, count: int) -> str:
    year = _week_year(moment)
    return f"{year % 100:02d}" if count == 2 else f"{year:0{count}d}"  # noqa: PLR2004 - YY is Java's case


def _era(moment: datetime, count: int) -> str:  # noqa: ARG001 - Python's years are all of this era
    return "Anno Domini" if count == _FULL else "A" if count == _NARROW else "AD"


def _nanos(moment: datetime) -> int:
    return moment.microsecond * 1000


def _since_midnight(moment: datetime) -> int:
    return (moment.hour * 60 + moment.minute) * 60 + moment.second


def _offset(moment: datetime) -> tuple[str, int, int, int]:
    seconds = round((moment.utcoffset() or timedelta()).total_seconds())
    hours, rest = divmod(abs(seconds), 3600)
    return ("-" if seconds < 0 else "+"), hours, rest // 60, rest % 60


def _offset_x(moment: datetime, count: int) -> str:
    sign, hours, minutes, seconds = _offset(moment)
    colon = ":" if count in {3, 5} else ""
    text = f"{sign}{hours:02d}"
    if count > 1 or minutes:
        text += f"{colon}{minutes:02d}"
    if count > _FULL - 1 and seconds:
        text += f"{colon}{seconds:02d}"
    return text


def _offset_big_x(moment: datetime, count: int) -> str:
    return _offset_x(moment, count) if moment.utcoffset() else "Z"


def _offset_z(moment: datetime, count: int) -> str:
    if count == _FULL:
        return _localized(moment, count)
    return _offset_big_x(moment, count) if count == _NARROW else _offset_x(moment, 2)


def _localized(moment: datetime, count: int) -> str:
    sign, hours, minutes, _ = _offset(moment)
    if not moment.utcoffset():
        return "GMT"
    if count == _FULL:
        return f"GMT{sign}{hours:02d}:{minutes:02d}"
    return f"GMT{sign}{hours}" + (f":{minutes:02d}" if minutes else "")


def _zone_name(moment: datetime, count: int) -> str:  # noqa: ARG001 - the id has one length
    return getattr(moment.tzinfo, "key", None) or moment.tzname() or "UTC"


def _number(value: Callable[[datetime], int]) -> Callable[[datetime, int], str]:
    return lambda moment, count: f"{value(moment):0{count}d}"


_FIELDS: dict[str, tuple[int, Callable[[datetime, int], str]]] = {
    "G": (5, _era),
    "u": (19, _year),
    "y": (19, _year),
    "Y": (19, _based_year),
    "D": (3, _number(lambda m: m.timetuple().tm_yday)),
    "M": (5, _month),
    "L": (5, _month),
    "d": (2, _number(lambda m: m.day)),
    "Q": (5, _quarter),
    "q": (5, _quarter),
    "w": (2, _number(_week)),
    "W": (1, _number(_week_of_month)),
    "E": (5, _weekday),
    "e": (5, _local_weekday),
    "c": (5, _local_weekday),
    "F": (1, _number(lambda m: (m.day - 1) // 7 + 1)),
    "a": (1, lambda m, _: "AM" if m.hour < 12 else "PM"),  # noqa: PLR2004 - noon
    "h": (2, _number(lambda m: (m.hour + 11) % 12 + 1)),
    "K": (2, _number(lambda m: m.hour % 12)),
    "k": (2, _number(lambda m: m.hour or 24)),
    "H": (2, _number(lambda m: m.hour)),
    "m": (2, _number(lambda m: m.minute)),
    "s": (2, _number(lambda m: m.second)),
    "S": (9, lambda m, count: f"{_nanos(m):09d}"[:count]),
    "A": (19, _number(lambda m: _since_midnight(m) * 1000 + m.microsecond // 1000)),
    "n": (19, _number(_nanos)),
    "N": (19, _number(lambda m: _since_midnight(m) * 1_000_000_000 + _nanos(m))),
    "V": (2, _zone_name),
    "z": (4, _zone_name),
    "O": (4, _localized),
    "X": (5, _offset_big_x),
    "x": (5, _offset_x),
    "Z": (5, _offset_z),
}
