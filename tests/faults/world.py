"""Owns the campaign's lake, which every process makes for itself from its name, and what its records look like."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from lake.contract import Contract, Field, PartitionField, Primitive
from lake.declaration import Buffering, Dataset, Jobs, Lake, Tenant, Tier, Upkeep

if TYPE_CHECKING:
    from random import Random

__all__ = ["DATASET", "REFUSED", "TENANT", "Line", "error_line", "lake_of", "new_line", "new_uuid7"]

TENANT, DATASET = "solo", "visits"
REFUSED = "DynamicPartitioning.MetadataExtractionFailed"
"""The reason under which the campaign's error records are refused by Firehose."""
REGION = "us-east-1"

VISITS = Contract(
    dataset=DATASET,
    version="1.2.0",
    fields=(
        Field("page", Primitive("string"), required=True),
        Field("user_id", Primitive("string"), pii=True),
        Field("seconds", Primitive("int")),
    ),
    partition=(PartitionField("day", "event_time"),),
    sort=("event_time",),
    dedup_days=3650,
)


def lake_of(company: str) -> Lake:
    """The lake of one stretch of rounds: small batches, and a past that maintenance may forget at once."""
    upkeep = Upkeep(snapshot_hours=1, snapshots_least=2, snapshots_most=20, orphan_hours=24)
    return Lake(
        company=company,
        environment="test",
        region=REGION,
        tenants=(Tenant(TENANT, Tier.DEDICATED),),
        datasets=(Dataset(DATASET, VISITS, Buffering()),),
        jobs=replace(Jobs(), ingest_objects=3, upkeep=upkeep),
    )


@dataclass(frozen=True)
class Line:
    """One record as it was delivered, and what should become of it."""

    fate: str
    """`row`, or the reason of its refusal."""
    event_id: str = ""
    producer: str = ""
    sequence: int = -1
    user: str = ""
    page: str = ""
    seconds: int = 0
    time_ms: int = 0
    """When the event happened, milliseconds since 1970."""
    text: str = ""
    """As it is on the wire."""

    @property
    def row(self) -> tuple[Any, ...]:
        """The row that it becomes, as the readers tell rows."""
        return (self.event_id, self.producer, self.sequence, self.time_ms, self.page, self.user, self.seconds)


def new_uuid7(rng: Random, moment_ms: int) -> str:
    """A UUIDv7 of a moment."""
    digits = f"{moment_ms:012x}7{rng.getrandbits(12):03x}{8 | rng.getrandbits(2):x}{rng.getrandbits(60):015x}"
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


_DAY_MS = 86_400_000
_FUTURE_MS = 32_503_680_000_000  # the year 3000


def new_line(rng: Random, *, now_ms: int, producer: str, sequence: int, user: str, fate: str) -> Line:
    """A record that nobody has sent yet; on the wire its envelope comes first and the user last.

    Args:
        rng: what it is drawn from.
        now_ms: about when it is made.
        producer: who sends it.
        sequence: its number among the producer's.
        user: whose visit it is.
        fate: `row`, or a reason of ingest's.
    """
    late = rng.choice((0, 0, 0, 1, 3, 40))
    made_ms = now_ms - late * _DAY_MS - rng.randrange(3_600_000)
    time_ms = _FUTURE_MS if fate == "clock_skew" else now_ms - rng.randrange(1, 4) * _DAY_MS - rng.randrange(_DAY_MS)
    payload: dict[str, Any] = {"page": f"/{rng.randrange(20)}", "seconds": rng.randrange(900), "user_id": user}
    made = Line(
        fate=fate,
        event_id=new_uuid7(rng, made_ms),
        producer=producer,
        sequence=sequence,
        user=user,
        page=payload["page"],
        seconds=payload["seconds"],
        time_ms=time_ms,
    )
    if fate == "missing_field":
        del payload["page"]
    elif fate == "wrong_type":
        payload["page"] = 5
    text = json.dumps(
        {
            "event_id": made.event_id,
            "tenant": TENANT,
            "dataset": DATASET,
            "event_time": _time_text(time_ms),
            "producer_id": producer,
            "sequence": sequence,
            "schema_version": "1.0.0",
            "payload": payload,
        }
    )
    # cut short before the user: nobody can tell whose it was
    return replace(made, text=text[: text.index('"seconds"')] if fate == "malformed_json" else text)


def _time_text(time_ms: int) -> str:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=time_ms)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def error_line(raw: str) -> str:
    """A record as Firehose writes one that it refused."""
    return json.dumps(
        {
            "attemptsMade": 1,
            "arrivalTimestamp": 1357034400000,
            "errorCode": REFUSED,
            "errorMessage": "partition keys can't be read",
            "attemptEndingTimestamp": 1357034460000,
            "rawData": base64.b64encode(raw.encode()).decode(),
        }
    )
