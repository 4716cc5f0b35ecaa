"""Roles and Pod Identity associations, made in a real IAM and EKS interface: created, left alone, put right."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace

import pytest

from k8s.identity import identities, provision_identities
from lake.declaration import read_lake
from lake.errors import FindingError, TerminalError
from lake.provision import Outcome
from tests.k8s.conftest import ROOT

_numbers = itertools.count(1)


@pytest.fixture
def lake(cloud):
    """A lake whose keys are there."""
    found = replace(read_lake(ROOT / "lake.yaml"), company="ident", environment=f"t{next(_numbers)}")
    for owner in found.owners():
        key = cloud.kms.create_key()["KeyMetadata"]["KeyId"]
        cloud.kms.create_alias(AliasName=found.names.key_alias(owner), TargetKeyId=key)
    return found


@pytest.fixture
def eks(cloud, lake):
    """The same lake, on an EKS cluster of the endpoint."""
    name = f"cluster-{lake.environment}"
    # an endpoint without Docker can't start one, and only its name is needed
    cloud.eks.create_cluster(
        name=name, roleArn="arn:aws:iam::000000000000:role/eks", resourcesVpcConfig={"subnetIds": ["subnet-1"]}
    )
    return replace(lake, kubernetes=replace(lake.kubernetes, cluster=name))


JOBS = ("ingest", "compact", "maintain")


def outcomes(changes):
    return [(one.kind, one.name, one.outcome) for one in changes]


def test_roles_are_created_once_and_then_unchanged(cloud, lake):
    roles = [f"ident-{lake.environment}-{owner}-{job}" for owner in ("ewr", "pooled") for job in JOBS]
    assert outcomes(provision_identities(lake, cloud)) == [("role", one, Outcome.CREATED) for one in roles]
    assert outcomes(provision_identities(lake, cloud)) == [("role", one, Outcome.UNCHANGED) for one in roles]


def test_a_role_says_what_is_printed(cloud, lake):
    list(provision_identities(lake, cloud))
    for one in identities(lake, cloud):
        found = cloud.iam.get_role_policy(RoleName=one.role, PolicyName="job")["PolicyDocument"]
        trust = cloud.iam.get_role(RoleName=one.role)["Role"]["AssumeRolePolicyDocument"]
        assert (json.loads(found) if isinstance(found, str) else found) == one.policy
        assert (json.loads(trust) if isinstance(trust, str) else trust) == one.trust
        json.dumps(one.to_dict())


def test_a_role_that_somebody_widened_is_put_right(cloud, lake):
    list(provision_identities(lake, cloud))
    role = identities(lake, cloud)[0].role
    wide = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    cloud.iam.put_role_policy(RoleName=role, PolicyName="job", PolicyDocument=json.dumps(wide))
    anyone = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole"}]}
    cloud.iam.update_assume_role_policy(RoleName=role, PolicyDocument=json.dumps(anyone))
    changed = [one.name for one in provision_identities(lake, cloud) if one.outcome is Outcome.UPDATED]
    assert changed == [role]
    test_a_role_says_what_is_printed(cloud, lake)


def test_a_key_that_is_not_there_yet_asks_for_the_lake_first(cloud):
    bare = replace(read_lake(ROOT / "lake.yaml"), company="nokeys")
    with pytest.raises(FindingError, match="key alias/nokeys-demo-ewr: there is none yet; run `lakehose apply` first"):
        identities(bare, cloud)


def test_service_accounts_are_tied_to_their_roles_on_eks(cloud, eks):
    made = [one for one in outcomes(provision_identities(eks, cloud)) if one[0] == "pod identity"]
    spaces = [f"ident-{eks.environment}-{owner}" for owner in ("ewr", "pooled")]
    expected = [f"{space}/{job}" for space in spaces for job in JOBS]
    assert made == [("pod identity", one, Outcome.CREATED) for one in expected]
    there = cloud.eks.list_pod_identity_associations(clusterName=eks.kubernetes.cluster)["associations"]
    assert sorted(f"{one['namespace']}/{one['serviceAccount']}" for one in there) == sorted(expected)
    assert {one[2] for one in outcomes(provision_identities(eks, cloud))} == {Outcome.UNCHANGED}


def test_an_association_with_another_role_is_put_right(cloud, eks):
    list(provision_identities(eks, cloud))
    which = cloud.eks.list_pod_identity_associations(
        clusterName=eks.kubernetes.cluster, namespace=f"ident-{eks.environment}-ewr", serviceAccount="ingest"
    )["associations"][0]
    place = {"clusterName": eks.kubernetes.cluster, "associationId": which["associationId"]}
    cloud.eks.update_pod_identity_association(**place, roleArn="arn:aws:iam::000000000000:role/another")
    changed = [one for one in outcomes(provision_identities(eks, cloud)) if one[2] is Outcome.UPDATED]
    assert changed == [("pod identity", f"ident-{eks.environment}-ewr/ingest", Outcome.UPDATED)]
    found = cloud.eks.describe_pod_identity_association(**place)["association"]["roleArn"]
    assert found.endswith(f":role/ident-{eks.environment}-ewr-ingest")


def test_a_cluster_that_eks_does_not_have_is_named_before_anything_is_made(cloud, lake):
    wrong = replace(lake, kubernetes=replace(lake.kubernetes, cluster="prodd"))
    with pytest.raises(TerminalError, match=r"kubernetes\.cluster: EKS has no cluster 'prodd' in us-east-1"):
        list(provision_identities(wrong, cloud))
    with pytest.raises(cloud.iam.exceptions.NoSuchEntityException):
        cloud.iam.get_role(RoleName=identities(lake, cloud)[0].role)
