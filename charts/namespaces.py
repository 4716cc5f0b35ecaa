"""Owns the namespaces of a lake beside helm.

They are made before its release, as the operator needs them first, and removed after it, unless they hold what somebody
else put there.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from charts.cluster import request
from charts.contents import strangers
from lake.errors import TerminalError, TransientError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from k8s.cluster import Cluster

__all__ = ["ensure_confined", "ensure_owned", "namespaces_of", "remove_empty"]

_NAME, _NAMESPACE = "meta.helm.sh/release-name", "meta.helm.sh/release-namespace"
_GOING_SECONDS = 90
_MANAGED, _PART_OF = "app.kubernetes.io/managed-by", "app.kubernetes.io/part-of"


def namespaces_of(resources: Iterable[Mapping[str, Any]]) -> set[str]:
    """Names of the namespaces among objects."""
    return {one["metadata"]["name"] for one in resources if one["kind"] == "Namespace"}


def ensure_owned(
    cluster: Cluster, wanted: Iterable[Mapping[str, Any]], release: str, namespace: str, *, adopt: bool
) -> list[str]:
    """Make namespaces in the name of a release, so that helm takes them for its own; answers those that were made.

    Args:
        cluster: where.
        wanted: the namespaces, as they are rendered.
        release: helm's release.
        namespace: its namespace.
        adopt: take over those that belong to something else.

    Raises:
        TerminalError: one is there and belongs to something else.
    """
    made = []
    for one in wanted:
        about = one["metadata"]
        labels = {**about.get("labels", {}), _MANAGED: "Helm"}
        annotations = {**about.get("annotations", {}), _NAME: release, _NAMESPACE: namespace}
        body = {"metadata": {"name": about["name"], "labels": labels, "annotations": annotations}}
        there = _settled(cluster, about["name"])
        if there is None:
            cluster.create({"apiVersion": "v1", "kind": "Namespace", **body})
            made.append(about["name"])
            continue
        owner = there["metadata"].get("annotations", {})
        if (owner.get(_NAME), owner.get(_NAMESPACE)) == (release, namespace):
            continue
        if not adopt:
            other = f"release {owner[_NAMESPACE]}/{owner[_NAME]}" if _NAME in owner else "no release of Helm's"
            raise TerminalError(
                f"namespace {about['name']}: it is there already and belongs to {other}; --adopt takes it over, "
                "with what `kubectl apply` or another release made in it"
            )
        request(cluster, "PATCH", f"/api/v1/namespaces/{about['name']}", f"namespace {about['name']}", body)
    return made


def ensure_confined(cluster: Cluster, name: str) -> bool:
    """Make the namespace of a release, which takes no pod that isn't confined; False when it is there."""
    if _settled(cluster, name) is not None:
        return False
    labels = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in ("enforce", "audit", "warn")}
    labels[_PART_OF] = "lakehose"
    cluster.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    return True


def remove_empty(
    cluster: Cluster, names: Iterable[str], releases: Iterable[tuple[str, str]], say: Callable[[str], None]
) -> None:
    """Remove namespaces that we made and that hold nothing of anybody else's; say of the others what they hold.

    Args:
        cluster: where.
        names: which.
        releases: Helm's releases whose objects are ours, as (namespace, name).
        say: takes a line for each.
    """
    ours = list(releases)
    for name in sorted(names):
        there = _get(cluster, name)
        if there is None or _going(there) or (there["metadata"].get("labels") or {}).get(_PART_OF) != "lakehose":
            continue
        found = strangers(cluster, name, ours)
        if found:
            shown = ", ".join(found[:5]) + (f" and {len(found) - 5} more" if len(found) > 5 else "")  # noqa: PLR2004
            say(
                f"namespace {name} stays: it holds what lakehose didn't make ({shown}); "
                f"`kubectl delete namespace {name}` removes it with all that"
            )
            continue
        cluster.delete({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
        say(f"namespace {name}: removed")


def _get(cluster: Cluster, name: str) -> dict[str, Any] | None:
    return cluster.get(cluster.kind("v1", "Namespace"), None, name)


def _going(namespace: Mapping[str, Any]) -> bool:
    return "deletionTimestamp" in namespace["metadata"]


def _settled(cluster: Cluster, name: str) -> dict[str, Any] | None:
    """As `_get`, once a removal that is under way is done: an install may follow an uninstall at once."""
    end = time.monotonic() + _GOING_SECONDS
    while True:
        there = _get(cluster, name)
        if there is None or not _going(there):
            return there
        if time.monotonic() > end:
            raise TransientError(f"namespace {name}: it is being removed; try again when it is gone")
        time.sleep(1)
