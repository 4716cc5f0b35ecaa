"""Round after round: what passes is tried again, what can't heal ends it."""

from __future__ import annotations

import threading

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError

from lake.errors import TerminalError, TransientError
from spark_jobs.continuous import run_rounds


def rounds(*outcomes, every=0.01):
    """Run rounds with these outcomes, and stop after the last; answers the reports and what was said."""
    stop, reports, said = threading.Event(), [], []
    left = list(outcomes)

    def ingest():
        outcome = left.pop(0)
        if not left:
            stop.set()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    run_rounds(ingest, every, stop, say=said.append, report=reports.append)
    return reports, said


def test_each_round_is_reported_until_it_is_told_to_stop():
    assert rounds("first", "second") == (["first", "second"], [])


@pytest.mark.parametrize(
    "error",
    [
        TransientError("Glue is away"),
        EndpointConnectionError(endpoint_url="http://x"),
        ClientError({"Error": {"Code": "SlowDown", "Message": "Please reduce your request rate."}}, "GetObject"),
    ],
)
def test_what_passes_is_said_and_followed_by_the_next_round(error):
    reports, (said,) = rounds(error, "second")
    assert reports == ["second"]
    assert said == f"{error}; the next round tries again"


@pytest.mark.parametrize(
    "error",
    [
        TerminalError("no such table"),
        ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "GetObject"),
    ],
)
def test_what_cannot_heal_ends_it(error):
    with pytest.raises(type(error)):
        rounds(error, "never")


def test_it_gives_up_when_no_round_was_good_for_too_long():
    moments = iter(range(0, 100_000, 600))
    away, said = TransientError("Glue is away"), []

    def ingest():
        raise away

    with pytest.raises(TransientError, match="Glue is away"):
        run_rounds(ingest, 0.001, threading.Event(), say=said.append, report=said.append, clock=lambda: next(moments))
    assert said[-1].startswith("no round was good for ")
    assert 1 < len(said) < 5
