"""Owns the rewrite of data files: read, sorted, written, read back and compared, and only then committed.

Rows are counted and hashed in the pass that reads them, with what was deleted taken away; the new files are read from
S3 again and must give the same count and sums, or nothing is committed. A little is rewritten and
proven by Arrow in this process instead. The commit is Iceberg's own: it is refused when a file is gone meanwhile, or
rows of one were deleted, so no deleted row comes back; new files and changes of other partitions are no obstacle. A
batch that ingest has staged and not yet published stays as it is.

It goes by the steps of Iceberg's rewrite action, whose parts can be used one by one:
https://iceberg.apache.org/javadoc/1.12.0/org/apache/iceberg/actions/RewriteDataFiles.html
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, reduce
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.sql import Observation

from lake.errors import CommitConflictError, FindingError
from spark_jobs.compact_arrow import ArrowRewriter
from spark_jobs.compact_digest import NOTHING, digest, sums
from spark_jobs.compact_order import TRANSFORM, cut, gathered, partition_term
from spark_jobs.failures import conflict_of
from spark_jobs.history import COMPACTED_THROUGH, REWRITE_ID
from spark_jobs.session import CATALOG

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pyiceberg.io import FileIO
    from pyspark.sql import Column, DataFrame, SparkSession

    from spark_jobs.compact_arrow import Written
    from spark_jobs.compact_digest import Digest
    from spark_jobs.compact_plan import Group, Rules

__all__ = ["Rewriter", "Rewritten", "iceberg_table"]

_SMALL_FILES = f"{CATALOG}_small_files"
_ACCELERATOR = "s3.analytics-accelerator"
_ONE_REQUEST_BYTES = 2**23
_CEILING = 1.8  # of the target size, as Iceberg's own default: a little too much stays one file
_OPEN_BYTES = 2**18  # a small file weighs at least so much when files are dealt out to tasks
_LEAST_SPLIT = 2**22
_ICEBERG = "org.apache.iceberg"


def iceberg_table(spark: SparkSession, name: str, catalog: str = CATALOG) -> Any:
    """Iceberg's own view of a table (`org.apache.iceberg.Table`), by `database.table`."""
    jvm: Any = spark._jvm  # noqa: SLF001 - Iceberg's parts are Java's
    session = spark._jsparkSession  # noqa: SLF001
    # in a thread that has run nothing yet, Spark would look for the catalog in no session's settings
    jvm.org.apache.spark.sql.classic.SparkSession.setActiveSession(session)
    return jvm.org.apache.iceberg.spark.Spark3Util.loadIcebergTable(session, f"{catalog}.{name}")


def _with_small_files(spark: SparkSession) -> str:
    """Name of a catalog of this session that reads a small file with one request, where the usual way takes three.

    Whoever reads but a column of a large file is better off with the usual way, so it is for compaction only. Threads
    and memory are bounded, as each table that is read so has its own.
    """
    found = spark.conf.getAll
    usual = f"spark.sql.catalog.{CATALOG}"
    settings = {key.removeprefix(usual): value for key, value in found.items() if key.startswith(usual)}
    settings |= {
        f".{_ACCELERATOR}.enabled": "true",
        f".{_ACCELERATOR}.physicalio.thread.pool.size": "8",
        f".{_ACCELERATOR}.physicalio.max.memory.limit": str(2**28),
        f".{_ACCELERATOR}.physicalio.small.object.size.threshold": str(_ONE_REQUEST_BYTES),
    }
    for key, value in settings.items():
        spark.conf.set(f"spark.sql.catalog.{_SMALL_FILES}{key}", value)
    return _SMALL_FILES


@dataclass(frozen=True)
class Rewritten:
    """What one rewrite did."""

    groups: tuple[Group, ...]
    files_before: int
    files_after: int
    bytes_before: int
    bytes_after: int
    rows: int
    """Rows that were left, the same before and after."""


class Rewriter:
    """Rewrites groups of one table's files, planned on one snapshot."""

    def __init__(
        self,
        spark: SparkSession,
        name: str,
        snapshot_id: int,
        *,
        io: FileIO,
        rules: Rules,
        sort: Sequence[str],
        zorder: Sequence[str] = (),
        after: Callable[[str], None],
    ) -> None:
        """Load the table.

        Args:
            spark: a session of `create_session`.
            name: `database.table`.
            snapshot_id: the snapshot that the groups were planned on.
            io: what Arrow reads its files by.
            rules: what its compaction aims at.
            sort: columns that its files are sorted by, ascending; none leaves rows as they come.
            zorder: columns that tell the files of one partition apart, in place of the first of `sort`.
            after: called with `stage`, `write`, `prove`, `commit` after each step.
        """
        self._spark = spark
        self._jvm: Any = spark._jvm  # noqa: SLF001 - Iceberg's parts are Java's
        self._name = name
        self._io = io
        self._rules = rules
        self._after = after
        self._snapshot_id = snapshot_id
        self._table: Any = iceberg_table(spark, name)
        # a contract may have grown a column that the table hasn't got yet
        self._sort = self._columns(sort)
        self._zorder = self._columns(zorder)

    def _columns(self, names: Sequence[str]) -> tuple[str, ...]:
        schema = self._table.schema()
        return tuple(one for one in names if schema.findField(one) is not None)

    @cached_property
    def _small_files_table(self) -> Any:
        return iceberg_table(self._spark, self._name, _with_small_files(self._spark))

    @property
    def _iceberg(self) -> Any:
        return self._jvm.org.apache.iceberg

    def rewrite(self, unit: Sequence[Group], *, through: int | None = None) -> Rewritten:
        """Rewrite groups and commit them together; they are of one partition spec.

        Args:
            unit: the groups; several only where each becomes one file.
            through: with this everything up to that sequence number is compacted, which the snapshot is to tell.

        Raises:
            CommitConflictError: a file was rewritten, or rows of it deleted, by somebody else; nothing was changed.
            FindingError: the new files hold other rows than the old; nothing was committed.
        """
        tasks = self._tasks(unit)
        self._after("stage")
        with self._arrow.room(unit):
            files, rows = self._proven(unit, tasks)
        new = list(files)
        sizes = sum(int(one.fileSizeInBytes()) for one in new)
        self._commit(unit, tasks, files, through)
        self._after("commit")
        return Rewritten(
            groups=tuple(unit),
            files_before=sum(len(one.files) for one in unit),
            files_after=len(new),
            bytes_before=sum(one.bytes for one in unit),
            bytes_after=sizes,
            rows=rows,
        )

    @cached_property
    def _arrow(self) -> ArrowRewriter:
        most, order = self._rules.arrow_bytes, self._sort_order_id()
        return ArrowRewriter(self._spark, self._table, self._io, most=most, sort=self._sort, order_id=order)

    def _proven(self, unit: Sequence[Group], tasks: Any) -> tuple[Any, int]:
        """Write the rows anew and prove it; answers the new files as a Java set, and how many rows they have."""
        small = self._arrow.write(unit, tasks)
        if small is None:
            seen, files = self._write(unit, tasks)
        else:
            files = small.files
        try:
            self._after("write")
            rows = self._prove(unit, tasks, seen, files) if small is None else self._prove_small(unit, small)
            self._count(unit, rows)
            self._after("prove")
        except Exception:
            self._arrow.discard(files)
            raise
        return files, rows

    def _tasks(self, unit: Sequence[Group]) -> Any:
        """Iceberg's scan tasks of the groups' files, with the deletes that belong to them, as a Java list."""
        wanted = {one.path for group in unit for one in group.files}
        scan = self._table.newScan().useSnapshot(self._snapshot_id).ignoreResiduals()
        narrow = self._filter(unit)
        planned = (scan.filter(narrow) if narrow is not None else scan).planFiles()
        try:
            lists = getattr(self._jvm, f"{_ICEBERG}.relocated.com.google.common.collect.Lists")
            found = lists.newArrayList(planned)
        finally:
            planned.close()
        whole = sum(len(group.place.files) for group in unit)
        if found.size() == whole == len(wanted) and narrow is not None:
            return found  # all files of these partitions: looking at each from here would take seconds for thousands
        chosen = self._jvm.java.util.ArrayList()
        for one in found:
            if str(one.file().location()) in wanted:
                chosen.add(one)
        if chosen.size() != len(wanted):
            raise FindingError(
                f"table {self._name}: {len(wanted)} files were planned on snapshot {self._snapshot_id}, and Iceberg's "
                f"scan has {chosen.size()} of them"
            )
        return chosen

    def _filter(self, unit: Sequence[Group]) -> Any:
        """What picks the groups' partitions, so that manifests of others aren't opened; None where it can't be said."""
        spec = self._table.specs().get(unit[0].place.spec_id)
        if not spec.isPartitioned() or len(self._table.specs()) != 1:
            return None
        expressions = self._iceberg.expressions.Expressions
        made: list[Any] = []
        for index, one in enumerate(spec.fields()):
            values = {group.place.partition[index] for group in unit}
            if not all(type(value) in {int, str} for value in values):
                return None
            column = self._table.schema().findColumnName(one.sourceId())
            kind = TRANSFORM.fullmatch(str(one.transform()))
            width = [int(kind[2])] if kind and kind[2] else []
            term = getattr(expressions, kind[1])(column, *width) if kind else expressions.ref(column)
            listed = self._jvm.java.util.ArrayList()
            for value in sorted(values):
                listed.add(value)
            # `in` is a word of Python's
            made.append(getattr(expressions, "in")(term, listed))
        return reduce(getattr(expressions, "and"), made)

    @contextmanager
    def _staged(self, tasks: Any, *, small: bool = False) -> Iterator[str]:
        """Tasks under a name that Spark can read them by, and that takes the files written to it."""
        name = str(uuid4())
        cache = self._iceberg.spark.SparkTableCache.get()
        sets = self._iceberg.spark.ScanTaskSetManager.get()
        coordinator = self._iceberg.spark.FileRewriteCoordinator.get()
        cache.add(name, self._small_files_table if small else self._table)
        sets.stageTasks(self._table, name, tasks)
        try:
            yield name
        finally:
            cache.remove(name)
            sets.removeTasks(self._table, name)
            coordinator.clearRewrite(self._table, name)

    def _read(self, staged: str, size: int, files: int) -> DataFrame:
        """Rows of what is staged, in as many tasks as keep the cores busy."""
        at_once = max(2, self._spark.sparkContext.defaultParallelism)
        split = max((size + files * _OPEN_BYTES) // (2 * at_once), _LEAST_SPLIT)
        reader = self._spark.read.format("iceberg").option("split-size", split)
        return reader.option("file-open-cost", _OPEN_BYTES).load(staged)

    def _write(self, unit: Sequence[Group], tasks: Any) -> tuple[Digest, Any]:
        """Write the rows anew; answers what was read, and the new files as a Java set."""
        size, count = sum(one.bytes for one in unit), sum(len(one.files) for one in unit)
        with self._staged(tasks, small=size <= count * _ONE_REQUEST_BYTES) as name:
            rows = self._read(name, size, count)
            seen = Observation(f"read-{name}")
            arranged = self._arranged(rows, rows.observe(seen, *sums(rows)), unit)
            writer = arranged.write.format("iceberg").option("use-table-distribution-and-ordering", "false")
            writer = writer.option("target-file-size-bytes", int(self._rules.target_bytes * _CEILING))
            writer = writer.option("output-spec-id", unit[0].place.spec_id)
            order = None if self._zorder and unit[0].outputs > 1 else self._sort_order_id()
            if order is not None:
                writer = writer.option("output-sort-order-id", order)
            writer.mode("append").save(name)
            files = self._iceberg.spark.FileRewriteCoordinator.get().fetchNewFiles(self._table, name)
        # Spark leaves out what would observe, where nothing is to be written
        return self._digest_of(tasks) if files.isEmpty() else digest(seen.get), files

    def _arranged(self, source: DataFrame, rows: DataFrame, unit: Sequence[Group]) -> DataFrame:
        """Rows dealt out to the tasks that write them and sorted as the files are to be; `source` may be sampled."""
        if len(unit) == 1:
            return cut(rows, source, unit[0], self._sort, self._zorder)
        at_once = max(2, self._spark.sparkContext.defaultParallelism)
        terms = self._partition_terms(unit[0].place.spec_id)
        return gathered(rows, terms, self._sort, min(len(unit), 2 * at_once))

    def _partition_terms(self, spec_id: int) -> list[Column]:
        schema = self._table.schema()
        return [
            partition_term(str(one.transform()), str(schema.findColumnName(one.sourceId())))
            for one in self._table.specs().get(spec_id).fields()
        ]

    def _sort_order_id(self) -> int | None:
        """Id of the table's sort order, where the files are sorted by it."""
        order = self._table.sortOrder()
        names = [str(self._table.schema().findColumnName(one.sourceId())) for one in order.fields()]
        plain = all(str(one.transform()) == "identity" for one in order.fields())
        ascending = all(str(one.direction()).casefold() == "asc" for one in order.fields())
        return int(order.orderId()) if names and plain and ascending and names == list(self._sort) else None

    def _prove(self, unit: Sequence[Group], tasks: Any, seen: Digest, files: Any) -> int:
        """Read the new files and compare; answers how many rows they have."""
        wrote = self._digest_of(self._tasks_of(files))
        if wrote != seen:
            # Spark may count a task twice that it had to repeat: both sides are read once more before it is believed
            again = self._digest_of(tasks)
            if again != wrote or wrote != self._digest_of(self._tasks_of(files)):
                raise self._other(unit, again.rows, wrote.rows)
        return wrote.rows

    def _prove_small(self, unit: Sequence[Group], small: Written) -> int:
        same, rows = self._arrow.is_proven(small)
        if not same:
            raise self._other(unit, small.rows, rows)
        return rows

    def _other(self, unit: Sequence[Group], read: int, wrote: int) -> FindingError:
        return FindingError(
            f"table {_named(unit)}: {read} rows went in and {wrote} came out, or with other content; nothing was "
            f"committed, and snapshot {self._snapshot_id} has them all"
        )

    def _count(self, unit: Sequence[Group], rows: int) -> None:
        """Compare with what the metadata tells."""
        told = sum(one.rows for one in unit)
        if rows != told and not any(one.has_deletes for one in unit):
            raise FindingError(
                f"table {_named(unit)}: {rows} rows were read, and its metadata tells of {told}; nothing was committed"
            )

    def _digest_of(self, tasks: Any) -> Digest:
        if tasks.isEmpty():
            return NOTHING
        size = sum(int(one.sizeBytes()) for one in tasks)
        with self._staged(tasks) as name:
            rows = self._read(name, size, tasks.size())
            found = rows.agg(*sums(rows)).collect()[0]
        return digest(found.asDict())

    def _tasks_of(self, files: Any) -> Any:
        """Scan tasks of files that no snapshot has yet."""
        core = self._iceberg
        schema = core.SchemaParser.toJson(self._table.schema())
        everything = core.expressions.ResidualEvaluator.unpartitioned(core.expressions.Expressions.alwaysTrue())
        none = self._spark.sparkContext._gateway.new_array(core.DeleteFile, 0)  # type: ignore[union-attr] # noqa: SLF001
        tasks = self._jvm.java.util.ArrayList()
        for one in files:
            spec = core.PartitionSpecParser.toJson(self._table.specs().get(one.specId()))
            tasks.add(core.BaseFileScanTask(one, none, schema, spec, everything))
        return tasks

    def _commit(self, unit: Sequence[Group], tasks: Any, files: Any, through: int | None) -> None:
        name = str(uuid4())
        core = self._iceberg
        old = core.actions.RewriteFileGroup(None, tasks, unit[0].place.spec_id, 1, 1, 1).rewrittenFiles()
        planned = self._table.snapshot(self._snapshot_id)
        change = self._table.newRewrite().validateFromSnapshot(self._snapshot_id)
        # what is deleted meanwhile by value applies to the new files as it did to the old
        change.rewriteFiles(old, files, planned.sequenceNumber())
        if any(one.has_deletes for one in unit):
            self._drop_deletes(change, unit, tasks)
        change.set(REWRITE_ID, name)
        if through is not None:
            change.set(COMPACTED_THROUGH, f"{through}/{self._rules.target_bytes}")
        try:
            change.commit()
        except Py4JJavaError as error:
            if self._is_committed(name):
                return
            conflict = conflict_of(error)
            if conflict is not None and conflict.is_unknown:
                # the files stay: should the commit arrive yet, it needs them; if not, maintenance finds them
                raise CommitConflictError(
                    f"table {_named(unit)}: whether its rewrite was committed isn't known"
                ) from error
            self._arrow.discard(files)
            # a file of the table's own is gone only where others have replaced it
            is_gone = str(error.java_exception.getClass().getName()).endswith(".NotFoundException")
            if conflict is not None or is_gone:
                said = str(error.java_exception.getMessage()).partition("\n")[0][:300]
                raise CommitConflictError(
                    f"table {_named(unit)}: somebody changed it meanwhile, so it stays as they left it ({said})"
                ) from error
            raise

    def _drop_deletes(self, change: Any, unit: Sequence[Group], tasks: Any) -> None:
        """Let go, in the same commit, of deletes by position that name rewritten files and no others.

        One that names several files of a partition goes only with all that the partition had: what came since can't be
        named by it.
        """
        scoped = self._iceberg.util.ContentFileUtil.isFileScoped
        whole = {one.path for group in unit if len(group.files) == len(group.place.files) for one in group.place.files}
        paths: set[str] = set()
        for task in tasks:
            is_whole = str(task.file().location()) in whole
            for one in task.deletes():
                is_done = scoped(one) or (is_whole and str(one.content()) == "POSITION_DELETES")
                if is_done and (path := str(one.location())) not in paths:
                    paths.add(path)
                    change.deleteFile(one)

    def _is_committed(self, rewrite: str) -> bool:
        self._table.refresh()
        return any(one.summary().get(REWRITE_ID) == rewrite for one in self._table.snapshots())


def _named(unit: Sequence[Group]) -> str:
    names = [one.name for one in unit]
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more partitions"
