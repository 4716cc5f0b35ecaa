"""Owns the campaign's streams: how each is defined, what is put to it, and what of that lies where in S3.

Beside streams that deliver records as they came there are those that make records of records: they log what was made,
and records that stay for a backup, as frames of their own.
"""

from __future__ import annotations

import binascii
import gzip
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from tests.firehose_kills.model import BACKUP, DESTINATION, ERRORS, DifferenceError, Sent
from tests.firehose_kills.reading import COMPRESSIONS, rows, unpack
from tests.firehose_kills.surroundings import DROPPED, FAILED, MADE, ROLE

if TYPE_CHECKING:
    import random

    from tests.firehose_kills.surroundings import Surroundings

__all__ = ["STREAMS", "Stream"]

_BAD_SHARE, _LARGE_SHARE = 0.02, 0.002
_TENANTS = 7
_SLOW, _SLOW_MB = 300, 16
"""Seconds and size by which what comes is delivered when it is flushed."""
_PROCESSING, _DECOMPRESSION, _CONVERSION = (
    f"{ERRORS}{one}" for one in ("processing-failed", "decompression-failed", "format-conversion-failed")
)


@dataclass(frozen=True)
class Stream:
    """A stream that delivers lines as they came."""

    name: str
    compression: str = "UNCOMPRESSED"
    partitioned: bool = False
    backed_up: bool = False
    size_mb: int = 1
    """Of its buffers: small, so that deliveries are always under way."""
    seconds: int = 1
    """Of its buffers, the backup's too. Where it's long, the log carries what waits in them on, again and again."""

    def destination(self, around: Surroundings) -> dict[str, Any]:
        """Its definition."""
        made: dict[str, Any] = {
            **self._place(around, f"{self.name}/destination/"),
            **self._format(around),
            "ErrorOutputPrefix": f"{self.name}/errors/!{{firehose:error-output-type}}/",
        }
        if processors := self._processors(around):
            made["ProcessingConfiguration"] = {"Enabled": True, "Processors": processors}
        if self.partitioned:
            made["Prefix"] += "t=!{partitionKeyFromQuery:t}/"
            made["DynamicPartitioningConfiguration"] = {"Enabled": True}
        if self.backed_up:
            made["S3BackupMode"] = "Enabled"
            kept = self._place(around, f"{self.name}/backup/")
            made["S3BackupConfiguration"] = {**kept, "CompressionFormat": self.compression}
        return made

    def _place(self, around: Surroundings, prefix: str) -> dict[str, Any]:
        return {
            "RoleARN": ROLE,
            "BucketARN": f"arn:aws:s3:::{around.bucket}",
            "Prefix": prefix,
            "BufferingHints": {"SizeInMBs": self.size_mb, "IntervalInSeconds": self.seconds},
        }

    def _format(self, _: Surroundings) -> dict[str, Any]:
        return {"CompressionFormat": self.compression}

    def _processors(self, _: Surroundings) -> list[dict[str, Any]]:
        return []

    @property
    def places(self) -> set[str]:
        """Where items of it lie."""
        return {DESTINATION}

    def record(self, number: int, draw: random.Random) -> Sent:
        """Make a record that no other is like; a few are large, and a few are none of those that it is made for."""
        raw = f"{number} {_text(draw)}\n".encode()
        return Sent(raw, ((DESTINATION, raw),))

    def items(self, key: str, raw: bytes) -> list[tuple[str, bytes]]:
        """Take an object apart into what it holds, each item with its place, and check that it lies where it belongs.

        Raises:
            DifferenceError: something is in the wrong partition, or the object is torn.
        """
        place = key.removeprefix(f"{self.name}/").partition("/")[0]
        try:
            if f"{place}/" == ERRORS:
                kind = ERRORS + key.split("/")[2]
                return [(kind, binascii.a2b_base64(orjson.loads(line)["rawData"])) for line in raw.splitlines()]
            if place == BACKUP:
                return [(BACKUP, one) for one in _lines(unpack(self.compression, raw))]
            found = self._delivered(raw)
            tenants = {orjson.loads(one)["tenant"] for one in found} if self.partitioned else set()
        except Exception as error:
            raise DifferenceError(f"{key}: {len(raw)} bytes can't be read: {error!r}") from error
        if foreign := [one for one in tenants if f"/t={one}/" not in key]:
            raise DifferenceError(f"{key}: holds records of {foreign}")
        return [(DESTINATION, one) for one in found]

    def _delivered(self, raw: bytes) -> list[bytes]:
        return _lines(unpack(self.compression, raw))


@dataclass(frozen=True)
class _Partitioned(Stream):
    """Partitioned by a query; a newline is put behind each record."""

    partitioned: bool = True

    def _processors(self, _: Surroundings) -> list[dict[str, Any]]:
        return [_BY_TENANT, _processor("AppendDelimiterToRecord")]

    @property
    def places(self) -> set[str]:
        return {DESTINATION, _PROCESSING}

    def record(self, number: int, draw: random.Random) -> Sent:
        if draw.random() < _BAD_SHARE:
            raw = f"no JSON {number} {_text(draw)}".encode()
            return Sent(raw, ((_PROCESSING, raw),))
        raw = _document(number, 0, draw)
        return Sent(raw, ((DESTINATION, raw + b"\n"),))


@dataclass(frozen=True)
class _Aggregated(_Partitioned):
    """Several documents a record, taken apart, while the records as they came are backed up."""

    backed_up: bool = True

    def _processors(self, around: Surroundings) -> list[dict[str, Any]]:
        return [_processor("RecordDeAggregation", SubRecordType="JSON"), *super()._processors(around)]

    @property
    def places(self) -> set[str]:
        return {*super().places, BACKUP}

    def record(self, number: int, draw: random.Random) -> Sent:
        # the backup puts nothing between records: the only newline is at a record's end
        if draw.random() < _BAD_SHARE:
            raw = f"no JSON {number} {_text(draw)}\n".encode()
            return Sent(raw, ((_PROCESSING, raw), (BACKUP, raw)))
        parts = [_document(number, part, draw) for part in range(draw.choice((1, 1, 2, 3, 8)))]
        made = [(DESTINATION, one + b"\n") for one in parts]
        if draw.random() < _BAD_SHARE:
            parts.append(orjson.dumps({"number": number, "part": len(parts), "no": "tenant"}))
            made.append((_PROCESSING, parts[-1]))
        raw = draw.choice((b"", b" ")).join(parts) + b"\n"
        return Sent(raw, (*made, (BACKUP, raw)))


@dataclass(frozen=True)
class _Logs(Stream):
    """Gzipped records of CloudWatch Logs, of which the messages are delivered; control messages make nothing."""

    def _processors(self, _: Surroundings) -> list[dict[str, Any]]:
        extraction = _processor("CloudWatchLogProcessing", DataMessageExtraction="true")
        return [_processor("Decompression", CompressionFormat="GZIP"), extraction]

    @property
    def places(self) -> set[str]:
        return {DESTINATION, _DECOMPRESSION}

    def record(self, number: int, draw: random.Random) -> Sent:
        share = draw.random()
        if share < _BAD_SHARE:
            raw = f"no gzip {number} {_text(draw)}".encode()
            return Sent(raw, ((_DECOMPRESSION, raw),))
        if share < 2 * _BAD_SHARE:
            raw = _gzipped({"number": number, "text": _text(draw)})
            return Sent(raw, ((_DECOMPRESSION, raw),))
        if share < 3 * _BAD_SHARE:
            return Sent(_gzipped({"messageType": "CONTROL_MESSAGE", "logEvents": [], "number": number}), ())
        messages = [f"{number} {part} {_text(draw)}" for part in range(draw.choice((1, 2, 5)))]
        events = [{"id": str(part), "timestamp": number, "message": one} for part, one in enumerate(messages)]
        raw = _gzipped({"messageType": "DATA_MESSAGE", "logEvents": events})
        return Sent(raw, tuple((DESTINATION, f"{one}\n".encode()) for one in messages))


@dataclass(frozen=True)
class _Called(Stream):
    """Records that a function makes others of, drops or fails, while they are backed up as they came."""

    backed_up: bool = True

    def _processors(self, around: Surroundings) -> list[dict[str, Any]]:
        # the puts of a moment are given to it together
        hints = {"BufferSizeInMBs": "0.2", "BufferIntervalInSeconds": "0"}
        return [_processor("Lambda", LambdaArn=around.function, **hints)]

    @property
    def places(self) -> set[str]:
        return {DESTINATION, BACKUP, _PROCESSING}

    def record(self, number: int, draw: random.Random) -> Sent:
        share = draw.random()
        kind = FAILED if share < _BAD_SHARE else DROPPED if share < 2 * _BAD_SHARE else b""
        raw = kind + f"{number} {_text(draw)}\n".encode()
        made = {FAILED: [(_PROCESSING, raw)], DROPPED: [], b"": [(DESTINATION, raw.rstrip() + MADE)]}[kind]
        return Sent(raw, (*made, (BACKUP, raw)))


@dataclass(frozen=True)
class _Converted(Stream):
    """Rows of a file of columns; without partitions some records are several rows."""

    size_mb: int = 64  # the least of a stream that converts
    serializer: str = "ParquetSerDe"

    def _format(self, around: Surroundings) -> dict[str, Any]:
        conversion = {
            "SchemaConfiguration": {"RoleARN": ROLE, "DatabaseName": around.table, "TableName": around.table},
            "InputFormatConfiguration": {"Deserializer": {"OpenXJsonSerDe": {}}},
            "OutputFormatConfiguration": {"Serializer": {self.serializer: {}}},
        }
        return {"DataFormatConversionConfiguration": conversion}

    def _processors(self, _: Surroundings) -> list[dict[str, Any]]:
        return [_BY_TENANT] if self.partitioned else []

    @property
    def places(self) -> set[str]:
        return {DESTINATION, _CONVERSION} | ({BACKUP} if self.backed_up else set())

    def record(self, number: int, draw: random.Random) -> Sent:
        if draw.random() < _BAD_SHARE:
            raw = orjson.dumps({"number": f"no number {number}", "tenant": "t0", "text": _text(draw)}) + b"\n"
            made = [(_CONVERSION, raw)]
        else:
            parts = [_document(number, part, draw) for part in range(1 if self.partitioned else draw.choice((1, 1, 3)))]
            made = [(DESTINATION, one) for one in parts]
            raw = b" ".join(parts) + b"\n"
        return Sent(raw, (*made, (BACKUP, raw)) if self.backed_up else tuple(made))

    def _delivered(self, raw: bytes) -> list[bytes]:
        return rows(self.serializer, raw)


def _processor(kind: str, **parameters: str) -> dict[str, Any]:
    given = [{"ParameterName": name, "ParameterValue": value} for name, value in parameters.items()]
    return {"Type": kind, "Parameters": given}


_BY_TENANT = _processor("MetadataExtraction", MetadataExtractionQuery="{t: .tenant}", JsonParsingEngine="JQ-1.6")


def _text(draw: random.Random) -> str:
    size = 200_000 if draw.random() < _LARGE_SHARE else draw.randrange(400)
    return draw.randbytes(size // 2).hex()


def _document(number: int, part: int, draw: random.Random) -> bytes:
    # in the order of the table's columns
    return orjson.dumps({"number": number, "part": part, "tenant": f"t{draw.randrange(_TENANTS)}", "text": _text(draw)})


def _gzipped(document: dict[str, Any]) -> bytes:
    return gzip.compress(orjson.dumps(document), 1)


def _lines(body: bytes) -> list[bytes]:
    if body and not body.endswith(b"\n"):
        raise ValueError("ends in the middle of a record")
    return body.splitlines(keepends=True)


STREAMS: tuple[Stream, ...] = (
    *(
        kind(f"{name}-{compression.lower().replace('_', '-')}", compression)
        for compression in COMPRESSIONS
        for name, kind in (("dp", _Partitioned), ("plain", Stream))
    ),
    Stream("plain-slow", size_mb=_SLOW_MB, seconds=_SLOW),
    _Aggregated("aggregated", "GZIP"),
    _Aggregated("aggregated-slow", size_mb=_SLOW_MB, seconds=_SLOW),
    _Logs("logs", "GZIP"),
    _Called("called", "HADOOP_SNAPPY"),
    _Converted("parquet"),
    _Converted("dp-orc", partitioned=True, backed_up=True, serializer="OrcSerDe"),
)
