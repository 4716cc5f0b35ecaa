"""Owns what `lakehose deploy status` tells: releases, what runs in them, and the last run of each job."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from charts.cluster import objects
from charts.progress import troubles_of
from k8s.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from pyhelm3 import ReleaseRevision

    from charts.releases import Releases, Target
    from k8s.cluster import Cluster

__all__ = ["JobState", "ReleaseState", "Status", "WorkloadState", "look"]

_SPARK = "sparkoperator.k8s.io/v1beta2"
_BAD_RUNS = {"FAILED", "SUBMISSION_FAILED", "INVALIDATING"}


@dataclass(frozen=True)
class ReleaseState:
    """A release of Helm's."""

    name: str
    """With its namespace before it."""
    revision: int
    status: str
    """Helm's word: deployed, failed, pending-upgrade."""
    chart: str
    app: str
    updated: str

    @property
    def good(self) -> bool:
        """Whether it is in place."""
        return self.status == "deployed"


@dataclass(frozen=True)
class WorkloadState:
    """A StatefulSet or Deployment."""

    name: str
    ready: int
    wanted: int
    trouble: str = ""

    @property
    def good(self) -> bool:
        """Whether all its pods are ready."""
        return self.ready >= self.wanted and not self.trouble


@dataclass(frozen=True)
class JobState:
    """A job that runs by itself."""

    namespace: str
    job: str
    schedule: str
    last_run: str
    """Name of the last run; empty before the first."""
    started: str
    state: str
    """The operator's word for the last run, or for a schedule that it can't follow."""

    @property
    def good(self) -> bool:
        """Whether it is followed, and its last run didn't fail."""
        return self.state not in _BAD_RUNS and not self.state.startswith("schedule")


@dataclass(frozen=True)
class Status:
    """Everything."""

    releases: tuple[ReleaseState, ...]
    workloads: tuple[WorkloadState, ...]
    jobs: tuple[JobState, ...]

    @property
    def good(self) -> bool:
        """Whether something is installed, and all of it as it should be."""
        parts = (
            (one.good for one in self.releases),
            (one.good for one in self.workloads),
            (one.good for one in self.jobs),
        )
        return bool(self.releases) and all(good for some in parts for good in some)


async def look(releases: Releases, target: Target, operator: Target) -> Status:
    """Ask helm and the cluster how the lake's release is, and the operator's if it is ours to see.

    Args:
        releases: of the cluster.
        target: the lake's.
        operator: the operator's.
    """
    found: list[ReleaseState] = []
    workloads: list[WorkloadState] = []
    resources: list[dict[str, Any]] = []
    for one in (target, operator):
        current = await releases.current(one)
        if current is None:
            continue
        found.append(await _release(one, current))
        workloads += await asyncio.to_thread(_workloads, releases.cluster, one)
        if one is target:
            resources = list(await current.resources())
    if not any(one.name == str(target) for one in found):
        return Status((), (), ())
    return Status(tuple(found), tuple(workloads), tuple(_jobs(releases.cluster, resources)))


async def _release(target: Target, current: ReleaseRevision) -> ReleaseState:
    chart = await current.chart_metadata()
    return ReleaseState(
        name=str(target),
        revision=current.revision,
        status=current.status.value,
        chart=f"{chart.name}-{chart.version}",
        app=str(chart.app_version or ""),
        updated=f"{current.updated:%Y-%m-%d %H:%M:%S}",
    )


def _workloads(cluster: Cluster, target: Target) -> list[WorkloadState]:
    _, troubles = troubles_of(cluster, target.namespace, target.name)
    found = []
    for kind in ("StatefulSet", "Deployment"):
        for one in objects(cluster, "apps/v1", kind, target.namespace, f"app.kubernetes.io/instance={target.name}"):
            name = one["metadata"]["name"]
            mine = [str(trouble) for trouble in troubles if _is_about(trouble.what, name)]
            found.append(
                WorkloadState(
                    name=f"{kind} {target.namespace}/{name}",
                    ready=int(one["status"].get("readyReplicas", 0)),
                    wanted=int(one["spec"].get("replicas", 1)),
                    trouble="; ".join(mine),
                )
            )
    return found


def _is_about(what: str, name: str) -> bool:
    """Whether `pod firehose-0`, `volume claim data-firehose-0` or `StatefulSet firehose` is of `firehose`."""
    about = what.rpartition(" ")[2].removeprefix("data-")
    return about == name or about.startswith(f"{name}-")


def _jobs(cluster: Cluster, resources: Iterable[dict[str, Any]]) -> list[JobState]:
    wanted = [
        (one["metadata"]["namespace"], one["metadata"]["name"])
        for one in resources
        if one["kind"] == "ScheduledSparkApplication"
    ]
    selector = "app.kubernetes.io/part-of=lakehose"
    try:
        schedules = _by_place(objects(cluster, _SPARK, "ScheduledSparkApplication", None, selector))
        runs = _by_place(objects(cluster, _SPARK, "SparkApplication", None, selector))
    except NotFoundError:
        return [JobState(*place, "", "", "", "schedule: the Spark Operator isn't installed") for place in wanted]
    return [_job(place, schedules.get(place), runs) for place in wanted]


def _job(
    place: tuple[str, str], scheduled: dict[str, Any] | None, runs: dict[tuple[str, str], dict[str, Any]]
) -> JobState:
    if scheduled is None:
        return JobState(*place, "", "", "", "schedule: somebody removed it")
    status = scheduled.get("status") or {}
    run = status.get("lastRunName", "")
    state = ((runs.get((place[0], run)) or {}).get("status") or {}).get("applicationState") or {}
    told = str(state.get("state", ""))
    if status.get("scheduleState") == "FailedValidation":
        told = f"schedule: {status.get('reason', 'not valid')}"
    return JobState(*place, scheduled["spec"]["schedule"], run, str(status.get("lastRun") or ""), told or "not run yet")


def _by_place(found: Iterable[dict[str, Any]]) -> dict[tuple[str, str], dict[str, Any]]:
    return {(one["metadata"]["namespace"], one["metadata"]["name"]): one for one in found}
