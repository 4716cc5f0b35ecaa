"""Owns unpacking gzip of which a subject's data may be in any part, also where the rest is damaged or is no gzip."""

from __future__ import annotations

import io
import zlib
from contextlib import suppress
from itertools import chain
from typing import TYPE_CHECKING

from lake.lines import NotGzipError, is_gzip, unpack

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["flowing", "unpacked"]

_STEP = 16 << 10


def unpacked(body: bytes, most: int) -> tuple[bytes, bool]:
    """All that can be unpacked; what was cut short may hold a subject up to there.

    Plain bytes behind the last whole member are read as they are, as if they had been packed too.

    Args:
        body: gzip, or what begins as it does.
        most: bytes behind which it is given up: the content is longer then, by a chunk at most.

    Returns:
        the content, and whether it breaks off before its end because it can't be unpacked.
    """
    with suppress(NotGzipError):
        return _begun(unpack([body]), most), False
    readable = bytearray()
    # a little at a time: of what is damaged somewhere nothing is given
    with suppress(NotGzipError):
        for found in unpack(body[start : start + 1024] for start in range(0, len(body), 1024)):
            readable += found
            if len(readable) > most:
                return bytes(readable), False
    behind = _behind(body)
    return bytes(readable) + behind, not behind


def flowing(stored: Iterable[bytes]) -> Iterator[bytes]:
    """The same of what is too large to be held: gzip as far as it can be unpacked, and plain bytes as they are.

    Args:
        stored: the object, piece by piece.
    """
    # a little at a time: of what is damaged somewhere nothing is given
    steps = (piece[at : at + 1024] for piece in stored for at in range(0, len(piece), 1024))
    left, padding = b"", b""
    while True:
        for more in steps:
            left = (left + more).lstrip(padding) if padding else left + more
            if len(left) >= 2:  # noqa: PLR2004 - bytes that tell gzip
                break
        if not is_gzip(left):
            break
        unpacker = zlib.decompressobj(31)
        for step in chain([left], steps):
            try:
                yield unpacker.decompress(step)
            except zlib.error:
                return
            if unpacker.eof:
                break
        else:
            return
        left, padding = unpacker.unused_data.lstrip(b"\0"), b"\0"
    yield left
    yield from steps


def _begun(chunks: Iterator[bytes], most: int) -> bytes:
    found = io.BytesIO()
    for chunk in chunks:
        if found.write(chunk) and found.tell() > most:
            break
    return found.getvalue()


def _behind(body: bytes) -> bytes:
    """What stands behind the last member of a gzip and is none; nothing where a member is damaged."""
    place = 0
    while is_gzip(body[place : place + 2]):
        unpacker = zlib.decompressobj(31)
        while not unpacker.eof:
            step = body[place : place + _STEP]
            if not step:
                return b""
            try:
                unpacker.decompress(step)
            except zlib.error:
                return b""
            place += len(step) - len(unpacker.unused_data)
        while body[place : place + 1] == b"\0":
            place += 1
    return body[place:]
