"""Owns RecordDeAggregation: the records that a producer packed into one, taken apart by JSON or by a delimiter.

A record that can't be taken apart goes on as a failure, whole: of a part of it nobody could say where it ends. Nothing
tells the service's error code and its doings above the cap; both are constants here.
Source: https://docs.aws.amazon.com/firehose/latest/dev/dynamic-partitioning-multirecord-deaggergation.html
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import orjson

from firehose.processing import Reason
from firehose.records import Failed, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["SUB_RECORDS", "SplitDelimited", "SplitJson", "json_objects"]

SUB_RECORDS = 500
"""Most records in one. Of a record that holds more none goes on: it lies, whole, among the errors."""
# processors have this one, and de-aggregation is named nowhere
_OUTPUT_TYPE = "processing-failed"
_CODE = "DynamicPartitioning.RecordDeAggregationFailed"
"""Made as the known `DynamicPartitioning.MetadataExtractionFailed` is; the service's own isn't known."""
_TOO_MANY = f"The record holds more than {SUB_RECORDS} records"
_SPACE = b" \t\r\n"
_BETWEEN = re.compile(rb"\}[ \t\r\n]*\{")
"""Where one object ends and the next begins, unless it is in a string."""
_GAP = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True, slots=True)
class SplitJson:
    """SubRecordType JSON: objects one after another, with nothing or white space between them."""

    def apply(self, records: Sequence[Record], now_ms: int) -> tuple[list[Record], list[Failed]]:
        """Make a record of each object; an array, any other value and what is no JSON fail."""
        return _split(records, now_ms, lambda raw: json_objects(raw, SUB_RECORDS))


@dataclass(frozen=True, slots=True)
class SplitDelimited:
    """SubRecordType DELIMITED: what is between delimiters; where they meet, nothing is."""

    delimiter: bytes

    def apply(self, records: Sequence[Record], now_ms: int) -> tuple[list[Record], list[Failed]]:
        """Make a record of each part; the delimiters are gone."""
        return _split(records, now_ms, self._parts)

    def _parts(self, raw: bytes) -> list[bytes]:
        found = [part for part in raw.split(self.delimiter) if part]
        if not found:
            raise ValueError("The record holds nothing but delimiters")
        return found


def _split(
    records: Sequence[Record], now_ms: int, parts_of: Callable[[bytes], list[bytes]]
) -> tuple[list[Record], list[Failed]]:
    made: list[Record] = []
    failed: list[Failed] = []
    for record in records:
        try:
            parts, message = parts_of(record.raw), _TOO_MANY
        except ValueError as error:
            parts, message = [], str(error)
        if 0 < len(parts) <= SUB_RECORDS:
            # a part that fails later is stored by itself: all of what came would come again with each
            made += [Record(part, record.arrival_ms, record.keys) for part in parts]
        else:
            failed.append(Failed(record.kept, record.arrival_ms, now_ms, Reason(_OUTPUT_TYPE, _CODE, message)))
    return made, failed


def json_objects(raw: bytes, most: int | None = None) -> list[bytes]:
    r"""Take JSON objects that follow one another apart, each with its own bytes.

    >>> json_objects(b'{"a":1}{"a":2}\n{"a": 3}\n')
    [b'{"a":1}', b'{"a":2}', b'{"a": 3}']

    Args:
        raw: any bytes.
        most: where there are more objects, reading ends behind the first one too many.

    Raises:
        ValueError: the bytes are anything but objects with white space between them; says what is wrong, and where.
    """
    found = _at_boundaries(raw, most)
    return _one_by_one(raw, most) if found is None else found


def _at_boundaries(raw: bytes, most: int | None) -> list[bytes] | None:
    """Cut wherever a brace closes and the next one opens; None where a part is no object, as one may be in a string."""
    inner = raw.strip(_SPACE)
    parts = _BETWEEN.split(inner, most or 0)
    last = len(parts) - 1
    if last:
        parts = [(b"{" if at else b"") + part + (b"}" if at < last else b"") for at, part in enumerate(parts)]
    loads = orjson.loads
    try:
        return parts if all(type(loads(part)) is dict for part in parts) else None
    except orjson.JSONDecodeError:
        return None


def _one_by_one(raw: bytes, most: int | None) -> list[bytes]:
    """Read one value after another; slower, and says what is wrong."""
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"The record is not valid UTF-8 at byte {error.start}") from None
    found: list[bytes] = []
    at = _after_space(text, 0)
    while at < len(text) and (most is None or len(found) <= most):
        try:
            value, end = _DECODER.raw_decode(text, at)
        except json.JSONDecodeError as error:
            raise ValueError(f"The record is not valid JSON at character {error.pos}: {error.msg}") from None
        except _NoNumberError:
            raise
        except ValueError:  # Python reads whole numbers of up to 4,300 digits
            raise ValueError(f"The record holds a number of too many digits, from character {at}") from None
        except RecursionError:
            raise ValueError(f"The record is nested too deeply, from character {at}") from None
        if type(value) is not dict:
            kind = "an array" if type(value) is list else "a value"
            raise ValueError(f"The record holds {kind} at character {at}: allowed are JSON objects")
        # a half of a surrogate pair, as an escape, is ASCII here
        found.append(text[at:end].encode())
        at = _after_space(text, end)
    if not found:
        raise ValueError("The record holds no JSON object")
    return found


def _after_space(text: str, at: int) -> int:
    match = _GAP.match(text, at)
    return at if match is None else match.end()


class _NoNumberError(ValueError):
    """What Python's reader takes for a number, and JSON doesn't have."""


def _no_number(text: str) -> NoReturn:
    raise _NoNumberError(f"The record is not valid JSON: {text} is no number")


_DECODER = json.JSONDecoder(parse_constant=_no_number)
