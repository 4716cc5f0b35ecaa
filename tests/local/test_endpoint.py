"""The local endpoint as a user meets it: the command, its processes, unmodified clients."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from lake.clients import Cloud
from tests.firehose.conftest import client

ROOT = Path(__file__).parents[2]
AWS = Path(sys.executable).with_name("aws")


def lakehose(*arguments):
    command = [sys.executable, "-m", "lakehose", *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "AWS_ENDPOINT_URL"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=180)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    return tmp_path_factory.mktemp("endpoint") / "state"


@pytest.fixture(scope="module")
def port(state):
    port = free_port()
    done = lakehose("local", "up", "--port", str(port), "--state", str(state))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"export AWS_ENDPOINT_URL=http://127.0.0.1:{port} ")
    yield port
    lakehose("local", "reset", "--state", str(state))


@pytest.fixture
def here(port):
    return Cloud("us-east-1", f"http://127.0.0.1:{port}")


def aws(port, *arguments):
    environment = {**os.environ, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    environment |= {"AWS_DEFAULT_REGION": "us-east-1"}
    command = [str(AWS), *arguments, "--endpoint-url", f"http://localhost:{port}"]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)


def parts(state):
    return {one["name"]: one for one in json.loads((state / "endpoint.json").read_text())["parts"]}


def test_the_aws_command_copies_a_file_to_s3_and_back(port, tmp_path):
    assert aws(port, "s3", "mb", "s3://clients-bucket").returncode == 0
    (tmp_path / "one.csv").write_text("a,b\n1,2\n")
    copied = aws(port, "s3", "cp", str(tmp_path / "one.csv"), "s3://clients-bucket/year=2026/one.csv")
    assert copied.returncode == 0, copied.stderr
    aws(port, "s3", "cp", "s3://clients-bucket/year=2026/one.csv", str(tmp_path / "back.csv"))
    assert (tmp_path / "back.csv").read_text() == "a,b\n1,2\n"


def test_the_aws_command_puts_a_batch_of_records(port, here):
    here.s3.create_bucket(Bucket="stream-bucket")
    here.firehose.create_delivery_stream(
        DeliveryStreamName="plain",
        ExtendedS3DestinationConfiguration={
            "RoleARN": "arn:aws:iam::000000000000:role/any",
            "BucketARN": "arn:aws:s3:::stream-bucket",
            "Prefix": "in/",
        },
    )
    records = json.dumps([{"Data": "hello\n"}, {"Data": "world\n"}])  # version 1 of the command takes data as they are
    put = aws(port, "firehose", "put-record-batch", "--delivery-stream-name", "plain", "--records", records)
    assert put.returncode == 0, put.stderr
    assert json.loads(put.stdout)["FailedPutCount"] == 0
    flushed = lakehose("--endpoint", f"http://127.0.0.1:{port}", "firehose", "flush", "plain")
    assert flushed.returncode == 0, flushed.stderr
    (found,) = here.s3.list_objects_v2(Bucket="stream-bucket", Prefix="in/")["Contents"]
    assert here.s3.get_object(Bucket="stream-bucket", Key=found["Key"])["Body"].read() == b"hello\nworld\n"


def test_cloudwatch_tells_what_a_stream_took(port, here):
    cloudwatch = client("cloudwatch", f"http://127.0.0.1:{port}")
    here.s3.create_bucket(Bucket="watched-bucket")
    here.firehose.create_delivery_stream(
        DeliveryStreamName="watched",
        ExtendedS3DestinationConfiguration={
            "RoleARN": "arn:aws:iam::000000000000:role/any",
            "BucketARN": "arn:aws:s3:::watched-bucket",
        },
    )
    here.firehose.put_record(DeliveryStreamName="watched", Record={"Data": b"x"})
    now, deadline = datetime.now(UTC), time.monotonic() + 60
    while not (
        found := cloudwatch.get_metric_statistics(
            Namespace="AWS/Firehose",
            MetricName="IncomingRecords",
            Dimensions=[{"Name": "DeliveryStreamName", "Value": "watched"}],
            StartTime=now - timedelta(minutes=5),
            EndTime=now + timedelta(minutes=5),
            Period=600,
            Statistics=["Sum"],
        )["Datapoints"]
    ):
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert sum(one["Sum"] for one in found) == 1


def test_the_status_names_each_part_with_its_port_and_process(port, state):
    done = lakehose("local", "status", "--state", str(state))
    assert done.returncode == 0, done.stderr
    gateway = parts(state)["gateway"]
    rows = {row.split()[0]: row.split()[1:] for row in done.stdout.splitlines() if row.strip()}
    assert rows["gateway"] == ["up", str(port), str(gateway["pid"])]
    assert rows["firehose"][0] == "up"
    assert rows["trino"][0] == "not"


def test_up_twice_leaves_the_processes_as_they_are(port, state):
    before = parts(state)
    done = lakehose("local", "up", "--port", str(port), "--state", str(state))
    assert done.returncode == 0, done.stderr
    assert parts(state) == before


def test_a_firehose_server_killed_with_9_is_away_until_up_brings_it_back_with_all_it_acknowledged(port, state, here):
    here.s3.create_bucket(Bucket="killed-bucket")
    here.firehose.create_delivery_stream(
        DeliveryStreamName="killed",
        ExtendedS3DestinationConfiguration={
            "RoleARN": "arn:aws:iam::000000000000:role/any",
            "BucketARN": "arn:aws:s3:::killed-bucket",
            "Prefix": "in/",
        },
    )
    here.firehose.put_record(DeliveryStreamName="killed", Record={"Data": b"acknowledged\n"})
    os.kill(parts(state)["firehose"]["pid"], signal.SIGKILL)
    time.sleep(0.5)
    with pytest.raises(here.firehose.exceptions.ServiceUnavailableException, match="lakehose local up"):
        here.firehose.put_record(DeliveryStreamName="killed", Record={"Data": b"refused\n"})
    status = lakehose("local", "status", "--state", str(state))
    assert status.returncode == 1
    assert "dead" in status.stdout
    assert lakehose("local", "up", "--port", str(port), "--state", str(state)).returncode == 0
    assert lakehose("--endpoint", f"http://127.0.0.1:{port}", "firehose", "flush", "killed").returncode == 0
    (found,) = here.s3.list_objects_v2(Bucket="killed-bucket", Prefix="in/")["Contents"]
    assert here.s3.get_object(Bucket="killed-bucket", Key=found["Key"])["Body"].read() == b"acknowledged\n"


def test_a_port_that_is_taken_is_said_with_who_holds_it(port, tmp_path):
    done = lakehose("local", "up", "--port", str(port), "--state", str(tmp_path / "other"))
    assert done.returncode == 2
    assert f"lakehose: port {port} is taken by process " in done.stderr
    assert "take another with --port" in done.stderr
    assert "Traceback" not in done.stderr


def test_another_port_for_an_endpoint_that_is_up_is_refused(port, state):
    other = free_port()
    done = lakehose("local", "up", "--port", str(other), "--state", str(state))
    assert done.returncode == 2
    assert f"is up on port {port}; asked for {other}" in done.stderr


def test_what_the_endpoint_holds_outlives_down_and_up(port, state, here):
    here.s3.create_bucket(Bucket="kept-bucket")
    here.s3.put_object(Bucket="kept-bucket", Key="one", Body=b"kept")
    here.glue.create_database(DatabaseInput={"Name": "kept"})
    assert lakehose("local", "down", "--state", str(state)).returncode == 0
    with pytest.raises(OSError, match="refused"), socket.create_connection(("127.0.0.1", port), 2):
        pass
    assert lakehose("local", "up", "--port", str(port), "--state", str(state)).returncode == 0
    assert here.s3.get_object(Bucket="kept-bucket", Key="one")["Body"].read() == b"kept"
    assert here.glue.get_database(Name="kept")["Database"]["Name"] == "kept"
    names = here.firehose.list_delivery_streams()["DeliveryStreamNames"]
    assert "killed" in names


def test_reset_leaves_a_folder_alone_that_is_not_an_endpoints(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    done = lakehose("local", "reset", "--state", str(tmp_path))
    assert done.returncode == 2
    assert "holds something that is not a local endpoint's; it is left as it is" in done.stderr
    assert (tmp_path / "thesis.txt").exists()
