"""The chart as helm gets it: dependencies, version, size; and the chart that a release keeps."""

from __future__ import annotations

import asyncio
import base64
import gzip
import json
import shutil
import tarfile

import pytest
import yaml

from charts.archive import installed_chart
from charts.helm import find_helm, helm_client
from charts.package import dependencies, dependency_chart, prepared_chart, release_size
from charts.values import chart_values
from lake.declaration import read_lake
from lake.errors import EnvironmentProblemError
from tests.charts.conftest import write_declaration

OPERATOR = dependencies()["spark-operator"]


@pytest.fixture(scope="module")
def client(helm, api_server, tmp_path_factory):
    return helm_client(find_helm(helm), api_server.access, timeout=60, unpack=tmp_path_factory.mktemp("pulled"))


def fetched(client, folder, target):
    return asyncio.run(dependency_chart(client, OPERATOR, folder, target))


def prepared(client, values, folder=None):
    async def run():
        async with prepared_chart(client, values, folder) as chart:
            inner = sorted(one.parent.name for one in chart.ref.glob("charts/*/Chart.yaml"))
            return str(chart.metadata.version), [one.name for one in chart.metadata.dependencies or []], inner

    return asyncio.run(run())


def test_a_dependency_comes_from_a_folder_of_charts(client, charts_folder, tmp_path):
    chart = fetched(client, charts_folder, tmp_path)
    assert (chart.metadata.name, str(chart.metadata.version)) == ("spark-operator", "2.5.2")


def test_it_may_be_an_archive(client, charts_folder, tmp_path):
    (tmp_path / "mirror").mkdir()
    with tarfile.open(tmp_path / "mirror" / "spark-operator-2.5.2.tgz", "w:gz") as archive:
        archive.add(charts_folder / "spark-operator-chart", "spark-operator")
    assert fetched(client, tmp_path / "mirror", tmp_path).metadata.name == "spark-operator"


def test_a_folder_without_it_is_told_what_to_put_there(client, tmp_path):
    with pytest.raises(
        EnvironmentProblemError, match=r"spark-operator 2\.5\.2 is needed, the folder has none .*helm pull"
    ):
        fetched(client, tmp_path, tmp_path)


def test_another_version_will_not_do(client, charts_folder, tmp_path):
    copy = tmp_path / "mirror" / "operator"
    shutil.copytree(charts_folder / "spark-operator-chart", copy)
    copy.chmod(0o755)
    (copy / "Chart.yaml").chmod(0o644)
    (copy / "Chart.yaml").write_text((copy / "Chart.yaml").read_text().replace("2.5.2", "2.4.0"))
    with pytest.raises(EnvironmentProblemError, match=r"2\.5\.2 is needed, the folder has it at 2\.4\.0"):
        fetched(client, tmp_path / "mirror", tmp_path)


def test_a_folder_that_is_not_there_is_named(client, tmp_path):
    with pytest.raises(EnvironmentProblemError, match=r"--charts .*/none: no such folder"):
        fetched(client, tmp_path / "none", tmp_path)


def test_what_is_not_enabled_need_not_be_there(client):
    assert prepared(client, {})[1:] == ([], [])


def test_what_is_enabled_is_a_part_of_the_chart(client, charts_folder):
    assert prepared(client, {"spark-operator": {"enabled": True}}, charts_folder)[1:] == (
        ["spark-operator"],
        ["spark-operator"],
    )


def test_the_version_tells_the_content(client, charts_folder):
    first, again = prepared(client, {})[0], prepared(client, {})[0]
    other = prepared(client, {"spark-operator": {"enabled": True}}, charts_folder)[0]
    assert first == again
    assert first.startswith("0.1.0+")
    assert other != first


# ----------------------------------------------------------------------------------------- what Helm keeps of a release


@pytest.fixture(scope="module")
def released(client, bare_chart, knowing_server, tmp_path_factory):
    """A release of a lake of 20 dedicated tenants, installed; its values and what was rendered."""
    tenants = {f"tenant-{number}": "dedicated" for number in range(20)}
    path = write_declaration(tmp_path_factory.mktemp("lake"), "size", **tenants)
    values = chart_values(read_lake(path), path)

    async def install():
        chart = await client.get_chart(bare_chart)
        await client.install_or_upgrade_release("size", chart, values, namespace="size")
        return list(await client.template_resources(chart, "size", values, namespace="size"))

    resources = asyncio.run(install())
    return values, [one for one in resources if one]


def test_the_size_of_a_release_is_known_before_helm_fails(released, api_server, bare_chart):
    secret = api_server.get("secret", "sh.helm.release.v1.size.v1", "-n", "size")
    kept = len(base64.b64decode(secret["data"]["release"]))
    assert abs(release_size(bare_chart, *released) - kept) < 0.05 * kept


@pytest.mark.usefixtures("released")
def test_the_chart_of_a_release_is_the_one_it_was_installed_from(api_cluster, bare_chart, tmp_path):
    found = installed_chart(api_cluster, "size", "size", 1, tmp_path)
    for one in sorted(bare_chart.rglob("*")):
        if not one.is_file() or one.name == ".helmignore":
            continue
        kept = (found / one.relative_to(bare_chart)).read_text()
        if one.suffix in {".yaml", ".json"} and one.parent == bare_chart:
            assert yaml.safe_load(kept) == yaml.safe_load(one.read_text()), one.name
        else:
            assert kept == one.read_text(), one.name


def test_a_release_that_is_not_there_has_no_chart(api_cluster, tmp_path):
    assert installed_chart(api_cluster, "default", "none", 1, tmp_path) is None


def test_a_chart_that_would_write_elsewhere_is_not_written(api_server, api_cluster, tmp_path):
    inner = {"metadata": {"name": "x"}, "templates": [{"name": "../../escaped", "data": ""}], "files": []}
    packed = base64.b64encode(gzip.compress(json.dumps({"chart": inner}).encode())).decode()
    name = "sh.helm.release.v1.evil.v1"
    made = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "default"}}
    api_server.kubectl("apply", "-f", "-", text=json.dumps({**made, "stringData": {"release": packed}}))
    assert installed_chart(api_cluster, "default", "evil", 1, tmp_path / "here") is None
    assert not (tmp_path / "escaped").exists()
