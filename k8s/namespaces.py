"""Owns what a workspace has around its jobs: namespace, accounts and their rights, its share of the cluster, walls."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import yaml
from kubernetes.client import (
    RbacV1Subject,
    V1ConfigMap,
    V1IPBlock,
    V1LabelSelector,
    V1LimitRange,
    V1LimitRangeItem,
    V1LimitRangeSpec,
    V1Namespace,
    V1NetworkPolicy,
    V1NetworkPolicyEgressRule,
    V1NetworkPolicyIngressRule,
    V1NetworkPolicyPeer,
    V1NetworkPolicyPort,
    V1NetworkPolicySpec,
    V1ObjectMeta,
    V1PolicyRule,
    V1PriorityClass,
    V1ResourceQuota,
    V1ResourceQuotaSpec,
    V1Role,
    V1RoleBinding,
    V1RoleRef,
    V1ServiceAccount,
)

from k8s.names import CONFIG_MAP, labels, priority_class
from k8s.pods import config_files
from k8s.specs import plain
from lake.errors import DeclarationError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lake.declaration import Lake, Workspace

__all__ = ["SPARK_ROLE", "namespace", "priority_classes", "surroundings"]

SPARK_ROLE = "spark-driver"
"""What drivers may do in their namespace, and nothing beyond."""
_LARGEST_CONFIG = 1_000_000  # bytes; Kubernetes takes 1 MiB
_HTTPS, _API_SERVER, _DNS = 443, 6443, 53
_METRICS = 4040


def priority_classes(lake: Lake) -> Iterator[dict[str, Any]]:
    """One for each tier that the lake has."""
    for tier in sorted({one.tier for one in lake.workspaces()}):
        yield plain(
            V1PriorityClass(
                api_version="scheduling.k8s.io/v1",
                kind="PriorityClass",
                metadata=V1ObjectMeta(name=priority_class(lake, tier), labels=labels(lake)),
                description=f"Jobs of {tier} tenants.",
                value=lake.limits(tier).priority,
                # a run that is pushed out in its middle is work thrown away: wait for room instead
                preemption_policy="Never",
            )
        )


def namespace(lake: Lake, workspace: Workspace) -> dict[str, Any]:
    """A workspace's namespace, which takes no pod that isn't confined."""
    modes = ("enforce", "audit", "warn")
    confined = {f"pod-security.kubernetes.io/{mode}": "restricted" for mode in modes}
    metadata = V1ObjectMeta(name=workspace.namespace, labels=labels(lake, workspace) | confined)
    found: dict[str, Any] = plain(V1Namespace(api_version="v1", kind="Namespace", metadata=metadata))
    return found


def surroundings(lake: Lake, workspace: Workspace, declaration: Path, endpoint: str | None) -> Iterator[dict[str, Any]]:
    """Everything in a namespace but its jobs.

    Args:
        lake: the declaration.
        workspace: whose.
        declaration: its file; contracts are relative to it.
        endpoint: URL at which pods find AWS; AWS itself without it.

    Raises:
        DeclarationError: declaration and contracts are larger than a ConfigMap may be, or a contract lies outside of
            the declaration's folder.
    """
    for job in lake.jobs_of(workspace):
        yield plain(
            V1ServiceAccount(
                api_version="v1",
                kind="ServiceAccount",
                metadata=V1ObjectMeta(
                    name=job.name, namespace=workspace.namespace, labels=labels(lake, workspace, job)
                ),
                # the pods that need a token ask for it
                automount_service_account_token=False,
            )
        )
    yield from _spark_role(lake, workspace)
    yield from _share(lake, workspace)
    yield from _walls(lake, workspace, endpoint)
    yield _config(lake, workspace, declaration)


def _metadata(lake: Lake, workspace: Workspace, name: str) -> V1ObjectMeta:
    return V1ObjectMeta(name=name, namespace=workspace.namespace, labels=labels(lake, workspace))


def _spark_role(lake: Lake, workspace: Workspace) -> Iterator[dict[str, Any]]:
    """What Spark's driver does: make its executors, their conf and its own service, watch them, remove them."""
    all_verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
    resources = ["configmaps", "persistentvolumeclaims", "pods", "services"]
    yield plain(
        V1Role(
            api_version="rbac.authorization.k8s.io/v1",
            kind="Role",
            metadata=_metadata(lake, workspace, SPARK_ROLE),
            rules=[V1PolicyRule(api_groups=[""], resources=resources, verbs=all_verbs)],
        )
    )
    accounts = [
        RbacV1Subject(kind="ServiceAccount", name=job.name, namespace=workspace.namespace)
        for job in lake.jobs_of(workspace)
    ]
    yield plain(
        V1RoleBinding(
            api_version="rbac.authorization.k8s.io/v1",
            kind="RoleBinding",
            metadata=_metadata(lake, workspace, SPARK_ROLE),
            role_ref=V1RoleRef(api_group="rbac.authorization.k8s.io", kind="Role", name=SPARK_ROLE),
            subjects=accounts,
        )
    )


def _share(lake: Lake, workspace: Workspace) -> Iterator[dict[str, Any]]:
    limits = lake.limits(workspace.tier)
    hard = {"pods": str(limits.pods), "requests.cpu": str(limits.cpu), "requests.memory": f"{limits.memory_gib}Gi"}
    yield plain(
        V1ResourceQuota(
            api_version="v1",
            kind="ResourceQuota",
            metadata=_metadata(lake, workspace, "share"),
            spec=V1ResourceQuotaSpec(hard=hard),
        )
    )
    # under a quota a pod that reserves nothing is refused; Spark's always do, what people run by hand may not
    least = {"cpu": "100m", "memory": "256Mi"}
    yield plain(
        V1LimitRange(
            api_version="v1",
            kind="LimitRange",
            metadata=_metadata(lake, workspace, "defaults"),
            spec=V1LimitRangeSpec(limits=[V1LimitRangeItem(type="Container", default_request=least)]),
        )
    )


def _walls(lake: Lake, workspace: Workspace, endpoint: str | None) -> Iterator[dict[str, Any]]:
    """Nothing comes in but from the namespace and Prometheus; out go DNS, HTTPS and the endpoint."""
    ports = {_HTTPS, _API_SERVER}
    if endpoint:
        parts = urlsplit(endpoint)
        ports.add(parts.port or (_HTTPS if parts.scheme == "https" else 80))
    here = V1NetworkPolicyPeer(pod_selector=V1LabelSelector())
    anywhere = V1NetworkPolicyPeer(namespace_selector=V1LabelSelector())
    yield plain(
        V1NetworkPolicy(
            api_version="networking.k8s.io/v1",
            kind="NetworkPolicy",
            metadata=_metadata(lake, workspace, "walls"),
            spec=V1NetworkPolicySpec(
                pod_selector=V1LabelSelector(),
                policy_types=["Ingress", "Egress"],
                ingress=[
                    V1NetworkPolicyIngressRule(_from=[here]),
                    V1NetworkPolicyIngressRule(
                        _from=[anywhere], ports=[V1NetworkPolicyPort(port=_METRICS, protocol="TCP")]
                    ),
                ],
                egress=[
                    V1NetworkPolicyEgressRule(to=[here]),
                    V1NetworkPolicyEgressRule(
                        ports=[V1NetworkPolicyPort(port=_DNS, protocol=one) for one in ("TCP", "UDP")]
                    ),
                    V1NetworkPolicyEgressRule(
                        ports=[V1NetworkPolicyPort(port=one, protocol="TCP") for one in sorted(ports)]
                    ),
                    # EKS Pod Identity's agent, on each node
                    V1NetworkPolicyEgressRule(
                        to=[V1NetworkPolicyPeer(ip_block=V1IPBlock(cidr="169.254.170.23/32"))],
                        ports=[V1NetworkPolicyPort(port=80, protocol="TCP")],
                    ),
                ],
            ),
        )
    )


@lru_cache(maxsize=1)
def _parsed(text: str) -> dict[str, Any]:
    """A lake of many tenants has many workspaces, and reading YAML is slow; what this answers is not to be changed."""
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def _own_part(declared: dict[str, Any], workspace: Workspace) -> dict[str, Any]:
    """The declaration with the workspace's own tenants only: who the others are is none of its business."""
    own = {**declared, "tenants": {name: one for name, one in declared["tenants"].items() if name in workspace.tenants}}
    drops = {name: one for name, one in (declared.get("drops") or {}).items() if one["tenant"] in workspace.tenants}
    if drops:
        return {**own, "drops": drops}
    own.pop("drops", None)
    if "files" in (own.get("jobs") or {}):  # which is a job of lakes with drops
        own["jobs"] = {name: one for name, one in own["jobs"].items() if name != "files"}
    return own


def _config(lake: Lake, workspace: Workspace, declaration: Path) -> dict[str, Any]:
    own = _own_part(_parsed(declaration.read_text(encoding="utf-8")), workspace)
    data = {"lake.yaml": yaml.safe_dump(own, sort_keys=False, width=120, allow_unicode=True)}
    folder = declaration.parent.resolve()
    for key, path in config_files(lake).items():
        if key == "lake.yaml":
            continue
        if not (folder / path).resolve().is_relative_to(folder):
            raise DeclarationError(
                f"{declaration}: contract {path}: pods get the declaration's folder only; move the contract below it"
            )
        data[key] = (folder / path).read_text(encoding="utf-8")
    size = sum(len(one.encode()) for one in data.values())
    if size > _LARGEST_CONFIG:
        raise DeclarationError(
            f"{declaration}: with its contracts it takes {size:,} bytes, a ConfigMap {_LARGEST_CONFIG:,}; "
            "put some datasets into a lake of their own"
        )
    found: dict[str, Any] = plain(
        V1ConfigMap(api_version="v1", kind="ConfigMap", metadata=_metadata(lake, workspace, CONFIG_MAP), data=data)
    )
    return found
