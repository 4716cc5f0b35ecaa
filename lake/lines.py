"""Owns the lines of objects in S3: fetched, unpacked and cut into blocks of whole lines, or told to be broken.

An object that can't be unpacked says so in place of an error. Whatever an object holds, memory is bounded: a small one
is unpacked at once; a large one, or one that unpacks to much, goes by in pieces, after all of it was unpacked once to
see that it can be; and of a line without an end only the beginning is kept.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from lake.clients import error_code, is_passing
from lake.errors import TerminalError, TransientError
from lake.names import bucket_and_key

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from mypy_boto3_s3 import S3Client

__all__ = ["LINE_BYTES", "Block", "Broken", "LongLine", "NotGzipError", "Piece", "Source", "is_gzip", "unpack"]

LINE_BYTES = 16 * 2**20
"""Most bytes of a line: Firehose takes records of 1,000 KiB, and no other door or wrapping comes near to this."""
_HEAD_BYTES = 64 * 1024  # of a longer line, kept for the quarantine
_BLOCK_BYTES = 4 * 2**20  # about as much of an object at once
_MEMBER_BYTES = 16 << 10
"""Of a gzip behind a member's end, looked at first: the next member may be small too."""
_WHOLE_BYTES = 64 * 2**20  # an object that unpacks to no more is unpacked at once
_MOST_BYTES = 4 * 2**30  # no door writes an object of more; beyond it lies what was made to do harm


@dataclass(frozen=True)
class Block:
    """Whole lines of an object."""

    uri: str
    first: int
    """Number of the first line, from 0."""
    body: bytes
    """Unpacked; each line has its newline, but the object's last may lack it."""

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Its lines without the newline, each with its number; blank ones are counted and left out."""
        for position, line in enumerate(self.body.split(b"\n"), self.first):
            if line and not line.isspace():
                yield position, line


@dataclass(frozen=True)
class LongLine:
    """A line of more than `LINE_BYTES`."""

    uri: str
    position: int
    head: bytes
    """Its beginning."""
    size: int
    """Bytes of all of it."""


@dataclass(frozen=True)
class Broken:
    """An object that can't be read, and why, in words; none of its lines is given."""

    uri: str
    problem: str


Piece = Block | LongLine | Broken


def is_gzip(start: bytes) -> bool:
    """Whether bytes begin as gzip does."""
    return start[:2] == b"\x1f\x8b"


class NotGzipError(Exception):
    """Bytes that can't be unpacked; says why."""


def unpack(packed: Iterable[bytes]) -> Iterator[bytes]:
    """Unpack gzip members, one after another, in chunks; zeros behind the last are padding, as for `gzip`.

    Raises:
        NotGzipError: they can't be unpacked from here on.
    """
    held: list[bytes] = []
    size = 0
    try:
        for found in _members_of(packed):
            held.append(found)
            size += len(found)
            if size >= _MEMBER_BYTES:  # members may be of one byte each
                yield b"".join(held)
                held, size = [], 0
    except NotGzipError:
        if held:  # whoever searches what can be read wants all of it
            yield b"".join(held)
        raise
    if held:
        yield b"".join(held)


def _members_of(packed: Iterable[bytes]) -> Iterator[bytes]:
    unpacker: Any = None
    done = 0
    for given in packed:
        left, step = memoryview(given), len(given)
        while left:
            some = left[:step]
            if unpacker is None:
                padded = len(some)
                some = memoryview(bytes(some).lstrip(b"\0")) if done else some
                left = left[padded - len(some) :]
                if not some:
                    continue
                unpacker = zlib.decompressobj(31)
            try:
                found = unpacker.decompress(some, _BLOCK_BYTES)
            except zlib.error as error:
                raise NotGzipError(f"the object is no whole gzip: {error}") from None
            if found:
                yield found
            if unpacker.eof:
                left = left[len(some) - len(unpacker.unused_data) :]
                # what is behind a member's end is copied: thousands of empty members must not copy all of it each
                unpacker, step = None, _MEMBER_BYTES
                done += 1
            else:
                left = left[len(some) - len(unpacker.unconsumed_tail) :]
                step = min(2 * step, len(given))
    if unpacker is not None:
        raise NotGzipError("the object is no whole gzip: it ends before its end-of-stream marker")


class Source:
    """One object, and its bytes once or more.

    Args:
        s3: where it is.
        uri: `s3://bucket/key`.
    """

    def __init__(self, s3: S3Client, uri: str) -> None:
        self._s3 = s3
        self._uri = uri
        self._bucket, self._key = bucket_and_key(uri)
        self._body: bytes | None = None
        self._tag = ""
        self._gone = False

    def fetch(self) -> None:
        """Get it into memory.

        Raises:
            TransientError, TerminalError: it can't be read for a reason that isn't its content.
        """
        stream = self._stream()
        if stream is not None:
            self._body = self._read(stream)

    def _stream(self) -> Any:
        """Its bytes as a stream; None where it is gone."""
        if self._body is not None:
            return BytesIO(self._body)
        same: dict[str, Any] = {"IfMatch": self._tag} if self._tag else {}
        try:
            answer = self._s3.get_object(Bucket=self._bucket, Key=self._key, **same)
        except (ClientError, BotoCoreError, OSError) as error:
            # by its code: the client's own class for it may be another one where two threads meet their first error
            if isinstance(error, ClientError) and error_code(error) == "NoSuchKey" and not self._tag:
                self._gone = True
                return None
            raise self._lost(error) from error
        self._tag = answer["ETag"]
        return answer["Body"]

    def _read(self, stream: Any, most: int | None = None) -> bytes:
        try:
            return bytes(stream.read(most))
        except (ClientError, BotoCoreError, OSError) as error:
            raise self._lost(error) from error

    def _lost(self, error: Exception) -> TransientError | TerminalError:
        # between two reads of a large object it was replaced or removed: the next try finds it as it is then
        changed = bool(self._tag) and isinstance(error, ClientError)
        kind = TransientError if changed or is_passing(error) else TerminalError
        return kind(f"object {self._uri}: it can't be read: {error}")

    def _chunks(self, start: bytes, stream: Any) -> Iterator[bytes]:
        chunk = start
        while chunk:
            yield chunk
            chunk = self._read(stream, _BLOCK_BYTES)

    def pieces(self) -> Iterator[Piece]:
        """All of it, or why it can't be read.

        Raises:
            TransientError, TerminalError: it can't be read for a reason that isn't its content.
        """
        stream = None if self._gone else self._stream()
        if stream is None:
            yield Broken(self._uri, "the object is gone: it was there when S3 told of it")
            return
        start = self._read(stream, _BLOCK_BYTES)
        cutter = _Cutter(self._uri)
        if not is_gzip(start):
            if start and self._key.endswith(".gz"):
                yield Broken(self._uri, "the object's name ends with .gz, and it isn't gzip")
                return
            yield from cutter.cut(self._chunks(start, stream))
            return
        try:
            held = _unpacked(self._chunks(start, stream), _WHOLE_BYTES)
        except NotGzipError as error:
            yield Broken(self._uri, str(error))
            return
        if held is not None:
            yield from cutter.cut(held)
        else:
            again = self._stream()
            yield from cutter.cut(unpack(self._chunks(self._read(again, _BLOCK_BYTES), again)))


def _unpacked(packed: Iterable[bytes], most: int) -> list[bytes] | None:
    """What bytes unpack to, all of it; None where that is more than so many bytes.

    Raises:
        NotGzipError: they can't be unpacked, or to more than any door writes.
    """
    held: list[bytes] = []
    size = 0
    for chunk in unpack(packed):
        size += len(chunk)
        if size <= most:
            held.append(chunk)
        elif held:
            held.clear()
        if size > _MOST_BYTES:
            raise NotGzipError(f"the object unpacks to more than {_MOST_BYTES:,} bytes")
    return held if size <= most else None


class _Cutter:
    """Cuts an object into blocks of whole lines."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._first = 0
        self._held = b""
        """The beginning of a line whose end hasn't come."""
        self._size = 0
        """Of a line that is too long, so far; `held` is its head."""

    def cut(self, chunks: Iterable[bytes]) -> Iterator[Piece]:
        """Blocks of an object's bytes, and its lines that are too long."""
        for chunk in chunks:
            yield from self._take(chunk)
        if self._size:
            yield self._long(self._held, self._size)
        elif self._held:
            yield from self._lines(self._held)

    def _take(self, given: bytes) -> Iterator[Piece]:
        chunk = given
        if self._size:
            end = chunk.find(b"\n")
            if end < 0:
                self._size += len(chunk)
                return
            yield self._long(self._held, self._size + end)
            chunk, self._held, self._size = chunk[end + 1 :], b"", 0
        end = chunk.rfind(b"\n") + 1
        if end:
            yield from self._lines(self._held + chunk[:end])
            self._held = chunk[end:]
        else:
            self._held += chunk
        if len(self._held) > LINE_BYTES:
            self._held, self._size = self._held[:_HEAD_BYTES], len(self._held)

    def _lines(self, body: bytes) -> Iterator[Piece]:
        # only the first line may be too long: it began in an earlier chunk, and a chunk is shorter than a line may be
        end = body.find(b"\n") if len(body) > LINE_BYTES else 0
        if end > LINE_BYTES or (end < 0 and len(body) > LINE_BYTES):
            size = end if end >= 0 else len(body)
            yield self._long(body[:_HEAD_BYTES], size)
            body = body[size + 1 :]
        if body:
            yield Block(self._uri, self._first, body)
            self._first += body.count(b"\n")

    def _long(self, head: bytes, size: int) -> LongLine:
        found = LongLine(self._uri, self._first, head, size)
        self._first += 1
        return found
