"""What Spark is started with, and how a machine without Java is told so."""

import pytest

from lake.clients import Cloud
from lake.errors import EnvironmentProblemError
from spark_jobs.session import check_java, literal, settings


@pytest.fixture
def java(tmp_path, monkeypatch):
    """Make `JAVA_HOME` a folder whose java prints something."""

    def make(printed):
        program = tmp_path / "bin" / "java"
        program.parent.mkdir()
        program.write_text(f"#!/bin/sh\necho '{printed}' >&2\n")
        program.chmod(0o755)
        monkeypatch.setenv("JAVA_HOME", str(tmp_path))
        return program

    return make


@pytest.mark.parametrize(("printed", "version"), [('openjdk version "17.0.15"', 17), ('openjdk version "21" 2023', 21)])
def test_java_17_and_21_are_taken(java, printed, version):
    java(printed)
    assert check_java() == version


@pytest.mark.parametrize(
    ("printed", "version"), [('openjdk version "25.0.2"', "25"), ('java version "1.8.0_392"', "1")]
)
def test_another_java_is_named_with_what_to_do(java, printed, version):
    program = java(printed)
    expected = (
        f"Spark 4.1 runs on Java 17 or 21, and {program} is Java {version}: install OpenJDK 17 and set JAVA_HOME to it"
    )
    with pytest.raises(EnvironmentProblemError) as caught:
        check_java()
    assert str(caught.value) == expected


def test_a_java_that_tells_no_version_is_shown(java):
    java("hello")
    with pytest.raises(EnvironmentProblemError, match=r"doesn't tell a version \('hello"):
        check_java()


def test_no_java_at_all_is_said(monkeypatch, tmp_path):
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentProblemError, match="there is no java on PATH: install OpenJDK 17"):
        check_java()


def test_a_java_home_without_java_is_said(monkeypatch, tmp_path):
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(EnvironmentProblemError, match=f"JAVA_HOME is {tmp_path} holds none that runs"):
        check_java()


def test_on_aws_no_setting_names_an_endpoint():
    made = settings(Cloud("eu-west-1"))
    assert [name for name in made if "endpoint" in name] == ["spark.hadoop.fs.s3a.endpoint.region"]
    assert made["spark.sql.catalog.lake.client.region"] == "eu-west-1"


def test_a_local_endpoint_is_given_to_each_client():
    made = settings(Cloud("us-east-1", "http://127.0.0.1:4566"))
    assert {name: value for name, value in made.items() if "endpoint" in name or "path" in name or "ssl" in name} == {
        "spark.sql.catalog.lake.glue.endpoint": "http://127.0.0.1:4566",
        "spark.sql.catalog.lake.s3.endpoint": "http://127.0.0.1:4566",
        "spark.sql.catalog.lake.s3.path-style-access": "true",
        "spark.hadoop.fs.s3a.endpoint": "http://127.0.0.1:4566",
        "spark.hadoop.fs.s3a.endpoint.region": "us-east-1",
        "spark.hadoop.fs.s3a.path.style.access": "true",
        "spark.hadoop.fs.s3a.connection.ssl.enabled": "false",
    }


@pytest.mark.parametrize("text", ["plain", "it's", r"back\slash", r"\'; DROP TABLE x --", "é\n"])
def test_a_literal_is_the_same_text_in_sql(spark, text):
    assert spark.sql(f"SELECT {literal(text)}").collect()[0][0] == text
