"""How new objects become known: S3's events through a real queue, and the net for the ones that S3 loses."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import pytest

from lake.arrivals import Arrivals, lane_of, relist
from lake.contract import Contract, Field, Primitive
from lake.declaration import Buffering, Dataset, Lake, Tenant, Tier
from lake.errors import FindingError
from lake.manifest import Lane, Manifest
from lake.provision import provision_storage

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
_numbers = itertools.count(1)


class Place:
    """A lake with a dedicated tenant and two pooled ones, and its manifest."""

    def __init__(self, cloud):
        visits = Contract("visits", "1.0.0", (Field("page", Primitive("string")),), (), ())
        tenants = (Tenant("solo", Tier.DEDICATED), Tenant("ann", Tier.POOLED), Tenant("bob", Tier.POOLED))
        self.cloud = cloud
        self.lake = Lake(
            company=f"arrivals{next(_numbers)}",
            environment="test",
            region="us-east-1",
            tenants=tenants,
            datasets=(Dataset("visits", visits, Buffering()),),
        )
        self.said = []

    @property
    def manifest(self):
        return Manifest(self.cloud.dynamodb, self.lake.names.manifest_table())

    def put(self, tenant, key, body=b"{}"):
        self.cloud.s3.put_object(Bucket=self.lake.stream_of("visits", tenant).bucket, Key=key, Body=body)

    def collect(self, now=NOW):
        return Arrivals(self.lake, self.cloud, self.manifest, self.said.append).collect(self.lake.streams(), now)

    def waiting(self, owner, lane=Lane.EVENTS, tenant=None):
        found = self.manifest.waiting(owner, "visits", lane, tenant or owner)
        return [(one.uri.split("/", 3)[3], one.size) for one in found]

    def forget(self, owner):
        """Lose what S3 has told of so far."""
        url = self.cloud.sqs.get_queue_url(QueueName=self.lake.names.queue(owner))["QueueUrl"]
        self.cloud.sqs.purge_queue(QueueUrl=url)


@pytest.fixture
def place(cloud):
    made = Place(cloud)
    for _ in provision_storage(made.lake, cloud):
        pass
    return made


def test_an_object_that_is_written_becomes_known_with_its_lane_and_tenant(place):
    place.put("solo", "processed/visits/tenant=solo/year=2026/a b+c.gz", b"12345")
    place.put("solo", "errors/processing-failed/visits/2026/03/01/e")
    place.put("ann", "processed/visits/tenant=eve/year=2026/s.gz")
    place.put("ann", "processed/visits/loose.gz")
    assert place.collect() == 4
    assert place.waiting("solo") == [("processed/visits/tenant=solo/year=2026/a b+c.gz", 5)]
    assert place.manifest.waiting_series("solo", "visits") == [(Lane.EVENTS, "solo"), (Lane.REFUSED, "-")]
    assert place.manifest.waiting_series("pooled", "visits") == [(Lane.STRAYS, "-"), (Lane.STRAYS, "eve")]


def test_what_is_none_of_a_streams_objects_is_left_alone(place):
    place.put("solo", "processed/other/tenant=solo/x.gz")
    place.put("solo", "processed/visits/tenant=solo/", b"")
    place.put("solo", "raw/x.csv")
    assert place.collect() == 0
    assert place.manifest.waiting_series("solo", "visits") == []


def test_a_key_of_any_signs_is_known_as_it_is_and_a_folder_of_a_console_is_no_object(place):
    place.put("solo", "processed/visits/tenant=solo/2013/", b"")
    place.put("solo", "processed/visits/tenant=solo/2013/a b#[*]%20{é}.gz", b"x")
    place.collect()
    assert place.waiting("solo") == [("processed/visits/tenant=solo/2013/a b#[*]%20{é}.gz", 1)]


def test_a_queue_is_empty_once_it_was_read_and_reading_it_again_changes_nothing(place):
    place.put("solo", "processed/visits/tenant=solo/a.gz")
    assert (place.collect(), place.collect()) == (1, 0)
    assert len(place.waiting("solo")) == 1


@pytest.fixture
def asked(cloud):
    """The queues that were asked for messages, each time they were."""
    urls = []

    def note(params, **_):
        urls.append(json.loads(params["body"])["QueueUrl"].rpartition("/")[2])

    events = cloud.sqs.meta.events
    events.register("before-call.sqs.ReceiveMessage", note)
    yield urls
    events.unregister("before-call.sqs.ReceiveMessage", note)


def test_an_empty_queue_is_asked_no_more_than_twice(place, asked):
    place.collect()  # S3's own test of the notification
    asked.clear()
    place.collect()
    assert sorted(asked) == sorted(2 * [place.lake.names.queue(owner) for owner in ("solo", "pooled")])


def test_a_queue_that_holds_more_than_one_answer_is_asked_by_several(place, asked):
    for number in range(60):
        place.put("solo", f"processed/visits/tenant=solo/year=2026/{number}.gz")
    assert place.collect() == 60
    # six full answers, and two empty ones for each of the four that ask
    assert asked.count(place.lake.names.queue("solo")) >= 6 + 2 * 4


def test_hundreds_of_objects_of_many_tenants_are_all_found(place):
    for number in range(150):
        for tenant in ("ann", "bob"):
            place.put(tenant, f"processed/visits/tenant={tenant}/{number:04d}.gz")
    assert place.collect() == 300
    for tenant in ("ann", "bob"):
        found = place.waiting("pooled", tenant=tenant)
        assert [key.rpartition("/")[2] for key, _ in found] == [f"{number:04d}.gz" for number in range(150)]


def test_a_tenant_whose_name_holds_the_separator_has_a_series_of_its_own(place):
    place.put("ann", "processed/visits/tenant=eve/x.gz")
    place.put("ann", "processed/visits/tenant=eve#1/x.gz")
    place.collect()
    assert place.manifest.waiting_series("pooled", "visits") == [(Lane.STRAYS, "eve"), (Lane.STRAYS, "eve#1")]
    assert len(place.waiting("pooled", Lane.STRAYS, "eve")) == 1


def test_what_a_batch_has_settled_is_no_longer_new(place):
    place.put("solo", "processed/visits/tenant=solo/a.gz")
    place.collect()
    place.manifest.settled(place.manifest.waiting("solo", "visits", Lane.EVENTS, "solo"))
    assert place.manifest.waiting_series("solo", "visits") == []


def test_an_event_that_s3_lost_is_made_good_by_the_net(place):
    place.put("solo", "processed/visits/tenant=solo/year=2026/month=02/day=28/lost.gz")
    place.put("ann", "errors/processing-failed/visits/2026/03/01/lost")
    for owner in ("solo", "pooled"):
        place.forget(owner)
    assert place.collect() == 2
    assert "S3's events didn't tell of it" in place.said[0]
    assert place.manifest.waiting_series("pooled", "visits") == [(Lane.REFUSED, "-")]
    assert place.collect() == 0


def test_the_net_lists_only_the_days_around_now(place):
    place.put("solo", "processed/visits/tenant=solo/year=2025/month=02/day=28/lost.gz")
    place.forget("solo")
    asked = []
    events, name = place.cloud.s3.meta.events, "before-parameter-build.s3.ListObjectsV2"
    events.register(name, note := lambda params, **_: asked.append(params["Prefix"]))
    try:
        assert place.collect() == 0
    finally:
        events.unregister(name, note)
    own = [prefix for prefix in asked if "tenant=solo" in prefix]
    assert own == [
        f"processed/visits/tenant=solo/year=2026/month={month}/day={day}/"
        for month, day in (("03", "02"), ("03", "01"), ("02", "28"), ("02", "27"))
    ]
    assert "processed/visits/" not in asked


def test_the_net_looks_each_object_up_once_a_day(place):
    prefix = "processed/visits/tenant=solo/year=2026/month=03/day=01/"
    for number in range(10, 13):
        place.put("solo", f"{prefix}{number}.gz")
    assert place.collect() == 3
    looked_up = []
    events, name = place.cloud.dynamodb.meta.events, "before-parameter-build.dynamodb.BatchGetItem"
    events.register(name, note := lambda params, **_: looked_up.append(params))
    try:
        assert place.collect() == 0
        assert looked_up == []
        # behind what was listed today, it is found by the next run; before it, on the next day
        for number in ("05", "20"):
            place.put("solo", f"{prefix}{number}.gz")
        place.forget("solo")
        assert place.collect() == 1
        assert (place.collect(), len(looked_up)) == (0, 1)
    finally:
        events.unregister(name, note)
    assert place.collect(NOW + timedelta(days=1)) == 1
    assert [key.rpartition("/")[2] for key, _ in place.waiting("solo")] == [
        *("05.gz", "10.gz", "11.gz", "12.gz", "20.gz")
    ]


def test_what_lies_behind_a_runs_pages_is_found_by_the_next_run(place, monkeypatch):
    monkeypatch.setattr("lake.arrivals._NET_PAGES", 1)
    prefix = "processed/visits/tenant=solo/year=2026/month=03/day=01/"
    for number in range(1010):
        place.put("solo", f"{prefix}{number:05d}.gz")
    place.forget("solo")
    assert [place.collect() for _ in range(3)] == [1000, 10, 0]


def test_a_listing_that_is_asked_for_finds_what_is_older(place):
    place.put("solo", "processed/visits/tenant=solo/year=2025/month=02/day=28/lost.gz")
    place.put("solo", "errors/processing-failed/visits/2025/03/01/lost")
    place.forget("solo")
    place.collect()
    assert relist(place.cloud, place.manifest, place.lake.streams()) == 2
    assert relist(place.cloud, place.manifest, place.lake.streams()) == 0


def test_a_message_that_is_no_event_of_s3_is_put_aside_and_stops_nothing(place):
    sqs, names = place.cloud.sqs, place.lake.names
    url = sqs.get_queue_url(QueueName=names.queue("solo"))["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="hello")
    place.put("solo", "processed/visits/tenant=solo/a.gz")
    assert place.collect() == 1
    assert "a message that is no event of S3" in place.said[0]
    redrive = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["RedrivePolicy"])["Attributes"]["RedrivePolicy"]
    assert names.dead_queue("solo") in redrive


def test_a_lake_without_its_queue_says_how_to_make_it(cloud):
    with pytest.raises(FindingError, match=r"queue arrivals\d+-test-\w+-arrivals: there is none; `lakehose apply`"):
        Place(cloud).collect()


def test_other_notifications_of_a_bucket_stay_as_they_are(place):
    bucket, names = place.lake.names.bucket("solo"), place.lake.names
    arn = place.cloud.sqs.get_queue_attributes(
        QueueUrl=place.cloud.sqs.get_queue_url(QueueName=names.dead_queue("solo"))["QueueUrl"],
        AttributeNames=["QueueArn"],
    )["Attributes"]["QueueArn"]
    theirs = {"Id": "theirs", "QueueArn": arn, "Events": ["s3:ObjectRemoved:*"]}
    place.cloud.s3.put_bucket_notification_configuration(
        Bucket=bucket, NotificationConfiguration={"QueueConfigurations": [theirs]}
    )
    for _ in provision_storage(place.lake, place.cloud):
        pass
    found = place.cloud.s3.get_bucket_notification_configuration(Bucket=bucket)["QueueConfigurations"]
    assert {one["Id"] for one in found} == {"theirs", "lakehose-processed", "lakehose-errors"}


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("processed/visits/tenant=ann/x", (Lane.EVENTS, "ann")),
        ("processed/visits/tenant=solo/x", (Lane.STRAYS, "solo")),
        ("processed/visits/tenant=/x", (Lane.STRAYS, "-")),
        ("processed/visits/tenant=-/x", (Lane.STRAYS, "-")),
        ("processed/visits/x/a", (Lane.STRAYS, "-")),
        ("processed/visits/x", (Lane.STRAYS, "-")),
        ("processed/visits/tenant=ann", (Lane.STRAYS, "-")),
        ("processed/visitsmore/tenant=ann/x", None),
        ("errors/kind/visits/x", (Lane.REFUSED, "-")),
        ("errors/kind/other/x", None),
        ("errors/visits/x", None),
        ("raw/visits/x", None),
    ],
)
def test_the_lane_of_an_object_is_read_from_its_key(cloud, key, expected):
    lake = Place(cloud).lake
    assert lane_of(lake.stream_of("visits", "ann"), key) == expected


@pytest.mark.parametrize("sent", ["x" * 455, "!" * 300, "😀" * 100, "x" * 200])
def test_a_tenant_that_is_none_stays_short_enough_for_a_key(cloud, sent):
    lake = Place(cloud).lake
    stream = lake.stream_of("visits", "ann")
    lane, tenant = lane_of(stream, f"processed/visits/tenant={sent}/x")
    assert lane is Lane.STRAYS
    assert len(quote(tenant, safe="")) <= 256
    assert (tenant == sent) == (sent == "x" * 200)
    _, other = lane_of(stream, f"processed/visits/tenant={sent}y/x")
    assert other != tenant
