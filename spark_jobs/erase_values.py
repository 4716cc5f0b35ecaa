"""Owns telling whether a value is a subject's: one of JSON, a cell of CSV, anything in some bytes.

Values are compared as a person means them: `42` is found as a number and as a text.
"""

from __future__ import annotations

import json
import re
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator

    from lake.erasure import Key

__all__ = ["holds_bytes", "holds_cell", "holds_flow", "is_cell", "is_long_number", "is_number", "is_value", "windows"]

_MARKS = ",;\t|\r\n\"'[]"
_FLOAT_DIGITS = 15
_WINDOW = 4 * 2**20


def is_value(value: Any, text: str) -> bool:
    """Whether a value of JSON is what a person wrote as a text."""
    if isinstance(value, str):
        return value == text
    if value is None or isinstance(value, bool | dict):
        return False
    if isinstance(value, date):
        return _is_date(value, text)
    return is_number(str(value), text)


def is_number(written: str, text: str) -> bool:
    """Whether two texts are the same number: `042`, `+42` and `42.0` are."""
    try:
        return Decimal(written) == Decimal(text)
    except InvalidOperation:
        return False


def is_long_number(text: str) -> bool:
    """Whether a text is a number that a float can't hold digit by digit."""
    try:
        number = Decimal(text)
    except InvalidOperation:
        return False
    return number.is_finite() and (len(number.as_tuple().digits) > _FLOAT_DIGITS or number.adjusted() >= _FLOAT_DIGITS)


def _is_date(value: date, text: str) -> bool:
    try:
        if not isinstance(value, datetime):
            return value == date.fromisoformat(text)
        meant = datetime.fromisoformat(text)
    except ValueError:
        return False
    return value.replace(tzinfo=value.tzinfo or UTC) == meant.replace(tzinfo=meant.tzinfo or UTC)


def holds_bytes(keys: Iterable[Key], body: bytes) -> bool:
    """Whether any of the values is in some bytes, as they are, as JSON or CSV write it, or in UTF-16."""
    return any(form in body for form in _forms(keys))


def holds_flow(keys: Iterable[Key], chunks: Iterable[bytes]) -> bool:
    """The same of what is too large to be held, in chunks of any size."""
    forms = _forms(keys)
    overlap = max(map(len, forms), default=0)
    return any(form in window for window in windows(chunks, overlap) for form in forms)


def windows(chunks: Iterable[bytes], overlap: int) -> Iterator[bytes]:
    """Chunks gathered to some MiB, of which each begins with as many of the last one's bytes as are told."""
    held = bytearray()
    fresh = 0
    for chunk in chunks:
        held += chunk
        fresh += len(chunk)
        if fresh >= _WINDOW:
            yield bytes(held)
            del held[: max(0, len(held) - overlap)]
            fresh = 0
    if fresh:
        yield bytes(held)


def _forms(keys: Iterable[Key]) -> set[bytes]:
    return {
        form
        for key in keys
        for text in (key.text, json.dumps(key.text)[1:-1], key.text.replace('"', '""'))
        for form in (text.encode(), text.encode("utf-16-le"), text.encode("utf-16-be"))
    }


def is_cell(cell: str, key: Key, numbers: Container[str]) -> bool:
    """Whether a cell of CSV is a key's value.

    Args:
        cell: its text, which may have blanks around.
        key: of the subject.
        numbers: paths of keys that are numbers: `042` is 42 then.
    """
    cell = cell.strip()
    return cell == key.text.strip() or (key.path in numbers and is_number(cell, key.text))


def holds_cell(raw: bytes, keys: Iterable[Key], numbers: Container[str], marks: str) -> bool:
    """Whether any cell is a value in what was refused of a file, of which nobody knows how it is to be cut.

    Args:
        raw: a row, or the beginning of a file, in any encoding that a file may have.
        keys: of the subject.
        numbers: as `is_cell` takes it.
        marks: characters beside the usual ones that part or quote cells.
    """
    for text in _readings(raw):
        cells = set(re.split(f"[{re.escape(_MARKS + marks)}]", text))
        for key in keys:
            # a value with such a mark within stands in quotes, which are doubled where they are its own
            parted = re.search(f"[{re.escape(_MARKS + marks)}]", key.text.strip())
            if any(is_cell(cell, key, numbers) for cell in cells) or (parted and holds_bytes((key,), text.encode())):
                return True
    return False


def _readings(raw: bytes) -> Iterator[str]:
    """A text in each of the encodings that it may be in."""
    if b"\0" in raw:  # UTF-16, or any other with one that strayed into it
        yield from (raw.decode(codec, "ignore") for codec in ("utf-16-le", "utf-16-be"))
    try:
        yield raw.decode()
    except UnicodeDecodeError:
        yield from (raw.decode("cp1252", "replace"), raw.decode("latin-1"))
