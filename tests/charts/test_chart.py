"""The chart: what it renders, what it refuses, and that a real API server takes all of it."""

from __future__ import annotations

import json
import subprocess

import pytest
import yaml
from typer.main import get_command

from charts.package import dependencies
from charts.values import chart_values
from firehose.commands import app
from k8s.render import manifests
from lake.declaration import read_lake
from lake.kubernetes import product_version
from tests.charts.conftest import CHART

EVERYTHING = {
    "imagePullSecrets": [{"name": "registry"}],
    "firehose": {
        "replicas": 3,
        "s3Endpoint": "http://10.0.0.1:4566",
        "lambdaEndpoint": "aws",
        "glueEndpoint": "http://10.0.0.2:4566",
        "cloudwatchEndpoint": "aws",
        "cloudwatchNamespace": "Lakehose",
        "processes": 2,
        "maxLogGib": 15.5,
        "quotas": "eu-central-1,records=1000",
        "credentialsSecret": "aws",
        "storage": {"storageClassName": "", "selectorLabels": {"disk": "fast"}, "size": "1Ti"},
        "allowFrom": [{"namespaceSelector": {"matchLabels": {"team": "mobile"}}}],
        "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::000000000000:role/x"}},
        "nodeSelector": {"kubernetes.io/arch": "arm64"},
        "tolerations": [{"key": "spot", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
        "priorityClassName": "high",
        "podAnnotations": {"a": "b"},
        "drainSeconds": 0,
    },
    "historyServer": {"enabled": True, "logDirectory": "s3a://logs/spark", "credentialsSecret": "aws"},
    "monitoring": {
        "labels": {"release": "prometheus"},
        "podMonitors": {"enabled": True},
        "rules": {"enabled": True, "overdueMinutes": {"ingest": 20}},
        "dashboards": {"enabled": True},
    },
}


def kinds(objects):
    return sorted(f"{one['kind']} {one['metadata']['name']}" for one in objects)


def one_of(objects, kind, name):
    return next(one for one in objects if (one["kind"], one["metadata"]["name"]) == (kind, name))


@pytest.fixture
def full(declaration):
    path = declaration("full", ewr="dedicated", jfk="pooled")
    return (
        chart_values(read_lake(path), path)
        | {key: value for key, value in EVERYTHING.items() if key != "firehose"}
        | {"firehose": EVERYTHING["firehose"]}
    )


def test_helm_finds_nothing_to_object_to(helm, bare_chart):
    done = subprocess.run([helm, "lint", "--strict", str(bare_chart)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_charts_version_is_the_products():
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert (about["version"], about["appVersion"]) == (product_version(), product_version())


def test_the_dependencies_are_optional_and_from_public_repositories():
    about = yaml.safe_load((CHART / "Chart.yaml").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    for one in about["dependencies"]:
        assert one["condition"] == f"{one['name']}.enabled"
        assert values[one["name"]] == {"enabled": False}
    assert {one.name: (one.version, one.repository) for one in dependencies().values()} == {
        "spark-operator": ("2.5.2", "https://kubeflow.github.io/spark-operator"),
        "airflow": ("1.22.0", "https://airflow.apache.org"),
    }


def test_without_a_lake_there_is_the_firehose_server_only(template):
    assert kinds(template()) == [
        "NetworkPolicy firehose",
        "PodDisruptionBudget firehose",
        "Service firehose",
        "Service firehose-0",
        "Service firehose-headless",
        "ServiceAccount firehose",
        "StatefulSet firehose",
    ]


def test_with_everything_off_there_is_nothing(template):
    assert template({"firehose": {"enabled": False}}) == []


def test_the_lakes_objects_come_out_as_they_went_in(template, declaration):
    path = declaration("same", ewr="dedicated", jfk="pooled")
    lake = read_lake(path)
    rendered = {
        (one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]): one
        for one in template(chart_values(lake, path) | {"firehose": {"enabled": False}})
    }
    wanted = [one for file in manifests(lake, path).values() for one in file]
    assert len(rendered) == len(wanted)
    for one in wanted:
        got = rendered[one["kind"], one["metadata"].get("namespace"), one["metadata"]["name"]]
        if one["kind"] == "Namespace":
            assert got["metadata"].pop("annotations") == {"helm.sh/resource-policy": "keep"}
        assert got == one


def test_each_shard_has_a_service_and_the_first_has_the_plain_name(template):
    objects = template({"firehose": {"replicas": 3}})
    pods = {
        one["metadata"]["name"]: one["spec"]["selector"].get("statefulset.kubernetes.io/pod-name")
        for one in objects
        if one["kind"] == "Service"
    }
    assert pods == {
        "firehose-headless": None,
        "firehose": "firehose-0",
        "firehose-0": "firehose-0",
        "firehose-1": "firehose-1",
        "firehose-2": "firehose-2",
    }


def test_a_volume_outlives_the_server_and_the_release(template):
    server = one_of(template(), "StatefulSet", "firehose")["spec"]
    assert server["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    claim = server["volumeClaimTemplates"][0]["spec"]
    assert claim == {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "20Gi"}}}


def test_a_volume_made_beforehand_is_asked_for_without_a_class(template):
    storage = {"storageClassName": "", "selectorLabels": {"disk": "fast"}}
    server = one_of(template({"firehose": {"storage": storage}}), "StatefulSet", "firehose")["spec"]
    claim = server["volumeClaimTemplates"][0]["spec"]
    assert (claim["storageClassName"], claim["selector"]) == ("", {"matchLabels": {"disk": "fast"}})


def test_a_claim_that_is_there_is_taken(template):
    server = one_of(template({"firehose": {"storage": {"existingClaim": "mine"}}}), "StatefulSet", "firehose")["spec"]
    assert "volumeClaimTemplates" not in server
    assert {"name": "data", "persistentVolumeClaim": {"claimName": "mine"}} in server["template"]["spec"]["volumes"]


def test_one_claim_for_several_shards_is_refused(template):
    done = template({"firehose": {"replicas": 2, "storage": {"existingClaim": "mine"}}}, check=False)
    assert "one claim can't serve several replicas" in done.stderr


def options_of(objects):
    """What the server makes of the pod's command, by its own parser."""
    (container,) = one_of(objects, "StatefulSet", "firehose")["spec"]["template"]["spec"]["containers"]
    assert container["command"] == ["python3", "-m", "firehose", "serve"]
    return get_command(app).commands["serve"].make_context("serve", container["args"]).params


def test_the_server_understands_how_it_is_started(template):
    plain = options_of(template())
    assert (plain["processes"], plain["max_log_gib"], plain["quotas"]) == (1, None, None)
    assert (plain["s3_endpoint"], plain["lambda_endpoint"], plain["cloudwatch_endpoint"]) == (None, None, None)
    told = options_of(template({"firehose": EVERYTHING["firehose"]}))
    assert (told["s3_endpoint"], told["lambda_endpoint"]) == ("http://10.0.0.1:4566", "aws")
    assert (told["glue_endpoint"], told["cloudwatch_endpoint"]) == ("http://10.0.0.2:4566", "aws")
    assert told["cloudwatch_namespace"] == "Lakehose"
    assert (told["processes"], told["max_log_gib"], told["quotas"]) == (2, 15.5, "eu-central-1,records=1000")


def test_there_is_time_to_drain_before_the_pod_is_killed(template):
    pod = one_of(template({"firehose": {"drainSeconds": 45}}), "StatefulSet", "firehose")["spec"]["template"]["spec"]
    hook = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert hook == ["python3", "-m", "firehose", "flush", "--url=http://127.0.0.1:4573", "--timeout=45"]
    assert pod["terminationGracePeriodSeconds"] == 75


def test_a_new_version_of_the_chart_alone_restarts_no_pod(template):
    for one in template(EVERYTHING):
        if one["kind"] in {"StatefulSet", "Deployment"}:
            labels = one["spec"]["template"]["metadata"]["labels"]
            assert "helm.sh/chart" not in labels
            assert "app.kubernetes.io/version" not in labels


def test_a_history_server_without_logs_is_refused(template):
    done = template({"historyServer": {"enabled": True}}, check=False)
    assert "historyServer.logDirectory: name where the event logs lie" in done.stderr


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"firehos": {}}, "additional properties 'firehos' not allowed"),
        ({"firehose": {"replica": 2}}, "at '/firehose': additional properties 'replica' not allowed"),
        ({"firehose": {"replicas": "two"}}, "at '/firehose/replicas': got string, want integer"),
        ({"firehose": {"replicas": 0}}, "at '/firehose/replicas': minimum: got 0, want 1"),
        ({"firehose": {"account": 1}}, "at '/firehose/account': got number, want string"),
        ({"firehose": {"account": "12"}}, "at '/firehose/account'"),
        ({"firehose": {"storage": {"sizes": "1Gi"}}}, "at '/firehose/storage': additional properties 'sizes'"),
        ({"firehose": {"storage": {"size": "much"}}}, "at '/firehose/storage/size'"),
        ({"firehose": {"resources": {"request": {}}}}, "at '/firehose/resources': additional properties 'request'"),
        ({"firehose": {"processes": 0}}, "at '/firehose/processes': minimum: got 0, want 1"),
        ({"firehose": {"maxLogGib": 0}}, "at '/firehose/maxLogGib'"),
        ({"firehose": {"glueEndpoint": "azure"}}, "at '/firehose/glueEndpoint'"),
        ({"firehose": {"quotas": "us-east-1,speed=1"}}, "at '/firehose/quotas'"),
        ({"firehose": {"pullPolicy": "Sometimes"}}, "at '/firehose/pullPolicy'"),
        ({"firehose": {"allowFrom": [{"podSelektor": {}}]}}, "at '/firehose/allowFrom/0'"),
        ({"historyServer": {"logDirectory": "/var/logs"}}, "at '/historyServer/logDirectory'"),
        ({"monitoring": {"rules": {"volumeLeft": 2}}}, "at '/monitoring/rules/volumeLeft'"),
        ({"monitoring": {"dashboard": {}}}, "at '/monitoring': additional properties 'dashboard'"),
        ({"airflow": {"enabled": "yes"}}, "at '/airflow/enabled': got string, want boolean"),
        ({"lake": {"objects": [{"kind": "Pod"}]}}, "at '/lake/objects/0'"),
    ],
)
def test_a_value_that_is_none_is_refused(template, values, told):
    done = template(values, check=False)
    assert done.returncode == 1
    assert told in done.stderr


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"kind": "Secret"}, "at '/lake/objects/0/kind'"),
        ({"kind": "ClusterRole", "apiVersion": "rbac.authorization.k8s.io/v1"}, "at '/lake/objects/0/kind'"),
        ({"apiVersion": "apps/v1"}, "at '/lake/objects/0/apiVersion'"),
        ({"metadata": {"name": "Not A Name", "namespace": "x"}}, "at '/lake/objects/0/metadata/name'"),
        ({"metadata": {"namespace": "x"}}, "missing property 'name'"),
        ({"metadata": {"name": "x"}}, "missing property 'namespace'"),
        ({"metadata": {"name": "x", "namespace": "x", "finalizers": ["x"]}}, "additional properties 'finalizers'"),
    ],
)
def test_only_what_a_lake_has_passes_as_its_object(template, change, told):
    good = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x", "namespace": "x"}, "data": {}}
    assert template({"lake": {"objects": [good]}, "firehose": {"enabled": False}}) == [good]
    done = template({"lake": {"objects": [good | change]}}, check=False)
    assert done.returncode == 1
    assert told in done.stderr


def test_all_default_values_are_in_the_schema_and_all_of_the_schema_has_a_default():
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    def compare(shape, value, path):
        shape = schema["$defs"][shape["$ref"].rpartition("/")[2]] if "$ref" in shape else shape
        properties = shape.get("properties")
        if properties is None or shape.get("additionalProperties") is not False or not isinstance(value, dict):
            return
        assert value.keys() <= properties.keys(), path
        # resources and affinities are Kubernetes' own: every part may be left out
        if path.rpartition(".")[2] not in {"resources", "affinity"}:
            assert properties.keys() - value.keys() <= {"global"}, path
        for key, inner in value.items():
            compare(properties[key], inner, f"{path}.{key}")

    compare(schema, values, "values")


# ----------------------------------------------------------------------------------- what an API server says to it


@pytest.mark.parametrize("which", ["default", "everything"])
def test_an_api_server_takes_every_object_and_knows_every_field(knowing_server, template, full, which):
    objects = template(full if which == "everything" else None)
    for space in sorted({one["metadata"].get("namespace", "rendered") for one in objects}):
        knowing_server.kubectl("create", "namespace", space, check=False)
    for one in objects:
        about = one["metadata"]
        where = ("--namespace", about.get("namespace", "rendered"))
        if one["kind"] == "Namespace":
            where = ()
        done = knowing_server.kubectl(
            *(
                "apply",
                "--server-side",
                "--dry-run=server",
                "--validate=strict",
                "--force-conflicts",
                "-f",
                "-",
                *where,
            ),
            text=json.dumps(one),
            check=False,
        )
        assert done.returncode == 0, f"{one['kind']} {about['name']}: {done.stderr}"


@pytest.mark.parametrize(("kind", "name"), [("StatefulSet", "firehose"), ("Deployment", "history-server")])
def test_the_pods_pass_where_only_confined_ones_may_run(knowing_server, template, full, kind, name):
    knowing_server.kubectl("create", "namespace", "confined", check=False)
    knowing_server.kubectl(
        "label", "namespace", "confined", "pod-security.kubernetes.io/enforce=restricted", "--overwrite"
    )
    spec = one_of(template(full), kind, name)["spec"]["template"]["spec"]
    spec |= {"serviceAccountName": "default", "priorityClassName": ""}
    spec["volumes"] = [*spec["volumes"], {"name": "data", "emptyDir": {}}]
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "namespace": "confined"}, "spec": spec}

    def refusal(one):
        return knowing_server.kubectl("create", "--dry-run=server", "-f", "-", text=json.dumps(one), check=False).stderr

    deadline_free = refusal(pod)
    assert "violates PodSecurity" not in deadline_free
    spec["containers"][0]["securityContext"]["allowPrivilegeEscalation"] = True
    assert "violates PodSecurity" in refusal(pod)
