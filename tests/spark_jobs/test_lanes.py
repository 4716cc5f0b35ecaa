"""Why a record that Firehose refused is in quarantine; no Spark is needed for it."""

import base64
import json
from datetime import UTC, datetime

import pytest

from lake.contract import Contract, Field, Primitive
from lake.envelope import Identity
from spark_jobs.lanes import Refused

VISITS = Contract("visits", "1.2.0", (Field("page", Primitive("string"), required=True),), (), ())
NOW = datetime(2013, 2, 1, tzinfo=UTC)
EVENT = {
    "event_id": "e-1",
    "tenant": "ann",
    "dataset": "visits",
    "event_time": "2013-01-31T10:00:00.000Z",
    "producer_id": "phone",
    "sequence": 7,
    "schema_version": "1.0.0",
    "payload": {"page": "/"},
}


def fate(raw, code="Lambda.ProcessingFailedStatus"):
    line = {
        "attemptsMade": 1,
        "arrivalTimestamp": 5,
        "errorCode": code,
        "errorMessage": "ProcessingFailed status set for record",
        "attemptEndingTimestamp": 6,
        "rawData": base64.b64encode(raw).decode(),
        "lambdaArn": "arn:aws:lambda:us-east-1:123456789012:function:f",
    }
    rules = Refused({"phone": "ann"}, VISITS, ("ann", "bob"), int(NOW.timestamp() * 1000))
    return rules.judge()(json.dumps(line).encode())


def changed(**changes):
    return json.dumps({**EVENT, **changes}).encode()


@pytest.mark.parametrize(
    ("raw", "reason", "message"),
    [
        (b"no event", "malformed_json", None),
        (b"{}", "missing_field", None),
        (changed(payload={}), "missing_field", "missing: page"),
        (changed(payload={"page": 5}), "wrong_type", "page: got '5' (a whole number), allowed is a string"),
        (changed(schema_version="2.0.0"), "unknown_schema_version", None),
        (changed(event_time="2013-02-03T00:00:00Z"), "clock_skew", None),
        (changed(tenant="eve"), "unknown_tenant", "the record says tenant eve, and the stream carries: ann, bob"),
        (changed(tenant=5), "wrong_type", "tenant: got '5' (a whole number), allowed is a string"),
    ],
)
def test_what_a_function_failed_has_the_reason_for_which_ingest_would_refuse_it(raw, reason, message):
    found = fate(raw)
    assert (found.fate.reason, found.raw) == (reason, raw)
    assert message is None or found.fate.message == message


def test_a_version_that_the_function_gives_is_not_missing():
    unversioned = {key: value for key, value in EVENT.items() if key != "schema_version"}
    assert fate(json.dumps({**unversioned, "sequence": "7"}).encode()).fate.reason == "wrong_type"
    assert fate(json.dumps(unversioned).encode()).fate.reason == "Lambda.ProcessingFailedStatus"


def test_what_a_function_failed_for_a_reason_of_its_own_says_so():
    found = fate(changed())
    assert found.fate.reason == "Lambda.ProcessingFailedStatus"
    assert found.fate.message == "ProcessingFailed status set for record"
    assert found.fate.identity == Identity("e-1", "ann", "phone", 7)


def test_other_refusals_of_firehose_keep_their_reason():
    assert fate(changed(payload={}), "Lambda.FunctionError").fate.reason == "Lambda.FunctionError"
