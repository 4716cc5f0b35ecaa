"""Fixtures of the charts' tests: helm, and an API server of the session's own that nothing else is installed in."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from charts.cluster import connect
from charts.helm import Access
from tests.cluster_tools import ClusterProblemError, operator_chart

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "lakehose"
PROMETHEUS = "github.com/prometheus-operator/prometheus-operator@v0.79.2"
_PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler")


def _cache():
    return Path(os.environ.get("KUBE_CACHE") or Path.home() / ".cache" / "local-kube") / "bin"


def _program(name):
    """A program of Kubernetes: where envtest keeps its own, on PATH, or as the cluster's scripts have built it."""
    places = [os.environ.get("KUBEBUILDER_ASSETS", "/usr/local/kubebuilder/bin"), os.environ["PATH"], str(_cache())]
    return shutil.which(name, path=os.pathsep.join(places))


@pytest.fixture(scope="session")
def helm():
    """The helm program."""
    found = _program("helm")
    if found is None:
        pytest.skip("no helm on PATH, and none was built")
    return found


@pytest.fixture(scope="session")
def charts_folder():
    """A folder that holds the Spark Operator's chart."""
    try:
        return operator_chart().parent
    except (OSError, subprocess.CalledProcessError, ClusterProblemError) as error:
        pytest.skip(f"the Spark Operator's chart can't be fetched: {error}")


@pytest.fixture(scope="session")
def bare_chart(tmp_path_factory):
    """Our chart without its dependencies, as helm takes it without a network."""
    copy = tmp_path_factory.mktemp("chart") / "lakehose"
    shutil.copytree(CHART, copy)
    about = yaml.safe_load((copy / "Chart.yaml").read_text())
    del about["dependencies"]
    (copy / "Chart.yaml").write_text(yaml.safe_dump(about))
    return copy


@pytest.fixture(scope="session")
def template(helm, bare_chart):
    """Renders our chart; answers the objects, or the finished process of what was refused."""

    def run(values=None, *, check=True):
        command = [helm, "template", "lakehose", str(bare_chart), "--namespace", "lakehose-system", "--values", "-"]
        done = subprocess.run(command, input=json.dumps(values or {}), capture_output=True, text=True, check=False)
        if not check:
            return done
        assert done.returncode == 0, done.stderr
        return [one for one in yaml.safe_load_all(done.stdout) if one]

    return run


@dataclass(frozen=True)
class ApiServer:
    """A running API server, with the controllers that make pods, and a scheduler that has no node for them."""

    kubeconfig: Path
    folder: Path

    @property
    def access(self):
        return Access(self.kubeconfig)

    def kubectl(self, *arguments, text=None, check=True):
        return subprocess.run(
            ["kubectl", "--kubeconfig", str(self.kubeconfig), *arguments],
            input=text,
            capture_output=True,
            text=True,
            check=check,
            timeout=120,
        )

    def get(self, *arguments):
        return json.loads(self.kubectl("get", *arguments, "-o", "json").stdout)

    def names(self, *arguments):
        return {one["metadata"]["name"] for one in self.get(*arguments)["items"]}


def _free_ports(count):
    probes = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in probes]
    for one in probes:
        one.close()
    return ports


@contextmanager
def _running(folder, name, *arguments):
    with (folder / f"{name}.log").open("wb") as out:
        process = subprocess.Popen(
            [_program(name), *arguments], stdout=out, stderr=out, stdin=subprocess.DEVNULL, cwd=folder
        )
    try:
        yield process
    finally:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(10)
        process.kill()


def _certify(folder):
    names = "subjectAltName=DNS:localhost,IP:127.0.0.1,DNS:kubernetes.default.svc"
    files = ("-keyout", str(folder / "server.key"), "-out", str(folder / "server.crt"))
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    subprocess.run([*command, "-addext", names, *files], check=True, capture_output=True)


def _kubeconfig(folder, port, token):
    user = {"name": "admin", "user": {"token": token}}
    authority = base64.b64encode((folder / "server.crt").read_bytes()).decode()
    place = {"server": f"https://localhost:{port}", "certificate-authority-data": authority}
    found = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "admin"}}],
        "clusters": [{"name": "test", "cluster": place}],
        "users": [user],
    }
    path = folder / "kubeconfig"
    path.write_text(yaml.safe_dump(found))
    return path


@pytest.fixture(scope="session")
def api_server(tmp_path_factory):
    """An API server that nothing is installed in; needs no root, and touches no other cluster."""
    lacking = [name for name in (*_PROGRAMS, "kubectl", "openssl") if _program(name) is None]
    if lacking:
        pytest.skip(f"no {', '.join(lacking)} (KUBEBUILDER_ASSETS or PATH)")
    folder = tmp_path_factory.mktemp("kube")
    client, peer, port, manager, scheduler = _free_ports(5)
    key = str(folder / "accounts.key")
    subprocess.run(["openssl", "genrsa", "-out", key, "2048"], check=True, capture_output=True)
    _certify(folder)
    (folder / "tokens.csv").write_text('admin-token,admin,admin,"system:masters"\n')
    etcd, own = f"http://127.0.0.1:{client}", f"http://127.0.0.1:{peer}"
    keeping = ("--unsafe-no-fsync", "--log-level", "error", "--data-dir", str(folder / "etcd"))
    told = ("--listen-client-urls", etcd, "--advertise-client-urls", etcd, "--listen-peer-urls", own)
    peers = ("--initial-advertise-peer-urls", own, "--initial-cluster", f"default={own}")
    serving = (
        *("--etcd-servers", etcd, "--secure-port", str(port), "--bind-address", "127.0.0.1"),
        *("--advertise-address", "127.0.0.2", "--endpoint-reconciler-type", "none"),
        *("--tls-cert-file", str(folder / "server.crt"), "--tls-private-key-file", str(folder / "server.key")),
        *("--token-auth-file", str(folder / "tokens.csv")),
        *("--authorization-mode", "RBAC", "--service-cluster-ip-range", "10.97.0.0/24"),
        *("--service-account-issuer", "https://kubernetes.default.svc"),
        *("--service-account-key-file", key, "--service-account-signing-key-file", key),
    )
    with _running(folder, "etcd", *keeping, *told, *peers), _running(folder, "kube-apiserver", *serving) as server:
        deadline = time.monotonic() + 90
        while True:
            with suppress(OSError, subprocess.CalledProcessError):
                found = ApiServer(_kubeconfig(folder, port, "admin-token"), folder)
                found.kubectl("get", "--raw", "/readyz")
                found.kubectl("get", "namespace", "default")
                break
            assert server.poll() is None, (folder / "kube-apiserver.log").read_text()[-3000:]
            assert time.monotonic() < deadline, (folder / "kube-apiserver.log").read_text()[-3000:]
            time.sleep(0.5)
        common = ("--kubeconfig", str(found.kubeconfig), "--leader-elect=false", "--bind-address", "127.0.0.1")
        managing = (
            "--secure-port",
            str(manager),
            "--cert-dir",
            str(folder / "m"),
            "--service-account-private-key-file",
            key,
        )
        placing = ("--secure-port", str(scheduler), "--cert-dir", str(folder / "s"))
        with (
            _running(folder, "kube-controller-manager", *common, *managing),
            _running(folder, "kube-scheduler", *common, *placing),
        ):
            yield found


@pytest.fixture(scope="session")
def knowing_server(api_server, charts_folder):
    """The API server with the kinds of the Spark Operator and the Prometheus Operator."""
    done = subprocess.run(
        ["go", "mod", "download", "-json", PROMETHEUS], capture_output=True, text=True, check=False, timeout=300
    )
    if done.returncode:
        pytest.skip(f"the Prometheus Operator's kinds can't be fetched: {done.stderr or done.stdout}")
    folder = Path(json.loads(done.stdout)["Dir"]) / "example" / "prometheus-operator-crd"
    paths = [
        *(charts_folder / "spark-operator-chart" / "crds").glob("*.yaml"),
        *(folder / f"monitoring.coreos.com_{one}.yaml" for one in ("podmonitors", "prometheusrules")),
    ]
    for path in paths:
        api_server.kubectl("apply", "--server-side", "-f", str(path))
    deadline = time.monotonic() + 180
    while True:
        try:
            api_server.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=180s")
        except subprocess.CalledProcessError:
            # at once, where a kind has no conditions yet
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
        else:
            return api_server


@pytest.fixture(scope="session")
def api_cluster(api_server):
    """The API server, as the installer sees it."""
    found = connect(api_server.access)
    yield found
    found.close()


def write_declaration(folder, environment, **tenants):
    """Write a lake.yaml with these tenants into a folder; answers its path."""
    raw = yaml.safe_load((ROOT / "lake.yaml").read_text())
    raw |= {"environment": environment, "tenants": {name: {"tier": tier} for name, tier in tenants.items()}}
    shutil.copytree(ROOT / "contracts", folder / "contracts", dirs_exist_ok=True)
    path = folder / "lake.yaml"
    path.write_text(yaml.safe_dump(raw, sort_keys=False))
    return path


@pytest.fixture
def declaration(tmp_path):
    """Writes a lake.yaml with these tenants, of an environment of the test's own; answers its path."""

    def write(environment, **tenants):
        return write_declaration(tmp_path, environment, **tenants)

    return write


@pytest.fixture(scope="session")
def deploy(api_server, helm):
    """Runs `lakehose deploy` as a person does."""

    def run(lake, command, *arguments, kubeconfig=api_server.kubeconfig, endpoint=None):
        words = [sys.executable, "-m", "lakehose", "--lake", str(lake), "deploy", command]
        reach = ["--kubeconfig", str(kubeconfig), "--helm", helm] if command != "values" else []
        environment = {
            name: value for name, value in os.environ.items() if name not in {"KUBECONFIG", "AWS_ENDPOINT_URL"}
        }
        environment |= {"AWS_ENDPOINT_URL": endpoint} if endpoint else {}
        return subprocess.run(
            [*words, *map(str, arguments), *reach],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            env=environment,
        )

    return run
