"""Owns the files of converted records: rows of records become Parquet or ORC, by pyarrow.

Rows are made and turned into columns slice by slice, and row groups are written when they are as big as asked for: a
file takes memory near the size of its records, however many rows these hold. The same records give the same bytes, with
one version of pyarrow.
Source: https://docs.aws.amazon.com/firehose/latest/APIReference/API_ParquetSerDe.html and API_OrcSerDe.html; defaults
are theirs
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from firehose.hive_types import HiveType, ListOf, MapOf, StructOf, arrow_type, parse_hive_type
from lake.errors import TerminalError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import pyarrow as pa

    from firehose.conversion import Conversion

__all__ = ["ColumnarError", "bloom_columns", "columnar", "prove"]

_SLICE_ROWS, _SLICE_BYTES = 5_000, 8 << 20
"""What becomes columns at once: with more rows alive, Python's collector walks them again and again."""
_TURN = 50
"""Records after which other threads have their turn: Python gives them one each 5 ms only, and puts would wait."""
_BLOCK_BYTES, _PAGE_BYTES = 256 << 20, 1 << 20
_STRIPE_BYTES, _STRIDE = 64 << 20, 10_000
_DICTIONARY_THRESHOLD, _FALSE_POSITIVES, _PADDING = 0.8, 0.05, 0.05
_PARQUET_CODECS = {"UNCOMPRESSED": "NONE", "SNAPPY": "SNAPPY", "GZIP": "GZIP"}
_ORC_CODECS = {"NONE": "UNCOMPRESSED", "ZLIB": "ZLIB", "SNAPPY": "SNAPPY"}
# The service writes by Hive's classes, whose timestamps in Parquet are INT96; every reader of its files knows these.
_INT96 = True
_ANY = {"OpenXJsonSerDe": {"CaseInsensitive": True}}


class ColumnarError(TerminalError):
    """A file that can't be made."""


def columnar(conversion: Conversion, data: Sequence[bytes]) -> bytes:
    """Make the file of records that the conversion's step has let through."""
    import pyarrow as pa  # noqa: PLC0415 - 27 MB of memory, for streams that convert only

    types = [(name, parse_hive_type(hive)) for name, hive in conversion.columns]
    schema = pa.schema([pa.field(name, arrow_type(hive)) for name, hive in types])
    sink = pa.BufferOutputStream()
    slices = _slices(conversion, data, schema)
    if conversion.is_orc:
        _write_orc(conversion, types, schema, slices, sink)
    else:
        _write_parquet(conversion, schema, slices, sink)
    made: bytes = sink.getvalue().to_pybytes()
    return made


def prove(conversion: Conversion) -> None:
    """Make a file of it once, so that what can't be written is known before a record waits for it.

    Raises:
        ColumnarError: pyarrow can't make it; ORC's timestamps, for one, need the machine's time zone database.
    """
    tried = [(conversion, b"{}")]
    if conversion.is_orc and any("timestamp" in hive.lower() for _, hive in conversion.columns):
        moment = replace(conversion, columns=(("t", "timestamp"),), deserializer=_ANY, serializer={"OrcSerDe": {}})
        tried.append((moment, b'{"t":0}'))
    try:
        for one, raw in tried:
            columnar(one, [raw])
    except Exception as error:  # whatever it is, a delivery would run into it again and again
        raise ColumnarError(str(error)) from error


def _slices(conversion: Conversion, data: Sequence[bytes], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa  # noqa: PLC0415 - as above

    rows_of = conversion.reader.rows
    rows: list[list[Any]] = []
    size = 0

    def batch(some: Sequence[list[Any]]) -> pa.RecordBatch:
        columns = zip(*some, strict=True)
        arrays = [pa.array(column, one.type) for column, one in zip(columns, schema, strict=True)]
        return pa.RecordBatch.from_arrays(arrays, schema=schema)

    for at, raw in enumerate(data):
        if not at % _TURN:
            time.sleep(0)
        rows += rows_of(raw)
        size += len(raw)
        if len(rows) >= _SLICE_ROWS or size >= _SLICE_BYTES:
            for start in range(0, len(rows), _SLICE_ROWS):
                yield batch(rows[start : start + _SLICE_ROWS])
            rows, size = [], 0
    if rows:
        yield batch(rows)


def _write_parquet(conversion: Conversion, schema: pa.Schema, slices: Iterator[pa.RecordBatch], sink: Any) -> None:
    import pyarrow as pa  # noqa: PLC0415 - as above
    from pyarrow import parquet  # noqa: PLC0415 - as above

    given = conversion.options
    with parquet.ParquetWriter(
        sink,
        schema,
        compression=_PARQUET_CODECS[given.get("Compression") or "SNAPPY"],
        use_dictionary=bool(given.get("EnableDictionaryCompression")),
        data_page_size=given.get("PageSizeBytes") or _PAGE_BYTES,
        data_page_version="2.0" if given.get("WriterVersion") == "V2" else "1.0",
        use_deprecated_int96_timestamps=_INT96,
        store_schema=False,
    ) as writer:
        _in_blocks(
            slices,
            given.get("BlockSizeBytes") or _BLOCK_BYTES,
            lambda some: writer.write_table(pa.Table.from_batches(some, schema), row_group_size=_most_rows(some)),
        )


def _write_orc(
    conversion: Conversion,
    types: Sequence[tuple[str, HiveType]],
    schema: pa.Schema,
    slices: Iterator[pa.RecordBatch],
    sink: Any,
) -> None:
    import pyarrow as pa  # noqa: PLC0415 - as above
    from pyarrow import orc  # noqa: PLC0415 - as above

    given = conversion.options
    stripe = given.get("StripeSizeBytes") or _STRIPE_BYTES
    with orc.ORCWriter(
        sink,
        file_version="0.11" if given.get("FormatVersion") == "V0_11" else "0.12",
        stripe_size=stripe,
        compression=_ORC_CODECS[given.get("Compression") or "SNAPPY"],
        row_index_stride=given.get("RowIndexStride") or _STRIDE,
        padding_tolerance=_or(given.get("PaddingTolerance"), _PADDING),
        dictionary_key_size_threshold=_or(given.get("DictionaryKeyThreshold"), _DICTIONARY_THRESHOLD),
        bloom_filter_columns=bloom_columns(types, given.get("BloomFilterColumns") or []),
        bloom_filter_fpp=_or(given.get("BloomFilterFalsePositiveProbability"), _FALSE_POSITIVES),
    ) as writer:
        for one in slices:
            writer.write(pa.Table.from_batches([one], schema))


def _in_blocks(
    slices: Iterator[pa.RecordBatch], most_bytes: int, write: Callable[[list[pa.RecordBatch]], None]
) -> None:
    held: list[pa.RecordBatch] = []
    size = 0
    for one in slices:
        held.append(one)
        size += one.nbytes
        if size >= most_bytes:
            write(held)
            held, size = [], 0
    if held:
        write(held)


def _most_rows(some: Sequence[pa.RecordBatch]) -> int:
    return sum(one.num_rows for one in some)


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def bloom_columns(types: Sequence[tuple[str, HiveType]], names: Sequence[str]) -> list[int]:
    """Give the columns' numbers in ORC's tree of types, where the root is 0 and each part counts.

    Raises:
        KeyError: there is no such column.
    """
    numbers: dict[str, int] = {}
    following = 1
    for name, hive in types:
        numbers[name.lower()] = following
        following += _parts(hive)
    return [numbers[name.lower()] for name in names]


def _parts(hive: HiveType) -> int:
    match hive:
        case ListOf(element):
            return 1 + _parts(element)
        case MapOf(_, value):
            return 2 + _parts(value)
        case StructOf(fields):
            return 1 + sum(_parts(one) for _, one in fields)
    return 1
