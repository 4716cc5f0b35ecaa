"""Owns the error record: a record that a stage refused, as one line of an object below `errors/`.

It has the shape of Firehose's, whose error objects lie beside; a stage of ours that knows more than the record itself
tells adds `stage` and `identity`.
Source: https://docs.aws.amazon.com/firehose/latest/dev/data-transformation-failure-handling.html
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import asdict, dataclass
from typing import Any

import orjson

from lake.envelope import Identity, salvage

__all__ = ["FILES_STAGE", "ErrorRecord"]

FILES_STAGE = "files"
"""Stage that takes files: what it refused is a row of CSV, or the beginning of a file."""
_LARGEST_SEQUENCE = 2**63 - 1
_TEXTS = ("event_id", "tenant", "producer_id")


@dataclass(frozen=True, slots=True)
class ErrorRecord:
    """A refused record."""

    code: str
    """Why, as a word."""
    message: str
    """Why, as a sentence."""
    raw: bytes
    """What was received."""
    identity: Identity
    """Whose record it was, as far as it is known."""
    arrival_ms: int | None = None
    """When it was received, milliseconds since 1970."""
    stage: str | None = None
    """What refused it; None is Firehose."""

    def encode(self) -> bytes:
        """Render as one line, its end included."""
        told = {key: value for key, value in asdict(self.identity).items() if value is not None}
        return orjson.dumps(
            {
                "attemptsMade": 1,
                "arrivalTimestamp": self.arrival_ms,
                "errorCode": self.code,
                "errorMessage": self.message,
                "attemptEndingTimestamp": self.arrival_ms,
                "rawData": binascii.b2a_base64(self.raw, newline=False).decode(),
                "stage": self.stage,
                "identity": told,
            },
            option=orjson.OPT_APPEND_NEWLINE,
        )

    @classmethod
    def parse(cls, line: bytes) -> ErrorRecord:
        """Read one line of an error object, Firehose's or ours.

        Raises:
            ValueError: it is no error record.
        """
        record: Any = orjson.loads(line)
        if type(record) is not dict:
            raise ValueError("it is JSON, but no object")
        code, message = _text(record, "errorCode"), _text(record, "errorMessage", "")
        try:
            raw = base64.b64decode(_text(record, "rawData"), validate=True)
        except binascii.Error as error:
            raise ValueError(f"rawData: {error}") from None
        arrival, stage, told = record.get("arrivalTimestamp"), record.get("stage"), record.get("identity")
        return cls(
            code=code,
            message=message,
            raw=raw,
            identity=_identity(told) if isinstance(told, dict) else salvage(raw),
            arrival_ms=arrival if type(arrival) is int else None,
            stage=stage if isinstance(stage, str) else None,
        )


def _text(record: dict[str, Any], key: str, default: str | None = None) -> str:
    value = record.get(key, default)
    if type(value) is str:
        return value
    # one nested as deeply as the parser goes can't be written out
    shown = "a list" if isinstance(value, list) else "an object" if isinstance(value, dict) else repr(value)
    raise ValueError(f"{key}: got {shown}, allowed is a string")


def _identity(told: dict[str, Any]) -> Identity:
    found: dict[str, Any] = {name: value for name in _TEXTS if isinstance(value := told.get(name), str)}
    sequence = told.get("sequence")
    if type(sequence) is int and 0 <= sequence <= _LARGEST_SEQUENCE:
        found["sequence"] = sequence
    return Identity(**found)
