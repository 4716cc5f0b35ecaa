"""Owns the Spark session: the Iceberg catalog `lake` on Glue, S3, and what differs between a laptop and a cluster.

A job that a cluster started finds master, cores and jars set by whoever submitted it; here it only gets the catalog.
`python -m spark_jobs.session --fetch` fetches the jars that a start on a laptop needs.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from pyspark import SparkConf
from pyspark.sql import SparkSession

from lake.errors import EnvironmentProblemError, LakehoseError
from lake.names import bucket_and_key
from spark_jobs.failures import spoken
from spark_jobs.jars import cached_jars, fetch_jars, in_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from lake.clients import Cloud

__all__ = ["CATALOG", "check_java", "create_session", "literal", "running_session", "settings", "side_by_side"]

CATALOG = "lake"
"""Name of the Iceberg catalog in Spark SQL."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

_JAVA = (17, 21)
_FIX = "install OpenJDK 17 and set JAVA_HOME to it"
_CATALOG = f"spark.sql.catalog.{CATALOG}"


def literal(text: str) -> str:
    r"""Spark SQL's literal of a string.

    >>> print(literal(r"it's a \ b"))
    'it\'s a \\ b'
    """
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def check_java() -> int:
    """Find the Java that Spark will start; answers its major version.

    Raises:
        EnvironmentProblemError: there is none, or one that Spark 4.1 doesn't run on.
    """
    home = os.environ.get("JAVA_HOME")
    java = str(Path(home) / "bin" / "java") if home else shutil.which("java")
    if java is None:
        raise EnvironmentProblemError(f"Spark needs Java 17, and there is no java on PATH: {_FIX}")
    try:
        done = subprocess.run([java, "-version"], capture_output=True, text=True, check=False, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        where = f"JAVA_HOME is {home}" if home else java
        raise EnvironmentProblemError(
            f"Spark needs Java 17, and {where} holds none that runs ({error}): {_FIX}"
        ) from None
    found = re.search(r'version "(\d+)', done.stderr + done.stdout)
    if not found:
        raise EnvironmentProblemError(
            f"Spark needs Java 17, and {java} doesn't tell a version ({(done.stderr or done.stdout)[:200]!r}): {_FIX}"
        )
    if int(found[1]) not in _JAVA:
        raise EnvironmentProblemError(f"Spark 4.1 runs on Java 17 or 21, and {java} is Java {found[1]}: {_FIX}")
    return int(found[1])


def settings(cloud: Cloud) -> dict[str, str]:
    """Spark's configuration for a lake, the same wherever it runs; the endpoint is left out on AWS."""
    made = {
        "spark.sql.extensions": "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
        _CATALOG: "org.apache.iceberg.spark.SparkCatalog",
        f"{_CATALOG}.catalog-impl": "org.apache.iceberg.aws.glue.GlueCatalog",
        f"{_CATALOG}.io-impl": "org.apache.iceberg.aws.s3.S3FileIO",
        f"{_CATALOG}.client.region": cloud.region,
        # another session's commit has to be seen at once: duplicates are looked for in the table as it is
        f"{_CATALOG}.cache-enabled": "false",
        "spark.hadoop.fs.s3a.endpoint.region": cloud.region,
        "spark.hadoop.fs.s3.impl": "org.apache.hadoop.fs.s3a.S3AFileSystem",
        "spark.sql.session.timeZone": "UTC",
        "spark.sql.ansi.enabled": "true",
        "spark.scheduler.mode": "FAIR",
    }
    if cloud.endpoint:
        made |= {
            f"{_CATALOG}.glue.endpoint": cloud.endpoint,
            f"{_CATALOG}.s3.endpoint": cloud.endpoint,
            f"{_CATALOG}.s3.path-style-access": "true",
            "spark.hadoop.fs.s3a.endpoint": cloud.endpoint,
            "spark.hadoop.fs.s3a.path.style.access": "true",
            "spark.hadoop.fs.s3a.connection.ssl.enabled": str(urlsplit(cloud.endpoint).scheme == "https").lower(),
        }
    return made


def _on_this_machine(cores: int | str) -> dict[str, str]:
    """What a cluster's submitter sets, for a session that starts its own JVM."""
    jars = [] if in_image() else cached_jars() or fetch_jars(_say)
    log = Path(__file__).with_name("log4j2.properties")
    return {
        "spark.master": f"local[{cores}]",
        # `local:` jars are read where they are; `file:` ones would be copied at each start
        **({"spark.jars": ",".join(f"local:{one}" for one in jars)} if jars else {}),
        "spark.driver.bindAddress": "127.0.0.1",
        "spark.driver.host": "127.0.0.1",
        "spark.driver.memory": "2g",
        # Jobs here last a minute, most of which Java's second compiler would take for code that runs twice: without it
        # the ingest of 337,000 events takes 40 s of processor time, with it 63 s.
        # Its room for code is then a fifth of the usual, and Spark makes much; full, all compiling ends.
        "spark.driver.extraJavaOptions": (
            f"-Dlog4j2.configurationFile={log.as_uri()} -XX:+UseParallelGC"
            " -XX:TieredStopAtLevel=1 -XX:ReservedCodeCacheSize=240m"
            # Java prints its own warnings where a job prints its report
            " -Xlog:disable -Xlog:all=warning:stderr"
        ),
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        # a handful of cores: the default of 200 would be 200 tiny tasks and files
        "spark.sql.shuffle.partitions": str(2 * (os.cpu_count() or 2)),
    }


def create_session(
    cloud: Cloud, *, app_name: str, cores: int | str = "*", extra: Mapping[str, str] | None = None
) -> SparkSession:
    """Start Spark, or join the one that a cluster has started for this job.

    Args:
        cloud: where the lake is. Its environment (region, local credentials) becomes this process's, as the JVM and
            Python's workers take theirs from it.
        app_name: name of the application.
        cores: threads of a session on this machine; `*` is all.
        extra: more of Spark's settings, which win.

    Raises:
        EnvironmentProblemError: Java is missing or of a wrong version, or the jars can't be fetched.
    """
    os.environ.update(cloud.environment())
    made = settings(cloud)
    if "PYSPARK_GATEWAY_PORT" not in os.environ:  # set by spark-submit
        check_java()
        # workers of another Python than the driver's would not even start
        os.environ["PYSPARK_PYTHON"] = sys.executable
        made |= _on_this_machine(cores)
    conf = SparkConf().setAppName(app_name).setAll(list({**made, **(extra or {})}.items()))
    _make_log_folder(conf, cloud)
    return SparkSession.builder.config(conf=conf).getOrCreate()


def _make_log_folder(conf: SparkConf, cloud: Cloud) -> None:
    """Make the folder of event logs, without which Spark would not start; S3 has folders only where a key names one."""
    folder = conf.get("spark.eventLog.dir")
    if conf.get("spark.eventLog.enabled") != "true" or not (folder and folder.startswith("s3a://")):
        return
    bucket, key = bucket_and_key(folder)
    if key:
        cloud.s3.put_object(Bucket=bucket, Key=f"{key.rstrip('/')}/", Body=b"")


@contextmanager
def running_session(cloud: Cloud, app_name: str) -> Iterator[SparkSession]:
    """A session that is stopped at the end, whatever happens."""
    spark = create_session(cloud, app_name=app_name)
    try:
        yield spark
    finally:
        spark.stop()


def side_by_side(
    spark: SparkSession,
    items: Sequence[_Item],
    work: Callable[[SparkSession, _Item], _Result],
    say: Callable[[str], None],
    *,
    at_once: int = 2,
) -> list[_Result]:
    """Do the work of each item, a few at a time: while one waits for S3 or Glue, another computes.

    One that fails stops no other; its error is raised when all are done, and any further ones are said.

    Args:
        spark: the session whose Spark they use.
        items: what to work on.
        work: takes a session, whose settings no other work sees, and an item.
        say: takes a line.
        at_once: most items under way.

    Raises:
        EnvironmentProblemError: Spark's JVM has ended.
    """
    sessions: SimpleQueue[SparkSession] = SimpleQueue()
    with spoken("Spark's sessions"):
        for _ in range(at_once):
            sessions.put(spark.newSession())

    def one(item: _Item) -> _Result:
        session = sessions.get()
        try:
            return work(session, item)
        finally:
            sessions.put(session)

    with ThreadPoolExecutor(at_once) as pool:
        futures = [pool.submit(one, item) for item in items]
    errors = [error for error in (future.exception() for future in futures) if error is not None]
    for error in errors[1:]:
        say(str(error))
    if errors:
        raise errors[0]
    return [future.result() for future in futures]


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def _main(arguments: list[str], say: Callable[[str], None] = _say) -> int:
    parser = argparse.ArgumentParser(prog="python -m spark_jobs.session", description="Prepare this machine for Spark.")
    parser.add_argument("--fetch", action="store_true", required=True, help="fetch Spark's jars, once")
    parser.parse_args(arguments)
    try:
        check_java()
        if not in_image():
            fetch_jars(say)
    except LakehoseError as error:
        say(f"spark_jobs.session: {error}")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(_main(sys.argv[1:]))
