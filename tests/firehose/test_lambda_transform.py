"""A batch goes through a real Lambda function of MiniStack: what it makes, and every way it can fail."""

from __future__ import annotations

import base64
import io
import json
import socket
import threading
import zipfile
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firehose.lambda_answer import PAYLOAD_BYTES, Problem, Transformed, read_answer
from firehose.lambda_transform import INVOCATION_SECONDS, LambdaTransform, invoking_client, transform
from firehose.records import Record
from lake.clients import Cloud

STREAM = "arn:aws:firehose:eu-west-1:123456789012:deliverystream/orders"
UPPER = """
import base64

def handler(event, context):
    records = []
    for one in event["records"]:
        data = base64.b64decode(one["data"]).upper()
        records.append({"recordId": one["recordId"], "result": "Ok", "data": base64.b64encode(data).decode()})
    return {"records": records}
"""
# what the function answers is what the test puts into its records: one JSON text after another is the answer
SCRIPTED = """
import base64, json, os

def handler(event, context):
    script = json.loads(base64.b64decode(event["records"][0]["data"]))
    ids = [one["recordId"] for one in event["records"]]
    def filled(value):
        if isinstance(value, dict):
            return {key: filled(one) for key, one in value.items()}
        if isinstance(value, list):
            return [filled(one) for one in value]
        return ids[int(value[1:])] if isinstance(value, str) and value.startswith("#") else value
    return filled(script)
"""


def lambda_client(url, **changes):
    return invoking_client(Cloud("us-east-1", url), 8, **changes)


@pytest.fixture(scope="module")
def client(ministack):
    return lambda_client(ministack)


def zipped(code):
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w") as archive:
        archive.writestr("function.py", code)
    return made.getvalue()


@pytest.fixture(scope="module")
def deploy(client):
    """Make a function of code; answers its ARN."""

    def make(code, *, timeout=30):
        made = client.create_function(
            FunctionName=f"f-{uuid4().hex[:12]}",
            Runtime="python3.11",
            Role="arn:aws:iam::000000000000:role/function",
            Handler="function.handler",
            Code={"ZipFile": zipped(code)},
            Timeout=timeout,
        )
        return made["FunctionArn"]

    return make


@pytest.fixture(scope="module")
def upper(deploy):
    return deploy(UPPER)


@pytest.fixture(scope="module")
def scripted(deploy):
    return deploy(SCRIPTED)


class Waits(list):
    """Notes how long each wait would be, and doesn't wait."""

    def __call__(self, seconds):
        self.append(seconds)


def run(arn, client, *raws, retries=0, waits=None):
    """What became of records: what was made, and what failed."""
    records = [Record(raw, 1000 + at) for at, raw in enumerate(raws)]
    return transform(
        LambdaTransform(arn, retries),
        client,
        STREAM,
        records,
        now_ms=lambda: 9000,
        sleep=Waits() if waits is None else waits,
    )


def test_a_function_transforms_each_record(client, upper):
    made, failed = run(upper, client, b"one", b"", b"two")
    assert made == [Record(b"ONE", 1000), Record(b"", 1001), Record(b"TWO", 1002)]
    assert failed == []


def test_the_event_has_the_services_shape(client, deploy):
    arn = deploy("""
import base64, json

def handler(event, context):
    text = base64.b64encode(json.dumps(event).encode()).decode()
    return {"records": [{"recordId": one["recordId"], "result": "Ok", "data": text} for one in event["records"]]}
""")
    ids = iter([UUID(int=7), UUID(int=8), UUID(int=9)])
    made, _ = transform(
        *(LambdaTransform(arn), client, STREAM, [Record(b"\xff", 1510109208016), Record(b"two", 5)]),
        new_id=lambda: next(ids),
    )
    event = json.loads(made[0].raw)
    assert list(event) == ["invocationId", "deliveryStreamArn", "region", "records"]
    assert event == {
        # the second id only tells how large a payload is
        "invocationId": str(UUID(int=9)),
        "deliveryStreamArn": STREAM,
        "region": "eu-west-1",
        "records": [
            {
                "recordId": "0" * 38 + "8" + "0000000000",
                "approximateArrivalTimestamp": 1510109208016,
                "data": "/w==",
            },
            {"recordId": "0" * 38 + "8" + "0000000001", "approximateArrivalTimestamp": 5, "data": "dHdv"},
        ],
    }


def answer(*records):
    return json.dumps({"records": list(records)}).encode()


def ok(identity, text="made", **more):
    return {"recordId": identity, "result": "Ok", "data": base64.b64encode(text.encode()).decode(), **more}


def test_records_are_dropped_failed_and_made_each_by_itself(scripted, client):
    script = answer(
        ok("#0", "first"),
        {"recordId": "#1", "result": "Dropped"},
        {"recordId": "#2", "result": "ProcessingFailed", "data": "aWdub3JlZA=="},
        ok("#3", "last"),
    )
    made, (failed,) = run(scripted, client, script, b"b", b"c", b"d")
    assert made == [Record(b"first", 1000), Record(b"last", 1003)]
    assert (failed.raw, failed.arrival_ms, failed.ended_ms) == (b"c", 1002, 9000)
    reason = failed.reason
    assert (reason.output_type, reason.code, reason.message, reason.attempts, reason.lambda_arn) == (
        *("processing-failed", "Lambda.ProcessingFailedStatus", "ProcessingFailed status set for record"),
        *(1, scripted),
    )


def test_answers_in_another_order_and_of_strange_records_are_put_right(scripted, client):
    script = answer(ok("#1", "second"), ok("nobody's"), ok("#0", "first"), {"result": "Ok"})
    made, failed = run(scripted, client, script, b"b")
    assert [one.raw for one in made] == [b"first", b"second"]
    assert failed == []


def test_partition_keys_come_with_the_record(scripted, client):
    keys = {"tenant": "ewr", "day": 7, "late": True, "none": None}
    made, _ = run(scripted, client, answer(ok("#0", metadata={"partitionKeys": keys}), ok("#1", metadata={})), b"")
    assert [one.keys for one in made] == [(("tenant", "ewr"), ("day", "7"), ("late", "true"), ("none", "")), ()]


def only_code(failed, count, attempts):
    assert len(failed) == count
    ((code, message, tried),) = {(one.reason.code, one.reason.message, one.reason.attempts) for one in failed}
    assert tried == attempts
    assert all(one.reason.output_type == "processing-failed" for one in failed)
    return code, message


def test_a_record_that_is_not_returned_fails_alone(scripted, client):
    made, failed = run(scripted, client, answer(ok("#0")), b"missing", retries=3)
    assert [one.raw for one in made] == [b"made"]
    assert [one.raw for one in failed] == [b"missing"]
    assert only_code(failed, 1, 1) == (
        "Lambda.MissingRecordId",
        "One or more record Ids were not returned. Ensure that the Lambda function returns all received record Ids.",
    )


def test_a_record_that_is_returned_twice_fails_alone(scripted, client):
    made, failed = run(scripted, client, answer(ok("#0", "a"), ok("#1"), ok("#0", "b")), b"other", retries=3)
    assert [one.raw for one in made] == [b"made"]
    assert [one.arrival_ms for one in failed] == [1000]
    assert only_code(failed, 1, 1)[0] == "Lambda.DuplicatedRecordId"


@pytest.mark.parametrize("script", [b"{}", b"null", b'{"records": null}', b'{"records": []}', b'{"statusCode": 200}'])
def test_an_answer_without_records_misses_all(scripted, client, script):
    made, failed = run(scripted, client, script, b"two", retries=3)
    assert made == []
    assert only_code(failed, 2, 1)[0] == "Lambda.MissingRecordId"


@pytest.mark.parametrize(
    "script",
    [
        b'"text"',
        b"[]",
        b"5",
        b'{"records": {"recordId": 1}}',
        b'{"records": "none"}',
        b'{"records": ["none"]}',
        answer(ok("#0", metadata={"partitionKeys": {"a": []}}), ok("#1")),
        answer(ok("#0", metadata={"partitionKeys": "a"}), ok("#1")),
        answer(ok("#0", metadata="a"), ok("#1")),
    ],
)
def test_an_answer_of_another_shape_fails_the_batch_and_is_not_asked_for_again(scripted, client, script):
    made, failed = run(scripted, client, script, b"two", retries=3)
    assert made == []
    assert only_code(failed, 2, 1) == (
        "Lambda.JsonProcessingException",
        (
            "There was an error parsing returned records from the Lambda function. Ensure that the returned records"
            " follow the status model required by Amazon Data Firehose."
        ),
    )


@pytest.mark.parametrize(
    "bad",
    [
        {"recordId": "#0", "result": "Maybe", "data": ""},
        {"recordId": "#0", "result": None, "data": ""},
        {"recordId": "#0", "data": ""},
        {"recordId": "#0", "result": "Ok", "data": "not base64 %%%"},
        {"recordId": "#0", "result": "Ok", "data": "YQ"},
        {"recordId": "#0", "result": "Ok", "data": "é"},
        {"recordId": "#0", "result": "Ok", "data": 5},
    ],
)
def test_a_result_or_data_that_the_status_model_does_not_know_fails_the_batch(scripted, client, bad):
    made, failed = run(scripted, client, answer(ok("#1"), bad), b"two", retries=3)
    assert made == []
    code, message = only_code(failed, 2, 1)
    assert code == "Lambda.FunctionError"
    assert message.startswith("Invalid output structure.")


def test_ok_without_data_fails_alone(scripted, client):
    made, failed = run(scripted, client, answer({"recordId": "#0", "result": "Ok"}, ok("#1")), b"two")
    assert [one.raw for one in made] == [b"made"]
    code, message = only_code(failed, 1, 1)
    assert code == "Lambda.InvalidReturnFormat"
    assert message.startswith("The data field cannot be null when the SourceType is DirectPut")


def test_a_function_that_raises_is_tried_again_and_then_each_record_has_failed(client, deploy, caplog):
    arn = deploy("def handler(event, context):\n    raise RuntimeError('the words of the function')\n")
    waits = Waits()
    made, failed = run(arn, client, b"one", b"two", retries=3, waits=waits)
    assert made == []
    assert [one.raw for one in failed] == [b"one", b"two"]
    assert only_code(failed, 2, 4) == (
        "Lambda.FunctionError",
        "The Lambda function was successfully invoked but it returned an error result.",
    )
    assert waits == [1, 2, 4]
    assert "attempt 4 of 4 with 2 records: Lambda.FunctionError" in caplog.text
    assert "the words of the function" in caplog.text


def test_a_function_that_recovers_is_asked_with_the_same_records_under_another_invocation(client, deploy, tmp_path):
    seen = tmp_path / "seen"
    arn = deploy(f"""
import json, pathlib

def handler(event, context):
    with pathlib.Path({str(seen)!r}).open("a") as log:
        log.write(json.dumps([event["invocationId"], event["records"]]) + "\\n")
    if pathlib.Path({str(seen)!r}).read_text().count("\\n") < 3:
        raise RuntimeError("not yet")
    return {{"records": [{{**one, "result": "Ok"}} for one in event["records"]]}}
""")
    made, failed = run(arn, client, b"one", b"two", retries=2)
    assert [one.raw for one in made] == [b"one", b"two"]
    assert failed == []
    calls = [json.loads(line) for line in seen.read_text().splitlines()]
    assert len({invocation for invocation, _ in calls}) == 3
    assert calls[0][1] == calls[1][1] == calls[2][1]


def test_a_function_that_takes_too_long_is_told_as_timed_out(client, deploy):
    arn = deploy("import time\ndef handler(event, context):\n    time.sleep(20)\n", timeout=1)
    _, failed = run(arn, client, b"one", retries=1)
    assert only_code(failed, 1, 2) == (
        "Lambda.FunctionTimedOut",
        "The Lambda function invocation timed out. Increase the Timeout setting in the Lambda function.",
    )


def test_a_function_that_answers_too_much_fails(client, deploy):
    arn = deploy(f"def handler(event, context):\n    return {{'records': [], 'more': 'x' * {PAYLOAD_BYTES}}}\n")
    _, failed = run(arn, client, b"one")
    assert only_code(failed, 1, 1)[0] == "Lambda.FunctionError"


def test_a_function_that_is_not_there_fails_the_batch(client):
    _, failed = run("arn:aws:lambda:us-east-1:000000000000:function:missing", client, b"one", retries=1)
    assert only_code(failed, 1, 2) == (
        "Lambda.ResourceNotFound",
        "The specified Lambda function does not exist. Use a different function that does exist.",
    )


def test_a_function_that_may_not_run_now_is_throttled(client, deploy):
    arn = deploy(UPPER)
    client.put_function_concurrency(FunctionName=arn, ReservedConcurrentExecutions=0)
    waits = Waits()
    _, failed = run(arn, client, b"one", retries=2, waits=waits)
    assert only_code(failed, 1, 3)[0] == "Lambda.InvokeLimitExceeded"
    client.delete_function_concurrency(FunctionName=arn)
    assert [one.raw for one in run(arn, client, b"one")[0]] == [b"ONE"]


def test_an_endpoint_that_is_away_fails_the_batch(free_port_number, upper):
    _, failed = run(upper, lambda_client(f"http://127.0.0.1:{free_port_number}"), b"one", retries=1)
    assert only_code(failed, 1, 2)[0] == "Lambda.TargetServerFailedToRespond"


@pytest.fixture
def raw_endpoint():
    """An HTTP endpoint that answers every request with the bytes given, or not at all; answers its URL."""
    made = []

    def start(reply):
        listener = socket.create_server(("127.0.0.1", 0))
        made.append(listener)

        def serve():
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                made.append(connection)
                connection.recv(65536)
                if reply:
                    connection.sendall(reply)
                    connection.close()

        threading.Thread(target=serve, daemon=True).start()
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield start
    for one in made:
        one.close()


def test_an_endpoint_that_does_not_answer_is_a_request_that_timed_out(raw_endpoint, upper):
    _, failed = run(upper, lambda_client(raw_endpoint(b""), read_timeout=0.3), b"one")
    assert only_code(failed, 1, 1)[0] == "Lambda.FunctionRequestTimedOut"


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        ("403 Forbidden", "AccessDeniedException", "Lambda.InvokeAccessDenied"),
        ("403 Forbidden", "UnrecognizedClientException", "Lambda.InvalidSecurityToken"),
        ("429 Too Many", "TooManyRequestsException", "Lambda.InvokeLimitExceeded"),
        ("500 Error", "ServiceException", "Lambda.InternalServerError"),
        ("502 Bad", "InvalidSubnetIDException", "Lambda.InvalidSubnetIDException"),
        ("502 Bad", "EFSIOException", "Lambda.InternalServerError"),
        ("503 Away", "ServiceUnavailableException", "Lambda.ServiceUnavailable"),
        ("413 Large", "RequestTooLargeException", "Lambda.InvocationFailure"),
    ],
)
def test_what_the_lambda_api_refuses_is_told_by_the_services_code(raw_endpoint, upper, status, code, expected):
    reply = (
        f"HTTP/1.1 {status}\r\nx-amzn-ErrorType: {code}\r\nContent-Type: application/json\r\nContent-Length: 2\r\n"
        "Connection: close\r\n\r\n{}"
    ).encode()
    _, failed = run(upper, lambda_client(raw_endpoint(reply)), b"one", b"two")
    assert only_code(failed, 2, 1)[0] == expected


MEMBERS = st.sampled_from(["recordId", "result", "data", "metadata", "partitionKeys", "records"])
WORDS = st.sampled_from(["a", "b", "Ok", "Dropped", "ProcessingFailed", "YQ==", "%", ""]) | st.text(max_size=3)
ANSWERS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(MEMBERS, inner, max_size=4),
)
ROWS = st.lists(
    st.fixed_dictionaries({"recordId": WORDS, "result": WORDS}, optional={"data": WORDS, "metadata": ANSWERS})
)


@given(ANSWERS.map(json.dumps).map(str.encode) | ROWS.map(lambda rows: answer(*rows)) | st.binary(max_size=20))
def test_whatever_a_function_answers_each_record_has_a_verdict(body):
    found = read_answer(body, ["a", "b"])
    assert (
        isinstance(found, Problem) or [type(one) in {Transformed, Problem, type(None)} for one in found] == [True] * 2
    )


def test_a_batch_too_large_for_an_invocation_becomes_several(client, upper):
    raws = [bytes([65 + at]) * 1_000_000 for at in range(10)]
    made, failed = run(upper, client, *raws)
    assert [one.raw for one in made] == raws
    assert failed == []


def test_a_batch_of_many_tiny_records_is_cut_by_what_it_is_with_its_wrapping(client, deploy, tmp_path):
    seen = tmp_path / "seen"
    arn = deploy(f"""
import json, pathlib

def handler(event, context):
    with pathlib.Path({str(seen)!r}).open("a") as log:
        log.write(f"{{len(json.dumps(event, separators=(',', ':')))}}\\n")
    return {{"records": [{{"recordId": one["recordId"], "result": "Dropped"}} for one in event["records"]]}}
""")
    assert run(arn, client, *[b"tiny"] * 100_000) == ([], [])
    sizes = [int(line) for line in seen.read_text().splitlines()]
    assert len(sizes) == 2
    assert all(PAYLOAD_BYTES - 200 < size <= PAYLOAD_BYTES for size in sizes[:-1])


def test_a_record_too_large_for_any_invocation_fails_alone_without_a_call(client, upper):
    made, (failed,) = run(upper, client, b"one", b"x" * 5_000_000, b"two")
    assert [one.raw for one in made] == [b"ONE", b"TWO"]
    assert (failed.reason.code, failed.reason.attempts, len(failed.raw)) == ("Lambda.InvocationFailure", 0, 5_000_000)


def test_no_records_are_no_invocation(raw_endpoint, upper):
    assert run(upper, lambda_client(raw_endpoint(b""))) == ([], [])


def test_a_client_waits_as_long_as_a_function_may_take_and_leaves_retries_to_the_processor():
    config = lambda_client("http://127.0.0.1:9").meta.config
    assert config.read_timeout > INVOCATION_SECONDS == 300
    assert config.retries["total_max_attempts"] == 1
