"""Measures the audit: its requests and seconds after a hundred times as many batches."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rows import Row, at_most

from lake.audit import balance, gather
from lake.books import FOLD_EVERY, Books
from lake.clients import Cloud
from lake.contract import Contract, Field, PartitionField, Primitive
from lake.declaration import Buffering, Dataset, Jobs, Lake, Tenant, Tier
from lake.figures import Counts, Figures
from lake.manifest import BatchId, BatchReceipt, Lane, ProducerLedger
from lake.provision import provision_storage
from lake.ranges import Ranges

sys.path.insert(0, str(Path(__file__).parents[1]))
from conftest import running_ministack

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_FEW, _MANY = 10, 1_000
_RUNS, _WARM = 9, 2
_OBJECTS, _RECORDS, _PRODUCERS = 2, 5_000, 40  # of a batch
_MOMENT = datetime(2026, 3, 1, tzinfo=UTC)
_CLICKS = Contract(
    dataset="clicks",
    version="1.0.0",
    fields=(Field("page", Primitive("string")),),
    partition=(PartitionField("day", "event_time"),),
    sort=("event_time",),
)


class _Place:
    """A lake with so many batches, noted as ingest notes them."""

    def __init__(self, cloud: Cloud, company: str, batches: int) -> None:
        self._cloud = cloud
        self._lake = Lake(
            company=company,
            environment="bench",
            region="us-east-1",
            tenants=(Tenant("acme", Tier.DEDICATED),),
            datasets=(Dataset("clicks", _CLICKS, Buffering()),),
            jobs=Jobs(),
        )
        for _ in provision_storage(self._lake, cloud):
            pass
        books = Books(cloud.dynamodb, self._lake.names.manifest_table())
        for number in range(1, batches + 1):
            books.record(self._receipt(number))
        self._report(batches)

    def _receipt(self, number: int) -> BatchReceipt:
        each = _RECORDS // _PRODUCERS
        # a day has fifty batches
        day = (_MOMENT + timedelta(minutes=29 * number)).date().isoformat()
        numbers = Ranges((((number - 1) * each, number * each - 1),))
        prefix = f"s3://{self._lake.names.bucket('acme')}/processed/clicks/tenant=acme/"
        return BatchReceipt(
            batch=BatchId("acme", "clicks", Lane.EVENTS, "acme", number),
            snapshot_id=number,
            schema_version="1.0.0",
            committed_at_ms=0,
            objects={f"{prefix}{number:06d}-{one:03d}.gz": _RECORDS // _OBJECTS for one in range(_OBJECTS)},
            figures=Figures(
                {("acme", day): Counts(_RECORDS, 0, _RECORDS)},
                {("acme", f"phone-{one:03d}", day): numbers for one in range(_PRODUCERS)},
            ),
        )

    def _report(self, batches: int) -> None:
        books = Books(self._cloud.dynamodb, self._lake.names.manifest_table())
        sent = batches * (_RECORDS // _PRODUCERS)
        for one in range(_PRODUCERS):
            books.manifest.report(ProducerLedger("acme", "clicks", f"phone-{one:03d}", sent, sent, 0, 0))

    def audit(self, *, since: datetime | None = None) -> dict[str, float]:
        """Draw the sheet up; answers what it took."""
        cloud = Cloud(self._cloud.region, self._cloud.endpoint)
        answers: list[int] = []

        def note(response_dict: Any, **_: Any) -> None:
            answers.append(len(response_dict["body"] or b""))

        for client in (cloud.dynamodb, cloud.sqs, cloud.glue, cloud.s3):
            client.meta.events.register("before-parse.*.*", note)
        started, processor = time.monotonic(), time.process_time()
        first = since.date() if since else None
        sheet = balance(gather(self._lake, cloud, "clicks", by_day=since is not None, since=first))
        took = {
            "requests": len(answers),
            "bytes of answers": sum(answers),
            "seconds of processor": time.process_time() - processor,
            "seconds": time.monotonic() - started,
        }
        if not sheet.balanced:
            raise RuntimeError(f"the audit of {self._lake.company} does not balance: {sheet.total}")
        return took


def rows(folder: Path, scale: float) -> list[Row]:
    """All comparisons of the audit."""
    found: list[Row] = []
    with running_ministack(folder) as url:
        cloud = Cloud("us-east-1", url)
        # as many behind the sums as the other has: the first few batches of a series are never in them
        many = round(_MANY * scale) // FOLD_EVERY * FOLD_EVERY + _FEW
        small, large = _Place(cloud, "few", _FEW), _Place(cloud, "many", many)
        last = [_MOMENT + timedelta(minutes=29 * batches) for batches in (_FEW, many)]
        for told, days in (("", (None, None)), (" of the last day", last)):
            against, ours = (
                [place.audit(since=day) for _ in range(_RUNS)][_WARM:]
                for place, day in zip((small, large), days, strict=True)
            )
            name = f"audit{told} after {many:,} batches"
            # a day is read with its month, and the other's month has one day
            no_aim = dict.fromkeys(("bytes of answers", "seconds of processor"), "none: at most a month is read")
            no_aim = no_aim if told else {}
            # the stand-in looks at each item of a partition key to answer a query; DynamoDB goes to where they begin
            no_aim["seconds"] = "none: MiniStack's search grows with the items"
            for measure in ("requests", "bytes of answers", "seconds of processor", "seconds"):
                one, other = (_median(runs, measure) for runs in (ours, against))
                if measure in no_aim:
                    found.append(Row(name, measure, one, other, f"after {_FEW}", no_aim[measure], holds=True))
                else:
                    found.append(at_most(name, measure, one, other, f"after {_FEW}", 1.2))
    return found


def _median(runs: Sequence[Mapping[str, float]], measure: str) -> float:
    return sorted(run[measure] for run in runs)[len(runs) // 2]
