"""Owns drops: where a customer puts files, how they are written, and the memory of which ones were taken.

The memory is items of the manifest table, `TENANT#DATASET`, `file#s3://…#ETAG`. As the manifest as a whole it is no
commit point: a file that it forgot is taken again, under the same keys and with the same bytes.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from datetime import UTC
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from lake.contract import Primitive
from lake.errors import DeclarationError, known_values
from lake.items import Items, item_key, shortened

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from datetime import tzinfo

    from mypy_boto3_dynamodb import DynamoDBClient

    from lake.contract import Contract

__all__ = ["RAW", "Drop", "TakenFile", "TakenFiles", "check_drops", "file_producer", "zone"]

RAW = "raw/"
"""What lies below it in a bucket of the lake is as somebody brought it; only there may a drop be."""
_MOMENTS = ("timestamptz", "timestamp", "date", "string")
_PRODUCER_DIGITS = 20
_SORT_BYTES = 880  # of an address in a sort key; the longest prefix of a drop is within


@dataclass(frozen=True)
class Drop:
    """A place where CSV files of one tenant and dataset are put."""

    name: str
    tenant: str
    dataset: str
    bucket: str
    prefix: str
    """Every object below it is a file of the drop; empty is the whole bucket."""
    event_time: str | None = None
    """Field of the contract that tells when an event happened; None: the day in the key (`year=/month=/day=/`)."""
    timezone: str = "UTC"
    """Zone of moments that are written without one, by its IANA name."""
    delimiter: str = ","
    quote: str = '"'
    encoding: str = "utf-8"

    @property
    def uri(self) -> str:
        """`s3://bucket/prefix`, which all of its files begin with."""
        return f"s3://{self.bucket}/{self.prefix}"


def check_drops(where: str, drops: Iterable[Drop], contracts: Mapping[str, Contract], own: Mapping[str, str]) -> None:
    """Hold drops to the rest of the declaration.

    Args:
        where: name of the file, for messages.
        drops: the drops.
        contracts: contract of each dataset.
        own: bucket of each owner of the lake: the tenants, and the pool if there is one.

    Raises:
        DeclarationError: a field isn't declared, a zone isn't known, two drops would take the same file, or a drop lies
            where another tenant's or something else of the lake does.
    """
    seen: list[Drop] = []
    for drop in drops:
        here = f"{where}: drops.{drop.name}"
        _check_event_time(here, drop, contracts[drop.dataset])
        try:
            zone(drop.timezone)
        except ValueError as error:
            raise DeclarationError(f"{here}.timezone: {error}") from None
        if drop.delimiter == drop.quote:
            raise DeclarationError(f"{here}.quote: got {drop.quote!r}, which is the delimiter too")
        _check_place(here, drop, own)
        for other in seen:
            if drop.uri.startswith(other.uri) or other.uri.startswith(drop.uri):
                raise DeclarationError(
                    f"{here}: {drop.uri} and {other.uri} of drop {other.name!r} overlap: a file would be taken twice; "
                    "give each a prefix that isn't the beginning of the other's"
                )
            if other.bucket == drop.bucket and other.tenant != drop.tenant:
                raise DeclarationError(
                    f"{here}.bucket: {drop.bucket} is tenant {other.tenant}'s by drop {other.name!r}, and this drop is "
                    f"tenant {drop.tenant}'s: a bucket is one tenant's"
                )
        seen.append(drop)


def zone(name: str) -> tzinfo:
    """A time zone by its IANA name.

    Raises:
        ValueError: there is none of this name.
    """
    if name == "UTC":  # needs no database of zones, which a small image may lack
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueError(f"got {name!r}, allowed is an IANA name, as in Europe/Berlin") from None


def _check_event_time(here: str, drop: Drop, contract: Contract) -> None:
    if drop.event_time is None:
        return
    kinds = {one.name: one.type for one in contract.fields}
    if drop.event_time not in kinds:
        raise DeclarationError(
            f"{here}.event_time: {known_values(drop.event_time, kinds)} (the fields of the contract of {drop.dataset})"
        )
    kind = kinds[drop.event_time]
    if not (isinstance(kind, Primitive) and kind.name in _MOMENTS):
        raise DeclarationError(
            f"{here}.event_time: the contract's {drop.event_time} is a {kind}, allowed are: {', '.join(_MOMENTS)}"
        )


def _check_place(here: str, drop: Drop, own: Mapping[str, str]) -> None:
    owner = next((name for name, bucket in own.items() if bucket == drop.bucket), None)
    if owner is None:
        return
    if owner != drop.tenant:
        raise DeclarationError(
            f"{here}.bucket: {drop.bucket} is the lake's bucket of {owner}, and the drop is tenant {drop.tenant}'s; "
            f"leave `bucket` out for {own[drop.tenant]}, or name a bucket of its own"
        )
    if not drop.prefix.startswith(RAW):
        raise DeclarationError(
            f"{here}.prefix: got {drop.prefix!r}; in the lake's own bucket {drop.bucket} a drop lies below {RAW!r}, "
            "as the rest of it holds what the jobs write"
        )


def file_producer(uri: str, content: str) -> str:
    """Who the producer of a file's events is: told by its place and content, so the same file is the same producer.

    Args:
        uri: `s3://bucket/key`.
        content: SHA-256 of the object as stored, in hexadecimal. An ETag would not do: in a bucket encrypted with a
            KMS key the same content gets another one at each upload. Source:
            https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html
    """
    return f"file-{hashlib.sha256(f'{content} {uri}'.encode()).hexdigest()[:_PRODUCER_DIGITS]}"


@dataclass(frozen=True)
class TakenFile:
    """A file that was taken, at one ETag."""

    uri: str
    etag: str
    producer_id: str
    """Tells the content: two ETags of one file with the same producer hold the same bytes."""
    rows: int
    """Rows without the header; a file that could not be read as a whole counts as one."""
    refused: int
    """Of these, the ones that became no event."""
    taken_at_ms: int


class TakenFiles:
    """The memory of taken files, in the manifest table."""

    def __init__(self, dynamodb: DynamoDBClient, table: str) -> None:
        self._items = Items(dynamodb, table)

    def of_drop(self, drop: Drop) -> set[tuple[str, str]]:
        """Address and ETag of every file that was taken from a drop."""
        return {(one.uri, one.etag) for one in self._query(drop, drop.uri)}

    def of_file(self, drop: Drop, uri: str) -> list[TakenFile]:
        """What was taken from one address, once for each ETag."""
        return [one for one in self._query(drop, f"{shortened(uri, _SORT_BYTES)}#") if one.uri == uri]

    def record(self, drop: Drop, taken: TakenFile) -> None:
        """Note that a file was taken; noting it again changes nothing."""
        numbers = {name: getattr(taken, name) for name in ("rows", "refused", "taken_at_ms")}
        self._items.put(
            {
                **item_key(f"{drop.tenant}#{drop.dataset}", f"file#{shortened(taken.uri, _SORT_BYTES)}#{taken.etag}"),
                "uri": {"S": taken.uri},
                "drop": {"S": drop.name},
                "producer": {"S": taken.producer_id},
                **{name: {"N": str(number)} for name, number in numbers.items()},
            }
        )

    def rewritten(self, drop: Drop, uri: str, before: str, after: str) -> None:
        """Note that a file is about to get another content, which holds nothing new, if the one that it has was taken.

        Args:
            drop: its drop.
            uri: `s3://bucket/key`.
            before: SHA-256 of what is stored now, in hexadecimal.
            after: of what is going to be.
        """
        was = file_producer(uri, before)
        taken = next((one for one in self.of_file(drop, uri) if one.producer_id == was), None)
        if taken is not None:
            # what ETag it gets isn't known yet; the job for files tells a content by its producer
            known = file_producer(uri, after)
            self.record(drop, replace(taken, etag=f"rewritten-{known}", producer_id=known))

    def _query(self, drop: Drop, beginning: str) -> Iterator[TakenFile]:
        return map(_taken, self._items.beginning(f"{drop.tenant}#{drop.dataset}", f"file#{beginning}"))


def _taken(item: Mapping[str, Any]) -> TakenFile:
    return TakenFile(
        uri=item["uri"]["S"],
        # a key may hold the separator, an ETag doesn't
        etag=item["sk"]["S"].rpartition("#")[2],
        producer_id=item["producer"]["S"],
        rows=int(item["rows"]["N"]),
        refused=int(item["refused"]["N"]),
        taken_at_ms=int(item["taken_at_ms"]["N"]),
    )
