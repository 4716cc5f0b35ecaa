"""The log of a real pod over a line that is cut while it writes: every line once, in order."""

from __future__ import annotations

import os
import threading

import pytest

from k8s.logs import ContainerLog
from tests.cluster_tools import cluster_images, start_cluster

LINES = 3000
SCRIPT = f"i=0; while [ $i -lt {LINES} ]; do i=$((i+1)); echo line $i; [ $((i%50)) = 0 ] && sleep 0.1; done; exit 0"


@pytest.mark.cluster
def test_a_log_that_is_cut_again_and_again_comes_whole(cutter, bare_cluster, namespace):
    image = os.environ.get("LAKEHOSE_JOBS_IMAGE") or cluster_images(start_cluster()).jobs
    metadata = {"namespace": namespace, "name": "counter"}
    container = {"name": "counter", "image": image, "imagePullPolicy": "IfNotPresent", "command": ["sh", "-c", SCRIPT]}
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}
    bare_cluster.create(account)
    spec = {"restartPolicy": "Never", "serviceAccountName": "counter", "containers": [container]}
    pod = bare_cluster.create({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})
    relay, far = cutter
    ended, cuts = threading.Event(), []

    def cut():
        while not ended.wait(0.7):
            cuts.append(relay.cut())

    thread = threading.Thread(target=cut, daemon=True)
    thread.start()
    found = list(ContainerLog(far, pod, "counter").lines(follow=True))
    ended.set()
    thread.join()
    assert sum(cuts) >= 3
    assert found == [f"line {number}" for number in range(1, LINES + 1)]
