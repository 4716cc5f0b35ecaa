"""Owns what an erasure is: whose data, the keys that tell it, and the receipt of what was done.

A subject is known by fields that a contract classifies as personal data. Its receipt, `erasures/ID.json` in the
tenant's bucket, is written before anything changes and after each step, so that a run which was ended is taken up where
it was. It holds no personal data: a subject's values are in it as scrypt digests under a salt of the receipt's own,
which only someone who brings the value can compare.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from collections import Counter
from dataclasses import asdict, dataclass, field, replace
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from lake.contract import ListOf, Primitive, StructOf
from lake.documents import parsed_document, read_document, write_document
from lake.envelope import made_day
from lake.errors import TerminalError, known_values
from lake.manifest import NO_TENANT
from lake.ranges import Ranges
from lake.spellings import BITS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from mypy_boto3_s3 import S3Client

    from lake.contract import Contract, Field, FieldType
    from lake.declaration import Lake
    from lake.envelope import Identity

__all__ = [
    "ERASURES",
    "ErasedObject",
    "ErasedRecords",
    "Key",
    "Place",
    "Receipt",
    "Seal",
    "Subject",
    "erased_records",
    "new_receipt",
    "parse_subject",
    "personal_paths",
    "read_receipt",
    "receipts",
    "tombstone",
    "write_receipt",
]

ERASURES = "erasures/"
"""Prefix of the receipts in a tenant's bucket."""

_UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")
_WORK = {"n": 2**14, "r": 8, "p": 1, "dklen": 32}  # of scrypt: 16 MiB and some 50 ms a guess


@dataclass(frozen=True)
class Key:
    """One field by which a subject is known, and its value."""

    path: str
    """Of the contract's payload, with dots into objects and lists: `user_id`, `contact.email`."""
    text: str
    """The value, as it was given."""

    @property
    def steps(self) -> tuple[str, ...]:
        """Names on the way to the value."""
        return tuple(self.path.split("."))

    @property
    def leaf(self) -> str:
        """Name of the value itself."""
        return self.steps[-1]


@dataclass(frozen=True)
class Subject:
    """Whose data it is: all that holds any of the keys."""

    tenant: str
    keys: tuple[Key, ...]

    def keys_of(self, contract: Contract) -> tuple[Key, ...]:
        """Those of the keys that a contract classifies as personal data."""
        known = personal_paths(contract)
        return tuple(one for one in self.keys if one.path in known)


def personal_paths(contract: Contract) -> dict[str, Primitive]:
    """Paths of a contract's personal fields, with their types; what is inside of a personal object is personal too."""
    return {path: kind for one in contract.fields for path, kind in _leaves(one, "", personal=False)}


def _leaves(one: Field, above: str, *, personal: bool) -> Iterator[tuple[str, Primitive]]:
    path = f"{above}.{one.name}" if above else one.name
    yield from _typed_leaves(one.type, path, personal=personal or one.pii)


def _typed_leaves(kind: FieldType, path: str, *, personal: bool) -> Iterator[tuple[str, Primitive]]:
    if isinstance(kind, ListOf):
        yield from _typed_leaves(kind.element, path, personal=personal)
    elif isinstance(kind, StructOf):
        for inner in kind.fields:
            yield from _leaves(inner, path, personal=personal)
    elif personal:
        yield path, kind


def parse_subject(lake: Lake, tenant: str, given: Sequence[str]) -> Subject:
    """Read `field=value` texts.

    Raises:
        DeclarationError: the tenant isn't declared.
        TerminalError: none was given, one is no `field=value`, no contract classifies the field as personal data, or
            the value can't be one of the field's type.
    """
    lake.tenant(tenant)
    allowed: dict[str, Primitive] = {}
    for dataset in lake.datasets:
        allowed |= personal_paths(dataset.contract)
    if not given:
        names = ", ".join(sorted(allowed)) or "none: no contract classifies a field as `pii`"
        raise TerminalError(f"--subject: at least one is needed, as in user_id=42; the contracts' fields are: {names}")
    keys: list[Key] = []
    for text in given:
        path, equals, value = text.partition("=")
        if not equals or not path or not value:
            raise TerminalError(f"--subject: got {text!r}, allowed is FIELD=VALUE, as in user_id=42")
        if path not in allowed:
            raise TerminalError(f"--subject: {known_values(path, allowed)} (fields that a contract classifies as pii)")
        for dataset in lake.datasets:
            kind = personal_paths(dataset.contract).get(path)
            if kind is not None:
                typed_value(kind, value, path)
        keys.append(Key(path, value))
    return Subject(tenant, tuple(dict.fromkeys(keys)))


def typed_value(kind: Primitive, text: str, path: str) -> Any:
    """A key's value as a column of the contract's type holds it.

    Raises:
        TerminalError: the text is no such value, or the type is none that tells people apart.
    """
    try:
        match kind.name:
            case "string":
                return text
            case "int" | "long":
                number = int(text)
                if not -(1 << BITS[kind.name]) <= number < 1 << BITS[kind.name]:
                    raise ValueError(text)  # noqa: TRY301 - one sentence for all that is no such value
                return number
            case "float" | "double" | "decimal":
                return Decimal(text)
            case "date":
                return date.fromisoformat(text)
            case "timestamp" | "timestamptz":
                return datetime.fromisoformat(text)
            case _:
                raise TerminalError(f"--subject: field {path} is a {kind}, which can't tell a person")
    except (ValueError, InvalidOperation):
        raise TerminalError(f"--subject: {path}: got {text!r}, the contract's type is {kind}") from None


def tombstone(event_id: str) -> tuple[str, str]:
    """What is kept of an erased event so that it can't come back: when it was made, roughly, and a digest of its id.

    An event id is random beyond its time, so the digest can't be turned back. The first part is the id's first eight
    digits, 65 seconds wide, by which a batch finds the tombstones of its own time; an id that is no UUIDv7 has none.

    Returns:
        the time, empty where the id tells none, and the digest.
    """
    time = event_id[:8] if _UUID7.fullmatch(event_id) else ""
    return time, hashlib.sha256(event_id.encode()).hexdigest()


@dataclass(frozen=True)
class Seal:
    """One key of a subject as a receipt keeps it."""

    field: str
    digest: str
    """scrypt of the value under the receipt's salt, hexadecimal."""


@dataclass(frozen=True)
class Place:
    """What was found in one place, and what was done there."""

    kind: str
    """`table`, `objects` (JSON lines or CSV) or `results` (of queries)."""
    found: Mapping[str, int] = field(default_factory=dict)
    """Records by object (`s3://bucket/key`, with `?versionId=` for one that isn't the newest); of a table, rows by
    data file."""
    removed: int = 0
    """Records taken out; of a table its rows, of results whole files."""
    gone: int = 0
    """Objects, versions and files that don't exist any more."""
    remaining: int | None = None
    """What the last look at the place found; None before it."""
    unread: tuple[str, ...] = ()
    """Objects that can't be searched record by record, or not to their end, and files in `raw/` that have the value
    where no record of the subject's has it."""

    @property
    def records(self) -> int:
        """All that was found."""
        return sum(self.found.values())


@dataclass(frozen=True)
class ErasedRecords:
    """Records that were taken out of an object, of one producer and day."""

    tenant: str
    """As they were counted; `-` where they claimed none."""
    producer_id: str | None
    day: str
    """On which their events were made; `-` where it can't be told."""
    count: int
    sequences: str
    """Their numbers, as ranges; empty where they can't be read."""


def erased_records(
    identities: Iterable[Identity], tenant: str | None, producers: Mapping[str, str]
) -> tuple[ErasedRecords, ...]:
    """What goes, counted as ingest counted it.

    Args:
        identities: of the records.
        tenant: of the prefix they lie under; None where it names none.
        producers: tenant by producer id, for what claims no tenant and lies under none.
    """
    counts: Counter[tuple[str, str | None, str]] = Counter()
    numbers: dict[tuple[str, str | None, str], list[tuple[int, int]]] = {}
    for who in identities:
        owner = who.tenant or tenant or producers.get(who.producer_id or "") or NO_TENANT
        known = who.producer_id is not None and who.sequence is not None
        key = (owner, who.producer_id if known else None, made_day(who.event_id))
        counts[key] += 1
        if known and who.sequence is not None:
            numbers.setdefault(key, []).append((who.sequence, who.sequence))
    return tuple(
        ErasedRecords(*key, counts[key], str(Ranges.of(numbers.get(key, ()))))
        for key in sorted(counts, key=lambda one: (one[0], one[1] or "", one[2]))
    )


@dataclass(frozen=True)
class ErasedObject:
    """What was taken out of an object that ingest had counted."""

    round: int
    """Round of the erasure in which it was found last: batches up to that round's `numbers` took it whole."""
    records: tuple[ErasedRecords, ...]


@dataclass(frozen=True)
class Receipt:
    """What an erasure is about, and how far it is."""

    id: str
    tenant: str
    salt: str
    subject: tuple[Seal, ...]
    started_at: str
    """ISO 8601, UTC."""
    finished_at: str | None = None
    step: str = "begun"
    """Last step that is done."""
    rounds: int = 0
    """How often everything was gone through; what came in meanwhile takes another round."""
    places: Mapping[str, Place] = field(default_factory=dict)
    """By `s3://bucket/prefix`, or `database.table`."""
    events: Mapping[str, int] = field(default_factory=dict)
    """Erased events by dataset: tombstones that keep them from coming back."""
    erased_rows: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Rows taken out of each table, by dataset, then table: what the audit subtracts."""
    sequences: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """By dataset, then producer: sequence numbers of the records that objects held, for a balance drawn up anew."""
    erased_objects: Mapping[str, ErasedObject] = field(default_factory=dict)
    """By `s3://bucket/key`: what a balance that is drawn up anew no longer finds there."""
    erased_batches: Mapping[str, Mapping[str, Mapping[str, Mapping[str, int]]]] = field(default_factory=dict)
    """Rows taken out of each table, by table, batch (as the table has it), tenant and day."""
    numbers: tuple[Mapping[str, int], ...] = ()
    """Newest batch of each series when a round had everything counted, by round."""
    notes: tuple[str, ...] = ()
    """What a person should know of it, in sentences."""

    @property
    def is_finished(self) -> bool:
        """Whether nothing was left when everything was looked through last."""
        return self.finished_at is not None

    def is_of(self, subject: Subject) -> bool:
        """Whether it is about just this subject."""
        if subject.tenant != self.tenant or len(subject.keys) != len(self.subject):
            return False
        sealed = {one.field: one.digest for one in self.subject}
        return all(
            one.path in sealed and secrets.compare_digest(_sealed(one.text, self.salt), sealed[one.path])
            for one in subject.keys
        )

    def with_place(self, name: str, place: Place) -> Receipt:
        """The receipt with one place as it is now."""
        return replace(self, places={**self.places, name: place})


def _sealed(value: str, salt: str) -> str:
    return hashlib.scrypt(value.encode(), salt=bytes.fromhex(salt), maxmem=64 * 2**20, **_WORK).hex()


def new_receipt(subject: Subject, erasure_id: str, now: datetime) -> Receipt:
    """The receipt of an erasure that hasn't begun."""
    salt = secrets.token_hex(16)
    seals = tuple(Seal(one.path, _sealed(one.text, salt)) for one in subject.keys)
    return Receipt(erasure_id, subject.tenant, salt, seals, now.isoformat(timespec="seconds"))


def write_receipt(s3: S3Client, bucket: str, receipt: Receipt) -> None:
    """Write a receipt, over its older self."""
    write_document(s3, bucket, f"{ERASURES}{receipt.id}.json", asdict(receipt))


def read_receipt(s3: S3Client, bucket: str, erasure_id: str) -> Receipt:
    """A receipt by its id.

    Raises:
        TerminalError: there is none, or it is none of ours.
    """
    found = read_document(s3, bucket, f"{ERASURES}{erasure_id}.json", _parsed, what="receipt")
    if found is None:
        told = known_values(erasure_id, [one.id for one in receipts(s3, bucket)])
        raise TerminalError(f"erasure: {told} (receipts in s3://{bucket}/{ERASURES})")
    return found


def receipts(s3: S3Client, bucket: str) -> Iterable[Receipt]:
    """All receipts in a bucket."""
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=ERASURES, Delimiter="/"):
        for one in page.get("Contents", []):
            if one["Key"].endswith(".json"):
                body = s3.get_object(Bucket=bucket, Key=one["Key"])["Body"].read()
                yield parsed_document(body, f"s3://{bucket}/{one['Key']}", _parsed, what="receipt")


def _parsed(raw: Any) -> Receipt:
    raw["subject"] = tuple(Seal(**one) for one in raw["subject"])
    raw["places"] = {name: Place(**{**one, "unread": tuple(one["unread"])}) for name, one in raw["places"].items()}
    raw["notes"] = tuple(raw["notes"])
    raw["numbers"] = tuple(raw["numbers"])
    raw["erased_objects"] = {
        uri: ErasedObject(one["round"], tuple(ErasedRecords(**records) for records in one["records"]))
        for uri, one in raw["erased_objects"].items()
    }
    return Receipt(**raw)
