"""Owns `lakehose deploy`: a lake in a cluster, by Helm."""

from __future__ import annotations

import asyncio
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated

import typer
import yaml
from rich.console import Console
from rich.table import Table

from charts.cluster import connect
from charts.helm import Access, find_helm, helm_client
from charts.installer import Installer
from charts.operator import OperatorKeeper
from charts.releases import Options, Releases, Target
from charts.status import Status, look
from charts.values import OPERATOR, chart_values, given_values, merged
from k8s.commands import PodEndpointOption, endpoint_for_pods
from lake.context import CommandContext  # noqa: TC001 - typer reads annotations at run time
from lake.errors import TerminalError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["app"]

app = typer.Typer(help="The lake on Kubernetes, by Helm.", no_args_is_help=True)

_RELEASE = "lakehose"
_UNITS = {"s": 1, "m": 60, "h": 3600}


_Namespace = Annotated[str, typer.Option("--namespace", "-n", help="Namespace of the release.")]
_OperatorNamespace = Annotated[str, typer.Option(help="Namespace of the Spark Operator that we install.")]
_Values = Annotated[list[Path] | None, typer.Option("--values", "-f", help="YAML of values; may be repeated.")]
_Set = Annotated[list[str] | None, typer.Option("--set", help="A single value, key=value; may be repeated.")]
_Charts = Annotated[
    Path | None, typer.Option(help="Folder with the charts ours depends on, in place of their repositories.")
]
_Helm = Annotated[str | None, typer.Option(help="The helm program; found on PATH without it.")]
_Kubeconfig = Annotated[Path | None, typer.Option(help="File that tells how to reach the cluster.")]
_Context = Annotated[str | None, typer.Option("--context", help="Context in it.")]
_Timeout = Annotated[str, typer.Option(help="How long to wait for pods: a number with s, m or h.")]
_Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until every pod is ready.")]
_Atomic = Annotated[bool, typer.Option("--atomic", help="Go back to what was there if it fails.")]
_Adopt = Annotated[
    bool, typer.Option("--adopt", help="Take over what `kubectl apply` or another release made under the same names.")
]
_Operator = Annotated[bool, typer.Option("--operator/--no-operator", help="See to the Spark Operator.")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Print what would change, and change nothing.")]


@app.command()
def install(  # noqa: PLR0917 - typer's options
    context: typer.Context,
    namespace: _Namespace = "lakehose-system",
    values: _Values = None,
    sets: _Set = None,
    pod_endpoint: PodEndpointOption = None,
    charts: _Charts = None,
    operator: _Operator = True,
    operator_namespace: _OperatorNamespace = OPERATOR,
    wait: _Wait = True,
    timeout: _Timeout = "10m",
    atomic: _Atomic = False,
    adopt: _Adopt = False,
    dry_run: _DryRun = False,
    kubeconfig: _Kubeconfig = None,
    kube_context: _Context = None,
    helm: _Helm = None,
) -> None:
    """Bring the lake into the cluster: operator, namespaces, rights, schedules, Firehose. Twice changes nothing."""
    access = _Reach(Access(kubeconfig, kube_context), helm, namespace, operator_namespace if operator else None, charts)
    options = Options(_seconds(timeout), wait, atomic, adopt)
    _install(context.obj, access, options, values, sets, pod_endpoint=pod_endpoint, anew=True, dry_run=dry_run)


@app.command()
def upgrade(  # noqa: PLR0917 - typer's options
    context: typer.Context,
    namespace: _Namespace = "lakehose-system",
    values: _Values = None,
    sets: _Set = None,
    pod_endpoint: PodEndpointOption = None,
    charts: _Charts = None,
    operator: _Operator = True,
    operator_namespace: _OperatorNamespace = OPERATOR,
    wait: _Wait = True,
    timeout: _Timeout = "10m",
    atomic: _Atomic = False,
    adopt: _Adopt = False,
    dry_run: _DryRun = False,
    kubeconfig: _Kubeconfig = None,
    kube_context: _Context = None,
    helm: _Helm = None,
) -> None:
    """Bring what is installed to the declaration as it is now; what it no longer names goes."""
    access = _Reach(Access(kubeconfig, kube_context), helm, namespace, operator_namespace if operator else None, charts)
    options = Options(_seconds(timeout), wait, atomic, adopt)
    _install(context.obj, access, options, values, sets, pod_endpoint=pod_endpoint, anew=False, dry_run=dry_run)


@app.command()
def rollback(  # noqa: PLR0917 - typer's options
    revision: Annotated[int | None, typer.Argument(min=1, help="Revision; the good one before without it.")] = None,
    namespace: _Namespace = "lakehose-system",
    charts: _Charts = None,
    operator: _Operator = True,
    operator_namespace: _OperatorNamespace = OPERATOR,
    wait: _Wait = True,
    timeout: _Timeout = "10m",
    kubeconfig: _Kubeconfig = None,
    kube_context: _Context = None,
    helm: _Helm = None,
) -> None:
    """Bring the release back to an earlier revision; the next upgrade follows lake.yaml again."""
    reach = _Reach(Access(kubeconfig, kube_context), helm, namespace, operator_namespace if operator else None, charts)
    with reach.installer(Options(_seconds(timeout), wait)) as installer:
        number, plan = asyncio.run(installer.roll_back(revision))
    _say(f"release {installer.target}: as it was at revision {number}: {plan}")


@app.command()
def uninstall(  # noqa: PLR0917 - typer's options
    namespace: _Namespace = "lakehose-system",
    delete_data: Annotated[
        bool, typer.Option("--delete-data", help="Also remove Firehose's volume claims, with what its log holds.")
    ] = False,
    charts: _Charts = None,
    operator: _Operator = True,
    operator_namespace: _OperatorNamespace = OPERATOR,
    wait: _Wait = True,
    timeout: _Timeout = "10m",
    kubeconfig: _Kubeconfig = None,
    kube_context: _Context = None,
    helm: _Helm = None,
) -> None:
    """Take the lake out of the cluster; volumes, and namespaces that hold anything else, stay and are named."""
    reach = _Reach(Access(kubeconfig, kube_context), helm, namespace, operator_namespace if operator else None, charts)
    with reach.installer(Options(_seconds(timeout), wait)) as installer:
        asyncio.run(installer.uninstall(delete_data=delete_data))


@app.command()
def status(
    namespace: _Namespace = "lakehose-system",
    operator_namespace: _OperatorNamespace = OPERATOR,
    kubeconfig: _Kubeconfig = None,
    kube_context: _Context = None,
    helm: _Helm = None,
) -> None:
    """Print releases, what runs in them, and each job's last run; exit status 1 if something isn't as it should be."""
    reach = _Reach(Access(kubeconfig, kube_context), helm, namespace, operator_namespace, None)
    with reach.installer(Options()) as installer:
        found = asyncio.run(look(installer.releases, installer.target, Target(OPERATOR, operator_namespace)))
    if not found.releases:
        _say(f"release {installer.target}: nothing is installed there; `lakehose deploy install` does it")
        raise typer.Exit(1)
    _print(found)
    if not found.good:
        raise typer.Exit(1)


@app.command("values")
def values_command(
    context: typer.Context, values: _Values = None, sets: _Set = None, pod_endpoint: PodEndpointOption = None
) -> None:
    """Print the chart's values for this declaration, for `helm upgrade --install … --values FILE`."""
    given: CommandContext = context.obj
    made = chart_values(given.lake(), given.lake_path, endpoint=endpoint_for_pods(given, pod_endpoint))
    spaces = [one["metadata"]["name"] for one in made["lake"]["objects"] if one["kind"] == "Namespace"]
    # for those who have the operator as a part of the release
    made[OPERATOR] = {"spark": {"jobNamespaces": sorted(spaces)}}
    print(yaml.safe_dump(merged(made, given_values(values or [], sets or [])), sort_keys=False, allow_unicode=True))


@dataclass(frozen=True)
class _Reach:
    """How the options say to get at the cluster."""

    access: Access
    helm: str | None
    namespace: str
    operator_namespace: str | None
    charts: Path | None

    @contextmanager
    def installer(self, options: Options) -> Iterator[Installer]:
        program = find_helm(self.helm)
        cluster = connect(self.access)
        try:
            with TemporaryDirectory(prefix="lakehose-helm-") as unpacked:
                client = helm_client(program, self.access, timeout=options.timeout, unpack=Path(unpacked))
                releases = Releases(client, cluster, options, _say)
                keeper = None
                if self.operator_namespace:
                    # the operator is for all lakes of the cluster: what fails here doesn't take it back
                    careful = replace(releases, options=replace(options, atomic=False))
                    keeper = OperatorKeeper(careful, Target(OPERATOR, self.operator_namespace), self.charts)
                yield Installer(releases, Target(_RELEASE, self.namespace), keeper, self.charts)
        finally:
            cluster.close()


def _install(
    given: CommandContext,
    reach: _Reach,
    options: Options,
    files: list[Path] | None,
    sets: list[str] | None,
    *,
    pod_endpoint: str | None,
    anew: bool,
    dry_run: bool,
) -> None:
    made = chart_values(given.lake(), given.lake_path, endpoint=endpoint_for_pods(given, pod_endpoint))
    whole = merged(made, given_values(files or [], sets or []))
    if options.atomic and not options.wait:
        raise TerminalError("--atomic needs to wait: leave --no-wait out")
    with reach.installer(options) as installer:
        if dry_run:
            plan = asyncio.run(installer.plan(whole))
            for line in plan.lines():
                print(line)
            _say(f"release {installer.target}: {plan}; a dry run: nothing was touched")
            return
        plan = asyncio.run(installer.install(whole, anew=anew))
    _say(f"release {installer.target}: {plan or 'unchanged'}")


def _seconds(text: str) -> int:
    number, unit = (text[:-1], text[-1]) if text[-1:] in _UNITS else (text, "s")
    if not number.isdigit() or int(number) < 1:
        raise TerminalError(f"--timeout {text}: give a number with s, m or h, as in 10m")
    return int(number) * _UNITS[unit]


def _print(found: Status) -> None:
    # what is read by a program or from a file keeps its names whole
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 240)
    table = Table("release", "revision", "status", "chart", "app", "updated", box=None)
    for release in found.releases:
        table.add_row(*(str(part) for part in vars(release).values()))
    console.print(table)
    table = Table("workload", "ready", "trouble", box=None)
    for workload in found.workloads:
        table.add_row(workload.name, f"{workload.ready}/{workload.wanted}", workload.trouble or "-")
    if found.workloads:
        console.print(table)
    table = Table("job", "namespace", "schedule", "last run", "started", "state", box=None)
    for job in found.jobs:
        table.add_row(job.job, job.namespace, job.schedule or "-", job.last_run or "-", job.started or "-", job.state)
    if found.jobs:
        console.print(table)


def _say(text: str) -> None:
    sys.stderr.write(f"deploy: {text}\n")
    sys.stderr.flush()
