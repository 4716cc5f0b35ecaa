"""Owns the regular expressions of quality rules: Spark's workers search with Java's, and a contract is read by Python.

Python's `re` tells most that is wrong, and takes some of what Java refuses; that is looked for here, so that a contract
is refused rather than each batch. Source:
https://docs.oracle.com/en/java/javase/17/docs/api/java.base/java/util/regex/Pattern.html
"""

from __future__ import annotations

import re

__all__ = ["trouble_of"]

_MOST_TIMES = 2**31 - 1  # Java counts in 32 bits
_COUNT = re.compile(r"\{(\d+)(?:,(\d*))?\}", re.ASCII)
_GROUP = re.compile(r"\(\?(?:P|#|\(|[imsux-]*[aL])")
_VERBOSE = re.compile(r"\(\?[a-zA-Z]*x")
_NAMED = re.compile(r"\\[NU]")
_OCTAL = re.compile(r"\\0(?![0-7])")
_NO_SIGN = re.compile(r"\\[b1-9]")


def trouble_of(pattern: str) -> str | None:
    r"""Why a text is no regular expression of Java, in words; None where it is one.

    What only Java knows, as `\p{L}`, is refused too: what Python can't read, nobody can tell about.

    >>> trouble_of("a{2,3}"), trouble_of("{.*}")
    (None, "a '{' that begins no count, at 0; write it as '\\{'")
    """
    if not _VERBOSE.search(pattern):  # there a comment may hold anything; Java has the last word
        found = _outside(pattern)
        if found is not None:
            return found
    try:
        re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        return str(error)
    return None


def _outside(pattern: str) -> str | None:
    at = 0
    while at < len(pattern):
        sign = pattern[at]
        if sign == "\\":
            if _NAMED.match(pattern, at) or _OCTAL.match(pattern, at):
                return _of_no_java(pattern[at : at + 2], at)
            at += 2
        elif sign == "[":
            end, found = _within(pattern, at)
            if found is not None:
                return found
            at = end
        elif sign == "{":
            count = _COUNT.match(pattern, at)
            if count is None:
                return f"a '{{' that begins no count, at {at}; write it as '\\{{'"
            if any(int(one) > _MOST_TIMES for one in count.groups() if one):
                return f"a count of more than {_MOST_TIMES:,}, at {at}"
            at = count.end()
        else:
            group = _GROUP.match(pattern, at)
            if group is not None:
                return _of_no_java(group[0], at)
            at += 1
    return None


def _within(pattern: str, start: int) -> tuple[int, str | None]:
    """Where a class of signs ends, and what Java doesn't take in it."""
    at = first = start + (2 if pattern.startswith("[^", start) else 1)
    while at < len(pattern):
        sign = pattern[at]
        if sign == "]" and at > first:
            return at + 1, None
        if sign == "[":
            return at, f"a '[' within a class, at {at}; write it as '\\['"
        if sign == "\\":
            if any(one.match(pattern, at) for one in (_NAMED, _OCTAL, _NO_SIGN)):
                return at, _of_no_java(pattern[at : at + 2], at, " within a class")
            at += 1
        elif pattern.startswith("&&", at) and at == first:
            return at, f"'&&' at the beginning of a class, at {at}; write it as '\\&&'"
        at += 1
    return at, None  # Python tells that it has no end


def _of_no_java(text: str, at: int, where: str = "") -> str:
    return f"{text!r}{where}, at {at}, which Java's have not"
