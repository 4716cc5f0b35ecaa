"""`lakehose deploy` as a person uses it, against a real API server that has controllers and a scheduler but no node."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.charts.conftest import write_declaration

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.charts.conftest import ApiServer

SYSTEM, EWR, BOS, POOLED = "lakehose-system", "acme-one-ewr", "acme-one-bos", "acme-one-pooled"
# where nothing runs, a webhook that must answer would refuse every job
HERE = ("--no-wait", "--set", "spark-operator.webhook.enable=false")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("lake")


@pytest.fixture(scope="module")
def lake(folder):
    return write_declaration(folder, "one", ewr="dedicated", jfk="pooled")


@pytest.fixture(scope="module")
def operator(charts_folder):
    return (*HERE, "--charts", charts_folder)


@dataclass(frozen=True)
class Bench:
    """What most tests need, at once."""

    server: ApiServer
    helm: str
    folder: Path
    lake: Path
    run: Callable[..., subprocess.CompletedProcess[str]]
    charts: Path

    def deploy(self, command, *arguments, lake=None, **more):
        """`lakehose deploy` with the operator's chart at hand."""
        return self.run(lake or self.lake, command, *HERE, "--charts", self.charts, *arguments, **more)

    def history(self, *arguments, **more):
        return revision(self.server, self.helm, *arguments, **more)

    def tenants(self, **tenants):
        write_declaration(self.folder, "one", **tenants)


@pytest.fixture(scope="module")
def bench(api_server, helm, folder, deploy, charts_folder):
    lake = write_declaration(folder, "one", ewr="dedicated", jfk="pooled")
    return Bench(api_server, helm, folder, lake, deploy, charts_folder)


FEW = {"ewr": "dedicated", "jfk": "pooled"}
MORE = {**FEW, "bos": "dedicated"}


def ok(done):
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def revision(api_server, helm, name="lakehose", namespace=SYSTEM):
    command = [helm, "--kubeconfig", str(api_server.kubeconfig), "history", name, "-n", namespace, "-o", "json"]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)[-1]


def watched(api_server, namespace="spark-operator"):
    """Namespaces that the operator was told of, and those in which it has a Role."""
    deployment = api_server.get("deployment", "spark-operator-controller", "-n", namespace)
    arguments = deployment["spec"]["template"]["spec"]["containers"][0]["args"]
    told = next(one.partition("=")[2] for one in arguments if one.startswith("--namespaces="))
    roles = api_server.get("role", "-A", "-l", "app.kubernetes.io/name=spark-operator")["items"]
    return set(told.split(",")), {one["metadata"]["namespace"] for one in roles} - {namespace}


@pytest.fixture(scope="module")
def without_operator(deploy, lake, api_server):
    """What is said before anything is installed, in a cluster that has never seen the operator."""
    api_server.kubectl("delete", "crd", "--all")
    return {
        "status": deploy(lake, "status"),
        "upgrade": deploy(lake, "upgrade", "--no-operator", "--no-wait"),
        "install": deploy(lake, "install", "--no-operator", "--no-wait", "--namespace", "bare"),
        "uninstall": deploy(lake, "uninstall"),
    }


@pytest.fixture(scope="module")
def installed(without_operator, deploy, lake, operator):
    return ok(deploy(lake, "install", *operator))


def test_where_nothing_is_installed_status_says_what_installs_it(without_operator):
    done = without_operator["status"]
    assert done.returncode == 1
    assert "nothing is installed there; `lakehose deploy install` does it" in done.stderr


def test_where_nothing_is_installed_there_is_nothing_to_upgrade(without_operator):
    done = without_operator["upgrade"]
    assert done.returncode == 2
    assert "nothing is installed there; `lakehose deploy install` does it" in done.stderr


def test_where_nothing_is_installed_uninstalling_is_no_error(without_operator):
    done = without_operator["uninstall"]
    assert done.returncode == 0, done.stderr
    assert "nothing is installed there" in done.stderr


def test_without_the_operator_the_sentence_names_what_brings_it(without_operator, api_server):
    done = without_operator["install"]
    assert done.returncode == 2
    assert "the cluster knows no ScheduledSparkApplication: the Spark Operator isn't installed" in done.stderr
    assert not {"bare", EWR} & api_server.names("namespace")


def test_one_command_installs_namespaces_operator_and_lake(installed, api_server):
    assert {EWR, POOLED, SYSTEM, "spark-operator"} <= api_server.names("namespace")
    assert api_server.names("scheduledsparkapplication", "-n", EWR) == {"ingest", "compact", "maintain"}
    assert api_server.names("serviceaccount", "-n", POOLED) == {"ingest", "compact", "maintain", "default"}
    assert "firehose" in api_server.names("statefulset", "-n", SYSTEM)
    assert "release lakehose-system/lakehose: 35 objects created" in installed.stderr


def test_the_operator_may_act_in_the_lakes_namespaces_only(installed, api_server):
    assert watched(api_server) == ({EWR, POOLED}, {EWR, POOLED})
    rules = api_server.get("clusterrole", "spark-operator-controller")["rules"]
    assert not any("pods" in one.get("resources", []) for one in rules)


def test_our_namespaces_take_no_pod_that_is_not_confined(installed, api_server):
    for name in (EWR, POOLED, SYSTEM, "spark-operator"):
        labels = api_server.get("namespace", name)["metadata"]["labels"]
        assert labels["pod-security.kubernetes.io/enforce"] == "restricted"


def test_installing_twice_changes_nothing(installed, bench):
    before = bench.history()["revision"]
    done = ok(bench.deploy("install"))
    assert done.stderr == "deploy: release lakehose-system/lakehose: unchanged\n"
    assert bench.history()["revision"] == before


def test_what_somebody_removed_is_put_back(installed, deploy, lake, operator, api_server):
    api_server.kubectl("delete", "poddisruptionbudget", "firehose", "-n", SYSTEM)
    done = ok(deploy(lake, "install", *operator))
    assert f"PodDisruptionBudget {SYSTEM}/firehose: somebody removed it; putting it back" in done.stderr
    assert "firehose" in api_server.names("poddisruptionbudget", "-n", SYSTEM)


def test_status_tells_what_is_not_ready_and_what_has_not_run(installed, deploy, lake):
    done = deploy(lake, "status")
    assert (done.returncode, done.stderr) == (1, "")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["StatefulSet", f"{SYSTEM}/firehose", "0/1"] in [line[:3] for line in lines]
    assert ["ingest", EWR, "*/5", "*", "*", "*", "*", "-", "-", "not", "run", "yet"] in lines
    assert any(line[:3] == ["spark-operator/spark-operator", "1", "deployed"] for line in lines)


def test_a_dry_run_prints_each_object_and_touches_none(installed, bench):
    before = bench.history()
    done = ok(bench.deploy("upgrade", "--dry-run", "--set", "firehose.replicas=2"))
    assert done.stdout == "+ Service firehose-1\n~ StatefulSet firehose\n"
    assert bench.history() == before


# -------------------------------------------------------------------------------------------------- tenants come and go


@pytest.fixture(scope="module")
def grown(installed, deploy, folder, operator):
    """A tenant more."""
    bigger = write_declaration(folder, "one", ewr="dedicated", bos="dedicated", jfk="pooled")
    done = ok(deploy(bigger, "upgrade", *operator))
    write_declaration(folder, "one", ewr="dedicated", jfk="pooled")
    return done


def test_a_new_tenant_gets_its_namespace_and_the_operator(grown, api_server):
    assert "ingest" in api_server.names("scheduledsparkapplication", "-n", BOS)
    assert watched(api_server) == ({BOS, EWR, POOLED}, {BOS, EWR, POOLED})


@pytest.fixture(scope="module")
def rolled_back(grown, deploy, lake):
    """Back again, without a folder of charts: the operator's is the one that is installed."""
    return ok(deploy(lake, "rollback", "--no-wait"))


def test_a_rollback_takes_the_tenant_out_with_its_namespace(rolled_back, api_server):
    assert "13 objects removed" in rolled_back.stderr
    assert watched(api_server) == ({EWR, POOLED}, {EWR, POOLED})
    api_server.kubectl("wait", "--for=delete", f"namespace/{BOS}", "--timeout=60s")


def test_a_revision_that_is_not_there_is_told_with_those_there_are(rolled_back, deploy, lake):
    done = deploy(lake, "rollback", "99", "--no-wait")
    assert done.returncode == 2
    assert "got revision 99, there are: 1 (superseded), 2 (superseded)" in done.stderr


def test_a_namespace_that_holds_somebody_elses_secret_stays_and_says_so(rolled_back, bench):
    bench.tenants(**MORE)
    ok(bench.deploy("upgrade"))
    bench.server.kubectl("create", "secret", "generic", "theirs", "-n", BOS)
    bench.tenants(**FEW)
    done = ok(bench.deploy("upgrade"))
    assert f"namespace {BOS} stays: it holds what lakehose didn't make (Secret theirs)" in done.stderr
    assert bench.server.names("scheduledsparkapplication", "-n", BOS) == set()
    assert "theirs" in bench.server.names("secret", "-n", BOS)


# --------------------------------------------------------------------------------------------- what is refused, and how


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--set", "firehose.replicas=two"), "firehose.replicas: got string, want integer"),
        (("--set", "firehose.replica=2"), "firehose: additional properties 'replica' not allowed"),
        (("--set", "lake.company=other"), "it follows from lake.yaml; change that"),
        (("--timeout", "soon"), "--timeout soon: give a number with s, m or h"),
        (("--pod-endpoint", "10.0.0.1:4566"), "got '10.0.0.1:4566', a URL that begins with http"),
        (("--atomic",), "--atomic needs to wait: leave --no-wait out"),
        (("--context", "nope"), "got 'nope', allowed are: test"),
        (("--values", "/none.yaml"), "--values /none.yaml: can't be read"),
    ],
)
def test_a_bad_value_is_told_and_changes_nothing(rolled_back, bench, arguments, told):
    before = bench.history()
    done = bench.deploy("upgrade", *arguments)
    assert done.returncode == 2, done.stdout + done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert bench.history() == before


def test_kinds_of_prometheus_that_are_not_there_are_named(rolled_back, bench):
    done = bench.deploy("upgrade", "--set", "monitoring.rules.enabled=true")
    assert done.returncode == 2
    assert "the cluster knows no PrometheusRule: the Prometheus Operator isn't installed" in done.stderr


def test_who_may_not_is_named_with_what_is_lacking(rolled_back, bench, tmp_path):
    server = bench.server
    token = server.kubectl("create", "token", "default", "-n", "default").stdout.strip()
    config = yaml.safe_load(server.kubeconfig.read_text())
    config["users"] = [{"name": "admin", "user": {"token": token}}]
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    done = bench.deploy("upgrade", kubeconfig=tmp_path / "kubeconfig")
    assert done.returncode == 2
    assert "system:serviceaccount:default:default may not" in done.stderr
    # one that may see everything and change nothing gets further, and is told what it may not change
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "sees-all"}}
    rules = [{"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list", "watch"]}]
    server.kubectl("apply", "-f", "-", text=json.dumps({**role, "rules": rules}))
    bound = ("--clusterrole=sees-all", "--serviceaccount=default:default")
    server.kubectl("create", "clusterrolebinding", "sees-all", *bound)
    done = bench.deploy("upgrade", kubeconfig=tmp_path / "kubeconfig")
    server.kubectl("delete", "clusterrolebinding", "sees-all")
    assert done.returncode == 2
    assert "no permission: system:serviceaccount:default:default may not create namespaces" in done.stderr
    assert f"create secrets in {SYSTEM}" in done.stderr


def test_a_cluster_that_is_not_there_is_told(deploy, lake, api_server, tmp_path):
    away = tmp_path / "kubeconfig"
    away.write_text(api_server.kubeconfig.read_text().replace("https://localhost", "https://127.0.0.9"))
    done = deploy(lake, "status", kubeconfig=away)
    assert done.returncode == 1
    assert "can't be reached" in done.stderr


def test_a_release_that_helm_could_not_keep_is_refused_before_anything_is_touched(rolled_back, bench, tmp_path):
    large = write_declaration(tmp_path, "large", **FEW)
    contract = tmp_path / "contracts" / "flights.yaml"
    # noise, which doesn't compress
    contract.write_text(f"{contract.read_text()}\n# {secrets.token_hex(450_000)}\n")
    done = bench.deploy("install", "--namespace", "large-system", lake=large)
    assert done.returncode == 2
    assert "Helm keeps a release in a Secret of at most 1,048,576; about" in done.stderr
    assert not {"large-system", "acme-large-ewr"} & bench.server.names("namespace")


def test_objects_that_kubectl_made_are_left_alone_until_they_are_to_be_adopted(rolled_back, bench, tmp_path):
    other = write_declaration(tmp_path, "two", jfk="pooled")
    values = yaml.safe_load(bench.run(other, "values").stdout)
    text = "---\n".join(yaml.safe_dump(one) for one in values["lake"]["objects"])
    bench.server.kubectl("apply", "-f", "-", text=text)
    done = bench.deploy("install", "--namespace", "two-system", lake=other)
    assert done.returncode == 2
    assert "namespace acme-two-pooled: it is there already and belongs to no release of Helm's; --adopt" in done.stderr
    ok(bench.deploy("install", "--namespace", "two-system", "--adopt", lake=other))
    assert bench.history(namespace="two-system")["status"] == "deployed"
    # the operator now acts for both lakes
    assert watched(bench.server)[0] == {EWR, POOLED, "acme-two-pooled"}
    ok(bench.run(other, "uninstall", "--no-wait", "--namespace", "two-system"))
    assert watched(bench.server)[0] == {EWR, POOLED}


def test_a_change_that_was_cut_off_keeps_others_out_and_is_undone_later(rolled_back, bench, bare_chart):
    config = ["--kubeconfig", str(bench.server.kubeconfig)]
    # a change that takes out all tenants' jobs, and was to bring something of its own
    added = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "added", "namespace": SYSTEM}}
    command = [bench.helm, *config, "upgrade", "lakehose", str(bare_chart), "-n", SYSTEM]
    values = ["--set-json", f"lake.objects={json.dumps([added])}"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([*command, "--wait", *values], **quiet) as cut:
        deadline = time.monotonic() + 60
        while bench.history()["status"] != "pending-upgrade":
            assert time.monotonic() < deadline
            time.sleep(0.2)
        os.kill(cut.pid, signal.SIGKILL)
    done = bench.deploy("upgrade")
    assert done.returncode == 1
    assert "another change of it is under way (pending-upgrade since" in done.stderr
    time.sleep(2)
    if "added" not in bench.server.names("configmap", "-n", SYSTEM):  # it came far enough or not
        bench.server.kubectl("create", "configmap", "added", "-n", SYSTEM)
    done = ok(bench.deploy("upgrade", "--timeout", "1s"))
    assert "a change was cut off (pending-upgrade); undoing it" in done.stderr
    assert bench.history()["status"] == "deployed"
    assert "added" not in bench.server.names("configmap", "-n", SYSTEM)
    assert bench.server.names("scheduledsparkapplication", "-n", EWR) == {"ingest", "compact", "maintain"}


@pytest.fixture(scope="module")
def stuck(rolled_back, deploy, api_server, tmp_path_factory):
    """Two installations whose pods can't come up, at the same time; with how long each took."""
    api_server.kubectl("create", "namespace", "tight-system")
    api_server.kubectl("create", "quota", "none", "--hard=pods=0", "-n", "tight-system")
    class_less = ("--set", "firehose.storage.storageClassName=none-such")

    def install(name, *arguments):
        lake = write_declaration(tmp_path_factory.mktemp(name), name, jfk="pooled")
        began = time.monotonic()
        given = ("--no-operator", "--namespace", f"{name}-system", "--timeout", "10m", *arguments)
        return deploy(lake, "install", *given), time.monotonic() - began

    with ThreadPoolExecutor(2) as pool:
        loose, tight = pool.submit(install, "loose", *class_less), pool.submit(install, "tight")
        return {"loose": loose.result(), "tight": tight.result()}


def test_a_pod_that_can_not_come_up_ends_the_wait_early_with_the_reason(stuck, api_server, helm):
    done, seconds = stuck["loose"]
    assert done.returncode == 1
    assert "deploy: pod firehose-0: pending\n" in done.stderr
    assert 'it has no volume: storageclass.storage.k8s.io "none-such" not found' in done.stderr
    assert seconds < 180
    assert revision(api_server, helm, namespace="loose-system")["status"] == "failed"


def test_a_quota_that_lets_no_pod_be_made_is_told(stuck):
    done, seconds = stuck["tight"]
    assert done.returncode == 1
    assert "StatefulSet firehose: it can't make its pod" in done.stderr
    assert "exceeded quota: none" in done.stderr
    assert seconds < 180


def test_an_operator_of_somebody_elses_has_to_act_in_the_lakes_namespaces(rolled_back, bench, stuck):
    ok(bench.run(bench.lake, "uninstall", "--no-wait"))
    assert "spark-operator" not in bench.server.names("namespace", "--field-selector", "status.phase=Active")
    helm = [bench.helm, "--kubeconfig", str(bench.server.kubeconfig)]
    chart = str(bench.charts / "spark-operator-chart")
    command = [*helm, "upgrade", "--install", "theirs", chart, "-n", "theirs", "--create-namespace"]
    settings = ("webhook.enable=false,spark.jobNamespaces={%s}", "default", f"default,{EWR},{POOLED}")
    subprocess.run([*command, "--set", settings[0] % settings[1]], check=True, capture_output=True)
    done = bench.deploy("install")
    assert done.returncode == 2
    assert f"(release theirs/theirs: default); add to its spark.jobNamespaces: {EWR}, {POOLED}" in done.stderr
    subprocess.run([*command, "--set", settings[0] % settings[2]], check=True, capture_output=True)
    done = ok(bench.deploy("install"))
    assert "Spark Operator: using what is there (release theirs/theirs)" in done.stderr
    ok(bench.run(bench.lake, "uninstall", "--no-wait", "--delete-data"))
    # and it is left as it is
    assert "theirs-spark-operator-controller" in bench.server.names("deployment", "-n", "theirs")
    subprocess.run([*helm, "uninstall", "theirs", "-n", "theirs"], check=True, capture_output=True)


# ----------------------------------------------------------------------------------------------------------- plain helm


def test_an_endpoint_of_this_machine_is_not_given_to_pods(deploy, lake):
    done = deploy(lake, "values", endpoint="http://127.0.0.1:4566")
    assert done.returncode == 2
    assert "pods can't reach it: give --pod-endpoint" in done.stderr
    done = ok(deploy(lake, "values", "--pod-endpoint", "http://10.0.0.1:4566", endpoint="http://127.0.0.1:4566"))
    assert yaml.safe_load(done.stdout)["firehose"]["s3Endpoint"] == "http://10.0.0.1:4566"


def test_the_printed_values_are_enough_for_plain_helm(deploy, lake, helm, bare_chart, tmp_path):
    done = ok(deploy(lake, "values", "--set", "firehose.replicas=2"))
    (tmp_path / "values.yaml").write_text(done.stdout)
    command = [helm, "template", "lakehose", str(bare_chart), "--values", str(tmp_path / "values.yaml")]
    rendered = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = [one for one in yaml.safe_load_all(rendered) if one]
    assert {one["metadata"]["name"] for one in found if one["kind"] == "Namespace"} == {EWR, POOLED}
    assert yaml.safe_load(done.stdout)["spark-operator"]["spark"]["jobNamespaces"] == [EWR, POOLED]
    assert yaml.safe_load(done.stdout)["firehose"]["replicas"] == 2
