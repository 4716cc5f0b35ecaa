"""Owns a batch's plan: which objects it takes, written to S3 once before it runs and never changed.

Whoever runs batch N of a series runs this plan, after a crash too. Two runs can't plan the same number: the object is
written on the condition that there is none.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from lake.documents import create_document, read_document
from lake.errors import CommitConflictError, TerminalError
from lake.manifest import Lane
from lake.names import Names
from spark_jobs.objects import StoredObject

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mypy_boto3_s3 import S3Client

    from lake.contract import PartitionField
    from lake.declaration import Jobs, Stream
    from lake.manifest import BatchId

__all__ = ["Plan", "carve", "planned_series", "read_plan", "write_plan"]

_PART_BYTES = 4 * 2**20  # of objects as stored, whose rows are one file, about
_PLACES = 4  # partitions of a batch, at most, into which each part may write a file
_DAYS_OF = {"hour": 1 / 24, "day": 1.0, "month": 28.0, "year": 365.0}
"""What a partition by time holds."""


@dataclass(frozen=True)
class Plan:
    """What one batch takes."""

    batch: BatchId
    objects: tuple[StoredObject, ...]
    schema_version: str
    """Version of the contract it was planned under."""
    planned_at_ms: int
    dedup_days: int | None = None
    """Days in which duplicates are looked for; None: as many as the contract says. A backfill looks in all of them."""

    def spread(self, days: int, partition: Sequence[PartitionField]) -> tuple[int, Literal["none", "hash"]]:
        """In how many parts its rows are written, and how Iceberg distributes them before.

        Gathering rows by their partition costs a shuffle, and writes what is of one day on one core. So where they are
        of a few days, each part is written as it is; only where that would be many small files, they are gathered.

        Args:
            days: on so many its events happened.
            partition: the table's.
        """
        parts = 1 + sum(one.size for one in self.objects) // _PART_BYTES
        holds = [_DAYS_OF.get(one.transform, 0.0) if one.column == "event_time" else 0.0 for one in partition]
        few = all(one and days / one <= _PLACES for one in holds)
        return parts, "none" if parts == 1 or few else "hash"


def _place(bucket: str, batch: BatchId) -> tuple[str, str]:
    return bucket, Names.plan_key(batch.dataset, batch.tenant, batch.lane, batch.number)


def carve(objects: Sequence[StoredObject], jobs: Jobs) -> tuple[StoredObject, ...]:
    """The first objects that one batch may take; at least one, however large it is."""
    taken: list[StoredObject] = []
    room = jobs.ingest_mib * 2**20
    for one in objects[: jobs.ingest_objects]:
        room -= one.size
        if taken and room < 0:
            break
        taken.append(one)
    return tuple(taken)


def write_plan(s3: S3Client, bucket: str, plan: Plan) -> None:
    """Write the plan of a batch that has none.

    Raises:
        CommitConflictError: another run has planned this batch.
    """
    body = {
        "batch": str(plan.batch),
        "schema_version": plan.schema_version,
        "planned_at_ms": plan.planned_at_ms,
        "objects": [{"uri": one.uri, "size": one.size} for one in plan.objects],
        **({} if plan.dedup_days is None else {"dedup_days": plan.dedup_days}),
    }
    place, key = _place(bucket, plan.batch)
    # where a reply was lost and boto3 asked again, it is our own that is there
    if not create_document(s3, place, key, body) and read_plan(s3, bucket, plan.batch) != plan:
        raise CommitConflictError(f"batch {plan.batch}: another ingest has planned it")


def read_plan(s3: S3Client, bucket: str, batch: BatchId) -> Plan | None:
    """The plan of a batch, or None where it has none.

    Raises:
        TerminalError: there is one, and it is none of ours.
    """
    place, key = _place(bucket, batch)

    def parsed(raw: Any) -> tuple[str, Plan]:
        objects = tuple(StoredObject(str(one["uri"]), int(one["size"])) for one in raw["objects"])
        days = raw.get("dedup_days")
        version, moment = str(raw["schema_version"]), int(raw["planned_at_ms"])
        return raw["batch"], Plan(batch, objects, version, moment, None if days is None else int(days))

    found = read_document(s3, place, key, parsed, what="plan")
    if found is None:
        return None
    named, plan = found
    if named != str(batch):
        raise TerminalError(f"plan s3://{place}/{key}: it is of batch {named}, not {batch}")
    return plan


def planned_series(s3: S3Client, stream: Stream) -> list[tuple[Lane, str]]:
    """Lanes and tenants of a stream that ever had a batch planned."""
    found: list[tuple[Lane, str]] = []
    for lane in Lane:
        prefix = Names.plan_key(stream.dataset.name, "", lane, 0).rpartition("/")[0]
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=stream.bucket, Prefix=prefix, Delimiter="/")
        folders = [one["Prefix"] for page in pages for one in page.get("CommonPrefixes", [])]
        found += [(lane, folder.removesuffix("/").rpartition("/")[2].removeprefix("tenant=")) for folder in folders]
    return found
