"""Queries over boto3, on Iceberg tables that PyIceberg wrote, through a real Trino."""

from __future__ import annotations

import time

import pytest
from botocore.exceptions import ClientError

from athena.client import run_query
from athena.session import Session
from athena.trino import TrinoServer
from lake.errors import FindingError, TerminalError


def rows(athena, execution, **request):
    found = athena.get_query_results(QueryExecutionId=execution["QueryExecutionId"], **request)
    return [[one.get("VarCharValue") for one in row["Data"]] for row in found["ResultSet"]["Rows"]]


def test_all_types_come_in_athenas_form(ask, athena):
    done = ask("SELECT * FROM everything ORDER BY id")
    header, values, nulls = rows(athena, done)
    assert dict(zip(header, values, strict=True)) == {
        "id": "1",
        "flag": "true",
        "small": "7",
        "big": "9007199254740993",
        "ratio": "0.1",
        "huge": "1.5E10",
        "price": "12345678.90",
        "name": 'say "hi", ok',
        "empty": "",
        "day": "2013-01-31",
        "at": "2013-01-31 05:06:07.123",
        "at_utc": "2013-01-31 05:06:07.123 UTC",
        "raw": "00 ff 7a",
        "tags": "[a, null, b]",
        "counts": "{x=1}",
        "place": "{city=Oslo, size=2.0}",
    }
    assert nulls == ["2"] + [None] * 15


def test_a_null_is_an_empty_datum(ask, athena):
    done = ask("SELECT CAST(NULL AS varchar) AS a, '' AS b")
    found = athena.get_query_results(QueryExecutionId=done["QueryExecutionId"])
    assert found["ResultSet"]["Rows"][1]["Data"] == [{}, {"VarCharValue": ""}]


def test_columns_tell_type_precision_and_scale(ask, athena):
    done = ask("SELECT price, name, ratio, at FROM everything")
    found = athena.get_query_results(QueryExecutionId=done["QueryExecutionId"], MaxResults=1)
    infos = found["ResultSet"]["ResultSetMetadata"]["ColumnInfo"]
    assert [(one["Name"], one["Type"], one["Precision"], one["Scale"]) for one in infos] == [
        ("price", "decimal", 12, 2),
        ("name", "varchar", 2147483647, 0),
        ("ratio", "float", 17, 0),
        ("at", "timestamp", 3, 0),
    ]


def test_the_result_file_is_csv_as_athena_writes_it(ask, lake_cloud):
    done = ask("SELECT id, name, empty FROM everything ORDER BY id")
    location = done["ResultConfiguration"]["OutputLocation"]
    assert location == f"s3://athena-tests/results/{done['QueryExecutionId']}.csv"
    content = lake_cloud.s3.get_object(Bucket="athena-tests", Key=f"results/{done['QueryExecutionId']}.csv")[
        "Body"
    ].read()
    assert content == b'"id","name","empty"\n"1","say ""hi"", ok",""\n"2",,\n'


def test_a_metadata_file_lies_beside_the_result(ask, lake_cloud):
    done = ask("SELECT 1 AS a")
    lake_cloud.s3.head_object(Bucket="athena-tests", Key=f"results/{done['QueryExecutionId']}.csv.metadata")


def test_pages_hold_a_thousand_rows_and_the_header_comes_once(ask, athena):
    done = ask("SELECT n FROM numbers ORDER BY n")
    pages = athena.get_paginator("get_query_results").paginate(QueryExecutionId=done["QueryExecutionId"])
    lengths, values = [], []
    for page in pages:
        lengths.append(len(page["ResultSet"]["Rows"]))
        values += [row["Data"][0]["VarCharValue"] for row in page["ResultSet"]["Rows"]]
    assert lengths == [1000, 1000, 501]
    assert values == ["n", *(str(n) for n in range(2500))]


def test_a_token_of_nowhere_is_refused(ask, athena):
    done = ask("SELECT 1 AS a")
    with pytest.raises(athena.exceptions.InvalidRequestException, match="Invalid NextToken"):
        athena.get_query_results(QueryExecutionId=done["QueryExecutionId"], NextToken="bm8=")


def test_a_result_larger_than_memory_goes_through_a_file(ask, athena):
    done = ask("SELECT n, rpad('', 1000, 'x') AS text FROM numbers")
    assert done["Status"]["State"] == "SUCCEEDED"
    pages = athena.get_paginator("get_query_results").paginate(QueryExecutionId=done["QueryExecutionId"])
    found = [row["Data"][1]["VarCharValue"] for page in pages for row in page["ResultSet"]["Rows"]]
    assert (len(found), found[-1]) == (2501, "x" * 1000)


def test_a_tables_own_files_are_a_table(ask, athena):
    done = ask('SELECT count(*), sum(record_count) FROM "shop"."numbers$files"')
    assert rows(athena, done)[1] == ["2", "2500"]


def test_the_catalogs_full_name_is_taken(ask, athena):
    done = ask('SELECT count(*) FROM "AwsDataCatalog"."shop"."numbers"')
    assert rows(athena, done)[1] == ["2500"]


def test_statistics_are_those_of_the_query(ask):
    found = ask("SELECT sum(half) FROM numbers")["Statistics"]
    assert 0 < found["DataScannedInBytes"] < 100_000
    assert 0 < found["EngineExecutionTimeInMillis"] <= found["TotalExecutionTimeInMillis"]


def test_parameters_fill_the_placeholders(ask, athena):
    done = ask("SELECT n, ? AS text FROM numbers WHERE n = ?", ExecutionParameters=["'it''s'", "42"])
    assert rows(athena, done)[1] == ["42", "it's"]
    assert done["ExecutionParameters"] == ["'it''s'", "42"]


def test_other_statements_have_no_header_and_a_text_file(ask, athena):
    done = ask("SHOW TABLES LIKE 'n%'")
    assert rows(athena, done) == [["numbers"]]
    assert done["StatementType"] == "UTILITY"
    assert done["ResultConfiguration"]["OutputLocation"].endswith(".txt")


def test_a_plan_is_a_row_a_line(ask, athena):
    assert rows(athena, ask("EXPLAIN SELECT 1"))[0] == ["Trino version: 476"]


def test_changes_are_counted_and_have_no_rows(ask, athena):
    inserted = ask("INSERT INTO numbers VALUES (-1, 0.5), (-2, 0.5)")
    found = athena.get_query_results(QueryExecutionId=inserted["QueryExecutionId"])
    assert found["UpdateCount"] == 2
    assert found["ResultSet"] == {"Rows": [], "ResultSetMetadata": {"ColumnInfo": []}}
    deleted = ask("DELETE FROM numbers WHERE n < 0")
    assert athena.get_query_results(QueryExecutionId=deleted["QueryExecutionId"])["UpdateCount"] == 2


def test_a_table_made_of_a_query_has_columns_of_none(ask, athena):
    done = ask(
        "CREATE TABLE made WITH (external_location = 's3://athena-tests/made/', format = 'PARQUET') AS "
        "SELECT n FROM numbers WHERE n < 3"
    )
    assert (done["Status"]["State"], done["SubstatementType"]) == ("SUCCEEDED", "CREATE_TABLE_AS_SELECT")
    found = athena.get_query_results(QueryExecutionId=done["QueryExecutionId"], MaxResults=1)
    assert found["ResultSet"]["ResultSetMetadata"]["ColumnInfo"] == []
    assert rows(athena, ask("SELECT sum(n) FROM made"))[1] == ["3"]


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("SELEC 1", "SYNTAX_ERROR: line 1:1: mismatched input 'SELEC'"),
        ("SELECT x FROM numbers", "COLUMN_NOT_FOUND: line 1:8: Column 'x' cannot be resolved"),
        ("SELECT * FROM nope", "TABLE_NOT_FOUND: line 1:15: Table 'awsdatacatalog.shop.nope' does not exist"),
        ("SELECT 1 / 0", "DIVISION_BY_ZERO: Division by zero"),
        ("OPTIMIZE numbers REWRITE DATA USING BIN_PACK", "NOT_SUPPORTED: OPTIMIZE is not served by the local endpoint"),
    ],
)
def test_a_wrong_query_fails_as_the_users_mistake(ask, athena, sql, reason):
    done = ask(sql)
    assert done["Status"]["State"] == "FAILED"
    assert done["Status"]["StateChangeReason"].startswith(reason)
    assert done["Status"]["AthenaError"]["ErrorCategory"] == 2
    with pytest.raises(athena.exceptions.InvalidRequestException, match="Final query state: FAILED"):
        athena.get_query_results(QueryExecutionId=done["QueryExecutionId"])


def test_a_query_is_stopped_in_trino_too(ask, athena, run_forever, stack_dir):
    ask("SELECT 1")  # so that Trino runs
    execution_id = run_forever("-- stop me\n")
    with pytest.raises(athena.exceptions.InvalidRequestException, match="has not yet finished"):
        athena.get_query_results(QueryExecutionId=execution_id)
    athena.stop_query_execution(QueryExecutionId=execution_id)
    found = athena.get_query_execution(QueryExecutionId=execution_id)["QueryExecution"]["Status"]
    assert (found["State"], found["StateChangeReason"]) == ("CANCELLED", "Query cancelled by user")
    trino = Session(TrinoServer.running(stack_dir).url)
    deadline = time.monotonic() + 20
    left = None
    while left != 0 and time.monotonic() < deadline:
        left = trino.value(
            "SELECT count(*) FROM system.runtime.queries WHERE query LIKE '%-- stop' || ' me%' AND state = 'RUNNING'"
        )
    assert left == 0


def test_a_query_that_has_ended_is_not_cancelled(ask, athena, wait):
    done = ask("SELECT 1")
    athena.stop_query_execution(QueryExecutionId=done["QueryExecutionId"])
    assert wait(done["QueryExecutionId"])["Status"]["State"] == "SUCCEEDED"


def test_more_queries_than_run_at_once_wait_for_their_turn(athena, results, tables, wait):
    started = [
        athena.start_query_execution(
            QueryString=f"SELECT {number} AS n", ResultConfiguration={"OutputLocation": results}
        )["QueryExecutionId"]
        for number in range(15)
    ]
    done = [wait(one) for one in started]
    assert [rows(athena, one)[1] for one in done] == [[str(number)] for number in range(15)]


def test_the_same_request_token_starts_one_query(athena, results, tables):
    request = {"ResultConfiguration": {"OutputLocation": results}, "ClientRequestToken": "t" * 32}
    first = athena.start_query_execution(QueryString="SELECT 1", **request)
    second = athena.start_query_execution(QueryString="SELECT 1", **request)
    assert first["QueryExecutionId"] == second["QueryExecutionId"]
    with pytest.raises(athena.exceptions.InvalidRequestException, match="Idempotent parameters do not match"):
        athena.start_query_execution(QueryString="SELECT 2", **request)


def test_a_query_without_an_output_location_is_refused(athena):
    with pytest.raises(athena.exceptions.InvalidRequestException, match="No output location provided"):
        athena.start_query_execution(QueryString="SELECT 1")


def test_a_bucket_that_is_not_there_is_refused(athena):
    with pytest.raises(athena.exceptions.InvalidRequestException, match="Unable to verify/create output bucket nope-1"):
        athena.start_query_execution(
            QueryString="SELECT 1", ResultConfiguration={"OutputLocation": "s3://nope-1/results/"}
        )


def test_a_workgroups_location_is_used_and_wins_where_it_is_enforced(athena, ask):
    configuration = {"ResultConfiguration": {"OutputLocation": "s3://athena-tests/team/"}}
    athena.create_work_group(Name="team", Configuration=configuration)
    done = ask("SELECT 1", WorkGroup="team")
    assert done["ResultConfiguration"]["OutputLocation"].startswith("s3://athena-tests/team/")
    athena.update_work_group(WorkGroup="team", ConfigurationUpdates={"EnforceWorkGroupConfiguration": False})
    done = ask("SELECT 1", WorkGroup="team")
    assert done["ResultConfiguration"]["OutputLocation"].startswith("s3://athena-tests/results/")
    athena.update_work_group(WorkGroup="team", State="DISABLED")
    with pytest.raises(athena.exceptions.InvalidRequestException, match="WorkGroup team is disabled"):
        ask("SELECT 1", WorkGroup="team")
    names = [one["Name"] for one in athena.list_work_groups()["WorkGroups"]]
    assert names == ["primary", "team"]
    athena.delete_work_group(WorkGroup="team", RecursiveDeleteOption=True)
    with pytest.raises(athena.exceptions.InvalidRequestException, match="WorkGroup team is not found"):
        athena.get_work_group(WorkGroup="team")


def test_queries_are_listed_and_found_in_batches(ask, athena):
    last = ask("SELECT 1")["QueryExecutionId"]
    assert athena.list_query_executions(MaxResults=1)["QueryExecutionIds"] == [last]
    found = athena.batch_get_query_execution(QueryExecutionIds=[last, "nope"])
    assert [one["QueryExecutionId"] for one in found["QueryExecutions"]] == [last]
    assert [one["QueryExecutionId"] for one in found["UnprocessedQueryExecutionIds"]] == ["nope"]


def test_the_list_of_queries_goes_on_by_token(ask, athena):
    ask("SELECT 1")
    ask("SELECT 2")
    first = athena.list_query_executions(MaxResults=1)
    second = athena.list_query_executions(MaxResults=1, NextToken=first["NextToken"])
    assert first["QueryExecutionIds"] != second["QueryExecutionIds"]


def test_a_query_that_is_unknown_is_an_invalid_request(athena):
    with pytest.raises(athena.exceptions.InvalidRequestException, match="QueryExecution nope was not found"):
        athena.get_query_execution(QueryExecutionId="nope")


def test_an_operation_that_is_not_served_says_what_is(athena):
    with pytest.raises(ClientError, match="does not serve CreateNotebook; it serves StartQueryExecution"):
        athena.create_notebook(WorkGroup="primary", Name="n")


def test_our_client_reads_every_page(lake_cloud, tables, results):
    found = run_query(lake_cloud, "SELECT n, half FROM numbers ORDER BY n", database="shop", output_location=results)
    assert [(one.name, one.type) for one in found.columns] == [("n", "bigint"), ("half", "double")]
    assert len(found.rows) == 2500
    assert found.rows[2499] == ("2499", "1249.5")
    assert found.took.scanned_bytes > 0


def test_our_client_tells_why_a_query_failed(lake_cloud, tables, results):
    with pytest.raises(FindingError, match=r"query [0-9a-f-]{36} FAILED: TABLE_NOT_FOUND: line 1:15") as failed:
        run_query(lake_cloud, "SELECT * FROM nope", database="shop", output_location=results)
    assert failed.value.exit_code == 1


def test_our_client_tells_what_athena_does_not_take(lake_cloud):
    with pytest.raises(TerminalError, match="Athena does not take the query: No output location provided") as refused:
        run_query(lake_cloud, "SELECT 1", database=None, output_location=None)
    assert refused.value.exit_code == 2
