"""The systemd unit: systemd takes it, the command takes its options, and the server does without what it forbids."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys

import pytest

from tests.firehose.conftest import ROOT
from tests.firehose.test_firehose_commands import command

UNIT = ROOT / "firehose" / "systemd" / "lakehose-firehose.service"
MOST_EXPOSED = 2.0
"""Of systemd's own measure, where 10 is a service without any protection."""


def settings():
    found: dict[str, list[str]] = {}
    section = ""
    for line in UNIT.read_text().splitlines():
        if line.startswith("["):
            section = line.strip("[]")
        elif line and not line.startswith("#"):
            name, equals, value = line.partition("=")
            assert equals, line
            found.setdefault(f"{section}.{name}", []).append(value)
    return found


@pytest.fixture
def installed(tmp_path):
    """The unit as it would be installed, with this environment's Python."""
    made = tmp_path / UNIT.name
    made.write_text(UNIT.read_text().replace("/opt/lakehose/bin/python", sys.executable))
    return made


def test_its_command_is_the_servers(tmp_path):
    (start,) = settings()["Service.ExecStart"]
    words = shlex.split(start)
    assert words[:4] == ["/opt/lakehose/bin/python", "-m", "firehose", "serve"]
    assert words[-1] == "$FIREHOSE_OPTIONS"
    given = [one.replace("${STATE_DIRECTORY}", str(tmp_path)) for one in words[4:-1]]
    # it gets as far as the port
    run = command("serve", *given, "--host", "256.0.0.1")
    assert (run.returncode, "can't listen on 256.0.0.1" in run.stderr) == (2, True)


def test_it_keeps_the_log_and_starts_again():
    found = settings()
    assert found["Service.Restart"] == ["always"]
    assert found["Service.StateDirectory"] == ["lakehose-firehose"]
    assert found["Service.DynamicUser"] == ["yes"]
    assert found["Unit.StartLimitIntervalSec"] == ["0"]


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd isn't installed")
def test_systemd_takes_it(installed):
    run = subprocess.run(["systemd-analyze", "verify", str(installed)], capture_output=True, text=True, check=False)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd isn't installed")
def test_systemd_finds_it_well_protected(installed):
    run = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(installed)],
        capture_output=True,
        text=True,
        check=True,
    )
    exposed = float(re.search(r"exposure level for \S+: ([\d.]+)", run.stdout)[1])
    assert exposed <= MOST_EXPOSED
