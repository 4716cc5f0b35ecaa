"""Owns which process of a server has which stream, and the folders that their logs lie in.

A stream belongs to one process by its name, so its buffers, partitions and order are those of a server with one. Each
process has a log of its own. A start with another number of processes writes what the logs hold anew, each stream's
into the log of the process that has it now, and only then, by replacing one file, makes the new logs the server's: a
crash before leaves the old ones, a crash behind leaves folders that the next start removes. Keys and bytes of objects
that were announced stay as they were, and so do arrivals.
"""

from __future__ import annotations

import logging
import re
import shutil
from array import array
from dataclasses import replace
from hashlib import blake2b
from itertools import count
from typing import TYPE_CHECKING

from firehose.found import PendingMade
from firehose.frames import Kind
from firehose.payloads import Made, encode_intent, encode_made, encode_put
from firehose.recovery import recover
from firehose.registry import Registry
from firehose.wal import Entry, Log, sync_folder
from lake.errors import EnvironmentProblemError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path
    from uuid import UUID

    from firehose.found import PendingPut
    from firehose.recovery import PendingDelivery
    from firehose.registry import DataFolder

__all__ = ["lay_out", "owner"]

_log = logging.getLogger(__name__)
_FILE = "processes.json"
_ALONE = "log"
"""The log of a server with one process."""
_LOG = re.compile(r"log(-[0-9]+-[0-9]+)?")
_PUT_BYTES = 4 << 20
"""Records of one frame, about; a single one may be larger."""
_GROUP_BYTES = 16 << 20
"""Payload that one fsync takes, about."""


def owner(stream: str, processes: int) -> int:
    """Tell which of so many processes has the stream of a name; it is the same one on every machine."""
    return int.from_bytes(blake2b(stream.encode(), digest_size=8).digest(), "big") % processes


def lay_out(folder: DataFolder, processes: int, segment_bytes: int) -> list[Path]:
    """Find each process's log, after dividing what is there anew if their number is another one.

    Args:
        folder: the server's, locked.
        processes: how many there are now.
        segment_bytes: size of a log's segment.

    Raises:
        EnvironmentProblemError: a log can't be read, or there is no room to write it anew.
    """
    there = _logs(folder)
    # of a change that was cut off, before it counted or before it had tidied up
    _remove(folder, [one.name for one in folder.path.iterdir() if one.name not in there])
    for ending in ("sock", "new"):  # by processes that were killed
        for left in folder.path.glob(f"process-*.{ending}"):
            left.unlink()
    logs = there
    if len(there) != processes:
        logs = _divide(folder, there, processes, segment_bytes)
    for name in logs:
        (folder.path / name).mkdir(exist_ok=True)
    return [folder.path / name for name in logs]


def _logs(folder: DataFolder) -> list[str]:
    found = folder.read(_FILE)
    if found is None:
        return [_ALONE]
    logs = found.get("logs") if isinstance(found, dict) else None
    if not isinstance(logs, list) or not logs or not all(isinstance(one, str) and _LOG.fullmatch(one) for one in logs):
        raise EnvironmentProblemError(f"{folder.path / _FILE}: damaged: it doesn't name the folders of the logs")
    return logs


def _divide(folder: DataFolder, there: Sequence[str], processes: int, segment_bytes: int) -> list[str]:
    logs = _names(there, processes)
    names = {stream.identity: name for name, stream in Registry(folder).streams.items()}
    moved = 0
    try:
        writers = []
        for name in logs:
            (folder.path / name).mkdir()
            writers.append(_Writer(folder.path / name, segment_bytes))
        sync_folder(folder.path)
        for name in there:
            if not (folder.path / name).is_dir():
                continue  # a server that never ran with so many
            found = recover(folder.path / name, set(names))
            for delivery in found.deliveries:
                moved += writers[owner(names[delivery.intent.stream], processes)].deliver(delivery)
            for pending in found.puts:
                moved += writers[owner(names[pending.stream], processes)].pend(pending)
        for writer in writers:
            writer.close()
        folder.write(_FILE, {"logs": logs})
    except OSError as error:
        _remove(folder, logs)
        raise EnvironmentProblemError(
            f"--processes {processes}: {folder.path}: what {len(there)} wrote can't be divided anew:"
            f" {error.strerror or error}; make room, or start with --processes {len(there)}"
        ) from None
    _remove(folder, there)
    if moved:
        _log.warning(
            "processes: %d now, %d before; %d records that aren't delivered were written into their logs",
            *(processes, len(there), moved),
        )
    return logs


def _names(there: Sequence[str], processes: int) -> list[str]:
    if processes == 1 and _ALONE not in there:
        return [_ALONE]
    generation = 1 + max(int(one.split("-")[1]) if "-" in one else 0 for one in there)
    return [f"{_ALONE}-{generation}-{index}" for index in range(processes)]


def _remove(folder: DataFolder, names: Sequence[str]) -> None:
    for name in names:
        path = folder.path / name
        if not _LOG.fullmatch(name) or not path.is_dir():
            continue
        for damaged in path.glob("*.damaged"):  # kept for a person to look at
            kept = (folder.path / f"{name}-{damaged.stem}.{number}.damaged" for number in count(1))
            damaged.rename(next(one for one in kept if not one.exists()))
        shutil.rmtree(path)


class _Writer:
    """Writes a log from its beginning."""

    def __init__(self, folder: Path, segment_bytes: int) -> None:
        self._log = Log(folder, segment_bytes)
        self._next = 1
        self._group: list[Entry] = []
        self._group_bytes = 0

    def deliver(self, found: PendingDelivery) -> int:
        """Write an object that was announced, and its records; returns how many."""
        intent = found.intent
        numbers = self._put(intent.stream, found.oldest_ms, found.data)
        self._append(Entry(Kind.INTENT, encode_intent(replace(intent, numbers=array("Q", numbers)))))
        return len(numbers)

    def pend(self, found: PendingPut | PendingMade) -> int:
        """Write records that are in no object; returns how many."""
        if isinstance(found, PendingMade):
            self._made(found.stream, [], found)
            return len(found.numbers)
        numbers = self._put(found.stream, found.arrival_ms, found.data)
        if found.is_made:
            # nothing more is made of them, and they stay for the backup
            self._made(found.stream, numbers, PendingMade(found.stream, [], [], []))
        return len(numbers)

    def close(self) -> None:
        """End the log; all of it is on disk then."""
        self._commit()
        self._log.close()

    def _put(self, stream: UUID, arrival_ms: int, data: list[bytes]) -> range:
        first = self._next
        for some in _parts(data):
            self._append(Entry(Kind.PUT, encode_put(stream, self._next, arrival_ms, some)))
            self._next += len(some)
        return range(first, self._next)

    def _made(self, stream: UUID, sources: Sequence[int], found: PendingMade) -> None:
        made = Made(stream, self._next, sources, bool(sources), records=found.records, failed=found.failed)
        self._append(Entry(Kind.MADE, encode_made(made)))
        self._next += len(made.all)

    def _append(self, entry: Entry) -> None:
        self._group.append(entry)
        self._group_bytes += len(entry.payload)
        if self._group_bytes >= _GROUP_BYTES:
            self._commit()

    def _commit(self) -> None:
        for result in self._log.append(self._group):
            if isinstance(result, OSError):
                raise result
        self._group, self._group_bytes = [], 0


def _parts(data: list[bytes]) -> Iterator[list[bytes]]:
    part: list[bytes] = []
    size = 0
    for one in data:
        if part and size + len(one) > _PUT_BYTES:
            yield part
            part, size = [], 0
        part.append(one)
        size += len(one)
    if part:
        yield part
