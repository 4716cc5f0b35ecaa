"""Owns the spool: the file in which a producer's events wait, on disk, until Firehose has acknowledged each of them.

One SQLite file a producer (tenant, dataset, producer id) under a folder, with the producer's ledger in it. Every change
of events changes the ledger in the same transaction, so the numbers hold after any crash: sequence numbers are gapless,
and next_sequence = acknowledged + dead-lettered + waiting. Commits are synced to disk (WAL, synchronous=FULL) before
they are told. Several threads may use a spool; one process owns it, held by a lock file beside it.

    <folder>/<tenant>.<dataset>.<producer id>.spool        with SQLite's own -wal and -shm beside it
    <folder>/<tenant>.<dataset>.<producer id>.spool.lock

`application_id` tells the file's kind and `user_version` the version of this format.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import threading
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from lake.envelope import made_day
from lake.ranges import Ranges
from producers._spool_file import SpoolError, SpoolFullError, SpoolIdentity, lock_spool, open_spool

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["DeadLetter", "NewRow", "Spool", "SpoolError", "SpoolFullError", "SpoolIdentity", "Tally", "WaitingEvent"]

_log = logging.getLogger(__name__)

_NO_ROOM = {
    sqlite3.SQLITE_FULL,
    # a quota or a size limit of the process shows as one of these
    sqlite3.SQLITE_IOERR_WRITE,
    sqlite3.SQLITE_IOERR_FSYNC,
    sqlite3.SQLITE_IOERR_TRUNCATE,
    sqlite3.SQLITE_IOERR_SHMSIZE,
}
_TIGHT = 32 * 1024 * 1024  # bytes free on the disk, below which each step looks after room for the next
_FOR_SETTLING = 1024 * 1024  # bytes that always stay free: acknowledged events can't be deleted without some room
_DAY_RUNS = 400  # that the ledger tells: of events that get their ids here, so many days
_WORTH_GIVING_BACK = 64 * 1024 * 1024  # bytes of free pages, left by a long time without network


class NewRow(NamedTuple):
    """An event to take over."""

    event_id: str
    data: bytes
    """The encoded event, as it is sent every time."""
    dead: str | None = None
    """Why it can't be sent, if it can't: it goes to the dead letters at once."""


class WaitingEvent(NamedTuple):
    """An event that waits to be sent."""

    sequence: int
    data: bytes


@dataclass(frozen=True)
class DeadLetter:
    """An event that can't be sent, kept for a person to look at."""

    sequence: int
    event_id: str
    reason: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Tally:
    """What a producer's spool has counted since it was made, as last committed."""

    next_sequence: int
    """Sequence number of the next event, which is how many were taken over so far."""
    acknowledged: int
    """Events that Firehose acknowledged."""
    dead_lettered: int
    """Events that can't be sent."""
    waiting_bytes: int
    """Bytes of the events that wait."""

    @property
    def waiting(self) -> int:
        """Events that are neither acknowledged nor dead-lettered."""
        return self.next_sequence - self.acknowledged - self.dead_lettered


class Spool:
    """The spool of one producer, open; made when it isn't there.

    Args:
        folder: where the spools of this machine's producers are; made when it isn't there.
        identity: whose spool.
        max_bytes: bytes of events that may wait, above which more are refused; None: as the disk has room.

    Raises:
        SpoolError: the folder can't be written to, another process has the spool open, or the file is another
            producer's, damaged or no spool at all.
    """

    tally: Tally
    """The numbers of the last commit."""

    def __init__(self, folder: Path, identity: SpoolIdentity, *, max_bytes: int | None = None) -> None:
        self.path = folder / identity.file_name
        self._max_bytes = max_bytes
        self._mutex = threading.RLock()
        self._lock = lock_spool(self.path)
        try:
            self._db = open_spool(self.path, identity)
        except BaseException:
            os.close(self._lock)
            raise
        try:
            self._read_ledger()
            self._give_back()
        except BaseException:
            self.close()
            raise

    def append(self, rows: Sequence[NewRow], spooled_ms: int) -> None:
        """Take events over, in order, in one transaction that is on disk when this returns.

        The first gets the sequence number `next_sequence`, and so on.

        Raises:
            SpoolFullError: no room; none of the events was taken.
        """
        with self._mutex:
            numbered = list(enumerate(rows, self.tally.next_sequence))
            good = [(n, row.event_id, spooled_ms, len(row.data), row.data) for n, row in numbered if row.dead is None]
            dead = [(n, row.event_id, spooled_ms, row.dead, row.data) for n, row in numbered if row.dead is not None]
            size = sum(row[3] for row in good)
            if self._max_bytes is not None and good and self.tally.waiting_bytes + size > self._max_bytes:
                raise SpoolFullError(
                    f"spool {self.path}: {self.tally.waiting:,} events of {self.tally.waiting_bytes:,} bytes wait in "
                    f"it, and its limit is {self._max_bytes:,} bytes: {_not_taken(len(rows))}, "
                    "nothing is lost; send what waits, then try again"
                )
            tight = self._check_room(sum(len(row.data) for row in rows), len(rows))
            with self._transaction(_not_taken(len(rows))):
                self._db.executemany("INSERT INTO waiting VALUES (?, ?, ?, ?, ?)", good)
                self._db.executemany("INSERT INTO dead_letters VALUES (?, ?, ?, ?, ?)", dead)
                self._db.execute(
                    "UPDATE ledger SET next_sequence = next_sequence + ?, dead_lettered = dead_lettered + ?, "
                    "waiting_bytes = waiting_bytes + ?",
                    (len(rows), len(dead), size),
                )
                self._note_days([(n, made_day(row.event_id)) for n, row in numbered])
            if tight:
                self._fold_log()

    def read(self, *, skip: Collection[int], records: int, size: int) -> list[WaitingEvent]:
        """Read the first events that wait.

        Args:
            skip: sequence numbers to leave out.
            records: most events to read.
            size: most bytes to read; the first event is read whatever its size.
        """
        found: list[WaitingEvent] = []
        total = 0
        with self._reading() as db, closing(db.execute("SELECT sequence, data FROM waiting ORDER BY sequence")) as rows:
            for sequence, data in rows:
                if sequence in skip:
                    continue
                total += len(data)
                if found and total > size:
                    break
                found.append(WaitingEvent(sequence, data))
                if len(found) == records:
                    break
        return found

    def settle(self, acknowledged: Collection[int], dead: Mapping[int, str]) -> None:
        """Note what became of waiting events, in one transaction: acknowledged ones are deleted.

        Args:
            acknowledged: sequence numbers that Firehose acknowledged.
            dead: why, by sequence number, an event can't be sent; moved to the dead letters.

        Raises:
            SpoolFullError: no room to note it; nothing was changed.
        """
        if not acknowledged and not dead:
            return
        with self._mutex:
            try:
                self._settle(acknowledged, dead)
            except SpoolFullError:
                # the log's own space will do, once what is in it has gone to where `append` made room for it
                self._fold_log()
                self._settle(acknowledged, dead)
            self._give_back()

    def first_waiting(self) -> tuple[int, int] | None:
        """Sequence number of the first event that waits, and when it was spooled (ms since the epoch)."""
        with self._reading() as db:
            found: tuple[int, int] | None = db.execute(
                "SELECT sequence, spooled_ms FROM waiting ORDER BY sequence LIMIT 1"
            ).fetchone()
        return found

    def dead_letters(self) -> list[DeadLetter]:
        """Events that can't be sent, by their sequence numbers."""
        with self._reading() as db:
            rows = db.execute("SELECT sequence, event_id, reason, data FROM dead_letters ORDER BY sequence")
            return [DeadLetter(*row) for row in rows]

    def account(self) -> tuple[Tally, Ranges, dict[str, Ranges]]:
        """The numbers, the sequence numbers of the dead letters, and those of each day, of the same moment.

        A day is the one on which an event was made, as its id tells; `-` where it doesn't. Far back there are no days.
        """
        with self._reading() as db:
            rows = db.execute("SELECT sequence FROM dead_letters").fetchall()
            days: dict[str, list[tuple[int, int]]] = {}
            for first, last, day in db.execute("SELECT first, last, day FROM days"):
                days.setdefault(day, []).append((first, last))
            told = {day: Ranges.of(spans) for day, spans in sorted(days.items())}
            return self.tally, Ranges.of((one, one) for (one,) in rows), told

    def close(self) -> None:
        """Close the file and let another process open it; what waits stays."""
        with self._mutex:
            self._db.close()
            if self._lock >= 0:
                os.close(self._lock)
                self._lock = -1

    def _note_days(self, dated: Sequence[tuple[int, str]]) -> None:
        """Note the days of events that follow what was taken over; the oldest runs go."""
        last_run = self._db.execute("SELECT first, last, day FROM days ORDER BY first DESC LIMIT 1").fetchone()
        runs: list[tuple[int, int, str]] = [last_run] if last_run else []
        for sequence, day in dated:
            if runs and runs[-1][1] + 1 == sequence and runs[-1][2] == day:
                runs[-1] = (runs[-1][0], sequence, day)
            else:
                runs.append((sequence, sequence, day))
        self._db.executemany("INSERT OR REPLACE INTO days VALUES (?, ?, ?)", runs[-_DAY_RUNS:])
        self._db.execute(
            "DELETE FROM days WHERE first <= (SELECT first FROM days ORDER BY first DESC LIMIT 1 OFFSET ?)",
            (_DAY_RUNS,),
        )

    def _settle(self, acknowledged: Collection[int], dead: Mapping[int, str]) -> None:
        with self._transaction("what became of the events that were sent can't be noted yet"):
            sent, sent_bytes = self._remove(Ranges.of((one, one) for one in acknowledged))
            self._db.executemany(
                "INSERT INTO dead_letters SELECT sequence, event_id, spooled_ms, ?, data FROM waiting "
                "WHERE sequence = ?",
                [(reason, sequence) for sequence, reason in dead.items()],
            )
            buried, buried_bytes = self._remove(Ranges.of((one, one) for one in dead))
            self._db.execute(
                "UPDATE ledger SET acknowledged = acknowledged + ?, dead_lettered = dead_lettered + ?, "
                "waiting_bytes = waiting_bytes - ?",
                (sent, buried, sent_bytes + buried_bytes),
            )

    def _remove(self, sequences: Ranges) -> tuple[int, int]:
        """Delete waiting events; answers how many there were and their bytes."""
        count = size = 0
        for span in sequences.spans:
            more, bytes_ = self._db.execute(
                "SELECT count(*), coalesce(sum(size), 0) FROM waiting WHERE sequence BETWEEN ? AND ?", span
            ).fetchone()
            self._db.execute("DELETE FROM waiting WHERE sequence BETWEEN ? AND ?", span)
            count, size = count + more, size + bytes_
        return count, size

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._mutex:
            self._check_open("nothing can be read")
            try:
                yield self._db
            except sqlite3.Error as error:
                raise SpoolError(f"spool {self.path}: can't be read: {error}") from error

    @contextmanager
    def _transaction(self, otherwise: str) -> Iterator[None]:
        """Commit what is done inside, on disk; or undo all of it and say what that means."""
        self._check_open(otherwise)
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        except BaseException as error:
            if self._db.in_transaction:  # after some errors SQLite has rolled back by itself
                self._db.execute("ROLLBACK")
            if not isinstance(error, sqlite3.Error):
                raise
            if getattr(error, "sqlite_errorcode", None) in _NO_ROOM:
                raise SpoolFullError(
                    f"spool {self.path}: no room on its disk ({error}): {otherwise}; nothing that was taken before "
                    "is lost. Make room, then try again"
                ) from error
            raise SpoolError(f"spool {self.path}: can't be written: {error}: {otherwise}") from error
        self._read_ledger()

    def _check_room(self, size: int, events: int) -> bool:
        """Answer whether the disk is nearly full; refuse events that would leave no room to settle them.

        An event is written twice, to the log and from there into the file, where it may take a deleted one's place.
        """
        if _free_bytes(self.path.parent) >= _TIGHT + 3 * size:
            return False
        self._fold_log()
        free = _free_bytes(self.path.parent)
        with self._reading() as db:
            pages, page = (db.execute(f"PRAGMA {one}").fetchone()[0] for one in ("freelist_count", "page_size"))
        # half as much again for what isn't an event's data in a page
        in_log = size + size // 2
        lacking = _FOR_SETTLING + max(in_log, 2 * in_log - pages * page) - free
        if lacking > 0:
            raise SpoolFullError(
                f"spool {self.path}: its disk has {free:,} bytes free, {lacking:,} too few: {_not_taken(events)}; "
                "nothing that was taken before is lost, and it can be sent. Make room, or send some, then try again"
            )
        return True

    def _fold_log(self) -> None:
        """Move what SQLite's log holds into the file, and give the log's space back to the disk."""
        with self._reading() as db:
            try:
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            except sqlite3.Error as error:
                _log.warning("spool %s: its log can't be folded into it yet: %s", self.path, error)

    def _check_open(self, otherwise: str) -> None:
        if self._lock < 0:
            raise SpoolError(f"spool {self.path}: it's closed: {otherwise}")

    def _read_ledger(self) -> None:
        with self._reading() as db:
            numbers = db.execute("SELECT next_sequence, acknowledged, dead_lettered, waiting_bytes FROM ledger")
            self.tally = Tally(*numbers.fetchone())

    def _give_back(self) -> None:
        """Return the disk space of a backlog that is gone; quick, as hardly a row is left."""
        if self.tally.waiting:
            return
        with self._reading() as db:
            free, size = (db.execute(f"PRAGMA {one}").fetchone()[0] for one in ("freelist_count", "page_size"))
            if free * size < _WORTH_GIVING_BACK:
                return
            try:
                db.execute("VACUUM")
            except sqlite3.Error as error:
                _log.warning("spool %s: %d bytes of free space stay in the file: %s", self.path, free * size, error)
            self._fold_log()


def _free_bytes(folder: Path) -> int:
    found = os.statvfs(folder)
    return found.f_bavail * found.f_frsize


def _not_taken(events: int) -> str:
    return "the event was not taken" if events == 1 else f"none of the {events:,} events was taken"
