"""Owns the check of what a machine must have before anything is installed; run by make, with any Python 3.

Only the standard library, and no syntax that an old Python can't read: it has to run where nothing else does.
"""

import os
import re
import shutil
import subprocess
import sys

PYTHON = (3, 11)
JAVA = (17, 21)


def java_problem(printed: str) -> str:
    """What is wrong with a Java, by what `java -version` prints; empty when nothing is."""
    found = re.search(r'version "(\d+)', printed)
    if not found:
        return "`java -version` prints no version: %r" % printed[:200]  # noqa: UP031 - any Python 3 reads it
    if int(found.group(1)) not in JAVA:
        return "it is Java %s; Spark 4.1 runs on 17 or 21" % found.group(1)  # noqa: UP031
    return ""


def main() -> int:
    """Print each thing that is missing with its fix; answers the exit status."""
    problems = []
    if sys.version_info < PYTHON:
        problems.append(
            "Python 3.11 or newer is needed, this is %s (%s).\n  Fix: install Python 3.11 and run make with "  # noqa: UP031
            "PYTHON=python3.11" % (sys.version.split()[0], sys.executable)
        )
    home = os.environ.get("JAVA_HOME")
    java = os.path.join(home, "bin", "java") if home else shutil.which("java")  # noqa: PTH118
    fix = "\n  Fix: install Java 17 (Debian: apt-get install openjdk-17-jre-headless), and set JAVA_HOME to it"
    if not java or not os.path.exists(java):  # noqa: PTH110
        where = "JAVA_HOME is %s, which has no bin/java" % home if home else "there is no java on PATH"  # noqa: UP031
        problems.append("Java 17 is needed: " + where + "." + fix)
    else:
        done = subprocess.run([java, "-version"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, check=False)  # noqa: UP022
        problem = java_problem((done.stderr + done.stdout).decode(errors="replace"))
        if problem:
            problems.append("Java 17 is needed (" + java + "): " + problem + "." + fix)
    for problem in problems:
        sys.stderr.write("prerequisites: " + problem + "\n")
    return 2 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
