"""The campaign's own parts: faults take effect, the schedule leaves out nothing, and a difference is seen."""

from __future__ import annotations

import json
import time
import urllib.request
from dataclasses import replace
from itertools import islice

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionError, HTTPClientError, ReadTimeoutError  # noqa: A004

from tests.faults.checks import DifferenceError, check_tables
from tests.faults.model import Model
from tests.faults.processes import Child
from tests.faults.readers import Tables
from tests.faults.relay import call_of
from tests.faults.schedule import FAULTS, steps, strikes
from tests.faults.toxiproxy import Toxiproxy, build
from tests.faults.world import REFUSED, Line

CUT = (ConnectionError, HTTPClientError)


@pytest.fixture(scope="module")
def relay(ministack, tmp_path_factory):
    child = Child.python("tests.faults.relay", "--upstream", ministack, log=tmp_path_factory.mktemp("relay") / "log")
    yield f"http://127.0.0.1:{int(child.line(30))}"
    child.end()


@pytest.fixture
def rules(relay):
    """Set rules; answers what asks how often each was done."""

    def put(*given):
        request = urllib.request.Request(f"{relay}/_faults", json.dumps(given).encode(), method="PUT")
        urllib.request.urlopen(request).close()
        return done

    def done():
        with urllib.request.urlopen(f"{relay}/_faults") as answer:
            return [one["done"] for one in json.load(answer)["rules"]]

    yield put
    put()


def client(service, endpoint, *, attempts=1, read_timeout=30):
    return boto3.client(
        service,
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",  # noqa: S106
        config=Config(
            retries={"mode": "standard", "total_max_attempts": attempts},
            read_timeout=read_timeout,
            s3={"addressing_style": "path"},
        ),
    )


@pytest.fixture
def bucket(ministack):
    made = client("s3", ministack)
    made.create_bucket(Bucket="relayed")
    yield made
    for one in made.list_objects_v2(Bucket="relayed").get("Contents", []):
        made.delete_object(Bucket="relayed", Key=one["Key"])


def keys(bucket):
    return [one["Key"] for one in bucket.list_objects_v2(Bucket="relayed").get("Contents", [])]


@pytest.mark.parametrize(
    ("method", "target", "headers", "expected"),
    [
        ("PUT", "/b/a%20b/c?x-id=PutObject", {}, ("s3", "PutObject", "b/a b/c")),
        ("PUT", "/b/k?partNumber=1&uploadId=u", {}, ("s3", "UploadPart", "b/k")),
        ("POST", "/b/k?uploads", {}, ("s3", "CreateMultipartUpload", "b/k")),
        ("POST", "/b/k?uploadId=u", {}, ("s3", "CompleteMultipartUpload", "b/k")),
        ("POST", "/b?delete", {}, ("s3", "DeleteObjects", "b")),
        ("GET", "/b?list-type=2", {}, ("s3", "ListObjects", "b")),
        ("GET", "/b?versions", {}, ("s3", "ListObjectVersions", "b")),
        ("GET", "/b/k", {}, ("s3", "GetObject", "b/k")),
        ("HEAD", "/b/k", {}, ("s3", "HeadObject", "b/k")),
        ("POST", "/", {"x-amz-target": "AWSGlue.UpdateTable"}, ("glue", "UpdateTable", "/")),
        ("POST", "/", {"x-amz-target": "DynamoDB_20120810.BatchWriteItem"}, ("dynamodb", "BatchWriteItem", "/")),
        ("POST", "/1/q", {"x-amz-target": "AmazonSQS.ReceiveMessage"}, ("sqs", "ReceiveMessage", "/1/q")),
    ],
)
def test_the_relay_knows_a_call(method, target, headers, expected):
    found = call_of(method, target, headers)
    assert (found.service, found.name, found.key) == expected


def test_what_no_rule_is_about_goes_through_unchanged(relay, bucket):
    body = bytes(range(256)) * 5000
    s3 = client("s3", relay)
    s3.put_object(Bucket="relayed", Key="a b/ü", Body=body)
    assert s3.get_object(Bucket="relayed", Key="a b/ü")["Body"].read() == body
    assert s3.head_object(Bucket="relayed", Key="a b/ü")["ContentLength"] == len(body)
    with pytest.raises(ClientError, match="NoSuchKey"):
        s3.get_object(Bucket="relayed", Key="none")


def test_a_refused_request_is_not_carried_out_and_says_so_as_aws_does(relay, rules, bucket):
    done = rules({"action": "refuse", "code": "SlowDown", "service": "s3", "call": "PutObject", "skip": 1})
    s3 = client("s3", relay)
    s3.put_object(Bucket="relayed", Key="1")
    with pytest.raises(ClientError) as caught:
        s3.put_object(Bucket="relayed", Key="2")
    assert caught.value.response["Error"]["Code"] == "SlowDown"
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 503
    s3.put_object(Bucket="relayed", Key="3")
    assert (keys(bucket), done()) == (["1", "3"], [1])


def test_glue_and_dynamodb_refuse_in_their_own_way(relay, rules):
    rules(
        {"action": "refuse", "code": "ConcurrentModificationException", "service": "glue"},
        {"action": "refuse", "code": "ProvisionedThroughputExceededException", "service": "dynamodb"},
    )
    glue, dynamodb = client("glue", relay), client("dynamodb", relay)
    with pytest.raises(glue.exceptions.ConcurrentModificationException):
        glue.get_databases()
    with pytest.raises(dynamodb.exceptions.ProvisionedThroughputExceededException):
        dynamodb.list_tables()


def test_a_lost_reply_is_of_a_request_that_was_carried_out_and_a_cut_one_is_not(relay, rules, bucket):
    rules({"action": "lose", "key": "lost$"}, {"action": "cut", "key": "cut$"})
    s3 = client("s3", relay)
    for key in ("lost", "cut"):
        with pytest.raises(CUT):
            s3.put_object(Bucket="relayed", Key=key)
    assert keys(bucket) == ["lost"]


def test_a_client_that_tries_again_comes_through(relay, rules, bucket):
    done = rules({"action": "cut", "times": 2}, {"action": "refuse", "code": "InternalError"})
    client("s3", relay, attempts=5).put_object(Bucket="relayed", Key="a")
    assert (keys(bucket), done()) == (["a"], [2, 1])


def test_a_stalled_request_is_carried_out_late(relay, rules, bucket):
    rules({"action": "stall", "seconds": 2.0})
    with pytest.raises(ReadTimeoutError):
        client("s3", relay, read_timeout=1).put_object(Bucket="relayed", Key="late")
    assert keys(bucket) == []
    time.sleep(2)
    assert keys(bucket) == ["late"]


def test_toxiproxy_cuts_the_way_until_it_is_healed(relay, bucket, tmp_path):
    said = []
    program = build(said.append)
    if program is None:
        pytest.skip(said[-1])
    toxiproxy = Toxiproxy(program, relay, tmp_path / "log")
    try:
        s3 = client("s3", toxiproxy.url)
        s3.put_object(Bucket="relayed", Key="1")
        made = {"name": "fault", "type": "reset_peer", "stream": "downstream", "attributes": {"timeout": 0}}
        toxiproxy.call("POST", "/proxies/aws/toxics", made)
        with pytest.raises(CUT):
            s3.put_object(Bucket="relayed", Key="2")
        toxiproxy.heal()
        s3.put_object(Bucket="relayed", Key="3")
    finally:
        toxiproxy.end()
    assert {"1", "3"} <= set(keys(bucket))


def test_a_seed_draws_the_same_strikes_and_another_one_others():
    first = list(islice(strikes(7), 100))
    assert first == list(islice(strikes(7), 100))
    assert first != list(islice(strikes(8), 100))


def test_every_step_has_its_turn_before_any_has_its_second_and_every_pair_has_one():
    places = {(job, step) for job, names in steps().items() for step in names}
    drawn = list(islice(strikes(7), len(places) * len(FAULTS)))
    assert {(one.job, one.step) for one in drawn[: len(places)]} == places
    assert len({(one.job, one.step, one.fault) for one in drawn}) == len(drawn)


def test_the_steps_are_those_that_the_jobs_name():
    found = steps()
    assert {"plan", "quarantine", "data", "receipt"} <= set(found["ingest"])
    assert {"stage", "write", "prove", "commit"} <= set(found["compact"])
    assert {"remember", "expire", "deletes", "manifests", "orphans"} <= set(found["maintain"])
    assert {"rows", "counted", "expired", "deleted"} <= set(found["erase"])
    assert {"object", "arrived", "noted"} <= set(found["replay"])


@pytest.fixture
def model():
    made = Model()
    one = Line("row", "e1", "phone-1", 0, "ann", "/1", 5, 1000)
    two = replace(one, event_id="e2", sequence=1, user="bob")
    bad = replace(one, fate="missing_field", event_id="e3", sequence=2)
    cut = replace(one, fate="malformed_json", event_id="e4", sequence=3)
    made.deliver({"object": "s3://b/a", "kind": "events", "lines": [vars(line) for line in (one, two, one, bad, cut)]})
    refused = replace(one, fate=REFUSED, event_id="e5", sequence=4, user="bob")
    made.deliver({"object": "s3://b/e", "kind": "errors", "lines": [vars(refused)]})
    return made


def ids(model):
    return [row[0] for row in model.expected_rows()]


def test_the_model_drops_duplicates_and_keeps_what_was_refused_apart(model):
    assert ids(model) == ["e1", "e2"]
    assert model.expected_quarantine() == [
        ("s3://b/a", 3, "missing_field"),
        ("s3://b/a", 4, "malformed_json"),
        ("s3://b/e", 0, REFUSED),
    ]
    assert model.expected_counts(0) == {
        "delivered": 5,
        "ingested": 2,
        "quarantined": 2,
        "refused": 1,
        "duplicates": 1,
        "in_flight": 0,
        "difference": 0,
    }


def test_the_model_erases_what_names_the_user_and_replays_what_is_not_erased(model):
    model.erase("ann")
    assert (ids(model), len(model.expected_quarantine())) == (["e2"], 2)
    model.replay()
    assert ids(model) == ["e2", "e5"]
    model.erase("bob")
    assert (ids(model), model.expected_quarantine()) == ([], [("s3://b/a", 4, "malformed_json")])
    assert model.expected_counts(1)["ingested"] == 3


def test_an_erased_event_that_was_refused_is_not_replayed(model):
    model.erase("bob")
    model.replay()
    assert ids(model) == ["e1"]


def test_an_erased_event_that_was_refused_and_is_sent_again_is_a_duplicate_and_no_row(model):
    before = model.expected_counts(0)
    model.erase("bob")
    again = Line("row", "e5", "phone-1", 4, "bob", "/1", 5, 1000)
    model.deliver({"object": "s3://b/c", "kind": "events", "lines": [vars(again)]})
    assert model.expected_counts(0) == before | {"delivered": 6, "duplicates": 2}


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([("a", 1)], "1 missing, as [('b', 2)]; 0 too many"),
        ([("a", 1), ("b", 2), ("b", 2)], "0 missing, as []; 1 too many, as [('b', 2)]"),
        ([("a", 1), ("b", 3)], "1 missing, as [('b', 2)]; 1 too many, as [('b', 3)]"),
    ],
)
def test_a_row_that_is_lost_doubled_or_changed_is_a_difference(rows, told):
    with pytest.raises(DifferenceError) as caught:
        check_tables("Spark", Tables(rows, []), Tables([("a", 1), ("b", 2)], []))
    assert told in str(caught.value)
