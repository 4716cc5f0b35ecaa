"""Owns a record's JSON taken apart with nothing lost: each document in it, and each number by its own digits."""

from __future__ import annotations

import json
import re
from typing import Any

__all__ = ["DEEPEST", "Fraction", "JsonError", "documents", "rendered"]

DEEPEST = 100
"""Levels that are read. Python's own limit depends on who calls; what was judged once must be readable ever after."""
_BOM = b"\xef\xbb\xbf"
_SPACE = " \t\n\r"
# one that doesn't end matches too: otherwise each quote in it would be tried, and looked through to the end
_STRING = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class JsonError(Exception):
    """Bytes that are not JSON; its text says why."""


class Fraction(str):
    """A number with a point or an exponent, as it was written."""

    __slots__ = ()


def _refuse(constant: str) -> Any:
    # Python's reader takes NaN and Infinity, which JSON doesn't have
    raise JsonError(f"{constant} is not JSON")


_DECODER = json.JSONDecoder(parse_float=Fraction, parse_constant=_refuse)


def documents(raw: bytes) -> list[Any]:
    """Take the documents of a record: one, or several with white space or nothing between them.

    Whole numbers are `int`, others `Fraction`. Nothing but white space is no document.

    Raises:
        JsonError: it isn't JSON in UTF-8, or has more levels than `DEEPEST`.
    """
    try:
        text = raw.removeprefix(_BOM).decode()
    except UnicodeDecodeError as error:
        raise JsonError(f"not UTF-8 at byte {error.start}") from None
    if text.count("[") + text.count("{") > DEEPEST and _levels(text) > DEEPEST:
        raise JsonError(f"more than {DEEPEST} levels")
    found = []
    position = _after_space(text, 0)
    while position < len(text):
        try:
            document, position = _DECODER.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise JsonError(f"{error.msg} at character {error.pos}") from None
        except ValueError as error:  # Python reads whole numbers of up to 4,300 digits
            raise JsonError(str(error)) from None
        found.append(document)
        position = _after_space(text, position)
    if _SURROGATE.search(text):
        try:
            json.dumps(found, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise JsonError("half of a surrogate pair") from None
    return found


def _levels(text: str) -> int:
    level = deepest = 0
    for mark in _STRING.sub("", text):
        if mark in "[{":
            level += 1
            deepest = max(deepest, level)
        elif mark in "]}":
            level -= 1
    return deepest


def _after_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in _SPACE:
        position += 1
    return position


def rendered(value: Any, *, lower: bool) -> str:
    """Write a value of `documents` again, without white space, numbers as they were.

    Args:
        value: the value.
        lower: whether the names of members become lower case.
    """
    if isinstance(value, Fraction):
        return str(value)
    if isinstance(value, dict):
        members = {(key.lower() if lower else key): one for key, one in value.items()}
        inner = ",".join(
            f"{json.dumps(key, ensure_ascii=False)}:{rendered(one, lower=lower)}" for key, one in members.items()
        )
        return f"{{{inner}}}"
    if isinstance(value, list):
        return f"[{','.join(rendered(one, lower=lower) for one in value)}]"
    return json.dumps(value, ensure_ascii=False)
