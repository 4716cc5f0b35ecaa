"""A definition against what DescribeDeliveryStream tells."""

from __future__ import annotations

import pytest

from firehose.comparison import compare, differences

S3 = "ExtendedS3DestinationConfiguration"


def described(kind="ExtendedS3DestinationDescription", source="DirectPut", **members):
    # what AWS adds to what was asked
    defaults = {
        "BufferingHints": {"SizeInMBs": 5, "IntervalInSeconds": 300},
        "CompressionFormat": "UNCOMPRESSED",
        "EncryptionConfiguration": {"NoEncryptionConfig": "NoEncryption"},
        "CloudWatchLoggingOptions": {"Enabled": False},
        "DataFormatConversionConfiguration": {"Enabled": False},
        "ProcessingConfiguration": {"Enabled": False, "Processors": []},
        "S3BackupMode": "Disabled",
        "CustomTimeZone": "UTC",
        "FileExtension": "",
    }
    return {"DeliveryStreamType": source, "Destinations": [{"DestinationId": "1", kind: {**defaults, **members}}]}


def found(ours, theirs):
    return [(one.where, one.ours, one.theirs, one.fixed is None) for one in compare({S3: ours}, theirs)]


def test_defaults_that_nobody_declared_are_no_difference():
    assert found({"Prefix": "raw/", "S3BackupMode": None}, described(Prefix="raw/")) == []


@pytest.mark.parametrize(("converting", "size"), [(False, 5), (True, 128)])
def test_the_default_of_hints_is_that_of_what_the_stream_does(converting, size):
    conversion = {"DataFormatConversionConfiguration": {"Enabled": converting}}
    for given in (5, 128):
        hints = {"SizeInMBs": given, "IntervalInSeconds": 300}
        theirs = described(**conversion, BufferingHints=hints)
        assert (found(conversion, theirs) == []) == (given == size)


def test_a_member_that_only_the_stream_has_is_a_difference():
    processing = {"Enabled": True, "Processors": []}
    assert found({}, described(ProcessingConfiguration=processing)) == [
        ((S3, "ProcessingConfiguration"), None, processing, True)
    ]


def test_a_backup_goes_by_the_name_that_it_is_described_under():
    backup = {"RoleARN": "r", "BucketARN": "b"}
    theirs = described(S3BackupMode="Enabled", S3BackupDescription={**backup, "CompressionFormat": "UNCOMPRESSED"})
    assert found({"S3BackupMode": "Enabled", "S3BackupConfiguration": backup}, theirs) == []


@pytest.mark.parametrize(
    ("ours", "theirs", "where"),
    [
        ({"S3BackupMode": "Disabled"}, {"S3BackupMode": "Enabled"}, ("S3BackupMode",)),
        (
            {"DynamicPartitioningConfiguration": {"Enabled": True}},
            {"DynamicPartitioningConfiguration": {"Enabled": False}},
            ("DynamicPartitioningConfiguration", "Enabled"),
        ),
        ({"DynamicPartitioningConfiguration": {"Enabled": True}}, {}, ("DynamicPartitioningConfiguration",)),
        ({}, {"DynamicPartitioningConfiguration": {"Enabled": True}}, ("DynamicPartitioningConfiguration",)),
    ],
)
def test_what_the_service_never_switches_is_not_changed_in_place(ours, theirs, where):
    assert [(one[0], one[3]) for one in found(ours, described(**theirs))] == [((S3, *where), False)]


def test_another_source_or_destination_takes_another_stream():
    theirs = described(kind="SplunkDestinationDescription", source="KinesisStreamAsSource")
    assert found({}, theirs) == [
        (("DeliveryStreamType",), "DirectPut", "KinesisStreamAsSource", False),
        ((S3,), "ExtendedS3Destination", "SplunkDestination", False),
    ]


def test_lists_of_different_lengths_differ_as_a_whole():
    assert [(one.where, one.ours, one.theirs) for one in differences({"a": [1, {"b": 2}]}, {"a": [1]})] == [
        (("a",), [1, {"b": 2}], [1])
    ]
