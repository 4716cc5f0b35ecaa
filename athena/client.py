"""Owns how lakehose asks Athena, the real one and the local one alike: start, wait, read every page."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from lake.errors import FindingError, TerminalError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lake.clients import Cloud

__all__ = ["QueryResult", "ResultColumn", "Took", "run_query"]

_FIRST_POLL, _LONGEST_POLL = 0.1, 2.0


@dataclass(frozen=True)
class ResultColumn:
    """A column of the answer."""

    name: str
    type: str
    """Athena's name of the type, for example `varchar` or `bigint`."""


@dataclass(frozen=True)
class Took:
    """What the query cost."""

    total_ms: int
    queue_ms: int
    engine_ms: int
    scanned_bytes: int


@dataclass(frozen=True)
class QueryResult:
    """A query's answer, all of it, as text."""

    query_id: str
    columns: tuple[ResultColumn, ...]
    rows: tuple[tuple[str | None, ...], ...]
    update_count: int
    output_location: str
    """The result file in S3."""
    took: Took


def run_query(
    cloud: Cloud,
    sql: str,
    *,
    database: str | None,
    output_location: str | None,
    workgroup: str = "primary",
    catalog: str = "AwsDataCatalog",
    parameters: tuple[str, ...] = (),
    sleep: Callable[[float], None] = time.sleep,
) -> QueryResult:
    """Run one statement and read its whole answer.

    Args:
        cloud: where Athena is.
        sql: one statement.
        database: the one unqualified names are in.
        output_location: `s3://bucket/prefix/` for results; None leaves it to the workgroup.
        workgroup: see Athena.
        catalog: see Athena.
        parameters: SQL literals for the statement's `?` places.
        sleep: waits between two looks at the query, 0.1 s growing to 2 s.

    Raises:
        FindingError: the query failed or was cancelled; says why, with its id.
        TerminalError: Athena doesn't take it.
    """
    athena = cloud.athena
    context: dict[str, str] = {"Catalog": catalog, **({"Database": database} if database else {})}
    request: dict[str, Any] = {"QueryString": sql, "QueryExecutionContext": context, "WorkGroup": workgroup}
    if output_location:
        request["ResultConfiguration"] = {"OutputLocation": output_location}
    if parameters:
        request["ExecutionParameters"] = list(parameters)
    try:
        query_id = athena.start_query_execution(**request)["QueryExecutionId"]
    except ClientError as error:
        found = error.response["Error"]
        if found["Code"] == "InvalidRequestException":
            raise TerminalError(f"Athena does not take the query: {found['Message']}") from None
        raise
    try:
        execution = _wait(cloud, query_id, sleep)
    except KeyboardInterrupt:
        athena.stop_query_execution(QueryExecutionId=query_id)
        raise
    return _read(cloud, query_id, execution)


def _wait(cloud: Cloud, query_id: str, sleep: Callable[[float], None]) -> Mapping[str, Any]:
    pause = _FIRST_POLL
    while True:
        execution: Mapping[str, Any] = cloud.athena.get_query_execution(QueryExecutionId=query_id)["QueryExecution"]
        state = execution["Status"]["State"]
        if state == "SUCCEEDED":
            return execution
        if state in {"FAILED", "CANCELLED"}:
            reason = execution["Status"].get("StateChangeReason", "Athena gives no reason")
            raise FindingError(f"query {query_id} {state}: {reason}")
        sleep(pause)
        pause = min(pause * 1.3, _LONGEST_POLL)


def _read(cloud: Cloud, query_id: str, execution: Mapping[str, Any]) -> QueryResult:
    rows: list[tuple[str | None, ...]] = []
    columns: tuple[ResultColumn, ...] = ()
    updates = 0
    for index, page in enumerate(cloud.athena.get_paginator("get_query_results").paginate(QueryExecutionId=query_id)):
        found = page["ResultSet"]
        if index == 0:
            infos = found.get("ResultSetMetadata", {}).get("ColumnInfo", [])
            columns = tuple(ResultColumn(one["Name"], one["Type"]) for one in infos)
            updates = page.get("UpdateCount", 0)
        rows += [tuple(one.get("VarCharValue") for one in row.get("Data", [])) for row in found.get("Rows", [])]
    # the answer of a query, and of it only, starts with the names of its columns
    if execution.get("StatementType") == "DML" and columns:
        rows = rows[1:]
    took = execution.get("Statistics", {})
    return QueryResult(
        query_id=query_id,
        columns=columns,
        rows=tuple(rows),
        update_count=updates,
        output_location=execution["ResultConfiguration"]["OutputLocation"],
        took=Took(
            total_ms=took.get("TotalExecutionTimeInMillis", 0),
            queue_ms=took.get("QueryQueueTimeInMillis", 0),
            engine_ms=took.get("EngineExecutionTimeInMillis", 0),
            scanned_bytes=took.get("DataScannedInBytes", 0),
        ),
    )
