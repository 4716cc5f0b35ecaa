"""Owns what the installer asks of a cluster beside helm: its version, our rights, what its objects are up to."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from k8s.errors import NotReadyError
from k8s.kubeconfig import connect as reach
from lake.errors import EnvironmentProblemError, LakehoseError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from charts.helm import Access
    from k8s.cluster import Cluster

__all__ = ["OLDEST", "Right", "connect", "lacking", "last_lines", "objects", "request", "who"]

OLDEST = (1, 28)
"""Oldest Kubernetes whose API has all that the manifests say."""
_ATTEMPTS = 10


@dataclass(frozen=True)
class Right:
    """Something to be allowed."""

    verb: str
    resource: str
    group: str = ""
    namespace: str | None = None
    """None: in the whole cluster."""

    def __str__(self) -> str:
        what = f"{self.resource}.{self.group}" if self.group else self.resource
        return f"{self.verb} {what}" + (f" in {self.namespace}" if self.namespace else "")


def connect(access: Access) -> Cluster:
    """Reach a cluster.

    Raises:
        EnvironmentProblemError: there is no configuration, no such context, or the cluster is too old.
        UnreachableError: it doesn't answer.
    """
    cluster = reach(access.kubeconfig, access.context)
    found = request(cluster, "GET", "/version", "the cluster's version")
    # EKS writes 33+
    version = int(found["major"]), int("".join(one for one in found["minor"] if one.isdigit()))
    if version < OLDEST:
        told, oldest = (".".join(map(str, one)) for one in (version, OLDEST))
        raise EnvironmentProblemError(f"{cluster} runs Kubernetes {told}; {oldest} or newer is needed")
    return cluster


def request(
    cluster: Cluster, method: str, path: str, where: str, body: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Call the API server by path, for what is no object: its version, its kinds, questions about rights."""
    content = "application/merge-patch+json" if method == "PATCH" else "application/json"
    return cluster._call(method, path, where, body=dict(body) if body else None, content=content)  # noqa: SLF001 - one way to the server for all rooms


def who(cluster: Cluster) -> str:
    """Name under which the cluster knows us."""
    kind = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    found = request(cluster, "POST", "/apis/authentication.k8s.io/v1/selfsubjectreviews", "who we are", kind)
    return str(found["status"]["userInfo"]["username"])


def lacking(cluster: Cluster, rights: Iterable[Right]) -> list[Right]:
    """Those of these rights that we don't have."""
    path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    kind = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
    found = []
    for one in rights:
        asked = {"verb": one.verb, "resource": one.resource, "group": one.group, "namespace": one.namespace or ""}
        answer = request(cluster, "POST", path, "our rights", {**kind, "spec": {"resourceAttributes": asked}})
        if not answer["status"]["allowed"]:
            found.append(one)
    return found


def objects(
    cluster: Cluster, api_version: str, kind: str, namespace: str | None, selector: str = ""
) -> list[dict[str, Any]]:
    """Objects of a kind, of a namespace or of the whole cluster.

    Raises:
        NotFoundError: the cluster knows no such kind.
    """
    selectors = {"labelSelector": selector} if selector else {}
    for attempt in range(_ATTEMPTS):
        try:
            return list(cluster.list(cluster.kind(api_version, kind), namespace, **selectors)["items"])
        except NotReadyError:
            # kinds that were made a moment ago have no storage yet
            if attempt == _ATTEMPTS - 1:
                raise
            time.sleep(1)
    raise AssertionError


def last_lines(cluster: Cluster, pod: Mapping[str, Any], container: str) -> str:
    """The end of a container's log, of the run that ended last; empty when it is gone."""
    about = pod["metadata"]
    path = f"/api/v1/namespaces/{about['namespace']}/pods/{about['name']}/log"
    for previous in ("true", "false"):
        query = {"container": container, "previous": previous, "tailLines": "12"}
        try:
            lines = list(cluster.stream(path, f"log of {about['name']}", query))
        except LakehoseError:
            continue
        return b"\n".join(lines).decode(errors="replace")
    return ""
