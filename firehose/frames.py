"""Owns the format of the write-ahead log on disk.

The log is a folder of segments, `<index, 16 digits>.wal`, each allocated at full size when it is opened. A segment:

    header   magic `LAKEHOSE`, format version (1 byte), 7 zero bytes, index (u64), where the previous segment ends
             (u64), CRC-32 of the foregoing (u32)
    frame…   CRC-32 of the rest of the frame (u32), length of the payload (u32), sequence (u64), kind (1 byte),
             3 zero bytes, payload
    zeros    up to the segment's size

Numbers are little-endian. A reader goes on while frames are whole and their sequence rises; what lies behind (a torn
frame, or one that was never acknowledged because its fsync failed) is not part of the log. Payloads:

    PUT      stream id (16 bytes), number of the first record (u64), arrival in ms since the epoch (u64), count (u32),
             count lengths (u32), the records
    INTENT   delivery id (16 bytes), stream id (16 bytes), length of the header (u32), header (JSON: bucket, key,
             recipe, kms key), number of each record in the object's order (u64 each)
    DONE     delivery ids (16 bytes each)

Records are numbered through all streams, and a number is never used twice. A delivery whose DONE is missing is made
again under the same key with the same bytes; records in no delivery go through processing again.
"""

from __future__ import annotations

import struct
import zlib
from array import array
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING
from uuid import UUID

import orjson

from firehose.objects import Recipe

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = [
    "FRAME_BYTES",
    "HEADER_BYTES",
    "FormatError",
    "Frame",
    "Intent",
    "Kind",
    "Put",
    "SegmentHeader",
    "decode_done",
    "decode_intent",
    "decode_put",
    "encode_frame",
    "encode_intent",
    "encode_put",
    "payload_at",
    "read_frames",
    "read_put_head",
]

_MAGIC, _VERSION = b"LAKEHOSE", 1
_HEADER = struct.Struct("<8sB7xQQ")
_CRC = struct.Struct("<I")
_FRAME = struct.Struct("<IQB3x")
_PUT = struct.Struct("<16sQQI")
_INTENT = struct.Struct("<16s16sI")
HEADER_BYTES = _HEADER.size + _CRC.size
FRAME_BYTES = _CRC.size + _FRAME.size


class FormatError(ValueError):
    """A file that is no segment of this format."""


class Kind(IntEnum):
    """What a frame says."""

    PUT = 1
    INTENT = 2
    DONE = 3


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """What a segment says about itself."""

    index: int
    previous_end: int
    """Offset where the segment before this one ends; 0 where there is none."""

    def encode(self) -> bytes:
        """Render as the first bytes of the segment."""
        packed = _HEADER.pack(_MAGIC, _VERSION, self.index, self.previous_end)
        return packed + _CRC.pack(zlib.crc32(packed))

    @classmethod
    def decode(cls, data: bytes) -> SegmentHeader:
        """Read the first bytes of a segment.

        Raises:
            FormatError: too short, another magic, another version, or a wrong checksum.
        """
        if len(data) < HEADER_BYTES:
            raise FormatError(f"{len(data)} bytes are no header")
        magic, version, index, previous_end = _HEADER.unpack_from(data)
        if magic != _MAGIC:
            raise FormatError("not a segment of a lakehose log")
        if version != _VERSION:
            raise FormatError(f"format version {version}, this program reads version {_VERSION}")
        if _CRC.unpack_from(data, _HEADER.size)[0] != zlib.crc32(data[: _HEADER.size]):
            raise FormatError("the header's checksum is wrong")
        return cls(index, previous_end)


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame as it was read."""

    kind: Kind
    sequence: int
    offset: int
    """Of its first byte in the segment."""
    payload: memoryview

    @property
    def end(self) -> int:
        """Offset behind its last byte."""
        return self.offset + FRAME_BYTES + len(self.payload)


@dataclass(frozen=True, slots=True)
class Put:
    """Records that were acknowledged together."""

    stream: UUID
    first: int
    """Number of the first record; the others follow it."""
    arrival_ms: int
    data: list[bytes]


@dataclass(frozen=True, slots=True)
class Intent:
    """An object that is about to be written."""

    delivery: UUID
    stream: UUID
    bucket: str
    key: str
    recipe: Recipe
    numbers: array[int]
    """Its records, in order."""
    kms_key: str | None = None


def encode_frame(kind: Kind, sequence: int, payload: bytes) -> bytes:
    """Make a frame's first bytes; the payload follows them."""
    head = _FRAME.pack(len(payload), sequence, kind)
    return _CRC.pack(zlib.crc32(payload, zlib.crc32(head))) + head


def read_frames(data: memoryview, after_sequence: int) -> Iterator[Frame]:
    """Read the frames of a segment up to the first that isn't whole or whose sequence doesn't rise."""
    offset, sequence = HEADER_BYTES, after_sequence
    while offset + FRAME_BYTES <= len(data):
        length, found, kind = _FRAME.unpack_from(data, offset + _CRC.size)
        end = offset + FRAME_BYTES + length
        if length == 0 or found <= sequence or end > len(data):
            return
        if _CRC.unpack_from(data, offset)[0] != zlib.crc32(data[offset + _CRC.size : end]):
            return
        sequence = found
        yield Frame(Kind(kind), sequence, offset, data[offset + FRAME_BYTES : end])
        offset = end


def payload_at(data: memoryview, offset: int) -> memoryview:
    """Return the payload of the frame at an offset that `read_frames` gave."""
    length, _, _ = _FRAME.unpack_from(data, offset + _CRC.size)
    return data[offset + FRAME_BYTES : offset + FRAME_BYTES + length]


def encode_put(stream: UUID, first: int, arrival_ms: int, data: Sequence[bytes]) -> bytes:
    """Make a PUT's payload."""
    head = _PUT.pack(stream.bytes, first, arrival_ms, len(data))
    return b"".join([head, array("I", map(len, data)).tobytes(), *data])


def read_put_head(payload: memoryview) -> tuple[UUID, int, int, int]:
    """Read stream, first number, arrival and count of a PUT, not its records."""
    stream, first, arrival, count = _PUT.unpack_from(payload)
    return UUID(bytes=stream), first, arrival, count


def decode_put(payload: memoryview) -> Put:
    """Read a PUT's payload."""
    stream, first, arrival, count = read_put_head(payload)
    lengths = array("I")
    start = _PUT.size + count * lengths.itemsize
    lengths.frombytes(payload[_PUT.size : start])
    data = []
    for length in lengths:
        data.append(bytes(payload[start : start + length]))
        start += length
    return Put(stream, first, arrival, data)


def encode_intent(intent: Intent) -> bytes:
    """Make an INTENT's payload."""
    header = orjson.dumps(
        {"bucket": intent.bucket, "key": intent.key, "recipe": intent.recipe.to_dict(), "kms_key": intent.kms_key}
    )
    head = _INTENT.pack(intent.delivery.bytes, intent.stream.bytes, len(header))
    return b"".join([head, header, intent.numbers.tobytes()])


def decode_intent(payload: memoryview) -> Intent:
    """Read an INTENT's payload."""
    delivery, stream, length = _INTENT.unpack_from(payload)
    numbers_at = _INTENT.size + length
    header = orjson.loads(payload[_INTENT.size : numbers_at])
    numbers = array("Q")
    numbers.frombytes(payload[numbers_at:])
    return Intent(
        delivery=UUID(bytes=delivery),
        stream=UUID(bytes=stream),
        bucket=header["bucket"],
        key=header["key"],
        recipe=Recipe.from_dict(header["recipe"]),
        numbers=numbers,
        kms_key=header["kms_key"],
    )


def decode_done(payload: memoryview) -> list[UUID]:
    """Read a DONE's payload."""
    raw = bytes(payload)
    return [UUID(bytes=raw[at : at + 16]) for at in range(0, len(raw), 16)]
