"""Lineage events: what they tell, held to OpenLineage's schema where it is at hand; how they are kept and sent."""

import json
import os
import threading
import time
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import jsonschema
import pytest
from referencing import Registry, Resource

from lake.contract import Contract, Field, ListOf, Primitive, StructOf
from lake.declaration import Buffering, Dataset, Lake, LineageTarget, Tenant, Tier, read_lake
from lake.defaults import now
from lake.errors import DeclarationError
from lake.figures import Counts, Figures
from lake.lineage import BatchStory, Parent, TableStory, Turn, batch_event, batch_run_id, table_event
from lake.lineage_log import LineageLog, Sender, Told
from lake.manifest import BatchId, BatchReceipt, Lane
from lake.provision import provision_storage
from lake.quality import Limit, Nulls, Operator, Rule, Severity, judge

SPEC = os.environ.get("OPENLINEAGE_SPEC", "")
CONTRACT = Contract(
    dataset="visits",
    version="1.2.0",
    fields=(
        Field("page", Primitive("string"), description="Where"),
        Field("home", StructOf((Field("zip", Primitive("string")),))),
        Field("tags", ListOf(Primitive("string"))),
    ),
    partition=(),
    sort=(),
)
BATCH = BatchId("solo", "visits", Lane.EVENTS, "solo", 7)
AT = 1_700_000_000_123
OBJECTS = {f"s3://acme-solo-test-datalake/processed/visits/tenant=solo/year=2013/{name}.gz": 100 for name in "ab"}
STORY = BatchStory(BATCH, AT, "1.2.0", OBJECTS)
PARENT = Parent("ingest", "018bcfe5-687b-7000-8000-000000000001")
RULE = Rule("there", Nulls("page"), (Limit(Operator.BE, (0.0,)),), Severity.WARNING, description="why")


@pytest.fixture
def lake():
    tenants = (Tenant("solo", Tier.DEDICATED), Tenant("ann", Tier.POOLED))
    datasets = (Dataset("visits", CONTRACT, Buffering()),)
    return Lake("acme", "test", "us-east-1", tenants, datasets)


def receipt(batch=BATCH, **counts):
    given = Counts(**(counts or {"records": 9, "ingested": 5, "duplicates": 1, "quarantined": 3}))
    return BatchReceipt(batch, 42, "1.2.0", AT, dict.fromkeys(OBJECTS, 4), Figures({("solo", "2013-01-01"): given}))


def complete(lake, **more):
    (stream, _) = lake.streams()
    return batch_event(lake, stream, STORY, Turn.COMPLETE, AT + 5, parent=PARENT, receipt=receipt(), **more)


def valid(event):
    """Hold an event and its facets to OpenLineage's schema."""
    found = [json.loads(path.read_text()) for path in Path(SPEC).rglob("*.json") if "tests" not in path.parts]
    schemas = [one for one in found if "$id" in one]
    registry = Registry().with_resources([(one["$id"], Resource.from_contents(one)) for one in schemas])
    check = jsonschema.Draft202012Validator.FORMAT_CHECKER

    def hold(value, schema):
        jsonschema.Draft202012Validator({"$ref": schema}, registry=registry, format_checker=check).validate(value)

    assert event["schemaURL"].startswith("https://openlineage.io/spec/")
    hold(event, event["schemaURL"])
    held = 0
    parts = [event["run"], event["job"], *event["inputs"], *event["outputs"]]
    for facets in [part.get(name, {}) for part in parts for name in ("facets", "inputFacets", "outputFacets")]:
        for facet in facets.values():
            hold(facet, facet["_schemaURL"])
            held += 1
    return held


@pytest.mark.skipif(not SPEC, reason="OPENLINEAGE_SPEC names no folder with OpenLineage's spec/*.json")
def test_every_event_satisfies_openlineages_schema(lake):
    (stream, pooled) = lake.streams()
    results = judge([RULE], {"there": 2}, 5)
    assert valid(complete(lake, results=results)) > 12
    assert valid(batch_event(lake, stream, STORY, Turn.START, AT, parent=PARENT)) > 4
    assert valid(batch_event(lake, stream, STORY, Turn.RUNNING, AT, parent=PARENT, results=results)) > 4
    assert valid(batch_event(lake, stream, STORY, Turn.FAIL, AT, parent=PARENT, problem="it broke")) > 5
    astray = BatchId("pooled", "visits", Lane.STRAYS, "eve#'1", 1)
    story = replace(STORY, batch=astray)
    root = replace(PARENT, root=("airflow", "dag.task", "018bcfe5-687b-7000-8000-000000000009"))
    assert valid(batch_event(lake, pooled, story, Turn.COMPLETE, AT, parent=root, receipt=receipt(astray))) > 8
    table = TableStory("compact", "solo", "visits", PARENT.run_id, {"files": 5}, 42, 9)
    assert valid(table_event(lake, table, Turn.COMPLETE, AT, parent=PARENT)) > 5
    assert valid(table_event(lake, replace(table, table="quarantine"), Turn.COMPLETE, AT, parent=PARENT)) > 5


def test_a_batch_is_one_run_whoever_carries_it_out(lake):
    assert batch_run_id(BATCH, AT) == batch_run_id(BATCH, AT)
    assert batch_run_id(BATCH, AT) != batch_run_id(replace(BATCH, number=8), AT)
    assert batch_run_id(BATCH, AT).startswith("018bcfe5-687b-7")
    event = complete(lake)
    assert (event["run"]["runId"], event["eventType"], event["eventTime"]) == (
        batch_run_id(BATCH, AT),
        "COMPLETE",
        "2023-11-14T22:13:20.128Z",
    )
    assert (event["job"]["namespace"], event["job"]["name"]) == (
        "lakehose://acme/test",
        "ingest.visits.events.solo.solo",
    )


def test_the_objects_of_a_batch_are_its_input_by_their_prefix(lake):
    (source,) = complete(lake)["inputs"]
    assert (source["namespace"], source["name"]) == ("s3://acme-solo-test-datalake", "processed/visits/tenant=solo")
    facets = source["inputFacets"]
    assert {name: facets["inputStatistics"][name] for name in ("rowCount", "size", "fileCount")} == {
        "rowCount": 8,
        "size": 200,
        "fileCount": 2,
    }
    assert facets["subset"]["inputCondition"]["locations"] == sorted(OBJECTS)


def test_the_tables_of_a_batch_are_its_outputs_with_rows_and_snapshot(lake):
    rows, refused = complete(lake)["outputs"]
    assert (rows["namespace"], rows["name"]) == ("s3://acme-solo-test-datalake", "analytics-ready/visits")
    assert rows["facets"]["symlinks"]["identifiers"] == [
        {
            "namespace": "awsathena://athena.us-east-1.amazonaws.com",
            "name": "AwsDataCatalog.acme_solo_test.visits",
            "type": "TABLE",
        }
    ]
    assert rows["facets"]["version"]["datasetVersion"] == "42"
    assert (rows["outputFacets"]["outputStatistics"]["rowCount"], refused["name"]) == (5, "analytics-ready/quarantine")
    assert refused["outputFacets"]["outputStatistics"]["rowCount"] == 3
    schema = {one["name"]: one for one in rows["facets"]["schema"]["fields"]}
    assert (schema["page"]["type"], schema["home"]["fields"][0]["name"], schema["tags"]["type"]) == (
        "string",
        "zip",
        "array",
    )


def test_each_column_is_told_from_which_field_it_comes(lake):
    lineage = complete(lake)["outputs"][0]["facets"]["columnLineage"]["fields"]
    told = {name: [one["field"] for one in fields["inputFields"]] for name, fields in lineage.items()}
    assert (told["page"], told["event_id"], "_batch" in told) == (["payload.page"], ["event_id"], False)


def test_what_rules_found_is_told_as_assertions(lake):
    (source,) = complete(lake, results=judge([RULE], {"there": 2}, 5))["inputs"]
    (one,) = source["inputFacets"]["dataQualityAssertions"]["assertions"]
    assert {key: one[key] for key in ("assertion", "success", "column", "severity", "name", "expected", "actual")} == {
        "assertion": "not_null",
        "success": False,
        "column": "page",
        "severity": "warn",
        "name": "there",
        "expected": "= 0",
        "actual": "2",
    }


def test_a_scheduler_is_the_root_of_its_runs(monkeypatch):
    monkeypatch.setenv("OPENLINEAGE_PARENT_ID", "airflow/dag.ingest/018bcfe5-687b-7000-8000-000000000009")
    assert Parent.of("ingest", "x").root == ("airflow", "dag.ingest", "018bcfe5-687b-7000-8000-000000000009")
    monkeypatch.setenv("OPENLINEAGE_PARENT_ID", "nonsense")
    assert Parent.of("ingest", "x").root is None


class Receiver:
    """An OpenLineage endpoint that notes what it takes."""

    def __init__(self, *, status=201, delay=0.0):
        self.events, self.headers, self.paths = [], [], []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                time.sleep(delay)
                outer.events.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                outer.headers.append(dict(self.headers))
                outer.paths.append(self.path)
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def receiver():
    made = []

    def receiver(**options):
        made.append(Receiver(**options))
        return made[-1]

    yield receiver
    for one in made:
        one.server.shutdown()
        one.server.server_close()


@pytest.fixture(scope="module")
def log(cloud):
    lake = Lake(
        "lineage", "test", "us-east-1", (Tenant("solo", Tier.DEDICATED),), (Dataset("v", CONTRACT, Buffering()),)
    )
    for _ in provision_storage(lake, cloud):
        pass
    return LineageLog(cloud.dynamodb, lake.names.manifest_table())


def told(dataset, number=1):
    run = batch_run_id(replace(BATCH, number=number), AT + number)
    return Told("solo", dataset, {"run": {"runId": run}, "eventType": "COMPLETE", "number": number})


def send(log, target, events, *, dataset):
    said = []
    sender = Sender(log, target, said.append)
    sender.resend("solo", dataset)
    for one in events:
        sender.tell(one)
    started = time.monotonic()
    sender.close()
    return said, time.monotonic() - started


def test_events_are_kept_and_found_by_run_and_by_time(log):
    events = [told("kept", number) for number in (1, 2, 3)]
    assert send(log, None, reversed(events), dataset="kept")[0] == []
    assert [one.event["number"] for one in log.events("solo", "kept")] == [1, 2, 3]
    run = events[1].event["run"]["runId"]
    assert [one.event["number"] for one in log.events("solo", "kept", run=run)] == [2]
    assert [one.event["number"] for one in log.events("solo", "kept", since=run[:13])] == [2, 3]
    assert list(log.unsent("solo", "kept")) == []


def test_an_endpoint_takes_the_events_as_they_are_kept(log, receiver, monkeypatch):
    monkeypatch.setenv("OPENLINEAGE_API_KEY", "secret")
    there = receiver()
    assert (
        send(log, LineageTarget(there.url, timeout_seconds=30), [told("sent", 1), told("sent", 2)], dataset="sent")[0]
        == []
    )
    assert (there.events, there.paths[0]) == ([told("sent", 1).event, told("sent", 2).event], "/api/v1/lineage")
    assert there.headers[0]["Authorization"] == "Bearer secret"
    assert list(log.unsent("solo", "sent")) == []


def test_a_mark_that_dynamodb_leaves_at_first_goes_all_the_same(log, busy, receiver):
    client, there = busy("BatchWriteItem", times=2), receiver()
    slow = LineageLog(client, log._items.table)
    assert send(slow, LineageTarget(there.url, timeout_seconds=30), [told("left", 1)], dataset="left")[0] == []
    assert client.calls == [1, 1, 1]
    assert list(log.unsent("solo", "left")) == []
    assert send(log, LineageTarget(there.url, timeout_seconds=30), [], dataset="left")[0] == []
    assert len(there.events) == 1


def test_a_mark_outlives_a_look_between_it_and_its_event_but_not_a_killed_run(log, monkeypatch):
    made, seen = told("between", 1), []
    put = log._items.put

    def look_between(item):
        put(item)
        seen.append(list(log.unsent("solo", "between")))

    monkeypatch.setattr(log._items, "put", look_between)
    log.record(made, unsent=True)
    assert seen == [[], [made]]  # between the two, and behind them
    monkeypatch.setattr(log._items, "put", lambda item: put(item) if item["sk"]["S"].startswith("unsent#") else None)
    log.record(told("between", 2), unsent=True)  # killed before its event was kept
    assert list(log.unsent("solo", "between")) == [made]
    later = LineageLog(log._items._dynamodb, log._items.table, clock=lambda: now() + timedelta(days=2))
    assert [list(one.unsent("solo", "between")) for one in (log, later)] == [[made], [made]]
    marks = log._items.beginning("solo#between#lineage", "unsent#")
    assert [item["sk"]["S"] for item in marks] == [f"unsent#{made.key}"]


@pytest.mark.parametrize("how", ["away", "refusing", "slow"])
def test_an_endpoint_that_does_not_take_events_costs_seconds_and_gets_them_from_the_next_run(log, receiver, how):
    dataset = f"later_{how}"
    there = {"away": Receiver, "refusing": receiver, "slow": receiver}[how]
    bad = there(**{"away": {}, "refusing": {"status": 500}, "slow": {"delay": 60.0}}[how])
    if how == "away":
        bad.server.shutdown()
        bad.server.server_close()
    target = LineageTarget(bad.url, timeout_seconds=0.5)
    events = [told(dataset, 1), told(dataset, 2)]
    (line,), seconds = send(log, target, events, dataset=dataset)
    assert line.startswith(f"lineage: {bad.url}: ")
    assert line.endswith("what it didn't take is kept, and sent by the next run")
    assert seconds < 30  # of the minute that the slow one would take
    assert [one.event["number"] for one in log.unsent("solo", dataset)] == [1, 2]
    good = receiver()
    assert send(log, LineageTarget(good.url, timeout_seconds=30), [], dataset=dataset)[0] == []
    assert [one["number"] for one in good.events] == [1, 2]
    assert list(log.unsent("solo", dataset)) == []


LAKE = "company: acme\nenvironment: dev\ntenants: {solo: {tier: dedicated}}\ndatasets: {visits: {contract: v.yaml}}\n"
ODCS = (
    "apiVersion: v3.1.0\nkind: DataContract\nid: v\nversion: 1.0.0\nstatus: active\n"
    "schema: [{name: visits, properties: [{name: page, logicalType: string}]}]\n"
)


def test_an_endpoint_is_declared(tmp_path):
    (tmp_path / "v.yaml").write_text(ODCS)
    path = tmp_path / "lake.yaml"
    path.write_text(f"{LAKE}lineage: {{url: 'http://marquez:5000', timeout_seconds: 2}}\n")
    assert read_lake(path).lineage == LineageTarget("http://marquez:5000", timeout_seconds=2.0)
    path.write_text(LAKE)
    assert read_lake(path).lineage is None
    path.write_text(f"{LAKE}lineage: {{url: marquez}}\n")
    with pytest.raises(DeclarationError, match=r"lineage\.url: .*'marquez'"):
        read_lake(path)
