"""Owns the Spark Operator's objects as types: SparkApplication and ScheduledSparkApplication, `v1beta2`.

Only what lakehose sets is here. Names are the operator's own in Python's spelling; `to_dict` writes them as the API
server reads them. https://github.com/kubeflow/spark-operator/blob/v2.5.2/docs/api-docs.md
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

from kubernetes.client import ApiClient

if TYPE_CHECKING:
    from collections.abc import Mapping

    from kubernetes.client import V1PodTemplateSpec

__all__ = [
    "GROUP",
    "VERSION",
    "DriverSpec",
    "DynamicAllocation",
    "ExecutorSpec",
    "Metadata",
    "RestartPolicy",
    "ScheduledSparkApplication",
    "ScheduledSpec",
    "SparkApplication",
    "SparkApplicationSpec",
    "plain",
]

GROUP = "sparkoperator.k8s.io"
VERSION = "v1beta2"


def plain(value: Any) -> Any:
    """An object of ours or of the `kubernetes` client as JSON's types, without what isn't set.

    >>> plain(RestartPolicy("OnFailure", on_failure_retries=3))
    {'type': 'OnFailure', 'onFailureRetries': 3}
    """
    if isinstance(value, _Object):
        return {
            _camel(one.name): plain(getattr(value, one.name))
            for one in fields(value)
            if getattr(value, one.name) is not None
        }
    if isinstance(value, tuple | list):
        return [plain(one) for one in value]
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    return ApiClient().sanitize_for_serialization(value)  # type: ignore[no-untyped-call]


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(one.capitalize() for one in rest)


@dataclass(frozen=True)
class _Object:
    """What `plain` writes field by field."""


@dataclass(frozen=True)
class Metadata(_Object):
    """Name and labels of an object."""

    name: str
    namespace: str
    labels: Mapping[str, str] | None = None
    annotations: Mapping[str, str] | None = None


@dataclass(frozen=True)
class RestartPolicy(_Object):
    """What the operator does when a run, or its submission, fails."""

    type: str
    """`Never`, `OnFailure` or `Always`."""
    on_failure_retries: int | None = None
    on_failure_retry_interval: int | None = None
    """Seconds; the operator waits this long times the number of the attempt."""
    on_submission_failure_retries: int | None = None
    on_submission_failure_retry_interval: int | None = None
    """Seconds."""


@dataclass(frozen=True)
class DynamicAllocation(_Object):
    """Executors that come and go with the work."""

    enabled: bool
    initial_executors: int
    min_executors: int
    max_executors: int
    shuffle_tracking_enabled: bool = False
    """With it an idle executor stays while its shuffle blocks are needed; without, it hands them on and goes."""


@dataclass(frozen=True)
class _PodSpec(_Object):
    cores: int
    core_request: str | None
    """Processor time reserved, as Kubernetes writes it."""
    memory: str
    """JVM heap, as Java writes it: `2048m`."""
    service_account: str
    java_options: str | None
    labels: Mapping[str, str] | None
    template: V1PodTemplateSpec
    """What Spark itself builds the pod on; with one, the operator's webhook leaves the pod alone."""


@dataclass(frozen=True)
class DriverSpec(_PodSpec):
    """The driver's pod."""


@dataclass(frozen=True)
class ExecutorSpec(_PodSpec):
    """The executors' pods."""

    instances: int = 1
    delete_on_termination: bool = True


@dataclass(frozen=True)
class SparkApplicationSpec(_Object):
    """One run: its image, its arguments, its pods."""

    type: str
    mode: str
    spark_version: str
    image: str
    image_pull_policy: str
    main_application_file: str
    arguments: tuple[str, ...]
    spark_conf: Mapping[str, str]
    memory_overhead_factor: str
    restart_policy: RestartPolicy
    driver: DriverSpec
    executor: ExecutorSpec
    dynamic_allocation: DynamicAllocation
    time_to_live_seconds: int | None = None
    """A finished application is removed after so long."""


@dataclass(frozen=True)
class SparkApplication(_Object):
    """A run."""

    kind: ClassVar[str] = "SparkApplication"
    metadata: Metadata
    spec: SparkApplicationSpec

    def to_dict(self) -> dict[str, Any]:
        """As `kubectl apply` takes it."""
        return {"apiVersion": f"{GROUP}/{VERSION}", "kind": self.kind, **plain(self)}


@dataclass(frozen=True)
class ScheduledSpec(_Object):
    """When to run what."""

    schedule: str
    """Five fields of cron, or `@every 30s`."""
    time_zone: str
    concurrency_policy: str
    """`Forbid` leaves a run out while the one before it goes on."""
    successful_run_history_limit: int
    failed_run_history_limit: int
    template: SparkApplicationSpec


@dataclass(frozen=True)
class ScheduledSparkApplication(_Object):
    """Runs on a schedule."""

    kind: ClassVar[str] = "ScheduledSparkApplication"
    metadata: Metadata
    spec: ScheduledSpec

    def to_dict(self) -> dict[str, Any]:
        """As `kubectl apply` takes it."""
        return {"apiVersion": f"{GROUP}/{VERSION}", "kind": self.kind, **plain(self)}
