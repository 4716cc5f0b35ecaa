import uuid

import pytest

from lake.manifest import BatchId, BatchReceipt, Counts, Lane, Manifest, ProducerLedger
from lake.provision import _manifest
from lake.ranges import Ranges


@pytest.fixture
def manifest(cloud):
    name = f"manifest-{uuid.uuid4()}"
    _manifest(cloud, name)
    return Manifest(cloud.dynamodb, name)


def receipt(number=1, objects=1, seen=None):
    return BatchReceipt(
        batch=BatchId("pooled", "flights", Lane.EVENTS, "jfk", number),
        snapshot_id=77,
        schema_version="1.0.0",
        committed_at_ms=1_700_000_000_000,
        objects={f"s3://landing/processed/flights/tenant=jfk/{number}-{one}.gz": 10 for one in range(objects)},
        counts={"jfk": Counts(records=10 * objects, ingested=10 * objects - 3, duplicates=2, quarantined=1)},
        seen=seen or {("jfk", "site"): Ranges(((0, 9),))},
    )


def test_a_receipt_reads_back(manifest):
    manifest.record(receipt())
    assert manifest.batches("pooled", "flights") == [
        (
            BatchId("pooled", "flights", Lane.EVENTS, "jfk", 1),
            {"jfk": Counts(records=10, ingested=7, duplicates=2, quarantined=1)},
        )
    ]
    assert manifest.seen("pooled", "flights") == {("jfk", "site"): Ranges(((0, 9),))}
    assert manifest.taken("pooled", "flights", "s3://landing/processed/flights/tenant=jfk/") == {
        "s3://landing/processed/flights/tenant=jfk/1-0.gz"
    }


def test_a_receipt_written_twice_counts_once(manifest):
    manifest.record(receipt())
    manifest.record(receipt())
    assert len(manifest.batches("pooled", "flights")) == 1


def test_a_batch_of_more_objects_than_one_write_takes_is_whole(manifest):
    manifest.record(receipt(objects=60))
    assert len(manifest.taken("pooled", "flights", "s3://landing/")) == 60


def test_sequence_numbers_beyond_what_one_item_holds_are_whole(manifest):
    holes = Ranges(tuple((10 * one, 10 * one + 1) for one in range(50_000)))
    manifest.record(receipt(seen={("jfk", "phone"): holes, ("jfk", "site"): Ranges(((5, 5),))}))
    assert manifest.seen("pooled", "flights") == {("jfk", "phone"): holes, ("jfk", "site"): Ranges(((5, 5),))}


def test_numbers_seen_by_several_batches_are_joined(manifest):
    manifest.record(receipt(1, seen={("jfk", "site"): Ranges(((0, 9),))}))
    manifest.record(receipt(2, seen={("jfk", "site"): Ranges(((10, 19), (30, 31)))}))
    assert manifest.seen("pooled", "flights")[("jfk", "site")] == Ranges(((0, 19), (30, 31)))


def test_another_owners_items_are_not_seen(manifest):
    manifest.record(receipt())
    assert manifest.batches("jfk", "flights") == []


def test_a_ledger_replaces_its_older_self(manifest):
    ledger = ProducerLedger("jfk", "flights", "site-jfk", 10, 4, 1, 1_700_000_000_000, Ranges(((3, 3),)))
    manifest.report(ledger)
    newer = ProducerLedger("jfk", "flights", "site-jfk", 12, 11, 1, 1_700_000_000_001, Ranges(((3, 3),)))
    manifest.report(newer)
    assert manifest.ledgers("jfk", "flights") == [newer]
