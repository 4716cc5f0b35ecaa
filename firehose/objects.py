"""Owns the bytes of S3 objects: records put together, error records, compression, and what S3 is told about them.

An object is a function of its `Recipe`, its records and its delivery's id, and the same bytes every time: after a crash
the same key is written again with the same content.
Error record: https://docs.aws.amazon.com/firehose/latest/dev/data-transformation-failure-handling.html
"""

from __future__ import annotations

import binascii
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

import orjson

from firehose.containers import gzipped, hadoop_snappy, snappy_stream, zipped

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firehose.processing import Refused

__all__ = ["Compression", "HadoopSuffix", "Notes", "Recipe", "notes_of", "render"]

_ATTEMPTS = 1
"""Extraction is not tried again: the same record gives the same answer."""


class HadoopSuffix(StrEnum):
    """What names of HADOOP_SNAPPY objects end in: the documentation and the service differ."""

    OBSERVED = ".snappy"
    """What the service was seen to do (floci compared with it, on two dates); just as with Snappy."""
    DOCUMENTED = ".hsnappy"


HADOOP_SUFFIX = HadoopSuffix.OBSERVED


class Compression(StrEnum):
    """Values of CompressionFormat."""

    UNCOMPRESSED = "UNCOMPRESSED"
    GZIP = "GZIP"
    ZIP = "ZIP"
    SNAPPY = "Snappy"
    HADOOP_SNAPPY = "HADOOP_SNAPPY"

    @property
    def extension(self) -> str:
        """What the object's name ends in, unless the stream has a FileExtension."""
        return _EXTENSIONS[self]

    @property
    def content_encoding(self) -> str | None:
        """The object's Content-Encoding; but for gzip, names that no HTTP client decodes by itself."""
        return _ENCODINGS.get(self)


_EXTENSIONS = {
    Compression.UNCOMPRESSED: "",
    Compression.GZIP: ".gz",
    Compression.ZIP: ".zip",
    Compression.SNAPPY: ".snappy",
    Compression.HADOOP_SNAPPY: HADOOP_SUFFIX.value,
}
_ENCODINGS = {
    Compression.GZIP: "gzip",
    Compression.ZIP: "zip",
    Compression.SNAPPY: "snappy-java",
    Compression.HADOOP_SNAPPY: "hadoop-snappy",
}


@dataclass(frozen=True, slots=True)
class Notes:
    """Why each record of an error object was refused; lists are in the order of its records."""

    reasons: list[list[str]]
    """Distinct pairs of code and message."""
    which: list[int]
    """Each record's place in `reasons`."""
    arrival_ms: list[int]
    ended_ms: list[int]


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an object's bytes are made of its records."""

    compression: Compression
    suffix: bytes = b""
    """Behind each record."""
    notes: Notes | None = None
    """Of an error object."""

    def to_dict(self) -> dict[str, Any]:
        """Render for the log."""
        made: dict[str, Any] = {"compression": self.compression, "suffix": self.suffix.hex()}
        if self.notes is not None:
            made["notes"] = self.notes
        return made

    @classmethod
    def from_dict(cls, made: dict[str, Any]) -> Recipe:
        """Read what `to_dict` wrote."""
        notes = Notes(**made["notes"]) if "notes" in made else None
        return cls(Compression(made["compression"]), bytes.fromhex(made["suffix"]), notes)


def notes_of(refused: Sequence[Refused]) -> Notes:
    """Note why records were refused, each distinct reason once."""
    places: dict[tuple[str, str], int] = {}
    which = [places.setdefault((one.reason.code, one.reason.message), len(places)) for one in refused]
    return Notes(
        reasons=[list(pair) for pair in places],
        which=which,
        arrival_ms=[one.arrival_ms for one in refused],
        ended_ms=[one.ended_ms for one in refused],
    )


def render(recipe: Recipe, data: Sequence[bytes], delivery: UUID) -> bytes:
    """Make an object's bytes; the delivery that writes it, and writes it again after a crash, names a ZIP's entry."""
    body = _joined(data, recipe.suffix) if recipe.notes is None else _error_lines(recipe.notes, data)
    match recipe.compression:
        case Compression.UNCOMPRESSED:
            return body
        case Compression.GZIP:
            return gzipped(body)
        case Compression.ZIP:
            # the service's entries have UUIDs that aren't those of their objects' keys
            return zipped(body, uuid5(delivery, "entry"))
        case Compression.SNAPPY:
            return snappy_stream(body)
        case Compression.HADOOP_SNAPPY:
            return hadoop_snappy(body)


def _joined(data: Sequence[bytes], suffix: bytes) -> bytes:
    return suffix.join([*data, b""]) if suffix else b"".join(data)


def _error_lines(notes: Notes, data: Sequence[bytes]) -> bytes:
    lines = []
    for raw, which, arrival, ended in zip(data, notes.which, notes.arrival_ms, notes.ended_ms, strict=True):
        code, message = notes.reasons[which]
        record = {
            "attemptsMade": _ATTEMPTS,
            "arrivalTimestamp": arrival,
            "errorCode": code,
            "errorMessage": message,
            "attemptEndingTimestamp": ended,
            "rawData": binascii.b2a_base64(raw, newline=False).decode(),
        }
        lines.append(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
    return b"".join(lines)
