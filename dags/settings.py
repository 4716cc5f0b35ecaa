"""Owns what the DAGs are told by the environment: which declaration, which runner, where alerts go.

Read once, when Airflow parses the DAG file. A wrong value becomes an import error that names the variable, so Airflow
shows the sentence on its front page.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from lake.errors import DeclarationError, known_values
from lake.jobs import COMPACT

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Runner", "Settings"]

_HOME = Path(__file__).resolve().parents[1]
_TOPIC = re.compile(r"arn:aws[a-z-]*:sns:(?P<region>[a-z0-9-]+):\d{12}:[A-Za-z0-9_-]{1,256}")


class Runner(StrEnum):
    """What carries a job out."""

    K8S = "k8s"
    """The Spark Operator of a Kubernetes cluster."""
    LOCAL = "local"
    """The `lakehose` command, on the machine that the Airflow worker is on."""


@dataclass(frozen=True)
class Settings:
    """How this Airflow runs the lake's jobs."""

    lake: Path = _HOME / "lake.yaml"
    """The declaration."""
    runner: Runner = Runner.K8S
    command: Path = _HOME / ".venv" / "bin" / "lakehose"
    """The `lakehose` command of the product's own environment, for the local runner."""
    endpoint: str | None = None
    """URL at which jobs find AWS; None leaves it to the environment they run in."""
    kubernetes_connection: str = "kubernetes_default"
    """Airflow's connection to the cluster."""
    alerts_topic: str | None = None
    """ARN of the SNS topic that hears of failed tasks; None: nobody does."""
    alerts_region: str | None = None
    """Region of the topic, as its ARN says."""
    models: Path | None = None
    """Folder with SQL models, one statement a file; None: there are none."""
    models_after: str = COMPACT.name
    """Job that the models come after."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Settings:
        """Read the `LAKEHOSE_…` variables; one that is empty counts as not set.

        Raises:
            DeclarationError: a variable holds something that isn't allowed.
        """

        def given(name: str) -> str | None:
            return environment.get(name, "").strip() or None

        runner = given("LAKEHOSE_RUNNER") or Runner.K8S
        if runner not in set(Runner):
            raise DeclarationError(f"LAKEHOSE_RUNNER: {known_values(runner, Runner)}")
        topic = given("LAKEHOSE_ALERTS_TOPIC")
        return cls(
            lake=Path(given("LAKEHOSE_LAKE") or cls.lake).absolute(),
            runner=Runner(runner),
            command=Path(given("LAKEHOSE_BIN") or cls.command).absolute(),
            endpoint=given("LAKEHOSE_ENDPOINT"),
            kubernetes_connection=given("LAKEHOSE_KUBERNETES_CONN") or cls.kubernetes_connection,
            alerts_topic=topic,
            alerts_region=_region_of(topic) if topic else None,
            models=_folder("LAKEHOSE_MODELS", given("LAKEHOSE_MODELS")),
            models_after=given("LAKEHOSE_MODELS_AFTER") or cls.models_after,
        )


def _region_of(topic: str) -> str:
    found = _TOPIC.fullmatch(topic)
    if found is None:
        raise DeclarationError(
            f"LAKEHOSE_ALERTS_TOPIC: got {topic!r}, expected the ARN of an SNS topic, "
            "as in arn:aws:sns:eu-west-1:123456789012:lake-alerts"
        )
    return found["region"]


def _folder(name: str, value: str | None) -> Path | None:
    if value is None:
        return None
    folder = Path(value).absolute()
    if not folder.is_dir():
        raise DeclarationError(f"{name}: {folder}: there is no such folder")
    return folder
