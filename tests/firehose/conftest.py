"""Fixtures of the Firehose server's tests: a bucket in a real S3, and server processes that end with the test."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import boto3
import orjson
import pytest
from botocore.config import Config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).parents[2]
ROLE = "arn:aws:iam::000000000000:role/firehose"
ONE_TRY = Config(retries={"total_max_attempts": 1}, read_timeout=60)
WAIT = 60


def client(service: str, url: str) -> Any:
    return boto3.client(
        service,
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",  # noqa: S106 - any will do
        config=ONE_TRY,
    )


@dataclass
class Server:
    """A server process that can be killed and started again on the same folder."""

    data: Path
    s3_url: str
    options: list[str] = field(default_factory=list)
    port: int = 0
    process: subprocess.Popen[str] | None = None
    said: queue.SimpleQueue[str] = field(default_factory=queue.SimpleQueue)
    errors: list[str] = field(default_factory=list)

    def start(self) -> Server:
        command = [
            *(sys.executable, "-m", "firehose", "serve", "--data-dir", str(self.data)),
            *("--port", str(self.port), "--s3-endpoint", self.s3_url, *self.options),
        ]
        self.process = subprocess.Popen(
            command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, bufsize=1
        )
        process = self.process
        threading.Thread(target=lambda: [self.errors.append(line) for line in process.stderr], daemon=True).start()
        threading.Thread(target=lambda: [self.said.put(line) for line in process.stdout], daemon=True).start()
        try:
            line = self.said.get(timeout=WAIT)
        except queue.Empty:
            raise AssertionError(f"not ready: {self.errors}") from None
        self.port = int(line.split("://127.0.0.1:")[1].split(",")[0])
        return self

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def firehose(self) -> Any:
        return client("firehose", self.url)

    @property
    def quotas(self) -> Any:
        return client("service-quotas", self.url)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(timeout=30)

    def flush(self, stream: str | None = None) -> dict[str, Any]:
        query = f"?stream={stream}" if stream else ""
        request = urllib.request.Request(f"{self.url}/_lakehose/flush{query}", method="POST")
        with urllib.request.urlopen(request, timeout=WAIT) as answer:
            return orjson.loads(answer.read())["streams"]

    def status(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self.url}/_lakehose/status", timeout=WAIT) as answer:
            return orjson.loads(answer.read())

    def create(self, name: str, destination: dict[str, Any]) -> None:
        self.firehose.create_delivery_stream(DeliveryStreamName=name, ExtendedS3DestinationConfiguration=destination)

    def batch(self, stream: str, records: list[bytes]) -> dict[str, Any]:
        answer = self.firehose.put_record_batch(
            DeliveryStreamName=stream, Records=[{"Data": record} for record in records]
        )
        assert answer["FailedPutCount"] == 0
        return answer


@dataclass
class Bucket:
    """A bucket of the test's own, and destinations in it."""

    name: str
    s3: Any

    def objects(self, prefix: str = "") -> list[str]:
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix)
        return [one["Key"] for page in pages for one in page.get("Contents", [])]

    def body(self, key: str) -> bytes:
        return self.s3.get_object(Bucket=self.name, Key=key)["Body"].read()

    def partitioned(self, **changes: Any) -> dict[str, Any]:
        """An extended destination with dynamic partitioning by tenant and day."""
        return {
            "RoleARN": ROLE,
            "BucketARN": f"arn:aws:s3:::{self.name}",
            "Prefix": "processed/tenant=!{partitionKeyFromQuery:tenant}/day=!{partitionKeyFromQuery:day}/",
            "ErrorOutputPrefix": "errors/!{firehose:error-output-type}/",
            "BufferingHints": {"SizeInMBs": 64, "IntervalInSeconds": 60},
            "CompressionFormat": "GZIP",
            "DynamicPartitioningConfiguration": {"Enabled": True},
            "ProcessingConfiguration": {
                "Enabled": True,
                "Processors": [
                    {
                        "Type": "MetadataExtraction",
                        "Parameters": [
                            {
                                "ParameterName": "MetadataExtractionQuery",
                                "ParameterValue": "{tenant: .tenant, day: .event_time[0:10]}",
                            },
                            {"ParameterName": "JsonParsingEngine", "ParameterValue": "JQ-1.6"},
                        ],
                    },
                    {
                        "Type": "AppendDelimiterToRecord",
                        "Parameters": [{"ParameterName": "Delimiter", "ParameterValue": "\\n"}],
                    },
                ],
            },
            **changes,
        }

    def plain(self, **changes: Any) -> dict[str, Any]:
        """An extended destination without dynamic partitioning."""
        return {
            "RoleARN": ROLE,
            "BucketARN": f"arn:aws:s3:::{self.name}",
            "Prefix": "raw/",
            "BufferingHints": {"SizeInMBs": 64, "IntervalInSeconds": 300},
            **changes,
        }


@pytest.fixture
def s3_url(ministack):
    return ministack


@pytest.fixture
def s3(s3_url):
    return client("s3", s3_url)


@pytest.fixture
def make_bucket(s3):
    def make(*, exists: bool = True) -> Bucket:
        name = f"lake-{uuid4().hex[:12]}"
        if exists:
            s3.create_bucket(Bucket=name)
        return Bucket(name, s3)

    return make


@pytest.fixture
def bucket(make_bucket):
    return make_bucket()


def running(folder: Path, s3_url: str) -> Iterator[Callable[..., Server]]:
    """Make servers on folders below one; they end with the test."""
    made: list[Server] = []

    def make(*options: str, data: Path | None = None, s3: str = s3_url) -> Server:
        server = Server(data or folder / "data", s3, ["--segment-mib", "4", *options])
        made.append(server)
        return server.start()

    try:
        yield make
    finally:  # one that didn't get ready is to end as well
        for server in made:
            if server.process is not None and server.process.poll() is None:
                server.kill()


@pytest.fixture
def servers(s3_url, tmp_path):
    yield from running(tmp_path, s3_url)


@pytest.fixture(scope="module")
def module_server(tmp_path_factory):
    """One server for the tests of a module, which deliver nothing."""
    for make in running(tmp_path_factory.mktemp("firehose"), "http://127.0.0.1:9"):
        yield make()


@pytest.fixture
def offline_bucket():
    """Destinations in a bucket that isn't there."""
    return Bucket("lake-offline", None)


@pytest.fixture
def server(servers):
    return servers()


@pytest.fixture
def event():
    """Make an event, numbered, of a tenant and a day."""

    def make(number: int, tenant: str = "ewr", day: str = "2013-05-07") -> bytes:
        return orjson.dumps({"number": number, "tenant": tenant, "event_time": f"{day}T10:00:00Z"})

    return make


@pytest.fixture
def wait_for():
    def wait(condition, seconds=30):
        deadline = time.monotonic() + seconds
        while not (found := condition()):
            assert time.monotonic() < deadline, "it didn't happen in time"
            time.sleep(0.05)
        return found

    return wait


class KillingProxy:
    """Stands before S3; when armed, it lets one object through and kills the server before that learns of it."""

    def __init__(self, target: str) -> None:
        self.victim = None
        self.written = []
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_PUT(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
                proxy.written.append((self.path, body))
                with urllib.request.urlopen(
                    urllib.request.Request(target + self.path, body, headers, method="PUT")
                ) as answer:
                    status = answer.status
                if proxy.victim is not None:
                    proxy.victim.kill()
                    proxy.victim = None
                    return
                self.send_response(status)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


@pytest.fixture
def proxy(s3_url):
    made = KillingProxy(s3_url)
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def three(servers):
    return servers("--processes", "3")
