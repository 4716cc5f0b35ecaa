"""The whole lake in a cluster by `lakehose deploy`: installed, used, shot at, upgraded, rolled back and removed."""

from __future__ import annotations

import base64
import gzip
import json
import shutil
import subprocess
import time
from contextlib import contextmanager, suppress
from urllib.request import urlopen

import boto3
import pytest
import yaml

from firehose.provision import provision_streams
from lake.clients import Cloud
from tests.cluster_tools import operator_chart, until

SYSTEM, OPERATOR = "lakehose-system", "spark-operator"
EWR, JFK, POOLED = "acme-chart-ewr", "acme-chart-jfk", "acme-chart-pooled"
SECONDS = 45
GZIP = b"\x1f\x8b"
RUNS_ON = {"ingest": {"schedule": "0 0 1 1 *", "retries": 0}, "compact": {"schedule": None}}
LOAD = """
import json, os, sys, time, uuid
import boto3
from botocore.config import Config

stream, seconds = sys.argv[1], float(sys.argv[2])
once = Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=10)
client = boto3.client("firehose", endpoint_url=os.environ["FIREHOSE"], region_name="us-east-1", config=once)
base = int(time.time() * 1000)

def event(number):
    high = (base + number) << 80 | 7 << 76
    payload = {"carrier": "UA", "flight": number, "origin": "EWR", "dest": "ORD", "year": 2026, "month": 11, "day": 21,
               "sched_dep_time": 600, "sched_arr_time": 700, "distance": 733}
    return {"event_id": str(uuid.UUID(int=high | 2 << 62 | number)), "tenant": "ewr", "dataset": "flights",
            "event_time": "2026-11-21T06:00:00.000Z", "producer_id": "load", "sequence": number,
            "schema_version": "1.0.0", "payload": payload}

number, end, limit = 0, time.time() + seconds, time.time() + seconds + 120
while time.time() < end:
    waiting = list(range(number, number + 20))
    number += 20
    while waiting:
        records = [{"Data": json.dumps(event(one)).encode()} for one in waiting]
        try:
            answers = client.put_record_batch(DeliveryStreamName=stream, Records=records)["RequestResponses"]
        except Exception as error:
            if time.time() > limit:
                raise
            print("again", type(error).__name__, flush=True)
            time.sleep(0.3)
            continue
        done = [one for one, answer in zip(waiting, answers) if "ErrorCode" not in answer]
        print("acknowledged", json.dumps(done), flush=True)
        waiting = [one for one in waiting if one not in done]
    time.sleep(0.02)
"""


@pytest.fixture(scope="module")
def lake(make_lake):
    return make_lake("chart", tenants={"ewr": {"tier": "dedicated"}, "lga": {"tier": "pooled"}}, jobs=RUNS_ON)


@pytest.fixture(scope="module")
def deploy(lake, cluster, helm, operator_values, tmp_path_factory):
    """Runs `lakehose deploy` on a cluster in which nothing of it is, and takes everything out again at the end."""
    chart = operator_chart()
    values = tmp_path_factory.mktemp("values") / "values.yaml"
    small = {"resources": {"requests": {"cpu": "100m", "memory": "256Mi"}, "limits": {"memory": "1Gi"}}}
    storage = {"size": "1Gi", **({"storageClassName": ""} if cluster.local else {})}
    server = {**small, "maxPendingMib": 256, "storage": storage}
    values.write_text(yaml.safe_dump({"firehose": server, OPERATOR: operator_values}))

    def run(command, *arguments, charts=True):
        given = ("--lake", lake.path, "--endpoint", lake.endpoint.for_pods, "deploy", command)
        extra = ("--charts", chart.parent, "--values", values) if charts else ()
        return lake.command(*given, *extra, "--helm", helm.program, *arguments)

    def clear():
        helm("uninstall", "lakehose", "-n", SYSTEM, "--wait", check=False)
        helm("uninstall", OPERATOR, "-n", OPERATOR, "--wait", check=False)
        cluster.kubectl("delete", "namespace", SYSTEM, EWR, JFK, POOLED, "--ignore-not-found", check=False)
        cluster.kubectl("delete", "pv", "firehose-test", "--ignore-not-found", check=False)

    clear()
    with volume(cluster):
        yield run
        clear()


@contextmanager
def volume(cluster):
    """A volume for the server's log where the cluster makes none: a folder of this machine, which its only node is."""
    if not cluster.local:
        yield
        return
    folder = cluster.kubeconfig.parent / "firehose-test"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.chown(folder, 185, 185)
    spec = {
        "capacity": {"storage": "1Gi"},
        "accessModes": ["ReadWriteOnce"],
        "persistentVolumeReclaimPolicy": "Retain",
        "hostPath": {"path": str(folder)},
    }
    cluster.apply(
        [{"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": "firehose-test"}, "spec": spec}]
    )
    yield
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def without_operator(deploy, lake, cluster):
    """What a submission says in a cluster that has never seen the operator."""
    if not cluster.local:
        return None  # taking the definitions out would take every application of the cluster with them
    crds = [one["metadata"]["name"] for one in cluster.get("crd") if one["spec"]["group"] == "sparkoperator.k8s.io"]
    if crds:
        cluster.kubectl("delete", "crd", *crds)
    return lake.run("k8s", "submit", "ingest", "--owner", "ewr", *lake.pods)


@pytest.fixture(scope="module")
def installed(without_operator, deploy, lake, cluster):
    """The lake, installed; what the command said."""
    cluster.apply([{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": SYSTEM}}])
    lake.give_credentials(SYSTEM)
    done = deploy("install")
    assert done.returncode == 0, done.stdout + done.stderr
    lake.give_credentials(EWR, POOLED)
    lake.namespaces.update((EWR, JFK, POOLED))
    return done


def test_in_a_cluster_that_never_saw_the_operator_a_run_is_refused_with_what_installs_it(without_operator):
    if without_operator is None:
        pytest.skip("the cluster at KUBECONFIG may have applications of others")
    assert without_operator.returncode != 0
    assert "lakehose deploy install" in without_operator.stderr


def test_one_command_brings_up_operator_and_lake(installed, deploy, cluster):
    done = deploy("status", charts=False)
    assert done.returncode == 0, done.stdout + done.stderr
    ready = cluster.get("statefulset", "firehose", SYSTEM)["status"]["readyReplicas"]
    assert ready == 1
    assert cluster.get("scheduledsparkapplication", "ingest", EWR)["spec"]["schedule"] == "0 0 1 1 *"


def test_the_operator_may_act_in_the_lakes_namespaces_and_no_others(installed, cluster):
    account = f"system:serviceaccount:{OPERATOR}:spark-operator-controller"
    asked = {
        namespace: cluster.kubectl(
            "auth", "can-i", "create", "pods", "-n", namespace, "--as", account, check=False
        ).stdout.strip()
        for namespace in (EWR, POOLED, "default", "kube-system")
    }
    assert asked == {EWR: "yes", POOLED: "yes", "default": "no", "kube-system": "no"}


def test_installing_twice_changes_nothing(installed, deploy, cluster):
    before = cluster.get("statefulset", "firehose", SYSTEM)["metadata"]["generation"]
    done = deploy("install")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "unchanged" in done.stderr
    assert cluster.get("statefulset", "firehose", SYSTEM)["metadata"]["generation"] == before


# ------------------------------------------------------------------------------------------------ the server, shot at


@contextmanager
def forwarded(cluster, port):
    """URL of the Firehose service on this machine."""
    command = ["kubectl", "port-forward", "-n", SYSTEM, "service/firehose", f"{port}:4573", "--address", "127.0.0.1"]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=cluster.environment()
    ) as one:
        url = f"http://127.0.0.1:{port}"

        def answers():
            with suppress(OSError), urlopen(f"{url}/_lakehose/health", timeout=2) as answer:
                return answer.status == 200
            return False

        try:
            until(answers, 30, "the Firehose service to answer")
            yield url
        finally:
            one.terminate()


@pytest.fixture(scope="module")
def shot(installed, lake, cluster, images, free_port_number):
    """Events pushed in the cluster while the server's pod is ended twice: numbers acknowledged, and retries."""
    with forwarded(cluster, free_port_number) as url:
        here = Cloud("us-east-1", lake.endpoint.here)
        keys = {"aws_access_key_id": "test", "aws_secret_access_key": "test", "region_name": "us-east-1"}
        # streams are the server's own; roles and keys are the endpoint's
        vars(here)["firehose"] = boto3.client("firehose", endpoint_url=url, **keys)
        vars(here)["quotas"] = boto3.client("service-quotas", endpoint_url=url, **keys)
        list(provision_streams(lake.lake, here))
    stream = lake.lake.stream_of("flights", "ewr")
    start_load(cluster, images.firehose, stream.name)
    log = load_log(cluster)
    until(lambda: len(acknowledged(log())) > 200, 90, lambda: f"the first events: {log()[-500:]}")
    for grace in (("--grace-period=0", "--force"), ()):
        uid = cluster.get("pod", "firehose-0", SYSTEM)["metadata"]["uid"]
        cluster.kubectl("delete", "pod", "firehose-0", "-n", SYSTEM, *grace, timeout=180)
        until(lambda uid=uid: ready_again(cluster, uid), 120, lambda: cluster.story(SYSTEM, "firehose"))
    until(lambda: phase(cluster) in {"Succeeded", "Failed"}, SECONDS + 180, "the load to end")
    assert phase(cluster) == "Succeeded", log()[-2000:]
    url = "http://127.0.0.1:4573"
    cluster.kubectl("exec", "-n", SYSTEM, "firehose-0", "--", "python3", "-m", "firehose", "flush", "--url", url)
    return acknowledged(log()), log().count("again ")


def start_load(cluster, image, stream):
    container = {
        "name": "load",
        "image": image,
        "imagePullPolicy": "Never" if cluster.local else "IfNotPresent",
        "command": ["python3", "-c", LOAD, stream, str(SECONDS)],
        "env": [{"name": "FIREHOSE", "value": f"http://firehose.{SYSTEM}:4573"}],
        "envFrom": [{"secretRef": {"name": "aws"}}],
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
    }
    confined = {"runAsNonRoot": True, "runAsUser": 185, "seccompProfile": {"type": "RuntimeDefault"}}
    spec = {"restartPolicy": "Never", "securityContext": confined, "containers": [container]}
    cluster.apply(
        [{"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "load", "namespace": SYSTEM}, "spec": spec}]
    )


def phase(cluster):
    return cluster.get("pod", "load", SYSTEM)["status"].get("phase")


def load_log(cluster):
    return lambda: cluster.kubectl("logs", "-n", SYSTEM, "load", check=False).stdout


def acknowledged(log):
    lines = [line.removeprefix("acknowledged ") for line in log.splitlines() if line.startswith("acknowledged ")]
    return {number for line in lines for number in json.loads(line)}


def ready_again(cluster, old):
    pod = cluster.get("pod", "firehose-0", SYSTEM)
    if pod is None or pod["metadata"]["uid"] == old:
        return False
    return any(one["type"] == "Ready" and one["status"] == "True" for one in pod["status"].get("conditions", []))


def delivered(lake):
    """Numbers of all events in S3: delivered under processed/, or refused under errors/."""
    s3, bucket = lake.cloud.s3, lake.lake.stream_of("flights", "ewr").bucket
    found = []
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for one in page.get("Contents", []):
            if not one["Key"].startswith(("processed/", "errors/")):
                continue
            body = s3.get_object(Bucket=bucket, Key=one["Key"])["Body"].read()
            events = [json.loads(line) for line in (gzip.decompress(body) if body[:2] == GZIP else body).splitlines()]
            if one["Key"].startswith("errors/"):
                events = [json.loads(base64.b64decode(event["rawData"])) for event in events]
            found += [event["sequence"] for event in events]
    return found


def test_the_load_met_a_server_that_was_away(shot):
    numbers, retries = shot
    assert len(numbers) > 500
    assert retries > 0


def test_nothing_that_a_killed_server_had_acknowledged_is_lost(shot, lake):
    numbers, _ = shot
    found = delivered(lake)
    assert numbers - set(found) == set()


@pytest.fixture(scope="module")
def ingested(shot, lake):
    """An ingest by the operator that the command installed."""
    return lake.run("run", "ingest", "--on", "k8s", "--owner", "ewr", *lake.pods)


def test_a_job_runs_under_the_operator_and_takes_each_of_them_once(ingested, shot, lake):
    assert ingested.returncode == 0, ingested.stdout + ingested.stderr
    numbers = [row["sequence"] for row in lake.rows("ewr")]
    assert len(numbers) == len(set(numbers))
    assert set(numbers) == set(delivered(lake))
    assert shot[0] <= set(numbers)


# -------------------------------------------------------------------------------------------------------- what changes


@pytest.fixture(scope="module")
def upgraded(ingested, lake, deploy):
    """A tenant more."""
    lake.change(tenants={"jfk": {"tier": "dedicated"}})
    lake.done("apply")
    return deploy("upgrade")


def test_an_upgrade_brings_a_new_tenant_in_and_the_operator_to_it(upgraded, cluster):
    assert upgraded.returncode == 0, upgraded.stdout + upgraded.stderr
    assert cluster.get("scheduledsparkapplication", "ingest", JFK) is not None
    account = f"system:serviceaccount:{OPERATOR}:spark-operator-controller"
    allowed = cluster.kubectl("auth", "can-i", "create", "pods", "-n", JFK, "--as", account, check=False)
    assert allowed.stdout.strip() == "yes"


def test_a_rollback_takes_the_tenant_out_again_and_leaves_the_others(upgraded, deploy, cluster):
    done = deploy("rollback", charts=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert cluster.get("scheduledsparkapplication", "ingest", JFK) is None
    until(lambda: cluster.get("namespace", JFK) is None, 90, f"namespace {JFK} to go")
    assert cluster.get("scheduledsparkapplication", "ingest", EWR) is not None
    assert cluster.get("statefulset", "firehose", SYSTEM)["status"]["readyReplicas"] == 1


# ---------------------------------------------------------------------------------------------------------- bad values


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("firehose.replicas=two", ["firehose.replicas", "integer"]),
        ("firehose.replica=2", ["firehose", "replica"]),
        ("firehose.storage.sizes=1Gi", ["firehose.storage", "sizes"]),
        ("lake.company=other", ["lake.yaml"]),
    ],
)
def test_a_value_of_the_wrong_type_or_name_is_refused_and_nothing_changes(upgraded, deploy, helm, setting, said):
    before = helm("history", "lakehose", "-n", SYSTEM, "-o", "json").stdout
    done = deploy("upgrade", "--set", setting)
    assert done.returncode == 2, done.stdout + done.stderr
    assert all(part in done.stderr for part in said), done.stderr
    assert "Traceback" not in done.stderr
    assert helm("history", "lakehose", "-n", SYSTEM, "-o", "json").stdout == before


def test_an_image_that_is_not_there_is_named_and_the_old_one_stays(upgraded, deploy, cluster):
    began = time.monotonic()
    done = deploy("upgrade", "--set", "firehose.image=localhost/lakehose/firehose:nope", "--atomic", "--timeout", "5m")
    assert done.returncode in {1, 2}
    assert "localhost/lakehose/firehose:nope" in done.stderr
    assert time.monotonic() - began < 180  # it can't heal, so nobody has to wait for the time-out
    until(lambda: cluster.get("statefulset", "firehose", SYSTEM)["status"].get("readyReplicas") == 1, 90, "the old one")


def test_a_namespace_that_is_missing_is_named_with_what_makes_it(upgraded, make_lake, cluster):
    other = make_lake("nowhere", apply=False)
    done = other.run("k8s", "submit", "ingest", "--owner", "ewr", *other.pods)
    assert done.returncode == 2
    assert "acme-nowhere-ewr" in done.stderr
    assert "lakehose k8s apply" in done.stderr


def test_who_may_not_is_told_what_is_lacking(upgraded, deploy, lake, cluster, tmp_path):
    config = yaml.safe_load(cluster.kubeconfig.read_text())
    token = cluster.kubectl("create", "token", "ingest", "-n", EWR).stdout.strip()
    config["users"] = [{"name": config["users"][0]["name"], "user": {"token": token}}]
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(config))
    for done in (
        deploy("upgrade", "--kubeconfig", tmp_path / "kubeconfig"),
        lake.run("k8s", "submit", "ingest", "--owner", "ewr", "--kubeconfig", tmp_path / "kubeconfig", *lake.pods),
    ):
        assert done.returncode == 2, done.stdout + done.stderr
        assert f"system:serviceaccount:{EWR}:ingest" in done.stderr
        assert "may not" in done.stderr


# ------------------------------------------------------------------------------------------------------- and out again


def test_uninstalling_keeps_the_servers_log_until_it_is_said_otherwise(upgraded, deploy, cluster):
    done = deploy("uninstall", charts=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert cluster.get("statefulset", "firehose", SYSTEM) is None
    assert cluster.get("scheduledsparkapplication", "ingest", EWR) is None
    assert cluster.get("persistentvolumeclaim", "data-firehose-0", SYSTEM) is not None
    assert "data-firehose-0" in done.stderr
    again = deploy("uninstall", "--delete-data", charts=False)
    assert again.returncode == 0, again.stdout + again.stderr

    def gone():
        claim = cluster.get("persistentvolumeclaim", "data-firehose-0", SYSTEM)
        return claim is None or "deletionTimestamp" in claim["metadata"]

    until(gone, 60, "the claim to go")


def test_where_the_operator_is_gone_a_run_says_that_nobody_takes_it_up(deploy, lake, cluster):
    # its definitions stay in the cluster, so that the API server takes the run
    assert deploy("status", charts=False).returncode == 1
    lake.apply_manifests()
    done = lake.run("run", "ingest", "--on", "k8s", "--owner", "ewr", "--timeout", "10", *lake.pods)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "no operator has taken it up yet" in done.stderr
