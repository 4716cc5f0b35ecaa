"""Owns the audit: the balance sheet of every record, from the producer that sent it to the row it became.

Two sums have to hold for each tenant:

- sent + redelivered + unidentified = dead-lettered + waiting + refused + delivered + in flight;
- delivered = ingested + duplicates + quarantined, and the tables hold just as many rows.

What was *sent* is known from the producers' ledgers, and which of it *arrived* from the gapless sequence numbers that
every batch notes down. A number that neither arrived nor waits anywhere is missing, and the sheet names its producer.
"Redelivered" is what arrived more than once, which at-least-once delivery allows; "unidentified" arrived without a
readable producer and sequence, so no ledger can know it.
"""

from __future__ import annotations

import gzip
import json
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from lake.arrivals import Arrivals
from lake.envelope import Identity, salvage
from lake.error_record import ErrorRecord
from lake.errors import FindingError
from lake.manifest import Counts, Lane, Manifest, ProducerLedger
from lake.ranges import Ranges
from lake.tables import QUARANTINE, glue_catalog, load_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from lake.clients import Cloud
    from lake.declaration import Lake, Stream

__all__ = ["Evidence", "Gap", "Row", "Sheet", "TableCheck", "balance", "gather"]

_GZIP = b"\x1f\x8b"


@dataclass(frozen=True)
class Gap:
    """Sequence numbers of a producer that arrived nowhere."""

    tenant: str
    producer_id: str
    sequences: Ranges


@dataclass(frozen=True)
class TableCheck:
    """Rows that a table holds beside the rows that the batches say they wrote."""

    table: str
    rows: int
    by_batches: int
    """Without those that erasures took out."""
    erased: int = 0


@dataclass(frozen=True)
class Evidence:
    """What one dataset's audit goes by."""

    dataset: str
    tenants: tuple[str, ...]
    """Declared tenants."""
    ledgers: tuple[ProducerLedger, ...]
    counts: Mapping[str, Counts]
    """Sum of all batches, by tenant as the records claim."""
    seen: Mapping[tuple[str, str], Ranges]
    """Sequence numbers that batches held, by (tenant, producer)."""
    landed: Mapping[tuple[str, str], Ranges]
    """Sequence numbers in objects that no batch has taken yet."""
    buffered: Mapping[tuple[str, ...], int]
    """Records in a stream's buffers, by the tenants that the stream carries, where the server tells."""
    tables: tuple[TableCheck, ...]


@dataclass(frozen=True)
class Row:
    """One tenant's line of the sheet."""

    tenant: str
    sent: int = 0
    acknowledged: int = 0
    waiting: int = 0
    """In the producers' spools."""
    dead_lettered: int = 0
    """Could never be sent; in the producers' dead letters."""
    refused: int = 0
    """Before ingest, by Firehose or the files job; in quarantine."""
    delivered: int = 0
    ingested: int = 0
    duplicates: int = 0
    quarantined: int = 0
    redelivered: int = 0
    unidentified: int = 0
    in_flight: int = 0
    """Acknowledged, and in a buffer or an object that no batch has taken."""
    difference: int = 0
    """Records that nothing accounts for. Zero is balanced."""


@dataclass(frozen=True)
class Sheet:
    """The balance sheet of one dataset."""

    dataset: str
    rows: tuple[Row, ...]
    gaps: tuple[Gap, ...]
    tables: tuple[TableCheck, ...] = field(default_factory=tuple)

    @property
    def total(self) -> Row:
        """All tenants in one line."""
        numbers = [name for name in Row.__dataclass_fields__ if name != "tenant"]
        return Row("total", **{name: sum(getattr(row, name) for row in self.rows) for name in numbers})

    @property
    def balanced(self) -> bool:
        """Whether every record is accounted for."""
        return all(row.difference == 0 for row in self.rows) and all(t.rows == t.by_batches for t in self.tables)


def balance(evidence: Evidence) -> Sheet:
    """Draw up the sheet; pure."""
    claimed = {*evidence.counts, *(tenant for tenant, _ in evidence.seen), *(one.tenant for one in evidence.ledgers)}
    others = sorted(claimed - set(evidence.tenants))
    buffered = dict(evidence.buffered)
    rows: list[Row] = []
    gaps: list[Gap] = []
    for tenant in (*evidence.tenants, *others):
        row, found = _row(evidence, tenant, buffered)
        rows.append(row)
        gaps += found
    return Sheet(evidence.dataset, tuple(rows), tuple(gaps), evidence.tables)


def _row(evidence: Evidence, tenant: str, buffered: dict[tuple[str, ...], int]) -> tuple[Row, list[Gap]]:
    counts = evidence.counts.get(tenant, Counts())
    ledgers = {one.producer_id: one for one in evidence.ledgers if one.tenant == tenant}
    producers = sorted({*ledgers, *(producer for owner, producer in evidence.seen if owner == tenant)})
    distinct = sent = waiting = landed = missing = 0
    gaps: list[Gap] = []
    for producer in producers:
        seen = evidence.seen.get((tenant, producer), Ranges())
        distinct += len(seen)
        ledger = ledgers.get(producer)
        # without a ledger, what a producer sent is known up to the last number that arrived
        end = ledger.sent if ledger else (seen.spans[-1][1] + 1 if seen.spans else 0)
        sent += end
        unseen = (seen | (ledger.dead_letters if ledger else Ranges())).missing_below(end)
        here = len(unseen)
        landed_here = len(unseen & evidence.landed.get((tenant, producer), Ranges()))
        landed += landed_here
        in_spool = min(here - landed_here, ledger.sent - ledger.acknowledged - ledger.dead_lettered if ledger else 0)
        waiting += in_spool
        rest = here - landed_here - in_spool
        missing += rest
        if rest:
            gaps.append(Gap(tenant, producer, unseen))
    for carried, records in buffered.items():
        if tenant in carried and missing:
            explained = min(records, missing)
            buffered[carried] -= explained
            missing -= explained
            landed += explained
    if not missing:
        gaps = []
    delivered = counts.records - counts.refused
    fates = counts.ingested + counts.duplicates + counts.quarantined
    row = Row(
        tenant=tenant,
        sent=sent,
        acknowledged=sum(one.acknowledged for one in ledgers.values()),
        waiting=waiting,
        dead_lettered=sum(one.dead_lettered for one in ledgers.values()),
        refused=counts.refused,
        delivered=delivered,
        ingested=counts.ingested,
        duplicates=counts.duplicates,
        quarantined=counts.quarantined,
        redelivered=counts.records - counts.unidentified - distinct,
        unidentified=counts.unidentified,
        in_flight=landed,
        difference=missing + abs(delivered - fates),
    )
    return row, gaps


def gather(lake: Lake, cloud: Cloud, dataset: str) -> Evidence:
    """Collect the evidence of one dataset from the manifest, the buckets, the tables and, where local, the server."""
    manifest = Manifest(cloud.dynamodb, lake.names.manifest_table())
    streams = [one for one in lake.streams() if one.dataset.name == dataset]
    # what S3 has told of by now is noted first, so that it counts as in flight
    Arrivals(lake, cloud, manifest, _silent).collect(streams, datetime.now(UTC))
    counts: dict[str, Counts] = {}
    seen: dict[tuple[str, str], Ranges] = {}
    landed: dict[tuple[str, str], Ranges] = {}
    wrote: dict[str, int] = {}
    for stream in streams:
        for batch, figures in manifest.batches(stream.owner, dataset):
            into = lake.names.database(batch.tenant) if batch.lane is Lane.EVENTS else stream.database
            for tenant, one in figures.by_tenant.items():
                counts[tenant] = counts.get(tenant, Counts()) + one
                rows, kept = f"{into}.{dataset}", f"{into}.{QUARANTINE}"
                wrote[rows] = wrote.get(rows, 0) + one.ingested
                wrote[kept] = wrote.get(kept, 0) + one.quarantined + one.refused
            for (tenant, producer, _), ranges in figures.seen.items():
                seen[tenant, producer] = seen.get((tenant, producer), Ranges()) | ranges
        for key, ranges in _landed(cloud, manifest, stream).items():
            landed[key] = landed.get(key, Ranges()) | ranges
    return Evidence(
        dataset=dataset,
        tenants=tuple(one.id for one in lake.tenants),
        ledgers=tuple(ledger for one in lake.tenants for ledger in manifest.ledgers(one.id, dataset)),
        counts=counts,
        seen=seen,
        landed=landed,
        buffered=_buffered(cloud, streams),
        tables=tuple(_table_checks(lake, cloud, dataset, wrote, _erased(lake, manifest, dataset))),
    )


def _silent(_: str) -> None:
    """Say nothing."""


def _landed(cloud: Cloud, manifest: Manifest, stream: Stream) -> dict[tuple[str, str], Ranges]:
    """Sequence numbers in the objects that no batch has taken; only these objects are read."""
    spans: dict[tuple[str, str], list[tuple[int, int]]] = {}
    for lane, tenant in manifest.waiting_series(stream.owner, stream.dataset.name):
        waiting = manifest.waiting(stream.owner, stream.dataset.name, lane, tenant)
        taken = {one.uri for one in manifest.taken_of(waiting)}
        identify = _refused_identity if lane is Lane.REFUSED else salvage
        for line in (line for one in waiting if one.uri not in taken for line in _lines(cloud, one.uri)):
            who = identify(line)
            if who.tenant and who.producer_id and who.sequence is not None:
                spans.setdefault((who.tenant, who.producer_id), []).append((who.sequence, who.sequence))
    return {key: Ranges.of(found) for key, found in spans.items()}


def _lines(cloud: Cloud, uri: str) -> list[bytes]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    body = cloud.s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    return (gzip.decompress(body) if body[:2] == _GZIP else body).splitlines()


def _refused_identity(line: bytes) -> Identity:
    try:
        return ErrorRecord.parse(line).identity
    except ValueError:
        return Identity()  # ingest quarantines it for that


def _buffered(cloud: Cloud, streams: Iterable[Stream]) -> dict[tuple[str, ...], int]:
    """Ask our own Firehose server what its buffers hold; AWS doesn't tell, and its buffers empty by themselves."""
    if not cloud.endpoint:
        return {}
    try:
        with urllib.request.urlopen(f"{cloud.endpoint}/_lakehose/firehose/status", timeout=10) as answer:  # noqa: S310
            status = json.load(answer)
    except urllib.error.HTTPError:
        return {}  # an endpoint that is not ours
    except (urllib.error.URLError, TimeoutError) as error:
        raise FindingError(
            f"endpoint {cloud.endpoint}: no answer ({error}); is it up? `lakehose local status`"
        ) from None
    told = status["streams"]
    return {one.tenants: int(told[one.name]["pendingRecords"]) for one in streams if one.name in told}


def _erased(lake: Lake, manifest: Manifest, dataset: str) -> dict[str, int]:
    """Rows that erasures took out, by table: each table is one owner's."""
    return {table: rows for owner in lake.owners() for table, rows in manifest.erased_rows(owner, dataset).items()}


def _table_checks(
    lake: Lake, cloud: Cloud, dataset: str, wrote: Mapping[str, int], erased: Mapping[str, int]
) -> Iterator[TableCheck]:
    catalog = glue_catalog(cloud)
    # the quarantine table is shared by an owner's datasets: it is only compared where this is its one dataset
    tables = (dataset, QUARANTINE) if len(lake.datasets) == 1 else (dataset,)
    for owner in lake.owners():
        for name in tables:
            identifier = (lake.names.database(owner), name)
            table = load_table(catalog, identifier)
            if table is None:
                continue
            snapshot = table.current_snapshot()
            summary = snapshot.summary if snapshot else None
            rows = int(summary["total-records"] or 0) if summary else 0
            whole = ".".join(identifier)
            gone = erased.get(whole, 0)
            yield TableCheck(whole, rows, wrote.get(whole, 0) - gone, gone)
