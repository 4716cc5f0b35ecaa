"""DataFormatConversionConfiguration: what is refused, in the service's words and order."""

from __future__ import annotations

from uuid import uuid4

import pytest

from firehose.conversion import TableSchema
from firehose.converted import destination_of
from firehose.description import describe
from firehose.explain import explain
from firehose.objects import Recipe
from firehose.streams import problems
from lake.aws_json import ServiceError

ROLE = "arn:aws:iam::000000000000:role/firehose"
INPUT = {"InputFormatConfiguration": {"Deserializer": {"OpenXJsonSerDe": {}}}}
OUTPUT = {"OutputFormatConfiguration": {"Serializer": {"ParquetSerDe": {}}}}
SCHEMA = {"SchemaConfiguration": {"RoleARN": ROLE, "DatabaseName": "lake", "TableName": "flights"}}
WHOLE = {**INPUT, **OUTPUT, **SCHEMA}
TABLE = TableSchema((("id", "string"), ("at", "timestamp")), "1", {"tableName": "flights"})


def request_of(conversion=WHOLE, **members):
    given = {"RoleARN": ROLE, "BucketARN": "arn:aws:s3:::lake", **members}
    if conversion is not None:
        given["DataFormatConversionConfiguration"] = conversion
    return {"ExtendedS3DestinationConfiguration": given}


def serializer(**kinds):
    return {**WHOLE, "OutputFormatConfiguration": {"Serializer": kinds}}


def made(conversion=WHOLE, schema=TABLE, **members):
    return destination_of(request_of(conversion, **members), schema)


def message(*arguments, **members):
    with pytest.raises(ServiceError) as caught:
        made(*arguments, **members)
    assert caught.value.code == "InvalidArgumentException"
    return str(caught.value)


def test_a_stream_that_converts_has_its_own_size_extension_and_label():
    found = made()
    assert (found.size_bytes, found.interval_ms, found.extension) == (128 << 20, 300_000, ".parquet")
    assert found.compression.content_encoding == "hadoop-snappy"
    assert found.conversion.columns == TABLE.columns
    hints = {"SizeInMBs": 64, "IntervalInSeconds": 0}
    assert made(serializer(OrcSerDe={}), BufferingHints=hints).extension == ".orc"
    assert made(BufferingHints=hints).size_bytes == 64 << 20
    assert made(FileExtension=".pq").extension == ".pq"


def test_without_enabled_it_is_on_and_where_it_is_off_nothing_of_it_counts():
    assert made({**WHOLE, "Enabled": True}).extension == ".parquet"
    off = made(
        {"Enabled": False, **SCHEMA}, CompressionFormat="GZIP", BufferingHints={"SizeInMBs": 1, "IntervalInSeconds": 1}
    )
    assert (off.extension, off.size_bytes, off.conversion) == (".gz", 1 << 20, None)


def test_hints_of_which_one_is_missing_are_completed_by_its_own_default():
    (found,) = problems(request_of(BufferingHints={"IntervalInSeconds": 60}))
    assert found.remedy == {"BufferingHints": {"SizeInMBs": 128, "IntervalInSeconds": 60}}


def test_its_description_has_its_own_default_of_hints():
    class Stream:
        name = arn = "s"
        version, created, updated = 1, 0.0, None
        request = request_of()

    [described] = describe(Stream, "ACTIVE", {"Status": "DISABLED"})["Destinations"]
    hints = {"SizeInMBs": 128, "IntervalInSeconds": 300}
    assert described["ExtendedS3DestinationDescription"]["BufferingHints"] == hints


@pytest.mark.parametrize(
    ("conversion", "members", "said"),
    [
        (
            {},
            {"CompressionFormat": "GZIP", "BufferingHints": {"SizeInMBs": 5, "IntervalInSeconds": 60}},
            (
                "The S3 destination's compression format must be set to UNCOMPRESSED when data format conversion is"
                " enabled. To enable compression within the converted output format, set the appropriate serialization"
                " option in the output format configuration."
            ),
        ),
        (
            {},
            {"BufferingHints": {"SizeInMBs": 63, "IntervalInSeconds": 60}},
            "BufferingHints.SizeInMBs must be at least 64 when data format conversion is enabled.",
        ),
        ({}, {}, "InputFormatConfiguration must not be null"),
        (INPUT, {}, "OutputFormatConfiguration must not be null"),
        ({**INPUT, **OUTPUT}, {}, "SchemaConfiguration must not be null"),
        ({**WHOLE, "InputFormatConfiguration": {}}, {}, "Deserializer must not be null"),
        ({**WHOLE, "InputFormatConfiguration": {"Deserializer": {}}}, {}, "Deserializer must not be null"),
        (
            {**WHOLE, "InputFormatConfiguration": {"Deserializer": {"OpenXJsonSerDe": {}, "HiveJsonSerDe": {}}}},
            {},
            "More than one deserializer specified. Only one may be chosen.",
        ),
        (serializer(), {}, "Serializer must not be null"),
        (serializer(ParquetSerDe={}, OrcSerDe={}), {}, "More than one serializer specified. Only one may be chosen."),
        ({**WHOLE, "SchemaConfiguration": {}}, {}, "SchemaConfiguration.RoleArn must not be null or empty"),
        (
            {**WHOLE, "SchemaConfiguration": {"RoleARN": ROLE}},
            {},
            "SchemaConfiguration.DatabaseName must not be null or empty",
        ),
        (
            {**WHOLE, "SchemaConfiguration": {"RoleARN": ROLE, "DatabaseName": "lake"}},
            {},
            "SchemaConfiguration.TableName must not be null or empty",
        ),
        (
            {**WHOLE, "InputFormatConfiguration": {"Deserializer": {"HiveJsonSerDe": {"TimestampFormats": ["foo"]}}}},
            {},
            (
                "Invalid deserializer option(s): timestamp format 'foo': letter 'f': allowed are:"
                " D E G H K M S Y Z a d h k m s y z"
            ),
        ),
        (
            serializer(OrcSerDe={"BloomFilterFalsePositiveProbability": 0}),
            {},
            (
                "Invalid serializer option(s): BloomFilterFalsePositiveProbability: got 0, a number between 0 and 1,"
                " and neither of them, is needed"
            ),
        ),
    ],
)
def test_a_conversion_that_makes_no_sense_is_refused(conversion, members, said):
    assert message(conversion, None, **members) == said


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ((), "SchemaConfiguration: table lake.flights has no columns"),
        ((("a", "int"), ("A", "int")), "SchemaConfiguration: table lake.flights: column a is there twice"),
        (
            (("pic", "binary"),),
            (
                "SchemaConfiguration: table lake.flights: column pic: Hive type 'binary':"
                " binary can't be converted from JSON"
            ),
        ),
    ],
)
def test_a_table_that_can_not_be_written_is_refused(columns, said):
    assert message(WHOLE, TableSchema(columns, "1")) == said


def test_bloom_filters_of_columns_that_are_not_there_are_refused():
    assert message(serializer(OrcSerDe={"BloomFilterColumns": ["nope"]})) == (
        "Invalid serializer option(s): BloomFilterColumns: got nope, table lake.flights has: id, at"
    )


def test_all_that_is_wrong_is_told_at_once_with_what_would_do():
    hints = {"SizeInMBs": 5, "IntervalInSeconds": 60}
    found = problems(request_of({**INPUT, "SchemaConfiguration": {}}, CompressionFormat="GZIP", BufferingHints=hints))
    s3, member = "ExtendedS3DestinationConfiguration", "DataFormatConversionConfiguration"
    assert [(one.where[1:], one.remedy) for one in found] == [
        (("CompressionFormat",), {"CompressionFormat": "UNCOMPRESSED"}),
        (("BufferingHints", "SizeInMBs"), {"BufferingHints": {"SizeInMBs": 128, "IntervalInSeconds": 60}}),
        ((member,), None),
        *[((member, "SchemaConfiguration"), None)] * 3,
    ]
    assert {one.where[0] for one in found} == {s3}


def test_an_event_is_explained_by_the_name_that_its_object_would_have():
    [landing] = explain({"DeliveryStreamName": "s", **request_of()}, [b"{}"], at_ms=0, quota=500, unique=uuid4)
    assert (landing.reason, landing.key.endswith(".parquet")) == (None, True)


def test_a_schema_and_a_recipe_survive_the_disk():
    assert TableSchema.from_dict(TABLE.to_dict()) == TABLE
    found = made()
    recipe = Recipe(found.compression, b"\n", conversion=found.conversion)
    assert Recipe.from_dict(recipe.to_dict()) == recipe
