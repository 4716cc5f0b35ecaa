"""The helm program: found, refused, and ended when it is asked to."""

from __future__ import annotations

import asyncio
import subprocess
import time

import pytest

from charts.helm import find_helm, helm_client
from charts.problems import helm_problem
from lake.errors import EnvironmentProblemError, TransientError


@pytest.fixture
def program(tmp_path):
    """Writes a program that prints this as its version."""

    def write(version, status=0):
        path = tmp_path / "helm"
        path.write_text(f"#!/bin/sh\necho '{version}'\nexit {status}\n")
        path.chmod(0o755)
        return str(path)

    return write


def test_helm_is_found_on_path(helm, monkeypatch):
    monkeypatch.setenv("PATH", str(helm).rpartition("/")[0])
    assert str(find_helm()) == helm


def test_without_helm_the_sentence_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EnvironmentProblemError, match="there is no helm on PATH; install Helm 3"):
        find_helm()


def test_a_helm_that_is_not_there_is_named():
    with pytest.raises(EnvironmentProblemError, match="--helm /none/helm: no such program"):
        find_helm("/none/helm")


@pytest.mark.parametrize(
    ("version", "told"),
    [
        ("v3.22", "tells no version of three numbers, as v3.22.0: got 'v3.22'"),
        ("", "tells no version"),
        ("v2.17.0", "it is helm v2.17.0; 3.14 or newer, below 5, is needed"),
        ("v3.13.9", "it is helm v3.13.9"),
        ("v5.0.0", "it is helm v5.0.0"),
    ],
)
def test_a_version_that_will_not_do_is_told(program, version, told):
    with pytest.raises(EnvironmentProblemError, match=told):
        find_helm(program(version))


def test_a_program_that_fails_is_no_helm(program):
    with pytest.raises(EnvironmentProblemError, match="tells no version"):
        find_helm(program("v3.22.0", status=3))


def test_an_old_enough_version_is_taken(program):
    assert find_helm(program("v3.14.0+g123"))


@pytest.fixture
def client(helm, api_server, tmp_path):
    return helm_client(find_helm(helm), api_server.access, timeout=300, unpack=tmp_path)


def test_helm_is_ended_with_the_work_it_was_started_for(client, bare_chart, api_server):
    # no node is there, so its pod never comes up
    async def interrupted():
        chart = await client.get_chart(bare_chart)
        work = client.install_or_upgrade_release("ended", chart, {}, namespace="ended", wait=True)
        task = asyncio.create_task(work)
        await asyncio.sleep(6)
        began = time.monotonic()
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        took = time.monotonic() - began
        return took, (await client.get_current_revision("ended", namespace="ended")).status.value

    took, status = asyncio.run(interrupted())
    assert took < 20
    # and not pending, which would keep everybody out
    assert status == "failed"
    assert not subprocess.run(["pgrep", "-f", "upgrade ended"], capture_output=True, check=False).stdout
    api_server.kubectl("delete", "namespace", "ended", "--wait=false")


def test_what_fails_is_told_as_pyhelm3_tells_it(helm, tmp_path, api_server):
    nowhere = tmp_path / "kubeconfig"
    nowhere.write_text(api_server.kubeconfig.read_text().replace("https://localhost", "https://127.0.0.9"))
    access = type(api_server.access)(nowhere)
    other = helm_client(find_helm(helm), access, timeout=10, unpack=tmp_path)

    async def ask():
        await other.get_current_revision("x", namespace="x")

    with pytest.raises(Exception, match="unreachable") as found:
        asyncio.run(ask())
    assert isinstance(helm_problem(found.value, "x"), TransientError)
