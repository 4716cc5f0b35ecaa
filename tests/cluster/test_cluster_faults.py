"""Pods that die in the middle of an ingest: what the tables hold afterwards is what was sent, once each."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from tests.cluster_tools import until

EWR, POOLED = "acme-faults-ewr", "acme-faults-pooled"
DAYS, EACH = 16, 5
# a day is an object, so that a run has many small batches and dies between two of them, or within one
JOBS = {"ingest": {"schedule": None, "max_objects": 1, "retries": 3, "retry_seconds": 2}, "compact": {"schedule": None}}


def sent(tenant):
    """Payloads of a tenant: some flights on each of some days."""
    for day in range(1, DAYS + 1):
        for number in range(EACH):
            yield {
                "carrier": "UA",
                "flight": day * 100 + number,
                "origin": tenant.upper(),
                "dest": "ORD",
                "year": 2013,
                "month": 1,
                "day": day,
                "sched_dep_time": 600 + number,
                "sched_arr_time": 700 + number,
                "distance": 733,
                "at": f"2013-01-{day:02}T06:{number:02}:00Z",
            }


@pytest.fixture(scope="module")
def faults(make_lake, operator):
    """A lake with events in many small objects, and its namespaces ready."""
    lake = make_lake("faults", jobs=JOBS)
    for tenant in ("ewr", "jfk"):
        file = lake.path.parent / f"{tenant}.jsonl"
        file.write_text("".join(json.dumps(one) + "\n" for one in sent(tenant)))
        lake.done(
            *("send", file, "--tenant", tenant, "--dataset", "flights", "--event-time-field", "at"),
            *("--spool", lake.spools / tenant, "--producer-id", f"site-{tenant}"),
        )
    lake.done("firehose", "flush")
    lake.apply_manifests()
    return lake


@pytest.fixture(scope="module")
def under_way(faults):
    """An ingest in each namespace: names by namespace."""
    return {
        namespace: faults.done("k8s", "submit", "ingest", "--owner", owner, "--no-follow", *faults.pods).split()[-1]
        for namespace, owner in ((EWR, "ewr"), (POOLED, "pooled"))
    }


def wait_for_batches(cluster, namespace, name, least):
    def enough():
        return cluster.driver_log(namespace, name).count(" ingested; ") >= least

    until(enough, 400, lambda: f"batch {least}; {cluster.story(namespace, name)}", every=0.2)


def running_executor(cluster, namespace, *, but=None):
    """Name of an executor that runs, other than the one given."""

    def running():
        found = cluster.get("pods", namespace=namespace, selector="spark-role=executor")
        names = [one["metadata"]["name"] for one in found if one["status"].get("phase") == "Running"]
        return next((name for name in names if name != but), None)

    return until(running, 300, f"an executor in {namespace}")


@dataclass(frozen=True)
class Killed:
    """What was ended in the middle."""

    asked: str
    """Executor that Kubernetes asked to go."""
    asked_exit: int
    """Its exit status."""
    forced: str
    """Executor that went without a word."""
    driver: str
    """Unique id of the driver's pod that went without a word."""


@pytest.fixture(scope="module")
def killed(under_way, cluster):
    """One run has lost two executors, the other its driver, all between its first batch and its last."""
    with ThreadPoolExecutor(2) as pool:
        executors = pool.submit(end_executors, cluster, under_way[EWR])
        driver = pool.submit(end_driver, cluster, under_way[POOLED])
        asked, status, forced, uid = *executors.result(), driver.result()
    for namespace, run in under_way.items():
        cluster.wait_for_application(namespace, run)
    return Killed(asked, status, forced, uid)


FORCE = ("--grace-period=0", "--force")


def end_driver(cluster, name):
    """End a run's driver without a word after its first batch; answers the unique id that its pod had."""
    wait_for_batches(cluster, POOLED, name, 1)
    uid = cluster.get("pod", f"{name}-driver", POOLED)["metadata"]["uid"]
    cluster.kubectl("delete", "pod", "-n", POOLED, f"{name}-driver", *FORCE)
    return uid


def end_executors(cluster, name):
    """Ask a run's executor to go after its first batch, and end the next without a word; answers both and the exit."""
    wait_for_batches(cluster, EWR, name, 1)
    asked = running_executor(cluster, EWR)
    with watched_pod(cluster, EWR, asked) as last_seen:
        cluster.kubectl("delete", "pod", "-n", EWR, asked, timeout=180)
    forced = running_executor(cluster, EWR, but=asked)
    cluster.kubectl("delete", "pod", "-n", EWR, forced, *FORCE)
    (container,) = last_seen()["status"]["containerStatuses"]
    return asked, container["state"]["terminated"]["exitCode"], forced


@contextmanager
def watched_pod(cluster, namespace, name):
    """Answers a function that gives the pod as it was last seen, even after it is gone."""
    command = ["kubectl", "get", "pod", name, "-n", namespace, "--watch", "-o", "json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=cluster.environment()) as process:
        seen = []

        def read():
            decoder, rest = json.JSONDecoder(), ""
            for line in process.stdout:
                rest += line
                if line == "}\n":
                    one, end = decoder.raw_decode(rest)
                    seen.append(one)
                    rest = rest[end:].lstrip()

        reader = threading.Thread(target=read)
        reader.start()
        try:
            yield lambda: seen[-1]
        finally:
            time.sleep(1)  # the last change is on its way
            process.terminate()
            reader.join(10)


def check(lake, tenant):
    """The table holds what was sent, and every number of the balance is right."""
    columns = ("carrier", "flight", "origin", "dest", "month", "day", "sched_dep_time")
    rows = sorted(tuple(row[name] for name in columns) for row in lake.rows(tenant))
    assert rows == sorted(tuple(one[name] for name in columns) for one in sent(tenant))


def test_an_executor_that_is_asked_to_go_hands_over_and_ends_well(killed):
    # without the script that Spark's hook calls, the signal of Kubernetes would end Java with 143
    assert killed.asked_exit == 0


def test_executors_that_go_in_the_middle_are_replaced_and_the_table_is_right(killed, under_way, faults, cluster):
    app = cluster.get("sparkapplication", under_way[EWR], EWR)
    assert app["status"]["executionAttempts"] == 1
    assert {killed.asked, killed.forced} < set(app["status"]["executorState"])
    check(faults, "ewr")


def test_a_driver_that_dies_in_the_middle_is_tried_again_and_the_table_is_right(killed, under_way, faults, cluster):
    app = cluster.get("sparkapplication", under_way[POOLED], POOLED)
    assert app["status"]["executionAttempts"] == 2
    assert cluster.get("pod", f"{under_way[POOLED]}-driver", POOLED)["metadata"]["uid"] != killed.driver
    check(faults, "jfk")


def test_the_audit_balances_after_all_of_it(killed, faults):
    sheet, status = faults.audit()
    assert status == 0
    assert sheet["balanced"] is True
    total = sheet["total"]
    assert total["sent"] == total["ingested"] == 2 * DAYS * EACH
    assert total["duplicates"] == total["quarantined"] == total["difference"] == 0
