"""Owns the Spark Operator's release: whether one is there, whose it is, and in which namespaces it may act.

Ours may act in the namespaces of lakes and nowhere else: its chart gives it a Role in each that it is told of. Told of
none, or of a label, the chart would give it the right to make pods in all of the cluster.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pyhelm3 import errors as helm_errors

from charts.archive import installed_chart
from charts.cluster import objects
from charts.namespaces import ensure_confined, remove_empty
from charts.package import dependencies, dependency_chart
from charts.problems import helm_problem
from charts.releases import Target
from charts.values import OPERATOR, merged, operator_values
from k8s.errors import PermissionProblemError
from lake.errors import TerminalError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pyhelm3 import Chart, Client, ReleaseRevision

    from charts.releases import Releases
    from k8s.cluster import Cluster

__all__ = ["Found", "OperatorKeeper", "check_watched", "find_operators"]

_CONTROLLER = "app.kubernetes.io/name=spark-operator,app.kubernetes.io/component=controller"


@dataclass(frozen=True)
class Found:
    """An operator that is in the cluster."""

    namespace: str
    release: str | None
    """Helm's; None for one that came another way."""
    values: dict[str, Any]
    """Those its release was given."""
    watches: frozenset[str] | None
    """Namespaces it acts in; None for all, or for those of a label."""
    ours: bool
    """Whether `lakehose deploy` installed it."""

    @property
    def namespaces(self) -> set[str]:
        """Where ours was told to act."""
        return set(self.values.get("spark", {}).get("jobNamespaces", []))

    def __str__(self) -> str:
        return f"release {self.namespace}/{self.release}" if self.release else f"in namespace {self.namespace}"


async def find_operators(client: Client, cluster: Cluster, namespace: str) -> list[Found]:
    """Look for Spark Operators, in all namespaces that we may look into; ours first.

    Args:
        client: helm.
        cluster: where.
        namespace: where ours would be.
    """
    try:
        running = objects(cluster, "apps/v1", "Deployment", None, _CONTROLLER)
    except PermissionProblemError:
        running = objects(cluster, "apps/v1", "Deployment", namespace, _CONTROLLER)
    releases = {
        (one["metadata"]["namespace"], (one["metadata"].get("annotations") or {}).get("meta.helm.sh/release-name")): one
        for one in running
    }
    # one whose installation was cut off may have no Deployment yet
    for named in await client.list_release_definitions(namespace=namespace, all=True):
        if named["chart"].startswith(f"{OPERATOR}-"):
            releases.setdefault((namespace, named["name"]), {})
    found = []
    for (place, release), deployment in sorted(releases.items(), key=str):
        values: dict[str, Any] = {}
        if release is not None:
            values = await (await client.get_current_revision(release, namespace=place)).values()
        ours = values.get("commonLabels", {}).get("app.kubernetes.io/part-of") == "lakehose"
        found.append(Found(place, release, values, _watched(deployment), ours=ours))
    return sorted(found, key=lambda one: not one.ours)


def check_watched(found: Collection[Found], wanted: Collection[str]) -> None:
    """Hold operators that aren't ours to what the lake needs of them.

    Raises:
        TerminalError: none of them acts in some of the lake's namespaces.
    """
    lacking = {space for space in wanted if not any(one.watches is None or space in one.watches for one in found)}
    if not lacking:
        return
    told = "; ".join(f"{one}: {', '.join(sorted(one.watches or ()))}" for one in found)
    raise TerminalError(
        f"a Spark Operator is there that isn't lakehose's, and acts in its own namespaces only ({told}); add to its "
        f"spark.jobNamespaces: {', '.join(sorted(lacking))}"
    )


def _watched(deployment: Mapping[str, Any]) -> frozenset[str] | None:
    """Namespaces that a controller is told of; None for all, or for those of a label."""
    template = deployment.get("spec", {}).get("template", {}).get("spec", {})
    arguments = [part for one in template.get("containers", []) for part in one.get("args") or []]
    told = next((one.partition("=")[2] for one in arguments if one.startswith("--namespaces=")), "")
    watched = frozenset(one.strip('"') for one in told.split(","))
    # which namespaces have a label is the business of who chose it
    labelled = any(one.startswith("--namespace-selector=") for one in arguments)
    return None if "" in watched or labelled else watched


@dataclass(frozen=True)
class OperatorKeeper:
    """Sees to it that an operator acts in a lake's namespaces, and in no more than are in use."""

    releases: Releases
    target: Target
    """Where ours is, or would be."""
    charts: Path | None
    """Folder with its chart, in place of the repository."""

    async def act_in(self, namespaces: set[str], values: Mapping[str, Any] | None) -> None:
        """Have an operator act in these namespaces, beside those of other lakes; they must be there.

        Args:
            namespaces: of the lake.
            values: of the lakehose chart, with what is given for the operator; None keeps what it was given.

        Raises:
            TerminalError: there is one already that isn't ours and doesn't act in all of them.
        """
        found = await self._find()
        ours = next((one for one in found if one.ours), None)
        if found and ours is None:
            check_watched(found, namespaces)
            self.releases.say(f"Spark Operator: using what is there ({', '.join(map(str, found))})")
            return
        held = ours.namespaces if ours else set()
        await self._set(ours, self._existing(held) | namespaces, values)

    async def leave(self, namespaces: set[str]) -> None:
        """Have our operator act in these namespaces no more; it goes when no others are left."""
        found = next((one for one in await self._find() if one.ours), None)
        if found is None or found.release is None:
            return
        target = Target(found.release, found.namespace)
        rest = self._existing(found.namespaces) - namespaces
        if rest:
            await self._set(found, rest, None)
            return
        await self.releases.remove(target)
        self.releases.say(f"release {target}: removed, as no lake needs it; its kinds (CRDs) stay, as Helm keeps them")
        certificates = {"name": f"{target.name}-webhook-certs", "namespace": target.namespace}
        # its webhook makes it by itself
        self.releases.cluster.delete({"apiVersion": "v1", "kind": "Secret", "metadata": certificates})
        gone = (target.namespace, target.name)
        remove_empty(self.releases.cluster, [target.namespace], [gone], self.releases.say)

    async def _find(self) -> list[Found]:
        try:
            return await find_operators(self.releases.client, self.releases.cluster, self.target.namespace)
        except helm_errors.Error as error:
            raise helm_problem(error, "look for the Spark Operator") from None

    async def _set(self, found: Found | None, namespaces: set[str], values: Mapping[str, Any] | None) -> None:
        target = Target(found.release, found.namespace) if found and found.release else self.target
        current = await self.releases.proceed(target)
        if values is None and found:
            wanted = merged(found.values, {"spark": {"jobNamespaces": sorted(namespaces)}})
        else:
            wanted = operator_values(values or {}, namespaces)
        with TemporaryDirectory(prefix="lakehose-operator-") as temporary:
            chart = await self._chart(target, current, Path(temporary))
            if not await self.releases.would_change(current, chart, wanted):
                return
            if ensure_confined(self.releases.cluster, target.namespace):
                self.releases.say(f"namespace {target.namespace}: made")
            if current and (await current.chart_metadata()).version != chart.metadata.version:
                # helm itself makes kinds once and never touches them again
                for kind in await chart.crds():
                    self.releases.cluster.apply(kind, force=True)
            self.releases.say(f"Spark Operator {chart.metadata.version}: acts in {', '.join(sorted(namespaces))}")
            await self.releases.change(target, chart, wanted)

    async def _chart(self, target: Target, current: ReleaseRevision | None, folder: Path) -> Chart:
        """The chart that is installed, where its version is still the one wanted, or else from where charts come."""
        wanted, client = dependencies()[OPERATOR], self.releases.client
        try:
            if current and (await current.chart_metadata()).version == wanted.version:
                cluster = self.releases.cluster
                kept = installed_chart(cluster, target.namespace, target.name, current.revision, folder)
                if kept:
                    return await client.get_chart(kept)
            return await dependency_chart(client, wanted, self.charts, folder)
        except helm_errors.Error as error:
            raise helm_problem(error, f"fetch the chart {OPERATOR} {wanted.version}") from None

    def _existing(self, namespaces: set[str]) -> set[str]:
        """Those that are there: a Role in one that isn't would fail the operator's release."""
        there = {one["metadata"]["name"] for one in objects(self.releases.cluster, "v1", "Namespace", None)}
        return namespaces & there
