"""What helm writes, and the sentence it becomes."""

from __future__ import annotations

import pytest
from pyhelm3.errors import CommandCancelledError, Error

from charts.problems import helm_problem, is_wait_over, is_webhook_away
from lake.errors import DeclarationError, EnvironmentProblemError, FindingError, TerminalError, TransientError

CASES = {
    "schema": (
        (
            "Error: values don't meet the specifications of the schema(s) in the following chart(s):\nlakehose:\n- "
            "at '/firehose': additional properties 'replica' not allowed\n- at '/firehose/uploads': got string, "
            "want integer\n"
        ),
        DeclarationError,
        (
            "x: values that the chart doesn't take:\n  firehose: additional properties 'replica' not allowed\n  "
            "firehose.uploads: got string, want integer\n  charts/lakehose/values.yaml lists all there are"
        ),
    ),
    "fail": (
        (
            "Error: execution error at (lakehose/templates/firehose.yaml:5:4): firehose.storage.existingClaim: "
            "one claim only"
        ),
        DeclarationError,
        "x: firehose.storage.existingClaim: one claim only",
    ),
    "forbidden": (
        (
            'Error: query: failed to query with labels: secrets is forbidden: User "jane" cannot list resource '
            '"secrets" in API group "" in the namespace "lakehose-system"'
        ),
        EnvironmentProblemError,
        (
            "x: no permission: jane may not list secrets in namespace lakehose-system; have it granted, or give "
            "--context or --kubeconfig of someone who may"
        ),
    ),
    "forbidden everywhere": (
        (
            'Error: clusterroles.rbac.authorization.k8s.io is forbidden: User "jane" cannot create resource '
            '"clusterroles" in API group "rbac.authorization.k8s.io" at the cluster scope'
        ),
        EnvironmentProblemError,
        (
            "x: no permission: jane may not create clusterroles.rbac.authorization.k8s.io in the whole cluster; "
            "have it granted, or give --context or --kubeconfig of someone who may"
        ),
    ),
    "no operator": (
        (
            "Error: unable to build kubernetes objects from release manifest: resource mapping not found for "
            'name: "ingest" namespace: "a" from "": no matches for kind "ScheduledSparkApplication" in version '
            '"sparkoperator.k8s.io/v1beta2"\nensure CRDs are installed first'
        ),
        TerminalError,
        (
            "x: the cluster knows no ScheduledSparkApplication: the Spark Operator isn't installed; leave "
            "--no-operator out, or install its chart first"
        ),
    ),
    "no Prometheus": (
        'Error: no matches for kind "PodMonitor" in version "monitoring.coreos.com/v1"',
        TerminalError,
        (
            "x: the cluster knows no PodMonitor: the Prometheus Operator isn't installed; install it, or leave "
            "monitoring.podMonitors.enabled and monitoring.rules.enabled out"
        ),
    ),
    "owned": (
        (
            'Error: Unable to continue with install: ConfigMap "lake" in namespace "a" exists and cannot be '
            "imported into the current release: invalid ownership metadata; label validation error: key "
            '"app.kubernetes.io/managed-by" must equal "Helm": current value is "lakehose"'
        ),
        TerminalError,
        (
            "x: ConfigMap a/lake is there already and belongs to something else (invalid ownership metadata; "
            'label validation error: key "app.kubernetes.io/managed-by" must equal "Helm": current value is '
            '"lakehose"); --adopt takes over what `kubectl apply` or another release made'
        ),
    ),
    "namespace": (
        'Error: failed to create resource: namespaces "a" not found',
        TerminalError,
        (
            "x: namespace a isn't there: `lakehose deploy install` makes those of lake.yaml, and `kubectl create "
            "namespace a` any other"
        ),
    ),
    "quota": (
        ('Error: pods "x" is forbidden: exceeded quota: share, requested: pods=1, used: pods=2, limited: pods=2'),
        TerminalError,
        (
            "x: a ResourceQuota has no room: share, requested: pods=1, used: pods=2, limited: pods=2; raise it, "
            "or ask for less"
        ),
    ),
    "unreachable": (
        (
            'Error: Kubernetes cluster unreachable: Get "https://127.0.0.1:1/version": dial tcp 127.0.0.1:1: '
            "connect: connection refused"
        ),
        TransientError,
        (
            'x: the cluster can\'t be reached: Kubernetes cluster unreachable: Get "https://127.0.0.1:1/version": '
            "dial tcp 127.0.0.1:1: connect: connection refused; is it up, and are --kubeconfig and --context "
            "right?"
        ),
    ),
    "repository": (
        (
            'Error: looks like "https://kubeflow.github.io/spark-operator" is not a valid chart repository or '
            'cannot be reached: Get "https://kubeflow.github.io/spark-operator/index.yaml": dial tcp: no such '
            "host"
        ),
        TransientError,
        (
            "x: the chart repository https://kubeflow.github.io/spark-operator can't be reached: Get "
            '"https://kubeflow.github.io/spark-operator/index.yaml": dial tcp: no such host; without a way '
            "there, give --charts a folder that holds the chart"
        ),
    ),
    "large": (
        (
            'Error: create: failed to create: Secret "sh.helm.release.v1.lakehose.v1" is invalid: data: Too '
            "long: may not be more than 1048576 bytes"
        ),
        TerminalError,
        ("x: the release is larger than the Secret in which Helm keeps it (1 MiB); docs/deploy.md tells what to do"),
    ),
    "unknown": (
        "Error: something new\nover two lines",
        FindingError,
        "x: helm says: something new over two lines",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_helm_says_becomes_a_sentence_with_the_fix(case):
    said, kind, sentence = CASES[case]
    found = helm_problem(Error(1, b"", said.encode()), "x")
    assert type(found) is kind
    assert str(found) == sentence


def test_a_denial_and_an_absence_of_a_webhook_are_told_apart():
    denied = Error(1, b"", b'Error: admission webhook "validate.sparkoperator.k8s.io" denied the request: bad schedule')
    away = Error(1, b"", b'Error: failed calling webhook "validate.sparkoperator.k8s.io": no endpoints available')
    assert (is_webhook_away(denied), is_webhook_away(away)) == (False, True)
    assert isinstance(helm_problem(denied, "x"), TerminalError)
    assert isinstance(helm_problem(away, "x"), TransientError)


def test_the_end_of_helms_wait_is_known():
    assert is_wait_over(Error(1, b"", b"Error: UPGRADE FAILED: context deadline exceeded"))
    assert not is_wait_over(Error(1, b"", b"Error: UPGRADE FAILED: something"))


def test_an_interruption_is_no_failure_of_helms():
    found = helm_problem(CommandCancelledError(1, b"", b"context canceled"), "x")
    assert str(found) == "x: it was interrupted; `lakehose deploy status` tells what is there"
