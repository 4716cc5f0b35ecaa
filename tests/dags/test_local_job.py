from __future__ import annotations

import os
import threading
import time

import pytest

pytest.importorskip("airflow", reason="needs Airflow's own environment: `make airflow-test`")

from airflow.sdk.bases.operator import ExecutorSafeguard
from airflow.sdk.exceptions import AirflowException, AirflowFailException

from dags.local_job import LocalJob, inherited


@pytest.fixture
def run(monkeypatch):
    # outside of a DAG run Airflow lets nobody call `execute`
    monkeypatch.setattr(ExecutorSafeguard, "test_mode", True)

    def start(*command):
        LocalJob(task_id="job", command=command).execute({})

    return start


def test_a_command_that_ends_well_is_a_success(run):
    run("sh", "-c", "echo fine")


def test_bad_input_is_not_tried_again_and_says_what_the_command_said(run):
    with pytest.raises(AirflowFailException, match=r"^lakehose: job: got 'ingset'$"):
        run("sh", "-c", "echo starting; echo \"lakehose: job: got 'ingset'\" >&2; exit 2")


def test_any_other_failure_may_be_tried_again(run):
    with pytest.raises(AirflowException, match=r"^exit status 1: the endpoint is away$") as caught:
        run("sh", "-c", "echo the endpoint is away; exit 1")
    assert not isinstance(caught.value, AirflowFailException)


def test_a_command_that_is_killed_may_be_tried_again(run):
    with pytest.raises(AirflowException, match="exit status -9: halfway"):
        run("sh", "-c", "echo halfway; kill -9 $$")


def test_a_command_that_is_not_there_names_the_variable_to_set(run):
    with pytest.raises(AirflowFailException, match=r"/nowhere/lakehose: can't be started .*; set LAKEHOSE_BIN to"):
        run("/nowhere/lakehose", "run", "ingest")


def test_the_command_gets_credentials_and_not_airflows_python():
    given = {"AWS_PROFILE": "a", "PATH": "/bin", "PYTHONPATH": "/x", "AIRFLOW_HOME": "/y", "AIRFLOW__CORE__X": "1"}
    assert inherited(given) == {"AWS_PROFILE": "a", "PATH": "/bin"}


def test_ending_the_task_ends_the_command_and_what_it_started(monkeypatch, tmp_path):
    monkeypatch.setattr(ExecutorSafeguard, "test_mode", True)
    pids = tmp_path / "pids"
    script = f"sleep 600 & echo $$ $! > {pids}.new; mv {pids}.new {pids}; wait"
    task = LocalJob(task_id="job", command=["sh", "-c", script])
    caught = []

    def execute():
        try:
            task.execute({})
        except AirflowException as error:
            caught.append(str(error))

    thread = threading.Thread(target=execute)
    thread.start()
    deadline = time.monotonic() + 30
    while not pids.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    task.on_kill()
    thread.join(30)
    assert caught
    assert caught[0].startswith("exit status -15")
    for pid in pids.read_text().split():
        while time.monotonic() < deadline and _lives(int(pid)):
            time.sleep(0.05)
        assert not _lives(int(pid))


def _lives(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123 - a child nobody has waited for is dead too
        return stat.read().rpartition(")")[2].split()[0] != "Z"
