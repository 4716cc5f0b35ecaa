"""The rendered manifests as the API server sees them: accepted as they are, and giving nobody more than needed."""

from __future__ import annotations

import json

import pytest
import yaml

EWR, POOLED = "acme-walls-ewr", "acme-walls-pooled"


@pytest.fixture(scope="module")
def walls(make_lake, operator):
    """A lake whose manifests are applied, and whose jobs run once a year."""
    yearly = {"schedule": "0 0 1 1 *"}
    lake = make_lake("walls", jobs={"ingest": yearly, "compact": yearly}, apply=False)
    lake.apply_manifests()
    return lake


@pytest.fixture(scope="module")
def rendered(walls):
    """All objects of the manifests."""
    files = sorted(walls.manifests.iterdir())
    return [one for file in files for one in yaml.safe_load_all(file.read_text()) if one]


def find(rendered, kind, namespace):
    return next(one for one in rendered if one["kind"] == kind and one["metadata"].get("namespace") == namespace)


def may(cluster, account, verb, resource, *where):
    """Whether a service account, as `namespace/name`, may do something; asked of the API server."""
    name = f"system:serviceaccount:{account.replace('/', ':')}"
    done = cluster.kubectl("auth", "can-i", verb, *resource.split(), "--as", name, *where, check=False)
    return done.stdout.strip() == "yes"


def test_every_manifest_passes_the_servers_dry_run_to_the_letter(walls, rendered, cluster):
    done = cluster.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", str(walls.manifests), check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == len(rendered)
    assert "Warning" not in done.stderr


def test_the_dry_run_would_have_refused_a_key_that_does_not_exist(rendered, cluster):
    wrong = json.loads(json.dumps(find(rendered, "ScheduledSparkApplication", EWR)))
    wrong["spec"]["template"]["driver"]["memroy"] = "1g"
    text = yaml.safe_dump(wrong)
    done = cluster.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", text=text, check=False)
    assert done.returncode == 1
    assert 'unknown field "spec.template.driver.memroy"' in done.stderr


def test_a_submitted_run_passes_the_dry_run_too(walls, cluster):
    from k8s.applications import application  # noqa: PLC0415 - only this test speaks to the typed objects

    lake = walls.lake
    for workspace in lake.workspaces():
        run = application(lake, lake.job("ingest"), workspace, run_id="dry", endpoint=walls.endpoint.for_pods)
        text = json.dumps(run.to_dict())
        done = cluster.kubectl("apply", "--dry-run=server", "--validate=strict", "-f", "-", text=text, check=False)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("job", ["ingest", "compact"])
@pytest.mark.parametrize(
    ("verb", "resource"),
    [
        *((verb, "pods") for verb in ("create", "get", "list", "watch", "delete")),
        *((verb, "configmaps") for verb in ("create", "get", "delete")),
        *((verb, "services") for verb in ("create", "delete")),
    ],
)
def test_a_jobs_account_may_run_executors_in_its_own_namespace(walls, cluster, job, verb, resource):
    assert may(cluster, f"{EWR}/{job}", verb, resource, "-n", EWR)


@pytest.mark.parametrize("job", ["ingest", "compact"])
@pytest.mark.parametrize(
    ("verb", "resource"),
    [
        *((verb, "secrets") for verb in ("get", "list", "create")),
        ("create", "pods --subresource=exec"),
        ("create", "serviceaccounts --subresource=token"),
        ("create", "rolebindings.rbac.authorization.k8s.io"),
        ("update", "roles.rbac.authorization.k8s.io"),
        ("delete", "resourcequotas"),
        ("update", "networkpolicies.networking.k8s.io"),
        ("create", "sparkapplications.sparkoperator.k8s.io"),
        ("update", "scheduledsparkapplications.sparkoperator.k8s.io"),
    ],
)
def test_a_jobs_account_may_nothing_else_in_its_own_namespace(walls, cluster, job, verb, resource):
    assert not may(cluster, f"{EWR}/{job}", verb, resource, "-n", EWR)


@pytest.mark.parametrize(
    ("verb", "resource"),
    [("get", "pods"), ("create", "pods"), ("get", "secrets"), ("get", "configmaps"), ("delete", "services")],
)
@pytest.mark.parametrize("other", [POOLED, "kube-system", "default"])
def test_a_jobs_account_may_nothing_in_another_namespace(walls, cluster, verb, resource, other):
    assert not may(cluster, f"{EWR}/ingest", verb, resource, "-n", other)


@pytest.mark.parametrize(
    ("verb", "resource"),
    [
        ("get", "nodes"),
        ("list", "namespaces"),
        ("get", "persistentvolumes"),
        ("create", "clusterrolebindings.rbac.authorization.k8s.io"),
        ("list", "pods"),
        ("list", "secrets"),
    ],
)
def test_a_jobs_account_may_nothing_in_the_cluster_as_a_whole(walls, cluster, verb, resource):
    assert not may(cluster, f"{EWR}/ingest", verb, resource, "--all-namespaces")


def test_the_namespaces_default_account_may_nothing(walls, cluster):
    assert not may(cluster, f"{EWR}/default", "get", "pods", "-n", EWR)
    assert not may(cluster, f"{EWR}/default", "get", "configmaps", "-n", EWR)


@pytest.mark.parametrize(("whose", "other"), [(EWR, POOLED), (POOLED, EWR)])
def test_a_token_of_one_tenants_job_reads_no_secret_of_anothers(walls, cluster, whose, other):
    token = cluster.kubectl("create", "token", "ingest", "-n", whose).stdout.strip()
    # without the administrator's certificate, which would win over the token
    server = json.loads(cluster.kubectl("config", "view", "--raw", "-o", "json").stdout)["clusters"][0]["cluster"]
    trust = ["--certificate-authority", server["certificate-authority"]] if "certificate-authority" in server else []
    bare = ("--kubeconfig", "/dev/null", "--server", server["server"], *trust, "--token", token)
    own = cluster.kubectl(*bare, "get", "configmap", "lake", "-n", whose, check=False)
    assert own.returncode == 0, own.stderr
    for namespace in (whose, other):
        done = cluster.kubectl(*bare, "get", "secret", "aws", "-n", namespace, check=False)
        assert done.returncode == 1
        assert f'User "system:serviceaccount:{whose}:ingest" cannot get resource "secrets"' in done.stderr


def test_a_tenants_declaration_names_no_other_tenant(walls, cluster):
    text = cluster.get("configmap", "lake", EWR)["data"]["lake.yaml"]
    assert list(yaml.safe_load(text)["tenants"]) == ["ewr"]


def test_a_pod_that_is_not_confined_is_refused_by_the_namespace(walls, cluster):
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "loose", "namespace": EWR},
        "spec": {"containers": [{"name": "only", "image": "local/pause:1", "securityContext": {"privileged": True}}]},
    }
    done = cluster.kubectl("create", "--dry-run=server", "-f", "-", text=json.dumps(pod), check=False)
    assert done.returncode == 1
    assert 'violates PodSecurity "restricted' in done.stderr


@pytest.mark.parametrize("role", ["driver", "executor"])
def test_our_own_pods_are_confined_enough_and_within_the_quota(walls, rendered, cluster, role):
    template = find(rendered, "ScheduledSparkApplication", EWR)["spec"]["template"][role]["template"]
    (container,) = template["spec"]["containers"]
    container |= {"image": "local/pause:1", "resources": {"requests": {"cpu": "100m", "memory": "1Gi"}}}
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"our-{role}", "namespace": EWR},
        "spec": {**template["spec"], "serviceAccountName": "ingest"},
    }
    done = cluster.kubectl("create", "--dry-run=server", "-f", "-", text=json.dumps(pod), check=False)
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr


def test_a_namespace_takes_no_more_than_its_tiers_share(walls, rendered, cluster):
    hard = find(rendered, "ResourceQuota", EWR)["spec"]["hard"]
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "greedy", "namespace": EWR},
        "spec": {
            "securityContext": {"runAsNonRoot": True, "runAsUser": 185, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [
                {
                    "name": "only",
                    "image": "local/pause:1",
                    "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
                    "resources": {"requests": {"cpu": str(int(hard["requests.cpu"]) + 1), "memory": "1Gi"}},
                }
            ],
        },
    }
    done = cluster.kubectl("create", "--dry-run=server", "-f", "-", text=json.dumps(pod), check=False)
    assert done.returncode == 1
    assert "exceeded quota: share" in done.stderr
