"""Owns what is told to whom when a task has failed for good: one message to an SNS topic."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.amazon.aws.notifications.sns import SnsNotifier

if TYPE_CHECKING:
    from airflow.sdk.bases.notifier import BaseNotifier

    from dags.settings import Settings

__all__ = ["on_failure"]

# SNS takes a subject of at most 100 characters
_SUBJECT = "{{ ('failed: ' ~ ti.dag_id ~ '.' ~ ti.task_id)[:100] }}"
_MESSAGE = """\
Task {{ ti.task_id }} of {{ ti.dag_id }} failed, after {{ ti.try_number }} tries.
{{ exception }}

run: {{ run_id }}
log: {{ ti.log_url }}
"""


def on_failure(settings: Settings) -> list[BaseNotifier]:
    """What a task calls when it has failed and is not tried again; nothing where no topic is set."""
    if settings.alerts_topic is None:
        return []
    attributes = {"dag_id": "{{ ti.dag_id }}", "task_id": "{{ ti.task_id }}"}
    return [
        SnsNotifier(
            target_arn=settings.alerts_topic,
            subject=_SUBJECT,
            message=_MESSAGE,
            message_attributes=attributes,
            region_name=settings.alerts_region,
        )
    ]
