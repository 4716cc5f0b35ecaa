from __future__ import annotations

import pytest

from athena.rendering import Column, TrinoType, column_of, java_double, renderer

VARCHAR = TrinoType("varchar", (2147483647,))
DOUBLE = TrinoType("double")
INTEGER = TrinoType("integer")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0"),
        (-0.0, "-0.0"),
        (1, "1.0"),
        (100.0, "100.0"),
        (0.1, "0.1"),
        (0.001, "0.001"),
        (0.0001, "1.0E-4"),
        (9999999.0, "9999999.0"),
        (1e7, "1.0E7"),
        (12345678.9, "1.23456789E7"),
        (-1.5e10, "-1.5E10"),
        (1e300, "1.0E300"),
        (5e-324, "5.0E-324"),
        (123456.789, "123456.789"),
        ("NaN", "NaN"),
        ("Infinity", "Infinity"),
        ("-Infinity", "-Infinity"),
    ],
)
def test_a_double_is_written_as_java_does(value, text):
    assert java_double(value) == text


@pytest.mark.parametrize(
    ("kind", "value", "text"),
    [
        (TrinoType("boolean"), True, "true"),
        (TrinoType("bigint"), 9007199254740993, "9007199254740993"),
        (TrinoType("decimal", (12, 2)), "12345678.90", "12345678.90"),
        (TrinoType("date"), "2013-01-31", "2013-01-31"),
        (TrinoType("timestamp", (6,)), "2013-01-31 05:06:07.123456", "2013-01-31 05:06:07.123"),
        (TrinoType("timestamp", (0,)), "2013-01-31 05:06:07", "2013-01-31 05:06:07.000"),
        (
            TrinoType("timestamp with time zone", (6,)),
            "2013-01-31 05:06:07.129999 UTC",
            "2013-01-31 05:06:07.129 UTC",
        ),
        (TrinoType("varbinary"), "AP96", "00 ff 7a"),
        (TrinoType("array", inner=(VARCHAR,)), ["a", None, "b"], "[a, null, b]"),
        (TrinoType("array", inner=(DOUBLE,)), [1, 1e8], "[1.0, 1.0E8]"),
        (TrinoType("map", inner=(VARCHAR, INTEGER)), {"x": 1, "y": None}, "{x=1, y=null}"),
        (TrinoType("map", inner=(TrinoType("boolean"), INTEGER)), {"true": 1}, "{true=1}"),
        (TrinoType("row", inner=(VARCHAR, DOUBLE), fields=("city", "size")), ["Oslo", 2], "{city=Oslo, size=2.0}"),
        (TrinoType("row", inner=(INTEGER, INTEGER), fields=(None, None)), [1, None], "{field0=1, field1=null}"),
        (
            TrinoType("array", inner=(TrinoType("row", inner=(TrinoType("timestamp", (6,)),), fields=("at",)),)),
            [["2013-01-31 05:06:07.123456"]],
            "[{at=2013-01-31 05:06:07.123}]",
        ),
        (TrinoType("array", inner=(VARCHAR,)), [], "[]"),
    ],
)
def test_a_value_is_written_as_athena_does(kind, value, text):
    assert renderer(kind)(value) == text


def test_a_decimal_column_tells_its_precision_and_scale():
    assert column_of("price", TrinoType("decimal", (12, 2))) == Column("price", "decimal", 12, 2)


def test_a_real_is_called_float():
    assert column_of("r", TrinoType("real")) == Column("r", "float", 17)


def test_a_timestamp_column_has_milliseconds():
    assert column_of("at", TrinoType("timestamp", (6,))) == Column("at", "timestamp", 3)


def test_a_column_info_has_all_that_clients_read():
    assert column_of("name", VARCHAR).as_column_info() == {
        "CatalogName": "hive",
        "SchemaName": "",
        "TableName": "",
        "Name": "name",
        "Label": "name",
        "Type": "varchar",
        "Precision": 2147483647,
        "Scale": 0,
        "Nullable": "UNKNOWN",
        "CaseSensitive": True,
    }


def test_a_type_signature_is_read_with_all_that_is_in_it():
    varchar = {"rawType": "varchar", "arguments": [{"kind": "LONG", "value": 9}]}
    row = {
        "rawType": "row",
        "arguments": [
            {"kind": "NAMED_TYPE", "value": {"fieldName": {"name": "a"}, "typeSignature": varchar}},
            {"kind": "NAMED_TYPE", "value": {"typeSignature": {"rawType": "double", "arguments": []}}},
        ],
    }
    found = TrinoType.parse({"rawType": "array", "arguments": [{"kind": "TYPE", "value": row}]})
    fields = TrinoType("row", inner=(TrinoType("varchar", (9,)), DOUBLE), fields=("a", None))
    assert found == TrinoType("array", inner=(fields,))
