"""Owns following a run to its end: its changes and its driver's log as they come, and the exit status it ends with."""

from __future__ import annotations

import queue
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from k8s.errors import PermissionProblemError
from k8s.logs import ContainerLog
from k8s.pod_state import is_driver, pod_state
from k8s.pods import Role
from k8s.progress import Outcome, Progress
from k8s.runs import APPLICATION, NAME_LABEL
from k8s.watch import Observation, Watch
from lake.errors import LakehoseError, TerminalError, TransientError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from k8s.cluster import Cluster
    from k8s.runs import Run

__all__ = ["Follower", "Teller"]

_GLANCE_SECONDS = 1.0
_LOG_TAIL_SECONDS = 30.0
"""So long the log's end may take to come after its container has ended."""
_UNNOTICED_SECONDS = 90.0


class Teller(Protocol):
    """Takes what there is to tell; called from several threads."""

    def state(self, run: Run, text: str) -> None:
        """A change of the run."""
        ...

    def line(self, run: Run, text: str) -> None:
        """A line of its driver's log."""
        ...


@dataclass
class Follower:
    """Follows one run."""

    cluster: Cluster
    run: Run
    tell: Teller
    log: bool = True
    """Whether the driver's log is told too."""
    timeout: float = 600.0
    """Seconds that a driver may take until it runs, at each attempt."""
    clock: Callable[[], float] = time.monotonic
    _queue: queue.SimpleQueue[Observation | LakehoseError] = field(default_factory=queue.SimpleQueue)
    _watches: list[Watch] = field(default_factory=list)
    _logs: dict[str, tuple[ContainerLog, threading.Thread]] = field(default_factory=dict)

    def follow(self) -> Outcome:
        """Follow it until it has ended.

        Raises:
            TerminalError: its driver can't come up, and why.
            TransientError: its driver didn't come up in time; or the run was deleted.
            UnreachableError: the cluster was away for too long.
        """
        progress = Progress(self.run.name)
        if self.cluster.get(self.cluster.kind(*APPLICATION), self.run.namespace, self.run.name) is None:
            raise self._deleted()
        self._watch()
        try:
            return self._until_ended(progress)
        finally:
            for one in self._watches:
                one.end()
            for log, _ in self._logs.values():
                log.end()

    def _watch(self) -> None:
        pods = {"labelSelector": f"{NAME_LABEL}={self.run.name}"}
        for kind, selectors in (
            (self.cluster.kind(*APPLICATION), {"fieldSelector": f"metadata.name={self.run.name}"}),
            (self.cluster.kind("v1", "Pod"), pods),
            (self.cluster.kind("v1", "Event"), {"fieldSelector": "involvedObject.kind=Pod,type=Warning"}),
        ):
            watch = Watch(self.cluster, kind, self.run.namespace, selectors)
            self._watches.append(watch)
            threading.Thread(target=self._pump, args=(watch,), daemon=True).start()

    def _pump(self, watch: Watch) -> None:
        try:
            for one in watch:
                self._queue.put(one)
        except PermissionProblemError as error:
            # without the events some reasons stay unknown, and that is all
            if watch.kind.kind != "Event":
                self._queue.put(error)
        except LakehoseError as error:
            self._queue.put(error)

    def _seen(self) -> Iterator[Observation | None]:
        """What is seen, in order; None when for a second there was nothing."""
        while True:
            try:
                one = self._queue.get(timeout=_GLANCE_SECONDS)
            except queue.Empty:
                yield None
                continue
            if isinstance(one, LakehoseError):
                raise one
            yield one

    def _until_ended(self, progress: Progress) -> Outcome:
        waiting_since = began = self.clock()
        unnoticed = False
        for seen in self._seen():
            if seen is not None:
                self._take(progress, seen)
            now = self.clock()
            if progress.outcome:
                self._rest_of_log(progress)
                return progress.outcome
            if progress.removed:
                raise self._deleted()
            if progress.running:
                waiting_since = now
            self._check(progress, now, now - waiting_since)
            if not progress.taken_up and not unnoticed and now - began > _UNNOTICED_SECONDS:
                unnoticed = True
                self.tell.state(self.run, self._unnoticed())
        raise AssertionError  # what is seen has no end

    def _take(self, progress: Progress, seen: Observation) -> None:
        if seen.kind == "Pod" and is_driver(seen.object):
            self._log_of(seen)
        for text in progress.take(seen, self.clock()):
            self.tell.state(self.run, text)

    def _check(self, progress: Progress, now: float, waited: float) -> None:
        hint = f"the run stays: `lakehose k8s watch {self.run.name}` follows it again, `delete` removes it"
        hopeless = progress.hopeless(now)
        if hopeless:
            raise TerminalError(f"run {self.run}: its driver can't come up: {hopeless}; {hint}")
        if waited > self.timeout:
            why = progress.trouble() or ("no reason is known" if progress.taken_up else self._unnoticed())
            raise TransientError(f"run {self.run}: its driver isn't running after {waited:.0f} s: {why}; {hint}")

    def _deleted(self) -> TransientError:
        return TransientError(f"run {self.run}: it was deleted while it was followed")

    def _unnoticed(self) -> str:
        return (
            "no operator has taken it up yet: is the Spark Operator up, and does it watch namespace "
            f"{self.run.namespace}? `lakehose deploy status` tells"
        )

    def _log_of(self, seen: Observation) -> None:
        """Have a driver's log told while it is written, and all of it before the driver's end is."""
        pod = seen.object
        state = pod_state(pod)
        uid = pod["metadata"]["uid"]
        if self.log and state.started and not seen.gone and uid not in self._logs:
            log = ContainerLog(self.cluster, pod, Role.DRIVER)
            thread = threading.Thread(target=self._read, args=(log,), daemon=True)
            self._logs[uid] = (log, thread)
            thread.start()
        if (state.ended or seen.gone) and uid in self._logs:
            self._logs[uid][1].join(_LOG_TAIL_SECONDS)

    def _read(self, log: ContainerLog) -> None:
        try:
            for line in log.lines(follow=True):
                self.tell.line(self.run, line)
        except LakehoseError as error:
            # the run goes on without its log
            self.tell.state(self.run, str(error))

    def _rest_of_log(self, progress: Progress) -> None:
        """A run that had ended before it was followed: its pods may not have been seen yet."""
        if progress.driver is None and self.log:
            pods = self.cluster.list(
                self.cluster.kind("v1", "Pod"), self.run.namespace, labelSelector=f"{NAME_LABEL}={self.run.name}"
            )
            for pod in pods["items"]:
                if is_driver(pod):
                    self._log_of(Observation(pod))
        for _, thread in self._logs.values():
            thread.join(_LOG_TAIL_SECONDS)
