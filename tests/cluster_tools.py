"""Owns what tests need of a real Kubernetes cluster: finding or starting one, its images, and asking it.

A cluster that `KUBECONFIG` names is used as it is; its images then come from `LAKEHOSE_JOBS_IMAGE`,
`LAKEHOSE_FIREHOSE_IMAGE` and `LAKEHOSE_OPERATOR_IMAGE`, and `LAKEHOSE_POD_ENDPOINT` (with `{port}` in it) is the URL at
which its pods reach a port of this machine. Otherwise one is started on this machine, where the scripts for that are.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
SCRIPTS = ROOT.parent / "shared" / "cluster"
LAKEHOSE = (sys.executable, "-m", "lakehose")
_LOCAL = "localhost/lakehose"  # a name of a host, so that nothing takes the images for some registry's
OPERATOR_MODULE = "github.com/kubeflow/spark-operator/v2@v2.5.2"


class ClusterProblemError(Exception):
    """Something that was to happen in the cluster did not; says what, and what the cluster has to say about it."""


def no_cluster():
    """Why there can be no cluster for tests; None when there can be one."""
    if not shutil.which("kubectl"):
        return "no kubectl on PATH"
    if os.environ.get("KUBECONFIG"):
        return None
    if not SCRIPTS.is_dir():
        return "KUBECONFIG is not set, and this machine has no scripts to start a cluster"
    if os.geteuid() != 0:
        return "KUBECONFIG is not set, and starting a cluster on this machine needs root"
    if not shutil.which("go"):
        return "KUBECONFIG is not set, and starting a cluster on this machine needs Go"
    return None


def start_cluster(tier="full"):
    """The cluster that KUBECONFIG names, or the one of this machine, started unless it is up."""
    given = os.environ.get("KUBECONFIG")
    if given:
        return Cluster(Path(given), local=False)
    command = [str(SCRIPTS / "cluster-up"), *(["api"] if tier == "api" else [])]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=3000)
    if done.returncode:
        raise ClusterProblemError(f"cluster-up: {done.stderr[-2000:]}")
    return Cluster(Path(done.stdout.splitlines()[-1]), local=True)


def operator_chart():
    """The folder of the Spark Operator's chart, a part of its Go module."""
    done = subprocess.run(
        ["go", "mod", "download", "-json", OPERATOR_MODULE], capture_output=True, text=True, check=True
    )
    return Path(json.loads(done.stdout)["Dir"]) / "charts" / "spark-operator-chart"


def helm_program():
    """The helm program: of PATH, or built here."""
    found = shutil.which("helm")
    if found:
        return Path(found)
    done = subprocess.run([str(SCRIPTS / "helm-build")], capture_output=True, text=True, check=False, timeout=3000)
    if done.returncode:
        raise ClusterProblemError(f"helm-build: {done.stderr[-2000:]}")
    return Path(done.stdout.splitlines()[-1])


@dataclass(frozen=True)
class Images:
    """Names under which the cluster has the images."""

    jobs: str
    firehose: str
    operator: str


@dataclass(frozen=True)
class Cluster:
    """A running cluster."""

    kubeconfig: Path
    local: bool
    """Whether it runs on this machine by the scripts."""

    def environment(self, **more):
        """Environment for commands that work on it."""
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig), **more}

    def kubectl(self, *arguments, text=None, check=True, timeout=120):
        """Run kubectl; answers the finished process."""
        done = subprocess.run(
            ["kubectl", *arguments],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            env=self.environment(),
        )
        if check and done.returncode:
            raise ClusterProblemError(f"kubectl {' '.join(arguments)}: {done.stderr.strip()}")
        return done

    def get(self, kind, name=None, namespace=None, selector=None):
        """An object, a list of objects without a name, or None where there is none."""
        arguments = ["get", kind, *([name] if name else []), "-o", "json"]
        arguments += ["-n", namespace] if namespace else []
        arguments += ["-l", selector] if selector else []
        done = self.kubectl(*arguments, check=False)
        if done.returncode:
            if "NotFound" in done.stderr:
                return None
            raise ClusterProblemError(done.stderr.strip())
        found = json.loads(done.stdout)
        return found if name else found["items"]

    def apply(self, objects):
        """Apply objects, server-side."""
        self.kubectl("apply", "--server-side", "-f", "-", text=as_list(objects))

    def url_for_pods(self, port):
        """Where pods find a port of this machine's loopback."""
        if not self.local:
            form = os.environ.get("LAKEHOSE_POD_ENDPOINT")
            if not form:
                raise ClusterProblemError(
                    "LAKEHOSE_POD_ENDPOINT: give the URL at which pods reach {port} of this machine"
                )
            return form.format(port=port)
        done = subprocess.run([str(SCRIPTS / "expose"), str(port)], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def application(self, namespace, name):
        """State of a SparkApplication, `""` before it has one, or None when it is not there."""
        found = self.get("sparkapplication", name, namespace)
        return None if found is None else found.get("status", {}).get("applicationState", {}).get("state", "")

    def wait_for_application(self, namespace, name, seconds=600, wanted="COMPLETED"):
        """Wait until a SparkApplication is in a final state, which has to be the one that is wanted."""

        def final():
            state = self.application(namespace, name)
            return state if state in {"COMPLETED", "FAILED"} else None

        state = until(final, seconds, lambda: f"{namespace}/{name} to end; {self.story(namespace, name)}")
        if state != wanted:
            raise ClusterProblemError(f"{namespace}/{name} is {state}; {self.story(namespace, name)}")

    def driver_log(self, namespace, name, *more):
        """What the driver has printed so far; nothing when it has not begun."""
        return self.kubectl("logs", "-n", namespace, f"{name}-driver", *more, check=False).stdout

    def story(self, namespace, name):
        """What the cluster knows of a run, for a person who has to find out why it failed."""
        app = self.get("sparkapplication", name, namespace)
        pods = self.get("pods", namespace=namespace)
        events = self.kubectl("get", "events", "-n", namespace, "--sort-by=.lastTimestamp", check=False).stdout
        state = app and app.get("status", {}).get("applicationState", {})
        # a submission's failure is Java's whole output
        state = state and {key: value[-1500:] for key, value in state.items()}
        phases = [f"{pod['metadata']['name']} {pod['status'].get('phase')}" for pod in pods]
        log = self.driver_log(namespace, name, "--tail=40")
        return f"state {state}\npods {phases}\nevents:\n{events[-3000:]}\ndriver's log:\n{log}"


def as_list(objects):
    """Objects as one JSON text, which kubectl takes like YAML."""
    return json.dumps({"apiVersion": "v1", "kind": "List", "items": list(objects)})


def until(condition, seconds, what, every=0.5):
    """Wait for something true, and answer it."""
    deadline = time.monotonic() + seconds
    while True:
        found = condition()
        if found:
            return found
        if time.monotonic() > deadline:
            told = what() if callable(what) else what
            raise ClusterProblemError(f"waited {seconds} s for {told}")
        time.sleep(every)


def cluster_images(cluster):
    """The images, of the code as it lies here where the cluster is this machine's."""
    if not cluster.local:
        names = ("LAKEHOSE_JOBS_IMAGE", "LAKEHOSE_FIREHOSE_IMAGE", "LAKEHOSE_OPERATOR_IMAGE")
        missing = [name for name in names if not os.environ.get(name)]
        if missing:
            raise ClusterProblemError(f"{', '.join(missing)}: give the images that the cluster at KUBECONFIG can pull")
        return Images(*(os.environ[name] for name in names))
    build_images(cluster)
    if "local/spark:4.1.4" not in _ctr("images", "ls", "-q"):
        done = subprocess.run([str(SCRIPTS / "spark-image")], capture_output=True, text=True, check=False, timeout=3000)
        if done.returncode:
            raise ClusterProblemError(f"spark-image: {done.stderr[-2000:]}")
    return Images(f"{_LOCAL}/jobs:test", f"{_LOCAL}/firehose:test", "local/spark:4.1.4")


def build_images(cluster):
    """Build both images from the Dockerfile, without Docker, and bring them to the cluster of this machine."""
    layouts = cluster.kubeconfig.parent / "images"
    build = subprocess.run(
        [str(ROOT / "k8s" / "image" / "build"), "test"],
        capture_output=True,
        text=True,
        check=False,
        timeout=3000,
        env={**os.environ, "ENGINE": "buildah", "LAYOUT": str(layouts)},
    )
    if build.returncode:
        raise ClusterProblemError(f"image: {build.stderr[-3000:]}")
    there = _ctr("images", "ls", "-q").split()
    for target in ("jobs", "firehose"):
        name, image = f"{_LOCAL}/{target}:test", f"sha256:{(layouts / f'{target}.id').read_text().strip()}"
        # the kubelet's side of containerd lists every image by its id too
        if name not in there or image not in there:
            _import_layout(layouts / target, name)


def _import_layout(layout, name):
    """Import an image under a name: only the layers that the cluster lacks, as one of them is large."""
    (newest,) = json.loads((layout / "index.json").read_text())["manifests"]
    manifest = json.loads(_blob(layout, newest).read_text())
    index = {
        "schemaVersion": 2,
        "manifests": [{**newest, "annotations": {"io.containerd.image.name": name}}],
    }
    there = set(_ctr("content", "ls", "-q").split())
    wanted = [newest, manifest["config"], *(one for one in manifest["layers"] if one["digest"] not in there)]
    with tempfile.TemporaryDirectory(dir=layout.parent) as scratch:
        archive = Path(scratch) / "image.tar"
        with tarfile.open(archive, "w") as tar:
            for member, content in (("oci-layout", {"imageLayoutVersion": "1.0.0"}), ("index.json", index)):
                data = json.dumps(content).encode()
                about = tarfile.TarInfo(member)
                about.size = len(data)
                tar.addfile(about, io.BytesIO(data))
            for one in wanted:
                tar.add(_blob(layout, one), f"blobs/{one['digest'].replace(':', '/')}")
        _ctr("images", "import", str(archive), timeout=600)


def _blob(layout, descriptor):
    return layout / "blobs" / descriptor["digest"].replace(":", "/")


def _ctr(*arguments, timeout=60):
    state = Path(os.environ.get("KUBE_STATE", "/var/lib/local-kube"))
    command = ["ctr", "--address", str(state / "containerd.sock"), "--namespace", "k8s.io", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout)
    if done.returncode:
        raise ClusterProblemError(f"ctr {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
