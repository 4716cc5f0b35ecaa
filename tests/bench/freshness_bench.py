"""Measures freshness: from an event that the SDK has taken over to the end of the first Athena query that counts it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rows import Row

from athena.client import run_query
from firehose.provision import provision_streams
from lake.clients import Cloud
from lake.declaration import read_lake
from lake.provision import provision_storage
from local.endpoint import Endpoint
from producers.client import Producer

sys.path.insert(0, str(Path(__file__).parents[1]))
from conftest import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lake.declaration import Lake

_BUFFER_SECONDS = 15
_EVERY_SECONDS = 2
_EVENTS_A_SECOND = 100
_WARM_UP = 60.0
_MEASURED = 240.0
_P50, _P99 = 30.0, 60.0
_LAKE = f"""
company: fresh
environment: bench
region: us-east-1
tenants: {{acme: {{tier: dedicated}}}}
datasets:
  clicks: {{contract: clicks.yaml, buffering: {{size_mib: 64, interval_seconds: {_BUFFER_SECONDS}}}}}
"""
_CONTRACT = """
apiVersion: v3.1.0
kind: DataContract
id: clicks
version: 1.0.0
status: active
schema:
  - name: clicks
    logicalType: object
    customProperties:
      - {property: lakehose.partitionBy, value: [day(event_time)]}
      - {property: lakehose.sortBy, value: [event_time]}
    properties:
      - {name: page, logicalType: string, required: true}
      - {name: seconds, logicalType: integer, physicalType: int}
"""


@dataclass
class _Watch:
    """When each event was taken over, and when how many were counted."""

    taken: list[float] = field(default_factory=list)
    """Moments, by the event's place."""
    answers: list[tuple[float, int]] = field(default_factory=list)
    """Moments at which a query ended, and the events it counted."""

    def delays(self, since: float, until: float) -> list[float]:
        """Seconds from taking over to the answer, of the events that were taken over in between, in order of size."""
        found: list[float] = []
        answers = iter(self.answers)
        ended, counted = next(answers, (0.0, 0))
        for place, moment in enumerate(self.taken):
            while counted <= place:
                ended, counted = next(answers, (float("inf"), len(self.taken)))
            if since <= moment < until:
                found.append(ended - moment)
        return sorted(found)


def rows(folder: Path, scale: float) -> list[Row]:
    """Freshness of continuous ingest with short buffers: half of the events, and 99 of 100."""
    home = folder / "fresh"
    home.mkdir()
    (home / "lake.yaml").write_text(_LAKE, encoding="utf-8")
    (home / "clicks.yaml").write_text(_CONTRACT, encoding="utf-8")
    lake, watch = read_lake(home / "lake.yaml"), _Watch()
    with _endpoint(home) as cloud:
        for _ in (*provision_storage(lake, cloud), *provision_streams(lake, cloud)):
            pass
        _count(lake, cloud)  # starts Trino
        stop = threading.Event()
        with _ingest(home, cloud), _producer(lake, cloud, home, watch, stop):
            since = time.monotonic() + _WARM_UP
            until = since + _MEASURED * scale
            _ask(lake, cloud, watch, stop, until)
        found = watch.delays(since, until)
    name = f"{_EVENTS_A_SECOND} events a second, {_BUFFER_SECONDS} s buffers, a round every {_EVERY_SECONDS} s"
    return [
        _row(name, f"seconds to an answered query, p50 of {len(found):,} events", found[len(found) // 2], _P50),
        _row(name, f"seconds to an answered query, p99 of {len(found):,} events", found[len(found) * 99 // 100], _P99),
    ]


def _row(name: str, measure: str, ours: float, limit: float) -> Row:
    return Row(name, measure, ours, None, "", f"under {limit:g} s", ours < limit)


@contextmanager
def _endpoint(home: Path) -> Iterator[Cloud]:
    endpoint = Endpoint(home / "state")
    url = endpoint.up(free_port(), "us-east-1", _quietly)
    cloud = Cloud("us-east-1", url)
    os.environ.update(cloud.environment())
    try:
        yield cloud
    finally:
        endpoint.down(_quietly)


def _quietly(_: str) -> None:
    """Say nothing."""


@contextmanager
def _ingest(home: Path, cloud: Cloud) -> Iterator[None]:
    command = [sys.executable, "-m", "spark_jobs.ingest", "--lake", str(home / "lake.yaml")]
    command += ["--endpoint", str(cloud.endpoint), "--every", str(_EVERY_SECONDS)]
    log = home / "ingest.log"
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=out, env={**os.environ, **cloud.environment()})
    try:
        yield
        if process.poll() is not None:
            raise RuntimeError(f"ingest ended with {process.returncode}:\n{log.read_text()}")
    finally:
        process.terminate()
        process.wait(120)


@contextmanager
def _producer(lake: Lake, cloud: Cloud, home: Path, watch: _Watch, stop: threading.Event) -> Iterator[None]:
    (stream,) = lake.streams()
    producer = Producer(
        stream.name,
        tenant="acme",
        dataset="clicks",
        producer_id="phone",
        schema_version="1.0.0",
        spool=home / "spool",
        firehose=cloud.firehose,
    )

    def send() -> None:
        began = time.monotonic()
        while not stop.is_set():
            producer.send({"page": "/", "seconds": len(watch.taken) % 600}, datetime.now(UTC))
            watch.taken.append(time.monotonic())
            stop.wait(max(0.0, began + len(watch.taken) / _EVENTS_A_SECOND - time.monotonic()))

    with producer:
        producer.start()
        sender = threading.Thread(target=send)
        sender.start()
        try:
            yield
        finally:
            stop.set()
            sender.join()


def _ask(lake: Lake, cloud: Cloud, watch: _Watch, stop: threading.Event, until: float) -> None:
    """Count again and again, until all that was sent by then is counted."""
    last = until + 4 * _P99
    while True:
        counted = _count(lake, cloud)
        watch.answers.append((time.monotonic(), counted))
        if time.monotonic() > until:
            stop.set()
            if counted == len(watch.taken):
                return
        if time.monotonic() > last:
            raise RuntimeError(f"{len(watch.taken):,} events were sent, and {counted:,} are in the table")


def _count(lake: Lake, cloud: Cloud) -> int:
    database, results = lake.names.database("acme"), f"s3://{lake.names.bucket('acme')}/athena-results/"
    found = run_query(cloud, "SELECT count(*) FROM clicks", database=database, output_location=results)
    return int(found.rows[0][0] or 0)
