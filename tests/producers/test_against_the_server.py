"""The SDK against the Firehose server itself, over HTTP, with a real S3 behind it."""

from __future__ import annotations

import gzip
import socket
import subprocess
import sys
import threading
import urllib.request
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import orjson
import pytest

from firehose.definition import create_request
from lake.clients import Cloud
from lake.declaration import read_lake
from producers import Producer, SendOptions

ROOT = Path(__file__).parents[2]
MOMENT = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


class Server:
    def __init__(self, folder, s3_url):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self._port = probe.getsockname()[1]
        self._command = [sys.executable, "-m", "firehose", "serve", "--data-dir", folder, "--s3-endpoint", s3_url]
        self._command += ["--port", str(self._port)]
        self.url = f"http://127.0.0.1:{self._port}"
        self.start()

    def start(self):
        self.process = subprocess.Popen(self._command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert "serving" in self.process.stdout.readline()

    def kill(self):
        self.process.kill()
        self.process.wait(10)
        self.process.stdout.close()

    def flush(self):
        request = urllib.request.Request(f"{self.url}/_lakehose/flush", method="POST")
        urllib.request.urlopen(request, timeout=60).close()


@pytest.fixture
def server(tmp_path, ministack):
    server = Server(tmp_path / "firehose", ministack)
    yield server
    server.kill()


def delivered(cloud, bucket, prefix):
    found = []
    for page in cloud.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for one in page.get("Contents", []):
            body = cloud.s3.get_object(Bucket=bucket, Key=one["Key"])["Body"].read()
            found += [orjson.loads(line) for line in gzip.decompress(body).splitlines()]
    return found


def test_every_event_reaches_s3_though_the_server_is_killed_while_it_is_sent(server, cloud, tmp_path):
    stream = next(one for one in read_lake(ROOT / "lake.yaml").streams() if one.owner == "ewr")
    bucket = f"test-{uuid.uuid4()}"
    request = create_request(stream, account="000000000000", key_arn="arn:aws:kms:us-east-1:000000000000:key/test")
    request["ExtendedS3DestinationConfiguration"]["BucketARN"] = f"arn:aws:s3:::{bucket}"
    cloud.s3.create_bucket(Bucket=bucket)
    firehose = Cloud("us-east-1", server.url).firehose
    firehose.create_delivery_stream(**request)
    back = threading.Timer(0.5, server.start)
    with Producer(
        stream.name,
        tenant="ewr",
        dataset="flights",
        producer_id="site-1",
        schema_version="1.0.0",
        spool=tmp_path / "spool",
        firehose=firehose,
        options=SendOptions(batch_records=50, backoff_cap=1.0),
    ) as producer:
        producer.start()
        for n in range(60):
            if n == 30:
                server.kill()
                back.start()
            producer.send_many([({"n": n}, MOMENT + timedelta(days=n % 3)) for _ in range(100)])
            threading.Event().wait(0.01)
        back.join()
        producer.flush()
        ledger = producer.ledger()
        met = producer.status().not_taken
    server.flush()
    events = delivered(cloud, bucket, "processed/flights/tenant=ewr/")
    assert (ledger.sent, ledger.acknowledged, ledger.dead_lettered) == (6000, 6000, 0)
    assert {one["sequence"]: one["event_id"] for one in events}.keys() == set(range(6000))
    assert len({one["event_id"] for one in events}) == 6000
    assert met > 0
