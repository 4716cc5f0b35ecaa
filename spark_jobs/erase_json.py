"""Owns taking a subject's records out of JSON that isn't a record a line: printed over several lines, or one array.

Every other record keeps its bytes, and what is between two of them stays.
"""

from __future__ import annotations

import codecs
import io
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spark_jobs.erase_lines import Cut, identity_of

if TYPE_CHECKING:
    from spark_jobs.erase_match import Matcher

__all__ = ["cut_json", "is_lines"]

_BLANKS = re.compile(rb"[ \t\r\n]*")
_OPENING, _CLOSING = {b"{", b"["}, {b"}", b"]"}
_JSON = json.JSONDecoder()


@dataclass(frozen=True, slots=True)
class _Value:
    """A record's place in the content."""

    start: int
    end: int
    gone: bool


def is_lines(body: bytes, start: int) -> bool:
    """Whether the first line of some JSON begins with a whole value, and none looks like a part of one.

    Args:
        body: the content.
        start: where its first line begins.
    """
    # not parsed: a record that is printed over several lines has one that doesn't begin, or end, with a bracket
    for number, one in enumerate(io.BytesIO(body)):
        text = (one.removeprefix(codecs.BOM_UTF8) if not number else one).strip()
        if text and not (text[:1] in _OPENING and text[-1:] in _CLOSING):
            return False
    end = body.find(b"\n", start)
    line = body[start : end if end >= 0 else len(body)]
    try:
        _JSON.raw_decode(line.decode("latin-1").lstrip())
    except (ValueError, RecursionError):
        return False
    return True


def cut_json(body: bytes, matcher: Matcher, start: int) -> Cut | None:
    """Take a subject's records out of JSON values that follow each other, or are the elements of one array.

    Args:
        body: the content, unpacked.
        matcher: tells the subject's records.
        start: where the first value begins.

    Returns:
        None where it isn't JSON to its end, or is nested deeper than Python goes.
    """
    try:
        values, in_array = _values(body, matcher, start, in_array=body[start : start + 1] == b"[")
    except (ValueError, RecursionError):
        return None
    gone = [body[one.start : one.end] for one in values if one.gone]
    if not gone:
        return Cut(body, 0)
    return Cut(_without(body, values, in_array=in_array), len(gone), tuple(map(identity_of, gone)))


def _without(body: bytes, values: list[_Value], *, in_array: bool) -> bytes:
    parts: list[bytes] = []
    if not in_array:  # what is between stays: every other record keeps its line
        place = 0
        for one in values:
            if one.gone:
                parts.append(body[place : one.start])
                place = one.end
        return b"".join((*parts, body[place:]))
    kept = [at for at, one in enumerate(values) if not one.gone]
    for place, at in enumerate(kept):
        # a comma goes with each, and the last one that stays has none
        parts.append(body[values[at].start : values[at + 1].start if place + 1 < len(kept) else values[at].end])
    return b"".join((body[: values[0].start], *parts, body[values[-1].end :]))


def _values(body: bytes, matcher: Matcher, start: int, *, in_array: bool) -> tuple[list[_Value], bool]:
    # a character a byte, so that places are the bytes' own; what JSON's form is made of is the same in UTF-8
    text = body.decode("latin-1")
    end = len(body)
    found: list[_Value] = []
    place = _behind_blanks(body, start + in_array)
    while place < end and not (in_array and not found and body[place : place + 1] == b"]"):
        begin = place
        place = _JSON.raw_decode(text, begin)[1]
        found.append(_Value(begin, place, matcher.is_subjects(body[begin:place])))
        place = _behind_blanks(body, place)
        if in_array and body[place : place + 1] != b",":
            break
        place = _behind_blanks(body, place + in_array)
    if not in_array:
        return found, False
    if body[place : place + 1] != b"]":
        raise ValueError("an array without an end")
    # other values behind it: the array was a record itself
    return (found, True) if _behind_blanks(body, place + 1) == end else _values(body, matcher, start, in_array=False)


def _behind_blanks(body: bytes, place: int) -> int:
    found = _BLANKS.match(body, place)
    return found.end() if found else place
