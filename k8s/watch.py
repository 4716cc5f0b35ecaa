"""Owns watching: every change of some objects, in order, over any number of dropped connections.

What is there is listed once, then changes come as they happen. After a break it goes on from the last version seen;
when the cluster no longer knows that version, it lists again and tells only what is different.
https://kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes
"""

from __future__ import annotations

import json
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from k8s.errors import GoneError, NotReadyError, UnreachableError, refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from k8s.cluster import Cluster, Kind

__all__ = ["Observation", "Watch"]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 15.0
_PATIENCE_SECONDS = 300.0
"""So long a cluster may be away before a watch gives up."""
_ROUND_SECONDS = 240
"""The server ends a watch after so long, and the next one goes on from there."""


@dataclass(frozen=True)
class Observation:
    """An object as it is now, or as it last was."""

    object: dict[str, Any]
    gone: bool = False

    @property
    def kind(self) -> str:
        """Kind of the object."""
        return str(self.object["kind"])


@dataclass
class Watch:
    """Changes of the objects of one kind in one namespace."""

    cluster: Cluster
    kind: Kind
    namespace: str
    selectors: dict[str, str] = field(default_factory=dict)
    """`labelSelector`, `fieldSelector`."""
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    round_seconds: int = _ROUND_SECONDS

    def __post_init__(self) -> None:
        self._known: dict[str, dict[str, Any]] = {}
        self._version: str | None = None
        self._ended = threading.Event()

    @property
    def _where(self) -> str:
        return f"{self.kind.plural} of {self.namespace}"

    def end(self) -> None:
        """Have the iteration end, from another thread; it does at the next change or the end of a round."""
        self._ended.set()

    def __iter__(self) -> Iterator[Observation]:
        """Every object that is there, then every change, until `end`.

        Raises:
            RefusedError: no permission, for one.
            UnreachableError: the cluster was away for five minutes.
        """
        pause, away_since = _FIRST_PAUSE, None
        while not self._ended.is_set():
            try:
                for one in self._round():
                    pause, away_since = _FIRST_PAUSE, None
                    yield one
                pause, away_since = _FIRST_PAUSE, None
            except GoneError:
                self._version = None
            except (UnreachableError, NotReadyError):
                away_since = self.clock() if away_since is None else away_since
                if self.clock() - away_since > _PATIENCE_SECONDS:
                    raise
                self.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)

    def _round(self) -> Iterator[Observation]:
        if self._version is None:
            yield from self._listed()
        query = {
            **self.selectors,
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": self._version or "",
            "timeoutSeconds": str(self.round_seconds),
        }
        with_lines = self.cluster.stream(self.kind.path(self.namespace), self._where, query)
        for line in with_lines:
            if self._ended.is_set():
                with_lines.close()
                return
            one = self._told(line)
            if one is not None:
                yield one

    def _listed(self) -> Iterator[Observation]:
        found = self.cluster.list(self.kind, self.namespace, **self.selectors)
        there = {one["metadata"]["uid"]: one for one in found["items"]}
        for uid in [one for one in self._known if one not in there]:
            yield Observation(self._known.pop(uid), gone=True)
        for uid, one in there.items():
            before = self._known.get(uid)
            self._known[uid] = one
            if before is None or before["metadata"]["resourceVersion"] != one["metadata"]["resourceVersion"]:
                yield Observation(one)
        # last: an iteration that is broken off in here lists again
        self._version = found["metadata"]["resourceVersion"]

    def _told(self, line: bytes) -> Observation | None:
        try:
            event = json.loads(line)
        except ValueError:
            # cut short: the connection broke in it
            raise UnreachableError(f"{self._where}: the connection broke in the middle of a change") from None
        one = event["object"]
        if event["type"] == "ERROR":
            raise refusal(int(one.get("code", 500)), one, self._where)
        self._version = one["metadata"]["resourceVersion"]
        if event["type"] == "BOOKMARK":
            return None
        uid = one["metadata"]["uid"]
        if event["type"] == "DELETED":
            self._known.pop(uid, None)
            return Observation(one, gone=True)
        self._known[uid] = one
        return Observation(one)
