"""Our Lambda function: what it makes of events, that it judges as ingest does, and that it runs as a real function."""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from firehose.contract_check import EventCheck, RefusedError, parse_event
from firehose.lambda_transform import LambdaTransform, invoking_client, transform
from firehose.records import Record
from firehose.transform import Transform
from firehose.transform_package import HANDLER, package, packed_contract
from lake.clients import Cloud
from lake.contract import Contract, Field, ListOf, Primitive, StructOf
from lake.declaration import read_lake
from lake.envelope import PROCESSED_AT, Event, new_event_id, salvage
from lakehose.cli import app
from spark_jobs.fast_judge import FastJudge
from spark_jobs.records import Judge, Row
from spark_jobs.records import Reason as IngestReason

ROOT = Path(__file__).parents[2]
NOW = datetime(2013, 2, 1, tzinfo=UTC)
VISITS = Contract(
    dataset="visits",
    version="1.2.0",
    fields=(Field("page", Primitive("string"), required=True), Field("seconds", Primitive("int"))),
    partition=(),
    sort=(),
)
PACKED = {
    "contracts": {"visits": packed_contract(VISITS)},
    "streams": {"acme-visits": {"dataset": "visits", "tenants": ["ann", "bob"]}},
}


def event(**changes):
    made = {
        "event_id": "e-1",
        "tenant": "ann",
        "dataset": "visits",
        "event_time": "2013-01-31T10:00:00.000Z",
        "producer_id": "phone",
        "sequence": 7,
        "schema_version": "1.0.0",
        "payload": {"page": "/", "seconds": 5},
    }
    return {key: value for key, value in {**made, **changes}.items() if value is not ...}


def invocation(*raws, stream="acme-visits"):
    return {
        "invocationId": "i-1",
        "deliveryStreamArn": f"arn:aws:firehose:us-east-1:123456789012:deliverystream/{stream}",
        "region": "us-east-1",
        "records": [
            {"recordId": f"r-{at}", "approximateArrivalTimestamp": 1, "data": base64.b64encode(raw).decode()}
            for at, raw in enumerate(raws)
        ],
    }


def run(*records, stream="acme-visits", packed=PACKED):
    """What the function answers, and its log."""
    log = []
    raws = [one if isinstance(one, bytes) else json.dumps(one).encode() for one in records]
    answered = Transform(packed, lambda: NOW, log.append).run(invocation(*raws, stream=stream))
    assert [one["recordId"] for one in answered["records"]] == [f"r-{at}" for at in range(len(records))]
    return answered["records"], [json.loads(line) for line in log]


def passed(record, **options):
    (found,), log = run(record, **options)
    assert found["result"] == "Ok"
    assert log == []
    return base64.b64decode(found["data"])


def reason(record, **options):
    raw = record if isinstance(record, bytes) else json.dumps(record).encode()
    (found,), (told, total) = run(record, **options)
    assert found == {"recordId": "r-0", "result": "ProcessingFailed", "data": base64.b64encode(raw).decode()}
    assert total["failed"] == {told["reason"]: 1}
    return told["reason"]


def test_a_good_event_is_stamped_and_keeps_its_bytes():
    raw = b'{"event_id":"e-1",' + json.dumps(event(event_id=...)).encode()[1:]
    assert passed(raw) == b'{"processed_at":"2013-02-01T00:00:00.000Z",' + raw[1:]


def test_an_event_without_a_schema_version_gets_the_contracts():
    found = json.loads(passed(event(schema_version=...)))
    assert (found["schema_version"], found["processed_at"]) == ("1.2.0", "2013-02-01T00:00:00.000Z")


def test_an_event_that_comes_round_again_keeps_its_first_stamp():
    once = passed(event())
    assert passed(once) == once


def test_an_event_over_several_lines_becomes_one_line():
    raw = json.dumps(event(payload={"page": "a\nb"}), indent=1).replace("\n", "\r\n").encode()
    found = passed(b" \n" + raw + b"\n")
    assert b"\n" not in found
    assert b"\r" not in found
    assert json.loads(found)["payload"] == {"page": "a\nb"}


def test_numbers_keep_their_digits():
    found = passed(b'{"x":1.10000000000000000001,' + json.dumps(event()).encode()[1:])
    assert b'"x":1.10000000000000000001,' in found


def test_the_identity_can_still_be_read_of_the_beginning():
    found = passed(event())
    assert salvage(found[:-9]) == salvage(json.dumps(event()).encode())


def test_partition_keys_are_told_by_the_events_day_in_utc():
    (found,), _ = run(event(event_time="2013-01-31T23:30:00-01:00", tenant="bob"))
    assert found["metadata"]["partitionKeys"] == {
        "dataset": "visits",
        "tenant": "bob",
        "year": "2013",
        "month": "02",
        "day": "01",
    }


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        (b"plain text", "malformed_json"),
        (b"", "malformed_json"),
        (b"[]", "malformed_json"),
        (json.dumps(event()).encode() * 2, "malformed_json"),
        (b"\xef\xbb\xbf" + json.dumps(event()).encode(), "malformed_json"),
        (json.dumps(event(producer_id="\ud83d")).encode(), "malformed_json"),
        (b'{"event_id":"e-0",' + json.dumps(event()).encode()[1:], "malformed_json"),
        (b'{"a":' * 100_000, "malformed_json"),
        (b"\xff\xfe{\0}\0", "malformed_json"),
        (event(event_id=...), "missing_field"),
        (event(dataset=...), "missing_field"),
        (event(payload={}), "missing_field"),
        (event(payload=...), "missing_field"),
        (event(schema_version=None), "missing_field"),
        (event(sequence="7"), "wrong_type"),
        (event(sequence=-1), "wrong_type"),
        (event(payload={"page": "/", "seconds": 2**31}), "wrong_type"),
        (event(processed_at="yesterday"), "wrong_type"),
        (event(processed_at=None), "wrong_type"),
        (event(tenant="eve"), "unknown_tenant"),
        (event(dataset="orders"), "unknown_dataset"),
        (event(schema_version="2.0.0"), "unknown_schema_version"),
        (event(schema_version="new"), "unknown_schema_version"),
        (event(event_time="2013-02-02T00:00:01Z"), "clock_skew"),
    ],
)
def test_a_bad_event_fails_with_ingests_reason(record, expected):
    assert reason(record) == expected


def test_a_stream_that_is_not_declared_carries_any_dataset_and_tenant():
    assert json.loads(passed(event(tenant="eve"), stream="other"))["tenant"] == "eve"
    assert reason(event(dataset="orders"), stream="other") == "unknown_dataset"
    assert reason(event(dataset=...), stream="other") == "missing_field"
    assert reason(event(dataset=5), stream="other") == "wrong_type"


def test_the_log_tells_the_reason_and_whose_event_it_was_without_its_content():
    _, log = run(event(payload={"page": 5, "seconds": "secret"}), event(tenant="eve"))
    assert log == [
        {
            "level": "warning",
            "reason": "wrong_type",
            "message": "page: got a whole number, allowed is a string;"
            " seconds: got a string, allowed is a whole number of 32 bits",
            "stream": "acme-visits",
            "recordId": "r-0",
            "identity": {"event_id": "e-1", "tenant": "ann", "producer_id": "phone", "sequence": 7},
        },
        {
            "level": "warning",
            "reason": "unknown_tenant",
            "message": "the record says tenant eve, and the stream carries: ann, bob",
            "stream": "acme-visits",
            "recordId": "r-1",
            "identity": {"event_id": "e-1", "tenant": "eve", "producer_id": "phone", "sequence": 7},
        },
        {
            "level": "warning",
            "message": "events failed",
            "stream": "acme-visits",
            "invocation": "i-1",
            "records": 2,
            "failed": {"wrong_type": 1, "unknown_tenant": 1},
        },
    ]


def test_the_log_counts_all_failures_and_tells_the_first_of_each_reason():
    _, log = run(*[b"x"] * 50, event(tenant="eve"))
    assert len(log) == 20 + 1 + 1
    assert log[-1]["failed"] == {"malformed_json": 50, "unknown_tenant": 1}


NAMES = [*("boolean", "int", "long", "float", "double", "date", "timestamp", "timestamptz", "string", "binary")]
TYPES = st.recursive(
    st.sampled_from([Primitive(name) for name in NAMES] + [Primitive("decimal", 5, 2), Primitive("decimal", 38, 0)]),
    lambda inner: (
        inner.map(ListOf)
        | st.lists(st.tuples(inner, st.booleans()), min_size=1, max_size=2).map(
            lambda kinds: StructOf(tuple(Field("ab"[at], kind, needed) for at, (kind, needed) in enumerate(kinds)))
        )
    ),
    max_leaves=3,
)
# JSON texts rather than values: a number has more spellings than Python keeps
LEAVES = st.sampled_from(
    [
        *("null", "true", "0", "-0", "5", "-5.0", "1e2", "1E400", "123.45", "123.456", "1234.5", "0.001", "1e-5"),
        *("1e-99999999999999999999", "1e99999999999999999999", "1e-999999999999999999"),
        *("2147483648", "-2147483648", "9223372036854775808", "-9223372036854775809", "18446744073709551616"),
        *("340282346638528860000000000000000000000", "3.5e38", "1" + "0" * 400, "NaN", "-Infinity", "01", "1."),
        *('""', '"5"', '"2013-01-31"', '"2013-02-30"', '"2013-01-31T10:00:00Z"', '"2013-01-31 10:00:00.123456789Z"'),
        *(
            '"2013-01-31T10:00:00"',
            '"2013-01-31T25:00:00"',
            '"2013-01-31T10:00:00+0100"',
            '"0001-01-01T00:00:00+02:00"',
        ),
        *('"YQ=="', '"YQ"', '"\\ud83d"', '"\\ud83d\\ude00"', '"é"', '"a\\u0000"', '"\\x"', '"\n"', "'a'", "tru"),
    ]
)
VALUES = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3).map(lambda parts: f"[{','.join(parts)}]")
        | st.lists(st.tuples(st.sampled_from("abc"), inner), max_size=3).map(
            lambda pairs: "{" + ", ".join(f'"{key}":{value}' for key, value in pairs) + "}"
        )
    ),
    max_leaves=4,
)
TEXTS = {key: json.dumps(value) for key, value in event().items() if key != "payload"}
ODD = st.tuples(
    st.sampled_from([*TEXTS, "payload", "more"]),
    LEAVES
    | st.sampled_from([json.dumps("x" * 257), '"bob"', '"orders"', '"1.9.0"', '"2.0.0"', '"2013-02-03T00:00:00Z"']),
)


@given(TYPES, st.booleans(), VALUES, st.none() | ODD)
def test_whatever_comes_is_judged_as_ingest_judges_it(kind, required, value, odd):
    contract = Contract("visits", "1.2.0", (Field("x", kind, required), Field("y", Primitive("string"))), (), ())
    texts = {**TEXTS, "payload": f'{{"x": {value}}}'}
    if odd is not None:
        texts[odd[0]] = odd[1]
    raw = ("{" + ",".join(f'"{key}":{text}' for key, text in texts.items()) + "}").encode()
    fate = Judge(contract, "ann", NOW).judge(raw)
    check = EventCheck("visits", packed_contract(contract), ["ann"])
    found, refused = None, None
    try:
        record = parse_event(raw)
        found = check.check(parse_event(raw, exact=True) if check.exact else record, NOW)
    except RefusedError as error:
        refused = error
    if isinstance(fate, Row):
        assert (found.event_time, found.tenant) == (fate.values[3], "ann")
    else:
        # what lies under another tenant's prefix is another tenant's; a stream knows only whom it carries
        assert refused.code == {"tenant_mismatch": "unknown_tenant"}.get(fate.reason, fate.reason)
        assert refused.code != "missing_field" or str(refused) == fate.message


def test_reasons_are_all_known_to_ingest():
    source = (ROOT / "firehose/contract_check.py").read_text() + (ROOT / "firehose/transform.py").read_text()
    for code in (
        *("malformed_json", "missing_field", "wrong_type", "unknown_tenant"),
        *("unknown_dataset", "unknown_schema_version", "clock_skew"),
    ):
        assert f'"{code}"' in source
        assert code in list(IngestReason)


def test_ingest_takes_what_was_stamped_as_it_takes_what_was_not():
    plain = json.dumps(event()).encode()
    stamped = passed(plain)
    judge, fast = Judge(VISITS, "ann", NOW), FastJudge(VISITS, "ann", NOW)
    assert judge.judge(stamped) == judge.judge(plain)
    assert judge.judge(stamped).values[-1] is None
    assert fast.judge(stamped + b"\n" + plain) is not None
    assert fast.judge(stamped) == fast.judge(plain)
    assert PROCESSED_AT in json.loads(stamped)


@pytest.fixture(scope="module")
def lake():
    return read_lake(ROOT / "lake.yaml")


@pytest.fixture(scope="module")
def packed(lake):
    return package(lake)


def flight(tenant="ewr", **payload):
    moment = datetime(2013, 5, 7, 10, tzinfo=UTC)
    values = {"carrier": "UA", "flight": 1, "origin": "EWR", "dest": "IAH", "year": 2013, "month": 5, "day": 7}
    values |= {"sched_dep_time": 600, "sched_arr_time": 830, "distance": 1400, **payload}
    return Event(new_event_id(moment), tenant, "flights", moment, "site", 0, "1.0.0", values).encode()


def test_the_package_is_the_same_every_time_and_holds_no_more_than_it_needs(lake, packed):
    assert package(read_lake(ROOT / "lake.yaml")) == packed
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert archive.namelist() == [
            "contracts.json",
            "firehose/__init__.py",
            "firehose/contract_check.py",
            "firehose/transform.py",
            "lake/__init__.py",
            "lake/spellings.py",
        ]
        assert all(one.external_attr >> 16 == 0o100644 for one in archive.infolist())
        contracts = json.loads(archive.read("contracts.json"))
    assert contracts["streams"] == {
        one.name: {"dataset": "flights", "tenants": sorted(one.tenants)} for one in lake.streams()
    }


def test_the_package_runs_on_the_standard_library_alone(packed, lake, tmp_path):
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        archive.extractall(tmp_path)
    stream = next(one.name for one in lake.streams() if one.tenants == ("ewr",))
    given_event = invocation(flight(), flight(carrier=5), stream=stream)
    code = f"""
import json, sys
sys.path.insert(0, {str(tmp_path)!r})
from firehose.transform import handler
answer = handler(json.loads({json.dumps(given_event)!r}), None)
print(json.dumps([one["result"] for one in answer["records"]]))
"""
    # -S leaves out all that is installed
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout.splitlines()[-1]) == ["Ok", "ProcessingFailed"]


@pytest.fixture(scope="module")
def client(ministack):
    return invoking_client(Cloud("us-east-1", ministack), 8)


def test_it_runs_as_a_real_function_of_a_stream(client, packed, lake, cloud):
    name = f"lakehose-{uuid4().hex[:12]}"
    made = client.create_function(
        FunctionName=name,
        Runtime="python3.11",
        Role="arn:aws:iam::000000000000:role/function",
        Handler=HANDLER,
        Code={"ZipFile": packed},
        Timeout=60,
    )
    stream = next(one for one in lake.streams() if one.tenants == ("ewr",))
    arn = f"arn:aws:firehose:us-east-1:000000000000:deliverystream/{stream.name}"
    bad = [flight(carrier=None), flight(tenant="jfk"), b"no event"]
    raws = [flight(), *bad, *[flight(flight=at) for at in range(500)]]
    good, failed = transform(
        *(LambdaTransform(made["FunctionArn"]), client, arn, [Record(raw, at) for at, raw in enumerate(raws)])
    )
    assert [(one.raw, one.reason.code) for one in failed] == [(raw, "Lambda.ProcessingFailedStatus") for raw in bad]
    assert [one.arrival_ms for one in good] == [0, *range(4, 504)]
    assert {one.keys for one in good} == {
        (("dataset", "flights"), ("tenant", "ewr"), ("year", "2013"), ("month", "05"), ("day", "07"))
    }
    judge = Judge(lake.datasets[0].contract, "ewr", datetime.now(UTC))
    assert all(isinstance(judge.judge(one.raw), Row) for one in good)
    told = [
        json.loads(one["message"])
        for one in cloud.logs.filter_log_events(logGroupName=f"/aws/lambda/{name}")["events"]
        if one["message"].startswith("{")
    ]
    assert [one["reason"] for one in told if "reason" in one] == ["missing_field", "unknown_tenant", "malformed_json"]
    assert told[-1]["failed"] == {"missing_field": 1, "unknown_tenant": 1, "malformed_json": 1}


def test_a_stream_stamps_what_is_good_under_its_tenants_day_and_keeps_what_is_not_as_it_came(
    client, packed, lake, server, bucket
):
    made = client.create_function(
        FunctionName=f"lakehose-{uuid4().hex[:12]}",
        Runtime="python3.11",
        Role="arn:aws:iam::000000000000:role/function",
        Handler=HANDLER,
        Code={"ZipFile": packed},
    )
    stream = next(one.name for one in lake.streams() if one.tenants == ("ewr",))
    parameters = {"LambdaArn": made["FunctionArn"], "BufferSizeInMBs": "1", "BufferIntervalInSeconds": "0"}
    given = [{"ParameterName": name, "ParameterValue": value} for name, value in parameters.items()]
    prefix = "/".join(f"{key}=!{{partitionKeyFromLambda:{key}}}" for key in ("tenant", "year", "month", "day"))
    destination = bucket.plain(
        Prefix=f"processed/{prefix}/",
        ErrorOutputPrefix="errors/!{firehose:error-output-type}/",
        DynamicPartitioningConfiguration={"Enabled": True},
        ProcessingConfiguration={
            "Enabled": True,
            "Processors": [{"Type": "Lambda", "Parameters": given}, {"Type": "AppendDelimiterToRecord"}],
        },
    )
    server.create(stream, destination)
    plain = json.loads(flight())
    del plain["schema_version"]
    bad = flight(distance="far")
    server.batch(stream, [flight(), json.dumps(plain).encode(), bad])
    server.flush(stream)

    (key,) = bucket.objects("processed/")
    assert key.startswith("processed/tenant=ewr/year=2013/month=05/day=07/")
    found = [json.loads(line) for line in bucket.body(key).splitlines()]
    assert [one["schema_version"] for one in found] == ["1.0.0", "1.0.0"]
    assert all(one[PROCESSED_AT].endswith("Z") for one in found)
    (errors,) = bucket.objects("errors/processing-failed/")
    failed = json.loads(bucket.body(errors))
    assert (failed["errorCode"], failed["lambdaArn"]) == ("Lambda.ProcessingFailedStatus", made["FunctionArn"])
    assert base64.b64decode(failed["rawData"]) == bad


def test_the_command_writes_the_package_and_tells_its_digest(packed, tmp_path):
    out = tmp_path / "made" / "transform.zip"
    done = CliRunner().invoke(app, ["--lake", str(ROOT / "lake.yaml"), "streams", "pack-transform", str(out)])
    assert done.exit_code == 0, done.output
    assert out.read_bytes() == packed
    assert done.stdout.startswith(f"{out}: {len(packed):,} bytes, sha256 ")
    assert done.stdout.endswith("; handler firehose.transform.handler, runtime python3.13\n")
