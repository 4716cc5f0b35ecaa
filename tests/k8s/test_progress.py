"""What a run's changes are told as, each once, and how it ends; shapes as the operator and the kubelet write them."""

from __future__ import annotations

import itertools

import pytest

from k8s.pod_state import pod_state
from k8s.progress import Progress, outcome_of
from k8s.watch import Observation

NAME = "ingest-20261121-110349-6d16"
_uids = itertools.count(1)

# what spark-submit leaves in an application when the pod is refused: its whole log
REFUSED = (
    "failed to submit spark application: failed to run spark-submit: failed to run spark-submit: WARNING: Using "
    'incubator modules\n26/11/21 INFO Features: Auto-configuring\nException in thread "main" '
    "io.fabric8.kubernetes.client.KubernetesClientException: Failure executing: POST at: https://10.96.0.1/api/v1/"
    'namespaces/acme/pods. Message: pods "x-driver" is forbidden: {reason}. Received status: Status(code=403)\n\tat A'
)


def application(state="", message="", attempts=1):
    status = {"applicationState": {"state": state, "errorMessage": message}, "executionAttempts": attempts}
    return Observation({"kind": "SparkApplication", "metadata": {"name": NAME, "namespace": "acme"}, "status": status})


def pod(role="driver", *, waiting=None, running=False, ended=None, made="2026-11-21T11:03:50Z", uid=None, **status):
    state = {}
    if waiting:
        state = {"waiting": {"reason": waiting[0], "message": waiting[1]}}
    if running:
        state = {"running": {"startedAt": made}}
    if ended:
        state = {"terminated": {"exitCode": ended[0], "reason": ended[1]}}
    labels = {"spark-role": role, **({"spark-exec-id": "3"} if role == "executor" else {})}
    container = f"spark-kubernetes-{role}"
    metadata = {
        "name": f"{NAME}-{role}",
        "namespace": "acme",
        "uid": uid or f"{role}-{next(_uids)}",
        "labels": labels,
        "creationTimestamp": made,
    }
    spec = {"containers": [{"name": container, "image": "lakehose/jobs:1"}], "nodeName": "local"}
    statuses = [{"name": container, "image": "lakehose/jobs:1", "state": state}] if state else []
    return {"kind": "Pod", "metadata": metadata, "spec": spec, "status": {"containerStatuses": statuses, **status}}


def event(about, reason, message, count=5):
    return Observation(
        {
            "kind": "Event",
            "metadata": {"namespace": "acme"},
            "type": "Warning",
            "reason": reason,
            "message": message,
            "count": count,
            "involvedObject": {"kind": "Pod", "name": about["metadata"]["name"], "uid": about["metadata"]["uid"]},
        }
    )


def told(progress, *seen, now=0.0):
    return [line for one in seen for line in progress.take(one, now)]


def test_a_run_that_goes_well_is_told_in_a_line_each():
    progress = Progress(NAME)
    assert told(
        progress,
        application(),
        application("SUBMITTED"),
        Observation(pod(uid="d")),
        Observation(pod(uid="d", running=True)),
        application("RUNNING"),
        Observation(pod("executor", uid="e", running=True)),
        Observation(pod("executor", uid="e", running=True)),
        Observation(pod("executor", uid="e", ended=(0, "Completed"))),
        Observation(pod("executor", uid="e", ended=(0, "Completed")), gone=True),
        Observation(pod(uid="d", ended=(0, "Completed"))),
        application("SUCCEEDING"),
        application("COMPLETED"),
    ) == [
        "submitted",
        "driver: starting on node local",
        "driver: running on node local",
        "executor 3: running on node local",
        "executor 3: ended with exit status 0",
        "driver: ended with exit status 0",
        "completed",
    ]
    assert progress.outcome.exit_code == 0


def test_a_retry_is_told_and_the_last_attempt_decides():
    progress = Progress(NAME)
    failed = "driver container failed with ExitCode: 1, Reason: Error"
    lines = told(
        progress,
        application("SUBMITTED"),
        Observation(pod(uid="one", ended=(1, "Error"))),
        application("FAILING", failed),
        application("PENDING_RERUN"),
        Observation(pod(uid="one", ended=(1, "Error")), gone=True),
        Observation(pod(uid="two", running=True, made="2026-11-21T11:04:50Z")),
        application("SUBMITTED", attempts=2),
        Observation(pod(uid="two", ended=(2, "Error"), made="2026-11-21T11:04:50Z")),
        application("FAILED", failed.replace("1,", "2,"), attempts=2),
    )
    assert lines == [
        "submitted",
        "driver: ended with exit status 1",
        f"attempt failed: {failed}",
        "to be tried again",
        "driver: running on node local",
        "submitted, attempt 2",
        "driver: ended with exit status 2",
        "failed after 2 attempts: driver container failed with ExitCode: 2, Reason: Error",
    ]
    assert progress.outcome.exit_code == 2


@pytest.mark.parametrize(
    ("message", "seen", "expected"),
    [
        ("driver container failed with ExitCode: 1, Reason: Error", None, 1),
        ("driver container failed with ExitCode: 2, Reason: Error", None, 2),
        ("driver container failed with ExitCode: 137, Reason: OOMKilled", None, 1),
        ("driver container status missing", 2, 2),
        ("driver pod not found", None, 1),
    ],
)
def test_the_exit_status_is_the_jobs_own_where_it_had_one(message, seen, expected):
    assert outcome_of(application("FAILED", message).object, seen).exit_code == expected


def test_a_run_that_goes_on_has_no_outcome():
    assert outcome_of(application("RUNNING").object) is None


def test_a_driver_that_was_deleted_is_told_and_its_successor_is_another():
    progress = Progress(NAME)
    lines = told(
        progress,
        Observation(pod(uid="one", running=True)),
        Observation(pod(uid="one", running=True), gone=True),
        Observation(pod(uid="two", running=True, made="2026-11-21T11:05:00Z")),
    )
    assert lines == ["driver: running on node local", "driver: deleted", "driver: running on node local"]
    assert progress.driver["metadata"]["uid"] == "two"


def test_an_older_driver_seen_late_does_not_take_the_newer_ones_place():
    progress = Progress(NAME)
    told(
        progress,
        Observation(pod(uid="two", running=True, made="2026-11-21T11:05:00Z")),
        Observation(pod(uid="one", ended=(1, "Error"), made="2026-11-21T11:04:00Z")),
    )
    assert progress.driver["metadata"]["uid"] == "two"


@pytest.mark.parametrize(
    ("waiting", "told_as", "seconds"),
    [
        (("ErrImageNeverPull", "x"), "`kind load docker-image lakehose/jobs:1`", 0),
        (("InvalidImageName", "x"), "no valid name; correct `kubernetes.image` in the declaration", 0),
        (("ErrImagePull", 'failed to pull: "lakehose/jobs:1": not found'), "is `kubernetes.image` right", 30),
        (("CreateContainerConfigError", 'secret "aws" not found'), "kubectl create secret generic aws -n acme", 30),
        (("CreateContainerConfigError", 'configmap "lake" not found'), "`lakehose k8s apply` makes it", 30),
    ],
)
def test_what_cannot_heal_is_given_up_and_not_before_its_time(waiting, told_as, seconds):
    progress = Progress(NAME)
    (line,) = told(progress, Observation(pod(uid="d", waiting=waiting)), now=100.0)
    assert told_as in line
    if seconds:
        assert progress.hopeless(100.0 + seconds - 1) is None
    assert told_as in progress.hopeless(100.0 + seconds)


def test_an_image_that_is_pulled_in_the_end_is_no_trouble_any_more():
    progress = Progress(NAME)
    told(progress, Observation(pod(uid="d", waiting=("ErrImagePull", "not found"))), now=0.0)
    told(progress, Observation(pod(uid="d", waiting=("ImagePullBackOff", "not found"))), now=20.0)
    assert progress.hopeless(30.0) is not None
    told(progress, Observation(pod(uid="d", running=True)), now=31.0)
    assert progress.hopeless(1000.0) is None
    assert progress.trouble() is None


def test_a_registry_that_is_away_may_come_back():
    progress = Progress(NAME)
    told(progress, Observation(pod(uid="d", waiting=("ErrImagePull", "dial tcp: i/o timeout"))), now=0.0)
    assert progress.hopeless(10_000.0) is None
    assert "image lakehose/jobs:1 can't be pulled" in progress.trouble()


def test_the_schedulers_sentence_is_told_when_no_node_has_room():
    sentence = "0/3 nodes are available: 3 Insufficient cpu."
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": sentence}
    progress = Progress(NAME)
    assert told(progress, Observation(pod(uid="d", conditions=[condition]))) == [
        f"driver: no node for it yet: {sentence}"
    ]
    assert progress.hopeless(10_000.0) is None  # another run may end


def test_a_volume_that_cannot_be_mounted_is_told_from_its_event_once():
    progress = Progress(NAME)
    driver = pod(uid="d")
    message = 'MountVolume.SetUp failed for volume "lake" : configmap "lake" not found'
    lines = told(
        progress, Observation(driver), *(event(driver, "FailedMount", message, count) for count in range(1, 9))
    )
    assert lines == ["driver: starting on node local", f"driver: FailedMount: {message}; `lakehose k8s apply` makes it"]
    assert progress.hopeless(30.0) is not None


def test_a_configmap_that_spark_is_about_to_make_is_no_trouble():
    progress = Progress(NAME)
    driver = pod(uid="d")
    message = 'MountVolume.SetUp failed for volume "x" : configmap "spark-drv-0c5a-conf-map" not found'
    assert told(progress, Observation(driver), event(driver, "FailedMount", message))[1:] == []
    assert progress.trouble() is None


def test_events_of_other_runs_are_not_told():
    progress = Progress(NAME)
    other = pod(uid="o")
    other["metadata"]["name"] = "compact-20261121-110349-6d16-driver"
    assert told(progress, event(other, "FailedCreatePodSandBox", "no network")) == []


@pytest.mark.parametrize(
    ("reason", "expected", "hopeless"),
    [
        (
            "exceeded quota: share, requested: pods=1, used: pods=60, limited: pods=60",
            "larger `kubernetes.tiers`",
            False,
        ),
        (
            'error looking up service account acme/ingest: serviceaccount "ingest" not found',
            "`lakehose k8s apply`",
            True,
        ),
        ("no PriorityClass with name acme-demo-pooled was found", "`lakehose k8s apply` makes it", True),
    ],
)
def test_a_driver_that_is_refused_is_told_by_the_reason_alone(reason, expected, hopeless):
    progress = Progress(NAME)
    (line,) = told(progress, application("SUBMISSION_FAILED", REFUSED.format(reason=reason)))
    assert line.startswith(f'the operator couldn\'t submit it: pods "x-driver" is forbidden: {reason}')
    assert expected in line
    assert "Auto-configuring" not in line
    assert (progress.hopeless(0.0) is not None) is hopeless


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (
            pod(ended=(137, "OOMKilled")),
            "ended with exit status 137 (OOMKilled: it took more memory than it may; raise",
        ),
        (pod(ended=(137, "Error"), reason="Evicted", message="low on memory"), "(killed by signal 9: Evicted; low on"),
        (pod(ended=(143, "Error"), reason="DeadlineExceeded"), "(it took longer than the job's `timeout_minutes`)"),
        (pod(ended=(1, "Error")), "ended with exit status 1"),
        (
            pod(phase="Failed", reason="Evicted", message="node was low on disk"),
            "failed: Evicted; node was low on disk",
        ),
    ],
)
def test_what_ended_a_pod_is_told(made, expected):
    state = pod_state(made)
    assert expected in state.text
    assert state.ended
