"""UpdateDestination, tags and states, by unmodified boto3, and what they do to records on their way."""

from __future__ import annotations

import gzip
import time
from datetime import UTC, datetime, timedelta

import pytest
from botocore.exceptions import ClientError

DESTINATION = "destinationId-000000000001"


def described(server, name="s"):
    return server.firehose.describe_delivery_stream(DeliveryStreamName=name)["DeliveryStreamDescription"]


def extended(server, name="s"):
    return described(server, name)["Destinations"][0]["ExtendedS3DestinationDescription"]


def update(server, version="1", name="s", kind="ExtendedS3DestinationUpdate", destination=DESTINATION, **changes):
    return server.firehose.update_destination(
        DeliveryStreamName=name,
        CurrentDeliveryStreamVersionId=version,
        DestinationId=destination,
        **{kind: changes},
    )


def refused(call, *arguments, **named):
    with pytest.raises(ClientError) as caught:
        call(*arguments, **named)
    return caught.value.response["Error"]["Code"], caught.value.response["Error"]["Message"]


@pytest.fixture
def api(module_server, offline_bucket):
    """A server with a partitioned stream `s` and a plain one `p`, that deliver nothing."""
    module_server.create("s", offline_bucket.partitioned())
    module_server.create("p", offline_bucket.plain())
    yield module_server
    for name in ("s", "p"):
        module_server.firehose.delete_delivery_stream(DeliveryStreamName=name)


def test_what_is_given_is_changed_and_all_else_stays(api, offline_bucket):
    before = extended(api)
    hints = {"SizeInMBs": 1, "IntervalInSeconds": 15}
    update(api, BufferingHints=hints, CompressionFormat="UNCOMPRESSED")
    assert extended(api) == {**before, "BufferingHints": hints, "CompressionFormat": "UNCOMPRESSED"}
    after = described(api)
    assert after["VersionId"] == "2"
    assert datetime.now(UTC) - after["LastUpdateTimestamp"] < timedelta(minutes=1)
    assert "LastUpdateTimestamp" not in described(api, "p")
    update(api, "2", CloudWatchLoggingOptions={"Enabled": True, "LogGroupName": "g", "LogStreamName": "s"})
    assert (described(api)["VersionId"], extended(api)["BufferingHints"]) == ("3", hints)


def test_an_update_of_another_version_is_refused_and_changes_nothing(api):
    before = described(api)
    assert refused(update, api, "7", CompressionFormat="UNCOMPRESSED") == (
        "ConcurrentModificationException",
        "Firehose s has version 1, CurrentDeliveryStreamVersionId is 7: it was changed in between",
    )
    assert described(api) == before


def test_processing_is_replaced_as_a_whole_and_off_where_it_is_not_on(api):
    delimiter = {"Type": "AppendDelimiterToRecord", "Parameters": []}
    update(api, name="p", ProcessingConfiguration={"Enabled": True, "Processors": [delimiter]})
    assert extended(api, "p")["ProcessingConfiguration"] == {"Enabled": True, "Processors": [delimiter]}
    update(api, "2", name="p", ProcessingConfiguration={"Processors": [delimiter]})
    assert extended(api, "p")["ProcessingConfiguration"] == {"Processors": [delimiter]}
    code, message = refused(update, api, ProcessingConfiguration={"Enabled": False})
    assert (code, "MetadataExtraction" in message) == ("InvalidArgumentException", True)


def test_format_conversion_is_on_where_it_is_not_off(api):
    update(api, name="p", DataFormatConversionConfiguration={"Enabled": False})
    code, message = refused(update, api, "2", name="p", DataFormatConversionConfiguration={})
    assert (code, message) == ("InvalidArgumentException", "InputFormatConfiguration must not be null")
    assert extended(api, "p")["DataFormatConversionConfiguration"] == {"Enabled": False}


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"destination": "destinationId-000000000002"},
            "DestinationId: got destinationId-000000000002, Firehose s has",
        ),
        ({"DynamicPartitioningConfiguration": {"Enabled": False}}, "dynamic partitioning is on, and is switched when"),
        ({"name": "p", "DynamicPartitioningConfiguration": {"Enabled": True}}, "dynamic partitioning is off, and is"),
        ({"Prefix": "x/"}, "Prefix: dynamic partitioning needs an expression"),
        ({"BufferingHints": {"SizeInMBs": 5, "IntervalInSeconds": 0}}, "with dynamic partitioning 1 to 900"),
        ({"kind": "RedshiftDestinationUpdate", "Username": "u"}, "RedshiftDestinationUpdate: this server supports:"),
    ],
    ids=lambda one: str(one)[:30],
)
def test_a_change_that_makes_no_sense_is_refused_with_what_was_given(api, given, message):
    code, said = refused(update, api, **given)
    assert (code, message in said) == ("InvalidArgumentException", True), said
    assert [described(api, name)["VersionId"] for name in ("s", "p")] == ["1", "1"]


def test_a_backup_is_enabled_later_and_not_disabled_again(servers, make_bucket):
    server, bucket, kept = servers(), make_bucket(), make_bucket()
    server.create("s", bucket.plain())
    server.batch("s", [b"before\n"])
    update(server, name="s", S3BackupMode="Enabled", S3BackupUpdate=kept.plain())
    server.batch("s", [b"after\n"])
    server.flush()
    assert sorted(bucket.body(key) for key in bucket.objects()) == [b"after\n", b"before\n"]
    assert [kept.body(key) for key in kept.objects()] == [b"after\n"]
    code, said = refused(update, server, name="s", version="2", S3BackupMode="Disabled")
    assert (code, "can't be disabled again" in said) == ("InvalidArgumentException", True)


def test_one_destination_is_updated_at_a_time(api):
    both = {"S3DestinationUpdate": {"Prefix": "a/"}, "ExtendedS3DestinationUpdate": {"Prefix": "b/"}}
    named = {"DeliveryStreamName": "p", "CurrentDeliveryStreamVersionId": "1", "DestinationId": DESTINATION}
    for given in ({}, both):
        code, said = refused(api.firehose.update_destination, **named, **given)
        assert (code, f"got {len(given)}" in said) == ("InvalidArgumentException", True)


def test_a_plain_s3_update_is_taken_too(api):
    update(api, name="p", kind="S3DestinationUpdate", Prefix="other/")
    assert extended(api, "p")["Prefix"] == "other/"


def test_what_was_buffered_is_delivered_as_it_was_and_what_comes_later_as_it_is_now(servers, bucket, event):
    server = servers()
    server.create("s", bucket.partitioned())
    server.batch("s", [event(1)])
    by_number = {
        "Enabled": True,
        "Processors": [
            {
                "Type": "MetadataExtraction",
                "Parameters": [
                    {"ParameterName": "MetadataExtractionQuery", "ParameterValue": "{n: .number}"},
                    {"ParameterName": "JsonParsingEngine", "ParameterValue": "JQ-1.6"},
                ],
            }
        ],
    }
    update(
        server,
        Prefix="later/!{partitionKeyFromQuery:n}/",
        ProcessingConfiguration=by_number,
        CompressionFormat="UNCOMPRESSED",
    )
    server.batch("s", [event(2)])
    server.flush()
    (first,) = bucket.objects("processed/tenant=ewr/day=2013-05-07/")
    (second,) = bucket.objects("later/2/")
    assert gzip.decompress(bucket.body(first)) == event(1) + b"\n"
    assert bucket.body(second) == event(2)
    assert ("/s-1-" in first, "/s-2-" in second) == (True, True)
    assert server.status()["pendingRecords"] == 0


def test_an_update_survives_a_kill_with_records_on_their_way(servers, bucket, event, tmp_path):
    server = servers(data=tmp_path / "kept")
    server.create("s", bucket.partitioned())
    server.firehose.tag_delivery_stream(DeliveryStreamName="s", Tags=[{"Key": "team", "Value": "data"}])
    server.batch("s", [event(1)])
    update(server, Prefix="later/!{partitionKeyFromQuery:tenant}/!{partitionKeyFromQuery:day}/")
    server.batch("s", [event(2)])
    server.kill()
    server.start()
    after = described(server)
    assert (after["VersionId"], "LastUpdateTimestamp" in after) == ("2", True)
    assert server.firehose.list_tags_for_delivery_stream(DeliveryStreamName="s")["Tags"] == [
        {"Key": "team", "Value": "data"}
    ]
    server.flush()
    found = b"".join(gzip.decompress(bucket.body(key)) for key in bucket.objects())
    assert {event(1), event(2)} <= set(found.splitlines())


def test_tags_are_set_replaced_taken_away_and_listed_page_by_page(api):
    firehose = api.firehose
    firehose.create_delivery_stream(
        DeliveryStreamName="t",
        ExtendedS3DestinationConfiguration={
            "RoleARN": "arn:aws:iam::000000000000:role/r",
            "BucketARN": "arn:aws:s3:::b",
        },
        Tags=[{"Key": "a", "Value": "1"}, {"Key": "b"}],
    )
    firehose.tag_delivery_stream(DeliveryStreamName="t", Tags=[{"Key": "b", "Value": "2"}, {"Key": "ä c", "Value": ""}])
    listed = firehose.list_tags_for_delivery_stream
    first = listed(DeliveryStreamName="t", Limit=2)
    assert first["Tags"] == [{"Key": "a", "Value": "1"}, {"Key": "b", "Value": "2"}]
    assert first["HasMoreTags"] is True
    last = listed(DeliveryStreamName="t", ExclusiveStartTagKey="b")
    assert (last["Tags"], last["HasMoreTags"]) == ([{"Key": "ä c", "Value": ""}], False)
    firehose.untag_delivery_stream(DeliveryStreamName="t", TagKeys=["a", "not there"])
    assert [one["Key"] for one in listed(DeliveryStreamName="t")["Tags"]] == ["b", "ä c"]
    firehose.tag_delivery_stream(DeliveryStreamName="t", Tags=[{"Key": f"n{n}"} for n in range(48)])
    assert refused(firehose.tag_delivery_stream, DeliveryStreamName="t", Tags=[{"Key": "one more"}]) == (
        "LimitExceededException",
        "Firehose t would have 51 tags, at most 50 are allowed",
    )
    code, said = refused(firehose.tag_delivery_stream, DeliveryStreamName="t", Tags=[{"Key": "aws:x"}])
    assert (code, "regular expression pattern" in said) == ("ValidationException", True)
    firehose.delete_delivery_stream(DeliveryStreamName="t")
    assert refused(listed, DeliveryStreamName="t")[0] == "ResourceNotFoundException"


def test_a_stream_can_be_creating_for_a_while_as_on_aws(servers, offline_bucket):
    server = servers("--creating-seconds", "3")
    server.create("s", offline_bucket.plain())
    assert described(server)["DeliveryStreamStatus"] == "CREATING"
    named = {"DeliveryStreamName": "s"}
    in_use = (
        "ResourceInUseException",
        "Firehose s under account 000000000000 is CREATING: wait for ACTIVE",
    )
    assert refused(server.firehose.delete_delivery_stream, **named) == in_use
    assert refused(update, server, Prefix="x/") == in_use
    assert refused(server.firehose.tag_delivery_stream, **named, Tags=[{"Key": "a"}]) == in_use
    assert refused(server.firehose.put_record, **named, Record={"Data": b"x"})[0] == "ResourceNotFoundException"
    deadline = time.monotonic() + 30
    while described(server)["DeliveryStreamStatus"] != "ACTIVE":
        assert time.monotonic() < deadline
        time.sleep(0.2)
    server.firehose.put_record(**named, Record={"Data": b"x"})
    server.firehose.delete_delivery_stream(**named)
