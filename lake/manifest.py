"""Owns the manifest: a DynamoDB table of what producers sent and what each batch found.

It is a projection. The plan of a batch is an object in S3, and the commit is the snapshot in the Iceberg table;
whatever this table lacks can be told again from those two. Items (`pk`, `sk`):

- `TENANT#DATASET`, `producer#ID`: a producer's ledger;
- `OWNER#DATASET`, `batch#LANE#TENANT#NUMBER`: counts of one committed batch;
- `OWNER#DATASET`, `seen#LANE#TENANT#NUMBER#PART`: which sequence numbers of which producers the batch held;
- `OWNER#DATASET`, `object#s3://…`: the batch that took an object, and its records;
- `TENANT#DATASET`, `file#s3://…#ETAG`: a dropped file that was taken, see `lake.drops`.

The leading key starts with the tenant (or the pool), so a role can be held to its own items.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from lake.errors import TransientError
from lake.ranges import Ranges

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from mypy_boto3_dynamodb import DynamoDBClient

__all__ = ["BatchId", "BatchReceipt", "Counts", "Lane", "Manifest", "ProducerLedger"]


class Lane(StrEnum):
    """Where a batch's objects lie, and so what can become of them."""

    EVENTS = "events"
    """Delivered under a tenant that the stream carries: rows, duplicates or quarantined."""
    STRAYS = "strays"
    """Delivered under a tenant that the stream doesn't carry: quarantined."""
    REFUSED = "refused"
    """Under the error prefix: Firehose refused them, or the files job; quarantined with the reason given there."""


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
class Counts:
    """Records of one tenant in one batch. `records` is the sum of the fates that follow it."""

    records: int = 0
    ingested: int = 0
    duplicates: int = 0
    quarantined: int = 0
    refused: int = 0
    unidentified: int = 0
    """Of `records`, those whose producer or sequence can't be read."""

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))


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
    counts: Mapping[str, Counts]
    """By tenant, as the record claims; `-` where it claims none."""
    seen: Mapping[tuple[str, str], Ranges]
    """Sequence numbers by (tenant, producer)."""


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


_SEEN_BYTES = 200_000  # an item holds 400 KB
_SEEN_SPANS = 4_000  # spans of one producer in one entry: at most 160 KB
_BATCH_WRITE = 25


class Manifest:
    """The manifest table, by its name."""

    def __init__(self, dynamodb: DynamoDBClient, table: str) -> None:
        self._dynamodb = dynamodb
        self._table = table

    def report(self, ledger: ProducerLedger) -> None:
        """Write a producer's ledger, replacing its older one."""
        self._dynamodb.put_item(
            TableName=self._table,
            Item={
                "pk": {"S": f"{ledger.tenant}#{ledger.dataset}"},
                "sk": {"S": f"producer#{ledger.producer_id}"},
                "sent": {"N": str(ledger.sent)},
                "acknowledged": {"N": str(ledger.acknowledged)},
                "dead_lettered": {"N": str(ledger.dead_lettered)},
                "dead_letters": {"S": str(ledger.dead_letters)},
                "reported_at_ms": {"N": str(ledger.reported_at_ms)},
            },
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
            )
            for item in self._query(f"{tenant}#{dataset}", "producer#")
        ]

    def taken(self, owner: str, dataset: str, prefix: str) -> set[str]:
        """Objects (`s3://…`) below a prefix that some batch has taken."""
        return {item["sk"]["S"].partition("#")[2] for item in self._query(f"{owner}#{dataset}", f"object#{prefix}")}

    def record(self, receipt: BatchReceipt) -> None:
        """Write what a batch found; writing the same receipt again changes nothing."""
        batch = receipt.batch
        pk = {"S": f"{batch.owner}#{batch.dataset}"}
        tail = f"{batch.lane}#{batch.tenant}#{batch.number:09d}"
        items: list[dict[str, Any]] = [
            {"pk": pk, "sk": {"S": f"object#{uri}"}, "batch": {"S": str(batch)}, "records": {"N": str(records)}}
            for uri, records in receipt.objects.items()
        ]
        items += [
            {
                "pk": pk,
                "sk": {"S": f"seen#{tail}#{part:04d}"},
                "seen": {
                    "L": [
                        {"M": {"tenant": {"S": tenant}, "producer": {"S": producer}, "sequences": {"S": str(ranges)}}}
                        for (tenant, producer), ranges in chunk
                    ]
                },
            }
            for part, chunk in enumerate(_chunks(receipt.seen))
        ]
        # last, as the audit counts a batch from this item on
        items.append(
            {
                "pk": pk,
                "sk": {"S": f"batch#{tail}"},
                "snapshot_id": {"S": str(receipt.snapshot_id or "")},
                "schema_version": {"S": receipt.schema_version},
                "committed_at_ms": {"N": str(receipt.committed_at_ms)},
                "objects": {"N": str(len(receipt.objects))},
                "counts": {
                    "M": {
                        tenant: {"M": {name: {"N": str(value)} for name, value in vars(counts).items()}}
                        for tenant, counts in receipt.counts.items()
                    }
                },
            }
        )
        self._write(items)

    def batches(self, owner: str, dataset: str) -> list[tuple[BatchId, dict[str, Counts]]]:
        """All committed batches of an owner's dataset with their counts by tenant."""
        found = []
        for item in self._query(f"{owner}#{dataset}", "batch#"):
            # a stray's tenant is whatever somebody sent: it may hold the separator
            _, lane, rest = item["sk"]["S"].split("#", 2)
            tenant, _, number = rest.rpartition("#")
            counts = {
                name: Counts(**{key: int(value["N"]) for key, value in one["M"].items()})
                for name, one in item["counts"]["M"].items()
            }
            found.append((BatchId(owner, dataset, Lane(lane), tenant, int(number)), counts))
        return found

    def seen(self, owner: str, dataset: str) -> dict[tuple[str, str], Ranges]:
        """Sequence numbers that any batch of an owner's dataset held, by (tenant, producer)."""
        spans: dict[tuple[str, str], list[tuple[int, int]]] = {}
        for item in self._query(f"{owner}#{dataset}", "seen#"):
            for entry in item["seen"]["L"]:
                one = entry["M"]
                key = (one["tenant"]["S"], one["producer"]["S"])
                spans.setdefault(key, []).extend(Ranges.parse(one["sequences"]["S"]).spans)
        return {key: Ranges.of(found) for key, found in spans.items()}

    def _query(self, pk: str, prefix: str) -> Iterator[dict[str, Any]]:
        pages = self._dynamodb.get_paginator("query").paginate(
            TableName=self._table,
            KeyConditionExpression="pk = :pk AND begins_with(sk, :sk)",
            ExpressionAttributeValues={":pk": {"S": pk}, ":sk": {"S": prefix}},
            ConsistentRead=True,
        )
        for page in pages:
            yield from page["Items"]

    def _write(self, items: list[dict[str, Any]]) -> None:
        for start in range(0, len(items), _BATCH_WRITE):
            left = [{"PutRequest": {"Item": item}} for item in items[start : start + _BATCH_WRITE]]
            for attempt in range(8):
                answer = self._dynamodb.batch_write_item(RequestItems={self._table: left})  # type: ignore[dict-item]
                left = answer.get("UnprocessedItems", {}).get(self._table, [])  # type: ignore[assignment]
                if not left:
                    break
                time.sleep(min(2.0, 0.05 * 2**attempt))
            else:
                raise TransientError(
                    f"manifest table {self._table}: DynamoDB left {len(left)} items unwritten; try again"
                )


def _chunks(seen: Mapping[tuple[str, str], Ranges]) -> Iterable[list[tuple[tuple[str, str], Ranges]]]:
    chunk: list[tuple[tuple[str, str], Ranges]] = []
    size = 0
    pieces = [
        (key, Ranges(ranges.spans[start : start + _SEEN_SPANS]))
        for key, ranges in sorted(seen.items())
        for start in range(0, len(ranges.spans), _SEEN_SPANS)
    ]
    for key, ranges in pieces:
        weight = len(str(ranges)) + len(key[0]) + len(key[1]) + 60
        if chunk and size + weight > _SEEN_BYTES:
            yield chunk
            chunk, size = [], 0
        chunk.append((key, ranges))
        size += weight
    if chunk:
        yield chunk
