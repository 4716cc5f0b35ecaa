"""Owns the containers of compressed objects: gzip, ZIP, the stream of snappy-java, and the blocks of Hadoop.

The same content gives the same bytes every time, so no container carries a time or anything drawn at random. The two of
Snappy are framed as the classes of snappy-java that the service was seen to use (floci compared objects of the service
with them, byte for byte): `SnappyOutputStream` and `SnappyHadoopCompatibleOutputStream`. A reader for one of them can't
read the other, although both kinds of objects end in `.snappy`.
Source: https://github.com/xerial/snappy-java, https://github.com/floci-io/floci/issues/2328
"""

from __future__ import annotations

import io
import struct
import zipfile
from typing import TYPE_CHECKING

from isal import igzip

if TYPE_CHECKING:
    from collections.abc import Iterator
    from uuid import UUID

__all__ = ["SNAPPY_BLOCK", "gzipped", "hadoop_snappy", "snappy_stream", "zipped"]

# Between 1 (three times faster) and 9 (2 % smaller on JSON) this costs least for what it saves; part of the format, as
# an object written again after a crash must have the same bytes.
_DEFLATE_LEVEL = 4
# Of ISA-L's levels 0 to 3: on JSON a sixth of the time of zlib's level 4, for objects 4 to 5 % larger.
_GZIP_LEVEL = 2
_ENTRY_TIME = (1980, 1, 1, 0, 0, 0)
"""An entry has to have a time; this is the first that ZIP can tell."""
_UNIX, _ENTRY_MODE = 3, 0o100644
"""Without a mode, `unzip` makes a file that nobody may read."""
SNAPPY_BLOCK = 32 << 10
"""Content bytes in a block: snappy-java's default. The service was compared with it for objects of one block only.
Hadoop's reader has room for 256 KiB of a block, before and after compression; larger ones have crashed its JVM."""
_SNAPPY_JAVA = b"\x82SNAPPY\0" + struct.pack(">II", 1, 1)
"""Magic, version, and the oldest version whose readers can read it."""
_LENGTH = struct.Struct(">I")


def gzipped(content: bytes) -> bytes:
    """Compress by gzip, as one member without a time."""
    return igzip.compress(content, _GZIP_LEVEL, mtime=0)


def zipped(content: bytes, name: UUID) -> bytes:
    """Make a ZIP archive of one deflated entry."""
    entry = zipfile.ZipInfo(str(name), _ENTRY_TIME)
    entry.compress_type = zipfile.ZIP_DEFLATED
    entry.create_system, entry.external_attr = _UNIX, _ENTRY_MODE << 16
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr(entry, content, compresslevel=_DEFLATE_LEVEL)
    return made.getvalue()


def snappy_stream(content: bytes) -> bytes:
    """Compress into snappy-java's stream: a header, then blocks: length (u32, big-endian) and raw Snappy."""
    parts = [_SNAPPY_JAVA]
    for _, block in _blocks(content):
        parts += _LENGTH.pack(len(block)), block
    return b"".join(parts)


def hadoop_snappy(content: bytes) -> bytes:
    """Compress into Hadoop's blocks: length of the content, length of what follows (u32, big-endian), raw Snappy."""
    parts: list[bytes] = []
    for length, block in _blocks(content):
        parts += _LENGTH.pack(length), _LENGTH.pack(len(block)), block
    return b"".join(parts)


def _blocks(content: bytes) -> Iterator[tuple[int, bytes]]:
    """Compress block by block; gives the length before and the block."""
    from pyarrow import Codec  # noqa: PLC0415 - 27 MB of memory, 48 with numpy: only for those who want Snappy

    codec, view = Codec("snappy"), memoryview(content)
    for start in range(0, len(view), SNAPPY_BLOCK):
        block = view[start : start + SNAPPY_BLOCK]
        yield len(block), codec.compress(block, asbytes=True)
