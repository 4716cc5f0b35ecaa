"""What a cluster's refusals, and a kubeconfig's faults, are told as: what it was, and what helps."""

from __future__ import annotations

import re
import socket
from pathlib import Path

import pytest
import yaml

from k8s.errors import (
    ConflictError,
    NotReadyError,
    PermissionProblemError,
    RefusedError,
    UnreachableError,
    refusal,
)
from k8s.kubeconfig import connect
from lake.errors import EnvironmentProblemError
from tests.k8s.conftest import config_map

PODS = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}


def write(path, **raw):
    path.write_text(yaml.safe_dump({"apiVersion": "v1", "kind": "Config", **raw}))
    return path


def kubeconfig_of(path, server="https://127.0.0.1:1", **user):
    return write(
        path,
        contexts=[{"name": "here", "context": {"cluster": "one", "user": "me"}}],
        clusters=[{"name": "one", "cluster": {"server": server}}],
        users=[{"name": "me", "user": user}],
        **{"current-context": "here"},
    )


def test_a_kubeconfig_that_is_not_there_is_named_with_how_to_get_one(tmp_path, monkeypatch):
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nowhere"))
    with pytest.raises(
        EnvironmentProblemError, match=r"there is no .*nowhere; name one with --kubeconfig or KUBECONFIG"
    ):
        connect()


def test_a_context_that_is_unknown_is_told_with_those_there_are(tmp_path):
    with pytest.raises(EnvironmentProblemError, match="context: got 'her', allowed are: here; did you mean 'here'"):
        connect(kubeconfig_of(tmp_path / "config"), "her")


def test_a_kubeconfig_without_a_current_context_asks_for_one(tmp_path):
    contexts = [{"name": name, "context": {"cluster": "one", "user": "me"}} for name in ("left", "right")]
    path = write(tmp_path / "config", contexts=contexts)
    with pytest.raises(
        EnvironmentProblemError, match="it has no current context; choose one with --context: left, right"
    ):
        connect(path)


@pytest.mark.parametrize("text", ["a: [b", "", "contexts: 5", "- one"])
def test_a_broken_kubeconfig_is_named_and_never_a_traceback(tmp_path, text):
    path = tmp_path / "config"
    path.write_text(text)
    with pytest.raises(EnvironmentProblemError, match=str(path)):
        connect(path)


def test_a_context_whose_user_is_missing_is_told(tmp_path):
    path = write(
        tmp_path / "config",
        contexts=[{"name": "here", "context": {"cluster": "gone", "user": "me"}}],
        **{"current-context": "here"},
    )
    with pytest.raises(EnvironmentProblemError, match=r"name gone in .*clusters list"):
        connect(path)


def test_a_login_program_that_fails_is_told_with_its_own_words(tmp_path):
    login = {"apiVersion": "client.authentication.k8s.io/v1", "command": "no-such-login", "interactiveMode": "Never"}
    with pytest.raises(EnvironmentProblemError, match=r"its login program gives no credentials: .*no-such-login"):
        connect(kubeconfig_of(tmp_path / "config", exec=login))


def test_a_cluster_that_is_away_is_told_with_its_address(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    cluster = connect(kubeconfig_of(tmp_path / "config", f"https://127.0.0.1:{port}"))
    with pytest.raises(
        UnreachableError, match=rf"https://127.0.0.1:{port} \(context here\) can't be reached: .*refused"
    ):
        cluster.kind("v1", "Pod")


def test_a_cluster_with_a_strange_certificate_is_told(tmp_path, bare_cluster):
    cluster = connect(kubeconfig_of(tmp_path / "config", bare_cluster.address))
    with pytest.raises(UnreachableError, match="certificate verify failed"):
        cluster.kind("v1", "Pod")


def test_credentials_that_are_not_accepted_ask_for_a_login(tmp_path, kubeconfig, bare_cluster):
    raw = yaml.safe_load(Path(kubeconfig).read_text())
    raw["users"] = [{"name": one["name"], "user": {"token": "stale"}} for one in raw["users"]]
    path = tmp_path / "config"
    path.write_text(yaml.safe_dump(raw))
    with pytest.raises(PermissionProblemError, match=r"doesn't accept these credentials .*; log in again"):
        connect(path).get(bare_cluster.kind("v1", "ConfigMap"), "default", "x")


def test_a_missing_right_is_told_with_who_may_not_do_what_where(account, namespace, bare_cluster):
    poor = connect(account(PODS))
    kind = bare_cluster.kind("v1", "ConfigMap")
    assert poor.get(kind, namespace, "none") is None
    with pytest.raises(PermissionProblemError) as refused:
        poor.apply(config_map(namespace, "mine"))
    who = rf"system:serviceaccount:{namespace}:user-\d+"
    assert re.fullmatch(
        rf"ConfigMap {namespace}/mine: no permission: {who} may not patch configmaps in namespace {namespace}; have it "
        rf"granted by a Role, then `kubectl auth can-i patch configmaps -n {namespace}` says yes",
        str(refused.value),
    )


def test_a_quota_that_refuses_is_told_with_its_numbers(bare_cluster, namespace):
    metadata = {"name": "small", "namespace": namespace}
    none = {"hard": {"configmaps": "0"}}
    quota = {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": metadata, "spec": none}
    bare_cluster.create(quota)
    # a controller counts what there is, where one runs
    path = f"{bare_cluster.kind('v1', 'ResourceQuota').path(namespace, 'small')}/status"
    status = {"status": {**none, "used": {"configmaps": "0"}}}
    bare_cluster._call("PATCH", path, "quota", body=status, content="application/merge-patch+json")
    with pytest.raises(RefusedError) as refused:
        bare_cluster.create(config_map(namespace, "one"))
    assert "the namespace's quota refused it: exceeded quota: small, requested: configmaps=1" in str(refused.value)
    assert refused.value.exit_code == 2


def test_a_pod_that_is_not_confined_is_refused_by_the_policy_of_its_namespace(bare_cluster, namespace):
    label = {"pod-security.kubernetes.io/enforce": "restricted"}
    bare_cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": label}})
    metadata = {"name": "account", "namespace": namespace}
    bare_cluster.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
    spec = {"serviceAccountName": "account", "containers": [{"name": "one", "image": "one"}]}
    with pytest.raises(RefusedError, match='violates PodSecurity "restricted:latest"'):
        bare_cluster.create(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "wild", "namespace": namespace}, "spec": spec}
        )


def test_a_service_account_that_is_missing_is_told_with_what_makes_it(bare_cluster, namespace):
    spec = {"serviceAccountName": "ingest", "containers": [{"name": "one", "image": "one"}]}
    with pytest.raises(RefusedError, match='serviceaccount "ingest" not found; `lakehose k8s apply` makes it'):
        bare_cluster.create(
            {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "one", "namespace": namespace}, "spec": spec}
        )


def test_making_an_object_that_is_there_is_a_conflict(bare_cluster, namespace):
    bare_cluster.create(config_map(namespace, "twin"))
    with pytest.raises(ConflictError, match=f"ConfigMap {namespace}/twin: .*already exists"):
        bare_cluster.create(config_map(namespace, "twin"))


@pytest.mark.parametrize(
    ("code", "message", "kind", "told"),
    [
        (
            403,
            'admission webhook "v1.example" denied the request: no such team',
            RefusedError,
            "Pod one: the webhook v1.example refused it: no such team",
        ),
        (
            400,
            'admission webhook "v1.example" denied the request without explanation',
            RefusedError,
            "Pod one: the webhook v1.example refused it: without explanation",
        ),
        (
            500,
            'Internal error occurred: failed calling webhook "mutate.sparkoperator.k8s.io": no endpoints available',
            NotReadyError,
            "Pod one: the webhook mutate.sparkoperator.k8s.io doesn't answer",
        ),
        (429, "too many requests", NotReadyError, "Pod one: the cluster couldn't answer (429): too many requests"),
        (503, "apiserver is shutting down", NotReadyError, "Pod one: the cluster couldn't answer (503)"),
        (
            403,
            'pods "one" is forbidden: unable to create new content in namespace a because it is being terminated',
            NotReadyError,
            "Pod one: its namespace is being deleted",
        ),
    ],
)
def test_what_helps_depends_on_what_refused(code, message, kind, told):
    error = refusal(code, {"message": message}, "Pod one")
    assert type(error) is kind
    assert str(error).startswith(told)
