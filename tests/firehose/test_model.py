"""The server's answers and errors, shape by shape, against botocore's model of the service."""

from __future__ import annotations

from urllib.error import HTTPError
from urllib.request import Request, urlopen

import orjson
import pytest
from botocore.model import ListShape, MapShape, StructureShape

from firehose.validation import service_model, violations

MODEL = service_model("firehose")
ROLE, BUCKET = "arn:aws:iam::000000000000:role/r", "arn:aws:s3:::lake"
NAME = "model"
# what JSON has for a shape
_JSON = {
    "string": str,
    "blob": str,
    "boolean": bool,
    "integer": int,
    "long": int,
    "timestamp": (int, float),
    "double": (int, float),
}
NO_KEYS = "the server asks no KMS for a key when a stream is made; S3 says at delivery that it can't use one"
NO_SOURCES = "the server has only streams that are put to"
# each error that the model documents for an operation: what reaches it, or why nothing does
REACHED = {
    ("CreateDeliveryStream", "InvalidArgumentException"): {"DeliveryStreamName": "x"},
    ("CreateDeliveryStream", "ResourceInUseException"): {
        "DeliveryStreamName": NAME,
        "S3DestinationConfiguration": {"RoleARN": ROLE, "BucketARN": BUCKET},
    },
    (
        "CreateDeliveryStream",
        "LimitExceededException",
    ): "a duplicate key counts once, and a request holds 50 tags at most",
    ("CreateDeliveryStream", "InvalidKMSResourceException"): NO_KEYS,
    ("DeleteDeliveryStream", "ResourceNotFoundException"): {"DeliveryStreamName": "gone"},
    ("DeleteDeliveryStream", "ResourceInUseException"): "only while it is CREATING: test_update.py",
    ("DescribeDeliveryStream", "ResourceNotFoundException"): {"DeliveryStreamName": "gone"},
    ("ListTagsForDeliveryStream", "ResourceNotFoundException"): {"DeliveryStreamName": "gone"},
    ("ListTagsForDeliveryStream", "InvalidArgumentException"): "what could be wrong is a ValidationException before",
    ("ListTagsForDeliveryStream", "LimitExceededException"): "calls are not limited",
    ("PutRecord", "ResourceNotFoundException"): {"DeliveryStreamName": "gone", "Record": {"Data": ""}},
    ("PutRecord", "InvalidArgumentException"): "one record's errors are ValidationException and SerializationException",
    ("PutRecord", "InvalidKMSResourceException"): NO_KEYS,
    ("PutRecord", "InvalidSourceException"): NO_SOURCES,
    ("PutRecord", "ServiceUnavailableException"): "memory or disk full: test_server_delivery.py, test_server_crash.py",
    ("PutRecordBatch", "ResourceNotFoundException"): {"DeliveryStreamName": "gone", "Records": [{"Data": ""}]},
    ("PutRecordBatch", "InvalidArgumentException"): {
        "DeliveryStreamName": NAME,
        "Records": [{"Data": "A" * 1_200_000}] * 5,
    },
    ("PutRecordBatch", "InvalidKMSResourceException"): NO_KEYS,
    ("PutRecordBatch", "InvalidSourceException"): NO_SOURCES,
    ("PutRecordBatch", "ServiceUnavailableException"): "as of PutRecord",
    ("TagDeliveryStream", "ResourceNotFoundException"): {"DeliveryStreamName": "gone", "Tags": [{"Key": "k"}]},
    ("TagDeliveryStream", "ResourceInUseException"): "only while it is CREATING: test_update.py",
    ("TagDeliveryStream", "InvalidArgumentException"): "what could be wrong is a ValidationException before",
    ("TagDeliveryStream", "LimitExceededException"): {
        "DeliveryStreamName": NAME,
        "Tags": [{"Key": f"more-{number}"} for number in range(50)],
    },
    ("UntagDeliveryStream", "ResourceNotFoundException"): {"DeliveryStreamName": "gone", "TagKeys": ["k"]},
    ("UntagDeliveryStream", "ResourceInUseException"): "only while it is CREATING: test_update.py",
    ("UntagDeliveryStream", "InvalidArgumentException"): "what could be wrong is a ValidationException before",
    ("UntagDeliveryStream", "LimitExceededException"): "calls are not limited",
    ("UpdateDestination", "ResourceNotFoundException"): {
        "DeliveryStreamName": "gone",
        "CurrentDeliveryStreamVersionId": "1",
        "DestinationId": "destinationId-000000000001",
    },
    ("UpdateDestination", "InvalidArgumentException"): {
        "DeliveryStreamName": NAME,
        "CurrentDeliveryStreamVersionId": "1",
        "DestinationId": "another",
        "S3DestinationUpdate": {},
    },
    ("UpdateDestination", "ConcurrentModificationException"): {
        "DeliveryStreamName": NAME,
        "CurrentDeliveryStreamVersionId": "7",
        "DestinationId": "destinationId-000000000001",
        "S3DestinationUpdate": {"Prefix": "x/"},
    },
    ("UpdateDestination", "ResourceInUseException"): "only while it is CREATING: test_update.py",
    ("StartDeliveryStreamEncryption", "ResourceNotFoundException"): {"DeliveryStreamName": "gone"},
    ("StartDeliveryStreamEncryption", "InvalidArgumentException"): {
        "DeliveryStreamName": NAME,
        "DeliveryStreamEncryptionConfigurationInput": {"KeyType": "CUSTOMER_MANAGED_CMK"},
    },
    ("StartDeliveryStreamEncryption", "ResourceInUseException"): "only while it is CREATING or changing",
    ("StartDeliveryStreamEncryption", "LimitExceededException"): "only with --quotas: test_encryption_control.py",
    ("StartDeliveryStreamEncryption", "InvalidKMSResourceException"): NO_KEYS,
    ("StopDeliveryStreamEncryption", "ResourceNotFoundException"): {"DeliveryStreamName": "gone"},
    ("StopDeliveryStreamEncryption", "InvalidArgumentException"): "its only member is a name",
    ("StopDeliveryStreamEncryption", "ResourceInUseException"): "only while it is CREATING or changing",
    ("StopDeliveryStreamEncryption", "LimitExceededException"): "only with --quotas: test_encryption_control.py",
}


def call(server, operation, request):
    headers = {"X-Amz-Target": f"Firehose_20150804.{operation}"}
    try:
        with urlopen(Request(server.url, orjson.dumps(request), headers), timeout=30) as answer:
            return answer.status, orjson.loads(answer.read())
    except HTTPError as error:
        return error.code, orjson.loads(error.read())


def differences(shape, value, place=""):
    """Where a JSON value isn't what the shape says."""
    if isinstance(shape, StructureShape):
        if not isinstance(value, dict):
            return [f"{place}: {value!r} is no structure"]
        found = [f"{place}.{name}: unknown" for name in value if name not in shape.members]
        found += [f"{place}.{name}: missing" for name in shape.required_members if value.get(name) is None]
        for name in value.keys() & shape.members.keys():
            found += differences(shape.members[name], value[name], f"{place}.{name}")
        return found
    if isinstance(shape, ListShape):
        return [one for item in value for one in differences(shape.member, item, f"{place}[]")]
    if isinstance(shape, MapShape):
        return [one for item in value.values() for one in differences(shape.value, item, f"{place}{{}}")]
    right = isinstance(value, _JSON[shape.type_name]) and (shape.type_name == "boolean") == isinstance(value, bool)
    enum = getattr(shape, "enum", None)
    if not right or (enum and value not in enum):
        return [f"{place}: {value!r} is no {shape.type_name} {enum or ''}"]
    return []


@pytest.fixture(scope="module")
def server(module_server):
    destination = {
        "RoleARN": ROLE,
        "BucketARN": BUCKET,
        "Prefix": "p/t=!{partitionKeyFromQuery:t}/",
        "ErrorOutputPrefix": "e/!{firehose:error-output-type}/",
        "BufferingHints": {"SizeInMBs": 64, "IntervalInSeconds": 60},
        "CompressionFormat": "GZIP",
        "CustomTimeZone": "Europe/Berlin",
        "FileExtension": ".json.gz",
        "CloudWatchLoggingOptions": {"Enabled": True, "LogGroupName": "g", "LogStreamName": "s"},
        "EncryptionConfiguration": {
            "KMSEncryptionConfig": {"AWSKMSKeyARN": "arn:aws:kms:us-east-1:000000000000:key/k"}
        },
        "DynamicPartitioningConfiguration": {"Enabled": True, "RetryOptions": {"DurationInSeconds": 300}},
        "ProcessingConfiguration": {
            "Enabled": True,
            "Processors": [
                {
                    "Type": "MetadataExtraction",
                    "Parameters": [
                        {"ParameterName": "MetadataExtractionQuery", "ParameterValue": "{t: .t}"},
                        {"ParameterName": "JsonParsingEngine", "ParameterValue": "JQ-1.6"},
                    ],
                }
            ],
        },
    }
    request = {"DeliveryStreamName": NAME, "ExtendedS3DestinationConfiguration": destination}
    status, answer = call(module_server, "CreateDeliveryStream", {**request, "Tags": [{"Key": "k", "Value": "v"}]})
    assert status == 200, answer
    assert differences(MODEL.operation_model("CreateDeliveryStream").output_shape, answer) == []
    return module_server


def test_every_answer_has_the_shape_of_the_model(server):
    other = {"DeliveryStreamName": "other"}
    version = {"CurrentDeliveryStreamVersionId": "1", "DestinationId": "destinationId-000000000001"}
    requests = [
        ("CreateDeliveryStream", {**other, "S3DestinationConfiguration": {"RoleARN": ROLE, "BucketARN": BUCKET}}),
        ("DescribeDeliveryStream", {"DeliveryStreamName": NAME}),
        ("DescribeDeliveryStream", other),
        ("ListDeliveryStreams", {"Limit": 1}),
        ("TagDeliveryStream", {**other, "Tags": [{"Key": "a", "Value": "b"}]}),
        ("ListTagsForDeliveryStream", other),
        ("UntagDeliveryStream", {**other, "TagKeys": ["a"]}),
        ("UpdateDestination", {**other, **version, "ExtendedS3DestinationUpdate": {"Prefix": "x/"}}),
        ("DescribeDeliveryStream", other),
        ("StartDeliveryStreamEncryption", other),
        ("DescribeDeliveryStream", other),
        ("StopDeliveryStreamEncryption", other),
        ("PutRecord", {**other, "Record": {"Data": "YQ=="}}),
        ("PutRecordBatch", {**other, "Records": [{"Data": "YQ=="}, {"Data": "Yg=="}]}),
        ("DeleteDeliveryStream", other),
    ]
    for operation, request in requests:
        assert violations("firehose", operation, request) == []
        status, answer = call(server, operation, request)
        assert status == 200, (operation, answer)
        assert differences(MODEL.operation_model(operation).output_shape, answer) == [], operation
    assert {operation for operation, _ in requests} == set(MODEL.operation_names)


def test_every_documented_error_is_reached_or_said_why_not(server):
    documented = {
        (name, one.name) for name in set(MODEL.operation_names) for one in MODEL.operation_model(name).error_shapes
    }
    assert documented == set(REACHED)
    reached = {key: given for key, given in REACHED.items() if isinstance(given, dict)}
    for (operation, code), request in reached.items():
        status, answer = call(server, operation, request)
        assert (status, answer["__type"]) == (400, code), (operation, answer)
        assert answer["message"]


def test_a_retry_of_dynamic_partitioning_has_the_models_range(server):
    destination = {
        "RoleARN": ROLE,
        "BucketARN": BUCKET,
        "DynamicPartitioningConfiguration": {"Enabled": True, "RetryOptions": {"DurationInSeconds": 7201}},
    }
    request = {"DeliveryStreamName": "retry", "ExtendedS3DestinationConfiguration": destination}
    status, answer = call(server, "CreateDeliveryStream", request)
    assert (status, answer["__type"]) == (400, "ValidationException")
    unmet = "failed to satisfy constraint: Member must have value less than or equal to 7200"
    assert f"retryOptions.durationInSeconds' {unmet}" in answer["message"]
