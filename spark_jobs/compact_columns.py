"""Owns what Arrow carries of Iceberg's columns bit for bit: which types, from which files, sorted and compared how."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IntegerType,
    ListType,
    LongType,
    StringType,
    StructType,
    TimestampType,
    TimestamptzType,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    import numpy as np
    from pyiceberg.schema import Schema
    from pyiceberg.types import IcebergType, NestedField

__all__ = ["UnfitError", "aligned", "arrow_schema", "as_bits", "field_id", "longest", "order_of", "repeating"]

_ID = b"PARQUET:field_id"
_PRIMITIVES: dict[type[IcebergType], pa.DataType] = {
    BooleanType: pa.bool_(),
    IntegerType: pa.int32(),
    LongType: pa.int64(),
    FloatType: pa.float32(),
    DoubleType: pa.float64(),
    DateType: pa.date32(),
    TimestampType: pa.timestamp("us"),
    TimestamptzType: pa.timestamp("us", "UTC"),
    StringType: pa.string(),
    BinaryType: pa.binary(),
}
_EVEN = {pa.large_string(): pa.string(), pa.large_binary(): pa.binary()}
_WIDER = {(pa.int32(), pa.int64()), (pa.float32(), pa.float64())}


class UnfitError(Exception):
    """Arrow doesn't carry this bit for bit; it is Spark's to do."""


def arrow_schema(schema: Schema) -> pa.Schema:
    """A table's columns as Arrow has them, with Iceberg's ids as Parquet carries them.

    Raises:
        UnfitError: a type isn't carried: maps, numbers with a fraction inside of others, what came after version 2.
    """
    return pa.schema([_field(one, nested=False) for one in schema.fields])


def _field(one: NestedField, *, nested: bool) -> pa.Field:
    kind = _type(one.field_type, nested=nested)
    return pa.field(one.name, kind, nullable=not one.required, metadata={_ID: str(one.field_id)})


def _type(kind: IcebergType, *, nested: bool) -> pa.DataType:
    if isinstance(kind, DecimalType):
        return pa.decimal128(kind.precision, kind.scale)
    if isinstance(kind, ListType):
        return pa.list_(_field(kind.element_field, nested=True))
    if isinstance(kind, StructType):
        return pa.struct([_field(one, nested=True) for one in kind.fields])
    # bits of a fraction can't be compared inside of another value
    if type(kind) not in _PRIMITIVES or (nested and isinstance(kind, FloatType | DoubleType)):
        raise UnfitError(str(kind))
    return _PRIMITIVES[type(kind)]


def field_id(field: pa.Field) -> int:
    """Iceberg's id of a field; -1 where a file tells none."""
    return int((field.metadata or {}).get(_ID, b"-1"))


def aligned(found: pa.Table, wanted: pa.Schema, given: Collection[int]) -> pa.Table:
    """A file's rows as the table has them: columns by id, those that came later null, narrower ones widened.

    Args:
        found: as a file has them.
        wanted: of `arrow_schema`.
        given: ids of columns whose values a file may leave to its partition.

    Raises:
        UnfitError: the file tells no ids, or has other types.
    """
    places = {field_id(one): index for index, one in enumerate(found.schema)}
    if -1 in places or len(places) != found.num_columns:
        raise UnfitError("columns without ids")
    columns: list[pa.ChunkedArray] = []
    for field in wanted:
        number = field_id(field)
        if number in places:
            columns.append(_cast(found.column(places[number]), found.schema.field(places[number]), field))
        elif field.nullable and number not in given:
            columns.append(pa.chunked_array([pa.nulls(found.num_rows, field.type)]))
        else:
            raise UnfitError(f"no column {field.name}")
    return pa.Table.from_arrays(columns, schema=wanted)


def _cast(column: pa.ChunkedArray, found: pa.Field, wanted: pa.Field) -> pa.ChunkedArray:
    if found.type.equals(wanted.type) and _same(found, wanted):
        return column
    if not (_same(found, wanted) or _widens(found.type, wanted.type)):
        raise UnfitError(f"column {wanted.name}: {found.type} for {wanted.type}")
    return column.cast(wanted.type)


def _same(found: pa.Field, wanted: pa.Field) -> bool:
    """Whether values are the same bits, whatever may be null and however they are kept in memory."""
    one, other = found.type, wanted.type
    if field_id(found) != field_id(wanted):
        return False
    if pa.types.is_struct(other):
        return (
            pa.types.is_struct(one)
            and [each.name for each in one] == [each.name for each in other]
            and all(_same(each, its) for each, its in zip(one, other, strict=True))
        )
    if pa.types.is_list(other):
        is_list = pa.types.is_list(one) or pa.types.is_large_list(one)
        return is_list and _same(one.value_field, other.value_field)
    if pa.types.is_timestamp(other) and pa.types.is_timestamp(one):
        # in Parquet there is only "in UTC" and "local"; another zone is how somebody wants it shown
        return bool(one.unit == other.unit and (one.tz is None) == (other.tz is None))
    return bool(_EVEN.get(one, one) == other)


def _widens(one: pa.DataType, other: pa.DataType) -> bool:
    if pa.types.is_decimal128(one) and pa.types.is_decimal128(other):
        return bool(one.scale == other.scale and one.precision <= other.precision)
    return (one, other) in _WIDER


def longest(table: pa.Table) -> int:
    """Bytes of the longest text of a table's columns, those inside of structs included; 0 where it has none."""
    return max((_longest(one) for one in table.itercolumns()), default=0)


def _longest(column: pa.ChunkedArray) -> int:
    kind = column.type
    if pa.types.is_string(kind) or pa.types.is_binary(kind):
        return pc.max(pc.binary_length(column)).as_py() or 0
    if pa.types.is_struct(kind):
        return max((_longest(pc.struct_field(column, index)) for index in range(kind.num_fields)), default=0)
    return 0


def order_of(table: pa.Table, keys: Sequence[str]) -> np.ndarray | None:
    """The place of each row, in order: ascending, nulls first, what is no number last; None without keys.

    Raises:
        UnfitError: a key is no column of its own, or has no order.
    """
    columns: dict[str, pa.ChunkedArray] = {}
    for name in keys:
        if name not in table.schema.names or pa.types.is_nested(table.schema.field(name).type):
            raise UnfitError(f"sort key {name}")
        column = table.column(name)
        if pa.types.is_floating(column.type):
            columns[f"{len(columns)}"] = pc.is_nan(column).cast(pa.int8())
        elif pa.types.is_boolean(column.type):
            column = column.cast(pa.int8())
        columns[f"{len(columns)}"] = column
    if not columns:
        return None
    by = [(name, "ascending", "at_start") for name in columns]
    found: np.ndarray = pc.sort_indices(pa.table(columns), sort_keys=by).to_numpy()
    return found


def as_bits(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """A column to be compared: a fraction's bits, as what is no number equals nothing, and zero its negative."""
    if not pa.types.is_floating(column.type):
        return column
    kind = pa.int32() if pa.types.is_float32(column.type) else pa.int64()
    return pa.chunked_array([one.view(kind) for one in column.chunks], kind)


def repeating(rows: pa.Table) -> list[str]:
    """Columns, as Parquet names them, that a dictionary makes smaller; of nested ones all that is in them.

    Arrow by itself would write a dictionary for each column, and only leave off when it is full: a column of times, no
    two alike, becomes twice as large. Parquet's own writer decides by the first page, and so is it done here.

    Args:
        rows: of the first page.
    """
    found: list[str] = []
    for field, column in zip(rows.schema, rows.itercolumns(), strict=True):
        if pa.types.is_nested(field.type):
            found += _leaves(field.name, field.type)
        elif not pa.types.is_boolean(field.type):
            coded = pc.drop_null(column).combine_chunks().dictionary_encode()
            bits = max(len(coded.dictionary) - 1, 0).bit_length()
            if _plain_bytes(coded.dictionary) + len(coded) * bits / 8 < _plain_bytes(pc.drop_null(column)):
                found.append(field.name)
    return found


def _leaves(path: str, kind: pa.DataType) -> list[str]:
    if pa.types.is_struct(kind):
        return [leaf for one in kind for leaf in _leaves(f"{path}.{one.name}", one.type)]
    if pa.types.is_list(kind):
        return _leaves(f"{path}.list.element", kind.value_type)
    return [path]


def _plain_bytes(values: pa.Array | pa.ChunkedArray) -> int:
    if pa.types.is_string(values.type) or pa.types.is_binary(values.type):
        return 4 * len(values) + (pc.sum(pc.binary_length(values)).as_py() or 0)
    return len(values) * int(values.type.byte_width)
