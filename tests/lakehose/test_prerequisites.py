import os
import subprocess
import sys
from pathlib import Path

import pytest

from lakehose import prerequisites
from lakehose.prerequisites import java_problem

SCRIPT = Path(__file__).parents[2] / "lakehose" / "prerequisites.py"


@pytest.mark.parametrize(
    ("printed", "problem"),
    [
        ('openjdk version "17.0.15" 2025-04-15', ""),
        ('openjdk version "21.0.1" 2023-10-17', ""),
        ('java version "1.8.0_392"', "it is Java 1; Spark 4.1 runs on 17 or 21"),
        ('openjdk version "25" 2025-09-16', "it is Java 25; Spark 4.1 runs on 17 or 21"),
        ("command not found", "`java -version` prints no version: 'command not found'"),
    ],
)
def test_a_java_is_judged_by_what_it_prints(printed, problem):
    assert java_problem(printed) == problem


def check(**environment):
    return subprocess.run(
        [sys.executable, SCRIPT], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


def test_a_missing_java_is_said_with_its_fix(tmp_path):
    done = check(JAVA_HOME=str(tmp_path))
    assert done.returncode == 2
    assert f"Java 17 is needed: JAVA_HOME is {tmp_path}, which has no bin/java." in done.stderr
    assert "Fix: install Java 17" in done.stderr


def test_a_java_of_a_wrong_version_is_said_with_its_fix(tmp_path):
    java = tmp_path / "bin" / "java"
    java.parent.mkdir()
    java.write_text("#!/bin/sh\necho 'openjdk version \"11.0.2\"' >&2\n")
    java.chmod(0o755)
    done = check(JAVA_HOME=str(tmp_path))
    assert done.returncode == 2
    assert "it is Java 11; Spark 4.1 runs on 17 or 21." in done.stderr


def test_an_old_python_is_said_with_its_fix(monkeypatch, capsys):
    monkeypatch.setattr(prerequisites, "PYTHON", (99, 0))
    assert prerequisites.main() == 2
    assert "Fix: install Python 3.11 and run make with PYTHON=python3.11" in capsys.readouterr().err
