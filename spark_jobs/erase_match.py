"""Owns telling whether a record is a subject's: in a line of JSON, in an error record of Firehose.

A record is a subject's if it holds any of the subject's keys where the contract has it, inside `payload` or, in a file
that came without an envelope, at the top. What is no JSON, or lies deeper than Python can go, is searched for the key's
name with the value behind it; what was refused of a file of CSV, for a cell that is the value.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from dataclasses import dataclass, field
from decimal import Decimal, InvalidOperation
from functools import cached_property
from typing import TYPE_CHECKING, Any

import orjson

from lake.envelope import salvage
from lake.error_record import FILES_STAGE
from lake.lines import LINE_BYTES, is_gzip
from spark_jobs.erase_lines import side_by_side
from spark_jobs.erase_unpacked import flowing, unpacked
from spark_jobs.erase_values import holds_cell, is_long_number, is_value, windows

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lake.drops import Drop
    from lake.envelope import Identity
    from lake.erasure import Key

__all__ = ["Matcher", "RecordTooLongError", "values_at"]

_MOST_RECORD = 2 * LINE_BYTES
"""Of what is parsed at once, which may take fifty times as much memory. Ingest takes no line of half as much."""
_OVERLAP = 64 << 10
"""Bytes that a name and its value, with what is between them, may take where a record is searched in parts."""


class RecordTooLongError(Exception):
    """A record is so long that what it is parsed to may not fit."""


@dataclass(frozen=True)
class Matcher:
    """Tells the records of one subject."""

    keys: tuple[Key, ...]
    tenant: str
    shared: bool = False
    """Whether other tenants' records lie in the same place: a record that names another tenant is left alone."""
    producers: Mapping[str, str] = field(default_factory=dict)
    """Tenant by producer id, for a record that lost its tenant on its way."""
    numbers: frozenset[str] = frozenset()
    """Paths of those keys that a contract has as numbers: `042` of a CSV is 42 then, and another one otherwise."""
    drops: tuple[Drop, ...] = ()
    """Where files of CSV lie, and how they are written; of refused rows, those that they may be of."""

    def is_subjects(self, raw: bytes) -> bool:
        """Whether a record is the subject's, by its bytes.

        Raises:
            RecordTooLongError: it takes too much memory to tell.
        """
        if not self.may_hold(raw):
            return False
        if len(raw) > _MOST_RECORD:
            raise RecordTooLongError
        try:
            record = self.parsed(raw)
        except (ValueError, RecursionError):
            # no JSON, or nested deeper than one of the parsers goes
            return any(rule.search(raw) for rule in self._rules) and not self._is_anothers(raw, None)
        return self.is_in(record) and not self._is_anothers(raw, record)

    def parsed(self, raw: bytes) -> Any:
        """JSON with all that tells a subject: every value of a key that is there twice, every digit of a long number.

        Raises:
            ValueError, RecursionError: it is no JSON, or nested too deeply.
        """
        record = orjson.loads(raw)
        # a key, or one above it, that is there twice: the parser kept one of them
        if self._is_long or b"\\u" in raw or any(raw.count(name) > 1 for name in self._steps):
            record = json.loads(raw, object_pairs_hook=_every, parse_float=_exact if self._is_long else None)
        return record

    def is_error_records(self, line: bytes) -> bool:
        """The same for a line of an error object, whose record lies in it in base64."""
        try:
            told = orjson.loads(line)
            raw = base64.b64decode(told["rawData"], validate=True)
        except (ValueError, KeyError, TypeError, binascii.Error):
            return self.is_subjects(line)
        identity = told.get("identity")
        return self.is_refused(raw, told.get("stage"), identity.get("tenant") if isinstance(identity, dict) else None)

    def is_refused(self, raw: bytes, stage: str | None, tenant: str | None) -> bool:
        """The same for what a stage refused, which may be the rows of a file, or packed.

        Args:
            raw: what it received.
            stage: which one.
            tenant: whose it was, if that was told beside it.
        """
        contents = unpacked(raw, _MOST_RECORD)[0] if is_gzip(raw) else raw
        if stage == FILES_STAGE and self.shared and tenant not in {None, self.tenant}:
            return False
        if len(contents) > _MOST_RECORD:
            parts = windows(flowing([raw]), _OVERLAP)
            if stage == FILES_STAGE:
                return any(map(self._is_in_cells, parts))
            # too large to be parsed: as what is no JSON
            return not self._is_anothers(contents, None) and any(
                rule.search(one) for one in parts for rule in self._rules
            )
        if stage == FILES_STAGE:
            return self._is_in_cells(contents)
        if contents is raw:
            return self.is_subjects(raw)
        return any(self.is_subjects(one) for line in contents.split(b"\n") for one in side_by_side(line))

    def _is_in_cells(self, contents: bytes) -> bool:
        marks = "".join(f"{drop.delimiter}{drop.quote}" for drop in self.drops)
        return holds_cell(contents, self.keys, self.numbers, marks)

    def is_in_cell(self, cell: str, key: Key, steps: tuple[str, ...]) -> bool:
        """Whether a cell of CSV is JSON that holds a key's value, as the door takes it for a list or an object.

        Args:
            cell: its text.
            key: of the subject.
            steps: to the value, in what the cell holds.
        """
        if not cell.lstrip().startswith(("[", "{")):
            return False
        raw = cell.encode("utf-8", "replace")
        try:
            return any(is_value(value, key.text) for value in values_at(self.parsed(raw), steps))
        except (ValueError, RecursionError):
            return any(rule.search(raw) for rule in self._rules)

    def is_in(self, record: Any) -> bool:
        """Whether a parsed record holds any of the keys; of a list, any of the records in it."""
        return any(
            is_value(value, key.text)
            for one in values_at(record, ())
            for top in (one, *_children(one, "payload"))
            for key in self.keys
            for value in values_at(top, key.steps)
        )

    def is_in_rescued(self, text: str | None) -> bool:
        """Whether the fields that a contract didn't know hold any of the keys: the contract may have learned since."""
        if text is None or not any(key.steps[0] in text for key in self.keys):
            return False
        raw = text.encode("utf-8", "surrogatepass")
        try:
            record = self.parsed(raw) if self._is_long else orjson.loads(text)
        except (ValueError, RecursionError):
            return any(rule.search(raw) for rule in self._rules)
        # what was strange inside of an object is kept under the object's path
        return any(
            is_value(value, key.text)
            for key in self.keys
            for cut in range(1, len(key.steps) + 1)
            for top in values_at(record, (".".join(key.steps[:cut]),))
            for value in values_at(top, key.steps[cut:])
        )

    def may_hold(self, raw: bytes) -> bool:
        """Whether the name of any key is in some bytes, or could be, escaped."""
        return b"\\u" in raw or any(name in raw for name in self._names)

    def _is_anothers(self, raw: bytes, record: Any) -> bool:
        """Whether a record is another tenant's; of a list, whether any of those in it is."""
        if not self.shared:
            return False
        whose = [one for one in values_at(record, ()) if isinstance(one, dict)]
        named = {self._named(one, salvage(raw)) for one in whose} or {self._named({}, salvage(raw))}
        # one that nobody can be told from is refused everywhere, and better erased than kept
        return not named <= {None, self.tenant}

    def _named(self, record: dict[str, Any], salvaged: Identity) -> str | None:
        """The tenant that a record names, wherever in it; of what says two, or is no JSON, the salvaged one."""

        def told(name: str, otherwise: str | None) -> str | None:
            if not record:
                return otherwise
            texts = {one for one in _children(record, name) if isinstance(one, str) and one}
            return next(iter(texts), None) if len(texts) <= 1 else otherwise

        return told("tenant", salvaged.tenant) or self.producers.get(told("producer_id", salvaged.producer_id) or "")

    @cached_property
    def _names(self) -> tuple[bytes, ...]:
        return tuple({json.dumps(key.leaf).encode() for key in self.keys})

    @cached_property
    def _is_long(self) -> bool:
        """Whether a key is a number that a float may be without being it."""
        return any(is_long_number(key.text) for key in self.keys)

    @cached_property
    def _steps(self) -> tuple[bytes, ...]:
        whose = ("tenant", "producer_id") if self.shared else ()
        return tuple({json.dumps(step).encode() for key in self.keys for step in ("payload", *whose, *key.steps)})

    @cached_property
    def _rules(self) -> tuple[re.Pattern[bytes], ...]:
        found = []
        for key in self.keys:
            # what is rescued has the whole path as its name
            name = b"|".join(_any_writing(one) for one in sorted({key.leaf, key.path}))
            # One run of blanks and brackets, so that there is one way to match it: two of them side by side take
            # quadratic time. A record that was cut short may end within its quotes.
            rule = rb'"(?:' + name + rb')"\s*:[\s\[]*"?' + _any_writing(key.text) + rb'(?=["\s,}\]]|$)'
            found.append(re.compile(rule))
        return tuple(found)


_SHORT = {'"': '"', "\\": "\\", "/": "/", "\b": "b", "\f": "f", "\n": "n", "\r": "r", "\t": "t"}


def _any_writing(text: str) -> bytes:
    """A pattern of a text within JSON's quotes: each character as it is, or escaped, in digits of either case."""
    return b"".join(map(_any_writing_of, text))


def _any_writing_of(character: str) -> bytes:
    units = character.encode("utf-16-be", "surrogatepass").hex()
    escaped = "".join(rf"\\u(?i:{units[at : at + 4]})" for at in range(0, len(units), 4)).encode()
    forms = [escaped]
    if character not in '"\\':
        forms.append(re.escape(character.encode("utf-8", "surrogatepass")))
    if character in _SHORT:
        forms.append(re.escape(f"\\{_SHORT[character]}".encode()))
    return b"(?:" + b"|".join(forms) + b")"


class _Every(dict[str, list[Any]]):
    """An object with all values of each key."""


def _every(pairs: list[tuple[str, Any]]) -> _Every:
    found = _Every()
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found


def _exact(written: str) -> Decimal | float:
    try:
        return Decimal(written)
    except InvalidOperation:  # its exponent has more than nineteen digits
        return float(written)


def _children(value: Any, name: str) -> Iterator[Any]:
    if isinstance(value, _Every):
        yield from value.get(name, ())
    elif isinstance(value, dict) and name in value:
        yield value[name]


def values_at(value: Any, steps: tuple[str, ...]) -> Iterator[Any]:
    """Values at the end of a path, in any order; a list on the way, or at the end, is gone through, however deep."""
    left = [(value, 0)]
    while left:
        one, at = left.pop()
        if isinstance(one, list):
            left.extend((inner, at) for inner in one)
        elif at == len(steps):
            yield one
        else:
            left.extend((child, at + 1) for child in _children(one, steps[at]))
