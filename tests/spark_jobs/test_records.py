"""What becomes of one record; no Spark is needed for it."""

import json
from datetime import UTC, date, datetime
from decimal import Decimal

import pytest

from lake.contract import Contract, Field, ListOf, Primitive, StructOf
from lake.envelope import Identity
from spark_jobs.records import Judge, Reason, Refusal, Row

VISITS = Contract(
    dataset="visits",
    version="1.2.0",
    fields=(Field("page", Primitive("string"), required=True), Field("seconds", Primitive("int"))),
    partition=(),
    sort=(),
)
NOW = datetime(2013, 2, 1, tzinfo=UTC)
WHO = Identity("e-1", "ann", "phone", 7)


def event(**changes):
    made = {
        "event_id": "e-1",
        "tenant": "ann",
        "dataset": "visits",
        "event_time": "2013-01-31T10:00:00.000Z",
        "producer_id": "phone",
        "sequence": 7,
        "schema_version": "1.0.0",
        "payload": {"page": "/", "seconds": 5},
    }
    return {key: value for key, value in {**made, **changes}.items() if value is not ...}


def judge(record, contract=VISITS):
    raw = record if isinstance(record, bytes) else json.dumps(record).encode()
    return Judge(contract, "ann", NOW).judge(raw)


def of_type(kind, value, *, required=False):
    """What becomes of a record whose only field is of a type."""
    contract = Contract("visits", "1.2.0", (Field("x", kind, required=required),), (), ())
    raw = json.dumps(event(payload={"x": "VALUE"})).replace('"VALUE"', value if isinstance(value, str) else "")
    found = Judge(contract, "ann", NOW).judge(raw.encode())
    return found.values[7] if isinstance(found, Row) else found


def test_a_good_record_becomes_a_row():
    assert judge(event()) == Row(
        ("e-1", "ann", "visits", datetime(2013, 1, 31, 10, tzinfo=UTC), "phone", 7, "1.0.0", "/", 5, None)
    )


def test_an_optional_field_may_be_absent_or_null():
    assert judge(event(payload={"page": "/"})).values[7:9] == ("/", None)
    assert judge(event(payload={"page": "/", "seconds": None})).values[7:9] == ("/", None)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"{bad", "the record is no JSON: unexpected character, expected a string key: line 1 column 2 (char 1)"),
        (b"[1]", "the record is JSON, but no object"),
        (b'"text"', "the record is JSON, but no object"),
        (b'{"a":1}{"b":2}', "the record is no JSON: unexpected content after document: line 1 column 8 (char 7)"),
        (b'{"a":1} x', "the record is no JSON: unexpected content after document: line 1 column 9 (char 8)"),
        (b'{"a":NaN}', "the record is no JSON: unexpected character, expected a JSON value: line 1 column 6 (char 5)"),
        (b'{"a":1,"a":2}', "the record is no JSON: the key 'a' is there twice"),
        (b'{"a":{"b":1,"b" :2}}', "the record is no JSON: the key 'b' is there twice"),
        (b'{"a":"\\ud800"}', "the record is no JSON: no low surrogate in string: line 1 column 7 (char 6)"),
    ],
)
def test_what_is_not_one_json_object_is_malformed(raw, message):
    assert judge(raw) == Refusal("malformed_json", message, Identity())


def test_a_record_that_is_not_utf8_is_malformed_and_never_repaired():
    found = judge(json.dumps(event()).encode().replace(b'"/"', b'"\xff"'))
    assert found.reason == "malformed_json"
    assert found.identity == WHO


@pytest.mark.parametrize("depth", [1000, 100_000])
def test_a_record_that_is_nested_too_deeply_is_malformed(depth):
    raw = json.dumps(event(payload={"page": "/", "x": 0})).replace('"x": 0', '"x": ' + "[" * depth + "]" * depth)
    assert judge(raw.encode()).reason == "malformed_json"


def test_a_record_that_was_cut_short_keeps_its_identity():
    raw = json.dumps(event()).encode()[:-12]
    assert (judge(raw).reason, judge(raw).identity) == ("malformed_json", WHO)


def test_a_text_that_looks_like_a_second_key_is_none():
    assert judge(event(payload={"page": '","page":"'})).values[7] == '","page":"'


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tenant": ...}, "missing: tenant"),
        ({"event_id": None, "sequence": ...}, "missing: event_id, sequence"),
        ({"producer_id": ""}, "missing: producer_id"),
        ({"payload": ...}, "missing: payload"),
        ({"payload": {}}, "missing: page"),
        ({"payload": {"page": None}}, "missing: page"),
    ],
)
def test_a_missing_field_is_named(changes, message):
    found = judge(event(**changes))
    assert (found.reason, found.message) == ("missing_field", message)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sequence": "7"}, "sequence: got '7' (a string), allowed is a whole number of 64 bits"),
        ({"sequence": -1}, "sequence: got -1, allowed are numbers from 0"),
        ({"sequence": 7.0}, "sequence: got '7.0' (a fraction), allowed is a whole number of 64 bits"),
        ({"tenant": 5}, "tenant: got '5' (a whole number), allowed is a string"),
        (
            {"event_time": "2013-01-31"},
            "event_time: got '2013-01-31' (a string), allowed is a moment with its zone as 2013-01-31T10:00:00Z",
        ),
        ({"event_id": "e" * 257}, "event_id: allowed are at most 256 characters"),
        ({"payload": [1]}, "payload: allowed is an object"),
        (
            {"payload": {"page": 5, "seconds": "late"}},
            (
                "page: got '5' (a whole number), allowed is a string; "
                "seconds: got 'late' (a string), allowed is a whole number of 32 bits"
            ),
        ),
    ],
)
def test_a_wrong_type_is_named_with_what_was_given(changes, message):
    found = judge(event(**changes))
    assert (found.reason, found.message) == ("wrong_type", message)


@pytest.mark.parametrize(
    ("changes", "reason", "message"),
    [
        ({"tenant": "bob"}, "tenant_mismatch", "the record says tenant bob, and it lies under tenant=ann"),
        ({"dataset": "sales"}, "unknown_dataset", "the record says dataset sales, and it lies under visits"),
        (
            {"schema_version": "2.0.0", "payload": {}},
            "unknown_schema_version",
            "the record says schema_version 2.0.0, and the contract is 1.2.0",
        ),
        (
            {"schema_version": "new"},
            "unknown_schema_version",
            "the record says schema_version new, and the contract is 1.2.0",
        ),
    ],
)
def test_a_record_of_somewhere_else_is_refused(changes, reason, message):
    found = judge(event(**changes))
    assert (found.reason, found.message) == (reason, message)


def test_a_newer_minor_version_is_taken():
    assert isinstance(judge(event(schema_version="1.9.0")), Row)


def test_a_refused_record_keeps_what_can_be_read_of_its_identity():
    assert judge(event(payload={})).identity == WHO
    assert judge(event(tenant=5, sequence=-1, producer_id="")).identity == Identity(event_id="e-1")


def test_unknown_fields_are_rescued_with_their_types():
    found = judge(
        event(payload={"page": "/", "gate": "5", "rank": 5, "odds": 0.5, "tags": [True, None]}, trace={"id": 1})
    )
    assert json.loads(found.values[-1]) == {
        "gate": "5",
        "rank": 5,
        "odds": 0.5,
        "tags": [True, None],
        "$envelope": {"trace": {"id": 1}},
    }


def test_an_unknown_field_is_kept_even_under_a_name_that_is_ours():
    found = judge(event(payload={"page": "/", "$envelope": 1}, trace=2))
    assert json.loads(found.values[-1]) == {"$envelope": 1, "$$envelope": {"trace": 2}}


def test_an_unknown_number_beyond_64_bits_is_rescued_beside_a_decimal():
    contract = Contract("visits", "1.2.0", (Field("x", Primitive("decimal", 5, 2)),), (), ())
    raw = json.dumps(event(payload={"x": 1.25, "é": 1.5, "big": -(2**70)})).encode()
    found = Judge(contract, "ann", NOW).judge(raw)
    assert found.values[7:] == (Decimal("1.25"), '{"é":1.5,"big":-1180591620717411303424}')


def test_unknown_fields_inside_objects_and_lists_are_rescued_by_their_path():
    item = StructOf((Field("sku", Primitive("string")),))
    contract = Contract("visits", "1.0.0", (Field("home", item), Field("cart", ListOf(item))), (), ())
    payload = {"home": {"sku": "a", "colour": 1}, "cart": [{"sku": "b", "colour": 2}, {"sku": "c"}, {"colour": 3}]}
    found = Judge(contract, "ann", NOW).judge(json.dumps(event(payload=payload)).encode())
    assert found.values[7:9] == ({"sku": "a"}, [{"sku": "b"}, {"sku": "c"}, {"sku": None}])
    assert json.loads(found.values[-1]) == {"home": {"colour": 1}, "cart[]": [{"colour": 2}, {"colour": 3}]}


@pytest.mark.parametrize(
    ("kind", "given", "taken"),
    [
        ("boolean", "true", True),
        ("int", "-2147483648", -2147483648),
        ("long", "9223372036854775807", 9223372036854775807),
        ("double", "5", 5.0),
        ("double", "2.5e3", 2500.0),
        ("float", "0.5", 0.5),
        ("string", '"\\u00e9\\ud83d\\ude00"', "é😀"),
        ("date", '"2013-02-28"', date(2013, 2, 28)),
        ("timestamptz", '"2013-01-31T10:00:00Z"', datetime(2013, 1, 31, 10, tzinfo=UTC)),
        ("timestamptz", '"2013-01-31 10:00:00.123456789+0530"', datetime(2013, 1, 31, 4, 30, 0, 123456, tzinfo=UTC)),
        ("timestamp", '"2013-01-31T10:00:00.5"', datetime(2013, 1, 31, 10, 0, 0, 500000)),  # noqa: DTZ001
        ("binary", '"aGk="', b"hi"),
    ],
)
def test_a_value_of_the_right_type_is_taken_as_it_is(kind, given, taken):
    assert of_type(Primitive(kind), given) == taken


@pytest.mark.parametrize(
    ("kind", "given"),
    [
        ("boolean", '"true"'),
        ("boolean", "1"),
        ("int", "2147483648"),
        ("int", "5.0"),
        ("int", '"5"'),
        ("int", "true"),
        ("long", "9223372036854775808"),
        ("double", '"2.5"'),
        ("double", "false"),
        ("float", "1e39"),
        ("string", "5"),
        ("string", "{}"),
        ("date", '"2013-02-30"'),
        ("date", '"2013"'),
        ("timestamptz", '"2013-01-31T10:00:00"'),
        ("timestamptz", '"12:30"'),
        ("timestamptz", '"2013-01-31T25:00:00Z"'),
        ("timestamptz", '"0001-01-01T00:00:00+14:00"'),
        ("timestamp", '"2013-01-31T10:00:00Z"'),
        ("binary", '"a*b"'),
    ],
)
def test_a_value_of_another_type_is_not_made_to_fit(kind, given):
    assert of_type(Primitive(kind), given).reason == "wrong_type"


@pytest.mark.parametrize(
    ("given", "taken"),
    [("12.5", "12.50"), ("12.500", "12.50"), ("-99999999.99", "-99999999.99"), ("1e3", "1000.00"), ("7", "7.00")],
)
def test_a_decimal_is_taken_to_the_last_digit(given, taken):
    found = of_type(Primitive("decimal", 10, 2), given)
    assert (found, str(found)) == (Decimal(taken), taken)


def test_a_decimal_never_passes_through_a_double():
    assert of_type(Primitive("decimal", 38, 20), "123456789012345678.00000000000000000001") == Decimal(
        "123456789012345678.00000000000000000001"
    )


@pytest.mark.parametrize("given", ["1.239", "100000000", '"12.5"', "1e-9", "true"])
def test_a_decimal_that_does_not_fit_is_refused(given):
    assert of_type(Primitive("decimal", 10, 2), given).message.endswith("allowed is a number that fits decimal(10, 2)")


def test_what_is_wrong_or_missing_inside_is_named_by_its_path():
    item = StructOf((Field("sku", Primitive("string"), required=True), Field("n", Primitive("int"))))
    contract = Contract("visits", "1.0.0", (Field("cart", ListOf(item)), Field("home", item)), (), ())

    def message(payload):
        return Judge(contract, "ann", NOW).judge(json.dumps(event(payload=payload)).encode()).message

    assert message({"cart": [{"n": 1}], "home": {}}) == "missing: cart[].sku, home.sku"
    assert message({"cart": [{"sku": "a", "n": "1"}, 5]}) == (
        "cart[].n: got '1' (a string), allowed is a whole number of 32 bits; "
        "cart[]: got '5' (a whole number), allowed is an object"
    )
    assert message({"cart": {}, "home": []}) == (
        "cart: got an object, allowed is a list; home: got a list, allowed is an object"
    )


@pytest.mark.timeout(60)
def test_a_key_that_is_there_twice_among_very_many_is_found_soon():
    raw = b"{" + b",".join(b'"k%d":1' % number for number in range(200_000)) + b',"k199999":2}'
    refusal = judge(raw)
    assert (refusal.reason, refusal.message) == (
        Reason.MALFORMED_JSON,
        "the record is no JSON: the key 'k199999' is there twice",
    )


@pytest.mark.parametrize("number", ["1e-99999999999999999999", "1e99999999999999999999"])
def test_a_number_whose_exponent_no_decimal_has_is_malformed_and_nothing_else(number):
    contract = Contract("visits", "1.2.0", (Field("x", Primitive("decimal", 9, 2)),), (), ())
    raw = json.dumps(event(payload={"x": 1})).replace('"x": 1', f'"x": 1, "other": {number}').encode()
    refusal = judge(raw, contract)
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.MALFORMED_JSON
    assert refusal.identity.event_id == "e-1"


@pytest.mark.parametrize("depth", range(900, 1_030, 3))
def test_a_record_that_is_nested_about_as_deeply_as_python_goes_is_taken_or_malformed(depth):
    raw = json.dumps(event()).replace('"page"', '"deep":' + '{"k":' * depth + "1" + "}" * depth + ',"page"').encode()
    found = judge(raw)
    if isinstance(found, Refusal):
        assert found.reason is Reason.MALFORMED_JSON
        assert "too deeply" in found.message or "depth limit" in found.message
        assert found.identity.event_id == "e-1"


def test_of_very_many_wrong_elements_some_are_named():
    contract = Contract("visits", "1.2.0", (Field("x", ListOf(Primitive("int"))),), (), ())
    refusal = judge(event(payload={"x": ["a"] * 10_000}), contract)
    assert refusal.reason is Reason.WRONG_TYPE
    assert refusal.message.count("x[]: got 'a'") == 20
    assert refusal.message.endswith("; and more than these 20")


@pytest.mark.parametrize("number", ["1e-1999999999999999997", "1e-77", "0.001"])
def test_a_number_that_is_finer_than_its_decimal_is_refused(number):
    contract = Contract("visits", "1.2.0", (Field("x", Primitive("decimal", 9, 2)),), (), ())
    raw = json.dumps(event(payload={"x": 1})).replace('"x": 1', f'"x": {number}').encode()
    assert judge(raw, contract).reason is Reason.WRONG_TYPE
