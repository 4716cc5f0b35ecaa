"""The sheet by day: every line adds up, and the lines add up to the whole."""

import json
import time
from dataclasses import asdict, replace

import pytest

from lake.audit import DayEvidence, DayRow, Evidence, Gap, balance
from lake.audit_report import of_tenant, print_sheet, sheet_to_dict
from lake.envelope import day_text
from lake.figures import Counts, Figures
from lake.manifest import ProducerLedger
from lake.printing import printable
from lake.ranges import Ranges

ONE, TWO, THREE = "2026-01-01", "2026-01-02", "2026-01-03"


def ranges(text):
    return Ranges.parse(text)


def evidence(figures, *, ledger=None, landed=None, buffered=None, since=None):
    """What a dataset with one producer has; figures as the books tell them."""
    landed = landed or {}
    whole = figures.without_days()
    there = Figures(seen=landed).without_days().seen
    return Evidence(
        dataset="visits",
        tenants=("solo",),
        ledgers=(ledger,) if ledger else (),
        counts=whole.by_tenant,
        seen={key[:2]: one for key, one in whole.seen.items()},
        landed={key[:2]: one for key, one in there.items()},
        buffered=buffered or {},
        tables=(),
        days=DayEvidence(figures.counts, figures.seen, landed, since),
    )


def ledger(sent, acknowledged, days, dead=""):
    told = {day: ranges(text) for day, text in days.items()}
    return ProducerLedger("solo", "visits", "phone", sent, acknowledged, len(ranges(dead)), 0, ranges(dead), told)


def figures(counts, seen):
    return Figures(
        {("solo", day): one for day, one in counts.items()},
        {("solo", "phone", day): ranges(text) for day, text in seen.items()},
    )


def adds_up(row):
    arrived = row.dead_lettered + row.waiting + row.refused + row.delivered + row.in_flight + row.difference
    return row.sent + row.redelivered + row.unidentified == arrived


def lines(sheet):
    return {row.day: row for row in sheet.days}


def test_each_day_has_its_line_and_together_they_are_the_whole():
    known = figures(
        {ONE: Counts(5, 3, 1, 1), TWO: Counts(5, 4, 0, 0, 1), "-": Counts(2, 0, 0, 2, 0, 1)},
        {ONE: "0-3", TWO: "4-8", "-": "9"},
    )
    days = {ONE: "0-3", TWO: "4-8,10-11", THREE: "12-14"}
    sheet = balance(evidence(known, ledger=ledger(15, 13, days, "10"), landed={("solo", "phone", TWO): ranges("11")}))
    assert sheet.days == (
        DayRow("solo", 4, 0, 0, 0, 0, 5, 3, 1, 1, 1, 0, 0, 0, ONE),
        DayRow("solo", 7, 0, 0, 1, 1, 4, 4, 0, 0, 0, 0, 1, 0, TWO),
        DayRow("solo", 3, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, THREE),
        DayRow("solo", 1, 0, 0, 0, 0, 2, 0, 0, 2, 0, 1, 0, 0, "-"),
    )
    (whole,) = sheet.rows
    for name, value in asdict(whole).items():
        if name not in {"tenant", "acknowledged"}:
            assert sum(getattr(row, name) for row in sheet.days) == value, name
    assert all(adds_up(row) for row in (*sheet.days, whole))


def test_a_missing_number_is_named_with_its_producer_and_day():
    known = figures({ONE: Counts(3, 3), TWO: Counts(3, 3)}, {ONE: "0-1,3", TWO: "5-7"})
    sheet = balance(evidence(known, ledger=ledger(9, 9, {ONE: "0-4", TWO: "5-7"})))
    assert not sheet.balanced
    assert sheet.gaps == (Gap("solo", "phone", ranges("2,4"), ONE), Gap("solo", "phone", ranges("8"), "-"))
    assert {day: row.difference for day, row in lines(sheet).items()} == {ONE: 2, TWO: 0, "-": 1}


def test_without_a_ledger_that_tells_days_what_is_missing_has_none():
    known = figures({ONE: Counts(2, 2)}, {ONE: "0,2"})
    assert balance(evidence(known, ledger=ledger(3, 3, {}))).gaps == (Gap("solo", "phone", ranges("1"), "-"),)
    assert balance(evidence(known)).gaps == (Gap("solo", "phone", ranges("1"), "-"),)


def test_what_a_buffer_may_hold_is_taken_from_the_youngest_day():
    known = figures({ONE: Counts(1, 1)}, {ONE: "0"})
    sheet = balance(evidence(known, ledger=ledger(5, 5, {ONE: "0-2", TWO: "3-4"}), buffered={("solo",): 3}))
    assert {day: (row.in_flight, row.difference) for day, row in lines(sheet).items()} == {ONE: (1, 1), TWO: (2, 0)}
    assert sheet.rows[0].difference == 1


def test_a_number_that_came_under_two_days_is_counted_once():
    known = figures({ONE: Counts(2, 2), TWO: Counts(2, 1, 0, 1)}, {ONE: "0-1", TWO: "1-2"})
    sheet = balance(evidence(known))
    assert sheet.rows[0].sent == sum(row.sent for row in sheet.days) == 3
    assert sheet.rows[0].redelivered == sum(row.redelivered for row in sheet.days) == 1
    assert sheet.balanced


def test_fates_that_add_up_only_over_two_days_are_a_finding():
    known = figures({ONE: Counts(2, 1), TWO: Counts(2, 3)}, {ONE: "0-1", TWO: "2-3"})
    sheet = balance(evidence(known))
    assert sheet.rows[0].difference == 0
    assert {day: row.difference for day, row in lines(sheet).items()} == {ONE: 1, TWO: 1}
    assert not sheet.balanced


def test_earlier_days_than_asked_for_have_no_line_and_unknown_ones_do():
    known = figures({TWO: Counts(1, 1), "-": Counts(1, 0, 0, 1)}, {TWO: "3", "-": "4"})
    whole = evidence(known, ledger=ledger(6, 5, {ONE: "0-2", TWO: "3-4", THREE: "5"}), since=TWO)
    whole = replace(whole, seen={("solo", "phone"): ranges("0-4")}, counts={"solo": Counts(5, 4, 0, 1)})
    sheet = balance(whole)
    assert [row.day for row in sheet.days] == [TWO, THREE, "-"]
    assert [row.sent for row in sheet.days] == [1, 1, 1]


def test_what_arrived_after_the_ledgers_last_report_was_sent_all_the_same():
    known = figures({ONE: Counts(5, 5)}, {ONE: "0-2,4-5"})
    sheet = balance(evidence(known, ledger=ledger(3, 3, {ONE: "0-2"}), landed={("solo", "phone", TWO): ranges("6")}))
    (row,) = sheet.rows
    assert (row.sent, row.redelivered, row.in_flight, row.difference) == (6, 0, 1, 0)
    assert adds_up(row)


def test_json_has_the_days_and_the_gaps_with_theirs():
    known = figures({ONE: Counts(2, 2)}, {ONE: "0,2"})
    told = sheet_to_dict(balance(evidence(known, ledger=ledger(3, 3, {ONE: "0-2"}))), by_day=True)
    assert told["gaps"] == [{"tenant": "solo", "producer_id": "phone", "sequences": "1", "day": ONE}]
    (day,) = told["days"]
    assert (day["tenant"], day["day"], day["sent"], day["ingested"], day["difference"]) == ("solo", ONE, 3, 2, 1)
    assert "acknowledged" not in day
    assert json.loads(json.dumps(told)) == told


@pytest.mark.parametrize("by_day", [True, False])
def test_the_printed_sheet_names_the_gap_and_says_no(capsys, by_day):
    known = figures({ONE: Counts(2, 2)}, {ONE: "0,2"})
    whole = evidence(known, ledger=ledger(3, 3, {ONE: "0-2"}))
    print_sheet(balance(whole if by_day else replace(whole, days=None)), by_day=by_day)
    told = capsys.readouterr().out
    day = f", day {ONE}" if by_day else ""
    assert f"missing: tenant solo, producer phone{day}: sequences 1\n" in told
    assert "visits: NOT balanced" in told
    assert (ONE in told) is by_day


@pytest.mark.parametrize("tenant", ["[/x]", "[bold]solo[/bold]", "solo\x1b[2J"])
def test_a_tenant_is_printed_as_some_record_claims_it(capsys, tenant):
    known = Figures({(tenant, ONE): Counts(1, 0, 0, 1)}, {(tenant, "ph\x1bone", ONE): ranges("0,2")})
    sheet = balance(replace(evidence(known), tenants=("solo",), seen={(tenant, "ph\x1bone"): ranges("0,2")}))
    for by_day in (True, False):
        print_sheet(sheet, by_day=by_day)
    told = capsys.readouterr().out
    assert printable(tenant) in told
    assert "\x1b" not in told


def test_one_tenants_part_of_a_sheet_is_judged_by_itself():
    known = Figures({("solo", ONE): Counts(2, 2), ("ann", ONE): Counts(1, 1)}, {("solo", "phone", ONE): ranges("0,2")})
    sheet = balance(replace(evidence(known), tenants=("solo", "ann"), seen={("solo", "phone"): ranges("0,2")}))
    assert not of_tenant(sheet, "solo", "acme_solo").balanced
    assert of_tenant(sheet, "ann", "acme_ann").balanced
    assert [row.tenant for row in of_tenant(sheet, "ann", "acme_ann").days] == ["ann"]


def test_many_days_between_which_numbers_are_missing_are_told_apart_at_once():
    days = [day_text(number) for number in range(10_000)]
    seen = {day: f"{3 * number}" for number, day in enumerate(days)}
    told = {day: f"{3 * number}-{3 * number + 2}" for number, day in enumerate(days)}
    found = evidence(figures({day: Counts(1, 1) for day in days}, seen), ledger=ledger(30_000, 30_000, told))
    began = time.process_time()
    sheet = balance(found)
    assert time.process_time() - began < 10
    assert [row.difference for row in sheet.days] == [2] * 10_000
    assert sheet.gaps[-1] == Gap("solo", "phone", ranges("29998-29999"), days[-1])
