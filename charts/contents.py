"""Owns what lies in a cluster: objects of ours that are gone, and those of a namespace that are somebody else's."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from charts.cluster import objects, request
from k8s.cluster import place
from k8s.errors import NotFoundError, PermissionProblemError, RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from k8s.cluster import Cluster

__all__ = ["missing", "placed", "strangers"]

_PART_OF = "app.kubernetes.io/part-of"
_RELEASE, _RELEASE_NAMESPACE = "meta.helm.sh/release-name", "meta.helm.sh/release-namespace"
# what Kubernetes itself puts into every namespace, or reports of it
_SYSTEM = {("ConfigMap", "kube-root-ca.crt"), ("ServiceAccount", "default")}
_REPORTS = {"Event", "Endpoints", "EndpointSlice", "Lease", "PodMetrics"}


def missing(cluster: Cluster, resources: Iterable[Mapping[str, Any]]) -> list[str]:
    """Objects of ours that somebody removed, as `StatefulSet lakehose-system/firehose`.

    Kinds that we may not list are taken to be whole.

    Args:
        cluster: where to look.
        resources: objects that should be there, with the namespace they go to.
    """
    wanted: dict[tuple[str, str], set[str]] = defaultdict(set)
    for one in resources:
        if one["metadata"].get("labels", {}).get(_PART_OF) == "lakehose":
            wanted[one["apiVersion"], one["kind"]].add(place(one))
    found: set[str] = set()
    for (version, kind), places in wanted.items():
        try:
            listed = objects(cluster, version, kind, None, f"{_PART_OF}=lakehose")
        except PermissionProblemError:
            continue
        except NotFoundError:
            listed = []
        found |= places - {place(one) for one in listed}
    return sorted(found)


def placed(resources: Iterable[Mapping[str, Any]], namespace: str) -> list[dict[str, Any]]:
    """A release's objects with the namespace they go to, as helm takes the release's where none is given."""
    return [
        dict(one)
        if one["kind"] in {"Namespace", "PriorityClass"}
        else {**one, "metadata": {"namespace": namespace, **one["metadata"]}}
        for one in resources
    ]


def strangers(cluster: Cluster, namespace: str, releases: Iterable[tuple[str, str]]) -> list[str]:
    """Objects of a namespace that neither we nor what we installed made, as `Secret aws`.

    Args:
        cluster: where to look.
        namespace: which; one that isn't there has none.
        releases: Helm's releases whose objects are ours, as (namespace, name).
    """
    ours = set(releases)
    found = []
    for version, kind in _namespaced(cluster):
        for one in objects(cluster, version, kind, namespace):
            about = one["metadata"]
            annotations, labels = about.get("annotations") or {}, about.get("labels") or {}
            made_by = annotations.get(_RELEASE_NAMESPACE, ""), annotations.get(_RELEASE, "")
            if not (
                about.get("ownerReferences")
                or about.get("deletionTimestamp")
                or (kind, about["name"]) in _SYSTEM
                or made_by in ours
                or labels.get(_PART_OF) == "lakehose"
                or "spark-role" in labels
            ):
                found.append(f"{kind} {about['name']}")
    return sorted(found)


def _namespaced(cluster: Cluster) -> Iterator[tuple[str, str]]:
    """Every kind that lies in namespaces, in the version that the cluster prefers."""
    groups = request(cluster, "GET", "/apis", "the cluster's kinds")["groups"]
    for version in ("v1", *(one["preferredVersion"]["groupVersion"] for one in groups)):
        root = "/api" if "/" not in version else "/apis"
        try:
            listed = request(cluster, "GET", f"{root}/{version}", f"the cluster's kinds of {version}")["resources"]
        except RefusedError:  # an aggregated API whose server is away
            continue
        for one in listed:
            if one["namespaced"] and "list" in one["verbs"] and "/" not in one["name"] and one["kind"] not in _REPORTS:
                yield version, one["kind"]
