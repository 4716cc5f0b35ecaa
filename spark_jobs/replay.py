"""Owns replay: quarantined records, and what Firehose refused, sent round again after a fix, once, as who they were.

A record is judged by the contract as it is now. One that would become a row is written, byte for byte as it was
received, into the stream's `processed/` prefix of its tenant, from where ingest takes it as any other; its event id,
producer and sequence number are its own. One that would be refused again stays where it is, and is told.

The records that one batch had put into quarantine become one object, or several of 10,000 records or 64 MiB of
lines, for each tenant and day. Its key is made of the records it holds: a replay that was killed and is started again
writes the same objects, of which ingest takes each once. Then the manifest notes the records, and no later replay takes
them.
"""

from __future__ import annotations

import gzip
import hashlib
import time
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import groupby, islice
from typing import TYPE_CHECKING, Any

import orjson
from botocore.exceptions import ClientError
from pyspark.sql import functions as F  # noqa: N812 - as Spark's users know it

from lake.defaults import now, silent
from lake.documents import is_there_already
from lake.envelope import ENVELOPE
from lake.erasure import tombstone
from lake.errors import TerminalError, known_values
from lake.manifest import Arrival, Lane, Manifest
from lake.names import Names, day_folders
from lake.tables import QUARANTINE, glue_catalog, load_table
from spark_jobs.failures import spoken
from spark_jobs.records import Judge, Reason, Row
from spark_jobs.session import CATALOG
from spark_jobs.tombstones import erased_among

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from pyspark.sql import SparkSession

    from lake.clients import Cloud
    from lake.declaration import Lake, Stream

__all__ = ["ReplayReport", "run"]

_RECORDS, _LINE_BYTES = 10_000, 64 * 2**20  # in one object, as it is unpacked
_ASKED = 2_000  # records looked up in the manifest at a time
_EVENT_ID, _EVENT_TIME = ENVELOPE.index("event_id"), ENVELOPE.index("event_time")
_WHOSE = ["event_id", "tenant"]
_COLUMNS = ("payload", "object", "position", "_batch", *_WHOSE)


@dataclass
class ReplayReport:
    """What a replay did, or would do."""

    found: int = 0
    """Records in quarantine that were asked for."""
    replayed: Counter[str] = field(default_factory=Counter)
    """Sent round again, by tenant."""
    objects: list[str] = field(default_factory=list)
    """Objects written, `s3://…`."""
    already: int = 0
    """Sent round by an earlier replay, or their events are in the table."""
    erased: int = 0
    """Of events that were erased."""
    stay: Counter[str] = field(default_factory=Counter)
    """Would be refused again, by reason as of now."""
    seconds: float = 0.0

    @property
    def total(self) -> int:
        """Records sent round again."""
        return self.replayed.total()


@dataclass(frozen=True)
class _Record:
    """One row of a quarantine table."""

    digest: str
    """Of the place it was found in, which is its own: object and line."""
    batch: str
    payload: bytes | None
    in_table: bool


@dataclass(frozen=True, order=True)
class _Fit:
    """A record that would become a row."""

    tenant: str
    day: str
    """`year=…/month=…/day=…/`."""
    digest: str
    event_id: str
    line: bytes


def run(
    spark: SparkSession,
    lake: Lake,
    cloud: Cloud,
    *,
    dataset: str,
    reason: str,
    tenant: str | None = None,
    since: datetime | None = None,
    dry_run: bool = False,
    clock: Callable[[], datetime] = now,
    say: Callable[[str], None] = silent,
    after: Callable[[str], None] = silent,
) -> ReplayReport:
    """Send round again what a reason had refused.

    Args:
        spark: a session of `create_session`.
        lake: the declaration.
        cloud: where the lake is.
        dataset: whose records.
        reason: reason code, ingest's or Firehose's.
        tenant: only records that claim this tenant.
        since: only what was quarantined then or later; aware.
        dry_run: only tell.
        clock: "now" for the contract's limit of clock skew.
        say: takes a line about each object.
        after: called with `object`, `arrived`, `noted` after each step of an object; tests stop it there.

    Raises:
        DeclarationError: the dataset or tenant isn't declared.
        TerminalError: no stage has such a reason.
    """
    started = time.monotonic()
    lake.dataset(dataset)
    asked = lake.stream_of(dataset, tenant) if tenant is not None else None
    streams = [asked] if asked else [one for one in lake.streams() if one.dataset.name == dataset]
    manifest = Manifest(cloud.dynamodb, lake.names.manifest_table())
    job = _Replay(spark, lake, cloud, manifest, reason, tenant, since, dry_run, clock(), say, after, ReplayReport())
    with spoken(f"replay of {dataset}"):
        known = {name for one in streams for table in job.tables(one) for name in job.reasons(one, table)}
        if reason not in known | set(Reason):
            raise TerminalError(f"reason: {known_values(reason, known)} (reasons in the quarantine of {dataset})")
        for stream in streams:
            for table in job.tables(stream):
                job.replay(stream, table)
    job.report.seconds = time.monotonic() - started
    return job.report


@dataclass(frozen=True)
class _Replay:
    spark: SparkSession
    lake: Lake
    cloud: Cloud
    manifest: Manifest
    reason: str
    tenant: str | None
    since: datetime | None
    dry_run: bool
    now: datetime
    say: Callable[[str], None]
    after: Callable[[str], None]
    report: ReplayReport

    def tables(self, stream: Stream) -> Iterator[str]:
        """Quarantine tables, `database.table`, that what came by a stream lies in: its tenants', and its owner's."""
        tenants = stream.tenants if self.tenant is None else (self.tenant,)
        catalog = glue_catalog(self.cloud)
        for owner in dict.fromkeys((*tenants, stream.owner)):
            database = self.lake.names.database(owner)
            if load_table(catalog, (database, QUARANTINE)) is not None:
                yield f"{database}.{QUARANTINE}"

    def reasons(self, stream: Stream, table: str) -> set[str]:
        """Reasons that a quarantine table has for a stream's dataset."""
        rows = self.spark.table(f"{CATALOG}.{table}").where(F.col("dataset") == stream.dataset.name)
        return {str(row["reason"]) for row in rows.select("reason").distinct().collect()}

    def replay(self, stream: Stream, table: str) -> None:
        """Send round what a quarantine table holds."""
        for _, records in groupby(self._records(stream, table), key=lambda one: one.batch):
            # one object is of one batch, tenant and day, whatever was asked for
            for place, group in groupby(self._fitting(stream, records), key=lambda one: (one.tenant, one.day)):
                for chunk in _chunks(group):
                    self._write(stream, place, chunk)

    def _records(self, stream: Stream, table: str) -> Iterator[_Record]:
        rows = self.spark.table(f"{CATALOG}.{table}")
        rows = rows.where((F.col("dataset") == stream.dataset.name) & (F.col("reason") == self.reason))
        if self.tenant is not None:
            rows = rows.where(F.col("tenant") == self.tenant)
        if self.since is not None:
            rows = rows.where(F.col("quarantined_at") >= F.lit(self.since.isoformat()).cast("timestamp"))
        rows = rows.select(*_COLUMNS)
        events = [
            self.spark.table(f"{CATALOG}.{self.lake.names.database(one)}.{stream.dataset.name}").select(
                "event_id", F.lit(one).alias("tenant")
            )
            for one in stream.tenants
            if self.tenant in {None, one}
        ]
        there = events[0]
        for other in events[1:]:
            there = there.unionAll(other)
        # of a large table no more than the ids is read, and only those that were asked for are kept; another tenant's
        # event may have the same id
        ids = rows.select(*_WHOSE).dropDuplicates()
        there = there.join(F.broadcast(ids), _WHOSE, "left_semi").dropDuplicates()
        there = there.withColumn("in_table", F.lit(True))
        joined = rows.join(there, _WHOSE, "left").orderBy("_batch", "object", "position")
        for row in joined.toLocalIterator(prefetchPartitions=True):
            yield _Record(
                digest=_digest(row["object"], row["position"]),
                batch=row["_batch"],
                payload=None if row["payload"] is None else bytes(row["payload"]),
                in_table=bool(row["in_table"]),
            )

    def _fitting(self, stream: Stream, records: Iterable[_Record]) -> list[_Fit]:
        """The records of a batch that would become rows, in the order of their objects."""
        judges = {one: Judge(stream.dataset.contract, one, self.now).judge for one in stream.tenants}
        fits: list[_Fit] = []
        rest = iter(records)
        while asked := list(islice(rest, _ASKED)):
            self.report.found += len(asked)
            gone = self.manifest.replayed(stream.owner, stream.dataset.name, {one.digest for one in asked})
            for one in asked:
                if one.in_table or one.digest in gone:
                    self.report.already += 1
                elif (fit := self._judged(one, judges)) is not None:
                    fits.append(fit)
        return sorted(self._living(stream, fits))

    def _judged(self, one: _Record, judges: Mapping[str, Callable[[bytes], Any]]) -> _Fit | None:
        if one.payload is None:
            self.report.stay[Reason.UNREADABLE_OBJECT] += 1  # the object as a whole was refused
            return None
        record = _parsed(one.payload)
        if record is None:
            self.report.stay[Reason.MALFORMED_JSON] += 1
            return None
        # Firehose took a record's tenant from itself, and so does this; a stream writes to no tenant it doesn't carry
        claimed = str(record.get("tenant"))
        if claimed not in judges:
            self.report.stay[Reason.UNKNOWN_TENANT] += 1
            return None
        fate = judges[claimed](one.payload)
        if not isinstance(fate, Row):
            self.report.stay[fate.reason] += 1
            return None
        moment: datetime = fate.values[_EVENT_TIME]
        day = day_folders(moment.astimezone(UTC))
        # a line end in valid JSON is a space, and would end the line of an object
        line = one.payload.strip().replace(b"\n", b" ")
        return _Fit(claimed, day, one.digest, str(fate.values[_EVENT_ID]), line)

    def _living(self, stream: Stream, fits: list[_Fit]) -> list[_Fit]:
        kept: list[_Fit] = []
        for tenant in {one.tenant for one in fits}:
            theirs = [one for one in fits if one.tenant == tenant]
            ids = [one.event_id for one in theirs]
            gone = erased_among(self.manifest, tenant, stream.dataset.name, (min(ids), max(ids)))
            living = [one for one in theirs if tombstone(one.event_id)[1] not in gone]
            self.report.erased += len(theirs) - len(living)
            kept += living
        return kept

    def _write(self, stream: Stream, place: tuple[str, str], chunk: list[_Fit]) -> None:
        tenant, day = place
        self.report.replayed[tenant] += len(chunk)
        if self.dry_run:
            return
        digests = [one.digest for one in chunk]
        name = hashlib.sha256("\n".join(digests).encode()).hexdigest()[:32]
        key = f"{Names.processed_prefix(stream.dataset.name, tenant)}{day}replay-{name}.gz"
        body = gzip.compress(b"".join(one.line + b"\n" for one in chunk), mtime=0)
        try:
            self.cloud.s3.put_object(Bucket=stream.bucket, Key=key, Body=body, IfNoneMatch="*")
        except ClientError as error:
            if not is_there_already(error):
                raise
            # a replay that was killed had come this far
        self.after("object")
        uri = f"s3://{stream.bucket}/{key}"
        # S3 tells of it too, unless it was there; noted twice is noted once
        arrival = Arrival(stream.owner, stream.dataset.name, Lane.EVENTS, tenant, uri, len(body))
        self.manifest.arrived(self.manifest.unknown([arrival]))
        self.after("arrived")
        self.manifest.note_replayed(stream.owner, stream.dataset.name, digests)
        self.after("noted")
        self.report.objects.append(uri)
        self.say(f"object {uri}: {len(chunk):,} records sent round again")


def _chunks(fits: Iterable[_Fit]) -> Iterator[list[_Fit]]:
    """Records in parts that one object each has room for; at least one in each."""
    chunk: list[_Fit] = []
    size = 0
    for one in fits:
        size += len(one.line) + 1
        if chunk and (len(chunk) == _RECORDS or size > _LINE_BYTES):
            yield chunk
            chunk, size = [], len(one.line) + 1
        chunk.append(one)
    if chunk:
        yield chunk


def _digest(uri: str, position: int | None) -> str:
    return hashlib.sha256(f"{uri}#{position}".encode()).hexdigest()[:32]


def _parsed(payload: bytes) -> dict[str, Any] | None:
    try:
        record = orjson.loads(payload)
    except ValueError:
        return None
    return record if type(record) is dict else None
