"""CreateDeliveryStream requests: the rules across their members."""

from __future__ import annotations

import pytest

from firehose.objects import Compression
from firehose.processing import Chunk
from firehose.streams import parse_destination, problems
from lake.aws_json import ServiceError

ROLE = "arn:aws:iam::000000000000:role/firehose"
EXTRACT = [
    {"ParameterName": "MetadataExtractionQuery", "ParameterValue": "{tenant: .tenant}"},
    {"ParameterName": "JsonParsingEngine", "ParameterValue": "JQ-1.6"},
]


def backed_up(**members):
    return {"S3BackupMode": "Enabled", "S3BackupConfiguration": {"BucketARN": "arn:aws:s3:::kept", **members}}


def processing(*processors, enabled=True):
    return {"Enabled": enabled, "Processors": list(processors)}


EXTRACTION = {"Type": "MetadataExtraction", "Parameters": EXTRACT}


def extraction(query):
    parameters = [{"ParameterName": "MetadataExtractionQuery", "ParameterValue": query}, EXTRACT[1]]
    return {"Type": "MetadataExtraction", "Parameters": parameters}


def parse(**members):
    given = {"RoleARN": ROLE, "BucketARN": "arn:aws:s3:::lake", **members}
    return parse_destination({"ExtendedS3DestinationConfiguration": given})


def parse_partitioned(**members):
    given = {
        "Prefix": "t=!{partitionKeyFromQuery:tenant}/",
        "ErrorOutputPrefix": "e/!{firehose:error-output-type}/",
        "DynamicPartitioningConfiguration": {"Enabled": True},
        "ProcessingConfiguration": processing(EXTRACTION),
        **members,
    }
    return parse(**given)


def message(make, **members):
    with pytest.raises(ServiceError) as caught:
        make(**members)
    assert caught.value.code == "InvalidArgumentException"
    return str(caught.value)


def test_defaults_are_the_services():
    made = parse()
    assert (made.bucket, made.size_bytes, made.interval_ms) == ("lake", 5 << 20, 300_000)
    assert (made.compression, made.extension, made.keys) == (Compression.UNCOMPRESSED, "", None)


def test_a_file_extension_replaces_that_of_the_compression():
    assert parse(CompressionFormat="GZIP").extension == ".gz"
    assert parse(CompressionFormat="GZIP", FileExtension=".json.gz").extension == ".json.gz"


def test_partition_keys_are_those_of_the_query():
    assert parse_partitioned().keys == (("partitionKeyFromQuery", "tenant"),)


def test_the_older_destination_is_taken_too():
    made = parse_destination({"S3DestinationConfiguration": {"RoleARN": ROLE, "BucketARN": "arn:aws:s3:::lake"}})
    assert made.bucket == "lake"


@pytest.mark.parametrize(("delimiter", "suffix"), [("\\n", b"\n"), ("\\r\\n", b"\r\n"), ("|", b"|"), ("\\\\n", b"\\n")])
def test_a_delimiter_is_unescaped(delimiter, suffix):
    parameters = [{"ParameterName": "Delimiter", "ParameterValue": delimiter}]
    made = parse(ProcessingConfiguration=processing({"Type": "AppendDelimiterToRecord", "Parameters": parameters}))
    assert made.chain.run(Chunk([b"x"], [1], 0), 0).suffix == suffix


def test_processors_that_are_not_enabled_do_nothing():
    append = {"Type": "AppendDelimiterToRecord"}
    assert parse(ProcessingConfiguration=processing(append, enabled=False)).chain.steps == ()


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"BufferingHints": {"SizeInMBs": 5}}, "both, or neither"),
        ({"S3BackupMode": "Enabled"}, "S3BackupConfiguration is needed when S3BackupMode is Enabled"),
        (
            backed_up(Prefix="!{timestamp:yyyy}/"),
            "ErrorOutputPrefix is needed when Prefix contains expressions",
        ),
        (
            backed_up(Prefix="!{partitionKeyFromQuery:a}/", ErrorOutputPrefix="!{firehose:error-output-type}/"),
            "partitionKeyFromQuery: the backup has no partition keys",
        ),
        (backed_up(BufferingHints={"SizeInMBs": 5}), "both, or neither"),
        ({"DataFormatConversionConfiguration": {}}, "InputFormatConfiguration must not be null"),
        ({"Prefix": "!{firehose:error-output-type}/"}, "only allowed in ErrorOutputPrefix"),
        ({"Prefix": "!{timestamp:yyyy}/"}, "ErrorOutputPrefix is needed when Prefix contains expressions"),
        ({"ErrorOutputPrefix": "!{timestamp:yyyy}/"}, "needs !{firehose:error-output-type}"),
        ({"Prefix": "!{partitionKeyFromQuery:a}", "ErrorOutputPrefix": "e/"}, "needs DynamicPartitioningConfiguration"),
        ({"ProcessingConfiguration": processing(EXTRACTION)}, "needs DynamicPartitioningConfiguration"),
        (
            {"ProcessingConfiguration": processing({"Type": "RecordAggregation"})},
            "got RecordAggregation, this server supports: Decompression, CloudWatchLogProcessing, RecordDeAggregation",
        ),
        (
            {"ProcessingConfiguration": processing({"Type": "AppendDelimiterToRecord", "Parameters": EXTRACT[1:]})},
            "parameter JsonParsingEngine: allowed are: Delimiter",
        ),
        ({"CustomTimeZone": "Mars/Olympus"}, "CustomTimeZone: got Mars/Olympus"),
    ],
)
def test_a_destination_that_makes_no_sense_is_refused(members, said):
    assert said in message(parse, **members)


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"Prefix": None}, "Prefix is needed"),
        ({"ErrorOutputPrefix": None}, "ErrorOutputPrefix is needed"),
        ({"ProcessingConfiguration": None}, "needs a MetadataExtraction processor"),
        ({"Prefix": "static/"}, "needs an expression !{partitionKeyFromQuery:key}"),
        ({"Prefix": "!{partitionKeyFromQuery:tenat}"}, "tenat is not made by MetadataExtractionQuery: tenant"),
        ({"ProcessingConfiguration": processing(extraction("{tenant: .a, more: .b}"))}, "more is not used in Prefix"),
        ({"BufferingHints": {"SizeInMBs": 64, "IntervalInSeconds": 0}}, "got 0, with dynamic partitioning 1 to 900"),
        (
            {"ErrorOutputPrefix": "!{partitionKeyFromQuery:tenant}/!{firehose:error-output-type}/"},
            "Dynamic Partitioning Namespaces can't be part of an error prefix expression",
        ),
        ({"ProcessingConfiguration": processing(EXTRACTION, EXTRACTION)}, "MetadataExtraction is there twice"),
        ({"ProcessingConfiguration": processing(extraction("{tenant: "))}, "syntax error"),
        (
            {"ProcessingConfiguration": processing(extraction("{" + ",".join(f"k{n}" for n in range(51)) + "}"))},
            "makes 51 partition keys, at most 50",
        ),
    ],
)
def test_dynamic_partitioning_that_makes_no_sense_is_refused(members, said):
    assert said in message(parse_partitioned, **members)


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({}, "Exactly one destination"),
        ({"SplunkDestinationConfiguration": {}}, "SplunkDestinationConfiguration: this server supports: Extended"),
        ({"DeliveryStreamType": "MSKAsSource"}, "got MSKAsSource, this server supports: DirectPut"),
    ],
)
def test_a_destination_of_another_kind_is_refused_by_name(request_, said):
    with pytest.raises(ServiceError, match=said):
        parse_destination(request_)


def test_every_problem_is_listed_with_its_place_and_what_would_do():
    given = {
        "BucketARN": "arn:aws:s3:::lake",
        "Prefix": "c=!{partitionKeyFromQuery:customer}/",
        "DynamicPartitioningConfiguration": {"Enabled": True},
        "BufferingHints": {"SizeInMBs": 64},
        "CustomTimeZone": "Mars/Olympus",
        "S3BackupMode": "Enabled",
    }
    found = problems({"SplunkDestinationConfiguration": {}, "ExtendedS3DestinationConfiguration": given})
    s3 = "ExtendedS3DestinationConfiguration"
    assert [(one.where, list(one.remedy or [])) for one in found] == [
        ((), []),
        ((s3, "ErrorOutputPrefix"), ["ErrorOutputPrefix"]),
        ((s3, "ProcessingConfiguration"), ["ProcessingConfiguration"]),
        ((s3, "BufferingHints"), ["BufferingHints"]),
        ((s3, "CustomTimeZone"), []),
        ((s3, "S3BackupConfiguration"), []),
    ]
    for one in found:
        given |= one.remedy or {}
    parse(**{name: given[name] for name in given if name not in {"CustomTimeZone", "S3BackupMode"}})


def test_what_the_server_refuses_first_is_the_first_problem_of_the_destination():
    members = {"Prefix": "!{timestamp:yyyy}/!{firehose:error-output-type}/", "BufferingHints": {"SizeInMBs": 5}}
    given = {"BucketARN": "arn:aws:s3:::lake", **members}
    first = problems({"ExtendedS3DestinationConfiguration": given})[0]
    assert str(first) == message(parse, **members)


def test_a_processor_that_is_wrong_does_not_hide_another():
    processors = processing(extraction("{tenant: "), {"Type": "AppendDelimiterToRecord", "Parameters": EXTRACT[1:]})
    found = problems({"ExtendedS3DestinationConfiguration": {"ProcessingConfiguration": processors}})
    where = ("ExtendedS3DestinationConfiguration", "ProcessingConfiguration", "Processors")
    assert [one.where for one in found] == [(*where, 0), (*where, 1)]


def test_a_key_of_ones_own_is_looked_for_in_the_encryption():
    destination = {"ExtendedS3DestinationConfiguration": {"BucketARN": "arn:aws:s3:::lake"}}
    name = "DeliveryStreamEncryptionConfigurationInput"
    (found,) = problems({**destination, name: {"KeyType": "CUSTOMER_MANAGED_CMK"}})
    assert (found.where, "needs KeyARN" in str(found)) == ((name, "KeyARN"), True)
    assert problems({**destination, name: {"KeyType": "AWS_OWNED_CMK"}}) == []


def test_a_request_that_makes_sense_has_no_problems():
    assert problems({"ExtendedS3DestinationConfiguration": {"BucketARN": "arn:aws:s3:::lake"}}) == []
