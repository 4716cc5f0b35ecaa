"""What is kept of an erasure: receipts without personal data, and tombstones that a batch finds by its time."""

import json
import uuid
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from lake.erasure import (
    Key,
    Place,
    Subject,
    new_receipt,
    read_receipt,
    receipts,
    tombstone,
    write_receipt,
)
from lake.errors import TerminalError
from lake.manifest import Manifest
from lake.provision import _manifest
from spark_jobs.tombstones import buried_events, bury, erased_among

NOW = datetime(2024, 5, 1, 12, tzinfo=UTC)
ZOE = Subject("solo", (Key("email", "zoë@x.org"), Key("user_id", "42")))


@pytest.fixture
def bucket(cloud):
    name = f"receipts-{uuid.uuid4()}"
    cloud.s3.create_bucket(Bucket=name)
    return name


@pytest.fixture
def manifest(cloud):
    name = f"manifest-{uuid.uuid4()}"
    _manifest(cloud, name)
    return Manifest(cloud.dynamodb, name)


def test_a_receipt_reads_back_and_holds_none_of_the_values(cloud, bucket):
    made = new_receipt(ZOE, "e1", NOW)
    place = Place("objects", {"s3://b/k?versionId=3": 2}, removed=2, gone=1, remaining=0, unread=("s3://b/x.png",))
    made = replace(made.with_place("s3://b/raw/", place), notes=("a remark",), erased_rows={"visits": {"d.visits": 3}})
    write_receipt(cloud.s3, bucket, made)
    assert read_receipt(cloud.s3, bucket, "e1") == made
    assert list(receipts(cloud.s3, bucket)) == [made]
    body = cloud.s3.get_object(Bucket=bucket, Key="erasures/e1.json")["Body"].read().decode()
    assert "x.org" not in body
    assert {len(one["digest"]) for one in json.loads(body)["subject"]} == {64}


def test_only_who_knows_all_the_values_has_the_receipts_subject():
    made = new_receipt(ZOE, "e1", NOW)
    assert made.is_of(Subject("solo", ZOE.keys[::-1]))
    assert not made.is_of(Subject("ann", ZOE.keys))
    assert not made.is_of(Subject("solo", ZOE.keys[:1]))
    assert not made.is_of(Subject("solo", (Key("email", "zoe@x.org"), Key("user_id", "42"))))
    assert not made.is_of(Subject("solo", (Key("email", "42"), Key("user_id", "zoë@x.org"))))


def test_two_receipts_of_one_subject_have_nothing_in_common():
    one, two = new_receipt(ZOE, "e1", NOW), new_receipt(ZOE, "e2", NOW)
    assert {seal.digest for seal in one.subject}.isdisjoint(seal.digest for seal in two.subject)


def test_a_receipt_that_is_none_is_named(cloud, bucket):
    cloud.s3.put_object(Bucket=bucket, Key="erasures/e1.json", Body=b'{"id": "e1"}')
    with pytest.raises(TerminalError, match=r"receipt s3://receipts-.*/erasures/e1.json: it can't be read: KeyError"):
        read_receipt(cloud.s3, bucket, "e1")


def test_a_tombstone_keeps_a_digest_and_roughly_the_time():
    digest = "c2cf381ea319c1307f00b65afcc7151b86722f35636c4dd2657d89a5fd65088d"
    assert tombstone("018f0000-1111-7000-8000-000000000001") == ("018f0000", digest)
    assert tombstone("018F0000-1111-7000-8000-000000000001")[0] == ""
    assert tombstone("zoe-1")[0] == ""


def test_a_batch_finds_the_tombstones_of_its_own_time_and_those_that_tell_none(cloud, bucket, manifest):
    early, late = "018f0000-1111-7000-8000-000000000001", "018f2222-1111-7000-8000-000000000001"
    other = "zoe-1"
    assert erased_among(manifest, "solo", "visits", (early, late)) == set()
    where = {"bucket": bucket, "erasure_id": "e1", "tenant": "solo", "dataset": "visits"}
    assert bury(cloud.s3, manifest, [tombstone(early), tombstone(other)], **where) == 2
    assert bury(cloud.s3, manifest, [tombstone(late)], **where) == 3
    assert bury(cloud.s3, manifest, [tombstone(late)], **where) == 3
    assert bury(cloud.s3, manifest, [], **where) == 3
    digests = {one: tombstone(one)[1] for one in (early, late, other)}
    assert erased_among(manifest, "solo", "visits", (early, early)) == {digests[early], digests[other]}
    assert erased_among(manifest, "solo", "visits", ("018f1000", "018f3000")) == set(digests.values())
    between = ("018f1000-1111-7000-8000-000000000001", "018f1001-1111-7000-8000-000000000001")
    assert erased_among(manifest, "solo", "visits", between) == {digests[other]}
    assert erased_among(manifest, "solo", "visits", None) == set()
    assert erased_among(manifest, "ann", "visits", (early, late)) == set()
    assert {digest for _, digest in buried_events(cloud.s3, bucket, "e1", "visits")} == set(digests.values())
