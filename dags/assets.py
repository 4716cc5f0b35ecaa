"""Owns what Airflow calls the lake's tables, so that other DAGs can be scheduled on them.

One asset for each dataset and owner: a dedicated tenant's table, or a dataset's tables of all pooled tenants together.
There may be thousands of pooled tenants, and each asset of a task is a row in Airflow's database every time it runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import Asset

if TYPE_CHECKING:
    from lake.declaration import Lake, Stream, Workspace

__all__ = ["asset_of", "assets_of", "table"]


def asset_of(stream: Stream) -> Asset:
    """What a stream's events end up in, as an asset."""
    name = f"{stream.database}.{stream.dataset.name}"
    # the scheme is ours: Airflow leaves those with `x-` to users
    return Asset(name=name, uri=f"x-lakehose://{stream.database}/{stream.dataset.name}", group="lakehose")


def assets_of(lake: Lake, workspace: Workspace) -> list[Asset]:
    """Everything that an ingest in a workspace may write, in the declaration's order."""
    return [asset_of(one) for one in lake.streams() if one.owner == workspace.owner]


def table(lake: Lake, dataset: str, tenant: str) -> Asset:
    """The asset to schedule a DAG on that reads a tenant's table.

    Raises:
        DeclarationError: the lake declares no such dataset or tenant.
    """
    return asset_of(lake.stream_of(dataset, tenant))
