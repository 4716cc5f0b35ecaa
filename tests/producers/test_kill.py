"""A producing process that is killed with -9 at random moments, and started again, until it has sent everything."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter

import orjson

from producers.testing import TAKE, THROTTLE, Disconnect, FailRecords, RecordedFirehose

_EVENTS = 6000
_KILLS = 6
_SITE = """
import os, sys
from datetime import UTC, datetime
from pathlib import Path
from lake.clients import Cloud
from producers import Producer, SendOptions

url, spool, returned, events = sys.argv[1], Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
moment = datetime(2026, 1, 31, tzinfo=UTC)
told = os.open(returned, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
producer = Producer(
    "s", tenant="ewr", dataset="flights", producer_id="p", schema_version="1.0.0", spool=spool,
    firehose=Cloud("us-east-1", url).firehose, options=SendOptions(batch_records=50, linger=0.0, backoff_base=0.01),
)
producer.start()
print("started", flush=True)
while producer.next_sequence < events:
    if producer.next_sequence % 100 < 50:
        event = producer.send({"n": producer.next_sequence, "text": "x" * 300}, moment)
        os.write(told, f"{event.event_id} {event.sequence}\\n".encode())
    else:
        first = producer.next_sequence
        ids = [f"many-{first + n}" for n in range(40)]
        producer.send_many([({"n": first + n, "text": "x" * 300}, moment, one) for n, one in enumerate(ids)])
        os.write(told, "".join(f"{one} {first + n}\\n" for n, one in enumerate(ids)).encode())
producer.flush()
ledger = producer.ledger()
producer.close()
print(ledger.sent, ledger.acknowledged, ledger.dead_lettered, flush=True)
"""


def start(url, folder):
    command = [sys.executable, "-c", _SITE, url, folder / "spool", folder / "returned", str(_EVENTS)]
    environment = {**os.environ, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout.readline() == "started\n"
    return process


def test_whatever_send_returned_for_is_delivered_however_often_the_producer_is_killed(tmp_path):
    chance = random.Random(20260131)  # noqa: S311 - no secret
    trouble = [FailRecords(0, 7), TAKE, TAKE, Disconnect(after_taking=True), TAKE, THROTTLE, TAKE, Disconnect()]
    firehose = RecordedFirehose(*trouble * 5)
    killed = 0
    with firehose.serve() as url:
        for _ in range(_KILLS):
            process = start(url, tmp_path)
            time.sleep(chance.uniform(0.01, 0.35))
            process.kill()
            killed += process.wait(10) == -signal.SIGKILL
        last = start(url, tmp_path)
        out, _ = last.communicate(timeout=60)
    returned = [line.split() for line in (tmp_path / "returned").read_text().splitlines()]
    delivered = {one["sequence"]: one["event_id"] for one in firehose.events()}

    assert killed >= 3
    assert last.returncode == 0
    assert sorted(delivered) == list(range(len(delivered)))
    assert len(delivered) >= _EVENTS
    assert out.split() == [str(len(delivered)), str(len(delivered)), "0"]
    assert [line for line in returned if delivered[int(line[1])] != line[0]] == []
    # what came more than once came with the same bytes each time
    assert len({bytes(one) for one in firehose.taken}) == len(delivered)


def test_a_kill_between_spool_and_acknowledgement_sends_the_same_bytes_again(tmp_path):
    # answers get lost all the time: what was taken is never settled, and is sent again by the next process
    firehose = RecordedFirehose(*[Disconnect(after_taking=True)] * 10_000)
    with firehose.serve() as url:
        first = start(url, tmp_path)
        while not firehose.taken:
            time.sleep(0.01)
        first.kill()
        first.wait(10)
        firehose.script.clear()
        last = start(url, tmp_path)
        last.communicate(timeout=60)
    by_sequence = Counter(orjson.loads(one)["sequence"] for one in firehose.taken)
    assert by_sequence[0] > 1
    assert len(set(firehose.taken)) == len(by_sequence)
