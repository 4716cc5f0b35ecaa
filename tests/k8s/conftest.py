"""Fixtures of the Kubernetes tests: a real API server that knows the operator's kinds, a namespace for each test."""

from __future__ import annotations

import itertools
import os
import select
import socket
import subprocess
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
import yaml

from k8s.errors import NotFoundError
from k8s.kubeconfig import connect
from k8s.runs import APPLICATION
from tests.cluster_tools import SCRIPTS, ClusterProblemError, no_cluster, operator_chart, start_cluster

ROOT = Path(__file__).parents[2]
_numbers = itertools.count(1)


def _not_built():
    """The scripts compile Kubernetes, which takes longer than a test may; whoever runs the tests does it before."""
    cache = Path(os.environ.get("KUBE_CACHE") or Path.home() / ".cache" / "local-kube")
    return not any((cache / "bin").glob("kube-v*"))


@pytest.fixture(scope="session")
def kubeconfig():
    """Of a running API server; one that was not up before is ended again."""
    reason = no_cluster()
    if not reason and not os.environ.get("KUBECONFIG") and _not_built():
        reason = f"Kubernetes isn't built yet: run {SCRIPTS / 'cluster-up'} once"
    if reason:
        pytest.skip(f"no API server: {reason}")
    given = os.environ.get("KUBECONFIG")
    was_up = bool(given) or _answers()
    yield start_cluster("api").kubeconfig
    if not was_up:
        subprocess.run([str(SCRIPTS / "cluster-down")], env={**os.environ, "KEEP": "1"}, check=False, timeout=120)


def _answers():
    state = Path(os.environ.get("KUBE_STATE") or "/var/lib/local-kube")
    command = ["kubectl", "--kubeconfig", str(state / "kubeconfig"), "get", "--raw", "/readyz"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="session")
def bare_cluster(kubeconfig):
    """The cluster, whether it knows the operator's kinds or not."""
    found = connect(kubeconfig)
    yield found
    found.close()


@pytest.fixture(scope="session")
def cluster(bare_cluster):
    """The cluster, which knows the operator's kinds; where they had to be made they are removed again."""
    made = [] if _knows(bare_cluster) else _operator_kinds()
    for one in made:
        bare_cluster.apply(one)
    deadline = time.monotonic() + 30
    while not _knows(bare_cluster):
        assert time.monotonic() < deadline
        time.sleep(0.2)
    yield bare_cluster
    for one in made:
        bare_cluster.delete(one)


def _knows(cluster):
    try:
        return bool(cluster.kind(*APPLICATION))
    except NotFoundError:
        return False


def _operator_kinds():
    try:
        folder = operator_chart() / "crds"
    except (OSError, subprocess.CalledProcessError, ClusterProblemError) as error:
        pytest.skip(f"the cluster lacks the Spark Operator's kinds, and they can't be fetched: {error}")
    return [yaml.safe_load(path.read_text()) for path in sorted(folder.glob("*.yaml"))]


@pytest.fixture
def namespace(bare_cluster):
    """A namespace of the test's own."""
    name = f"a-test-{os.getpid()}-{next(_numbers)}"
    made = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
    bare_cluster.create(made)
    yield name
    bare_cluster.delete(made)


@pytest.fixture
def lake_folder(tmp_path):
    """A declaration under an environment of the test's own, with one dedicated tenant and two pooled."""

    def make(**parts):
        raw = yaml.safe_load((ROOT / "lake.yaml").read_text())
        raw |= {"environment": f"t{os.getpid() % 100_000}x{next(_numbers)}", **parts}
        (tmp_path / "contracts").mkdir(exist_ok=True)
        (tmp_path / "contracts" / "flights.yaml").write_text((ROOT / "contracts" / "flights.yaml").read_text())
        path = tmp_path / "lake.yaml"
        path.write_text(yaml.safe_dump(raw, sort_keys=False))
        return path

    return make


@pytest.fixture
def swept(bare_cluster):
    """Removes, at the end, whatever carries the labels of the lakes it was told."""
    lakes = []
    yield lakes.append
    for lake in lakes:
        selector = f"lakehose.dev/lake={lake.company}-{lake.environment}"
        for kind in (("scheduling.k8s.io/v1", "PriorityClass"), ("v1", "Namespace")):
            for one in bare_cluster.list(bare_cluster.kind(*kind), None, labelSelector=selector)["items"]:
                bare_cluster.delete(one)


@pytest.fixture
def account(bare_cluster, kubeconfig, namespace, tmp_path):
    """Makes a kubeconfig of a service account in the test's namespace that may do what the rules say."""

    def make(*rules):
        name = f"user-{next(_numbers)}"
        metadata = {"name": name, "namespace": namespace}
        group = "rbac.authorization.k8s.io"
        bare_cluster.create({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata})
        bare_cluster.create({"apiVersion": f"{group}/v1", "kind": "Role", "metadata": metadata, "rules": list(rules)})
        bare_cluster.create(
            {
                "apiVersion": f"{group}/v1",
                "kind": "RoleBinding",
                "metadata": metadata,
                "roleRef": {"apiGroup": group, "kind": "Role", "name": name},
                "subjects": [{"kind": "ServiceAccount", **metadata}],
            }
        )
        done = subprocess.run(
            ["kubectl", "--kubeconfig", str(kubeconfig), "create", "token", name, "-n", namespace],
            capture_output=True,
            text=True,
            check=True,
        )
        raw = yaml.safe_load(Path(kubeconfig).read_text())
        raw["users"] = [{"name": one["name"], "user": {"token": done.stdout.strip()}} for one in raw["users"]]
        path = tmp_path / f"{name}.kubeconfig"
        path.write_text(yaml.safe_dump(raw))
        return path

    return make


class Cutter:
    """A relay to the API server on a port of this machine, whose connections a test can cut."""

    def __init__(self, host, port):
        self._target = (host, port)
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port = self._server.getsockname()[1]
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        with suppress(OSError):
            while True:
                inner, _ = self._server.accept()
                outer = socket.create_connection(self._target)
                with self._lock:
                    self._open += [inner, outer]
                threading.Thread(target=self._relay, args=(inner, outer), daemon=True).start()

    @staticmethod
    def _relay(inner, outer):
        with suppress(OSError, ValueError):
            while True:
                ready, _, _ = select.select([inner, outer], [], [])
                for one in ready:
                    data = one.recv(65536)
                    if not data:
                        return
                    (outer if one is inner else inner).sendall(data)

    def cut(self):
        """Break every connection, as a network does: with a reset."""
        with self._lock:
            for one in self._open:
                with suppress(OSError):
                    one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                    one.shutdown(socket.SHUT_RDWR)
                    one.close()
            count = len(self._open) // 2
            self._open.clear()
        return count

    def close(self):
        self.cut()
        self._server.close()


@pytest.fixture
def cutter(bare_cluster, kubeconfig, tmp_path):
    """A relay, and the cluster as it is seen through it."""
    host, _, port = bare_cluster.address.removeprefix("https://").rpartition(":")
    relay = Cutter(host, int(port))
    raw = yaml.safe_load(Path(kubeconfig).read_text())
    for one in raw["clusters"]:
        one["cluster"] |= {"server": f"https://127.0.0.1:{relay.port}", "tls-server-name": host}
    path = tmp_path / "relay.kubeconfig"
    path.write_text(yaml.safe_dump(raw))
    yield relay, connect(path)
    relay.close()


def config_map(namespace, name, **data):
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}
