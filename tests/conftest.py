"""Owns what the tests of several rooms share: a real S3, Glue and DynamoDB on a free port of this machine."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager

import pytest

from lake.clients import Cloud

LONG = (
    *("test_fault_campaign.py", "test_kill_campaign.py", "test_erase_killed.py"),
    *("test_demo.py", "test_processes_end.py", "test_fuzz.py"),
)
"""Files whose single tests take minutes: at the end, all workers but one would wait for them."""


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.path.name not in LONG)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def running_ministack(folder):
    port = free_port()
    environment = {
        **os.environ,
        "BIND_HOST": "127.0.0.1",
        "GATEWAY_PORT": str(port),
        "LOG_LEVEL": "WARNING",
        "S3_PERSIST": "0",
        "PERSIST_STATE": "0",
        "STATE_DIR": str(folder / "state"),
        "S3_DATA_DIR": str(folder / "s3"),
    }
    log = folder / "ministack.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "ministack"], env=environment, stdout=out, stderr=out, stdin=subprocess.DEVNULL
        )
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 60
        while True:
            try:
                urllib.request.urlopen(f"{url}/_ministack/health", timeout=2).close()
                break
            except OSError:
                if time.monotonic() > deadline or process.poll() is not None:
                    raise RuntimeError(f"MiniStack did not come up:\n{log.read_text()}") from None
                time.sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="session")
def ministack(tmp_path_factory):
    """URL of a MiniStack that holds nothing at the start of the session."""
    with running_ministack(tmp_path_factory.mktemp("ministack")) as url:
        yield url


@pytest.fixture(scope="session")
def cloud(ministack):
    """The same as a `Cloud`."""
    return Cloud("us-east-1", ministack)


@pytest.fixture(scope="session")
def free_port_number():
    """A port of 127.0.0.1 that nothing listens on."""
    return free_port()


@pytest.fixture(scope="session")
def another_free_port():
    """Another one."""
    return free_port()
