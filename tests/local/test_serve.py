"""The endpoint in the foreground, as a container runs it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psutil

from lake.clients import Cloud

ROOT = Path(__file__).parents[2]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serving(state, port, *options):
    log = state.parent / "serve.log"
    command = [sys.executable, "-m", "lakehose", "local", "serve", "--port", str(port), "--state", str(state), *options]
    environment = {name: value for name, value in os.environ.items() if name != "AWS_ENDPOINT_URL"}
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=out)
    try:
        deadline = time.monotonic() + 120
        while "every service answers on" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield process, log
    finally:
        process.terminate()
        process.wait(120)


def living(pids):
    def lives(pid):
        try:
            # the machine's first process may leave the dead lying about
            return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    return [pid for pid in pids if lives(pid)]


def parts(state):
    return {one["name"]: one["pid"] for one in json.loads((state / "endpoint.json").read_text())["parts"]}


def test_told_to_stop_it_ends_everything_it_started_and_keeps_what_it_holds(tmp_path):
    state, port = tmp_path / "state", free_port()
    with serving(state, port, "--host", "0.0.0.0") as (process, _):  # noqa: S104 - what a container needs
        Cloud("us-east-1", f"http://127.0.0.1:{port}").s3.create_bucket(Bucket="kept")
        running = parts(state)
        listening = {one.laddr.ip for one in psutil.Process(running["gateway"]).net_connections() if not one.raddr}
        assert listening == {"0.0.0.0"}  # noqa: S104
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
    assert living(running.values()) == []
    with serving(state, port):
        buckets = Cloud("us-east-1", f"http://127.0.0.1:{port}").s3.list_buckets()["Buckets"]
        assert [one["Name"] for one in buckets] == ["kept"]


def test_a_part_that_ends_by_itself_ends_it_and_is_named(tmp_path):
    state, port = tmp_path / "state", free_port()
    with serving(state, port) as (process, log):
        running = parts(state)
        os.kill(running["firehose"], signal.SIGKILL)
        assert process.wait(120) == 1
        assert "firehose ended by itself" in " ".join(log.read_text().split())
    assert living(running.values()) == []
