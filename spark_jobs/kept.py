"""Owns a batch's judged records for as long as Spark keeps them: their counts, the rows, and the refused."""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyspark import StorageLevel
from pyspark.sql import functions as F  # noqa: N812 - as Spark's users know it

from lake.envelope import day_text
from lake.ranges import Ranges
from spark_jobs.counting import fingerprints, merge_counts, merge_runs
from spark_jobs.objects import read_objects
from spark_jobs.sheets import POSITION, REFUSED_COLUMNS, SHEET, Press, row_columns, unpack, unpack_rows
from spark_jobs.tally import MADE_DAY, Tally, seen_spans
from spark_jobs.values import spark_type

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    import numpy.typing as npt
    from pyspark import Broadcast
    from pyspark.sql import DataFrame, SparkSession

    from lake.clients import Cloud
    from lake.contract import Field
    from lake.lines import Piece
    from spark_jobs.lanes import Rules
    from spark_jobs.objects import StoredObject

__all__ = ["Kept", "kept_records"]

_MOST_RUNS = 200_000  # that the driver joins itself; of more, Spark does
_MOST_PRINTS = 4_000_000  # that the driver looks through: 32 MB; of a larger batch every row is compared by Spark
_SHEET_BYTES = 16 * 2**20  # of sheets that go to Python together
_NONE = np.array([], np.uint64)


class Kept:
    """A batch's records, judged once."""

    def __init__(self, sheets: DataFrame, fields: tuple[Field, ...]) -> None:
        self._sheets = sheets
        self._columns = row_columns(fields)
        self._shared: list[Broadcast[npt.NDArray[np.uint64]]] = []
        # by default a whole task's sheets would be one batch
        sheets.sparkSession.conf.set("spark.sql.execution.arrow.maxBytesPerBatch", str(_SHEET_BYTES))

    def close(self) -> None:
        """Let go of them: what was taken from here can't be asked any more."""
        for one in self._shared:
            one.destroy()
        self._sheets.unpersist()

    def tally(self) -> Tally:
        """Count them; judges them, if that hasn't been done."""
        found = merge_counts(bytes(row["sums"]) for row in self._sheets.select("sums").collect())
        return Tally(
            objects=found["objects"],
            good=_by_day(found["good"]),
            bad=_by_day(found["bad"]),
            unidentified=_by_day(found["unidentified"]),
            seen=self._seen(found["runs"]),
            ends=tuple(found["ends"]),
            days=len(found["happened"]),
        )

    def _seen(self, runs: int) -> dict[tuple[str, str, str], Ranges]:
        if runs > _MOST_RUNS:
            return seen_spans(self._identified())
        spans: dict[tuple[str, str, str], list[tuple[int, int]]] = {}
        given = self._sheets.select("runs").collect() if runs else []
        for (tenant, producer, day), found in merge_runs(bytes(row["runs"]) for row in given).items():
            spans.setdefault((tenant, producer, day_text(day)), []).extend(found)
        return {key: Ranges.of(found) for key, found in sorted(spans.items())}

    def _identified(self) -> DataFrame:
        columns = ("event_id", "tenant", "producer_id", "sequence")
        return self._all().select(*columns).union(self.refused().select(*columns)).withColumn("day", F.expr(MADE_DAY))

    def refused(self) -> DataFrame:
        """The refused: columns `REFUSED_COLUMNS`."""
        schema = ", ".join(f"{one.name} {spark_type(one.type)}" for one in REFUSED_COLUMNS)
        return self._sheets.select("refused").where("refused IS NOT NULL").mapInArrow(unpack, schema)

    def _row_schema(self) -> str:
        return ", ".join(f"`{one.name}` {spark_type(one.type)}" for one in self._columns)

    def _all(self) -> DataFrame:
        return self._sheets.select("rows").mapInArrow(unpack, self._row_schema())

    def rows(self, counted: Tally, there: DataFrame | None) -> DataFrame:
        """Of each event the first record, unless the table has it: the event's columns, `_object` and `POSITION`.

        Most batches hold nothing twice. What can't be there twice, by the fingerprints of its ids, goes straight
        through; only the rest is compared.

        Args:
            counted: the tally.
            there: `event_id` of the table's rows among which duplicates can lie; None where there are none.
        """
        if sum(counted.good.values()) > _MOST_PRINTS:
            return _first(self._all(), there)
        prints = np.sort(_joined(row["prints"] for row in self._sheets.select("prints").collect()))
        twice = np.unique(prints[1:][prints[1:] == prints[:-1]])
        known = _NONE if there is None else _known(there, prints)
        suspects = np.union1d(twice, known)
        if not suspects.size:
            return self._all()
        shared = self._sheets.sparkSession.sparkContext.broadcast(suspects)
        self._shared.append(shared)

        def clear(sheets: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            return unpack_rows(sheets, shared.value, suspected=False)

        def suspected(sheets: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
            return unpack_rows(sheets, shared.value, suspected=True)

        given, schema = self._sheets.select("rows", "prints"), self._row_schema()
        doubtful = _first(given.mapInArrow(suspected, schema), there if known.size else None)
        return given.mapInArrow(clear, schema).union(doubtful)


def _by_day(counts: Mapping[tuple[str, int], int]) -> dict[tuple[str, str], int]:
    found: Counter[tuple[str, str]] = Counter()
    for (tenant, day), count in counts.items():
        found[tenant, day_text(day)] += count
    return dict(found)


def _joined(prints: Iterable[bytes]) -> npt.NDArray[np.uint64]:
    return np.concatenate([_NONE, *(np.frombuffer(one, np.uint64) for one in prints)])


def _known(there: DataFrame, prints: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Which of a batch's fingerprints (sorted) the table has too."""
    shared = there.sparkSession.sparkContext.broadcast(prints)

    def among(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            found = np.intersect1d(fingerprints(batch.column(0)), shared.value)
            if found.size:
                yield pa.record_batch([pa.array([found.tobytes()], pa.binary())], names=["prints"])

    try:
        return np.unique(_joined(row["prints"] for row in there.mapInArrow(among, "prints binary").collect()))
    finally:
        shared.destroy()


def _first(rows: DataFrame, there: DataFrame | None) -> DataFrame:
    """Of each event the first row, unless its id is among others."""
    place = f"row_number() OVER (PARTITION BY event_id ORDER BY _object, `{POSITION}`)"
    first = rows.withColumn("$place", F.expr(place)).where("`$place` = 1").drop("$place")
    return first if there is None else first.join(there, "event_id", "left_anti").select(*rows.columns)


@contextmanager
def kept_records(spark: SparkSession, objects: Sequence[StoredObject], cloud: Cloud, rules: Rules) -> Iterator[Kept]:
    """A batch's records, judged by a lane's rules and kept until the end: they are counted, looked through and written.

    Args:
        spark: a session of the caller's own.
        objects: the batch's.
        cloud: where they are.
        rules: the lane's.
    """

    def render(pieces: Iterator[Piece]) -> Iterator[pa.RecordBatch]:
        return Press(rules).sheets(pieces)

    sheets = read_objects(spark, objects, cloud, render, SHEET).persist(StorageLevel.MEMORY_AND_DISK)
    kept = Kept(sheets, rules.fields)
    try:
        yield kept
    finally:
        kept.close()
