"""The audit of objects that wait for ingest, whatever they hold; `lakehose audit` as a person runs it."""

import gzip
import json
import os
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from lake import lines
from lake.audit import Unread, balance, gather
from lake.declaration import read_lake
from lake.manifest import Manifest, ProducerLedger
from lake.provision import provision_storage

ROOT = Path(__file__).parents[2]
ODCS = (
    "apiVersion: v3.1.0\nkind: DataContract\nid: v\nversion: 1.0.0\nstatus: active\n"
    "schema: [{name: visits, properties: [{name: page, logicalType: string}]}]\n"
)
WHERE = "processed/visits/tenant=solo/year=2013/month=01/day=01/"


class Place:
    """A lake of one tenant with a ledger of ten events, and objects that nothing has taken."""

    def __init__(self, cloud, folder):
        (folder / "v.yaml").write_text(ODCS)
        (folder / "lake.yaml").write_text(
            f"company: w{uuid.uuid4().hex[:8]}\nenvironment: dev\ntenants: {{solo: {{tier: dedicated}}}}\n"
            "datasets: {visits: {contract: v.yaml}}\n"
        )
        self.cloud, self.folder, self.lake = cloud, folder, read_lake(folder / "lake.yaml")
        for _ in provision_storage(self.lake, cloud):
            pass
        manifest = Manifest(cloud.dynamodb, self.lake.names.manifest_table())
        manifest.report(ProducerLedger("solo", "visits", "phone", 10, 10, 0, 0))

    def put(self, name, body):
        bucket = self.lake.names.bucket("solo")
        self.cloud.s3.put_object(Bucket=bucket, Key=f"{WHERE}{name}", Body=body)
        return f"s3://{bucket}/{WHERE}{name}"

    def audit(self):
        return balance(gather(self.lake, self.cloud, "visits", by_day=True))

    def command(self, *given):
        command = [sys.executable, "-m", "lakehose", "--endpoint", self.cloud.endpoint, "audit", *given]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        return subprocess.run(
            command, cwd=self.folder, env=environment, capture_output=True, text=True, check=False, timeout=300
        )


@pytest.fixture
def place(cloud, tmp_path):
    return Place(cloud, tmp_path)


def events(*numbers):
    return [
        json.dumps(
            {
                "event_id": f"018f0000-0000-7000-8000-{number:012d}",
                "tenant": "solo",
                "dataset": "visits",
                "producer_id": "phone",
                "sequence": number,
                "payload": {"page": "/"},
            }
        ).encode()
        + b"\n"
        for number in numbers
    ]


def test_what_waits_is_in_flight(place):
    place.put("a.gz", gzip.compress(b"".join(events(*range(7)))))
    place.put("b", b"\n".join([b"", b"{bad", *events(7, 8), b" ", *events(9)]))
    found = place.audit()
    assert (found.total.sent, found.total.in_flight, found.total.difference) == (10, 10, 0)
    assert (found.balanced, found.unread) == (True, ())


def test_a_waiting_object_that_is_cut_short_is_told_and_its_numbers_are_nobodys(place):
    place.put("a.gz", gzip.compress(b"".join(events(*range(7)))))
    uri = place.put("cut.gz", gzip.compress(b"".join(events(7, 8, 9)))[:-9])
    done = place.command()
    assert (done.returncode, done.stderr) == (1, "")
    problem = "the object is no whole gzip: it ends before its end-of-stream marker"
    assert f"object {uri}: it waits, and nobody can tell whose it is: {problem}\n" in done.stdout
    assert "missing: tenant solo, producer phone: sequences 7-9\n" in done.stdout
    assert "visits: NOT balanced" in done.stdout
    told = place.command("--json", "--tenant", "solo")
    assert told.returncode == 1
    (sheet,) = json.loads(told.stdout)
    assert sheet["unread"] == [{"tenant": "solo", "uri": uri, "problem": problem}]
    assert (sheet["total"]["in_flight"], sheet["total"]["difference"]) == (7, 3)


def test_a_waiting_object_that_is_gone_and_one_that_is_no_gzip_are_told(place):
    gone = place.put("gone.gz", gzip.compress(b"".join(events(0))))
    bad = place.put("named.gz", b"".join(events(1)))
    assert place.audit().unread != ()  # it notes what there is
    bucket = place.lake.names.bucket("solo")
    place.cloud.s3.delete_object(Bucket=bucket, Key=f"{WHERE}gone.gz")
    found = place.audit()
    assert found.unread == (
        Unread("solo", gone, "the object is gone: it was there when S3 told of it"),
        Unread("solo", bad, "the object's name ends with .gz, and it isn't gzip"),
    )
    assert found.total.in_flight == 0


def test_of_a_waiting_line_that_is_too_long_the_neighbours_are_in_flight(place, monkeypatch):
    monkeypatch.setattr(lines, "_BLOCK_BYTES", 2**18)
    monkeypatch.setattr(lines, "LINE_BYTES", 2**20)
    (long,) = events(3)
    uri = place.put("long", b"".join([*events(0, 1), long.rstrip() + b" " * 2**21 + b"\n", *events(2)]))
    found = place.audit()
    assert found.unread == (Unread("solo", uri, f"line 2 has {2**21 + len(long) - 1:,} bytes, allowed are 16,777,216"),)
    assert (found.total.in_flight, found.total.difference) == (3, 7)
