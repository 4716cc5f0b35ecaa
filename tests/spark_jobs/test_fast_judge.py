"""Judging by columns says the same as judging line by line, or nothing."""

import base64
import gzip
import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from lake.contract import Contract, Field, ListOf, Primitive, StructOf
from spark_jobs.fast_judge import FastJudge, has_small_exponent, line_count
from spark_jobs.records import ENVELOPE_FIELDS, Judge, Row
from spark_jobs.values import arrow_struct, arrow_type

NOW = datetime(2013, 2, 1, tzinfo=UTC)
LATEST = NOW + timedelta(days=1)
ITEM = StructOf((Field("sku", Primitive("string"), required=True), Field("n", Primitive("int"))))
KINDS = {
    "flag": Primitive("boolean"),
    "small": Primitive("int"),
    "big": Primitive("long"),
    "single": Primitive("float"),
    "real": Primitive("double"),
    "text": Primitive("string"),
    "day": Primitive("date"),
    "moment": Primitive("timestamptz"),
    "local": Primitive("timestamp"),
    "raw": Primitive("binary"),
    "cart": ListOf(ITEM),
    "home": ITEM,
    "tags": ListOf(Primitive("string")),
    "days": ListOf(Primitive("date")),
    "deep": ListOf(ListOf(StructOf((Field("x", Primitive("double")),)))),
}


def contract(*names, extra=()):
    fields = tuple(Field(name, KINDS[name]) for name in names or KINDS)
    return Contract("visits", "1.2.0", (Field("page", Primitive("string"), required=True), *fields, *extra), (), ())


WHOLE = contract()
EXACT = contract(
    "text",
    "cart",
    extra=(
        Field("price", Primitive("decimal", 10, 2)),
        Field("fine", Primitive("decimal", 38, 20)),
        Field("real", Primitive("double")),
    ),
)


def envelope(number, payload):
    return {
        "event_id": f"e-{number}",
        "tenant": "ann",
        "dataset": "visits",
        "event_time": "2013-01-31T10:00:00.000Z",
        "producer_id": "phone",
        "sequence": number,
        "schema_version": "1.0.0",
        "payload": payload,
    }


def line(record):
    return json.dumps(record).encode()


def by_columns(lines, rules=WHOLE):
    found = FastJudge(rules, "ann", LATEST).judge(b"".join(one + b"\n" for one in lines))
    if found is not None:
        found.validate(full=True)
    return found


def by_lines(lines, rules=WHOLE):
    """What ingest made of lines before there was another way; None unless all become rows."""
    judge = Judge(rules, "ann", NOW)
    fates = [judge.judge(one) for one in lines]
    if not all(isinstance(one, Row) for one in fates):
        return None
    fields = (*ENVELOPE_FIELDS, *rules.fields, Field("_rescued", Primitive("string")))
    columns = zip(*(one.values for one in fates), strict=True)
    parts = [pa.array(column, arrow_type(one.type)) for column, one in zip(columns, fields, strict=True)]
    return pa.StructArray.from_arrays(parts, fields=list(arrow_struct(fields)))


def bits(array):
    """Values told apart to the last bit: -0.0 is not 0.0."""
    return repr(array.to_pylist()), array.type


def assert_same(lines, rules=WHOLE):
    fast = by_columns(lines, rules)
    if fast is not None:
        slow = by_lines(lines, rules)
        assert slow is not None, "taken by columns and refused line by line"
        assert bits(fast) == bits(slow)


FULL = {
    "page": "/é😀",
    "flag": True,
    "small": -2147483648,
    "big": 9223372036854775807,
    "single": 0.1,
    "real": 2.5e3,
    "text": "",
    "day": "2013-02-28",
    "moment": "2013-01-31T10:00:00.5+05:30",
    "local": "2013-01-31 10:00:00",
    "raw": base64.b64encode(b"\x00hi").decode(),
    "cart": [{"sku": "a", "n": 1}, None, {"sku": "b"}],
    "home": {"n": None, "sku": "c"},
    "tags": ["x", None],
    "days": ["2013-01-01", None],
    "deep": [[{"x": 1.5}, None], None, []],
}


def test_clean_lines_become_the_rows_that_they_become_one_by_one():
    lines = [
        line(envelope(1, FULL)),
        line(envelope(2, {"page": "/"})),
        line(envelope(3, dict.fromkeys(FULL) | {"page": "/"})),
    ]
    assert bits(by_columns(lines)) == bits(by_lines(lines))


def test_decimals_are_taken_to_the_last_digit():
    payload = {"page": "/", "price": 12.5, "fine": 12345678901234567, "real": 0.1}
    lines = [line(envelope(1, payload)), line(envelope(2, {"page": "/", "price": -99999999.99}))]
    assert bits(by_columns(lines, EXACT)) == bits(by_lines(lines, EXACT))


def test_a_decimal_in_quotes_is_left_to_the_other():
    assert by_columns([line(envelope(1, {"page": "/", "price": "12.5"}))], EXACT) is None


def test_decimals_inside_lists_are_left_to_the_other():
    inside = contract(extra=(Field("prices", ListOf(Primitive("decimal", 10, 2))),))
    assert not FastJudge(inside, "ann", LATEST).is_able
    assert by_columns([line(envelope(1, {"page": "/", "prices": [1]}))], inside) is None


@pytest.mark.parametrize(
    "changes",
    [
        {"event_id": ""},
        {"event_id": None},
        {"event_id": "e" * 257},
        {"tenant": "bob"},
        {"dataset": "sales"},
        {"sequence": -1},
        {"sequence": 7.0},
        {"sequence": 2**63},
        {"schema_version": "2.0.0"},
        {"schema_version": "1.0"},
        {"event_time": "2013-02-02T00:00:00.001Z"},
        {"event_time": "2013-01-31"},
        {"event_time": "2013-01-31T10:00:00"},
        {"event_time": "2013-01-31T25:00:00Z"},
        {"event_time": "0000-01-31T10:00:00Z"},
        {"event_time": "0001-01-01T00:00:00+14:00"},
        {"trace": 1},
        {"payload": None},
        {"payload": {}},
        {"payload": {"page": None}},
        {"payload": {"page": "/", "gate": 5}},
        {"payload": {"page": "/", "small": 2147483648}},
        {"payload": {"page": "/", "real": "2.5"}},
        {"payload": {"page": "/", "single": 1e39}},
        {"payload": {"page": "/", "raw": "a*b"}},
        {"payload": {"page": "/", "home": {"n": 1}}},
        {"payload": {"page": "/", "cart": [{"n": 1}]}},
        {"payload": {"page": "/", "cart": [{"sku": "a", "colour": 1}]}},
    ],
)
def test_a_line_that_is_refused_or_holds_more_makes_the_block_unclean(changes):
    assert by_columns([line(envelope(1, {"page": "/"})), line(envelope(2, {"page": "/"}) | changes)]) is None


@pytest.mark.parametrize(
    ("block", "count"),
    [
        (b'{"a":1}\n{"a":2}\n', 2),
        (b'{"a":1}', 1),
        (b'{"a":1}\n\n{"a":2}\n', None),
        (b'{"a":1}\r\n{"a":2}\r\n', None),
        (b'{"a"\n:2}', None),
        (b'\xef\xbb\xbf{"a":1}', None),
        (b"null", None),
        (b"", None),
    ],
)
def test_lines_are_counted_where_each_is_surely_one_object(block, count):
    assert line_count(block) == count


def test_two_objects_on_a_line_are_not_two_records():
    one, two = line(envelope(1, {"page": "/"})), line(envelope(2, {"page": "/"}))
    assert by_columns([one, two]) is not None
    assert by_columns([one + two]) is None
    assert by_columns([one + two, one[:20] + b"\n" + one[20:]]) is None


_TEXTS = st.one_of(
    st.text(max_size=6),
    st.sampled_from(
        ["2013-01-31T10:00:00Z", "0001-01-01", "9999-12-31T23:59:59.999999Z", "aGk=", "\x00", "12.5", "NaN"]
    ),
)
_TIMES = st.builds(
    "{}-{:02d}-{:02d}{}{:02d}:{:02d}:{:02d}{}{}".format,
    st.sampled_from(["0000", "0001", "1969", "2012", "2013", "9999", "10000", "13"]),
    st.integers(0, 13),
    st.integers(0, 32),
    st.sampled_from(["T", " ", "t", ""]),
    st.integers(0, 25),
    st.integers(0, 61),
    st.integers(0, 61),
    st.sampled_from(["", ".1", ".12", ".000001", ".1234567", ".123456789", ".1234567890", "."]),
    st.sampled_from(["Z", "", "+00:00", "-00:00", "+0530", "+14:00", "-23:59", "+24:00", "+05", "+05:60", "z", " Z"]),
)
_NUMBERS = st.one_of(
    st.integers(),
    st.integers(-(2**31) - 1, 2**31),
    st.integers(2**63 - 2, 2**64 + 1),
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.sampled_from([0, -0.0, 1e308, 3.4028234663852886e38, 3.4028235e38, 1e-320]),
)
_SCALARS = st.one_of(st.none(), st.booleans(), _NUMBERS, _TEXTS, _TIMES)
_ANY = st.recursive(
    _SCALARS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["sku", "n", "x", "z"]), inner, max_size=3)
    ),
    max_leaves=5,
)
_GOOD = {
    "flag": st.booleans(),
    "small": st.integers(-(2**31), 2**31 - 1),
    "big": st.integers(-(2**63), 2**63 - 1),
    "single": st.floats(width=32, allow_nan=False, allow_infinity=False),
    "real": _NUMBERS,
    "text": st.text(max_size=8),
    "day": st.dates().map(str),
    "moment": st.datetimes(timezones=st.just(UTC)).map(lambda one: one.isoformat()),
    "local": st.datetimes().map(lambda one: one.isoformat()),
    "raw": st.binary(max_size=8).map(lambda one: base64.b64encode(one).decode()),
    "cart": st.lists(
        st.one_of(
            st.none(),
            st.fixed_dictionaries({"sku": st.text(max_size=3)}, optional={"n": st.integers(-9, 9) | st.none()}),
        ),
        max_size=3,
    ),
    "home": st.fixed_dictionaries({"sku": st.text(max_size=3)}, optional={"n": st.integers(-9, 9)}),
    "tags": st.lists(st.none() | st.text(max_size=3), max_size=3),
    "days": st.lists(st.none() | st.dates().map(str), max_size=3),
    "price": st.decimals(-99_999_999, 99_999_999, places=2).map(float) | st.integers(-99_999_999, 99_999_999),
    "fine": st.integers(-(10**18), 10**18) | _NUMBERS,
}


def records(rules):
    """Events that mostly satisfy a contract, with fields that mostly don't."""
    good = {one.name: st.one_of(st.none(), _GOOD.get(one.name, _ANY)) for one in rules.fields if one.name != "page"}
    strange = dict.fromkeys(("page", *good, "gate"), _ANY)
    payload = st.one_of(
        st.fixed_dictionaries({"page": st.text(max_size=5)}, optional=good),
        st.fixed_dictionaries({"page": st.text(max_size=5)}, optional={**good, **dict(list(strange.items())[-3:])}),
        st.tuples(
            st.fixed_dictionaries({"page": st.text(max_size=3)}, optional=good), st.sampled_from([*strange]), _ANY
        ).map(lambda parts: parts[0] | {parts[1]: parts[2]}),
    )
    changes = st.one_of(
        st.just({}),
        st.just({}),
        st.fixed_dictionaries({"event_time": _TIMES}),
        st.dictionaries(
            st.sampled_from([*envelope(0, {}), "trace"]),
            st.one_of(_ANY, st.sampled_from(["ann", "visits", "1.9.0"])),
            max_size=1,
        ),
    )
    return st.builds(lambda number, body, more: envelope(number, body) | more, st.integers(0, 99), payload, changes)


def spelled(rules):
    """The same as lines, some spelled in an unusual way."""
    ways = st.sampled_from([{}, {"ensure_ascii": False}, {"separators": (",", ":")}, {"separators": (" ,\t", "\r: ")}])
    return st.builds(
        lambda record, way: json.dumps(record, **way).encode("utf-8", "surrogatepass"), records(rules), ways
    )


QUICK = settings(
    max_examples=600, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@QUICK
@given(st.lists(spelled(WHOLE), min_size=1, max_size=3))
def test_whatever_is_taken_by_columns_is_what_is_taken_line_by_line(lines):
    event("clean" if by_columns(lines) is not None else "left to the other")
    assert_same(lines)


@QUICK
@given(st.lists(spelled(EXACT), min_size=1, max_size=3))
def test_likewise_with_decimals(lines):
    assert_same(lines, EXACT)


_BITS = st.sampled_from(
    [
        *(
            b'"',
            b"{",
            b"}",
            b"[",
            b"]",
            b",",
            b":",
            b"\\",
            b"\n",
            b"\r",
            b" ",
            b"\x0b",
            b"\x00",
            b"\x7f",
            b"\xff",
            b"\xc0\x80",
        ),
        *(
            b"\xed\xa0\x80",
            b"\xef\xbb\xbf",
            b"\\ud800",
            b"\\udc00",
            b"\\ud83d\\ude00",
            b"\\u0000",
            b"\\u0061",
            b"\\/",
            b"\\x",
        ),
        *(
            b"0",
            b"1",
            b"-",
            b"-0",
            b"01",
            b"1.0",
            b"1e5",
            b"1e999",
            b".5",
            b"5.",
            b"+1",
            b"0x1",
            b"1_0",
            b"9" * 25,
            b"9" * 400,
            b"1." + b"0" * 50,
        ),
        *(
            b"null",
            b"true",
            b"NaN",
            b"Infinity",
            b"-Inf",
            b'"page":"/",',
            b'"sequence":5,',
            b'"tenant":"ann",',
            b"/**/",
            b"{}",
        ),
    ]
)


@QUICK
@given(st.data())
def test_lines_that_were_tampered_with_are_judged_alike(data):
    rules = data.draw(st.sampled_from([WHOLE, EXACT]))
    # one that is clean before, so that what was put in decides
    good = data.draw(st.sampled_from([FULL, {"page": "/", "text": "x", "real": 2.5}]))
    known = {one.name for one in rules.fields}
    clean = line(envelope(5, {name: value for name, value in good.items() if name in known}))
    body = bytearray(b"\n".join(data.draw(st.lists(st.just(clean) | spelled(rules), min_size=1, max_size=2))))
    for _ in range(data.draw(st.integers(1, 2))):
        at = data.draw(st.integers(0, len(body)))
        body[at : at + data.draw(st.integers(0, 3))] = data.draw(_BITS)
    block = bytes(body)
    fast = FastJudge(rules, "ann", LATEST).judge(block)
    event("clean" if fast is not None else "left to the other")
    if fast is not None:
        lines = block.removesuffix(b"\n").split(b"\n")
        slow = by_lines(lines, rules)
        assert slow is not None, "taken by columns and refused line by line"
        assert bits(fast) == bits(slow)


def test_every_value_put_in_place_of_every_other_is_judged_alike():
    """Values are cut out of good lines and put elsewhere: number for text, text for list."""
    good = {**FULL, "price": 12.5, "fine": 1e-9}
    for rules in (WHOLE, EXACT):
        known = {one.name for one in rules.fields}
        payload = {name: value for name, value in good.items() if name in known}
        for name in known:
            for other in [*good.values(), -0.0, 0, "2013-02-30", 1e20, [[]], {"sku": 5}, {"sku": "a", "sku ": "b"}]:
                assert_same([line(envelope(7, payload | {name: other}))], rules)


DATA = Path(__file__).parents[3] / "shared" / "data"


def fields(kind, *names):
    return tuple(Field(name, Primitive(kind)) for name in names)


def named(*parts):
    return Contract("visits", "1.2.0", tuple(one for part in parts for one in part), (), ())


EDITS = named(
    fields("string", "channel", "page", "comment", "user", "cityName", "countryName", "countryIsoCode"),
    fields("string", "regionName", "regionIsoCode", "namespace"),
    fields("boolean", "isRobot", "isAnonymous", "isNew", "isMinor", "isUnpatrolled"),
    fields("int", "added", "deleted", "delta", "metroCode"),
    fields("timestamptz", "time"),
)
_PERSON = (*fields("long", "id"), *fields("string", "login", "display_login", "gravatar_id", "url", "avatar_url"))
TIMELINE = named(
    fields("string", "id", "type"),
    fields("boolean", "public"),
    fields("timestamptz", "created_at"),
    (
        Field("actor", StructOf(_PERSON)),
        Field("org", StructOf(tuple(one for one in _PERSON if "display" not in one.name))),
    ),
    (Field("repo", StructOf((*fields("long", "id"), *fields("string", "name", "url")))),),
)


@pytest.mark.parametrize(
    ("name", "rules"),
    [
        ("wikiticker/wikiticker-2015-09-12-sampled.json.gz", EDITS),
        ("github-events/2021-07-21-few-hours.json.gz", TIMELINE),
    ],
    ids=["edits", "timeline"],
)
@pytest.mark.parametrize("ascii_only", [True, False])
def test_real_events_are_taken_by_columns_and_judged_alike(name, rules, ascii_only):
    if not (DATA / name).exists():
        pytest.skip("the data isn't on this machine")
    known = {one.name for one in rules.fields}
    given = map(json.loads, gzip.decompress((DATA / name).read_bytes()).splitlines()[:8000])
    lines = [
        json.dumps(
            envelope(number, {key: value for key, value in one.items() if key in known}), ensure_ascii=ascii_only
        ).encode()
        for number, one in enumerate(given)
    ]
    for start in range(0, len(lines), 1000):
        fast = by_columns(lines[start : start + 1000], rules)
        assert fast is not None
        assert bits(fast) == bits(by_lines(lines[start : start + 1000], rules))


EXPONENTS = ["1e-77", "1e-41", "1.5e-40", "-0.0901e-35", "0e-5", "1E-2", "125e-2", "-1e-999", "1" * 80 + "e-79", "5e1"]


@pytest.mark.parametrize("number", EXPONENTS)
@pytest.mark.parametrize("name", ["price", "fine", "real"])
def test_numbers_with_exponents_are_judged_alike(name, number):
    spelled = line(envelope(1, {"page": "/", name: 1})).replace(f'"{name}": 1'.encode(), f'"{name}": {number}'.encode())
    assert_same([spelled], EXACT)
    assert_same([line(envelope(0, {"page": "/"})), spelled], EXACT)


@pytest.mark.parametrize("number", ["1e-999999999", "0e-999999999", "1e-2147483647"])
def test_no_number_ends_the_process(number):
    # Arrow does so at these: so in a process of its own
    spelled = line(envelope(1, {"page": "/", "price": 1})).replace(b'"price": 1', f'"price": {number}'.encode())
    script = (
        "import sys; sys.path[:0] = sys.argv[1:3]; from test_fast_judge import EXACT, by_columns;"
        "print(by_columns([sys.stdin.buffer.read()], EXACT))"
    )
    command = [sys.executable, "-c", script, str(Path(__file__).parent), str(Path(__file__).parents[2])]
    done = subprocess.run(command, input=spelled, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"None\n"), done.stderr


@pytest.mark.parametrize(
    ("block", "found"),
    [
        (b'{"a":1e-5}', True),
        (b'{"a":[-1.5E-5]}', True),
        (b'{"a": \t12e-5}', True),
        (b'{"a":' + b"1" * 100 + b"e-5}", True),
        (b'{"a":1e5,"b":"e-5"}', False),
        (b'{"a":"0190003e-5e-7e-4a2e-00"}', False),
        (b'{"a":"type-2e-5"}', False),
    ],
)
def test_a_small_exponent_is_told_from_an_id(block, found):
    assert has_small_exponent(block) is found
