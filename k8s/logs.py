"""Owns a container's log as it is written: every line once, over dropped connections, until the container has ended.

The API server can be asked for the log since a second, so after a break the lines of that second come again. Each line
carries its time to the nanosecond; the ones that were given already are left out by it.
"""

from __future__ import annotations

import re
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from k8s.errors import NotFoundError, NotReadyError, RefusedError, UnreachableError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from k8s.cluster import Cluster

__all__ = ["ContainerLog", "container_status"]

_PAUSE_SECONDS = 1.0
_PATIENCE_SECONDS = 300.0
_STAMPED = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d) ?")
_NANOSECONDS = 9


@dataclass(frozen=True, order=True)
class _Moment:
    second: str
    """As the API server takes it for `sinceTime`, without the zone."""
    fraction: str
    """Nanoseconds, nine digits."""
    zone: str = "Z"


def container_status(pod: dict[str, Any], container: str) -> dict[str, Any] | None:
    """What a pod's status says of a container; None before the kubelet has told anything."""
    statuses = pod.get("status", {}).get("containerStatuses") or []
    return next((one for one in statuses if one["name"] == container), None)


class ContainerLog:
    """The log of one container of one pod, told by its uid: a pod of the same name that comes later is another."""

    def __init__(
        self,
        cluster: Cluster,
        pod: dict[str, Any],
        container: str,
        *,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cluster = cluster
        self._pods = cluster.kind("v1", "Pod")
        self._namespace: str = pod["metadata"]["namespace"]
        self._name: str = pod["metadata"]["name"]
        self._uid: str = pod["metadata"]["uid"]
        self._container = container
        self._sleep, self._clock = sleep, clock
        self._last: _Moment | None = None
        self._at_last = 0  # lines given that carry that time
        self._ended = threading.Event()

    @property
    def _where(self) -> str:
        return f"log of pod {self._namespace}/{self._name}"

    def end(self) -> None:
        """Have an iteration in another thread end soon."""
        self._ended.set()

    def lines(self, *, follow: bool) -> Iterator[str]:
        """Its lines, without their times.

        Args:
            follow: go on until the container has ended, or its pod is gone; otherwise what there is now.

        Raises:
            RefusedError: the cluster doesn't give it.
            UnreachableError: the cluster was away for five minutes.
        """
        away_since: float | None = None
        while not self._ended.is_set():
            try:
                # asked before the log: what was written before the container ended is in the log that is read after
                finished = self._is_finished() or not follow
                yield from self._stream(follow=follow)
            except NotFoundError:
                return
            except (UnreachableError, NotReadyError):
                away_since = self._clock() if away_since is None else away_since
                if self._clock() - away_since > _PATIENCE_SECONDS:
                    raise
                self._sleep(_PAUSE_SECONDS)
                continue
            away_since = None
            if finished:
                return
            self._sleep(_PAUSE_SECONDS)

    def _is_finished(self) -> bool:
        pod = self._cluster.get(self._pods, self._namespace, self._name)
        if pod is None or pod["metadata"]["uid"] != self._uid:
            raise NotFoundError(f"{self._where}: the pod is gone")
        if pod.get("status", {}).get("phase") in {"Succeeded", "Failed"}:
            return True
        status = container_status(pod, self._container)
        return bool(status and status.get("state", {}).get("terminated"))

    def _stream(self, *, follow: bool) -> Iterator[str]:
        query = {"container": self._container, "timestamps": "true", "follow": str(follow).lower()}
        if self._last:
            query["sinceTime"] = f"{self._last.second}{self._last.zone}"
        path = f"{self._pods.path(self._namespace, self._name)}/log"
        try:
            stream = self._cluster.stream(path, self._where, query)
        except RefusedError as error:
            # the container waits for its image, or to be started
            if (
                "waiting to start" in str(error)
                or "is not available" in str(error)
                or "ContainerCreating" in str(error)
            ):
                return
            raise
        skip = self._at_last
        for line in stream:
            if self._ended.is_set():
                stream.close()
                return
            moment, text = _parted(line)
            if moment is not None and self._last is not None:
                if moment < self._last:
                    continue
                if moment == self._last and skip:
                    skip -= 1
                    continue
            if moment is not None:
                self._at_last = self._at_last + 1 if moment == self._last else 1
                self._last = moment
            yield text


def _parted(line: bytes) -> tuple[_Moment | None, str]:
    found = _STAMPED.match(line)
    if not found:
        return None, line.decode(errors="replace")
    fraction = (found[2] or b"").removeprefix(b".").decode().ljust(_NANOSECONDS, "0")
    moment = _Moment(found[1].decode(), fraction, found[3].decode())
    return moment, line[found.end() :].decode(errors="replace")
