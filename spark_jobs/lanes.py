"""Owns the three lanes a stream's objects come by, each as one shape of judged records.

That shape: `object`, `position`; `event` (a struct of the table's columns, null unless it becomes a row); `reason`,
`message`, `raw` (what was received, binary) of what does not; `event_id`, `tenant`, `producer_id`, `sequence` as far as
they can be read; `arrival_time` and `stage` where an error record told them.

An object is fetched, unpacked, judged and turned into Arrow's columns by the Python worker that has its bytes. Parsing
by Spark's own functions (VARIANT) was measured first: as strict as this, the ingest of 337,000 events took 110 s of
processor time where this took 56 s.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa
from pyspark.sql import functions as F  # noqa: N812 - as Spark's users know it

from lake.contract import Field, Primitive
from lake.envelope import Identity, salvage
from lake.error_record import ErrorRecord
from lake.manifest import NO_TENANT, Lane
from spark_jobs.objects import ObjectLines, read_objects
from spark_jobs.records import ENVELOPE_FIELDS, Judge, Reason, Refusal, Row
from spark_jobs.values import arrow_struct, arrow_type, spark_type

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pyspark.sql import DataFrame, SparkSession

    from lake.clients import Cloud
    from lake.contract import Contract
    from spark_jobs.objects import StoredObject

__all__ = ["Events", "Refused", "Strays", "judged_records", "quarantine_rows"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST_MS = 253_402_300_799_999  # the end of the year 9999
_ROWS = 10_000  # in an Arrow batch
_BYTES = 8 * 2**20  # of records in one, about

_STRING = Primitive("string")
_COLUMNS = (
    Field("object", _STRING),
    Field("position", Primitive("long")),
    Field("reason", _STRING),
    Field("message", _STRING),
    Field("raw", Primitive("binary")),
    Field("event_id", _STRING),
    Field("tenant", _STRING),
    Field("producer_id", _STRING),
    Field("sequence", Primitive("long")),
    Field("arrival_time", Primitive("timestamptz")),
    Field("stage", _STRING),
)


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


class Rules(Protocol):
    """How a lane judges its records."""

    @property
    def fields(self) -> tuple[Field, ...]:
        """Columns of an event that becomes a row."""
        ...

    def judge(self) -> Callable[[bytes], Judged]:
        """The function that judges one record; made anew in each worker."""
        ...

    def tenant_of_object(self) -> str | None:
        """Tenant that an object which can't be read is counted under."""
        ...


@dataclass(frozen=True)
class Events:
    """Delivered under a tenant that the stream carries: rows, or refused."""

    contract: Contract
    tenant: str
    planned_at_ms: int
    """The moment that "now" is for its records, the same whenever the batch is done again."""

    @property
    def fields(self) -> tuple[Field, ...]:
        """The table's columns, up to `_rescued`."""
        return (*ENVELOPE_FIELDS, *self.contract.fields, Field("_rescued", _STRING))

    def judge(self) -> Callable[[bytes], Judged]:
        """Judge by the contract."""
        decide = Judge(self.contract, self.tenant, _EPOCH + timedelta(milliseconds=self.planned_at_ms)).judge

        def judge(raw: bytes) -> Judged:
            fate = decide(raw)
            if isinstance(fate, Row):
                return Judged(fate, self.tenant, None)
            # Firehose took the tenant of the prefix from the record itself
            return Judged(fate, fate.identity.tenant or self.tenant, raw)

        return judge

    def tenant_of_object(self) -> str | None:
        """The prefix's tenant."""
        return self.tenant


@dataclass(frozen=True)
class Strays:
    """Delivered under a tenant that the stream doesn't carry: all refused."""

    tenant: str
    carried: tuple[str, ...]

    @property
    def fields(self) -> tuple[Field, ...]:
        """No record becomes a row; Spark wants a column all the same."""
        return (Field("nothing", _STRING),)

    def judge(self) -> Callable[[bytes], Judged]:
        """Refuse, with the identity that can be read."""
        told = "no tenant" if self.tenant == NO_TENANT else f"tenant={self.tenant}"
        message = f"it was delivered under {told}, and the stream carries: {', '.join(self.carried)}"
        tenant = self.tenant_of_object()
        return lambda raw: Judged(Refusal(Reason.UNKNOWN_TENANT, message, salvage(raw)), tenant, raw)

    def tenant_of_object(self) -> str | None:
        """The prefix's tenant, if it names one."""
        return None if self.tenant == NO_TENANT else self.tenant


@dataclass(frozen=True)
class Refused:
    """Refused by Firehose, or by a job before ingest: unwrapped from error records."""

    producers: Mapping[str, str]
    """Tenant by producer id, of producers with a ledger: what lost its tenant on its way is their tenant's."""

    @property
    def fields(self) -> tuple[Field, ...]:
        """No record becomes a row; Spark wants a column all the same."""
        return (Field("nothing", _STRING),)

    def judge(self) -> Callable[[bytes], Judged]:
        """Refuse, with the reason that the error record gives."""

        def judge(line: bytes) -> Judged:
            try:
                record = ErrorRecord.parse(line)
            except ValueError as error:
                told = f"the line of the error object is no error record: {error}"
                return Judged(Refusal(Reason.MALFORMED_ERROR_RECORD, told, Identity()), None, line)
            who = record.identity
            owner = self.producers.get(who.producer_id) if who.producer_id else None
            fate = Refusal(record.code, record.message, who)
            return Judged(fate, who.tenant or owner, record.raw, _moment(record.arrival_ms), record.stage)

        return judge

    def tenant_of_object(self) -> str | None:
        """Its records' tenants can't be known."""
        return None


def _moment(milliseconds: int | None) -> datetime | None:
    if milliseconds is None or not 0 <= milliseconds <= _LATEST_MS:
        return None
    return _EPOCH + timedelta(milliseconds=milliseconds)


def judged_records(spark: SparkSession, objects: Sequence[StoredObject], cloud: Cloud, rules: Rules) -> DataFrame:
    """The records of objects, judged by a lane's rules."""
    event = ", ".join(f"{one.name}: {spark_type(one.type)}" for one in rules.fields)
    columns = [f"{one.name} {spark_type(one.type)}" for one in _COLUMNS]

    def render(objects: Iterator[ObjectLines]) -> Iterator[pa.RecordBatch]:
        judge, tenant = rules.judge(), rules.tenant_of_object()
        sheet = _Sheet(rules.fields)
        for one in objects:
            if one.problem is not None:
                lost = Refusal(Reason.UNREADABLE_OBJECT, one.problem, Identity())
                sheet.add(one.uri, None, Judged(lost, tenant, None), 0)
            for position, line in one.lines():
                sheet.add(one.uri, position, judge(line), len(line))
                if sheet.is_full:
                    yield sheet.take()
        yield sheet.take()

    return read_objects(spark, objects, cloud, render, ", ".join((*columns, f"event struct<{event}>")))


class _Sheet:
    """Judged records on their way into an Arrow batch."""

    def __init__(self, fields: tuple[Field, ...]) -> None:
        self._fields = fields
        self._schema = pa.schema(
            [*((one.name, arrow_type(one.type)) for one in _COLUMNS), ("event", arrow_struct(fields))]
        )
        self._rows: list[tuple[Any, ...]] = []
        self._events: list[tuple[Any, ...] | None] = []
        self._bytes = 0

    @property
    def is_full(self) -> bool:
        return len(self._rows) >= _ROWS or self._bytes >= _BYTES

    def add(self, uri: str, position: int | None, one: Judged, size: int) -> None:
        self._bytes += size
        fate = one.fate
        if isinstance(fate, Row):
            event_id, _, _, _, producer_id, sequence, *_ = fate.values
            self._rows.append(
                (uri, position, None, None, None, event_id, one.tenant, producer_id, sequence, None, None)
            )
            self._events.append(fate.values)
            return
        who = fate.identity
        named = (who.event_id, one.tenant, who.producer_id, who.sequence, one.arrival_time, one.stage)
        self._rows.append((uri, position, fate.reason, fate.message, one.raw, *named))
        self._events.append(None)

    def take(self) -> pa.RecordBatch:
        blank = (None,) * len(self._fields)
        columns = [
            pa.array(column, arrow_type(field.type))
            for column, field in zip(_turned(self._rows, len(_COLUMNS)), _COLUMNS, strict=True)
        ]
        whole = [blank if one is None else one for one in self._events]
        parts = [
            pa.array(column, arrow_type(field.type))
            for column, field in zip(_turned(whole, len(blank)), self._fields, strict=True)
        ]
        absent = pa.array([one is None for one in self._events], pa.bool_())
        event = pa.StructArray.from_arrays(parts, fields=list(arrow_struct(self._fields)), mask=absent)
        batch = pa.record_batch([*columns, event], schema=self._schema)
        self._rows, self._events, self._bytes = [], [], 0
        return batch


def _turned(rows: Sequence[tuple[Any, ...]], width: int) -> list[tuple[Any, ...]]:
    return list(zip(*rows, strict=True)) if rows else [()] * width


_STAGES = {Lane.EVENTS: "ingest", Lane.STRAYS: "ingest", Lane.REFUSED: "firehose"}


def quarantine_rows(records: DataFrame, *, dataset: str, lane: Lane, batch: str, moment_ms: int) -> DataFrame:
    """The refused among judged records, with the columns of the quarantine table in their order.

    Args:
        records: of `judged_records`.
        dataset: dataset of the stream.
        lane: lane they came by, which tells the stage that refused them.
        batch: the batch that puts them there.
        moment_ms: when it was planned, milliseconds since 1970.
    """
    return records.where("reason IS NOT NULL").select(
        F.timestamp_millis(F.lit(moment_ms)).alias("quarantined_at"),
        F.lit(dataset).alias("dataset"),
        "tenant",
        F.coalesce("stage", F.lit(_STAGES[lane])).alias("stage"),
        *("reason", "message", F.col("raw").alias("payload"), "object", "position"),
        *("event_id", "producer_id", "sequence", "arrival_time"),
        F.lit(batch).alias("_batch"),
    )
