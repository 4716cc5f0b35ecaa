"""Owns the balance sheet: what the evidence of one dataset adds up to, in all and by day. Pure.

Two sums have to hold for each tenant, and for each tenant and day:

- sent + redelivered + unidentified = dead-lettered + waiting + refused + delivered + in flight;
- delivered = ingested + duplicates + quarantined, and the tables hold just as many rows.

A record's day is the one on which its event was made, in UTC, as its id tells. A number that arrived has the day of the
record that it came with; one that didn't has the day that its producer's ledger tells. Where nothing tells, it is `-`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from lake.envelope import NO_DAY
from lake.figures import Counts
from lake.ranges import Ranges, dealt

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from lake.manifest import ProducerLedger

__all__ = ["DayEvidence", "DayRow", "Evidence", "Gap", "Row", "Sheet", "TableCheck", "Unread", "balance"]


@dataclass(frozen=True)
class Gap:
    """Sequence numbers of a producer that arrived nowhere."""

    tenant: str
    producer_id: str
    sequences: Ranges
    day: str | None = None
    """On which their events were made; `-` where the producer doesn't tell, None where nobody asked."""


@dataclass(frozen=True)
class TableCheck:
    """Rows that a table holds beside the rows that the batches say they wrote."""

    table: str
    rows: int
    """Without those of batches that were committed and have no receipt yet: their objects are in flight."""
    by_batches: int
    """Without those that erasures took out."""
    erased: int = 0


@dataclass(frozen=True)
class Unread:
    """An object that waits for ingest and can't be read, or a line of one: nobody can tell whose it is."""

    tenant: str
    """Tenant of its prefix; `-` where it names none."""
    uri: str
    problem: str
    """Why, in words."""


@dataclass(frozen=True)
class DayEvidence:
    """What a dataset's audit by day goes by."""

    counts: Mapping[tuple[str, str], Counts]
    """By (tenant, day)."""
    seen: Mapping[tuple[str, str, str], Ranges]
    """By (tenant, producer, day)."""
    landed: Mapping[tuple[str, str, str], Ranges]
    since: str | None = None
    """No earlier days; those that can't be told are always here."""


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
    days: DayEvidence | None = None
    unread: tuple[Unread, ...] = ()


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
class DayRow(Row):
    """One tenant's line of one day; what was acknowledged isn't told by day."""

    day: str = NO_DAY


@dataclass(frozen=True)
class Sheet:
    """The balance sheet of one dataset."""

    dataset: str
    rows: tuple[Row, ...]
    gaps: tuple[Gap, ...]
    tables: tuple[TableCheck, ...] = field(default_factory=tuple)
    days: tuple[DayRow, ...] = field(default_factory=tuple)
    """By tenant and day, where asked for; the days that can't be told come last."""
    unread: tuple[Unread, ...] = ()
    """What waits and can't be read: ingest will put each into quarantine, as one record of nobody's."""

    @property
    def total(self) -> Row:
        """All tenants in one line."""
        numbers = [name for name in Row.__dataclass_fields__ if name != "tenant"]
        return Row("total", **{name: sum(getattr(row, name) for row in self.rows) for name in numbers})

    @property
    def balanced(self) -> bool:
        """Whether every record is accounted for."""
        lines = all(row.difference == 0 for row in (*self.rows, *self.days))
        return lines and all(one.rows == one.by_batches for one in self.tables)


@dataclass(frozen=True)
class _Standing:
    """Where the numbers of one producer are."""

    producer_id: str
    sent: int
    seen: Ranges
    dead: Ranges
    landed: Ranges
    waiting: Ranges
    """As many as the ledger tells; the highest are taken for them, as a spool sends in order."""
    missing: Ranges
    days: Mapping[str, Ranges]

    def by_day(self, numbers: Ranges) -> dict[str, Ranges]:
        """Numbers that didn't arrive, by the day that the ledger tells."""
        found, left = dealt(numbers, self.days)
        found[NO_DAY] = found.get(NO_DAY, Ranges()) | left
        return {day: one for day, one in found.items() if one.spans}


def balance(evidence: Evidence) -> Sheet:
    """Draw up the sheet."""
    ledgers, producers = _by_tenant(evidence)
    claimed = {*evidence.counts, *(tenant for tenant, _ in evidence.seen), *ledgers}
    others = sorted(claimed - set(evidence.tenants))
    buffered = dict(evidence.buffered)
    arrived = _arrived(evidence.days) if evidence.days else {}
    counts = _counted_days(evidence.days) if evidence.days else {}
    rows: list[Row] = []
    days: list[DayRow] = []
    gaps: list[Gap] = []
    for tenant in (*evidence.tenants, *others):
        theirs = ledgers.get(tenant, {})
        names = sorted({*theirs, *producers.get(tenant, ())})
        standings = [_standing(evidence, tenant, one, theirs.get(one)) for one in names]
        explained = _explained(tenant, sum(len(one.missing) for one in standings), buffered)
        row = _row(tenant, evidence.counts.get(tenant, Counts()), theirs.values(), standings, explained)
        rows.append(row)
        lost = sum(len(one.missing) for one in standings) > explained
        if evidence.days is not None:
            found_days = _day_rows(counts.get(tenant, {}), arrived, tenant, standings, explained)
            since = evidence.days.since
            days += [one for one in found_days if since is None or one.day == NO_DAY or one.day >= since]
        for one in standings if lost else ():
            if evidence.days is None:
                gaps += [Gap(tenant, one.producer_id, one.missing)] if one.missing.spans else []
            else:
                found = one.by_day(one.missing)
                gaps += [Gap(tenant, one.producer_id, found[day], day) for day in _in_order(found)]
    return Sheet(evidence.dataset, tuple(rows), tuple(gaps), evidence.tables, tuple(days), evidence.unread)


def _by_tenant(evidence: Evidence) -> tuple[dict[str, dict[str, ProducerLedger]], dict[str, set[str]]]:
    """Ledgers by tenant and producer, and producers of whom anything came, by tenant: records may claim any tenants."""
    ledgers: dict[str, dict[str, ProducerLedger]] = {}
    for ledger in evidence.ledgers:
        ledgers.setdefault(ledger.tenant, {})[ledger.producer_id] = ledger
    producers: dict[str, set[str]] = {}
    for tenant, producer in (*evidence.seen, *evidence.landed):
        producers.setdefault(tenant, set()).add(producer)
    return ledgers, producers


def _counted_days(evidence: DayEvidence) -> dict[str, dict[str, Counts]]:
    """Counts by tenant, and then by day."""
    found: dict[str, dict[str, Counts]] = {}
    for (tenant, day), counts in evidence.counts.items():
        found.setdefault(tenant, {})[day] = counts
    return found


def _standing(evidence: Evidence, tenant: str, producer: str, ledger: ProducerLedger | None) -> _Standing:
    seen = evidence.seen.get((tenant, producer), Ranges())
    landed = evidence.landed.get((tenant, producer), Ranges()) - seen
    there = seen | landed
    # without a ledger, what a producer sent is known up to the last number that arrived
    end = ledger.sent if ledger else (there.spans[-1][1] + 1 if there.spans else 0)
    dead = (ledger.dead_letters if ledger else Ranges()) - there
    open_ = (there | dead).missing_below(end)
    in_spool = max(0, ledger.sent - ledger.acknowledged - ledger.dead_lettered) if ledger else 0
    waiting = open_.highest(min(in_spool, len(open_)))
    # a ledger may be older than what arrived since: that was sent all the same
    later = len(there) - len(there - Ranges(((end, _EVER),)))
    return _Standing(producer, end + later, seen, dead, landed, waiting, open_ - waiting, ledger.days if ledger else {})


_EVER = 2**63


def _explained(tenant: str, missing: int, buffered: dict[tuple[str, ...], int]) -> int:
    """How many of the missing a stream's buffers may hold; they are taken out of them."""
    found = 0
    for carried, records in buffered.items():
        if missing > found and tenant in carried:
            taken = min(records, missing - found)
            buffered[carried] -= taken
            found += taken
    return found


def _row(
    tenant: str, counts: Counts, ledgers: Collection[ProducerLedger], standings: list[_Standing], explained: int
) -> Row:
    delivered = counts.records - counts.refused
    fates = counts.ingested + counts.duplicates + counts.quarantined
    return Row(
        tenant=tenant,
        sent=sum(one.sent for one in standings),
        acknowledged=sum(one.acknowledged for one in ledgers),
        waiting=sum(len(one.waiting) for one in standings),
        dead_lettered=sum(one.dead_lettered for one in ledgers),
        refused=counts.refused,
        delivered=delivered,
        ingested=counts.ingested,
        duplicates=counts.duplicates,
        quarantined=counts.quarantined,
        redelivered=counts.records - counts.unidentified - sum(len(one.seen) for one in standings),
        unidentified=counts.unidentified,
        in_flight=sum(len(one.landed) for one in standings) + explained,
        difference=sum(len(one.missing) for one in standings) - explained + abs(delivered - fates),
    )


@dataclass
class _Day:
    """Numbers of one tenant and day."""

    seen: int = 0
    dead: int = 0
    landed: int = 0
    waiting: int = 0
    missing: int = 0


_Arrived = dict[tuple[str, str], dict[str, dict[str, Ranges]]]


def _arrived(evidence: DayEvidence) -> _Arrived:
    """Numbers that arrived, by producer, and then by where they are and the day."""
    found: _Arrived = {}
    for place, numbers in (("seen", evidence.seen), ("landed", evidence.landed)):
        for (tenant, producer, day), ranges in numbers.items():
            found.setdefault((tenant, producer), {}).setdefault(place, {})[day] = ranges
    return found


def _day_rows(
    counts: Mapping[str, Counts], arrived: _Arrived, tenant: str, standings: list[_Standing], explained: int
) -> list[DayRow]:
    days: dict[str, _Day] = {}
    for one in standings:
        there = arrived.get((tenant, one.producer_id), {})
        # a number that came under two days, which only what is broken does, is the first one's
        for place, numbers in (("seen", one.seen), ("landed", one.landed)):
            told = there.get(place, {})
            shares, _ = dealt(numbers, {day: told[day] for day in _in_order(told)})
            for day in told:
                _add(days, day, place, shares.get(day, Ranges()))
        for place, numbers in (("dead", one.dead), ("waiting", one.waiting), ("missing", one.missing)):
            for day, here in one.by_day(numbers).items():
                _add(days, day, place, here)
    for day in counts:
        days.setdefault(day, _Day())
    rows: list[DayRow] = []
    for day in reversed(_in_order(days)):
        # what is in a buffer is young
        taken = min(explained, days[day].missing)
        explained -= taken
        rows.append(_day_row(tenant, day, days[day], counts.get(day, Counts()), taken))
    return rows[::-1]


def _add(days: dict[str, _Day], day: str, name: str, numbers: Ranges) -> None:
    one = days.setdefault(day, _Day())
    setattr(one, name, getattr(one, name) + len(numbers))


def _day_row(tenant: str, day: str, one: _Day, counts: Counts, explained: int) -> DayRow:
    delivered = counts.records - counts.refused
    fates = counts.ingested + counts.duplicates + counts.quarantined
    return DayRow(
        tenant=tenant,
        day=day,
        sent=one.seen + one.dead + one.landed + one.waiting + one.missing,
        waiting=one.waiting,
        dead_lettered=one.dead,
        refused=counts.refused,
        delivered=delivered,
        ingested=counts.ingested,
        duplicates=counts.duplicates,
        quarantined=counts.quarantined,
        redelivered=counts.records - counts.unidentified - one.seen,
        unidentified=counts.unidentified,
        in_flight=one.landed + explained,
        difference=one.missing - explained + abs(delivered - fates),
    )


def _in_order(days: Mapping[str, object]) -> list[str]:
    """Days as they follow one another; those that can't be told come last."""
    return sorted(days, key=lambda day: (day == NO_DAY, day))
