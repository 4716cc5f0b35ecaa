"""Owns objects in S3: reading them in Spark's tasks.

Objects are fetched by their keys, one request an object: a key may hold characters that Hadoop's paths can't, nothing
is listed again, and an object that can't be unpacked says so in place of failing the job.
"""

from __future__ import annotations

import gzip
import zlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from lake.clients import Cloud, is_passing
from lake.errors import TerminalError, TransientError
from lake.provision import error_code

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import pyarrow as pa
    from mypy_boto3_s3 import S3Client
    from pyspark.sql import DataFrame, SparkSession


__all__ = ["ObjectLines", "StoredObject", "read_objects", "shares"]

_TASK_BYTES = 8 * 2**20  # of objects as stored, for one task: unpacked about 100 MB
_AHEAD = 4  # objects that a task fetches ahead
_GZIP = b"\x1f\x8b"


@dataclass(frozen=True, order=True)
class StoredObject:
    """An object in S3, and its size as stored."""

    uri: str
    """`s3://bucket/key`."""
    size: int
    """Bytes."""


@dataclass(frozen=True)
class ObjectLines:
    """An object's content."""

    uri: str
    body: bytes
    """Unpacked."""
    problem: str | None
    """Why it can't be read, in words; None where it can."""

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Its lines without the newline, each with its number from 0; blank ones are counted and left out."""
        if self.problem is None:
            for position, line in enumerate(self.body.split(b"\n")):
                if line and not line.isspace():
                    yield position, line


def read_objects(
    spark: SparkSession,
    objects: Sequence[StoredObject],
    cloud: Cloud,
    render: Callable[[Iterator[ObjectLines]], Iterator[pa.RecordBatch]],
    schema: str,
) -> DataFrame:
    """Read objects in parallel tasks, about the same bytes in each.

    Args:
        spark: the session.
        objects: what to read.
        cloud: where they are.
        render: makes Arrow batches of a task's objects; runs in the task.
        schema: what it makes, in Spark SQL.
    """
    size = sum(one.size for one in objects)
    tasks = min(len(objects), max(spark.sparkContext.defaultParallelism, -(-size // _TASK_BYTES)))
    dealt = shares(objects, tasks)
    region, endpoint = cloud.region, cloud.endpoint  # only plain values travel: a client holds sockets

    def read(numbers: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        uris = [uri for batch in numbers for number in batch.column(0).to_pylist() for uri in dealt[number]]
        return render(_contents(_s3_of_worker(region, endpoint), uris))

    return spark.range(0, tasks, 1, tasks).mapInArrow(read, schema)


@cache
def _s3_of_worker(region: str, endpoint: str | None) -> S3Client:
    """One client for all tasks of a Python worker: making one takes longer than fetching an object."""
    return Cloud(region, endpoint).s3


def shares(objects: Iterable[StoredObject], tasks: int) -> list[list[str]]:
    """Deal objects out to tasks, the largest first, each to the task that has least; the same every time."""
    dealt: list[list[str]] = [[] for _ in range(tasks)]
    weights = [0] * tasks
    for one in sorted(objects, key=lambda item: (-item.size, item.uri)):
        least = weights.index(min(weights))
        dealt[least].append(one.uri)
        weights[least] += one.size + 64 * 1024  # a request costs about as much as so many bytes
    return dealt


def _contents(s3: S3Client, uris: list[str]) -> Iterator[ObjectLines]:
    """Fetch a few objects ahead of the one that is being read, and no more: they are held in memory."""
    rest = iter(uris)
    with ThreadPoolExecutor(_AHEAD) as pool:
        waiting = deque(pool.submit(_fetch, s3, uri) for uri in islice(rest, _AHEAD))
        while waiting:
            found = waiting.popleft().result()
            waiting.extend(pool.submit(_fetch, s3, uri) for uri in islice(rest, 1))
            yield found


def _fetch(s3: S3Client, uri: str) -> ObjectLines:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    try:
        body = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    except (ClientError, BotoCoreError, OSError) as error:
        # by its code: the client's own class for it may be another one where two threads meet their first error
        if isinstance(error, ClientError) and error_code(error) == "NoSuchKey":
            return ObjectLines(uri, b"", "the object is gone: it was there when the batch was planned")
        kind = TransientError if is_passing(error) else TerminalError
        raise kind(f"object {uri}: it can't be read: {error}") from error
    if body[:2] != _GZIP:
        fake = bool(body) and key.endswith(".gz")
        return ObjectLines(uri, body, "the object's name ends with .gz, and it isn't gzip" if fake else None)
    try:
        return ObjectLines(uri, gzip.decompress(body), None)
    except (EOFError, OSError, zlib.error) as error:
        return ObjectLines(uri, b"", f"the object is no whole gzip: {error}")
