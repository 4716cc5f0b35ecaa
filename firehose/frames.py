"""Owns the format of the write-ahead log on disk; what is in its frames is in `payloads`.

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
    MADE     stream id (16 bytes), number of the first record (u64), whether the sources stay (1 byte), 3 zero bytes,
             count (u32), count of sources (u32), length of the header (u32), header (JSON: partition keys, and why
             the last records were refused), number of each source (u64), each record's arrival in ms (u64) and
             length (u32), the records
    CARRIED  stream id (16 bytes), what the records are (1 byte: 0 put, 1 put and staying, 2 made), 3 zero bytes, count
             (u32), length of the header (u32), header (as MADE's), number, arrival in ms (u64 each) and length (u32)
             of each record, the records
    INTENT   delivery id (16 bytes), stream id (16 bytes), length of the header (u32), header (JSON: bucket, key,
             recipe, kms key), number of each record in the object's order (u64 each)
    DONE     delivery ids (16 bytes each)
    SETTLED  delivery id (16 bytes), number of each of its records (u64 each): a DONE that stands by itself, as records
             that were carried may outlive their intent

What processors make of records is logged with the numbers of those it was made of, its sources, so that nothing is
made twice; a source that stays is still to be written to the backup. Records that wait for long are carried into a
later segment, under their numbers, so that an older one can be removed: their last place counts. Records are numbered
through all streams, and a number is never used twice. A delivery whose DONE is missing is made again under the same key
with the same bytes; records in no delivery go through processing again.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from isal import isal_zlib

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "FRAME_BYTES",
    "HEADER_BYTES",
    "FormatError",
    "Frame",
    "Kind",
    "SegmentHeader",
    "encode_frame",
    "payload_at",
    "read_frames",
]

_crc32 = isal_zlib.crc32  # the same sum as zlib's, in a sixteenth of its time
_MAGIC, _VERSION = b"LAKEHOSE", 1
_HEADER = struct.Struct("<8sB7xQQ")
_CRC = struct.Struct("<I")
_FRAME = struct.Struct("<IQB3x")
HEADER_BYTES = _HEADER.size + _CRC.size
FRAME_BYTES = _CRC.size + _FRAME.size


class FormatError(ValueError):
    """A file that is no segment of this format."""


class Kind(IntEnum):
    """What a frame says."""

    PUT = 1
    INTENT = 2
    DONE = 3
    MADE = 4
    CARRIED = 5
    SETTLED = 6


@dataclass(frozen=True, slots=True)
class SegmentHeader:
    """What a segment says about itself."""

    index: int
    previous_end: int
    """Offset where the segment before this one ends; 0 where there is none."""

    def encode(self) -> bytes:
        """Render as the first bytes of the segment."""
        packed = _HEADER.pack(_MAGIC, _VERSION, self.index, self.previous_end)
        return packed + _CRC.pack(_crc32(packed))

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
        if _CRC.unpack_from(data, _HEADER.size)[0] != _crc32(data[: _HEADER.size]):
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


def encode_frame(kind: Kind, sequence: int, payload: bytes) -> bytes:
    """Make a frame's first bytes; the payload follows them."""
    head = _FRAME.pack(len(payload), sequence, kind)
    return _CRC.pack(_crc32(payload, _crc32(head))) + head


def read_frames(data: memoryview, after_sequence: int) -> Iterator[Frame]:
    """Read the frames of a segment up to the first that isn't whole or whose sequence doesn't rise."""
    offset, sequence = HEADER_BYTES, after_sequence
    while offset + FRAME_BYTES <= len(data):
        length, found, kind = _FRAME.unpack_from(data, offset + _CRC.size)
        end = offset + FRAME_BYTES + length
        if length == 0 or found <= sequence or end > len(data):
            return
        if _CRC.unpack_from(data, offset)[0] != _crc32(data[offset + _CRC.size : end]):
            return
        sequence = found
        yield Frame(Kind(kind), sequence, offset, data[offset + FRAME_BYTES : end])
        offset = end


def payload_at(data: memoryview, offset: int) -> memoryview:
    """Return the payload of the frame at an offset that `read_frames` gave."""
    length, _, _ = _FRAME.unpack_from(data, offset + _CRC.size)
    return data[offset + FRAME_BYTES : offset + FRAME_BYTES + length]
