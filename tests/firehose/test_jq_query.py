"""What is told of a jq query without running it."""

from __future__ import annotations

import pytest

from firehose.jq_query import PlainPath, made_keys, plain_paths, refused_words


@pytest.mark.parametrize(
    ("query", "keys"),
    [
        ("{tenant: .tenant, year: .event_time[0:4]}", ["tenant", "year"]),
        ("{tenant}", ["tenant"]),
        ('{"a b": .x, c: {d: 1, e: [1, 2]}}', ["a b", "c"]),
        (".message | fromjson | {t: .t}", ["t"]),
        (". as $x | {$x, and: 1}", ["x", "and"]),
        ('{a: "}\\"{\\(1 + 1), b: 2"}', ["a"]),
        ("{a: .a} # {b: .b}", ["a"]),
        ("{a: 1} + {b: 2}", None),
        ("{a: 1}, {b: 2}", None),
        ("{(.a): 1}", None),
        (".a", None),
    ],
)
def test_the_keys_of_the_object_at_the_end_are_read(query, keys):
    assert made_keys(query) == keys


@pytest.mark.parametrize(
    ("query", "paths"),
    [
        ("{tenant}", [PlainPath("tenant", ("tenant",))]),
        ("{ a : .x.y , b: .z[0:4] }", [PlainPath("a", ("x", "y")), PlainPath("b", ("z",), 0, 4)]),
        ("{a: .x[:4], b: .y[5:]}", [PlainPath("a", ("x",), None, 4), PlainPath("b", ("y",), 5, None)]),
    ],
)
def test_an_object_of_paths_is_plain(query, paths):
    assert plain_paths(query) == paths


@pytest.mark.parametrize(
    "query",
    [
        "{a: .a?}",
        "{a: .a | tostring}",
        "{a: .a[0]}",
        "{a: .a[-2:]}",
        "{a: .a[:]}",
        "{a: .a[1.5:]}",
        "{a: .a, a: .b}",
        "{a: 1}",
        "{a: .}",
        "{a: .a} | {a: .a}",
        '{a: ."b"}',
        "{a: .a[0:1][0:1]}",
        "{a: .a[0 1:2]}",
    ],
)
def test_a_query_that_is_more_than_paths_is_not_plain(query):
    assert plain_paths(query) is None


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("{a: input}", ["input"]),
        ('{a: "x\\(env)"}', ["env"]),
        ("{a: $ENV.HOME, b: .a | trim}", ["$ENV", "trim"]),
        ("{input: .env, env}", []),
        ('{a: "input"}', []),
        ("{a: .input} # input", []),
        ("{a: (.x, env, .y)}", ["env"]),
        ("{a: [.x, input, .y]}", ["input"]),
        ("{a: [{b: .x, env}, halt, 1]}", ["halt"]),
        ("{a: .x, env, input: 1}", []),
    ],
)
def test_words_that_jq_16_lacks_or_that_reach_outside_are_found(query, words):
    assert refused_words(query) == words
