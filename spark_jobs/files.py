"""Owns the files job: CSV files that customers dropped into S3 become events in `processed/`, where ingest takes them.

`python -m spark_jobs.files --lake lake.yaml`; `run` is the same for a session that is up already.

Each file is taken whole by one task, which also tells the manifest. So a run that stops anywhere has lost nothing but
the files that were being taken, and the next run takes those again, with the same result.
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, TypeAlias

import pyarrow as pa
from botocore.exceptions import ClientError

from lake.clients import Cloud, error_code
from lake.defaults import silent
from lake.drops import TakenFiles
from lake.errors import DeclarationError, TransientError
from spark_jobs.failures import spoken
from spark_jobs.file_taking import FileReport, FoundFile, Outcome, Target, take_file
from spark_jobs.objects import StoredObject, shares

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from pyspark.sql import SparkSession

    from lake.declaration import Lake
    from lake.drops import Drop

__all__ = ["DropTotals", "FilesReport", "drops_of", "new_files", "run"]

_WAVE = 5_000  # files that are given out at once: their names travel to every task
_TASK_BYTES = 8 * 2**20
_SMALL_BYTES = 4 * 2**20
_TAKEN_AT_ONCE, _LISTED_AT_ONCE = 4, 16
_SAID = 20  # files of a wave that are told one by one when they were refused
_COLUMNS = (
    ("drop", "string"),
    ("uri", "string"),
    ("outcome", "string"),
    ("rows", "bigint"),
    ("refused", "bigint"),
    ("objects", "bigint"),
    ("producer_id", "string"),
    ("message", "string"),
)
_Work: TypeAlias = tuple[Target, FoundFile]
_ARROW = {"string": pa.string(), "bigint": pa.int64()}


@dataclass(frozen=True)
class DropTotals:
    """What became of the new files of one drop."""

    drop: str
    tenant: str
    dataset: str
    files: int = 0
    """Taken, the refused ones included."""
    rows: int = 0
    events: int = 0
    """Rows that are in `processed/` now."""
    refused: int = 0
    """Rows, and files as a whole, that are among the error objects now."""
    same: int = 0
    """Files that were put there again with the same content."""
    changed: int = 0
    """Files that were replaced while they were read; the next run takes what is there then."""


@dataclass(frozen=True)
class FilesReport:
    """What a run did."""

    drops: tuple[DropTotals, ...]
    """One for each drop it looked at."""
    refused_files: tuple[FileReport, ...]
    """Files that could not be read at all."""
    seconds: float


def run(
    spark: Callable[[], SparkSession],
    lake: Lake,
    cloud: Cloud,
    *,
    datasets: Collection[str] | None = None,
    tenants: Collection[str] | None = None,
    say: Callable[[str], None] = silent,
) -> FilesReport:
    """Take every file that is new.

    Args:
        spark: gives a session of `create_session`; asked for only when there is something to take.
        lake: the declaration.
        cloud: where the lake is.
        datasets: only drops of these; all of them without it.
        tenants: only drops of these.
        say: takes a line.

    Raises:
        DeclarationError: a dataset or tenant isn't declared, or the lake has no drops.
        TransientError: a bucket isn't there, or files could not be read or written; what could, was.
    """
    started = time.monotonic()
    drops = drops_of(lake, datasets, tenants)
    reports: list[FileReport] = []
    problems: list[str] = []
    for wave in _waves(_new_files_of_all(lake, cloud, drops, problems)):
        with spoken("files"):
            done = _take_wave(spark(), cloud, wave)
        reports += done
        _tell(drops, done, say)
    problems += [one.message for one in reports if one.outcome is Outcome.FAILED]
    for problem in problems[1:]:
        say(problem)
    if problems:
        rest = f" (and {len(problems) - 1} more like it)" if len(problems) > 1 else ""
        raise TransientError(f"left to the next run, while all others are taken: {problems[0]}{rest}")
    return FilesReport(
        drops=tuple(_totals(drop, reports) for drop in drops),
        refused_files=tuple(one for one in reports if one.outcome is Outcome.REFUSED),
        seconds=time.monotonic() - started,
    )


def drops_of(
    lake: Lake, datasets: Collection[str] | None = None, tenants: Collection[str] | None = None
) -> tuple[Drop, ...]:
    """The drops of the datasets and tenants asked for.

    Raises:
        DeclarationError: a dataset or tenant isn't declared, or the lake has no drops.
    """
    if not lake.drops:
        raise DeclarationError("drops: the lake declares none, so there are no files to take; docs/files.md tells how")
    kinds = {lake.dataset(name).name for name in datasets} if datasets else {one.name for one in lake.datasets}
    asked = {lake.tenant(name).id for name in tenants} if tenants else {one.id for one in lake.tenants}
    return tuple(one for one in lake.drops if one.dataset in kinds and one.tenant in asked)


def new_files(cloud: Cloud, target: Target) -> list[FoundFile]:
    """Files of a drop that were not taken as they are now, in the order of their keys.

    It lists the drop, and reads what is remembered of it: the cost grows with all files that are kept there.

    Raises:
        TransientError: the bucket isn't there, or can't be listed.
    """
    drop = target.drop
    taken = TakenFiles(cloud.dynamodb, target.manifest_table).of_drop(drop)
    found: list[FoundFile] = []
    try:
        for page in cloud.s3.get_paginator("list_objects_v2").paginate(Bucket=drop.bucket, Prefix=drop.prefix):
            for one in page.get("Contents", []):
                key, etag = one["Key"], one["ETag"].strip('"')
                # a console makes empty objects named like folders
                folder = key.endswith("/") and one["Size"] == 0
                if not folder and (f"s3://{drop.bucket}/{key}", etag) not in taken:
                    found.append(FoundFile(key, etag, one["Size"], round(one["LastModified"].timestamp() * 1000)))
    except ClientError as error:
        if error_code(error) == "NoSuchBucket":
            told = f"there is no bucket {drop.bucket}; `lakehose apply` makes it"
        else:
            told = f"{drop.uri} can't be listed: {error}"
        raise TransientError(f"drop {drop.name}: {told}") from None
    return found


def _new_files_of_all(lake: Lake, cloud: Cloud, drops: Sequence[Drop], problems: list[str]) -> Iterator[_Work]:
    targets = [
        Target(
            drop=drop,
            contract=lake.dataset(drop.dataset).contract,
            bucket=lake.stream_of(drop.dataset, drop.tenant).bucket,
            manifest_table=lake.names.manifest_table(),
        )
        for drop in drops
    ]
    with ThreadPoolExecutor(_LISTED_AT_ONCE) as pool:
        futures = [pool.submit(new_files, cloud, target) for target in targets]
        for target, future in zip(targets, futures, strict=True):
            try:
                yield from ((target, found) for found in future.result())
            except TransientError as error:
                problems.append(str(error))  # it holds up no other drop


def _waves(work: Iterator[_Work]) -> Iterator[list[_Work]]:
    while wave := list(islice(work, _WAVE)):
        yield wave


def _take_wave(spark: SparkSession, cloud: Cloud, wave: Sequence[_Work]) -> list[FileReport]:
    size = sum(found.size for _, found in wave)
    tasks = min(len(wave), max(spark.sparkContext.defaultParallelism, -(-size // _TASK_BYTES)))
    work = {target.uri(found): (target, found) for target, found in wave}
    dealt = [
        [work[uri] for uri in share]
        for share in shares([StoredObject(uri, found.size) for uri, (_, found) in work.items()], tasks)
    ]
    region, endpoint = cloud.region, cloud.endpoint  # only plain values travel: a client holds sockets

    def take(numbers: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        of_worker = _cloud_of_worker(region, endpoint)
        for batch in numbers:
            for number in batch.column(0).to_pylist():
                yield from map(_as_arrow, _take_share(dealt[number], of_worker))

    schema = ", ".join(f"{name} {kind}" for name, kind in _COLUMNS)
    done = spark.range(0, tasks, 1, tasks).mapInArrow(take, schema).collect()
    return [FileReport(**{**row.asDict(), "outcome": Outcome(row["outcome"])}) for row in done]


@cache
def _cloud_of_worker(region: str, endpoint: str | None) -> Cloud:
    """One set of clients for all tasks of a Python worker: making them takes longer than taking a small file."""
    return Cloud(region, endpoint)


def _take_share(share: Sequence[_Work], cloud: Cloud) -> Iterator[FileReport]:
    def take(one: _Work) -> FileReport:
        target, found = one
        return take_file(found, target, cloud)

    # Small files are mostly waiting for S3 and DynamoDB; large ones would not fit into memory side by side.
    yield from map(take, (one for one in share if one[1].size > _SMALL_BYTES))
    with ThreadPoolExecutor(_TAKEN_AT_ONCE) as pool:
        yield from pool.map(take, (one for one in share if one[1].size <= _SMALL_BYTES))


def _as_arrow(report: FileReport) -> pa.RecordBatch:
    values = asdict(report)
    schema = pa.schema([(name, _ARROW[kind]) for name, kind in _COLUMNS])
    return pa.record_batch([pa.array([values[name]], _ARROW[kind]) for name, kind in _COLUMNS], schema=schema)


def _totals(drop: Drop, reports: Sequence[FileReport]) -> DropTotals:
    own = [one for one in reports if one.drop == drop.name]
    taken = [one for one in own if one.outcome in {Outcome.TAKEN, Outcome.REFUSED}]
    rows, refused = sum(one.rows for one in taken), sum(one.refused for one in taken)
    return DropTotals(
        drop=drop.name,
        tenant=drop.tenant,
        dataset=drop.dataset,
        files=len(taken),
        rows=rows,
        events=rows - refused,
        refused=refused,
        same=sum(one.outcome is Outcome.SAME for one in own),
        changed=sum(one.outcome is Outcome.CHANGED for one in own),
    )


def _tell(drops: Sequence[Drop], reports: Sequence[FileReport], say: Callable[[str], None]) -> None:
    for done in (_totals(drop, reports) for drop in drops):
        counts = {
            f"{done.files:,} files, {done.rows:,} rows, {done.refused:,} refused": done.files,
            f"{done.same:,} files again with the same content": done.same,
            f"{done.changed:,} files changed while they were read": done.changed,
        }
        told = [text for text, count in counts.items() if count]
        if told:
            say(f"drop {done.drop}: {', '.join(told)}")
    refused = [one for one in reports if one.outcome is Outcome.REFUSED]
    for one in refused[:_SAID]:
        say(f"refused: {one.uri}: {one.message}")
    if len(refused) > _SAID:
        say(f"refused: {len(refused) - _SAID:,} files more; the quarantine table will name them all")


if __name__ == "__main__":
    from spark_jobs.commands import run_job

    sys.exit(run_job("files", sys.argv[1:]))
