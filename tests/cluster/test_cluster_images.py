"""The images as a pod that is confined like ours finds them: all there, nothing left over, nothing to write on."""

from __future__ import annotations

import json

import pytest

from tests.cluster_tools import until

NAMESPACE = "lakehose-images"
LOAD_ALL = """
import importlib, pkgutil, sys
for room in sys.argv[1:]:
    for one in pkgutil.walk_packages(importlib.import_module(room).__path__, room + "."):
        # what makes and compares streams is part of the `lakehose` command, not of the server
        if not one.name.endswith("__main__") and one.name not in ("firehose.provision", "firehose.stream_commands"):
            importlib.import_module(one.name)
            print(one.name)
"""
JARS = """
import collections, pathlib, re
names = collections.Counter()
for jar in pathlib.Path("/opt/spark/jars").glob("*.jar"):
    # fetched ones are called group_artifact-version, Spark's own artifact-version; those for a processor are one each
    artifact = re.sub(r"^([a-z0-9]+\\.)+[a-z0-9]+_", "", jar.name.removesuffix(".jar"))
    names[re.sub(r"-[0-9][0-9A-Za-z.]*$", "", artifact)] += 1
print([name for name, count in names.items() if count > 1])
"""
BYTE_CODE = """
import pathlib, sys
files = [one for folder in sys.argv[1:] for one in pathlib.Path(folder).rglob("*.pyc")]
kinds = {one.read_bytes()[4:8] for one in files}
print(len(files) > 0, kinds == {b"\\x01\\x00\\x00\\x00"})
"""


@pytest.fixture(scope="module")
def in_image(cluster):
    """Runs a command in an image, confined as the product's pods are; answers what it printed."""
    labels = {"pod-security.kubernetes.io/enforce": "restricted"}
    metadata = {"name": NAMESPACE, "labels": labels}
    cluster.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}])
    until(lambda: cluster.get("serviceaccount", "default", NAMESPACE), 30, "the namespace's account")
    count = iter(range(100))

    def run(image, *command):
        name = f"pod-{next(count)}"
        container = {
            "name": "only",
            "image": image,
            "imagePullPolicy": "Never" if cluster.local else "IfNotPresent",
            "command": list(command),
            "securityContext": {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "runAsNonRoot": True,
                "capabilities": {"drop": ["ALL"]},
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "volumeMounts": [{"name": "temporary", "mountPath": "/tmp"}],  # noqa: S108 - a volume of the pod's own
        }
        spec = {
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "containers": [container],
            "volumes": [{"name": "temporary", "emptyDir": {}}],
        }
        cluster.apply(
            [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec}]
        )

        def ended():
            pod = cluster.get("pod", name, NAMESPACE)
            return pod if pod["status"].get("phase") in {"Succeeded", "Failed"} else None

        pod = until(ended, 120, lambda: f"pod {name}: {json.dumps(cluster.get('pod', name, NAMESPACE)['status'])}")
        log = cluster.kubectl("logs", "-n", NAMESPACE, name).stdout
        return pod["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"], log

    yield run
    cluster.kubectl("delete", "namespace", NAMESPACE, "--wait=false", check=False)


def test_the_jobs_image_holds_everything_that_its_rooms_load(in_image, images):
    status, log = in_image(images.jobs, "python3", "-c", LOAD_ALL, "lake", "spark_jobs")
    assert status == 0, log
    assert "spark_jobs.ingest" in log.splitlines()


def test_the_firehose_image_holds_everything_that_its_rooms_load(in_image, images):
    status, log = in_image(images.firehose, "python3", "-c", LOAD_ALL, "firehose")
    assert status == 0, log
    assert "firehose.serve" in log.splitlines()


def test_the_firehose_image_is_the_servers_command(in_image, images):
    status, log = in_image(images.firehose, "python3", "-m", "firehose", "serve", "--help")
    assert status == 0, log
    assert "--data-dir" in log


@pytest.mark.parametrize("kind", ["jobs", "firehose"])
def test_an_image_runs_as_nobody_special_and_holds_nothing_that_it_could_change(in_image, images, kind):
    # what anyone may write is for temporary files, and the root can't be written at all where ours run
    find = r"id -u; find / -xdev \( -user 185 -o -perm -0002 \) ! -type l ! -path '/tmp*' 2>/dev/null; exit 0"
    status, log = in_image(getattr(images, kind), "sh", "-c", find)
    assert status == 0
    user, *found = log.splitlines()
    assert user == "185"
    assert set(found) <= {"/var/tmp", "/run/lock"}  # noqa: S108 - asked for, not used


@pytest.mark.parametrize("kind", ["jobs", "firehose"])
def test_an_image_holds_no_compiler_and_no_installer(in_image, images, kind):
    status, log = in_image(getattr(images, kind), "sh", "-c", "command -v gcc cc make pip pip3 javac; exit 0")
    assert (status, log) == (0, "")


@pytest.mark.parametrize(
    ("kind", "folders"), [("jobs", ["/opt/lakehose", "/opt/python"]), ("firehose", ["/opt/lakehose"])]
)
def test_python_need_not_compile_or_check_anything_at_a_start(in_image, images, kind, folders):
    status, log = in_image(getattr(images, kind), "python3", "-c", BYTE_CODE, *folders)
    assert (status, log) == (0, "True True\n")


def test_no_jar_lies_beside_another_version_of_itself(in_image, images):
    status, log = in_image(images.jobs, "python3", "-c", JARS)
    assert (status, log) == (0, "[]\n")


def test_an_image_without_a_command_says_what_it_takes(in_image, images):
    status, log = in_image(images.jobs, "/opt/entrypoint.sh")
    assert status == 2
    assert log == "entrypoint: nothing to run: give driver, executor, or a command\n"
