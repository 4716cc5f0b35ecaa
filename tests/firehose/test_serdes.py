"""Records read as rows by both deserializers."""

from __future__ import annotations

import json
import time
import tracemalloc
from datetime import date, datetime
from decimal import Decimal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from firehose.columnar import columnar
from firehose.conversion import Conversion, ConvertFormat, serde_of
from firehose.hive_types import parse_hive_type
from firehose.processing import Chunk
from firehose.serdes import ConversionError, RowReader

OPENX, HIVE = {"OpenXJsonSerDe": {}}, {"HiveJsonSerDe": {}}
COLUMNS = {
    "id": "string",
    "qty": "int",
    "price": "double",
    "tags": "array<string>",
    "person": "struct<name:string,age:int>",
    "items": "array<struct<sku:string,qty:int>>",
    "attrs": "map<string,array<string>>",
}
PARSE, MALFORMED = "DataFormatConversion.ParseError", "DataFormatConversion.MalformedData"
SCHEMA = "Data does not match the schema. "


def reader(deserializer=OPENX, **columns):
    given = columns or COLUMNS
    return RowReader([(name, parse_hive_type(hive)) for name, hive in given.items()], serde_of(deserializer))


def rows(raw, deserializer=OPENX, **columns):
    return reader(deserializer, **columns).rows(raw.encode() if isinstance(raw, str) else raw)


def value(text, hive, deserializer=OPENX):
    """Read one value of one column."""
    [[found]] = rows(f'{{"c":{text}}}', deserializer, c=hive)
    return found


def refused(raw, deserializer=OPENX, **columns):
    with pytest.raises(ConversionError) as caught:
        rows(raw, deserializer, **columns)
    return caught.value.code, str(caught.value)


def micros(*moment):
    return round((datetime(*moment) - datetime(1970, 1, 1)).total_seconds() * 1_000_000)  # noqa: DTZ001 - without a zone


@pytest.mark.parametrize("hive", ["double", "float", "decimal(10,2)", "timestamp", "int", "bigint", "date"])
@pytest.mark.parametrize("start", ["", "-", "."])
def test_digits_that_end_in_no_number_take_no_time(hive, start):
    started = time.process_time()
    with pytest.raises(ConversionError):
        rows(f'{{"c":"{start}{"1" * 300_000}x"}}', c=hive)
    assert time.process_time() - started < 2  # an hour where digits are given back


def test_missing_members_are_null_and_unknown_ones_dropped():
    assert rows('{"qty":1,"more":2,"id":null}', id="string", qty="int", price="double") == [[None, 1, None]]


@pytest.mark.parametrize("raw", ['{"qty":1}{"qty":2}', '{"qty":1}\n{"qty":2}\n', ' {"qty":1} \t{"qty":2}\r\n'])
def test_each_document_of_a_record_is_a_row(raw):
    assert rows(raw, qty="int") == [[1], [2]]


@pytest.mark.parametrize(
    ("raw", "code", "said"),
    [
        ("", MALFORMED, "The record was empty or contained only whitespace."),
        (" \n", MALFORMED, "The record was empty or contained only whitespace."),
        ("1", MALFORMED, "The input JSON contained a primitive at the top level."),
        ('[{"qty":1}]', MALFORMED, f"{SCHEMA}An array of JSON documents is not a valid input."),
        ('{"qty":1}[]', MALFORMED, f"{SCHEMA}An array of JSON documents is not a valid input."),
        ('{"qty":1},{"qty":2}', PARSE, "Encountered malformed JSON."),
        ('{"qty":1', PARSE, "Encountered malformed JSON."),
        ("hello", PARSE, "Encountered malformed JSON."),
        ('{"qty":NaN}', PARSE, "Encountered malformed JSON. NaN is not JSON"),
        (b'{"id":"\xff"}', PARSE, "Encountered malformed JSON. not UTF-8 at byte 7"),
        ('{"id":"\\ud800"}', PARSE, "Encountered malformed JSON. half of a surrogate pair"),
        ('{"qty":' + "9" * 5000 + "}", PARSE, "Encountered malformed JSON."),
        ('{"id":' + "[" * 200 + "1.5" + "]" * 200 + "}", PARSE, "Encountered malformed JSON. more than 100 levels"),
    ],
)
def test_what_is_no_document_is_refused(raw, code, said):
    found, message = refused(raw)
    assert (found, message[: len(said)]) == (code, said)


def test_a_byte_order_mark_is_skipped():
    assert rows(b'\xef\xbb\xbf{"qty":1}', qty="int") == [[1]]


def test_one_document_that_does_not_fit_refuses_the_record():
    assert refused('{"qty":1}{"qty":"x"}') == (MALFORMED, f'{SCHEMA}For input string: "x"')


@pytest.mark.parametrize("deserializer", [OPENX, HIVE])
def test_names_match_in_any_case_at_every_level(deserializer):
    assert rows('{"ID":"a","PERSON":{"Name":"Bob","AGE":2}}', deserializer, id="string", person=COLUMNS["person"]) == [
        ["a", {"name": "Bob", "age": 2}]
    ]


def test_an_exact_name_comes_before_one_in_another_case():
    assert rows('{"id":"exact","ID":"other"}', id="string") == [["exact"]]
    assert rows('{"ID":"other","id":"exact"}', id="string") == [["exact"]]


def test_case_counts_where_it_is_asked_for():
    deserializer = {"OpenXJsonSerDe": {"CaseInsensitive": False}}
    found = rows('{"ID":"x","person":{"NAME":"Bob","age":2},"attrs":{"Kk":["v"]}}', deserializer)
    assert found == [[None, None, None, None, {"name": None, "age": 2}, None, [("Kk", ["v"])]]]


def test_names_are_mapped_and_dots_are_underscores():
    given = {"ConvertDotsInJsonKeysToUnderscores": True, "ColumnToJsonKeyMappings": {"ts": "TimeStamp"}}
    columns = {"ts": "bigint", "a_b": "int", "s": "struct<c_d:int>"}
    for raw in ('{"timestamp":7,"A.b":1,"s":{"c.D":2}}', '{"TimeStamp":7,"a_b":1,"s":{"c_d":2}}'):
        assert rows(raw, {"OpenXJsonSerDe": given}, **columns) == [[7, 1, {"c_d": 2}]]


def test_openx_lowers_names_that_are_data_and_hive_does_not():
    raw = '{"attrs":{"MixedKey":["v"]}}'
    assert rows(raw, attrs=COLUMNS["attrs"]) == [[[("mixedkey", ["v"])]]]
    assert rows(raw, HIVE, attrs=COLUMNS["attrs"]) == [[[("MixedKey", ["v"])]]]
    assert value('{"Outer":[{"Inner":1.50}]}', "string") == '{"outer":[{"inner":1.50}]}'


@pytest.mark.parametrize(
    ("text", "hive", "found"),
    [
        ('"solo"', "array<string>", ["solo"]),
        ('{"sku":"x"}', "array<struct<sku:string,qty:int>>", [{"sku": "x", "qty": None}]),
        ('["Zoe",9,"more"]', "struct<name:string,age:int>", {"name": "Zoe", "age": 9}),
        ('["Zoe"]', "struct<name:string,age:int>", {"name": "Zoe", "age": None}),
        ("{}", "struct<name:string,age:int>", {"name": None, "age": None}),
        ("[1,null,true]", "array<string>", ["1", None, "true"]),
        ('{"1":null}', "map<int,string>", [(1, None)]),
        ('{"K":1,"k":2}', "map<string,int>", [("k", 2)]),
        ("[[1.0]]", "array<string>", ["[1.0]"]),
        ('" 12 "', "int", 12),
        ('"1.5"', "double", 1.5),
        ("1", "double", 1.0),
        ("123456789012345678901234567890", "double", 1.2345678901234568e29),
        ("-128", "tinyint", -128),
        ("9223372036854775807", "bigint", 2**63 - 1),
        ('"TRUE"', "boolean", True),
        ("1.10", "string", "1.1"),
        ("1e10", "string", "1.0E10"),
        ("0.00012", "string", "1.2E-4"),
        ("1e-3", "string", "0.001"),
        ("123456789012345678901234567890", "string", "123456789012345678901234567890"),
        ("1.005", "decimal(10,2)", Decimal("1.01")),
        ("-1.005", "decimal(10,2)", Decimal("-1.01")),
        (
            '"12345678901234567890123456789.123456789"',
            "decimal(38,9)",
            Decimal("12345678901234567890123456789.123456789"),
        ),
        (
            "12345678901234567890123456789.123456789",
            "decimal(38,9)",
            Decimal("12345678901234567890123456789.123456789"),
        ),
        ("1e-999999999", "decimal(10,2)", Decimal("0.00")),
        ("0e999999999", "decimal(10,2)", Decimal("0.00")),
        ('"2013-5-7"', "date", (date(2013, 5, 7) - date(1970, 1, 1)).days),
        ('"2017-02-07T15:13:01.39256Z"', "timestamp", micros(2017, 2, 7, 15, 13, 1, 392560)),
        ('"2017-02-07T15:13:01"', "timestamp", micros(2017, 2, 7, 15, 13, 1)),
        ('"2017-02-07T15:13:01.123456789Z"', "timestamp", micros(2017, 2, 7, 15, 13, 1, 123456)),
        ('"2017-2-7 5:13:01.14"', "timestamp", micros(2017, 2, 7, 5, 13, 1, 140000)),
        ("1518033528", "timestamp", micros(2018, 2, 7, 19, 58, 48)),
        ("1518033528123", "timestamp", micros(2018, 2, 7, 19, 58, 48, 123000)),
        ("1518033528.123", "timestamp", micros(2018, 2, 7, 19, 58, 48, 123000)),
        ('"1518033528.123"', "timestamp", micros(2018, 2, 7, 19, 58, 48, 123000)),
        ("-1.5", "timestamp", -1_500_000),
        ('"0001-01-01 00:00:00"', "timestamp", micros(1, 1, 1)),
        ('"9999-12-31T23:59:59.999999Z"', "timestamp", micros(9999, 12, 31, 23, 59, 59) + 999_999),
    ],
)
def test_openx_makes_of_a_value_what_the_column_needs(text, hive, found):
    assert value(text, hive) == found


@pytest.mark.parametrize(
    ("text", "hive", "said"),
    [
        ('"oops"', "double", 'For input string: "oops"'),
        ("1.5", "int", 'For input string: "1.5"'),
        ("true", "int", 'For input string: "true"'),
        ("128", "tinyint", "Value 128 is out of range for type tinyint."),
        ("9223372036854775808", "bigint", "Value 9223372036854775808 is out of range for type bigint."),
        ("1e39", "float", "Value 1e+39 is out of range for type float."),
        ("1e999", "double", "Value 1e999 is out of range for type double."),
        ('"NaN"', "double", 'For input string: "NaN"'),
        ('"yes"', "boolean", 'For input string: "yes"'),
        ("1", "boolean", 'For input string: "1"'),
        ("100", "decimal(3,1)", "Value 100 is out of range for type decimal(3,1)."),
        ("99.95", "decimal(3,1)", "Value 99.95 is out of range for type decimal(3,1)."),
        ("1e999999999", "decimal(38,0)", "Value 1e999999999 is out of range for type decimal(38,0)."),
        ("20130507", "date", 'For input string: "20130507"'),
        ('"2013-02-30"', "date", 'For input string: "2013-02-30"'),
        ('"2017-02-07T15:13:01+00:00"', "timestamp", 'For input string: "2017-02-07T15:13:01+00:00"'),
        ('"2017-2-7T15:13:01Z"', "timestamp", 'For input string: "2017-2-7T15:13:01Z"'),
        ('"2017-02-07T24:00:00Z"', "timestamp", 'For input string: "2017-02-07T24:00:00Z"'),
        ("1e30", "timestamp", "Value 1e30 is out of range for type timestamp."),
        ("1e999999999999", "timestamp", 'For input string: "1e999999999999"'),
        ("42", "struct<a:int>", "Data is not JSONObject  but java.lang.Long with value 42"),
        ("1.5", "struct<a:int>", "Data is not JSONObject  but java.lang.Double with value 1.5"),
        ("[1]", "map<string,int>", "A JSON object is needed for a map."),
        ("[1]", "int", "A JSON array does not fit the column."),
        ('[{"a":"x"}]', "array<struct<a:int>>", 'For input string: "x"'),
    ],
)
def test_openx_refuses_what_does_not_fit(text, hive, said):
    assert refused(f'{{"c":{text}}}', c=hive) == (MALFORMED, SCHEMA + said)


@pytest.mark.parametrize(
    ("text", "hive", "said"),
    [
        ('"solo"', "array<string>", f"{SCHEMA}java.io.IOException: Start of Array expected"),
        ('["Bob",41]', "struct<name:string,age:int>", f"{SCHEMA}java.io.IOException: Start of Object expected"),
        ("42", "struct<name:string>", f"{SCHEMA}java.io.IOException: Start of Object expected"),
        ("[1]", "map<string,int>", f"{SCHEMA}java.io.IOException: Start of Object expected"),
        (
            '"7"',
            "int",
            f"{SCHEMA}Current token (VALUE_STRING) not numeric, can not use numeric value accessors",
        ),
        ('{"a":1}', "string", "One or more fields have incorrect format. Exception when validating field (root)"),
        ("[1]", "string", "One or more fields have incorrect format. Exception when validating field (root)"),
        ("1518033528", "timestamp", f'{SCHEMA}For input string: "1518033528"'),
        ('"2017-02-07T15:13:01Z"', "timestamp", f'{SCHEMA}For input string: "2017-02-07T15:13:01Z"'),
        ("1.5", "int", f'{SCHEMA}For input string: "1.5"'),
    ],
)
def test_hives_deserializer_refuses_what_openx_would_take(text, hive, said):
    assert refused(f'{{"c":{text}}}', HIVE, c=hive) == (MALFORMED, said)


@pytest.mark.parametrize(
    ("text", "hive", "found"),
    [
        ("[1,2.50,null]", "array<string>", ["1", "2.50", None]),
        ("1.0", "int", 1),
        ("7", "double", 7.0),
        ("1.005", "decimal(10,2)", Decimal("1.01")),
        ('"2017-2-7 15:13:01.5"', "timestamp", micros(2017, 2, 7, 15, 13, 1, 500000)),
        ('"2017-02-07"', "date", (date(2017, 2, 7) - date(1970, 1, 1)).days),
    ],
)
def test_hives_deserializer_reads_what_fits(text, hive, found):
    assert value(text, hive, HIVE) == found


def test_hives_deserializer_tries_its_timestamp_formats_and_then_its_own():
    deserializer = {"HiveJsonSerDe": {"TimestampFormats": ["dd/MMM/yyyy:HH:mm:ss Z", "millis"]}}
    for text in ('"07/Feb/2018:19:58:48 +0000"', "1518033528000", '"2018-02-07 19:58:48"'):
        assert value(text, "timestamp", deserializer) == micros(2018, 2, 7, 19, 58, 48)


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.sampled_from(["2013-05-07", "2013-05-07T10:00:00Z", "2013-05-07 10:00:00.5", "12", "1.50", "true"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["name", "AGE", "qty", "sku", "x.y"]), inner, max_size=3)
    ),
    max_leaves=6,
)
TYPED = {
    **COLUMNS,
    "big": "bigint",
    "small": "tinyint",
    "flag": "boolean",
    "f": "float",
    "m": "decimal(20,3)",
    "day": "date",
    "at": "timestamp",
}


@settings(max_examples=300, deadline=None)
@given(
    st.dictionaries(st.sampled_from([*TYPED, "ID", "Qty", "other"]), JSON, max_size=6),
    st.sampled_from([OPENX, HIVE, {"OpenXJsonSerDe": {"CaseInsensitive": False}}]),
)
@example({"at": 1518033528.123}, OPENX)
@example({"id": 1e22}, OPENX)
@example({"m": 0.1}, HIVE)
def test_a_record_alone_is_read_as_among_others(document, deserializer):
    """The quick way of a record that is one document, and the close look at one that is several, give the same."""
    raw = json.dumps(document).encode()
    alone, among = outcome(raw, deserializer), outcome(raw + b" {}", deserializer)
    # a float that is refused for its size may be told by other digits
    if "out of range" in str(alone[1]):
        assert (among[0], "out of range" in among[1]) == (MALFORMED, True)
    else:
        assert alone == among


def outcome(raw, deserializer):
    """The first row of a record, or why it is refused."""
    try:
        return "rows", reader(deserializer, **TYPED).rows(raw)[0]
    except ConversionError as error:
        return error.code, str(error)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40) | JSON.map(lambda one: json.dumps(one).encode()))
@example(b'{"at":1e400}')
@example(b"\xef\xbb\xbf")
def test_any_bytes_are_rows_or_refused(raw):
    assert outcome(raw, OPENX)[0] in {PARSE, MALFORMED, "rows"}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("ending", ['"', "\\", '\\"'])
def test_a_string_full_of_quotes_that_does_not_end_is_refused_soon(ending):
    code, _ = refused("[" * 101 + '{"a":"' + '\\"' * 500_000 + ending)
    assert code == PARSE


def checked(raw, **columns):
    with pytest.raises(ConversionError) as caught:
        reader(**columns).check(raw)
    return caught.value.code, str(caught.value)


def test_a_record_that_would_be_millions_of_nulls_is_refused():
    wide = {f"c{number}": "string" for number in range(60)}
    told = (MALFORMED, "The record comes to more than 1,000,000 values of the table's columns.")
    assert checked(b"{}" * 20_000, **wide) == told
    nested = "array<struct<" + ",".join(f"{name}:string" for name in wide) + ">>"
    assert checked(b'{"c":[' + b",".join([b"{}"] * 20_000) + b"]}", c=nested) == told
    assert checked(b'{"c":[' + b",".join([b"[]"] * 20_000) + b"]}", c=nested) == told
    # braces in text are no objects
    reader(**wide).check(b'{"c1":"' + b"{" * 20_000 + b'"}')
    reader(**wide).check(b"{}" * 15_000)


def test_what_is_said_of_a_long_value_is_short():
    code, said = refused('{"qty":"' + "\U0001f600" * 100_000 + '"}')
    assert code == MALFORMED
    assert said.startswith(SCHEMA + 'For input string: "')
    assert len(said) < 500


def test_long_names_are_not_remembered():
    found = reader()
    tracemalloc.start()
    try:
        for number in range(50):
            found.rows(json.dumps({f"{number}" + "N" * 1_000_000: 1, "QTY": number}).encode())
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held < 5_000_000


ORC_DATES = [
    ("1582-10-15", "date", True),
    ("1582-10-14", "date", False),
    ("1582-10-15 00:00:00", "timestamp", True),
    ("1582-10-14 23:59:59", "timestamp", False),
    ("1969-12-31 23:59:59", "timestamp", True),
    ("1969-12-31 23:59:59.25", "timestamp", False),
    ("1970-01-01 00:00:00.25", "timestamp", True),
]


@pytest.mark.parametrize(("text", "hive", "taken"), ORC_DATES)
@pytest.mark.parametrize("within", ["{}", "array<{}>", "map<string,{}>", "struct<a:{}>"])
def test_orc_gets_only_moments_that_its_readers_read(text, hive, taken, within):
    held = {"{}": text, "array<{}>": [text], "map<string,{}>": {"k": text}, "struct<a:{}>": {"a": text}}[within]
    raw = json.dumps({"c": held}).encode()
    columns = (("c", within.format(hive)),)
    for serializer, allowed in (({"OrcSerDe": {}}, taken), ({"ParquetSerDe": {}}, True)):
        chunk = ConvertFormat(Conversion(columns, OPENX, serializer)).apply(Chunk([raw], [1], 5), 9)
        assert (chunk.data == [raw]) == allowed
        if not allowed:
            assert "can't be written as ORC" in chunk.refused[0].reason.message
        # an object that was announced before is made all the same
        assert columnar(Conversion(columns, OPENX, serializer), [raw])
