"""Owns taking a subject out of an Iceberg table so that no file, version or snapshot holds it any more.

What holds it is told by the files themselves, not by a query: a row that a delete file hides, and a file that no
snapshot knows, hold it just as well. The current snapshot's files are written anew without the subject's rows, in one
commit that says how many those were; then the manifests lose the bounds of the old files, the snapshots that know them
are expired, and what lies about is deleted.

Expiry must not lose which batch was the last of each series: ingest reads it in the history. A batch whose snapshot
goes is therefore said again, by an empty snapshot with its id, so that Iceberg goes on refusing to publish it twice.
"""

from __future__ import annotations

import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from py4j.protocol import Py4JJavaError  # type: ignore[import-untyped]
from pyspark.sql import functions as F  # noqa: N812 - as Spark's users know it

from lake.contract import ListOf, Primitive, StructOf
from lake.envelope import day_text
from lake.erasure import typed_value
from lake.errors import CommitConflictError, FindingError
from lake.manifest import NO_TENANT
from lake.names import bucket_and_key
from lake.tables import existing_table
from spark_jobs.erase_files import Form, delete_object, is_refused, list_objects, search
from spark_jobs.failures import conflict_of
from spark_jobs.history import PUBLISHED, Taken, ancestors, batch_of, erasure_summary, erasures_of
from spark_jobs.session import CATALOG, literal
from spark_jobs.snapshots import remember
from spark_jobs.tally import MADE_DAY
from spark_jobs.values import spark_type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pyiceberg.catalog.glue import GlueCatalog
    from pyiceberg.table import Table
    from pyspark.sql import Column, DataFrame, SparkSession

    from lake.clients import Cloud
    from lake.contract import Contract, FieldType
    from lake.erasure import Key
    from spark_jobs.erase_files import Held
    from spark_jobs.erase_match import Matcher

__all__ = ["Target", "erase_files_of", "forget", "held_files", "remaining_in", "taken_out"]

_ATTEMPTS = 5
_MAIN = "main"


@dataclass(frozen=True)
class Target:
    """A table that may hold the subject."""

    database: str
    table: str
    form: Form
    """`ROWS` or `REFUSED_ROWS`."""
    matchers: Mapping[str, Matcher]
    """By dataset for a quarantine table; of a dataset's own table the one named ""."""
    contract: Contract | None = None
    """Of a dataset's own table."""

    @property
    def name(self) -> str:
        """`database.table`."""
        return f"{self.database}.{self.table}"


def _load(catalog: GlueCatalog, target: Target) -> Table:
    return existing_table(catalog, (target.database, target.table))


def held_files(spark: SparkSession, cloud: Cloud, catalog: GlueCatalog, target: Target) -> list[Held]:
    """Files below a table's root that hold the subject, known to a snapshot or not, older versions included."""
    listed = [
        one
        for bucket, prefix in _roots(_load(catalog, target))
        for one in list_objects(cloud.s3, bucket, prefix)
        if not one.key.startswith(f"{prefix}metadata/") and not one.key.endswith("/")
    ]
    return search(spark, cloud, listed, target.form, dict(target.matchers))


def _roots(table: Table) -> list[tuple[str, str]]:
    """Buckets and prefixes that a table's files lie below."""
    roots = [table.location(), *filter(None, [table.properties.get("write.data.path")])]
    parts = (bucket_and_key(one.rstrip("/")) for one in dict.fromkeys(roots))
    return [(bucket, f"{prefix}/") for bucket, prefix in parts]


def erase_files_of(
    spark: SparkSession,
    catalog: GlueCatalog,
    target: Target,
    held: Sequence[Held],
    *,
    erasure_id: str,
    noted: Taken,
) -> Taken:
    """Write those of the held files that the current snapshot has anew, without the subject's rows.

    Args:
        spark: the session.
        catalog: the table's.
        target: the table.
        held: files that hold the subject.
        erasure_id: goes into the snapshot's summary, with the sum of the rows.
        noted: what the erasure has taken out of the table so far, by its receipt; the history may know of more.

    Returns:
        what is taken out with these: rows that a query would have shown.

    Raises:
        FindingError: the new files don't hold just the rows that were to stay.
        CommitConflictError: other writers changed the files, again and again.
    """
    addresses = {one.stored.address for one in held if one.stored.is_newest}
    for _ in range(_ATTEMPTS):
        # looked up each time: where a commit's reply is lost, Iceberg may try it again on top of itself and tell a
        # conflict, and nothing is left to be taken out then
        before = taken_out(catalog, target, erasure_id, noted)
        java = _java_table(spark, target)
        snapshot = java.currentSnapshot()
        if snapshot is None:
            return before
        tasks = [task for task in _tasks(java, snapshot) if task.file().location() in addresses]
        if not tasks:
            return before
        try:
            return _overwrite(spark, java, tasks, target, erasure_id=erasure_id, before=before)
        except Py4JJavaError as error:
            # compaction took a file away, or somebody deleted rows of one: planned again
            conflict = conflict_of(error)
            if conflict is None or conflict.is_unknown:
                raise
    raise CommitConflictError(f"table {target.name}: other writers were faster {_ATTEMPTS} times; try again")


def _java_table(spark: SparkSession, target: Target) -> Any:
    jvm: Any = spark._jvm  # noqa: SLF001 - Iceberg's own classes are reached no other way
    return jvm.org.apache.iceberg.spark.Spark3Util.loadIcebergTable(
        spark._jsparkSession,  # noqa: SLF001 - likewise
        f"{CATALOG}.{target.name}",
    )


def _tasks(java: Any, snapshot: Any) -> Iterator[Any]:
    tasks = java.newScan().useSnapshot(snapshot.snapshotId()).planFiles()
    try:
        found = tasks.iterator()
        while found.hasNext():
            yield found.next()
    finally:
        tasks.close()


def _overwrite(
    spark: SparkSession, java: Any, tasks: list[Any], target: Target, *, erasure_id: str, before: Taken
) -> Taken:
    with _staged(spark, java, tasks) as group:
        rows = spark.read.format("iceberg").option("file-open-cost", "0").load(group)
        subjects = F.coalesce(_condition(target, rows), F.lit(False))
        counted = rows.agg(F.count("*").alias("rows"), F.count(F.when(subjects, 1)).alias("subjects")).first()
        there, gone = (int(counted["rows"]), int(counted["subjects"])) if counted else (0, 0)
        new: list[Any] = []
        if there > gone:
            writer = rows.where(~subjects).write.format("iceberg").mode("append")
            # as they lie: nothing but the rows that go is to change
            writer.option("distribution-mode", "none").option("fanout-enabled", "true").save(group)
            new = list(_coordinator(spark).fetchNewFiles(java, group))
        kept = sum(int(one.recordCount()) for one in new)
        if kept != there - gone:
            for one in new:
                java.io().deleteFile(one.location())
            raise FindingError(f"table {target.name}: {there - gone} rows are to stay, and {kept} were written")
        change = java.newOverwrite().validateFromSnapshot(java.currentSnapshot().snapshotId())
        change.validateNoConflictingDeletes()
        for task in tasks:
            change.deleteFile(task.file())
        for one in new:
            change.addFile(one)
        taken = before + Taken(gone, _by_batch(rows.where(subjects)) if gone else {})
        for name, told in erasure_summary(erasure_id, taken).items():
            change.set(name, told)
        change.commit()
    return taken


def _by_batch(rows: DataFrame) -> dict[str, dict[str, dict[str, int]]]:
    found: dict[str, dict[str, dict[str, int]]] = {}
    named = rows.selectExpr("CAST(_batch AS string) AS batch", "tenant", f"{MADE_DAY} AS day")
    for row in named.groupBy("batch", "tenant", "day").count().collect():
        tenant, day = row["tenant"] or NO_TENANT, day_text(row["day"])
        into = found.setdefault(row["batch"] or "", {}).setdefault(tenant, {})
        into[day] = into.get(day, 0) + row["count"]
    return found


def _coordinator(spark: SparkSession) -> Any:
    jvm: Any = spark._jvm  # noqa: SLF001 - as above
    return jvm.org.apache.iceberg.spark.FileRewriteCoordinator.get()


@contextmanager
def _staged(spark: SparkSession, java: Any, tasks: list[Any]) -> Iterator[str]:
    """Files as a table of their own, under a name that Spark reads and writes them by; deletes are applied."""
    iceberg: Any = spark._jvm.org.apache.iceberg.spark  # type: ignore[union-attr] # noqa: SLF001 - as above
    cache, sets = iceberg.SparkTableCache.get(), iceberg.ScanTaskSetManager.get()
    group = str(uuid.uuid4())
    listed: Any = spark._jvm.java.util.ArrayList()  # type: ignore[union-attr] # noqa: SLF001 - as above
    for task in tasks:
        listed.add(task)
    cache.add(group, java)
    sets.stageTasks(java, group, listed)
    try:
        yield group
    finally:
        cache.remove(group)
        sets.removeTasks(java, group)
        _coordinator(spark).clearRewrite(java, group)


def _condition(target: Target, rows: DataFrame) -> Column:
    matchers = dict(target.matchers)
    if target.form is Form.REFUSED_ROWS:
        refused = F.udf(lambda *row: is_refused(matchers, *row), "boolean")
        return refused("dataset", "tenant", "stage", "payload")
    matcher = matchers[""]
    rescued = F.udf(lambda text: matcher.is_in_rescued(text), "boolean")  # noqa: PLW0108 - Spark reads hints of others
    found = rescued("_rescued")
    for key in matcher.keys:
        if target.contract is not None and key.steps[0] in rows.columns:
            found |= F.coalesce(F.expr(_key_condition(target.contract, key)), F.lit(False))
    return found


def _key_condition(contract: Contract, key: Key) -> str:
    first = next(one for one in contract.fields if one.name == key.steps[0])
    return _value_condition(f"`{first.name}`", first.type, key, key.steps[1:])


def _value_condition(column: str, kind: FieldType, key: Key, steps: tuple[str, ...]) -> str:
    if isinstance(kind, ListOf):
        name = f"x{len(column)}"
        return f"exists({column}, {name} -> {_value_condition(name, kind.element, key, steps)})"
    if isinstance(kind, StructOf):
        inner = next(one for one in kind.fields if one.name == steps[0])
        return _value_condition(f"{column}.`{inner.name}`", inner.type, key, steps[1:])
    typed_value(kind, key.text, key.path)
    return f"{column} = {_cast(kind, key.text)}"


def _cast(kind: Primitive, text: str) -> str:
    return literal(text) if kind.name == "string" else f"CAST({literal(text)} AS {spark_type(kind)})"


def taken_out(catalog: GlueCatalog, target: Target, erasure_id: str, noted: Taken) -> Taken:
    """What an erasure has taken out of a table: as noted, or more, as the table tells of a run that was broken off."""
    told = erasures_of(_load(catalog, target)).get(erasure_id, Taken())
    return max(noted, told, key=lambda one: one.rows)


def forget(
    spark: SparkSession,
    cloud: Cloud,
    catalog: GlueCatalog,
    target: Target,
    held: Sequence[Held],
    *,
    named: set[str],
    quiet: Callable[[], bool],
    after: Callable[[str], None],
    say: Callable[[str], None],
) -> int:
    """Make a table's history forget files, and delete those that are left.

    Args:
        spark: the session.
        cloud: where the table is.
        catalog: its catalog.
        target: the table.
        held: files that hold the subject; the current snapshot has none of them any more.
        named: files that held it, as far as they are known; some may be gone.
        quiet: tells that no batch is under way: only then is a file that no snapshot knows nobody's.
        after: called with `manifests`, `said again`, `expired`, `deleted` after each step.
        say: takes a line about what a person should know.

    Returns:
        files and versions of files that are gone.
    """
    addresses = {*named, *(one.stored.address for one in held)}
    table = _load(catalog, target)
    current = table.current_snapshot()
    if current is not None:
        _clean_manifests(spark, target)
        after("manifests")
        table = _load(catalog, target)
        # on top of clean manifests, so that what is said again doesn't go as well
        _say_again(spark, table, target, _knowing(table, addresses))
        after("said again")
        table = _load(catalog, target)
        going = _knowing(table, addresses)
        remember(catalog, (target.database, target.table), going)
        _expire(spark, table, target, going, say)
        after("expired")
        table = _load(catalog, target)
        live = _live_files(table)
    else:
        live = set()
    nobodys = [one.stored for one in held if one.stored.address not in live or not one.stored.is_newest]
    if nobodys and quiet():
        for stored in nobodys:
            delete_object(cloud.s3, stored)
    after("deleted")
    there = {one.uri for root in _roots(table) for one in list_objects(cloud.s3, *root)}
    return len({one.stored.uri for one in held} - there)


def _knowing(table: Table, addresses: set[str]) -> set[int]:
    """Snapshots whose manifests name any of the files, as theirs or as one that they took out."""
    named: dict[str, bool] = {}
    found: set[int] = set()
    for snapshot in table.metadata.snapshots:
        for manifest in snapshot.manifests(table.io):
            path = manifest.manifest_path
            if path not in named:
                entries = manifest.fetch_manifest_entry(table.io, discard_deleted=False)
                named[path] = any(entry.data_file.file_path in addresses for entry in entries)
            if named[path]:
                found.add(snapshot.snapshot_id)
    return found


def _live_files(table: Table) -> set[str]:
    return {
        entry.data_file.file_path
        for snapshot in table.metadata.snapshots
        for manifest in snapshot.manifests(table.io)
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=True)
    }


def _say_again(spark: SparkSession, table: Table, target: Target, going: set[int]) -> None:
    newest: dict[str, tuple[int, bool]] = {}
    for snapshot in ancestors(table):
        series, _, number = batch_of(snapshot).rpartition("/")
        if series and series not in newest:
            newest[series] = (int(number), snapshot.snapshot_id in going)
    lost = [f"{series}/{number}" for series, (number, goes) in sorted(newest.items()) if goes]
    if lost:
        java = _java_table(spark, target)
        for batch in lost:
            java.newFastAppend().set(PUBLISHED, batch).commit()
            java.refresh()


def _clean_manifests(spark: SparkSession, target: Target) -> None:
    """Write manifests anew that name files taken out: with a file's name they keep the bounds of its columns."""
    java = _java_table(spark, target)
    jvm: Any = spark._jvm  # noqa: SLF001 - Iceberg's own classes are reached no other way
    dirty = jvm.java.util.ArrayList()
    for manifest in java.currentSnapshot().dataManifests(java.io()):
        if manifest.hasDeletedFiles():
            dirty.add(manifest)
    if dirty.isEmpty():
        return
    among = getattr(jvm.org.apache.iceberg.relocated.com.google.common.base.Predicates, "in")(dirty)
    java.rewriteManifests().clusterBy(_same_for_all(spark)).rewriteIf(among).commit()


def _same_for_all(spark: SparkSession) -> Any:
    """A `java.util.function.Function` that answers the same for any file: all go into one manifest."""
    gateway: Any = spark.sparkContext._gateway  # noqa: SLF001 - a function of Java, without a server for callbacks
    jvm = gateway.jvm
    any_type = jvm.java.lang.Class.forName("java.lang.Object")
    arguments = gateway.new_array(jvm.java.lang.Class, 1)
    arguments[0] = any_type
    handles = jvm.java.lang.invoke.MethodHandles
    constant = handles.dropArguments(handles.constant(any_type, "all"), 0, arguments)
    function = jvm.java.lang.Class.forName("java.util.function.Function")
    return jvm.java.lang.invoke.MethodHandleProxies.asInterfaceInstance(function, constant)


def _expire(spark: SparkSession, table: Table, target: Target, going: set[int], say: Callable[[str], None]) -> None:
    current = table.current_snapshot()
    going = going - ({current.snapshot_id} if current else set())
    if not going:
        return
    for name, ref in table.metadata.refs.items():
        if name != _MAIN and ref.snapshot_id in going:
            kind = ref.snapshot_ref_type.upper()
            spark.sql(f"ALTER TABLE {CATALOG}.{target.name} DROP {kind} `{name}`")
            say(f"table {target.name}: {kind.lower()} {name} held the subject, and is dropped")
    ids = ", ".join(f"{one}L" for one in sorted(going))
    named = f"table => {literal(f'{CATALOG}.{target.name}')}, snapshot_ids => array({ids})"
    # without a moment, Iceberg would expire by age as well; that is not this job's business
    named += ", older_than => TIMESTAMP '1970-01-02 00:00:00'"
    spark.sql(f"CALL {CATALOG}.system.expire_snapshots({named})").collect()


def remaining_in(catalog: GlueCatalog, target: Target, removed: set[str]) -> int:
    """Snapshots of a table that still name files which held the subject."""
    return len(_knowing(_load(catalog, target), removed))
