"""Clients that others wrote, unmodified: PyAthena's cursors; and our own command."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path

import pyathena
import pytest
import typer
from pyathena.error import OperationalError
from pyathena.pandas.cursor import PandasCursor
from typer.testing import CliRunner

from athena.commands import query
from lake.context import CommandContext


@pytest.fixture
def connection(lake_cloud, results, tables, monkeypatch):
    for name, value in lake_cloud.environment().items():
        monkeypatch.setenv(name, value)
    return pyathena.connect(s3_staging_dir=results, schema_name="shop", poll_interval=0.1)


def test_pyathenas_cursor_reads_values_in_pythons_types(connection):
    with connection.cursor() as cursor:
        cursor.execute("SELECT id, flag, big, huge, price, name, day, at, raw, tags FROM everything ORDER BY id")
        first, second = cursor.fetchall()
    assert first == (
        1,
        True,
        9007199254740993,
        1.5e10,
        Decimal("12345678.90"),
        'say "hi", ok',
        dt.date(2013, 1, 31),
        dt.datetime(2013, 1, 31, 5, 6, 7, 123000),  # noqa: DTZ001 - a timestamp without a zone
        b"\x00\xffz",
        ["a", None, "b"],
    )
    assert second == (2, *[None] * 9)


def test_pyathenas_cursor_reads_every_page(connection):
    with connection.cursor() as cursor:
        cursor.execute("SELECT n FROM numbers ORDER BY n")
        assert [row[0] for row in cursor] == list(range(2500))


def test_pyathenas_cursor_fills_parameters(connection):
    with connection.cursor() as cursor:
        cursor.execute("SELECT n FROM numbers WHERE n = ?", ["7"], paramstyle="qmark")
        assert cursor.fetchall() == [(7,)]


def test_pyathenas_cursor_tells_why_a_query_failed(connection):
    with connection.cursor() as cursor, pytest.raises(OperationalError, match="COLUMN_NOT_FOUND: line 1:8"):
        cursor.execute("SELECT x FROM numbers")


def test_pyathenas_pandas_cursor_reads_the_result_file(connection):
    with connection.cursor(PandasCursor) as cursor:
        frame = cursor.execute("SELECT id, name, empty, price, at FROM everything ORDER BY id").as_pandas()
    assert frame["id"].tolist() == [1, 2]
    assert frame["name"].tolist()[0] == 'say "hi", ok'
    assert frame["name"].isna().tolist() == [False, True]
    assert frame["price"].tolist()[0] == Decimal("12345678.90")
    assert str(frame["at"].tolist()[0]) == "2013-01-31 05:06:07.123000"


def test_pyathenas_pandas_cursor_takes_a_change(connection):
    with connection.cursor(PandasCursor) as cursor:
        assert cursor.execute("DELETE FROM numbers WHERE n < 0").as_pandas().empty


LAKE = Path(__file__).parents[2] / "lake.yaml"


@pytest.fixture
def run(lake_cloud, tables):
    """`lakehose query` on the lake of this repository, whose first tenant has a bucket here."""
    lake = CommandContext(LAKE, lake_cloud.endpoint).lake()
    owner = lake.tenants[0].id
    lake_cloud.s3.create_bucket(Bucket=lake.names.bucket(owner))
    app = typer.Typer()
    app.command()(query)

    def invoke(*arguments):
        return CliRunner().invoke(app, arguments, obj=CommandContext(LAKE, lake_cloud.endpoint))

    return invoke


def test_the_command_prints_a_table_and_what_it_took(run):
    done = run("SELECT n, CAST(NULL AS varchar) AS a FROM numbers WHERE n = 7", "--database", "shop")
    assert done.exit_code == 0, done.output
    assert [line.split() for line in done.stdout.splitlines()] == [["n", "a"], ["7", "NULL"]]
    assert ": 1 rows in " in done.stderr
    assert done.stderr.rstrip().endswith("scanned")


def test_the_command_prints_csv(run):
    done = run("SELECT n, half FROM numbers WHERE n < 2 ORDER BY n", "--database", "shop", "--format", "csv")
    assert done.stdout == "n,half\n0,0.0\n1,0.5\n"


def test_the_command_prints_json_of_a_file(run, tmp_path):
    statement = tmp_path / "q.sql"
    statement.write_text("SELECT 'ø' AS letter, CAST(NULL AS bigint) AS nothing;\n", encoding="utf-8")
    done = run("--file", str(statement), "--tenant", "ewr", "--format", "json")
    assert json.loads(done.stdout) == {"letter": "ø", "nothing": None}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give one statement"),
        (["SELECT 1", "--file", "x.sql"], "give one statement"),
        (["--file", "nope.sql"], "--file nope.sql: can't be read"),
        (["SELECT 1", "--tenant", "ewr", "--database", "shop"], "not both"),
        (["SELECT 1", "--tenant", "erw"], "did you mean 'ewr'"),
    ],
)
def test_the_command_says_what_is_wrong_with_what_it_was_given(run, arguments, message):
    done = run(*arguments)
    assert message in str(done.exception)
    assert done.exception.exit_code == 2
