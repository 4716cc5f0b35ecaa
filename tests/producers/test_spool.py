from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from datetime import datetime

import pytest

from lake.envelope import new_event_id
from lake.errors import EnvironmentProblemError, TerminalError
from lake.ranges import Ranges
from producers.spool import DeadLetter, NewRow, Spool, SpoolError, SpoolFullError, SpoolIdentity, WaitingEvent

EWR = SpoolIdentity("ewr", "flights", "site-1")


@pytest.fixture
def spool(tmp_path):
    opened = Spool(tmp_path, EWR)
    yield opened
    opened.close()


def rows(*data):
    return [NewRow(f"id-{number}", one) for number, one in enumerate(data)]


def read_all(spool):
    return spool.read(skip=(), records=1000, size=1 << 30)


def test_a_new_spool_is_empty_and_starts_at_sequence_0(spool, tmp_path):
    assert spool.path == tmp_path / "ewr.flights.site-1.spool"
    assert (spool.tally.next_sequence, spool.tally.waiting, spool.first_waiting()) == (0, 0, None)


def test_events_are_numbered_in_the_order_they_were_given(spool):
    spool.append(rows(b"a", b"b"), 1000)
    spool.append(rows(b"c"), 2000)
    assert read_all(spool) == [WaitingEvent(0, b"a"), WaitingEvent(1, b"b"), WaitingEvent(2, b"c")]
    assert spool.first_waiting() == (0, 1000)


def test_what_waits_is_there_when_the_spool_is_opened_again(spool, tmp_path):
    spool.append(rows(b"a", b"b", b"c"), 1000)
    spool.settle([1], {})
    spool.close()
    again = Spool(tmp_path, EWR)
    assert read_all(again) == [WaitingEvent(0, b"a"), WaitingEvent(2, b"c")]
    assert (again.tally.next_sequence, again.tally.acknowledged, again.tally.waiting_bytes) == (3, 1, 2)
    again.close()


def test_a_row_that_cannot_be_sent_keeps_its_number_among_the_dead_letters(spool):
    spool.append([NewRow("id-0", b"a"), NewRow("id-1", b"bad", "too big"), NewRow("id-2", b"c")], 1000)
    assert [one.sequence for one in read_all(spool)] == [0, 2]
    assert spool.dead_letters() == [DeadLetter(1, "id-1", "too big", b"bad")]
    assert spool.account() == (spool.tally, Ranges(((1, 1),)), {"-": Ranges(((0, 2),))})
    assert (spool.tally.next_sequence, spool.tally.dead_lettered, spool.tally.waiting) == (3, 1, 2)


def test_a_waiting_event_can_become_a_dead_letter(spool):
    spool.append(rows(b"a", b"b"), 1000)
    spool.settle([0], {1: "refused"})
    assert spool.dead_letters() == [DeadLetter(1, "id-1", "refused", b"b")]
    assert (spool.tally.acknowledged, spool.tally.dead_lettered, spool.tally.waiting_bytes) == (1, 1, 0)


def test_settling_twice_counts_once(spool):
    spool.append(rows(b"a", b"b"), 1000)
    spool.settle([0], {})
    spool.settle([0], {})
    assert spool.tally.acknowledged == 1


def test_reading_leaves_out_what_it_is_told_to_and_stops_at_its_limits(spool):
    spool.append(rows(b"aa", b"bb", b"cc", b"dd"), 1000)
    assert [one.sequence for one in spool.read(skip={0, 2}, records=10, size=100)] == [1, 3]
    assert [one.sequence for one in spool.read(skip=(), records=3, size=100)] == [0, 1, 2]
    assert [one.sequence for one in spool.read(skip=(), records=10, size=5)] == [0, 1]
    assert [one.sequence for one in spool.read(skip=(), records=10, size=1)] == [0]


def test_commits_are_synced_to_disk(spool):
    journal, level = (spool._db.execute(f"PRAGMA {one}").fetchone()[0] for one in ("journal_mode", "synchronous"))
    assert (journal, level) == ("wal", 2)


def test_a_second_opener_is_refused_and_told_who_has_it(spool, tmp_path):
    with pytest.raises(SpoolError, match=rf"site-1\.spool: process {os.getpid()} has it open"):
        Spool(tmp_path, EWR)


def test_an_opener_in_another_process_is_refused(spool, tmp_path):
    code = (
        "import sys, pathlib; from producers.spool import *; "
        "Spool(pathlib.Path(sys.argv[1]), SpoolIdentity('ewr', 'flights', 'site-1'))"
    )
    found = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
    assert f"process {os.getpid()} has it open, and a spool has one owner at a time" in found.stderr


def test_a_refused_opener_does_not_unlock_the_spool(spool, tmp_path):
    for _ in range(2):
        with pytest.raises(SpoolError, match="has it open"):
            Spool(tmp_path, EWR)
    spool.append(rows(b"a"), 1000)
    assert spool.tally.next_sequence == 1


def test_a_spool_of_another_producer_is_refused(spool, tmp_path):
    spool.close()
    spool.path.rename(tmp_path / "jfk.flights.site-1.spool")
    with pytest.raises(
        SpoolError, match="made for tenant ewr, dataset flights, producer site-1, and was opened for tenant jfk"
    ):
        Spool(tmp_path, SpoolIdentity("jfk", "flights", "site-1"))


def test_a_file_that_is_no_spool_is_refused_and_left_as_it_is(tmp_path):
    path = tmp_path / EWR.file_name
    path.write_bytes(b"something else, long enough to have a header" * 100)
    before = path.read_bytes()
    with pytest.raises(SpoolError, match="file is not a database"):
        Spool(tmp_path, EWR)
    assert path.read_bytes() == before


def test_an_sqlite_file_of_something_else_is_refused(tmp_path):
    with sqlite3.connect(tmp_path / EWR.file_name) as other:
        other.execute("CREATE TABLE t (x)")
    other.close()
    with pytest.raises(SpoolError, match="SQLite file of something else"):
        Spool(tmp_path, EWR)


def test_a_spool_of_a_newer_format_is_refused(spool, tmp_path):
    spool.close()
    with sqlite3.connect(spool.path) as newer:
        newer.execute("PRAGMA user_version=2")
    newer.close()
    with pytest.raises(SpoolError, match="its format is version 2; this lakehose reads version 1"):
        Spool(tmp_path, EWR)


def test_a_spool_that_could_not_be_opened_can_be_opened_once_the_cause_is_gone(tmp_path):
    path = tmp_path / EWR.file_name
    path.write_bytes(b"x" * 5000)
    with pytest.raises(SpoolError):
        Spool(tmp_path, EWR)
    path.unlink()
    Spool(tmp_path, EWR).close()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SpoolError, match="file/spool"):
        Spool(tmp_path / "file" / "spool", EWR)


@pytest.mark.parametrize("bad", ["", "../up", "a.b", "a" * 65])
def test_a_name_that_could_leave_the_folder_or_clash_is_refused(bad):
    with pytest.raises(TerminalError, match="tenant: got"):
        SpoolIdentity(bad, "flights", "site-1")


def test_a_closed_spool_says_so(spool):
    spool.close()
    with pytest.raises(SpoolError, match="it's closed: the event was not taken"):
        spool.append(rows(b"a"), 1000)
    with pytest.raises(SpoolError, match="it's closed: nothing can be read"):
        spool.first_waiting()


def test_above_its_limit_the_spool_takes_nothing_and_loses_nothing(tmp_path):
    spool = Spool(tmp_path, EWR, max_bytes=10)
    spool.append(rows(b"12345", b"1234"), 1000)
    with pytest.raises(
        SpoolFullError, match=r"2 events of 9 bytes wait in it, and its limit is 10 bytes: none of the 2"
    ):
        spool.append(rows(b"a", b"b"), 1000)
    spool.append(rows(b"a"), 1000)
    spool.settle([0], {})
    spool.append(rows(b"54321"), 1000)
    assert [one.data for one in read_all(spool)] == [b"1234", b"a", b"54321"]
    spool.close()


def test_a_full_disk_takes_nothing_loses_nothing_and_the_spool_goes_on_when_there_is_room(spool):
    spool.append(rows(b"first"), 1000)
    (pages,) = spool._db.execute("PRAGMA page_count").fetchone()
    spool._db.execute(f"PRAGMA max_page_count={pages + 2}")
    with pytest.raises(SpoolFullError) as refused:
        spool.append(rows(b"x" * 100_000), 1000)
    assert isinstance(refused.value, EnvironmentProblemError)
    assert str(refused.value) == (
        f"spool {spool.path}: no room on its disk (database or disk is full): the event was not taken; nothing "
        "that was taken before is lost. Make room, then try again"
    )
    assert spool.tally.next_sequence == 1
    spool._db.execute("PRAGMA max_page_count=1000000")
    spool.append(rows(b"x" * 100_000), 1000)
    assert [(one.sequence, len(one.data)) for one in read_all(spool)] == [(0, 5), (1, 100_000)]


def test_the_space_of_a_backlog_is_given_back(spool):
    for _ in range(5):
        spool.append(rows(*[b"x" * 1_000_000] * 16), 1000)
    assert spool.path.stat().st_size > 64_000_000
    spool.settle(range(80), {})
    assert spool.path.stat().st_size < 100_000
    assert (spool.tally.next_sequence, spool.tally.acknowledged) == (80, 80)


def dated(*days):
    return [NewRow(new_event_id(datetime.fromisoformat(f"{day}T12:00:00Z")), b"x") for day in days]


def test_numbers_are_told_by_the_day_their_events_were_made_on(spool, tmp_path):
    spool.append(dated("2026-01-30", "2026-01-30"), 1000)
    spool.append(dated("2026-01-30", "2026-01-31", "2026-01-30"), 2000)
    spool.settle([0, 1, 3], {})
    spool.close()
    again = Spool(tmp_path, EWR)
    assert again.account()[2] == {"2026-01-30": Ranges(((0, 2), (4, 4))), "2026-01-31": Ranges(((3, 3),))}
    again.close()


def test_of_far_back_no_days_are_told(spool):
    spool.append(dated("2026-01-01", "2026-01-02") * 300, 1000)
    told = spool.account()[2]
    assert sorted((len(one), one.spans[0][0]) for one in told.values()) == [(200, 200), (200, 201)]
    spool.append(dated("2026-01-02", "2026-01-01"), 2000)
    assert spool.account()[2]["2026-01-01"].spans[0] == (202, 202)
    assert spool.account()[2]["2026-01-02"].spans[-1] == (599, 600)


def test_a_spool_that_is_older_than_days_goes_on(spool, tmp_path):
    spool.append(dated("2026-01-01"), 1000)
    with sqlite3.connect(spool.path) as db:
        db.execute("DROP TABLE days")
    spool.close()
    again = Spool(tmp_path, EWR)
    again.append(dated("2026-01-02"), 2000)
    assert (again.tally.next_sequence, again.account()[2]) == (2, {"2026-01-02": Ranges(((1, 1),))})
    again.close()
