"""Owns taking the campaign's objects apart: the five compressions, files of columns, and gzips one behind the other."""

from __future__ import annotations

import gzip
import zipfile
from io import BytesIO

import orjson
import pyarrow as pa
from pyarrow import orc, parquet

__all__ = ["COMPRESSIONS", "rows", "unpack"]

_SNAPPY_MAGIC = b"\x82SNAPPY\0"
_SNAPPY_JAVA = 16
"""Bytes before the first block."""


def unpack(compression: str, raw: bytes) -> bytes:
    """Undo a CompressionFormat.

    Raises:
        Exception: of any type: it is torn.
    """
    return _UNPACK[compression](raw)


def rows(kind: str, raw: bytes) -> list[bytes]:
    """Read each row of a `ParquetSerDe` or `OrcSerDe` file, as JSON with the columns in the file's order.

    Raises:
        Exception: of any type: it is torn.
    """
    reader = {"ParquetSerDe": parquet, "OrcSerDe": orc}[kind]
    return [orjson.dumps(row) for row in reader.read_table(pa.BufferReader(raw)).to_pylist()]


def _unzipped(raw: bytes) -> bytes:
    with zipfile.ZipFile(BytesIO(raw)) as archive:
        (name,) = archive.namelist()
        return archive.read(name)


def _raw_snappy(block: bytes) -> bytes:
    size = shift = 0
    for byte in block:  # the length before, seven bits a byte
        size |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            break
    found: bytes = pa.Codec("snappy").decompress(block, decompressed_size=size, asbytes=True)
    return found


def _blocks(raw: bytes, at: int, lengths: int) -> bytes:
    parts = []
    while at < len(raw):
        at += 4 * lengths
        size = int.from_bytes(raw[at - 4 : at], "big")
        if at + size > len(raw):
            raise ValueError("a block is cut")
        parts.append(_raw_snappy(raw[at : at + size]))
        at += size
    return b"".join(parts)


def _snappy_java(raw: bytes) -> bytes:
    if len(raw) < _SNAPPY_JAVA or not raw.startswith(_SNAPPY_MAGIC):
        raise ValueError("its beginning is missing")
    return _blocks(raw, _SNAPPY_JAVA, 1)


_UNPACK = {
    "UNCOMPRESSED": lambda raw: raw,
    "GZIP": gzip.decompress,
    "ZIP": _unzipped,
    "Snappy": _snappy_java,
    "HADOOP_SNAPPY": lambda raw: _blocks(raw, 0, 2),
}
COMPRESSIONS = tuple(_UNPACK)
