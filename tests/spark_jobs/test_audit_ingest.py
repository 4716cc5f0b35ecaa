"""The audit beside a real ingest, and the command as a person runs it."""

import json
from dataclasses import replace

import pytest

from lake.audit import balance, gather
from lake.books import Books
from lake.declaration import Jobs
from lake.manifest import BatchId, Lane, ProducerLedger
from lake.ranges import Ranges
from tests.spark_jobs.conftest import declare

APRIL_21 = "2024-04-21"  # when the tests' event ids were made


def sheet(world):
    return balance(gather(world.lake, world.cloud, "visits", by_day=True))


def in_step(row):
    return row.sent + row.redelivered + row.unidentified == (
        row.dead_lettered + row.waiting + row.refused + row.delivered + row.in_flight + row.difference
    )


def test_an_audit_between_any_two_steps_of_an_ingest_balances(worlds):
    world = worlds(jobs=replace(Jobs(), ingest_objects=1))
    days = {APRIL_21: Ranges(((0, 5),))}
    world.manifest().report(ProducerLedger("solo", "visits", "solo-phone", 6, 6, 0, 0, days=days))
    world.deliver("a", [world.event(0), world.event(1), b"{bad"])
    world.deliver("b", [world.event(2), world.event(0), world.event(3, payload={})])
    world.deliver("c", [world.event(4)])
    world.refuse("e", [json.dumps(world.event(5)).encode()[:-2]])
    steps = []

    def audit(step):
        found = sheet(world)
        total = found.total
        steps.append((step, total.in_flight, total.ingested))
        assert found.balanced, (step, found)
        assert found.gaps == ()
        assert all(in_step(row) for row in (*found.rows, *found.days))
        assert total.sent == 6

    audit("before")
    world.ingest(after=audit)
    audit("after")
    assert steps[0] == ("before", 6, 0)
    assert steps[-1] == ("after", 0, 4)
    assert len(steps) == 2 + 3 * 4 + 3
    assert {row.day: (row.sent, row.ingested, row.duplicates) for row in sheet(world).days} == {
        APRIL_21: (6, 4, 1),
        "-": (0, 0, 0),
    }


def test_audits_and_an_ingest_that_add_to_the_books_at_once_agree(worlds, monkeypatch):
    world = worlds(jobs=replace(Jobs(), ingest_objects=1))
    monkeypatch.setattr("lake.books.FOLD_EVERY", 2)
    for number in range(5):
        world.deliver(str(number), [world.event(number), world.event(0)])
    series = BatchId("solo", "visits", Lane.EVENTS, "solo", 0)
    books = Books(world.cloud.dynamodb, world.lake.names.manifest_table())

    def audit(step):
        if step == "receipt":
            books.fold(series, at_least=1)
        assert sheet(world).balanced

    world.ingest(after=audit)
    found = sheet(world)
    assert (found.total.ingested, found.total.duplicates, found.total.redelivered) == (5, 5, 5)
    assert books.fold(series, at_least=1) == 5
    assert sheet(world) == found


@pytest.mark.parametrize("rebuild", [False, True])
def test_the_command_prints_the_days_and_names_what_is_missing(world, lakehose, tmp_path, rebuild):
    days = {APRIL_21: Ranges(((0, 3),))}
    world.manifest().report(ProducerLedger("solo", "visits", "solo-phone", 4, 4, 0, 0, days=days))
    world.deliver("a", [world.event(0), world.event(1), world.event(3)])
    world.ingest()
    declare(world, tmp_path)

    if rebuild:
        done = lakehose("audit", "--rebuild", "--by-day", "--json")
        assert done.returncode == 1, done.stderr
        (told,) = json.loads(done.stdout)
        assert told["gaps"] == [{"tenant": "solo", "producer_id": "solo-phone", "sequences": "2", "day": APRIL_21}]
        assert [(one["day"], one["sent"], one["difference"]) for one in told["days"]] == [(APRIL_21, 4, 1)]
        assert "books: 1 batches drawn up anew, 0 kept" in done.stderr
        return
    done = lakehose("audit", "--since", APRIL_21, "--tenant", "solo")
    assert done.returncode == 1, done.stderr
    assert f"missing: tenant solo, producer solo-phone, day {APRIL_21}: sequences 2\n" in done.stdout
    assert "visits: NOT balanced" in done.stdout
    later = lakehose("audit", "--since", "2024-04-22", "--json")
    assert later.returncode == 1
    assert json.loads(later.stdout)[0]["days"] == []
    wrong = lakehose("audit", "--tenant", "sole")
    assert wrong.returncode == 2
    assert "tenant: got 'sole', allowed are: solo; did you mean 'solo'?" in wrong.stderr
    assert lakehose("audit", "--since", "yesterday").returncode == 2
