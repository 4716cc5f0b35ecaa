"""Airflow in a folder of its own, and the local endpoint as the product's own environment serves it."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).parents[2]
LAKEHOSE = ROOT / ".venv" / "bin" / "lakehose"

if find_spec("airflow") is not None:
    # Airflow reads these when it is imported, which a test module does before any fixture runs
    _home = tempfile.mkdtemp(prefix="lakehose-airflow-")
    atexit.register(shutil.rmtree, _home, ignore_errors=True)
    os.environ.update(
        AIRFLOW_HOME=_home,
        AIRFLOW__CORE__DAGS_FOLDER=str(ROOT / "dags"),
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__CORE__UNIT_TEST_MODE="False",
        AIRFLOW__LOGGING__LOGGING_LEVEL="INFO",
    )
    for name in [one for one in os.environ if one.startswith("LAKEHOSE_") and one != "LAKEHOSE_CACHE"]:
        del os.environ[name]

LAKE = """\
company: airflow
environment: test
tenants:
  acme: {tier: dedicated}
  ann: {tier: pooled}
  bob: {tier: pooled}
datasets:
  visits: {contract: visits.yaml}
jobs:
  ingest: {schedule: "*/5 * * * *", retries: 1, retry_seconds: 1, timeout_minutes: 10}
  compact: {schedule: "17 * * * *", retries: 1, retry_seconds: 1}
"""

CONTRACT = """\
apiVersion: v3.1.0
kind: DataContract
id: visits
version: 1.0.0
status: active
schema:
  - name: visits
    logicalType: object
    properties:
      - {name: page, logicalType: string, required: true}
      - {name: seconds, logicalType: integer, physicalType: int}
"""


@pytest.fixture
def declare(tmp_path):
    """Write a lake of a dedicated tenant and two pooled ones; answers its path."""

    def write(*changes):
        text = LAKE
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        (tmp_path / "lake.yaml").write_text(text)
        (tmp_path / "visits.yaml").write_text(CONTRACT)
        return tmp_path / "lake.yaml"

    return write


@pytest.fixture(scope="session")
def airflow_database():
    """Airflow's database, made as a user makes it."""
    command = [sys.executable, "-m", "airflow", "db", "migrate"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    return Path(os.environ["AIRFLOW_HOME"]) / "airflow.db"


@pytest.fixture
def bag(airflow_database, declare, monkeypatch):
    """Parse the DAGs as Airflow does; answers them by id."""
    from airflow.dag_processing.dagbag import DagBag  # noqa: PLC0415 - only where Airflow is

    def parse(*changes, **settings):
        given = {"LAKEHOSE_LAKE": str(declare(*changes)), **settings}
        for name, value in given.items():
            monkeypatch.setenv(name, value)
        found = DagBag(ROOT / "dags")
        assert found.import_errors == {}
        return found.dags

    return parse


@dataclass(frozen=True)
class DagRun:
    """What came of `airflow dags test`."""

    exit_code: int
    output: str
    states: Mapping[str, tuple[str, int]]
    """State and number of tries of each task; a mapped one has its index, as in `models.daily[1]`."""


@pytest.fixture
def run_dag(airflow_database):
    """Run a DAG to its end (`dag.test()`), in a process of its own, as `airflow dags test` does for a user."""

    def run(dag_id, **settings):
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
        environment |= {"PYTHONPATH": str(ROOT), **settings}
        command = [sys.executable, "-m", "airflow", "dags", "test", dag_id]
        done = subprocess.run(
            command,
            env=environment,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=540,
        )
        with sqlite3.connect(airflow_database) as database:
            rows = database.execute(
                "SELECT task_id, map_index, state, try_number FROM task_instance WHERE dag_id = ? AND run_id = "
                "(SELECT run_id FROM dag_run WHERE dag_id = ? ORDER BY id DESC LIMIT 1)",
                (dag_id, dag_id),
            ).fetchall()
        named = {f"{task}[{index}]" if index >= 0 else task: (state, tries) for task, index, state, tries in rows}
        return DagRun(done.returncode, done.stdout, named)

    return run


def lakehose(*arguments, given=""):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    command = [str(LAKEHOSE), *map(str, arguments)]
    return subprocess.run(
        command, env=environment, input=given, capture_output=True, text=True, check=False, timeout=300, cwd=ROOT
    )


@pytest.fixture(scope="session")
def endpoint(tmp_path_factory, free_port_number):
    """URL of a local endpoint that the product's own command started."""
    if not LAKEHOSE.exists():
        pytest.skip(f"{LAKEHOSE} is not there: `make setup` makes it")
    state = tmp_path_factory.mktemp("endpoint") / "state"
    done = lakehose("local", "up", "--port", free_port_number, "--state", state)
    assert done.returncode == 0, done.stderr
    yield f"http://127.0.0.1:{free_port_number}"
    lakehose("local", "reset", "--state", state)


@dataclass(frozen=True)
class World:
    """A lake at the endpoint, used through the command."""

    lake: Path
    url: str

    def command(self, *arguments, given=""):
        return lakehose("--lake", self.lake, "--endpoint", self.url, *arguments, given=given)

    def send(self, tenant, events, spool):
        lines = "".join(json.dumps(one) + "\n" for one in events)
        options = ("--tenant", tenant, "--dataset", "visits", "--spool", spool)
        done = self.command("send", *options, "-", given=lines)
        assert done.returncode == 0, done.stderr

    def flush(self):
        done = self.command("firehose", "flush")
        assert done.returncode == 0, done.stderr

    def query(self, tenant, sql):
        done = self.command("query", "--tenant", tenant, "--format", "csv", sql)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()[1:]

    def environment(self):
        """What an Airflow that runs jobs on this machine is told."""
        return {
            "LAKEHOSE_LAKE": str(self.lake),
            "LAKEHOSE_RUNNER": "local",
            "LAKEHOSE_BIN": str(LAKEHOSE),
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_DEFAULT_REGION": "us-east-1",
        }


@pytest.fixture
def world(endpoint, declare):
    """The lake of `declare`, applied."""
    made = World(declare(), endpoint)
    done = made.command("apply")
    assert done.returncode == 0, done.stderr
    return made
