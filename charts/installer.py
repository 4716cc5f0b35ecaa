"""Owns the order in which a lake gets into a cluster, changes there, and goes again.

Namespaces come first, as the operator's rights lie in them; then the operator, as its webhook has to answer before a
job is made; then the lake's own release. On the way out it is the other way round.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyhelm3 import ReleaseRevisionStatus
from pyhelm3 import errors as helm_errors

from charts.cluster import Right, lacking, objects, who
from charts.contents import missing, placed
from charts.namespaces import ensure_confined, ensure_owned, namespaces_of, remove_empty
from charts.package import LARGEST_RELEASE, prepared_chart, release_size
from charts.plan import Plan
from charts.problems import helm_problem, missing_kind
from k8s.errors import NotFoundError
from lake.errors import EnvironmentProblemError, TerminalError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Mapping
    from pathlib import Path

    from pyhelm3 import Chart, ReleaseRevision

    from charts.operator import OperatorKeeper
    from charts.releases import Releases, Target
    from k8s.cluster import Cluster

__all__ = ["Installer"]


@dataclass(frozen=True)
class Installer:
    """Brings one lake's release into a cluster, with what it needs around it."""

    releases: Releases
    target: Target
    keeper: OperatorKeeper | None
    """None leaves the operator to somebody else."""
    charts: Path | None
    """Folder with the charts that ours depends on, in place of their repositories."""

    @property
    def _cluster(self) -> Cluster:
        return self.releases.cluster

    @property
    def _say(self) -> Callable[[str], None]:
        return self.releases.say

    async def plan(self, values: Mapping[str, Any]) -> Plan:
        """What `install` would change, without changing anything."""
        current = await self.releases.current(self.target)
        async with self._chart(values) as (_, wanted):
            return Plan.between(_resources_of(current), wanted)

    async def install(self, values: Mapping[str, Any], *, anew: bool = True) -> Plan:
        """Install the lake, or bring it to these values; answers what changed.

        Args:
            values: of the lakehose chart, whole.
            anew: whether it may be installed where nothing is.

        Raises:
            LakehoseError: something refuses it, or its pods don't come up.
        """
        current = await self.releases.proceed(self.target)
        if current is None and not anew:
            raise TerminalError(f"release {self.target}: nothing is installed there; `lakehose deploy install` does it")
        before = _resources_of(current)
        async with self._chart(values) as (chart, wanted):
            plan = Plan.between(before, wanted)
            await self._ready_for(wanted)
            async with self._operator(before, wanted, values):
                changed = await self.releases.would_change(current, chart, values)
                if not changed:
                    gone = await asyncio.to_thread(missing, self._cluster, placed(wanted, self.target.namespace))
                    for one in gone:
                        self._say(f"{one}: somebody removed it; putting it back")
                    plan = Plan(created=tuple(gone))
                if changed or plan.created:
                    await self.releases.change(self.target, chart, values)
        self._remove(namespaces_of(before) - namespaces_of(wanted))
        return plan

    async def roll_back(self, number: int | None) -> tuple[int, Plan]:
        """Bring the lake's release back to a revision, the one before the current without a number; answers both.

        Raises:
            TerminalError: nothing is installed, or there is no such revision.
        """
        current = await self.releases.proceed(self.target)
        if current is None:
            raise TerminalError(f"release {self.target}: nothing is installed there")
        revision = await self._revision(current, number)
        before, wanted = _resources_of(current), list(await revision.resources())
        await self._ready_for(wanted)
        async with self._operator(before, wanted, None):
            await self.releases.back(self.target, current, revision.revision)
        self._remove(namespaces_of(before) - namespaces_of(wanted))
        return revision.revision, Plan.between(before, wanted)

    async def uninstall(self, *, delete_data: bool = False) -> bool:
        """Remove the lake's release, its namespaces where they hold nothing else, and an operator that nobody needs.

        Args:
            delete_data: also remove the volume claims of the Firehose server, with what its log holds.
        """
        current = await self.releases.current(self.target)
        if current is None:
            self._say(f"release {self.target}: nothing is installed there")
        else:
            await self.releases.remove(self.target)
            self._say(f"release {self.target}: removed")
        before = _resources_of(current)
        if self.keeper:
            await self.keeper.leave(namespaces_of(before))
        claims_left = self._claims(delete_data=delete_data)
        leaving = namespaces_of(before) | (set() if claims_left else {self.target.namespace})
        self._remove(leaving)
        return current is not None

    def _claims(self, *, delete_data: bool) -> bool:
        """Keep or remove the volume claims of the Firehose server; answers whether any is left."""
        selector = f"app.kubernetes.io/name=firehose,app.kubernetes.io/instance={self.target.name}"
        claims = objects(self._cluster, "v1", "PersistentVolumeClaim", self.target.namespace, selector)
        names = [one["metadata"]["name"] for one in claims]
        if delete_data:
            for one in claims:
                self._cluster.delete(one)
                self._say(f"volume claim {one['metadata']['name']}: removed, with the log on it")
        elif names:
            self._say(
                f"volume claims stay, with the log of what may not be delivered yet: {', '.join(names)}; the next "
                "install goes on with them, `lakehose deploy uninstall --delete-data` removes them"
            )
        return bool(names) and not delete_data

    @asynccontextmanager
    async def _chart(self, values: Mapping[str, Any]) -> AsyncIterator[tuple[Chart, list[dict[str, Any]]]]:
        """The chart, ready for helm, and what it renders with these values."""
        client = self.releases.client
        try:
            async with prepared_chart(client, values, self.charts) as chart:
                rendered = await client.template_resources(
                    chart, self.target.name, dict(values), namespace=self.target.namespace, no_hooks=True
                )
                wanted = [one for one in rendered if one]
                self._check_size(chart, values, wanted)
                yield chart, wanted
        except helm_errors.Error as error:
            raise helm_problem(error, "render the chart") from None

    def _check_size(self, chart: Chart, values: Mapping[str, Any], wanted: Iterable[Mapping[str, Any]]) -> None:
        size = release_size(chart.ref, values, wanted)
        if size > LARGEST_RELEASE:
            spaces = len(namespaces_of(wanted))
            raise TerminalError(
                f"release {self.target}: with {spaces} namespaces it would take {size:,} bytes, and Helm keeps a "
                f"release in a Secret of at most {LARGEST_RELEASE:,}; about {spaces * LARGEST_RELEASE // size} fit. "
                "Move tenants to the pooled tier, or spread them over several environments"
            )

    async def _ready_for(self, wanted: list[dict[str, Any]]) -> None:
        spaces = [one for one in wanted if one["kind"] == "Namespace"]
        self._check_rights(namespaces_of(spaces))
        self._check_kinds(wanted)
        if ensure_confined(self._cluster, self.target.namespace):
            self._say(f"namespace {self.target.namespace}: made")
        made = ensure_owned(
            self._cluster, spaces, self.target.name, self.target.namespace, adopt=self.releases.options.adopt
        )
        for name in made:
            self._say(f"namespace {name}: made")

    def _check_rights(self, spaces: set[str]) -> None:
        rbac = "rbac.authorization.k8s.io"
        here = [*sorted(spaces)[:1], self.target.namespace]
        wanted = [
            Right("get", "namespaces"),
            Right("create", "namespaces"),
            Right("create", "priorityclasses", "scheduling.k8s.io"),
            *(Right(verb, "secrets", namespace=self.target.namespace) for verb in ("list", "create", "update")),
            *(Right("create", "serviceaccounts", namespace=one) for one in here),
            *(Right("create", "roles", rbac, one) for one in here[:1]),
            Right("create", "statefulsets", "apps", self.target.namespace),
        ]
        if self.keeper:
            wanted += [
                Right("create", "customresourcedefinitions", "apiextensions.k8s.io"),
                Right("create", "clusterroles", rbac),
                Right("create", "mutatingwebhookconfigurations", "admissionregistration.k8s.io"),
            ]
        found = lacking(self._cluster, wanted)
        if found:
            raise EnvironmentProblemError(
                f"no permission: {who(self._cluster)} may not {'; '.join(map(str, found))}; give --context or "
                "--kubeconfig of someone who may, such as cluster-admin"
            )

    def _check_kinds(self, wanted: Iterable[Mapping[str, Any]]) -> None:
        """Every kind has to be known before anything is made, but those that the operator brings."""
        for version, kind in sorted({(one["apiVersion"], one["kind"]) for one in wanted}):
            if self.keeper and version.startswith("sparkoperator.k8s.io/"):
                continue
            try:
                self._cluster.kind(version, kind)
            except NotFoundError:
                raise missing_kind(kind, version) from None

    @asynccontextmanager
    async def _operator(
        self, before: list[dict[str, Any]], wanted: list[dict[str, Any]], values: Mapping[str, Any] | None
    ) -> AsyncIterator[None]:
        """The operator acts in the old namespaces and the new while the lake changes, and then in the new only."""
        if self.keeper is None:
            yield
            return
        old, new = namespaces_of(before), namespaces_of(wanted)
        await self.keeper.act_in(old | new, values)
        yield
        if old - new:
            await self.keeper.leave(old - new)

    async def _revision(self, current: ReleaseRevision, number: int | None) -> ReleaseRevision:
        history = sorted(await current.release.history(), key=lambda one: one.revision)
        good = {ReleaseRevisionStatus.SUPERSEDED, ReleaseRevisionStatus.DEPLOYED}
        earlier = [one for one in history if one.revision < current.revision and one.status in good]
        if number is None:
            if not earlier:
                raise TerminalError(f"release {self.target}: there is no good revision before {current.revision}")
            return earlier[-1]
        for one in history:
            if one.revision == number:
                return one
        raise TerminalError(
            f"release {self.target}: got revision {number}, there are: "
            + ", ".join(f"{one.revision} ({one.status.value})" for one in history)
        )

    def _remove(self, namespaces: set[str]) -> None:
        releases = [(self.target.namespace, self.target.name)]
        if self.keeper:
            releases.append((self.keeper.target.namespace, self.keeper.target.name))
        remove_empty(self._cluster, namespaces, releases, self._say)


def _resources_of(revision: ReleaseRevision | None) -> list[dict[str, Any]]:
    return [one for one in (revision.resources_ or []) if one] if revision else []
