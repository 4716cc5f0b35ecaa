"""Owns what a backfill remembers of itself, `backfills/DATASET/tenant=T/ID.json`, and which objects are its."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, replace
from datetime import UTC, date, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from lake.documents import read_document, write_document
from lake.manifest import Arrival, Lane
from lake.names import Names, day_folders
from spark_jobs.objects import StoredObject
from spark_jobs.plan import carve

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mypy_boto3_s3 import S3Client

    from lake.declaration import Jobs, Stream
    from lake.manifest import Manifest

__all__ = [
    "Chunk",
    "Source",
    "State",
    "backfill_objects",
    "branches_being_written",
    "carved",
    "read_state",
    "write_state",
]

_DAY = re.compile(r"(?:year=)?(\d{4})/(?:month=)?(\d{2})/(?:day=)?(\d{2})/")
_LINES = re.compile(r"\.(json|jsonl|ndjson)(\.gz)?$|\.gz$")
_NO_LINES = re.compile(r"\.(csv|tsv|txt|parquet|zip)(\.gz)?$")


class Source(StrEnum):
    """Where a backfill's objects lie."""

    PROCESSED = "processed"
    """Where doors put events."""
    RAW = "raw"
    """`raw/DATASET/` of the tenant's bucket: events as JSON lines, as they were brought or kept as a backup."""


@dataclass(frozen=True)
class Chunk:
    """What one batch of a backfill takes."""

    objects: tuple[StoredObject, ...]
    number: int | None = None
    """Of the batch, once it is known."""


@dataclass(frozen=True)
class State:
    """A backfill, and how far it is."""

    id: str
    """Made of what it is about: the same command goes on with the same backfill, and with the objects it began with."""
    dataset: str
    tenant: str
    source: str
    schema_version: str
    planned_at_ms: int
    chunks: tuple[Chunk, ...]
    branch: str | None = None
    base: int | None = None
    """Snapshot of the table that the branch was made from."""
    writing: bool = False
    """Whether a run is writing to the branch, or was ended while it was."""
    finished: bool = False
    """Whether its rows are in the table; the same command then begins anew."""

    @classmethod
    def new(
        cls,
        dataset: str,
        tenant: str,
        source: Source,
        days: tuple[date, date],
        *,
        chunks: Sequence[Chunk],
        version: str,
        planned_at_ms: int,
    ) -> State:
        """A backfill that hasn't begun."""
        named = json.dumps([dataset, tenant, source, *map(str, days)])
        name = hashlib.sha256(named.encode()).hexdigest()[:16]
        return cls(name, dataset, tenant, source, version, planned_at_ms, tuple(chunks))

    @property
    def objects(self) -> int:
        """Of all of its batches."""
        return sum(len(one.objects) for one in self.chunks)

    @property
    def key(self) -> str:
        """Of its object."""
        return f"backfills/{self.dataset}/tenant={self.tenant}/{self.id}.json"

    def with_number(self, place: int, number: int) -> State:
        """The same with one chunk's batch numbered."""
        chunks = list(self.chunks)
        chunks[place] = replace(chunks[place], number=number)
        return replace(self, chunks=tuple(chunks))


def carved(objects: Sequence[StoredObject], jobs: Jobs) -> list[Chunk]:
    """Objects in batches, each as many as ingest would take."""
    chunks: list[Chunk] = []
    left = list(objects)
    while left:
        taken = carve(left, jobs)
        chunks.append(Chunk(taken))
        left = left[len(taken) :]
    return chunks


def branches_being_written(s3: S3Client, bucket: str, dataset: str, tenant: str) -> list[str]:
    """Branches of a tenant's table to which a backfill is writing, or was when it was ended."""
    prefix = f"backfills/{dataset}/tenant={tenant}/"
    found: list[str] = []
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for one in page.get("Contents", []):
            raw = json.loads(s3.get_object(Bucket=bucket, Key=one["Key"])["Body"].read())
            if raw["writing"]:
                found.append(raw["branch"])
    return found


def write_state(s3: S3Client, bucket: str, state: State) -> None:
    """Write how far a backfill is, over what was written before."""
    write_document(s3, bucket, state.key, asdict(state))


def read_state(s3: S3Client, bucket: str, state: State) -> State | None:
    """How far the same backfill had come; None where it never began.

    Raises:
        TerminalError: there is an object of its name, and it is none of ours.
    """

    def parsed(raw: Any) -> State:
        chunks = (Chunk(tuple(StoredObject(**item) for item in one["objects"]), one["number"]) for one in raw["chunks"])
        return State(**{**raw, "chunks": tuple(chunks)})

    return read_document(s3, bucket, state.key, parsed, what="backfill")


def backfill_objects(
    s3: S3Client,
    manifest: Manifest,
    stream: Stream,
    tenant: str,
    *,
    bucket: str,
    source: Source,
    days: tuple[date, date],
) -> tuple[list[StoredObject], int]:
    """Objects of some days, in the order of their keys, and how many of these days were left alone.

    What no batch has taken yet is left to ingest, which may be about to.
    """
    found: list[StoredObject] = []
    left = 0
    if source is Source.PROCESSED:
        for prefix in _day_prefixes(stream.dataset.name, tenant, days):
            listed = [StoredObject(f"s3://{bucket}/{key}", size) for key, size, _ in _listed(s3, bucket, prefix)]
            place = (stream.owner, stream.dataset.name, Lane.EVENTS, tenant)
            asked = [Arrival(*place, one.uri, one.size) for one in listed]
            taken = {one.uri for one in manifest.taken_of(asked)} if asked else set()
            found += [one for one in listed if one.uri in taken]
            left += len(listed) - len(taken)
        return found, left
    for key, size, moment in _listed(s3, bucket, f"raw/{stream.dataset.name}/"):
        named = _DAY.search(key)
        day = (named and _date_of(named)) or moment
        if not days[0] <= day <= days[1]:
            continue
        if _LINES.search(key) and not _NO_LINES.search(key):
            found.append(StoredObject(f"s3://{bucket}/{key}", size))
        else:
            left += 1
    return found, left


def _date_of(named: re.Match[str]) -> date | None:
    try:
        return date(*map(int, named.groups()))
    except ValueError:  # of what only looks like a day
        return None


def _day_prefixes(dataset: str, tenant: str, days: tuple[date, date]) -> Iterator[str]:
    for after in range((days[1] - days[0]).days + 1):
        yield Names.processed_prefix(dataset, tenant) + day_folders(days[0] + timedelta(days=after))


def _listed(s3: S3Client, bucket: str, prefix: str) -> Iterator[tuple[str, int, date]]:
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for one in page.get("Contents", []):
            if one["Size"]:
                yield one["Key"], one["Size"], one["LastModified"].astimezone(UTC).date()
