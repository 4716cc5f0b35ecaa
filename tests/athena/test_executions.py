from __future__ import annotations

import pytest

from athena._validation import validate
from athena.executions import Execution, Executions, Failure, State, Statistics
from athena.rendering import Column
from athena.sql import StatementType
from athena.workgroups import Workgroups
from lake.aws_json import ServiceError


def execution(number=1, **changes):
    given = {
        "id": f"id-{number}",
        "sql": "SELECT 1",
        "type": StatementType.DML,
        "substatement": "SELECT",
        "workgroup": "primary",
        "catalog": None,
        "database": "shop",
        "output_location": f"s3://b/id-{number}.csv",
        "parameters": ("1",),
        "submitted": 1000.0 + number,
    }
    return Execution(**(given | changes))


@pytest.fixture
def kept(tmp_path):
    made = Executions(tmp_path / "executions.sqlite")
    yield made
    made.close()


def test_a_query_is_read_back_as_it_was_kept(kept):
    one = execution(
        state=State.FAILED,
        failure=Failure("why", 2, 1000),
        statistics=Statistics(engine_ms=5),
        columns=(Column("a", "decimal", 12, 2),),
    )
    kept.add(one)
    assert kept.get("id-1") == one


def test_a_query_that_is_not_there_is_none(kept):
    assert kept.get("nope") is None


def test_the_same_token_is_the_same_query(kept):
    kept.add(execution(1, token="t" * 32))
    assert kept.add(execution(2, token="t" * 32)).id == "id-1"
    assert kept.get("id-2") is None


def test_a_query_moves_from_the_states_that_are_named(kept):
    kept.add(execution())
    assert kept.move("id-1", {State.QUEUED}, state=State.RUNNING).state is State.RUNNING


def test_a_query_that_was_cancelled_does_not_succeed_afterwards(kept):
    kept.add(execution(state=State.CANCELLED))
    assert kept.move("id-1", {State.QUEUED, State.RUNNING}, state=State.SUCCEEDED) is None
    assert kept.get("id-1").state is State.CANCELLED


def test_queries_are_listed_newest_first_by_workgroup(kept):
    for number in range(4):
        kept.add(execution(number, workgroup="other" if number == 2 else "primary"))
    assert kept.listed("primary", 0, 2) == ["id-3", "id-1"]
    assert kept.listed("primary", 2, 2) == ["id-0"]


def test_what_ran_when_the_process_ended_has_failed_after_a_restart(tmp_path):
    path = tmp_path / "executions.sqlite"
    before = Executions(path)
    before.add(execution(1, state=State.RUNNING))
    before.add(execution(2, state=State.SUCCEEDED))
    before.close()

    after = Executions(path)
    after.fail_unfinished(2000.0)
    failed = after.get("id-1")
    assert (failed.state, failed.completed, failed.failure.category) == (State.FAILED, 2000.0, 1)
    assert failed.reason == "The local endpoint ended while the query was running; run it again"
    assert after.get("id-2").state is State.SUCCEEDED
    after.close()


def test_history_is_forgotten_after_45_days(kept):
    kept.add(execution(1, submitted=0.0, state=State.SUCCEEDED))
    kept.fail_unfinished(45 * 24 * 3600 + 1.0)
    assert kept.get("id-1") is None


@pytest.fixture
def workgroups(tmp_path):
    return Workgroups(tmp_path / "workgroups.json", 1.0)


def test_primary_is_there_without_an_output_location(workgroups):
    assert workgroups.get("primary").described()["Configuration"] == {
        "ResultConfiguration": {},
        "EnforceWorkGroupConfiguration": False,
        "PublishCloudWatchMetricsEnabled": False,
        "RequesterPaysEnabled": False,
        "EngineVersion": {"SelectedEngineVersion": "AUTO", "EffectiveEngineVersion": "Athena engine version 3"},
    }


def test_a_workgroup_outlives_the_process(workgroups, tmp_path):
    location = {"ResultConfiguration": {"OutputLocation": "s3://b/wg/"}}
    workgroups.create({"Name": "team", "Configuration": location}, 2.0)
    found = Workgroups(tmp_path / "workgroups.json", 3.0).get("team")
    assert (found.output_location, found.enforced, found.created) == ("s3://b/wg/", True, 2.0)


def test_an_update_changes_only_what_it_names(workgroups):
    workgroups.update(
        {
            "WorkGroup": "primary",
            "ConfigurationUpdates": {"ResultConfigurationUpdates": {"OutputLocation": "s3://b/p/"}},
        }
    )
    workgroups.update({"WorkGroup": "primary", "Description": "ours"})
    found = workgroups.get("primary")
    assert (found.output_location, found.description, found.state) == ("s3://b/p/", "ours", "ENABLED")


def test_primary_is_not_deleted(workgroups):
    with pytest.raises(ServiceError, match="primary can't be deleted"):
        workgroups.delete({"WorkGroup": "primary"}, has_queries=False)


def test_a_workgroup_with_queries_is_deleted_only_with_them(workgroups):
    workgroups.create({"Name": "team"}, 2.0)
    with pytest.raises(ServiceError, match="team is not empty"):
        workgroups.delete({"WorkGroup": "team"}, has_queries=True)
    workgroups.delete({"WorkGroup": "team", "RecursiveDeleteOption": True}, has_queries=True)
    with pytest.raises(ServiceError, match="team is not found"):
        workgroups.get("team")


@pytest.mark.parametrize(
    ("operation", "request_", "message"),
    [
        (
            "StartQueryExecution",
            {},
            "Value null at 'queryString' failed to satisfy constraint: Member must not be null",
        ),
        (
            "StartQueryExecution",
            {"QueryString": 3},
            "'queryString' failed to satisfy constraint: Member must be of type",
        ),
        ("GetQueryResults", {"QueryExecutionId": "x", "MaxResults": 1001}, "less than or equal to 1000"),
        ("GetQueryResults", {"QueryExecutionId": "x", "MaxResults": True}, "must be of type integer"),
        ("GetWorkGroup", {"WorkGroup": "a b"}, "must satisfy regular expression pattern"),
        ("BatchGetQueryExecution", {"QueryExecutionIds": ["x"] * 51}, "length less than or equal to 50"),
        (
            "StartQueryExecution",
            {"QueryString": "SELECT 1", "ClientRequestToken": "short"},
            "Value 'short' at 'clientRequestToken' failed",
        ),
    ],
)
def test_a_request_that_breaks_the_model_is_refused_by_name(operation, request_, message):
    with pytest.raises(ServiceError, match=message) as refused:
        validate(operation, request_)
    assert refused.value.code == "InvalidRequestException"


def test_members_that_the_model_does_not_know_pass():
    validate("GetWorkGroup", {"WorkGroup": "primary", "FromTheFuture": 1})


def test_an_operation_that_athena_does_not_have_is_unknown():
    with pytest.raises(ServiceError) as refused:
        validate("Nope", {})
    assert refused.value.code == "UnknownOperationException"
