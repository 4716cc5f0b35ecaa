"""The main job, small, as a user runs it: its own process, its own endpoint, killed in the middle."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(*command, **options):
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=540, **options)


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    folder = tmp_path_factory.mktemp("demo") / "state"
    yield folder
    run(sys.executable, "-m", "lakehose", "local", "reset", "--state", str(folder))


@pytest.fixture(scope="module")
def declaration(state):
    """The project's own lake, with batches so small that a few days make several."""
    folder = state.parent
    shutil.copytree(ROOT / "contracts", folder / "contracts")
    text = (ROOT / "lake.yaml").read_text()
    small = re.sub(r"max_objects: \d+", "max_objects: 2", text)
    assert small != text
    (folder / "lake.yaml").write_text(small)
    return folder / "lake.yaml"


@pytest.fixture(scope="module")
def demo(state, declaration, free_port_number):
    report = state.parent / "report.html"
    arguments = (
        "--lake",
        str(declaration),
        "--events",
        "3000",
        "--port",
        str(free_port_number),
        "--state",
        str(state),
        "--report",
        str(report),
    )
    done = run(sys.executable, "-m", "demo", *arguments, "--chaos")
    return done, report, arguments


def test_killed_in_the_middle_the_demo_still_balances_and_answers_as_pandas_does(demo):
    done, report, _ = demo
    assert done.returncode == 0, done.stdout + done.stderr
    assert "killing the Firehose server" in done.stdout
    assert "site jfk was killed; starting it again, it goes on from its spool" in done.stdout
    assert "flights: balanced: every record is accounted for" in done.stdout
    assert done.stdout.count("equals the source") == 4
    assert "DIFFERS" not in done.stdout
    assert re.search(r"applied once more: 29 of 29 unchanged", done.stdout)
    assert done.stdout.splitlines()[-1] == str(report.resolve())
    assert "Every record is accounted for" in report.read_text()


def test_compaction_left_fewer_files_with_the_same_records(demo):
    done, _, _ = demo
    before, after = (
        {
            row[0]: (int(row[1]), int(row[3]))
            for row in re.findall(
                r"^ ?(ewr|jfk|lga) +(\d+) +(\d+) +(\d+)", part.split("equals the source")[0], re.MULTILINE
            )
        }
        for part in done.stdout.split("Data files ")[1:3]
    )
    assert before.keys() == after.keys() == {"ewr", "jfk", "lga"}
    assert all(after[tenant][0] < before[tenant][0] for tenant in after)
    assert {tenant: one[1] for tenant, one in before.items()} == {tenant: one[1] for tenant, one in after.items()}


def test_the_audit_of_the_demos_lake_balances_by_command_too(demo, declaration, free_port_number):
    given = ("--lake", str(declaration), "--endpoint", f"http://127.0.0.1:{free_port_number}")
    done = run(sys.executable, "-m", "lakehose", *given, "audit", "--json")
    assert done.returncode == 0, done.stderr
    (sheet,) = json.loads(done.stdout)
    total = sheet["total"]
    assert sheet["balanced"] is True
    assert (total["sent"], total["ingested"], total["dead_lettered"], total["difference"]) == (3360, 3000, 60, 0)


def test_a_demo_that_is_done_can_be_resumed_and_changes_nothing(demo):
    _, _, arguments = demo
    done = run(sys.executable, "-m", "demo", *arguments, "--resume")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "flights: balanced" in done.stdout


def test_a_resume_with_another_number_of_events_is_refused(demo):
    _, _, arguments = demo
    done = run(sys.executable, "-m", "demo", *("4000" if one == "3000" else one for one in arguments), "--resume")
    assert done.returncode == 2
    assert "was started with EVENTS=3000; go on with the same, got EVENTS=4000" in done.stderr


def test_a_state_folder_that_is_not_the_demos_is_left_alone(tmp_path):
    (tmp_path / "precious").write_text("mine")
    done = run(sys.executable, "-m", "demo", "--state", str(tmp_path))
    assert done.returncode == 2
    assert "holds a lake that is not the demo's; the demo would remove it" in done.stderr
    assert (tmp_path / "precious").read_text() == "mine"
