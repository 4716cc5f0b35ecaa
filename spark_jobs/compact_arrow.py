"""Owns the rewrite of a little: files are read, sorted and written in this process, where Spark's tasks cost more.

It takes only what it carries bit for bit, and says so before anything is written; all else is Spark's. The new files
are what Spark would have written: named, compressed and described by the table's own properties, put by its own IO,
their figures taken from their footers by Iceberg. The proof reads them from S3 again, puts their rows back into the
order they were read in, and compares bit by bit.

What a Parquet file of Iceberg's looks like: https://iceberg.apache.org/spec/#parquet
"""

from __future__ import annotations

import json
import tempfile
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import ValidationError
from pyiceberg.schema import Schema

from spark_jobs.compact_columns import UnfitError, arrow_schema, as_bits, field_id, longest, order_of, repeating
from spark_jobs.compact_fetch import fetched, read_groups

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from pyiceberg.io import FileIO
    from pyspark.sql import SparkSession

    from spark_jobs.compact_plan import Group

__all__ = ["ArrowRewriter", "Written", "holds"]

_ROWS = 2_000_000
_UNPACKED_BYTES = 2**28
_LARGE_ROWS = 200_000
_LARGE = Lock()
"""Held by whoever has much in memory: tables are compacted side by side."""
_GROUP_ROWS = 2**20  # of a row group, which is sorted at once beside what was read; readers merge reads over small ones
_VERSION = 2
_LONGEST = 4096  # bytes of a value that Arrow still keeps the bounds of
_PREFIX = "write.parquet."
_KNOWN = {
    *("compression-codec", "compression-level", "row-group-size-bytes", "page-size-bytes", "page-row-limit"),
    *("dict-size-bytes", "row-group-check-min-record-count", "row-group-check-max-record-count"),
}
_CODECS = {"zstd": 3, "gzip": 6, "snappy": None, "uncompressed": None}
"""Level of each where the table has none, as Iceberg's own writer takes it."""


@dataclass(frozen=True)
class Written:
    """New files that aren't committed yet."""

    files: Any
    """A Java set of Iceberg's `DataFile`."""
    rows: int
    """That were read."""
    parts: tuple[_Part, ...]
    """A file each, and what it is to hold."""


@dataclass(frozen=True)
class _Part:
    """One new file, and what it is to hold."""

    location: str
    source: pa.Table
    """Rows as they were read."""
    order: np.ndarray | None
    """The place of each of the file's rows in `source`; None where they are as they came."""


class ArrowRewriter:
    """Rewrites groups of one table's files in this process."""

    def __init__(
        self, spark: SparkSession, table: Any, io: FileIO, *, most: int, sort: Sequence[str], order_id: int | None
    ) -> None:
        """Take the table.

        Args:
            spark: a session.
            table: `org.apache.iceberg.Table`.
            io: what its files are read by.
            most: bytes, as stored, of what is rewritten at once; 0 leaves all to Spark.
            sort: columns that its files are sorted by, ascending, nulls first; none leaves rows as they come.
            order_id: the table's sort order where that is the same.
        """
        self._jvm: Any = spark._jvm  # noqa: SLF001 - Iceberg's parts are Java's
        self._gateway: Any = spark.sparkContext._gateway  # noqa: SLF001
        self._table = table
        self._io = io
        self._most = most
        self._sort = tuple(sort)
        self._order_id = order_id

    def room(self, unit: Sequence[Group]) -> AbstractContextManager[Any]:
        """To be held from the first read to the last; what takes much memory waits here for its like."""
        rows = sum(one.rows for one in unit)
        return _LARGE if rows > _LARGE_ROWS and self._is_small(unit) and self._is_plain else nullcontext()

    def write(self, unit: Sequence[Group], tasks: Any) -> Written | None:
        """Write the rows of groups anew, a file for each.

        Args:
            unit: groups of one partition spec.
            tasks: Iceberg's scan tasks of their files, as a Java list.

        Returns:
            what was written; None where it is Spark's to do, and nothing was.
        """
        if not self._is_small(unit) or not self._is_plain:
            return None
        # each task's data file, and its deletes
        if self._jvm.org.apache.iceberg.BaseScanTaskGroup(tasks).filesCount() != sum(len(one.files) for one in unit):
            return None
        try:
            parts = [(table, order_of(table, self._sort)) for table in self._read(unit)]
        except UnfitError:
            return None
        with tempfile.TemporaryDirectory(prefix="compact-") as folder:
            return self._write(unit, tasks, parts, Path(folder))

    def is_proven(self, written: Written) -> tuple[bool, int]:
        """Whether the new files, read from S3 again, hold what was read; and how many rows they have."""
        same, rows = True, 0
        for one in written.parts:
            stored = fetched(self._io, one.location)
            try:
                file = pq.ParquetFile(stored)
                rows += file.metadata.num_rows
                same = same and holds(file, one.source, one.order)
            except (pa.ArrowException, OSError):
                same = False  # what can't be read isn't what was written
        return same, rows

    def discard(self, files: Any) -> None:
        """Delete new files that no snapshot has got."""
        for one in files:
            self._table.io().deleteFile(str(one.location()))

    def _is_small(self, unit: Sequence[Group]) -> bool:
        return (
            sum(one.bytes for one in unit) <= self._most
            and sum(one.rows for one in unit) <= _ROWS
            and all(one.outputs == 1 and not one.has_deletes for one in unit)
        )

    @cached_property
    def _is_plain(self) -> bool:
        """Whether the table asks for nothing but what is done here."""
        asked = self._properties
        return (
            # rows of later versions have ids, which a rewrite keeps
            self._jvm.org.apache.iceberg.TableUtil.formatVersion(self._table) <= _VERSION
            and str(self._table.encryption().getClass().getSimpleName()) == "PlaintextEncryptionManager"
            and asked.get("write.format.default", "parquet").casefold() == "parquet"
            and self._codec in _CODECS
            and all(name.removeprefix(_PREFIX) in _KNOWN for name in asked if name.startswith(_PREFIX))
            and self._schema is not None
        )

    @cached_property
    def _properties(self) -> dict[str, str]:
        return {str(name): str(value) for name, value in dict(self._table.properties()).items()}

    def _property(self, name: str, usual: int) -> int:
        return int(self._properties.get(f"{_PREFIX}{name}", usual))

    @property
    def _codec(self) -> str:
        return self._properties.get(f"{_PREFIX}compression-codec", "zstd").casefold()

    @cached_property
    def _schema(self) -> pa.Schema | None:
        """The table's columns; None where Arrow doesn't carry them."""
        told = str(self._jvm.org.apache.iceberg.SchemaParser.toJson(self._table.schema()))
        try:
            return arrow_schema(Schema.model_validate_json(told)).with_metadata({"iceberg.schema": told})
        except (UnfitError, ValidationError):
            return None

    def _read(self, unit: Sequence[Group]) -> list[pa.Table]:
        """Rows of each group, files in the order of their names."""
        spec = self._table.specs().get(unit[0].place.spec_id)
        given = {int(one.sourceId()) for one in spec.fields() if str(one.transform()) == "identity"}
        names = [[one.path for one in group.files] for group in unit]
        made = read_groups(self._io, names, self._columns, given=given, room=_UNPACKED_BYTES)
        if any(longest(one) > _LONGEST for one in made):
            raise UnfitError("Arrow keeps no bounds of long texts")
        return made

    @property
    def _columns(self) -> pa.Schema:
        if self._schema is None:
            raise UnfitError("types")
        return self._schema

    def _write(
        self, unit: Sequence[Group], tasks: Any, rows: Sequence[tuple[pa.Table, np.ndarray | None]], folder: Path
    ) -> Written:
        core = self._jvm.org.apache.iceberg
        names = core.io.OutputFileFactory.builderFor(self._table, 0, 0).format(core.FileFormat.PARQUET)
        spec = self._table.specs().get(unit[0].place.spec_id)
        names = names.defaultSpec(spec).operationId(str(uuid4())).build()
        partitions = _partitions(unit, tasks)
        files, parts = self._jvm.java.util.HashSet(), []
        try:
            for number, (group, (source, order), partition) in enumerate(zip(unit, rows, partitions, strict=True)):
                if not source.num_rows:
                    continue
                path = folder / f"new-{number}.parquet"
                self._write_file(path, source, order, group.bytes)
                named = names.newOutputFile(partition) if spec.isPartitioned() else names.newOutputFile()
                output = named.encryptingOutputFile()
                described = self._described(path, source, str(output.location()), group.place.spec_id, partition)
                # from here on it is to be discarded, should the next fail
                files.add(described)
                self._put(path, output)
                parts.append(_Part(str(output.location()), source, order))
                path.unlink()
        except Exception:
            self.discard(files)
            raise
        return Written(files, sum(source.num_rows for source, _ in rows), tuple(parts))

    def _write_file(self, path: Path, source: pa.Table, order: np.ndarray | None, stored: int) -> None:
        usual = _CODECS[self._codec]
        level = self._property("compression-level", usual) if usual is not None else None
        each = source.num_rows * self._property("row-group-size-bytes", 2**27) // max(stored, 1)
        step = max(1, min(_GROUP_ROWS, each))
        page_rows = self._property("page-row-limit", 20_000)

        def rows(first: int, count: int) -> pa.Table:
            return source.slice(first, count) if order is None else source.take(order[first : first + count])

        with pq.ParquetWriter(
            path,
            self._columns,
            compression="none" if self._codec == "uncompressed" else self._codec,
            compression_level=level,
            use_dictionary=repeating(rows(0, page_rows)),
            dictionary_pagesize_limit=self._property("dict-size-bytes", 2**21),
            data_page_size=self._property("page-size-bytes", 2**20),
            max_rows_per_page=page_rows,
            write_page_index=True,
            # types as Iceberg's specification has them, and no note of Arrow's own
            store_decimal_as_integer=True,
            store_schema=False,
        ) as writer:
            for first in range(0, source.num_rows, step):
                writer.write_table(rows(first, step), row_group_size=step)

    def _put(self, path: Path, output: Any) -> None:
        stream = output.createOrOverwrite()
        try:
            self._jvm.java.nio.file.Files.copy(self._jvm.java.io.File(str(path)).toPath(), stream)
        finally:
            stream.close()

    def _described(self, path: Path, source: pa.Table, location: str, spec_id: int, partition: Any) -> Any:
        """Iceberg's `DataFile` of a file, by its footer; how often a value is no number isn't in there."""
        core = self._jvm.org.apache.iceberg
        config = core.MetricsConfig.forTable(self._table)
        told = core.parquet.ParquetUtil.fileMetrics(core.Files.localInput(str(path)), config)
        counted = {int(one) for one in told.valueCounts()}
        strange = {
            field_id(field): pc.sum(pc.is_nan(column)).as_py() or 0
            for field, column in zip(source.schema, source.itercolumns(), strict=True)
            if pa.types.is_floating(field.type)
        }
        metrics = core.Metrics(
            told.recordCount(),
            told.columnSizes(),
            told.valueCounts(),
            told.nullValueCounts(),
            self._map_of({key: count for key, count in strange.items() if key in counted}),
            told.lowerBounds(),
            told.upperBounds(),
        )
        spec = self._table.specs().get(spec_id)
        made = core.DataFiles.builder(spec).withPath(location).withFormat(core.FileFormat.PARQUET)
        made = made.withFileSizeInBytes(path.stat().st_size).withMetrics(metrics)
        made = made.withSplitOffsets(self._offsets(path))
        if spec.isPartitioned():
            made = made.withPartition(partition)
        return (made if self._order_id is None else made.withSortOrderId(self._order_id)).build()

    def _map_of(self, counts: dict[int, int]) -> Any:
        """A Java map of Integer to Long, which Py4J would make of Integers."""
        mapper = self._jvm.com.fasterxml.jackson.databind.ObjectMapper()
        named = self._jvm.java.lang.Class.forName
        kind = mapper.getTypeFactory().constructMapType(
            named("java.util.HashMap"), named("java.lang.Integer"), named("java.lang.Long")
        )
        return mapper.readValue(json.dumps(counts), kind)

    def _offsets(self, path: Path) -> Any:
        """Where row groups begin, as a Java list of Longs."""
        found = pq.read_metadata(path)
        columns = [found.row_group(index).column(0) for index in range(found.num_row_groups)]
        starts = [min(one.data_page_offset, one.dictionary_page_offset or one.data_page_offset) for one in columns]
        given = self._gateway.new_array(self._jvm.long, len(starts))
        for index, start in enumerate(starts):
            given[index] = start
        stream = self._jvm.java.util.stream.LongStream.of(given).boxed()
        return stream.collect(self._jvm.java.util.stream.Collectors.toList())


def _partitions(unit: Sequence[Group], tasks: Any) -> list[Any]:
    """Each group's partition, as Iceberg has it."""
    wanted = {one.path: index for index, group in enumerate(unit) for one in group.files}
    found: dict[int, Any] = {}
    for task in tasks:
        file = task.file()
        found.setdefault(wanted[str(file.location())], file.partition())
        if len(found) == len(unit):
            break
    return [found[index] for index in range(len(unit))]


def holds(file: pq.ParquetFile, source: pa.Table, order: np.ndarray | None) -> bool:
    """Whether a file has just the rows of `source`, bit by bit, each in the place that `order` gives it."""
    count = source.num_rows
    wanted = source.schema.remove_metadata()
    if file.metadata.num_rows != count or not file.schema_arrow.remove_metadata().equals(wanted, check_metadata=True):
        return False
    back: np.ndarray | None = None
    if order is not None:
        # where each row of the source has gone to; each to one place, or some would be left out
        back = np.full(count, -1, np.int64)
        back[order] = np.arange(count)
        if len(order) != count or (back < 0).any():
            return False
    for index, column in enumerate(source.itercolumns()):
        stored = file.read([wanted.names[index]]).column(0)
        again = stored if back is None else stored.take(back)
        if not as_bits(again).equals(as_bits(column)):
            return False
    return True
