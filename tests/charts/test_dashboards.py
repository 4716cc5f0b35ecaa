"""Dashboards and alerts: what they ask for is there to be asked for."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
import urllib.request

import pytest
import yaml

from charts.values import chart_values
from k8s.applications import application
from lake.declaration import read_lake
from tests.charts.conftest import CHART
from tests.firehose.conftest import Bucket, running

DASHBOARDS = sorted((CHART / "dashboards").glob("*.json"))
# of kube-state-metrics, the kubelet and the container runtime, as their own pages list them
CLUSTER = {
    "container_cpu_usage_seconds_total",
    "container_memory_working_set_bytes",
    "container_network_receive_bytes_total",
    "container_network_transmit_bytes_total",
    "kube_namespace_created",
    "kube_pod_completion_time",
    "kube_pod_container_resource_limits",
    "kube_pod_container_status_restarts_total",
    "kube_pod_container_status_terminated_reason",
    "kube_pod_info",
    "kube_pod_start_time",
    "kube_pod_status_phase",
    "kube_pod_status_unschedulable",
    "kube_resourcequota",
    "kube_statefulset_replicas",
    "kube_statefulset_status_replicas_ready",
    "kubelet_volume_stats_available_bytes",
    "kubelet_volume_stats_capacity_bytes",
    "kubelet_volume_stats_used_bytes",
}
# of the Spark Operator 2.5.2, pkg/common/metrics.go
OPERATOR = {"spark_application_failed_submission_count", "spark_application_submit_count"}
METRIC = re.compile(r"\b((?:kube|kubelet|container|spark|metrics|firehose)_\w+)\b")
SCRAPE = """
import json, sys, time, urllib.request
from lake.clients import Cloud
from spark_jobs.session import create_session

conf = json.loads(sys.argv[1])
# a driver of its own: no executors to be allocated
conf = {key: value for key, value in conf.items() if "metrics" in key.lower() or "prometheus" in key}
conf |= {"spark.ui.enabled": "true", "spark.ui.port": "0"}
spark = create_session(Cloud("us-east-1", "http://127.0.0.1:9"), app_name="scrape", cores=1, extra=conf)
spark.range(1000).selectExpr("sum(id)").collect()
url = spark.sparkContext.uiWebUrl.rpartition(":")[2]
for path in ("/metrics/prometheus/", "/metrics/executors/prometheus/"):
    with urllib.request.urlopen(f"http://127.0.0.1:{url}{path}") as answer:
        sys.stdout.write(answer.read().decode())
spark.stop()
"""


@pytest.fixture(scope="module")
def spark_metrics(tmp_path_factory):
    """Names of the metrics that a driver of ours serves, asked from a running one."""
    root = CHART.parents[1]
    lake = read_lake(root / "lake.yaml")
    run = application(lake, lake.pipeline()[0], lake.workspaces()[0], run_id="x")
    conf = json.dumps(run.to_dict()["spec"]["sparkConf"])
    done = subprocess.run(
        [sys.executable, "-c", SCRAPE, conf],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        cwd=tmp_path_factory.mktemp("spark"),
        env={**os.environ, "PYTHONPATH": str(root)},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return {line.partition("{")[0] for line in done.stdout.splitlines() if line}


@pytest.fixture(scope="module")
def firehose_metrics(tmp_path_factory):
    """Names of the metrics that a Firehose server serves, once it refused a record."""
    for make in running(tmp_path_factory.mktemp("firehose"), "http://127.0.0.1:9"):
        server = make()
        server.create("s", Bucket("nowhere", None).partitioned())
        server.batch("s", [b"no JSON"])
        deadline = time.monotonic() + 30
        while True:
            with urllib.request.urlopen(f"{server.url}/metrics", timeout=30) as answer:
                lines = answer.read().decode().splitlines()
            names = {re.split(r"[{ ]", line)[0] for line in lines if not line.startswith("#")}
            if "firehose_refused_records_total" in names:
                return names
            assert time.monotonic() < deadline
    raise AssertionError("no server ran")


def expressions(path):
    return [target["expr"] for panel in json.loads(path.read_text())["panels"] for target in panel["targets"]]


@pytest.fixture
def rules(template, declaration):
    path = declaration("rules", ewr="dedicated", jfk="pooled")
    values = chart_values(read_lake(path), path)
    values["monitoring"] = {"rules": {"enabled": True, "overdueMinutes": {"compact": 400}}}
    found = next(one for one in template(values) if one["kind"] == "PrometheusRule")
    return {
        (rule["alert"], rule["labels"].get("job")): rule for group in found["spec"]["groups"] for rule in group["rules"]
    }


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda one: one.stem)
def test_a_dashboard_has_what_grafana_needs_of_one(path):
    board = json.loads(path.read_text())
    assert board["uid"] == path.stem
    assert board["schemaVersion"] >= 36
    panels = board["panels"]
    assert len({one["id"] for one in panels}) == len(panels)
    taken = set()
    for one in panels:
        place = one["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, one["title"]
        taken |= cells
        assert one["datasource"]["uid"] == "${datasource}"
        assert one["description"]


def test_dashboards_ask_for_metrics_that_are_served(spark_metrics, firehose_metrics):
    assert len(spark_metrics) > 100
    asked = {name for path in DASHBOARDS for one in expressions(path) for name in METRIC.findall(one)}
    assert asked - CLUSTER - OPERATOR - spark_metrics - firehose_metrics == set()
    assert asked & spark_metrics
    assert asked & firehose_metrics


def test_alerts_ask_for_metrics_that_are_served(rules, firehose_metrics):
    asked = {name for rule in rules.values() for name in METRIC.findall(rule["expr"])}
    # a name of a label's value
    assert asked - CLUSTER - OPERATOR - firehose_metrics == set()
    assert asked & firehose_metrics


def test_every_alert_names_the_lakes_namespaces_or_the_servers(rules):
    for (name, _), rule in rules.items():
        places = set(re.findall(r'namespace=~?"([^"]+)"', rule["expr"]))
        assert places == {"lakehose-system"} if "Firehose" in name else {"acme-rules-ewr|acme-rules-pooled"}


def test_each_job_with_a_schedule_has_an_alert_of_its_own(rules):
    overdue = {job: rule["expr"] for (name, job), rule in rules.items() if name == "LakehoseJobOverdue"}
    assert overdue.keys() == {"ingest", "compact", "maintain"}
    assert "> 2100" in overdue["ingest"]
    # what is given wins over the schedule
    assert "> 24000" in overdue["compact"]


def test_a_job_without_an_end_is_overdue_when_no_driver_runs(template, declaration):
    path = declaration("endless", ewr="dedicated")
    raw = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump(raw | {"jobs": {"ingest": {"every_seconds": 15}}}))
    values = chart_values(read_lake(path), path) | {"monitoring": {"rules": {"enabled": True}}}
    found = next(one for one in template(values) if one["kind"] == "PrometheusRule")["spec"]["groups"]
    (rule,) = [
        one
        for group in found
        for one in group["rules"]
        if one["alert"] == "LakehoseJobOverdue" and one["labels"]["job"] == "ingest"
    ]
    assert 'max_over_time(kube_pod_status_phase{phase="Running", ' in rule["expr"]
    assert "[35m]" in rule["expr"]
    assert "Succeeded" not in rule["expr"]


def test_every_alert_has_words_for_the_one_who_is_woken(rules):
    for rule in rules.values():
        assert rule["labels"]["severity"] in {"warning", "critical"}
        assert rule["annotations"].keys() == {"summary", "description"}


def test_dashboards_are_config_maps_that_grafanas_sidecar_finds(template):
    maps = [one for one in template({"monitoring": {"dashboards": {"enabled": True}}}) if one["kind"] == "ConfigMap"]
    assert {one["metadata"]["name"] for one in maps} == {"lakehose-jobs-dashboard", "lakehose-firehose-dashboard"}
    for one in maps:
        assert one["metadata"]["labels"]["grafana_dashboard"] == "1"
        ((name, text),) = one["data"].items()
        assert json.loads(text) == json.loads((CHART / "dashboards" / name).read_text())


def test_firehose_servers_are_scraped_at_their_port_by_what_their_pods_are_labelled(template):
    made = template({"monitoring": {"podMonitors": {"enabled": True, "interval": "7s"}}})
    (monitor,) = [one for one in made if one["kind"] == "PodMonitor" and one["metadata"]["name"] == "lakehose-firehose"]
    (server,) = [one for one in made if one["kind"] == "StatefulSet"]
    pod = server["spec"]["template"]
    assert monitor["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    assert endpoint == {"port": "http", "path": "/metrics", "interval": "7s"}
    assert "http" in {port["name"] for one in pod["spec"]["containers"] for port in one["ports"]}
    without = template({"monitoring": {"podMonitors": {"enabled": True}}, "firehose": {"enabled": False}})
    assert "lakehose-firehose" not in {one["metadata"]["name"] for one in without}


def test_drivers_of_all_the_lakes_namespaces_are_scraped(template, declaration):
    path = declaration("scraped", ewr="dedicated", jfk="pooled")
    values = chart_values(read_lake(path), path) | {"monitoring": {"podMonitors": {"enabled": True}}}
    monitor = next(one for one in template(values) if one["kind"] == "PodMonitor")["spec"]
    assert monitor["namespaceSelector"] == {"matchNames": ["acme-scraped-ewr", "acme-scraped-pooled"]}
    run = next(one for one in values["lake"]["objects"] if one["kind"] == "ScheduledSparkApplication")
    labels = run["spec"]["template"]["driver"]["labels"] | {"spark-role": "driver"}
    assert monitor["selector"]["matchLabels"].items() <= labels.items()
