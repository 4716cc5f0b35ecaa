"""Owns what is known of each query, and keeps it: one SQLite file that a restart reads again."""

from __future__ import annotations

import sqlite3
import threading
from dataclasses import asdict, dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import orjson

from athena.rendering import Column
from athena.sql import StatementType

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

__all__ = ["Execution", "Executions", "Failure", "State", "Statistics"]

_KEPT_SECONDS = 45 * 24 * 3600  # as long as Athena keeps a query's history
_ENDED_WITH_IT = "The local endpoint ended while the query was running; run it again"


class State(StrEnum):
    """Where a query stands."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_final(self) -> bool:
        """Whether nothing follows."""
        return self not in {State.QUEUED, State.RUNNING}


@dataclass(frozen=True)
class Failure:
    """Why a query failed, as AthenaError has it."""

    reason: str
    category: int
    """1 system, 2 user, 3 other."""
    type: int
    """See https://docs.aws.amazon.com/athena/latest/ug/error-reference.html."""
    retryable: bool = False


@dataclass(frozen=True)
class Statistics:
    """What a query took."""

    engine_ms: int = 0
    planning_ms: int = 0
    queue_ms: int = 0
    """In this endpoint's queue, Trino's start included, and in Trino's own."""
    service_ms: int = 0
    """From Trino's last row to the result in S3."""
    total_ms: int = 0
    scanned_bytes: int = 0


@dataclass(frozen=True)
class Execution:
    """One query from its submission on."""

    id: str
    sql: str
    """As it was given."""
    type: StatementType
    substatement: str
    workgroup: str
    catalog: str | None
    database: str | None
    output_location: str
    """The result file, for example `s3://bucket/prefix/<id>.csv`."""
    parameters: tuple[str, ...]
    submitted: float
    """Seconds since 1970, as all times here."""
    token: str | None = None
    """What makes a second identical request the same query."""
    state: State = State.QUEUED
    reason: str | None = None
    failure: Failure | None = None
    completed: float | None = None
    statistics: Statistics = Statistics()
    columns: tuple[Column, ...] = ()
    result_bytes: int = 0
    update_count: int | None = None

    @classmethod
    def from_json(cls, document: bytes) -> Execution:
        """Read what `Executions` wrote."""
        raw: dict[str, Any] = orjson.loads(document)
        return cls(
            **{
                **raw,
                "type": StatementType(raw["type"]),
                "state": State(raw["state"]),
                "parameters": tuple(raw["parameters"]),
                "failure": Failure(**raw["failure"]) if raw["failure"] else None,
                "statistics": Statistics(**raw["statistics"]),
                "columns": tuple(Column(**one) for one in raw["columns"]),
            }
        )


class Executions:
    """All queries of one state folder; safe to use from many threads of one process."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._database.executescript(
            """
            PRAGMA journal_mode = WAL;
            PRAGMA synchronous = NORMAL;
            CREATE TABLE IF NOT EXISTS executions (
                id TEXT PRIMARY KEY, workgroup TEXT NOT NULL, submitted REAL NOT NULL, state TEXT NOT NULL,
                token TEXT UNIQUE, document BLOB NOT NULL
            );
            CREATE INDEX IF NOT EXISTS by_time ON executions (workgroup, submitted DESC, id);
            """
        )

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def fail_unfinished(self, now: float) -> None:
        """Fail what was running when the last process ended, and forget what is older than Athena's 45 days."""
        with self._lock:
            self._database.execute("DELETE FROM executions WHERE submitted < ?", (now - _KEPT_SECONDS,))
            rows = self._database.execute(
                "SELECT document FROM executions WHERE state IN (?, ?)", (State.QUEUED, State.RUNNING)
            ).fetchall()
            for (document,) in rows:
                failure = Failure(_ENDED_WITH_IT, category=1, type=100, retryable=True)
                self._write(
                    replace(
                        Execution.from_json(document),
                        state=State.FAILED,
                        reason=failure.reason,
                        failure=failure,
                        completed=now,
                    )
                )

    def add(self, execution: Execution) -> Execution:
        """Keep a new query; answers it, or the one that came with the same token before."""
        with self._lock:
            if execution.token is not None:
                row = self._database.execute(
                    "SELECT document FROM executions WHERE token = ?", (execution.token,)
                ).fetchone()
                if row:
                    return Execution.from_json(row[0])
            self._write(execution)
            return execution

    def get(self, execution_id: str) -> Execution | None:
        """Find a query."""
        with self._lock:
            return self._read(execution_id)

    def move(self, execution_id: str, states: Collection[State], **changes: Any) -> Execution | None:
        """Change a query if it is in one of the states; answers it as it is then, or None where it isn't."""
        with self._lock:
            found = self._read(execution_id)
            if found is None or found.state not in states:
                return None
            changed = replace(found, **changes)
            self._write(changed)
            return changed

    def listed(self, workgroup: str, start: int, most: int) -> list[str]:
        """Ids of a workgroup's queries, newest first."""
        with self._lock:
            rows = self._database.execute(
                "SELECT id FROM executions WHERE workgroup = ? ORDER BY submitted DESC, id LIMIT ? OFFSET ?",
                (workgroup, most, start),
            ).fetchall()
        return [str(row[0]) for row in rows]

    def _read(self, execution_id: str) -> Execution | None:
        row = self._database.execute("SELECT document FROM executions WHERE id = ?", (execution_id,)).fetchone()
        return Execution.from_json(row[0]) if row else None

    def _write(self, one: Execution) -> None:
        self._database.execute(
            "INSERT OR REPLACE INTO executions (id, workgroup, submitted, state, token, document) "
            "VALUES (?, ?, ?, ?, ?, ?)",
            (one.id, one.workgroup, one.submitted, one.state, one.token, orjson.dumps(asdict(one))),
        )
