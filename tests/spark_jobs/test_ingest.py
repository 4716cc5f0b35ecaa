"""Ingest on a real Spark, S3, Glue and DynamoDB: what goes in, what comes out, and that it does so once."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from lake.audit import balance, gather
from lake.contract import Contract, Field, ListOf, Primitive, StructOf
from lake.declaration import Jobs
from lake.errors import DeclarationError, FindingError, TerminalError
from lake.manifest import Counts, ProducerLedger
from lake.ranges import Ranges
from spark_jobs import compact
from spark_jobs.dedup import first_id

AT_NOON = datetime(2013, 2, 1, 12, tzinfo=UTC)
DATA = "visits/events/solo/solo"


class Stop(BaseException):
    """A crash: nothing in the job may catch it."""


def stop_after(step):
    def after(done):
        if done == step:
            raise Stop

    return after


def world_contract():
    return Contract("visits", "1.2.0", (Field("page", Primitive("string")), Field("seconds", Primitive("int"))), (), ())


def ids(world, owner="solo"):
    return [row["event_id"][-4:] for row in world.rows(owner)]


def test_events_become_rows_with_where_they_came_from(world):
    uri = world.deliver("a", [world.event(1), world.event(2)])
    report = world.ingest()
    first, _ = world.rows("solo")
    assert first == {
        "event_id": "018f0000-0000-7000-8000-000000000001",
        "tenant": "solo",
        "dataset": "visits",
        "event_time": datetime(2013, 1, 1, 10, tzinfo=UTC),
        "producer_id": "solo-phone",
        "sequence": 1,
        "schema_version": "1.0.0",
        "page": "/",
        "seconds": 1,
        "_rescued": None,
        "_object": uri,
        "_batch": 1,
    }
    assert report.totals == {"solo": Counts(records=2, ingested=2)}


def test_spark_reads_the_rows_that_pyiceberg_reads(world):
    world.deliver("a", [world.event(1), world.event(2)])
    world.ingest()
    table = f"lake.{world.lake.names.database('solo')}.visits"
    found = world.spark.table(table).select("event_id", "seconds", "_batch").orderBy("event_id").collect()
    assert [tuple(row) for row in found] == [
        (row["event_id"], row["seconds"], row["_batch"]) for row in world.rows("solo")
    ]


def test_running_again_changes_nothing(world):
    world.deliver("a", [world.event(1), b"{bad"])
    world.ingest()
    before = world.table("solo").current_snapshot()
    report = world.ingest()
    assert (report.batches, report.rebuilt, report.busy) == ((), (), ())
    assert world.table("solo").current_snapshot() == before
    assert len(world.rows("solo", "quarantine")) == 1


def test_without_objects_there_is_nothing_to_do(world):
    assert world.ingest().batches == ()
    assert world.table("solo").current_snapshot() is None


def test_each_pooled_tenants_events_go_to_its_own_table(shared):
    shared.deliver("a", [shared.event(1, "ann")], "ann")
    shared.deliver("a", [shared.event(2, "bob"), shared.event(3, "bob")], "bob")
    report = shared.ingest()
    assert (ids(shared, "ann"), ids(shared, "bob"), ids(shared)) == (["0001"], ["0002", "0003"], [])
    assert report.totals == {"ann": Counts(records=1, ingested=1), "bob": Counts(records=2, ingested=2)}


def test_more_objects_than_one_batch_takes_become_several(worlds):
    world = worlds(jobs=replace(Jobs(), ingest_objects=2))
    for name in "abc":
        world.deliver(name, [world.event(ord(name))])
    report = world.ingest()
    assert [(str(one.batch), len(one.objects)) for one in report.batches] == [(f"{DATA}/1", 2), (f"{DATA}/2", 1)]
    assert [row["_batch"] for row in world.rows("solo")] == [1, 1, 2]


def test_of_a_duplicate_in_a_batch_the_first_record_stays(world):
    first = world.deliver("a", [world.event(1), world.event(2), world.event(1, payload={"page": "/late"})])
    world.deliver("b", [world.event(2, payload={"page": "/later"})])
    report = world.ingest()
    assert [(row["page"], row["_object"]) for row in world.rows("solo")] == [("/", first), ("/", first)]
    assert report.totals == {"solo": Counts(records=4, ingested=2, duplicates=2)}


def test_a_duplicate_of_an_earlier_batch_is_dropped_and_counted(world):
    world.deliver("a", [world.event(1), world.event(2)])
    world.ingest()
    world.deliver("b", [world.event(2), world.event(3)])
    report = world.ingest()
    assert [(row["event_id"][-1], row["_batch"]) for row in world.rows("solo")] == [("1", 1), ("2", 1), ("3", 2)]
    assert report.totals == {"solo": Counts(records=2, ingested=1, duplicates=1)}


def test_a_batch_of_nothing_new_is_numbered_all_the_same(world):
    world.deliver("a", [world.event(1)])
    world.ingest()
    world.deliver("b", [world.event(1)])
    world.deliver("c", [b" "])
    world.ingest()
    world.deliver("d", [world.event(2)])
    report = world.ingest()
    assert [str(one.batch) for one in report.batches] == [f"{DATA}/3"]
    assert ids(world) == ["0001", "0002"]


def test_a_bad_record_is_quarantined_with_its_reason_place_and_bytes(world):
    bad = b'{"event_id":"e-9","tenant":"solo","producer_id":"solo-phone","sequence":9,"payload":{"page'
    uri = world.deliver("a", [world.event(1), b"", bad])
    report = world.ingest(clock=lambda: AT_NOON)
    (row,) = world.rows("solo", "quarantine")
    assert row == {
        "quarantined_at": AT_NOON,
        "dataset": "visits",
        "tenant": "solo",
        "stage": "ingest",
        "reason": "malformed_json",
        "message": "the record is no JSON: unexpected end of data: line 1 column 91 (char 90)",
        "payload": bad,
        "object": uri,
        "position": 2,
        "event_id": "e-9",
        "producer_id": "solo-phone",
        "sequence": 9,
        "arrival_time": None,
        "_batch": f"{DATA}/1",
    }
    assert report.totals == {"solo": Counts(records=2, ingested=1, quarantined=1)}
    assert report.batches[0].figures.without_days().seen == {("solo", "solo-phone", "-"): Ranges(((1, 1), (9, 9)))}


def test_each_reason_reaches_the_quarantine_and_the_counts(world):
    records = [
        b"{",
        world.event(1, payload={"seconds": 1}),
        world.event(2, payload={"page": 2}),
        world.event(3, tenant="ann"),
        world.event(4, dataset="sales"),
        world.event(5, schema_version="2.0.0"),
    ]
    world.deliver("a", records)
    report = world.ingest()
    assert [(row["position"], row["tenant"], row["reason"]) for row in world.rows("solo", "quarantine")] == [
        (0, "solo", "malformed_json"),
        (1, "solo", "missing_field"),
        (2, "solo", "wrong_type"),
        (3, "ann", "tenant_mismatch"),
        (4, "solo", "unknown_dataset"),
        (5, "solo", "unknown_schema_version"),
    ]
    assert report.totals == {
        "ann": Counts(records=1, quarantined=1),
        "solo": Counts(records=5, quarantined=5, unidentified=1),
    }


def test_an_object_that_cannot_be_read_is_one_quarantined_record_and_stops_nothing(world):
    world.deliver("a", [world.event(1)])
    bucket, key = world.bucket("solo"), "processed/visits/tenant=solo/b.gz"
    world.cloud.s3.put_object(Bucket=bucket, Key=key, Body=b"no gzip")
    report = world.ingest()
    (row,) = world.rows("solo", "quarantine")
    assert (row["reason"], row["object"], row["position"], row["payload"]) == (
        "unreadable_object",
        f"s3://{bucket}/{key}",
        None,
        None,
    )
    assert report.totals == {"solo": Counts(records=2, ingested=1, quarantined=1, unidentified=1)}


def test_an_object_that_vanished_after_it_was_planned_does_not_stop_the_series_for_good(world):
    world.deliver("a", [world.event(1)])
    gone = world.deliver("b", [world.event(2)])
    with pytest.raises(Stop):
        world.ingest(after=stop_after("plan"))
    world.cloud.s3.delete_object(Bucket=world.bucket("solo"), Key=gone.partition(f"{world.bucket('solo')}/")[2])
    world.ingest()
    assert ids(world) == ["0001"]
    assert [(row["reason"], row["object"]) for row in world.rows("solo", "quarantine")] == [("unreadable_object", gone)]


def test_an_object_that_may_not_be_read_is_named_in_one_sentence_and_stops_no_other_series(shared):
    shared.deliver("a", [shared.event(1, "ann")], "ann")
    shared.deliver("b", [shared.event(1)])
    plan = {
        "batch": "visits/events/solo/solo/1",
        "schema_version": "1.0.0",
        "planned_at_ms": 0,
        "objects": [{"uri": "s3://nobodys-bucket/a.gz", "size": 1}],
    }
    key = "batches/visits/events/tenant=solo/000000001.json"
    shared.cloud.s3.put_object(Bucket=shared.bucket("solo"), Key=key, Body=json.dumps(plan).encode())
    with pytest.raises(TerminalError) as caught:
        shared.ingest()
    assert str(caught.value).startswith(
        "ingest of visits, events, tenant solo: object s3://nobodys-bucket/a.gz: it can't be read: An error occurred"
    )
    assert "\n" not in str(caught.value)
    assert ids(shared, "ann") == ["0001"]


def test_unknown_fields_are_rescued_in_the_table(world):
    world.deliver("a", [world.event(1, payload={"page": "/", "gate": "5", "rank": 5}, trace=True)])
    world.ingest()
    (row,) = world.rows("solo")
    assert json.loads(row["_rescued"]) == {"gate": "5", "rank": 5, "$envelope": {"trace": True}}


def test_every_type_of_a_contract_comes_out_of_the_table_as_it_went_in(worlds):
    kinds = {
        "flag": (Primitive("boolean"), True, True),
        "small": (Primitive("int"), 5, 5),
        "large": (Primitive("long"), 2**62, 2**62),
        "half": (Primitive("float"), 0.5, 0.5),
        "ratio": (Primitive("double"), 0.1, 0.1),
        "price": (Primitive("decimal", 10, 2), 12.5, Decimal("12.50")),
        "on": (Primitive("date"), "2013-02-28", date(2013, 2, 28)),
        "local": (Primitive("timestamp"), "2013-02-28T10:00:00.5", datetime(2013, 2, 28, 10, 0, 0, 500000)),  # noqa: DTZ001
        "at": (Primitive("timestamptz"), "2013-02-28T10:00:00+01:00", datetime(2013, 2, 28, 9, tzinfo=UTC)),
        "name": (Primitive("string"), "é😀", "é😀"),
        "blob": (Primitive("binary"), "aGk=", b"hi"),
        "tags": (ListOf(Primitive("string")), ["a", None], ["a", None]),
        "home": (
            StructOf((Field("city", Primitive("string")), Field("zip", Primitive("int")))),
            {"city": "NY"},
            {"city": "NY", "zip": None},
        ),
        "cart": (ListOf(StructOf((Field("sku", Primitive("string")),))), [{"sku": "a"}], [{"sku": "a"}]),
    }
    fields = tuple(Field(name, kind) for name, (kind, _, _) in kinds.items())
    world = worlds(Contract("visits", "1.0.0", fields, (), ()))
    world.deliver(
        "a",
        [
            world.event(1, payload={name: given for name, (_, given, _) in kinds.items()}),
            world.event(2, payload=dict.fromkeys(kinds)),
        ],
    )
    world.ingest()
    full, _ = world.rows("solo")
    assert {name: full[name] for name in kinds} == {name: taken for name, (_, _, taken) in kinds.items()}
    # by Spark, as PyIceberg reads a list of objects that is null as an empty one
    table = world.spark.table(f"lake.{world.lake.names.database('solo')}.visits")
    empty = table.where("sequence = 2").select(*kinds).collect()[0]
    assert empty.asDict() == dict.fromkeys(kinds)


def test_what_was_delivered_astray_is_quarantined_under_the_tenant_it_claims(shared):
    uri = shared.deliver("a", [shared.event(1, "eve")], "ann", under="eve#'1")
    shared.put(shared.bucket("ann"), "processed/visits/loose", [shared.event(2, "ann")])
    report = shared.ingest()
    astray = shared.rows("pooled", "quarantine")
    assert [(row["tenant"], row["reason"], row["message"]) for row in astray] == [
        (None, "unknown_tenant", "it was delivered under no tenant, and the stream carries: ann, bob"),
        ("eve#'1", "unknown_tenant", "it was delivered under tenant=eve#'1, and the stream carries: ann, bob"),
    ]
    assert (astray[1]["object"], astray[1]["sequence"]) == (uri, 1)
    assert report.totals == {
        "-": Counts(records=1, quarantined=1, unidentified=1),
        "eve#'1": Counts(records=1, quarantined=1),
    }
    assert shared.ingest().batches == ()


def test_a_declared_tenant_in_another_streams_bucket_is_astray(shared):
    shared.deliver("a", [shared.event(1)], "solo", bucket=shared.bucket("ann"))
    assert shared.ingest().totals == {"solo": Counts(records=1, quarantined=1)}
    assert shared.rows("solo") == []


def test_what_firehose_refused_is_kept_with_its_reason_and_counted_by_tenant(shared):
    whole = json.dumps(shared.event(5, "ann")).encode()
    uri = shared.refuse("a", [whole[:-9], b"noise"], "ann")
    report = shared.ingest()
    first, second = shared.rows("pooled", "quarantine")
    assert {name: first[name] for name in first if name != "quarantined_at"} == {
        "dataset": "visits",
        "tenant": "ann",
        "stage": "firehose",
        "reason": "DynamicPartitioning.MetadataExtractionFailed",
        "message": "partition keys can't be read",
        "payload": whole[:-9],
        "object": uri,
        "position": 0,
        "event_id": "018f0000-0000-7000-8000-000000000005",
        "producer_id": "ann-phone",
        "sequence": 5,
        "arrival_time": datetime(2013, 1, 1, 10, tzinfo=UTC),
        "_batch": "visits/refused/pooled/-/1",
    }
    assert (second["tenant"], second["payload"]) == (None, b"noise")
    assert report.totals == {
        "-": Counts(records=1, refused=1, unidentified=1),
        "ann": Counts(records=1, refused=1),
    }


def test_a_refused_record_without_a_tenant_is_its_producers(shared):
    shared.manifest().report(ProducerLedger("bob", "visits", "van-7", 9, 9, 0, 0))
    raws = [
        b'{"event_id":"e","producer_id":"van-7","sequence":3,"payload":{}}',
        b'{"producer_id":"van-8","sequence":3}',
    ]
    shared.refuse("a", raws, "bob")
    report = shared.ingest()
    assert report.totals == {"-": Counts(records=1, refused=1, unidentified=1), "bob": Counts(records=1, refused=1)}
    assert [one.seen for _, one in shared.manifest().batches("pooled", "visits")] == [
        {("bob", "van-7", "-"): Ranges(((3, 3),))}
    ]


def test_a_line_that_is_no_error_record_is_kept_too(world):
    world.refuse("a", ["oops", '{"errorCode": "E", "rawData": "*"}'])
    world.ingest()
    assert [(row["reason"], row["payload"]) for row in world.rows("solo", "quarantine")] == [
        ("malformed_error_record", b"oops"),
        ("malformed_error_record", b'{"errorCode": "E", "rawData": "*"}'),
    ]


@pytest.mark.parametrize("step", ["plan", "quarantine", "data"])
def test_a_run_that_stopped_after_any_step_is_finished_by_the_next_one(world, step):
    world.deliver("a", [world.event(1), world.event(1), world.event(2), b"{bad"])
    with pytest.raises(Stop):
        world.ingest(after=stop_after(step))
    world.deliver("b", [world.event(3)])
    report = world.ingest()
    assert ids(world) == ["0001", "0002", "0003"]
    assert len(world.rows("solo", "quarantine")) == 1
    assert [row["_batch"] for row in world.rows("solo")] == [1, 1, 2]
    receipts = sorted((*report.batches, *report.rebuilt), key=lambda one: one.batch)
    assert [(one.batch.number, one.counts["solo"]) for one in receipts] == [
        (1, Counts(records=4, ingested=2, duplicates=1, quarantined=1, unidentified=1)),
        (2, Counts(records=1, ingested=1)),
    ]


def test_a_receipt_that_was_lost_is_made_again_just_as_it_was(world):
    world.deliver("a", [world.event(1), world.event(1), world.event(4), b"{bad"])
    (receipt,) = world.ingest().batches
    world.deliver("b", [world.event(5)])
    world.ingest()
    lake = world.lake
    world.cloud.dynamodb.delete_item(
        TableName=lake.names.manifest_table(),
        Key={"pk": {"S": "solo#visits"}, "sk": {"S": "batch#events#solo#000000001"}},
    )
    report = world.ingest(listed=True)
    assert (report.rebuilt, report.batches) == ((receipt,), ())


def test_of_two_runs_that_plan_the_same_batch_one_leaves(world):
    world.deliver("a", [world.event(1)])
    inner, asked = [], []

    def meanwhile():
        # the moment is asked for first when a run begins, then between finding what is new and writing the plan
        asked.append(None)
        if len(asked) == 2:
            inner.append(world.ingest())
        return AT_NOON

    outer = world.ingest(clock=meanwhile)
    assert [str(one.batch) for one in inner[0].batches] == [f"{DATA}/1"]
    assert (outer.batches, outer.busy) == ((), (DATA,))
    assert ids(world) == ["0001"]


def test_of_two_runs_that_carry_out_the_same_batch_both_find_it_committed_once(world):
    world.deliver("a", [world.event(1), world.event(2), b"{bad"])
    inner = []

    def meanwhile(step):
        if step == "plan":
            inner.append(world.ingest())

    outer = world.ingest(after=meanwhile)
    assert inner[0].batches == outer.batches
    assert outer.totals == {"solo": Counts(records=3, ingested=2, quarantined=1, unidentified=1)}
    assert ids(world) == ["0001", "0002"]
    assert len(world.rows("solo", "quarantine")) == 1
    assert world.ingest().batches == ()


def test_a_compaction_between_a_batchs_two_commits_does_no_harm(world):
    for name, number in (("a", 1), ("b", 2)):
        world.deliver(name, [world.event(number)])
        world.ingest()
    world.deliver("c", [world.event(3), world.event(1)])
    compacted = []

    def meanwhile(step):
        if step == "quarantine":
            compacted.append(compact.run(world.spark, world.lake, world.cloud, owners=["solo"]))

    report = world.ingest(after=meanwhile)
    assert [one.rewritten for one in compacted[0].tables if one.table.endswith(".visits")] == [True]
    assert report.totals == {"solo": Counts(records=2, ingested=1, duplicates=1)}
    assert ids(world) == ["0001", "0002", "0003"]
    assert world.ingest().batches == ()


def test_a_table_that_lost_its_history_is_not_ingested_again(world):
    world.deliver("a", [world.event(1)])
    world.ingest()
    (batch,) = (one for one, _ in world.manifest().batches("solo", "visits"))
    later = replace(batch, number=2)
    world.cloud.dynamodb.put_item(
        TableName=world.lake.names.manifest_table(),
        Item={
            "pk": {"S": "solo#visits"},
            "sk": {"S": f"batch#events#solo#{later.number:09d}"},
            "counts": {"M": {}},
        },
    )
    world.deliver("b", [world.event(2)])
    with pytest.raises(
        FindingError, match=r"its history ends at batch 1 of visits/events/solo/solo, and the manifest knows"
    ):
        world.ingest()


def test_only_the_tenants_asked_for_are_ingested(shared):
    shared.deliver("a", [shared.event(1, "ann")], "ann")
    shared.deliver("a", [shared.event(2, "bob")], "bob")
    shared.refuse("a", [b"noise"], "ann")
    assert shared.ingest(tenants=["ann"]).totals == {"ann": Counts(records=1, ingested=1)}
    assert sorted(shared.ingest(tenants=["ann", "bob"]).totals) == ["-", "bob"]


def test_an_undeclared_tenant_or_dataset_is_refused_by_name(shared):
    with pytest.raises(
        DeclarationError, match=r"tenant: got 'anna', allowed are: ann, bob, solo; did you mean 'ann'\?"
    ):
        shared.ingest(tenants=["anna"])
    with pytest.raises(DeclarationError, match="dataset: got 'sales', allowed are: visits"):
        shared.ingest(datasets=["sales"])


def test_the_audit_balances_over_all_lanes(shared):
    shared.deliver("a", [shared.event(0), shared.event(1), shared.event(1), shared.event(2, payload={})])
    shared.deliver("a", [shared.event(0, "ann")], "ann")
    shared.refuse("a", [json.dumps(shared.event(1, "ann")).encode()[:-9]], "ann")
    shared.manifest().report(ProducerLedger("solo", "visits", "solo-phone", 3, 3, 0, 0))
    shared.ingest()
    sheet = balance(gather_without_server(shared))
    assert sheet.balanced
    assert {
        row.tenant: (row.sent, row.ingested, row.duplicates, row.quarantined, row.refused) for row in sheet.rows
    } == {
        "solo": (3, 2, 1, 1, 0),
        "ann": (2, 1, 0, 0, 1),
        "bob": (0, 0, 0, 0, 0),
    }


def gather_without_server(world):
    return gather(world.lake, world.cloud, "visits")


def test_an_event_that_comes_again_after_the_contracts_window_is_taken_as_new(worlds):
    world = worlds(replace(world_contract(), dedup_days=7))
    made = datetime(2026, 3, 1, tzinfo=UTC)
    event = world.event(1, event_id=f"{first_id(round(made.timestamp() * 1000))}-7000-8000-000000000001")
    for name, days in (("a", 1), ("b", 6), ("c", 9)):
        world.deliver(name, [event])
        world.ingest(clock=lambda days=days: made + timedelta(days=days))
    assert sorted(row["_batch"] for row in world.rows("solo")) == [1, 3]


def test_an_event_of_a_clock_far_ahead_is_quarantined_with_the_limit(worlds):
    world = worlds(replace(world_contract(), skew_minutes=60))
    noon = datetime(2013, 1, 1, 12, tzinfo=UTC)
    ahead = {minutes: (noon + timedelta(minutes=minutes)).isoformat() for minutes in (59, 61)}
    world.deliver("a", [world.event(number, event_time=time) for number, time in enumerate(ahead.values(), 1)])
    world.ingest(clock=lambda: noon)
    assert [row["sequence"] for row in world.rows("solo")] == [1]
    (refused,) = world.rows("solo", "quarantine")
    assert (refused["reason"], refused["sequence"]) == ("clock_skew", 2)
    assert refused["message"] == (
        "event_time: got 2013-01-01T13:01:00+00:00, allowed is at most 60 minutes from 2013-01-01T12:00:00Z, "
        "when it was ingested"
    )


def test_a_contract_that_grew_evolves_the_table_and_old_producers_go_on_beside_new_ones(world):
    world.deliver("a", [world.event(1)])
    world.ingest()
    (dataset,) = world.lake.datasets
    wider = tuple(
        replace(one, type=Primitive("long")) if one.name == "seconds" else one for one in dataset.contract.fields
    )
    grown = replace(dataset.contract, version="1.3.0", fields=(*wider, Field("gate", Primitive("string"))))
    world.lake = replace(world.lake, datasets=(replace(dataset, contract=grown),))
    new = world.event(2, schema_version="1.3.0", payload={"page": "/", "seconds": 2**40, "gate": "B7"})
    world.deliver("b", [new, world.event(3)])
    said = []
    world.ingest(say=said.append)
    assert [(row["seconds"], row["gate"]) for row in world.rows("solo")] == [(1, None), (2**40, "B7"), (3, None)]
    assert [line.split("column ")[1] for line in said if "column" in line] == [
        "seconds widened to long, as contract 1.3.0",
        "gate added, as contract 1.3.0",
    ]
    assert world.rows("solo", "quarantine") == []
