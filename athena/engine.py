"""Owns the running of queries: a few threads that take them from a queue, put them to Trino and their rows into S3.

A query ends in one of three states whatever happens to it. A stop is seen at Trino's next answer, a second later at
most; a Trino that has gone fails what was running on it, and the next query starts another.
"""

from __future__ import annotations

import logging
import queue
import tempfile
import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol, cast

import orjson
import requests
from botocore.exceptions import BotoCoreError, ClientError
from trino.exceptions import Error as TrinoError
from trino.exceptions import HttpError, TrinoQueryError

from athena.catalog import CATALOG
from athena.executions import Execution, Executions, Failure, State, Statistics
from athena.locations import Location
from athena.rendering import Column, TrinoType, column_of, renderer
from athena.results import csv_line, text_lines, write_rows
from athena.session import Session
from athena.sql import Statement, classify, with_parameters
from lake.errors import LakehoseError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mypy_boto3_s3 import S3Client
    from trino.client import TrinoQuery

__all__ = ["Engine", "TrinoSupply"]

_log = logging.getLogger(__name__)
_CANCELLED = "Query cancelled by user"
_USER, _INTERNAL, _METASTORE = 1000, 200, 204
_ICEBERG = 233
_UPLOAD = 401
_SERVICE = 100
_MEMORY_BYTES = 1 << 20


class TrinoSupply(Protocol):
    """Whoever has a Trino."""

    def url(self) -> str:
        """Where Trino takes queries; starts it if it isn't running, and waits.

        Raises:
            LakehoseError: there is none to be had.
        """


class _StoppedError(Exception):
    """The query is not wanted any more."""


@dataclass
class _Run:
    """One query while a thread has it."""

    stop: threading.Event = field(default_factory=threading.Event)

    def watch(self, _statistics: dict[str, Any]) -> None:
        """Called with each answer of Trino's."""
        if self.stop.is_set():
            raise _StoppedError


@dataclass(frozen=True)
class _Result:
    """A query's answer in a local file."""

    size: int
    columns: tuple[Column, ...]
    update_count: int | None
    trino: dict[str, Any]
    """Trino's statistics."""


class Engine:
    """Runs the queries of one endpoint."""

    def __init__(
        self,
        *,
        executions: Executions,
        trino: TrinoSupply,
        s3: S3Client,
        spill: Path,
        clock: Callable[[], float],
        threads: int,
    ) -> None:
        self._executions = executions
        self._trino = trino
        self._s3 = s3
        self._spill = spill
        self._clock = clock
        self._runs: dict[str, _Run] = {}
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        spill.mkdir(parents=True, exist_ok=True)
        self._threads = [
            # a query must not hold up the end of the process: one that is cut off is told as failed by the next
            threading.Thread(target=self._work, name=f"athena-{index}", daemon=True)
            for index in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, execution_id: str) -> None:
        """Run a query that waits, when a thread is free."""
        self._runs[execution_id] = _Run()
        self._queue.put(execution_id)

    def stop(self, execution_id: str) -> None:
        """End a query; one that has ended stays as it is."""
        self._executions.move(
            execution_id,
            {State.QUEUED, State.RUNNING},
            state=State.CANCELLED,
            reason=_CANCELLED,
            completed=self._clock(),
        )
        run = self._runs.get(execution_id)
        if run is not None:
            run.stop.set()

    def close(self) -> None:
        """End all queries and the threads."""
        for execution_id in list(self._runs):
            self._runs[execution_id].stop.set()
        for _ in self._threads:
            self._queue.put(None)
        for thread in self._threads:
            thread.join(5)

    def _work(self) -> None:
        while (execution_id := self._queue.get()) is not None:
            try:
                self._run(execution_id)
            except Exception:  # noqa: BLE001 - the thread has to live on for the next query
                _log.exception("query %s", execution_id)
                self._fail(
                    execution_id, Failure("The local endpoint failed; its log says why", 1, _SERVICE, retryable=True)
                )
            finally:
                self._runs.pop(execution_id, None)

    def _run(self, execution_id: str) -> None:
        execution = self._executions.get(execution_id)
        if execution is None or execution.state is not State.QUEUED:
            return
        statement = classify(execution.sql)
        if statement.refusal is not None:
            self._fail(execution_id, Failure(f"NOT_SUPPORTED: {statement.refusal}", 2, _USER))
            return
        try:
            self._execute(execution, statement, self._runs[execution_id])
        except _StoppedError:
            # `stop` has written it down, except when the whole endpoint closes
            self._fail(execution_id, Failure("The local endpoint closed", 1, _SERVICE, retryable=True))
        except TrinoQueryError as error:
            self._fail(execution_id, _failure_of(error))
        except (TrinoError, HttpError, requests.RequestException) as error:
            _log.warning("query %s: Trino went away: %s", execution_id, error)
            reason = "GENERIC_INTERNAL_ERROR: the query engine ended while the query was running; run it again"
            self._fail(execution_id, Failure(reason, 1, _INTERNAL, retryable=True))
        except LakehoseError as error:
            self._fail(execution_id, Failure(f"GENERIC_INTERNAL_ERROR: {error}", 1, _INTERNAL, retryable=True))
        except (ClientError, BotoCoreError) as error:
            reason = f"The query's result can't be written to {execution.output_location}: {error}"
            self._fail(execution_id, Failure(reason, 2, _UPLOAD))

    def _execute(self, execution: Execution, statement: Statement, run: _Run) -> None:
        url = self._trino.url()
        if run.stop.is_set():
            raise _StoppedError
        if self._executions.move(execution.id, {State.QUEUED}, state=State.RUNNING) is None:
            return
        waited = self._clock() - execution.submitted
        session = Session(url, (execution.catalog or CATALOG).lower(), execution.database)
        query = session.query(with_parameters(statement.sql, execution.parameters), run.watch)
        with tempfile.SpooledTemporaryFile(_MEMORY_BYTES, dir=str(self._spill)) as file:
            out = cast("BinaryIO", file)
            try:
                result = _read(query, statement, out)
            except _StoppedError:
                query.cancel()
                raise
            began_upload = self._clock()
            self._upload(execution, result, out)
        done = self._clock()
        elapsed, queued = result.trino.get("elapsedTimeMillis", 0), result.trino.get("queuedTimeMillis", 0)
        statistics = Statistics(
            engine_ms=max(0, elapsed - queued),
            planning_ms=result.trino.get("planningTimeMillis", 0),
            queue_ms=round(waited * 1000) + queued,
            service_ms=round((done - began_upload) * 1000),
            total_ms=round((done - execution.submitted) * 1000),
            scanned_bytes=result.trino.get("physicalInputBytes", 0),
        )
        self._executions.move(
            execution.id,
            {State.RUNNING},
            state=State.SUCCEEDED,
            completed=done,
            columns=result.columns,
            result_bytes=result.size,
            update_count=result.update_count,
            statistics=statistics,
        )

    def _upload(self, execution: Execution, result: _Result, out: BinaryIO) -> None:
        place = Location.parse(execution.output_location)
        out.seek(0)
        if result.size <= _MEMORY_BYTES:
            self._s3.put_object(Bucket=place.bucket, Key=place.key, Body=out.read())
        else:
            self._s3.upload_fileobj(out, place.bucket, place.key)
        description = orjson.dumps([one.as_column_info() for one in result.columns])
        self._s3.put_object(Bucket=place.bucket, Key=f"{place.key}.metadata", Body=description)

    def _fail(self, execution_id: str, failure: Failure) -> None:
        done = self._clock()
        found = self._executions.get(execution_id)
        total = round((done - found.submitted) * 1000) if found else 0
        self._executions.move(
            execution_id,
            {State.QUEUED, State.RUNNING},
            state=State.FAILED,
            reason=failure.reason,
            failure=failure,
            completed=done,
            statistics=Statistics(total_ms=total),
        )


def _read(query: TrinoQuery, statement: Statement, out: BinaryIO) -> _Result:
    """Run a query and write its rows as they come."""
    rows = query.execute()
    if query.update_type is not None:
        # the row is Trino's count of changes, which Athena tells beside the rows
        return _Result(0, (), query.update_count, dict(query.stats))
    kinds = [TrinoType.parse(one["typeSignature"]) for one in query.columns or ()]
    names = [one["name"] for one in query.columns or ()]
    columns = tuple(column_of(name, kind) for name, kind in zip(names, kinds, strict=True))
    for index, label in enumerate(statement.labels[: len(columns)]):
        columns = (*columns[:index], replace(columns[index], name=label), *columns[index + 1 :])
    line = csv_line if statement.has_rows else text_lines
    if statement.has_rows:
        out.write(csv_line([one.name for one in columns]))
    write_rows(out, rows, [renderer(kind) for kind in kinds], line)
    return _Result(out.tell(), columns, None, dict(query.stats))


def _failure_of(error: TrinoQueryError) -> Failure:
    name, kind = error.error_name or "GENERIC_INTERNAL_ERROR", error.error_type
    reason = f"{name}: {error.message}"
    if name.startswith("ICEBERG"):
        return Failure(reason, 2, _ICEBERG, retryable=name == "ICEBERG_COMMIT_ERROR")
    if name == "HIVE_METASTORE_ERROR":
        return Failure(reason, 1, _METASTORE, retryable=True)
    if kind == "USER_ERROR":
        return Failure(reason, 2, _USER)
    return Failure(reason, 1, _INTERNAL, retryable=kind != "INSUFFICIENT_RESOURCES")
