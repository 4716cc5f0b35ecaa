"""Owns which cluster is meant: a kubeconfig and a context of it, or the cluster that a pod runs in.

The `kubernetes` client reads the file; what is wrong with it is told as a sentence here.
"""

from __future__ import annotations

import logging
import os
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Self

from kubernetes import client, config
from kubernetes.config import ConfigException

from k8s.cluster import Cluster
from lake.errors import EnvironmentProblemError, known_values

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["connect"]

_DEFAULT = Path("~/.kube/config")
_IN_CLUSTER = "the cluster this runs in"


def connect(kubeconfig: Path | None = None, context: str | None = None) -> Cluster:
    """Find a cluster: a kubeconfig's current context, or the one given; inside of a pod, the cluster it runs in.

    Args:
        kubeconfig: the file; `KUBECONFIG`, or `~/.kube/config`, without it.
        context: name of a context in it.

    Raises:
        EnvironmentProblemError: there is no kubeconfig, or no such context, or it can't be read.
    """
    named = str(kubeconfig) if kubeconfig else os.environ.get("KUBECONFIG") or str(_DEFAULT)
    paths = [Path(one).expanduser() for one in named.split(os.pathsep) if one]
    configuration = client.Configuration()
    if not any(one.is_file() for one in paths):
        if not kubeconfig and not context and os.environ.get("KUBERNETES_SERVICE_HOST"):
            config.load_incluster_config(configuration)  # type: ignore[no-untyped-call]
            return Cluster(configuration, _IN_CLUSTER)
        raise EnvironmentProblemError(
            f"kubeconfig: there is no {' and no '.join(map(str, paths))}; name one with --kubeconfig or KUBECONFIG "
            "(kind: `kind get kubeconfig`, k3d: `k3d kubeconfig write`, EKS: `aws eks update-kubeconfig`)"
        )
    with _readable(named):
        contexts, current = _contexts(named)
        if context is not None and context not in contexts:
            raise EnvironmentProblemError(f"context: {known_values(context, contexts)} (of kubeconfig {named})")
        if not contexts:
            raise EnvironmentProblemError(f"kubeconfig {named}: it has no contexts")
        chosen = context or current
        if chosen not in contexts:
            raise EnvironmentProblemError(
                f"kubeconfig {named}: it has no current context; choose one with --context: {', '.join(contexts)}"
            )
        with _Overheard() as overheard:
            config.load_kube_config(named, chosen, configuration)  # type: ignore[no-untyped-call]
        if overheard.said:
            raise EnvironmentProblemError(
                f"context {chosen} of kubeconfig {named}: its login program gives no credentials: "
                + " ".join(overheard.said)
            )
    return Cluster(configuration, chosen)


def _contexts(named: str) -> tuple[list[str], str | None]:
    merged = config.kube_config.KubeConfigMerger(named).config  # type: ignore[no-untyped-call]
    raw = merged.value if merged is not None else {}
    return [one["name"] for one in raw.get("contexts") or []], raw.get("current-context")


@contextmanager
def _readable(named: str) -> Iterator[None]:
    try:
        yield
    except ConfigException as error:
        raise EnvironmentProblemError(f"kubeconfig {named}: {error}") from None
    except Exception as error:
        # the client lets YAML's, base64's and attribute errors of a broken file through as they are
        if isinstance(error, EnvironmentProblemError):
            raise
        said = str(error).strip().replace("\n", " ")
        raise EnvironmentProblemError(f"kubeconfig {named}: it can't be read: {said}") from None


class _Overheard(logging.Handler):
    """What the client logs while it reads a kubeconfig: that a plugin gave no credentials, which it doesn't raise."""

    def __init__(self) -> None:
        super().__init__(logging.ERROR)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep a message."""
        self.said.append(record.getMessage())

    def __enter__(self) -> Self:
        """Listen."""
        logging.getLogger().addHandler(self)
        return self

    def __exit__(self, *_: object) -> None:
        """Listen no more."""
        logging.getLogger().removeHandler(self)
