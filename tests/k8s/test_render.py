"""The manifests of a lake: complete, deterministic, confined, and no tenant's hold another's name."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from k8s.applications import application, scheduled
from k8s.render import manifests, to_yaml
from lake.declaration import read_lake
from lake.errors import DeclarationError, TerminalError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def declare(tmp_path):
    """Read a declaration with the project's contract and three tenants, changed as a test likes."""

    def make(extra="", **replaced):
        text = (ROOT / "lake.yaml").read_text() + extra
        for old, new in replaced.items():
            text = text.replace(old, new)
        (tmp_path / "contracts").mkdir(exist_ok=True)
        (tmp_path / "contracts" / "flights.yaml").write_text((ROOT / "contracts" / "flights.yaml").read_text())
        (tmp_path / "lake.yaml").write_text(text)
        return read_lake(tmp_path / "lake.yaml"), tmp_path / "lake.yaml"

    return make


def of_kind(files, kind):
    return [one for objects in files.values() for one in objects if one["kind"] == kind]


def pods(spec):
    return [spec["driver"]["template"]["spec"], spec["executor"]["template"]["spec"]]


def test_namespaces_come_first_and_each_workspace_has_its_file(declare):
    files = manifests(*declare())
    assert list(files) == ["00-namespaces.yaml", "10-ewr.yaml", "10-pooled.yaml"]
    assert [one["metadata"]["name"] for one in of_kind(files, "Namespace")] == ["acme-demo-ewr", "acme-demo-pooled"]


def test_two_renderings_are_the_same_text(declare):
    lake, path = declare()
    first, second = ([to_yaml(objects) for objects in manifests(lake, path).values()] for _ in range(2))
    assert first == second


def test_the_yaml_reads_back_as_the_objects(declare):
    for objects in manifests(*declare()).values():
        assert list(yaml.safe_load_all(to_yaml(objects))) == objects


def test_every_job_with_a_schedule_runs_in_every_workspace(declare):
    found = of_kind(manifests(*declare()), "ScheduledSparkApplication")
    assert [(one["metadata"]["namespace"], one["metadata"]["name"], one["spec"]["schedule"]) for one in found] == [
        ("acme-demo-ewr", "ingest", "*/5 * * * *"),
        ("acme-demo-ewr", "compact", "17 * * * *"),
        ("acme-demo-ewr", "maintain", "41 3 * * *"),
        ("acme-demo-pooled", "ingest", "*/5 * * * *"),
        ("acme-demo-pooled", "compact", "17 * * * *"),
        ("acme-demo-pooled", "maintain", "41 3 * * *"),
    ]


def test_a_job_without_a_schedule_is_left_to_be_submitted(declare):
    lake, path = declare("  compact: {schedule: null}\n")
    assert {one["metadata"]["name"] for one in of_kind(manifests(lake, path), "ScheduledSparkApplication")} == {
        "ingest",
        "maintain",
    }
    with pytest.raises(TerminalError, match=r"job 'compact': it has no schedule"):
        scheduled(lake, lake.job("compact"), lake.workspace("ewr"))


def test_ingest_without_an_end_is_started_by_its_schedule_and_has_no_deadline(declare):
    lake, path = declare(**{"{max_objects: 50}": "{max_objects: 50, every_seconds: 15}"})
    found = of_kind(manifests(lake, path), "ScheduledSparkApplication")
    ingest = next(one for one in found if one["metadata"]["name"] == "ingest")
    assert (ingest["spec"]["schedule"], ingest["spec"]["concurrencyPolicy"]) == ("*/5 * * * *", "Forbid")
    template = ingest["spec"]["template"]
    assert template["arguments"][-2:] == ["--every", "15"]
    assert "activeDeadlineSeconds" not in template["driver"]["template"]["spec"]
    # by hand it is one run all the same
    once = application(lake, lake.job("ingest"), lake.workspace("ewr"), run_id="1").to_dict()["spec"]
    assert "--every" not in once["arguments"]
    assert once["driver"]["template"]["spec"]["activeDeadlineSeconds"] == 7200


def test_the_runs_of_pooled_tenants_are_one_and_name_the_pool(declare):
    ingest, *_ = [
        one
        for one in of_kind(manifests(*declare()), "ScheduledSparkApplication")
        if one["metadata"]["namespace"] == "acme-demo-pooled"
    ]
    assert ingest["spec"]["template"]["arguments"] == ["--lake", "/etc/lakehose/lake.yaml", "--owner", "pooled"]


def test_a_workspaces_declaration_names_its_own_tenants_only(declare, tmp_path):
    configs = {one["metadata"]["namespace"]: one["data"] for one in of_kind(manifests(*declare()), "ConfigMap")}
    assert list(yaml.safe_load(configs["acme-demo-ewr"]["lake.yaml"])["tenants"]) == ["ewr"]
    assert list(yaml.safe_load(configs["acme-demo-pooled"]["lake.yaml"])["tenants"]) == ["jfk", "lga"]
    assert configs["acme-demo-ewr"]["contracts__flights.yaml"] == (ROOT / "contracts" / "flights.yaml").read_text()


def test_what_a_pod_mounts_is_a_declaration_that_can_be_read(declare, tmp_path):
    files = manifests(*declare())
    for config in of_kind(files, "ConfigMap"):
        namespace = config["metadata"]["namespace"]
        run, *_ = [
            one for one in of_kind(files, "ScheduledSparkApplication") if one["metadata"]["namespace"] == namespace
        ]
        volumes = run["spec"]["template"]["driver"]["template"]["spec"]["volumes"]
        items = next(one["configMap"]["items"] for one in volumes if one["name"] == "lake")
        for item in items:
            target = tmp_path / namespace / item["path"]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(config["data"][item["key"]])
        there = read_lake(tmp_path / namespace / "lake.yaml")
        owner = run["spec"]["template"]["arguments"][-1]
        assert there.workspace(owner).namespace == namespace


def test_every_pod_is_confined(declare):
    for one in of_kind(manifests(*declare()), "ScheduledSparkApplication"):
        for spec in pods(one["spec"]["template"]):
            assert spec["securityContext"]["runAsNonRoot"] is True
            assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            (container,) = spec["containers"]
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
                "readOnlyRootFilesystem": True,
            }


def test_drivers_keep_off_spot_nodes_and_executors_seek_them_near_their_driver(declare):
    run = of_kind(manifests(*declare()), "ScheduledSparkApplication")[0]
    driver, executor = pods(run["spec"]["template"])
    terms = driver["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"]
    assert [(one["key"], one["operator"], one["values"]) for one in terms[0]["matchExpressions"]] == [
        ("karpenter.sh/capacity-type", "NotIn", ["spot"]),
        ("eks.amazonaws.com/capacityType", "NotIn", ["SPOT"]),
    ]
    near = executor["affinity"]["podAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"][0]
    assert near["podAffinityTerm"]["topologyKey"] == "topology.kubernetes.io/zone"
    assert near["podAffinityTerm"]["matchLabelKeys"] == ["spark-app-selector"]
    assert executor["tolerations"] == [{"key": "lakehose.dev/executors", "operator": "Exists"}]
    assert "tolerations" not in driver


def test_an_endpoint_reaches_pods_and_the_walls_let_it_through(declare):
    files = manifests(*declare(), endpoint="http://10.244.0.1:4577")
    for one in of_kind(files, "ScheduledSparkApplication"):
        for spec in pods(one["spec"]["template"]):
            variables = {pair["name"]: pair["value"] for pair in spec["containers"][0]["env"]}
            assert variables["AWS_ENDPOINT_URL"] == "http://10.244.0.1:4577"
    ports = [
        port["port"] for rule in of_kind(files, "NetworkPolicy")[0]["spec"]["egress"] for port in rule.get("ports", ())
    ]
    assert 4577 in ports


def test_settings_of_the_declaration_reach_the_manifests(declare):
    extra = (
        "  compact: {schedule: '@every 90s', retries: 1, timeout_minutes: 7, driver: {cpu: 250m, memory_mib: 1024},\n"
        "            executors: {least: 0, most: 9}}\n"
        "kubernetes:\n  image: somewhere/jobs:7\n  pull_policy: Never\n  credentials_secret: aws\n  local_nvme: true\n"
        "  event_logs: s3a://logs/spark\n  shuffle_fallback: s3a://logs/shuffle/\n  history: 2\n"
        "  tiers:\n    dedicated: {priority: 7, cpu: 3, memory_gib: 9, pods: 4}\n"
    )
    files = manifests(*declare(extra))
    compact = next(one for one in of_kind(files, "ScheduledSparkApplication") if one["metadata"]["name"] == "compact")
    spec = compact["spec"]["template"]
    assert (compact["spec"]["schedule"], compact["spec"]["failedRunHistoryLimit"]) == ("@every 90s", 2)
    assert (spec["image"], spec["imagePullPolicy"]) == ("somewhere/jobs:7", "Never")
    assert (spec["driver"]["coreRequest"], spec["driver"]["memory"]) == ("250m", "1024m")
    assert spec["driver"]["template"]["spec"]["activeDeadlineSeconds"] == 420
    assert spec["restartPolicy"]["onFailureRetries"] == 1
    assert (spec["dynamicAllocation"]["minExecutors"], spec["dynamicAllocation"]["maxExecutors"]) == (0, 9)
    assert spec["sparkConf"]["spark.eventLog.dir"] == "s3a://logs/spark"
    assert spec["sparkConf"]["spark.storage.decommission.fallbackStorage.path"] == "s3a://logs/shuffle/acme-demo-ewr/"
    _, executor = pods(spec)
    assert executor["containers"][0]["envFrom"] == [{"secretRef": {"name": "aws"}}]
    required = executor["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert required["nodeSelectorTerms"][0]["matchExpressions"][0]["key"] == "karpenter.k8s.aws/instance-local-nvme"
    quotas = {one["metadata"]["namespace"]: one["spec"]["hard"] for one in of_kind(files, "ResourceQuota")}
    assert quotas["acme-demo-ewr"] == {"pods": "4", "requests.cpu": "3", "requests.memory": "9Gi"}
    priorities = {one["metadata"]["name"]: one["value"] for one in of_kind(files, "PriorityClass")}
    assert priorities == {"acme-demo-dedicated": 7, "acme-demo-pooled": 1000}


def test_a_run_by_hand_is_removed_when_its_time_has_come(declare):
    lake, _ = declare()
    made = application(lake, lake.job("ingest"), lake.workspace("jfk"), run_id="x1", tenants=["jfk"]).to_dict()
    assert made["metadata"]["name"] == "ingest-x1"
    assert made["metadata"]["namespace"] == "acme-demo-pooled"
    assert made["spec"]["arguments"][-4:] == ["--owner", "pooled", "--tenant", "jfk"]
    assert made["spec"]["timeToLiveSeconds"] == 86400


def test_a_run_for_another_workspaces_tenant_is_refused(declare):
    lake, _ = declare()
    with pytest.raises(TerminalError, match=r"got 'ewr', allowed are: jfk, lga .*the tenants of 'pooled'"):
        application(lake, lake.job("ingest"), lake.workspace("pooled"), run_id="x1", tenants=["ewr"])


def test_a_contract_outside_of_the_declarations_folder_is_refused(declare, tmp_path):
    inner = tmp_path / "inner"
    inner.mkdir()
    _, path = declare()
    (inner / "lake.yaml").write_text(path.read_text().replace("contracts/", "../contracts/"))
    lake = read_lake(inner / "lake.yaml")
    with pytest.raises(
        DeclarationError, match=r"contract \.\./contracts/flights\.yaml: pods get the declaration's folder"
    ):
        manifests(lake, inner / "lake.yaml")


def test_a_declaration_larger_than_a_config_map_is_refused(declare):
    lake, path = declare()
    path.write_text(path.read_text() + "#" * 10)
    (path.parent / "contracts" / "flights.yaml").write_text("#" * 1_100_000)
    with pytest.raises(DeclarationError, match=r"takes 1,1\d\d,\d\d\d bytes, a ConfigMap 1,000,000"):
        manifests(lake, path)


def test_drops_and_their_job_go_to_the_workspace_of_their_tenant_only(declare, tmp_path):
    extra = "  files: {schedule: '@every 90s'}\ndrops:\n  bills: {tenant: jfk, dataset: flights}\n"
    files = manifests(*declare(extra))
    configs = {
        one["metadata"]["namespace"]: yaml.safe_load(one["data"]["lake.yaml"]) for one in of_kind(files, "ConfigMap")
    }
    assert list(configs["acme-demo-pooled"]["drops"]) == ["bills"]
    assert "drops" not in configs["acme-demo-ewr"]
    assert "files" not in configs["acme-demo-ewr"]["jobs"]
    runs = [
        (one["metadata"]["namespace"], one["metadata"]["name"]) for one in of_kind(files, "ScheduledSparkApplication")
    ]
    assert ("acme-demo-pooled", "files") in runs
    assert ("acme-demo-ewr", "files") not in runs
    for namespace, config in configs.items():
        (tmp_path / namespace / "contracts").mkdir(parents=True)
        (tmp_path / namespace / "contracts" / "flights.yaml").write_text(
            (ROOT / "contracts" / "flights.yaml").read_text()
        )
        (tmp_path / namespace / "lake.yaml").write_text(yaml.safe_dump(config))
        read_lake(tmp_path / namespace / "lake.yaml")
