"""Owns the Kubernetes runner: a job as a SparkApplication, watched by Airflow's own Spark operator."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from airflow.providers.cncf.kubernetes.operators.spark_kubernetes import SparkKubernetesOperator
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from kubernetes.client import ApiException

from k8s.errors import refusal
from k8s.specs import GROUP, VERSION
from lake.errors import TerminalError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from airflow.sdk import Context

    from k8s.specs import SparkApplication

__all__ = ["ClusterJob"]

_BAD_INPUT = 2
_EXIT_CODE = re.compile(r"\bExitCode: (\d+)")
_DRIVER = "-driver"
# of a Kubernetes connection: where the cluster is
_CLUSTER_OPTIONS = {"in_cluster", "kube_config_path", "kube_config"}
_OLD_PREFIX = "extra__kubernetes__"


class ClusterJob(SparkKubernetesOperator):  # type: ignore[misc]
    """Airflow's Spark operator, for an application that is complete as it is.

    The application goes to the cluster as `kubectl apply` would send it, under a name of its own for each try. What
    differs from the provider's operator: nothing in it is a template (the provider would take the argument
    `/etc/lakehose/lake.yaml` for the name of a template file), a job whose exit status is 2 (bad input) is not tried
    again, and a failure says what the Spark Operator said.

    Args:
        application: what to run.
        poll_seconds: how often the driver's pod is looked at.
    """

    template_fields: Sequence[str] = ()
    template_fields_renderers: dict[str, str] = {}  # noqa: RUF012 - as the provider declares it
    template_ext: Sequence[str] = ()

    def __init__(self, *, application: SparkApplication, poll_seconds: float = 5, **options: Any) -> None:
        super().__init__(
            name=application.metadata.name,
            namespace=application.metadata.namespace,
            template_spec=_as_the_provider_takes_it(application.to_dict()),
            # one driver a try: with a name that stays, a try would find the remains of the one before
            random_name_suffix=True,
            reattach_on_restart=True,
            # a run that is given up or timed out must not go on; its log is Airflow's, its history the event log's
            delete_on_termination=True,
            get_logs=True,
            log_events_on_failure=True,
            log_pod_spec_on_failure=False,
            deferrable=True,
            poll_interval=poll_seconds,
            **options,
        )

    def execute(self, context: Context) -> Any:
        """Submit the application, and leave the worker while it runs.

        Raises:
            AirflowFailException: the cluster refused it for good, or the job found its input wrong at once.
            AirflowException: it can't be submitted just now, or failed at once.
        """
        try:
            return super().execute(context)
        except ApiException as error:
            raise self._refused(error) from error
        except AirflowException as error:
            # a driver that ended before the first look at it never reaches trigger_reentry
            code = _EXIT_CODE.search(str(error))
            if code and int(code[1]) == _BAD_INPUT:
                raise AirflowFailException(_bad_input(self.name)) from error
            raise

    def convert_config_file_to_dict(self) -> None:
        """Hand the triggerer this worker's KUBECONFIG, unless the connection says where the cluster is.

        With both, the provider's trigger refuses to choose, and the task fails while its job goes on.
        """
        told = [name for name in self.hook.conn_extras if name.removeprefix(_OLD_PREFIX) in _CLUSTER_OPTIONS]
        if any(self.hook.conn_extras[name] for name in told):
            self._config_dict = None
        else:
            super().convert_config_file_to_dict()

    def trigger_reentry(self, context: Context, event: dict[str, Any]) -> Any:
        """Take up the run when its driver has ended.

        Raises:
            AirflowFailException: the job found its input wrong: it is not tried again.
            AirflowException: it failed otherwise.
        """
        name = str(event["name"]).removesuffix(_DRIVER)
        # before the application is deleted with all it has to say
        said = None if event["status"] == "success" else self._said(name)
        try:
            return super().trigger_reentry(context, event)
        except AirflowException as error:
            if self._exit_code() == _BAD_INPUT:
                raise AirflowFailException(_bad_input(name)) from error
            raise AirflowException(f"{error}\n{name}: {said}" if said else str(error)) from error

    def _refused(self, error: ApiException) -> AirflowException:
        try:
            status = json.loads(error.body or "{}")
        except ValueError:
            status = {}
        problem = refusal(error.status or 0, status, f"SparkApplication {self.namespace}/{self.name}")
        kind = AirflowFailException if isinstance(problem, TerminalError) else AirflowException
        return kind(str(problem))

    def _exit_code(self) -> int | None:
        statuses = (self.pod.status.container_statuses or []) if self.pod and self.pod.status else []
        for one in statuses:
            if one.name == self.base_container_name and one.state and one.state.terminated:
                return int(one.state.terminated.exit_code)
        return None

    def _said(self, name: str) -> str | None:
        try:
            found = self.hook.get_custom_object(GROUP, VERSION, "sparkapplications", name, self.namespace)
        except ApiException as error:
            self.log.warning("SparkApplication %s can't be read: %s", name, error.reason)
            return None
        state = found.get("status", {}).get("applicationState", {})
        reason = state.get("errorMessage") or "the Spark Operator gives no reason"
        return f"{state.get('state') or 'no state yet'}: {reason}"


def _bad_input(name: str | None) -> str:
    return f"{name}: the job exited with 2: its input is wrong, and trying again can't help; its log says what"


def _as_the_provider_takes_it(application: dict[str, Any]) -> dict[str, Any]:
    spec = application["spec"]
    allocation = spec["dynamicAllocation"]
    if allocation["minExecutors"]:
        return application
    # the provider takes a least number of 0 for a missing one, and refuses it; the Spark Operator makes conf of it too
    conf = {
        "spark.dynamicAllocation.enabled": "true",
        "spark.dynamicAllocation.shuffleTracking.enabled": str(allocation["shuffleTrackingEnabled"]).lower(),
        "spark.dynamicAllocation.initialExecutors": str(allocation["initialExecutors"]),
        "spark.dynamicAllocation.minExecutors": "0",
        "spark.dynamicAllocation.maxExecutors": str(allocation["maxExecutors"]),
    }
    kept = {key: value for key, value in spec.items() if key != "dynamicAllocation"}
    return {**application, "spec": {**kept, "sparkConf": dict(sorted({**spec["sparkConf"], **conf}.items()))}}
