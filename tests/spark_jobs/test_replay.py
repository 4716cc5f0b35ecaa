"""Replay on a real Spark, S3, Glue and DynamoDB: what was refused goes round again, once, as who it was."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from lake.audit import balance, gather
from lake.contract import Contract, Field, PartitionField, Primitive
from lake.declaration import Dataset
from lake.erasure import parse_subject
from lake.errors import DeclarationError, TerminalError
from lake.manifest import Counts
from spark_jobs import erase, replay
from tests.spark_jobs.conftest import Stop, stop_after

STRICT = Contract(
    dataset="visits",
    version="1.2.0",
    fields=(
        Field("page", Primitive("string"), required=True, pii=True),
        Field("seconds", Primitive("int"), required=True),
    ),
    partition=(PartitionField("day", "event_time"),),
    sort=("event_time",),
    dedup_days=3650,
)


def relaxed(world, *fields):
    """The same lake after a fix: what it required isn't any more."""
    kept = tuple(replace(one, required=False) if one.name in fields else one for one in STRICT.fields)
    dataset = Dataset("visits", replace(STRICT, fields=kept), world.lake.datasets[0].buffering)
    return replace(world, lake=replace(world.lake, datasets=(dataset,)))


def replayed(world, reason="missing_field", **options):
    return replay.run(world.spark, world.lake, world.cloud, dataset="visits", reason=reason, **options)


def without(world, number, *names, tenant="solo", **changes):
    payload = {"page": f"/{number}", "seconds": number}
    changes.setdefault("sequence", number - 1)
    return world.event(number, tenant, payload={k: v for k, v in payload.items() if k not in names}, **changes)


def rows(world, owner="solo"):
    return [(row["sequence"] + 1, row["page"], row["seconds"]) for row in world.rows(owner)]


def balanced(world):
    sheet = balance(gather(world.lake, world.cloud, "visits"))
    return sheet.balanced, sheet.rows[0].redelivered


@pytest.fixture
def world(worlds):
    return worlds(STRICT)


def test_what_a_fix_lets_pass_becomes_rows_once_with_its_own_identity(world):
    refused = without(world, 1, "seconds")
    world.deliver("a", [refused, without(world, 2), without(world, 3, "page"), b"{bad"])
    world.ingest()
    assert rows(world) == [(2, "/2", 2)]
    fixed = relaxed(world, "seconds")
    report = replayed(fixed)
    assert (report.found, dict(report.replayed), dict(report.stay)) == (2, {"solo": 1}, {"missing_field": 1})
    (uri,) = report.objects
    assert "/processed/visits/tenant=solo/year=2013/month=01/day=01/replay-" in uri
    done = fixed.ingest()
    assert done.totals == {"solo": Counts(records=1, ingested=1)}
    assert rows(fixed) == [(1, "/1", None), (2, "/2", 2)]
    row = fixed.rows("solo")[0]
    assert (row["event_id"], row["producer_id"], row["_object"]) == (refused["event_id"], "solo-phone", uri)
    assert balanced(fixed) == (True, 1)


def test_an_event_id_that_another_tenants_event_has_keeps_nobodys_record_back(worlds):
    shared = worlds(STRICT, pool=True)
    shared.deliver("a", [without(shared, 1, tenant="ann")], "ann")
    shared.deliver("b", [without(shared, 1, "seconds", tenant="bob")], "bob")
    shared.ingest()
    fixed = relaxed(shared, "seconds")
    report = replayed(fixed)
    assert (dict(report.replayed), report.already) == ({"bob": 1}, 0)
    fixed.ingest()
    assert (rows(fixed, "ann"), rows(fixed, "bob")) == ([(1, "/1", 1)], [(1, "/1", None)])


def test_a_second_replay_of_the_same_records_does_nothing(world):
    world.deliver("a", [without(world, 1, "seconds"), without(world, 2, "page")])
    world.ingest()
    fixed = relaxed(world, "seconds")
    assert replayed(fixed).total == 1
    before_ingest = replayed(fixed)
    assert (before_ingest.total, before_ingest.already) == (0, 1)
    fixed.ingest()
    after_ingest = replayed(fixed)
    assert (after_ingest.total, after_ingest.already) == (0, 1)
    assert fixed.ingest().batches == ()
    further = relaxed(world, "seconds", "page")
    assert dict(replayed(further).replayed) == {"solo": 1}
    further.ingest()
    assert rows(further) == [(1, "/1", None), (2, None, 2)]
    assert balanced(further) == (True, 2)


@pytest.mark.parametrize("step", ["object", "arrived", "noted"])
def test_a_replay_that_was_killed_and_is_started_again_writes_the_same_objects(world, step):
    world.deliver("a", [without(world, 1, "seconds"), without(world, 2, "seconds", event_time="2013-01-05T00:00:00Z")])
    world.ingest()
    fixed = relaxed(world, "seconds")

    with pytest.raises(Stop):
        replayed(fixed, after=stop_after(step))
    replayed(fixed)
    done = fixed.ingest(listed=True)
    assert done.totals == {"solo": Counts(records=2, ingested=2)}
    assert rows(fixed) == [(1, "/1", None), (2, "/2", None)]
    assert balanced(fixed) == (True, 2)


def test_what_firehose_refused_goes_round_too_if_it_can_be_read(world):
    good = json.dumps(without(world, 1)).encode()
    cut_short = json.dumps(without(world, 2)).encode()[:-4]
    pretty = json.dumps(without(world, 3), indent=1).encode()
    nobodys = json.dumps(without(world, 4, tenant="nobody", sequence=0)).encode()
    world.refuse("e.gz", [good, cut_short, pretty, nobodys])
    world.ingest()
    report = replayed(world, "DynamicPartitioning.MetadataExtractionFailed")
    assert dict(report.replayed) == {"solo": 2}
    assert dict(report.stay) == {"malformed_json": 1, "unknown_tenant": 1}
    world.ingest()
    assert rows(world) == [(1, "/1", 1), (3, "/3", 3)]
    assert balanced(world)[0]


def test_of_pooled_tenants_each_gets_its_own_and_one_may_be_asked_for(worlds):
    world = worlds(STRICT, pool=True)
    for tenant in ("ann", "bob"):
        world.deliver("a", [without(world, 1, "seconds", tenant=tenant)], tenant)
    strange = without(world, 2, tenant="bob")
    world.deliver("b", [strange], "ann")
    world.refuse("e.gz", [json.dumps(without(world, 3, tenant="bob")).encode()], "bob")
    world.ingest()
    fixed = relaxed(world, "seconds")
    assert dict(replayed(fixed, tenant="ann").replayed) == {"ann": 1}
    assert dict(replayed(fixed).replayed) == {"bob": 1}
    assert dict(replayed(fixed, "tenant_mismatch").replayed) == {"bob": 1}
    assert dict(replayed(fixed, "DynamicPartitioning.MetadataExtractionFailed").replayed) == {"bob": 1}
    fixed.ingest()
    assert rows(fixed, "ann") == [(1, "/1", None)]
    assert rows(fixed, "bob") == [(1, "/1", None), (2, "/2", 2), (3, "/3", 3)]
    assert balance(gather(fixed.lake, fixed.cloud, "visits")).balanced


def test_only_what_was_quarantined_since_and_nothing_in_a_dry_run(world):
    world.deliver("a", [without(world, 1, "seconds")])
    world.ingest(clock=lambda: datetime(2024, 5, 1, tzinfo=UTC))
    world.deliver("b", [without(world, 2, "seconds")])
    world.ingest(clock=lambda: datetime(2024, 5, 3, tzinfo=UTC))
    fixed = relaxed(world, "seconds")
    since = datetime(2024, 5, 2, tzinfo=UTC)
    told = replayed(fixed, since=since, dry_run=True)
    assert (told.found, told.total, told.objects) == (1, 1, [])
    assert fixed.ingest().batches == ()
    assert replayed(fixed, since=since).total == 1
    fixed.ingest()
    assert rows(fixed) == [(2, "/2", None)]


def test_an_erased_event_is_not_sent_round(world):
    world.deliver("a", [without(world, 1, "seconds", event_id="018f0000-0000-7000-8000-000000000077")])
    world.ingest()
    who = parse_subject(world.lake, "solo", ["page=/1"])
    erase.run(world.spark, world.lake, world.cloud, who, "e1")
    # the producer sends it again, and it is refused again
    world.deliver("b", [without(world, 1, "seconds", event_id="018f0000-0000-7000-8000-000000000077")])
    world.ingest()
    report = replayed(relaxed(world, "seconds"))
    assert (report.total, report.erased) == (0, 1)


def test_what_is_not_known_is_answered_with_what_is(world):
    world.deliver("a", [without(world, 1, "seconds")])
    world.ingest()
    with pytest.raises(TerminalError, match="reason: got 'mising_field', allowed are: missing_field; did you mean"):
        replayed(world, "mising_field")
    with pytest.raises(DeclarationError, match="tenant: got 'sola', allowed are: solo"):
        replayed(world, tenant="sola")
    with pytest.raises(DeclarationError, match="dataset: got 'visit', allowed are: visits"):
        replay.run(world.spark, world.lake, world.cloud, dataset="visit", reason="missing_field")
    assert replayed(world, "wrong_type").found == 0
