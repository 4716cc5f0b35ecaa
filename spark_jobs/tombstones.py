"""Owns the tombstones of erased events: writing them, and finding those among which a batch's events could be.

A tombstone is a digest of an event's id and the time it was made, as coarse as 65 seconds. What counts is an object
below the receipt, `erasures/ID/events/DATASET/…`; the manifest has the same as items that a batch can ask for by time.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from pyspark.sql import functions as F  # noqa: N812 - as Spark's users know it

from lake.erasure import ERASURES, tombstone

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mypy_boto3_s3 import S3Client
    from pyspark.sql import DataFrame

    from lake.manifest import Manifest

__all__ = ["buried_events", "bury", "erased_among", "living"]

_OTHERS = "other"
"""In place of the time of an id that tells none."""


def bury(
    s3: S3Client,
    manifest: Manifest,
    stones: Sequence[tuple[str, str]],
    *,
    bucket: str,
    erasure_id: str,
    tenant: str,
    dataset: str,
) -> int:
    """Keep tombstones, before what they stand for goes; the same again changes nothing.

    Returns:
        tombstones of this erasure and dataset, earlier ones included.
    """
    prefix = f"{ERASURES}{erasure_id}/events/{dataset}/"
    if stones:
        text = "".join(f"{time or _OTHERS} {digest}\n" for time, digest in sorted(stones))
        name = hashlib.sha256(text.encode()).hexdigest()[:16]
        s3.put_object(Bucket=bucket, Key=f"{prefix}{name}.txt", Body=text.encode(), ContentType="text/plain")
    kept = set(buried_events(s3, bucket, erasure_id, dataset))
    manifest.bury(tenant, dataset, kept)
    return len(kept)


def buried_events(s3: S3Client, bucket: str, erasure_id: str, dataset: str) -> Iterator[tuple[str, str]]:
    """Tombstones of an erasure, as time and digest, from their objects."""
    prefix = f"{ERASURES}{erasure_id}/events/{dataset}/"
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for one in page.get("Contents", []):
            for line in s3.get_object(Bucket=bucket, Key=one["Key"])["Body"].read().decode().splitlines():
                time, _, digest = line.partition(" ")
                yield time, digest


def erased_among(manifest: Manifest, tenant: str, dataset: str, ids: tuple[str, str] | None) -> set[str]:
    """Digests of erased events among which a batch's events could be: of their time, or of none.

    Where nothing was ever erased it is one request.

    Args:
        manifest: where tombstones are asked for.
        tenant: whose events.
        dataset: of which dataset.
        ids: the batch's smallest and largest event id; None where it has no events.
    """
    if ids is None or not manifest.has_buried(tenant, dataset):
        return set()
    first, last = (tombstone(one)[0] for one in ids)
    found = manifest.buried(tenant, dataset, _OTHERS, _OTHERS)
    # an id that tells no time is smaller or larger than all that do: then every time is asked for
    return found | manifest.buried(tenant, dataset, first or "0", last or "g")


def living(rows: DataFrame, manifest: Manifest, tenant: str, dataset: str, ids: tuple[str, str] | None) -> DataFrame:
    """Rows with an `event_id`, without those of events that were erased.

    Args:
        rows: of a batch.
        manifest: where tombstones are asked for.
        tenant: whose events.
        dataset: of which dataset.
        ids: the batch's smallest and largest event id; None where it has no events.
    """
    gone = erased_among(manifest, tenant, dataset, ids)
    if not gone:
        return rows
    buried = rows.sparkSession.createDataFrame([(one,) for one in sorted(gone)], "digest string")
    return rows.join(F.broadcast(buried), F.sha2("event_id", 256) == F.col("digest"), "left_anti")
