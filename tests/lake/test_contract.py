from pathlib import Path

import pytest
from pyiceberg.transforms import parse_transform

from lake.contract import Field, ListOf, PartitionField, Primitive, StructOf, read_contract
from lake.contract_terms import _TAKES
from lake.errors import DeclarationError
from lake.tables import columns, iceberg_schema

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


TYPED = [
    "{name: page, logicalType: string}",
    "{name: born, logicalType: date}",
    "{name: seen, logicalType: timestamp, physicalType: timestamp_ntz}",
    "{name: price, logicalType: number}",
    "{name: exact, logicalType: number, physicalType: 'decimal(9,2)'}",
    "{name: spot, logicalType: object, properties: [{name: x, logicalType: number}]}",
    "{name: tags, logicalType: array, items: {logicalType: string}}",
]


def laid_out(value, what="partitionBy"):
    return HEAD + f"    customProperties: [{{property: lakehose.{what}, value: {value}}}]\n"


def test_terms_are_read_and_have_the_names_that_the_table_gives_them(tmp_path):
    given = "['day(born)', 'hour(seen)', 'bucket(008, exact)', 'truncate(4, page)', price]"
    found = contract(tmp_path, TYPED, laid_out(given)).partition
    assert [one.transform for one in found] == ["day", "hour", "bucket[8]", "truncate[4]", "identity"]
    assert [one.name for one in found] == ["born_day", "seen_hour", "exact_bucket8", "page_truncate4", "price"]


@pytest.mark.parametrize("transform", ["year", "month", "day", "hour", "bucket[4]", "truncate[4]", "identity"])
def test_a_transform_is_of_the_types_that_iceberg_has_it_for(transform):
    names = ("boolean", "int", "long", "float", "double", "date", "timestamp", "timestamptz", "string", "binary")
    kinds = {one: Primitive(one) for one in names} | {"decimal": Primitive("decimal", 9, 2)}
    schema = iceberg_schema(tuple(Field(name, kind) for name, kind in kinds.items()))
    taken = {one.name for one in schema.fields if parse_transform(transform).can_transform(one.field_type)}
    assert set(_TAKES.get(transform.partition("[")[0], kinds)) == taken


@pytest.mark.parametrize(
    ("term", "told"),
    [
        ("day(page)", "page is a string, and day is of: date, timestamp, timestamptz"),
        ("hour(born)", "born is a date, and hour is of: timestamp, timestamptz"),
        ("bucket(4, price)", "price is a double, and bucket is of: int, long, decimal, date"),
        ("truncate(4, born)", "born is a date, and truncate is of: int, long, decimal, string, binary"),
        ("bucket(0, page)", "of bucket, 1 to 2,147,483,647 are allowed"),
        ("truncate(0, page)", "of truncate, 1 to 2,147,483,647 are allowed"),
        ("bucket(2147483648, page)", "of bucket, 1 to 2,147,483,647 are allowed"),
        ("spot", "spot is a struct, and a column without parts is needed"),
        ("bucket(4, tags)", "tags is a list, and a column without parts is needed"),
    ],
)
def test_a_term_that_no_table_can_be_made_with_is_refused(tmp_path, term, told):
    said = refusal(tmp_path, TYPED, laid_out(f"['{term}']"))
    assert said.startswith(f"trips.yaml: lakehose.partitionBy: got '{term}': {told}")


def test_a_term_may_not_be_there_twice(tmp_path):
    said = refusal(tmp_path, TYPED, laid_out("['bucket(8, page)', 'bucket(08, page)']"))
    assert said == (
        "trips.yaml: lakehose.partitionBy: got bucket(8, page), bucket(08, page): 'page_bucket8' is there twice"
    )


@pytest.mark.parametrize(
    ("head", "name"), [(HEAD, "event_time_day"), (laid_out("['bucket(4, sequence)']"), "sequence_bucket4")]
)
def test_a_field_may_not_have_the_name_of_a_partition(tmp_path, head, name):
    said = refusal(tmp_path, [f"{{name: {name}, logicalType: string}}"], head)
    assert f"the table's partition would be named {name!r}, as a field is; give the field another name" in said
    assert contract(tmp_path, [f"{{name: {name}, logicalType: string}}"], laid_out(f"[{name}]")).partition


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("[spot]", "got 'spot', allowed are: born, dataset, "),
        ("[tags]", "(tags is a list)"),
        ("[page, born, page]", "got page, born, page: 'page' is there twice"),
        ("[spot.x]", "got 'spot.x', allowed are: born, "),
    ],
)
def test_a_sort_takes_different_columns_that_have_an_order(tmp_path, given, told):
    said = refusal(tmp_path, TYPED, laid_out(given, "sortBy"))
    assert said.startswith("trips.yaml: lakehose.sortBy: got ")
    assert told in said


@pytest.mark.parametrize("given", ["40,2", "0,0", "4,8", "39,0"])
def test_a_decimal_that_no_table_has_is_refused(tmp_path, given):
    said = refusal(tmp_path, [f"{{name: a, logicalType: number, physicalType: 'decimal({given})'}}"])
    assert said.startswith(f"trips.yaml: schema[trips].a: physicalType: got 'decimal({given})', allowed are 1 to 38 ")


@pytest.mark.parametrize("given", ["38,38", "38,0", "1,0"])
def test_the_longest_and_the_shortest_decimal_become_columns(tmp_path, given):
    found = contract(tmp_path, [f"{{name: a, logicalType: number, physicalType: 'decimal({given})'}}"])
    kind = iceberg_schema(columns(found)).find_field("a").field_type
    assert str(kind) == f"decimal({given.replace(',', ', ')})"


def test_a_field_within_another_may_not_be_there_twice(tmp_path):
    inner = "properties: [{name: x, logicalType: number}, {name: x, logicalType: string}]"
    assert "schema[trips].spot: 'x' is there twice" in refusal(
        tmp_path, [f"{{name: spot, logicalType: object, {inner}}}"]
    )
    assert "schema[trips].spots[]: 'x' is there twice" in refusal(
        tmp_path, [f"{{name: spots, logicalType: array, items: {{logicalType: object, {inner}}}}}"]
    )
