"""Owns what can be told of a jq query without running it: its tokens, the keys it makes, and whether it's plain paths.

A query is run by libjq; this module reads its text for three questions that must be answered when a stream is created:
which partition keys will there be, does it use something that jq 1.6 or a Firehose record doesn't have, and is it just
an object of paths and slices, which can be taken without libjq (`plain_paths`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

__all__ = ["PlainPath", "Token", "made_keys", "plain_paths", "refused_words", "tokens"]

Kind = Literal["name", "field", "var", "format", "string", "number", "open", "close", "op"]

# libjq is newer than the service's jq 1.6; these came later.
_NEWER = {
    *("abs", "toboolean", "toarray", "pick", "skip", "trim", "ltrim", "rtrim", "trimstr", "have_decnum"),
    *("have_literal_numbers", "getpath_safe", "@base32d", "$__prog_args"),
}
# These reach outside of the record: other inputs, the server's environment, files, the process itself.
_OUTSIDE = {
    *("input", "inputs", "debug", "stderr", "input_filename", "input_line_number", "env", "$ENV", "halt"),
    *("halt_error", "import", "include", "modulemeta", "get_search_list", "get_jq_origin", "get_prog_origin"),
}
_TOKEN = re.compile(
    r"""(?P<space>\s+|\#[^\n]*)
      | (?P<field>\.[A-Za-z_]\w*)
      | (?P<var>\$(?:__loc__|[A-Za-z_]\w*(?:::\w+)*))
      | (?P<format>@[A-Za-z0-9_]+)
      | (?P<name>[A-Za-z_]\w*(?:::\w+)*)
      | (?P<number>\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)
      | (?P<open>[(\[{])
      | (?P<close>[)\]}])
      | (?P<op>\?//=?|//=|\|=|[-+*/%]=|==|!=|<=|>=|//|\.\.|[^\s"])
    """,
    re.VERBOSE,
)
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f", "/": "/", "\\": "\\", '"': '"'}


@dataclass(frozen=True, slots=True)
class Token:
    """One token, with the depth of brackets it stands in (a bracket has the depth outside of it)."""

    kind: Kind
    text: str
    depth: int


@dataclass(frozen=True, slots=True)
class PlainPath:
    """A key and where its value is: names to go through, and a slice of the string found there."""

    key: str
    names: tuple[str, ...]
    start: int | None = None
    stop: int | None = None


def tokens(query: str) -> list[Token]:
    """Split a query that libjq has compiled into its tokens; interpolations stand between brackets of their own."""
    found: list[Token] = []
    _scan(query, 0, 0, found, closing=None)
    return found


def _scan(query: str, position: int, depth: int, found: list[Token], closing: str | None) -> int:
    base = depth
    while position < len(query):
        if query[position] == '"':
            position = _string(query, position + 1, depth, found)
            continue
        match = _TOKEN.match(query, position)
        if match is None:  # pragma: no cover - every character but a quote is a token
            raise AssertionError(query[position:])
        position = match.end()
        kind, text = match.lastgroup, match[0]
        if kind == "open":
            found.append(Token("open", text, depth))
            depth += 1
        elif kind == "close":
            if closing == text and depth == base:
                return position
            depth -= 1
            found.append(Token("close", text, depth))
        elif kind != "space":
            found.append(Token(kind, text, depth))  # type: ignore[arg-type]  # a group of _TOKEN is a Kind
    return position


def _string(query: str, position: int, depth: int, found: list[Token]) -> int:
    text: list[str] = []
    plain = True
    place = len(found)
    while position < len(query) and query[position] != '"':
        if query[position] != "\\":
            text.append(query[position])
            position += 1
        elif query[position + 1] == "(":
            plain = False
            found.append(Token("open", "\\(", depth))
            position = _scan(query, position + 2, depth + 1, found, closing=")")
            found.append(Token("close", ")", depth))
        elif query[position + 1] == "u":
            text.append(chr(int(query[position + 2 : position + 6], 16)))
            position += 6
        else:
            text.append(_ESCAPES[query[position + 1]])
            position += 2
    if plain:
        found.insert(place, Token("string", "".join(text), depth))
    else:
        found.insert(place, Token("op", '"', depth))
    return position + 1


def refused_words(query: str) -> list[str]:
    """List the words of a query that jq 1.6 doesn't have or that reach outside of a record."""
    refused = _NEWER | _OUTSIDE
    found = tokens(query)
    return sorted(
        {
            token.text
            for index, token in enumerate(found)
            if token.kind in {"name", "var", "format"} and token.text in refused and not _is_key(found, index)
        }
    )


def _is_key(found: list[Token], index: int) -> bool:
    # in {input: .a} the word is a key; in {a: input} it is a call
    before = found[index - 1].text if index else ""
    after = found[index + 1].text if index + 1 < len(found) else ""
    if found[index].kind != "name" or before not in {"{", ","} or after not in {":", ",", "}"}:
        return False
    # in [.a, input, .b] it is a call too
    around = (one for one in reversed(found[:index]) if one.kind == "open" and one.depth == found[index].depth - 1)
    enclosing = next(around, None)
    return enclosing is not None and enclosing.text == "{"


def made_keys(query: str) -> list[str] | None:
    """Tell the keys of the object that a query ends in, or None where its text doesn't show them."""
    entries = _entries(tokens(query))
    if entries is None:
        return None
    keys: list[str] = []
    for entry in entries:
        first = entry[0]
        followed = len(entry) == 1 or entry[1].text == ":"
        if first.kind not in {"name", "string", "var"} or not followed:
            return None
        keys.append(first.text.removeprefix("$") if first.kind == "var" else first.text)
    return keys


def _entries(found: list[Token]) -> list[list[Token]] | None:
    if not found or found[-1] != Token("close", "}", 0):
        return None
    start = max(index for index, token in enumerate(found) if token.kind == "open" and token.depth == 0)
    if found[start].text != "{" or (start and found[start - 1] != Token("op", "|", 0)):
        return None
    entries: list[list[Token]] = [[]]
    for token in found[start + 1 : -1]:
        if token == Token("op", ",", 1):
            entries.append([])
        else:
            entries[-1].append(token)
    return None if any(not entry for entry in entries) else entries


def plain_paths(query: str) -> list[PlainPath] | None:
    """Read a query that is one object of paths, as `{tenant: .tenant, year: .event_time[0:4]}`; None if it is more."""
    found = tokens(query)
    if sum(token.kind == "open" and token.depth == 0 for token in found) != 1 or found[0].text != "{":
        return None
    entries = _entries(found)
    if entries is None:
        return None
    paths = [_plain_path(entry) for entry in entries]
    keys = [path.key for path in paths if path is not None]
    return [path for path in paths if path is not None] if len(set(keys)) == len(entries) else None


def _plain_path(entry: list[Token]) -> PlainPath | None:
    first, rest = entry[0], entry[1:]
    if first.kind not in {"name", "string"}:
        return None
    if not rest:
        return PlainPath(first.text, (first.text,))
    if rest[0].text != ":":
        return None
    names: list[str] = []
    rest = rest[1:]
    while rest and rest[0].kind == "field":
        names.append(rest[0].text[1:])
        rest = rest[1:]
    if not names:
        return None
    if not rest:
        return PlainPath(first.text, tuple(names))
    return _sliced(first.text, tuple(names), [token.text for token in rest])


def _sliced(key: str, names: tuple[str, ...], texts: list[str]) -> PlainPath | None:
    match = re.fullmatch(r"\[ ((?:\d+)?) ?: ?((?:\d+)?) ?\]", " ".join(texts).replace("[ :", "[  :"))
    if match is None or not (match[1] or match[2]):
        return None
    return PlainPath(key, names, int(match[1]) if match[1] else None, int(match[2]) if match[2] else None)
