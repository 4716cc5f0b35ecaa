"""Erasure in processes of its own, killed behind each of its steps, gone on with, verified; by the commands as well."""

import json
import signal

import pytest

from lake.audit import balance, gather
from lake.contract import Contract, Field, PartitionField, Primitive
from lake.erasure import receipts
from lake.manifest import Counts
from spark_jobs.erase import STEPS
from tests.spark_jobs.conftest import declare

WHO = "aa-secret-7"
PEOPLE = Contract(
    dataset="visits",
    version="1.2.0",
    fields=(Field("page", Primitive("string")), Field("user_id", Primitive("string"), pii=True)),
    partition=(PartitionField("day", "event_time"),),
    sort=("event_time",),
    dedup_days=3650,
)
KILLED = """
import os, signal, sys
from pathlib import Path
from lake.clients import Cloud
from lake.declaration import read_lake
from lake.erasure import parse_subject
from spark_jobs import erase
from spark_jobs.session import running_session

step, erasure, endpoint = sys.argv[1:]

def after(done):
    if done == step:
        os.kill(os.getpid(), signal.SIGKILL)

lake = read_lake(Path("lake.yaml"))
cloud = Cloud.from_environment(lake.region, endpoint)
with running_session(cloud, "killed") as spark:
    erase.run(spark, lake, cloud, parse_subject(lake, "solo", ["user_id=aa-secret-7"]), erasure, after=after)
"""


def visit(world, number, user):
    return world.event(number, sequence=number - 1, payload={"page": "/", "user_id": user})


@pytest.fixture
def filled(worlds, tmp_path):
    world = worlds(PEOPLE)
    declare(world, tmp_path)
    world.deliver("a", [visit(world, 1, "bb"), visit(world, 2, WHO), b"{bad " + WHO.encode()])
    world.deliver("b", [visit(world, 3, WHO), visit(world, 4, "cc")])
    world.ingest()
    world.deliver("c", [visit(world, 5, WHO), {**visit(world, 6, WHO), "event_time": "never"}])
    world.ingest()
    world.put(world.bucket("solo"), "raw/a.jsonl", [visit(world, 2, WHO)])
    world.put(world.bucket("solo"), "query-results/1.csv", [WHO.encode()])
    return world


@pytest.mark.timeout(7200)
def test_killed_behind_each_step_in_turn_it_ends_as_if_it_had_not_been(filled, python, lakehose, ministack):
    world = filled
    others = [row for row in world.rows("solo") if row["user_id"] != WHO]
    for step in STEPS:
        done = python("-c", KILLED, step, f"e-{step.replace(' ', '-')}", ministack)
        assert done.returncode == -signal.SIGKILL, f"{step}: {done.stderr}"
    done = lakehose("erase", "--tenant", "solo", "--subject", f"user_id={WHO}", "--json")
    assert done.returncode == 0, done.stderr
    receipt = json.loads(done.stdout)
    assert receipt["id"] == "e-receipt"  # all of them went on with the first
    assert [one.id for one in receipts(world.cloud.s3, world.bucket("solo"))] == ["e-receipt"]
    database = world.lake.names.database("solo")
    assert receipt["erased_rows"] == {"visits": {f"{database}.visits": 3, f"{database}.quarantine": 1}}
    assert receipt["events"] == {"visits": 4}
    removed = {name.rpartition("datalake")[2]: place["removed"] for name, place in receipt["places"].items()}
    assert (removed["/processed/visits/"], removed["/raw/"], removed["/query-results/"]) == (4, 1, 1)
    assert world.rows("solo") == others
    (left,) = world.rows("solo", "quarantine")
    assert bytes(left["payload"]).startswith(b"{bad")  # no record, and no key in it: not known for the subject's
    sheet = balance(gather(world.lake, world.cloud, "visits"))
    assert sheet.balanced
    assert [(one.rows, one.by_batches, one.erased) for one in sheet.tables] == [(2, 2, 3), (1, 1, 1)]

    verified = lakehose("erase", "verify", "e-receipt", "--tenant", "solo", "--subject", f"user_id={WHO}")
    assert (verified.returncode, verified.stdout.splitlines()[-1]) == (0, "erasure e-receipt: nothing is left")

    world.deliver("d", [visit(world, 7, "dd"), visit(world, 5, WHO)])
    report = world.ingest()
    assert report.totals == {"solo": Counts(records=2, ingested=1, duplicates=1)}
    assert [str(one.batch) for one in report.batches] == ["visits/events/solo/solo/3"]
    again = lakehose("erase", "verify", "e-receipt", "--tenant", "solo", "--subject", f"user_id={WHO}")
    assert (again.returncode, again.stdout.splitlines()[-1]) == (1, "erasure e-receipt: NOT clean")


def test_the_commands_refuse_what_they_do_not_know_before_spark_starts(filled, lakehose):
    def refused(*arguments):
        done = lakehose(*arguments)
        assert "Traceback" not in done.stderr
        return done.returncode, done.stderr.splitlines()[0]

    known = "the contracts' fields are: user_id"
    assert refused("erase", "--tenant", "solo") == (
        2,
        f"lakehose: --subject: at least one is needed, as in user_id=42; {known}",
    )
    assert refused("erase", "--tenant", "sola", "--subject", "user_id=1") == (
        2,
        "lakehose: tenant: got 'sola', allowed are: solo; did you mean 'solo'?",
    )
    status, said = refused("erase", "--tenant", "solo", "--subject", "user_id=1", "--resume", "e9")
    assert (status, said.startswith("lakehose: erasure: got 'e9', allowed are: (none) (receipts in")) == (2, True)
    assert refused("replay", "--dataset", "visit", "--reason", "x") == (
        2,
        "lakehose: dataset: got 'visit', allowed are: visits; did you mean 'visits'?",
    )
    days = ("--from", "2013-01-02", "--to", "2013-01-01")
    assert refused("backfill", "--dataset", "visits", "--tenant", "solo", *days) == (
        2,
        "lakehose: --to: got 2013-01-01, which is before 2013-01-02",
    )
    days = ("--from", "2013-01-01", "--to", "2013-01-01")
    assert refused("backfill", "--dataset", "visits", "--tenant", "solo", *days, "--source", "rew") == (
        2,
        "lakehose: --source: got 'rew', allowed are: processed, raw; did you mean 'raw'?",
    )


def test_replay_and_backfill_run_as_commands_and_print_json(filled, lakehose):
    done = lakehose("replay", "--dataset", "visits", "--reason", "wrong_type", "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["found"], told["replayed"], told["stay"]) == (1, {}, {"wrong_type": 1})
    days = ("--from", "2013-01-01", "--to", "2013-01-31")
    done = lakehose("backfill", "--dataset", "visits", "--tenant", "solo", *days, "--json")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["objects"], told["counts"]["ingested"], told["counts"]["duplicates"]) == (3, 0, 5)
    assert told["batches"] == ["visits/events/solo/solo/3"]
