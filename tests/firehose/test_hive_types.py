"""Type strings of Glue tables' columns."""

from __future__ import annotations

import pyarrow as pa
import pytest

from firehose.hive_types import HiveTypeError, ListOf, MapOf, Scalar, StructOf, arrow_type, parse_hive_type


@pytest.mark.parametrize(
    ("text", "arrow"),
    [
        ("boolean", pa.bool_()),
        ("tinyint", pa.int8()),
        ("SMALLINT", pa.int16()),
        ("int", pa.int32()),
        ("integer", pa.int32()),
        ("bigint", pa.int64()),
        ("float", pa.float32()),
        ("double precision", pa.float64()),
        ("decimal", pa.decimal128(10, 0)),
        ("decimal(38, 10)", pa.decimal128(38, 10)),
        ("string", pa.string()),
        ("char(255)", pa.string()),
        ("varchar( 65535 )", pa.string()),
        ("date", pa.date32()),
        ("timestamp", pa.timestamp("us")),
        ("array<map<string,int>>", pa.list_(pa.field("element", pa.map_(pa.string(), pa.int32())))),
        ("struct<a:int,b:array<string>>", pa.struct([("a", pa.int32()), ("b", pa.list_(pa.string()))])),
    ],
)
def test_every_type_has_its_arrow_type(text, arrow):
    assert arrow_type(parse_hive_type(text)).equals(arrow)


def test_parts_are_parsed_all_the_way_down():
    assert parse_hive_type("array<map<string,struct<`or``der`:decimal(3,1)>>>") == ListOf(
        MapOf(Scalar("string"), StructOf((("or`der", Scalar("decimal", 3, 1)),)))
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a type is needed, got 'the end'"),
        ("binary", "binary can't be converted from JSON"),
        ("array<binary>", "binary can't be converted from JSON"),
        ("uniontype<int,string>", "uniontype can't be converted"),
        ("text", "no such type: text"),
        ("array<string", "'>' is needed, got 'the end'"),
        ("struct<a:>", "a type is needed, got '>'"),
        ("struct<:string>", "a field's name is needed, got ':'"),
        ("struct<a:int,A:string>", "field A is there twice"),
        ("map<array<string>,int>", "the key of a map is a type without parts"),
        ("map<string>", "',' is needed, got '>'"),
        ("varchar(6 5535)", "')' is needed, got '5535'"),
        ("varchar(65536)", "varchar has a length of 1 to 65535"),
        ("char", "char has a length of 1 to 255"),
        ("decimal(39)", "a decimal has 1 to 38 digits"),
        ("decimal(3,4)", "a decimal has 1 to 38 digits, and at most these behind the point"),
        ("array<string>,", "unexpected ',' behind it"),
        ("int;", "unexpected ';'"),
        ("array<" * 40 + "int" + ">" * 40, "deeper than 32 levels"),
    ],
)
def test_what_is_no_type_is_refused_by_name(text, said):
    with pytest.raises(HiveTypeError) as caught:
        parse_hive_type(text)
    assert said in str(caught.value)
