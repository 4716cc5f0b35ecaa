"""Starting a job as a person or a cluster does."""

import json

import pytest
import typer

from lake.context import CommandContext
from lake.declaration import read_lake
from lake.errors import TerminalError
from spark_jobs.commands import Scope, run, run_job
from tests.spark_jobs.conftest import ROOT, declare

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


def test_what_is_named_twice_is_meant_once():
    scope = Scope.of(read_lake(LAKE), ["flights", "flights"], ["lga", "jfk", "lga"], None)
    assert (scope.datasets, scope.tenants, scope.owners) == (["flights"], ["lga", "jfk"], ["lga", "jfk"])


def test_a_declaration_that_is_not_there_is_named(capsys):
    assert run_job("compact", ["--lake", "nowhere.yaml"]) == 2
    assert capsys.readouterr().err == "compact: nowhere.yaml: no such file; name the declaration with --lake\n"


def test_a_job_runs_by_itself_and_prints_json_on_standard_output_only(world, python, ministack, tmp_path):
    world.deliver("a", [world.event(1), b"{bad"])
    declare(world, tmp_path)
    done = python("-m", "spark_jobs.ingest", "--lake", "lake.yaml", "--endpoint", ministack, "--json")
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


def test_without_an_end_it_takes_what_comes_until_it_is_asked_to_stop(world, started, ministack, tmp_path):
    declare(world, tmp_path)
    world.deliver("a", [world.event(1)])
    process = started("-m", "spark_jobs.ingest", "--endpoint", ministack, "--every", "1")
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
