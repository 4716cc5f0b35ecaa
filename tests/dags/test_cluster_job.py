from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

pytest.importorskip("airflow", reason="needs Airflow's own environment: `make airflow-test`")

from airflow.sdk.bases.operator import ExecutorSafeguard
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from kubernetes.client import (
    ApiException,
    V1ContainerState,
    V1ContainerStateTerminated,
    V1ContainerStatus,
    V1Pod,
    V1PodStatus,
)

CONNECTION = "AIRFLOW_CONN_KUBERNETES_DEFAULT"
KUBECONFIG_TEXT = "apiVersion: v1\nkind: Config\nclusters: []\n"


def connection(**extra):
    return json.dumps({"conn_type": "kubernetes", "extra": extra})


@pytest.fixture
def task(bag):
    return bag()["airflow-test-acme-ingest"].get_task("ingest")


def ended(code, container="spark-kubernetes-driver"):
    state = V1ContainerState(terminated=V1ContainerStateTerminated(exit_code=code))
    status = V1ContainerStatus(name=container, image="", image_id="", ready=False, restart_count=0, state=state)
    return V1Pod(status=V1PodStatus(container_statuses=[status]))


def test_the_exit_status_is_the_drivers(task):
    task.pod = ended(2)
    assert task._exit_code() == 2
    task.pod = ended(2, "a-sidecar")
    assert task._exit_code() is None
    task.pod = None
    assert task._exit_code() is None


@pytest.mark.parametrize("option", ["kube_config_path", "kube_config", "in_cluster"])
def test_a_connection_that_names_the_cluster_wins_over_the_environment(task, monkeypatch, tmp_path, option):
    (tmp_path / "config").write_text(KUBECONFIG_TEXT)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    monkeypatch.setenv(CONNECTION, connection(**{option: "given"}))
    task.convert_config_file_to_dict()
    assert task._config_dict is None


def test_without_such_a_connection_the_triggerer_gets_the_workers_kubeconfig(task, monkeypatch, tmp_path):
    (tmp_path / "config").write_text(KUBECONFIG_TEXT)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "config"))
    monkeypatch.setenv(CONNECTION, connection())
    task.convert_config_file_to_dict()
    assert task._config_dict == {"apiVersion": "v1", "kind": "Config", "clusters": []}


@pytest.mark.parametrize(
    ("status", "message", "kind", "sentence"),
    [
        (404, 'namespaces \\"airflow-test-acme\\" not found', AirflowFailException, "`lakehose k8s apply` makes it"),
        (503, "etcd is away", AirflowException, "try again"),
    ],
)
def test_what_the_cluster_refuses_becomes_a_sentence_and_is_tried_again_only_if_that_can_help(
    task, status, message, kind, sentence
):
    error = ApiException(status=status)
    error.body = f'{{"message": "{message}"}}'
    refused = task._refused(error)
    assert type(refused) is kind
    assert sentence in str(refused)
    error.body = "<html>a proxy's page</html>"
    assert "SparkApplication airflow-test-acme/ingest-airflow" in str(task._refused(error))


def test_a_namespace_that_is_missing_is_named_with_its_fix(task, monkeypatch):
    """Against the cluster of KUBECONFIG, in which nothing has to be but the Spark Operator's types."""
    path = os.environ.get("KUBECONFIG")
    if not path or not Path(path).exists():
        pytest.skip("needs a cluster: set KUBECONFIG")
    monkeypatch.setenv(CONNECTION, connection(kube_config_path=path))
    monkeypatch.setattr(ExecutorSafeguard, "test_mode", True)
    task.reattach_on_restart = False
    with pytest.raises(AirflowFailException, match="there is no namespace airflow-test-acme; `lakehose k8s apply`"):
        task.execute({})
