"""Quality rules on a real Spark, S3, Glue and DynamoDB: what a batch is held to, what holds it back, and who decides."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from lake.audit import balance, gather
from lake.contract import Field, Primitive
from lake.figures import Counts
from lake.manifest import BatchId, Lane, ProducerLedger
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
)
from lake.quality_log import QualityLog, State
from lake.tables import glue_catalog
from spark_jobs import compact, maintain
from spark_jobs.quality_hold import Ruling, Verdict, read_hold, read_ruling, write_ruling

NOON = datetime(2024, 4, 21, 12, tzinfo=UTC)  # the day after the tests' event ids were made
DATA = "visits/events/solo/solo"
NONE = (Limit(Operator.BE, (0.0,)),)


class Stop(BaseException):
    """A crash: nothing in the job may catch it."""


def stop_after(step):
    def after(done):
        if done == step:
            raise Stop

    return after


def blocking(check, limits=NONE, name="rule", **more):
    return Rule(name, check, limits, Severity.ERROR, **more)


SHORT = blocking(Invalid("seconds", minimum=0), name="seconds.range")


def held_world(worlds, visits, *rules, **more):
    return worlds(replace(visits, quality=rules, **more))


@pytest.fixture
def visits():
    from tests_visits import VISITS  # noqa: PLC0415

    return VISITS


def ruled(world, *rules):
    """The world's lake with other rules, as a new version of the contract has them."""
    (dataset,) = world.lake.datasets
    contract = replace(dataset.contract, quality=rules, version="1.2.1")
    world.lake = replace(world.lake, datasets=(replace(dataset, contract=contract),))


def bad(world, number, **more):
    return world.event(number, payload={"page": "/", "seconds": -1}, **more)


def log(world):
    return QualityLog(world.cloud.dynamodb, world.lake.names.manifest_table())


def entries(world):
    return list(log(world).entries("solo", "visits"))


def decide(world, verdict, number=1, why="looked at it"):
    batch = BatchId("solo", "visits", Lane.EVENTS, "solo", number)
    return write_ruling(world.cloud.s3, world.bucket("solo"), Ruling(batch, verdict, why, "mia", 0))


def numbers(world):
    return [row["sequence"] for row in world.rows("solo")]


def branches(world):
    return sorted(name for name in world.table("solo").metadata.refs if name != "main")


def audited(world):
    return balance(gather(world.lake, world.cloud, "visits"))
