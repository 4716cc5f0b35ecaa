"""Owns `lakehose k8s`: manifests, what differs on the cluster, applying, runs with their logs, roles for the pods."""

from __future__ import annotations

import json
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from k8s import runs
from k8s.apply import apply as apply_objects
from k8s.apply import differences, left_over, prune
from k8s.cluster import Cluster, place
from k8s.follow import Follower
from k8s.identity import identities, provision_identities
from k8s.kubeconfig import connect
from k8s.logs import ContainerLog
from k8s.manifest_files import stale_files, write_files
from k8s.pod_state import is_driver, pod_name, pod_state
from k8s.pods import Role
from k8s.progress import FINAL, application_state
from k8s.render import manifests, to_yaml
from k8s.runs import NAME_LABEL, Run
from lake.context import CommandContext  # noqa: TC001 - typer reads annotations at run time
from lake.errors import LakehoseError, TerminalError
from lake.provision import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from lake.provision import Change

__all__ = ["PodEndpointOption", "Target", "app", "endpoint_for_pods", "run_on_cluster"]

app = typer.Typer(help="The lake's jobs on Kubernetes.", no_args_is_help=True)

KubeconfigOption = Annotated[
    Path | None, typer.Option("--kubeconfig", help="The kubeconfig; KUBECONFIG or ~/.kube/config without it.")
]
ContextOption = Annotated[str | None, typer.Option("--context", help="A context of it; the current one without it.")]
PodEndpointOption = Annotated[
    str | None, typer.Option("--pod-endpoint", help="URL at which pods find AWS; AWS itself without it.")
]
OwnerOption = Annotated[
    str | None, typer.Option("--owner", help="A dedicated tenant, or `pooled`: all pooled tenants together.")
]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", min=1, help="Seconds that a driver may take to come up, at each attempt.")
]
_Force = Annotated[bool, typer.Option("--force-conflicts", help="Take over fields that somebody else has set.")]
_Prune = Annotated[bool, typer.Option("--prune", help="Also what is ours and no longer declared.")]
_RunName = Annotated[str, typer.Argument(help="Name of a run; or of a job, for its newest run.")]

DEFAULT_TIMEOUT = 600.0
_MANIFESTS = Path("k8s/manifests")
_MOST_FOLLOWED = 20


def _objects(given: CommandContext, pod_endpoint: str | None) -> list[dict[str, Any]]:
    endpoint = endpoint_for_pods(given, pod_endpoint)
    files = manifests(given.lake(), given.lake_path, endpoint=endpoint)
    return [one for objects in files.values() for one in objects]


def endpoint_for_pods(given: CommandContext, pod_endpoint: str | None) -> str | None:
    """The endpoint that pods get: one that they can reach."""
    endpoint = pod_endpoint or given.cloud().endpoint
    if endpoint is None:
        return None
    if not endpoint.startswith(("http://", "https://")):
        raise TerminalError(f"--pod-endpoint: got {endpoint!r}, a URL that begins with http:// or https:// is needed")
    if pod_endpoint is None and given.cloud().is_loopback:
        raise TerminalError(
            f"endpoint {endpoint} is this machine's own, and pods can't reach it: give --pod-endpoint with the URL "
            "that they can, or leave --endpoint and AWS_ENDPOINT_URL out for AWS itself"
        )
    return endpoint


@app.command()
def render(
    context: typer.Context,
    output: Annotated[Path, typer.Option(help="Folder of the manifests.")] = _MANIFESTS,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit status 1 if a file differs.")] = False,
    pod_endpoint: PodEndpointOption = None,
) -> None:
    """Write the manifests that `kubectl apply -f` takes."""
    given: CommandContext = context.obj
    made = manifests(given.lake(), given.lake_path, endpoint=endpoint_for_pods(given, pod_endpoint))
    files = {name: to_yaml(objects) for name, objects in made.items()}
    if not check:
        for outcome, name in write_files(output, files):
            print(f"{outcome:<10}{output / name}")
        return
    stale = stale_files(output, files)
    for name, why in stale:
        print(f"{output / name}: {why}")
    if stale:
        print("`lakehose k8s render` writes them anew")
        raise typer.Exit(1)
    print(f"{output}: up to date, {len(files)} files")


@app.command()
def diff(  # noqa: PLR0917 - typer's options
    context: typer.Context,
    pod_endpoint: PodEndpointOption = None,
    prune_too: _Prune = False,
    force: _Force = False,
    kubeconfig: KubeconfigOption = None,
    kube_context: ContextOption = None,
) -> None:
    """Show what `apply` would change; exit status 1 if that is anything."""
    given: CommandContext = context.obj
    objects = _objects(given, pod_endpoint)
    cluster = connect(kubeconfig, kube_context)
    changed = 0
    for one in differences(cluster, objects, force=force):
        changed += 1
        print("\n".join(one.diff), flush=True)
    left = left_over(cluster, given.lake(), objects) if prune_too else []
    for gone in left:
        print(f"no longer declared: {place(gone)}")
    if changed or left:
        raise typer.Exit(1)
    print(f"{cluster}: nothing differs, {len(objects)} objects")


@app.command()
def apply(  # noqa: PLR0917 - typer's options
    context: typer.Context,
    pod_endpoint: PodEndpointOption = None,
    prune_too: _Prune = False,
    force: _Force = False,
    kubeconfig: KubeconfigOption = None,
    kube_context: ContextOption = None,
) -> None:
    """Make the cluster as declared. Twice changes nothing."""
    given: CommandContext = context.obj
    objects = _objects(given, pod_endpoint)
    cluster = connect(kubeconfig, kube_context)
    _print_changes(apply_objects(cluster, objects, force=force))
    if prune_too:
        _print_removals(cluster, given, objects)


def _print_changes(changes: Iterable[Change]) -> None:
    done = dict.fromkeys(Outcome, 0)
    for change in changes:
        done[change.outcome] += 1
        print(f"{change.outcome:<10}{change.kind} {change.name}", flush=True)
    print(", ".join(f"{count} {outcome}" for outcome, count in done.items()))


def _print_removals(cluster: Cluster, given: CommandContext, objects: Sequence[dict[str, Any]]) -> None:
    left = 0
    for one in prune(cluster, left_over(cluster, given.lake(), objects)):
        left += one.left is not None
        print(f"{'left' if one.left else 'removed':<10}{one.name}" + (f": {one.left}" if one.left else ""), flush=True)
    if left:
        raise typer.Exit(1)


@dataclass(frozen=True)
class Target:
    """Which cluster, and how patiently."""

    kubeconfig: Path | None = None
    context: str | None = None
    pod_endpoint: str | None = None
    timeout: float = DEFAULT_TIMEOUT
    follow: bool = True


def run_on_cluster(
    given: CommandContext,
    job: str,
    target: Target,
    *,
    owner: str | None = None,
    tenants: Sequence[str] = (),
    datasets: Sequence[str] = (),
) -> int:
    """Run a job in the workspaces it is about, and follow it; answers the job's own exit status.

    Args:
        given: the command's global options.
        job: name of a job of the declaration.
        target: where, and whether to follow.
        owner: a dedicated tenant, or `pooled`; all of them without it.
        tenants: only these.
        datasets: only these.

    Raises:
        TerminalError: something asked for isn't declared, or the cluster refuses the run.
        TransientError: the cluster is away.
    """
    lake = given.lake()
    declared = lake.job(job)
    for name in datasets:
        lake.dataset(name)
    planned = runs.plan_runs(lake, owner, tenants)
    if target.follow and len(planned) > _MOST_FOLLOWED:
        raise TerminalError(
            f"job {job}: {len(planned)} workspaces are more than the {_MOST_FOLLOWED} that can be followed at once; "
            "give --owner, or submit without --follow"
        )
    endpoint = endpoint_for_pods(given, target.pod_endpoint)
    cluster = connect(target.kubeconfig, target.context)
    cluster.kind(*runs.APPLICATION)
    for workspace, _ in planned:
        warning = runs.check_config(cluster, lake, given.lake_path, workspace)
        if warning:
            _say(warning)
    started = [
        runs.submit(cluster, lake, declared, workspace, endpoint=endpoint, datasets=datasets, tenants=names)
        for workspace, names in planned
    ]
    if target.follow:
        return _follow(cluster, started, log=True, timeout=target.timeout)
    for run in started:
        print(run.name)
    return 0


@app.command()
def submit(  # noqa: PLR0917 - typer's options
    context: typer.Context,
    job: Annotated[str, typer.Argument(help="A job of the declaration.")],
    dataset: Annotated[list[str] | None, typer.Option(help="Only this dataset; may be repeated.")] = None,
    tenant: Annotated[list[str] | None, typer.Option(help="Only this tenant; may be repeated.")] = None,
    owner: OwnerOption = None,
    follow: Annotated[bool, typer.Option("--follow/--no-follow", help="Stay until it has ended.")] = False,
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
    pod_endpoint: PodEndpointOption = None,
    kubeconfig: KubeconfigOption = None,
    kube_context: ContextOption = None,
) -> None:
    """Start a run of a job, in each workspace that it is about, and print the runs' names."""
    target = Target(kubeconfig, kube_context, pod_endpoint, timeout, follow)
    raise typer.Exit(
        run_on_cluster(context.obj, job, target, owner=owner, tenants=tenant or (), datasets=dataset or ())
    )


@app.command()
def watch(  # noqa: PLR0917 - typer's options
    context: typer.Context,
    name: _RunName,
    owner: OwnerOption = None,
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
    kubeconfig: KubeconfigOption = None,
    kube_context: ContextOption = None,
) -> None:
    """Print each change of a run until it has ended; exits as the job does."""
    given: CommandContext = context.obj
    cluster = connect(kubeconfig, kube_context)
    run = Run.of(runs.find_run(cluster, given.lake(), name, owner))
    raise typer.Exit(_follow(cluster, [run], log=False, timeout=timeout))


@app.command()
def logs(  # noqa: PLR0917 - typer's options
    context: typer.Context,
    name: _RunName,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on until the run has ended; exits as the job does.")
    ] = False,
    executors: Annotated[
        bool, typer.Option("--executors", help="The executors' logs, in place of the driver's.")
    ] = False,
    owner: OwnerOption = None,
    timeout: TimeoutOption = DEFAULT_TIMEOUT,
    kubeconfig: KubeconfigOption = None,
    kube_context: ContextOption = None,
) -> None:
    """Print a run's log."""
    given: CommandContext = context.obj
    cluster = connect(kubeconfig, kube_context)
    run = Run.of(runs.find_run(cluster, given.lake(), name, owner))
    if follow and not executors:
        raise typer.Exit(_follow(cluster, [run], log=True, timeout=timeout))
    found = cluster.list(cluster.kind("v1", "Pod"), run.namespace, labelSelector=f"{NAME_LABEL}={run.name}")["items"]
    pods = [one for one in found if is_driver(one) != executors]
    started = [one for one in pods if pod_state(one).started]
    if not started:
        _say(f"run {run}: {_no_log(pods, executors=executors)}")
        raise typer.Exit(1)
    role = Role.EXECUTOR if executors else Role.DRIVER
    with ThreadPoolExecutor(len(started)) as pool:
        jobs = [pool.submit(_print_log, ContainerLog(cluster, one, role), one, follow=follow) for one in started]
    for one in jobs:
        one.result()


def _no_log(pods: Sequence[dict[str, Any]], *, executors: bool) -> str:
    if pods:
        return "no log yet: " + "; ".join(f"{pod_name(one)}: {pod_state(one).text}" for one in pods)
    if executors:
        return "it has no executors now; their pods are removed as they end, and what they logged with them"
    return "its driver's pod isn't there: it is yet to come, or was removed"


def _print_log(log: ContainerLog, pod: dict[str, Any], *, follow: bool) -> None:
    prefix = "" if is_driver(pod) else f"[{pod_name(pod)}] "
    for line in log.lines(follow=follow):
        print(f"{prefix}{line}", flush=True)


@app.command()
def delete(  # noqa: PLR0917 - typer's options
    context: typer.Context,
    name: Annotated[str | None, typer.Argument(help="Name of a run.")] = None,
    all_finished: Annotated[bool, typer.Option("--all-finished", help="Every run that has ended.")] = False,
    running: Annotated[bool, typer.Option("--running", help="Also a run that is under way: it is ended.")] = False,
    owner: OwnerOption = None,
    kubeconfig: KubeconfigOption = None,
    kube_context: ContextOption = None,
) -> None:
    """Delete a run, with its pods and logs; or all that have ended."""
    given: CommandContext = context.obj
    if (name is None) != all_finished:
        raise TerminalError("delete: give the name of a run, or --all-finished")
    cluster = connect(kubeconfig, kube_context)
    if name is None:
        found = runs.finished_runs(cluster, given.lake(), owner)
    else:
        found = [runs.find_run(cluster, given.lake(), name, owner)]
    for one in found:
        state = application_state(one)
        if state not in FINAL and not running:
            raise TerminalError(f"run {Run.of(one)}: it is under way ({state or 'new'}); --running ends it")
        if cluster.delete(one):
            print(f"deleted   {Run.of(one)}", flush=True)
    if not found:
        print("nothing to delete: no run has ended")


@app.command()
def identity(
    context: typer.Context,
    make: Annotated[bool, typer.Option("--apply", help="Make them, in place of printing them.")] = False,
) -> None:
    """Print the IAM role of each job in each workspace, with what it may do; or make them, for EKS Pod Identity."""
    given: CommandContext = context.obj
    lake, cloud = given.lake(), given.cloud()
    if make:
        _print_changes(provision_identities(lake, cloud))
        return
    print(json.dumps([one.to_dict() for one in identities(lake, cloud)], indent=2))


class _Printer:
    """Tells of runs as they go: changes on standard error, logs on standard output."""

    def __init__(self, several: bool) -> None:
        self._several = several
        self._lock = threading.Lock()

    def state(self, run: Run, text: str) -> None:
        with self._lock:
            _say(f"{f'{run.owner}/' if self._several else ''}{run.name}: {text}")

    def line(self, run: Run, text: str) -> None:
        with self._lock:
            print(f"[{run.owner}] {text}" if self._several else text, flush=True)


def _follow(cluster: Cluster, started: Sequence[Run], *, log: bool, timeout: float) -> int:
    printer = _Printer(len(started) > 1)
    for run in started:
        printer.state(run, f"in namespace {run.namespace} of {cluster}")

    def one(run: Run) -> int:
        try:
            return Follower(cluster, run, printer, log=log, timeout=timeout).follow().exit_code
        except LakehoseError as error:
            _say(f"lakehose: {error}")
            return error.exit_code

    pool = ThreadPoolExecutor(len(started))
    try:
        return max(pool.map(one, started))
    except KeyboardInterrupt:
        _say("lakehose: the runs go on; `lakehose k8s watch NAME` follows one again")
        sys.stdout.flush()
        # the threads wait for the cluster, which may take minutes
        import os  # noqa: PLC0415

        os._exit(130)


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()
