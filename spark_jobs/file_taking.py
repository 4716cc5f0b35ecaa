"""Owns taking one dropped file: made into objects and told to the manifest, in an order that a crash can't hurt.

Objects first, then the producer's ledger, then the mark that the file was taken. Where it stops before the mark the
file is taken again, and everything that was written is written over with the same bytes.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import IO, TYPE_CHECKING

from botocore.exceptions import BotoCoreError, ClientError

from lake.clients import error_code
from lake.defaults import now, silent
from lake.drops import TakenFile, TakenFiles, file_producer
from lake.envelope import Identity
from lake.error_record import FILES_STAGE, ErrorRecord
from lake.errors import LakehoseError, TransientError
from lake.manifest import Manifest, ProducerLedger
from spark_jobs.csv_events import EventRow, Events
from spark_jobs.csv_rows import LONGEST_ROW, BadRow, CsvReason, UnreadableFileError, open_text, rows
from spark_jobs.file_objects import FileObjects

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

    from lake.clients import Cloud
    from lake.contract import Contract
    from lake.drops import Drop
    from spark_jobs.csv_rows import Row, Text

__all__ = ["FileReport", "FoundFile", "Outcome", "Target", "take_file"]

_CHUNK = 2**20
_IN_MEMORY = 16 * 2**20  # of a file as stored; a larger one goes to disk
_DOWNLOADS = 3
_CHANGED = {"PreconditionFailed", "412", "NoSuchKey", "404"}


class Outcome(StrEnum):
    """What became of a file."""

    TAKEN = "taken"
    """Its rows are events, or refused one by one."""
    REFUSED = "refused"
    """It could not be read, and is one refused record as a whole."""
    SAME = "same"
    """It was put there again with the content that was taken before."""
    CHANGED = "changed"
    """It was replaced or removed after it was found: the next run finds what is there now."""
    FAILED = "failed"
    """S3 or DynamoDB did not do as asked; it is left to the next run."""


@dataclass(frozen=True)
class FoundFile:
    """A file in S3 that was not taken as it is."""

    key: str
    etag: str
    """Without its quotation marks."""
    size: int
    """Bytes as stored."""
    modified_ms: int
    """When it was put there, milliseconds since 1970."""


@dataclass(frozen=True)
class Target:
    """Where the events of a drop go."""

    drop: Drop
    contract: Contract
    bucket: str
    """Of the stream that carries the tenant's events of the dataset."""
    manifest_table: str

    def uri(self, found: FoundFile) -> str:
        """Address of a file of the drop."""
        return f"s3://{self.drop.bucket}/{found.key}"


@dataclass(frozen=True)
class FileReport:
    """What became of a file, in numbers."""

    drop: str
    uri: str
    outcome: Outcome
    rows: int = 0
    refused: int = 0
    objects: int = 0
    producer_id: str = ""
    message: str = ""
    """Why it was refused, or failed."""


def take_file(
    found: FoundFile,
    target: Target,
    cloud: Cloud,
    *,
    clock: Callable[[], datetime] = now,
    after: Callable[[str], None] = silent,
) -> FileReport:
    """Take a file, unless its content was taken before.

    Args:
        found: the file.
        target: its drop, and where the events go.
        cloud: where both are.
        clock: tells when the ledger and the mark are written.
        after: called with `objects`, `ledger`, `mark` after each step; tests stop it there.

    Returns:
        What became of it; a service that fails is an outcome too, so that one file holds up no other.
    """
    drop, uri = target.drop, target.uri(found)
    try:
        return _take(found, target, cloud, round(clock().timestamp() * 1000), after)
    except (ClientError, BotoCoreError, LakehoseError, OSError) as error:  # the last: its disk is full
        if isinstance(error, ClientError) and error.operation_name == "GetObject" and error_code(error) in _CHANGED:
            return FileReport(drop.name, uri, Outcome.CHANGED)
        return FileReport(drop.name, uri, Outcome.FAILED, message=f"{uri}: {error}")


def _take(found: FoundFile, target: Target, cloud: Cloud, moment_ms: int, after: Callable[[str], None]) -> FileReport:
    drop, uri = target.drop, target.uri(found)
    taken_files = TakenFiles(cloud.dynamodb, target.manifest_table)
    with SpooledTemporaryFile(max_size=_IN_MEMORY, dir=_scratch()) as body:
        producer_id = file_producer(uri, _fetch(cloud, drop.bucket, found, body))
        earlier = next((one for one in taken_files.of_file(drop, uri) if one.producer_id == producer_id), None)
        if earlier is not None:
            taken_files.record(drop, replace(earlier, etag=found.etag, taken_at_ms=moment_ms))
            return FileReport(drop.name, uri, Outcome.SAME, earlier.rows, earlier.refused, producer_id=producer_id)
        work = _Transformation(found, target, cloud, producer_id)
        problem = work.run(body)
    after("objects")
    rows_in_all, refused = work.rows, work.refused
    Manifest(cloud.dynamodb, target.manifest_table).report(
        ProducerLedger(drop.tenant, drop.dataset, producer_id, rows_in_all, rows_in_all, 0, moment_ms)
    )
    after("ledger")
    taken_files.record(drop, TakenFile(uri, found.etag, producer_id, rows_in_all, refused, moment_ms))
    after("mark")
    outcome = Outcome.REFUSED if problem else Outcome.TAKEN
    return FileReport(drop.name, uri, outcome, rows_in_all, refused, work.objects.written, producer_id, problem)


class _Transformation:
    """One file on its way into objects."""

    def __init__(self, found: FoundFile, target: Target, cloud: Cloud, producer_id: str) -> None:
        drop = target.drop
        self._uri = target.uri(found)
        self._found = found
        self._target = target
        self._producer_id = producer_id
        self.objects = FileObjects(
            cloud.s3, target.bucket, dataset=drop.dataset, tenant=drop.tenant, producer_id=producer_id
        )
        self.rows = 0
        self.refused = 0

    def run(self, body: IO[bytes]) -> str:
        """Write the objects of the file; answers why it could not be read as a whole, if so."""
        problem = ""
        try:
            text = open_text(body, self._target.drop)
            found = rows(text, self._target.drop)
            self._rows(text, found, self._events(found))
        except UnreadableFileError as error:
            problem = str(error)
            self._refuse(error.reason, self._whole(problem), _beginning(body), 0)
        self.objects.flush()
        return problem

    def _events(self, found: Iterator[Row | BadRow]) -> Events:
        drop, header = self._target.drop, next(found, None)
        if header is None:
            raise UnreadableFileError(CsvReason.BAD_HEADER, "the file holds nothing but blank lines")
        if isinstance(header, BadRow):
            message = f"the header, in line {header.line}, can't be read: {header.message}"
            raise UnreadableFileError(CsvReason.BAD_HEADER, message)
        return Events(
            drop, self._target.contract, producer_id=self._producer_id, key=self._found.key, header=header.values
        )

    def _rows(self, text: Text, found: Iterator[Row | BadRow], events: Events) -> None:
        for row in found:
            made = row if isinstance(row, BadRow) else events.take(row)
            if isinstance(made, EventRow):
                self.objects.event(made.day, made.line)
                self.rows += 1
            else:
                message = f"{self._uri}, line {row.line}: {made.message}"
                self._refuse(made.reason, message, text.encode(row.raw), row.number - 1)

    def _whole(self, problem: str) -> str:
        size = self._found.size
        kept = f"; its first {LONGEST_ROW:,} bytes of {size:,} are kept here" if size > LONGEST_ROW else ""
        return f"{self._uri}: {problem}{kept}"

    def _refuse(self, reason: CsvReason, message: str, raw: bytes, sequence: int) -> None:
        who = Identity(tenant=self._target.drop.tenant, producer_id=self._producer_id, sequence=sequence)
        self.objects.refused(ErrorRecord(reason, message, raw, who, self._found.modified_ms, FILES_STAGE))
        self.rows += 1
        self.refused += 1


def _beginning(body: IO[bytes]) -> bytes:
    body.seek(0)
    return body.read(LONGEST_ROW)


def _fetch(cloud: Cloud, bucket: str, found: FoundFile, body: IO[bytes]) -> str:
    """Copy the file as it was found; answers the SHA-256 of its content.

    It is read from a copy: some files are read twice, and a connection that breaks in the middle of a long one must
    not cost what was done.
    """
    for left in reversed(range(_DOWNLOADS)):
        try:
            return _download(cloud, bucket, found, body)
        except BotoCoreError as error:
            if not left:
                raise TransientError(f"it can't be read: {error}") from error
    raise AssertionError  # the last turn answers or raises


def _download(cloud: Cloud, bucket: str, found: FoundFile, body: IO[bytes]) -> str:
    body.seek(0)
    body.truncate()
    content = hashlib.sha256()
    answer = cloud.s3.get_object(Bucket=bucket, Key=found.key, IfMatch=f'"{found.etag}"')
    for chunk in answer["Body"].iter_chunks(_CHUNK):
        content.update(chunk)
        body.write(chunk)
    return content.hexdigest()


def _scratch() -> str | None:
    """Where Spark puts its temporary files, if it says so: on a cluster that is the disk made for it."""
    folders = os.environ.get("SPARK_LOCAL_DIRS", "").split(",")
    return next((one for one in folders if one and Path(one).is_dir()), None)
