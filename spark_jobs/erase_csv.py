"""Owns taking a subject's rows out of a file of CSV, which keeps every other row's bytes.

Rows are cut, and columns named, as the door for files does it: what becomes an event there is found here. A row that
the door would refuse, as its quotes don't match, is the subject's if it holds a value anywhere.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from array import array
from dataclasses import dataclass, replace
from itertools import chain, islice, pairwise
from typing import TYPE_CHECKING, cast

from lake.drops import Drop
from spark_jobs.csv_events import plain_name
from spark_jobs.csv_rows import BadRow, CsvReason, Row, Text, rows
from spark_jobs.erase_lines import Cut
from spark_jobs.erase_values import holds_bytes, is_cell

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from lake.erasure import Key
    from spark_jobs.erase_match import Matcher

__all__ = ["cut_csv", "is_utf16"]

_DELIMITERS = ",;\t|"
_MARK = codecs.BOM_UTF8.decode()
_LINE_END = re.compile(r"\r\n?|\n")
_WIDE_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


def cut_csv(body: bytes, matcher: Matcher, drop: Drop | None = None) -> Cut | None:
    """Take a subject's rows out of a CSV file with a header.

    Args:
        body: the content, unpacked.
        matcher: tells the subject.
        drop: tells how the file is written; None where nobody says: with the delimiter that its first line has most of.
            UTF-16 is known by its mark, or by the drop. Otherwise a row that is UTF-8 is read as such whatever the drop
            says; another is in latin-1 if it says so, and in windows-1252 if not, as spreadsheets write it.

    Returns:
        None where the header has none of the subject's fields, or there is none, or it is no whole UTF-16.
    """
    codec = _codec(body, drop)
    try:
        text = body.decode(codec, "strict" if codec != "utf-8" else "surrogateescape")
    except UnicodeDecodeError:
        return None
    other = "iso-8859-1" if drop and drop.encoding == "latin-1" else "cp1252"
    lines = _Lines(text)
    head = next((line for line in lines if line.strip()), "")
    guessed = Drop("", matcher.tenant, "", "", "", delimiter=max(_DELIMITERS, key=head.count))
    # a file that isn't written as its drop says was refused there, and holds no less
    for written in (drop, replace(drop, delimiter=guessed.delimiter), guessed) if drop else (guessed,):
        found = _rows(lines, written)
        header = _header(next(found, None), written, other)
        places = _places(header, matcher.keys)
        if places:
            sheet = _Sheet(written, other, len(header), tuple(places), matcher)
            gone = [row for row in found if sheet.is_subjects(row)]
            return _without(text, lines, gone, codec) if gone else Cut(body, 0)
    return None


def is_utf16(body: bytes, drop: Drop | None = None) -> bool:
    """Whether a file is in UTF-16, by its mark or by its drop."""
    return body.startswith(_WIDE_MARKS) or (drop is not None and drop.encoding == "utf-16")


def _codec(body: bytes, drop: Drop | None) -> str:
    if not is_utf16(body, drop):
        return "utf-8"
    # without a mark it is little-endian: so Windows writes it
    return "utf-16-be" if body.startswith(codecs.BOM_UTF16_BE) else "utf-16-le"


class _Lines:
    """The lines of a text, each whole: of a line that is longer than a row may be the door reads only the beginning.

    They are cut when they are asked for: all of them at once take several times the text's memory.
    """

    def __init__(self, text: str) -> None:
        self._text = text
        self._mark = len(_MARK) if text.startswith(_MARK) else 0
        self.starts = array("Q", [0])
        """Where each begins, and the text's end."""
        self.starts.extend(one.end() for one in _LINE_END.finditer(text))
        if self.starts[-1] < len(text):
            self.starts.append(len(text))

    def __iter__(self) -> Iterator[str]:
        begins = chain([min(self._mark, len(self._text))], islice(self.starts, 1, None))
        return (self._text[start:end] for start, end in pairwise(begins))


class _Reader:
    """Lines as a file of text gives them."""

    def __init__(self, lines: Iterable[str]) -> None:
        self._left = iter(lines)

    def readline(self, _most: int) -> str:
        return next(self._left, "")


def _rows(lines: Iterable[str], written: Drop) -> Iterator[Row | BadRow]:
    return rows(Text(cast("io.TextIOWrapper", _Reader(lines)), "utf-8"), written)


def _header(row: Row | BadRow | None, written: Drop, other: str) -> list[str]:
    """Names of the columns; none where there is no header."""
    if isinstance(row, Row):
        return row.values
    if row is None or row.reason is not CsvReason.UNDECODABLE_TEXT:
        return []
    return _cells(row.raw.encode("utf-8", "surrogateescape").decode(other, "replace"), written) or []


def _places(header: Sequence[str], keys: Sequence[Key]) -> list[_Column]:
    """Every column that is a key's, as the door reads names: by the whole path or its last name, or a part of it.

    A column of a part of the path holds JSON, with the rest of the path in it.
    """
    found: dict[str, list[tuple[Key, tuple[str, ...]]]] = {}
    for key in keys:
        for name in {plain_name(key.path), plain_name(key.leaf)}:
            found.setdefault(name, []).append((key, ()))
        for count in range(1, len(key.steps)):
            found.setdefault(plain_name(".".join(key.steps[:count])), []).append((key, key.steps[count:]))
    return [_Column(at, *one) for at, name in enumerate(map(plain_name, header)) for one in found.get(name, ())]


@dataclass(frozen=True)
class _Column:
    """A column that may hold a key's value."""

    at: int
    key: Key
    steps: tuple[str, ...]
    """To the value in the JSON of a cell; none where the cell may be the value itself."""


@dataclass(frozen=True)
class _Sheet:
    """What tells the subject's rows of a file."""

    written: Drop
    other: str
    """Codec of rows that are no UTF-8."""
    width: int
    places: tuple[_Column, ...]
    matcher: Matcher

    def is_subjects(self, row: Row | BadRow) -> bool:
        """Whether a row holds any of the keys."""
        if isinstance(row, Row):
            return self._is_in(row.values)
        raw = row.raw.encode("utf-8", "surrogateescape")
        text = raw.decode(self.other, "replace")
        cells = _cells(text, self.written) if row.reason is CsvReason.UNDECODABLE_TEXT else None
        if cells is not None:
            return self._is_in(cells)
        return any(holds_bytes(self.matcher.keys, form) for form in (raw, text.encode()))

    def _is_in(self, cells: Sequence[str]) -> bool:
        if len(cells) != self.width:
            # nobody knows which column a value is in
            return any(self._is_value(cell, column) for cell in cells for column in self.places)
        return any(self._is_value(cells[column.at], column) for column in self.places)

    def _is_value(self, cell: str, column: _Column) -> bool:
        if not column.steps and is_cell(cell, column.key, self.matcher.numbers):
            return True
        return self.matcher.is_in_cell(cell, column.key, column.steps)


def _cells(text: str, written: Drop) -> list[str] | None:
    """Of a row that is one but for its letters: the marks of CSV are the same in all of these encodings."""
    lines = io.StringIO(text, newline="")
    reader = csv.reader(lines, delimiter=written.delimiter, quotechar=written.quote, strict=True)
    try:
        return next(reader, [])
    except csv.Error:
        return None  # a cell that has grown too long


def _without(text: str, lines: _Lines, gone: list[Row | BadRow], codec: str) -> Cut:
    parts: list[bytes] = []
    done = 0
    for row in gone:
        count = sum(1 for _ in io.StringIO(row.raw, newline=""))
        parts.append(text[done : lines.starts[row.line - 1]].encode(codec, "surrogateescape"))
        done = lines.starts[row.line - 1 + count]
    parts.append(text[done:].encode(codec, "surrogateescape"))
    return Cut(b"".join(parts), len(gone))
