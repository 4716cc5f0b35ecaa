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

    Blank lines are counted and left out.
    """
    number = 1
    rest = b""
    while chunk := stream.read1(_CHUNK):
        *whole, rest = (rest + chunk).split(b"\n")
        yield [(n, line) for n, line in enumerate(whole, number) if line.strip()]
        number += len(whole)
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
    try:
        payload = orjson.loads(line.removeprefix(_BYTE_ORDER_MARK) if number == 1 else line)
    except orjson.JSONDecodeError as error:
        return BadLine(number, f"not JSON ({error}): got {_shown(line.decode('utf-8', 'replace'))}")
    if not isinstance(payload, dict):
        return BadLine(number, f"got {_shown(orjson.dumps(payload).decode())}, allowed is a JSON object")
    if event_time_field is None:
        return NewEvent(payload, now())
    if event_time_field not in payload:
        return BadLine(number, f"no field {event_time_field!r} for the event time; it has: {', '.join(payload)}")
    moment = _moment(payload[event_time_field])
    if moment is None:
        return BadLine(
            number,
            f"field {event_time_field!r}: got {_shown(orjson.dumps(payload[event_time_field]).decode())}, allowed is "
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


def _shown(text: str) -> str:
    text = text.strip()
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}… ({len(text):,} characters)"
