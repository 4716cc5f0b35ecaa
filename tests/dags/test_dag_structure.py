from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

pytest.importorskip("airflow", reason="needs Airflow's own environment: `make airflow-test`")

from airflow.dag_processing.dagbag import DagBag
from airflow.providers.cncf.kubernetes.operators.custom_object_launcher import CustomObjectLauncher
from airflow.serialization.serialized_objects import DagSerialization

from dags.assets import table
from k8s.applications import application
from lake.declaration import read_lake

ROOT = Path(__file__).parents[2]


def test_each_workspace_has_a_dag_for_each_schedule(bag):
    assert sorted(bag()) == [
        "airflow-test-acme-compact",
        "airflow-test-acme-ingest",
        "airflow-test-acme-maintain",
        "airflow-test-pooled-compact",
        "airflow-test-pooled-ingest",
        "airflow-test-pooled-maintain",
    ]


def test_the_projects_own_lake_makes_dags(airflow_database, monkeypatch):
    monkeypatch.setenv("LAKEHOSE_LAKE", str(ROOT / "lake.yaml"))
    found = DagBag(ROOT / "dags")
    assert found.import_errors == {}
    assert "acme-demo-ewr-ingest" in found.dags


def test_only_the_file_that_makes_dags_is_parsed(bag, airflow_database):
    bag()
    found = DagBag(ROOT / "dags")
    assert [Path(one.file).name for one in found.dagbag_stats] == ["pipelines.py"]


def test_compaction_comes_after_ingest(bag):
    dag = bag()["airflow-test-acme-compact"]
    assert [one.task_id for one in dag.topological_sort()] == ["ingest", "compact"]
    assert dag.get_task("compact").upstream_task_ids == {"ingest"}


def test_the_schedules_are_the_declared_ones(bag):
    dags = bag(("17 * * * *", "@every 90s"))
    assert (dags["airflow-test-acme-ingest"].timetable.expression) == "*/5 * * * *"
    assert str(dags["airflow-test-acme-ingest"].timetable.timezone) == "UTC"
    assert dags["airflow-test-acme-compact"].timetable.delta == timedelta(seconds=90)


def test_a_dag_runs_once_at_a_time_and_does_not_catch_up(bag):
    for dag in bag().values():
        assert (dag.max_active_runs, dag.catchup) == (1, False)
        assert dag.doc_md
    assert {*bag()["airflow-test-pooled-ingest"].tags} == {"lakehose", "owner:pooled", "tier:pooled"}


def test_retries_and_time_limits_are_the_declared_ones(bag):
    task = bag()["airflow-test-acme-ingest"].get_task("ingest")
    assert task.retries == 1
    assert task.retry_delay == timedelta(seconds=1)
    assert task.retry_exponential_backoff == 2.0
    assert task.execution_timeout == timedelta(minutes=10)


@pytest.mark.parametrize("owner", ["acme", "pooled"])
@pytest.mark.parametrize("job", ["ingest", "compact"])
def test_what_is_submitted_is_what_the_manifests_say_but_for_the_retries(bag, declare, owner, job):
    task = bag(LAKEHOSE_ENDPOINT="http://10.0.0.1:4566")[f"airflow-test-{owner}-compact"].get_task(job)
    lake = read_lake(declare())
    once = replace(lake.job(job), retries=0)
    given = {"run_id": "airflow", "endpoint": "http://10.0.0.1:4566"}
    wanted = application(lake, once, lake.workspace(owner), **given).to_dict()
    assert wanted["spec"]["restartPolicy"] == {"type": "Never"}

    task.resolve_template_files()
    task.render_template_fields({})
    sent = CustomObjectLauncher("a-name", task.namespace, None, None, task.template_body).body
    assert sent == {**wanted, "metadata": {**wanted["metadata"], "name": "a-name"}}
    assert (task.namespace, task.name) == (f"airflow-test-{owner}", f"{job}-airflow")


def test_a_run_leaves_the_worker_while_it_waits_and_is_deleted_behind_itself(bag):
    task = bag()["airflow-test-acme-ingest"].get_task("ingest")
    assert task.deferrable
    assert task.reattach_on_restart
    assert task.delete_on_termination
    assert task.random_name_suffix
    assert task.kubernetes_conn_id == "kubernetes_default"


def test_a_job_that_may_do_without_executors_is_taken_by_the_provider_too(bag):
    changed = ("timeout_minutes: 10", "executors: {least: 0, most: 3}")
    task = bag(changed)["airflow-test-acme-ingest"].get_task("ingest")
    sent = CustomObjectLauncher("a-name", task.namespace, None, None, task.template_body).body
    conf = sent["spec"]["sparkConf"]
    found = {name.rpartition(".")[2]: value for name, value in conf.items() if "dynamicAllocation.m" in name}
    assert found == {"minExecutors": "0", "maxExecutors": "3"}
    assert conf["spark.dynamicAllocation.enabled"] == "true"


def test_the_local_runner_runs_the_products_own_command(bag, tmp_path):
    dags = bag(LAKEHOSE_RUNNER="local", LAKEHOSE_BIN="/opt/bin/lakehose", LAKEHOSE_ENDPOINT="http://127.0.0.1:4566")
    task = dags["airflow-test-pooled-compact"].get_task("compact")
    lake = str(tmp_path / "lake.yaml")
    wanted = ["/opt/bin/lakehose", "--lake", lake, "--endpoint", "http://127.0.0.1:4566"]
    assert task.command == [*wanted, "run", "compact", "--owner", "pooled"]


def test_ingest_updates_the_asset_that_other_dags_are_scheduled_on(bag, declare):
    dags = bag()
    lake = read_lake(declare())
    assert dags["airflow-test-acme-ingest"].get_task("ingest").outlets == [table(lake, "visits", "acme")]
    assert dags["airflow-test-pooled-ingest"].get_task("ingest").outlets == [table(lake, "visits", "bob")]
    assert dags["airflow-test-acme-compact"].get_task("compact").outlets == []
    assert table(lake, "visits", "acme").name == "airflow_acme_test.visits"
    assert table(lake, "visits", "acme").uri == "x-lakehose://airflow_acme_test/visits"


def test_parsing_again_makes_the_same_dags(bag):
    first, second = bag(), bag()
    assert {name: DagSerialization.to_dict(one) for name, one in first.items()} == {
        name: DagSerialization.to_dict(one) for name, one in second.items()
    }


def test_a_task_that_runs_makes_only_its_own_dag(bag, monkeypatch):
    monkeypatch.setenv("_AIRFLOW_PARSING_CONTEXT_DAG_ID", "airflow-test-acme-ingest")
    assert list(bag()) == ["airflow-test-acme-ingest"]


def test_without_a_topic_nobody_is_told_and_with_one_the_topic_is(bag):
    assert bag()["airflow-test-acme-ingest"].get_task("ingest").on_failure_callback == []
    topic = "arn:aws:sns:eu-west-1:123456789012:lake-alerts"
    dags = bag(LAKEHOSE_ALERTS_TOPIC=topic)
    (told,) = dags["airflow-test-acme-ingest"].get_task("ingest").on_failure_callback
    assert (told.target_arn, told.region_name) == (topic, "eu-west-1")


def test_models_come_in_order_after_the_job_that_is_named_and_nowhere_else(bag, tmp_path):
    folder = tmp_path / "models"
    folder.mkdir()
    (folder / "20_month.sql").write_text("SELECT 1")
    (folder / "10_day.sql").write_text("SELECT 1")
    dags = bag(LAKEHOSE_MODELS=str(folder))
    dag = dags["airflow-test-acme-compact"]
    assert dag.get_task("models.10_day").upstream_task_ids == {"compact"}
    assert dag.get_task("models.20_month").upstream_task_ids == {"models.10_day"}
    assert dag.get_task("models.10_day").deferrable
    assert dag.get_task("models.10_day").database == "airflow_acme_test"
    assert dags["airflow-test-acme-ingest"].task_ids == ["ingest"]
    assert dags["airflow-test-pooled-compact"].get_task("models.10_day").is_mapped

    dags = bag(LAKEHOSE_MODELS=str(folder), LAKEHOSE_MODELS_AFTER="ingest")
    assert dags["airflow-test-acme-ingest"].get_task("models.10_day").upstream_task_ids == {"ingest"}
    assert dags["airflow-test-acme-compact"].task_ids == ["ingest", "compact"]


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"LAKEHOSE_RUNNER": "docker"}, "LAKEHOSE_RUNNER: got 'docker', allowed are: k8s, local"),
        ({"LAKEHOSE_LAKE": "/nowhere/lake.yaml"}, "/nowhere/lake.yaml: no such file"),
        (
            {"LAKEHOSE_MODELS": str(ROOT / "dags"), "LAKEHOSE_MODELS_AFTER": "compakt"},
            "job: got 'compakt', allowed are: compact, ingest, maintain; did you mean 'compact'?",
        ),
        ({"LAKEHOSE_MODELS": str(ROOT / "dags")}, "no *.sql in it"),
    ],
)
def test_what_is_wrong_is_an_import_error_that_says_so(airflow_database, declare, monkeypatch, settings, sentence):
    for name, value in {"LAKEHOSE_LAKE": str(declare()), **settings}.items():
        monkeypatch.setenv(name, value)
    found = DagBag(ROOT / "dags")
    assert found.dags == {}
    (error,) = found.import_errors.values()
    assert sentence in error


_PARSE = """
import sys, time
from airflow.dag_processing.dagbag import DagBag

reached = []
sys.addaudithook(lambda event, given: reached.append((event, given)) if event == "socket.connect" else None)
started = time.process_time()
bag = DagBag(sys.argv[1])
seconds = time.process_time() - started
assert not bag.import_errors, bag.import_errors
assert len(bag.dags) == 6, bag.dags
assert not reached, reached
assert not {"pyspark", "pyarrow", "pyiceberg"} & set(sys.modules)
print(seconds)
"""


def test_parsing_reads_files_only_and_takes_a_moment(airflow_database, declare, monkeypatch):
    monkeypatch.setenv("LAKEHOSE_LAKE", str(declare()))
    command = [sys.executable, "-c", _PARSE, str(ROOT / "dags")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd="/")
    assert done.returncode == 0, done.stdout + done.stderr
    # of processor time, with all that has to be imported; Airflow gives up on a file after 30 s
    assert float(done.stdout.splitlines()[-1]) < 5
