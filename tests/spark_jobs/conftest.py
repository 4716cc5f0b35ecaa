"""What the Spark jobs' tests share: one Spark, lakes in a real S3, Glue and DynamoDB, commands, and how to crash."""

from __future__ import annotations

import base64
import gzip
import itertools
import json
import os
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lake.contract import Contract, Field, PartitionField, Primitive
from lake.declaration import Buffering, Dataset, Jobs, Lake, Tenant, Tier
from lake.manifest import Manifest
from lake.provision import provision_storage
from lake.tables import glue_catalog
from spark_jobs import ingest
from spark_jobs.session import create_session
from tests.spark_jobs.upkeep import TIDY, Kept

if TYPE_CHECKING:
    from lake.clients import Cloud

ROOT = Path(__file__).parents[2]
_numbers = itertools.count(1)
_ODCS = {"string": {"logicalType": "string"}, "int": {"logicalType": "integer", "physicalType": "int"}}

VISITS = Contract(
    dataset="visits",
    version="1.2.0",
    fields=(
        Field("page", Primitive("string"), required=True),
        Field("seconds", Primitive("int")),
    ),
    partition=(PartitionField("day", "event_time"),),
    sort=("event_time",),
    dedup_days=3650,  # the tests' event ids are of 2024
)


class Stop(BaseException):
    """A crash: nothing in a job may catch it."""


def stop_after(step, nth=1):
    """What a job is to call after its steps, to crash after one of them."""
    left = itertools.count(1)

    def after(done):
        if done == step and next(left) >= nth:
            raise Stop

    return after


@pytest.fixture(scope="session")
def spark(cloud):
    session = create_session(cloud, app_name="tests", cores=2, extra={"spark.sql.shuffle.partitions": "2"})
    yield session
    session.stop()


@dataclass
class World:
    """A lake with a tenant `solo` of its own tier, `ann` and `bob` pooled or none, and one dataset `visits`."""

    spark: Any
    cloud: Cloud
    lake: Lake

    def bucket(self, tenant):
        return self.lake.stream_of("visits", tenant).bucket

    def event(self, number, tenant="solo", *, day=1, **changes):
        """One event as it is on the wire; a change to `...` takes the key away."""
        made = {
            "event_id": f"018f0000-0000-7000-8000-{number:012d}",
            "tenant": tenant,
            "dataset": "visits",
            "event_time": f"2013-01-{day:02d}T10:00:00.000Z",
            "producer_id": f"{tenant}-phone",
            "sequence": number,
            "schema_version": "1.0.0",
            "payload": {"page": "/", "seconds": number},
        }
        return {key: value for key, value in {**made, **changes}.items() if value is not ...}

    def deliver(self, name, records, tenant="solo", *, under=None, bucket=None):
        """Put an object as Firehose does; answers its address."""
        prefix = f"processed/visits/tenant={tenant if under is None else under}/year=2013/month=01/day=01/"
        return self.put(bucket or self.bucket(tenant), f"{prefix}{name}.gz", records)

    def withhold_messages(self, owner):
        """Take what S3 tells of an owner's new objects, as an ingest does that is killed then: nobody else is told."""
        url = self.cloud.sqs.get_queue_url(QueueName=self.lake.names.queue(owner))["QueueUrl"]
        assert self.cloud.sqs.receive_message(QueueUrl=url, VisibilityTimeout=600).get("Messages")

    def put(self, bucket, key, records):
        body = b"".join((one if isinstance(one, bytes) else json.dumps(one).encode()) + b"\n" for one in records)
        self.cloud.s3.put_object(Bucket=bucket, Key=key, Body=gzip.compress(body) if key.endswith(".gz") else body)
        return f"s3://{bucket}/{key}"

    def plan_nobodys(self):
        """Leave the plan of a first batch whose object nobody may read."""
        plan = {
            "batch": "visits/events/solo/solo/1",
            "schema_version": "1.0.0",
            "planned_at_ms": 0,
            "objects": [{"uri": "s3://nobodys-bucket/a.gz", "size": 1}],
        }
        self.put(self.bucket("solo"), "batches/visits/events/tenant=solo/000000001.json", [plan])

    def refuse(self, name, raws, tenant="solo"):
        """Put an error object as Firehose does."""
        lines = [
            raw
            if isinstance(raw, str)
            else json.dumps(
                {
                    "attemptsMade": 1,
                    "arrivalTimestamp": 1357034400000,
                    "errorCode": "DynamicPartitioning.MetadataExtractionFailed",
                    "errorMessage": "partition keys can't be read",
                    "attemptEndingTimestamp": 1357034460000,
                    "rawData": base64.b64encode(raw).decode(),
                }
            )
            for raw in raws
        ]
        key = f"errors/metadata-extraction-failed/visits/2013/01/01/{name}"
        return self.put(self.bucket(tenant), key, [line.encode() for line in lines])

    def ingest(self, **options):
        return ingest.run(self.spark, self.lake, self.cloud, **options)

    def manifest(self):
        return Manifest(self.cloud.dynamodb, self.lake.names.manifest_table())

    def table(self, owner, name="visits"):
        """A table as PyIceberg sees it."""
        return glue_catalog(self.cloud).load_table((self.lake.names.database(owner), name))

    def rows(self, owner, name="visits"):
        """A table's rows, as PyIceberg reads them, in the order of the events."""
        found = self.table(owner, name).scan().to_arrow().to_pylist()
        keys = ("object", "position") if name == "quarantine" else ("event_id",)
        return sorted(found, key=lambda row: tuple(row[key] if row[key] is not None else -1 for key in keys))


@pytest.fixture(scope="session")
def worlds(spark, cloud):
    """Make lakes of their own; without the pool it takes a quarter of the time."""

    def make(contract=VISITS, jobs=None, *, pool=False):
        pooled = (Tenant("ann", Tier.POOLED), Tenant("bob", Tier.POOLED)) if pool else ()
        lake = Lake(
            company=f"spark{next(_numbers)}",
            environment="test",
            region="us-east-1",
            tenants=(Tenant("solo", Tier.DEDICATED), *pooled),
            datasets=(Dataset(contract.dataset, contract, Buffering()),),
            jobs=jobs or replace(Jobs(), ingest_objects=10),
        )
        for _ in provision_storage(lake, cloud):
            pass
        return World(spark, cloud, lake)

    return make


@pytest.fixture
def world(worlds):
    return worlds()


@pytest.fixture
def shared(worlds):
    """A lake with pooled tenants."""
    return worlds(pool=True)


@pytest.fixture
def kept(worlds):
    """A table that is maintained."""
    return Kept(worlds(jobs=TIDY))


def declare(world, folder):
    """Write a world's declaration, and its contract, as files."""
    (dataset,) = world.lake.datasets
    contract = dataset.contract
    properties = [
        {
            "name": one.name,
            **_ODCS[one.type.name],
            "required": one.required,
            **({"classification": "pii"} if one.pii else {}),
        }
        for one in contract.fields
    ]
    custom = [{"property": "lakehose.dedupDays", "value": contract.dedup_days}]
    schema = {"name": "visits", "logicalType": "object", "customProperties": custom, "properties": properties}
    head = {"apiVersion": "v3.1.0", "kind": "DataContract", "id": "visits", "status": "active"}
    lake = {
        "company": world.lake.company,
        "environment": "test",
        "tenants": {"solo": {"tier": "dedicated"}},
        "datasets": {"visits": {"contract": "visits.yaml"}},
    }
    (folder / "visits.yaml").write_text(json.dumps({**head, "version": contract.version, "schema": [schema]}))
    (folder / "lake.yaml").write_text(json.dumps(lake))


@pytest.fixture
def started(ministack, tmp_path):
    """Start Python where the declaration is, in a narrow terminal; answers the process, whose output is text."""

    def started(*arguments):
        return subprocess.Popen(
            [sys.executable, *arguments],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "AWS_ENDPOINT_URL": ministack, "COLUMNS": "80"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return started


@pytest.fixture
def python(started):
    """Run Python where the declaration is; answers the finished process."""

    def python(*arguments):
        with started(*arguments) as process:
            try:
                out, said = process.communicate(timeout=600)
            finally:
                process.kill()
        return subprocess.CompletedProcess(process.args, process.returncode, out, said)

    return python


@pytest.fixture
def lakehose(python):
    """Run the command where the declaration is, as a person does; answers the finished process."""
    return lambda *arguments: python("-m", "lakehose", *arguments)
