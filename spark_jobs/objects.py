"""Owns objects in S3: reading them in Spark's tasks, as blocks of whole lines.

Objects are fetched by their keys, one request an object: a key may hold characters that Hadoop's paths can't, nothing
is listed again, and an object that can't be unpacked says so in place of failing the job.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING

from lake.clients import Cloud
from lake.lines import Source

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import pyarrow as pa
    from mypy_boto3_s3 import S3Client
    from pyspark.sql import DataFrame, SparkSession

    from lake.lines import Piece

__all__ = ["StoredObject", "read_objects", "shares"]

_TASK_BYTES = 8 * 2**20  # of objects as stored, for one task: unpacked about 100 MB
_AHEAD = 4  # objects that a task fetches ahead
_AHEAD_BYTES = 16 * 2**20  # a larger one isn't


@dataclass(frozen=True, order=True)
class StoredObject:
    """An object in S3, and its size as stored."""

    uri: str
    """`s3://bucket/key`."""
    size: int
    """Bytes."""


def read_objects(
    spark: SparkSession,
    objects: Sequence[StoredObject],
    cloud: Cloud,
    render: Callable[[Iterator[Piece]], Iterator[pa.RecordBatch]],
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
    sizes = {one.uri: one.size for one in objects}
    given = [[StoredObject(uri, sizes[uri]) for uri in share] for share in dealt]
    region, endpoint = cloud.region, cloud.endpoint  # only plain values travel: a client holds sockets

    def read(numbers: Iterable[pa.RecordBatch]) -> Iterable[pa.RecordBatch]:
        mine = [one for batch in numbers for number in batch.column(0).to_pylist() for one in given[number]]
        return render(_contents(_s3_of_worker(region, endpoint), mine))

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


def _contents(s3: S3Client, objects: Iterable[StoredObject]) -> Iterator[Piece]:
    """Fetch a few small objects ahead of the one that is being read, and no more: they are held in memory."""
    rest = iter(objects)
    with ThreadPoolExecutor(_AHEAD) as pool:
        waiting = deque(pool.submit(_open, s3, one) for one in islice(rest, _AHEAD))
        while waiting:
            found = waiting.popleft().result()
            waiting.extend(pool.submit(_open, s3, one) for one in islice(rest, 1))
            yield from found.pieces()


def _open(s3: S3Client, one: StoredObject) -> Source:
    source = Source(s3, one.uri)
    if one.size <= _AHEAD_BYTES:
        source.fetch()
    return source
