"""Owns what the tests of the producer SDK share: a producer over a recorded Firehose, with a clock to wind."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from producers import Producer
from producers.testing import ManualClock

MOMENT = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


@pytest.fixture
def clock():
    return ManualClock(MOMENT)


@pytest.fixture
def make_producer(tmp_path, clock):
    """Makes producers of one spool; closes those that a test leaves open."""
    made = []

    def make(firehose, **changed):
        arguments = {
            "stream": "acme-test-flights-ewr",
            "tenant": "ewr",
            "dataset": "flights",
            "producer_id": "site-1",
            "schema_version": "1.0.0",
            "spool": tmp_path / "spool",
            "firehose": firehose.client,
            "clock": clock,
            "rng": lambda: 0.5,
        }
        producer = Producer(**(arguments | changed))
        made.append(producer)
        return producer

    yield make
    for producer in made:
        producer.close()
