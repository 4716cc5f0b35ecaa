"""Owns the identities of jobs in AWS: a role for each job in each workspace, tied to its service account on EKS.

Every step looks first and changes only what differs. Nothing is ever deleted.
https://docs.aws.amazon.com/eks/latest/userguide/pod-identities.html
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from k8s.policies import job_policy, key_owners, trust_policy
from lake.clients import error_code
from lake.errors import FindingError, TerminalError
from lake.provision import Change, key_arn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lake.clients import Cloud
    from lake.declaration import Lake

__all__ = ["Identity", "identities", "provision_identities"]

_POLICY = "job"


@dataclass(frozen=True)
class Identity:
    """One job in one workspace, as AWS knows it."""

    role: str
    namespace: str
    service_account: str
    trust: dict[str, Any]
    """Trust policy of the role."""
    policy: dict[str, Any]
    """What the role may do."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON takes it."""
        return asdict(self)


def identities(lake: Lake, cloud: Cloud) -> list[Identity]:
    """The identity of each job in each workspace where it has something to do.

    Raises:
        FindingError: an owner's key isn't made yet.
        TerminalError: a role would need more than IAM allows.
    """
    found: list[Identity] = []
    for workspace in lake.workspaces():
        keys = {one: _key(lake, cloud, one) for one in key_owners(workspace)}
        for job in lake.pipeline():
            policy = job_policy(lake, job, workspace, account=cloud.account, keys=keys)
            if policy is not None:
                role = lake.names.job_role(job.name, workspace.owner)
                trust = trust_policy(workspace, job)
                found.append(Identity(role, workspace.namespace, job.name, trust, policy))
    return found


def _key(lake: Lake, cloud: Cloud, owner: str) -> str:
    arn = key_arn(lake, cloud, owner)
    if arn is None:
        raise FindingError(f"key {lake.names.key_alias(owner)}: there is none yet; run `lakehose apply` first")
    return arn


def provision_identities(lake: Lake, cloud: Cloud) -> Iterator[Change]:
    """Make the roles, and tie them to the service accounts of the EKS cluster that is declared.

    Raises:
        FindingError: an owner's key isn't made yet.
        TerminalError: there is no such cluster; or a role would need more than IAM allows.
    """
    made = identities(lake, cloud)
    cluster = lake.kubernetes.cluster
    if cluster is not None:
        _check_cluster(cloud, cluster, lake.region)
    for one in made:
        yield _role(cloud, one)
        if cluster is not None:
            yield _association(cloud, cluster, one)


def _role(cloud: Cloud, one: Identity) -> Change:
    created = updated = False
    try:
        found = cloud.iam.get_role(RoleName=one.role)["Role"]
    except ClientError as error:
        if error_code(error) != "NoSuchEntity":
            raise
        cloud.iam.create_role(RoleName=one.role, AssumeRolePolicyDocument=json.dumps(one.trust))
        created = True
    else:
        if _document(found["AssumeRolePolicyDocument"]) != one.trust:
            cloud.iam.update_assume_role_policy(RoleName=one.role, PolicyDocument=json.dumps(one.trust))
            updated = True
    if _found_policy(cloud, one.role) != one.policy:
        cloud.iam.put_role_policy(RoleName=one.role, PolicyName=_POLICY, PolicyDocument=json.dumps(one.policy))
        updated = True
    return Change.made("role", one.role, created=created, updated=updated)


def _found_policy(cloud: Cloud, role: str) -> Any:
    try:
        return _document(cloud.iam.get_role_policy(RoleName=role, PolicyName=_POLICY)["PolicyDocument"])
    except ClientError as error:
        if error_code(error) == "NoSuchEntity":
            return None
        raise


def _document(found: Any) -> Any:
    # botocore decodes the documents that IAM answers URL-encoded; a local endpoint may answer text
    return json.loads(found) if isinstance(found, str) else found


def _check_cluster(cloud: Cloud, cluster: str, region: str) -> None:
    try:
        cloud.eks.describe_cluster(name=cluster)
    except ClientError as error:
        if error_code(error) != "ResourceNotFoundException":
            raise
        raise TerminalError(
            f"kubernetes.cluster: EKS has no cluster {cluster!r} in {region}; correct the name or the region in the "
            "declaration"
        ) from None


def _association(cloud: Cloud, cluster: str, one: Identity) -> Change:
    name = f"{one.namespace}/{one.service_account}"
    arn = f"arn:aws:iam::{cloud.account}:role/{one.role}"
    found = cloud.eks.list_pod_identity_associations(
        clusterName=cluster, namespace=one.namespace, serviceAccount=one.service_account
    )["associations"]
    if not found:
        cloud.eks.create_pod_identity_association(
            clusterName=cluster, namespace=one.namespace, serviceAccount=one.service_account, roleArn=arn
        )
        return Change.made("pod identity", name, created=True)
    which = {"clusterName": cluster, "associationId": found[0]["associationId"]}
    there = cloud.eks.describe_pod_identity_association(**which)["association"]
    updated = there["roleArn"] != arn
    if updated:
        cloud.eks.update_pod_identity_association(**which, roleArn=arn)
    return Change.made("pod identity", name, created=False, updated=updated)
