"""compose.yaml without Docker, which isn't here: held to the Compose specification, and its steps run as processes."""

from __future__ import annotations

import csv
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import yaml

from lake.declaration import read_lake

ROOT = Path(__file__).parents[2]
HOME = "/opt/lakehose"
SECONDS = {"20s": 20, "2m": 120}
EXAMPLE = ROOT / "data" / "example.csv"
COMPOSE_GO = "github.com/compose-spec/compose-go/v2 v2.16.2"
# the loader that `docker compose` itself reads its files with
LOADER = """
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"

	"github.com/compose-spec/compose-go/v2/cli"
)

func main() {
	options, err := cli.NewProjectOptions([]string{os.Args[1]})
	if err == nil {
		project, failed := options.LoadProject(context.Background())
		if err = failed; err == nil {
			err = json.NewEncoder(os.Stdout).Encode(project)
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
"""


def services():
    return yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]


def test_docker_composes_own_loader_takes_the_file(tmp_path):
    if shutil.which("go") is None:
        pytest.skip("needs Go, for the loader of docker compose")
    (tmp_path / "main.go").write_text(LOADER)
    (tmp_path / "go.mod").write_text(f"module check\n\ngo 1.24\n\nrequire {COMPOSE_GO}\n")
    environment = {**os.environ, "GOFLAGS": "-mod=mod"}
    fetched = subprocess.run(
        ["go", "get", "./..."], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    if fetched.returncode:
        pytest.skip(f"the loader can't be fetched: {fetched.stderr[-300:]}")
    command = ["go", "run", ".", str(ROOT / "compose.yaml")]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    project = json.loads(done.stdout)
    assert project["name"] == "lakehose"
    assert sorted(project["services"]) == ["airflow", "apply", "aws"]
    assert project["services"]["airflow"]["depends_on"]["apply"]["condition"] == "service_completed_successfully"
    mounts = [one for service in project["services"].values() for one in service.get("volumes", [])]
    assert {one["source"] for one in mounts if one["type"] == "bind"} == {str(ROOT / "compose"), str(ROOT / "dags")}

    # a loader that takes anything would prove nothing
    broken = tmp_path / "compose.yaml"
    broken.write_text((ROOT / "compose.yaml").read_text().replace("healthcheck:", "healthchek:", 1))
    done = subprocess.run(
        [*command[:-1], str(broken)], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "healthchek" in done.stderr


def test_nothing_is_open_to_other_machines():
    ports = [port for one in services().values() for port in one.get("ports", [])]
    assert ports == ["127.0.0.1:4566:4566", "127.0.0.1:8080:8080"]


def test_every_path_is_one_that_the_image_or_the_project_has():
    for one in services().values():
        for volume in one.get("volumes", []):
            source = volume.split(":")[0]
            assert not source.startswith(".") or (ROOT / source).is_dir()
        lake = one["environment"]["LAKEHOSE_LAKE"]
        assert (ROOT / Path(lake).relative_to(HOME)).is_file()
    build = services()["aws"]["build"]
    assert (ROOT / build["context"] / build["dockerfile"]).is_file()


def test_every_variable_is_one_that_something_reads():
    read = (ROOT / "dags" / "settings.py").read_text()
    for name, one in services().items():
        for variable in one["environment"]:
            if variable.startswith("LAKEHOSE_"):
                assert f'"{variable}"' in read, (name, variable)


def test_every_setting_of_airflow_is_one_that_airflow_knows():
    configuration = pytest.importorskip("airflow.configuration", reason="needs Airflow: `make airflow-test`")
    known = configuration.conf.configuration_description
    for variable in services()["airflow"]["environment"]:
        if variable.startswith("AIRFLOW__"):
            _, section, option = variable.lower().split("__")
            assert option in known[section]["options"], variable


def test_what_the_image_copies_is_there():
    lines = (ROOT / "compose" / "Dockerfile").read_text().splitlines()
    copied = [line.split()[-2] for line in lines if line.startswith("COPY")]
    assert copied == ["requirements/main.txt", "requirements/airflow.txt", "lake", "spark_jobs", "athena", "."]
    assert all((ROOT / one).exists() for one in copied)


def test_the_example_lake_takes_the_example_file():
    lake = read_lake(ROOT / "compose" / "lake.yaml")
    (drop,) = lake.drops
    assert (drop.bucket, drop.prefix, drop.tenant) == ("user-events", "", "shop")
    with EXAMPLE.open(newline="", encoding="utf-8") as file:
        header = next(csv.reader(file))
    assert header == lake.dataset(drop.dataset).contract.field_names()


# --- the same steps, without Docker


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Here:
    """What compose.yaml says, on this machine: its paths, addresses and ports become others."""

    def __init__(self, folder):
        self.folder = folder
        self.port, self.airflow_port = free_port(), free_port()

    @property
    def url(self):
        return f"http://localhost:{self.port}"

    def text(self, value):
        for there, here in {
            f"{HOME}/.venv-airflow": sys.prefix,
            HOME: str(ROOT),
            "/state": str(self.folder / "state"),
            "/airflow": str(self.folder / "airflow"),
            "http://aws:4566": f"http://127.0.0.1:{self.port}",
            "http://127.0.0.1:4566": f"http://127.0.0.1:{self.port}",
            "0.0.0.0": "127.0.0.1",  # noqa: S104
            "${LAKEHOSE_ALERTS_TOPIC:-}": "",
            "${LAKEHOSE_MODELS:-}": "",
        }.items():
            if value == there or (there not in {"/state", "/airflow"} and there in value):
                value = value.replace(there, here)
        return str(self.port) if value == "4566" else value

    def environment(self, service):
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "AIRFLOW_"))}
        kept |= {"PATH": f"{ROOT / '.venv' / 'bin'}:{os.environ['PATH']}"}
        if service == "airflow":
            # in the container the ports are Airflow's own
            url = f"http://127.0.0.1:{self.airflow_port}"
            kept |= {
                "AIRFLOW__API__HOST": "127.0.0.1",
                "AIRFLOW__API__PORT": str(self.airflow_port),
                "AIRFLOW__API__BASE_URL": url,
                "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
                "AIRFLOW__LOGGING__WORKER_LOG_SERVER_PORT": str(free_port()),
                "AIRFLOW__LOGGING__TRIGGER_LOG_SERVER_PORT": str(free_port()),
            }
        return kept | {name: self.text(value) for name, value in services()[service]["environment"].items()}

    def run(self, service, command):
        return subprocess.run(
            [self.text(one) for one in command],
            env=self.environment(service),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
        )

    @contextmanager
    def up(self, service):
        log = self.folder / f"{service}.log"
        with log.open("w") as out:
            process = subprocess.Popen(
                [self.text(one) for one in services()[service]["command"]],
                env=self.environment(service),
                cwd=ROOT,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        try:
            yield log
        finally:
            # as Docker does: ask, wait, and then nothing outlives the first process
            process.send_signal(signal.Signals[services()[service].get("stop_signal", "SIGTERM")])
            with suppress(subprocess.TimeoutExpired):
                process.wait(SECONDS[services()[service]["stop_grace_period"]])
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait(10)

    def aws(self, *arguments):
        # as a person types it: keys from anywhere, the address that compose.yaml opens
        environment = self.environment("apply") | {"AWS_ENDPOINT_URL": ""}
        command = [str(ROOT / ".venv" / "bin" / "aws"), *arguments, f"--endpoint-url={self.url}"]
        done = subprocess.run(
            command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def athena(self, sql):
        started = self.aws(
            *("athena", "start-query-execution", "--query-string", sql),
            *("--query-execution-context", "Database=acme_shop_local"),
            *("--result-configuration", "OutputLocation=s3://acme-shop-local-datalake/query-results/"),
        )
        execution = json.loads(started)["QueryExecutionId"]
        deadline = time.monotonic() + 120
        while True:
            found = json.loads(self.aws("athena", "get-query-execution", "--query-execution-id", execution))
            status = found["QueryExecution"]["Status"]
            if status["State"] not in {"QUEUED", "RUNNING"}:
                break
            assert time.monotonic() < deadline
            time.sleep(1)
        assert status["State"] == "SUCCEEDED", status
        answer = json.loads(self.aws("athena", "get-query-results", "--query-execution-id", execution))
        return [[one.get("VarCharValue") for one in row["Data"]] for row in answer["ResultSet"]["Rows"][1:]]


def wait_until(done, what, seconds, log):
    deadline = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, f"{what} after {seconds} s:\n{log.read_text()[-4000:]}"
        time.sleep(3)


@pytest.mark.timeout(1200)
def test_a_file_put_with_the_aws_command_is_picked_up_by_airflow_and_queryable(tmp_path):
    pytest.importorskip("airflow", reason="needs Airflow's own environment: `make airflow-test`")
    here = Here(tmp_path)
    healthy = services()["aws"]["healthcheck"]["test"][1:]
    with here.up("aws") as log:
        wait_until(lambda: here.run("aws", healthy).returncode == 0, "the endpoint isn't healthy", 120, log)
        applied = here.run("apply", services()["apply"]["command"])
        assert applied.returncode == 0, applied.stderr
        with here.up("airflow") as airflow_log:
            day = "s3://user-events/year=2026/month=11/day=20/"
            here.aws("s3", "cp", "data/example.csv", day)
            count = "SELECT count(*) FROM user_events"
            wait_until(lambda: here.athena(count) == [["12"]], "the file isn't in the table", 900, airflow_log)
        found = here.athena("SELECT user_id, event_type, page, detail, amount FROM user_events ORDER BY event_time")
        with EXAMPLE.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        wanted = [[one["user_id"], one["event_type"], one["page"], one["detail"]] for one in rows]
        assert [[*row[:3], row[3] or ""] for row in found] == wanted
        assert [row[4] and float(row[4]) for row in found] == [
            float(one["amount"]) if one["amount"] else None for one in rows
        ]
        audit = here.run("apply", ["lakehose", "audit"])
        assert audit.returncode == 0, audit.stdout
