"""What each change of a contract asks of its version, and the command that CI runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lake.commands import contract
from lake.contract import Contract, Field, ListOf, PartitionField, Primitive, StructOf
from lake.evolution import Step, compare, is_wider, needed_step, step_between

ROOT = Path(__file__).parents[2]
INT, LONG, STRING = Primitive("int"), Primitive("long"), Primitive("string")
BASE = Contract("visits", "1.2.0", (Field("page", STRING, required=True), Field("n", INT)), (), ("event_time",))


def with_fields(*fields):
    return replace(BASE, fields=fields)


PAGE, N = BASE.fields


@pytest.mark.parametrize(
    ("new", "step", "sentence"),
    [
        (with_fields(PAGE, N, Field("x", STRING)), Step.MINOR, "is new"),
        (with_fields(PAGE, replace(N, type=LONG)), Step.MINOR, "was int, and is long, which holds all of it"),
        (with_fields(replace(PAGE, required=False), N), Step.MINOR, "is no longer required"),
        (with_fields(PAGE, replace(N, description="n")), Step.PATCH, "has another description"),
        (with_fields(PAGE, replace(N, pii=True)), Step.PATCH, "is personal data now"),
        (with_fields(PAGE, N, Field("x", STRING, required=True)), Step.MAJOR, "is new and required"),
        (with_fields(PAGE), Step.MAJOR, "is gone"),
        (with_fields(PAGE, replace(N, type=STRING)), Step.MAJOR, "was int, and is string"),
        (with_fields(PAGE, replace(N, required=True)), Step.MAJOR, "is required now"),
        (replace(BASE, partition=(PartitionField("day", "event_time"),)), Step.MAJOR, "partitionBy is another"),
        (replace(BASE, sort=("page",)), Step.PATCH, "sortBy was event_time, and is page"),
        (replace(BASE, dedup_days=7), Step.PATCH, "dedupDays was 365, and is 7"),
    ],
)
def test_a_change_asks_for_its_step(new, step, sentence):
    (change,) = compare(BASE, new)
    assert change.step is step
    assert sentence in change.sentence


def test_nothing_changed_asks_for_nothing():
    assert needed_step(compare(BASE, BASE)) is Step.NONE


def test_what_is_within_objects_and_lists_is_compared_too():
    old = with_fields(Field("a", ListOf(StructOf((Field("b", INT),)))))
    new = with_fields(Field("a", ListOf(StructOf((Field("b", LONG), Field("c", STRING))))))
    assert [(one.path, one.step) for one in compare(old, new)] == [("a[].b", Step.MINOR), ("a[].c", Step.MINOR)]


def test_a_decimal_widens_by_its_digits_and_never_by_its_scale():
    assert is_wider(Primitive("decimal", 10, 2), Primitive("decimal", 12, 2))
    assert not is_wider(Primitive("decimal", 10, 2), Primitive("decimal", 12, 3))
    assert not is_wider(Primitive("decimal", 12, 2), Primitive("decimal", 10, 2))


@pytest.mark.parametrize(
    ("old", "new", "step"),
    [
        ("1.2.0", "1.2.0", Step.NONE),
        ("1.2.0", "1.2.1", Step.PATCH),
        ("1.2.9", "1.10.0", Step.MINOR),
        ("1.2.0", "2.0.0", Step.MAJOR),
        ("1.2.0", "1.1.9", None),
    ],
)
def test_the_step_between_two_versions(old, new, step):
    assert step_between(old, new) is step


@pytest.fixture
def diff(tmp_path):
    """Run `lakehose contract diff` on the flights' contract and a changed one."""
    text = (ROOT / "contracts" / "flights.yaml").read_text()

    def run(*changes, options=()):
        changed = text
        for old, new in changes:
            assert old in changed
            changed = changed.replace(old, new, 1)
        (tmp_path / "old.yaml").write_text(text)
        (tmp_path / "new.yaml").write_text(changed)
        return CliRunner().invoke(contract, [str(tmp_path / "old.yaml"), str(tmp_path / "new.yaml"), *options])

    return run


NEW_FIELD = ("      - {name: carrier", "      - {name: gate, logicalType: string}\n      - {name: carrier")


def test_a_new_field_under_a_new_minor_version_is_accepted(diff):
    done = diff(NEW_FIELD, ("version: 1.0.0", "version: 1.1.0"))
    assert (done.exit_code, done.output) == (0, "minor  gate is new\nflights: 1.0.0 to 1.1.0: accepted\n")


def test_a_new_field_under_the_same_version_is_refused(diff):
    done = diff(NEW_FIELD)
    assert done.exit_code == 1
    assert "flights: 1.0.0 to 1.0.0: REFUSED: the changes ask for a new minor version" in done.output


def test_a_breaking_change_is_refused_under_any_version_with_the_way_out(diff):
    done = diff(("physicalType: int, required: true, description: Flight number", "description: Flight number"))
    assert done.exit_code == 1
    done = diff(("{name: dest,", "{name: destination,"), ("version: 1.0.0", "version: 2.0.0"), options=["--json"])
    assert done.exit_code == 1
    told = json.loads(done.output)
    assert (told["needed"], told["accepted"]) == ("major", False)
    assert {one["path"] for one in told["changes"]} == {"destination", "dest"}


def test_a_version_that_goes_down_is_refused(diff):
    done = diff(("version: 1.0.0", "version: 0.9.0"))
    assert done.exit_code == 1
    assert "REFUSED: a version can't go down" in done.output


def test_a_new_major_version_with_a_table_of_its_own_is_accepted(diff):
    beside = (("  - name: flights\n", "  - name: flights_v2\n"), ("{name: dest,", "{name: destination,"))
    done = diff(*beside, ("version: 1.0.0", "version: 2.0.0"))
    assert done.exit_code == 0, done.output
    assert "flights 1.0.0 to flights_v2 2.0.0: accepted: a new major version with a table of its own" in done.output
    done = diff(*beside, ("version: 1.0.0", "version: 1.1.0"), options=["--json"])
    assert (done.exit_code, json.loads(done.output)["accepted"]) == (1, False)
