"""Values: what follows from the declaration, and what is given on top."""

from __future__ import annotations

import pytest
import yaml

from charts.values import chart_values, given_values, merged, operator_values, set_value
from lake.declaration import read_lake
from lake.errors import DeclarationError


def test_every_object_of_the_lake_is_in_the_values_once(declaration):
    path = declaration("v1", ewr="dedicated", jfk="pooled", lga="pooled")
    values = chart_values(read_lake(path), path)
    spaces = [one["metadata"]["name"] for one in values["lake"]["objects"] if one["kind"] == "Namespace"]
    assert spaces == ["acme-v1-ewr", "acme-v1-pooled"]
    assert values["lake"]["jobs"] == [
        {"name": "ingest", "overdueMinutes": 35},
        {"name": "compact", "overdueMinutes": 120},
        {"name": "maintain", "overdueMinutes": 1560},
    ]


def test_the_server_gets_images_region_and_endpoint_from_the_declaration(declaration):
    path = declaration("v2", ewr="dedicated")
    raw = yaml.safe_load(path.read_text())
    raw |= {"region": "eu-west-1", "kubernetes": {"firehose_image": "x/firehose:1", "credentials_secret": "aws"}}
    path.write_text(yaml.safe_dump(raw))
    values = chart_values(read_lake(path), path, endpoint="http://10.0.0.1:4566")
    assert values["firehose"] == {
        "image": "x/firehose:1",
        "pullPolicy": "IfNotPresent",
        "region": "eu-west-1",
        "s3Endpoint": "http://10.0.0.1:4566",
        "credentialsSecret": "aws",
    }
    assert "historyServer" not in values


def test_event_logs_bring_a_history_server(declaration):
    path = declaration("v3", ewr="dedicated")
    raw = yaml.safe_load(path.read_text())
    path.write_text(yaml.safe_dump({**raw, "kubernetes": {"event_logs": "s3a://logs/spark"}}))
    server = chart_values(read_lake(path), path)["historyServer"]
    assert (server["enabled"], server["logDirectory"]) == (True, "s3a://logs/spark")


@pytest.mark.parametrize(
    ("text", "made"),
    [
        ("a.b=2", {"a": {"b": 2}}),
        ('a.b="2"', {"a": {"b": "2"}}),
        ("a=", {"a": ""}),
        ("a=null", {"a": None}),
        ("a=[1, x]", {"a": [1, "x"]}),
        (r"a.kubernetes\.io/arch=arm64", {"a": {"kubernetes.io/arch": "arm64"}}),
        ("a[0].key=x", {"a": [{"key": "x"}]}),
        ("a.b=c=d", {"a": {"b": "c=d"}}),
    ],
)
def test_a_setting_is_a_path_and_yaml(text, made):
    values = {}
    set_value(values, text)
    assert values == made


def test_settings_go_on_where_others_ended():
    values = {}
    for one in ("a[0].x=1", "a[0].y=2", "a[1].x=3", "b.c=4", "b.d=5"):
        set_value(values, one)
    assert values == {"a": [{"x": 1, "y": 2}, {"x": 3}], "b": {"c": 4, "d": 5}}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("firehose", "--set firehose: give key=value"),
        ("=2", "--set =2: give key=value"),
        ("a[1]=2", "--set a[1]=2: [1]: positions of a list begin at 0"),
        ("a={", "--set a={: the value isn't YAML"),
    ],
)
def test_a_setting_that_is_none_is_refused(text, told):
    with pytest.raises(DeclarationError, match=f"^{told.replace('[', '.').replace(']', '.')}"):
        set_value({}, text)


def test_a_setting_below_a_number_is_refused():
    values = {"a": 1}
    with pytest.raises(DeclarationError, match="what is above it is 1, no mapping"):
        set_value(values, "a.b=2")


def test_files_come_in_order_and_single_settings_win(tmp_path):
    first, second = tmp_path / "1.yaml", tmp_path / "2.yaml"
    first.write_text("firehose: {replicas: 1, uploads: 2, storage: {accessModes: [ReadWriteOnce]}}")
    second.write_text("firehose: {replicas: 2, storage: {accessModes: [ReadWriteMany]}}")
    assert given_values([first, second], ["firehose.uploads=9"]) == {
        "firehose": {"replicas": 2, "uploads": 9, "storage": {"accessModes": ["ReadWriteMany"]}}
    }


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("lake: {company: other}", "lake: it follows from lake.yaml; change that. Got company"),
        ("spark-operator: {enabled: true}", "the operator is installed as a release of its own"),
        ("[1, 2]", "got list, a mapping of values is needed"),
        ("a: {b", "not YAML"),
    ],
)
def test_a_file_that_says_what_it_may_not_is_refused(tmp_path, text, told):
    path = tmp_path / "values.yaml"
    path.write_text(text)
    with pytest.raises(DeclarationError, match=told):
        given_values([path], [])


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DeclarationError, match=r"--values .*/none\.yaml: can't be read"):
        given_values([tmp_path / "none.yaml"], [])


def test_the_operator_is_told_of_namespaces_and_of_what_is_given_for_it():
    given = {"spark-operator": {"enabled": False, "image": {"tag": "x"}, "spark": {"rbac": {"create": True}}}}
    values = operator_values(given, {"b", "a"})
    assert values["spark"] == {
        "jobNamespaces": ["a", "b"],
        "serviceAccount": {"create": False},
        "rbac": {"create": True},
    }
    assert values["image"] == {"tag": "x"}
    assert "enabled" not in values


def test_an_operator_is_never_told_of_no_namespaces():
    # its chart would take that for all there are
    with pytest.raises(ValueError, match="without namespaces"):
        operator_values({}, set())


def test_merging_leaves_both_as_they_were():
    below, above = {"a": {"b": 1}}, {"a": {"c": 2}}
    assert merged(below, above) == {"a": {"b": 1, "c": 2}}
    assert (below, above) == ({"a": {"b": 1}}, {"a": {"c": 2}})
