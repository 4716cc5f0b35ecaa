"""All that is wrong with a definition: told exactly when the server refuses it, whatever the definition is."""

from __future__ import annotations

import copy

from hypothesis import given, settings
from hypothesis import strategies as st

from firehose.diagnosis import Kind, diagnose, value_at
from firehose.streams import parse_destination
from firehose.validation import validate
from lake.aws_json import ServiceError

EXTRACT = {
    "Type": "MetadataExtraction",
    "Parameters": [
        {"ParameterName": "MetadataExtractionQuery", "ParameterValue": "{tenant: .tenant}"},
        {"ParameterName": "JsonParsingEngine", "ParameterValue": "JQ-1.6"},
    ],
}
WHOLE = {
    "DeliveryStreamName": "clicks",
    "DeliveryStreamType": "DirectPut",
    "ExtendedS3DestinationConfiguration": {
        "RoleARN": "arn:aws:iam::000000000000:role/firehose",
        "BucketARN": "arn:aws:s3:::lake",
        "Prefix": "t=!{partitionKeyFromQuery:tenant}/",
        "ErrorOutputPrefix": "e/!{firehose:error-output-type}/",
        "BufferingHints": {"SizeInMBs": 64, "IntervalInSeconds": 60},
        "CompressionFormat": "GZIP",
        "CustomTimeZone": "Europe/Berlin",
        "S3BackupMode": "Disabled",
        "FileExtension": ".gz",
        "CloudWatchLoggingOptions": {"Enabled": True, "LogGroupName": "g", "LogStreamName": "s"},
        "EncryptionConfiguration": {"NoEncryptionConfig": "NoEncryption"},
        "DynamicPartitioningConfiguration": {"Enabled": True, "RetryOptions": {"DurationInSeconds": 300}},
        "ProcessingConfiguration": {"Enabled": True, "Processors": [EXTRACT, {"Type": "AppendDelimiterToRecord"}]},
    },
    "Tags": [{"Key": "a", "Value": "b"}],
}


def places(value, where=()):
    yield where
    if isinstance(value, (dict, list)):
        for step, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from places(inner, (*where, step))


VALUES = st.one_of(
    st.sampled_from(
        [
            *(None, "", "static/", "!{partitionKeyFromQuery:other}/", "!{timestamp:yyyy/MM/dd}", "!{timestamp:", "a/"),
            *("!{partitionKeyFromLambda:x}/", "!{firehose:error-output-type}/", "GZIP", "ZIP", "Lambda", "Enabled"),
            *("{tenant: .a, more: .b}", "{", ".keys", "AppendDelimiterToRecord", "MetadataExtraction", "Delimiter"),
            *("KinesisStreamAsSource", "Mars/Olympus", True, False, 0, 1, 64, 10_000, 1.5, [], {}, [None], [{}]),
            {"Enabled": False},
            [EXTRACT, EXTRACT],
        ]
    ),
    st.text(max_size=8),
    st.integers(),
)
CHANGES = st.lists(st.tuples(st.sampled_from(list(places(WHOLE))[1:]), VALUES, st.booleans()), max_size=3)


@settings(max_examples=400, deadline=None)
@given(CHANGES)
def test_something_is_told_exactly_when_the_server_refuses(changes):
    request = copy.deepcopy(WHOLE)
    for where, value, gone in changes:
        holder = value_at(request, where[:-1])
        if isinstance(holder, dict):
            holder[where[-1]] = copy.deepcopy(value)
            if gone:
                del holder[where[-1]]
        elif isinstance(holder, list) and isinstance(where[-1], int) and where[-1] < len(holder):
            holder[where[-1]] = copy.deepcopy(value)
    try:
        validate("firehose", "CreateDeliveryStream", request)
        parse_destination(request)
        refused = None
    except ServiceError as error:
        refused = error
    # the service ignores members that it doesn't know
    told = [
        one
        for one in diagnose(request)
        if one.kind is not Kind.ADVICE and not one.message.startswith("There is no such member")
    ]
    assert bool(told) == bool(refused), (refused, told)


def test_a_definition_that_is_whole_has_nothing_said_against_it():
    assert diagnose(WHOLE) == []


def test_a_member_that_cloudformation_fills_in_has_nothing_said_against_it():
    s3 = "ExtendedS3DestinationConfiguration"
    request = {**WHOLE, s3: {**WHOLE[s3], "RoleARN": "not known yet"}}
    assert [one.where for one in diagnose(request)] == [(s3, "RoleARN")]
    assert diagnose(request, ((s3, "RoleARN"),)) == []
