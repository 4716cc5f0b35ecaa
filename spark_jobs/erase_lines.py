"""Owns taking a subject's records out of lines of JSON, each of one record or of several side by side.

Every other record keeps its bytes and its line.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from lake.envelope import Identity, salvage
from lake.error_record import ErrorRecord
from spark_jobs.records import identity_in

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spark_jobs.erase_match import Matcher

__all__ = ["Cut", "cut_lines", "identity_of", "side_by_side"]

_BESIDE = re.compile(rb"\}[ \t\r]*\{")
_BLANKS = {b" ", b"\t", b"\r"}
_JSON = json.JSONDecoder()
_WINDOW, _LONGEST_WORD = 4096, 16
"""Characters of a line that are read for a value first, and of its end that a number or a word may go on behind."""


@dataclass(frozen=True)
class Cut:
    """An object's content without a subject's records."""

    body: bytes
    records: int
    """Taken out."""
    identities: tuple[Identity, ...] = ()
    """Of those taken out, as far as they can be read."""


def cut_lines(body: bytes, matcher: Matcher, *, errors: bool = False, joined: bool = False) -> Cut:
    """Take a subject's lines out of an object of JSON lines.

    A line that goes leaves an empty one: every other keeps its number, by which quarantine tells where it was.

    Args:
        body: the content, unpacked.
        matcher: tells the subject's records.
        errors: whether the lines are error records of Firehose.
        joined: whether a line may hold several records side by side, as in Firehose's backup, which puts nothing
            between them; each is judged by itself then, and the line's others stay.
    """
    is_subjects = matcher.is_error_records if errors else matcher.is_subjects
    identities: list[Identity] = []
    # not all lines at once: there may be as many as bytes
    view, parts = memoryview(body), list[bytes | memoryview]()
    done = start = 0
    while start < len(body):
        found = body.find(b"\n", start)
        stop = found if found >= 0 else len(body)
        line, begin, start = body[start:stop], start, stop + 1
        if not line:
            continue
        kept: list[bytes] = []
        records = side_by_side(line) if joined and matcher.may_hold(line) else (line,)
        for record in records:
            if is_subjects(record):
                identities.append(_identity(record) if errors else identity_of(record))
            else:
                kept.append(record)
        if len(kept) < len(records):
            parts += [view[done:begin], *kept]
            done = stop
    return Cut(b"".join((*parts, view[done:])) if identities else body, len(identities), tuple(identities))


def side_by_side(line: bytes) -> Sequence[bytes]:
    """The records of a line, which together are all of it; what is no JSON ends where an object might begin."""
    if not _BESIDE.search(line):
        return (line,)
    with suppress(ValueError):
        orjson.loads(line)
        return (line,)
    # a character a byte, so that places are the bytes' own; what JSON's form is made of is the same in UTF-8
    text = line.decode("latin-1")
    found: list[bytes] = []
    start = 0
    while start < len(line):
        begin = start
        while line[begin : begin + 1] in _BLANKS:
            begin += 1
        end = _end_of_value(text, begin)
        if end is None:
            beside = _BESIDE.search(line, begin)
            end = beside.start() + 1 if beside else len(line)
        found.append(line[start:end])
        start = end
    return found


def _end_of_value(text: str, begin: int) -> int | None:
    """Where a value of JSON ends; None where there is none.

    It is looked for in a part of the text first: an error of the parser counts the lines of all that it was given.
    """
    size = _WINDOW
    while True:
        part = text[begin : begin + size]
        is_rest = begin + size >= len(text)
        try:
            end = _JSON.raw_decode(part)[1]
        except json.JSONDecodeError as error:
            # what is wrong there is wrong however the text goes on
            if is_rest or (error.pos < size - _LONGEST_WORD and not error.msg.startswith("Unterminated string")):
                return None
        except (ValueError, RecursionError):
            return None
        else:
            if is_rest or end < size - _LONGEST_WORD:
                return begin + end
        size *= 8


def identity_of(raw: bytes) -> Identity:
    """Whose record it is, as ingest tells it: of JSON by its keys, of what is none by what can be salvaged."""
    try:
        orjson.loads(raw)
        record = json.loads(raw, object_pairs_hook=_once)
    except (ValueError, RecursionError):
        return salvage(raw)
    return identity_in(record) if isinstance(record, dict) else salvage(raw)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def _identity(line: bytes) -> Identity:
    """Whose record an error record holds."""
    with suppress(ValueError):
        return ErrorRecord.parse(line).identity
    try:
        return salvage(base64.b64decode(orjson.loads(line)["rawData"], validate=True))
    except (ValueError, KeyError, TypeError, binascii.Error):
        return salvage(line)  # no error record: it may be the event itself
