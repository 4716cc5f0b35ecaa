"""The server's API by unmodified boto3, and by plain HTTP where boto3 wouldn't ask."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import orjson
import pytest
from botocore.exceptions import ClientError


def raw(server, target, body, method="POST", path="/"):
    headers = {"X-Amz-Target": target, "Content-Type": "application/x-amz-json-1.1"} if target else {}
    try:
        with urlopen(Request(server.url + path, body, headers, method=method), timeout=30) as answer:
            return answer.status, orjson.loads(answer.read()), answer.headers
    except HTTPError as error:
        return error.code, orjson.loads(error.read()), error.headers


def code_of(call, **arguments):
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return caught.value.response["Error"]["Code"], caught.value.response["Error"]["Message"]


@pytest.fixture(scope="module")
def api(module_server):
    """A server whose streams deliver nothing."""
    return module_server


@pytest.fixture
def stream(api, offline_bucket):
    name = f"s-{datetime.now(UTC).timestamp()}"
    api.create(name, offline_bucket.plain())
    yield name
    api.firehose.delete_delivery_stream(DeliveryStreamName=name)


def test_a_stream_is_described_as_it_was_created(api, offline_bucket):
    given = offline_bucket.partitioned()
    arn = api.firehose.create_delivery_stream(
        DeliveryStreamName="flights", DeliveryStreamType="DirectPut", ExtendedS3DestinationConfiguration=given
    )["DeliveryStreamARN"]
    assert arn == "arn:aws:firehose:us-east-1:000000000000:deliverystream/flights"
    described = api.firehose.describe_delivery_stream(DeliveryStreamName="flights")["DeliveryStreamDescription"]
    assert described["DeliveryStreamARN"] == arn
    assert described["DeliveryStreamStatus"] == "ACTIVE"
    assert described["DeliveryStreamType"] == "DirectPut"
    assert described["VersionId"] == "1"
    assert datetime.now(UTC) - described["CreateTimestamp"] < timedelta(minutes=1)
    assert described["HasMoreDestinations"] is False
    (destination,) = described["Destinations"]
    extended = destination["ExtendedS3DestinationDescription"]
    assert {name: extended[name] for name in given} == given
    assert extended["S3BackupMode"] == "Disabled"
    assert extended["EncryptionConfiguration"] == {"NoEncryptionConfig": "NoEncryption"}
    assert destination["S3DestinationDescription"]["BucketARN"] == given["BucketARN"]
    api.firehose.delete_delivery_stream(DeliveryStreamName="flights")
    assert code_of(api.firehose.describe_delivery_stream, DeliveryStreamName="flights") == (
        "ResourceNotFoundException",
        "Firehose flights under account 000000000000 not found.",
    )


def test_a_stream_that_exists_is_not_created_again(api, stream, offline_bucket):
    assert code_of(
        api.firehose.create_delivery_stream,
        DeliveryStreamName=stream,
        ExtendedS3DestinationConfiguration=offline_bucket.plain(),
    ) == ("ResourceInUseException", f"Firehose {stream} under account 000000000000 already exists.")


def test_streams_are_listed_page_by_page(api, offline_bucket):
    names = [f"page-{n}" for n in range(5)]
    for name in reversed(names):
        api.create(name, offline_bucket.plain())
    listed = api.firehose.list_delivery_streams
    first = listed(Limit=2)
    assert (first["DeliveryStreamNames"], first["HasMoreDeliveryStreams"]) == (["page-0", "page-1"], True)
    last = listed(Limit=3, ExclusiveStartDeliveryStreamName="page-1")
    assert (last["DeliveryStreamNames"], last["HasMoreDeliveryStreams"]) == (["page-2", "page-3", "page-4"], False)
    assert listed(DeliveryStreamType="KinesisStreamAsSource")["DeliveryStreamNames"] == []
    for name in names:
        api.firehose.delete_delivery_stream(DeliveryStreamName=name)


def test_each_record_gets_an_id_of_its_own(api, stream):
    one = api.firehose.put_record(DeliveryStreamName=stream, Record={"Data": b"x"})
    assert one["Encrypted"] is False
    many = api.firehose.put_record_batch(DeliveryStreamName=stream, Records=[{"Data": b"x"}] * 500)
    ids = {one["RecordId"], *(each["RecordId"] for each in many["RequestResponses"])}
    assert len(ids) == 501
    assert (many["FailedPutCount"], many["Encrypted"]) == (0, False)


def test_a_record_of_the_longest_length_is_taken(api, stream):
    api.firehose.put_record(DeliveryStreamName=stream, Record={"Data": b"x" * 1_024_000})


def test_a_record_that_is_too_long_fails_the_call(api, stream):
    records = [{"Data": b"x"}, {"Data": b"x" * 1_024_001}]
    code, message = code_of(api.firehose.put_record_batch, DeliveryStreamName=stream, Records=records)
    assert code == "ValidationException"
    assert message.startswith("1 validation error detected: Value 'eHh4")
    assert message.endswith(
        "at 'records.2.member.data' failed to satisfy constraint: Member must have length less than or equal to 1024000"
    )
    code, message = code_of(api.firehose.put_record, DeliveryStreamName=stream, Record=records[1])
    assert (code, "at 'record.data'" in message) == ("ValidationException", True)


def test_a_batch_over_4_mib_is_refused(api, stream):
    records = [{"Data": b"x" * 1_024_000}] * 5
    assert code_of(api.firehose.put_record_batch, DeliveryStreamName=stream, Records=records) == (
        "InvalidArgumentException",
        "Records size exceeds 4 MB limit",
    )


def test_a_body_far_too_big_is_refused_the_same_way(api, stream):
    records = [{"Data": b"x" * 1_000_000}] * 20
    assert code_of(api.firehose.put_record_batch, DeliveryStreamName=stream, Records=records) == (
        "InvalidArgumentException",
        "Records size exceeds 4 MB limit",
    )


def test_a_batch_of_501_records_is_refused(api, stream):
    code, message = code_of(api.firehose.put_record_batch, DeliveryStreamName=stream, Records=[{"Data": b"x"}] * 501)
    assert code == "ValidationException"
    assert message.endswith(
        "at 'records' failed to satisfy constraint: Member must have length less than or equal to 500"
    )


def test_puts_to_a_stream_that_is_not_there_are_refused(api):
    for call, data in (
        (api.firehose.put_record, {"Record": {"Data": b"x"}}),
        (api.firehose.put_record_batch, {"Records": [{"Data": b"x"}]}),
    ):
        assert code_of(call, DeliveryStreamName="nope", **data) == (
            "ResourceNotFoundException",
            "Firehose nope under account 000000000000 not found.",
        )


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"{", "SerializationException"),
        (b"[]", "SerializationException"),
        (b'{"DeliveryStreamName":' + b"[" * 1000 + b"]" * 1000 + b"}", "SerializationException"),
        (b'{"DeliveryStreamName":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "SerializationException"),
        (b'{"DeliveryStreamName":"x","Records":[{"Data":"not base64!"}]}', "SerializationException"),
        ('{"DeliveryStreamName":"x","Records":[{"Data":"\u00e9"}]}'.encode(), "SerializationException"),
        (b'{"DeliveryStreamName":"x","Records":[{"Data":5}]}', "SerializationException"),
        (b'{"DeliveryStreamName":"x","Records":[{}]}', "ValidationException"),
        (b'{"DeliveryStreamName":"x","Records":["a"]}', "SerializationException"),
        (b'{"DeliveryStreamName":"x","Records":{}}', "SerializationException"),
        (b'{"DeliveryStreamName":"x"}', "ValidationException"),
        (b'{"Records":[{"Data":"eA=="}]}', "ValidationException"),
        (b'{"DeliveryStreamName":7,"Records":[{"Data":"eA=="}]}', "SerializationException"),
    ],
)
def test_a_batch_that_is_malformed_is_refused_with_its_code(api, body, code):
    status, answer, headers = raw(api, "Firehose_20150804.PutRecordBatch", body)
    assert (status, answer["__type"], headers["x-amzn-ErrorType"]) == (400, code, code)
    assert len(headers["x-amzn-RequestId"]) == 36


@pytest.mark.parametrize("target", ["Firehose_20150804.Frobnicate", "Other.Op", None])
def test_an_operation_that_is_not_known_is_refused(api, target):
    status, answer, _ = raw(api, target, b"{}")
    assert (status, answer["__type"]) == (400, "UnknownOperationException")


def test_a_destination_that_breaks_a_rule_is_refused_by_the_server(api, offline_bucket):
    assert code_of(
        api.firehose.create_delivery_stream,
        DeliveryStreamName="bad",
        ExtendedS3DestinationConfiguration=offline_bucket.partitioned(ErrorOutputPrefix=""),
    ) == ("InvalidArgumentException", "ErrorOutputPrefix is needed when Prefix contains expressions")
    assert "bad" not in api.firehose.list_delivery_streams()["DeliveryStreamNames"]


def test_the_quota_is_found_by_its_name_and_raised_up_to_5000(servers, tmp_path):
    server = servers(data=tmp_path / "quotas")
    quotas = server.quotas
    (quota,) = quotas.list_service_quotas(ServiceCode="firehose")["Quotas"]
    assert (quota["QuotaName"], quota["Value"], quota["Adjustable"]) == ("Dynamic partitions", 500.0, True)
    name = {"ServiceCode": "firehose", "QuotaCode": quota["QuotaCode"]}
    granted = quotas.request_service_quota_increase(**name, DesiredValue=5000)["RequestedQuota"]
    assert (granted["Status"], granted["DesiredValue"]) == ("APPROVED", 5000.0)
    server.kill()
    server.start()
    quotas = server.quotas
    assert quotas.get_service_quota(**name)["Quota"]["Value"] == 5000.0
    assert quotas.get_aws_default_service_quota(**name)["Quota"]["Value"] == 500.0
    code, message = code_of(quotas.request_service_quota_increase, **name, DesiredValue=5001)
    assert code == "IllegalArgumentException"
    assert message == "DesiredValue: got 5001 for Dynamic partitions, at most 5,000 are granted"
    assert code_of(quotas.list_service_quotas, ServiceCode="ec2")[0] == "NoSuchResourceException"


def test_health_and_status_are_answered(api, stream):
    api.firehose.put_record(DeliveryStreamName=stream, Record={"Data": b"abc"})
    assert raw(api, None, None, "GET", "/_lakehose/health")[:2] == (200, {"status": "ok"})
    status, answer, _ = raw(api, None, None, "GET", "/_lakehose/status")
    assert status == 200
    assert answer["streams"][stream]["buffers"] == 1
    assert answer["pendingRecords"] >= 1
    assert answer["activePartitionQuota"] == 500


def test_a_flush_of_a_stream_that_is_not_there_is_refused(api):
    assert raw(api, None, b"", "POST", "/_lakehose/flush?stream=nope")[:2] == (404, {"message": "no stream 'nope'"})


def test_an_admin_path_that_is_not_there_is_told_what_is(api):
    status, answer, _ = raw(api, None, None, "GET", "/_lakehose/flush")
    assert status == 404
    assert "POST flush" in answer["message"]


def test_a_definition_survives_being_killed(servers, offline_bucket, tmp_path):
    server = servers(data=tmp_path / "kept")
    server.create("kept", offline_bucket.partitioned())
    before = server.firehose.describe_delivery_stream(DeliveryStreamName="kept")["DeliveryStreamDescription"]
    server.kill()
    server.start()
    assert server.firehose.describe_delivery_stream(DeliveryStreamName="kept")["DeliveryStreamDescription"] == before
