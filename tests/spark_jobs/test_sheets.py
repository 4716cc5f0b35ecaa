"""Sheets: what a task makes of lines, and what it counts of them; no Spark is needed for it."""

import json
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from lake.contract import Contract, Field, Primitive, StructOf
from lake.envelope import made_day
from lake.lines import Block, Broken, LongLine
from spark_jobs import fast_judge, sheets
from spark_jobs.counting import count_rows, fingerprints, made_days, merge_counts, merge_runs
from spark_jobs.lanes import Events, Strays
from spark_jobs.sheets import POSITION, Press, unpack, unpack_rows

NOW_MS = round(datetime(2026, 3, 1, tzinfo=UTC).timestamp() * 1000)
VISITS = Contract("visits", "1.2.0", (Field("page", Primitive("string"), required=True),), (), ())
RULES = Events(VISITS, "ann", NOW_MS)


def event_id(number, day="2026-02-28"):
    made = round(datetime.fromisoformat(f"{day}T10:00:00+00:00").timestamp() * 1000) + number
    head = f"{made:012x}"
    return f"{head[:8]}-{head[8:]}-7000-8000-{number:012x}"


def event(number, **changes):
    made = {
        "event_id": event_id(number),
        "tenant": "ann",
        "dataset": "visits",
        "event_time": "2026-02-28T10:00:00Z",
        "producer_id": "phone",
        "sequence": number,
        "schema_version": "1.0.0",
        "payload": {"page": f"/{number}"},
    }
    return json.dumps({key: value for key, value in {**made, **changes}.items() if value is not ...}).encode()


def block(uri, lines, first=0):
    return Block(uri, first, b"".join(one + b"\n" for one in lines))


class Pressed:
    """What became of pieces."""

    def __init__(self, pieces, rules=RULES):
        self.sheets = list(Press(rules).sheets(pieces))
        whole = pa.Table.from_batches(self.sheets)
        self.rows = [row for one in unpack(self.column("rows")) for row in one.to_pylist()]
        self.refused = [row for one in unpack(self.column("refused")) for row in one.to_pylist()]
        self.sums = merge_counts(whole.column("sums").to_pylist())
        self.runs = merge_runs(whole.column("runs").to_pylist())
        self.prints = b"".join(whole.column("prints").to_pylist())

    def column(self, name):
        return [one.select([name]) for one in self.sheets]

    @property
    def places(self):
        return sorted((row["_object"], row[POSITION], row["sequence"]) for row in self.rows)


def test_clean_lines_keep_their_object_and_their_number():
    found = Pressed([block("a", [event(1), event(2)]), block("b", [event(3)], first=7)])
    assert found.places == [("a", 0, 1), ("a", 1, 2), ("b", 7, 3)]
    assert found.rows[0]["page"] == "/1"


def test_a_last_line_without_its_newline_counts():
    found = Pressed([Block("a", 0, event(1) + b"\n" + event(2)), Block("b", 0, event(3))])
    assert found.places == [("a", 0, 1), ("a", 1, 2), ("b", 0, 3)]


@pytest.mark.parametrize("size", [1, 300, 5000, 10**9])
def test_one_bad_line_is_refused_and_all_others_become_rows_however_they_are_cut(size, monkeypatch):
    monkeypatch.setattr(sheets, "_CHUNK_BYTES", size)
    lines = [event(number) for number in range(60)]
    lines[31] = b"{bad"
    lines[40] = b""
    found = Pressed([block("a", lines[:50]), block("b", lines[50:], first=3)])
    assert found.places == sorted(
        [("a", at, at) for at in range(50) if at not in {31, 40}] + [("b", 3 + at, 50 + at) for at in range(10)]
    )
    assert [(one["object"], one["position"], one["reason"], one["raw"]) for one in found.refused] == [
        ("a", 31, "malformed_json", b"{bad")
    ]
    assert found.sums["objects"] == {"a": 49, "b": 10}


def test_most_lines_beside_a_bad_one_are_still_judged_by_columns(monkeypatch):
    asked = []
    monkeypatch.setattr(sheets, "_CHUNK_BYTES", 2000)
    one_by_one = Press._one_by_one
    monkeypatch.setattr(
        Press, "_one_by_one", lambda self, held, part: asked.append(part) or one_by_one(self, held, part)
    )
    Pressed([block("a", [event(number) if number != 50 else b"{bad" for number in range(100)])])
    assert len(asked) == 1
    assert len(list(asked[0].lines())) < 20


def test_lines_with_unknown_fields_become_rows_too():
    odd = event(2, payload={"page": "/", "gate": 5})
    found = Pressed([block("a", [event(1), odd])])
    assert [row["_rescued"] for row in sorted(found.rows, key=lambda one: one["sequence"])] == [None, '{"gate":5}']


def test_what_cannot_be_read_is_refused_with_what_there_is():
    found = Pressed([Broken("a", "it is gone"), LongLine("b", 3, b'{"event_id"', 99_000_000), block("c", [event(1)])])
    assert found.places == [("c", 0, 1)]
    assert [(one["object"], one["position"], one["reason"], one["message"], one["raw"]) for one in found.refused] == [
        ("a", None, "unreadable_object", "it is gone", None),
        (
            "b",
            3,
            "too_large",
            "the line has 99,000,000 bytes, allowed are 16,777,216; its beginning is kept",
            b'{"event_id"',
        ),
    ]
    assert found.sums["bad"] == {("ann", -1): 2}
    assert found.sums["unidentified"] == {("ann", -1): 2}


def test_a_lane_without_rows_only_refuses():
    found = Pressed([block("a", [event(1), b"noise"])], Strays("eve", ("ann", "bob")))
    assert found.rows == []
    assert [one["reason"] for one in found.refused] == ["unknown_tenant", "unknown_tenant"]
    assert (found.sums["good"], sum(found.sums["bad"].values())) == ({}, 2)


def test_nothing_makes_an_empty_sheet():
    found = Pressed([])
    assert (found.rows, found.refused, found.sums["objects"], found.prints) == ([], [], {}, b"")


def test_many_lines_make_several_sheets(monkeypatch):
    monkeypatch.setattr(sheets, "_BYTES", 1000)
    found = Pressed([block(f"o{number}", [event(number)]) for number in range(20)])
    assert len(found.sheets) > 3
    assert len(found.places) == 20


def test_rows_are_parted_by_whether_their_id_is_suspected():
    found = Pressed([block("a", [event(number) for number in range(9)])])
    suspects = fingerprints(pa.array([event_id(4), event_id(7), event_id(99)]))
    given = found.column("rows"), found.column("prints")
    both = [pa.record_batch([a.column(0), b.column(0)], names=["rows", "prints"]) for a, b in zip(*given, strict=True)]
    picked = {
        flag: sorted(
            row["sequence"] for one in unpack_rows(both, np.sort(suspects), suspected=flag) for row in one.to_pylist()
        )
        for flag in (True, False)
    }
    assert picked == {True: [4, 7], False: [0, 1, 2, 3, 5, 6, 8]}


def test_sums_are_by_day_and_runs_are_told_without_their_inner_numbers():
    lines = [event(number) for number in (3, 1, 2, 2, 7)]
    lines += [event(5, event_id=event_id(5, "2026-02-27")), event(6, event_id="order-17"), event(8, payload={})]
    found = Pressed([block("a", lines)])
    day = made_days(pa.array([event_id(1)]))[0]
    assert found.sums["good"] == {("ann", day): 5, ("ann", day - 1): 1, ("ann", -1): 1}
    assert found.sums["bad"] == {("ann", day): 1}
    assert found.sums["unidentified"] == {}
    assert {key: sorted(spans) for key, spans in found.runs.items()} == {
        ("ann", "phone", day): [(1, 3), (7, 7), (8, 8)],
        ("ann", "phone", day - 1): [(5, 5)],
        ("ann", "phone", -1): [(6, 6)],
    }
    assert found.sums["happened"] == {20_512}
    assert [first for first, _ in found.sums["ends"]] == [event_id(5, "2026-02-27"), event_id(1), "order-17"]


def test_a_day_is_told_from_many_ids_as_from_one():
    ids = [
        event_id(1),
        "013bf3f5-6800-7000-8000-000000000001",
        "013bf3f5-6800-4000-8000-000000000001",
        "013bf3f5-6800-7000-c000-000000000001",
        "013BF3F5-6800-7000-8000-000000000001",
        "013bf3f5+6800-7000-8000-000000000001",
        "g13bf3f5-6800-7000-8000-000000000001",
        "ffffffff-ffff-7fff-bfff-ffffffffffff",
        "0123456789012345678901234567890123é",
    ]
    expected = [made_day(one) for one in ids]
    told = [str(np.datetime64(int(one), "D")) if one >= 0 else "-" for one in made_days(pa.array(ids))]
    # behind the year 9999 there are no days to a reader
    assert [one if len(one) == 10 else "-" for one in told] == expected
    assert made_days(pa.array([*ids, "short"]))[:2].tolist() == made_days(pa.array(ids))[:2].tolist()


def test_an_id_has_one_fingerprint_whatever_lies_beside_it():
    ids = [event_id(number) for number in range(500)]
    alone = fingerprints(pa.array(ids))
    assert len(set(alone.tolist())) == 500
    among = fingerprints(pa.array(["short", *ids, None, "x" * 40]))
    assert among[1:501].tolist() == alone.tolist()
    assert fingerprints(pa.array(["x", "short"]).slice(1)).tolist() == among[:1].tolist()
    assert fingerprints(pa.array(ids).slice(100, 3)).tolist() == alone[100:103].tolist()


def test_counts_of_nothing_are_nothing():
    sums, runs, prints = count_rows([], "ann", None, [])
    assert (merge_counts([sums])["good"], merge_runs([runs]), prints) == ({}, {}, b"")


def test_fast_judging_is_not_asked_where_the_contract_forbids_it(monkeypatch):
    monkeypatch.setattr(fast_judge.FastJudge, "judge", lambda *_: pytest.fail("asked"))
    inside = Contract(
        "visits", "1.2.0", (*VISITS.fields, Field("x", StructOf((Field("d", Primitive("decimal", 5, 2)),)))), (), ()
    )
    assert len(Pressed([block("a", [event(1)])], Events(inside, "ann", NOW_MS)).rows) == 1
