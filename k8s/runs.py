"""Owns runs on a cluster: submitting them, finding them by name or job, and deleting them."""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from k8s.applications import application
from k8s.cluster import place
from k8s.errors import PermissionProblemError
from k8s.names import CONFIG_MAP, LABEL, labels
from k8s.namespaces import surroundings
from k8s.progress import FINAL, application_state
from k8s.specs import GROUP, VERSION, SparkApplication
from lake.errors import TerminalError, known_values

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from k8s.cluster import Cluster
    from lake.declaration import Lake, Workspace
    from lake.jobs import Job

__all__ = [
    "APPLICATION",
    "NAME_LABEL",
    "Run",
    "check_config",
    "find_run",
    "finished_runs",
    "new_run_id",
    "plan_runs",
    "runs_of",
    "submit",
]

APPLICATION = (f"{GROUP}/{VERSION}", SparkApplication.kind)
NAME_LABEL = "sparkoperator.k8s.io/app-name"
"""Label by which the operator ties pods to their run."""
_SHOWN = 10


@dataclass(frozen=True)
class Run:
    """A run, by where it is and what it is called."""

    namespace: str
    name: str
    owner: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"

    @classmethod
    def of(cls, one: dict[str, Any]) -> Run:
        """The run that an application is."""
        metadata = one["metadata"]
        owner = (metadata.get("labels") or {}).get(f"{LABEL}/owner", "")
        return cls(metadata["namespace"], metadata["name"], owner)


def new_run_id(moment: datetime | None = None, tail: str | None = None) -> str:
    """An id that no other run has: the time in UTC, and four digits.

    >>> new_run_id(datetime(2026, 11, 21, 9, 5, 7, tzinfo=UTC), "3f0a")
    '20261121-090507-3f0a'
    """
    return f"{moment or datetime.now(UTC):%Y%m%d-%H%M%S}-{tail or secrets.token_hex(2)}"


def plan_runs(
    lake: Lake, owner: str | None = None, tenants: Sequence[str] = ()
) -> list[tuple[Workspace, tuple[str, ...]]]:
    """Which workspaces a request is about, each with the tenants it is narrowed to.

    Args:
        lake: the declaration.
        owner: a dedicated tenant, or `pooled`; all of them without it.
        tenants: only these.

    Raises:
        DeclarationError: there is no such owner or tenant.
        TerminalError: a tenant isn't one of the owner's.
    """
    for name in tenants:
        lake.tenant(name)
    if owner is not None:
        workspace = lake.workspace(owner)
        if owner != workspace.owner:
            raise TerminalError(
                f"owner: tenant {owner!r} is pooled; give --owner {workspace.owner}, or --tenant {owner}"
            )
        strange = [name for name in tenants if name not in workspace.tenants]
        if strange:
            raise TerminalError(f"tenant: {known_values(strange[0], workspace.tenants)} (the tenants of {owner!r})")
        return [(workspace, tuple(tenants))]
    if not tenants:
        return [(one, ()) for one in lake.workspaces()]
    asked = [(one, tuple(name for name in one.tenants if name in tenants)) for one in lake.workspaces()]
    return [(workspace, names) for workspace, names in asked if names]


def check_config(cluster: Cluster, lake: Lake, declaration: Path, workspace: Workspace) -> str | None:
    """Whether a run in a workspace would read the declaration that is here; answers a warning where it wouldn't.

    Raises:
        TerminalError: there is nothing to read at all.
    """
    wanted = next(
        one
        for one in surroundings(lake, workspace, declaration, None)
        if one["kind"] == "ConfigMap" and one["metadata"]["name"] == CONFIG_MAP
    )
    try:
        there = cluster.get(cluster.kind("v1", "ConfigMap"), workspace.namespace, CONFIG_MAP)
    except PermissionProblemError:
        return None  # who may submit need not be able to read it
    if there is None:
        raise TerminalError(f"{place(wanted)}: there is none; `lakehose k8s apply` makes it, with its namespace")
    if there.get("data") == wanted["data"]:
        return None
    return (
        f"{place(wanted)} differs from {declaration}: the run takes what is on the cluster; `lakehose k8s diff` shows "
        "how, `lakehose k8s apply` brings it up to date"
    )


def submit(
    cluster: Cluster,
    lake: Lake,
    job: Job,
    workspace: Workspace,
    *,
    endpoint: str | None = None,
    datasets: Sequence[str] = (),
    tenants: Sequence[str] = (),
    run_id: str | None = None,
) -> Run:
    """Start a run.

    Args:
        cluster: where.
        lake: the declaration.
        job: what.
        workspace: whose data.
        endpoint: URL at which pods find AWS; AWS itself without it.
        datasets: only these.
        tenants: only these of the workspace's.
        run_id: tells it from other runs; a new one without it.

    Raises:
        TerminalError: a dataset or tenant isn't the workspace's, or the cluster refuses the run.
    """
    made = application(
        lake, job, workspace, run_id=run_id or new_run_id(), endpoint=endpoint, datasets=datasets, tenants=tenants
    )
    return Run.of(cluster.create(made.to_dict()))


def runs_of(cluster: Cluster, lake: Lake, workspaces: Iterable[Workspace], job: str | None = None) -> list[Any]:
    """Applications of this lake in workspaces, the oldest first.

    Args:
        cluster: where.
        lake: the declaration.
        workspaces: whose.
        job: only runs of this job.
    """
    kind = cluster.kind(*APPLICATION)
    selector = f"{LABEL}/lake={labels(lake)[f'{LABEL}/lake']}" + (f",{LABEL}/job={job}" if job else "")
    found = [one for each in workspaces for one in cluster.list(kind, each.namespace, labelSelector=selector)["items"]]
    return sorted(found, key=lambda one: (one["metadata"]["creationTimestamp"], one["metadata"]["name"]))


def find_run(cluster: Cluster, lake: Lake, name: str, owner: str | None = None) -> dict[str, Any]:
    """The application of a run's name; of a job's name, its newest run.

    Args:
        cluster: where.
        lake: the declaration.
        name: a run's, or a job's.
        owner: only in this owner's workspace.

    Raises:
        TerminalError: there is none, or several.
    """
    workspaces = [one for one, _ in plan_runs(lake, owner)]
    if name in {job.name for job in lake.pipeline()}:
        newest = {one["metadata"]["namespace"]: one for one in runs_of(cluster, lake, workspaces, name)}
        return _only(name, list(newest.values()), [])
    kind = cluster.kind(*APPLICATION)
    if not re.fullmatch(r"[a-z0-9]([a-z0-9.-]*[a-z0-9])?", name):
        found = []
    else:
        found = [one for each in workspaces if (one := cluster.get(kind, each.namespace, name)) is not None]
    others = [] if found else [one["metadata"]["name"] for one in runs_of(cluster, lake, workspaces)]
    return _only(name, found, others)


def _only(name: str, found: list[dict[str, Any]], others: list[str]) -> dict[str, Any]:
    if len(found) == 1:
        return found[0]
    if found:
        owners = ", ".join(sorted(Run.of(one).owner for one in found))
        raise TerminalError(f"run {name!r}: there is one of each of these owners: {owners}; choose one with --owner")
    if not others:
        raise TerminalError(f"run {name!r}: the cluster has none; `lakehose k8s submit` starts one")
    raise TerminalError(
        f"run: {known_values(name, others[-_SHOWN:])}" + (" (the newest)" if len(others) > _SHOWN else "")
    )


def finished_runs(cluster: Cluster, lake: Lake, owner: str | None = None) -> list[dict[str, Any]]:
    """Applications that have ended, the oldest first."""
    workspaces = [one for one, _ in plan_runs(lake, owner)]
    return [one for one in runs_of(cluster, lake, workspaces) if application_state(one) in FINAL]
