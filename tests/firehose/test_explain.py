"""Where sample events would come to lie: what is told is what the running server then does."""

from __future__ import annotations

import base64
import json
import re
import time
from collections import Counter
from datetime import UTC, datetime
from uuid import UUID, uuid4

import pytest

from firehose.explain import explain
from lake.aws_json import ServiceError

AT = round(datetime(2026, 3, 1, 23, 59, 58, tzinfo=UTC).timestamp() * 1000)
ID = UUID(int=7)


def told(request, events, quota=500, at_ms=AT):
    return explain(request, events, at_ms=at_ms, quota=quota, unique=lambda: ID)


def of(destination, name="flights"):
    return {"DeliveryStreamName": name, "ExtendedS3DestinationConfiguration": destination}


def test_an_event_has_its_keys_its_prefix_and_an_object(offline_bucket, event):
    (landing,) = told(of(offline_bucket.partitioned()), [event(1)])
    assert landing.to_dict() == {
        "event": 1,
        "keys": {"tenant": "ewr", "day": "2013-05-07"},
        "bucket": "lake-offline",
        "prefix": "processed/tenant=ewr/day=2013-05-07/",
        "key": f"processed/tenant=ewr/day=2013-05-07/flights-1-2026-03-01-23-59-58-{ID}.gz",
    }


def test_a_refused_event_has_its_error_and_its_error_prefix(offline_bucket):
    destination = offline_bucket.partitioned(ErrorOutputPrefix="e/!{firehose:error-output-type}/!{timestamp:yyyy}/")
    (landing,) = told(of(destination), [b'{"tenant":"","event_time":"2013"}'])
    assert landing.to_dict() == {
        "event": 1,
        "keys": None,
        "refused": {
            "errorOutputType": "processing-failed",
            "errorCode": "DynamicPartitioning.MetadataExtractionFailed",
            "errorMessage": "partitionKeys values must not be null or empty",
        },
        "bucket": "lake-offline",
        "prefix": "e/processing-failed/2026/",
        "key": f"e/processing-failed/2026/flights-1-2026-03-01-23-59-58-{ID}",
    }


def test_a_plain_stream_goes_by_the_time_in_its_zone(offline_bucket):
    (landing,) = told(of(offline_bucket.plain(CustomTimeZone="Asia/Tokyo")), [b"anything"])
    assert (landing.keys, landing.prefix) == ({}, "raw/2026/03/02/08/")
    assert landing.key == f"raw/2026/03/02/08/flights-1-2026-03-02-08-59-58-{ID}"


def test_a_partition_above_the_quota_is_refused(offline_bucket, event):
    events = [event(1, "ewr"), event(2, "jfk"), event(3, "lga"), event(4, "ewr")]
    landings = told(of(offline_bucket.partitioned()), events, quota=2)
    assert [one.reason and one.reason.output_type for one in landings] == [None, None, "activePartitionExceeded", None]


def test_what_processors_make_of_an_event_is_told_one_by_one_and_a_function_is_named(offline_bucket):
    arn = "arn:aws:lambda:us-east-1:000000000000:function:f"
    processors = [
        {"Type": "RecordDeAggregation", "Parameters": [{"ParameterName": "SubRecordType", "ParameterValue": "JSON"}]},
        {"Type": "Lambda", "Parameters": [{"ParameterName": "LambdaArn", "ParameterValue": arn}]},
    ]
    destination = offline_bucket.plain(
        Prefix="k=!{partitionKeyFromLambda:kind}/",
        ErrorOutputPrefix="e/!{firehose:error-output-type}/",
        DynamicPartitioningConfiguration={"Enabled": True},
        ProcessingConfiguration={"Enabled": True, "Processors": processors},
    )
    landings = told(of(destination), [b'{"a":1}{"b":2}', b'{"c":3}', b"[4]"])
    assert [(one.event, one.record, one.prefix) for one in landings] == [
        *((0, b'{"a":1}', "k=<kind>/"), (0, b'{"b":2}', "k=<kind>/"), (1, None, "k=<kind>/")),
        (2, None, "e/processing-failed/"),
    ]
    assert [one.function for one in landings] == [arn, arn, arn, None]
    assert landings[0].to_dict()["record"] == '{"a":1}'


def test_a_definition_that_makes_no_sense_is_refused(offline_bucket, event):
    with pytest.raises(ServiceError, match="needs a MetadataExtraction processor"):
        told(of(offline_bucket.partitioned(ProcessingConfiguration=None)), [event(1)])


DEEP = b"[" * 12_000 + b"]" * 12_000
EVENTS = [
    b'{"tenant":"ewr","event_time":"2013-05-07T10:00:00Z"}',
    b'{"tenant":"ewr","event_time":"2013-05-07T11:00:00Z","more":[1,2]}',
    b'{"tenant":"jfk","event_time":"2013-12-31T23:59:59Z"}',
    b'{"tenant":12,"event_time":"2013-05-08"}',
    '{"tenant":"Zürich ✈","event_time":"2013-05-08"}'.encode(),
    b'{"tenant":true,"event_time":"2013-05-08"}',
    b'{"tenant":"a=b/c","event_time":"2013-05-08"}',
    b'{"tenant":"..","event_time":"/../x"}',
    b'{"tenant":"","event_time":"2013-05-08"}',
    b'{"tenant":null,"event_time":"2013-05-08"}',
    b'{"tenant":["x"],"event_time":"2013-05-08"}',
    b'{"event_time":"2013-05-08"}',
    b'{"tenant":"ewr","event_time":20130508}',
    b'{"tenant":"' + b"x" * 600 + b'","event_time":"2013-05-08"}',
    b'{"tenant":"a\\u0001b","event_time":"2013-05-08"}',
    b'[{"tenant":"ewr","event_time":"2013-05-08"}]',
    b'{"tenant":"ewr","event_time":"2013-05-08"}{"tenant":"ewr","event_time":"2013-05-08"}',
    b"not json",
    b"",
    b'\xef\xbb\xbf{"tenant":"ewr","event_time":"2013-05-08"}',
    b'{"tenant":"\xff","event_time":"2013-05-08"}',
    DEEP,
]


def test_what_is_told_is_what_the_server_does(server, bucket):
    destination = bucket.partitioned(
        Prefix="p/!{partitionKeyFromQuery:tenant}/!{partitionKeyFromQuery:day}/!{timestamp:yyyy'/week'ww}/",
        ErrorOutputPrefix="e/!{firehose:error-output-type}/!{timestamp:yyyy/MM/dd}/",
        CompressionFormat="UNCOMPRESSED",
        FileExtension=".jsonl",
        CustomTimeZone="Asia/Kathmandu",
    )
    server.create("flights", destination)
    server.batch("flights", EVENTS)
    server.flush("flights")
    good, refused, arrival_ms = found_in(bucket)

    landings = told(of(destination), EVENTS, at_ms=arrival_ms)

    assert [one.event for one in landings] == list(range(len(EVENTS)))
    assert {one.bucket for one in landings} == {bucket.name}
    assert all(one.key.startswith(one.prefix) for one in landings)
    taken = [one for one in landings if one.reason is None]
    assert Counter((nameless(one.key), EVENTS[one.event]) for one in taken) == good
    assert {
        (nameless(one.key), one.reason.code, one.reason.message, EVENTS[one.event]) for one in landings if one.reason
    } == refused
    # a byte order mark is taken, and bytes that are no UTF-8 become U+FFFD, as in jq
    assert (len(taken), len(refused)) == (9, 13)


def nameless(key):
    """A key without its id: what is left is the same for the same records."""
    return re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "ID", key)


def found_in(bucket):
    """What the server wrote: good records and refused ones by their objects, and when they arrived."""
    good: Counter[tuple[str, bytes]] = Counter()
    refused: set[tuple[str, str, str, bytes]] = set()
    arrivals: set[int] = set()
    for key in bucket.objects():
        for line in bucket.body(key).split(b"\n")[:-1]:
            if not key.startswith("e/"):
                good[nameless(key), line] += 1
                continue
            record = json.loads(line)
            raw = base64.b64decode(record["rawData"])
            refused.add((nameless(key), record["errorCode"], record["errorMessage"], raw))
            arrivals.add(record["arrivalTimestamp"])
    (arrival_ms,) = arrivals
    return good, refused, arrival_ms


def test_more_partitions_than_the_quota_are_refused_as_the_server_refuses_them(server, bucket, event):
    events = [event(number, f"t{number % 550:03d}") for number in range(600)]
    server.create("flights", bucket.partitioned())
    server.batch("flights", events[:500])
    server.batch("flights", events[500:])
    server.flush("flights")
    (key,) = bucket.objects("errors/")
    landings = explain(of(bucket.partitioned()), events, at_ms=round(time.time() * 1000), quota=500, unique=uuid4)
    refused = [one.event for one in landings if one.reason is not None]
    assert refused == list(range(500, 550))
    assert len(bucket.body(key).splitlines()) == 50
    assert {one.prefix for one in landings if one.reason is not None} == {key[: key.rindex("flights-1-")]}
