from __future__ import annotations

import pytest

from dags.chains import chain_of, chains
from lake.errors import DeclarationError
from lake.jobs import Job, Schedule

FIVE, HOURLY, DAILY = Schedule("*/5 * * * *"), Schedule("@hourly"), Schedule("@daily")


def shown(*pipeline):
    return [(one.name, one.schedule, one.names()) for one in chains(pipeline)]


def test_each_schedule_is_a_chain_that_begins_with_what_its_jobs_come_after():
    ingest = Job("ingest", schedule=FIVE)
    compact = Job("compact", after=("ingest",), schedule=HOURLY)
    maintain = Job("maintain", after=("compact",), schedule=DAILY)
    assert shown(ingest, compact, maintain) == [
        ("ingest", FIVE, ["ingest"]),
        ("compact", HOURLY, ["ingest", "compact"]),
        ("maintain", DAILY, ["ingest", "compact", "maintain"]),
    ]


def test_jobs_of_one_schedule_share_a_chain_named_for_the_last():
    files = Job("files", schedule=FIVE)
    ingest = Job("ingest", after=("files",), schedule=FIVE)
    assert shown(files, ingest) == [("ingest", FIVE, ["files", "ingest"])]


def test_a_job_without_a_schedule_runs_in_the_chain_of_the_job_it_comes_after():
    ingest = Job("ingest", schedule=FIVE)
    compact = Job("compact", after=("ingest",), schedule=None)
    assert shown(ingest, compact) == [("ingest", FIVE, ["ingest", "compact"])]


def test_a_job_by_hand_has_a_chain_of_its_own_and_is_started_by_no_other():
    files = Job("files", schedule=None)
    ingest = Job("ingest", after=("files",), schedule=FIVE)
    assert shown(files, ingest) == [("files", None, ["files"]), ("ingest", FIVE, ["ingest"])]


def test_two_jobs_by_hand_do_not_share_a_chain():
    assert shown(Job("replay"), Job("erase")) == [("replay", None, ["replay"]), ("erase", None, ["erase"])]


def test_in_a_chain_a_job_comes_directly_after_those_it_names():
    ingest = Job("ingest", schedule=FIVE)
    compact = Job("compact", after=("ingest",), schedule=HOURLY)
    maintain = Job("maintain", after=("ingest", "compact"), schedule=DAILY)
    last = chains((ingest, compact, maintain))[-1]
    assert last.before(maintain) == (ingest, compact)
    assert last.before(ingest) == ()


def test_the_chain_of_a_job_is_the_one_it_gives_its_schedule():
    ingest = Job("ingest", schedule=FIVE)
    compact = Job("compact", after=("ingest",), schedule=HOURLY)
    tidy = Job("tidy", after=("compact",), schedule=HOURLY)
    found = chains((ingest, compact, tidy))
    assert chain_of(found, "ingest").names() == ["ingest"]
    assert chain_of(found, "compact").name == "tidy"


def test_an_unknown_job_is_told_what_there_is():
    with pytest.raises(DeclarationError, match="job: got 'ingset', allowed are: ingest; did you mean 'ingest'"):
        chain_of(chains((Job("ingest", schedule=FIVE),)), "ingset")
