"""Text as values: exactly what is written, or the text itself."""

from datetime import UTC, datetime

import orjson
import pytest

from lake.contract import Field, ListOf, Primitive, StructOf
from lake.drops import zone
from spark_jobs.csv_values import moment, text_converter

BERLIN = zone("Europe/Berlin")


def value(kind, text):
    return orjson.dumps(text_converter(kind, BERLIN)(text)).decode()


@pytest.mark.parametrize(
    ("kind", "text", "expected"),
    [
        ("int", "17850", "17850"),
        ("int", "17850.0", "17850"),
        ("int", " +7 ", "7"),
        ("long", "-9223372036854775808", "-9223372036854775808"),
        ("long", "9223372036854775808", '"9223372036854775808"'),
        ("int", "5.5", '"5.5"'),
        ("int", "1_000", '"1_000"'),
        ("int", "٣", '"٣"'),
        ("int", "1e3", '"1e3"'),
        ("double", "2.55", "2.55"),
        ("double", "-.5e-3", "-0.0005"),
        ("double", "2,55", '"2,55"'),
        ("double", "NaN", '"NaN"'),
        ("double", "1e999", '"1e999"'),
        ("boolean", "TRUE", "true"),
        ("boolean", "no", "false"),
        ("boolean", "1", "true"),
        ("boolean", "0", "false"),
        ("boolean", "y", '"y"'),
        ("date", " 2013-02-28 ", '"2013-02-28"'),
        ("timestamp", "2010-12-01 08:26", '"2010-12-01T08:26:00"'),
        ("timestamp", "2010-12-01T08:26:00Z", '"2010-12-01T08:26:00Z"'),
        ("timestamptz", "2010-12-01 08:26:00", '"2010-12-01T07:26:00Z"'),
        ("timestamptz", "2010-07-01 08:26:00.25", '"2010-07-01T06:26:00.250000Z"'),
        ("timestamptz", "2010-12-01T08:26:00+00:00", '"2010-12-01T08:26:00Z"'),
        ("timestamptz", "1700000000000", '"1700000000000"'),
        ("timestamptz", "2010-12-01", '"2010-12-01"'),
        ("timestamptz", "2010-12-01T25:00:00", '"2010-12-01T25:00:00"'),
        ("timestamptz", "0001-01-01T00:00:00", '"0001-01-01T00:00:00"'),
        ("binary", "aGk=", '"aGk="'),
        ("string", " a ", '" a "'),
        ("string", "", '""'),
    ],
)
def test_a_cell_is_the_contracts_type_where_it_is_written_exactly_and_text_otherwise(kind, text, expected):
    assert value(Primitive(kind), text) == expected


@pytest.mark.parametrize(
    "kind", ["int", "long", "float", "double", "boolean", "date", "timestamp", "timestamptz", "binary"]
)
def test_an_empty_cell_is_no_value_where_it_is_no_text(kind):
    assert value(Primitive(kind), "") == "null"
    assert value(Primitive(kind), "  ") == "null"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2.50", "2.50"),
        ("007", "7"),
        (".1", "0.1"),
        ("0.1234567890123456789012345", "0.1234567890123456789012345"),
        ("1e999", '"1e999"'),
        ("two", '"two"'),
        ("", "null"),
    ],
)
def test_a_decimal_keeps_every_digit(text, expected):
    assert value(Primitive("decimal", 38, 25), text) == expected


def test_lists_and_objects_are_json_in_a_cell():
    home = StructOf((Field("city", Primitive("string")),))
    assert value(ListOf(Primitive("int")), "[1,\n 2]") == "[1,  2]"
    assert value(home, '{"city": "NY"}') == '{"city": "NY"}'
    assert value(home, "[1]") == '"[1]"'
    assert value(home, "{city}") == '"{city}"'
    assert value(home, "") == "null"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-11-20T10:00:00Z", datetime(2026, 11, 20, 10, tzinfo=UTC)),
        ("2026-11-20t10:00:00z", datetime(2026, 11, 20, 10, tzinfo=UTC)),
        ("2026-11-20 10:00", datetime(2026, 11, 20, 9, tzinfo=UTC)),
        ("2026-11-20 10:00:00 +0200", datetime(2026, 11, 20, 8, tzinfo=UTC)),
        (" 2026-11-20 ", datetime(2026, 11, 19, 23, tzinfo=UTC)),
        ("2026-11-20T10:00:00.123456789-08:00", datetime(2026, 11, 20, 18, 0, 0, 123456, tzinfo=UTC)),
        ("20261120", None),
        ("1612010112345", None),
        ("2026-02-30", None),
        ("20.11.2026", None),
        ("", None),
    ],
)
def test_a_moment_is_iso_8601_and_nothing_that_looks_alike(text, expected):
    assert moment(text, BERLIN) == expected
