"""Owns one Helm release at a time: what is there, and changing it with progress, in sentences."""

from __future__ import annotations

import asyncio
import contextlib
import json
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pyhelm3 import ReleaseRevisionStatus
from pyhelm3 import errors as helm_errors

from charts.problems import helm_problem, is_wait_over, is_webhook_away
from charts.progress import Watcher, troubles_of, watched
from charts.rollback import rolled_back
from lake.errors import FindingError, LakehoseError, TransientError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping

    from pyhelm3 import Chart, Client, ReleaseRevision

    from k8s.cluster import Cluster

__all__ = ["Options", "Releases", "Target"]

_PENDING = {
    ReleaseRevisionStatus.PENDING_INSTALL,
    ReleaseRevisionStatus.PENDING_UPGRADE,
    ReleaseRevisionStatus.PENDING_ROLLBACK,
    ReleaseRevisionStatus.UNINSTALLING,
}
_UNDONE_BY_REMOVING = {ReleaseRevisionStatus.PENDING_INSTALL, ReleaseRevisionStatus.UNINSTALLING}
_WEBHOOK_TRIES, _WEBHOOK_SECONDS = 6, 3.0


@dataclass(frozen=True)
class Target:
    """A release."""

    name: str
    namespace: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True)
class Options:
    """How releases are changed."""

    timeout: int = 600
    """Seconds that helm waits for pods."""
    wait: bool = True
    """Whether to wait for pods at all."""
    atomic: bool = False
    """Whether a release that fails goes back to what was there."""
    adopt: bool = False
    """Whether objects that belong to something else are taken over."""


@dataclass(frozen=True)
class Releases:
    """Helm's releases in one cluster."""

    client: Client
    cluster: Cluster
    options: Options
    say: Callable[[str], None]

    async def current(self, target: Target) -> ReleaseRevision | None:
        """The newest revision; None where nothing is installed."""
        with _sentences(f"look at release {target}"):
            try:
                return await self.client.get_current_revision(target.name, namespace=target.namespace)
            except helm_errors.ReleaseNotFoundError:
                return None

    async def proceed(self, target: Target) -> ReleaseRevision | None:
        """As `current`, once nothing is under way: what was cut off long ago is undone first.

        Raises:
            TransientError: another change may still be under way.
        """
        found = await self.current(target)
        if found is None or found.status not in _PENDING:
            return found
        age = datetime.now(UTC) - found.updated
        if age < timedelta(seconds=self.options.timeout):
            left = self.options.timeout - int(age.total_seconds())
            raise TransientError(
                f"release {target}: another change of it is under way ({found.status.value} since "
                f"{found.updated:%H:%M:%S} UTC); wait for it. If it was cut off, try again in {left} s, or now with "
                f"--timeout {int(age.total_seconds()) or 1}"
            )
        self.say(f"release {target}: a change was cut off ({found.status.value}); undoing it")
        with _sentences(f"undo what was cut off of {target}"):
            if found.status in _UNDONE_BY_REMOVING:
                await self.client.uninstall_release(target.name, namespace=target.namespace)
                return None
            # without waiting, as pyhelm3's own would: what is put back may be what didn't come up
            await rolled_back(self.cluster, found, found.revision - 1, wait=False)
        return await self.current(target)

    async def would_change(self, current: ReleaseRevision | None, chart: Chart, values: Mapping[str, Any]) -> bool:
        """Whether chart or values differ from what is installed."""
        with _sentences("compare with what is installed"):
            # through JSON, as helm has it: a tuple is a list there
            return bool(
                await self.client.should_install_or_upgrade_release(current, chart, json.loads(json.dumps(values)))
            )

    async def change(self, target: Target, chart: Chart, values: Mapping[str, Any]) -> ReleaseRevision:
        """Install a release, or bring it to this chart and these values.

        Raises:
            LakehoseError: helm or the cluster refuses it, or its pods don't come up.
        """

        def once() -> Coroutine[Any, Any, ReleaseRevision]:
            # not ensure_release: that would undo somebody else's change under way without asking
            found: Coroutine[Any, Any, ReleaseRevision] = self.client.install_or_upgrade_release(
                target.name,
                chart,
                dict(values),
                namespace=target.namespace,
                create_namespace=False,
                atomic=self.options.atomic,
                take_ownership=self.options.adopt,
                timeout=f"{self.options.timeout}s",
                wait=self.options.wait,
            )
            return found

        for attempt in range(1, _WEBHOOK_TRIES + 1):
            try:
                return await self._watched(target, f"install {target}", once())
            except _WebhookAwayError as error:
                if attempt == _WEBHOOK_TRIES:
                    raise error.problem from None
                # ready pods are known to every node a moment later
                self.say(f"{target}: the operator's webhook doesn't answer yet; trying again")
                await asyncio.sleep(_WEBHOOK_SECONDS)
        raise AssertionError

    async def back(self, target: Target, newest: ReleaseRevision, number: int) -> ReleaseRevision:
        """Bring a release back from its newest revision to one before."""
        work = rolled_back(
            self.cluster,
            newest,
            number,
            cleanup_on_fail=True,
            timeout=f"{self.options.timeout}s",
            wait=self.options.wait,
        )
        return await self._watched(target, f"roll {target} back", work)

    async def remove(self, target: Target) -> None:
        """Remove a release; what it is told to keep stays."""
        with _sentences(f"remove {target}"):
            await self.client.uninstall_release(
                target.name,
                namespace=target.namespace,
                timeout=f"{self.options.timeout}s",
                wait=self.options.wait,
            )

    async def _watched(self, target: Target, doing: str, work: Coroutine[Any, Any, ReleaseRevision]) -> ReleaseRevision:
        watcher = Watcher(self.cluster, target.namespace, target.name, self.say)
        try:
            if not self.options.wait:
                return await work
            return await watched(work, watcher)
        except helm_errors.Error as error:
            if is_webhook_away(error):
                raise _WebhookAwayError(helm_problem(error, doing)) from None
            if is_wait_over(error) and self.options.wait:
                raise await self._not_ready(target, doing, watcher) from None
            raise helm_problem(error, doing) from None
        except FindingError as error:
            undone = "; it was undone" if self.options.atomic else "; mend it and repeat, or `lakehose deploy rollback`"
            raise FindingError(f"{doing}: {error}{undone}") from None

    async def _not_ready(self, target: Target, doing: str, watcher: Watcher) -> LakehoseError:
        troubles = watcher.troubles
        with contextlib.suppress(LakehoseError):
            _, now = await asyncio.to_thread(troubles_of, self.cluster, target.namespace, target.name)
            troubles = now or troubles
        told = "; ".join(map(str, troubles)) or "its pods are still starting"
        return FindingError(
            f"{doing}: not ready after {self.options.timeout} s: {told}. `lakehose deploy status` looks again, "
            "--timeout waits longer"
        )


class _WebhookAwayError(Exception):
    def __init__(self, problem: LakehoseError) -> None:
        super().__init__(str(problem))
        self.problem = problem


@contextmanager
def _sentences(doing: str) -> Iterator[None]:
    try:
        yield
    except helm_errors.Error as error:
        raise helm_problem(error, doing) from None
