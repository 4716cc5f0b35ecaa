from __future__ import annotations

from pathlib import Path

import pytest

from dags.settings import Runner, Settings
from lake.errors import DeclarationError

ROOT = Path(__file__).parents[2]


def test_without_any_variable_the_lake_beside_the_dags_runs_on_kubernetes():
    assert Settings.from_environment({}) == Settings(
        lake=ROOT / "lake.yaml",
        runner=Runner.K8S,
        command=ROOT / ".venv/bin/lakehose",
        endpoint=None,
        kubernetes_connection="kubernetes_default",
        alerts_topic=None,
        alerts_region=None,
        models=None,
        models_after="compact",
    )


def test_every_variable_is_read(tmp_path):
    found = Settings.from_environment(
        {
            "LAKEHOSE_LAKE": "/etc/lakehose/lake.yaml",
            "LAKEHOSE_RUNNER": "local",
            "LAKEHOSE_BIN": "/opt/lakehose/bin/lakehose",
            "LAKEHOSE_ENDPOINT": "http://127.0.0.1:4566",
            "LAKEHOSE_KUBERNETES_CONN": "spark_cluster",
            "LAKEHOSE_ALERTS_TOPIC": "arn:aws:sns:eu-west-1:123456789012:lake-alerts",
            "LAKEHOSE_MODELS": str(tmp_path),
            "LAKEHOSE_MODELS_AFTER": "ingest",
        }
    )
    assert found == Settings(
        lake=Path("/etc/lakehose/lake.yaml"),
        runner=Runner.LOCAL,
        command=Path("/opt/lakehose/bin/lakehose"),
        endpoint="http://127.0.0.1:4566",
        kubernetes_connection="spark_cluster",
        alerts_topic="arn:aws:sns:eu-west-1:123456789012:lake-alerts",
        alerts_region="eu-west-1",
        models=tmp_path,
        models_after="ingest",
    )


def test_an_empty_variable_counts_as_not_set():
    assert Settings.from_environment({"LAKEHOSE_RUNNER": "", "LAKEHOSE_MODELS": " "}) == Settings()


@pytest.mark.parametrize(
    ("variable", "value", "sentence"),
    [
        ("LAKEHOSE_RUNNER", "kubernetes", "LAKEHOSE_RUNNER: got 'kubernetes', allowed are: k8s, local"),
        ("LAKEHOSE_ALERTS_TOPIC", "lake-alerts", "LAKEHOSE_ALERTS_TOPIC: got 'lake-alerts', expected the ARN"),
        ("LAKEHOSE_ALERTS_TOPIC", "arn:aws:sqs:us-east-1:123456789012:q", "expected the ARN of an SNS topic"),
        ("LAKEHOSE_MODELS", "/nowhere", "LAKEHOSE_MODELS: /nowhere: there is no such folder"),
    ],
)
def test_a_wrong_value_is_named_with_its_variable(variable, value, sentence):
    with pytest.raises(DeclarationError, match=sentence):
        Settings.from_environment({variable: value})
