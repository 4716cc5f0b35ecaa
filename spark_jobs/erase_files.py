"""Owns searching the objects of a bucket for a subject, in Spark's tasks, and writing those that hold it anew.

A search reads whole objects, each version of them where the bucket keeps versions, and answers only about those that
hold something. A rewrite takes place on the condition that the object is still what was read.
"""

from __future__ import annotations

import gzip
import io
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import pyarrow as pa
import pyarrow.parquet as pq
from botocore.exceptions import ClientError

from lake.clients import Cloud, error_code
from lake.envelope import Identity
from lake.errors import CommitConflictError, TerminalError
from lake.lines import NotGzipError, is_gzip, unpack
from spark_jobs.erase_match import Cut, Matcher, cut_csv, cut_lines, holds_bytes, is_value, values_at

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mypy_boto3_s3 import S3Client
    from pyspark.sql import SparkSession

__all__ = ["Form", "Held", "Stored", "delete_object", "list_objects", "rewrite", "search"]

_TASK_BYTES = 32 * 2**20
_ATTEMPTS = 5
_PARQUET = b"PAR1"
_CHANGED = {"PreconditionFailed", "ConditionalRequestConflict", "412", "409"}
_MISSING = {"NoSuchKey", "NoSuchVersion", "404"}


class Form(StrEnum):
    """How the objects of a place are to be read."""

    LINES = "lines"
    """JSON lines, each an event."""
    ERRORS = "errors"
    """JSON lines, each an error record of Firehose."""
    RAW = "raw"
    """As somebody brought them: JSON lines, or CSV with a header; others can only be searched as bytes."""
    RESULT = "result"
    """A query's answer: whatever holds the value goes as a whole."""
    ROWS = "rows"
    """Data files of an Iceberg table."""
    REFUSED_ROWS = "refused rows"
    """Data files of a quarantine table."""


@dataclass(frozen=True, order=True)
class Stored:
    """One version of an object."""

    bucket: str
    key: str
    size: int
    """Bytes."""
    version: str | None = None
    """Where the bucket keeps versions."""
    is_newest: bool = True

    @property
    def address(self) -> str:
        """`s3://bucket/key`."""
        return f"s3://{self.bucket}/{self.key}"

    @property
    def uri(self) -> str:
        """The address, with the version where it isn't the newest."""
        return self.address if self.is_newest else f"{self.address}?versionId={self.version}"


@dataclass(frozen=True)
class Held:
    """What an object holds of the subject."""

    stored: Stored
    records: int
    """0 where it can't be searched record by record."""
    identities: tuple[Identity, ...]
    """Of the records, as far as they can be read."""


def list_objects(s3: S3Client, bucket: str, prefix: str) -> Iterator[Stored]:
    """All objects below a prefix, in each of their versions; none where there is no such bucket."""
    try:
        # None where versions were never kept, whatever boto3's types say
        kept: str | None = s3.get_bucket_versioning(Bucket=bucket).get("Status")
    except ClientError as error:
        if error_code(error) == "NoSuchBucket":
            return
        raise
    if not kept:
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for one in page.get("Contents", []):
                yield Stored(bucket, one["Key"], one["Size"])
        return
    for versions in s3.get_paginator("list_object_versions").paginate(Bucket=bucket, Prefix=prefix):
        for found in versions.get("Versions", []):
            yield Stored(bucket, found["Key"], found["Size"], found["VersionId"], found["IsLatest"])


def search(
    spark: SparkSession, cloud: Cloud, objects: Sequence[Stored], form: Form, matchers: dict[str, Matcher]
) -> list[Held]:
    """Objects that hold anything of the subject, or can't be searched; read in parallel tasks.

    Args:
        spark: the session.
        cloud: where they are.
        objects: what to search.
        form: how they are read.
        matchers: by dataset; objects that aren't of one dataset are searched by the matcher of all, named "".
    """
    if not objects:
        return []
    size = sum(one.size for one in objects)
    tasks = min(len(objects), max(spark.sparkContext.defaultParallelism, -(-size // _TASK_BYTES)))
    shares = [sorted(objects, key=lambda one: one.size)[number::tasks] for number in range(tasks)]
    region, endpoint = cloud.region, cloud.endpoint

    def look(share: list[Stored]) -> list[Held]:
        s3 = _s3_of_worker(region, endpoint)
        return [held for one in share if (held := _look(s3, one, form, matchers)) is not None]

    return spark.sparkContext.parallelize(shares, tasks).flatMap(look).collect()


@cache
def _s3_of_worker(region: str, endpoint: str | None) -> S3Client:
    return Cloud(region, endpoint).s3


@dataclass(frozen=True)
class _Body:
    """An object as it is read."""

    content: bytes
    """Unpacked."""
    packed: bool
    etag: str
    answer: dict[str, Any]


def _read(s3: S3Client, one: Stored) -> _Body | None:
    versioned: Any = {} if one.is_newest else {"VersionId": one.version}
    try:
        answer: Any = s3.get_object(Bucket=one.bucket, Key=one.key, **versioned)
        body = answer["Body"].read()
    except ClientError as error:
        if error_code(error) in _MISSING:
            return None  # gone since it was listed
        raise
    packed = is_gzip(body)
    return _Body(_unpacked(body) if packed else body, packed, answer["ETag"], answer)


def _unpacked(body: bytes) -> bytes:
    """All that can be unpacked; what was cut short may hold a subject up to there."""
    try:
        return b"".join(unpack([body]))
    except NotGzipError:
        readable = bytearray()
        # a little at a time: of what is damaged somewhere nothing is given
        with suppress(NotGzipError):
            for found in unpack(body[start : start + 1024] for start in range(0, len(body), 1024)):
                readable += found
        return bytes(readable)


def _look(s3: S3Client, one: Stored, form: Form, matchers: dict[str, Matcher]) -> Held | None:
    body = _read(s3, one)
    if body is None:
        return None
    if form in {Form.ROWS, Form.REFUSED_ROWS}:
        return _look_in_rows(one, body.content, form, matchers)
    matcher = matchers[""]
    if form is Form.RESULT:
        found = holds_bytes(matcher.keys, body.content) or (
            body.content[:4] == _PARQUET and _any_cell(body.content, matcher)
        )
        return Held(one, 1, ()) if found else None
    cut = _cut(body.content, form, matcher)
    if cut is not None:
        return Held(one, cut.records, cut.identities) if cut.records else None
    # no form that we can take a record out of: told if it holds the value, noted if it doesn't
    return Held(one, 1 if holds_bytes(matcher.keys, body.content) else 0, ())


def _cut(content: bytes, form: Form, matcher: Matcher) -> Cut | None:
    if form is not Form.RAW:
        return cut_lines(content, matcher, errors=form is Form.ERRORS)
    start = content.lstrip()[:1]
    if start in {b"{", b""}:
        return cut_lines(content, matcher)
    if content[:4] == _PARQUET or b"\0" in content[:4096]:
        return None
    return cut_csv(content, matcher)


def _any_cell(content: bytes, matcher: Matcher) -> bool:
    table = pq.read_table(io.BytesIO(content))
    return any(
        is_value(value, key.text)
        for name in table.column_names
        for value in table.column(name).to_pylist()
        for key in matcher.keys
    )


def _look_in_rows(one: Stored, content: bytes, form: Form, matchers: dict[str, Matcher]) -> Held | None:
    """Rows of a data file, those that a delete file hides included."""
    if content[:4] != _PARQUET:
        raise TerminalError(f"object {one.uri}: a data file that isn't Parquet can't be searched")
    file = pq.ParquetFile(io.BytesIO(content))
    event_ids: list[str | None] = []
    records = 0
    wanted = _columns(form, matchers)
    there = [name for name in file.schema_arrow.names if name in wanted]
    for batch in file.iter_batches(columns=there):
        hits = _refused_hits(batch, matchers) if form is Form.REFUSED_ROWS else _hits(batch, matchers[""])
        records += len(hits)
        if hits and "event_id" in there:
            column = batch.column("event_id")
            event_ids += [column[place].as_py() for place in hits]
    return Held(one, records, tuple(Identity(event_id=one) for one in event_ids if one)) if records else None


def _columns(form: Form, matchers: dict[str, Matcher]) -> set[str]:
    if form is Form.REFUSED_ROWS:
        return {"event_id", "payload", "dataset", "tenant"}
    return {"event_id", "_rescued", *(key.steps[0] for key in matchers[""].keys)}


def _hits(batch: pa.RecordBatch, matcher: Matcher) -> list[int]:
    hits: set[int] = set()
    for key in matcher.keys:
        if key.steps[0] in batch.schema.names:
            for place, value in enumerate(batch.column(key.steps[0]).to_pylist()):
                if value is not None and any(is_value(one, key.text) for one in values_at(value, key.steps[1:])):
                    hits.add(place)
    if "_rescued" in batch.schema.names:
        for place, text in enumerate(batch.column("_rescued").to_pylist()):
            if matcher.is_in_rescued(text):
                hits.add(place)
    return sorted(hits)


def _refused_hits(batch: pa.RecordBatch, matchers: dict[str, Matcher]) -> list[int]:
    columns = [batch.column(name).to_pylist() for name in ("dataset", "tenant", "payload")]
    return [place for place, row in enumerate(zip(*columns, strict=True)) if is_refused(matchers, *row)]


def is_refused(matchers: dict[str, Matcher], dataset: str, tenant: str | None, payload: bytes | None) -> bool:
    """Whether a row of a quarantine table is the subject's."""
    matcher = matchers.get(dataset)
    if matcher is None or payload is None or (matcher.shared and tenant not in {None, matcher.tenant}):
        return False
    return matcher.is_subjects(bytes(payload)) or matcher.is_error_records(bytes(payload))


def rewrite(s3: S3Client, one: Stored, form: Form, matcher: Matcher) -> Cut:
    """Write an object without the subject's records, under the same key.

    Where the bucket keeps versions, the one that was replaced is deleted. An older version isn't written anew: it goes.

    Returns:
        what was taken out; nothing where the object has gone, or holds the subject no more.

    Raises:
        CommitConflictError: others changed it, again and again.
    """
    tried = Cut(b"", 0)
    for _ in range(_ATTEMPTS):
        body = _read(s3, one)
        cut = _cut(body.content, form, matcher) if body is not None else None
        if body is None or cut is None or not cut.records:
            return tried  # with records, where S3's reply to our own write was lost
        try:
            if one.is_newest:
                _put(s3, one, body, cut.body)
        except ClientError as error:
            if error_code(error) not in _CHANGED:
                raise
            tried = cut
            continue  # written since it was read: looked at once more
        _delete_version(s3, one, body.answer.get("VersionId"))
        return cut
    raise CommitConflictError(f"object {one.uri}: it was changed by others {_ATTEMPTS} times; try again")


def _put(s3: S3Client, one: Stored, body: _Body, content: bytes) -> None:
    kept = ("ContentType", "ContentEncoding", "ContentDisposition", "ContentLanguage", "CacheControl", "Metadata")
    given: Any = {name: body.answer[name] for name in kept if body.answer.get(name)}
    tags = s3.get_object_tagging(Bucket=one.bucket, Key=one.key).get("TagSet", [])
    if tags:
        given["Tagging"] = urlencode([(tag["Key"], tag["Value"]) for tag in tags])
    packed = gzip.compress(content, mtime=0) if body.packed else content
    s3.put_object(Bucket=one.bucket, Key=one.key, Body=packed, IfMatch=body.etag, **given)


def delete_object(s3: S3Client, one: Stored) -> None:
    """Delete an object, and where the bucket keeps versions the version too, or only that if it isn't the newest."""
    if one.is_newest:
        s3.delete_object(Bucket=one.bucket, Key=one.key)
    _delete_version(s3, one, one.version)


def _delete_version(s3: S3Client, one: Stored, version: str | None) -> None:
    if version is not None:
        s3.delete_object(Bucket=one.bucket, Key=one.key, VersionId=version)
