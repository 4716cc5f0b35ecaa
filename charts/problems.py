"""Owns what helm's complaints mean to a person: sentences that name the fix."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from pyhelm3 import errors as helm_errors

from lake.errors import (
    DeclarationError,
    EnvironmentProblemError,
    FindingError,
    LakehoseError,
    TerminalError,
    TransientError,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    Rule = tuple[re.Pattern[str], Callable[[re.Match[str]], LakehoseError | None]]

__all__ = ["helm_problem", "is_unowned", "is_wait_over", "is_webhook_away", "missing_kind"]

_WEBHOOK = re.compile(r'failed calling webhook "(?P<name>[^"]+)"')
_WAITED = re.compile(
    r"timed out waiting for the condition|context deadline exceeded|rate limiter Wait returned an error"
)
_UNOWNED = re.compile(r"metadata\.resourceVersion: Invalid value: \S+ must be specified for an update")
_SCHEMA = re.compile(r"^- (?:at '(?P<path>[^']*)': )?(?P<what>.+)$", re.MULTILINE)
_LONGEST = 600


def is_webhook_away(error: helm_errors.Error) -> bool:
    """Whether an admission webhook didn't answer: it may in a moment."""
    return _WEBHOOK.search(_text(error)) is not None


def is_wait_over(error: helm_errors.Error) -> bool:
    """Whether helm gave up waiting for pods."""
    return _WAITED.search(_text(error)) is not None


def is_unowned(error: helm_errors.Error) -> bool:
    """Whether helm couldn't patch custom resources that the newest revision doesn't list, though they are there."""
    return _UNOWNED.search(_text(error)) is not None


def helm_problem(error: helm_errors.Error, doing: str) -> LakehoseError:
    """What a failed helm command means.

    Args:
        error: of pyhelm3, with what helm wrote.
        doing: what was under way, as in `install lakehose-system/lakehose`.
    """
    text = _text(error)
    if isinstance(error, helm_errors.CommandCancelledError):
        return TransientError(f"{doing}: it was interrupted; `lakehose deploy status` tells what is there")
    if isinstance(error, helm_errors.ReleaseNotFoundError):
        return TerminalError(f"{doing}: nothing is installed there; `lakehose deploy install` installs it")
    if "don't meet the specifications of the schema" in text:
        return _values(text, doing)
    for pattern, told in _RULES:
        found = pattern.search(text)
        problem = told(found) if found else None
        if problem:
            return type(problem)(f"{doing}: {problem}")
    return FindingError(f"{doing}: helm says: {_short(text)}")


def _values(text: str, doing: str) -> DeclarationError:
    found = "".join(
        f"\n  {(one['path'] or 'values').strip('/').replace('/', '.')}: {one['what']}" for one in _SCHEMA.finditer(text)
    )
    return DeclarationError(
        f"{doing}: values that the chart doesn't take:{found or _short(text)}\n"
        "  charts/lakehose/values.yaml lists all there are"
    )


def _forbidden(found: re.Match[str]) -> LakehoseError:
    what = f"{found['resource']}.{found['group']}" if found["group"] else found["resource"]
    where = f"in namespace {found['space']}" if found["space"] else "in the whole cluster"
    return EnvironmentProblemError(
        f"no permission: {found['user']} may not {found['verb']} {what} {where}; have it granted, or give --context or "
        "--kubeconfig of someone who may"
    )


def _escalation(found: re.Match[str]) -> LakehoseError:
    return EnvironmentProblemError(
        f"no permission: {found['user']} may not grant rights that it doesn't hold itself; give --context or "
        "--kubeconfig of someone who holds them, such as cluster-admin"
    )


def missing_kind(kind: str, version: str) -> LakehoseError:
    """What to do about a kind that a cluster doesn't know."""
    if version.startswith("sparkoperator.k8s.io/"):
        fix = "the Spark Operator isn't installed; leave --no-operator out, or install its chart first"
    elif version.startswith("monitoring.coreos.com/"):
        fix = (
            "the Prometheus Operator isn't installed; install it, or leave monitoring.podMonitors.enabled and "
            "monitoring.rules.enabled out"
        )
    else:
        fix = f"nothing brought {version}"
    return TerminalError(f"the cluster knows no {kind}: {fix}")


def _owned(found: re.Match[str]) -> LakehoseError:
    name = f"{found['space']}/{found['name']}" if found["space"] else found["name"]
    return TerminalError(
        f"{found['kind']} {name} is there already and belongs to something else ({_short(found['why'])}); --adopt "
        "takes over what `kubectl apply` or another release made"
    )


def _no_namespace(found: re.Match[str]) -> LakehoseError:
    name = found["name"]
    return TerminalError(
        f"namespace {name} isn't there: `lakehose deploy install` makes those of lake.yaml, and "
        f"`kubectl create namespace {name}` any other"
    )


def _no_context(found: re.Match[str]) -> LakehoseError:
    return EnvironmentProblemError(
        f"there is no context {found['name']!r}; `kubectl config get-contexts` lists those there are"
    )


def _no_repository(found: re.Match[str]) -> LakehoseError:
    return TransientError(
        f"the chart repository {found['url']} can't be reached: {_short(found['why'])}; without a way there, give "
        "--charts a folder that holds the chart"
    )


_RULES: tuple[Rule, ...] = (
    (re.compile(r"execution error at \([^)]*\): (?P<why>.+)"), lambda one: DeclarationError(_short(one["why"]))),
    (
        re.compile(
            r'User "(?P<user>[^"]+)" cannot (?P<verb>\w+) resource "(?P<resource>[^"]+)" in API group '
            r'"(?P<group>[^"]*)"'
            r'(?: in the namespace "(?P<space>[^"]+)")?'
        ),
        _forbidden,
    ),
    (re.compile(r'user "(?P<user>[^"]+)".* is attempting to grant RBAC permissions', re.DOTALL), _escalation),
    (
        re.compile(r'no matches for kind "(?P<kind>\w+)" in version "(?P<version>[^"]+)"'),
        lambda one: missing_kind(one["kind"], one["version"]),
    ),
    (
        re.compile(
            r'(?P<kind>\w+) "(?P<name>[^"]+)" in namespace "(?P<space>[^"]*)" exists and cannot be imported[^:]*: '
            r"(?P<why>.*)"
        ),
        _owned,
    ),
    (
        re.compile(r'admission webhook "(?P<name>[^"]+)" denied the request: (?P<why>.+)'),
        lambda one: TerminalError(f"the cluster refuses it (webhook {one['name']}): {_short(one['why'])}"),
    ),
    (
        _WEBHOOK,
        lambda one: TransientError(
            f"the admission webhook {one['name']} doesn't answer; `lakehose deploy status` tells whether the Spark "
            "Operator is up"
        ),
    ),
    (
        re.compile(r"exceeded quota: (?P<why>.+)"),
        lambda one: TerminalError(f"a ResourceQuota has no room: {_short(one['why'])}; raise it, or ask for less"),
    ),
    (re.compile(r'namespaces "(?P<name>[^"]+)" not found'), _no_namespace),
    (
        re.compile(r"Too long: .*1048576|[Rr]equest is too large|message larger than max"),
        lambda _: TerminalError(
            "the release is larger than the Secret in which Helm keeps it (1 MiB); docs/deploy.md tells what to do"
        ),
    ),
    (re.compile(r'context "(?P<name>[^"]+)" does not exist'), _no_context),
    (re.compile(r'looks like "(?P<url>[^"]+)" is not a valid chart repository[^:]*: (?P<why>.*)'), _no_repository),
    (
        re.compile(
            r"Kubernetes cluster unreachable|connection refused|no such host|i/o timeout|network is unreachable|x509: "
        ),
        lambda one: TransientError(
            f"the cluster can't be reached: {_short(one.string)}; is it up, and are --kubeconfig and --context right?"
        ),
    ),
)


def _text(error: helm_errors.Error) -> str:
    return str(error.stderr.decode(errors="replace").strip())


def _short(text: str) -> str:
    """The part a person needs: without helm's own marks, and on one line."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith(("WARNING:", "level="))]
    found = " ".join(line.strip() for line in lines).removeprefix("Error: ")
    return found if len(found) <= _LONGEST else f"{found[:_LONGEST]}…"
