"""Owns erasure: a subject's data taken out of everything that a tenant has, told by a receipt.

A round goes through steps: batches under way are finished, so that every record is counted before any goes; everything
is searched; tombstones of the events are kept, so that none comes back; objects are written anew; tables are, and
forget. What the next round's search finds is what came in meanwhile, or what a killed run left. A round that finds
nothing ends it: its search is the proof.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

from lake.defaults import now, silent
from lake.drops import TakenFiles
from lake.erasure import (
    ErasedObject,
    Place,
    Receipt,
    erased_records,
    new_receipt,
    read_receipt,
    receipts,
    tombstone,
    write_receipt,
)
from lake.errors import FindingError, TerminalError, TransientError
from lake.manifest import Lane, Manifest
from lake.names import POOL
from lake.ranges import Ranges
from lake.tables import glue_catalog
from spark_jobs import ingest
from spark_jobs.backfill_state import branches_being_written
from spark_jobs.commit import History
from spark_jobs.erase_files import Form, delete_object, rewrite, search
from spark_jobs.erase_places import datasets_of, object_places, targets
from spark_jobs.erase_tables import erase_files_of, forget, held_files, remaining_in, taken_out
from spark_jobs.failures import spoken
from spark_jobs.history import Taken
from spark_jobs.plan import planned_series, read_plan
from spark_jobs.series import Series
from spark_jobs.snapshots import forget_erasure
from spark_jobs.tombstones import bury

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from pyiceberg.catalog.glue import GlueCatalog
    from pyspark.sql import SparkSession

    from lake.clients import Cloud
    from lake.declaration import Lake, Stream
    from lake.erasure import Subject
    from spark_jobs.erase_files import Held, Stored
    from spark_jobs.erase_places import ObjectPlace
    from spark_jobs.erase_tables import Target

__all__ = ["STEPS", "Findings", "look", "run", "unfinished"]

STEPS = (
    *("receipt", "settled", "found", "tombstones", "object", "objects", "rows", "counted"),
    *("manifests", "said again", "expired", "deleted", "round"),
)
"""Steps after which `after` is called; `object`, and what follows `objects`, once for each object or table."""

_ROUNDS = 5
_WAITS = 30
_WAIT_SECONDS = 2.0


@dataclass(frozen=True)
class Findings:
    """Where the subject is, as one search found it."""

    objects: Mapping[str, tuple[ObjectPlace, Sequence[Held]]]
    """By the place's name."""
    tables: Mapping[str, tuple[Target, str, Sequence[Held]]]
    """By the place's name: table, owner, and its files."""

    def counts(self) -> dict[str, int]:
        """Records by place, every place named."""
        held = {name: one for name, (_, one) in self.objects.items()}
        held |= {name: one for name, (_, _, one) in self.tables.items()}
        return {name: sum(one.records for one in found) for name, found in held.items()}

    @property
    def total(self) -> int:
        """Records in all places."""
        return sum(self.counts().values())


def table_place(target: Target) -> str:
    """Name of a table among a receipt's places."""
    return target.name if target.contract else f"{target.name} ({', '.join(target.matchers)})"


def look(spark: SparkSession, lake: Lake, cloud: Cloud, subject: Subject) -> Findings:
    """Search everything, changing nothing; it reads all of it."""
    manifest = Manifest(cloud.dynamodb, lake.names.manifest_table())
    catalog = glue_catalog(cloud)
    objects: dict[str, tuple[ObjectPlace, Sequence[Held]]] = {}
    tables: dict[str, tuple[Target, str, Sequence[Held]]] = {}
    with spoken(f"search for a subject of tenant {subject.tenant}"):
        for place in object_places(lake, subject, manifest):
            listed = place.objects(cloud.s3)
            objects[place.name] = (place, search(spark, cloud, listed, place.form, {"": place.matcher}))
        for target, owner in targets(lake, subject):
            tables[table_place(target)] = (target, owner, held_files(spark, cloud, catalog, target))
    return Findings(objects, tables)


def unfinished(lake: Lake, cloud: Cloud, subject: Subject) -> Receipt | None:
    """The receipt of an erasure of the same subject that was begun and not finished."""
    bucket = lake.names.bucket(subject.tenant)
    found = (one for one in receipts(cloud.s3, bucket) if not one.is_finished)
    return next((one for one in found if one.is_of(subject)), None)


def run(
    spark: SparkSession,
    lake: Lake,
    cloud: Cloud,
    subject: Subject,
    erasure_id: str,
    *,
    resume: str | None = None,
    clock: Callable[[], datetime] = now,
    pause: Callable[[float], None] = time.sleep,
    say: Callable[[str], None] = silent,
    after: Callable[[str], None] = silent,
) -> Receipt:
    """Erase a subject; one that was begun for the same subject is gone on with.

    Args:
        spark: a session of `create_session`.
        lake: the declaration.
        cloud: where the lake is.
        subject: whose data.
        erasure_id: id of a new receipt.
        resume: id of the receipt to go on with.
        clock: tells when it began and ended.
        pause: waits so many seconds for another ingest.
        say: takes a line about each step.
        after: called with one of `STEPS` after each; tests stop it there.

    Raises:
        TerminalError: the receipt to go on with is finished, or another subject's.
        TransientError: another ingest is at the tenant's batches and doesn't end.
        FindingError: the subject's data goes on coming in, or can't be taken out.
    """
    bucket = lake.names.bucket(subject.tenant)
    if resume is not None:
        receipt = read_receipt(cloud.s3, bucket, resume)
        if not receipt.is_of(subject):
            raise TerminalError(f"erasure {resume}: it is of another subject; give the values it was begun with")
        if receipt.is_finished:
            raise TerminalError(f"erasure {resume}: it was finished at {receipt.finished_at}")
    else:
        receipt = unfinished(lake, cloud, subject) or new_receipt(subject, erasure_id, clock())
    if receipt.step != "begun":
        say(f"erasure {receipt.id}: begun at {receipt.started_at} and not finished; going on behind {receipt.step!r}")
    manifest = Manifest(cloud.dynamodb, lake.names.manifest_table())
    job = _Erasure(spark, lake, cloud, glue_catalog(cloud), manifest, subject, bucket, pause, say, after, receipt)
    with spoken(f"erasure {receipt.id}"):
        return job.run(clock)


@dataclass
class _Erasure:
    """One erasure under way."""

    spark: SparkSession
    lake: Lake
    cloud: Cloud
    catalog: GlueCatalog
    manifest: Manifest
    subject: Subject
    bucket: str
    pause: Callable[[float], None]
    say: Callable[[str], None]
    after: Callable[[str], None]
    receipt: Receipt

    def run(self, clock: Callable[[], datetime]) -> Receipt:
        """Rounds until one finds nothing."""
        self._note("receipt")
        left = 0
        for number in range(_ROUNDS):
            self._settle(listed=number > 0)
            self._note("settled")
            findings = look(self.spark, self.lake, self.cloud, self.subject)
            # asked once, and before the batches' numbers are noted: these hold what those objects gave
            going = self._going(findings)
            self._found(findings)
            self._note("found")
            left = findings.total + self._remembered()
            if not left:
                self._finish(findings, clock())
                return self.receipt
            self.say(f"erasure {self.receipt.id}: round {self.receipt.rounds + 1}: {findings.total:,} records found")
            self._bury(findings, going)
            self._note("tombstones")
            self._objects(findings, going)
            self._note("objects")
            for name, (target, owner, held) in findings.tables.items():
                self._table(name, target, owner, held)
            self.receipt = replace(self.receipt, rounds=self.receipt.rounds + 1)
            self._note("round")
        raise FindingError(
            f"erasure {self.receipt.id}: after {_ROUNDS} rounds {left:,} records are left; is the producer still "
            "sending, or an object locked, damaged or too large? The receipt names what holds them; the same "
            "command goes on"
        )

    def _note(self, step: str) -> None:
        self.receipt = replace(self.receipt, step=step)
        write_receipt(self.cloud.s3, self.bucket, self.receipt)
        self.after(step)

    def _streams(self) -> list[Stream]:
        return [self.lake.stream_of(one.name, self.subject.tenant) for one in datasets_of(self.lake, self.subject)]

    def _settle(self, *, listed: bool) -> None:
        """Have every record counted, and no batch under way that has read what is about to go."""
        names = [one.name for one in datasets_of(self.lake, self.subject)]
        carried = sorted({tenant for stream in self._streams() for tenant in stream.tenants})
        for _ in range(_WAITS):
            done = ingest.run(
                self.spark, self.lake, self.cloud, datasets=names, tenants=carried, say=self.say, listed=listed
            )
            for held in (one.batch for one in done.held if one.batch.tenant == self.subject.tenant):
                raise FindingError(
                    f"erasure {self.receipt.id}: batch {held} is held back by a quality rule, and may hold the "
                    f"subject: decide about it first (`lakehose quality publish --batch {held}`, or `refuse`); then "
                    "the same command goes on"
                )
            if not done.busy and self._is_quiet():
                return
            self.say(f"erasure {self.receipt.id}: another ingest is at it; waiting for it")
            self.pause(_WAIT_SECONDS)
        raise TransientError(f"erasure {self.receipt.id}: another ingest doesn't end; the same command goes on")

    def _is_quiet(self) -> bool:
        """Whether every batch of the subject's that was planned is in its table."""
        for stream in self._streams():
            for lane, tenant in planned_series(self.cloud.s3, stream):
                if lane is Lane.EVENTS and tenant != self.subject.tenant:
                    continue
                one = Series(stream, lane, tenant)
                if read_plan(self.cloud.s3, stream.bucket, one.batch(self._last(one) + 1)) is not None:
                    return False
        return True

    def _nobody_writes(self) -> bool:
        """Whether a file that no snapshot knows is nobody's: neither a batch's nor a backfill's."""
        written = [
            f"{stream.dataset.name}, branch {branch}"
            for stream in self._streams()
            for bucket in {stream.bucket, self.bucket}
            for branch in branches_being_written(self.cloud.s3, bucket, stream.dataset.name, self.subject.tenant)
        ]
        for one in written:
            self.say(f"{one}: a backfill is writing to it, or was ended; its files are left until it goes on")
        return not written and self._is_quiet()

    def _found(self, findings: Findings) -> None:
        for name, (place, held) in findings.objects.items():
            kind = "results" if place.form is Form.RESULT else "objects"
            self._add(name, kind, held)
        for name, (_, _, held) in findings.tables.items():
            self._add(name, "table", held)
        self.receipt = replace(self.receipt, numbers=(*self.receipt.numbers, self._numbers()))
        for place, held in findings.objects.values():
            if place.dataset:
                self._add_sequences(place.dataset, held)
            if place.form is not Form.RESULT:
                self._add_records(place, held)

    def _add(self, name: str, kind: str, held: Sequence[Held]) -> None:
        place = self.receipt.places.get(name, Place(kind))
        found = dict(place.found)
        for one in held:
            if one.records:
                found[one.stored.uri] = max(one.records, found.get(one.stored.uri, 0))
        unread = tuple(sorted(one.stored.uri for one in held if not one.records))
        remaining = sum(one.records for one in held)
        self.receipt = self.receipt.with_place(name, replace(place, found=found, unread=unread, remaining=remaining))

    def _add_sequences(self, dataset: str, held: Sequence[Held]) -> None:
        known = dict(self.receipt.sequences.get(dataset, {}))
        for one in held:
            for who in one.identities:
                if who.producer_id is not None and who.sequence is not None:
                    there = Ranges.parse(known.get(who.producer_id, ""))
                    known[who.producer_id] = str(there | Ranges(((who.sequence, who.sequence),)))
        if known:
            self.receipt = replace(self.receipt, sequences={**self.receipt.sequences, dataset: known})

    def _numbers(self) -> dict[str, int]:
        """Newest batch of each series of the subject's."""
        found: dict[str, int] = {}
        for stream in self._streams():
            for lane, tenant in planned_series(self.cloud.s3, stream):
                if lane is not Lane.EVENTS or tenant == self.subject.tenant:
                    series = Series(stream, lane, tenant)
                    found[series.batch(0).series] = self._last(series)
        return found

    def _last(self, series: Series) -> int:
        return History(self.catalog, *series.table(self.lake.names)).last_number(series.batch(0).series)

    def _add_records(self, place: ObjectPlace, held: Sequence[Held]) -> None:
        """Note whose records go from each object: found anew it was not rewritten, and this round counts for it."""
        objects = dict(self.receipt.erased_objects)
        for one in held:
            if one.stored.is_newest and one.records and len(one.identities) == one.records:
                tenant = place.tenant_of(one.stored.key)
                # what was delivered astray counts under its prefix, whatever it claims
                stray = place.form is Form.LINES and tenant != self.subject.tenant
                whose = tuple(replace(who, tenant=None) for who in one.identities) if stray else one.identities
                records = erased_records(whose, tenant, place.matcher.producers if not stray else {})
                objects[one.stored.address] = ErasedObject(len(self.receipt.numbers) - 1, records)
        self.receipt = replace(self.receipt, erased_objects=objects)

    def _remembered(self) -> int:
        """Snapshots that still name files of which nothing is left."""
        count = 0
        for target, _ in targets(self.lake, self.subject):
            place = self.receipt.places.get(table_place(target))
            if place is not None and place.found:
                count += remaining_in(self.catalog, target, set(place.found))
        return count

    def _going(self, findings: Findings) -> dict[str, list[Held]]:
        """By place, objects whose records go in this round; those no batch has taken the next one ingests first."""
        going: dict[str, list[Held]] = {}
        for name, (place, held) in findings.objects.items():
            holding = [one for one in held if one.records]
            may = place.taken(self.manifest, [one.stored for one in holding])
            going[name] = [one for one in holding if one.stored.address in may]
        return going

    def _bury(self, findings: Findings, going: Mapping[str, Sequence[Held]]) -> None:
        """Keep tombstones of what goes in this round.

        An event that only an object holds which no batch has taken gets none yet: the batch that takes it would count
        it as a duplicate, of nothing.
        """
        ids: dict[str, set[str]] = {}
        for name, (place, _) in findings.objects.items():
            if place.dataset:
                ids.setdefault(place.dataset, set()).update(_event_ids(going[name]))
        for target, _, held in findings.tables.values():
            ids.setdefault(_dataset(target), set()).update(_event_ids(held))
        events = dict(self.receipt.events)
        for dataset, found in ids.items():
            stones = sorted(tombstone(one) for one in found)
            events[dataset] = bury(
                self.cloud.s3,
                self.manifest,
                stones,
                bucket=self.bucket,
                erasure_id=self.receipt.id,
                tenant=self.subject.tenant,
                dataset=dataset,
            )
        self.receipt = replace(self.receipt, events={name: count for name, count in events.items() if count})

    def _objects(self, findings: Findings, going: Mapping[str, Sequence[Held]]) -> None:
        for name, (place, _) in findings.objects.items():
            gone = 0
            for one in going[name]:
                if place.form is Form.RESULT:
                    self._delete_result(one)
                    gone += 1
                elif not rewrite(
                    self.cloud.s3, one.stored, place.form, place.matcher, self._replacing(one.stored)
                ).records:
                    self.say(f"object {one.stored.uri}: no form that a record can be taken out of; look at it yourself")
                self.after("object")
            known = self.receipt.places[name]
            self.receipt = self.receipt.with_place(name, replace(known, gone=known.gone + gone))

    def _replacing(self, one: Stored) -> Callable[[str, str], None] | None:
        """What has to know of an object's new content: the job for files would take a file anew, row by row."""
        drop = next((drop for drop in self.lake.drops if one.address.startswith(drop.uri)), None)
        if drop is None:
            return None
        taken = TakenFiles(self.cloud.dynamodb, self.lake.names.manifest_table())
        return partial(taken.rewritten, drop, one.address)

    def _delete_result(self, one: Held) -> None:
        delete_object(self.cloud.s3, one.stored)
        if one.stored.is_newest:
            # Athena writes what the columns are beside it
            beside = replace(one.stored, key=f"{one.stored.key}.metadata", version=None)
            delete_object(self.cloud.s3, beside)

    def _table(self, name: str, target: Target, owner: str, held: Sequence[Held]) -> None:
        place = self.receipt.places[name]
        named = {*place.found, *(one.stored.uri for one in held)}
        if not named:
            return
        dataset = _dataset(target)
        noted, erasure_id = self._noted(target), self.receipt.id
        taken = erase_files_of(self.spark, self.catalog, target, held, erasure_id=erasure_id, noted=noted)
        self.after("rows")
        self._count(name, target, taken)
        # before the history forgets: the audit's, and a later run's, only way to know
        self._note("counted")
        self.manifest.erased(owner, dataset, self.receipt.id, target.name, taken.rows)
        gone = forget(
            self.spark,
            self.cloud,
            self.catalog,
            target,
            held,
            named=set(place.found),
            quiet=self._nobody_writes,
            after=self.after,
            say=self._remark,
        )
        place = self.receipt.places[name]
        self.receipt = self.receipt.with_place(name, replace(place, gone=place.gone + gone))

    def _noted(self, target: Target) -> Taken:
        rows = self.receipt.erased_rows.get(_dataset(target), {}).get(target.name, 0)
        return Taken(rows, self.receipt.erased_batches.get(target.name, {}))

    def _count(self, name: str, target: Target, taken: Taken) -> None:
        dataset, place = _dataset(target), self.receipt.places[name]
        by_table = {**self.receipt.erased_rows.get(dataset, {}), target.name: taken.rows}
        self.receipt = replace(
            self.receipt.with_place(name, replace(place, removed=taken.rows)),
            erased_rows={**self.receipt.erased_rows, dataset: by_table},
            erased_batches={**self.receipt.erased_batches, target.name: taken.batches},
        )

    def _remark(self, sentence: str) -> None:
        self.say(sentence)
        self.receipt = replace(self.receipt, notes=(*self.receipt.notes, sentence))

    def _finish(self, findings: Findings, now: datetime) -> None:
        for target, owner in targets(self.lake, self.subject):
            dataset, name = _dataset(target), table_place(target)
            noted = self._noted(target)
            # a run that was broken off before it noted them may have taken out the last
            taken = taken_out(self.catalog, target, self.receipt.id, noted)
            if taken.rows > noted.rows and name in self.receipt.places:
                self._count(name, target, taken)
            self.manifest.erased(owner, dataset, self.receipt.id, target.name, taken.rows)
        for name, place in self.receipt.places.items():
            done = place if place.kind == "table" else replace(place, removed=place.records)
            self.receipt = self.receipt.with_place(name, done)
        shared = any(stream.owner == POOL for stream in self._streams())
        if shared:
            told = "records that name no tenant, in what pooled tenants share, were taken for this tenant's"
            self.receipt = replace(self.receipt, notes=tuple(dict.fromkeys((*self.receipt.notes, told))))
        self.receipt = replace(self.receipt, finished_at=now.isoformat(timespec="seconds"), step="finished")
        write_receipt(self.cloud.s3, self.bucket, self.receipt)
        for target, _ in targets(self.lake, self.subject):
            forget_erasure(self.catalog, (target.database, target.table), self.receipt.id)
        self.say(f"erasure {self.receipt.id}: finished; {len(findings.counts())} places hold nothing")


def _dataset(target: Target) -> str:
    return target.contract.dataset if target.contract else next(iter(target.matchers))


def _event_ids(held: Sequence[Held]) -> set[str]:
    return {who.event_id for one in held for who in one.identities if who.event_id}
