"""The DAGs as Airflow runs them: `dag.test()`, real jobs, a real lake."""

from __future__ import annotations

import json
import sqlite3

import boto3
import pytest

pytest.importorskip("airflow", reason="needs Airflow's own environment: `make airflow-test`")


@pytest.fixture
def alerts(endpoint, request):
    """ARN of a topic, and a function that answers what it has sent out so far."""
    given = {"endpoint_url": endpoint, "region_name": "us-east-1"}
    keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test"}
    sns, sqs = boto3.client("sns", **given, **keys), boto3.client("sqs", **given, **keys)
    topic = sns.create_topic(Name=request.node.name[:80])["TopicArn"]
    queue = sqs.create_queue(QueueName=request.node.name[:80])["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=queue, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)

    def received():
        found = sqs.receive_message(QueueUrl=queue, MaxNumberOfMessages=10, WaitTimeSeconds=2).get("Messages", [])
        return [json.loads(one["Body"]) for one in found]

    return topic, received


def visits(*pages):
    return [{"page": page, "seconds": number} for number, page in enumerate(pages)]


def test_ingest_and_compaction_and_models_run_to_success_and_the_rows_are_there(
    world, run_dag, airflow_database, tmp_path
):
    models = tmp_path / "models"
    models.mkdir()
    pages = "CREATE TABLE pages AS SELECT page, count(*) AS visits FROM visits GROUP BY page"
    (models / "10_pages.sql").write_text(pages)
    world.send("acme", visits("/"), tmp_path / "acme")
    # two deliveries each, so that there is something to compact
    for number in range(2):
        world.send("ann", visits("/", "/about", "/"), tmp_path / "ann")
        world.send("bob", visits(f"/{number}"), tmp_path / "bob")
        world.flush()
        if number == 0:
            done = world.command("run", "ingest", "--owner", "pooled")
            assert done.returncode == 0, done.stderr

    run = run_dag("airflow-test-pooled-compact", **world.environment(), LAKEHOSE_MODELS=str(models))

    assert run.exit_code == 0, run.output
    assert run.states == {
        "ingest": ("success", 1),
        "compact": ("success", 1),
        "models.10_pages[0]": ("success", 1),
        "models.10_pages[1]": ("success", 1),
    }
    assert "batch visits/events/pooled/ann/2: 1 objects, 3 ingested" in run.output
    # of every delivery, whatever compaction made of its files
    assert world.query("ann", "SELECT page, seconds FROM visits ORDER BY 2, 1") == [
        *["/,0"] * 2,
        *["/about,1"] * 2,
        *["/,2"] * 2,
    ]
    count = "SELECT page, visits FROM pages ORDER BY page"
    assert world.query("ann", count) == ["/,4", "/about,2"]
    assert world.query("bob", count) == ["/0,1", "/1,1"]
    assert world.query("ann", 'SELECT count(*) FROM "visits$files"') == ["1"]
    # another workspace's work
    assert world.query("acme", "SELECT count(*) FROM visits") == ["0"]
    with sqlite3.connect(airflow_database) as database:
        updated = database.execute(
            "SELECT asset.name FROM asset_event JOIN asset ON asset.id = asset_event.asset_id"
        ).fetchall()
    assert updated == [("airflow_pooled_test.visits",)]


def test_a_job_that_fails_is_tried_again_and_then_told_once(world, run_dag, alerts):
    topic, received = alerts
    run = run_dag(
        "airflow-test-acme-compact",
        **world.environment(),
        # the jobs look for AWS where nothing is; Airflow itself goes on reaching it
        LAKEHOSE_ENDPOINT="http://127.0.0.1:9",
        LAKEHOSE_ALERTS_TOPIC=topic,
    )
    assert run.exit_code != 0
    assert run.states == {"ingest": ("failed", 2), "compact": ("upstream_failed", 0)}
    (told,) = received()
    assert told["Subject"] == "failed: airflow-test-acme-compact.ingest"
    assert "after 2 tries" in told["Message"]
    assert "exit status 1: lakehose: Could not connect to the endpoint URL" in told["Message"]
    assert received() == []


def test_bad_input_is_told_at_once_and_not_tried_again(world, run_dag, alerts):
    topic, received = alerts
    settings = {**world.environment(), "LAKEHOSE_ALERTS_TOPIC": topic, "LAKEHOSE_BIN": "/nowhere/lakehose"}
    run = run_dag("airflow-test-acme-ingest", **settings)
    assert run.exit_code != 0
    assert run.states == {"ingest": ("failed", 1)}
    (told,) = received()
    assert "set LAKEHOSE_BIN to the lakehose command" in told["Message"]
