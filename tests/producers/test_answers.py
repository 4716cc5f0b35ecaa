from __future__ import annotations

import pytest
from botocore.exceptions import (
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
)
from botocore.parsers import ResponseParserError

from producers.answers import Verdict, judge, read_answer, said
from producers.spool import WaitingEvent

THREE = [WaitingEvent(7, b"a"), WaitingEvent(8, b"b"), WaitingEvent(9, b"c")]


def refusal(code, message="", status=400):
    response = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(response, "PutRecordBatch")


def test_each_record_has_its_own_answer():
    answer = {
        "FailedPutCount": 1,
        "RequestResponses": [
            {"RecordId": "x"},
            {"ErrorCode": "ServiceUnavailableException", "ErrorMessage": "Slow down."},
            {"RecordId": "y"},
        ],
    }
    found = read_answer(THREE, answer)
    assert (found.acknowledged, found.failed) == ([7, 9], [8])
    assert found.last_refusal == "ServiceUnavailableException: Slow down."


def test_the_count_of_failures_is_not_believed_over_the_records_own_answers():
    answer = {"FailedPutCount": 0, "RequestResponses": [{"RecordId": "x"}, {"ErrorCode": "InternalFailure"}, {}]}
    found = read_answer(THREE, answer)
    assert (found.acknowledged, found.failed) == ([7], [8, 9])


def test_an_answer_that_is_too_short_acknowledges_no_more_than_it_names():
    found = read_answer(THREE, {"FailedPutCount": 0, "RequestResponses": [{"RecordId": "x"}]})
    assert (found.acknowledged, found.failed) == ([7], [8, 9])


@pytest.mark.parametrize(
    "error",
    [
        refusal("ServiceUnavailableException", "Slow down.", 503),
        refusal("ServiceUnavailableException", "Slow down.", 400),
        refusal("ThrottlingException", "Rate exceeded"),
        refusal("InternalFailure", "", 500),
        refusal("502", "Bad Gateway", 502),
        refusal("SomethingNew", "", 504),
        EndpointConnectionError(endpoint_url="http://x"),
        ConnectTimeoutError(endpoint_url="http://x"),
        ReadTimeoutError(endpoint_url="http://x"),
        CredentialRetrievalError(provider="iam-role", error_msg="timeout"),
        ResponseParserError("not JSON"),
    ],
    ids=lambda error: said(error)[:40],
)
def test_what_may_pass_later_is_tried_later(error):
    assert judge(error) is Verdict.TRY_LATER


@pytest.mark.parametrize(
    "error",
    [
        refusal("ResourceNotFoundException", "Firehose x under account 1 not found."),
        refusal("AccessDeniedException", "not authorized"),
        refusal("InvalidArgumentException", "Firehose x is not configured as DirectPut"),
        refusal("UnrecognizedClientException", "The security token included in the request is invalid."),
        # the stream's name, not a record, is too long here: no record may be blamed
        refusal(
            "ValidationException",
            "1 validation error detected: Value 'x' at 'deliveryStreamName' failed to satisfy constraint: "
            "Member must have length less than or equal to 64",
        ),
        NoCredentialsError(),
    ],
    ids=lambda error: said(error)[:40],
)
def test_what_only_a_person_can_change_is_given_up(error):
    assert judge(error) is Verdict.GIVE_UP


@pytest.mark.parametrize(
    "error",
    [
        refusal(
            "ValidationException",
            "1 validation error detected: Value '…' at 'records.3.member.data' failed to satisfy constraint: "
            "Member must have length less than or equal to 1024000",
        ),
        refusal("InvalidArgumentException", "Records size exceeds 4 MB limit"),
        refusal("413", "Request Entity Too Large", 413),
    ],
    ids=["record", "call", "proxy"],
)
def test_a_refusal_for_size_is_told_from_others(error):
    assert judge(error) is Verdict.TOO_BIG
