"""Owns how a declaration becomes DAGs: one for each workspace and chain of jobs."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from airflow.sdk import DAG, CronTriggerTimetable, DeltaTriggerTimetable

from dags.alerts import on_failure
from dags.assets import assets_of
from dags.chains import chain_of, chains
from dags.local_job import LocalJob
from dags.models import models_of
from dags.settings import Runner
from lake.errors import DeclarationError
from lake.jobs import INGEST

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from airflow.sdk import BaseOperator

    from dags.chains import Chain
    from dags.settings import Settings
    from lake.declaration import Lake, Workspace
    from lake.jobs import Job, Schedule

__all__ = ["dag_id", "dags_of"]

# catch-up is off: any moment in the past will do, as long as it stays the same
_START = datetime(2026, 1, 1, tzinfo=UTC)
_LONGEST_RETRY_DELAY = timedelta(hours=1)
_RUN = "airflow"


def dag_id(workspace: Workspace, chain: Chain) -> str:
    """What a workspace's chain is called: `acme-demo-ewr-ingest`."""
    return f"{workspace.namespace}-{chain.name}"


def dags_of(lake: Lake, settings: Settings, *, only: str | None = None) -> Iterator[DAG]:
    """Make the DAGs of a lake.

    Args:
        lake: the declaration.
        settings: how this Airflow runs it.
        only: make only the DAG of this id, where Airflow asks for one.

    Raises:
        DeclarationError: models are to come after a job that isn't declared, or their folder is empty.
    """
    for workspace in lake.workspaces():
        found = chains(lake.jobs_of(workspace))
        modelled = _models_chain(found, settings)
        for chain in found:
            if only in {None, dag_id(workspace, chain)}:
                yield _dag(lake, workspace, chain, settings, with_models=chain is modelled)


def _models_chain(found: Sequence[Chain], settings: Settings) -> Chain | None:
    if settings.models is None:
        return None
    try:
        return chain_of(found, settings.models_after)
    except DeclarationError as error:
        raise DeclarationError(f"LAKEHOSE_MODELS_AFTER: {error}") from None


def _dag(lake: Lake, workspace: Workspace, chain: Chain, settings: Settings, *, with_models: bool) -> DAG:
    models = settings.models if with_models else None
    with DAG(
        dag_id(workspace, chain),
        description=f"{' → '.join(chain.names())} for {_whose(workspace)}",
        schedule=_timetable(chain.schedule),
        start_date=_START,
        catchup=False,
        # a run that is late leaves out those it has overtaken: the next takes all that is new
        max_active_runs=1,
        default_args={"owner": workspace.owner, "on_failure_callback": on_failure(settings)},
        template_searchpath=[str(models)] if models else None,
        tags=["lakehose", f"owner:{workspace.owner}", f"tier:{workspace.tier}"],
        doc_md=_documentation(lake, workspace, chain, settings),
    ) as dag:
        tasks = {one.name: _task(lake, workspace, one, settings) for one in chain.jobs}
        for job in chain.jobs:
            for before in chain.before(job):
                tasks[before.name] >> tasks[job.name]
        if models:
            options = _options(lake.job(settings.models_after))
            tasks[settings.models_after] >> models_of(lake, workspace, models, options)
    return dag


def _timetable(schedule: Schedule | None) -> CronTriggerTimetable | DeltaTriggerTimetable | None:
    if schedule is None:
        return None
    if schedule.seconds:
        return DeltaTriggerTimetable(timedelta(seconds=schedule.seconds))
    return CronTriggerTimetable(schedule.cron, timezone="UTC")


def _options(job: Job) -> dict[str, Any]:
    """What Airflow is to do about a job's failures and delays."""
    return {
        "retries": job.retries,
        "retry_delay": timedelta(seconds=job.retry_seconds),
        "retry_exponential_backoff": 2.0,
        "max_retry_delay": _LONGEST_RETRY_DELAY,
        "execution_timeout": timedelta(minutes=job.timeout_minutes),
    }


def _task(lake: Lake, workspace: Workspace, job: Job, settings: Settings) -> BaseOperator:
    options = _options(job) | {
        "task_id": job.name,
        "outlets": assets_of(lake, workspace) if job.name == INGEST.name else [],
    }
    if settings.runner is Runner.LOCAL:
        endpoint = ["--endpoint", settings.endpoint] if settings.endpoint else []
        command = [str(settings.command), "--lake", str(settings.lake), *endpoint]
        return LocalJob(command=[*command, "run", job.name, "--owner", workspace.owner], **options)
    # the Kubernetes client takes a second to load, which the local runner need not have installed
    from dags.cluster_job import ClusterJob  # noqa: PLC0415
    from k8s.applications import application  # noqa: PLC0415

    # Airflow tries again, so the Spark Operator must not: each would count the other's tries as one
    once = replace(job, retries=0)
    run = application(lake, once, workspace, run_id=_RUN, endpoint=settings.endpoint)
    return ClusterJob(application=run, kubernetes_conn_id=settings.kubernetes_connection, **options)


def _whose(workspace: Workspace) -> str:
    if workspace.owner in workspace.tenants:
        return f"tenant {workspace.owner}"
    return f"{len(workspace.tenants)} pooled tenants"


def _documentation(lake: Lake, workspace: Workspace, chain: Chain, settings: Settings) -> str:
    runs = (
        f"as SparkApplications in namespace `{workspace.namespace}`"
        if settings.runner is Runner.K8S
        else f"on this machine, by `{settings.command.name} run`"
    )
    when = f"`{chain.schedule}` (UTC)" if chain.schedule else "by hand only"
    rows = [
        f"| `{one.name}` | {one.retries} | {one.retry_seconds} s | {one.timeout_minutes} min |" for one in chain.jobs
    ]
    return "\n".join(
        [
            f"**{' → '.join(chain.names())}** for {_whose(workspace)} of lake `{lake.company}-{lake.environment}`,",
            f"{runs}. Schedule: {when}.",
            "",
            "| job | retries | first wait | longest run |",
            "|---|---|---|---|",
            *rows,
            "",
            "Every job takes what is new since it last ran, so running it again is always safe. All of this is",
            "declared in `lake.yaml`; change it there.",
        ]
    )
