import time
from dataclasses import replace

from lake.audit import Evidence, Gap, TableCheck, balance
from lake.manifest import Counts, ProducerLedger
from lake.ranges import Ranges


def ledger(sent, acknowledged, dead=Ranges(), producer="site", tenant="jfk"):  # noqa: B008 - frozen
    return ProducerLedger(tenant, "flights", producer, sent, acknowledged, len(dead), 0, dead)


WHOLE = Evidence(
    dataset="flights",
    tenants=("jfk",),
    ledgers=(ledger(100, 98, Ranges(((50, 51),))),),
    counts={"jfk": Counts(records=98, ingested=90, duplicates=3, quarantined=2, refused=3)},
    seen={("jfk", "site"): Ranges(((0, 49), (52, 99)))},
    landed={},
    buffered={},
    tables=(TableCheck("acme_jfk.flights", 90, 90),),
)


def only(evidence):
    sheet = balance(evidence)
    assert len(sheet.rows) == 1
    return sheet, sheet.rows[0]


def test_when_every_number_arrived_or_is_dead_lettered_the_sheet_balances():
    sheet, row = only(WHOLE)
    assert sheet.balanced
    assert (row.sent, row.acknowledged, row.dead_lettered, row.refused, row.delivered) == (100, 98, 2, 3, 95)
    assert (row.ingested, row.duplicates, row.quarantined, row.redelivered, row.difference) == (90, 3, 2, 0, 0)
    assert row.sent + row.redelivered == row.dead_lettered + row.refused + row.delivered


def test_a_lost_event_is_a_difference_and_its_number_is_named():
    sheet, row = only(replace(WHOLE, seen={("jfk", "site"): Ranges(((0, 49), (52, 70), (72, 99)))}))
    assert not sheet.balanced
    assert row.difference == 1
    assert sheet.gaps == (Gap("jfk", "site", Ranges(((71, 71),))),)


def test_an_event_that_came_twice_is_redelivered_and_no_difference():
    counts = {"jfk": Counts(records=99, ingested=90, duplicates=4, quarantined=2, refused=3)}
    sheet, row = only(replace(WHOLE, counts=counts))
    assert sheet.balanced
    assert row.redelivered == 1
    assert row.sent + row.redelivered == row.dead_lettered + row.refused + row.delivered


def test_events_in_the_spool_wait_and_are_not_missing():
    _, row = only(replace(WHOLE, ledgers=(ledger(110, 98, Ranges(((50, 51),))),)))
    assert (row.waiting, row.in_flight, row.difference) == (10, 0, 0)


def test_acknowledged_events_in_an_object_that_no_batch_took_are_in_flight():
    evidence = replace(
        WHOLE, ledgers=(ledger(110, 108, Ranges(((50, 51),))),), landed={("jfk", "site"): Ranges(((100, 109),))}
    )
    _, row = only(evidence)
    assert (row.waiting, row.in_flight, row.difference) == (0, 10, 0)


def test_acknowledged_events_in_a_buffer_are_in_flight_as_far_as_the_buffer_holds_them():
    evidence = replace(WHOLE, ledgers=(ledger(110, 108, Ranges(((50, 51),))),), buffered={("jfk", "lga"): 7})
    sheet, row = only(evidence)
    assert (row.in_flight, row.difference) == (7, 3)
    assert sheet.gaps == (Gap("jfk", "site", Ranges(((100, 109),))),)


def test_a_record_without_a_readable_identity_is_counted_and_makes_no_difference():
    counts = {**WHOLE.counts, "-": Counts(records=2, refused=2, unidentified=2)}
    sheet = balance(replace(WHOLE, counts=counts))
    assert sheet.balanced
    assert [(row.tenant, row.refused, row.unidentified, row.difference) for row in sheet.rows] == [
        ("jfk", 3, 0, 0),
        ("-", 2, 2, 0),
    ]


def test_a_producer_without_a_ledger_is_audited_by_its_own_numbers():
    evidence = replace(WHOLE, ledgers=(), counts={"jfk": Counts(records=9, ingested=9)})
    evidence = replace(evidence, seen={("jfk", "phone"): Ranges(((0, 4), (6, 9)))}, tables=())
    sheet, row = only(evidence)
    assert (row.sent, row.acknowledged, row.difference) == (10, 0, 1)
    assert sheet.gaps == (Gap("jfk", "phone", Ranges(((5, 5),))),)


def test_fates_that_do_not_add_up_are_a_difference():
    _, row = only(replace(WHOLE, counts={"jfk": Counts(98, ingested=89, duplicates=3, quarantined=2, refused=3)}))
    assert row.difference == 1


def test_a_table_with_other_rows_than_its_batches_wrote_is_not_balanced():
    sheet, row = only(replace(WHOLE, tables=(TableCheck("acme_jfk.flights", 89, 90),)))
    assert row.difference == 0
    assert not sheet.balanced


def test_an_undeclared_tenant_has_its_own_line():
    counts = {**WHOLE.counts, "xyz": Counts(records=1, quarantined=1, unidentified=1)}
    sheet = balance(replace(WHOLE, counts=counts))
    assert [row.tenant for row in sheet.rows] == ["jfk", "xyz"]
    assert sheet.total.quarantined == 3


def test_a_ledger_that_tells_more_than_there_can_be_is_a_difference():
    sheet, row = only(replace(WHOLE, ledgers=(ledger(2**64, 2**64),)))
    assert not sheet.balanced
    assert row.sent == 2**64
    assert row.difference > 0


def test_however_many_tenants_records_claim_the_sheet_is_drawn_up_at_once():
    names = [f"t{number}" for number in range(20_000)]
    seen = {(name, "site"): Ranges(((0, 0),)) for name in names}
    counts = {name: Counts(records=1, quarantined=1) for name in names}
    began = time.process_time()
    sheet = balance(replace(WHOLE, counts=counts, seen=seen, ledgers=(), tables=()))
    assert time.process_time() - began < 10
    assert len(sheet.rows) == 20_001
    assert sheet.balanced
