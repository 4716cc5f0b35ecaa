"""Owns what the frames of the log hold: records that were put, made and carried, and the objects they go into.

The layout of each is told in `frames`.
"""

from __future__ import annotations

import struct
from array import array
from dataclasses import astuple, dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, Literal
from uuid import UUID

import orjson

from firehose.objects import Recipe
from firehose.processing import Reason
from firehose.records import Failed, Record

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "Carried",
    "Intent",
    "Made",
    "Put",
    "Stage",
    "decode_carried",
    "decode_done",
    "decode_intent",
    "decode_made",
    "decode_put",
    "decode_settled",
    "encode_carried",
    "encode_intent",
    "encode_made",
    "encode_put",
    "encode_settled",
    "read_carried_head",
    "read_made_head",
    "read_put_head",
]

_PUT = struct.Struct("<16sQQI")
_INTENT = struct.Struct("<16s16sI")
_MADE = struct.Struct("<16sQ?3xIII")
_CARRIED = struct.Struct("<16sB3xII")


class Stage(IntEnum):
    """How far a record has come that is carried."""

    PUT = 0
    STAYED = 1
    MADE = 2


@dataclass(frozen=True, slots=True)
class Put:
    """Records that were acknowledged together."""

    stream: UUID
    first: int
    """Number of the first record; the others follow it."""
    arrival_ms: int
    data: list[bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Processed:
    """Records that went through processors, some of which may have failed."""

    records: list[Record]
    failed: list[Failed]

    @property
    def all(self) -> list[Record | Failed]:
        """All records, those that failed behind those that go on, as they are numbered."""
        return [*self.records, *self.failed]


@dataclass(frozen=True, slots=True)
class Made(Processed):
    """Records that processors made of others."""

    stream: UUID
    first: int
    """Number of the first record; the others follow it, those that failed behind those that go on."""
    sources: Sequence[int]
    """Numbers of the records that they were made of."""
    sources_stay: bool
    """Whether those are still to be written to the backup."""


@dataclass(frozen=True, slots=True)
class Carried(Processed):
    """Records that were carried into a later segment."""

    stream: UUID
    stage: Stage
    numbers: Sequence[int]
    """Of the records that go on, and then of those that failed."""

    @classmethod
    def of(cls, stream: UUID, stage: Stage, numbered: Sequence[tuple[int, Record | Failed]]) -> Carried:
        """Make it of records with their numbers, those that failed behind those that go on."""
        return cls(
            stream,
            stage,
            [number for number, _ in numbered],
            records=[one for _, one in numbered if isinstance(one, Record)],
            failed=[one for _, one in numbered if isinstance(one, Failed)],
        )


@dataclass(frozen=True, slots=True)
class Intent:
    """An object that is about to be written."""

    delivery: UUID
    stream: UUID
    bucket: str
    key: str
    recipe: Recipe
    numbers: array[int]
    """Its records, in order."""
    kms_key: str | None = None
    is_backup: bool = False
    """It is of the backup of source records."""


def encode_put(stream: UUID, first: int, arrival_ms: int, data: Sequence[bytes]) -> bytes:
    """Make a PUT's payload."""
    head = _PUT.pack(stream.bytes, first, arrival_ms, len(data))
    return b"".join([head, array("I", map(len, data)).tobytes(), *data])


def read_put_head(payload: memoryview) -> tuple[UUID, int, int, int]:
    """Read stream, first number, arrival and count of a PUT, not its records."""
    stream, first, arrival, count = _PUT.unpack_from(payload)
    return UUID(bytes=stream), first, arrival, count


def decode_put(payload: memoryview) -> Put:
    """Read a PUT's payload."""
    stream, first, arrival, count = read_put_head(payload)
    lengths, start = _numbers(payload, _PUT.size, count, "I")
    return Put(stream, first, arrival, _cut(payload, start, lengths))


def encode_made(made: Made) -> bytes:
    """Make a MADE's payload."""
    told = _header(made)
    head = _MADE.pack(made.stream.bytes, made.first, made.sources_stay, len(made.all), len(made.sources), len(told))
    return b"".join([head, told, array("Q", made.sources).tobytes(), *_records(made)])


def _header(processed: Processed) -> bytes:
    header: dict[str, Any] = {}
    if any(one.keys for one in processed.records):
        header["keys"] = [one.keys for one in processed.records]
    if processed.failed:
        header["failed"] = [(one.ended_ms, *astuple(one.reason)) for one in processed.failed]
    return orjson.dumps(header)


def _records(processed: Processed) -> list[bytes]:
    data = [one.raw for one in processed.all]
    arrivals = array("Q", [one.arrival_ms for one in processed.all])
    return [arrivals.tobytes(), array("I", map(len, data)).tobytes(), *data]


def read_made_head(payload: memoryview) -> tuple[UUID, int, int, array[int], bool]:
    """Read stream, first number, count, the sources' numbers and whether those stay, not the records."""
    stream, first, stay, count, sources, length = _MADE.unpack_from(payload)
    return UUID(bytes=stream), first, count, _numbers(payload, _MADE.size + length, sources)[0], stay


def decode_made(payload: memoryview) -> Made:
    """Read a MADE's payload."""
    stream, first, stay, count, from_, length = _MADE.unpack_from(payload)
    sources, start = _numbers(payload, _MADE.size + length, from_)
    records, failed = _read_records(orjson.loads(payload[_MADE.size : _MADE.size + length]), payload, start, count)
    return Made(UUID(bytes=stream), first, sources, stay, records=records, failed=failed)


def _read_records(
    header: dict[str, Any], payload: memoryview, start: int, count: int
) -> tuple[list[Record], list[Failed]]:
    arrivals, start = _numbers(payload, start, count)
    lengths, start = _numbers(payload, start, count, "I")
    data = _cut(payload, start, lengths)
    failed = header.get("failed", [])
    good = count - len(failed)
    keys = header.get("keys", [()] * good)
    records = [
        Record(raw, arrival, tuple((name, value) for name, value in pairs))
        for raw, arrival, pairs in zip(data[:good], arrivals[:good], keys, strict=True)
    ]
    refused = [
        Failed(raw, arrival, ended, Reason(*reason))
        for raw, arrival, (ended, *reason) in zip(data[good:], arrivals[good:], failed, strict=True)
    ]
    return records, refused


def encode_carried(carried: Carried) -> bytes:
    """Make a CARRIED's payload."""
    told = _header(carried)
    head = _CARRIED.pack(carried.stream.bytes, carried.stage, len(carried.numbers), len(told))
    return b"".join([head, told, array("Q", carried.numbers).tobytes(), *_records(carried)])


def read_carried_head(payload: memoryview) -> tuple[UUID, Stage, array[int]]:
    """Read stream, stage and numbers of a CARRIED, not its records."""
    stream, stage, count, length = _CARRIED.unpack_from(payload)
    return UUID(bytes=stream), Stage(stage), _numbers(payload, _CARRIED.size + length, count)[0]


def decode_carried(payload: memoryview) -> Carried:
    """Read a CARRIED's payload."""
    stream, stage, count, length = _CARRIED.unpack_from(payload)
    numbers, start = _numbers(payload, _CARRIED.size + length, count)
    header = orjson.loads(payload[_CARRIED.size : _CARRIED.size + length])
    records, failed = _read_records(header, payload, start, count)
    return Carried(UUID(bytes=stream), Stage(stage), numbers, records=records, failed=failed)


def _numbers(payload: memoryview, start: int, count: int, kind: Literal["Q", "I"] = "Q") -> tuple[array[int], int]:
    found = array(kind)
    end = start + count * found.itemsize
    found.frombytes(payload[start:end])
    return found, end


def _cut(payload: memoryview, start: int, lengths: Sequence[int]) -> list[bytes]:
    data = []
    for length in lengths:
        data.append(bytes(payload[start : start + length]))
        start += length
    return data


def encode_intent(intent: Intent) -> bytes:
    """Make an INTENT's payload."""
    told = {"bucket": intent.bucket, "key": intent.key, "recipe": intent.recipe.to_dict(), "kms_key": intent.kms_key}
    header = orjson.dumps({**told, "backup": True} if intent.is_backup else told)
    head = _INTENT.pack(intent.delivery.bytes, intent.stream.bytes, len(header))
    return b"".join([head, header, intent.numbers.tobytes()])


def decode_intent(payload: memoryview) -> Intent:
    """Read an INTENT's payload."""
    delivery, stream, length = _INTENT.unpack_from(payload)
    numbers_at = _INTENT.size + length
    header = orjson.loads(payload[_INTENT.size : numbers_at])
    numbers, _ = _numbers(payload, numbers_at, (len(payload) - numbers_at) // 8)
    return Intent(
        delivery=UUID(bytes=delivery),
        stream=UUID(bytes=stream),
        bucket=header["bucket"],
        key=header["key"],
        recipe=Recipe.from_dict(header["recipe"]),
        numbers=numbers,
        kms_key=header["kms_key"],
        is_backup=header.get("backup", False),
    )


def encode_settled(delivery: UUID, numbers: Sequence[int]) -> bytes:
    """Make a SETTLED's payload."""
    return delivery.bytes + array("Q", numbers).tobytes()


def decode_settled(payload: memoryview) -> tuple[UUID, array[int]]:
    """Read a SETTLED's payload."""
    return UUID(bytes=bytes(payload[:16])), _numbers(payload, 16, (len(payload) - 16) // 8)[0]


def decode_done(payload: memoryview) -> list[UUID]:
    """Read a DONE's payload."""
    raw = bytes(payload)
    return [UUID(bytes=raw[at : at + 16]) for at in range(0, len(raw), 16)]
