"""Owns the three lanes a stream's objects come by, and how each judges its records.

An object is fetched, unpacked, judged and turned into Arrow's columns by the Python worker that has its bytes. Parsing
by Spark's own functions (VARIANT) was measured first: as strict as this, the ingest of 337,000 events took 110 s of
processor time where judging line by line took 56 s.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

import orjson
from pyspark.sql import functions as F  # noqa: N812 - as Spark's users know it

from lake.contract import Field, Primitive
from lake.envelope import Identity, salvage
from lake.error_record import ErrorRecord
from lake.manifest import NO_TENANT, Lane
from spark_jobs.fast_judge import FastJudge
from spark_jobs.records import ENVELOPE_FIELDS, Judge, Reason, Refusal, Row
from spark_jobs.sheets import Judged

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pyspark.sql import DataFrame

    from lake.contract import Contract

__all__ = ["Events", "Refused", "Rules", "Strays", "quarantine_rows"]

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST_MS = 253_402_300_799_999  # the end of the year 9999
_STRING = Primitive("string")
_FAILED_BY_FUNCTION = "Lambda.ProcessingFailedStatus"


class Rules(Protocol):
    """How a lane judges its records."""

    @property
    def fields(self) -> tuple[Field, ...]:
        """Columns of an event that becomes a row."""
        ...

    def judge(self) -> Callable[[bytes], Judged]:
        """The function that judges one record; made anew in each worker."""
        ...

    def fast_judge(self) -> FastJudge | None:
        """The same for many lines at once, where the lane has that."""
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

    def fast_judge(self) -> FastJudge | None:
        """By the contract too."""
        latest = _moment(self.planned_at_ms + self.contract.skew_minutes * 60_000)
        return FastJudge(self.contract, self.tenant, latest) if latest else None

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

    def fast_judge(self) -> FastJudge | None:
        """None."""
        return None

    def tenant_of_object(self) -> str | None:
        """The prefix's tenant, if it names one."""
        return None if self.tenant == NO_TENANT else self.tenant


@dataclass(frozen=True)
class Refused:
    """Refused by Firehose, or by a job before ingest: unwrapped from error records."""

    producers: Mapping[str, str]
    """Tenant by producer id, of producers with a ledger: what lost its tenant on its way is their tenant's."""
    contract: Contract
    carried: tuple[str, ...]
    """Tenants of the stream."""
    planned_at_ms: int
    """The moment that "now" is for its records."""

    @property
    def fields(self) -> tuple[Field, ...]:
        """No record becomes a row; Spark wants a column all the same."""
        return (Field("nothing", _STRING),)

    def judge(self) -> Callable[[bytes], Judged]:
        """Refuse, with the reason that the error record gives, or the one that a stream's function couldn't give."""
        now = _EPOCH + timedelta(milliseconds=self.planned_at_ms)

        def judge(line: bytes) -> Judged:
            try:
                record = ErrorRecord.parse(line)
            except ValueError as error:
                told = f"the line of the error object is no error record: {error}"
                return Judged(Refusal(Reason.MALFORMED_ERROR_RECORD, told, Identity()), None, line)
            who = record.identity
            owner = self.producers.get(who.producer_id) if who.producer_id else None
            fate = Refusal(record.code, record.message, who)
            if record.code == _FAILED_BY_FUNCTION:
                # all that Firehose keeps of it; our function fails what ingest refuses
                found = Judge(self.contract, who.tenant or "", now).judge(_versioned(record.raw, self.contract))
                if isinstance(found, Refusal):
                    fate = Refusal(found.reason, found.message, who)
                elif who.tenant not in self.carried:
                    told = f"the record says tenant {who.tenant}, and the stream carries: {', '.join(self.carried)}"
                    fate = Refusal(Reason.UNKNOWN_TENANT, told, who)
            return Judged(fate, who.tenant or owner, record.raw, _moment(record.arrival_ms), record.stage)

        return judge

    def fast_judge(self) -> FastJudge | None:
        """None."""
        return None

    def tenant_of_object(self) -> str | None:
        """Its records' tenants can't be known."""
        return None


def _versioned(raw: bytes, contract: Contract) -> bytes:
    """An event as the function saw it: with the contract's version where it has none."""
    try:
        record = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return raw
    if type(record) is not dict or not record or "schema_version" in record:
        return raw
    return f'{{"schema_version":"{contract.version}",'.encode() + raw.lstrip()[1:]


def _moment(milliseconds: int | None) -> datetime | None:
    if milliseconds is None or not 0 <= milliseconds <= _LATEST_MS:
        return None
    return _EPOCH + timedelta(milliseconds=milliseconds)


_ROWS_OF_A_FILE = 100_000  # of the quarantine table, about
_STAGES = {Lane.EVENTS: "ingest", Lane.STRAYS: "ingest", Lane.REFUSED: "firehose"}


def quarantine_rows(
    records: DataFrame, *, dataset: str, lane: Lane, batch: str, moment_ms: int, count: int
) -> DataFrame:
    """Refused records, with the columns of the quarantine table in their order, a part for each of its files.

    Args:
        records: of `Kept.refused`.
        dataset: dataset of the stream.
        lane: lane they came by, which tells the stage that refused them.
        batch: the batch that puts them there.
        moment_ms: when it was planned, milliseconds since 1970.
        count: how many they are.
    """
    made = records.select(
        F.timestamp_millis(F.lit(moment_ms)).alias("quarantined_at"),
        F.lit(dataset).alias("dataset"),
        "tenant",
        F.coalesce("stage", F.lit(_STAGES[lane])).alias("stage"),
        *("reason", "message", F.col("raw").alias("payload"), "object", "position"),
        *("event_id", "producer_id", "sequence", "arrival_time"),
        F.lit(batch).alias("_batch"),
    )
    return made.coalesce(1 + count // _ROWS_OF_A_FILE)
