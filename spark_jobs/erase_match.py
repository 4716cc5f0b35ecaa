"""Owns telling whether a record is a subject's: in a line of JSON, in an error record of Firehose, in a row of CSV.

A record is a subject's if it holds any of the subject's keys where the contract has it, inside `payload` or, in a file
that came without an envelope, at the top. Values are compared as a person means them: `42` is found as a number and as
a text. What is no JSON is searched for the key's name with the value behind it.
"""

from __future__ import annotations

import base64
import binascii
import csv
import io
import json
import re
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from decimal import Decimal, InvalidOperation
from functools import cached_property
from typing import TYPE_CHECKING, Any

import orjson

from lake.envelope import Identity, salvage

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from lake.erasure import Key

__all__ = ["Cut", "Matcher", "cut_csv", "cut_lines", "holds_bytes", "is_value", "values_at"]


@dataclass(frozen=True)
class Matcher:
    """Tells the records of one subject."""

    keys: tuple[Key, ...]
    tenant: str
    shared: bool = False
    """Whether other tenants' records lie in the same place: a record that names another tenant is left alone."""
    producers: Mapping[str, str] = field(default_factory=dict)
    """Tenant by producer id, for a record that lost its tenant on its way."""

    def is_subjects(self, raw: bytes) -> bool:
        """Whether a record is the subject's, by its bytes."""
        if not self._may_hold(raw) or (self.shared and not self._is_tenants(raw)):
            return False
        try:
            record = orjson.loads(raw)
        except ValueError:
            return any(rule.search(raw) for rule in self._rules)
        if any(raw.count(name) > 1 for name in self._names) or b"\\u" in raw:
            # a key that is there twice: the parser kept one of them
            record = json.loads(raw, object_pairs_hook=_every)
        return self.is_in(record)

    def is_error_records(self, line: bytes) -> bool:
        """The same for a line of an error object, whose record lies in it in base64."""
        try:
            wrapped = orjson.loads(line)["rawData"]
            raw = base64.b64decode(wrapped, validate=True)
        except (ValueError, KeyError, TypeError, binascii.Error):
            return self.is_subjects(line)
        return self.is_subjects(raw)

    def is_in(self, record: Any) -> bool:
        """Whether a parsed record holds any of the keys."""
        if type(record) not in {dict, _Every}:
            return False
        tops = (record, *_children(record, "payload"))
        return any(
            is_value(value, key.text) for key in self.keys for top in tops for value in values_at(top, key.steps)
        )

    def is_in_rescued(self, text: str | None) -> bool:
        """Whether the fields that a contract didn't know hold any of the keys: the contract may have learned since."""
        if text is None or not any(key.steps[0] in text for key in self.keys):
            return False
        record = orjson.loads(text)
        # what was strange inside of an object is kept under the object's path
        return any(
            is_value(value, key.text)
            for key in self.keys
            for cut in range(1, len(key.steps) + 1)
            for top in values_at(record, (".".join(key.steps[:cut]),))
            for value in values_at(top, key.steps[cut:])
        )

    def _may_hold(self, raw: bytes) -> bool:
        return b"\\u" in raw or any(name in raw for name in self._names)

    def _is_tenants(self, raw: bytes) -> bool:
        who = salvage(raw)
        named = who.tenant or self.producers.get(who.producer_id or "")
        # one that nobody can be told from is refused everywhere, and better erased than kept
        return named in {None, self.tenant}

    @cached_property
    def _names(self) -> tuple[bytes, ...]:
        return tuple({json.dumps(key.leaf).encode() for key in self.keys})

    @cached_property
    def _rules(self) -> tuple[re.Pattern[bytes], ...]:
        found = []
        for key in self.keys:
            texts = {json.dumps(key.text)[1:-1].encode(), json.dumps(key.text, ensure_ascii=False)[1:-1].encode()}
            value = b"|".join(re.escape(one) for one in sorted(texts))
            # a record that was cut short may end within its quotes
            name = re.escape(json.dumps(key.leaf).encode())
            found.append(re.compile(name + rb'\s*:\s*\[?\s*"?(?:' + value + rb')(?=["\s,}\]]|$)'))
        return tuple(found)


class _Every(dict[str, list[Any]]):
    """An object with all values of each key."""


def _every(pairs: list[tuple[str, Any]]) -> _Every:
    found = _Every()
    for name, value in pairs:
        found.setdefault(name, []).append(value)
    return found


def _children(value: Any, name: str) -> Iterator[Any]:
    if isinstance(value, _Every):
        yield from value.get(name, ())
    elif isinstance(value, dict) and name in value:
        yield value[name]


def values_at(value: Any, steps: tuple[str, ...]) -> Iterator[Any]:
    """Values at the end of a path; a list on the way, or at the end, is gone through."""
    if isinstance(value, list):
        for one in value:
            yield from values_at(one, steps)
    elif not steps:
        yield value
    else:
        for child in _children(value, steps[0]):
            yield from values_at(child, steps[1:])


def is_value(value: Any, text: str) -> bool:
    """Whether a value of JSON is what a person wrote as a text."""
    if isinstance(value, str):
        return value == text
    if value is None or isinstance(value, bool | dict):
        return False
    if isinstance(value, date):
        return _is_date(value, text)
    try:
        return Decimal(str(value)) == Decimal(text)
    except InvalidOperation:
        return False


def _is_date(value: date, text: str) -> bool:
    try:
        if not isinstance(value, datetime):
            return value == date.fromisoformat(text)
        meant = datetime.fromisoformat(text)
    except ValueError:
        return False
    return value.replace(tzinfo=value.tzinfo or UTC) == meant.replace(tzinfo=meant.tzinfo or UTC)


def holds_bytes(keys: tuple[Key, ...], body: bytes) -> bool:
    """Whether any of the values is in some bytes, as they are or as JSON or CSV write it."""
    return any(
        form in body
        for key in keys
        for form in {key.text.encode(), json.dumps(key.text)[1:-1].encode(), key.text.replace('"', '""').encode()}
    )


@dataclass(frozen=True)
class Cut:
    """An object's content without a subject's records."""

    body: bytes
    records: int
    """Taken out."""
    identities: tuple[Identity, ...] = ()
    """Of those taken out, as far as they can be read."""


def cut_lines(body: bytes, matcher: Matcher, *, errors: bool = False) -> Cut:
    """Take a subject's lines out of an object of JSON lines.

    A line that goes leaves an empty one: every other keeps its number, by which quarantine tells where it was.

    Args:
        body: the content, unpacked.
        matcher: tells the subject's records.
        errors: whether the lines are error records of Firehose.
    """
    is_subjects = matcher.is_error_records if errors else matcher.is_subjects
    lines = body.split(b"\n")
    identities: list[Identity] = []
    for number, line in enumerate(lines):
        if line and is_subjects(line):
            identities.append(salvage(_unwrapped(line) if errors else line))
            lines[number] = b""
    return Cut(b"\n".join(lines) if identities else body, len(identities), tuple(identities))


def _unwrapped(line: bytes) -> bytes:
    try:
        return base64.b64decode(orjson.loads(line)["rawData"], validate=True)
    except (ValueError, KeyError, TypeError, binascii.Error):
        return line  # no error record: it may be the event itself


_DELIMITERS = ",;\t|"


def cut_csv(body: bytes, matcher: Matcher) -> Cut | None:
    """Take a subject's rows out of a CSV file with a header; every other row keeps its bytes.

    Returns:
        None where the header has none of the subject's fields, or the body is no text.
    """
    encoding = "utf-8" if _is_utf8(body) else "latin-1"
    rows = list(_csv_rows(body.decode(encoding)))
    if not rows:
        return None
    head = rows[0].removeprefix("\ufeff")
    delimiter = max(_DELIMITERS, key=head.count)
    names = [one.strip().lower() for one in _cells(head, delimiter)]
    places = [
        (names.index(name), key.text)
        for key in matcher.keys
        for name in {key.path.lower(), key.leaf.lower()}
        if name in names
    ]
    if not places:
        return None
    kept = [rows[0]]
    for row in rows[1:]:
        cells = _cells(row, delimiter)
        if not any(place < len(cells) and _is_cell(cells[place], text) for place, text in places):
            kept.append(row)
    return Cut("".join(kept).encode(encoding), len(rows) - len(kept))


def _is_cell(cell: str, text: str) -> bool:
    return cell.strip() == text


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def _csv_rows(text: str) -> Iterator[str]:
    """Rows as they are written, line ends included; a line end within quotes belongs to the row."""
    row: list[str] = []
    open_quotes = False
    for line in io.StringIO(text, newline=""):
        row.append(line)
        open_quotes ^= line.count('"') % 2 == 1
        if not open_quotes:
            yield "".join(row)
            row = []
    if row:
        yield "".join(row)


def _cells(row: str, delimiter: str) -> list[str]:
    return next(csv.reader([row.rstrip("\r\n")], delimiter=delimiter), [])
