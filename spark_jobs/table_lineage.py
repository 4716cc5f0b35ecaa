"""Owns telling the lineage of jobs that work at whole tables: compaction, maintenance, erasure."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from botocore.exceptions import BotoCoreError, ClientError

from lake.lineage import Parent, TableStory, Turn, job_run_id, table_event
from lake.lineage_log import LineageLog, Sender, Told
from lake.tables import QUARANTINE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from lake.clients import Cloud
    from lake.declaration import Lake

__all__ = ["tell_tables"]


def tell_tables(
    lake: Lake,
    cloud: Cloud,
    job: str,
    tables: Mapping[str, Mapping[str, Any]],
    started_at: datetime,
    *,
    say: Callable[[str], None],
) -> None:
    """Tell that a job has worked at tables; whatever goes wrong with that is said, and fails no job.

    Args:
        lake: the declaration.
        cloud: where the lake is.
        job: name of the job.
        tables: what it did, in numbers, by table (`database.table`).
        started_at: when the job began.
        say: takes a line about what couldn't be kept or sent.
    """
    owners = {lake.names.database(owner): owner for owner in lake.owners()}
    started, ended = (round(one.timestamp() * 1000) for one in (started_at, datetime.now(UTC)))
    parent = Parent.of(job, job_run_id(started, job, uuid4().hex))
    sender = Sender(LineageLog(cloud.dynamodb, lake.names.manifest_table()), lake.lineage, say)
    try:
        for name, facts in sorted(tables.items()):
            database, _, table = name.partition(".")
            if table == QUARANTINE:
                continue  # its rows are told by the batches that put them there
            sender.resend(owners[database], table)
            story = TableStory(job, owners[database], table, job_run_id(started, job, parent.run_id, name), facts)
            for turn, moment in ((Turn.START, started), (Turn.COMPLETE, ended)):
                event = table_event(lake, story, turn, moment, parent=parent)
                sender.tell(Told(story.owner, table, event))
    except (ClientError, BotoCoreError) as error:
        say(f"lineage: what {job} did can't be kept: {error}")
    finally:
        sender.close()
