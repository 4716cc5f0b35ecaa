"""Owns reading CSV: the text of a file however it is packed and encoded, and its rows, each as values or as a refusal.

RFC 4180 and no looser: line breaks and doubled quotes inside quotes; any of the three line ends, a mark of the byte
order, gzip. What can't be read as a row is refused line by line, with its bytes, and reading goes on behind it.
Source: https://www.rfc-editor.org/rfc/rfc4180
"""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import zlib
from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import IO, TYPE_CHECKING

from lake.lines import is_gzip

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lake.drops import Drop

__all__ = ["BadRow", "CsvReason", "Row", "Text", "UnreadableFileError", "open_text", "rows"]

LONGEST_ROW = 2**20
"""Characters of one row at most; Firehose takes no larger record either."""
_READ_AGAIN, _SHORT_ROW = 32 * 2**20, 256
"""Characters of a file that are read again for the sake of quotes that don't end; what a row may have from then on."""
_CHUNK = 2**20
_ZIP = b"PK\x03\x04"
_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}
_CODECS = {"utf-8": "utf-8", "latin-1": "iso-8859-1", "windows-1252": "cp1252"}


class CsvReason(StrEnum):
    """Why a row, or a file as a whole, becomes no event."""

    UNREADABLE_FILE = "unreadable_file"
    """The whole file: a broken gzip, another encoding, or no text at all."""
    BAD_HEADER = "bad_header"
    """The whole file: no header, a required column missing, or columns that can't be told apart."""
    NO_EVENT_TIME = "no_event_time"
    """A row whose time can't be read; the whole file where its key should have told the day."""
    MALFORMED_CSV = "malformed_csv"
    """Quotes that don't match."""
    WRONG_COLUMN_COUNT = "wrong_column_count"
    UNDECODABLE_TEXT = "undecodable_text"
    ROW_TOO_LONG = "row_too_long"


class UnreadableFileError(Exception):
    """A file that can't be taken at all; says why."""

    def __init__(self, reason: CsvReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Row:
    """A row, as its values."""

    number: int
    """From 0 for the header; blank lines have none."""
    line: int
    """Line of the file that it begins at, from 1."""
    values: list[str]
    raw: str
    """Its text without the line's end; bytes that are no text are half surrogates."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """Text that can't be read as a row."""

    number: int
    line: int
    reason: CsvReason
    message: str
    raw: str


@dataclass(frozen=True)
class Text:
    """The text of a file, from its start, without a mark of the byte order."""

    stream: io.TextIOWrapper
    codec: str

    def encode(self, text: str) -> bytes:
        """Text of the file as the bytes that it was read from."""
        return text.encode(self.codec, "surrogateescape")


def open_text(body: IO[bytes], drop: Drop) -> Text:
    """Open a file as text, after reading all of it once where it could break off: nothing of such a file is taken.

    Args:
        body: the file, as it was stored; it can be wound back.
        drop: tells the encoding.

    Raises:
        UnreadableFileError: it is no whole gzip, or in another encoding than the drop's.
    """
    body.seek(0)
    packed = is_gzip(body.read(2))
    codec, mark = _codec(body, drop, packed=packed)
    if packed or codec.startswith("utf-16"):
        _check_to_the_end(_text(body, codec, mark, packed=packed), drop)
    return Text(_text(body, codec, mark, packed=packed), codec)


def _unpacked(body: IO[bytes], *, packed: bool) -> IO[bytes]:
    body.seek(0)
    return gzip.GzipFile(fileobj=body, mode="rb") if packed else body  # type: ignore[return-value]


def _codec(body: IO[bytes], drop: Drop, *, packed: bool) -> tuple[str, int]:
    """Python's codec for the file, and the length of its mark."""
    try:
        head = _unpacked(body, packed=packed).read(4)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UnreadableFileError(CsvReason.UNREADABLE_FILE, f"the file is no whole gzip: {error}") from None
    if not head:
        raise UnreadableFileError(CsvReason.BAD_HEADER, "the file is empty: not even a header is in it")
    if head == _ZIP:
        raise UnreadableFileError(
            CsvReason.UNREADABLE_FILE, "the file is a ZIP archive or a workbook of Excel, and no CSV"
        )
    mark = next((one for one in _MARKS if head.startswith(one)), b"")
    if mark and _MARKS[mark] != drop.encoding:
        raise UnreadableFileError(
            CsvReason.UNREADABLE_FILE,
            f"the file begins with the mark of {_MARKS[mark]}, and the drop's encoding is {drop.encoding}",
        )
    if drop.encoding == "utf-16":
        # without a mark it is little-endian: so Windows writes it
        return "utf-16-be" if mark == codecs.BOM_UTF16_BE else "utf-16-le", len(mark)
    return _CODECS[drop.encoding], len(mark)


def _text(body: IO[bytes], codec: str, mark: int, *, packed: bool) -> io.TextIOWrapper:
    unpacked = _unpacked(body, packed=packed)
    unpacked.read(mark)
    # Bytes that are no text must not end the file: the row that holds them is refused. In UTF-16 they would shift all
    # that follows, so there they do.
    errors = "strict" if codec.startswith("utf-16") else "surrogateescape"
    return _Wrapper(unpacked, encoding=codec, errors=errors, newline="")


class _Wrapper(io.TextIOWrapper):
    """Text over a file that is read more than once: it stays open behind it."""

    def close(self) -> None:
        """Let go of the file."""
        if not self.closed:
            self.detach()

    def __del__(self) -> None:
        """As `close`."""


def _check_to_the_end(text: io.TextIOWrapper, drop: Drop) -> None:
    try:
        while text.read(_CHUNK):
            pass
    except UnicodeDecodeError as error:
        raise UnreadableFileError(
            CsvReason.UNREADABLE_FILE, f"the file is not {drop.encoding}, as its drop says: {error.reason}"
        ) from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise UnreadableFileError(CsvReason.UNREADABLE_FILE, f"the file is no whole gzip: {error}") from None


class _TooLongError(Exception):
    """A row has grown beyond what is allowed."""


@dataclass(frozen=True, slots=True)
class _Line:
    number: int
    text: str
    cut: bool
    """Whether the line is longer than a row may be, and its rest was passed over."""


class _Lines:
    """The lines of a text, one row's at a time; lines can be put back."""

    def __init__(self, stream: io.TextIOWrapper) -> None:
        self._stream = stream
        self._next = 1
        self._again: deque[_Line] = deque()
        self._size = 0
        self._read_again = 0
        """Characters that were put back so far."""
        self.row: list[_Line] = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else self._read()
        if line is None:
            raise StopIteration
        self.row.append(line)
        self._size += len(line.text)
        if line.cut or self._size > self.most:
            raise _TooLongError
        return line.text

    def _read(self) -> _Line | None:
        text = part = self._stream.readline(LONGEST_ROW)
        if not text:
            return None
        cut = False
        while len(part) == LONGEST_ROW and not part.endswith(("\n", "\r")):
            part = self._stream.readline(LONGEST_ROW)
            cut = cut or bool(part)
        line = _Line(self._next, text, cut)
        self._next += 1
        return line

    @property
    def most(self) -> int:
        """Characters that a row may have: fewer in a file where very many quotes were opened and never closed.

        Each of those is looked for up to here, and what was looked through is read again.
        """
        return LONGEST_ROW if self._read_again <= _READ_AGAIN else _SHORT_ROW

    def begin(self) -> None:
        """A new row."""
        self.row, self._size = [], 0

    def keep_first(self) -> _Line:
        """Of the row's lines take the first one, and put the others back."""
        first, *others = self.row
        self._again.extendleft(reversed(others))
        self._read_again += sum(len(one.text) for one in others)
        return first


def rows(text: Text, drop: Drop) -> Iterator[Row | BadRow]:
    """The rows of a text, the header among them as the first; blank lines are left out.

    A row that is refused because its quotes don't match, or because it never ends, is its first line only: an opening
    quote too many would otherwise swallow the file.
    """
    csv.field_size_limit(LONGEST_ROW)
    lines = _Lines(text.stream)
    reader = csv.reader(lines, delimiter=drop.delimiter, quotechar=drop.quote, strict=True)
    number = 0
    while True:
        lines.begin()
        try:
            values = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            line = lines.keep_first()
            yield BadRow(number, line.number, CsvReason.MALFORMED_CSV, _told(error), _without_end(line.text))
        except _TooLongError:
            line = lines.keep_first()
            reason, message = _too_long(line, lines.most)
            yield BadRow(number, line.number, reason, message, _without_end(line.text))
        else:
            if not values:
                continue
            taken = lines.row
            raw = taken[0].text if len(taken) == 1 else "".join(line.text for line in taken)
            yield _checked(number, taken[0].number, values, _without_end(raw))
        number += 1


def _checked(number: int, line: int, values: list[str], raw: str) -> Row | BadRow:
    if not raw.isascii():
        try:
            raw.encode()
        except UnicodeEncodeError as error:
            message = f"byte 0x{ord(raw[error.start]) & 0xFF:02x} is no text in the drop's encoding"
            return BadRow(number, line, CsvReason.UNDECODABLE_TEXT, message, raw)
    return Row(number, line, values, raw)


def _too_long(line: _Line, most: int) -> tuple[CsvReason, str]:
    if line.cut:
        return (
            CsvReason.ROW_TOO_LONG,
            f"the line is longer than {LONGEST_ROW:,} characters; so many are kept here, the file itself holds all",
        )
    return CsvReason.MALFORMED_CSV, f"a quote is opened, and not closed within {most:,} characters"


def _told(error: csv.Error) -> str:
    text = str(error)
    if "unexpected end" in text:
        return "a quote is opened and never closed"
    if "expected after" in text:
        return "text stands behind a closing quote; a quote inside of quotes is written twice"
    return f"it is no CSV: {text}"


def _without_end(raw: str) -> str:
    r"""Take one line end off.

    >>> _without_end("a,b\r\n")
    'a,b'
    """
    if raw.endswith("\r\n"):
        return raw[:-2]
    return raw[:-1] if raw.endswith(("\n", "\r")) else raw
