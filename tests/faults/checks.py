"""Owns what has to hold after a round: the tables are the model's, and the audit balances with the model's numbers."""

from __future__ import annotations

import gzip
from collections import Counter
from typing import TYPE_CHECKING

from lake.audit import balance, gather
from lake.tables import QUARANTINE, glue_catalog
from tests.faults.world import DATASET, TENANT

if TYPE_CHECKING:
    from lake.clients import Cloud
    from lake.declaration import Lake
    from tests.faults.model import Model
    from tests.faults.readers import Tables

__all__ = ["DifferenceError", "check_audit", "check_tables", "snapshots"]


class DifferenceError(AssertionError):
    """The tables, the audit or a job's end aren't what they have to be."""


def check_tables(who: str, found: Tables, expected: Tables) -> None:
    """Hold what an engine reads to the model.

    Raises:
        DifferenceError: rows are missing, too many, or others.
    """
    for what in ("rows", "quarantine"):
        there, wanted = Counter(getattr(found, what)), Counter(getattr(expected, what))
        if there != wanted:
            lost, odd = wanted - there, there - wanted
            raise DifferenceError(
                f"{who}: {what} aren't the model's: {lost.total()} missing, as {list(lost)[:3]}; "
                f"{odd.total()} too many, as {list(odd)[:3]}"
            )


def check_audit(lake: Lake, cloud: Cloud, model: Model) -> None:
    """Draw up the balance sheet and hold it to the model.

    Raises:
        DifferenceError: it doesn't balance, has gaps, or balances with other numbers.
    """
    sheet = balance(gather(lake, cloud, DATASET))
    wanted = model.expected_counts(_replayed(lake, cloud))
    found = {name: getattr(sheet.total, name) for name in wanted}
    if found != wanted:
        raise DifferenceError(f"audit: the model has {wanted}, and the sheet {found}; {sheet}")
    if not sheet.balanced or sheet.gaps:
        raise DifferenceError(f"audit: it doesn't balance, or has gaps: {sheet}")


def _replayed(lake: Lake, cloud: Cloud) -> int:
    """Records that replays have sent round, each once.

    Raises:
        DifferenceError: one was sent round twice.
    """
    bucket, prefix = lake.names.bucket(TENANT), lake.names.processed_prefix(DATASET, TENANT)
    lines: list[bytes] = []
    for page in cloud.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for key in (one["Key"] for one in page.get("Contents", [])):
            if "/replay-" in key:
                body = cloud.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
                lines += gzip.decompress(body).split(b"\n")[:-1]
    # a record that was erased has left an empty line
    twice = [line for line, times in Counter(filter(None, lines)).items() if times > 1]
    if twice:
        raise DifferenceError(f"replay: {len(twice)} records were sent round twice, as {twice[0]!r}")
    return len(lines)


def snapshots(lake: Lake, cloud: Cloud) -> list[int | None]:
    """Current snapshots of both tables."""
    catalog, database = glue_catalog(cloud), lake.names.database(TENANT)
    tables = (catalog.load_table((database, name)) for name in (DATASET, QUARANTINE))
    return [one.metadata.current_snapshot_id for one in tables]
