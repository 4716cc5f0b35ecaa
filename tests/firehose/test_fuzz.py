"""Requests that nobody means: each gets a documented answer, soon, and the server goes on.

A bounded run is in every run of the tests; `FUZZ=100000 pytest tests/firehose/test_fuzz.py` goes on longer.
"""

from __future__ import annotations

import os
import sys
from collections import Counter
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, Phase, given, settings

sys.path.insert(0, str(Path(__file__).parent))
from fuzzing import CREATE, RIGHT, STREAMS, TARGET, Fuzzed, Sent, problems, requests

EXAMPLES = int(os.environ.get("FUZZ") or 600)
SLOW = 2.0
"""Seconds of processor; ten times what the slowest took."""


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory):
    with Fuzzed(tmp_path_factory.mktemp("fuzz")) as made:
        yield made


def create_missing(fuzzed):
    for name in STREAMS:
        if name not in fuzzed.engine.streams:
            answer = fuzzed.send(Sent(f"{TARGET}.CreateDeliveryStream".encode(), orjson.dumps(CREATE[name])))
            assert answer.status == 200, answer.body


def test_what_the_nearly_right_requests_are_made_of_is_right(tmp_path):
    with Fuzzed(tmp_path) as fuzzed:
        create_missing(fuzzed)
        for operation, value in RIGHT:
            answer = fuzzed.send(Sent(f"{TARGET}.{operation}".encode(), orjson.dumps(value)))
            assert answer.status == 200, (operation, answer.body)


@pytest.mark.timeout(0 if EXAMPLES > 10_000 else 600)
def test_every_request_gets_a_documented_answer_soon(fuzzed):
    answered = Counter()

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate, Phase.shrink],
        derandomize=EXAMPLES <= 10_000,
    )
    @given(requests())
    def run(sent):
        create_missing(fuzzed)
        answer = fuzzed.send(sent)
        assert problems(sent, answer) is None
        assert answer.seconds < SLOW
        assert fuzzed.faults == []
        answered[answer.status] += 1

    run()
    # a run whose requests were all refused at the door would prove nothing
    assert answered[200] > EXAMPLES / 20, answered
    assert answered[400] > EXAMPLES / 20, answered
