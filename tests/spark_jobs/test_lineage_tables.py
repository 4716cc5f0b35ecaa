"""What jobs that work at whole tables tell of them; needs no Spark."""

from datetime import UTC, datetime

from lake.contract import Contract, Field, Primitive
from lake.declaration import Buffering, Dataset, Lake, Tenant, Tier
from lake.lineage_log import LineageLog
from lake.provision import provision_storage
from spark_jobs.table_lineage import tell_tables

STARTED = datetime(2026, 1, 1, tzinfo=UTC)


def made(company):
    contract = Contract("visits", "1.0.0", (Field("page", Primitive("string")),), (), ())
    tenants = (Tenant("solo", Tier.DEDICATED), Tenant("ann", Tier.POOLED))
    return Lake(company, "test", "us-east-1", tenants, (Dataset("visits", contract, Buffering()),))


def test_a_job_tells_of_each_table_it_changed_and_the_quarantine_is_left_to_batches(cloud):
    lake, said = made("tables"), []
    for _ in provision_storage(lake, cloud):
        pass
    names = {owner: lake.names.database(owner) for owner in lake.owners()}
    changed = {
        f"{names['solo']}.visits": {"files_before": 9, "files_after": 1},
        f"{names['ann']}.visits": {"files_before": 5, "files_after": 2},
        f"{names['pooled']}.quarantine": {"files_before": 2, "files_after": 1},
    }
    tell_tables(lake, cloud, "compact", changed, STARTED, say=said.append)
    log = LineageLog(cloud.dynamodb, lake.names.manifest_table())
    events = [one.event for one in log.events("solo", "visits")]
    assert [(one["eventType"], one["job"]["name"]) for one in events] == [
        ("COMPLETE", "compact.visits.solo"),
        ("START", "compact.visits.solo"),
    ]
    assert events[0]["run"]["facets"]["lakehose"]["facts"] == {"files_before": 9, "files_after": 1}
    (source,), (output,) = events[0]["inputs"], events[0]["outputs"]
    assert (source["name"], output["name"]) == ("analytics-ready/visits", "analytics-ready/visits")
    assert events[1]["eventTime"] == "2026-01-01T00:00:00.000Z"
    assert len(list(log.events("ann", "visits"))) == 2
    assert (list(log.events("pooled", "quarantine")), said) == ([], [])


def test_a_manifest_that_cannot_be_written_fails_no_job(cloud):
    lake, said = made("nomanifest"), []
    name = lake.names.database("solo")
    tell_tables(lake, cloud, "compact", {f"{name}.visits": {"files": 1}}, STARTED, say=said.append)
    assert len(said) == 1
    assert said[0].startswith("lineage: what compact did can't be kept: ")
