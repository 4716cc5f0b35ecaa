"""Owns the bytes of S3 objects: records put together, error records, compression, and what S3 is told about them.

An object is a function of its `Recipe`, its records and its delivery's id, and the same bytes every time: after a crash
the same key is written again with the same content.
Error records: https://docs.aws.amazon.com/firehose/latest/dev/data-transformation-failure-handling.html and
https://docs.aws.amazon.com/firehose/latest/dev/record-format-conversion-error-handling.html
"""

from __future__ import annotations

import binascii
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

import orjson

from firehose.columnar import columnar
from firehose.containers import gzipped, hadoop_snappy, snappy_stream, zipped
from firehose.conversion import Conversion, Unconverted

if TYPE_CHECKING:
    from collections.abc import Sequence

    from firehose.processing import Refused

__all__ = ["Compression", "HadoopSuffix", "Notes", "Recipe", "notes_of", "render"]

_TRIED_ONCE = (1, None)
"""What older logs lack: but for Lambda nothing is tried again, as the same record gives the same answer."""


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

    reasons: list[list[Any]]
    """Distinct ones: code, message, how often it was tried, the ARN of the function that did; older logs have two."""
    which: list[int]
    """Each record's place in `reasons`."""
    arrival_ms: list[int]
    ended_ms: list[int]
    numbers: list[int] | None = None
    """Their numbers in the log, where the object tells them."""
    table: dict[str, str] | None = None
    """Of records that couldn't be converted: the table."""


@dataclass(frozen=True, slots=True)
class Recipe:
    """How an object's bytes are made of its records."""

    compression: Compression
    """Of a converted object, which compresses itself, only what S3 is told."""
    suffix: bytes = b""
    """Behind each record."""
    notes: Notes | None = None
    """Of an error object."""
    conversion: Conversion | None = None
    """Of a converted object."""

    def to_dict(self) -> dict[str, Any]:
        """Render for the log."""
        made: dict[str, Any] = {"compression": self.compression, "suffix": self.suffix.hex()}
        if self.notes is not None:
            made["notes"] = self.notes
        if self.conversion is not None:
            made["conversion"] = self.conversion.to_dict()
        return made

    @classmethod
    def from_dict(cls, made: dict[str, Any]) -> Recipe:
        """Read what `to_dict` wrote."""
        notes = Notes(**made["notes"]) if "notes" in made else None
        conversion = Conversion.from_dict(made["conversion"]) if "conversion" in made else None
        return cls(Compression(made["compression"]), bytes.fromhex(made["suffix"]), notes, conversion)


def notes_of(refused: Sequence[Refused]) -> Notes:
    """Note why records were refused, each distinct reason once."""
    places: dict[tuple[str, str, int, str | None], int] = {}
    told = [(one.reason.code, one.reason.message, one.reason.attempts, one.reason.lambda_arn) for one in refused]
    which = [places.setdefault(one, len(places)) for one in told]
    return Notes(
        reasons=[list(one) for one in places],
        which=which,
        arrival_ms=[one.arrival_ms for one in refused],
        ended_ms=[one.ended_ms for one in refused],
        **_conversion_notes(refused),
    )


def _conversion_notes(refused: Sequence[Refused]) -> dict[str, Any]:
    # an error object is of one output type, and so of one table: a stream whose table changes begins new buffers
    table = next((dict(one.reason.table) for one in refused if isinstance(one.reason, Unconverted)), None)
    return {} if table is None else {"numbers": [one.number for one in refused], "table": table}


def render(recipe: Recipe, data: Sequence[bytes], delivery: UUID) -> bytes:
    """Make an object's bytes; the delivery that writes it, and writes it again after a crash, names a ZIP's entry."""
    if recipe.conversion is not None:
        return columnar(recipe.conversion, data)
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
    lines: list[bytes] = []
    for raw, which, arrival, ended in zip(data, notes.which, notes.arrival_ms, notes.ended_ms, strict=True):
        code, message, attempts, function = (*notes.reasons[which], *_TRIED_ONCE)[:4]
        record = {
            "attemptsMade": attempts,
            "arrivalTimestamp": arrival,
            "errorCode": code,
            "errorMessage": message,
            "attemptEndingTimestamp": ended,
            "rawData": binascii.b2a_base64(raw, newline=False).decode(),
            **({} if function is None else {"lambdaArn": function}),
        }
        if notes.table is not None:
            record = _unconverted(record, notes, len(lines))
        lines.append(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE))
    return b"".join(lines)


def _unconverted(record: dict[str, Any], notes: Notes, at: int) -> dict[str, Any]:
    # objects of the service have these names; pages of its guide have these and the plain ones
    renamed = {"errorCode": "lastErrorCode", "errorMessage": "lastErrorMessage"}
    return {
        **{renamed.get(name, name): value for name, value in record.items()},
        "sequenceNumber": str((notes.numbers or [])[at]),
        "subSequenceNumber": 0,
        "dataCatalogTable": notes.table,
    }
