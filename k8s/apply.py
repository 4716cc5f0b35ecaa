"""Owns how a cluster becomes what the declaration says: what differs, applying it, and removing what is left over.

Server-side apply: the cluster merges, and knows who has set which field.
https://kubernetes.io/docs/reference/using-api/server-side-apply/
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import unified_diff
from typing import TYPE_CHECKING, Any

from k8s.cluster import place
from k8s.errors import NotFoundError, PermissionProblemError
from k8s.names import labels
from k8s.render import HEADER, to_yaml
from k8s.specs import GROUP, VERSION
from lake.provision import Change

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from k8s.cluster import Cluster
    from lake.declaration import Lake

__all__ = ["PRUNED_KINDS", "Difference", "Removal", "apply", "differences", "left_over", "prune"]

_OPERATORS = f"{GROUP}/{VERSION}"
PRUNED_KINDS = (
    (_OPERATORS, "ScheduledSparkApplication"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("v1", "ConfigMap"),
    ("v1", "LimitRange"),
    ("v1", "ResourceQuota"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("v1", "ServiceAccount"),
    ("scheduling.k8s.io/v1", "PriorityClass"),
    ("v1", "Namespace"),
)
"""Kinds that a declaration makes, in the order they are removed. Runs are none: they end by themselves."""

_NOT_OURS_TO_LOSE = (
    (_OPERATORS, "SparkApplication"),
    ("v1", "Pod"),
    ("v1", "PersistentVolumeClaim"),
    ("v1", "Secret"),
    ("v1", "ConfigMap"),
    ("v1", "Service"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "StatefulSet"),
    ("batch/v1", "CronJob"),
)
"""What a namespace may hold that would be lost with it."""
_IN_EVERY_NAMESPACE = {("ConfigMap", "kube-root-ca.crt")}

# what the server notes about an object, which nobody declares
_SERVERS = ("managedFields", "resourceVersion", "uid", "creationTimestamp", "generation", "selfLink")


@dataclass(frozen=True)
class Difference:
    """One object that isn't as declared."""

    name: str
    new: bool
    diff: tuple[str, ...]
    """Lines of a unified diff, from what is there to what is declared."""


@dataclass(frozen=True)
class Removal:
    """One object that is ours and that nothing declares any more."""

    name: str
    left: str | None
    """Why it was left; None where it was removed."""


def _declared(one: dict[str, Any]) -> dict[str, Any]:
    metadata = {key: value for key, value in one["metadata"].items() if key not in _SERVERS}
    return {**{key: value for key, value in one.items() if key != "status"}, "metadata": metadata}


def _live(cluster: Cluster, one: dict[str, Any]) -> dict[str, Any] | None:
    kind = cluster.kind(one["apiVersion"], one["kind"])
    return cluster.get(kind, one["metadata"].get("namespace"), one["metadata"]["name"])


def differences(cluster: Cluster, objects: Sequence[dict[str, Any]], *, force: bool = False) -> Iterator[Difference]:
    """What applying would change, as the cluster itself works it out; nothing is changed.

    Args:
        cluster: where to.
        objects: what is declared, in the order it would be applied.
        force: take over fields that others have set, in place of refusing.

    Raises:
        ConflictError: another manager has set a field to something else.
        RefusedError: the cluster would refuse an object.
    """
    _check_kinds(cluster, objects)
    made = {one["metadata"]["name"] for one in objects if one["kind"] == "Namespace"}
    for one in objects:
        live = _live(cluster, one)
        try:
            then = cluster.apply(one, dry_run=True, force=force)
        except NotFoundError:
            # its namespace isn't there yet: it can't be tried, and all of it is new
            if one["metadata"].get("namespace") not in made:
                raise
            then = one
        if live is None:
            yield Difference(place(one), new=True, diff=_diff(place(one), None, one))
        elif _declared(live) != _declared(then):
            yield Difference(place(one), new=False, diff=_diff(place(one), live, then))


def _diff(name: str, before: dict[str, Any] | None, after: dict[str, Any]) -> tuple[str, ...]:
    there = _text(before) if before else []
    return tuple(
        unified_diff(there, _text(after), fromfile=f"{name} (there)", tofile=f"{name} (declared)", lineterm="")
    )


def _text(one: dict[str, Any]) -> list[str]:
    return to_yaml([_declared(one)]).removeprefix(HEADER).splitlines()


def _check_kinds(cluster: Cluster, objects: Iterable[dict[str, Any]]) -> None:
    """Refuse before anything is done when the operator is missing, in place of half-way through."""
    for one in objects:
        cluster.kind(one["apiVersion"], one["kind"])


def apply(cluster: Cluster, objects: Sequence[dict[str, Any]], *, force: bool = False) -> Iterator[Change]:
    """Make objects as declared, in their order; tells each as it is done. Twice changes nothing.

    Args:
        cluster: where to.
        objects: what is declared.
        force: take over fields that others have set, in place of refusing.

    Raises:
        ConflictError: another manager has set a field to something else.
        RefusedError: the cluster refuses an object; those before it are applied.
    """
    _check_kinds(cluster, objects)
    for one in objects:
        before = _live(cluster, one)
        after = cluster.apply(one, force=force)
        # the version also moves when an operator writes a status, or a field only gets one more owner
        updated = before is not None and _declared(before) != _declared(after)
        kind, _, name = place(one).partition(" ")
        yield Change.made(kind, name, created=before is None, updated=updated)


def left_over(cluster: Cluster, lake: Lake, objects: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Objects of this company and environment that nothing declares any more, in the order they are removed.

    Only what carries our labels is looked at; what belongs to another object goes with that.
    """
    wanted = {place(one) for one in objects}
    ours = labels(lake)
    selector = ",".join(f"{key}={value}" for key, value in sorted(ours.items()))
    found: list[dict[str, Any]] = []
    for api_version, name in PRUNED_KINDS:
        there = cluster.list(cluster.kind(api_version, name), None, labelSelector=selector)["items"]
        loose = [one for one in there if not one["metadata"].get("ownerReferences")]
        found += [one for one in loose if place(one) not in wanted]
    return found


def prune(cluster: Cluster, objects: Iterable[dict[str, Any]]) -> Iterator[Removal]:
    """Remove objects of `left_over`; a namespace only if it holds nothing that would be lost with it."""
    for one in objects:
        left = _reason_to_leave(cluster, one)
        if left is None:
            cluster.delete(one)
        yield Removal(place(one), left)


def _reason_to_leave(cluster: Cluster, one: dict[str, Any]) -> str | None:
    if one["kind"] != "Namespace":
        return None
    name = one["metadata"]["name"]
    if one.get("status", {}).get("phase") == "Terminating":
        return "it is being deleted"
    for api_version, kind in _NOT_OURS_TO_LOSE:
        try:
            there = cluster.list(cluster.kind(api_version, kind), name)["items"]
        except PermissionProblemError as error:
            return f"whether it is empty can't be seen: {error}"
        held = sorted({each["metadata"]["name"] for each in there if _is_held(each)})
        if held:
            more = f" and {len(held) - 1} more" if len(held) > 1 else ""
            return f"it holds {kind} {held[0]}{more}; `kubectl delete namespace {name}` removes it with all it holds"
    return None


def _is_held(one: dict[str, Any]) -> bool:
    going = one["metadata"].get("deletionTimestamp")
    return not going and (one["kind"], one["metadata"]["name"]) not in _IN_EVERY_NAMESPACE
