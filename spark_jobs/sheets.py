"""Owns sheets: what a task makes of its objects' lines, packed, with its counts beside it.

A sheet is one row of a Spark DataFrame with a few megabytes of records in it as Arrow's own bytes: the rows they became
in one column, the refused in another. So Spark keeps a batch, between counting and writing it, without taking every
record apart, and hands it back to Python as it came.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from lake.contract import Field, Primitive
from lake.envelope import Identity
from lake.lines import LINE_BYTES, Block, Broken, LongLine
from spark_jobs.counting import count_rows
from spark_jobs.records import Reason, Refusal, Row
from spark_jobs.values import arrow_type

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from datetime import datetime

    import numpy.typing as npt

    from lake.lines import Piece
    from spark_jobs.lanes import Rules

__all__ = ["POSITION", "REFUSED_COLUMNS", "SHEET", "Judged", "Press", "row_columns", "unpack", "unpack_rows"]

_STRING, _LONG = Primitive("string"), Primitive("long")
POSITION = "$position"
"""Column of a row's line; a contract has no field of such a name."""
SHEET = "rows binary, refused binary, sums binary, runs binary, prints binary"
"""Columns of a sheet, in Spark SQL: packed rows and refused records, then what `counting` tells of them."""
_SCHEMA = pa.schema([(name.split()[0], pa.binary()) for name in SHEET.split(", ")])
REFUSED_COLUMNS = (
    Field("object", _STRING),
    Field("position", _LONG),
    Field("reason", _STRING),
    Field("message", _STRING),
    Field("raw", Primitive("binary")),
    Field("event_id", _STRING),
    Field("tenant", _STRING),
    Field("producer_id", _STRING),
    Field("sequence", _LONG),
    Field("arrival_time", Primitive("timestamptz")),
    Field("stage", _STRING),
)
_BYTES = 4 * 2**20  # of lines in a sheet, about
_CHUNK_BYTES = 128 * 1024  # of lines that are tried together again, after some among more were not clean
_HOPELESS = 4  # such chunks in a row that weren't clean either: the rest won't be
_OPTIONS = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
_READING = pa.ipc.IpcReadOptions(use_threads=False)


@dataclass(frozen=True, slots=True)
class Judged:
    """One record, and what becomes of it."""

    fate: Row | Refusal
    tenant: str | None
    """Tenant it is counted under."""
    raw: bytes | None
    arrival_time: datetime | None = None
    stage: str | None = None
    """What refused it, where the record tells; else its lane does."""


def row_columns(fields: tuple[Field, ...]) -> tuple[Field, ...]:
    """Columns of packed rows: the event's, and where it was found."""
    return (*fields, Field("_object", _STRING), Field(POSITION, _LONG))


@dataclass
class _Held:
    """Judged records on their way into a sheet."""

    clean: list[tuple[pa.StructArray, list[tuple[str, int, int]]]] = field(default_factory=list)
    """Rows judged together; objects, first lines and counts that they are made of."""
    rows: list[tuple[Any, ...]] = field(default_factory=list)
    """Rows judged one by one: values, object, position."""
    refused: list[tuple[str, int | None, Judged]] = field(default_factory=list)


class Press:
    """Makes sheets of one task's objects."""

    def __init__(self, rules: Rules) -> None:
        self._judge = rules.judge()
        self._fast = rules.fast_judge()
        self._tenant = rules.tenant_of_object()
        self._columns = row_columns(rules.fields)

    def sheets(self, pieces: Iterable[Piece]) -> Iterator[pa.RecordBatch]:
        """One sheet a batch, until all is read."""
        held, blocks, size = _Held(), list[Block](), 0
        for piece in pieces:
            match piece:
                case Block():
                    blocks.append(piece)
                    size += len(piece.body)
                case LongLine(uri, position, head, whole):
                    told = f"the line has {whole:,} bytes, allowed are {LINE_BYTES:,}; its beginning is kept"
                    lost = Judged(Refusal(Reason.TOO_LARGE, told, Identity()), self._tenant, head)
                    held.refused.append((uri, position, lost))
                case Broken(uri, problem):
                    lost = Judged(Refusal(Reason.UNREADABLE_OBJECT, problem, Identity()), self._tenant, None)
                    held.refused.append((uri, None, lost))
            if size >= _BYTES:
                yield self._sheet(held, blocks)
                held, blocks, size = _Held(), [], 0
        yield self._sheet(held, blocks)

    def _sheet(self, held: _Held, blocks: Sequence[Block]) -> pa.RecordBatch:
        self._settle(held, blocks)
        rows = self._rows(held)
        counts = count_rows(
            [(uri, count) for _, parts in held.clean for uri, _, count in parts] + [(one[-2], 1) for one in held.rows],
            self._tenant,
            rows,
            ((uri, one.tenant, _identity(one)) for uri, _, one in held.refused),
        )
        packed = (_packed(rows), _packed(self._refused(held)))
        return pa.record_batch([pa.array([one], pa.binary()) for one in (*packed, *counts)], schema=_SCHEMA)

    def _settle(self, held: _Held, blocks: Sequence[Block]) -> None:
        """Judge blocks: all together, else each, else each in parts, else line by line."""
        if self._fast is not None and self._fast.is_able and blocks:
            if self._take(held, blocks):
                return
            if len(blocks) > 1:
                for one in blocks:
                    self._settle(held, [one])
                return
            self._settle_parts(held, blocks[0])
            return
        for one in blocks:
            self._one_by_one(held, one)

    def _settle_parts(self, held: _Held, block: Block) -> None:
        vain = 0
        for part in _parts(block):
            if vain < _HOPELESS and len(part.body) < len(block.body) and self._take(held, [part]):
                vain = 0
                continue
            vain += 1
            self._one_by_one(held, part)

    def _take(self, held: _Held, blocks: Sequence[Block]) -> bool:
        """Judge blocks together; answers whether all their lines are clean."""
        ended = [one.body if one.body.endswith(b"\n") else one.body + b"\n" for one in blocks]
        found = self._fast.judge(b"".join(ended)) if self._fast is not None else None
        if found is None:
            return False
        # clean lines are as many as newlines
        held.clean.append(
            (found, [(one.uri, one.first, body.count(b"\n")) for one, body in zip(blocks, ended, strict=True)])
        )
        return True

    def _one_by_one(self, held: _Held, block: Block) -> None:
        for position, line in block.lines():
            one = self._judge(line)
            if isinstance(one.fate, Row):
                held.rows.append((*one.fate.values, block.uri, position))
            else:
                held.refused.append((block.uri, position, one))

    def _rows(self, held: _Held) -> pa.RecordBatch | None:
        schema = pa.schema([(one.name, arrow_type(one.type)) for one in self._columns])
        tables = []
        for events, parts in held.clean:
            uris = pa.concat_arrays([pa.repeat(uri, count) for uri, _, count in parts])
            places = np.concatenate([np.arange(first, first + count, dtype=np.int64) for _, first, count in parts])
            tables.append(pa.Table.from_arrays([*events.flatten(), uris, pa.array(places)], schema=schema))
        if held.rows:
            columns = zip(*held.rows, strict=True)
            arrays = [pa.array(one, kind.type) for one, kind in zip(columns, schema, strict=True)]
            tables.append(pa.Table.from_arrays(arrays, schema=schema))
        if not tables:
            return None
        return pa.concat_tables(tables).combine_chunks().to_batches()[0]

    def _refused(self, held: _Held) -> pa.RecordBatch | None:
        if not held.refused:
            return None
        rows = []
        for uri, position, one in held.refused:
            who, fate = _identity(one), one.fate
            told = (fate.reason, fate.message) if isinstance(fate, Refusal) else (None, None)
            named = (who.event_id, one.tenant, who.producer_id, who.sequence, one.arrival_time, one.stage)
            rows.append((uri, position, *told, one.raw, *named))
        arrays = [
            pa.array(column, arrow_type(kind.type))
            for column, kind in zip(zip(*rows, strict=True), REFUSED_COLUMNS, strict=True)
        ]
        return pa.RecordBatch.from_arrays(arrays, names=[one.name for one in REFUSED_COLUMNS])


def _identity(one: Judged) -> Identity:
    return one.fate.identity if isinstance(one.fate, Refusal) else Identity()


def _parts(block: Block) -> Iterator[Block]:
    """A block's lines, some at a time."""
    start, first, body = 0, block.first, block.body
    while start < len(body):
        end = body.find(b"\n", start + _CHUNK_BYTES) + 1 or len(body)
        part = body[start:end]
        yield Block(block.uri, first, part)
        first += part.count(b"\n")
        start = end


def _packed(batch: pa.RecordBatch | None) -> bytes | None:
    if batch is None:
        return None
    out = pa.BufferOutputStream()
    with pa.ipc.new_stream(out, batch.schema, options=_OPTIONS) as writer:
        writer.write_batch(batch)
    return bytes(out.getvalue())


def unpack(sheets: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """Records of sheets, of the one column that they were asked for."""
    for batch in sheets:
        for one in batch.column(0):
            if one.is_valid:
                yield from pa.ipc.open_stream(one.as_buffer(), options=_READING)


def unpack_rows(
    sheets: Iterable[pa.RecordBatch], suspects: npt.NDArray[np.uint64], *, suspected: bool
) -> Iterator[pa.RecordBatch]:
    """Rows of sheets whose event id is among the suspects, or those whose isn't.

    Args:
        sheets: columns `rows` and `prints`.
        suspects: fingerprints.
        suspected: which of the two.
    """
    for batch in sheets:
        for packed, prints in zip(batch.column(0), batch.column(1), strict=True):
            if packed.is_valid:
                among = np.isin(np.frombuffer(prints.as_buffer(), np.uint64), suspects)
                if among.any() or not suspected:
                    wanted = pa.array(among if suspected else ~among)
                    for rows in pa.ipc.open_stream(packed.as_buffer(), options=_READING):
                        yield rows.filter(wanted)
