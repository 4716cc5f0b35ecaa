import json
from dataclasses import replace
from pathlib import Path

import boto3
import pytest
from botocore.validate import validate_parameters

from firehose.definition import KEYS_QUERY, create_request, role_policy, trust_policy
from firehose.extraction import compile_query
from firehose.processing import Chunk
from lake.declaration import read_lake

LAKE = read_lake(Path(__file__).parents[2] / "lake.yaml")
DEDICATED, POOLED = LAKE.streams()
KEY = "arn:aws:kms:us-east-1:123456789012:key/k"


def destination(stream):
    return create_request(stream, account="123456789012", key_arn=KEY)["ExtendedS3DestinationConfiguration"]


@pytest.mark.parametrize("stream", LAKE.streams(), ids=lambda one: one.owner)
def test_the_request_has_the_shape_of_the_service(stream):
    request = create_request(stream, account="123456789012", key_arn=KEY)
    shape = boto3.client("firehose", region_name="us-east-1").meta.service_model.operation_model("CreateDeliveryStream")
    validate_parameters(request, shape.input_shape)


def test_a_dedicated_stream_writes_into_its_tenants_bucket_and_a_pooled_one_into_the_landing_bucket():
    assert destination(DEDICATED)["BucketARN"] == "arn:aws:s3:::acme-ewr-demo-datalake"
    assert destination(POOLED)["BucketARN"] == "arn:aws:s3:::acme-pooled-demo-landing"


def test_objects_are_partitioned_by_tenant_and_day_and_errors_by_kind():
    assert destination(POOLED)["Prefix"] == (
        "processed/flights/tenant=!{partitionKeyFromQuery:tenant}/year=!{partitionKeyFromQuery:year}/"
        "month=!{partitionKeyFromQuery:month}/day=!{partitionKeyFromQuery:day}/"
    )
    assert destination(POOLED)["ErrorOutputPrefix"] == (
        "errors/!{firehose:error-output-type}/flights/!{timestamp:yyyy/MM/dd}/"
    )


def test_buffering_is_the_declarations():
    slow = replace(POOLED, dataset=replace(POOLED.dataset, buffering=replace(POOLED.dataset.buffering, size_mib=128)))
    assert destination(slow)["BufferingHints"] == {"SizeInMBs": 128, "IntervalInSeconds": 60}
    assert destination(slow)["CompressionFormat"] == "GZIP"


def test_the_query_takes_the_keys_of_an_event():
    event = {"tenant": "jfk", "event_time": "2013-01-02T03:04:05.000Z", "payload": {"tenant": "another"}}
    step = compile_query(KEYS_QUERY)
    chunk = step.apply(Chunk([json.dumps(event).encode()], [0], 0), 0)
    assert dict(zip(step.keys, chunk.keys[0], strict=True)) == {
        "tenant": "jfk",
        "year": "2013",
        "month": "01",
        "day": "02",
    }


def test_the_role_reaches_its_own_prefixes_and_key_and_nothing_else():
    policy = role_policy(DEDICATED, region="us-east-1", account="123456789012", key_arn=KEY)
    bucket = "arn:aws:s3:::acme-ewr-demo-datalake"
    allowed = {
        (action, resource)
        for one in policy["Statement"]
        for action in ([one["Action"]] if isinstance(one["Action"], str) else one["Action"])
        for resource in ([one["Resource"]] if isinstance(one["Resource"], str) else one["Resource"])
    }
    log = "arn:aws:logs:us-east-1:123456789012:log-group:/aws/kinesisfirehose/acme-demo-flights-ewr:log-stream:*"
    assert allowed == {
        ("s3:GetBucketLocation", bucket),
        ("s3:ListBucketMultipartUploads", bucket),
        ("s3:ListBucket", bucket),
        ("s3:AbortMultipartUpload", f"{bucket}/processed/flights/*"),
        ("s3:AbortMultipartUpload", f"{bucket}/errors/*/flights/*"),
        ("s3:PutObject", f"{bucket}/processed/flights/*"),
        ("s3:PutObject", f"{bucket}/errors/*/flights/*"),
        ("kms:Decrypt", KEY),
        ("kms:GenerateDataKey", KEY),
        ("logs:PutLogEvents", log),
    }


def test_only_firehose_for_this_account_may_take_the_role():
    (statement,) = trust_policy("123456789012")["Statement"]
    assert statement["Principal"] == {"Service": "firehose.amazonaws.com"}
    assert statement["Condition"] == {"StringEquals": {"sts:ExternalId": "123456789012"}}
