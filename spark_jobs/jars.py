"""Owns Spark's extra jars: which ones, fetching them once into the user's cache, and finding them again.

An image for EKS carries them in `$SPARK_HOME/jars`, and nothing is fetched there. On a laptop they are resolved and
checked by Spark's own Ivy, once; later starts name the local files, which takes no resolving and works offline.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pyspark

from lake.cache import cache_folder
from lake.errors import EnvironmentProblemError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["EXCLUDED", "PACKAGES", "cached_jars", "fetch_jars", "spark_home"]

PACKAGES = (
    "org.apache.iceberg:iceberg-spark-runtime-4.1_2.13:1.12.0",
    "org.apache.iceberg:iceberg-aws-bundle:1.12.0",
    "org.apache.hadoop:hadoop-aws:3.4.2",
    # the two parts of the AWS SDK that hadoop-aws really needs, in place of its 600 MB bundle
    "software.amazon.awssdk:s3-transfer-manager:2.54.17",
    "software.amazon.awssdk:apache-client:2.54.17",
)
"""Maven coordinates, pinned: the ones seen working together."""
EXCLUDED = ("software.amazon.awssdk:bundle",)

_FOUND = re.compile(r"^\s+found ([^#]+)#([^;]+);(\S+) in")
_FETCHED = re.compile(r"\[SUCCESSFUL \] [^#]+#([^;]+);(\S+)!\S+ \((\d+)ms\)")


def spark_home() -> Path:
    """Where Spark is: `SPARK_HOME`, or the one that pyspark brings."""
    return Path(os.environ.get("SPARK_HOME") or Path(pyspark.__file__).parent)


def in_image() -> bool:
    """Whether Spark itself carries Iceberg, as an image for EKS does."""
    return any((spark_home() / "jars").glob("iceberg-spark-runtime-*.jar"))


def _folder() -> Path:
    tag = hashlib.sha256("\n".join((pyspark.__version__, *PACKAGES, *EXCLUDED)).encode()).hexdigest()[:12]
    return cache_folder() / f"spark-jars-{tag}"


def cached_jars() -> list[Path]:
    """The jars that `fetch_jars` left here, or none."""
    return sorted(_folder().glob("*.jar"))


def fetch_jars(say: Callable[[str], None]) -> list[Path]:
    """Fetch the jars unless they are here.

    Raises:
        EnvironmentProblemError: they can't be fetched, with what Ivy said.
    """
    found = cached_jars()
    if found:
        return found
    folder = _folder()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="fetching-", dir=folder.parent) as scratch:
        _run_ivy(Path(scratch), say)
        try:
            # one rename: the folder is there with everything in it, or not at all
            (Path(scratch) / "jars").rename(folder)
        except OSError:
            if not cached_jars():  # unless another process was faster
                raise
    found = cached_jars()
    say(f"Spark's jars: {len(found)} files, {sum(one.stat().st_size for one in found) / 2**20:.0f} MiB in {folder}")
    return found


def _run_ivy(scratch: Path, say: Callable[[str], None]) -> None:
    program = scratch / "nothing.py"
    program.write_text("", encoding="utf-8")
    command = [
        *(str(spark_home() / "bin" / "spark-submit"), "--packages", ",".join(PACKAGES)),
        *("--exclude-packages", ",".join(EXCLUDED), "--conf", f"spark.jars.ivy={scratch}", str(program)),
    ]
    environment = {**os.environ, "SPARK_HOME": str(spark_home()), "PYSPARK_PYTHON": sys.executable}
    say(f"Spark's jars: resolving {len(PACKAGES)} packages (about 135 MB, once)")
    tail: list[str] = []
    number = fetched = 0
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True
    ) as process:
        for line in process.stderr or ():
            tail = [*tail[-11:], line.rstrip()]
            number += bool(_FOUND.match(line))
            if done := _FETCHED.search(line):
                fetched += 1
                say(f"Spark's jars: {fetched} of {number}: {done[1]} {done[2]}")
    if process.returncode or not any((scratch / "jars").glob("*.jar")):
        shutil.rmtree(scratch / "jars", ignore_errors=True)
        raise EnvironmentProblemError(
            "Spark's jars can't be fetched; is the network up? Spark said last:\n" + "\n".join(tail)
        )
