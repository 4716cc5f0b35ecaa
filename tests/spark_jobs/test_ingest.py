"""Ingest on a real Spark, S3, Glue and DynamoDB: what goes in, and what comes out."""

import json
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pytest

from lake.audit import balance, gather
from lake.contract import Contract, Field, ListOf, Primitive, StructOf
from lake.declaration import Jobs
from lake.errors import DeclarationError
from lake.manifest import Counts, ProducerLedger
from spark_jobs.dedup import first_id

DATA = "visits/events/solo/solo"


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
