"""Owns what the cluster's tests share: one cluster with the operator in it, one endpoint, and lakes to run on both."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from lake.clients import Cloud
from lake.declaration import Lake, read_lake
from lake.tables import glue_catalog
from tests.cluster_tools import (
    LAKEHOSE,
    ROOT,
    SCRIPTS,
    Cluster,
    cluster_images,
    helm_program,
    no_cluster,
    operator_chart,
    start_cluster,
    until,
)

SMALL = {"driver": {"memory_mib": 768, "cpu": "250m"}, "executor": {"cores": 1, "memory_mib": 640, "cpu": "250m"}}
"""Two cores run the cluster, the endpoint and all pods."""
OPERATOR_NAMESPACE = "spark-operator"
WATCHED = tuple(f"acme-{lake}-{owner}" for lake in ("walls", "runs", "faults") for owner in ("ewr", "pooled"))
"""Namespaces of the lakes whose jobs the shared operator runs."""
TRIAL = {
    "type": "Python",
    "sparkVersion": "4.1.4",
    "mainApplicationFile": "local:///trial.py",
    "driver": {},
    "executor": {},
}
"""The least that the API server takes for an application."""
DEPLOYED = ("lakehose-system", OPERATOR_NAMESPACE, *(f"acme-chart-{owner}" for owner in ("ewr", "jfk", "pooled")))
"""Namespaces of the lake that is deployed as a whole."""
_OF_THE_ROAD = ["_object", "_batch"]
"""Columns that tell how a row came, which differs from run to run."""


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.cluster)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def cluster():
    """A running cluster; one that was not up before is ended again."""
    reason = no_cluster()
    if reason:
        pytest.skip(f"no cluster: {reason}")
    kubeconfig = "/var/lib/local-kube/kubeconfig"
    was_up = (
        bool(os.environ.get("KUBECONFIG"))
        or not subprocess.run(
            ["kubectl", "--kubeconfig", kubeconfig, "get", "--raw", "/readyz"], capture_output=True, check=False
        ).returncode
    )
    found = start_cluster()
    taken = {one["metadata"]["name"] for one in found.get("namespaces")} & {*WATCHED, *DEPLOYED}
    if taken and not found.local:
        pytest.skip(f"the cluster has {', '.join(sorted(taken))}, which these tests would remove: give one for tests")
    yield found
    if not was_up and not os.environ.get("KEEP_CLUSTER"):
        subprocess.run([str(SCRIPTS / "cluster-down")], env={**os.environ, "KEEP": "1"}, check=False, timeout=120)


@pytest.fixture(scope="session")
def images(cluster):
    """The product's images, in the cluster."""
    return cluster_images(cluster)


@pytest.fixture(scope="session")
def helm(cluster):
    """Runs helm on the cluster."""
    program = helm_program()

    def run(*arguments, text=None, check=True):
        command = [str(program), *map(str, arguments)]
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, check=False, timeout=300, env=cluster.environment()
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    run.program = program
    return run


@pytest.fixture(scope="session")
def operator_values(images):
    """What the operator's chart has to be told to run from the image that the cluster has."""
    registry, repository, tag = re.fullmatch(r"(?:(.+)/)?([^/]+):(.+)", images.operator).groups()
    pull = "Never" if registry == "local" else "IfNotPresent"
    return {"image": {"registry": registry or "", "repository": repository, "tag": tag, "pullPolicy": pull}}


@pytest.fixture(scope="session")
def watched(cluster):
    """The namespaces of the lakes whose jobs the shared operator runs."""

    def gone():
        return not {one["metadata"]["name"] for one in cluster.get("namespaces")} & {*WATCHED}

    # of an earlier session, perhaps still on their way out
    cluster.kubectl("delete", "namespace", *WATCHED, "--wait=false", "--ignore-not-found", check=False)
    until(gone, 180, "namespaces of an earlier session to go")
    cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": one}} for one in WATCHED)
    yield WATCHED
    cluster.kubectl("delete", "namespace", *WATCHED, "--wait=false", "--ignore-not-found", check=False)


@pytest.fixture(scope="module")
def operator(cluster, watched, helm, operator_values):
    """The Spark Operator, allowed the namespaces of the tests' lakes and no others."""
    spark = {"jobNamespaces": list(watched), "serviceAccount": {"create": False}, "rbac": {"create": False}}
    values = json.dumps({**operator_values, "spark": spark})
    given = ("spark-operator", operator_chart(), "-n", OPERATOR_NAMESPACE, "--create-namespace")
    helm("upgrade", "--install", *given, "--values", "-", "--wait", "--timeout", "3m", text=values)
    # its webhook is ready before the API server has been told the certificate it goes by
    trial = {"apiVersion": "sparkoperator.k8s.io/v1beta2", "kind": "SparkApplication", "spec": TRIAL}
    text = json.dumps({**trial, "metadata": {"name": "trial", "namespace": watched[0]}})
    until(
        lambda: not cluster.kubectl("create", "--dry-run=server", "-f", "-", text=text, check=False).returncode,
        60,
        lambda: cluster.kubectl("create", "--dry-run=server", "-f", "-", text=text, check=False).stderr,
    )
    yield
    # `lakehose deploy` has to find none when it is its turn
    helm("uninstall", "spark-operator", "-n", OPERATOR_NAMESPACE, "--wait", check=False)


@dataclass(frozen=True)
class Endpoint:
    """The local AWS of the tests."""

    here: str
    """URL on this machine."""
    for_pods: str
    """URL in the cluster."""

    @property
    def cloud(self):
        return Cloud("us-east-1", self.here)


@pytest.fixture(scope="session")
def endpoint(cluster, tmp_path_factory):
    """An endpoint of the tests' own, which pods can reach."""
    state, port = tmp_path_factory.mktemp("endpoint") / "state", free_port()
    done = lakehose("local", "up", "--port", str(port), "--state", str(state))
    assert done.returncode == 0, done.stderr
    yield Endpoint(f"http://127.0.0.1:{port}", cluster.url_for_pods(port))
    lakehose("local", "reset", "--state", str(state))


def lakehose(*arguments, timeout=600, **environment):
    """The command as a user runs it; answers the finished process."""
    clean = {name: value for name, value in os.environ.items() if name != "AWS_ENDPOINT_URL"}
    return subprocess.run(
        [*LAKEHOSE, *map(str, arguments)],
        cwd=ROOT,
        env={**clean, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
    )


@dataclass
class LiveLake:
    """A lake that is applied to the endpoint, and whose jobs may run in the cluster or on this machine."""

    path: Path
    cluster: Cluster
    endpoint: Endpoint
    spools: Path
    namespaces: set[str] = field(default_factory=set)

    @property
    def lake(self) -> Lake:
        return read_lake(self.path)

    @property
    def cloud(self) -> Cloud:
        return self.endpoint.cloud

    def change(self, **parts):
        """Declare it otherwise: top-level keys, where a mapping is merged over what is there."""
        raw = yaml.safe_load(self.path.read_text())
        for key, value in parts.items():
            raw[key] = {**raw.get(key, {}), **value} if isinstance(value, dict) else value
        self.path.write_text(yaml.safe_dump(raw, sort_keys=False))

    def run(self, *arguments, **options):
        """`lakehose` with this lake, its endpoint and the cluster."""
        return self.command("--lake", self.path, "--endpoint", self.endpoint.here, *arguments, **options)

    def command(self, *arguments, **options):
        """`lakehose` with the cluster alone."""
        return lakehose(*arguments, KUBECONFIG=str(self.cluster.kubeconfig), **options)

    def done(self, *arguments, **options):
        """The same, which has to go well; answers what it printed."""
        done = self.run(*arguments, **options)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @property
    def pods(self) -> tuple[str, ...]:
        """Options under which pods find the endpoint."""
        return ("--pod-endpoint", self.endpoint.for_pods)

    @property
    def manifests(self) -> Path:
        """Folder of the rendered manifests."""
        return self.path.parent / "manifests"

    def apply_manifests(self):
        """Render the manifests into a folder and apply them as a person does, with pods' credentials beside them."""
        self.namespaces.update(one.namespace for one in self.lake.workspaces())
        self.done("k8s", "render", "--output", self.manifests, *self.pods)
        self.cluster.kubectl("apply", "-f", str(self.manifests))
        self.give_credentials(*self.namespaces)

    def give_credentials(self, *namespaces):
        """The Secret with which pods may use the endpoint, which takes any."""
        data = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}
        secret = {"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "stringData": data}
        self.cluster.apply({**secret, "metadata": {"name": "aws", "namespace": one}} for one in namespaces)

    def suspend(self, namespace, job, value=True):  # noqa: FBT002 - reads as a sentence
        """Stop a job's schedule, or let it go on."""
        patch = json.dumps({"spec": {"suspend": value}})
        self.cluster.kubectl("patch", "scheduledsparkapplication", job, "-n", namespace, "--type=merge", "-p", patch)

    def push(self, events, *tenants):
        """Have the sites push the first `events` flights of 2013, bad ones among them, and flush the streams."""
        sites = [
            subprocess.Popen(
                [
                    *(sys.executable, "-m", "demo.site", "--tenant", tenant, "--events", str(events)),
                    *("--spool", str(self.spools / tenant), "--lake", str(self.path), "--endpoint", self.endpoint.here),
                ],
                cwd=ROOT,
                env={**os.environ, **self.cloud.environment()},
                stdout=subprocess.DEVNULL,
            )
            for tenant in tenants or [one.id for one in self.lake.tenants]
        ]
        assert [site.wait(300) for site in sites] == [0] * len(sites)
        self.done("firehose", "flush")

    def rows(self, tenant):
        """A tenant's rows without what tells of objects and batches, ordered by event."""
        table = glue_catalog(self.cloud).load_table((self.lake.names.database(tenant), "flights"))
        found = table.scan().to_arrow().drop_columns(_OF_THE_ROAD)
        return found.sort_by("event_id").to_pylist()

    def files(self, tenant):
        """How many data files a tenant's table has."""
        table = glue_catalog(self.cloud).load_table((self.lake.names.database(tenant), "flights"))
        return len(list(table.scan().plan_files()))

    def audit(self):
        """The balance sheet, and the exit status of the command that drew it up."""
        done = self.run("audit", "--json")
        return json.loads(done.stdout)[0], done.returncode


@pytest.fixture(scope="module")
def make_lake(cluster, images, endpoint, tmp_path_factory):
    """Makes lakes of an environment's name, applied to the endpoint; what the cluster has of them goes at the end."""
    made: list[LiveLake] = []

    def make(environment, *, tenants=None, jobs=None, apply=True):
        folder = tmp_path_factory.mktemp(environment)
        shutil.copytree(ROOT / "contracts", folder / "contracts")
        raw = {
            "company": "acme",
            "environment": environment,
            "region": "us-east-1",
            "tenants": tenants or {"ewr": {"tier": "dedicated"}, "jfk": {"tier": "pooled"}, "lga": {"tier": "pooled"}},
            "datasets": {"flights": {"contract": "contracts/flights.yaml"}},
            "jobs": {
                name: {**SMALL, "executors": {"least": 1, "most": 1}, **(jobs or {}).get(name, {})}
                for name in ("ingest", "compact", "maintain")
            },
            "kubernetes": {
                "image": images.jobs,
                "firehose_image": images.firehose,
                "pull_policy": "Never" if cluster.local else "IfNotPresent",
                "credentials_secret": "aws",
            },
        }
        path = folder / "lake.yaml"
        path.write_text(yaml.safe_dump(raw, sort_keys=False))
        one = LiveLake(path, cluster, endpoint, folder / "spools")
        made.append(one)
        if apply:
            one.done("apply")
        return one

    yield make
    for one in made:
        for namespace in one.namespaces:
            kinds = "scheduledsparkapplications,sparkapplications"
            cluster.kubectl("delete", kinds, "--all", "-n", namespace, "--ignore-not-found", check=False)
            if namespace not in WATCHED:
                cluster.kubectl("delete", "namespace", namespace, "--wait=false", "--ignore-not-found", check=False)
        names = {f"acme-{one.lake.environment}-{tier}" for tier in ("dedicated", "pooled")}
        cluster.kubectl("delete", "priorityclass", *names, "--ignore-not-found", check=False)
