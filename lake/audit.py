"""Owns the audit: collecting what is known of every record, from the producer that sent it to the row it became.

What was *sent* is known from the producers' ledgers, and which of it *arrived* from the gapless sequence numbers that
every batch notes down. A number that neither arrived nor waits anywhere is missing, and the sheet names its producer.
"Redelivered" is what arrived more than once, which at-least-once delivery allows; "unidentified" arrived without a
readable producer and sequence, so no ledger can know it.

The road is gone along in its own direction: ledgers, buffers, objects, batches, tables. A record that moves on
meanwhile is met again further on, where it is known for the same, and none is missed.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING

from lake.arrivals import Arrivals
from lake.audit_sheet import DayEvidence, DayRow, Evidence, Gap, Row, Sheet, TableCheck, Unread, balance
from lake.books import FOLD_EVERY, Books
from lake.defaults import now, silent
from lake.envelope import Identity, made_day, salvage
from lake.error_record import ErrorRecord
from lake.errors import FindingError
from lake.figures import Counts, Figures, summed
from lake.lines import LINE_BYTES, Block, LongLine, Source
from lake.manifest import BatchId, Lane, Manifest
from lake.ranges import Ranges
from lake.tables import QUARANTINE, glue_catalog, load_table

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from datetime import date

    from pyiceberg.table import Table

    from lake.books import Account
    from lake.clients import Cloud
    from lake.declaration import Lake, Stream
    from lake.lines import Broken

__all__ = ["DayEvidence", "DayRow", "Evidence", "Gap", "Row", "Sheet", "TableCheck", "Unread", "balance", "gather"]

_LOOKS = 3  # at the batches and tables, where they don't agree
_BATCH_KEYS = ("published-wap-id", "wap.id")
"""In the summary of a snapshot: the batch it is of."""


def gather(lake: Lake, cloud: Cloud, dataset: str, *, by_day: bool = False, since: date | None = None) -> Evidence:
    """Collect the evidence of one dataset from the manifest, the buckets, the tables and, where local, the server.

    Its cost doesn't grow with the batches there ever were: most of them are read as sums.

    Args:
        lake: the declaration.
        cloud: where the lake is.
        dataset: the dataset.
        by_day: what the days need too.
        since: no earlier days; those that can't be told are always there.
    """
    manifest = Manifest(cloud.dynamodb, lake.names.manifest_table())
    streams = [one for one in lake.streams() if one.dataset.name == dataset]
    ledgers = tuple(ledger for one in lake.tenants for ledger in manifest.ledgers(one.id, dataset))
    buffered = _buffered(cloud, streams)
    # what S3 has told of by now is noted first, so that it counts as in flight
    Arrivals(lake, cloud, manifest, silent).collect(streams, now())
    landed: dict[tuple[str, str, str], Ranges] = {}
    unread: list[Unread] = []
    waiting: set[str] = set()
    for stream in streams:
        for lane, tenant in manifest.waiting_series(stream.owner, dataset):
            waiting.add(BatchId(stream.owner, dataset, lane, tenant, 0).series)
            found, broken = _landed(cloud, manifest, stream, lane, tenant)
            unread += broken
            for key, ranges in found.items():
                landed[key] = landed.get(key, Ranges()) | ranges
    day = since.isoformat() if since else None
    for _ in range(_LOOKS):
        accounts = [one for stream in streams for one in _accounts(lake, cloud, stream, by_day=by_day, since=day)]
        erased = _erased(lake, manifest, dataset)
        tables = tuple(_table_checks(lake, cloud, dataset, accounts, erased=erased, waiting=waiting))
        if all(one.rows == one.by_batches for one in tables):
            break  # else a batch may have come to its end between the two looks
    whole = summed(one.total for one in accounts)
    of_days = summed(one.days for one in accounts)
    return Evidence(
        dataset=dataset,
        tenants=tuple(one.id for one in lake.tenants),
        ledgers=ledgers,
        counts=whole.by_tenant,
        seen={(tenant, producer): ranges for (tenant, producer, _), ranges in whole.seen.items()},
        landed={key[:2]: ranges for key, ranges in Figures(seen=landed).without_days().seen.items()},
        buffered=buffered,
        tables=tables,
        unread=tuple(unread),
        days=DayEvidence(of_days.counts, of_days.seen, landed, day) if by_day else None,
    )


def _accounts(lake: Lake, cloud: Cloud, stream: Stream, *, by_day: bool, since: str | None) -> list[Account]:
    books = Books(cloud.dynamodb, lake.names.manifest_table())
    found = books.accounts(stream.owner, stream.dataset.name, days=by_day, since=since)
    for one in found:
        if one.behind > FOLD_EVERY:
            books.fold(one.series, at_least=FOLD_EVERY)  # for the next audit
    return found


def _wrote(lake: Lake, accounts: Iterable[Account]) -> dict[str, int]:
    """Rows that batches wrote, by table (`database.table`)."""
    found: dict[str, int] = {}
    for account in accounts:
        batch = account.series
        owner = batch.tenant if batch.lane is Lane.EVENTS else batch.owner
        total = sum(account.total.by_tenant.values(), Counts())
        for table, rows in ((batch.dataset, total.ingested), (QUARANTINE, total.quarantined + total.refused)):
            name = f"{lake.names.database(owner)}.{table}"
            found[name] = found.get(name, 0) + rows
    return found


def _landed(
    cloud: Cloud, manifest: Manifest, stream: Stream, lane: Lane, tenant: str
) -> tuple[dict[tuple[str, str, str], Ranges], list[Unread]]:
    """Numbers by (tenant, producer, day) in a series' objects that no batch has taken; only these objects are read.

    What can't be read is refused by ingest as nobody's, so its numbers are here nobody's too, and it is told.
    """
    spans: dict[tuple[str, str, str], list[tuple[int, int]]] = {}
    unread: list[Unread] = []
    waiting = manifest.waiting(stream.owner, stream.dataset.name, lane, tenant)
    taken = {one.uri for one in manifest.taken_of(waiting)}
    identify = _refused_identity if lane is Lane.REFUSED else salvage
    for uri in (one.uri for one in waiting if one.uri not in taken):
        for piece in Source(cloud.s3, uri).pieces():
            if not isinstance(piece, Block):
                unread.append(Unread(tenant, uri, _problem(piece)))
                continue
            for who in (identify(line) for _, line in piece.lines()):
                if who.tenant and who.producer_id and who.sequence is not None:
                    key = (who.tenant, who.producer_id, made_day(who.event_id))
                    spans.setdefault(key, []).append((who.sequence, who.sequence))
    return {key: Ranges.of(found) for key, found in spans.items()}, unread


def _problem(piece: LongLine | Broken) -> str:
    if isinstance(piece, LongLine):
        return f"line {piece.position} has {piece.size:,} bytes, allowed are {LINE_BYTES:,}"
    return piece.problem


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
    lake: Lake,
    cloud: Cloud,
    dataset: str,
    accounts: list[Account],
    *,
    erased: Mapping[str, int],
    waiting: Collection[str],
) -> Iterator[TableCheck]:
    catalog, wrote = glue_catalog(cloud), _wrote(lake, accounts)
    numbers = {one.series.series: one.series.number for one in accounts}
    next_batches = {f"{series}/{numbers.get(series, 0) + 1}" for series in waiting}
    # the quarantine table is shared by an owner's datasets: it is only compared where this is its one dataset
    tables = (dataset, QUARANTINE) if len(lake.datasets) == 1 else (dataset,)
    for owner in lake.owners():
        for name in tables:
            identifier = (lake.names.database(owner), name)
            table = load_table(catalog, identifier)
            if table is None:
                continue
            whole = ".".join(identifier)
            gone = erased.get(whole, 0)
            yield TableCheck(whole, _rows(table, next_batches), wrote.get(whole, 0) - gone, gone)


def _rows(table: Table, next_batches: Collection[str]) -> int:
    """Rows of a table, without those of a batch that has no receipt yet and whose objects still count as in flight."""
    by_id = {one.snapshot_id: one for one in table.metadata.snapshots}
    snapshot = table.current_snapshot()
    rows = int(snapshot.summary["total-records"] or 0) if snapshot and snapshot.summary else 0
    while snapshot is not None:
        told = snapshot.summary.additional_properties if snapshot.summary else {}
        if next((told[key] for key in _BATCH_KEYS if told.get(key)), "") in next_batches:
            rows -= int(told.get("added-records", "0"))
        snapshot = by_id.get(snapshot.parent_snapshot_id or 0)
    return rows
