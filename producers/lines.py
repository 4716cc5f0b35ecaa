"""Owns reading JSON lines as events, line by line, so that a bad line names itself and stops nothing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import orjson

from producers.rendering import NewEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from io import BufferedIOBase

__all__ = ["BadLine", "parse_line", "read_lines"]

_CHUNK = 1 << 20
_LONGEST = 16 << 20
"""Bytes of a line; an event has at most one MiB of them."""
_SHOWN = 60  # characters of what was given
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class BadLine:
    """A line that is no event."""

    number: int
    """From 1."""
    reason: str


def read_lines(stream: BufferedIOBase) -> Iterator[list[tuple[int, bytes]]]:
    """Read lines with their numbers, from 1, as soon as they are there: a pipe's lines don't wait for its end.

    Blank lines are counted and left out. Of one longer than any event only the beginning is kept.
    """
    number = 1
    parts: list[bytes] = []  # of the line that isn't whole yet: it may come in very many
    room = _LONGEST + 1
    while chunk := stream.read1(_CHUNK):
        *whole, rest = chunk.split(b"\n")
        if whole:
            whole[0] = b"".join((*parts, whole[0][:room]))
            parts, room = [], _LONGEST + 1
        if room:
            parts.append(rest[:room])
            room -= len(parts[-1])
        yield [(n, line) for n, line in enumerate(whole, number) if line.strip()]
        number += len(whole)
    rest = b"".join(parts)
    if rest.strip():
        yield [(number, rest)]


def parse_line(
    number: int, line: bytes, event_time_field: str | None, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> NewEvent | BadLine:
    """Make an event of a line, or say why it is none.

    Args:
        number: of the line, from 1.
        line: a JSON object, the payload.
        event_time_field: field of the payload with the event time, ISO 8601 with a time zone; now when None.
        now: the time for events without one.
    """
    if len(line) > _LONGEST:
        return BadLine(number, f"a line may have {_LONGEST:,} bytes, and this one is longer: got {_start(line)}")
    try:
        payload = orjson.loads(line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line)
    except orjson.JSONDecodeError as error:
        return BadLine(number, f"not JSON ({error}): got {_shown(line)}")
    if not isinstance(payload, dict):
        return BadLine(number, f"got {_shown(line)}, allowed is a JSON object")
    if event_time_field is None:
        return NewEvent(payload, now())
    if event_time_field not in payload:
        return BadLine(number, f"no field {event_time_field!r} for the event time; it has: {', '.join(payload)}")
    moment = _moment(payload[event_time_field])
    if moment is None:
        return BadLine(
            number,
            f"field {event_time_field!r}: got {_value(payload[event_time_field])}, allowed is "
            "ISO 8601 with a time zone, as 2026-01-31T12:00:00Z",
        )
    return NewEvent(payload, moment)


def _moment(given: Any) -> datetime | None:
    if not isinstance(given, str):
        return None
    try:
        moment = datetime.fromisoformat(given)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None else None


def _value(value: Any) -> str:
    try:
        return _shown(orjson.dumps(value))
    except TypeError:
        return "a list or an object, nested too deep to be shown"


def _shown(raw: bytes) -> str:
    text = raw.decode("utf-8", "replace").strip()
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text):,} characters)"


def _start(raw: bytes) -> str:
    return f"{raw[:_SHOWN].decode('utf-8', 'replace')}…"
