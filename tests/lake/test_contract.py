from pathlib import Path

import pytest

from lake.contract import ListOf, PartitionField, Primitive, StructOf, read_contract
from lake.errors import DeclarationError

ROOT = Path(__file__).parents[2]
HEAD = """
apiVersion: v3.1.0
kind: DataContract
id: trips
version: 1.2.3
status: active
schema:
  - name: trips
"""


def contract(tmp_path, properties, head=HEAD):
    path = tmp_path / "trips.yaml"
    path.write_text(head + "    properties:\n" + "".join(f"      - {one}\n" for one in properties))
    return read_contract(path, "trips")


def refusal(tmp_path, properties, head=HEAD):
    with pytest.raises(DeclarationError) as caught:
        contract(tmp_path, properties, head)
    return str(caught.value).replace(f"{tmp_path}/", "")


def test_the_flights_contract_is_partitioned_by_month():
    found = read_contract(ROOT / "contracts" / "flights.yaml", "flights")
    assert found.version == "1.0.0"
    assert found.partition == (PartitionField("month", "event_time"),)
    assert len(found.fields) == 16
    assert found.required_names()[:2] == ["carrier", "flight"]


def test_every_logical_type_has_its_iceberg_type(tmp_path):
    found = contract(
        tmp_path,
        [
            "{name: a, logicalType: string}",
            "{name: b, logicalType: integer}",
            "{name: c, logicalType: integer, physicalType: int}",
            "{name: d, logicalType: number}",
            "{name: e, logicalType: number, physicalType: 'decimal(10,2)'}",
            "{name: f, logicalType: boolean}",
            "{name: g, logicalType: date}",
            "{name: h, logicalType: timestamp}",
            "{name: i, logicalType: array, items: {logicalType: string}}",
            "{name: j, logicalType: object, properties: [{name: k, logicalType: number}]}",
        ],
    )
    assert [one.type for one in found.fields[:8]] == [
        Primitive("string"),
        Primitive("long"),
        Primitive("int"),
        Primitive("double"),
        Primitive("decimal", 10, 2),
        Primitive("boolean"),
        Primitive("date"),
        Primitive("timestamptz"),
    ]
    assert found.fields[8].type == ListOf(Primitive("string"))
    nested = found.fields[9].type
    assert isinstance(nested, StructOf)
    assert nested.fields[0].name == "k"


def test_a_key_that_the_standard_does_not_know_is_refused_by_its_path(tmp_path):
    said = refusal(tmp_path, ["{name: a, logicalType: string, requierd: true}"])
    assert said == (
        "trips.yaml: schema[trips].properties[a].requierd: the Open Data Contract Standard v3.1 has no such key"
    )


def test_an_unknown_type_is_refused_with_the_known_ones(tmp_path):
    said = refusal(tmp_path, ["{name: a, logicalType: strnig}"])
    assert "schema[trips].a: logicalType: got 'strnig', allowed are: array, boolean" in said
    assert "did you mean 'string'?" in said


def test_a_physical_type_that_does_not_fit_is_refused(tmp_path):
    said = refusal(tmp_path, ["{name: a, logicalType: integer, physicalType: varchar}"])
    assert "physicalType of a integer: got 'varchar', allowed are: bigint, decimal(p,s), int, integer, long" in said


def test_a_field_may_not_take_a_name_of_the_envelope(tmp_path):
    assert "'event_id' is a name of the event's envelope" in refusal(
        tmp_path, ["{name: event_id, logicalType: string}"]
    )


def test_a_field_may_not_be_there_twice(tmp_path):
    said = refusal(tmp_path, ["{name: a, logicalType: string}", "{name: a, logicalType: number}"])
    assert "'a' is there twice" in said


def test_a_field_name_with_capitals_is_refused_as_glue_would_fold_it(tmp_path):
    assert "field name: got 'Gate', allowed are a-z, 0-9 and _" in refusal(
        tmp_path, ["{name: Gate, logicalType: string}"]
    )


def test_a_partition_by_an_unknown_column_is_refused(tmp_path):
    head = HEAD + "    customProperties: [{property: lakehose.partitionBy, value: ['day(evnt_time)']}]\n"
    said = refusal(tmp_path, ["{name: a, logicalType: string}"], head)
    assert "lakehose.partitionBy: got 'evnt_time', allowed are: a, dataset, event_id, event_time" in said


def test_an_unknown_property_of_ours_is_refused_and_others_are_left_alone(tmp_path):
    head = HEAD + "    customProperties: [{property: other.tool, value: 1}, {property: lakehose.sortby, value: [a]}]\n"
    said = refusal(tmp_path, ["{name: a, logicalType: string}"], head)
    assert "got 'lakehose.sortby', allowed are: lakehose.clockSkewMinutes, lakehose.dedupDays, " in said


def test_a_contract_of_another_dataset_is_refused(tmp_path):
    path = tmp_path / "trips.yaml"
    path.write_text(HEAD)
    with pytest.raises(DeclarationError, match="no object has the dataset's name: got 'rides', allowed are: trips"):
        read_contract(path, "rides")


def test_a_version_that_is_none_is_refused(tmp_path):
    said = refusal(tmp_path, ["{name: a, logicalType: string}"], HEAD.replace("1.2.3", "v1"))
    assert said == "trips.yaml: version: got 'v1', allowed is MAJOR.MINOR.PATCH, as in 1.0.0"


@pytest.mark.parametrize("value", ["0", "seven", "true", "[7]", "4000"])
def test_a_window_that_is_no_number_of_days_is_refused_with_what_is_allowed(tmp_path, value):
    head = HEAD + f"    customProperties: [{{property: lakehose.dedupDays, value: {value}}}]\n"
    said = refusal(tmp_path, ["{name: a, logicalType: string}"], head)
    assert "lakehose.dedupDays: got " in said
    assert said.endswith("allowed are 1 to 3650")


ZORDERED = HEAD + "    customProperties: [{property: lakehose.zorderBy, value: [LIST]}]\n"
FIELDS = ["{name: a, logicalType: string}", "{name: b, logicalType: array, items: {logicalType: string}}"]


def test_columns_that_files_are_told_apart_by_are_read(tmp_path):
    found = contract(tmp_path, FIELDS, ZORDERED.replace("LIST", "a, event_time"))
    assert (found.zorder, found.sort) == (("a", "event_time"), ("event_time",))


@pytest.mark.parametrize("given", ["a", "a, a", "a, tenant, event_id, sequence, event_time"])
def test_z_order_takes_two_to_four_different_columns(tmp_path, given):
    said = refusal(tmp_path, FIELDS, ZORDERED.replace("LIST", given))
    assert said == f"trips.yaml: lakehose.zorderBy: got {given}, allowed are 2 to 4 different columns"


@pytest.mark.parametrize("given", ["b", "c"], ids=["a list", "none of it"])
def test_z_order_takes_columns_that_have_an_order(tmp_path, given):
    said = refusal(tmp_path, FIELDS, ZORDERED.replace("LIST", f"a, {given}"))
    assert said.startswith(f"trips.yaml: lakehose.zorderBy: got '{given}', allowed are: a, dataset, event_id, ")
