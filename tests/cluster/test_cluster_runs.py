"""Ingest and compaction as pods, on the events of a run on this machine: by schedule, by hand, two at once, failing."""

from __future__ import annotations

import json
import threading

import pytest

from tests.cluster_tools import until

EVENTS = 600
EWR, POOLED = "acme-runs-ewr", "acme-runs-pooled"
SCHEDULED = {"ingest": {"schedule": "@every 40s", "retries": 0}, "compact": {"schedule": None, "retries": 0}}
TENANTS = ("ewr", "jfk", "lga")


@pytest.fixture(scope="module")
def here(make_lake):
    """The same events in a lake whose jobs run on this machine, beside all that the cluster does meanwhile."""
    lake = make_lake("here")
    lake.push(EVENTS)
    printed = []

    def work():
        printed.extend(lake.done("run", job) for job in ("ingest", "compact"))

    thread = threading.Thread(target=work)
    thread.start()

    def finished():
        thread.join(300)
        assert len(printed) == 2
        return lake

    yield finished
    thread.join(300)


@pytest.fixture(scope="module")
def there(make_lake, operator, here):
    """A lake whose jobs run in the cluster, with events that none of them has seen."""
    lake = make_lake("runs", jobs=SCHEDULED)
    lake.push(EVENTS)
    return lake


@pytest.fixture(scope="module")
def ingested(there, cluster):
    """The dedicated tenant's events taken by the schedule, the pooled tenants' by two runs at once; the runs' names."""
    there.apply_manifests()
    there.suspend(POOLED, "ingest")
    submitted = [
        there.done("k8s", "submit", "ingest", "--owner", "pooled", "--no-follow", *there.pods).split()[-1]
        for _ in range(2)
    ]
    by_schedule = until(
        lambda: [one["metadata"]["name"] for one in cluster.get("sparkapplications", namespace=EWR)],
        300,
        "the schedule to fire",
    )
    there.suspend(EWR, "ingest")
    for name in submitted:
        cluster.wait_for_application(POOLED, name)
    for name in by_schedule:
        cluster.wait_for_application(EWR, name)
    return by_schedule, submitted


@pytest.fixture(scope="module")
def compacted(there, ingested):
    """The tables after a compaction, with what the command printed."""
    files = {tenant: there.files(tenant) for tenant in TENANTS}
    return files, there.run("run", "compact", "--on", "k8s", *there.pods)


def test_a_schedule_runs_its_job(ingested, there):
    by_schedule, _ = ingested
    assert by_schedule
    assert all(name.startswith("ingest-") for name in by_schedule)
    assert len(there.rows("ewr")) == expected_of("ewr").ingested


def test_of_two_runs_at_once_each_ends_well_and_every_event_is_taken_once(ingested, there, cluster):
    _, submitted = ingested
    assert len(set(submitted)) == 2
    for tenant in ("jfk", "lga"):
        ids = [row["event_id"] for row in there.rows(tenant)]
        assert len(ids) == len(set(ids)) == expected_of(tenant).ingested


def expected_of(tenant):
    from demo.flights import expected  # noqa: PLC0415 - pandas takes a second that a skipped run need not wait for

    return expected(tenant, EVENTS)


def test_compaction_runs_by_the_same_command_as_on_this_machine_and_its_log_is_streamed(compacted):
    _, done = compacted
    assert done.returncode == 0, done.stdout + done.stderr
    assert "compact: starting Spark" in done.stdout
    assert "COMPLETED" in done.stderr.upper()


def test_the_tables_hold_what_they_hold_after_a_run_on_this_machine(compacted, there, here):
    local = here()
    for tenant in TENANTS:
        rows = there.rows(tenant)
        assert rows == local.rows(tenant)
        assert len(rows) == expected_of(tenant).ingested


def test_compaction_left_no_more_files_than_it_does_on_this_machine(compacted, there, here):
    before, _ = compacted
    local = here()
    after = {tenant: there.files(tenant) for tenant in TENANTS}
    assert after == {tenant: local.files(tenant) for tenant in TENANTS}
    assert all(after[tenant] <= before[tenant] for tenant in TENANTS)


def test_the_audit_balances_and_equals_that_of_a_run_on_this_machine(compacted, there, here):
    sheet, status = there.audit()
    local, local_status = here().audit()
    assert (status, local_status) == (0, 0)
    assert sheet["balanced"] is True
    assert without_what_chance_decides(sheet) == without_what_chance_decides(local)


def without_what_chance_decides(sheet):
    """The sheet without names of databases, which tell the lakes apart."""
    return json.loads(json.dumps(sheet).replace("acme_ewr_runs", "").replace("acme_ewr_here", "")) | {"tables": None}


def test_an_ingest_with_nothing_new_says_so_and_exits_with_0(compacted, there):
    done = there.run("run", "ingest", "--on", "k8s", "--owner", "ewr", *there.pods)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ingest: nothing new" in done.stdout


def test_a_finding_of_the_job_is_the_commands_exit_status_1(compacted, there):
    there.cloud.glue.delete_table(DatabaseName=there.lake.names.database("jfk"), Name="flights")
    # an ingest with nothing new opens no table
    done = there.run("run", "compact", "--on", "k8s", "--owner", "pooled", *there.pods)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "flights: there is none; `lakehose apply` makes it" in done.stdout


def test_bad_input_to_the_job_is_the_commands_exit_status_2(compacted, there, cluster):
    found = cluster.get("configmap", "lake", EWR)
    text = found["data"]["lake.yaml"].replace("tier: dedicated", "tier: gold")
    patch = json.dumps({"data": {"lake.yaml": text}})
    cluster.kubectl("patch", "configmap", "lake", "-n", EWR, "--type=merge", "-p", patch)
    done = there.run("run", "ingest", "--on", "k8s", "--owner", "ewr", *there.pods)
    assert done.returncode == 2, done.stdout + done.stderr
    assert "tenants.ewr.tier" in done.stdout
    assert "'gold'" in done.stdout
