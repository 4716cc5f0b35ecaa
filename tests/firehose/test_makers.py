"""Parameters of the processors that make records: what they become, and what is said of wrong ones."""

from __future__ import annotations

import pytest

from firehose.deaggregation import SplitDelimited, SplitJson
from firehose.decompression import ExtractMessages, Gunzip
from firehose.definition_error import DefinitionError
from firehose.lambda_transform import LambdaTransform
from firehose.makers import MAKERS, maker_of, maker_problems
from firehose.processing import ORDER

ARN = "arn:aws:lambda:us-east-1:123456789012:function:transform"


def test_makers_are_known_in_the_order_the_service_applies_them():
    assert tuple(kind for kind in ORDER if kind in MAKERS) == MAKERS


@pytest.mark.parametrize(
    ("kind", "parameters", "made"),
    [
        ("Decompression", {}, Gunzip()),
        ("Decompression", {"CompressionFormat": "GZIP"}, Gunzip()),
        ("CloudWatchLogProcessing", {"DataMessageExtraction": "true"}, ExtractMessages()),
        ("CloudWatchLogProcessing", {"DataMessageExtraction": "False"}, ExtractMessages(enabled=False)),
        ("RecordDeAggregation", {"SubRecordType": "JSON"}, SplitJson()),
        ("RecordDeAggregation", {"SubRecordType": "DELIMITED", "Delimiter": "IyMjIw=="}, SplitDelimited(b"####")),
        ("Lambda", {"LambdaArn": ARN}, LambdaTransform(ARN, 3, 1 << 20, 60_000)),
        (
            "Lambda",
            {
                "LambdaArn": f"{ARN}:$LATEST",
                "NumberOfRetries": "0",
                "RoleArn": "arn:aws:iam::123456789012:role/firehose",
                "BufferSizeInMBs": "0.2",
                "BufferIntervalInSeconds": "0",
            },
            LambdaTransform(f"{ARN}:$LATEST", 0, 209_715, 0),
        ),
        (
            "Lambda",
            {"LambdaArn": ARN, "NumberOfRetries": "300", "BufferSizeInMBs": "3", "BufferIntervalInSeconds": "900"},
            LambdaTransform(ARN, 300, 3 << 20, 900_000),
        ),
        ("Lambda", {"LambdaArn": "arn:aws-cn:lambda:cn-north-1:123456789012:function:a:prod"}, None),
    ],
)
def test_parameters_make_a_processor(kind, parameters, made):
    assert maker_of(kind, parameters) == (made or LambdaTransform(parameters["LambdaArn"]))


@pytest.mark.parametrize(
    ("kind", "parameters", "message"),
    [
        (
            "Decompression",
            {"CompressionFormat": "Snappy"},
            "Decompression: CompressionFormat: got 'Snappy', allowed are: GZIP",
        ),
        (
            "Decompression",
            {"Delimiter": "x"},
            "Processor Decompression: parameter got 'Delimiter', allowed are: CompressionFormat",
        ),
        (
            "CloudWatchLogProcessing",
            {},
            (
                "Invalid parameter value for DataMessageExtraction. Allowed values are True and False."
                " CloudWatchLogProcessing: got none"
            ),
        ),
        (
            "CloudWatchLogProcessing",
            {"DataMessageExtraction": "yes"},
            (
                "Invalid parameter value for DataMessageExtraction. Allowed values are True and False."
                " CloudWatchLogProcessing: got 'yes'"
            ),
        ),
        (
            "RecordDeAggregation",
            {},
            "SubRecordType has to be one of JSON, DELIMITED; RecordDeAggregation: got none",
        ),
        (
            "RecordDeAggregation",
            {"SubRecordType": "json"},
            "SubRecordType has to be one of JSON, DELIMITED; RecordDeAggregation: got 'json'",
        ),
        (
            "RecordDeAggregation",
            {"SubRecordType": "JSON", "Delimiter": "Cg=="},
            "RecordDeAggregation: Delimiter: got 'Cg==', allowed only with SubRecordType DELIMITED",
        ),
        (
            "RecordDeAggregation",
            {"SubRecordType": "DELIMITED"},
            "Delimiter should be present for DELIMITED; RecordDeAggregation: got none",
        ),
        (
            "RecordDeAggregation",
            {"SubRecordType": "DELIMITED", "Delimiter": "####"},
            (
                "RecordDeAggregation: Delimiter: got '####', it has to be base64 of at least one byte:"
                " IyMjIw== is that of '####'"
            ),
        ),
        ("Lambda", {}, "LambdaArn is required when Lambda processor is used."),
        (
            "Lambda",
            {"LambdaArn": "transform"},
            (
                "Lambda: LambdaArn: got 'transform', allowed is the ARN of a function, a version or an alias, as in"
                " arn:aws:lambda:us-east-1:123456789012:function:name:$LATEST"
            ),
        ),
        (
            "Lambda",
            {"LambdaArn": ARN, "RoleArn": "me"},
            "Lambda: RoleArn: got 'me', allowed is the ARN of a role, as in arn:aws:iam::123456789012:role/name",
        ),
        (
            "Lambda",
            {"LambdaArn": ARN, "BufferSizeInMBs": "1"},
            (
                "Both BufferSizeInMBs and BufferIntervalInSeconds are required to configure buffering for lambda"
                " processor: got BufferSizeInMBs '1', BufferIntervalInSeconds none"
            ),
        ),
        *(
            (
                "Lambda",
                {"LambdaArn": ARN, "BufferSizeInMBs": given, "BufferIntervalInSeconds": "60"},
                f"BufferSizeInMBs for lambda processor must be between 0.2 and 3: got '{given}'",
            )
            for given in ("0.1", "3.1", "nan", "inf", "-1", "one")
        ),
        *(
            (
                "Lambda",
                {"LambdaArn": ARN, "BufferSizeInMBs": "1", "BufferIntervalInSeconds": given},
                (
                    "BufferIntervalInSeconds for lambda processor must be between 0 and 900:"
                    f" got '{given}', a whole number is needed"
                ),
            )
            for given in ("901", "-1", "1.5", "\u0661", "9" * 60)
        ),
        *(
            (
                "Lambda",
                {"LambdaArn": ARN, "NumberOfRetries": given},
                f"Number of retries for lambda must be between 0 and 300: got '{given}', a whole number is needed",
            )
            for given in ("301", "-1", "three", "")
        ),
    ],
)
def test_wrong_parameters_are_told_with_what_is_allowed(kind, parameters, message):
    with pytest.raises(DefinitionError) as found:
        maker_of(kind, parameters)
    assert str(found.value) == message


def test_extraction_of_messages_needs_decompression():
    (found,) = maker_problems(["CloudWatchLogProcessing", "Lambda"], partitioned=False)
    assert str(found) == (
        "CloudWatchLogProcessingProcessor can only be enabled with DecompressionProcessor:"
        " add a processor of type Decompression"
    )
    assert list(maker_problems(["CloudWatchLogProcessing", "Decompression"], partitioned=False)) == []


def test_deaggregation_needs_dynamic_partitioning():
    (found,) = maker_problems(["RecordDeAggregation"], partitioned=False)
    assert found.where == ("DynamicPartitioningConfiguration",)
    assert found.remedy == {"DynamicPartitioningConfiguration": {"Enabled": True}}
    assert list(maker_problems(["RecordDeAggregation"], partitioned=True)) == []
