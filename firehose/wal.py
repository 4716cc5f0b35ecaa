"""Owns writing the log: segments allocated ahead, frames appended and synced in groups, failures rolled back.

A segment is allocated at its full size when it is opened, so a full disk shows when the next segment is opened and not
in the middle of a frame. Puts leave the last part of a segment to intents and completions, which free room: with the
disk full, what was acknowledged can still be delivered. After a failed write or fsync the segment is given up at its
last good offset, which the next segment's header records: what a failed fsync left on disk is never taken for good.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from firehose.frames import FRAME_BYTES, HEADER_BYTES, Kind, SegmentHeader, encode_frame

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

__all__ = ["Disk", "Entry", "Log", "OsDisk", "segment_name", "sync_folder"]

_RESERVED = 16
"""One part in so many of a segment is kept for intents and completions."""
_RECORDS = (Kind.PUT, Kind.MADE, Kind.CARRIED)
_MAX_PARTS = 512
"""Buffers a write; the system takes 1,024."""


def segment_name(index: int) -> str:
    """Name a segment's file."""
    return f"{index:016d}.wal"


class Disk(Protocol):
    """What the log asks of a file system; errors are OSError."""

    def create(self, path: Path, size: int) -> int:
        """Create a file with room for `size` bytes, durably; returns its descriptor."""
        ...

    def write(self, descriptor: int, parts: Sequence[bytes], offset: int) -> None:
        """Write all parts, one behind the other."""
        ...

    def sync(self, descriptor: int) -> None:
        """Return when what was written is on disk."""
        ...

    def cut(self, descriptor: int, size: int) -> None:
        """Give back the room behind `size`."""
        ...

    def close(self, descriptor: int) -> None:
        """Close the file."""
        ...

    def remove(self, path: Path) -> None:
        """Remove a file."""
        ...


class OsDisk:
    """The operating system's file system."""

    def create(self, path: Path, size: int) -> int:
        """Create a file with room for `size` bytes, durably; nothing is left of one that failed."""
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            os.posix_fallocate(descriptor, 0, size)
            os.fsync(descriptor)
            sync_folder(path.parent)
        except OSError:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise
        return descriptor

    def write(self, descriptor: int, parts: Sequence[bytes], offset: int) -> None:
        """Write all parts, one behind the other, however often the system writes less than asked."""
        for start in range(0, len(parts), _MAX_PARTS):
            some = parts[start : start + _MAX_PARTS]
            size = sum(map(len, some))
            written = os.pwritev(descriptor, some, offset)
            if written < size:
                rest = b"".join(some)
                while written < size:
                    written += os.pwrite(descriptor, rest[written:], offset + written)
            offset += size

    def sync(self, descriptor: int) -> None:
        """Return when what was written is on disk; the file's size never changes, so its data is enough."""
        os.fdatasync(descriptor)

    def cut(self, descriptor: int, size: int) -> None:
        """Give back the room behind `size`."""
        os.ftruncate(descriptor, size)

    def close(self, descriptor: int) -> None:
        """Close the file."""
        os.close(descriptor)

    def remove(self, path: Path) -> None:
        """Remove a file."""
        path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@dataclass(frozen=True, slots=True)
class Entry:
    """A payload to be appended."""

    kind: Kind
    payload: bytes


@dataclass(slots=True)
class _Segment:
    index: int
    descriptor: int
    size: int
    end: int
    """Offset behind the last good frame."""


class Log:
    """The log's writing end; used by one thread at a time."""

    def __init__(
        self,
        folder: Path,
        segment_bytes: int,
        *,
        next_index: int = 1,
        previous_end: int = 0,
        next_sequence: int = 1,
        disk: Disk | None = None,
    ) -> None:
        self._folder = folder
        self._segment_bytes = segment_bytes
        self._next_index = next_index
        self._previous_end = previous_end
        self._sequence = next_sequence
        self._disk = disk or OsDisk()
        self._current: _Segment | None = None

    def append(self, entries: Sequence[Entry]) -> list[int | OSError]:
        """Append entries and sync them; returns for each the index of its segment, or why it isn't in the log.

        One fsync serves all entries that fit into the current segment.
        """
        results: list[int | OSError] = []
        group: list[Entry] = []
        room = self._room()
        for entry in entries:
            size = FRAME_BYTES + len(entry.payload)
            if not self._fits(entry, size, room):
                results += self._commit(group)
                group = []
                try:
                    self._open_next(size)
                except OSError as error:
                    results.append(error)
                    room = self._room()
                    continue
                room = self._room()
            group.append(entry)
            room -= size
        return results + self._commit(group)

    def remove(self, index: int) -> None:
        """Remove a segment that has nothing pending."""
        self._disk.remove(self._folder / segment_name(index))

    def close(self) -> None:
        """Close the current segment and give back the room it didn't need."""
        if self._current is not None:
            self._seal(self._current)

    def _room(self) -> int:
        return self._current.size - self._current.end if self._current else 0

    def _fits(self, entry: Entry, size: int, room: int) -> bool:
        if self._current is None:
            return False
        kept = self._current.size // _RESERVED if entry.kind in _RECORDS else 0
        return size <= room - kept

    def _commit(self, group: list[Entry]) -> list[int | OSError]:
        segment = self._current
        if not group:
            return []
        if segment is None:  # an entry is only in a group once a segment holds it
            raise AssertionError("no segment is open")
        parts: list[bytes] = []
        for entry in group:
            # a sequence is never used twice, so a reader can tell a frame that failed from one that followed
            parts += [encode_frame(entry.kind, self._sequence, entry.payload), entry.payload]
            self._sequence += 1
        try:
            self._disk.write(segment.descriptor, parts, segment.end)
            self._disk.sync(segment.descriptor)
        except OSError as error:
            self._seal(segment)
            return [error] * len(group)
        segment.end += sum(map(len, parts))
        return [segment.index] * len(group)

    def _open_next(self, entry_size: int) -> None:
        index = self._next_index
        size = max(self._segment_bytes, HEADER_BYTES + entry_size + (HEADER_BYTES + entry_size) // (_RESERVED - 1) + 1)
        end = self._current.end if self._current else self._previous_end
        path = self._folder / segment_name(index)
        descriptor = self._disk.create(path, size)
        try:
            self._disk.write(descriptor, [SegmentHeader(index, end).encode()], 0)
            self._disk.sync(descriptor)
        except OSError:
            self._disk.close(descriptor)
            self._disk.remove(path)
            raise
        if self._current is not None:
            self._seal(self._current)
        self._current = _Segment(index, descriptor, size, HEADER_BYTES)
        self._next_index = index + 1

    def _seal(self, segment: _Segment) -> None:
        self._previous_end = segment.end
        self._current = None
        # if that fails only room is lost: the next segment's header says where this one ends
        with suppress(OSError):
            self._disk.cut(segment.descriptor, segment.end)
        with suppress(OSError):
            self._disk.close(segment.descriptor)
