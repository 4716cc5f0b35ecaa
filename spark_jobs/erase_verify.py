"""Owns proving an erasure: everything is searched again, and the receipt is held to what is found.

It changes nothing, and needs the subject's values: the receipt only tells whether they are the right ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from lake.erasure import read_receipt
from lake.errors import TerminalError
from lake.manifest import Manifest
from lake.tables import glue_catalog
from spark_jobs.erase import look, table_place
from spark_jobs.erase_places import targets
from spark_jobs.erase_tables import remaining_in
from spark_jobs.failures import spoken
from spark_jobs.tombstones import buried_events

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyspark.sql import SparkSession

    from lake.clients import Cloud
    from lake.declaration import Lake
    from lake.erasure import Receipt, Subject

__all__ = ["Verification", "verify"]


@dataclass(frozen=True)
class Verification:
    """What is left of a subject."""

    receipt: Receipt
    remaining: Mapping[str, int]
    """Records by place, every place that was searched named."""
    snapshots: Mapping[str, int]
    """By table: snapshots that still name files which held the subject."""
    tombstones_missing: Mapping[str, int]
    """By dataset: erased events that the manifest has forgotten, and which could come back."""
    unread: tuple[str, ...]
    """As in the receipt: objects that a person should look at."""

    @property
    def is_clean(self) -> bool:
        """Whether the erasure was finished and nothing is left."""
        left = (*self.remaining.values(), *self.snapshots.values(), *self.tombstones_missing.values())
        return self.receipt.is_finished and not any(left)


def verify(spark: SparkSession, lake: Lake, cloud: Cloud, subject: Subject, erasure_id: str) -> Verification:
    """Search everything for what an erasure was to take out.

    Raises:
        TerminalError: there is no such receipt, or it is another subject's.
    """
    bucket = lake.names.bucket(subject.tenant)
    receipt = read_receipt(cloud.s3, bucket, erasure_id)
    if not receipt.is_of(subject):
        raise TerminalError(f"erasure {erasure_id}: it is of another subject; give the values it was begun with")
    findings = look(spark, lake, cloud, subject)
    catalog, manifest = glue_catalog(cloud), Manifest(cloud.dynamodb, lake.names.manifest_table())
    snapshots = {}
    with spoken(f"verification of erasure {erasure_id}"):
        for target, _ in targets(lake, subject):
            place = receipt.places.get(table_place(target))
            if place is not None and place.found:
                snapshots[target.name] = remaining_in(catalog, target, set(place.found))
    missing = {
        dataset: len(_forgotten(manifest, subject.tenant, dataset, set(kept)))
        for dataset in receipt.events
        if (kept := list(buried_events(cloud.s3, bucket, erasure_id, dataset)))
    }
    held = [*(one for _, found in findings.objects.values() for one in found)]
    unread = tuple(sorted(one.stored.uri for one in held if not one.records))
    return Verification(receipt, findings.counts(), snapshots, missing, unread)


def _forgotten(manifest: Manifest, tenant: str, dataset: str, kept: set[tuple[str, str]]) -> set[str]:
    times = sorted({time for time, _ in kept})
    known: set[str] = set()
    for time in times:
        known |= manifest.buried(tenant, dataset, time, time)
    return {digest for _, digest in kept} - known
