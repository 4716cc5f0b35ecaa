"""Applying to a real API server: what is made, what is left alone, whose fields they are, what is removed."""

from __future__ import annotations

import pytest
import yaml

from k8s.apply import PRUNED_KINDS, apply, differences, left_over, prune
from k8s.cluster import place
from k8s.errors import ConflictError, NotFoundError, RefusedError
from k8s.render import manifests
from lake.declaration import read_lake
from lake.provision import Outcome
from tests.k8s.conftest import config_map


@pytest.fixture
def declared(lake_folder, swept):
    """A lake, its declaration's path, and a function that renders it as it is written now."""
    path = lake_folder()
    swept(read_lake(path))

    def objects(**parts):
        raw = yaml.safe_load(path.read_text()) | parts
        path.write_text(yaml.safe_dump(raw, sort_keys=False))
        lake = read_lake(path)
        return lake, [one for each in manifests(lake, path).values() for one in each]

    return objects


def outcomes(changes):
    return {one.outcome for one in changes}


def test_a_lake_is_created_and_the_second_time_unchanged(cluster, declared):
    _, objects = declared()
    first = list(apply(cluster, objects))
    assert [f"{one.kind} {one.name}" for one in first] == [place(one) for one in objects]
    assert outcomes(first) == {Outcome.CREATED}
    assert outcomes(apply(cluster, objects)) == {Outcome.UNCHANGED}
    assert list(differences(cluster, objects)) == []


def test_a_lake_that_is_not_there_differs_in_every_object_and_nothing_is_made(cluster, declared):
    lake, objects = declared()
    found = list(differences(cluster, objects))
    assert [one.name for one in found] == [place(one) for one in objects]
    assert all(one.new for one in found)
    assert cluster.get(cluster.kind("v1", "Namespace"), None, lake.workspaces()[0].namespace) is None


def test_a_changed_declaration_changes_what_it_is_about_and_nothing_else(cluster, declared):
    lake, objects = declared()
    list(apply(cluster, objects))
    _, changed = declared(jobs={"ingest": {"schedule": "*/7 * * * *"}})
    differing = list(differences(cluster, changed))
    namespaces = [one.namespace for one in lake.workspaces()]
    expected = {f"{kind} {one}/{name}" for one in namespaces for kind, name in
                (("ScheduledSparkApplication", "ingest"), ("ConfigMap", "lake"))}  # fmt: skip
    assert {one.name for one in differing} == expected
    schedule = next(one for one in differing if one.name.startswith("Scheduled"))
    assert "-  schedule: '*/5 * * * *'" in schedule.diff
    assert "+  schedule: '*/7 * * * *'" in schedule.diff
    updated = [one for one in apply(cluster, changed) if one.outcome is Outcome.UPDATED]
    assert {f"{one.kind} {one.name}" for one in updated} == expected


def test_a_status_that_an_operator_writes_is_no_difference(cluster, declared):
    lake, objects = declared()
    list(apply(cluster, objects))
    kind = cluster.kind("sparkoperator.k8s.io/v1beta2", "ScheduledSparkApplication")
    path = f"{kind.path(lake.workspaces()[0].namespace, 'ingest')}/status"
    cluster._call(
        "PATCH", path, "status", body={"status": {"lastRunName": "ingest-1"}}, content="application/merge-patch+json"
    )
    assert list(differences(cluster, objects)) == []
    assert outcomes(apply(cluster, objects)) == {Outcome.UNCHANGED}


def test_a_field_that_somebody_else_has_set_is_named_with_who_it_was(bare_cluster, namespace, tmp_path):
    other = config_map(namespace, "shared", size="1")
    path = bare_cluster.kind("v1", "ConfigMap").path(namespace, "shared")
    bare_cluster._call(
        "PATCH", path, "x", query={"fieldManager": "a-gitops-tool"}, body=other, content="application/apply-patch+yaml"
    )
    ours = config_map(namespace, "shared", size="2")
    with pytest.raises(ConflictError) as refused:
        list(apply(bare_cluster, [ours]))
    assert str(refused.value) == (
        f"ConfigMap {namespace}/shared: a-gitops-tool has set data.size; take that back there, or have lakehose own it "
        "with --force-conflicts"
    )
    assert outcomes(apply(bare_cluster, [ours], force=True)) == {Outcome.UPDATED}
    assert outcomes(apply(bare_cluster, [ours])) == {Outcome.UNCHANGED}


def test_nothing_is_applied_when_the_cluster_lacks_a_kind_of_the_operator(bare_cluster, namespace):
    unknown = {
        "apiVersion": "sparkoperator.k8s.io/v1beta99",
        "kind": "SparkApplication",
        "metadata": {"name": "one", "namespace": namespace},
    }
    with pytest.raises(
        NotFoundError, match="the Spark Operator isn't installed; `lakehose deploy install` installs it"
    ):
        list(apply(bare_cluster, [config_map(namespace, "before"), unknown]))
    assert bare_cluster.get(bare_cluster.kind("v1", "ConfigMap"), namespace, "before") is None


def test_an_unknown_field_is_refused_by_its_name(bare_cluster, namespace):
    odd = {**config_map(namespace, "odd"), "dato": {"a": "b"}}
    with pytest.raises(
        RefusedError, match="the cluster knows no such field or type: dato: field not declared in schema"
    ):
        list(apply(bare_cluster, [odd]))


def test_a_wrong_type_is_refused_by_its_field(cluster, declared):
    _, objects = declared()
    broken = next(one for one in objects if one["kind"] == "ScheduledSparkApplication")
    broken = {**broken, "spec": {**broken["spec"], "schedule": 5}}
    list(apply(cluster, [one for one in objects if one["kind"] == "Namespace"]))
    with pytest.raises(RefusedError, match=r"spec\.schedule"):
        list(apply(cluster, [broken]))


def test_an_object_for_a_namespace_that_nobody_makes_is_refused(bare_cluster):
    with pytest.raises(NotFoundError, match="there is no namespace a-nowhere; `lakehose k8s apply` makes it"):
        list(differences(bare_cluster, [config_map("a-nowhere", "one")]))


def test_what_is_no_longer_declared_is_removed_and_what_is_still_used_is_left(cluster, declared):
    lake, objects = declared()
    list(apply(cluster, objects))
    pool = lake.workspace("pooled").namespace
    cluster.create(config_map(pool, "notes", by="hand"))
    smaller, wanted = declared(tenants={"ewr": {"tier": "dedicated"}})
    gone = left_over(cluster, smaller, wanted)
    assert {one["metadata"].get("namespace", one["metadata"]["name"]) for one in gone} == {
        pool,
        f"{lake.company}-{lake.environment}-pooled",
    }
    left = {one.name: one.left for one in prune(cluster, gone) if one.left}
    assert left == {
        f"Namespace {pool}": f"it holds ConfigMap notes; `kubectl delete namespace {pool}` removes it with all it holds"
    }
    assert cluster.get(cluster.kind("v1", "ConfigMap"), pool, "notes")["data"] == {"by": "hand"}
    assert cluster.get(cluster.kind("v1", "ServiceAccount"), pool, "ingest") is None
    assert list(differences(cluster, wanted)) == []


def test_an_empty_namespace_goes_with_its_tenant(cluster, declared):
    lake, objects = declared()
    list(apply(cluster, objects))
    smaller, wanted = declared(tenants={"ewr": {"tier": "dedicated"}})
    assert [one.left for one in prune(cluster, left_over(cluster, smaller, wanted)) if one.left] == []
    there = cluster.get(cluster.kind("v1", "Namespace"), None, lake.workspace("pooled").namespace)
    assert there is None or there["status"]["phase"] == "Terminating"


def test_another_lake_on_the_same_cluster_is_none_of_our_business(cluster, declared, lake_folder, swept):
    _, objects = declared()
    list(apply(cluster, objects))
    path = lake_folder()
    other = read_lake(path)
    swept(other)
    assert left_over(cluster, other, []) == []


def test_every_kind_that_a_lake_makes_can_be_removed_again(declared):
    _, objects = declared()
    made = {(one["apiVersion"], one["kind"]) for one in objects}
    assert made <= set(PRUNED_KINDS)
