"""Owns what rows come to in whatever order, by which a rewrite is proven: their number, and sums of their hashes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pyspark.sql import functions as F  # noqa: N812 - as Spark's users know it
from pyspark.sql.types import ArrayType, StructType

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame
    from pyspark.sql.types import DataType

__all__ = ["NOTHING", "Digest", "digest", "sums"]


@dataclass(frozen=True)
class Digest:
    """What rows come to: how many, and sums of the halves of their 64-bit hashes."""

    rows: int
    low: int
    high: int


NOTHING = Digest(0, 0, 0)
"""No rows."""


def sums(rows: DataFrame) -> list[Column]:
    """Expressions of a digest's parts, for `agg` or `observe`.

    Halves of 32 bits have room for two thousand million rows in a sum of 64; beyond, Spark fails rather than wraps.
    """
    values = [F.col(f"`{name}`") for name in rows.columns]
    shapes = [_shape(F.col(f"`{one.name}`"), one.dataType) for one in rows.schema.fields]
    made = F.xxhash64(*shapes, *values)
    zero = F.lit(0).cast("long")
    return [
        F.count(F.lit(1)).alias("rows"),
        F.coalesce(F.sum(made.bitwiseAND(F.lit(0xFFFFFFFF))), zero).alias("low"),
        F.coalesce(F.sum(F.shiftrightunsigned(made, 32)), zero).alias("high"),
    ]


def digest(found: dict[str, Any]) -> Digest:
    """The digest that `sums` came to."""
    return Digest(int(found["rows"]), int(found["low"]), int(found["high"]))


def _shape(value: Column, kind: DataType) -> Column:
    """Where a value is null, and how long its lists are.

    Spark's hash passes over nulls: a null alone would leave no trace, and a value could move to a neighbouring column,
    field or element.
    """
    if isinstance(kind, StructType):
        return F.struct(value.isNull(), *(_shape(value[one.name], one.dataType) for one in kind.fields))
    if isinstance(kind, ArrayType):
        return F.struct(F.size(value), F.transform(value, lambda one: _shape(one, kind.elementType)))
    return value.isNull()
