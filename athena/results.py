"""Owns the result file: how rows are written to it, and how pages of rows are read back from any place in it.

Rows of a query are CSV in Athena's form: every value quoted, a quote doubled, NULL an empty field without quotes, LF.
Answers of other statements are lines of values with tabs between them. Pages are found by their first byte, so a page
costs the same wherever it is.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Row = tuple[str | None, ...]

__all__ = ["Page", "csv_line", "read_page", "text_lines", "write_rows"]

_CHUNK = 256 << 10
_FIELD = re.compile(rb'(?:"([^"]*(?:""[^"]*)*)")?([,\n])')


@dataclass(frozen=True)
class Page:
    """Rows from one place of a result file."""

    rows: tuple[Row, ...]
    next_byte: int | None
    """Where the next page starts; None at the end of the file."""


def csv_line(values: Iterable[str | None]) -> bytes:
    """Write one row of a query, NULL as an empty field, other values in quotes."""
    cells = ["" if one is None else '"' + one.replace('"', '""') + '"' for one in values]
    return (",".join(cells) + "\n").encode()


def text_lines(values: Sequence[str | None]) -> bytes:
    """Write one row of another statement's answer; a single value of many lines, as a plan is, becomes as many rows."""
    if len(values) == 1:
        lines = (values[0] or "").split("\n")
    else:
        lines = ["\t".join(re.sub(r"[\t\n]", " ", one or "") for one in values)]
    return "".join(f"{line}\n" for line in lines).encode()


def write_rows(
    out: BinaryIO,
    rows: Iterable[Sequence[object]],
    renderers: Sequence[Callable[[object], str]],
    line: Callable[[Sequence[str | None]], bytes],
) -> int:
    """Write rows of Trino's values; answers how many."""
    count = 0
    for row in rows:
        texts = [None if value is None else show(value) for value, show in zip(row, renderers, strict=True)]
        out.write(line(texts))
        count += 1
    return count


def read_page(read: Callable[[int, int], bytes], size: int, start: int, most: int, *, is_csv: bool) -> Page:
    """Read rows from a byte of the file on.

    Args:
        read: answers the bytes from one place (first argument) up to another, which is not included.
        size: of the file, in bytes.
        start: first byte of a row.
        most: rows wanted.
        is_csv: whether it's a query's CSV; lines of values with tabs otherwise.
    """
    held = b""
    rows: list[Row] = []
    at = 0
    parse = _csv_row if is_csv else _text_row
    while len(rows) < most:
        found = parse(held, at)
        if found is not None:
            row, at = found
            rows.append(row)
            continue
        read_to = start + len(held)
        if read_to >= size:
            break
        # a row longer than what is held makes the next read longer, so that reading stays linear
        held += read(read_to, min(size, read_to + max(_CHUNK, len(held))))
    next_byte = start + at
    return Page(tuple(rows), next_byte if next_byte < size else None)


def _csv_row(held: bytes, at: int) -> tuple[Row, int] | None:
    row: list[str | None] = []
    while True:
        field = _FIELD.match(held, at)
        if field is None:
            return None
        value = field.group(1)
        row.append(None if value is None else value.replace(b'""', b'"').decode())
        at = field.end()
        if field.group(2) == b"\n":
            return tuple(row), at


def _text_row(held: bytes, at: int) -> tuple[Row, int] | None:
    end = held.find(b"\n", at)
    if end < 0:
        return None
    return tuple(held[at:end].decode().split("\t")), end + 1
