"""A producer whose disk fills up: a file system of 6 MiB, and the size limit of a process, which shows like a quota."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

_FILLS_UP = """
import json, resource, sys
from datetime import UTC, datetime
from pathlib import Path
from producers import Producer, SpoolFullError
from producers.testing import RecordedFirehose

firehose = RecordedFirehose()
moment = datetime(2026, 1, 31, tzinfo=UTC)
producer = Producer(
    "s", tenant="ewr", dataset="flights", producer_id="p", schema_version="1.0.0", spool=Path(sys.argv[1]),
    firehose=firehose.client,
)
soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, hard))
returned = []
try:
    for number in range(1000):
        returned.append(producer.send({"number": number, "text": "x" * 2000}, moment).event_id)
    told = "never full"
except SpoolFullError as error:
    told = str(error)
full_at = len(returned)
next_at_full = producer.next_sequence
resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
for number in range(full_at, full_at + 50):
    returned.append(producer.send({"number": number, "text": "x" * 2000}, moment).event_id)
producer.flush()
ledger = producer.ledger()
producer.close()
print(json.dumps({
    "told": told, "full_at": full_at, "next_at_full": next_at_full, "returned": returned,
    "delivered": [(one["event_id"], one["sequence"]) for one in firehose.events()],
    "ledger": [ledger.sent, ledger.acknowledged, ledger.dead_lettered],
}))
"""


def test_a_producer_on_a_full_disk_refuses_events_and_goes_on_when_there_is_room(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", _FILLS_UP, tmp_path], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert 20 < found["full_at"] < 1000
    assert found["told"].startswith(f"spool {tmp_path}/ewr.flights.p.spool: no room on its disk (")
    assert found["told"].endswith(
        "the event was not taken; nothing that was taken before is lost. Make room, then try again"
    )
    assert found["next_at_full"] == found["full_at"]
    assert [event_id for event_id, _ in found["delivered"]] == found["returned"]
    total = found["full_at"] + 50
    assert [sequence for _, sequence in found["delivered"]] == list(range(total))
    assert found["ledger"] == [total, total, 0]


_ON_A_SMALL_DISK = """
import json, os, sys
from datetime import UTC, datetime
from pathlib import Path
from producers import Producer, SpoolFullError
from producers.testing import RecordedFirehose

disk = Path(sys.argv[1])
firehose = RecordedFirehose()
moment = datetime(2026, 1, 31, tzinfo=UTC)
producer = Producer(
    "s", tenant="ewr", dataset="flights", producer_id="p", schema_version="1.0.0", spool=disk, firehose=firehose.client
)
found = {}

def send(count):
    for _ in range(count):
        try:
            producer.send({"text": "x" * 2000}, moment)
        except SpoolFullError as error:
            return str(error)
    return "taken"

found["filled by itself"] = send(10_000)
found["taken"] = producer.next_sequence
producer.flush()
found["waiting after a flush of the full disk"] = producer.status().waiting
found["after the flush"] = send(100)
with (disk / "another").open("wb", buffering=0) as another:
    try:
        while True:
            another.write(bytes(4096))
    except OSError as error:
        found["filled by another"] = error.strerror
try:
    producer.flush()
except SpoolFullError as error:
    found["flush"] = str(error)
found["send"] = send(1)
(disk / "another").unlink()
producer.flush()
found["in the end"] = send(100)
producer.flush()
ledger = producer.ledger()
producer.close()
found["ledger"] = [ledger.sent, ledger.acknowledged, ledger.dead_lettered]
found["delivered"] = [one["sequence"] for one in firehose.events()]
print(json.dumps(found))
"""


def on_a_small_disk(folder, *command):
    """Run a command with a tmpfs of 6 MiB mounted on a folder, which only the command sees."""
    script = 'mount -t tmpfs -o size=6m tmpfs "$0" && exec "$@"'
    return subprocess.run(
        ["unshare", "--map-root-user", "--mount", "sh", "-c", script, folder, *command],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def can_mount(folder):
    try:
        return on_a_small_disk(folder, "true").returncode == 0
    except FileNotFoundError:
        return False


def test_a_full_disk_can_still_be_sent_empty_and_nothing_is_lost_or_sent_twice(tmp_path):
    if not can_mount(tmp_path):
        pytest.skip("needs Linux with user namespaces")
    done = on_a_small_disk(tmp_path, sys.executable, "-c", _ON_A_SMALL_DISK, tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert "too few: the event was not taken; nothing that was taken before is lost" in found["filled by itself"]
    assert found["taken"] > 1000
    assert found["waiting after a flush of the full disk"] == 0
    assert found["after the flush"] == "taken"
    assert found["filled by another"] == "No space left on device"
    assert "what became of the events that were sent can't be noted yet" in found["flush"]
    assert "its disk has 0 bytes free" in found["send"]
    assert found["in the end"] == "taken"
    total = found["taken"] + 200
    assert found["ledger"] == [total, total, 0]
    assert sorted(found["delivered"]) == list(range(total))
