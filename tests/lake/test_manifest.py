from dataclasses import replace
from datetime import date

import pytest

from lake.figures import Counts, Figures
from lake.manifest import Arrival, BatchId, BatchReceipt, Lane, Manifest, ProducerLedger
from lake.ranges import Ranges

DAY = "2013-01-01"


@pytest.fixture
def manifest(cloud, table):
    return Manifest(cloud.dynamodb, table)


def receipt(number=1, objects=1, seen=None):
    return BatchReceipt(
        batch=BatchId("pooled", "flights", Lane.EVENTS, "jfk", number),
        snapshot_id=77,
        schema_version="1.0.0",
        committed_at_ms=1_700_000_000_000,
        objects={f"s3://landing/processed/flights/tenant=jfk/{number}-{one}.gz": 10 for one in range(objects)},
        figures=Figures(
            {("jfk", DAY): Counts(records=10 * objects, ingested=10 * objects - 3, duplicates=2, quarantined=1)},
            seen or {("jfk", "site", DAY): Ranges(((0, 9),))},
        ),
    )


def test_a_receipt_reads_back(manifest):
    manifest.record(receipt())
    assert manifest.batches("pooled", "flights") == [(receipt().batch, receipt().figures)]
    assert receipt().counts == {"jfk": Counts(records=10, ingested=7, duplicates=2, quarantined=1)}
    assert manifest.taken("pooled", "flights", "s3://landing/processed/flights/tenant=jfk/") == {
        "s3://landing/processed/flights/tenant=jfk/1-0.gz"
    }


def test_a_receipt_written_twice_counts_once(manifest):
    manifest.record(receipt())
    manifest.record(receipt())
    assert len(manifest.batches("pooled", "flights")) == 1


def test_objects_with_the_longest_keys_that_s3_takes_are_told_apart(manifest):
    long = f"s3://{'b' * 63}/processed/flights/tenant=jfk/".ljust(5 + 63 + 1 + 1023, "x")
    ones = [Arrival("pooled", "flights", Lane.EVENTS, "jfk", f"{long}{end}", 5) for end in "12"]
    manifest.arrived(ones)
    manifest.arrived(ones)
    assert manifest.waiting("pooled", "flights", Lane.EVENTS, "jfk") == ones
    assert manifest.waiting_series("pooled", "flights") == [(Lane.EVENTS, "jfk")]
    manifest.record(replace(receipt(), objects={ones[0].uri: 10}))
    manifest.settled(ones[:1])
    assert manifest.waiting("pooled", "flights", Lane.EVENTS, "jfk") == ones[1:]
    assert manifest.taken_of(ones) == ones[:1]
    third = replace(ones[0], uri=f"{long}3")
    assert manifest.unknown([*ones, third]) == [third]
    assert manifest.taken("pooled", "flights", "s3://") == {ones[0].uri}


def test_a_batch_of_more_objects_than_one_write_takes_is_whole(manifest):
    manifest.record(receipt(objects=60))
    assert len(manifest.taken("pooled", "flights", "s3://landing/")) == 60


def test_sequence_numbers_beyond_what_one_item_holds_are_whole(manifest):
    holes = Ranges(tuple((10 * one, 10 * one + 1) for one in range(50_000)))
    wide = receipt(seen={("jfk", "phone", DAY): holes, ("jfk", "site", "-"): Ranges(((5, 5),))})
    manifest.record(wide)
    assert manifest.figures_of(wide.batch) == wide.figures


def test_a_batch_of_thousands_of_days_is_whole(manifest):
    days = [date.fromordinal(date(2001, 1, 1).toordinal() + one).isoformat() for one in range(8_000)]
    wide = replace(receipt(), figures=Figures({("jfk", day): Counts(2, 1, 1) for day in days}))
    manifest.record(wide)
    assert manifest.figures_of(wide.batch) == wide.figures


def test_a_receipt_with_fewer_pieces_than_its_older_self_has_none_of_the_old(manifest):
    holes = Ranges(tuple((10 * one, 10 * one + 1) for one in range(50_000)))
    manifest.record(receipt(seen={("jfk", "phone", DAY): holes}))
    manifest.record(receipt())
    assert manifest.figures_of(receipt().batch) == receipt().figures


def test_a_receipt_is_there_once_all_that_belongs_to_it_is(manifest, table, busy):
    class KilledError(Exception):
        pass

    def kill(**_):
        raise KilledError

    client = busy("BatchWriteItem", times=1, takes=3)
    client.meta.events.register("after-call.dynamodb.BatchWriteItem", kill)
    with pytest.raises(KilledError):
        Manifest(client, table).record(receipt(objects=5))
    assert len(manifest.taken("pooled", "flights", "s3://landing/")) == 3
    assert manifest.figures_of(receipt().batch) is None
    assert manifest.last_receipt(receipt().batch) == 0


def test_the_batches_behind_a_number_come_in_order(manifest):
    for number in (1, 2, 10, 3):
        manifest.record(receipt(number))
    series = receipt(1).batch
    assert [number for number, _ in manifest.behind(series)] == [2, 3, 10]
    assert [number for number, _ in manifest.behind(series, 2)] == [2, 3]
    assert manifest.last_receipt(series) == 10
    assert manifest.numbers(series) == {1, 2, 3, 10}


def test_series_whose_tenants_begin_alike_are_kept_apart(manifest):
    for tenant, number in (("a", 1), ("a#b", 7), ("a b", 3), ("a%23b", 5)):
        manifest.record(replace(receipt(), batch=BatchId("pooled", "flights", Lane.STRAYS, tenant, number)))
    assert {one.tenant: manifest.last_receipt(one) for one, _ in manifest.batches("pooled", "flights")} == {
        "a": 1,
        "a#b": 7,
        "a b": 3,
        "a%23b": 5,
    }


def test_another_owners_items_are_not_seen(manifest):
    manifest.record(receipt())
    assert manifest.batches("jfk", "flights") == []


def test_a_ledger_replaces_its_older_self(manifest):
    ledger = ProducerLedger("jfk", "flights", "site-jfk", 10, 4, 1, 1_700_000_000_000, Ranges(((3, 3),)))
    manifest.report(ledger)
    newer = ProducerLedger("jfk", "flights", "site-jfk", 12, 11, 1, 1_700_000_000_001, Ranges(((3, 3),)))
    manifest.report(newer)
    assert manifest.ledgers("jfk", "flights") == [newer]


def test_a_ledger_tells_its_numbers_by_day(manifest):
    days = {"2013-01-01": Ranges(((0, 4), (6, 6))), "-": Ranges(((5, 5),))}
    ledger = ProducerLedger("jfk", "flights", "site-jfk", 7, 7, 0, 1_700_000_000_000, days=days)
    manifest.report(ledger)
    assert manifest.ledgers("jfk", "flights") == [ledger]


def test_a_ledger_of_a_producer_that_tells_no_days_still_reads(manifest, cloud, table):
    cloud.dynamodb.put_item(
        TableName=table,
        Item={
            "pk": {"S": "jfk#flights"},
            "sk": {"S": "producer#old"},
            **{name: {"N": "3"} for name in ("sent", "acknowledged", "dead_lettered", "reported_at_ms")},
            "dead_letters": {"S": ""},
        },
    )
    assert manifest.ledgers("jfk", "flights") == [ProducerLedger("jfk", "flights", "old", 3, 3, 3, 3)]
