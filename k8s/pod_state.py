"""Owns what a pod's status means: in words, and whether waiting can still help.

https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from k8s.logs import container_status
from k8s.names import CONFIG_MAP
from k8s.pods import Role

__all__ = ["PodState", "Trouble", "event_trouble", "is_driver", "pod_name", "pod_state"]

_KILLED = 128  # an exit status above is 128 and the number of the signal
_AT_ONCE, _SOON = 0.0, 30.0
_MISSING = re.compile(r'(configmap|secret) "([^"]+)" not found')
_NO_KEY = re.compile(r"couldn't find key (\S+) in (ConfigMap|Secret) (\S+)")
_NO_IMAGE = re.compile(r"not found|manifest unknown|denied|unauthorized|does not exist|not allowed", re.IGNORECASE)
# said by the container's status too, or by the next change of the pod
_SAID_ELSEWHERE = {"BackOff", "ErrImageNeverPull", "Failed", "FailedScheduling", "InspectFailed", "Unhealthy"}
_SPARKS_OWN = re.compile(r'configmap "[^"]*-conf-map" not found')
"""Spark makes its pods' ConfigMaps right after the pods: that one is missing for a moment means nothing."""

_WORTH_TELLING = 3
"""A mount that fails once or twice may be ahead of what it mounts."""


@dataclass(frozen=True)
class Trouble:
    """Why a pod doesn't come up."""

    text: str
    """The cluster's own words, and what helps."""
    hopeless_after: float | None = None
    """Seconds after which waiting on is of no use; None: it may yet heal by itself."""


@dataclass(frozen=True)
class PodState:
    """How a pod is."""

    text: str
    trouble: Trouble | None = None
    started: bool = False
    """Whether its container has been started, so that there is a log."""
    ended: bool = False
    exit_code: int | None = None
    """The container's exit status, where it has ended and told one."""


def is_driver(pod: dict[str, Any]) -> bool:
    """Whether it is a run's driver."""
    return bool((pod["metadata"].get("labels") or {}).get("spark-role") == "driver")


def pod_name(pod: dict[str, Any]) -> str:
    """What to call a pod of a run: `driver`, or `executor 3`."""
    labels = pod["metadata"].get("labels") or {}
    return "driver" if is_driver(pod) else f"executor {labels.get('spark-exec-id', pod['metadata']['name'])}"


def pod_state(pod: dict[str, Any]) -> PodState:
    """How a pod of a run is."""
    status = pod.get("status") or {}
    role = Role.DRIVER if is_driver(pod) else Role.EXECUTOR
    container = container_status(pod, role) or {}
    state = container.get("state") or {}
    if state.get("terminated"):
        return _ended(status, state["terminated"])
    if status.get("phase") in {"Failed", "Succeeded"}:
        return PodState(_without_container(status), ended=True)
    if state.get("running"):
        return PodState(f"running on node {pod['spec'].get('nodeName')}", started=True)
    waiting = state.get("waiting") or {}
    trouble = _trouble(pod, waiting.get("reason", ""), waiting.get("message", ""), container.get("image", ""))
    if trouble:
        return PodState(trouble.text, trouble)
    unplaced = next((one for one in status.get("conditions") or [] if one["type"] == "PodScheduled"), None)
    if unplaced and unplaced["status"] == "False":
        trouble = Trouble(f"no node for it yet: {unplaced.get('message') or unplaced.get('reason')}")
        return PodState(trouble.text, trouble)
    if pod["spec"].get("nodeName"):
        return PodState(f"starting on node {pod['spec']['nodeName']}")
    return PodState("waiting for a node")


def _ended(status: dict[str, Any], terminated: dict[str, Any]) -> PodState:
    code = int(terminated.get("exitCode", 1))
    reason = status.get("reason") or terminated.get("reason") or ""
    text = f"ended with exit status {code}"
    if reason == "OOMKilled":
        text += " (OOMKilled: it took more memory than it may; raise `memory_mib` of the job in the declaration)"
    elif reason == "DeadlineExceeded":
        text += " (it took longer than the job's `timeout_minutes`)"
    elif code > _KILLED:
        text += f" (killed by signal {code - _KILLED}{_because(status, reason)})"
    elif code:
        text += _because(status, "" if reason == "Error" else reason)
    return PodState(text, started=True, ended=True, exit_code=code)


def _because(status: dict[str, Any], reason: str) -> str:
    disrupted: dict[str, Any] = next(
        (one for one in status.get("conditions") or [] if one["type"] == "DisruptionTarget"), {}
    )
    said = [one for one in (reason, status.get("message"), disrupted.get("message")) if one and one != "Error"]
    return f": {'; '.join(said)}" if said else ""


def _without_container(status: dict[str, Any]) -> str:
    return f"{str(status['phase']).lower()}{_because(status, status.get('reason', ''))}"


def _trouble(pod: dict[str, Any], reason: str, message: str, image: str) -> Trouble | None:
    if not reason or reason in {"ContainerCreating", "PodInitializing"}:
        return None
    image = image or next((one.get("image", "") for one in pod["spec"]["containers"]), "")
    match reason:
        case "ErrImageNeverPull":
            text = (
                f"image {image} isn't on the node, and may not be pulled (`kubernetes.pull_policy: Never`); load it "
                f"into the cluster (`kind load docker-image {image}`, `k3d image import {image}`)"
            )
            return Trouble(text, _AT_ONCE)
        case "InvalidImageName":
            return Trouble(f"image {image}: no valid name; correct `kubernetes.image` in the declaration", _AT_ONCE)
        case "ErrImagePull" | "ImagePullBackOff":
            text = f"image {image} can't be pulled; is `kubernetes.image` right, and may the nodes pull it?"
            return Trouble(text, _SOON if _NO_IMAGE.search(message) else None)
    return Trouble(f"{reason}: {message}{_help(message, pod['metadata']['namespace'])}", _patience(message))


def _patience(message: str) -> float | None:
    return _SOON if _MISSING.search(message) or _NO_KEY.search(message) else None


def _help(message: str, namespace: str) -> str:
    found = _MISSING.search(message)
    if not found:
        return ""
    kind, name = found.groups()
    if (kind, name) == ("configmap", CONFIG_MAP):
        return "; `lakehose k8s apply` makes it"
    if kind == "secret":
        return (
            f"; make it: `kubectl create secret generic {name} -n {namespace} --from-literal=AWS_ACCESS_KEY_ID=… "
            "--from-literal=AWS_SECRET_ACCESS_KEY=…`"
        )
    return ""


def event_trouble(event: dict[str, Any]) -> Trouble | None:
    """What an event about a pod tells that its status doesn't; None where it tells nothing of the kind."""
    if event.get("type") != "Warning" or event.get("reason") in _SAID_ELSEWHERE:
        return None
    message = str(event.get("message") or "").strip()
    missing = _MISSING.search(message)
    if _SPARKS_OWN.search(message) or (missing and int(event.get("count") or 1) < _WORTH_TELLING):
        return None
    namespace = event["metadata"]["namespace"]
    return Trouble(f"{event.get('reason')}: {message}{_help(message, namespace)}", _patience(message))
