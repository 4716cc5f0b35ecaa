"""Server-side encryption as the API tells it, by unmodified boto3."""

from __future__ import annotations

import time

import pytest

from firehose.encryption import INPUT, Encryption
from tests.firehose.test_server_api import code_of

KEY = "arn:aws:kms:us-east-1:000000000000:key/1234abcd-12ab-34cd-56ef-1234567890ab"


def told(server, name="s"):
    described = server.firehose.describe_delivery_stream(DeliveryStreamName=name)["DeliveryStreamDescription"]
    return described["DeliveryStreamEncryptionConfiguration"]


def encrypted(server, name="s"):
    one = server.firehose.put_record(DeliveryStreamName=name, Record={"Data": b"a"})["Encrypted"]
    many = server.firehose.put_record_batch(DeliveryStreamName=name, Records=[{"Data": b"a"}])["Encrypted"]
    assert one is many
    return one


def test_encryption_is_started_changed_and_stopped(servers, offline_bucket):
    server = servers()
    server.create("s", offline_bucket.plain())
    assert (told(server), encrypted(server)) == ({"Status": "DISABLED"}, False)
    server.firehose.start_delivery_stream_encryption(DeliveryStreamName="s")
    assert (told(server), encrypted(server)) == ({"Status": "ENABLED", "KeyType": "AWS_OWNED_CMK"}, True)
    wanted = {"KeyType": "CUSTOMER_MANAGED_CMK", "KeyARN": KEY}
    server.firehose.start_delivery_stream_encryption(
        DeliveryStreamName="s", DeliveryStreamEncryptionConfigurationInput=wanted
    )
    assert (told(server), encrypted(server)) == ({"Status": "ENABLED", **wanted}, True)
    server.stop()
    server.start()
    assert told(server) == {"Status": "ENABLED", **wanted}
    server.firehose.stop_delivery_stream_encryption(DeliveryStreamName="s")
    assert (told(server), encrypted(server)) == ({"Status": "DISABLED"}, False)


def test_a_stream_is_created_with_encryption(module_server, offline_bucket):
    wanted = {"KeyType": "CUSTOMER_MANAGED_CMK", "KeyARN": KEY}
    module_server.firehose.create_delivery_stream(
        DeliveryStreamName="born",
        ExtendedS3DestinationConfiguration=offline_bucket.plain(),
        DeliveryStreamEncryptionConfigurationInput=wanted,
    )
    assert (told(module_server, "born"), encrypted(module_server, "born")) == ({"Status": "ENABLED", **wanted}, True)


def test_an_update_of_the_destination_leaves_it_alone(module_server, offline_bucket):
    module_server.create("updated", offline_bucket.plain())
    firehose = module_server.firehose
    firehose.start_delivery_stream_encryption(DeliveryStreamName="updated")
    firehose.update_destination(
        DeliveryStreamName="updated",
        CurrentDeliveryStreamVersionId="1",
        DestinationId="destinationId-000000000001",
        ExtendedS3DestinationUpdate={"Prefix": "other/"},
    )
    assert told(module_server, "updated")["Status"] == "ENABLED"
    assert encrypted(module_server, "updated")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"KeyType": "CUSTOMER_MANAGED_CMK"}, "KeyType CUSTOMER_MANAGED_CMK needs KeyARN"),
        ({"KeyType": "AWS_OWNED_CMK", "KeyARN": KEY}, "KeyARN is only allowed with KeyType CUSTOMER_MANAGED_CMK"),
    ],
)
def test_a_key_and_its_type_have_to_fit(module_server, offline_bucket, given, said):
    code, message = code_of(
        module_server.firehose.create_delivery_stream,
        DeliveryStreamName="never",
        ExtendedS3DestinationConfiguration=offline_bucket.plain(),
        DeliveryStreamEncryptionConfigurationInput=given,
    )
    assert (code, said in message) == ("InvalidArgumentException", True)
    names = module_server.firehose.list_delivery_streams(Limit=100)["DeliveryStreamNames"]
    assert "never" not in names


def test_a_stream_that_is_not_there_is_told(module_server):
    for call in ("start_delivery_stream_encryption", "stop_delivery_stream_encryption"):
        assert (
            code_of(getattr(module_server.firehose, call), DeliveryStreamName="nope")[0] == "ResourceNotFoundException"
        )


def test_it_takes_its_time_where_streams_do(servers, offline_bucket, wait_for):
    server = servers("--creating-seconds", "2")
    server.create("s", offline_bucket.plain())
    firehose = server.firehose
    describe = firehose.describe_delivery_stream
    wait_for(lambda: describe(DeliveryStreamName="s")["DeliveryStreamDescription"]["DeliveryStreamStatus"] == "ACTIVE")
    firehose.start_delivery_stream_encryption(DeliveryStreamName="s")
    assert (told(server)["Status"], encrypted(server)) == ("ENABLING", False)
    assert code_of(firehose.stop_delivery_stream_encryption, DeliveryStreamName="s")[0] == "ResourceInUseException"
    wait_for(lambda: told(server)["Status"] == "ENABLED")
    assert encrypted(server)
    firehose.stop_delivery_stream_encryption(DeliveryStreamName="s")
    assert (told(server)["Status"], encrypted(server)) == ("DISABLING", True)
    wait_for(lambda: told(server)["Status"] == "DISABLED")
    assert not encrypted(server)


def test_with_quotas_the_encryption_is_changed_25_times_a_day(servers, offline_bucket):
    server = servers("--quotas", "us-east-1")
    server.create("s", offline_bucket.plain())
    server.create("other", offline_bucket.plain())
    firehose = server.firehose
    for number in range(25):
        change = firehose.stop_delivery_stream_encryption if number % 2 else firehose.start_delivery_stream_encryption
        change(DeliveryStreamName="s")
    code, message = code_of(firehose.stop_delivery_stream_encryption, DeliveryStreamName="s")
    assert (code, "25 times in 24 hours" in message) == ("LimitExceededException", True)
    assert told(server)["Status"] == "ENABLED"
    firehose.start_delivery_stream_encryption(DeliveryStreamName="other")


def test_a_day_later_it_may_be_changed_again(stream_of):
    at = [time.time()]
    encryption = Encryption(lambda: at[0], limited=True)
    stream = stream_of({INPUT: {"KeyType": "AWS_OWNED_CMK"}})
    for _ in range(25):
        encryption.check(stream)
    at[0] += 24 * 3600
    encryption.check(stream)


@pytest.fixture
def stream_of(offline_bucket):
    from uuid import uuid4  # noqa: PLC0415 - here only

    from firehose.streams import DeliveryStream, parse_destination  # noqa: PLC0415 - here only

    def make(members):
        request = {"ExtendedS3DestinationConfiguration": offline_bucket.plain(), **members}
        return DeliveryStream("s", uuid4(), "arn", 1, 0.0, request, parse_destination(request))

    return make
