"""A held batch as a person meets it: `lakehose run ingest`, `lakehose quality` and `lakehose lineage`, as processes."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest

from lake.declaration import read_lake
from lake.quality import Invalid, Limit, Operator, Rule, Severity

DATA = "visits/events/solo/solo"
CONTRACT = """apiVersion: v3.1.0
kind: DataContract
id: visits
version: 1.2.0
status: active
schema:
  - name: visits
    customProperties: [{property: lakehose.dedupDays, value: 3650}]
    properties:
      - {name: page, logicalType: string, required: true}
      - name: seconds
        logicalType: integer
        physicalType: int
        quality: [{name: range, metric: invalidValues, arguments: {minimum: 0}, mustBe: 0, severity: error}]
"""


@pytest.fixture
def declared(worlds, tmp_path):
    """A lake as files, with a rule that blocks; and its command."""
    world = worlds()
    (tmp_path / "visits.yaml").write_text(CONTRACT)
    lake = {
        "company": world.lake.company,
        "environment": "test",
        "tenants": {"solo": {"tier": "dedicated"}},
        "datasets": {"visits": {"contract": "visits.yaml"}},
    }
    path = tmp_path / "lake.yaml"
    path.write_text(json.dumps(lake))
    world.lake = read_lake(path)

    def command(*arguments):
        environment = {**os.environ, **world.cloud.environment(), "LAKEHOSE_LAKE": str(path)}
        call = [sys.executable, "-m", "lakehose", *arguments]
        return subprocess.run(call, env=environment, capture_output=True, text=True, timeout=300, check=False)

    world.command = command
    return world


def test_the_rule_is_the_contracts(declared):
    (rule,) = declared.lake.datasets[0].contract.quality
    assert rule == Rule("range", Invalid("seconds", minimum=0), (Limit(Operator.BE, (0.0,)),), Severity.ERROR)


def test_a_held_batch_is_told_decided_about_and_told_again(declared):
    bad = declared.event(2, payload={"page": "/", "seconds": -1})
    declared.deliver("a", [declared.event(1), bad])
    done = declared.command("run", "ingest")
    assert done.returncode == 1
    assert f"lakehose: ingest: a quality rule holds back batch {DATA}/1; `lakehose quality results" in done.stderr
    declared.deliver("b", [declared.event(3)])

    told = declared.command("quality", "results", "--failed", "--json")
    (entry,) = json.loads(told.stdout)
    assert (told.returncode, entry["batch"], entry["state"], entry["rows"]) == (1, f"{DATA}/1", "held", 2)
    assert [(one["rule"], one["value"], one["passed"]) for one in entry["results"]] == [("range", 1.0, False)]

    decided = declared.command("quality", "publish", "--batch", f"{DATA}/1", "--why", "the clock ran backwards")
    assert (decided.returncode, "solo: 3 records, 3 ingested" in decided.stdout) == (0, True)
    assert sorted(row["sequence"] for row in declared.rows("solo")) == [1, 2, 3]

    other = declared.command("quality", "refuse", "--batch", f"{DATA}/1", "--why", "no")
    assert other.returncode == 1
    assert "to publish it: the clock ran backwards; what is decided stays" in other.stderr

    table = declared.command("quality", "results")
    assert (table.returncode, "quality: 2 batches, 1 broken rules, 0 held back" in table.stdout) == (0, True)
    events = [json.loads(line) for line in declared.command("lineage", f"{DATA}/1", "--json").stdout.splitlines()]
    assert sorted(one["eventType"] for one in events) == ["COMPLETE", "RUNNING", "START"]
    assert declared.command("lineage", "--dataset", "visits").stdout.endswith("lineage: 5 events\n")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("quality", "publish", "--batch", "visits/1", "--why", "x"), "batch: got 'visits/1', allowed is DATASET/even"),
        (("quality", "publish", "--batch", f"{DATA}/1", "--why", " "), "--why: it is empty"),
        (("quality", "publish", "--batch", f"{DATA}/1", "--why", "x"), f"batch {DATA}/1: it isn't planned; "),
        (
            ("quality", "refuse", "--batch", "visits/strays/solo/eve/1", "--why", "x"),
            "batch: got 'strays', allowed are",
        ),
        (
            ("quality", "refuse", "--batch", "visits/events/pool/solo/1", "--why", "x"),
            "batch: owner: got 'pool', allow",
        ),
        (("quality", "results", "--tenant", "sol"), "tenant: got 'sol', allowed are: solo; did you mean 'solo'?"),
        (("lineage",), "lineage: give the id of a batch, or --dataset"),
        (("lineage", f"{DATA}/9"), f"batch {DATA}/9: it isn't planned"),
        (("lineage", "--dataset", "visit"), "dataset: got 'visit', allowed are: visits"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_does(declared, arguments, told):
    done = declared.command(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr


def test_a_batch_that_no_rule_holds_cannot_be_decided_about(declared):
    declared.deliver("a", [declared.event(1)])
    declared.ingest()
    done = declared.command("quality", "refuse", "--batch", f"{DATA}/1", "--why", "x")
    assert (done.returncode, "no rule holds it back" in done.stderr) == (2, True)


def test_a_decision_may_be_left_to_the_next_ingest(declared):
    declared.deliver("a", [declared.event(1, payload={"page": "/", "seconds": -1})])
    declared.ingest()
    done = declared.command("quality", "refuse", "--batch", f"{DATA}/1", "--why", "noise", "--later")
    assert (done.returncode, done.stderr) == (0, f"batch {DATA}/1: decided: refuse\n")
    declared.ingest()
    assert [row["reason"] for row in declared.rows("solo", "quarantine")] == ["quality"]


def test_an_endpoint_that_is_away_fails_no_ingest(declared, tmp_path):
    path = tmp_path / "lake.yaml"
    path.write_text(json.dumps({**json.loads(path.read_text()), "lineage": {"url": "http://127.0.0.1:9"}}))
    declared.lake = replace(read_lake(path))
    declared.deliver("a", [declared.event(1)])
    said = []
    report = declared.ingest(say=said.append)
    assert (len(report.batches), said[-1].startswith("lineage: http://127.0.0.1:9: ")) == (1, True)
