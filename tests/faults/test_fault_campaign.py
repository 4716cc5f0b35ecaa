"""Jobs broken off in processes of their own while writers deliver: tables, three readers and the audit stay right.

The short form is in every run of the tests; `make faults ROUNDS=… SEED=…` goes on for as long as asked.
"""

from __future__ import annotations

import os
import secrets

import pytest
from pyiceberg.expressions import EqualTo

from lake.tables import glue_catalog
from tests.conftest import running_ministack
from tests.faults.campaign import Campaign
from tests.faults.checks import DifferenceError
from tests.faults.schedule import START, Strike
from tests.faults.world import DATASET, TENANT

SHORT = (
    ("ingest", "quarantine", "kill driver"),
    ("ingest", "data", "kill after a note"),
    ("compact", "prove", "kill after the commit"),
    ("erase", "tombstones", "kill before the commit"),
    ("erase", "rows", "reply of an object lost"),
    ("maintain", START, "reply of the commit lost"),
    ("replay", START, "reply of an object lost"),
    ("ingest", START, "Glue conflict"),
    ("compact", "plan", "S3 503 SlowDown"),
    ("ingest", "plan", "S3 cut"),
)


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory):
    """A MiniStack of the campaign's own: the session's other tests don't wait for it."""
    with running_ministack(tmp_path_factory.mktemp("faults-ministack")) as url:
        yield url


@pytest.mark.timeout(1800)
def test_whatever_is_broken_off_nothing_is_lost_doubled_or_left(endpoint, tmp_path):
    own = [Strike(number, job, step, 1, fault, 7 + number) for number, (job, step, fault) in enumerate(SHORT)]
    with Campaign(11, endpoint, tmp_path, print, at_once=len(own) // 2, trino_every=2) as campaign:
        rounds = list(campaign.rounds(0, 2, own))
        struck = [one for done in rounds for one in done.struck]
        assert [done.difference for done in rounds] == ["", ""]
        # a fault that never took effect would prove nothing
        assert [str(one.strike) for one in struck if not one.is_set] == []
        killed = [one.outcome for one in struck if one.strike.fault.startswith("kill")]
        assert killed == ["killed"] * len(killed)
        assert [str(one.strike) for one in struck if one.strike.fault != "kill driver" and not one.hits] == []
        assert {check for done in rounds for check in done.checks} >= {"Spark", "PyIceberg", "audit"}

        # what the campaign looks for, it finds: a row is lost behind everybody's back
        lake = campaign.lake
        table = glue_catalog(campaign.cloud).load_table((lake.names.database(TENANT), DATASET))
        table.delete(EqualTo("event_id", table.scan(limit=1).to_arrow()["event_id"][0].as_py()))
        with pytest.raises(DifferenceError, match="Spark: rows aren't the model's: 1 missing"):
            campaign.check(rounds[-1])


@pytest.mark.faults
@pytest.mark.timeout(0)
def test_hundreds_of_strikes_change_nothing(endpoint, tmp_path):
    seed = int(os.environ.get("SEED") or secrets.randbelow(1_000_000))
    with Campaign(seed, endpoint, tmp_path, print) as campaign:
        for done in campaign.rounds(0, int(os.environ.get("ROUNDS") or 100)):
            assert done.difference == "", f"seed {seed}, round {done.number}"
