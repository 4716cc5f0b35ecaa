"""Owns the names that objects in a namespace go by: labels, the ConfigMap of the declaration, priority classes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lake.declaration import Lake, Tier, Workspace
    from lake.jobs import Job

__all__ = ["CONFIG_FOLDER", "CONFIG_MAP", "LABEL", "labels", "priority_class"]

CONFIG_FOLDER = "/etc/lakehose"
"""Where pods find `lake.yaml` and the contracts."""
CONFIG_MAP = "lake"
"""ConfigMap of the declaration, in each workspace's namespace."""
LABEL = "lakehose.dev"
"""Prefix of our own labels."""


def labels(lake: Lake, workspace: Workspace | None = None, job: Job | None = None) -> dict[str, str]:
    """Labels of everything that is ours; those of a job's pods and runs name the job too."""
    found = {
        "app.kubernetes.io/managed-by": "lakehose",
        "app.kubernetes.io/part-of": "lakehose",
        f"{LABEL}/lake": f"{lake.company}-{lake.environment}",
    }
    if workspace:
        found |= {f"{LABEL}/owner": workspace.owner, f"{LABEL}/tier": workspace.tier.value}
    if job:
        found[f"{LABEL}/job"] = job.name
    return found


def priority_class(lake: Lake, tier: Tier) -> str:
    """Name of a tier's PriorityClass, which the whole cluster shares."""
    return f"{lake.company}-{lake.environment}-{tier.value}"
