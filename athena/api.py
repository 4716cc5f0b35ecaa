"""Owns the operations of Athena's API on queries and workgroups: a dict as botocore's model has it in, another out."""

from __future__ import annotations

import base64
import binascii
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from athena._validation import validate
from athena.catalog import CATALOG
from athena.executions import Execution, State
from athena.locations import Location
from athena.paging import page_bounds, paged
from athena.results import read_page
from athena.sql import StatementType, classify
from athena.wire import invalid_request
from athena.workgroups import ENGINE_VERSION, PRIMARY, Workgroup, Workgroups
from lake.aws_json import ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_s3 import S3Client

    from athena.catalog import Catalog
    from athena.engine import Engine
    from athena.executions import Executions

__all__ = ["Api"]

_PAGE = 50
_MOST_ROWS = 1000
_NO_LOCATION = (
    "No output location provided. An output location is required either through the Workgroup result configuration "
    "setting or as an API input."
)


@dataclass(frozen=True)
class Api:
    """The operations, by name; blocking, for a thread of its own."""

    executions: Executions
    workgroups: Workgroups
    engine: Engine
    catalog: Catalog
    s3: S3Client
    clock: Callable[[], float]

    def call(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        """Run an operation.

        Raises:
            ServiceError: what a caller of Athena would see.
        """
        validate(operation, request)
        operations: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
            "StartQueryExecution": self.start,
            "GetQueryExecution": self.get,
            "BatchGetQueryExecution": self.batch_get,
            "ListQueryExecutions": self.listed,
            "GetQueryResults": self.results,
            "StopQueryExecution": self.stop,
            "GetWorkGroup": lambda given: {"WorkGroup": self.workgroups.get(given["WorkGroup"]).described()},
            "ListWorkGroups": self.workgroups.listed,
            "CreateWorkGroup": lambda given: self.workgroups.create(given, self.clock()),
            "UpdateWorkGroup": self.workgroups.update,
            "DeleteWorkGroup": self.delete_workgroup,
            "ListDataCatalogs": self.catalog.list_data_catalogs,
            "GetDataCatalog": self.catalog.get_data_catalog,
            "ListDatabases": self.catalog.list_databases,
            "GetDatabase": self.catalog.get_database,
            "ListTableMetadata": self.catalog.list_table_metadata,
            "GetTableMetadata": self.catalog.get_table_metadata,
        }
        known = operations.get(operation)
        if known is None:
            raise ServiceError(
                "UnknownOperationException",
                f"The local endpoint does not serve {operation}; it serves {', '.join(operations)}",
            )
        return known(request)

    def start(self, request: dict[str, Any]) -> dict[str, Any]:
        """StartQueryExecution; the same ClientRequestToken answers the same query."""
        context = request.get("QueryExecutionContext", {})
        catalog = context.get("Catalog", CATALOG)
        if catalog.lower() != CATALOG.lower():
            raise invalid_request(f"Catalog {catalog} is not found; there is {CATALOG}")
        workgroup = self.workgroups.get(request.get("WorkGroup", PRIMARY))
        if workgroup.state != "ENABLED":
            raise invalid_request(f"WorkGroup {workgroup.name} is disabled")
        statement = classify(request["QueryString"])
        location = self._output_location(request, workgroup)
        execution_id = str(uuid.uuid4())
        wanted = Execution(
            id=execution_id,
            sql=request["QueryString"],
            type=statement.type,
            substatement=statement.substatement,
            workgroup=workgroup.name,
            catalog=context.get("Catalog"),
            database=context.get("Database"),
            output_location=location.below(f"{execution_id}.{statement.extension}"),
            parameters=tuple(request.get("ExecutionParameters", ())),
            submitted=self.clock(),
            token=request.get("ClientRequestToken"),
        )
        kept = self.executions.add(wanted)
        if kept.id == execution_id:
            self.engine.submit(execution_id)
        elif (kept.sql, kept.parameters, kept.database) != (wanted.sql, wanted.parameters, wanted.database):
            raise invalid_request("Idempotent parameters do not match")
        return {"QueryExecutionId": kept.id}

    def _output_location(self, request: dict[str, Any], workgroup: Workgroup) -> Location:
        given = request.get("ResultConfiguration", {}).get("OutputLocation")
        if workgroup.enforced and workgroup.output_location:
            given = workgroup.output_location
        found = given or workgroup.output_location
        if not found:
            raise invalid_request(_NO_LOCATION)
        location = Location.parse(found)
        try:
            self.s3.head_bucket(Bucket=location.bucket)
        except (ClientError, BotoCoreError) as error:
            raise invalid_request(f"Unable to verify/create output bucket {location.bucket}: {error}") from None
        return location

    def get(self, request: dict[str, Any]) -> dict[str, Any]:
        """GetQueryExecution."""
        return {"QueryExecution": _described(self._execution(request))}

    def batch_get(self, request: dict[str, Any]) -> dict[str, Any]:
        """BatchGetQueryExecution."""
        ids = request["QueryExecutionIds"]
        found = {one: self.executions.get(one) for one in ids}
        return {
            "QueryExecutions": [_described(one) for one in found.values() if one is not None],
            "UnprocessedQueryExecutionIds": [
                {"QueryExecutionId": one, "ErrorCode": "INVALID_INPUT", "ErrorMessage": _unknown(one)}
                for one, execution in found.items()
                if execution is None
            ],
        }

    def listed(self, request: dict[str, Any]) -> dict[str, Any]:
        """ListQueryExecutions, newest first."""
        workgroup = self.workgroups.get(request.get("WorkGroup", PRIMARY))
        start, most = page_bounds(request, _PAGE)
        # one more than the page tells whether another follows
        found = self.executions.listed(workgroup.name, start, most + 1)
        return paged("QueryExecutionIds", found[:most], start, start + len(found))

    def stop(self, request: dict[str, Any]) -> dict[str, Any]:
        """StopQueryExecution; of a query that has ended, it does nothing."""
        self.engine.stop(self._execution(request).id)
        return {}

    def results(self, request: dict[str, Any]) -> dict[str, Any]:
        """GetQueryResults, read from the result file; a query's first page starts with the header."""
        execution = self._execution(request)
        if not execution.state.is_final:
            raise invalid_request(f"Query has not yet finished. Current state: {execution.state}")
        if execution.state is not State.SUCCEEDED:
            raise invalid_request(f"Query did not finish successfully. Final query state: {execution.state}")
        place = Location.parse(execution.output_location)

        def read(start: int, end: int) -> bytes:
            found = self.s3.get_object(Bucket=place.bucket, Key=place.key, Range=f"bytes={start}-{end - 1}")
            return found["Body"].read()

        start = _byte(request.get("NextToken"), execution)
        most = request.get("MaxResults", _MOST_ROWS)
        try:
            page = read_page(read, execution.result_bytes, start, most, is_csv=execution.type is StatementType.DML)
        except (ClientError, BotoCoreError) as error:
            raise invalid_request(f"Could not find results at {execution.output_location}: {error}") from None
        following = {} if page.next_byte is None else {"NextToken": _token(page.next_byte)}
        return {
            "UpdateCount": execution.update_count or 0,
            "ResultSet": {
                "Rows": [
                    {"Data": [{} if value is None else {"VarCharValue": value} for value in row]} for row in page.rows
                ],
                "ResultSetMetadata": {"ColumnInfo": [one.as_column_info() for one in execution.columns]},
            },
            **following,
        }

    def delete_workgroup(self, request: dict[str, Any]) -> dict[str, Any]:
        """DeleteWorkGroup."""
        has_queries = bool(self.executions.listed(request["WorkGroup"], 0, 1))
        return self.workgroups.delete(request, has_queries=has_queries)

    def _execution(self, request: dict[str, Any]) -> Execution:
        execution_id = request["QueryExecutionId"]
        found = self.executions.get(execution_id)
        if found is None:
            raise invalid_request(_unknown(execution_id))
        return found


def _unknown(execution_id: str) -> str:
    return f"QueryExecution {execution_id} was not found"


def _token(byte: int) -> str:
    return base64.urlsafe_b64encode(str(byte).encode()).decode()


def _byte(token: str | None, execution: Execution) -> int:
    if token is None:
        return 0
    try:
        found = int(base64.urlsafe_b64decode(token.encode()))
    except (ValueError, binascii.Error):
        found = -1
    if not 0 < found < execution.result_bytes:
        raise invalid_request(f"Invalid NextToken {token!r} of query {execution.id}")
    return found


def _described(one: Execution) -> dict[str, Any]:
    context = {"Catalog": one.catalog, "Database": one.database}
    status: dict[str, Any] = {"State": one.state, "SubmissionDateTime": one.submitted}
    if one.reason is not None:
        status["StateChangeReason"] = one.reason
    if one.completed is not None:
        status["CompletionDateTime"] = one.completed
    if one.failure is not None:
        status["AthenaError"] = {
            "ErrorCategory": one.failure.category,
            "ErrorType": one.failure.type,
            "Retryable": one.failure.retryable,
            "ErrorMessage": one.failure.reason,
        }
    took = one.statistics
    return {
        "QueryExecutionId": one.id,
        "Query": one.sql,
        "StatementType": one.type,
        "SubstatementType": one.substatement,
        "ResultConfiguration": {"OutputLocation": one.output_location},
        "ResultReuseConfiguration": {"ResultReuseByAgeConfiguration": {"Enabled": False}},
        "QueryExecutionContext": {key: value for key, value in context.items() if value is not None},
        "Status": status,
        "Statistics": {
            "EngineExecutionTimeInMillis": took.engine_ms,
            "DataScannedInBytes": took.scanned_bytes,
            "TotalExecutionTimeInMillis": took.total_ms,
            "QueryQueueTimeInMillis": took.queue_ms,
            "ServicePreProcessingTimeInMillis": 0,
            "QueryPlanningTimeInMillis": took.planning_ms,
            "ServiceProcessingTimeInMillis": took.service_ms,
            "ResultReuseInformation": {"ReusedPreviousResult": False},
        },
        "WorkGroup": one.workgroup,
        "EngineVersion": ENGINE_VERSION,
        **({"ExecutionParameters": list(one.parameters)} if one.parameters else {}),
    }
