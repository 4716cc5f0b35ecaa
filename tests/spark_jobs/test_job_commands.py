"""Starting a job as a person or a cluster does."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from lake.context import CommandContext
from lake.declaration import read_lake
from lake.errors import TerminalError
from spark_jobs.commands import Scope, run, run_job

ROOT = Path(__file__).parents[2]
LAKE = ROOT / "lake.yaml"


def test_an_unknown_job_is_answered_with_the_known_ones():
    context = typer.Context(typer.main.get_command(typer.Typer(callback=lambda: None)))
    context.obj = CommandContext(LAKE)
    with pytest.raises(
        TerminalError,
        match=r"job: got 'injest', allowed are: compact, files, ingest, maintain; did you mean 'ingest'\?",
    ):
        run(context, "injest")


def test_an_undeclared_tenant_is_refused_before_spark_starts(capsys):
    assert run_job("ingest", ["--lake", str(LAKE), "--tenant", "jfx"]) == 2
    assert capsys.readouterr().err == "ingest: tenant: got 'jfx', allowed are: ewr, jfk, lga; did you mean 'jfk'?\n"


def test_an_owner_that_is_a_pooled_tenant_is_refused_with_both_ways_out(capsys):
    assert run_job("compact", ["--lake", str(LAKE), "--owner", "jfk"]) == 2
    said = capsys.readouterr().err
    assert said == "compact: owner: tenant 'jfk' is pooled; give --owner pooled, or --tenant jfk\n"


def test_a_tenant_that_is_not_one_of_the_owners_is_refused(capsys):
    assert run_job("ingest", ["--lake", str(LAKE), "--owner", "pooled", "--tenant", "ewr"]) == 2
    assert "tenant: got 'ewr', allowed are: jfk, lga (the tenants of 'pooled')" in capsys.readouterr().err


def test_the_pool_owns_its_tenants_tables_and_the_quarantine_they_share():
    lake = read_lake(LAKE)
    scope = Scope.of(lake, None, None, "pooled")
    assert (scope.tenants, scope.owners) == (["jfk", "lga"], ["jfk", "lga", "pooled"])
    assert Scope.of(lake, None, None, "ewr").owners == ["ewr"]
    assert Scope.of(lake, None, None, None).owners is None


def test_a_declaration_that_is_not_there_is_named(capsys):
    assert run_job("compact", ["--lake", "nowhere.yaml"]) == 2
    assert capsys.readouterr().err == "compact: nowhere.yaml: no such file; name the declaration with --lake\n"


def declare(world, folder):
    """Write a world's declaration as files."""
    contract = {
        "apiVersion": "v3.1.0",
        "kind": "DataContract",
        "id": "visits",
        "version": "1.2.0",
        "status": "active",
        "schema": [
            {
                "name": "visits",
                "logicalType": "object",
                # the tests' event ids are of 2024
                "customProperties": [{"property": "lakehose.dedupDays", "value": 3650}],
                "properties": [
                    {"name": "page", "logicalType": "string", "required": True},
                    {"name": "seconds", "logicalType": "integer", "physicalType": "int"},
                ],
            }
        ],
    }
    lake = {
        "company": world.lake.company,
        "environment": "test",
        "tenants": {"solo": {"tier": "dedicated"}},
        "datasets": {"visits": {"contract": "visits.yaml"}},
    }
    (folder / "visits.yaml").write_text(json.dumps(contract))
    (folder / "lake.yaml").write_text(json.dumps(lake))


def test_a_job_runs_by_itself_and_prints_json_on_standard_output_only(world, ministack, tmp_path):
    world.deliver("a", [world.event(1), b"{bad"])
    declare(world, tmp_path)
    done = subprocess.run(
        [sys.executable, "-m", "spark_jobs.ingest", "--lake", "lake.yaml", "--endpoint", ministack, "--json"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    printed = json.loads(done.stdout)
    assert printed["totals"]["solo"] == {
        "records": 2,
        "ingested": 1,
        "duplicates": 0,
        "quarantined": 1,
        "refused": 0,
        "unidentified": 1,
    }
    assert [one["batch"] for one in printed["batches"]] == ["visits/events/solo/solo/1"]
    assert "1 objects, 1 ingested, 1 quarantined" in done.stderr


def test_without_an_end_it_takes_what_comes_until_it_is_asked_to_stop(world, ministack, tmp_path):
    declare(world, tmp_path)
    world.deliver("a", [world.event(1)])
    command = [sys.executable, "-m", "spark_jobs.ingest", "--endpoint", ministack, "--every", "1"]
    process = subprocess.Popen(
        command,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert "1 ingested" in process.stdout.readline()
        world.deliver("b", [world.event(2), world.event(1)])
        assert "2 records, 1 ingested, 1 duplicates" in process.stdout.readline()
        process.terminate()
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0, said
    assert "Traceback" not in said
    assert [row["sequence"] for row in world.rows("solo")] == [1, 2]


def test_only_ingest_goes_on_without_an_end(capsys):
    assert run_job("compact", ["--lake", str(LAKE), "--every", "5"]) == 2
    assert capsys.readouterr().err == "compact: --every and --relist: got job 'compact', allowed is ingest\n"
