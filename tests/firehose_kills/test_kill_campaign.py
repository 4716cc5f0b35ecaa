"""The server killed with -9 at random moments under load: what it acknowledged is in S3, whole and once.

The short form is in every run of the tests; `make firehose-kills KILLS=… SEED=…` goes on for as long as asked.
"""

from __future__ import annotations

import os
import secrets

import pytest

from tests.conftest import running_ministack
from tests.firehose_kills.campaign import STRIKES, Campaign
from tests.firehose_kills.model import DESTINATION
from tests.firehose_kills.streams import STREAMS


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory):
    """A MiniStack of the campaign's own: the session's other tests don't wait for it."""
    with running_ministack(tmp_path_factory.mktemp("kills-ministack")) as url:
        yield url


@pytest.mark.timeout(1200)
def test_what_was_acknowledged_is_in_s3_whatever_moment_the_server_is_killed_at(endpoint, tmp_path):
    with Campaign(5, endpoint, tmp_path) as campaign:
        own = [one for one in STRIKES if one != "after a longer life"]
        (lives,) = campaign.rounds(len(own), len(own), own)
        assert [one.strike for one in lives] == own
        # a campaign that put nothing, or whose servers had nothing to take up, would prove nothing
        assert campaign.model.total["acknowledged"] > 500
        assert campaign.model.total["objects"] > len(STREAMS)
        assert sum(1 for one in lives if one.pending) > 3
        places = {(stream, place) for stream, place in campaign.model.places if place == DESTINATION}
        assert places == {(stream.name, DESTINATION) for stream in STREAMS}


@pytest.mark.timeout(1200)
def test_neither_is_anything_lost_of_a_server_of_several_processes(endpoint, tmp_path):
    with Campaign(7, endpoint, tmp_path, processes=2) as campaign:
        own = ["at a request to S3", "the disk is full", "while it starts", "a moment", "while it flushes"]
        (lives,) = campaign.rounds(len(own), len(own), own)
        assert campaign.model.total["acknowledged"] > 500
        assert {one.alone for one in lives if one.processes > 1} == {True, False}
        assert len({one.processes for one in lives}) > 1


@pytest.mark.faults
@pytest.mark.timeout(0)
@pytest.mark.parametrize("processes", [1, 2])
def test_hundreds_of_kills_lose_nothing(endpoint, tmp_path, processes):
    seed = int(os.environ.get("SEED") or secrets.randbelow(1_000_000))
    with Campaign(seed, endpoint, tmp_path, processes) as campaign:
        for _ in campaign.rounds(int(os.environ.get("KILLS") or 300), 20):
            pass
        assert {(stream.name, place) for stream in STREAMS for place in stream.places} == set(campaign.model.places)
