"""A server of several processes begins, stops, ends and is started with another number of them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from contextlib import suppress

import orjson
import pytest

from firehose.frames import Kind, read_frames
from firehose.payloads import decode_intent
from tests.firehose.conftest import ROOT
from tests.firehose.test_firehose_commands import command
from tests.firehose.test_processes import NAMES, Connection, Load, alive, delivered, workers


def test_all_end_with_the_parent_and_the_folder_is_free_then(servers, bucket, wait_for):
    server = servers("--processes", "3")
    server.create("clicks", bucket.plain())
    Connection(server).put("clicks", [b"x\n"])
    pids = workers(server).values()
    assert server.process.pid not in pids
    refused = command("serve", "--data-dir", server.data, "--port", 0)
    assert (refused.returncode, f"another Firehose server has it (pid {server.process.pid})" in refused.stderr) == (
        2,
        True,
    )
    server.kill()
    wait_for(lambda: not any(alive(pid) for pid in pids), seconds=20)
    server.start()
    server.flush()
    assert delivered(bucket) == {b"x": 1}


def test_a_process_that_stands_still_is_told_before_a_probe_gives_up(servers):
    server = servers("--processes", "2")
    pid = workers(server)[1]
    os.kill(pid, signal.SIGSTOP)
    try:
        # only one that another process took is answered: the kernel gives some to the one that stands still
        for _ in range(40):
            try:
                with urllib.request.urlopen(f"{server.url}/_lakehose/health", timeout=4) as answer:
                    assert orjson.loads(answer.read()) == {"status": "degraded", "away": [1]}
                break
            except TimeoutError:
                continue
        else:
            raise AssertionError("nobody answered")
    finally:
        os.kill(pid, signal.SIGCONT)


@pytest.mark.parametrize("processes", ["1", "3"])
def test_whoever_connects_during_a_stop_is_turned_away_at_once(servers, offline_bucket, processes):
    hole = socket.create_server(("127.0.0.1", 0))  # an S3 that takes connections, and says nothing
    server = servers("--processes", processes, s3=f"http://127.0.0.1:{hole.getsockname()[1]}")
    for name in NAMES:
        server.create(name, offline_bucket.plain())
        assert Connection(server).put(name, [b"x"])[0] == 200
    with suppress(OSError):
        urllib.request.urlopen(f"{server.url}/_lakehose/flush", b"", timeout=0.5)
    server.process.terminate()
    time.sleep(1)
    assert server.process.poll() is None
    with pytest.raises(ConnectionRefusedError):
        Connection(server).call("ListDeliveryStreams")
    server.process.wait(60)
    hole.close()


def test_a_process_that_the_system_can_not_make_now_is_made_later(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        """
import errno, logging, os, signal, sys, time
from firehose import processes
logging.basicConfig(stream=sys.stdout, format="%(message)s")
processes._LONGEST_PAUSE = 0.5
fork, calls = os.fork, []
def failing():
    calls.append(0)
    if len(calls) == 3:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    return fork()
os.fork = failing
def work(index, ready):
    say(f"begins {index} {os.getpid()}")
    ready(f"{index}")
    while True:
        time.sleep(60)
def say(text):
    os.write(1, f"{text}\\n".encode())  # whole: print writes in pieces where PYTHONUNBUFFERED is set
processes.run_processes(2, work, lambda line: say("ready"), lambda: None, lambda: say("stops"))
"""
    )
    process = subprocess.Popen([sys.executable, str(script)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        pids, said = {}, []
        for line in process.stdout:
            said.append(line.strip())
            if line.startswith("begins"):
                _, index, pid = line.split()
                pids.setdefault(index, []).append(int(pid))
            if line.startswith("ready"):
                os.kill(pids["1"][0], signal.SIGKILL)
            if len(pids.get("1", [])) == 2:
                break
        process.terminate()
        said += process.stdout.read().splitlines()
    finally:
        process.kill()
        process.wait()
    assert len(pids["0"]) == 1
    assert "process 1 of the server can't be started: Resource temporarily unavailable; it is tried again" in said
    assert "stops" in said


def test_a_stop_under_load_answers_what_was_asked_and_loses_nothing(three, bucket):
    for name in NAMES:
        three.create(name, bucket.plain())
    pids = workers(three).values()
    load = Load(three)
    time.sleep(1)
    assert three.stop() == 0
    taken = load.stop()
    assert not any(alive(pid) for pid in pids)
    assert sorted(one.name for one in three.data.glob("*.sock")) == []
    three.start()
    three.flush()
    counted = delivered(bucket)
    assert len(taken) > 100
    assert [record for record in taken if counted[record] != 1] == []


def announced(server):
    """Objects that the logs announce: those a server that is killed now goes on with."""
    segments = [memoryview(path.read_bytes()) for path in server.data.glob("log*/*.wal")]
    frames = [frame for data in segments for frame in read_frames(data, 0) if frame.kind is Kind.INTENT]
    return len({decode_intent(frame.payload).delivery for frame in frames})


def test_another_number_of_processes_keeps_everything(servers, make_bucket, wait_for):
    bucket = make_bucket(exists=False)  # so that objects are announced, and tried
    server = servers("--processes", "3")
    sent = Counter()
    for name in NAMES:
        server.create(name, bucket.plain(Prefix=f"{name}/", BufferingHints={"SizeInMBs": 64, "IntervalInSeconds": 1}))
    keys = {}
    for life, processes in enumerate((3, 1, 2, 5, 5, 1)):
        if life:
            server.options[-1] = str(processes)
            server.start()
        status = server.status()
        assert status["pendingRecords"] == sent.total()
        for name in NAMES:
            records = [f"{name} {life} {one}".encode() for one in range(30)]
            assert Connection(server).put(name, [record + b"\n" for record in records])[0] == 200
            sent.update(records)
        # in this life's objects: a buffer that no log announces yet is filled up in the next life
        wait_for(lambda: all(one["deliveriesUnderWay"] > life for one in server.status()["streams"].values()))  # noqa: B023
        wait_for(lambda: announced(server) == len(NAMES) * (life + 1))  # noqa: B023
        keys = keys or {name: one["trouble"] for name, one in server.status()["streams"].items()}
        server.kill() if life % 2 else server.stop()
    bucket.s3.create_bucket(Bucket=bucket.name)
    server.options[-1] = "2"
    server.start()
    server.flush()
    assert server.status()["pendingRecords"] == 0
    for name in NAMES:
        assert delivered(bucket, f"{name}/") == Counter({one: 1 for one in sent if one.startswith(f"{name} ".encode())})
        assert len(bucket.objects(f"{name}/")) == 6


def test_a_process_that_cannot_start_is_told_and_ends_the_server(tmp_path):
    (tmp_path / "data" / "log").mkdir(parents=True)
    (tmp_path / "data" / "streams.json").write_text("{")
    run = command("serve", "--data-dir", tmp_path / "data", "--port", 0, "--processes", 2)
    assert (run.returncode, "damaged, not JSON" in run.stderr) == (2, True)


def test_a_folder_whose_name_is_too_long_for_sockets_is_told(tmp_path):
    folder = tmp_path / ("x" * 100)
    run = command("serve", "--data-dir", folder, "--port", 0, "--processes", 2)
    assert (run.returncode, "take a folder with a shorter name, or --processes 1" in run.stderr) == (2, True)
