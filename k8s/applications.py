"""Owns how a declared job becomes a SparkApplication: its arguments, its conf, its place on the nodes.

`docs/kubernetes.md` says for each setting why it is there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from k8s.names import CONFIG_FOLDER, labels
from k8s.pods import Role, pod_template
from k8s.specs import (
    DriverSpec,
    DynamicAllocation,
    ExecutorSpec,
    Metadata,
    RestartPolicy,
    ScheduledSparkApplication,
    ScheduledSpec,
    SparkApplication,
    SparkApplicationSpec,
)
from lake.errors import TerminalError, known_values

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lake.declaration import Lake, Workspace
    from lake.jobs import Job

__all__ = ["SPARK_VERSION", "application", "scheduled"]

SPARK_VERSION = "4.1.4"
_CODE = "/opt/lakehose"
_LOGGING = f"-Dlog4j2.configurationFile=file://{_CODE}/spark_jobs/log4j2.properties"
# what a node that is taken back leaves an executor to move its blocks away: AWS gives two minutes
_DECOMMISSION_SECONDS = 110
_SUBMISSION_RETRIES, _SUBMISSION_RETRY_SECONDS = 3, 20


def application(
    lake: Lake,
    job: Job,
    workspace: Workspace,
    *,
    run_id: str,
    endpoint: str | None = None,
    datasets: Sequence[str] = (),
    tenants: Sequence[str] = (),
) -> SparkApplication:
    """One run of a job, now.

    Args:
        lake: the declaration.
        job: what to run.
        workspace: whose data.
        run_id: tells it from other runs of the job: a-z, 0-9 and hyphens.
        endpoint: URL at which pods find AWS; AWS itself without it.
        datasets: only these.
        tenants: only these of the workspace's tenants.

    Raises:
        DeclarationError: a dataset isn't declared.
        TerminalError: a tenant isn't one of the workspace's.
    """
    for name in datasets:
        lake.dataset(name)
    for name in tenants:
        if name not in workspace.tenants:
            raise TerminalError(f"tenant: {known_values(name, workspace.tenants)} (the tenants of {workspace.owner!r})")
    once = replace(job, every_seconds=None)
    spec = _spec(lake, once, workspace, endpoint, [*_repeated("--dataset", datasets), *_repeated("--tenant", tenants)])
    kept = lake.kubernetes.keep_finished_hours * 3600
    metadata = Metadata(f"{job.name}-{run_id}", workspace.namespace, labels(lake, workspace, job))
    return SparkApplication(metadata, replace(spec, time_to_live_seconds=kept))


def scheduled(lake: Lake, job: Job, workspace: Workspace, *, endpoint: str | None = None) -> ScheduledSparkApplication:
    """A job as it runs by itself.

    Args:
        lake: the declaration.
        job: a job with a schedule.
        workspace: whose data.
        endpoint: URL at which pods find AWS; AWS itself without it.

    Raises:
        TerminalError: the job has no schedule.
    """
    if job.schedule is None:
        raise TerminalError(f"job {job.name!r}: it has no schedule: it runs by hand, or after another")
    kept = lake.kubernetes.history
    arguments = ["--every", str(job.every_seconds)] if job.every_seconds else []
    return ScheduledSparkApplication(
        Metadata(job.name, workspace.namespace, labels(lake, workspace, job)),
        ScheduledSpec(
            schedule=job.schedule.text,
            time_zone="UTC",
            # of a run without an end too: while it goes on none is started, and where it has ended one is. Otherwise
            # a run that would overlap finds nothing to do that the other isn't at: it would only cost
            concurrency_policy="Forbid",
            successful_run_history_limit=kept,
            failed_run_history_limit=kept,
            template=_spec(lake, job, workspace, endpoint, arguments),
        ),
    )


def _repeated(option: str, values: Sequence[str]) -> list[str]:
    return [part for value in values for part in (option, value)]


def _spec(
    lake: Lake, job: Job, workspace: Workspace, endpoint: str | None, arguments: Sequence[str]
) -> SparkApplicationSpec:
    cluster = lake.kubernetes
    ours = labels(lake, workspace, job)
    return SparkApplicationSpec(
        type="Python",
        mode="cluster",
        spark_version=SPARK_VERSION,
        image=cluster.image,
        image_pull_policy=cluster.pull_policy,
        main_application_file=f"local://{_CODE}/spark_jobs/{job.name}.py",
        arguments=("--lake", f"{CONFIG_FOLDER}/lake.yaml", "--owner", workspace.owner, *arguments),
        spark_conf=_conf(lake, job, workspace),
        memory_overhead_factor=f"{job.overhead:g}",
        restart_policy=RestartPolicy(
            type="OnFailure" if job.retries else "Never",
            on_failure_retries=job.retries or None,
            on_failure_retry_interval=job.retry_seconds if job.retries else None,
            on_submission_failure_retries=_SUBMISSION_RETRIES if job.retries else None,
            on_submission_failure_retry_interval=_SUBMISSION_RETRY_SECONDS if job.retries else None,
        ),
        driver=DriverSpec(
            cores=job.driver.cores,
            core_request=job.driver.cpu,
            memory=f"{job.driver.memory_mib}m",
            service_account=job.name,
            java_options=_LOGGING,
            labels=ours,
            template=pod_template(lake, job, workspace, Role.DRIVER, endpoint),
        ),
        executor=ExecutorSpec(
            cores=job.executor.cores,
            core_request=job.executor.cpu,
            memory=f"{job.executor.memory_mib}m",
            service_account=job.name,
            java_options=_LOGGING,
            labels=ours,
            template=pod_template(lake, job, workspace, Role.EXECUTOR, endpoint),
            instances=max(job.executors.least, 1),
        ),
        dynamic_allocation=DynamicAllocation(
            enabled=True,
            initial_executors=job.executors.least,
            min_executors=job.executors.least,
            max_executors=job.executors.most,
        ),
    )


def _conf(lake: Lake, job: Job, workspace: Workspace) -> dict[str, str]:
    cluster = lake.kubernetes
    conf = {
        # an executor that has to go hands its blocks on first, and its loss is no failure of the job
        "spark.decommission.enabled": "true",
        "spark.storage.decommission.enabled": "true",
        "spark.storage.decommission.shuffleBlocks.enabled": "true",
        "spark.storage.decommission.rddBlocks.enabled": "true",
        "spark.executor.decommission.forceKillTimeout": f"{_DECOMMISSION_SECONDS}s",
        # on spot nodes executors come and go: only what fails within an hour counts against the job
        "spark.executor.failuresValidityInterval": "1h",
        "spark.task.maxFailures": "8",
        "spark.dynamicAllocation.executorIdleTimeout": "60s",
        "spark.kubernetes.executor.deleteOnTermination": "true",
        # a pod that the cluster can't place is asked for anew, perhaps on another node
        "spark.kubernetes.allocation.pods.pending.timeout": "300s",
        # ms; of the default of 10 s a busy cluster makes failed submissions, and drivers that end before they began
        "spark.kubernetes.submission.connectionTimeout": "60000",
        "spark.kubernetes.submission.requestTimeout": "60000",
        "spark.kubernetes.driver.connectionTimeout": "60000",
        "spark.kubernetes.driver.requestTimeout": "60000",
        # metrics for Prometheus on the driver's port 4040, under names that stay the same from run to run
        "spark.ui.prometheus.enabled": "true",
        "spark.metrics.namespace": "lakehose",
        "spark.metrics.conf.*.sink.prometheusServlet.class": "org.apache.spark.metrics.sink.PrometheusServlet",
        "spark.metrics.conf.*.sink.prometheusServlet.path": "/metrics/prometheus",
        "spark.executor.processTreeMetrics.enabled": "true",
        "spark.sql.shuffle.partitions": str(2 * job.executor.cores * job.executors.most),
        "spark.ui.showConsoleProgress": "false",
    }
    if cluster.shuffle_fallback:
        # blocks are tenants' data: each namespace has a folder of its own
        folder = f"{cluster.shuffle_fallback}{workspace.namespace}/"
        conf["spark.storage.decommission.fallbackStorage.path"] = folder
    if cluster.event_logs:
        conf |= {
            "spark.eventLog.enabled": "true",
            "spark.eventLog.dir": cluster.event_logs,
            "spark.eventLog.compress": "true",
            "spark.eventLog.rolling.enabled": "true",
            "spark.eventLog.rolling.maxFileSize": "64m",
        }
    return dict(sorted(conf.items()))
