"""Owns the pods of drivers and executors: where they are placed, what they may do, what they may write.

They are given to Spark as pod templates: Spark alone builds the pods, and nothing depends on the operator's webhook.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from kubernetes.client import (
    V1Affinity,
    V1Capabilities,
    V1ConfigMapVolumeSource,
    V1Container,
    V1EmptyDirVolumeSource,
    V1EnvFromSource,
    V1EnvVar,
    V1KeyToPath,
    V1LabelSelector,
    V1NodeAffinity,
    V1NodeSelector,
    V1NodeSelectorRequirement,
    V1NodeSelectorTerm,
    V1ObjectMeta,
    V1PodAffinity,
    V1PodAffinityTerm,
    V1PodSecurityContext,
    V1PodSpec,
    V1PodTemplateSpec,
    V1PreferredSchedulingTerm,
    V1SeccompProfile,
    V1SecretEnvSource,
    V1SecurityContext,
    V1Toleration,
    V1Volume,
    V1VolumeMount,
    V1WeightedPodAffinityTerm,
)

from k8s.names import CONFIG_FOLDER, CONFIG_MAP, LABEL, priority_class

if TYPE_CHECKING:
    from lake.declaration import Lake, Workspace
    from lake.jobs import Job

__all__ = ["Role", "config_files", "pod_template"]

_USER = 185  # Spark's, in every image of it
_SPOT = {"karpenter.sh/capacity-type": "spot", "eks.amazonaws.com/capacityType": "SPOT"}
_NVME = "karpenter.k8s.aws/instance-local-nvme"
_ZONE = "topology.kubernetes.io/zone"
_EXECUTORS_TAINT = f"{LABEL}/executors"
_TEMPORARY, _SCRATCH = "/tmp", "/var/data/spark"  # noqa: S108 - a volume of the pod's own


class Role(StrEnum):
    """Which of a run's pods; the value is the name Spark gives its container."""

    DRIVER = "spark-kubernetes-driver"
    EXECUTOR = "spark-kubernetes-executor"


def config_files(lake: Lake) -> dict[str, str]:
    """Keys of the declaration's ConfigMap, and the path of each below `/etc/lakehose`."""
    # a key may hold no slash
    contracts = sorted({one.contract_path for one in lake.datasets})
    return {"lake.yaml": "lake.yaml", **{path.replace("/", "__"): path for path in contracts}}


def pod_template(lake: Lake, job: Job, workspace: Workspace, role: Role, endpoint: str | None) -> V1PodTemplateSpec:
    """The template of a driver's or an executor's pod.

    Args:
        lake: the declaration.
        job: what runs.
        workspace: whose data.
        role: driver or executor.
        endpoint: URL at which the pod finds AWS; AWS itself without it.
    """
    driver = role is Role.DRIVER
    # Karpenter may not empty the node of a driver to save money: the run would start again
    annotations = {"karpenter.sh/do-not-disrupt": "true"} if driver else None
    return V1PodTemplateSpec(
        metadata=V1ObjectMeta(annotations=annotations),
        spec=V1PodSpec(
            containers=[_container(lake, role, endpoint)],
            volumes=_volumes(lake, role),
            affinity=_affinity(lake, role),
            tolerations=None if driver else [V1Toleration(key=_EXECUTORS_TAINT, operator="Exists")],
            priority_class_name=priority_class(lake, workspace.tier),
            security_context=V1PodSecurityContext(
                run_as_non_root=True,
                run_as_user=_USER,
                run_as_group=_USER,
                fs_group=_USER,
                fs_group_change_policy="OnRootMismatch",
                seccomp_profile=V1SeccompProfile(type="RuntimeDefault"),
            ),
            # an executor never talks to the API server; Pod Identity brings a token of its own
            automount_service_account_token=driver,
            enable_service_links=False,
            termination_grace_period_seconds=60 if driver else 120,
            active_deadline_seconds=job.timeout_minutes * 60 if driver and not job.every_seconds else None,
        ),
    )


def _container(lake: Lake, role: Role, endpoint: str | None) -> V1Container:
    secret = lake.kubernetes.credentials_secret
    variables = {
        "AWS_DEFAULT_REGION": lake.region,
        "AWS_REGION": lake.region,
        **({"AWS_ENDPOINT_URL": endpoint} if endpoint else {}),
        "HOME": _TEMPORARY,
    }
    mounts = [
        V1VolumeMount(name="temporary", mount_path=_TEMPORARY),
        V1VolumeMount(name="spark-local-dir-1", mount_path=_SCRATCH),
    ]
    if role is Role.DRIVER:
        mounts.append(V1VolumeMount(name="lake", mount_path=CONFIG_FOLDER, read_only=True))
    return V1Container(
        name=role.value,
        # Spark's executors keep what they are sent in the folder they start in
        working_dir=_TEMPORARY,
        env=[V1EnvVar(name=name, value=value) for name, value in sorted(variables.items())],
        env_from=[V1EnvFromSource(secret_ref=V1SecretEnvSource(name=secret))] if secret else None,
        security_context=V1SecurityContext(
            allow_privilege_escalation=False,
            read_only_root_filesystem=True,
            capabilities=V1Capabilities(drop=["ALL"]),
        ),
        volume_mounts=mounts,
    )


def _volumes(lake: Lake, role: Role) -> list[V1Volume]:
    found = [
        V1Volume(name="temporary", empty_dir=V1EmptyDirVolumeSource(size_limit="2Gi")),
        # by this name Spark takes it as its local folder
        V1Volume(
            name="spark-local-dir-1", empty_dir=V1EmptyDirVolumeSource(size_limit=f"{lake.kubernetes.scratch_gib}Gi")
        ),
    ]
    if role is Role.DRIVER:
        items = [V1KeyToPath(key=key, path=path) for key, path in config_files(lake).items()]
        found.append(V1Volume(name="lake", config_map=V1ConfigMapVolumeSource(name=CONFIG_MAP, items=items)))
    return found


def _affinity(lake: Lake, role: Role) -> V1Affinity:
    if role is Role.DRIVER:
        on_demand = [V1NodeSelectorRequirement(key=key, operator="NotIn", values=[one]) for key, one in _SPOT.items()]
        return V1Affinity(node_affinity=_required(on_demand))
    node = V1NodeAffinity()
    if lake.kubernetes.local_nvme:
        node = _required([V1NodeSelectorRequirement(key=_NVME, operator="Exists")])
    if lake.kubernetes.spot:
        node.preferred_during_scheduling_ignored_during_execution = [
            V1PreferredSchedulingTerm(
                weight=50,
                preference=V1NodeSelectorTerm(
                    match_expressions=[V1NodeSelectorRequirement(key=key, operator="In", values=[one])]
                ),
            )
            for key, one in _SPOT.items()
        ]
    # Traffic between zones costs money and time. Preferred, not required: nodes of a laptop's cluster have no zone,
    # and a zone may run out of spot nodes in the middle of a run.
    near_driver = V1PodAffinityTerm(
        topology_key=_ZONE,
        label_selector=V1LabelSelector(match_labels={"spark-role": "driver"}),
        match_label_keys=["spark-app-selector"],
    )
    return V1Affinity(
        node_affinity=node if node.to_dict() != V1NodeAffinity().to_dict() else None,
        pod_affinity=V1PodAffinity(
            preferred_during_scheduling_ignored_during_execution=[
                V1WeightedPodAffinityTerm(weight=100, pod_affinity_term=near_driver)
            ]
        ),
    )


def _required(expressions: list[V1NodeSelectorRequirement]) -> V1NodeAffinity:
    return V1NodeAffinity(
        required_during_scheduling_ignored_during_execution=V1NodeSelector(
            node_selector_terms=[V1NodeSelectorTerm(match_expressions=expressions)]
        )
    )
