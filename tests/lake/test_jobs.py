"""Jobs, schedules and Kubernetes in `lake.yaml`: defaults, overrides, and sentences for what isn't allowed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lake.declaration import Tier, read_lake
from lake.errors import DeclarationError
from lake.jobs import Executors, PodSize, Schedule

ROOT = Path(__file__).parents[2]


@pytest.fixture
def read(tmp_path):
    def make(extra=""):
        shutil.copytree(ROOT / "contracts", tmp_path / "contracts", dirs_exist_ok=True)
        text = (ROOT / "lake.yaml").read_text()
        (tmp_path / "lake.yaml").write_text(text[: text.index("jobs:")] + extra)
        return read_lake(tmp_path / "lake.yaml")

    return make


def refusal(read, extra):
    with pytest.raises(DeclarationError) as error:
        read(extra)
    return str(error.value).split("lake.yaml: ", 1)[1]


def test_the_pipeline_is_ingest_then_compact_then_maintain(read):
    lake = read()
    assert [(job.name, job.after, str(job.schedule)) for job in lake.pipeline()] == [
        ("ingest", (), "*/5 * * * *"),
        ("compact", ("ingest",), "17 * * * *"),
        ("maintain", ("compact",), "41 3 * * *"),
    ]


def test_what_is_declared_replaces_its_default_and_nothing_else(read):
    job = read("jobs:\n  ingest: {retries: 0, driver: {memory_mib: 700}, executors: {most: 2}}\n").job("ingest")
    assert (job.retries, job.retry_seconds) == (0, 30)
    assert job.driver == PodSize(1, 700)
    assert job.executor == PodSize(2, 4096)
    assert job.executors == Executors(1, 2)


def test_an_unknown_job_is_answered_with_the_known_ones(read):
    with pytest.raises(
        DeclarationError, match=r"job: got 'ingst', allowed are: compact, ingest, maintain; did you mean 'ingest'"
    ):
        read().job("ingst")


def test_an_unknown_key_deep_in_a_job_is_refused_by_its_path(read):
    said = refusal(read, "jobs:\n  ingest: {driver: {memory: 700}}\n")
    assert said == (
        "jobs.ingest.driver.memory: unknown key: got 'memory', allowed are: cores, cpu, memory_mib; "
        "did you mean 'memory_mib'?"
    )


def test_an_unknown_key_behind_an_optional_one_is_refused_by_its_path(read):
    said = refusal(read, "kubernetes:\n  tiers:\n    pooled: {prio: 1, cpu: 1, memory_gib: 1, pods: 2, priority: 1}\n")
    assert said.startswith("kubernetes.tiers.pooled.prio: unknown key: got 'prio', allowed are: cpu, memory_gib, pods")


def test_fewer_executors_at_most_than_at_least_are_refused(read):
    said = refusal(read, "jobs:\n  ingest: {executors: {least: 3, most: 2}}\n")
    assert said.startswith("jobs.ingest.executors: least (3) is more than most (2); got")


@pytest.mark.parametrize("text", ["*/5 * * * *", "0 3 * * 1-5", "0,30 8-18/2 1 JAN MON", "@hourly", "@every 90s"])
def test_a_schedule_is_taken(text):
    assert str(Schedule.parse(text)) == text


@pytest.mark.parametrize("text", ["", "* * * *", "* * * * * *", "@often", "@every 5", "@every -5s", "five o'clock"])
def test_what_is_no_schedule_is_refused(text):
    with pytest.raises(ValueError, match="no schedule: give five fields of cron"):
        Schedule.parse(text)


def test_a_schedule_in_the_declaration_that_is_none_is_refused_with_what_is_allowed(read):
    said = refusal(read, "jobs:\n  ingest: {schedule: hourly}\n")
    assert said.startswith("jobs.ingest.schedule: no schedule: give five fields of cron")
    assert said.endswith("got 'hourly'")


def test_an_interval_has_seconds_and_a_cron_expression_has_none():
    assert (Schedule.parse("@every 2m").seconds, Schedule.parse("@every 2m").cron) == (120, None)
    assert (Schedule.parse("@daily").seconds, Schedule.parse("@daily").cron) == (None, "0 0 * * *")


def test_jobs_run_in_a_workspace_a_dedicated_tenant_and_one_for_the_pool(read):
    assert [(one.owner, one.tier, one.tenants, one.namespace) for one in read().workspaces()] == [
        ("ewr", Tier.DEDICATED, ("ewr",), "acme-demo-ewr"),
        ("pooled", Tier.POOLED, ("jfk", "lga"), "acme-demo-pooled"),
    ]


def test_the_workspace_of_a_pooled_tenant_is_the_pools(read):
    lake = read()
    assert lake.workspace("jfk") == lake.workspace("pooled")
    with pytest.raises(DeclarationError, match=r"owner: got 'jfkk', .*did you mean 'jfk'"):
        lake.workspace("jfkk")


def test_ingest_without_an_end_needs_a_schedule(read):
    assert read("jobs:\n  ingest: {every_seconds: 15}\n").job("ingest").every_seconds == 15
    with pytest.raises(DeclarationError, match=r"jobs\.ingest: .*every_seconds needs a schedule"):
        read("jobs:\n  ingest: {every_seconds: 15, schedule: null}\n")
    with pytest.raises(DeclarationError, match=r"jobs\.compact\.every_seconds: unknown key"):
        read("jobs:\n  compact: {every_seconds: 15}\n")
