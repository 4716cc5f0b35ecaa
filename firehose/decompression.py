"""Owns Decompression and CloudWatchLogProcessing: what CloudWatch Logs sends, unpacked, and the messages in it.

CloudWatch Logs puts gzipped records, each a JSON object with many log events. What can't be unpacked, or isn't what
was expected, fails with the output type `decompression-failed`. What a record may become is bounded: a record of a few
KB can be made that unpacks to gigabytes.
Source: https://docs.aws.amazon.com/firehose/latest/dev/writing-with-cloudwatch-logs-decompression.html and
https://docs.aws.amazon.com/firehose/latest/dev/Message_extraction.html
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import orjson

from firehose.deaggregation import json_objects
from firehose.processing import Reason
from firehose.records import Failed, Record
from lake.lines import NotGzipError, is_gzip, unpack

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CALL_BYTES", "CONTROL_MESSAGES", "RECORD_BYTES", "ControlMessages", "ExtractMessages", "Gunzip"]

RECORD_BYTES = 16 << 20
"""Most that one record may become; 1,000 KiB of log events unpack to some 10 MB. The service's limit isn't known."""
CALL_BYTES = 256 << 20
"""Most that the records of one call may become together: a put of 4 MiB, packed 64 to 1."""
_VALUES = 1_000_000
"""Most values in a large record: parsed, a value takes up to 90 bytes, and `[]` is two bytes of a record."""
_LARGE = 1 << 20
# one that doesn't end matches too: otherwise each quote in it would be tried, and looked through to the end
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
_OUTPUT_TYPE = "decompression-failed"
_CODE = "Decompression failed."
"""As another project captured it of the service, for a broken gzip and for broken JSON in it; no page tells it."""
_DATA, _CONTROL = "DATA_MESSAGE", "CONTROL_MESSAGE"


class ControlMessages(StrEnum):
    """What becomes of the messages by which CloudWatch Logs sees whether a stream is there."""

    DROPPED = "dropped"
    """Nothing, as of a record without log events."""
    EMPTY = "empty"
    """A record of no bytes, which another project captured of the service: a key can't be extracted from it, so each
    would be an error where dynamic partitioning is on."""


CONTROL_MESSAGES = ControlMessages.DROPPED


class _RefusedError(Exception):
    """A record that isn't what was expected; says why."""


@dataclass(frozen=True, slots=True)
class Gunzip:
    """Decompression: CompressionFormat GZIP, the only one there is."""

    def apply(self, records: Sequence[Record], now_ms: int) -> tuple[list[Record], list[Failed]]:
        """Unpack each record; what is no whole gzip of JSON fails.

        The service was seen to take nothing but JSON, and nothing else comes from CloudWatch Logs.
        """
        made: list[Record] = []
        failed: list[Failed] = []
        left = CALL_BYTES
        for record in records:
            try:
                unpacked = _unpacked(record.raw, left)
                _check_json(unpacked)
            except _RefusedError as error:
                failed.append(_failed(record, now_ms, error))
            else:
                left -= len(unpacked)
                made.append(Record(unpacked, record.arrival_ms, record.keys, record.raw))
        return made, failed


@dataclass(frozen=True, slots=True)
class ExtractMessages:
    """CloudWatchLogProcessing: of each record only the messages of its log events, each with a newline behind it."""

    enabled: bool = True
    """DataMessageExtraction; without it, records go on as they are."""

    def apply(self, records: Sequence[Record], now_ms: int) -> tuple[list[Record], list[Failed]]:
        """Make one record of each one's messages; what holds none is gone, what isn't of CloudWatch Logs fails."""
        if not self.enabled:
            return list(records), []
        made: list[Record] = []
        failed: list[Failed] = []
        for record in records:
            try:
                found = [_messages(envelope) for envelope in json_objects(record.raw)]
            except (_RefusedError, ValueError) as error:
                failed.append(_failed(record, now_ms, error))
                continue
            except RecursionError:
                failed.append(_failed(record, now_ms, _RefusedError("The record is nested too deeply")))
                continue
            body = b"".join(one for one in found if one is not None)
            if body or CONTROL_MESSAGES is ControlMessages.EMPTY:
                made.append(Record(body, record.arrival_ms, record.keys, record.packed))
        return made, failed


def _failed(record: Record, now_ms: int, error: Exception) -> Failed:
    return Failed(record.kept, record.arrival_ms, now_ms, Reason(_OUTPUT_TYPE, _CODE, str(error)))


def _unpacked(raw: bytes, left: int) -> bytes:
    """Unpack all members of a gzip.

    Raises:
        _RefusedError: it is no whole gzip, or becomes more than is allowed.
    """
    if not is_gzip(raw):
        raise _RefusedError("The record is not gzip")
    found: list[bytes] = []
    size = 0
    try:
        for chunk in unpack([raw]):
            size += len(chunk)
            if size > RECORD_BYTES:
                raise _RefusedError(f"The record unpacks to more than {RECORD_BYTES:,} bytes")
            if size > left:
                raise _RefusedError(f"The records of one put unpack to more than {CALL_BYTES:,} bytes")
            found.append(chunk)
    except NotGzipError as error:
        raise _RefusedError(str(error).replace("the object", "The record", 1)) from None
    return b"".join(found)


def _check_json(unpacked: bytes) -> None:
    if len(unpacked) > _LARGE:
        bare = _STRING.sub(b"", unpacked)
        # `{}{}{}…` has no comma
        if max(bare.count(b","), bare.count(b"{")) >= _VALUES:
            raise _RefusedError(f"The record holds more than {_VALUES:,} values")
    try:
        orjson.loads(unpacked)
    except orjson.JSONDecodeError:
        try:
            json_objects(unpacked)  # members of a gzip may hold one each
        except ValueError as error:
            raise _RefusedError(str(error)) from None


def _messages(envelope: bytes) -> bytes | None:
    """Messages of a CloudWatch Logs record; None of a control message.

    Raises:
        _RefusedError: it is none.
    """
    document: Any
    try:
        document = orjson.loads(envelope)
    except orjson.JSONDecodeError:
        document = json.loads(envelope)  # a message that was cut within a surrogate pair
    kind = document.get("messageType")
    if kind == _CONTROL:
        return None
    if kind != _DATA:
        raise _RefusedError(f"messageType: got {_shown(kind)}, allowed are {_DATA} and {_CONTROL}")
    events = document.get("logEvents")
    if type(events) is not list:
        raise _RefusedError(f"logEvents: got {_shown(events)}, allowed is a list")
    found: list[str] = []
    for at, event in enumerate(events):
        message = event.get("message") if type(event) is dict else None
        if type(message) is not str:
            raise _RefusedError(f"logEvents[{at}].message: got {_shown(message)}, allowed is a string")
        found.append(f"{message}\n")
    return "".join(found).encode("utf-8", "replace")


def _shown(value: object) -> str:
    return "nothing" if value is None else f"{str(value)[:40]!r}"
