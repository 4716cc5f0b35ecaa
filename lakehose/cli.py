"""Owns the `lakehose` command: global options, each room's commands, and how errors reach the user."""

from __future__ import annotations

import sys
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    TokenRetrievalError,
)
from botocore.exceptions import (
    ConnectionError as AwsConnectionError,
)

from athena import commands as athena
from charts import commands as charts
from firehose import commands as firehose
from firehose import stream_commands
from firehose.provision import provision_streams
from k8s import commands as k8s
from lake import commands as lake
from lake.context import CommandContext
from lake.errors import LakehoseError, TerminalError
from lake.provision import provision_storage
from local import commands as local
from producers import commands as producers
from spark_jobs import audit_commands, lineage_commands, quality_commands, subject_commands, table_commands
from spark_jobs import commands as spark_jobs

__all__ = ["app", "main"]

app = typer.Typer(
    name="lakehose",
    help=(
        "Streaming ingestion into Iceberg, declared once in lake.yaml: the same commands against AWS and, with an "
        "endpoint, on this machine."
    ),
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


@app.callback()
def options(
    context: typer.Context,
    lake_path: Annotated[Path, typer.Option("--lake", envvar="LAKEHOSE_LAKE", help="The declaration.")] = Path(
        "lake.yaml"
    ),
    endpoint: Annotated[
        str | None,
        typer.Option(
            envvar="AWS_ENDPOINT_URL", help="URL that answers for AWS, as `lakehose local up` starts; AWS without it."
        ),
    ] = None,
) -> None:
    """Take the global options; nothing is read before a command asks."""
    context.obj = CommandContext(lake_path, endpoint)


@app.command(rich_help_panel="The lake")
def apply(context: typer.Context) -> None:
    """Make what the declaration names: buckets, keys, databases, tables, roles, streams. Twice changes nothing."""
    given: CommandContext = context.obj
    declared, cloud = given.lake(), given.cloud()
    lake.print_changes(chain(provision_storage(declared, cloud), provision_streams(declared, cloud)))


class Where(StrEnum):
    """Where a job runs."""

    LOCAL = "local"
    K8S = "k8s"


@app.command(rich_help_panel="Data")
def run(  # noqa: PLR0917 - typer's options
    context: typer.Context,
    job: Annotated[str, typer.Argument(help=f"One of: {', '.join(spark_jobs.JOBS)}.")],
    on: Annotated[Where, typer.Option(help="This machine, or a Kubernetes cluster.")] = Where.LOCAL,
    dataset: Annotated[list[str] | None, typer.Option(help="Only this dataset; may be repeated.")] = None,
    tenant: Annotated[list[str] | None, typer.Option(help="Only this tenant; may be repeated.")] = None,
    owner: k8s.OwnerOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="On this machine: JSON instead of a table.")] = False,  # noqa: FBT002
    every: spark_jobs.EveryOption = None,
    relist: spark_jobs.RelistOption = False,  # noqa: FBT002
    dry_run: spark_jobs.DryOption = False,  # noqa: FBT002
    timeout: k8s.TimeoutOption = k8s.DEFAULT_TIMEOUT,
    pod_endpoint: k8s.PodEndpointOption = None,
    kubeconfig: k8s.KubeconfigOption = None,
    kube_context: k8s.ContextOption = None,
) -> None:
    """Run a Spark job to its end: the same job on this machine and on a cluster. Exits as the job does."""
    if on is Where.LOCAL:
        for option, value in {
            "--pod-endpoint": pod_endpoint,
            "--kubeconfig": kubeconfig,
            "--context": kube_context,
        }.items():
            if value is not None:
                raise TerminalError(f"{option}: it is for --on k8s")
        spark_jobs.run(
            context, job, dataset, tenant, owner, relist=relist, every=every, dry_run=dry_run, as_json=as_json
        )
        return
    if as_json:
        raise TerminalError("--json: it is for --on local; a pod's log holds what Spark says too")
    if every is not None or relist or dry_run:
        raise TerminalError("--every, --relist and --dry-run: they are for --on local")
    target = k8s.Target(kubeconfig, kube_context, pod_endpoint, timeout)
    raise typer.Exit(
        k8s.run_on_cluster(context.obj, job, target, owner=owner, tenants=tenant or (), datasets=dataset or ())
    )


app.command(rich_help_panel="The lake")(lake.validate)
app.command(rich_help_panel="The lake")(audit_commands.audit)
app.add_typer(lake.contract, name="contract", rich_help_panel="The lake")
app.add_typer(stream_commands.streams, name="streams", rich_help_panel="The lake")
app.command(rich_help_panel="Data")(producers.send)
app.command(rich_help_panel="Data")(athena.query)
app.add_typer(table_commands.table, name="table", rich_help_panel="Data")
app.add_typer(quality_commands.quality, name="quality", rich_help_panel="Data")
app.command(rich_help_panel="Data")(lineage_commands.lineage)
app.add_typer(subject_commands.erase, name="erase", rich_help_panel="Data")
app.command(rich_help_panel="Data")(subject_commands.replay)
app.command(rich_help_panel="Data")(subject_commands.backfill)
app.add_typer(firehose.app, name="firehose", rich_help_panel="Servers")
app.add_typer(local.app, name="local", rich_help_panel="Servers")
app.add_typer(charts.app, name="deploy", rich_help_panel="Kubernetes")
app.add_typer(k8s.app, name="k8s", rich_help_panel="Kubernetes")


def main() -> None:
    """Run a command; exits with 2 for bad input, 1 for a finding, 0 otherwise."""
    try:
        app()
    except LakehoseError as error:
        _fail(str(error), error.exit_code)
    except NoCredentialsError:
        _fail(
            "no AWS credentials; configure them (`aws configure`), or give a local endpoint: `lakehose local up`, "
            "then --endpoint or AWS_ENDPOINT_URL",
            2,
        )
    except (AwsConnectionError, TokenRetrievalError) as error:
        _fail(f"{error}; is the endpoint up? `lakehose local status`", 1)
    except (ClientError, BotoCoreError) as error:
        _fail(f"AWS refused: {error}", 1)


def _fail(message: str, status: int) -> NoReturn:
    sys.stderr.write(f"lakehose: {message}\n")
    sys.exit(status)
