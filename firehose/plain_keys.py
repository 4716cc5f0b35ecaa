"""Owns taking values at plain paths straight from a record's bytes, without making objects of the rest of it.

A record's other members are read over, which takes a quarter of the time of parsing all of them. Whoever reads over a
string doesn't look whether it is UTF-8, so only records in ASCII are read this way; all others are parsed whole.
"""

from __future__ import annotations

import re
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec
import orjson

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from firehose.jq_query import PlainPath

__all__ = ["PlainKeys"]

_NOT_PLAIN = (orjson.JSONDecodeError, msgspec.DecodeError, KeyError, TypeError, RecursionError)
"""What is raised where libjq has to say what becomes of a record."""
_UNREADABLE = re.compile(r'[\\"\x00-\x1f]')
"""In a member's name: msgspec takes no name that has to be escaped."""
_SCALAR = str | int | float
"""Apart, so that 1.0 isn't taken for 1."""
_Members: TypeAlias = "dict[str, _Members | None]"
"""Names of members, and what is wanted of each: members of its own, or (None) its value."""


class PlainKeys:
    """Takes the values at all of some paths from records.

    Args:
        paths: to the values, in order.
    """

    def __init__(self, paths: Sequence[PlainPath]) -> None:
        whole, loads = _getter_of(paths), orjson.loads
        self._read: Callable[[bytes], tuple[Any, ...]] = lambda raw: whole(loads(raw))
        self._decode: Callable[[bytes], Any] | None = None
        members = _members_of(paths)
        if members is None:
            return
        decode = self._decode = msgspec.json.Decoder(_struct_of(members)).decode
        take = self._take = _taker_of(paths, members)
        self._read = lambda raw: take(decode(raw)) if raw.isascii() else whole(loads(raw))

    def read_all(self, data: Sequence[bytes]) -> list[tuple[Any, ...] | None]:
        """Take the values from each record; None where libjq has to say what becomes of it."""
        try:
            # without a step of Python's for each record
            if self._decode is not None and all(map(bytes.isascii, data)):
                return [*map(self._take, map(self._decode, data))]
            return [*map(self._read, data)]
        except _NOT_PLAIN:
            return [*map(self._tried, data)]

    def _tried(self, raw: bytes) -> tuple[Any, ...] | None:
        try:
            return self._read(raw)
        except _NOT_PLAIN:
            return None


def _members_of(paths: Sequence[PlainPath]) -> _Members | None:
    """Put the paths together; None where they can't be read by: one goes on through another's value, or by its name."""
    found: _Members = {}
    for path in paths:
        if any(_UNREADABLE.search(name) for name in path.names):
            return None
        *outer, last = path.names
        at = found
        for name in outer:
            inner = at.setdefault(name, {})
            if inner is None:
                return None
            at = inner
        if at.setdefault(last, None) is not None:
            return None
    return found


def _struct_of(members: _Members) -> type[msgspec.Struct]:
    # names of members may be any strings, those of fields may not
    fields = [(f"f{at}", _SCALAR if inner is None else _struct_of(inner)) for at, inner in enumerate(members.values())]
    rename = {f"f{at}": name for at, name in enumerate(members)}
    return msgspec.defstruct("Record", fields, rename=rename, gc=False)


def _taker_of(paths: Sequence[PlainPath], members: _Members) -> Callable[[Any], tuple[Any, ...]]:
    is_sliced = any(path.start is not None or path.stop is not None for path in paths)
    if not is_sliced and [path.names for path in paths] == [(name,) for name in members]:
        return msgspec.structs.astuple
    getters = [_field_getter(path, members) for path in paths]
    return lambda record: tuple([get(record) for get in getters])


def _field_getter(path: PlainPath, members: _Members) -> Callable[[Any], Any]:
    fields: list[str] = []
    at: _Members | None = members
    for name in path.names:
        if at is None:  # `_members_of` put each path into them
            raise AssertionError(path)
        fields.append(f"f{list(at).index(name)}")
        at = at[name]
    get = attrgetter(".".join(fields))
    if path.start is None and path.stop is None:
        return get
    cut = slice(path.start, path.stop)
    return lambda record: get(record)[cut]


def _getter_of(paths: Sequence[PlainPath]) -> Callable[[Any], tuple[Any, ...]]:
    """Make a function that takes the values at all paths of a parsed record; raises as `_getter`'s do."""
    getters = [_getter(path) for path in paths]
    if len(getters) == 1:
        only = getters[0]
        return lambda document: (only(document),)
    if all(len(path.names) == 1 and path.start is None and path.stop is None for path in paths):
        return itemgetter(*(path.names[0] for path in paths))
    return lambda document: tuple([get(document) for get in getters])


def _getter(path: PlainPath) -> Callable[[Any], Any]:
    """Make a function that follows a path; KeyError or TypeError where libjq has to say what happens."""
    names, start, stop = path.names, path.start, path.stop
    sliced = start is not None or stop is not None
    if len(names) == 1 and not sliced:
        return itemgetter(names[0])
    if len(names) == 1:
        name, cut = names[0], slice(start, stop)
        return lambda document: document[name][cut]

    def follow(document: Any) -> Any:
        for step in names:
            document = document[step]
        return document[slice(start, stop)] if sliced else document

    return follow
