"""Faults on demand: what the server does wrong when it is told to, and what a producer makes of it."""

from __future__ import annotations

import time
import urllib.request
from collections import Counter
from datetime import UTC, datetime
from urllib.error import HTTPError

import orjson
import pytest
from botocore.exceptions import ClientError
from typer.testing import CliRunner

from firehose.commands import app
from firehose.faults import Fault, Faults, Kind, parse_faults
from lake.errors import TerminalError
from producers.client import Producer
from producers.options import SendOptions
from tests.firehose.conftest import client


def faults(server, method="GET", *given):
    body = orjson.dumps({"faults": list(given)}) if given else None
    request = urllib.request.Request(f"{server.url}/_lakehose/faults", body, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, orjson.loads(answer.read())
    except HTTPError as error:
        return error.code, orjson.loads(error.read())


@pytest.fixture
def failing(servers):
    return servers("--allow-faults")


def test_a_share_is_drawn_by_its_seed():
    def drawn(seed):
        found = Faults(lambda: 0.0)
        found.add([Fault(Kind.RECORD, share=0.25, seed=seed)])
        return [found.strike(Kind.RECORD, "s") is not None for _ in range(1000)]

    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert 200 < sum(drawn(1)) < 300


def test_a_fault_ends_by_its_count_and_by_its_time():
    at = [0.0]
    found = Faults(lambda: at[0])
    found.add([Fault(Kind.CALL, every=2, count=2), Fault(Kind.DELAY, seconds=5.0, delay_seconds=1)])
    assert [found.strike(Kind.CALL, "s") is not None for _ in range(7)] == [False, True, False, True] + [False] * 3
    assert found.strike(Kind.DELAY, "s") is not None
    at[0] = 5.0
    assert found.strike(Kind.DELAY, "s") is None
    assert [one["over"] for one in found.to_dict()["faults"]] == [True, True]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "faults: a JSON object"),
        ({"faults": [{"kind": "recrd"}]}, r"faults\[0\].kind: got 'recrd', allowed are: .* did you mean 'record'"),
        ({"faults": [{"kind": "record", "shar": 1}]}, r"faults\[0\]: got 'shar', allowed are: .* did you mean 'share'"),
        ({"faults": [{"kind": "record", "share": 0}]}, r"share: got 0, a number above 0 and up to 1 is needed"),
        ({"faults": [{"kind": "record", "every": True}]}, "every: got True, a whole number above 0 is needed"),
        ({"faults": [{"kind": "record", "every": 2, "share": 0.5}]}, "share and every can't both be given"),
        (
            {"faults": [{"kind": "record", "code": "ResourceNotFoundException"}]},
            "code: got 'ResourceNotFoundException'",
        ),
        ({"faults": [{"kind": "s3", "code": "InternalFailure"}]}, "code: only record, call, lost-answer have it"),
        ({"faults": [{"kind": "delay"}]}, "delaySeconds: got 0.0, a number above 0"),
        ({"faults": [{"kind": "call", "delaySeconds": 1}]}, "delaySeconds: only delay and s3-delay have it"),
        ({"faults": [{"kind": "call"}, {"kind": "call", "seed": "x"}]}, r"faults\[1\].seed: got 'x'"),
    ],
)
def test_what_is_no_fault_is_told(given, said):
    with pytest.raises(TerminalError, match=said):
        parse_faults(given)


def test_a_server_that_was_not_told_so_makes_no_faults(module_server):
    status, said = faults(module_server, "POST", {"kind": "call"})
    assert status == 403
    assert "start it with --allow-faults" in said["message"]


def test_records_fail_by_themselves_and_the_others_arrive(failing, bucket):
    failing.create("s", bucket.plain())
    failing.create("spared", bucket.plain(Prefix="spared/"))
    status, told = faults(failing, "POST", {"kind": "record", "every": 3, "code": "InternalFailure", "stream": "s"})
    assert (status, told["faults"][0]["struck"]) == (200, 0)
    answer = failing.firehose.put_record_batch(
        DeliveryStreamName="s", Records=[{"Data": f"{n};".encode()} for n in range(9)]
    )
    assert answer["FailedPutCount"] == 3
    failed = [
        index for index, one in enumerate(answer["RequestResponses"]) if one.get("ErrorCode") == "InternalFailure"
    ]
    assert failed == [2, 5, 8]
    assert len({one["RecordId"] for one in answer["RequestResponses"] if "RecordId" in one}) == 6
    failing.batch("spared", [b"a"] * 9)
    failing.flush()
    (key,) = bucket.objects("raw/")
    assert bucket.body(key) == b"0;1;3;4;6;7;"
    assert faults(failing)[1]["faults"][0] | {"occasions": 9, "struck": 3} == faults(failing)[1]["faults"][0]
    assert faults(failing, "DELETE")[1] == {"faults": []}
    assert failing.batch("s", [b"x"] * 9)["FailedPutCount"] == 0


def test_a_batch_of_nothing_but_failed_records_is_still_an_answer(failing, offline_bucket):
    failing.create("s", offline_bucket.plain())
    faults(failing, "POST", {"kind": "record"})
    answer = failing.firehose.put_record_batch(DeliveryStreamName="s", Records=[{"Data": b"a"}, {"Data": b"b"}])
    refused = {"ErrorCode": "ServiceUnavailableException", "ErrorMessage": "A fault that was asked for."}
    assert (answer["FailedPutCount"], answer["RequestResponses"]) == (2, [refused, refused])
    assert failing.status()["pendingRecords"] == 0


@pytest.mark.parametrize(
    ("fault", "answered", "kept"),
    [
        ({"kind": "call", "code": "InternalFailure"}, ("InternalFailure", 500), 0),
        ({"kind": "call"}, ("ServiceUnavailableException", 503), 0),
        ({"kind": "call", "code": "InvalidKMSResourceException"}, ("InvalidKMSResourceException", 400), 0),
        ({"kind": "throttle"}, ("ServiceUnavailableException", 503), 0),
        ({"kind": "record", "code": "InternalFailure"}, ("InternalFailure", 500), 0),
        ({"kind": "lost-answer", "code": "InternalFailure"}, ("InternalFailure", 500), 1),
    ],
)
def test_a_call_fails_as_asked(failing, offline_bucket, fault, answered, kept):
    failing.create("s", offline_bucket.plain())
    faults(failing, "POST", {**fault, "count": 1})
    with pytest.raises(ClientError) as caught:
        failing.firehose.put_record(DeliveryStreamName="s", Record={"Data": b"a"})
    answer = caught.value.response
    assert (answer["Error"]["Code"], answer["ResponseMetadata"]["HTTPStatusCode"]) == answered
    assert failing.status()["pendingRecords"] == kept
    failing.firehose.put_record(DeliveryStreamName="s", Record={"Data": b"a"})


def test_a_put_waits_as_long_as_asked(failing, offline_bucket):
    failing.create("s", offline_bucket.plain())
    faults(failing, "POST", {"kind": "delay", "delaySeconds": 1.5, "count": 1})
    started = time.monotonic()
    failing.batch("s", [b"a"])
    assert time.monotonic() - started >= 1.5


def test_s3_fails_as_asked_and_gets_the_same_object_again(failing, bucket, wait_for):
    failing.create("s", bucket.plain())
    faults(
        failing,
        "POST",
        {"kind": "s3", "count": 2},
        {"kind": "s3-lost-answer", "count": 1, "stream": "s"},
        {"kind": "s3", "stream": "other"},
        {"kind": "s3-delay", "delaySeconds": 0.1, "count": 1},
    )
    failing.batch("s", [b"kept"])
    failing.flush()
    (key,) = bucket.objects()
    assert bucket.body(key) == b"kept"
    assert [one["struck"] for one in faults(failing)[1]["faults"]] == [2, 1, 0, 1]
    (told,) = failing.status()["streams"].values()
    assert (told["deliveredObjects"], told["trouble"]) == (1, None)


def test_a_producer_rides_out_partial_failures_with_nothing_lost_and_nothing_twice(failing, bucket, tmp_path):
    # a refusal says that a record isn't taken, so what arrives is each event once
    failing.create("s", bucket.plain())
    faults(
        failing,
        "POST",
        {"kind": "record", "share": 0.3, "seed": 11},
        {"kind": "record", "share": 0.1, "seed": 12, "code": "InternalFailure"},
        {"kind": "throttle", "every": 4},
        {"kind": "call", "every": 5, "code": "InternalFailure"},
    )
    sent = _produced(failing, tmp_path, 400)
    struck = [one["struck"] for one in faults(failing)[1]["faults"]]
    assert all(struck), struck
    assert _arrived(failing, bucket) == Counter(sent)


def test_a_producer_whose_answers_are_lost_delivers_at_least_once(failing, bucket, tmp_path):
    failing.create("s", bucket.plain())
    faults(failing, "POST", {"kind": "lost-answer", "every": 3, "code": "InternalFailure"})
    sent = _produced(failing, tmp_path, 400)
    arrived = _arrived(failing, bucket)
    assert set(arrived) == set(sent)
    assert sum(arrived.values()) > len(sent)


def _produced(server, folder, count):
    producer = Producer(
        "s",
        tenant="ewr",
        dataset="flights",
        producer_id="site-1",
        schema_version="1.0.0",
        spool=folder / "spool",
        firehose=client("firehose", server.url),
        options=SendOptions(batch_records=40, backoff_base=0.01, backoff_cap=0.05),
    )
    with producer:
        moment = datetime(2026, 3, 1, tzinfo=UTC)
        ids = [producer.send({"number": number}, moment).event_id for number in range(count)]
        producer.flush(60)
        assert (producer.status().waiting, producer.dead_letters()) == (0, [])
    return ids


def _arrived(server, bucket):
    faults(server, "DELETE")
    server.flush()
    decoder = b"".join(bucket.body(key) for key in bucket.objects())
    return Counter(orjson.loads(line)["event_id"] for line in decoder.replace(b"}{", b"}\n{").splitlines() if line)


def test_the_command_makes_tells_and_ends_faults(failing):
    def run(*options):
        found = CliRunner().invoke(app, ["faults", *options, "--url", failing.url])
        return found.exit_code, found.stdout, found.stderr

    told = (
        "kind record, share 0.5, stream s, code ServiceUnavailableException, delaySeconds 0.0, seed 7: struck 0 of 0\n"
    )
    assert run("record", "--share", "0.5", "--seed", "7", "--stream", "s") == (0, told, "")
    assert run() == (0, told, "")
    assert run("--clear") == (0, "no faults\n", "")
    status, _, said = run("record", "--share", "2")
    assert (status, "share: got 2.0, a number above 0 and up to 1 is needed" in said) == (2, True)
    assert run("--share", "0.1")[0] == 2
    assert run("record", "--clear")[0] == 2


def test_faults_are_told_in_the_log_and_the_status(failing):
    assert any("--allow-faults" in line for line in failing.errors)
    assert failing.status()["faults"] is False
    faults(failing, "POST", {"kind": "call"})
    assert failing.status()["faults"] is True
