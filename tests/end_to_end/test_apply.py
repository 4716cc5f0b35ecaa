"""Applying a lake through the command, to an endpoint of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lake.clients import Cloud

ROOT = Path(__file__).parents[2]


def lakehose(*arguments):
    environment = {name: value for name, value in os.environ.items() if name != "AWS_ENDPOINT_URL"}
    command = [sys.executable, "-m", "lakehose", *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=180)


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory, another_free_port):
    state = tmp_path_factory.mktemp("apply") / "state"
    done = lakehose("local", "up", "--port", str(another_free_port), "--state", str(state))
    assert done.returncode == 0, done.stderr
    yield f"http://127.0.0.1:{another_free_port}"
    lakehose("local", "reset", "--state", str(state))


@pytest.fixture(scope="module")
def applied(endpoint):
    done = lakehose("--endpoint", endpoint, "apply")
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def declare(tmp_path):
    shutil.copytree(ROOT / "contracts", tmp_path / "contracts")

    def write(old, new):
        text = (ROOT / "lake.yaml").read_text()
        assert old in text
        (tmp_path / "lake.yaml").write_text(text.replace(old, new))
        return str(tmp_path / "lake.yaml")

    return write


def test_the_first_time_everything_is_made_and_the_quota_is_raised(applied, endpoint):
    assert applied.splitlines()[-1] == "28 created, 1 updated, 0 unchanged"
    assert "updated   quota     1000 active partitions a stream" in applied
    cloud = Cloud("us-east-1", endpoint)
    assert cloud.firehose.list_delivery_streams()["DeliveryStreamNames"] == [
        "acme-demo-flights-ewr",
        "acme-demo-flights-pooled",
    ]
    quotas = cloud.quotas.list_service_quotas(ServiceCode="firehose")["Quotas"]
    assert [(one["QuotaName"], one["Value"]) for one in quotas] == [("Dynamic partitions", 1000.0)]


def test_the_second_time_nothing_changes(applied, endpoint):
    done = lakehose("--endpoint", endpoint, "apply")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "0 created, 0 updated, 29 unchanged"


def test_a_role_that_was_widened_by_hand_is_narrowed_again(applied, endpoint):
    cloud = Cloud("us-east-1", endpoint)
    role = {"RoleName": "acme-demo-flights-ewr-firehose", "PolicyName": "deliver"}
    wide = '{"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]}'
    cloud.iam.put_role_policy(**role, PolicyDocument=wide)
    done = lakehose("--endpoint", endpoint, "apply")
    assert done.stdout.splitlines()[-1] == "0 created, 1 updated, 28 unchanged"
    actions = [one["Action"] for one in cloud.iam.get_role_policy(**role)["PolicyDocument"]["Statement"]]
    assert "s3:*" not in actions


def test_a_stream_that_runs_differently_is_updated_in_place(applied, endpoint, declare):
    firehose = Cloud("us-east-1", endpoint).firehose
    named = {"DeliveryStreamName": "acme-demo-flights-ewr"}
    before = firehose.describe_delivery_stream(**named)["DeliveryStreamDescription"]
    path = declare("size_mib: 64", "size_mib: 100")
    done = lakehose("--lake", path, "--endpoint", endpoint, "apply")
    assert done.returncode == 0, done.stderr
    updated = [line.split() for line in done.stdout.splitlines() if line.startswith("updated")]
    assert ["updated", "stream", "acme-demo-flights-ewr"] in updated
    after = firehose.describe_delivery_stream(**named)["DeliveryStreamDescription"]
    (was,), (made,) = before["Destinations"], after["Destinations"]
    hints = {
        "SizeInMBs": 100,
        "IntervalInSeconds": was["ExtendedS3DestinationDescription"]["BufferingHints"]["IntervalInSeconds"],
    }
    assert made["ExtendedS3DestinationDescription"] == was["ExtendedS3DestinationDescription"] | {
        "BufferingHints": hints
    }
    assert int(after["VersionId"]) == int(before["VersionId"]) + 1
    lakehose("--endpoint", endpoint, "apply")


def test_what_a_stream_can_not_become_is_said_and_nothing_is_changed(applied, endpoint):
    firehose = Cloud("us-east-1", endpoint).firehose
    named = {"DeliveryStreamName": "acme-demo-flights-ewr"}
    (running,) = firehose.describe_delivery_stream(**named)["DeliveryStreamDescription"]["Destinations"]
    there = running["ExtendedS3DestinationDescription"]
    firehose.delete_delivery_stream(**named)
    plain = {name: there[name] for name in ("RoleARN", "BucketARN")} | {"Prefix": "other/"}
    firehose.create_delivery_stream(**named, ExtendedS3DestinationConfiguration=plain)
    done = lakehose("--endpoint", endpoint, "apply")
    assert done.returncode == 1
    assert (
        "stream acme-demo-flights-ewr: what runs differs from the declaration in what can't be changed: " in done.stderr
    )
    assert "dynamic partitioning is switched on when a stream is created, or never" in done.stderr
    assert done.stderr.rstrip().endswith("delete the stream and apply again, or declare what runs")
    assert "Traceback" not in done.stderr
    (now,) = firehose.describe_delivery_stream(**named)["DeliveryStreamDescription"]["Destinations"]
    assert now["ExtendedS3DestinationDescription"]["Prefix"] == "other/"
    firehose.delete_delivery_stream(**named)
    assert lakehose("--endpoint", endpoint, "apply").returncode == 0


def test_a_tenant_that_joins_gets_what_it_needs_and_nothing_else_changes(applied, endpoint, declare):
    path = declare("  lga: {tier: pooled}", "  lga: {tier: pooled}\n  bos: {tier: pooled}")
    done = lakehose("--lake", path, "--endpoint", endpoint, "apply")
    assert done.returncode == 0, done.stderr
    made = [line.split(maxsplit=2)[1:] for line in done.stdout.splitlines() if line.startswith("created")]
    assert made == [
        ["key", "alias/acme-demo-bos"],
        ["bucket", "acme-bos-demo-datalake"],
        ["database", "acme_bos_demo"],
        ["table", "acme_bos_demo.flights"],
        ["table", "acme_bos_demo.quarantine"],
    ]


def test_an_audit_of_a_lake_without_events_balances(applied, endpoint):
    done = lakehose("--endpoint", endpoint, "audit")
    assert done.returncode == 0, done.stderr
    assert "flights: balanced: every record is accounted for" in done.stdout


def test_an_endpoint_that_is_away_is_a_sentence(another_free_port):
    done = lakehose("--endpoint", "http://127.0.0.1:9", "audit")
    assert done.returncode == 1
    assert "is the endpoint up? `lakehose local status`" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_credentials_and_endpoint_the_fix_is_named(tmp_path):
    environment = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}
    command = [sys.executable, "-m", "lakehose", "audit"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert done.stderr.startswith(
        "lakehose: no AWS credentials; configure them (`aws configure`), or give a local endpoint"
    )


def test_an_unknown_option_is_bad_input():
    done = lakehose("audit", "--datsaet", "flights")
    assert done.returncode == 2
    assert "No such option" in done.stderr
