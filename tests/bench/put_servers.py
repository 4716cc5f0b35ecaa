"""Owns the servers that the Firehose benchmark measures: ours, MiniStack's and moto's, each on one core of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import psutil
from botocore.config import Config

from tests.conftest import free_port, running_ministack

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.bench.put_load import Load

__all__ = ["MOTO", "Put", "Server", "limit", "ministack", "moto", "ours", "put", "sink"]

_ROOT = Path(__file__).parents[2]
MOTO = _ROOT / ".venv-moto" / "bin" / "moto_server"
"""In an environment of its own; `make moto-setup` makes it."""
_STREAM = "bench"
_READY_SECONDS = 60


@dataclass(frozen=True)
class Server:
    """One that runs."""

    port: int
    process: psutil.Process

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    def cpu(self) -> float:
        """Seconds of processor it has taken."""
        times = self.process.cpu_times()
        return times.user + times.system

    def create(self, *, size_mib: int, partitioned: bool = True) -> None:
        """Create the stream, and the bucket it delivers to where there is an S3 behind the same port."""
        firehose = _client("firehose", self.url)
        firehose.create_delivery_stream(
            DeliveryStreamName=_STREAM, ExtendedS3DestinationConfiguration=_destination(size_mib, partitioned)
        )

    def flush(self) -> None:
        """Deliver what is buffered; of ours only."""
        urllib.request.urlopen(
            urllib.request.Request(f"{self.url}/_lakehose/flush", method="POST"), timeout=600
        ).close()

    def peak_mib(self) -> float:
        """The most memory it had."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(status.split("VmHWM:")[1].split()[0]) / 1024


@dataclass(frozen=True)
class Put:
    """What a load came to."""

    acknowledged: int
    refused: int
    requests: int
    seconds: float
    cpu: float
    """Seconds of the server's processor."""
    p50: float
    p99: float


def _client(service: str, url: str) -> Any:
    return boto3.client(
        service,
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",  # noqa: S106 - any will do
        config=Config(s3={"addressing_style": "path"}),
    )


def _destination(size_mib: int, partitioned: bool) -> dict[str, Any]:  # noqa: FBT001 - a switch of the definition
    destination: dict[str, Any] = {
        "RoleARN": "arn:aws:iam::000000000000:role/firehose",
        "BucketARN": "arn:aws:s3:::bench",
        "Prefix": "raw/",
        "BufferingHints": {"SizeInMBs": size_mib, "IntervalInSeconds": 300},
        "CompressionFormat": "GZIP",
    }
    query = {"MetadataExtractionQuery": "{tenant: .tenant}", "JsonParsingEngine": "JQ-1.6"}
    processors = [("MetadataExtraction", query), ("AppendDelimiterToRecord", {"Delimiter": "\\n"})]
    if partitioned:
        destination |= {
            "Prefix": "processed/tenant=!{partitionKeyFromQuery:tenant}/",
            "ErrorOutputPrefix": "errors/!{firehose:error-output-type}/",
            "DynamicPartitioningConfiguration": {"Enabled": True},
            "ProcessingConfiguration": {
                "Enabled": True,
                "Processors": [
                    {
                        "Type": kind,
                        "Parameters": [
                            {"ParameterName": name, "ParameterValue": value} for name, value in parameters.items()
                        ],
                    }
                    for kind, parameters in processors
                ],
            },
        }
    return destination


@contextmanager
def _on(core: int) -> Iterator[None]:
    # what is started within stays on the core; our own process goes back
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {sorted(before)[core % len(before)]})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def ours(folder: Path, s3_url: str, *options: str) -> Iterator[Server]:
    """Ours."""
    command = [sys.executable, "-m", "firehose", "serve", "--data-dir", str(folder), "--port", "0"]
    with (folder.parent / f"{folder.name}.log").open("wb") as log, _on(0):
        process = subprocess.Popen(
            [*command, "--s3-endpoint", s3_url, *options], cwd=_ROOT, stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        line = process.stdout.readline() if process.stdout else ""
        yield Server(int(line.split("http://127.0.0.1:")[1].split(",")[0]), psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait(60)


@contextmanager
def ministack(folder: Path) -> Iterator[Server]:
    """MiniStack."""
    with _on(0):
        started = running_ministack(folder)
        url = started.__enter__()
    try:
        port = int(url.rpartition(":")[2])
        _client("s3", url).create_bucket(Bucket="bench")
        yield Server(port, _listening(port))
    finally:
        started.__exit__(None, None, None)


@contextmanager
def moto(folder: Path) -> Iterator[Server]:
    """moto's server."""
    port = free_port()
    with (folder / "moto.log").open("wb") as log, _on(0):
        process = subprocess.Popen([MOTO, "-H", "127.0.0.1", "-p", str(port)], stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + _READY_SECONDS
        while True:
            try:
                _client("s3", f"http://127.0.0.1:{port}").create_bucket(Bucket="bench")
                break
            except Exception:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.2)
        yield Server(port, psutil.Process(process.pid))
    finally:
        process.terminate()
        process.wait(60)


def _listening(port: int) -> psutil.Process:
    for one in psutil.Process().children(recursive=True):
        if any(c.laddr and c.laddr.port == port and c.status == psutil.CONN_LISTEN for c in one.net_connections("tcp")):
            return one
    raise RuntimeError(f"nobody listens on {port}")


@contextmanager
def sink() -> Iterator[str]:
    """URL of an S3 that only takes objects."""
    with _on(1):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.s3_sink"], cwd=_ROOT, stdout=subprocess.PIPE, text=True
        )
    try:
        yield f"http://127.0.0.1:{int(process.stdout.readline() if process.stdout else 0)}"
    finally:
        process.terminate()
        process.wait(30)


def taken(s3_url: str) -> dict[str, int]:
    """What a sink took since it was last asked: objects, bytes, lines."""
    with urllib.request.urlopen(f"{s3_url}/_taken", timeout=600) as answer:
        found: dict[str, int] = json.load(answer)
        return found


def put(server: Server, load: Load, *, flush: bool) -> Put:
    """Send a load from the other core, and deliver all of it where asked."""
    with _on(1):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.put_load", json.dumps({**asdict(load), "port": server.port})],
            cwd=_ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    if process.stdout is None or process.stdout.readline() != "ready\n":
        raise RuntimeError("the load did not start")
    cpu, started = server.cpu(), time.monotonic()
    told, _ = process.communicate("go\n")
    if process.returncode:
        raise RuntimeError("the load broke off")
    seen = json.loads(told)
    seconds = seen["seconds"]
    if flush:
        server.flush()
        seconds = time.monotonic() - started
    counts = {name: seen[name] for name in ("acknowledged", "refused", "requests")}
    return Put(**counts, seconds=seconds, cpu=server.cpu() - cpu, p50=seen.get("p50", 0.0), p99=seen.get("p99", 0.0))


def limit(load: Load, size_mib: int) -> tuple[float, float]:
    """The bare limit on the server's core: seconds by the clock, and of the processor."""
    arguments: Sequence[str] = (json.dumps(asdict(load)), str(size_mib << 20))
    with _on(0):
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.put_limit", *arguments], cwd=_ROOT, stdout=subprocess.PIPE, text=True
        )
    found = json.loads(process.communicate()[0])
    return found["seconds"], found["cpu"]
