"""Owns files below a table's own prefix that no snapshot knows: found, shown, and deleted once they are old enough.

They are what a commit left behind that failed or was killed. A file that is younger than the guard may belong to a
commit that is under way, so it isn't even asked for. What the table knows is told by Iceberg; the listing is the
bucket's own, as S3 gives sizes and times with it. Source:
https://iceberg.apache.org/docs/1.12.0/spark-procedures/#remove_orphan_files
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING
from uuid import uuid4

from lake.errors import FindingError
from lake.names import bucket_and_key
from spark_jobs.session import CATALOG, literal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mypy_boto3_s3 import S3Client
    from pyiceberg.table import Table
    from pyspark.sql import SparkSession

__all__ = ["Orphan", "delete_orphans", "find_orphans"]

LEAST_GUARD = timedelta(hours=24)
"""Iceberg refuses to look at younger files, and so do we."""

_AT_ONCE = 1000  # keys of one request: the most S3 takes
_OLD = datetime(2000, 1, 1, tzinfo=UTC)
_OWN_FOLDERS = ("data/", "metadata/")


@dataclass(frozen=True)
class Orphan:
    """A file that no snapshot knows."""

    uri: str
    size: int
    modified: datetime


def find_orphans(
    spark: SparkSession, s3: S3Client, table: Table, name: str, expected: str, *, guard: timedelta, now: datetime
) -> list[Orphan]:
    """Files below a table's prefix that none of its snapshots knows, older than the guard, in the order of their keys.

    Args:
        spark: a session of the caller's own.
        s3: where the table is.
        table: the table.
        name: `database.table`.
        expected: `s3://…` that the table's files have to lie below, and no other's do.
        guard: younger files are left out; a day at least.
        now: what the guard is counted from.

    Raises:
        FindingError: the table lies elsewhere, or the guard is too short.
    """
    if guard < LEAST_GUARD:
        raise FindingError(f"table {name}: orphan files must be a day old at least, got a guard of {guard}")
    if table.location().rstrip("/") != expected.rstrip("/"):
        raise FindingError(
            f"table {name}: it lies at {table.location()}, where {expected} is its own; no file is looked for"
        )
    old = {one.uri: one for one in _listed(s3, expected) if one.modified <= now - guard}
    if not old:
        return []
    view = f"listed_{uuid4().hex}"
    # the guard was applied above; Iceberg's own would be asked of this machine's clock
    spark.createDataFrame([(uri, _OLD) for uri in old], "file_path string, last_modified timestamp").createTempView(
        view
    )
    try:
        named = f"table => {literal(f'{CATALOG}.{name}')}, dry_run => true, file_list_view => {literal(view)}"
        found = spark.sql(f"CALL {CATALOG}.system.remove_orphan_files({named})").collect()
    finally:
        spark.catalog.dropTempView(view)
    return [old[uri] for uri in sorted(row["orphan_file_location"] for row in found) if uri in old]


def delete_orphans(s3: S3Client, orphans: Sequence[Orphan]) -> int:
    """Delete orphans; answers how many are gone.

    Raises:
        FindingError: S3 refused some.
    """
    done = 0
    for start in range(0, len(orphans), _AT_ONCE):
        batch = orphans[start : start + _AT_ONCE]
        bucket, _ = bucket_and_key(batch[0].uri)
        keys = [one.uri.removeprefix(f"s3://{bucket}/") for one in batch]
        answer = s3.delete_objects(Bucket=bucket, Delete={"Objects": [{"Key": key} for key in keys], "Quiet": True})
        errors = answer.get("Errors", [])
        if errors:
            first = errors[0]
            raise FindingError(f"s3://{bucket}/{first.get('Key')}: S3 doesn't delete it: {first.get('Message')}")
        done += len(batch)
    return done


def _listed(s3: S3Client, location: str) -> Iterator[Orphan]:
    bucket, prefix = bucket_and_key(location.rstrip("/"))
    for folder in _OWN_FOLDERS:
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/{folder}")
        for page in pages:
            for one in page.get("Contents", []):
                yield Orphan(f"s3://{bucket}/{one['Key']}", one["Size"], one["LastModified"])
