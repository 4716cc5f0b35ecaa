"""`lakehose k8s` as a user types it, on a real API server; no operator runs, so a run stays as it was submitted."""

from __future__ import annotations

import json
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import yaml

from k8s.follow import Follower
from k8s.kubeconfig import connect
from k8s.runs import APPLICATION, Run
from lake.clients import Cloud
from lake.declaration import read_lake
from lake.errors import TransientError
from lakehose.cli import main

AWS = ("AWS_ENDPOINT_URL", "LAKEHOSE_LAKE", "KUBECONFIG")


@pytest.fixture
def command(monkeypatch, capfd):
    """Runs the command; answers exit status, standard output and standard error."""

    def run(*arguments):
        for name in AWS:
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setattr(sys, "argv", ["lakehose", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        return ended.value.code or 0, out, err

    return run


@pytest.fixture
def k8s(command, kubeconfig, lake_folder, swept, cluster):
    """`lakehose k8s` on a lake of the test's own; the lake as `.lake`, its path as `.path`."""
    path = lake_folder()

    def run(*arguments):
        return command("--lake", path, "k8s", *arguments, "--kubeconfig", kubeconfig)

    run.path, run.lake = path, read_lake(path)
    swept(run.lake)
    return run


@pytest.fixture
def applied(k8s):
    """The same, with everything applied."""
    assert k8s("apply")[0] == 0
    return k8s


def change(path, **parts):
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text()) | parts, sort_keys=False))


def test_manifests_are_written_once_and_checked(command, lake_folder, tmp_path):
    path, folder = lake_folder(), tmp_path / "manifests"
    arguments = ("--lake", path, "k8s", "render", "--output", folder)
    code, out, _ = command(*arguments)
    names = ["00-namespaces.yaml", "10-ewr.yaml", "10-pooled.yaml"]
    assert (code, sorted(one.name for one in folder.iterdir())) == (0, names)
    assert out.splitlines() == [f"created   {folder / name}" for name in names]
    assert command(*arguments)[1].splitlines() == [f"unchanged {folder / name}" for name in names]
    assert command(*arguments, "--check")[:2] == (0, f"{folder}: up to date, 3 files\n")


def test_the_check_names_each_file_that_differs_and_writes_nothing(command, lake_folder, tmp_path):
    path, folder = lake_folder(), tmp_path / "manifests"
    command("--lake", path, "k8s", "render", "--output", folder)
    (folder / "10-pooled.yaml").unlink()
    change(path, tenants={"jfk": {"tier": "pooled"}, "lga": {"tier": "dedicated"}})
    before = {one.name: one.read_text() for one in folder.iterdir()}
    code, out, _ = command("--lake", path, "k8s", "render", "--output", folder, "--check")
    assert code == 1
    assert set(out.splitlines()) == {
        f"{folder}/00-namespaces.yaml: differs from the declaration",
        f"{folder}/10-lga.yaml: missing",
        f"{folder}/10-pooled.yaml: missing",
        f"{folder}/10-ewr.yaml: no longer declared",
        "`lakehose k8s render` writes them anew",
    }
    assert {one.name: one.read_text() for one in folder.iterdir()} == before


def test_a_file_that_is_no_longer_made_is_removed_and_one_of_somebody_elses_is_left(command, lake_folder, tmp_path):
    path, folder = lake_folder(), tmp_path / "manifests"
    command("--lake", path, "k8s", "render", "--output", folder)
    (folder / "kustomization.yaml").write_text("resources: []\n")
    change(path, tenants={"jfk": {"tier": "pooled"}})
    out = command("--lake", path, "k8s", "render", "--output", folder)[1]
    assert f"removed   {folder}/10-ewr.yaml" in out.splitlines()
    assert (folder / "kustomization.yaml").read_text() == "resources: []\n"


def test_pods_are_never_told_to_look_for_aws_on_their_own_loopback(command, lake_folder, tmp_path):
    arguments = (
        "--lake",
        lake_folder(),
        "--endpoint",
        "http://127.0.0.1:4566",
        "k8s",
        "render",
        "--output",
        tmp_path / "m",
    )
    code, _, err = command(*arguments)
    assert code == 2
    assert "endpoint http://127.0.0.1:4566 is this machine's own, and pods can't reach it: give --pod-endpoint" in err
    assert command(*arguments, "--pod-endpoint", "http://10.0.0.1:4566")[0] == 0
    assert "value: http://10.0.0.1:4566" in (tmp_path / "m" / "10-ewr.yaml").read_text()


def test_an_endpoint_that_is_no_url_is_refused(command, lake_folder, tmp_path):
    code, _, err = command("--lake", lake_folder(), "k8s", "render", "--output", tmp_path, "--pod-endpoint", "10.0.0.1")
    assert (code, "--pod-endpoint: got '10.0.0.1', a URL that begins with http" in err) == (2, True)


def test_diff_apply_and_diff_again(k8s):
    code, out, _ = k8s("diff")
    assert code == 1
    assert f"+++ Namespace {k8s.lake.workspaces()[0].namespace} (declared)" in out
    code, out, _ = k8s("apply")
    assert (code, out.splitlines()[-1]) == (0, "28 created, 0 updated, 0 unchanged")
    assert k8s("apply")[1].splitlines()[-1] == "0 created, 0 updated, 28 unchanged"
    code, out, _ = k8s("diff")
    assert (code, out.endswith("nothing differs, 28 objects\n")) == (0, True)


def test_a_tenant_that_is_gone_is_shown_and_pruned(applied):
    change(applied.path, tenants={"ewr": {"tier": "dedicated"}})
    namespace = applied.lake.workspace("pooled").namespace
    code, out, _ = applied("diff", "--prune")
    assert (code, f"no longer declared: Namespace {namespace}" in out.splitlines()) == (1, True)
    code, out, _ = applied("apply", "--prune")
    assert (code, f"removed   Namespace {namespace}" in out.splitlines()) == (0, True)


def test_a_run_is_submitted_seen_and_deleted(applied, cluster):
    code, out, err = applied("submit", "ingest", "--owner", "ewr")
    assert (code, err) == (0, "")
    name = out.strip()
    assert re.fullmatch(r"ingest-\d{8}-\d{6}-[0-9a-f]{4}", name)
    namespace = applied.lake.workspace("ewr").namespace
    made = cluster.get(cluster.kind(*APPLICATION), namespace, name)
    assert made["spec"]["arguments"] == ["--lake", "/etc/lakehose/lake.yaml", "--owner", "ewr"]
    code, _, err = applied("logs", name)
    assert (code, "its driver's pod isn't there: it is yet to come, or was removed" in err) == (1, True)
    code, _, err = applied("delete", name)
    assert (code, f"run {namespace}/{name}: it is under way (new); --running ends it" in err) == (2, True)
    assert applied("delete", name, "--running")[:2] == (0, f"deleted   {namespace}/{name}\n")


def test_a_job_is_submitted_to_every_workspace_or_to_those_of_the_tenants_asked_for(applied, cluster):
    code, out, _ = applied("submit", "compact")
    assert (code, len(out.split())) == (0, 2)
    code, out, _ = applied("submit", "compact", "--tenant", "lga", "--dataset", "flights")
    (name,) = out.split()
    made = cluster.get(cluster.kind(*APPLICATION), applied.lake.workspace("pooled").namespace, name)
    assert made["spec"]["arguments"][2:] == ["--owner", "pooled", "--dataset", "flights", "--tenant", "lga"]


def finish(cluster, namespace, name, state, message=""):
    """What the operator writes when a run has ended."""
    kind = cluster.kind(*APPLICATION)
    status = {"applicationState": {"state": state, "errorMessage": message}, "driverInfo": {}}
    status |= {"executionAttempts": 1, "lastSubmissionAttemptTime": None, "terminationTime": None}
    cluster._call(
        "PATCH",
        f"{kind.path(namespace, name)}/status",
        name,
        body={"status": status},
        content="application/merge-patch+json",
    )


@pytest.mark.parametrize(
    ("state", "message", "code"),
    [
        ("COMPLETED", "", 0),
        ("FAILED", "driver container failed with ExitCode: 1, Reason: Error", 1),
        ("FAILED", "driver container failed with ExitCode: 2, Reason: Error", 2),
    ],
)
def test_watching_a_run_that_has_ended_exits_as_the_job_did(applied, cluster, state, message, code):
    name = applied("submit", "ingest", "--owner", "ewr")[1].strip()
    finish(cluster, applied.lake.workspace("ewr").namespace, name, state, message)
    assert applied("watch", name)[0] == code
    assert applied("watch", "ingest", "--owner", "ewr")[0] == code  # a job's name is its newest run
    assert applied("logs", name, "--follow")[0] == code


def test_only_what_has_ended_is_deleted_when_all_finished_runs_are(applied, cluster):
    done, going = applied("submit", "ingest")[1].split()
    finish(cluster, applied.lake.workspace("ewr").namespace, done, "COMPLETED")
    code, out, _ = applied("delete", "--all-finished")
    assert (code, out) == (0, f"deleted   {applied.lake.workspace('ewr').namespace}/{done}\n")
    assert applied("delete", "--all-finished")[1] == "nothing to delete: no run has ended\n"
    assert cluster.get(cluster.kind(*APPLICATION), applied.lake.workspace("pooled").namespace, going)


def test_a_run_that_nothing_takes_up_is_given_up_with_what_to_look_at(applied):
    code, _, err = applied("submit", "ingest", "--owner", "ewr", "--follow", "--timeout", "3")
    assert code == 1
    assert "its driver isn't running after 3 s: no operator has taken it up yet: is the Spark Operator up" in err
    assert "`lakehose deploy status` tells" in err


class Deaf:
    """Takes what a follower tells, for nobody."""

    def state(self, run, text):
        pass

    line = state


def test_a_run_that_is_deleted_while_it_is_followed_ends_the_following(applied, cluster):
    name = applied("submit", "ingest", "--owner", "ewr")[1].strip()
    made = cluster.get(cluster.kind(*APPLICATION), applied.lake.workspace("ewr").namespace, name)
    follower = Follower(cluster, Run.of(made), Deaf())
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(follower.follow)
        deadline = time.monotonic() + 30
        while not (follower._watches and follower._watches[0]._known):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        cluster.delete(made)
        with pytest.raises(TransientError, match=f"{name}: it was deleted while it was followed"):
            following.result(timeout=30)
    with pytest.raises(TransientError, match=f"{name}: it was deleted while it was followed"):
        follower.follow()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("submit", "ingset"), "job: got 'ingset', allowed are: compact, ingest, maintain; did you mean 'ingest'?"),
        (("submit", "ingest", "--owner", "ewrr"), "owner: got 'ewrr', allowed are: ewr, jfk, lga, pooled"),
        (("submit", "ingest", "--owner", "jfk"), "tenant 'jfk' is pooled; give --owner pooled, or --tenant jfk"),
        (("submit", "ingest", "--tenant", "sfo"), "tenant: got 'sfo'"),
        (("submit", "ingest", "--owner", "ewr", "--tenant", "jfk"), "(the tenants of 'ewr')"),
        (("submit", "ingest", "--dataset", "fligths"), "did you mean 'flights'?"),
        (("submit", "ingest"), "there is none; `lakehose k8s apply` makes it, with its namespace"),
        (("watch", "ingest"), "the cluster has none; `lakehose k8s submit` starts one"),
        (("logs", "no/run"), "the cluster has none"),
        (("delete",), "delete: give the name of a run, or --all-finished"),
        (("delete", "one", "--all-finished"), "delete: give the name of a run, or --all-finished"),
        (("apply", "--context", "prod"), "context: got 'prod', allowed are: "),
    ],
)
def test_a_wrong_word_gives_a_sentence_and_changes_nothing(k8s, cluster, arguments, sentence):
    code, out, err = k8s(*arguments)
    assert (code, out) == (2, "")
    assert sentence in err
    assert "Traceback" not in err
    assert cluster.get(cluster.kind("v1", "Namespace"), None, k8s.lake.workspaces()[0].namespace) is None


def test_an_unknown_run_is_told_with_the_ones_there_are(applied):
    name = applied("submit", "ingest", "--owner", "ewr")[1].strip()
    code, _, err = applied("watch", "ingest-1")
    assert (code, f"run: got 'ingest-1', allowed are: {name}" in err) == (2, True)


def test_a_run_of_each_of_two_owners_asks_for_which(applied):
    applied("submit", "ingest")
    code, _, err = applied("logs", "ingest")
    assert (code, "there is one of each of these owners: ewr, pooled; choose one with --owner" in err) == (2, True)


def test_a_declaration_that_the_cluster_does_not_have_yet_is_said(applied):
    change(applied.path, jobs={"ingest": {"max_objects": 7}})
    code, _, err = applied("submit", "ingest", "--owner", "ewr")
    assert code == 0
    assert f"ConfigMap {applied.lake.workspace('ewr').namespace}/lake differs from {applied.path}" in err


def test_who_may_not_submit_is_told_so(applied, command, account):
    poor = account({"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]})
    assert connect(poor)
    code, _, err = command("--lake", applied.path, "k8s", "submit", "ingest", "--owner", "ewr", "--kubeconfig", poor)
    assert code == 2
    assert "may not create sparkapplications.sparkoperator.k8s.io in namespace" in err


def test_run_on_k8s_submits_what_run_on_this_machine_takes(applied, command, kubeconfig, cluster):
    arguments = ("--lake", applied.path, "run", "compact", "--on", "k8s", "--owner", "ewr", "--dataset", "flights")
    code, _, err = command(*arguments, "--kubeconfig", kubeconfig, "--timeout", "2")
    assert (code, "its driver isn't running after" in err) == (1, True)
    there = cluster.list(cluster.kind(*APPLICATION), applied.lake.workspace("ewr").namespace)["items"]
    assert [one["spec"]["arguments"][2:] for one in there] == [["--owner", "ewr", "--dataset", "flights"]]


def test_options_of_the_one_are_refused_for_the_other(command, lake_folder):
    path = lake_folder()
    code, _, err = command("--lake", path, "run", "ingest", "--kubeconfig", "x")
    assert (code, "--kubeconfig: it is for --on k8s" in err) == (2, True)
    code, _, err = command("--lake", path, "run", "ingest", "--on", "k8s", "--json")
    assert (code, "--json: it is for --on local" in err) == (2, True)


def test_identities_are_printed_as_json_and_made_on_request(command, lake_folder, ministack):
    path = lake_folder()
    arguments = ("--lake", path, "--endpoint", ministack)
    code, _, err = command(*arguments, "k8s", "identity")
    assert (code, "run `lakehose apply` first" in err) == (1, True)
    lake = read_lake(path)
    cloud = Cloud("us-east-1", ministack)
    for owner in lake.owners():
        key = cloud.kms.create_key()["KeyMetadata"]["KeyId"]
        cloud.kms.create_alias(AliasName=lake.names.key_alias(owner), TargetKeyId=key)
    code, out, _ = command(*arguments, "k8s", "identity")
    assert [one["service_account"] for one in json.loads(out)] == 2 * ["ingest", "compact", "maintain"]
    code, out, _ = command(*arguments, "k8s", "identity", "--apply")
    assert (code, out.splitlines()[-1]) == (0, "6 created, 0 updated, 0 unchanged")
