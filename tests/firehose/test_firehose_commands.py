"""The commands, as a person runs them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from firehose.commands import flush_server, flush_streams
from lake.errors import TerminalError, TransientError

ROOT = Path(__file__).parents[2]


def command(*arguments, **environment):
    kept = {name: value for name, value in os.environ.items() if name != "AWS_ENDPOINT_URL"}
    return subprocess.run(
        [sys.executable, "-m", "firehose", *map(str, arguments)],
        cwd=ROOT,
        env={**kept, **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_port_that_is_taken_is_told(tmp_path):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        run = command("serve", "--data-dir", tmp_path / "data", "--port", port)
    assert run.returncode == 2
    assert run.stderr == (
        f"firehose: --port {port}: can't listen on 127.0.0.1:{port}: it is taken by another program\n"
    )


def test_a_folder_that_another_server_has_is_told(servers, tmp_path):
    server = servers()
    run = command("serve", "--data-dir", server.data, "--port", 0)
    assert run.returncode == 2
    assert f"another Firehose server has it (pid {server.process.pid})" in run.stderr
    assert server.status()["streams"] == {}


def test_a_folder_that_cannot_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    run = command("serve", "--data-dir", tmp_path / "file" / "data", "--port", 0)
    assert run.returncode == 2
    assert run.stderr == f"firehose: --data-dir {tmp_path}/file/data: can't be written: Not a directory\n"


@pytest.mark.parametrize("name", ["streams.json", "quotas.json"])
def test_a_damaged_file_is_told(tmp_path, name):
    (tmp_path / name).write_text("{")
    run = command("serve", "--data-dir", tmp_path, "--port", 0)
    assert run.returncode == 2
    assert f"{tmp_path}/{name}: damaged, not JSON" in run.stderr


def test_flush_delivers_and_says_what(servers, bucket):
    server = servers()
    server.create("raw", bucket.plain())
    server.batch("raw", [b"a", b"b"])
    run = command("flush", "raw", "--url", server.url)
    assert (run.returncode, run.stdout) == (0, "raw: 2 records in 1 objects\n")
    assert len(bucket.objects()) == 1


def test_flush_on_aws_says_that_there_is_no_such_call():
    run = command("flush")
    assert run.returncode == 2
    assert "AWS has no such call" in run.stderr


def test_flush_of_a_stream_that_is_not_there_is_told(servers):
    with pytest.raises(TerminalError, match="no stream 'nope'"):
        flush_server(servers().url, "nope")


def test_flush_without_a_server_can_be_tried_again():
    with pytest.raises(TransientError, match="no answer"):
        flush_streams("http://127.0.0.1:9")


def test_flush_of_something_that_is_no_url_is_told():
    with pytest.raises(TerminalError, match="a URL that begins with http"):
        flush_streams("localhost:4566")
