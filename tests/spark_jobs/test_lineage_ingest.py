"""What ingest tells of its batches, to the manifest and to an OpenLineage endpoint."""

import json
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from lake.declaration import LineageTarget
from lake.errors import TerminalError
from lake.lineage_log import LineageLog
from lake.quality import Invalid, Limit, Operator, Rule, Severity
from spark_jobs.quality_hold import Ruling, Verdict, write_ruling
from tests.spark_jobs.conftest import Stop, stop_after

SHORT = Rule("range", Invalid("seconds", minimum=0), (Limit(Operator.BE, (0.0,)),), Severity.ERROR)


@pytest.fixture
def endpoint():
    """An OpenLineage endpoint: its URL, and the events it took."""
    events = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            events.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(201)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", events
    server.shutdown()
    server.server_close()


def kept(world, owner="solo"):
    log = LineageLog(world.cloud.dynamodb, world.lake.names.manifest_table())
    return [one.event for one in log.events(owner, "visits")]


def unsent(world):
    return list(LineageLog(world.cloud.dynamodb, world.lake.names.manifest_table()).unsent("solo", "visits"))


def turns(events):
    return sorted(one["eventType"] for one in events)


def test_a_batch_is_told_with_what_it_read_and_wrote_and_sent_as_it_is_kept(world, endpoint):
    url, sent = endpoint
    world.lake = replace(world.lake, lineage=LineageTarget(url, timeout_seconds=30))
    uri = world.deliver("a", [world.event(1), world.event(1), b"{bad"])
    world.ingest()
    complete, start = sorted(kept(world), key=lambda one: one["eventType"])
    assert (start["eventType"], start["outputs"]) == ("START", [])
    (source,), (rows, refused) = complete["inputs"], complete["outputs"]
    assert source["inputFacets"]["subset"]["inputCondition"]["locations"] == [uri]
    assert source["inputFacets"]["inputStatistics"]["rowCount"] == 3
    assert [one["outputFacets"]["outputStatistics"]["rowCount"] for one in (rows, refused)] == [1, 1]
    snapshot = world.table("solo").current_snapshot()
    assert rows["facets"]["version"]["datasetVersion"] == str(snapshot.snapshot_id)
    location = world.table("solo").location()
    assert f"{rows['namespace']}/{rows['name']}" == location
    assert complete["run"]["facets"]["lakehose"]["facts"]["counts"]["solo"]["duplicates"] == 1
    assert (sent, unsent(world)) == ([start, complete], [])


def test_a_batch_that_was_killed_is_the_same_run_when_it_is_finished(world):
    world.deliver("a", [world.event(1)])

    with pytest.raises(Stop):
        world.ingest(after=stop_after("data"))
    assert turns(kept(world)) == ["START"]
    world.ingest()
    assert turns(kept(world)) == ["COMPLETE", "START"]
    assert len({one["run"]["runId"] for one in kept(world)}) == 1


def test_a_batch_that_fails_is_told_with_why(world):
    world.deliver("a", [world.event(1)])
    world.plan_nobodys()
    with pytest.raises(TerminalError):
        world.ingest()
    assert turns(kept(world)) == ["FAIL", "START"]
    (failed,) = (one for one in kept(world) if one["eventType"] == "FAIL")
    assert failed["run"]["facets"]["errorMessage"]["message"]


def test_a_held_batch_is_running_and_a_refused_one_is_aborted(worlds):
    world = worlds()
    (dataset,) = world.lake.datasets
    ruled = replace(dataset.contract, quality=(SHORT,))
    world.lake = replace(world.lake, datasets=(replace(dataset, contract=ruled),))
    world.deliver("a", [world.event(1, payload={"page": "/", "seconds": -1})])
    (hold,) = world.ingest().held
    (running,) = (one for one in kept(world) if one["eventType"] == "RUNNING")
    (one,) = running["inputs"][0]["inputFacets"]["dataQualityAssertions"]["assertions"]
    assert (one["name"], one["success"], one["severity"], one["column"]) == ("range", False, "error", "seconds")
    write_ruling(world.cloud.s3, world.bucket("solo"), Ruling(hold.batch, Verdict.REFUSE, "seen", "mia", 0))
    world.ingest()
    assert turns(kept(world)) == ["ABORT", "RUNNING", "START"]
    (aborted,) = (one for one in kept(world) if one["eventType"] == "ABORT")
    assert [one["outputFacets"]["outputStatistics"]["rowCount"] for one in aborted["outputs"]] == [0, 1]


def test_what_is_refused_or_astray_is_told_too(shared):
    shared.deliver("a", [shared.event(1, "eve")], "ann", under="eve")
    shared.refuse("a", [b"noise"], "ann")
    shared.ingest()
    names = {one["job"]["name"]: one["outputs"] for one in kept(shared, "pooled") if one["eventType"] == "COMPLETE"}
    assert {name: [out["name"] for out in outputs] for name, outputs in names.items()} == {
        "ingest.visits.strays.pooled.eve": ["analytics-ready/quarantine"],
        "ingest.visits.refused.pooled.-": ["analytics-ready/quarantine"],
    }
