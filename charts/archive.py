"""Owns the chart that a release was installed from: Helm keeps it with the release, so nothing has to be fetched again.

A rollback or a removal then changes the operator's release with the very chart it has, and works where no repository
can be reached.
"""

from __future__ import annotations

import base64
import gzip
import json
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from pathlib import Path

    from k8s.cluster import Cluster

__all__ = ["installed_chart"]


def installed_chart(cluster: Cluster, namespace: str, release: str, revision: int, target: Path) -> Path | None:
    """Write the chart of a release's revision into a folder; None where Helm keeps releases elsewhere than in Secrets.

    Only for charts without dependencies: those aren't kept.

    Args:
        cluster: where.
        namespace: of the release.
        release: its name.
        revision: its number.
        target: folder that takes the chart's.
    """
    name = f"sh.helm.release.v1.{release}.v{revision}"
    secret = cluster.get(cluster.kind("v1", "Secret"), namespace, name)
    if secret is None:
        return None
    # base64 of the Secret's around base64 of Helm's own
    packed = base64.b64decode(base64.b64decode(secret["data"]["release"]))
    chart: dict[str, Any] = json.loads(gzip.decompress(packed))["chart"]
    if chart["metadata"].get("dependencies"):
        return None
    folder = target / str(chart["metadata"]["name"])
    files = {one["name"]: base64.b64decode(one["data"]) for key in ("templates", "files") for one in chart[key] or []}
    files["Chart.yaml"] = yaml.safe_dump(chart["metadata"], sort_keys=False).encode()
    files["values.yaml"] = yaml.safe_dump(chart.get("values") or {}, sort_keys=False).encode()
    if chart.get("schema"):
        files["values.schema.json"] = base64.b64decode(chart["schema"])
    for path, data in files.items():
        place = (folder / path).resolve()
        if not place.is_relative_to(folder.resolve()):
            return None
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    return folder
