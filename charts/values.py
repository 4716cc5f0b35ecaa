"""Owns the charts' values: what follows from the declaration, and what a person gives on top."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import yaml

from charts.cadence import overdue_minutes
from k8s.render import manifests
from lake.errors import DeclarationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from lake.declaration import Lake

__all__ = ["OPERATOR", "chart_values", "given_values", "merged", "operator_values", "set_value"]

OPERATOR = "spark-operator"
"""Name of the operator's chart, of its values, and of its release."""

_KEY = re.compile(r"(?:\\.|[^.\[\]=\\])+|\[\d+\]")


def chart_values(lake: Lake, declaration: Path, *, endpoint: str | None = None) -> dict[str, Any]:
    """What the declaration says, as values of the lakehose chart.

    Args:
        lake: the declaration.
        declaration: its file; contracts are relative to it.
        endpoint: URL at which pods find AWS; AWS itself without it.

    Raises:
        DeclarationError: it can't be rendered.
    """
    objects = [one for file in manifests(lake, declaration, endpoint=endpoint).values() for one in file]
    cluster = lake.kubernetes
    server = {
        "pullPolicy": cluster.pull_policy,
        "region": lake.region,
        **({"s3Endpoint": endpoint} if endpoint else {}),
        **({"credentialsSecret": cluster.credentials_secret} if cluster.credentials_secret else {}),
    }
    values: dict[str, Any] = {
        "lake": {
            "company": lake.company,
            "environment": lake.environment,
            "jobs": [
                {"name": job.name, "overdueMinutes": minutes, **({"continuous": True} if job.every_seconds else {})}
                for job in lake.pipeline()
                if (minutes := overdue_minutes(job)) is not None
            ],
            "objects": objects,
        },
        "firehose": {"image": cluster.firehose_image, **server},
    }
    if cluster.event_logs:
        logs = {"enabled": True, "image": cluster.image, "logDirectory": cluster.event_logs}
        values["historyServer"] = logs | server
    return values


def operator_values(values: Mapping[str, Any], namespaces: Iterable[str]) -> dict[str, Any]:
    """Values of the operator's own release: it may act in these namespaces, and nowhere else.

    Args:
        values: the lakehose chart's, with what is given for the operator below `spark-operator`.
        namespaces: where jobs run; must not be empty, as the chart takes that for all there are.
    """
    watched = sorted(namespaces)
    if not watched:
        raise ValueError("an operator without namespaces would be given all of the cluster's")
    monitoring = values.get("monitoring", {})
    scraped = monitoring.get("podMonitors", {}).get("enabled", False)
    ours = {
        "commonLabels": {"app.kubernetes.io/part-of": "lakehose"},
        "spark": {
            "jobNamespaces": watched,
            # each job has an account of its own, made with its namespace
            "serviceAccount": {"create": False},
            "rbac": {"create": False},
        },
        "prometheus": {
            "metrics": {"labels": "app_type,namespace"},
            "podMonitor": {
                "create": scraped,
                "labels": monitoring.get("labels", {}),
                # or a metric's own namespace would be that of the operator
                "podMetricsEndpoint": {"scheme": "http", "interval": "15s", "honorLabels": True},
            },
        },
        # each submission is a JVM of its own beside the controller
        "controller": {"resources": {"requests": {"cpu": "100m", "memory": "512Mi"}}},
    }
    given = {key: value for key, value in values.get(OPERATOR, {}).items() if key != "enabled"}
    return merged(ours, given)


def given_values(files: Iterable[Path], sets: Iterable[str]) -> dict[str, Any]:
    """Values that a person gives: files in order, then single ones, the later winning.

    Args:
        files: YAML.
        sets: `key=value`, as `firehose.replicas=2`; the value is YAML.

    Raises:
        DeclarationError: a file can't be read or is no mapping, a setting has no key or breaks another's shape, or
            something is given that follows from lake.yaml.
    """
    found: dict[str, Any] = {}
    for path in files:
        found = merged(found, _read(path))
    for text in sets:
        set_value(found, text)
    if "lake" in found:
        raise DeclarationError(
            f"values: lake: it follows from lake.yaml; change that. Got {', '.join(sorted(_keys(found['lake'])))}"
        )
    enabled = found.get(OPERATOR, {}).get("enabled")
    if enabled:
        raise DeclarationError(
            f"values: {OPERATOR}.enabled: got {enabled!r}; the operator is installed as a release of its own, as its "
            "webhook has to answer before a job is made. Leave it out"
        )
    return found


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two mappings as one, the second winning; lists are replaced, as Helm does it."""
    found = dict(below)
    for key, value in above.items():
        under = found.get(key)
        found[key] = merged(under, value) if isinstance(under, dict) and isinstance(value, dict) else value
    return found


def set_value(values: dict[str, Any], text: str) -> None:
    r"""Put `key=value` into values, in place.

    The key is a path of names and `[positions]`; a dot within a name is written `\.`. The value is YAML, so `2` is a
    number, `"2"` a text and `[a, b]` a list.

    >>> values = {}
    >>> set_value(values, r'firehose.nodeSelector.kubernetes\.io/arch=arm64')
    >>> values
    {'firehose': {'nodeSelector': {'kubernetes.io/arch': 'arm64'}}}

    Raises:
        DeclarationError: there is no key or no value, or the path goes through something that is no mapping.
    """
    key, equals, raw = text.partition("=")
    parts = _KEY.findall(key)
    if not equals or not parts or re.sub(_KEY, "", key).strip("."):
        raise DeclarationError(f"--set {text}: give key=value, for example firehose.replicas=2")
    try:
        value = yaml.safe_load(raw) if raw else ""
    except yaml.YAMLError:
        raise DeclarationError(f'--set {text}: the value isn\'t YAML; put it in quotes: {key}="…"') from None
    place: Any = values
    for here, following in pairwise(parts):
        place = _enter(place, here, [] if following.startswith("[") else {}, text)
    _enter(place, parts[-1], None, text)
    last = _index(parts[-1])
    place[last] = value


def _enter(place: Any, part: str, empty: Any, text: str) -> Any:
    index = _index(part)
    if isinstance(index, int):
        if not isinstance(place, list) or index > len(place):
            raise DeclarationError(f"--set {text}: {part}: positions of a list begin at 0 and leave none out")
        if index == len(place):
            place.append(empty)
    elif not isinstance(place, dict):
        raise DeclarationError(f"--set {text}: {part}: what is above it is {place!r}, no mapping")
    elif place.get(index) is None:
        place[index] = empty
    return place[index]


def _index(part: str) -> str | int:
    return int(part[1:-1]) if part.startswith("[") else re.sub(r"\\(.)", r"\1", part)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DeclarationError(f"--values {path}: can't be read: {error}") from None
    except yaml.YAMLError as error:
        raise DeclarationError(f"--values {path}: not YAML: {error}") from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise DeclarationError(f"--values {path}: got {type(found).__name__}, a mapping of values is needed")
    return found


def _keys(value: object) -> list[str]:
    return [str(key) for key in value] if isinstance(value, dict) else [repr(value)]
