"""Owns what a cluster's refusals become: a sentence about what was refused, by whom, and what helps.

The API server answers every refusal with a Status object; https://kubernetes.io/docs/reference/kubernetes-api/common-definitions/status/
"""

from __future__ import annotations

import re
from typing import Any

from lake.errors import LakehoseError, TerminalError, TransientError

__all__ = [
    "ConflictError",
    "GoneError",
    "NotFoundError",
    "NotReadyError",
    "PermissionProblemError",
    "RefusedError",
    "UnreachableError",
    "refusal",
]

_RIGHTS = re.compile(
    r'User "(?P<user>[^"]+)" cannot (?P<verb>\w+) resource "(?P<resource>[^"]+)" in API group "(?P<group>[^"]*)"'
    r'(?: in the namespace "(?P<namespace>[^"]+)"| at the cluster scope)'
)
_WEBHOOK_DENIED = re.compile(r'admission webhook "([^"]+)" denied the request:? ?(.*)', re.DOTALL)
_WEBHOOK_AWAY = re.compile(r'failed calling webhook "([^"]+)"')
_NO_NAMESPACE = re.compile(r'namespaces "([^"]+)" not found')
_TYPED_PATCH = re.compile(r"failed to create typed patch object \([^)]*\): (.*)", re.DOTALL)
_MANAGER = re.compile(r'conflict with "([^"]+)"')
_TOO_MANY, _SERVER_ERROR = 429, 500


class RefusedError(TerminalError):
    """The cluster refused a request for good: a value, a quota, a policy, a webhook."""


class PermissionProblemError(RefusedError):
    """Whoever asked may not do that."""


class NotFoundError(RefusedError):
    """What was asked for isn't there."""


class ConflictError(RefusedError):
    """Somebody else owns a field, or the object is there already."""


class NotReadyError(TransientError):
    """The cluster can't answer right now: it is overloaded, or a webhook of it is away."""


class GoneError(TransientError):
    """A watch asked for changes since a version that the cluster no longer knows; list anew."""


class UnreachableError(TransientError):
    """Nothing answers at the cluster's address, or the connection broke."""


def refusal(code: int, status: dict[str, Any], place: str) -> LakehoseError:
    """The error for an answer that isn't 2xx.

    Args:
        code: HTTP's status.
        status: the Status object, or an empty one.
        place: what was asked for, as in `ConfigMap acme-demo-ewr/lake`.
    """
    said = str(status.get("message") or f"HTTP status {code}")
    match code:
        case 401:
            return PermissionProblemError(
                f"{place}: the cluster doesn't accept these credentials ({said}); log in again, "
                "on EKS by `aws eks update-kubeconfig --name CLUSTER`"
            )
        case 403:
            return _forbidden(said, place)
        case 404:
            return _missing(said, place)
        case 409:
            return _conflict(status, said, place)
        case 410:
            return GoneError(f"{place}: {said}")
    return _invalid(code, said, place)


def _forbidden(said: str, place: str) -> LakehoseError:
    rights = _RIGHTS.search(said)
    if rights:
        resource = rights["resource"] + (f".{rights['group']}" if rights["group"] else "")
        where = f"in namespace {rights['namespace']}" if rights["namespace"] else "in the whole cluster"
        flag = f" -n {rights['namespace']}" if rights["namespace"] else ""
        return PermissionProblemError(
            f"{place}: no permission: {rights['user']} may not {rights['verb']} {resource} {where}; have it granted "
            f"by a Role, then `kubectl auth can-i {rights['verb']} {resource}{flag}` says yes"
        )
    denied = _WEBHOOK_DENIED.search(said)
    if denied:
        return _denied(denied, place)
    if "exceeded quota" in said:
        return RefusedError(
            f"{place}: the namespace's quota refused it: {_after(said, 'exceeded quota')}; let runs end, or raise "
            "`kubernetes.tiers` in the declaration and apply it"
        )
    if "is being terminated" in said:
        return NotReadyError(
            f"{place}: its namespace is being deleted; wait until it is gone, then `lakehose k8s apply`"
        )
    if "error looking up service account" in said:
        return RefusedError(f"{place}: {_after(said, 'serviceaccount')}; `lakehose k8s apply` makes it")
    return RefusedError(f"{place}: refused: {said}")


def _after(said: str, mark: str) -> str:
    return said[said.rindex(mark) :]


def _denied(found: re.Match[str], place: str) -> RefusedError:
    return RefusedError(f"{place}: the webhook {found[1]} refused it: {found[2].strip() or 'it gives no reason'}")


def _missing(said: str, place: str) -> NotFoundError:
    namespace = _NO_NAMESPACE.search(said)
    if namespace:
        return NotFoundError(f"{place}: there is no namespace {namespace[1]}; `lakehose k8s apply` makes it")
    return NotFoundError(f"{place}: there is none ({said.strip()})")


def _conflict(status: dict[str, Any], said: str, place: str) -> ConflictError:
    causes = (status.get("details") or {}).get("causes") or []
    owned: dict[str, list[str]] = {}
    for cause in causes:
        manager = _MANAGER.search(str(cause.get("message", "")))
        if cause.get("reason") == "FieldManagerConflict" and manager:
            owned.setdefault(manager[1], []).append(str(cause.get("field", "")).removeprefix("."))
    if not owned:
        return ConflictError(f"{place}: {said}")
    told = "; ".join(f"{manager} has set {', '.join(fields)}" for manager, fields in owned.items())
    return ConflictError(f"{place}: {told}; take that back there, or have lakehose own it with --force-conflicts")


def _invalid(code: int, said: str, place: str) -> LakehoseError:
    denied = _WEBHOOK_DENIED.search(said)
    if denied:
        return _denied(denied, place)
    away = _WEBHOOK_AWAY.search(said)
    if away:
        return NotReadyError(
            f"{place}: the webhook {away[1]} doesn't answer, and the cluster takes nothing without it: {said}; "
            "`lakehose deploy status` tells whether the operator is up"
        )
    patch = _TYPED_PATCH.search(said)
    if patch:
        return RefusedError(f"{place}: the cluster knows no such field or type: {patch[1].strip().removeprefix('.')}")
    if code == _TOO_MANY or code >= _SERVER_ERROR:
        return NotReadyError(f"{place}: the cluster couldn't answer ({code}): {said}; try again")
    return RefusedError(f"{place}: refused: {said}")
