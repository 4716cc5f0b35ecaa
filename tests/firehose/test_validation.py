"""Requests against botocore's model, in AWS's words."""

from __future__ import annotations

import re
import time

import pytest

from firehose.validation import _pattern, service_model, validate
from lake.aws_json import ServiceError


def refused(operation, request):
    with pytest.raises(ServiceError) as caught:
        validate("firehose", operation, request)
    return caught.value.code, str(caught.value)


def destination(**members):
    given = {"RoleARN": "arn:aws:iam::000000000000:role/r", "BucketARN": "arn:aws:s3:::lake", **members}
    return {"DeliveryStreamName": "s", "ExtendedS3DestinationConfiguration": given}


def test_a_request_that_fits_is_taken():
    validate("firehose", "CreateDeliveryStream", destination(BufferingHints={"SizeInMBs": 128}, Unknown=1))


def test_a_text_that_is_too_long_is_held_to_no_pattern():
    request = {
        "DeliveryStreamName": "s",
        "RedshiftDestinationConfiguration": {"ClusterJDBCURL": "jdbc:redshift://" + "redshift." * 100_000},
    }
    started = time.process_time()
    _, told = refused("CreateDeliveryStream", request)
    assert "satisfy constraint: Member must have length less than or equal to 512" in told
    assert time.process_time() - started < 2  # some of the model's patterns take quadratic time


def test_every_pattern_that_could_take_long_has_a_length():
    texts = [service_model("firehose").shape_for(name) for name in service_model("firehose").shape_names]
    assert [one.name for one in texts if "pattern" in one.metadata and "max" not in one.metadata] == []


UNMET = "failed to satisfy constraint: Member must"
ENUM = "[UNCOMPRESSED, GZIP, ZIP, Snappy, HADOOP_SNAPPY]"
S3 = "extendedS3DestinationConfiguration"


@pytest.mark.parametrize(
    ("operation", "request_", "problems"),
    [
        ("DescribeDeliveryStream", {}, [f"Value null at 'deliveryStreamName' {UNMET} not be null"]),
        (
            "DescribeDeliveryStream",
            {"DeliveryStreamName": "no spaces"},
            [f"Value 'no spaces' at 'deliveryStreamName' {UNMET} satisfy regular expression pattern: [a-zA-Z0-9_.-]+"],
        ),
        (
            "CreateDeliveryStream",
            destination(CompressionFormat="LZ4"),
            [f"Value 'LZ4' at '{S3}.compressionFormat' {UNMET} satisfy enum value set: {ENUM}"],
        ),
        (
            "CreateDeliveryStream",
            destination(BufferingHints={"SizeInMBs": 129, "IntervalInSeconds": 901}),
            [
                f"Value '129' at '{S3}.bufferingHints.sizeInMBs' {UNMET} have value less than or equal to 128",
                f"Value '901' at '{S3}.bufferingHints.intervalInSeconds' {UNMET} have value less than or equal to 900",
            ],
        ),
        (
            "PutRecordBatch",
            {"DeliveryStreamName": "s", "Records": []},
            [f"Value '[]' at 'records' {UNMET} have length greater than or equal to 1"],
        ),
        (
            "PutRecordBatch",
            {"DeliveryStreamName": "s", "Records": [{"Data": ""}, {}]},
            [f"Value null at 'records.2.member.data' {UNMET} not be null"],
        ),
    ],
)
def test_a_constraint_that_is_not_met_is_a_validation_error(operation, request_, problems):
    many = "1 validation error" if len(problems) == 1 else f"{len(problems)} validation errors"
    assert refused(operation, request_) == ("ValidationException", f"{many} detected: {'; '.join(problems)}")


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"DeliveryStreamName": 5}, "deliveryStreamName: got 5, a string is needed"),
        ({"DeliveryStreamName": "s", "Limit": True}, "limit: got True, a integer is needed"),
    ],
)
def test_a_value_of_a_wrong_type_is_a_serialization_error(request_, said):
    assert refused("DescribeDeliveryStream", request_) == ("SerializationException", said)


def test_every_pattern_of_the_model_is_one_that_python_understands():
    shapes = service_model("firehose")._service_description["shapes"]
    patterns = [shape["pattern"] for shape in shapes.values() if "pattern" in shape]
    assert len(patterns) > 20
    for pattern in patterns:
        assert isinstance(_pattern(pattern), re.Pattern)


def test_tags_may_hold_letters_of_any_script():
    validate("firehose", "CreateDeliveryStream", {**destination(), "Tags": [{"Key": "équipe 1", "Value": "données"}]})
    assert refused("CreateDeliveryStream", {**destination(), "Tags": [{"Key": "a?"}]})[0] == "ValidationException"
