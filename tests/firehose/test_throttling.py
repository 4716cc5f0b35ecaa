"""Quotas of direct puts: the arithmetic by a clock to wind, and what unmodified boto3 is answered."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from botocore.exceptions import ClientError
from hypothesis import given
from hypothesis import strategies as st

from firehose.throttling import PutQuota, Throttle, TokenBucket, put_quota
from lake.aws_json import ServiceError
from lake.errors import TerminalError
from tests.firehose.conftest import client
from tests.firehose.test_metrics import of, scraped, statistics


class Clock:
    def __init__(self):
        self.at = 100.0

    def __call__(self):
        return self.at


@pytest.mark.parametrize(
    ("text", "quota"),
    [
        ("us-east-1", PutQuota(500_000, 2_000, 5_242_880)),
        ("us-west-2", PutQuota(500_000, 2_000, 5_242_880)),
        ("eu-west-1", PutQuota(500_000, 2_000, 5_242_880)),
        ("eu-central-1", PutQuota(100_000, 1_000, 1_048_576)),
        ("us-gov-west-1,requests=5", PutQuota(100_000, 5, 1_048_576)),
    ],
)
def test_a_region_says_what_a_stream_takes(text, quota):
    assert put_quota(text) == quota


@pytest.mark.parametrize("text", ["", "north", "eu-west-1,record=5", "eu-west-1,bytes=0", "eu-west-1,bytes=1e6"])
def test_what_is_no_quota_is_told(text):
    with pytest.raises(TerminalError, match=r"^--quotas: "):
        put_quota(text)


def test_a_second_refills_the_bucket_and_no_more():
    clock = Clock()
    bucket = TokenBucket(10, clock)
    assert [bucket.take(1) for _ in range(11)] == [True] * 10 + [False]
    clock.at += 0.5
    assert [bucket.take(1) for _ in range(6)] == [True] * 5 + [False]
    clock.at += 3600
    assert [bucket.take(1) for _ in range(11)] == [True] * 10 + [False]


def test_what_is_larger_than_the_bucket_waits_for_a_full_one_and_is_paid_back():
    clock = Clock()
    bucket = TokenBucket(10, clock)
    assert not bucket.take(25)
    assert bucket.take(25, overdraw=True)
    assert not bucket.take(1)
    clock.at += 1.5
    assert not bucket.take(1)
    clock.at += 0.2
    assert bucket.take(1)


@given(
    st.integers(1, 50),
    st.lists(st.tuples(st.floats(0, 2), st.lists(st.integers(1, 40), min_size=1, max_size=8)), max_size=30),
)
def test_never_more_than_the_quota_in_any_stretch_of_time(rate, calls):
    clock = Clock()
    throttle = Throttle(PutQuota(rate, 1000, 40 * rate), clock)
    taken = []
    for pause, lengths in calls:
        clock.at += pause
        try:
            away = throttle.admit(lengths)
        except ServiceError:
            continue
        taken.append((clock.at, len(lengths) - len(away)))
    for first in range(len(taken)):
        for last in range(first, len(taken)):
            seconds = taken[last][0] - taken[first][0]
            records = sum(count for _, count in taken[first : last + 1])
            # a bucket is full at the most when a stretch begins
            assert records <= rate * (seconds + 1) + 1e-6


def test_a_batch_above_the_bytes_a_second_is_taken_in_part(servers, bucket):
    server = servers("--quotas", "eu-central-1,bytes=2000")
    server.create("s", bucket.plain())
    firehose = server.firehose
    records = [bytes([65 + index]) * size for index, size in enumerate((900, 900, 900, 150, 900))]
    answer = firehose.put_record_batch(DeliveryStreamName="s", Records=[{"Data": one} for one in records])
    assert answer["FailedPutCount"] == 2
    said = [one.get("ErrorCode", "taken") for one in answer["RequestResponses"]]
    assert said == ["taken", "taken", "ServiceUnavailableException", "taken", "ServiceUnavailableException"]
    assert answer["RequestResponses"][2]["ErrorMessage"] == "Slow down."
    assert all(("RecordId" in one) != ("ErrorCode" in one) for one in answer["RequestResponses"])
    server.create("one-by-one", bucket.plain(Prefix="other/"))

    def put_many():  # a second's quota each: only a machine that takes a second for each is never refused
        for _ in range(30):
            firehose.put_record(DeliveryStreamName="one-by-one", Record={"Data": b"x" * 2000})

    with pytest.raises(ClientError) as caught:
        put_many()
    error = caught.value.response
    assert error["Error"] == {"Code": "ServiceUnavailableException", "Message": "Slow down."}
    assert error["ResponseMetadata"]["HTTPStatusCode"] == 503
    server.flush()
    (key,) = bucket.objects("raw/")
    assert bucket.body(key) == records[0] + records[1] + records[3]


def test_above_the_requests_a_second_calls_are_refused_and_counted(servers, offline_bucket):
    server = servers("--quotas", "eu-central-1,requests=1")
    server.create("s", offline_bucket.plain())
    server.create("other", offline_bucket.plain())
    firehose = server.firehose
    refused = 0
    for _ in range(20):
        try:
            firehose.put_record_batch(DeliveryStreamName="s", Records=[{"Data": b"a"}, {"Data": b"b"}])
        except ClientError as error:
            assert error.response["Error"]["Code"] == "ServiceUnavailableException"  # noqa: PT017
            refused += 1
    firehose.put_record(DeliveryStreamName="other", Record={"Data": b"a"})  # has a quota of its own
    assert refused
    found = scraped(server)
    assert of(found, "firehose_throttled_records_total") == 2 * refused
    assert of(found, "firehose_incoming_put_requests_total") == 20 - refused
    assert of(found, "firehose_throttled_records_total", "other") == 0
    assert of(found, "firehose_put_requests_per_second_limit") == 1
    assert of(found, "firehose_bytes_per_second_limit") == 1_048_576
    assert of(found, "firehose_records_per_second_limit") == 100_000


def test_cloudwatch_is_told_of_the_limits_and_of_what_they_turned_away(servers, s3_url, offline_bucket, wait_for):
    server = servers(
        "--quotas", "eu-central-1,bytes=3000", "--cloudwatch-endpoint", s3_url, "--cloudwatch-seconds", "1"
    )
    stream, cloudwatch = f"limited-{server.port}", client("cloudwatch", s3_url)
    server.create(stream, offline_bucket.plain())
    answer = server.firehose.put_record_batch(DeliveryStreamName=stream, Records=[{"Data": b"x" * 1000}] * 7)
    assert answer["FailedPutCount"] == 4
    wait_for(lambda: statistics(cloudwatch, "ThrottledRecords", "Sum", stream=stream) == [4])
    assert statistics(cloudwatch, "IncomingRecords", "Sum", stream=stream) == [3]
    for name, value in (("BytesPerSecond", 3000), ("RecordsPerSecond", 100_000), ("PutRequestsPerSecond", 1000)):
        found = cloudwatch.get_metric_statistics(
            Namespace="AWS/Firehose",
            MetricName=f"{name}Limit",
            Dimensions=[{"Name": "DeliveryStreamName", "Value": stream}],
            StartTime=datetime.now(UTC) - timedelta(minutes=10),
            EndTime=datetime.now(UTC) + timedelta(minutes=10),
            Period=3600,
            Statistics=["Maximum"],
        )["Datapoints"]
        assert [one["Maximum"] for one in found] == [value], name


def test_without_quotas_no_limit_is_told(module_server, offline_bucket):
    module_server.create("unlimited", offline_bucket.plain())
    assert not [name for name, *_ in scraped(module_server) if "per_second_limit" in name]


def test_a_wrong_quota_ends_the_command(tmp_path):
    from tests.firehose.test_firehose_commands import command  # noqa: PLC0415 - its tests would run here too

    run = command("serve", "--data-dir", tmp_path / "data", "--port", 0, "--quotas", "mars")
    assert run.returncode == 2
    assert run.stderr.startswith("firehose: --quotas: got 'mars', a region is needed")
