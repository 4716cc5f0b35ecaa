"""Owns how rows are dealt out to the files that compaction writes, and in which order they lie in them.

A partition that becomes one file is sorted by the contract's keys. One that becomes several is cut into stretches of
the first key, so that a query for a stretch opens few of them; or, where the contract asks for z-order, into stretches
of several keys' interleaved ranks, so that a query for any of them does. A key's rank is its place among quantiles of a
sample, so a skewed key, or one whose values begin alike, weighs as much as the others.

Z-order: https://dl.acm.org/doi/10.1145/588111.588137 (Orenstein and Merrett, 1984)
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F  # noqa: N812 - as Spark's users know it

from spark_jobs.compact_plan import slot_bounds
from spark_jobs.session import CATALOG

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pyspark.sql import Column, DataFrame

    from spark_jobs.compact_plan import Group

__all__ = ["TRANSFORM", "cut", "gathered", "interleaved", "partition_term", "quantiles"]

TRANSFORM = re.compile(r"(year|month|day|hour|bucket|truncate)(?:\[(\d+)\])?")
"""A partition transform that isn't the column itself, as Iceberg writes it."""
_SAMPLE = 20_000
_RANK_BITS = 6  # of a key; finer would tell more stretches apart than a partition has files
_Z = "_lakehose_z"


def gathered(rows: DataFrame, terms: Sequence[Column], keys: Sequence[str], tasks: int) -> DataFrame:
    """Rows of several partitions, each of which becomes one file, dealt out by partition and sorted.

    Args:
        rows: the rows.
        terms: what partitions them.
        keys: columns that a file is sorted by.
        tasks: that write them.
    """
    return rows.repartition(tasks, *terms).sortWithinPartitions(*terms, *(F.col(one) for one in keys))


def cut(rows: DataFrame, source: DataFrame, group: Group, keys: Sequence[str], zorder: Sequence[str]) -> DataFrame:
    """Rows of one partition, dealt out to as many files as it is to have, and sorted.

    The shuffle lets many tasks read what one writes. It is none that samples its input first: rows would be read
    twice, and counted twice.

    Args:
        rows: the rows.
        source: the same, as what may be sampled.
        group: the partition.
        keys: columns that its files are sorted by; none leaves rows as they come.
        zorder: columns by which its files are told apart, in place of the first key; none is none.
    """
    if group.outputs > 1 and zorder:
        return _z_ordered(rows, source, group, keys, zorder)
    if not keys:
        return rows.repartition(group.outputs)
    slot, count = _slots(group, source, keys[0])
    return rows.repartitionById(count, slot).sortWithinPartitions(*(F.col(one) for one in keys))


def partition_term(transform: str, column: str) -> Column:
    """A partition's term as an expression of Spark's."""
    kind = TRANSFORM.fullmatch(transform)
    if kind is None:
        return F.expr(f"`{column}`")
    if kind[2]:
        return F.expr(f"{CATALOG}.system.{kind[1]}({kind[2]}, `{column}`)")
    return F.expr(f"{CATALOG}.system.{kind[1]}s(`{column}`)")


def _slots(group: Group, source: DataFrame, name: str) -> tuple[Column, int]:
    """The output that a row goes to, by stretches of the first sort key, and how many there are."""
    if group.outputs == 1:
        return F.lit(0), 1
    key = F.col(name)
    bounds: Sequence[Any] | None = slot_bounds(group)
    if bounds is None:
        bounds = quantiles(_sampled(source, [name], group)[0], group.outputs)
    else:
        # as numbers, which times and dates are in the metadata
        match source.schema[name].dataType.typeName():
            case "timestamp":
                key = F.unix_micros(key)
            case "timestamp_ntz":
                key = F.unix_micros(key.cast("timestamp"))
            case "date":
                key = F.unix_date(key)
    return _rank(key, bounds), len(bounds) + 1


def _z_ordered(
    rows: DataFrame, source: DataFrame, group: Group, keys: Sequence[str], zorder: Sequence[str]
) -> DataFrame:
    values = _sampled(source, zorder, group)
    bounds = [quantiles(one, 1 << _RANK_BITS) for one in values]
    ranks = {
        f"{_Z}{index}": _rank(F.col(name), ends) * F.lit(_width(len(ends)))
        for index, (name, ends) in enumerate(zip(zorder, bounds, strict=True))
    }
    # a column each, as every bit asks for them
    placed = rows.withColumns(ranks).withColumn(_Z, _interleaved_column([F.col(one) for one in ranks]))
    known = [
        interleaved([bisect_right(ends, one) * _width(len(ends)) for one, ends in zip(row, bounds, strict=True)])
        for row in zip(*values, strict=True)
        if None not in row
    ]
    edges = quantiles(known, group.outputs)
    dealt = placed.repartitionById(len(edges) + 1, _rank(F.col(_Z), edges))
    return dealt.sortWithinPartitions(F.col(_Z), *(F.col(one) for one in keys)).drop(_Z, *ranks)


def _sampled(source: DataFrame, names: Sequence[str], group: Group) -> list[list[Any]]:
    """Values of columns in some of a group's rows, by column."""
    part = min(1.0, _SAMPLE / max(group.rows, 1))
    found = source.select(*names).sample(part, seed=1).collect()
    return [[row[index] for row in found] for index in range(len(names))]


def quantiles(values: Sequence[Any], parts: int) -> list[Any]:
    """Values at which so many even parts begin, but the first; fewer where a value is that frequent.

    >>> quantiles([5, 1, None, 4, 2, 3, 6], 3)
    [3, 5]
    >>> quantiles(["a", "a", "a", "b"], 2)
    []
    """
    # a number that isn't equal to itself is in no order
    found = sorted(one for one in values if one is not None and one == one)  # noqa: PLR0124
    if not found:
        return []
    bounds = {found[len(found) * number // parts] for number in range(1, parts)}
    return sorted(bounds - {found[0]})


def _rank(key: Column, bounds: Sequence[Any]) -> Column:
    """How many bounds a key has reached; 0 where it is null."""

    def between(first: int, last: int) -> Column:
        if first == last:
            return F.lit(first)
        middle = (first + last) // 2
        return F.when(key < F.lit(bounds[middle]), between(first, middle)).otherwise(between(middle + 1, last))

    return F.when(key.isNull(), F.lit(0)).otherwise(between(0, len(bounds)))


def _width(bounds: int) -> int:
    """What a rank is multiplied with, so that those of a key of few values use the high bits too."""
    return (1 << _RANK_BITS) // (bounds + 1)


def interleaved(ranks: Sequence[int]) -> int:
    """The bits of ranks, the highest of each first.

    >>> [interleaved(one) for one in [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0)]]
    [0, 1, 2, 3, 8]
    """
    made = 0
    for bit in reversed(range(_RANK_BITS)):
        for rank in ranks:
            made = made << 1 | rank >> bit & 1
    return made


def _interleaved_column(ranks: Sequence[Column]) -> Column:
    made = F.lit(0).cast("long")
    for bit in reversed(range(_RANK_BITS)):
        for rank in ranks:
            made = F.shiftleft(made, 1).bitwiseOR(F.shiftright(rank, bit).bitwiseAND(F.lit(1)).cast("long"))
    return made
