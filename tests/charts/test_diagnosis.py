"""Why a pod doesn't come up. The statuses and events are those that a kubelet, a scheduler and controllers wrote."""

from __future__ import annotations

import pytest

from charts.diagnosis import Trouble, controller_trouble, pod_state, pod_trouble
from charts.progress import Watcher
from lake.errors import FindingError

UID = "7c1"


def pod(phase="Pending", conditions=(), statuses=(), **metadata):
    status = {"phase": phase, "conditions": list(conditions), "containerStatuses": list(statuses)}
    volumes = [{"name": "data", "persistentVolumeClaim": {"claimName": "data-firehose-0"}}]
    about = {"name": "firehose-0", "namespace": "x", "uid": UID, **metadata}
    return {"metadata": about, "spec": {"volumes": volumes}, "status": status}


def container(state, *, ready=False, restarts=0, last=None):
    return {
        "name": "firehose",
        "image": "lakehose/firehose:9",
        "ready": ready,
        "restartCount": restarts,
        "state": state,
        "lastState": last or {},
    }


def waiting(reason, message=""):
    return container({"waiting": {"reason": reason, "message": message}})


def event(reason, message, uid=UID, kind="Pod", name="firehose-0"):
    return {"reason": reason, "message": message, "involvedObject": {"uid": uid, "kind": kind, "name": name}}


def no_log(_pod, _container):
    return ""


PLACED = {"type": "PodScheduled", "status": "True"}


@pytest.mark.parametrize(
    ("one", "state"),
    [
        (pod(), "pending"),
        (pod(conditions=[PLACED]), "starting"),
        (pod("Running", [PLACED], [container({"running": {}})]), "running"),
        (pod("Running", [PLACED], [container({"running": {}}, ready=True)]), "ready"),
        (pod("Succeeded"), "done"),
        (pod("Failed"), "failed"),
        (pod("Running", statuses=[container({"running": {}}, ready=True)], deletionTimestamp="2026"), "going"),
    ],
)
def test_how_far_a_pod_is(one, state):
    assert pod_state(one) == state


def test_nothing_is_wrong_with_one_that_starts():
    one = pod(conditions=[PLACED], statuses=[waiting("ContainerCreating")])
    assert pod_trouble(one, [], [], no_log) is None


def test_an_image_that_may_not_be_pulled_is_named_with_both_fixes():
    found = pod_trouble(pod(statuses=[waiting("ErrImageNeverPull")]), [], [], no_log)
    assert found == Trouble(
        "pod firehose-0",
        "image lakehose/firehose:9 isn't on the node, and pullPolicy Never forbids to pull it: put it there, "
        "or allow it",
        heals=False,
    )


def test_an_image_that_is_not_there_is_named_with_what_the_registry_said():
    told = 'Failed to pull image "lakehose/firehose:9": rpc error: code = NotFound desc = not found'
    events = [event("Pulling", "Pulling image"), event("Failed", told), event("Failed", "Error: ImagePullBackOff")]
    found = pod_trouble(pod(statuses=[waiting("ImagePullBackOff", "Back-off")]), events, [], no_log)
    assert "code = NotFound desc = not found" in found.why
    assert not found.heals


def test_a_registry_that_does_not_answer_may_answer_later():
    told = 'Failed to pull image "lakehose/firehose:9": dial tcp: i/o timeout'
    found = pod_trouble(pod(statuses=[waiting("ImagePullBackOff", "Back-off")]), [event("Failed", told)], [], no_log)
    assert "i/o timeout" in found.why
    assert found.heals


def test_a_secret_that_is_missing_is_named_with_what_it_holds():
    found = pod_trouble(pod(statuses=[waiting("CreateContainerConfigError", 'secret "aws" not found')]), [], [], no_log)
    assert found.why == (
        'its container can\'t be made: secret "aws" not found; make it: it holds AWS_ACCESS_KEY_ID and '
        "AWS_SECRET_ACCESS_KEY"
    )
    assert not found.heals


def test_a_crash_is_told_with_the_logs_last_lines():
    ended = {"terminated": {"exitCode": 2, "reason": "Error"}}
    state = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
    one = pod("Running", [PLACED], [container(state, restarts=3, last=ended)])
    found = pod_trouble(one, [], [], lambda _pod, name: f"{name}: the folder is locked\n")
    assert found.why == "firehose ended 3 times, with 2; its last lines:\n    firehose: the folder is locked"
    assert not found.heals


def test_a_server_that_was_restarted_long_ago_and_is_ready_is_well():
    one = pod("Running", [PLACED], [container({"running": {}}, ready=True, restarts=7)])
    assert pod_trouble(one, [], [], no_log) is None


def test_a_want_of_memory_is_told_as_such():
    ended = {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}
    one = pod("Running", [PLACED], [container({"running": {}}, restarts=2, last=ended)])
    assert pod_trouble(one, [], [], no_log).why == "firehose ran out of memory 2 times; raise its memory limit"


def test_a_pod_that_no_node_takes_may_still_be_placed():
    condition = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available: 1 Insufficient cpu."}
    found = pod_trouble(pod(conditions=[condition]), [], [], no_log)
    assert found == Trouble("pod firehose-0", "no node takes it: 0/1 nodes are available: 1 Insufficient cpu.")
    assert found.heals


def test_a_claim_without_a_volume_is_the_reason_rather_than_the_pod():
    condition = {"type": "PodScheduled", "status": "False", "message": "pod has unbound PersistentVolumeClaims"}
    claim = {"metadata": {"name": "data-firehose-0", "uid": "c"}, "status": {"phase": "Pending"}}
    told = event("ProvisioningFailed", 'storageclass "none" not found', "c", "PersistentVolumeClaim", "data-firehose-0")
    found = pod_trouble(pod(conditions=[condition]), [told], [claim], no_log)
    assert found.what == "volume claim data-firehose-0"
    assert found.why.startswith('it has no volume: storageclass "none" not found; name a class')
    assert not found.heals


def test_a_claim_that_waits_for_its_pod_is_no_trouble_of_its_own():
    condition = {"type": "PodScheduled", "status": "False", "message": "0/1 nodes are available"}
    claim = {"metadata": {"name": "data-firehose-0", "uid": "c"}, "status": {"phase": "Pending"}}
    told = event("WaitForFirstConsumer", "waiting for first consumer", "c", "PersistentVolumeClaim", "data-firehose-0")
    assert pod_trouble(pod(conditions=[condition]), [told], [claim], no_log).what == "pod firehose-0"


def test_a_pod_that_goes_is_nobodys_trouble():
    assert pod_trouble(pod(statuses=[waiting("ErrImageNeverPull")], deletionTimestamp="2026"), [], [], no_log) is None


def test_a_controller_that_makes_no_pod_tells_why():
    told = event("FailedCreate", "exceeded quota: share", "s", "StatefulSet", "firehose")
    other = event("FailedCreate", "exceeded quota: share", "r", "ReplicaSet", "other-5d")
    assert controller_trouble([other, told], ["firehose"]).why == "it can't make its pod: exceeded quota: share"
    assert controller_trouble([other], ["firehose"]) is None


# ------------------------------------------------------------------------------------------------------------ patience


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def watcher():
    said, clock = [], Clock()
    found = Watcher(None, "x", "lakehose", said.append, patience=30, clock=clock)
    return found, said, clock


def test_each_state_is_said_once(watcher):
    looking, said, _ = watcher
    for one in (pod(), pod(), pod(conditions=[PLACED]), pod(conditions=[PLACED])):
        looking.look([one], [])
    assert said == ["pod firehose-0: pending", "pod firehose-0: starting"]


def test_a_trouble_whose_numbers_change_is_said_once(watcher):
    looking, said, _ = watcher
    for count in (2, 3, 4):
        looking.look([], [Trouble("pod firehose-0", f"it ended {count} times")])
    assert said == ["pod firehose-0: it ended 2 times"]


def test_what_time_will_not_mend_ends_the_wait_after_the_patience(watcher):
    looking, _, clock = watcher
    bad = Trouble("pod firehose-0", "no image", heals=False)
    looking.look([], [bad])
    clock.now = 29
    looking.look([], [bad])
    clock.now = 30
    with pytest.raises(FindingError, match=r"^pod firehose-0: no image$"):
        looking.look([], [bad])


def test_what_was_mended_in_time_starts_anew(watcher):
    looking, _, clock = watcher
    bad = Trouble("pod firehose-0", "no secret", heals=False)
    looking.look([], [bad])
    clock.now = 20
    looking.look([], [])
    clock.now = 40
    looking.look([], [bad])
    assert looking.troubles == [bad]


def test_what_may_mend_itself_is_waited_for(watcher):
    looking, _, clock = watcher
    for clock.now in range(0, 3600, 60):
        looking.look([], [Trouble("pod firehose-0", "no node takes it")])
