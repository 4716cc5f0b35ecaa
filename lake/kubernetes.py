"""Owns what `lake.yaml` says about Kubernetes: images, nodes, credentials, and each tier's share of the cluster."""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version

__all__ = ["Kubernetes", "TierLimits", "product_version"]


def product_version() -> str:
    """Version of lakehose, which images are tagged with."""
    try:
        return version("lakehose")
    except PackageNotFoundError:  # the rooms lie on a path, as in an image
        return "0.1.0"


@dataclass(frozen=True)
class TierLimits:
    """What one namespace of a tier may take of the cluster."""

    priority: int
    """Pods of a higher one are placed first, and may push out lower ones when the cluster is full."""
    cpu: int
    """Cores that all pods together may reserve."""
    memory_gib: int
    pods: int


@dataclass(frozen=True)
class Kubernetes:
    """How the lake's jobs run on a cluster."""

    image: str = field(default_factory=lambda: f"lakehose/jobs:{product_version()}")
    """Image of the Spark jobs."""
    firehose_image: str = field(default_factory=lambda: f"lakehose/firehose:{product_version()}")
    """Image of the self-hosted Firehose server."""
    pull_policy: str = "IfNotPresent"
    cluster: str | None = None
    """Name of the EKS cluster whose Pod Identity gives the jobs their roles; None: `credentials_secret` does."""
    credentials_secret: str | None = None
    """Secret in each namespace with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, where there is no Pod Identity."""
    event_logs: str | None = None
    """`s3a://bucket/folder` that takes Spark's event logs, which the history server shows; None: none are written."""
    shuffle_fallback: str | None = None
    """`s3a://bucket/folder/` that takes shuffle blocks of a leaving executor when no other has room; None: none."""
    spot: bool = True
    """Whether executors go to spot nodes where there are any; drivers never do."""
    local_nvme: bool = False
    """Whether executors need a node with NVMe disks of its own, which Karpenter puts under its emptyDir volumes."""
    scratch_gib: int = 50
    """Most that a pod may write below `spark.local.dir`."""
    history: int = 5
    """Finished runs of each kind, good and failed, that a schedule keeps."""
    keep_finished_hours: int = 24
    """A finished run that was submitted by hand is removed after so long."""
    dedicated: TierLimits = TierLimits(priority=2000, cpu=64, memory_gib=256, pods=60)
    """Share of each dedicated tenant's namespace."""
    pooled: TierLimits = TierLimits(priority=1000, cpu=128, memory_gib=512, pods=120)
    """Share of the namespace that all pooled tenants run in."""
