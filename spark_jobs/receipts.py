"""Owns drawing up the receipt of a batch: what became of each of its records, by tenant and day."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lake.figures import Counts, Figures
from lake.manifest import BatchReceipt, Lane
from spark_jobs.days import rows_by_day

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pyspark.sql import Column, SparkSession

    from spark_jobs.commit import Committed
    from spark_jobs.plan import Plan
    from spark_jobs.tally import Tally

__all__ = ["ingested_rows", "receipt_of", "told"]


def receipt_of(
    plan: Plan,
    counted: Tally,
    committed: Committed,
    ingested: Mapping[tuple[str, str], int],
    turned_away: Mapping[tuple[str, str], int],
) -> BatchReceipt:
    """The receipt of a batch.

    Args:
        plan: the batch's.
        counted: what it held.
        committed: its commit.
        ingested: rows that the table took, by tenant and day.
        turned_away: rows that went to quarantine for their batch's quality, by tenant and day.
    """
    refused = plan.batch.lane is Lane.REFUSED
    counts: dict[tuple[str, str], Counts] = {}
    for key in sorted({*counted.good, *counted.bad}):
        good, bad, turned = counted.good.get(key, 0), counted.bad.get(key, 0), turned_away.get(key, 0)
        counts[key] = Counts(
            records=good + bad,
            ingested=ingested.get(key, 0),
            # what the table didn't take of the good ones, and quarantine neither, it had
            duplicates=good - ingested.get(key, 0) - turned,
            quarantined=0 if refused else bad + turned,
            refused=bad if refused else 0,
            unidentified=counted.unidentified.get(key, 0),
        )
    return BatchReceipt(
        batch=plan.batch,
        snapshot_id=committed.snapshot_id,
        schema_version=plan.schema_version,
        committed_at_ms=committed.committed_at_ms,
        objects={one.uri: counted.objects.get(one.uri, 0) for one in plan.objects},
        figures=Figures(counts, counted.seen),
    )


def ingested_rows(
    spark: SparkSession, table: str, plan: Plan, counted: Tally, committed: Committed, *, among: Column
) -> Mapping[tuple[str, str], int]:
    """Rows that the table took of a batch, by tenant and day.

    Args:
        spark: a session.
        table: `database.table` of the batch's series.
        plan: the batch's.
        counted: what it held.
        committed: its commit.
        among: tells the batch's rows from the table's others.
    """
    if plan.batch.lane is not Lane.EVENTS:
        return {}
    good = counted.good  # all of the prefix's tenant
    if committed.rows == sum(good.values()):
        return good
    if len(good) < 2 or not committed.rows:  # noqa: PLR2004 - one day, or no rows: nothing to ask the table for
        return dict.fromkeys(good, committed.rows)
    days = rows_by_day(spark, table, committed, among)
    return {(plan.batch.tenant, day): rows for day, rows in days.items()}


def told(receipt: BatchReceipt, seconds: float) -> str:
    """A receipt in a line, with the seconds that the batch took."""
    total = sum(receipt.counts.values(), Counts())
    fates: Mapping[str, int] = {
        "ingested": total.ingested,
        "duplicates": total.duplicates,
        "quarantined": total.quarantined,
        "refused before": total.refused,
    }
    line = ", ".join(f"{count:,} {fate}" for fate, count in fates.items() if count) or "no records"
    return f"batch {receipt.batch}: {len(receipt.objects):,} objects, {line}; {seconds:.1f} s"
