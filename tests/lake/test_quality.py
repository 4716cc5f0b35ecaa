"""Quality rules: how they are read from a contract, and what a value is held to."""

import re
import warnings

import pytest

from lake.contract import read_contract
from lake.errors import DeclarationError
from lake.evolution import Step, compare
from lake.patterns import trouble_of
from lake.quality import (
    Duplicates,
    Freshness,
    Invalid,
    Limit,
    Missing,
    Nulls,
    Operator,
    RowCount,
    Rule,
    Severity,
    Span,
    Unit,
    Volume,
    deviation,
    digest,
    judge,
)

BETWEEN_DAYS = Invalid("code", minimum="2026-01-31", maximum="2026-01-31")
NONE = (Limit(Operator.BE, (0.0,)),)
HEAD = """apiVersion: v3.1.0
kind: DataContract
id: visits
version: 1.0.0
status: active
"""


@pytest.fixture
def read(tmp_path):
    """Read a contract with quality rules of the object, of its field `code`, and service levels, each as YAML."""

    def read(*, of_object="[]", of_field="[]", levels="[]", kind="{logicalType: string}", more=""):
        path = tmp_path / "visits.yaml"
        path.write_text(
            f"{HEAD}slaProperties: {levels}\nschema:\n  - name: visits\n    quality: {of_object}\n    properties:\n"
            f"      - {{name: code, quality: {of_field}, {kind[1:-1]}}}\n"
            f"      - {{name: spot, logicalType: object, properties: [{{name: x, logicalType: number}}]}}\n{more}"
        )
        return read_contract(path, "visits")

    return read


def only(contract):
    (rule,) = contract.quality
    return rule


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("{metric: nullValues, mustBe: 0}", Rule("code.nullValues", Nulls("code"), NONE)),
        (
            (
                "{type: library, metric: missingValues, arguments: {missingValues: [null, '', n/a]}, mustBeLessThan: 1,"
                " unit: percent, severity: error, name: told, description: why}"
            ),
            Rule(
                "told",
                Missing("code", (None, "", "n/a")),
                (Limit(Operator.BELOW, (1.0,)),),
                Severity.ERROR,
                Unit.PERCENT,
                "why",
            ),
        ),
        (
            (
                "{metric: invalidValues, arguments: {validValues: [a, b], pattern: '^[ab]$'}, mustBeLessOrEqualTo: 2,"
                " severity: info}"
            ),
            Rule(
                "code.invalidValues",
                Invalid("code", ("a", "b"), "^[ab]$"),
                (Limit(Operator.AT_MOST, (2.0,)),),
                Severity.INFO,
            ),
        ),
        (
            "{metric: duplicateValues, arguments: {days: 3}, mustBeBetween: [-1, 5]}",
            Rule("code.duplicateValues", Duplicates(("code",), 3), (Limit(Operator.BETWEEN, (-1.0, 5.0)),)),
        ),
    ],
)
def test_a_rule_of_a_column_is_read(read, text, rule):
    assert only(read(of_field=f"[{text}]")) == rule


@pytest.mark.parametrize(
    ("kind", "given", "check"),
    [
        ("{logicalType: integer}", "{minimum: 0, maximum: 9}", Invalid("code", minimum=0, maximum=9)),
        ("{logicalType: number}", "{minimum: 0}", Invalid("code", minimum=0.0)),
        ("{logicalType: date}", "{maximum: 2026-01-31}", Invalid("code", maximum="2026-01-31")),
        ("{logicalType: timestamp}", "{minimum: 2026-01-31}", Invalid("code", minimum="2026-01-31")),
        ("{logicalType: boolean}", "{validValues: [true]}", Invalid("code", (True,))),
        ("{logicalType: date}", "{minimum: '20260131', maximum: 2026-W05-6}", BETWEEN_DAYS),
        ("{logicalType: timestamp}", "{minimum: '20260131', maximum: 2026-W05-6}", BETWEEN_DAYS),
        (
            "{logicalType: timestamp}",
            "{minimum: 20260131T1200Z, maximum: '2026-01-31 12:00'}",
            Invalid("code", minimum="2026-01-31T12:00:00+00:00", maximum="2026-01-31T12:00:00"),
        ),
    ],
)
def test_a_range_is_read_as_the_columns_type_has_it(read, kind, given, check):
    found = read(kind=kind, of_field=f"[{{metric: invalidValues, arguments: {given}, mustBe: 0}}]")
    assert only(found).check == check


def test_a_whole_number_of_a_decimal_keeps_all_of_its_digits(read):
    given = "{validValues: [12345678901234567, 0.1], maximum: 12345678901234567890123456789012345678}"
    kind = "{logicalType: number, physicalType: 'decimal(38,0)'}"
    found = only(read(kind=kind, of_field=f"[{{metric: invalidValues, arguments: {given}, mustBe: 0}}]")).check
    assert [(type(one), one) for one in found.valid] == [(int, 12345678901234567), (float, 0.1)]
    assert found.maximum == 12345678901234567890123456789012345678


@pytest.mark.parametrize("value", [".nan", ".inf", "-.inf", str(10**400), "1.0e+39", "1.0e-39", str(10**38)])
def test_a_decimals_value_that_is_none_is_refused(read, value):
    for given in (f"{{validValues: [{value}]}}", f"{{maximum: {value}}}"):
        with pytest.raises(DeclarationError, match="no value of a decimal"):
            read(
                kind="{logicalType: number, physicalType: 'decimal(38,0)'}",
                of_field=f"[{{metric: invalidValues, arguments: {given}, mustBe: 0}}]",
            )


@pytest.mark.parametrize(("value", "told"), [(".nan", "got nan"), (".inf", "got inf"), (str(10**400), "got 1000")])
def test_a_limit_that_is_no_finite_number_is_refused(read, value, told):
    for operator in ("mustBeGreaterThan", "mustBe"):
        with pytest.raises(DeclarationError, match=f"{operator}: {told}.*allowed is a number"):
            read(of_object=f"[{{metric: rowCount, {operator}: {value}}}]")
    with pytest.raises(DeclarationError, match=r"mustBeBetween: got .*allowed is two numbers"):
        read(of_object=f"[{{metric: rowCount, mustBeBetween: [0, {value}]}}]")
    with pytest.raises(DeclarationError, match=f"m[ai][xn]imum: {told}"):
        read(
            kind="{logicalType: number}",
            of_field=f"[{{metric: invalidValues, arguments: {{maximum: {value}}}, mustBe: 0}}]",
        )
    with pytest.raises(DeclarationError, match=r"slaProperties\[0\].value: got .*allowed is a number of h"):
        read(levels=f"[{{property: latency, value: {value}, unit: h}}]")


def test_what_is_no_number_may_stand_for_none(read):
    found = read(
        kind="{logicalType: number}",
        of_field="[{metric: missingValues, arguments: {missingValues: [.nan, -1]}, mustBe: 0}]",
    )
    assert repr(only(found).check) == "Missing(column='code', values=(nan, -1.0))"


JAVA_REFUSES = {
    "{.*}": "a '{' that begins no count, at 0",
    "a{": "a '{' that begins no count, at 1",
    "a{,3}": "a '{' that begins no count, at 1",
    "a{2}{": "a '{' that begins no count, at 4",
    "a{3000000000}": "a count of more than 2,147,483,647, at 1",
    "[[]": "a '[' within a class, at 1",
    "[]a[b]": "a '[' within a class, at 3",
    "[^][]": "a '[' within a class, at 3",
    "[&&]": "'&&' at the beginning of a class, at 1",
    r"[\b]": r"'\\b' within a class, at 1",
    r"[\1]": r"'\\1' within a class, at 1",
    r"[a\0]": r"'\\0' within a class, at 2",
    r"\0": r"'\\0', at 0",
    r"a\U0001F600": r"'\\U', at 1",
    "(?P<a>b)": "'(?P', at 0",
    "(a)(?(1)b|c)": "'(?(', at 3",
    "(?#why)a": "'(?#', at 0",
    "(?a)b": "'(?a', at 0",
    "(?sa:b)": "'(?sa', at 0",
}


@pytest.mark.parametrize("pattern", JAVA_REFUSES)
def test_a_pattern_that_only_python_takes_is_refused(pattern):
    assert JAVA_REFUSES[pattern] in trouble_of(pattern)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of sets within sets, which it takes as they are all the same
        re.compile(pattern)


@pytest.mark.parametrize("pattern", ["a{99999999999}", "(" * 100_000 + ")" * 100_000, r"\p{L}", "(?<a>b)", "a{3,2}"])
def test_a_pattern_that_python_does_not_take_is_refused(pattern):
    assert trouble_of(pattern)


@pytest.mark.parametrize(
    "pattern",
    [
        *(
            "",
            "a{2}b{2,}c{2,3}+",
            r"\{.*\}",
            "[{]",
            "[]a]",
            "[^]a]",
            r"[\[\]]",
            "}",
            "a]",
            r"\[",
            "[a-c&&b-d]",
            "(?i)é+?",
        ),
        *(r"(a)\1", r"\012\x41\u0041[\x41\012]", "(?:a|b)(?=c)(?!d)(?<=c)(?<!d)(?>e)(?s-i:f)", r"\Aa\Z", r"\\{2}"),
    ],
)
def test_a_pattern_that_both_take_is_taken(pattern):
    assert trouble_of(pattern) is None


@pytest.mark.parametrize(
    ("text", "check", "unit"),
    [
        ("{metric: rowCount, mustBeGreaterThan: 0}", RowCount(), Unit.ROWS),
        (
            "{metric: duplicateValues, arguments: {properties: [tenant, spot.x]}, mustBeGreaterThan: 0, unit: percent}",
            Duplicates(("tenant", "spot.x")),
            Unit.PERCENT,
        ),
        (
            (
                "{type: custom, engine: lakehose, implementation: {metric: volumeDeviation, of: days, last: 7},"
                " mustBeGreaterThan: 0}"
            ),
            Volume(Span.DAYS, 7),
            Unit.PERCENT,
        ),
    ],
)
def test_a_rule_of_the_object_is_read(read, text, check, unit):
    rule = only(read(of_object=f"[{text}]"))
    assert (rule.check, rule.unit, rule.severity) == (check, unit, Severity.WARNING)


def test_a_latency_of_the_service_levels_is_a_rule(read):
    severe = "customProperties: [{property: lakehose.severity, value: error}]"
    found = read(
        levels=f"[{{property: latency, value: 4, unit: h, element: visits.event_time, {severe}}},"
        " {property: retention, value: 3, unit: y}, {property: freshness, value: 2, unit: d, element: other.at}]"
    )
    limit = (Limit(Operator.AT_MOST, (14_400.0,)),)
    assert only(found) == Rule("event_time.latency", Freshness("event_time"), limit, Severity.ERROR, Unit.SECONDS)


def test_a_text_is_left_to_people(read):
    assert read(of_field="[{type: text, description: it is so}]").quality == ()


def test_rules_of_one_name_are_told_apart_by_a_number(read):
    found = read(of_field="[{metric: nullValues, mustBe: 0}, {metric: nullValues, mustBeLessThan: 1, unit: percent}]")
    assert [one.name for one in found.quality] == ["code.nullValues", "code.nullValues-2"]


def test_a_rule_of_a_field_in_an_object_names_its_path(read, tmp_path):
    path = tmp_path / "v.yaml"
    path.write_text(
        f"{HEAD}schema:\n  - name: visits\n    properties:\n      - name: home\n        logicalType: object\n"
        "        properties:\n          - {name: zip, logicalType: integer,"
        " quality: [{metric: nullValues, mustBe: 0}]}\n"
    )
    assert only(read_contract(path, "visits")).columns == ("home.zip",)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{metric: nulValues, mustBe: 0}", "metric: got 'nulValues', allowed are: duplicateValues, invalidValues"),
        ("{metric: rowCount, mustBe: 0}", "metric: got 'rowCount', allowed are: duplicateValues"),
        ("{rule: nullValues, mustBe: 0}", "rule: it is `metric` since version 3.1"),
        ("{metric: nullValues}", "it says no limit; one of: mustBe, mustNotBe"),
        ("{metric: nullValues, mustBe: many}", "mustBe: got 'many', allowed is a number"),
        ("{metric: nullValues, mustBeBetween: [5, 1]}", r"mustBeBetween: got [5, 1], allowed is two numbers, the"),
        ("{metric: nullValues, mustBe: 0, unit: pct}", "unit: got 'pct', allowed are: percent, rows"),
        (
            "{metric: nullValues, mustBe: 0, severity: fatal}",
            "severity: got 'fatal', allowed are: error, info, warning",
        ),
        ("{metric: nullValues, mustBe: 0, arguments: {x: 1}}", "arguments: nullValues takes no 'x'"),
        ("{metric: nullValues, mustBe: 0, schedule: '0 1 * * *'}", "schedule: rules are checked with each batch"),
        ("{type: sql, query: SELECT 1, mustBe: 0}", "type: got 'sql', allowed are library, text, and custom of engine"),
        ("{type: custom, engine: soda, implementation: x}", "type: got 'custom' of engine 'soda', allowed are library"),
        ("{type: custom, engine: lakehose, implementation: {metric: volumeDeviation}, mustBe: 0}", "allowed is, of an"),
        ("{metric: missingValues, mustBe: 0}", "arguments.missingValues: a list of values is needed, got None"),
        ("{metric: missingValues, arguments: {missingValues: [5]}, mustBe: 0}", "got 5, which is no value of a string"),
        ("{metric: invalidValues, mustBe: 0}", "invalidValues needs validValues, pattern, minimum or maximum"),
        ("{metric: invalidValues, arguments: {validValues: []}, mustBe: 0}", "a list of values is needed, got []"),
        (
            "{metric: invalidValues, arguments: {minimum: 1}, mustBe: 0}",
            "it is for numbers and times, and code is a st",
        ),
        (
            "{metric: invalidValues, arguments: {pattern: '['}, mustBe: 0}",
            "got '[', allowed is a regular expression of Java: unterm",
        ),
        ("{metric: invalidValues, arguments: {pattern: '(?P<a>b)'}, mustBe: 0}", "allowed is a regular expression of"),
        ("{metric: duplicateValues, arguments: {days: 9999}, mustBe: 0}", "arguments.days: got 9999, allowed are 0 to"),
    ],
)
def test_what_cannot_be_checked_is_refused_by_name(read, text, told):
    with pytest.raises(DeclarationError, match=r"visits.yaml: schema\[visits\].code.quality\[0\].*") as caught:
        read(of_field=f"[{text}]")
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{metric: nullValues, mustBe: 0}", "metric: got 'nullValues', allowed are: duplicateValues, rowCount"),
        ("{metric: duplicateValues, mustBe: 0}", "arguments.properties: a list of columns is needed"),
        ("{metric: duplicateValues, arguments: {properties: [cod]}, mustBe: 0}", "did you mean 'code'?"),
        ("{metric: duplicateValues, arguments: {properties: [spot]}, mustBe: 0}", "a struct can't be compared"),
        ("{metric: rowCount, mustBe: 0, unit: percent}", "unit: got 'percent', allowed are: rows"),
        (
            (
                "{type: custom, engine: lakehose, implementation: {metric: volumeDeviation, of: days}, mustBe: 0,"
                " severity: error}"
            ),
            "a day that ended can't be held back",
        ),
        (
            "{type: custom, engine: lakehose, implementation: {metric: volumeDeviation, of: weeks}, mustBe: 0}",
            "implementation.of: got 'weeks', allowed are: batches, days",
        ),
        (
            "{type: custom, engine: lakehose, implementation: {metric: volumeDeviation, lsat: 1}, mustBe: 0}",
            "volumeDeviation takes no 'lsat'",
        ),
    ],
)
def test_what_cannot_be_checked_of_an_object_is_refused_by_name(read, text, told):
    with pytest.raises(DeclarationError, match=re.escape(told)):
        read(of_object=f"[{text}]")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{property: latency, value: 4, unit: y}", "slaProperties[0].unit: got 'y', allowed are: d, day"),
        ("{property: latency, value: soon, unit: h}", "slaProperties[0].value: got 'soon', allowed is a number of h"),
        ("{property: latency, value: 4, unit: h, element: visits.code}", "code is a string, and a timestamp is needed"),
        ("{property: latency, value: 4, unit: h, element: event_tim}", "did you mean 'event_time'?"),
    ],
)
def test_a_latency_that_is_none_is_refused_by_name(read, text, told):
    with pytest.raises(DeclarationError, match=re.escape(told)):
        read(levels=f"[{text}]")


def test_rules_of_what_is_in_a_list_are_refused(read):
    with pytest.raises(DeclarationError, match=r"code\[\]: quality: rules of what is in a list can't be checked"):
        read(kind="{logicalType: array, items: {logicalType: string, quality: [{metric: nullValues, mustBe: 0}]}}")


@pytest.mark.parametrize(
    ("operator", "bounds", "holding", "breaking", "text"),
    [
        (Operator.BE, (5,), 5, 6, "= 5"),
        (Operator.NOT_BE, (5,), 6, 5, "≠ 5"),
        (Operator.ABOVE, (5,), 5.1, 5, "> 5"),
        (Operator.AT_LEAST, (5,), 5, 4.9, "≥ 5"),
        (Operator.BELOW, (5,), 4.9, 5, "< 5"),
        (Operator.AT_MOST, (5,), 5, 5.1, "≤ 5"),
        (Operator.BETWEEN, (1, 5), 2, 5, "between 1 and 5"),
        (Operator.NOT_BETWEEN, (1, 5), 1, 2, "not between 1 and 5"),
    ],
)
def test_a_limit_holds_what_it_says(operator, bounds, holding, breaking, text):
    limit = Limit(operator, bounds)
    assert (limit.holds(holding), limit.holds(breaking), str(limit)) == (True, False, text)


def test_a_count_in_percent_is_of_the_batchs_rows():
    rule = Rule("r", Nulls("code"), (Limit(Operator.BELOW, (10.0,)),), Severity.ERROR, Unit.PERCENT)
    assert [(one.value, one.passed, one.blocks) for one in judge([rule], {"r": 1}, 9)] == [(100 / 9, False, True)]
    assert [(one.value, one.passed) for one in judge([rule], {"r": 0}, 0)] == [(0.0, True)]


def test_where_there_is_nothing_to_measure_no_rule_is_broken():
    (found,) = judge([Rule("r", Volume(), NONE, unit=Unit.PERCENT)], {"r": None}, 5)
    assert (found.value, found.passed) == (None, True)


def test_a_broken_rule_that_only_warns_does_not_block():
    (found,) = judge([Rule("r", RowCount(), NONE)], {"r": 5.0}, 5)
    assert (found.passed, found.blocks, str(found)) == (
        False,
        False,
        "rule r (warning): rowCount is 5 rows, must be = 0",
    )


def test_a_deviation_is_in_percent_of_the_mean():
    assert (deviation(50, [100, 100]), deviation(50, []), deviation(50, [0])) == (-50.0, None, None)


def test_the_digest_tells_the_rules_that_block_and_no_others():
    block, warn = Rule("a", RowCount(), NONE, Severity.ERROR), Rule("b", RowCount(), NONE)
    assert digest([block, warn]) == digest([block])
    assert digest([block]) != digest([Rule("a", RowCount(), (Limit(Operator.BE, (1.0,)),), Severity.ERROR)])


def test_other_rules_are_a_patch_of_a_contract(read):
    before = read(of_field="[{metric: nullValues, mustBe: 0}]")
    after = read(of_field="[{metric: nullValues, mustBe: 1}]", of_object="[{metric: rowCount, mustBeGreaterThan: 0}]")
    assert [(one.step, one.sentence) for one in compare(before, after)] == [
        (Step.PATCH, "quality: rule rowCount is new or another"),
        (Step.PATCH, "quality: rule code.nullValues is new or another"),
    ]
    assert [one.sentence for one in compare(before, read())] == ["quality: rule code.nullValues is gone"]
