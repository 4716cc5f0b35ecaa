"""Owns opening a spool's file: the lock beside it, its format, and whose it is."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lake.errors import EnvironmentProblemError, TerminalError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["SpoolError", "SpoolFullError", "SpoolIdentity", "lock_spool", "open_spool"]

_log = logging.getLogger(__name__)

_APPLICATION_ID = 0x6C687370  # "lhsp"
_FORMAT = 1
_SCHEMA = """
CREATE TABLE owner (tenant TEXT NOT NULL, dataset TEXT NOT NULL, producer_id TEXT NOT NULL);
CREATE TABLE ledger (
    next_sequence INTEGER NOT NULL,
    acknowledged  INTEGER NOT NULL,
    dead_lettered INTEGER NOT NULL,
    waiting_bytes INTEGER NOT NULL
);
CREATE TABLE waiting (
    sequence   INTEGER PRIMARY KEY,
    event_id   TEXT    NOT NULL,
    spooled_ms INTEGER NOT NULL,
    size       INTEGER NOT NULL,
    data       BLOB    NOT NULL
);
CREATE TABLE dead_letters (
    sequence   INTEGER PRIMARY KEY,
    event_id   TEXT    NOT NULL,
    spooled_ms INTEGER NOT NULL,
    reason     TEXT    NOT NULL,
    data       BLOB    NOT NULL
);
INSERT INTO ledger VALUES (0, 0, 0, 0);
"""
_DAYS = "CREATE TABLE IF NOT EXISTS days (first INTEGER PRIMARY KEY, last INTEGER NOT NULL, day TEXT NOT NULL)"
"""Runs of sequence numbers whose events were made on one day; spools that are older than it get it too."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_PRODUCER = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")


class SpoolError(EnvironmentProblemError):
    """The spool can't be opened, or its disk fails."""


class SpoolFullError(SpoolError):
    """There's no room for more events: none of those given was taken, and none that was taken before is lost."""


@dataclass(frozen=True)
class SpoolIdentity:
    """Whose events a spool holds."""

    tenant: str
    dataset: str
    producer_id: str

    def __post_init__(self) -> None:
        for what, given in (("tenant", self.tenant), ("dataset", self.dataset)):
            if not _NAME.fullmatch(given):
                raise TerminalError(
                    f"{what}: got {given!r}, allowed are up to 64 letters, digits, underscores and hyphens, "
                    "a letter or digit first"
                )
        if not _PRODUCER.fullmatch(self.producer_id):
            raise TerminalError(
                f"producer id: got {self.producer_id!r}, allowed are up to 100 letters, digits, underscores, hyphens "
                "and dots, a letter or digit first"
            )

    @property
    def file_name(self) -> str:
        """Name of the spool's file; no two identities share one, as tenants and datasets have no dots."""
        return f"{self.tenant}.{self.dataset}.{self.producer_id}.spool"

    def __str__(self) -> str:
        return f"tenant {self.tenant}, dataset {self.dataset}, producer {self.producer_id}"


def lock_spool(path: Path) -> int:
    """Lock the file beside the spool, and answer its handle: closing it unlocks.

    SQLite's own locks wouldn't do, as a process loses them with any handle of the file that it closes.

    Raises:
        SpoolError: another owner has it, or the folder can't be written to.
    """
    lock = path.with_name(f"{path.name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    except OSError as error:
        raise SpoolError(f"spool {path}: can't be opened: {error}") from error
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        owner = os.pread(handle, 32, 0).decode("ascii", "replace").strip()
        os.close(handle)
        if isinstance(error, BlockingIOError):
            raise SpoolError(
                f"spool {path}: process {owner or '(unknown)'} has it open, and a spool has one owner at a time; "
                "close that one, or take another producer id"
            ) from None
        raise SpoolError(f"spool {path}: {lock} can't be locked: {error}") from error
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
    except OSError as error:
        # the number only makes a refusal's sentence better: a full disk shouldn't keep what waits from being sent
        _log.warning("spool %s: this process's number can't be written to its lock file: %s", path, error)
    return handle


def open_spool(path: Path, identity: SpoolIdentity) -> sqlite3.Connection:
    """Open the file, or make it.

    Raises:
        SpoolError: it is another producer's, damaged, or no spool.
    """
    fresh = not path.exists()
    try:
        # transactions are the spool's (isolation_level), and so is the mutex (check_same_thread)
        db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    except sqlite3.Error as error:
        raise SpoolError(f"spool {path}: can't be opened: {error}") from error
    try:
        _check_kind(db, path)
        _set_up(db, identity)
        owner = SpoolIdentity(*db.execute("SELECT tenant, dataset, producer_id FROM owner").fetchone())
        if fresh:
            _sync_folder(path.parent)
    except (sqlite3.Error, OSError) as error:
        db.close()
        raise SpoolError(f"spool {path}: can't be opened: {error}") from error
    except SpoolError:
        db.close()
        raise
    if owner != identity:
        db.close()
        raise SpoolError(
            f"spool {path}: it was made for {owner}, and was opened for {identity}; give each producer its own id, "
            "and don't rename or copy spools"
        )
    return db


def _set_up(db: sqlite3.Connection, identity: SpoolIdentity) -> None:
    db.execute("PRAGMA journal_mode=WAL")
    db.execute("PRAGMA synchronous=FULL")
    db.execute("PRAGMA fullfsync=ON")  # macOS: fsync alone leaves data in the drive's cache
    db.execute("PRAGMA wal_autocheckpoint=2000")
    # Debian's SQLite wipes what is deleted, which doubles the writing; a queue needn't
    db.execute("PRAGMA secure_delete=OFF")
    if db.execute("PRAGMA user_version").fetchone() == (0,):
        db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA}")
        db.execute("INSERT INTO owner VALUES (?, ?, ?)", (identity.tenant, identity.dataset, identity.producer_id))
        db.execute(f"PRAGMA application_id={_APPLICATION_ID}")
        db.execute(f"PRAGMA user_version={_FORMAT}")
        db.execute("COMMIT")
    db.execute(_DAYS)


def _check_kind(db: sqlite3.Connection, path: Path) -> None:
    (kind,) = db.execute("PRAGMA application_id").fetchone()
    (version,) = db.execute("PRAGMA user_version").fetchone()
    (tables,) = db.execute("SELECT count(*) FROM sqlite_master").fetchone()
    if kind == _APPLICATION_ID and version != _FORMAT:
        raise SpoolError(f"spool {path}: its format is version {version}; this lakehose reads version {_FORMAT}")
    if kind != _APPLICATION_ID and (tables or version):
        raise SpoolError(f"spool {path}: it's an SQLite file of something else")


def _sync_folder(folder: Path) -> None:
    """Make a new file's name durable, not only what it holds."""
    for one in (folder, folder.parent):
        handle = os.open(one, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
