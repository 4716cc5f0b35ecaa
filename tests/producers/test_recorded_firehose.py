from __future__ import annotations

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError, ConnectionClosedError, EndpointConnectionError

from producers.testing import THROTTLE, Disconnect, FailRecords, ManualClock, RecordedFirehose


def put(firehose, *data, stream="s"):
    return firehose.client.put_record_batch(DeliveryStreamName=stream, Records=[{"Data": one} for one in data])


def test_records_are_taken_and_recorded():
    firehose = RecordedFirehose()
    answer = put(firehose, b"0", b"1")
    assert (answer["FailedPutCount"], len(answer["RequestResponses"])) == (0, 2)
    assert firehose.taken == [b"0", b"1"]
    assert firehose.calls[0].records == (b"0", b"1")


def test_scripted_records_fail_by_themselves():
    firehose = RecordedFirehose(FailRecords(1))
    answer = put(firehose, b"0", b"1", b"2")
    assert answer["FailedPutCount"] == 1
    assert answer["RequestResponses"][1] == {
        "ErrorCode": "ServiceUnavailableException",
        "ErrorMessage": "Slow down.",
    }
    assert firehose.taken == [b"0", b"2"]


def test_a_throttled_call_raises_what_boto3_raises():
    firehose = RecordedFirehose(THROTTLE)
    with pytest.raises(firehose.client.exceptions.ServiceUnavailableException, match=r"Slow down\."):
        put(firehose, b"0")
    assert (len(firehose.calls), firehose.taken) == (1, [])


def test_a_broken_connection_takes_nothing_or_loses_the_answer():
    firehose = RecordedFirehose(Disconnect(), Disconnect(after_taking=True))
    for _ in range(2):
        with pytest.raises(EndpointConnectionError):
            put(firehose, b"0")
    assert firehose.taken == [b"0"]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([b"0"] * 501, "at 'records' failed to satisfy constraint: Member must have length less than or equal to 500"),
        ([b"0", b"x" * 1_024_001], "at 'records.2.member.data' failed to satisfy constraint"),
        ([b"x" * 1_024_000] * 4 + [b"x" * 98_305], "Records size exceeds 4 MB limit"),
    ],
    ids=["501 records", "a record over its limit", "a call over its limit"],
)
def test_the_services_limits_hold(records, message):
    firehose = RecordedFirehose()
    with pytest.raises(ClientError, match=message):
        put(firehose, *records)
    assert firehose.taken == []


def test_at_its_limits_a_call_is_taken():
    firehose = RecordedFirehose()
    put(firehose, *[b"x" * 1_024_000] * 4, b"x" * 98_304)
    put(firehose, *[b"0"] * 500)
    assert len(firehose.taken) == 505


def test_a_stream_that_is_not_there_is_refused():
    firehose = RecordedFirehose(streams={"t"})
    with pytest.raises(firehose.client.exceptions.ResourceNotFoundException, match="Firehose s under account"):
        put(firehose, b"0")


def test_over_http_it_answers_the_same():
    firehose = RecordedFirehose(Disconnect(after_taking=True), THROTTLE)
    with firehose.serve() as url:
        client = boto3.client(
            "firehose",
            region_name="us-east-1",
            endpoint_url=url,
            aws_access_key_id="test",
            aws_secret_access_key="test",  # noqa: S106
            config=Config(retries={"total_max_attempts": 1}),
        )
        with pytest.raises(ConnectionClosedError):
            client.put_record_batch(DeliveryStreamName="s", Records=[{"Data": b"0"}])
        with pytest.raises(client.exceptions.ServiceUnavailableException):
            client.put_record_batch(DeliveryStreamName="s", Records=[{"Data": b"1"}])
        client.put_record_batch(DeliveryStreamName="s", Records=[{"Data": b"2"}])
    assert firehose.taken == [b"0", b"2"]


def test_the_manual_clock_moves_by_sleeping():
    clock = ManualClock()
    before = clock.now()
    clock.sleep(1.5)
    assert (clock.monotonic(), (clock.now() - before).total_seconds(), clock.slept) == (1.5, 1.5, [1.5])
