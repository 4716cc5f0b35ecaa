"""Owns the reading of a small rewrite's files: fetched whole and decoded, many at once, as the table has its columns.

PyIceberg's way to S3 is Arrow's own client: fetching and decoding run outside of Python's lock, so that a thousand
small files keep the cores busy and not the interpreter.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from spark_jobs.compact_columns import UnfitError, aligned

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from pyiceberg.io import FileIO

__all__ = ["fetched", "read_groups"]

_READERS = 16  # at once: most of a small file's time is S3's
_BATCH_ROWS = 2**7, 2**16
"""Decoded before room is counted, at least and at most."""
_BATCH_BYTES = 2**25
"""What so many rows of a flat file may take, if each takes as much as the whole file: a dictionary holds a long text
once, and each row that names it takes all of it."""


def fetched(io: FileIO, location: str) -> pa.Buffer:
    """An object's bytes, all of them.

    Raises:
        OSError: it is gone, or S3 is away.
    """
    with io.new_input(location).open() as stream:
        arrows: Any = stream  # Arrow's own file: nothing is copied, and Python's lock is let go
        return arrows.read_buffer()


def read_groups(
    io: FileIO, groups: Sequence[Sequence[str]], wanted: pa.Schema, *, given: Collection[int], room: int
) -> list[pa.Table]:
    """Rows of groups of files: a table each, its files in the order they are given in.

    Args:
        io: the table's way to S3.
        groups: locations of files, at least one in each.
        wanted: the table's columns, of `arrow_schema`.
        given: ids of columns whose values a file may leave to its partition.
        room: bytes that all rows together may take in memory.

    Raises:
        UnfitError: a file is no Parquet or has other columns, or it is too much.
        OSError: a file is gone, or S3 is away.
    """
    known: list[pa.Schema] = []

    def decoded(stored: pa.Buffer) -> pa.Table:
        nonlocal room
        batches: list[pa.RecordBatch] = []
        try:
            file = pq.ParquetFile(stored)
            schema = file.schema_arrow.remove_metadata()
            if not any(schema.equals(one, check_metadata=True) for one in known):
                # now rather than when all are read
                aligned(schema.empty_table(), wanted, given)
                known.append(schema)
            unpacked = _encoded_bytes(file.metadata)
            if unpacked > room:
                raise UnfitError("too much")
            for one in file.iter_batches(_batch_rows(schema, unpacked), use_threads=False):
                room -= one.nbytes
                if room < 0:
                    raise UnfitError("too much")
                batches.append(one)
            return pa.Table.from_batches(batches, file.schema_arrow).replace_schema_metadata()
        except (pa.ArrowException, OSError) as error:
            # other formats, and what only Spark can tell about
            raise UnfitError(str(error)) from error

    names = [one for group in groups for one in group]
    with ThreadPoolExecutor(_READERS) as pool:
        stored = pool.map(lambda one: fetched(io, one), names)
        try:
            # in this thread: while others wait for S3 it decodes, and many at once take memory from each other
            return [_joined([decoded(next(stored)) for _ in group], wanted, given) for group in groups]
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _encoded_bytes(metadata: pq.FileMetaData) -> int:
    """What a file's columns are unpacked, before they are decoded: rows take about as much in memory, or more."""
    return sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))


def _batch_rows(schema: pa.Schema, unpacked: int) -> int:
    """How many rows are decoded at once: all of a small file's, as to join a piece costs as much as a hundred rows."""
    least, most = _BATCH_ROWS
    # a row's list may name a text a thousand times
    most = least if any(map(pa.types.is_nested, schema.types)) else most
    return min(max(_BATCH_BYTES // max(unpacked, 1), least), most)


def _joined(tables: list[pa.Table], wanted: pa.Schema, given: Collection[int]) -> pa.Table:
    """The rows of tables as one piece, column by column, so that no more than a column is there twice."""
    alike = groupby(tables, key=lambda one: _Kind(one.schema))
    rest = pa.concat_tables(aligned(pa.concat_tables(list(some)), wanted, given) for _, some in alike)
    tables.clear()
    columns = []
    for _ in wanted:
        columns.append(rest.column(0).combine_chunks())
        rest = rest.remove_column(0)
    return pa.Table.from_arrays(columns, schema=wanted)


class _Kind:
    """A schema that equals another by its fields' ids too."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Kind) and bool(self._schema.equals(other._schema, check_metadata=True))

    def __hash__(self) -> int:
        return hash(tuple(self._schema.names))
