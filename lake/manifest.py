"""Owns the manifest: a DynamoDB table of what producers sent and what each batch found.

It is a projection. The plan of a batch is an object in S3, and the commit is the snapshot in the Iceberg table;
whatever this table lacks can be told again from those two. Items (`pk`, `sk`):

- `TENANT#DATASET`, `producer#ID`: a producer's ledger;
- `OWNER#DATASET`, `batch#LANE#TENANT#NUMBER`: one committed batch, its counts by tenant and day, and which sequence
  numbers of which producers it held; what doesn't fit there in `more#LANE#TENANT#NUMBER#PART`;
- `OWNER#DATASET`, `sum#…`, `month#…`, `piece#…`: sums of the batches, see `lake.books`;
- `OWNER#DATASET#objects`, `object#s3://…`: the batch that took an object, and its records;
- `TENANT#DATASET`, `file#s3://…#ETAG`: a dropped file that was taken, see `lake.drops`;
- `OWNER#DATASET#new`, `new#LANE#TENANT#s3://…`: an object that no batch has taken yet;
- `OWNER#DATASET`, `net`: which folder the listing for lost events goes on with;
- `OWNER#DATASET`, `net#FOLDER`: up to which keys the folder was listed today;
- `OWNER#DATASET`, `erasure#ID#TABLE`: rows that an erasure took out of one of the owner's tables;
- `TENANT#DATASET`, `erased#TIME#DIGEST`: an event that was erased and must not come back;
- `OWNER#DATASET`, `replayed#DIGEST`: a quarantined record that was sent round again;
- `OWNER#DATASET`, `quality#TENANT#NUMBER`, `volume#TENANT#DAY`: what quality rules found, see `lake.quality_log`;
- `OWNER#DATASET#lineage`, `lineage#RUN#TURN`, `unsent#RUN#TURN`: lineage, see `lake.lineage_log`.

The leading key starts with the tenant (or the pool), so a role can be held to its own items. What comes with each
object or run of a job has a leading key of its own: a batch is planned by queries that never come near it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import islice
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from lake.figures import Counts, Figures, from_pieces, to_pieces
from lake.items import Items, item_key, shortened
from lake.ranges import Ranges

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from mypy_boto3_dynamodb import DynamoDBClient

    from lake.items import Item

__all__ = [
    "NO_TENANT",
    "Arrival",
    "BatchId",
    "BatchReceipt",
    "Counts",
    "Lane",
    "Manifest",
    "ProducerLedger",
    "new_partition",
    "objects_partition",
]

NO_TENANT = "-"
"""Tenant of a series whose prefix names none."""
_KEY_BYTES = 950  # of a sort key, before it is cut: an object's address may have 1,093


class Lane(StrEnum):
    """Where a batch's objects lie, and so what can become of them."""

    EVENTS = "events"
    """Delivered under a tenant that the stream carries: rows, duplicates or quarantined."""
    STRAYS = "strays"
    """Delivered under a tenant that the stream doesn't carry: quarantined."""
    REFUSED = "refused"
    """Under the error prefix: Firehose refused them, or the files job; quarantined with the reason given there."""


@dataclass(frozen=True)
class Arrival:
    """An object that a door has written."""

    owner: str
    """Owner of the bucket it lies in: a tenant, or the pool."""
    dataset: str
    lane: Lane
    tenant: str
    """Tenant of its prefix; `-` where it names none."""
    uri: str
    """`s3://bucket/key`."""
    size: int
    """Bytes as stored."""


@dataclass(frozen=True, order=True)
class BatchId:
    """A batch: numbered from 1 for each owner, dataset, lane and tenant prefix."""

    owner: str
    """Owner of the bucket the objects lie in: a tenant, or the pool."""
    dataset: str
    lane: Lane
    tenant: str
    """Tenant of the objects' prefix; `-` for the refused lane, whose objects mix tenants."""
    number: int

    @property
    def series(self) -> str:
        """The batch without its number: numbers count up within it."""
        return f"{self.dataset}/{self.lane}/{self.owner}/{self.tenant}"

    def __str__(self) -> str:
        return f"{self.series}/{self.number}"


@dataclass(frozen=True)
class BatchReceipt:
    """What a committed batch found."""

    batch: BatchId
    snapshot_id: int | None
    """Snapshot that holds its rows; None when it had none."""
    schema_version: str
    committed_at_ms: int
    objects: Mapping[str, int]
    """Records by object (`s3://…`)."""
    figures: Figures
    """What it held, by tenant and day."""

    @property
    def counts(self) -> Mapping[str, Counts]:
        """By tenant, as the record claims; `-` where it claims none."""
        return self.figures.by_tenant


@dataclass(frozen=True)
class ProducerLedger:
    """What a producer says of itself; every count is since it first started."""

    tenant: str
    dataset: str
    producer_id: str
    sent: int
    """Events it took over from the application: its next sequence number."""
    acknowledged: int
    """Events that Firehose acknowledged."""
    dead_lettered: int
    """Events it could never send, kept in its own dead letter."""
    reported_at_ms: int
    dead_letters: Ranges = field(default_factory=Ranges)
    """Sequence numbers of the dead-lettered."""
    days: Mapping[str, Ranges] = field(default_factory=dict)
    """Sequence numbers by the day on which their events were made, as far back as the producer tells."""


class Manifest:
    """The manifest table, by its name."""

    def __init__(self, dynamodb: DynamoDBClient, table: str) -> None:
        self._items = Items(dynamodb, table)

    def report(self, ledger: ProducerLedger) -> None:
        """Write a producer's ledger, replacing its older one."""
        self._items.put(
            {
                **item_key(f"{ledger.tenant}#{ledger.dataset}", f"producer#{ledger.producer_id}"),
                "sent": {"N": str(ledger.sent)},
                "acknowledged": {"N": str(ledger.acknowledged)},
                "dead_lettered": {"N": str(ledger.dead_lettered)},
                "dead_letters": {"S": str(ledger.dead_letters)},
                "reported_at_ms": {"N": str(ledger.reported_at_ms)},
                "days": {"M": {day: {"S": str(ranges)} for day, ranges in ledger.days.items()}},
            }
        )

    def ledgers(self, tenant: str, dataset: str) -> list[ProducerLedger]:
        """Ledgers of all producers of a tenant's dataset."""
        return [
            ProducerLedger(
                tenant=tenant,
                dataset=dataset,
                producer_id=item["sk"]["S"].partition("#")[2],
                sent=int(item["sent"]["N"]),
                acknowledged=int(item["acknowledged"]["N"]),
                dead_lettered=int(item["dead_lettered"]["N"]),
                reported_at_ms=int(item["reported_at_ms"]["N"]),
                dead_letters=Ranges.parse(item["dead_letters"]["S"]),
                # older ledgers have none
                days={day: Ranges.parse(one["S"]) for day, one in item.get("days", {"M": {}})["M"].items()},
            )
            for item in self._items.beginning(f"{tenant}#{dataset}", "producer#")
        ]

    def taken(self, owner: str, dataset: str, prefix: str) -> set[str]:
        """Objects (`s3://…`) below a prefix that some batch has taken."""
        found = self._items.beginning(objects_partition(owner, dataset), f"object#{prefix}")
        return {item["uri"]["S"] if "uri" in item else item["sk"]["S"].partition("#")[2] for item in found}

    def arrived(self, arrivals: Iterable[Arrival]) -> None:
        """Note objects as new; noting one again changes nothing."""
        self._items.write(
            {**item_key(*_arrival_key(one)), "uri": {"S": one.uri}, "size": {"N": str(one.size)}} for one in arrivals
        )

    def unknown(self, arrivals: Sequence[Arrival]) -> list[Arrival]:
        """Of these objects the ones that are neither noted as new nor taken."""
        there = self._items.existing(key for one in arrivals for key in (_arrival_key(one), _taken_key(one)))
        return [one for one in arrivals if there.isdisjoint((_arrival_key(one), _taken_key(one)))]

    def taken_of(self, arrivals: Sequence[Arrival]) -> list[Arrival]:
        """Of these objects the ones that some batch has taken."""
        there = self._items.existing(map(_taken_key, arrivals))
        return [one for one in arrivals if _taken_key(one) in there]

    def waiting_series(self, owner: str, dataset: str) -> list[tuple[Lane, str]]:
        """Lanes and tenants that have new objects, by lane; one query each and one more, however many objects wait."""
        found: list[tuple[Lane, str]] = []
        pk, after = new_partition(owner, dataset), "new#"
        while first := next(self._items.between(pk, after, "new$", keys_only=True, page=1), None):
            _, lane, quoted, _ = first["sk"]["S"].split("#", 3)
            found.append((Lane(lane), unquote(quoted)))
            after = f"new#{lane}#{quoted}$"  # the next sign after #: behind all objects of this tenant
        ranks = list(Lane)
        return sorted(found, key=lambda one: ranks.index(one[0]))

    def waiting(self, owner: str, dataset: str, lane: Lane, tenant: str, limit: int | None = None) -> list[Arrival]:
        """The first new objects of a series, or all of them, in the order of their keys."""
        prefix = f"new#{lane}#{quote(tenant, safe='')}#"
        items = self._items.beginning(new_partition(owner, dataset), prefix, page=limit)
        return [
            Arrival(owner, dataset, lane, tenant, item["uri"]["S"], int(item["size"]["N"]))
            for item in islice(items, limit)
        ]

    def settled(self, arrivals: Iterable[Arrival]) -> None:
        """Note no longer as new what a batch has taken."""
        self._items.delete(map(_arrival_key, arrivals))

    def net_position(self, owner: str, dataset: str) -> int:
        """Which of the folders is listed next."""
        item = self._items.get(f"{owner}#{dataset}", "net")
        return int(item["position"]["N"]) if item else 0

    def set_net_position(self, owner: str, dataset: str, position: int) -> None:
        """Note which of the folders is listed next."""
        self._items.put({**item_key(f"{owner}#{dataset}", "net"), "position": {"N": str(position)}})

    def net_marks(self, owner: str, dataset: str, folder: str, today: str) -> dict[str, str]:
        """Keys up to which a folder's prefixes were listed today (`2026-01-31`), by prefix."""
        item = self._items.get(f"{owner}#{dataset}", f"net#{folder}")
        if item is None or item["day"]["S"] != today:
            return {}
        return {prefix: one["S"] for prefix, one in item["marks"]["M"].items()}

    def set_net_marks(self, owner: str, dataset: str, folder: str, today: str, marks: Mapping[str, str]) -> None:
        """Note up to which keys a folder's prefixes were listed today."""
        listed = {"M": {prefix: {"S": key} for prefix, key in marks.items()}}
        self._items.put({**item_key(f"{owner}#{dataset}", f"net#{folder}"), "day": {"S": today}, "marks": listed})

    def last_receipt(self, batch: BatchId) -> int:
        """Number of the newest batch of a batch's series that has a receipt, or 0. Receipts are written in order."""
        newest = self._items.beginning(_pk(batch), _batch_prefix(batch), newest_first=True, keys_only=True, page=1)
        return next(map(_number, newest), 0)

    def numbers(self, batch: BatchId) -> set[int]:
        """Numbers of all batches of a batch's series that have a receipt."""
        return {_number(item) for item in self._items.beginning(_pk(batch), _batch_prefix(batch), keys_only=True)}

    def record(self, receipt: BatchReceipt) -> None:
        """Write what a batch found; writing the same receipt again changes nothing."""
        batch = receipt.batch
        pk, objects = _pk(batch), objects_partition(batch.owner, batch.dataset)
        first, *more = to_pieces(receipt.figures)
        items: list[Item] = [
            {**_object_item(objects, uri), "batch": {"S": str(batch)}, "records": {"N": str(records)}}
            for uri, records in receipt.objects.items()
        ]
        items += [{**item_key(pk, f"{_more_prefix(batch)}{part:04d}"), **piece} for part, piece in enumerate(more)]
        self._items.write(items)
        # last, as the audit counts a batch from this item on; a batch of items is written in any order
        self._items.put(
            {
                **item_key(pk, _batch_key(batch)),
                "snapshot_id": {"S": str(receipt.snapshot_id or "")},
                "schema_version": {"S": receipt.schema_version},
                "committed_at_ms": {"N": str(receipt.committed_at_ms)},
                "objects": {"N": str(len(receipt.objects))},
                "more": {"N": str(len(more))},
                **first,
            }
        )

    def batches(self, owner: str, dataset: str) -> list[tuple[BatchId, Figures]]:
        """All committed batches of an owner's dataset, and what each held; its cost grows with them."""
        found = []
        for item in self._items.beginning(f"{owner}#{dataset}", "batch#"):
            _, lane, tenant, number = item["sk"]["S"].split("#")
            batch = BatchId(owner, dataset, Lane(lane), unquote(tenant), int(number))
            found.append((batch, self._figures(batch, item)))
        return found

    def behind(self, batch: BatchId, limit: int | None = None) -> Iterator[tuple[int, Figures]]:
        """Numbers of the batches that follow a batch in its series, in order, and what each held.

        Args:
            batch: the batch, or number 0.
            limit: no more than so many.
        """
        first = _batch_key(replace(batch, number=batch.number + 1))
        last = f"{_batch_prefix(batch)}:"  # the next sign after 9
        for item in islice(self._items.between(_pk(batch), first, last, page=limit), limit):
            one = replace(batch, number=_number(item))
            yield one.number, self._figures(one, item)

    def figures_of(self, batch: BatchId) -> Figures | None:
        """What a batch held; None where it has no receipt."""
        item = self._items.get(_pk(batch), _batch_key(batch))
        return self._figures(batch, item) if item else None

    def _figures(self, batch: BatchId, item: Mapping[str, Any]) -> Figures:
        count = int(item.get("more", {"N": "0"})["N"])
        more = self._items.beginning(_pk(batch), _more_prefix(batch)) if count else iter(())
        # a receipt that was written before may have had more pieces
        return from_pieces([item, *islice(more, count)])

    def erased(self, owner: str, dataset: str, erasure_id: str, table: str, rows: int) -> None:
        """Note how many rows an erasure took out of one of an owner's tables (`database.table`), all in all."""
        key = item_key(f"{owner}#{dataset}", f"erasure#{erasure_id}#{table}")
        self._items.put({**key, "table": {"S": table}, "rows": {"N": str(rows)}})

    def erased_rows(self, owner: str, dataset: str) -> dict[str, int]:
        """Rows that erasures took out of an owner's tables, by table (`database.table`)."""
        found: dict[str, int] = {}
        for item in self._items.beginning(f"{owner}#{dataset}", "erasure#"):
            found[item["table"]["S"]] = found.get(item["table"]["S"], 0) + int(item["rows"]["N"])
        return found

    def bury(self, tenant: str, dataset: str, stones: Iterable[tuple[str, str]]) -> None:
        """Note erased events by time and digest, as `lake.erasure.tombstone` makes them."""
        self._items.write(item_key(f"{tenant}#{dataset}", f"erased#{one}#{two}") for one, two in stones)

    def has_buried(self, tenant: str, dataset: str) -> bool:
        """Whether any event of a tenant's dataset was ever erased; one request."""
        return next(self._items.beginning(f"{tenant}#{dataset}", "erased#", keys_only=True, page=1), None) is not None

    def buried(self, tenant: str, dataset: str, first: str, last: str) -> set[str]:
        """Digests of erased events of one time and another and what lies between, both as tombstones have it."""
        # $ is the next sign after #
        found = self._items.between(f"{tenant}#{dataset}", f"erased#{first}#", f"erased#{last}$", keys_only=True)
        return {item["sk"]["S"].rpartition("#")[2] for item in found}

    def note_replayed(self, owner: str, dataset: str, digests: Iterable[str]) -> None:
        """Note quarantined records as sent round again."""
        self._items.write(item_key(f"{owner}#{dataset}", f"replayed#{one}") for one in digests)

    def replayed(self, owner: str, dataset: str, digests: Iterable[str]) -> set[str]:
        """Of these records the ones that were sent round again."""
        pk = f"{owner}#{dataset}"
        there = self._items.existing((pk, f"replayed#{one}") for one in digests)
        return {sk.partition("#")[2] for _, sk in there}


def new_partition(owner: str, dataset: str) -> str:
    """Leading key of the objects of an owner's dataset that no batch has taken yet.

    >>> new_partition("solo", "visits")
    'solo#visits#new'
    """
    return f"{owner}#{dataset}#new"


def objects_partition(owner: str, dataset: str) -> str:
    """Leading key of the objects that batches of an owner's dataset have taken.

    >>> objects_partition("solo", "visits")
    'solo#visits#objects'
    """
    return f"{owner}#{dataset}#objects"


def _pk(batch: BatchId) -> str:
    return f"{batch.owner}#{batch.dataset}"


def _number(item: Mapping[str, Any]) -> int:
    return int(item["sk"]["S"].rpartition("#")[2])


def _arrival_key(one: Arrival) -> tuple[str, str]:
    # a stray's tenant is whatever somebody sent: quoted, it can't hold the separator
    key = f"new#{one.lane}#{quote(one.tenant, safe='')}#{one.uri}"
    return new_partition(one.owner, one.dataset), shortened(key, _KEY_BYTES)


def _taken_key(one: Arrival) -> tuple[str, str]:
    return objects_partition(one.owner, one.dataset), _object_key(one.uri)


def _object_item(pk: str, uri: str) -> Item:
    key = _object_key(uri)
    return item_key(pk, key) if key.endswith(uri) else {**item_key(pk, key), "uri": {"S": uri}}


def _object_key(uri: str) -> str:
    return shortened(f"object#{uri}", _KEY_BYTES)


def _batch_prefix(batch: BatchId) -> str:
    return f"batch#{batch.lane}#{quote(batch.tenant, safe='')}#"


def _batch_key(batch: BatchId) -> str:
    return f"{_batch_prefix(batch)}{batch.number:09d}"


def _more_prefix(batch: BatchId) -> str:
    return f"more#{batch.lane}#{quote(batch.tenant, safe='')}#{batch.number:09d}#"
