"""Owns why a pod doesn't come up: what the kubelet, the scheduler and the controllers tell, as one sentence."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Json = dict[str, Any]

__all__ = ["Trouble", "controller_trouble", "pod_state", "pod_trouble"]

_IMAGE = {"ErrImagePull", "ImagePullBackOff"}
_NO_IMAGE = re.compile(r"not found|manifest unknown|denied|unauthorized|does not exist", re.IGNORECASE)
"""What a registry says that answers; one that doesn't may answer in a moment."""
_CONFIGURATION = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}
_WAITS = {"WaitForFirstConsumer", "ExternalProvisioning", "Provisioning"}
"""Events of a claim whose volume is being made, or will be when the pod has a node."""
_CRASHES = 2
"""Ends of a container that make it a crash, rather than a bad moment."""


@dataclass(frozen=True)
class Trouble:
    """Why something isn't up."""

    what: str
    """As in `pod firehose-0`."""
    why: str
    """A sentence with the fix."""
    heals: bool = True
    """Whether time alone may mend it: a node that is being started does, an image that isn't there doesn't."""

    def __str__(self) -> str:
        return f"{self.what}: {self.why}"


def pod_state(pod: Json) -> str:
    """How far a pod is: pending, starting, running, ready, done, failed, or going."""
    status = pod["status"]
    if pod["metadata"].get("deletionTimestamp"):
        return "going"
    if status.get("phase") in {"Succeeded", "Failed"}:
        return "done" if status["phase"] == "Succeeded" else "failed"
    containers = status.get("containerStatuses") or []
    if containers and all(one["ready"] for one in containers):
        return "ready"
    if any("running" in one["state"] for one in containers):
        return "running"
    return "starting" if _condition(pod, "PodScheduled").get("status") == "True" else "pending"


def pod_trouble(
    pod: Json, events: Sequence[Json], claims: Iterable[Json], last_lines: Callable[[Json, str], str]
) -> Trouble | None:
    """Why a pod isn't up; None when nothing is wrong with it.

    Args:
        pod: the pod.
        events: of its namespace, oldest first.
        claims: of its namespace.
        last_lines: gives the end of a container's log, of its run before.
    """
    if pod["metadata"].get("deletionTimestamp"):
        return None
    own = _about(events, pod)
    for kind in ("initContainerStatuses", "containerStatuses"):
        for status in pod["status"].get(kind) or []:
            found = _container_trouble(pod, status, own, last_lines)
            if found:
                return found
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        return _unplaced(pod, scheduled.get("message", ""), events, claims)
    mount = next((one for one in reversed(own) if one.get("reason") in {"FailedMount", "FailedAttachVolume"}), None)
    if mount and pod_state(pod) == "starting":
        message = _line(mount["message"])
        return Trouble(_pod(pod), f"a volume can't be mounted: {message}", heals="not found" not in message)
    return None


def controller_trouble(events: Sequence[Json], names: Iterable[str]) -> Trouble | None:
    """Why a controller makes no pod: a quota, the pod security of the namespace, an account that is missing.

    Args:
        events: of its namespace, oldest first.
        names: of the StatefulSets and Deployments asked about; those of a Deployment's ReplicaSets begin with its.
    """
    wanted = set(names)
    for one in reversed(events):
        about = one["involvedObject"]
        if one.get("reason") != "FailedCreate" or about["kind"] not in {"StatefulSet", "ReplicaSet"}:
            continue
        if {about["name"], about["name"].rpartition("-")[0]} & wanted:
            return Trouble(f"{about['kind']} {about['name']}", f"it can't make its pod: {_line(one['message'])}", False)
    return None


def _container_trouble(
    pod: Json, status: Json, own: Sequence[Json], last_lines: Callable[[Json, str], str]
) -> Trouble | None:
    waiting = status["state"].get("waiting") or {}
    reason, message = waiting.get("reason"), _line(waiting.get("message", ""))
    image = status["image"]
    why, heals = None, False
    if reason == "ErrImageNeverPull":
        why = f"image {image} isn't on the node, and pullPolicy Never forbids to pull it: put it there, or allow it"
    elif reason == "InvalidImageName":
        why = f"{image!r} is no name of an image"
    elif reason in _IMAGE:
        told = next((one["message"] for one in reversed(own) if "Failed to pull" in one.get("message", "")), message)
        why = f"image {image} can't be pulled: {_line(told)}; check its name, and imagePullSecrets if it is private"
        heals = not _NO_IMAGE.search(told)
    elif reason in _CONFIGURATION:
        fix = "; make it: it holds AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" if "secret" in message else ""
        why = f"its container can't be made: {message or reason}{fix}"
    elif not status["ready"] and (reason == "CrashLoopBackOff" or status["restartCount"] >= _CRASHES):
        why = _crash(pod, status, last_lines)
    return Trouble(_pod(pod), why, heals=heals) if why else None


def _crash(pod: Json, status: Json, last_lines: Callable[[Json, str], str]) -> str:
    name = status["name"]
    ended = status.get("lastState", {}).get("terminated") or status["state"].get("terminated") or {}
    if ended.get("reason") == "OOMKilled":
        return f"{name} ran out of memory {status['restartCount']} times; raise its memory limit"
    log = last_lines(pod, name).strip().splitlines()[-12:]
    told = "".join(f"\n    {line}" for line in log)
    return f"{name} ended {status['restartCount']} times, with {ended.get('exitCode', 'no status')}" + (
        f"; its last lines:{told}" if told else ""
    )


def _unplaced(pod: Json, message: str, events: Sequence[Json], claims: Iterable[Json]) -> Trouble:
    volumes = pod["spec"].get("volumes") or []
    mine = {one["persistentVolumeClaim"]["claimName"] for one in volumes if "persistentVolumeClaim" in one}
    for claim in claims:
        if claim["metadata"]["name"] not in mine or claim["status"].get("phase") == "Bound":
            continue
        told = next(iter(reversed(_about(events, claim))), None)
        if told is not None and told.get("reason") not in _WAITS:
            return Trouble(
                f"volume claim {claim['metadata']['name']}",
                f"it has no volume: {_line(told['message'])}; name a class that makes volumes with "
                "firehose.storage.storageClassName, or make a volume that fits",
                heals=False,
            )
    if "persistentvolumeclaim" in message and "not found" in message:
        fix = "make the claim, or leave firehose.storage.existingClaim out"
        return Trouble(_pod(pod), f"{_line(message)}; {fix}", heals=False)
    # a cluster that starts nodes as they are needed mends this
    return Trouble(_pod(pod), f"no node takes it: {_line(message)}")


def _condition(pod: Json, kind: str) -> Json:
    return next((one for one in pod["status"].get("conditions") or [] if one["type"] == kind), {})


def _about(events: Sequence[Json], one: Json) -> list[Json]:
    return [event for event in events if event["involvedObject"].get("uid") == one["metadata"]["uid"]]


def _pod(pod: Json) -> str:
    return f"pod {pod['metadata']['name']}"


def _line(text: str) -> str:
    return " ".join(text.split())[:500]
