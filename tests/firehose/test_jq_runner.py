"""Queries that never end, or take all memory, cost their time and nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from contextlib import suppress

import orjson
import psutil
import pytest

from firehose.extraction import QueryError, compile_query
from firehose.jq_runner import EndlessQueryError, Query, _worker
from firehose.jq_worker import HEAD
from firehose.processing import Chunk
from tests.firehose.conftest import ROOT
from tests.firehose.test_server_processing import NEWLINE, parsed, processing, processor

ENDLESS = "def f: f; {key: (if .loop then f else .kind end)}"
MORE = "the query took more than"


def collected(query):
    return f'try [({query}\n)] catch {{"error": .}}'


def test_what_a_query_makes_of_each_value_is_told_as_deep_as_keys_are():
    query = Query(collected("., {b: .a}"))
    found = query.answers('{"a":[1]} {"a":"x","c":{"d":1}} [[1]] 7', 4)
    assert found[:2] == [[{"a": []}, {"b": []}], [{"a": "x", "c": {}}, {"b": "x"}]]
    assert [list(one) for one in found[2:]] == [["error"], ["error"]]
    with pytest.raises(ValueError, match="parse error"):
        query.answers('{"a"')


@pytest.mark.parametrize(
    ("query", "limit"),
    [
        ("def f: f; {a: f}", "0.2 s of the processor"),
        ("def f: 1, f; f", "0.2 s of the processor"),
        ('{a: (("x" * 9e8) as $x | [$x + "a", $x + "b"] | length)}', "the memory there is for one"),
    ],
)
def test_a_query_that_takes_too_much_is_given_up_and_the_next_one_is_answered(query, limit):
    seconds = 0.2 if "processor" in limit else 20
    with pytest.raises(EndlessQueryError, match=f"^{MORE} {limit}$"):
        Query(collected(query), seconds=seconds).answers("null")
    assert Query(collected(".a")).answers('{"a":1}') == [[1]]


def test_a_query_that_is_given_up_again_and_again_rests():
    now = [100.0]
    query = Query(collected(ENDLESS), seconds=0.1, clock=lambda: now[0])
    for _ in range(2):
        with pytest.raises(EndlessQueryError, match=MORE):
            query.answers('{"loop":true}')
    now[0] += 61
    for _ in range(3):
        assert query.answers('{"kind":"a"}') == [[{"key": "a"}]]
        with pytest.raises(EndlessQueryError, match=MORE):
            query.answers('{"loop":true}')
        now[0] += 1
    with pytest.raises(EndlessQueryError, match="rests for 60 s"):
        query.answers('{"kind":"a"}')
    now[0] += 60
    assert query.answers('{"kind":"a"}') == [[{"key": "a"}]]


def test_a_query_that_is_slow_for_one_value_after_the_other_rests_too():
    slow = collected("{a: ([range(.)] | length)}")
    patient = Query(slow, seconds=30)
    patient.answers("300000")  # its process is started
    started = time.monotonic()
    patient.answers("300000")
    value = str(int(300_000 * 0.2 / (time.monotonic() - started)))
    query = Query(slow, seconds=1, clock=lambda: 7.0)
    asked = 0
    with suppress(EndlessQueryError):
        for asked in range(60):  # noqa: B007 - of some tenths of a second each, however fast the machine is
            query.answers(value)
    assert asked < 40
    with pytest.raises(EndlessQueryError, match="rests for 60 s"):
        query.answers("1")
    quick = Query(collected("{a: ([range(.)] | length)}"), seconds=1, clock=lambda: 7.0)
    for _ in range(300):
        assert quick.answers("1500") == [[{"a": 1500}]]


def test_of_a_long_text_the_beginning_is_told():
    ((found,),) = Query(collected('{a: ("x" * 3000000)}')).answers("null")
    assert found == {"a": "x" * 2000}
    chunk = compile_query('{a: ("x" * .n)}').using(["a"]).apply(Chunk([b'{"n":3000}'], [1], 5), 9)
    assert len(chunk.keys[0][0]) > 1024  # which makes no key of an object


def test_no_query_finds_the_servers_environment(monkeypatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "topsecret")
    _worker._process.kill()
    ((found,),) = Query(collected("env | keys")).answers("null")
    assert set(found) <= {"LD_LIBRARY_PATH", "PYTHONHOME", "PYTHONPATH", "LC_CTYPE"}


def test_only_the_records_for_which_it_never_ends_are_refused():
    step = compile_query(ENDLESS)
    records = [orjson.dumps({"kind": "ab"[n % 2], "loop": n == 30}) for n in range(60)]
    chunk = step.apply(Chunk(records, range(60), 5), 9)
    assert chunk.keys == [("ab"[n % 2],) for n in range(60) if n != 30]
    (refused,) = chunk.refused
    assert (refused.number, refused.raw) == (30, records[30])
    assert refused.reason.message == f"jq: {MORE} 1 s of the processor"


def test_a_query_that_never_ends_for_nothing_at_all_makes_no_stream():
    with pytest.raises(QueryError, match=f"{MORE} 1 s of the processor, on null"):
        compile_query("def f: f; f")


def test_one_that_was_ended_from_outside_is_started_again():
    query = Query(collected(".a"))
    assert query.answers('{"a":1}') == [[1]]
    _worker._process.kill()
    assert query.answers('{"a":2}') == [[2]]


SCRIPT = """
import os, sys, time
from firehose.jq_runner import Query, _worker
query = Query("[.]")
assert query.answers("1") == [[1]]
first = _worker._process.pid
if os.fork() == 0:
    for number in range(200):
        assert query.answers(f"{number}") == [[number]]
    assert _worker._process.pid != first
    print(_worker._process.pid, flush=True)
    query.answers('"' + "x" * 2_000_000 + '"')
    time.sleep(60)
for number in range(200, 400):
    assert query.answers(f"{number}") == [[number]]
assert _worker._process.pid == first
print(first, flush=True)
time.sleep(60)
"""


def test_each_process_has_its_own_which_ends_with_it(wait_for):
    process = subprocess.Popen([sys.executable, "-c", SCRIPT], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    pids = [int(process.stdout.readline()) for _ in range(2)]
    (forked,) = (one for one in psutil.Process(process.pid).children() if one.pid not in pids)
    assert all(psutil.pid_exists(pid) for pid in pids)
    process.kill()
    os.kill(forked.pid, 9)
    process.wait()
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in pids))


def asked(worker, question):
    raw = json.dumps(question).encode()
    worker.stdin.write(len(raw).to_bytes(HEAD) + raw)
    return worker


@pytest.mark.parametrize("moment", ["before the answer", "within the question", "within its length", "at once"])
def test_it_ends_without_a_word_where_whoever_asked_is_gone(moment):
    worker = subprocess.Popen(
        [sys.executable, "-P", str(ROOT / "firehose" / "jq_worker.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        bufsize=0,
    )
    if moment == "before the answer":
        worker.stdout.close()
        asked(worker, ["[range(200000)]", "1", 5])
    elif moment != "at once":
        worker.stdin.write((1000).to_bytes(HEAD)[: HEAD if "question" in moment else 3])
    worker.stdin.close()
    assert (worker.wait(30), worker.stderr.read()) == (0, b"")


def test_a_stream_whose_query_never_ends_keeps_no_other_waiting(server, bucket):
    destination = bucket.partitioned(
        Prefix="key=!{partitionKeyFromQuery:key}/",
        **processing(
            processor("MetadataExtraction", MetadataExtractionQuery=ENDLESS, JsonParsingEngine="JQ-1.6"), NEWLINE
        ),
    )
    server.create("endless", destination)
    server.create("other", bucket.plain(Prefix="other/"))
    started = time.monotonic()
    for number in range(10):
        good = orjson.dumps({"kind": "good", "n": number})
        server.batch("endless", [orjson.dumps({"kind": "x", "n": number, "loop": True}), good])
        server.batch("other", [good + b"\n"])
    # three are given up, alone and with another, and then it rests
    assert time.monotonic() - started < 45
    server.flush()
    assert len(parsed(bucket, "other/")) == 10
    refused = parsed(bucket, "errors/")
    assert {one["errorCode"] for one in refused} == {"DynamicPartitioning.MetadataExtractionFailed"}
    assert len(refused) + len(parsed(bucket, "key=good/")) == 20
    assert len(parsed(bucket, "key=good/")) == 2  # the third is given up before it
    assert len(refused) >= 10
    assert any("it rests" in line for line in server.errors)
