"""Owns the room for SQL models: each file of a folder as an Athena query, one behind the other, for each tenant."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.amazon.aws.operators.athena import AthenaOperator
from airflow.sdk import TaskGroup

from lake.errors import DeclarationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from lake.declaration import Lake, Workspace

__all__ = ["model_files", "models_of"]

_POLL_SECONDS = 5
_RESULTS = "query-results/"


def model_files(folder: Path) -> list[Path]:
    """The folder's models in the order they run: by name.

    Raises:
        DeclarationError: there are none.
    """
    found = sorted(folder.glob("*.sql"))
    if not found:
        raise DeclarationError(f"LAKEHOSE_MODELS: {folder}: no *.sql in it; leave the variable out to have no models")
    return found


def models_of(lake: Lake, workspace: Workspace, folder: Path, options: Mapping[str, object]) -> TaskGroup:
    """Tasks for the models of a workspace.

    A file holds one statement and names tables without a database: it runs in the database of each tenant.

    Args:
        lake: the declaration.
        workspace: whose models.
        folder: where they are; the DAG's `template_searchpath`, so that files are read when they run.
        options: what every task gets.
    """
    names = lake.names
    places = [
        {"database": names.database(one), "output_location": f"s3://{names.bucket(one)}/{_RESULTS}"}
        for one in workspace.tenants
    ]
    with TaskGroup("models") as group:
        last = None
        for file in model_files(folder):
            common = {
                "task_id": file.stem,
                "query": file.name,
                "deferrable": True,
                "sleep_time": _POLL_SECONDS,
                "region_name": lake.region,
                **options,
            }
            # pooled tenants are many, and come and go without the DAG changing its tasks
            task = (
                AthenaOperator(**common, **places[0])
                if len(places) == 1
                else AthenaOperator.partial(**common, map_index_template="{{ task.database }}").expand_kwargs(places)
            )
            if last is not None:
                last >> task
            last = task
    return group
