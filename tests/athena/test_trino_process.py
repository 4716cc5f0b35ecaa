"""The Trino process: known from elsewhere, replaced when it dies; and its installation."""

from __future__ import annotations

import json
import os
import signal
import time
import zipfile
from pathlib import Path

import psutil
import pytest

from athena._config import TrinoSettings, java_command, write_configuration
from athena._install import _unzip, installed
from athena.trino import TrinoServer
from lake.errors import EnvironmentProblemError


def test_trino_is_known_by_its_state_folder_and_answers_on_loopback_only(ask, stack_dir):
    ask("SELECT 1")
    found = TrinoServer.running(stack_dir)
    listening = [one.laddr for one in psutil.Process(found.pid).net_connections() if one.status == "LISTEN"]
    assert {(one.ip.removeprefix("::ffff:"), one.port) for one in listening} == {("127.0.0.1", found.port)}


def test_a_running_trino_is_taken_on_rather_than_started_again(ask, stack_dir):
    ask("SELECT 1")
    found = TrinoServer.running(stack_dir)
    assert TrinoServer.start(stack_dir, found.settings, say=print) == found


def test_a_query_fails_when_trino_dies_and_the_next_one_starts_it_again(ask, run_forever, wait, stack_dir):
    ask("SELECT 1")
    before = TrinoServer.running(stack_dir)
    execution_id = run_forever()
    time.sleep(1)
    os.kill(before.pid, signal.SIGKILL)
    failed = wait(execution_id, 30)["Status"]
    assert failed["State"] == "FAILED"
    assert failed["StateChangeReason"].startswith("GENERIC_INTERNAL_ERROR: the query engine ended")
    assert (failed["AthenaError"]["ErrorCategory"], failed["AthenaError"]["Retryable"]) == (1, True)
    assert ask("SELECT count(*) FROM numbers")["Status"]["State"] == "SUCCEEDED"
    assert TrinoServer.running(stack_dir).pid != before.pid


def test_a_process_that_has_ended_is_not_running(tmp_path):
    settings = {"endpoint": "http://127.0.0.1:9", "region": "r"}
    mark = {"pid": os.getpid(), "port": 1, "created": 5.0, "settings": settings}
    (tmp_path / "trino.json").write_text(json.dumps(mark))
    # the number lives, but it is another process's now
    assert TrinoServer.running(tmp_path) is None


def test_without_a_trino_nothing_is_running(tmp_path):
    assert TrinoServer.running(tmp_path) is None


def test_a_mark_that_can_not_be_read_is_told_with_its_path(tmp_path):
    (tmp_path / "trino.json").write_text("{")
    with pytest.raises(EnvironmentProblemError, match=r"trino\.json: can't be read"):
        TrinoServer.running(tmp_path)


def test_the_configuration_binds_loopback_and_keeps_keys_to_the_owner(tmp_path):
    write_configuration(tmp_path, TrinoSettings("http://127.0.0.1:4566", "eu-west-1"), 8080)
    server = (tmp_path / "config.properties").read_text().splitlines()
    assert {"node.bind-ip=127.0.0.1", "node.internal-address=127.0.0.1", "http-server.http.port=8080"} <= set(server)
    catalog = tmp_path / "catalog" / "awsdatacatalog.properties"
    assert "hive.metastore.glue.endpoint-url=http://127.0.0.1:4566" in catalog.read_text().splitlines()
    assert catalog.stat().st_mode & 0o077 == 0


def test_the_command_runs_the_java_of_the_package(tmp_path):
    command = java_command(Path("/trino"), tmp_path, "2G", ["-XX:AOTCache=/trino/x"])
    assert Path(command[0]).name == "java"
    assert command[1:5] == ["-XX:AOTCache=/trino/x", "-cp", "/trino/lib/*", "-Xmx2G"]


def test_what_is_installed_is_neither_fetched_nor_warmed_up_again(tmp_path):
    (tmp_path / "trino-476").mkdir()
    (tmp_path / "trino-476" / "lakehose.ready").touch()
    said = []
    assert installed(said.append, lambda home: said.append(str(home)), tmp_path) == tmp_path / "trino-476"
    assert said == []


def test_an_installation_that_was_killed_while_it_warmed_up_is_finished(tmp_path):
    (tmp_path / "trino-476").mkdir()
    warmed = []
    for _ in range(2):
        installed(print, warmed.append, tmp_path)
    assert warmed == [tmp_path / "trino-476"]


def test_a_folder_that_can_not_be_written_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(EnvironmentProblemError, match="Trino can't be installed into"):
        installed(print, print, tmp_path / "file")


def test_a_library_of_two_plugins_is_stored_once(tmp_path):
    for name, other in (("a", b"1"), ("b", b"2")):
        with zipfile.ZipFile(tmp_path / f"{name}.zip", "w") as archive:
            archive.writestr("root/same.jar", b"the same")
            archive.writestr("root/other.jar", other)
    seen = {}
    for name in ("a", "b"):
        _unzip(tmp_path / f"{name}.zip", tmp_path / name, seen)
    assert (tmp_path / "a" / "same.jar").samefile(tmp_path / "b" / "same.jar")
    assert (tmp_path / "a" / "other.jar").read_bytes() == b"1"
    assert (tmp_path / "b" / "other.jar").read_bytes() == b"2"
