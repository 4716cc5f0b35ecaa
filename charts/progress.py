"""Owns what a person sees while helm waits: how far each pod is, and an early end when one can't come up."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from charts.cluster import last_lines, objects
from charts.diagnosis import Trouble, controller_trouble, pod_state, pod_trouble
from k8s.errors import UnreachableError
from lake.errors import FindingError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from k8s.cluster import Cluster

__all__ = ["Watcher", "troubles_of", "watched"]

_Result = TypeVar("_Result")
_TICK = 1.0


def troubles_of(cluster: Cluster, namespace: str, release: str) -> tuple[list[dict[str, Any]], list[Trouble]]:
    """The pods of a release, and what keeps those that aren't up from it.

    Args:
        cluster: where.
        namespace: of the release.
        release: its name.
    """
    selector = f"app.kubernetes.io/instance={release}"
    pods = objects(cluster, "v1", "Pod", namespace, selector)
    waiting = [one for one in pods if pod_state(one) not in {"ready", "done"}]
    found: list[Trouble] = []
    events = _events(cluster, namespace)
    if waiting:
        claims = objects(cluster, "v1", "PersistentVolumeClaim", namespace)
        told = (pod_trouble(one, events, claims, lambda pod, name: last_lines(cluster, pod, name)) for one in waiting)
        found += [one for one in told if one is not None]
    podless = [
        one["metadata"]["name"]
        for kind in ("StatefulSet", "Deployment")
        for one in objects(cluster, "apps/v1", kind, namespace, selector)
        if one["spec"].get("replicas", 1) > one["status"].get("replicas", 0)
    ]
    trouble = controller_trouble(events, podless)
    return pods, [*found, *([trouble] if trouble else [])]


@dataclass
class Watcher:
    """Looks at a release's pods once a second, says what changes, and gives up on what time won't mend."""

    cluster: Cluster
    namespace: str
    release: str
    say: Callable[[str], None]
    patience: float = 30.0
    """Seconds that a trouble may last which time alone won't mend: a Secret may be made a moment later."""
    clock: Callable[[], float] = time.monotonic
    troubles: list[Trouble] = field(default_factory=list)
    """As they were at the last look."""
    _states: dict[str, str] = field(default_factory=dict)
    _told: dict[str, str] = field(default_factory=dict)
    _since: dict[str, float] = field(default_factory=dict)

    async def run(self) -> None:
        """Look until cancelled.

        Raises:
            FindingError: a pod can't come up.
        """
        while True:
            # a cluster that is busy or restarts its API server is helm's to wait for
            with contextlib.suppress(UnreachableError):
                self.look(*await asyncio.to_thread(troubles_of, self.cluster, self.namespace, self.release))
            await asyncio.sleep(_TICK)

    def look(self, pods: list[dict[str, Any]], troubles: list[Trouble]) -> None:
        """Say what is new among these, and give up if one has lasted too long.

        Raises:
            FindingError: a pod can't come up.
        """
        self.troubles = troubles
        for pod in pods:
            name, state = pod["metadata"]["name"], pod_state(pod)
            if self._states.get(name) != state:
                self._states[name] = state
                self.say(f"pod {name}: {state}")
        for one in troubles:
            # counts of restarts and the like are no news
            gist = re.sub(r"\d+", "", one.why)
            if self._told.get(one.what) != gist:
                self._told[one.what] = gist
                self.say(str(one))
        lasting = {one.what: one for one in troubles if not one.heals}
        self._since = {what: self._since.get(what, self.clock()) for what in lasting}
        for what, since in self._since.items():
            if self.clock() - since >= self.patience:
                raise FindingError(str(lasting[what]))


async def watched(work: Coroutine[Any, Any, _Result], watcher: Watcher) -> _Result:
    """Do work of helm's while a watcher looks on.

    Raises:
        FindingError: the watcher gave up, and helm was stopped, which marks the release as failed.
    """
    doing, looking = asyncio.create_task(work), asyncio.create_task(watcher.run())
    try:
        await asyncio.wait({doing, looking}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        looking.result()  # it never returns but by an error
        raise AssertionError
    finally:
        for task in (doing, looking):
            task.cancel()
        # helm is asked to end, and takes its time to note the failure
        await asyncio.gather(doing, looking, return_exceptions=True)


def _events(cluster: Cluster, namespace: str) -> list[dict[str, Any]]:
    found = objects(cluster, "v1", "Event", namespace)
    return sorted(
        found,
        key=lambda one: one.get("lastTimestamp") or one.get("eventTime") or one["metadata"]["creationTimestamp"],
    )
