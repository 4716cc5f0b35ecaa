"""Owns batches that a quality rule holds back: what is written down of them, and the branch that keeps their rows.

Beside the plan of a batch, `batches/…/NUMBER.json`, lies what held it, `NUMBER.held`, and once somebody has decided,
`NUMBER.ruling`: written on the condition that there is none, so there is one ruling, whatever happens at once. The rows
are the batch's staged snapshot; a branch, `held_OWNER_NUMBER`, points at it, so that readers can query it and no expiry
takes it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from lake.documents import create_document, read_document, write_document
from lake.errors import CommitConflictError, FindingError, TerminalError, known_values
from lake.manifest import BatchId, Lane
from lake.names import Names
from lake.quality_log import result_from_dict, result_to_dict
from lake.tables import change_table

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from pyiceberg.catalog.glue import GlueCatalog
    from pyiceberg.table import Table

    from lake.declaration import Lake, Stream
    from lake.quality import Result

__all__ = [
    "HeldError",
    "Hold",
    "Ruling",
    "Verdict",
    "drop_branches",
    "held_branch",
    "keep_branch",
    "parse_batch",
    "read_hold",
    "read_ruling",
    "write_hold",
    "write_ruling",
]

_BRANCH = re.compile(r"held_([a-z0-9_]+)_(\d+)")


class Verdict(StrEnum):
    """What becomes of a batch that was held back."""

    PUBLISH = "publish"
    """It is published as it is."""
    REFUSE = "refuse"
    """Its rows go to quarantine, and its number is committed without any."""


@dataclass(frozen=True)
class Hold:
    """What holds a batch back."""

    batch: BatchId
    branch: str
    held_at_ms: int
    contract_version: str
    digest: str
    """Of the rules that were in force, see `lake.quality.digest`."""
    results: tuple[Result, ...]

    def __str__(self) -> str:
        told = "; ".join(str(one) for one in self.results if one.blocks)
        return f"batch {self.batch}: held back on branch {self.branch}: {told}"


@dataclass(frozen=True)
class Ruling:
    """What somebody decided about a batch that was held back."""

    batch: BatchId
    verdict: Verdict
    why: str
    by: str
    """Who: a person's name as their machine has it, or the contract's version."""
    decided_at_ms: int


class HeldError(FindingError):
    """A batch is held back; what follows it in its series waits."""

    def __init__(self, hold: Hold) -> None:
        super().__init__(str(hold))
        self.hold = hold


def parse_batch(lake: Lake, text: str) -> tuple[Stream, BatchId]:
    """A batch's id as it is printed, `DATASET/events/OWNER/TENANT/NUMBER`, and the stream it came by.

    Raises:
        TerminalError: it isn't one, or of another lane.
        DeclarationError: its dataset or tenant isn't declared.
    """
    parts = text.split("/")
    if len(parts) != len(("dataset", "lane", "owner", "tenant", "number")) or not parts[-1].isdecimal():
        raise TerminalError(f"batch: got {text!r}, allowed is DATASET/events/OWNER/TENANT/NUMBER, as ingest prints it")
    dataset, lane, owner, tenant, number = parts
    if lane != Lane.EVENTS:
        raise TerminalError(f"batch: {known_values(lane, [Lane.EVENTS])}: only events become rows")
    stream = lake.stream_of(dataset, tenant)
    if owner != stream.owner:
        raise TerminalError(f"batch: owner: {known_values(owner, [stream.owner])}")
    return stream, BatchId(owner, dataset, Lane.EVENTS, tenant, int(number))


def _place(batch: BatchId, kind: str) -> str:
    key = Names.plan_key(batch.dataset, batch.tenant, batch.lane, batch.number)
    return f"{key.removesuffix('.json')}.{kind}"


def write_hold(s3: S3Client, bucket: str, hold: Hold) -> None:
    """Write what holds a batch, over what held it before."""
    body = {
        "batch": str(hold.batch),
        "branch": hold.branch,
        "held_at_ms": hold.held_at_ms,
        "contract_version": hold.contract_version,
        "digest": hold.digest,
        "results": [result_to_dict(one) for one in hold.results],
    }
    write_document(s3, bucket, _place(hold.batch, "held"), body)


def read_hold(s3: S3Client, bucket: str, batch: BatchId) -> Hold | None:
    """What holds a batch, or held it before somebody decided; None where nothing ever did.

    Raises:
        TerminalError: it can't be read.
    """

    def parsed(raw: dict[str, Any]) -> Hold:
        return Hold(
            batch=batch,
            branch=str(raw["branch"]),
            held_at_ms=int(raw["held_at_ms"]),
            contract_version=str(raw["contract_version"]),
            digest=str(raw["digest"]),
            results=tuple(result_from_dict(one) for one in raw["results"]),
        )

    return read_document(s3, bucket, _place(batch, "held"), parsed)


def write_ruling(s3: S3Client, bucket: str, ruling: Ruling) -> Ruling:
    """Decide about a batch; answers what is decided, which is another's ruling where that came first."""
    body = {
        "batch": str(ruling.batch),
        "verdict": ruling.verdict,
        "why": ruling.why,
        "by": ruling.by,
        "decided_at_ms": ruling.decided_at_ms,
    }
    if create_document(s3, bucket, _place(ruling.batch, "ruling"), body):
        return ruling
    standing = read_ruling(s3, bucket, ruling.batch)
    if standing is None:
        raise CommitConflictError(f"batch {ruling.batch}: another one is deciding about it; try again")
    return standing


def read_ruling(s3: S3Client, bucket: str, batch: BatchId) -> Ruling | None:
    """What is decided about a batch; None while nothing is.

    Raises:
        TerminalError: it can't be read.
    """

    def parsed(raw: dict[str, Any]) -> Ruling:
        verdict = Verdict(raw["verdict"])
        return Ruling(batch, verdict, str(raw["why"]), str(raw["by"]), int(raw["decided_at_ms"]))

    return read_document(s3, bucket, _place(batch, "ruling"), parsed)


def held_branch(batch: BatchId) -> str:
    """Name of the branch that keeps a held batch's rows, which SQL takes without quotes."""
    return f"held_{batch.owner.replace('-', '_')}_{batch.number}"


def keep_branch(catalog: GlueCatalog, identifier: tuple[str, str], name: str, snapshot_id: int) -> None:
    """Point a branch at a snapshot, if it doesn't.

    Raises:
        FindingError: the table is gone.
        CommitConflictError: other writers were faster, again and again.
    """

    def change(table: Table) -> bool:
        there = table.metadata.refs.get(name)
        if there is not None and there.snapshot_id == snapshot_id:
            return False
        with table.manage_snapshots() as work:
            work.create_branch(snapshot_id, name)
        return True

    change_table(catalog, identifier, change)


def drop_branches(catalog: GlueCatalog, identifier: tuple[str, str], owner: str, through: int) -> list[str]:
    """Drop the branches of an owner's batches up to a number, which aren't held any more; answers their names."""
    dropped: list[str] = []

    def change(table: Table) -> bool:
        found = [_BRANCH.fullmatch(name) for name in table.metadata.refs]
        whose = owner.replace("-", "_")
        old = [one[0] for one in found if one and one[1] == whose and int(one[2]) <= through]
        if old:
            with table.manage_snapshots() as work:
                for name in old:
                    work.remove_branch(name)
        dropped.extend(old)
        return bool(old)

    change_table(catalog, identifier, change)
    return dropped
