"""Owns searching the objects of a bucket for a subject, in Spark's tasks, and writing those that hold it anew.

A search reads whole objects, each version of them where the bucket keeps versions, and answers only about those that
hold something. A rewrite takes place on the condition that the object is still what was read.
"""

from __future__ import annotations

import codecs
import gzip
import hashlib
import io
import json
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
from lake.lines import is_gzip
from spark_jobs.erase_csv import cut_csv, is_utf16
from spark_jobs.erase_json import cut_json, is_lines
from spark_jobs.erase_lines import Cut, cut_lines
from spark_jobs.erase_match import Matcher, RecordTooLongError, values_at
from spark_jobs.erase_unpacked import flowing, unpacked
from spark_jobs.erase_values import holds_bytes, holds_flow, is_value

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from mypy_boto3_s3 import S3Client
    from pyspark.sql import SparkSession

__all__ = ["Form", "Held", "Stored", "delete_object", "held_in", "list_objects", "rewrite", "search"]

_TASK_BYTES = 32 * 2**20
_CHUNK = 4 * 2**20
_ATTEMPTS = 5
_MOST_BYTES = 512 * 2**20
"""Of an object, unpacked, that is searched in memory: four times what Firehose gathers for one object."""
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
    """0 where it can't be searched record by record, or not to its end, or has the value where no record has it."""
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
        return [held for one in share if (held := held_in(s3, one, form, matchers)) is not None]

    return spark.sparkContext.parallelize(shares, tasks).flatMap(look).collect()


@cache
def _s3_of_worker(region: str, endpoint: str | None) -> S3Client:
    return Cloud(region, endpoint).s3


@dataclass(frozen=True)
class _Body:
    """An object as it is read."""

    content: bytes
    """Unpacked; nothing of what is too large."""
    stored: bytes
    """The same as it is in S3."""
    packed: bool
    is_damaged: bool
    """Whether some of what was packed is missing in the content: it can't be unpacked."""
    is_too_large: bool
    """Whether it is more than is searched in memory."""
    etag: str
    answer: dict[str, Any]


def _get(s3: S3Client, one: Stored) -> Any:
    """S3's answer, with the object's bytes as a stream; None where it is gone since it was listed."""
    versioned: Any = {} if one.is_newest else {"VersionId": one.version}
    try:
        return s3.get_object(Bucket=one.bucket, Key=one.key, **versioned)
    except ClientError as error:
        if error_code(error) in _MISSING:
            return None
        raise


def _read(s3: S3Client, one: Stored) -> _Body | None:
    answer = _get(s3, one)
    if answer is None:
        return None
    told: Any = {"etag": answer["ETag"], "answer": answer}
    if answer["ContentLength"] > _MOST_BYTES:
        answer["Body"].close()
        return _Body(b"", b"", packed=False, is_damaged=False, is_too_large=True, **told)
    body = answer["Body"].read()
    if not is_gzip(body):
        return _Body(body, body, packed=False, is_damaged=False, is_too_large=False, **told)
    content, is_damaged = unpacked(body, _MOST_BYTES)
    if len(content) > _MOST_BYTES:
        return _Body(b"", b"", packed=True, is_damaged=is_damaged, is_too_large=True, **told)
    return _Body(content, body, packed=True, is_damaged=is_damaged, is_too_large=False, **told)


def held_in(s3: S3Client, one: Stored, form: Form, matchers: dict[str, Matcher]) -> Held | None:
    """What one object holds of the subject, as `search` tells it; None where that is nothing."""
    if form in {Form.ROWS, Form.REFUSED_ROWS}:
        answer = _get(s3, one)
        return _look_in_rows(one, answer["Body"].read(), form, matchers) if answer is not None else None
    body = _read(s3, one)
    if body is None:
        return None
    matcher = matchers[""]
    if body.is_too_large:
        return Held(one, 1 if _is_in_flow(s3, one, matcher) else 0, ())
    if form is Form.RESULT:
        return _look_in_result(one, body, matcher)
    cut = _cut(body, one, form, matcher)
    if cut is None:
        # no form that we can take a record out of: told if it holds the value, noted if it doesn't
        return Held(one, 1 if holds_bytes(matcher.keys, body.content) else 0, ())
    # What somebody brought may have the value where no record of ours would. In what others share it may be theirs.
    elsewhere = form is Form.RAW and not matcher.shared and not cut.records and holds_bytes(matcher.keys, body.content)
    if cut.records or body.is_damaged or elsewhere:
        # what is damaged stays as it is: nothing of it is counted as erased
        return Held(one, cut.records, () if body.is_damaged else cut.identities)
    return None


def _is_in_flow(s3: S3Client, one: Stored, matcher: Matcher) -> bool:
    """Whether an object that is too large holds any of the values, unpacked as far as it can be."""
    answer = _get(s3, one)
    return answer is not None and holds_flow(matcher.keys, flowing(answer["Body"].iter_chunks(_CHUNK)))


def _look_in_result(one: Stored, body: _Body, matcher: Matcher) -> Held | None:
    found, is_read = holds_bytes(matcher.keys, body.content), not body.is_damaged
    if not found and body.content[:4] == _PARQUET:
        try:
            found = _any_cell(body.content, matcher)
        except (pa.ArrowException, OSError):
            is_read = False  # it begins as Parquet, and is none, or a damaged one
    if found:
        return Held(one, 1, ())
    return None if is_read else Held(one, 0, ())


def _cut(body: _Body, one: Stored, form: Form, matcher: Matcher) -> Cut | None:
    """The content without the subject's records; None where none can be taken out of it."""
    if body.is_too_large:
        return None
    with suppress(RecordTooLongError):
        return _cut_by_form(body.content, one, form, matcher)
    return None


def _cut_by_form(content: bytes, one: Stored, form: Form, matcher: Matcher) -> Cut | None:
    if form is not Form.RAW:
        return cut_lines(content, matcher, errors=form is Form.ERRORS)
    mark = len(codecs.BOM_UTF8) if content.startswith(codecs.BOM_UTF8) else 0
    start = mark + len(content[mark:4096]) - len(content[mark:4096].lstrip())
    first = content[start : start + 1]
    if first == b"[" or (first == b"{" and not is_lines(content, start)):
        cut = cut_json(content, matcher, start)
        if cut is not None:
            return cut
    if first in {b"{", b""}:
        return cut_lines(content, matcher, joined=True)
    drop = next((drop for drop in matcher.drops if one.address.startswith(drop.uri)), None)
    if content[:4] == _PARQUET or (b"\0" in content[:4096] and not is_utf16(content, drop)):
        return None
    return cut_csv(content, matcher, drop)


def _any_cell(content: bytes, matcher: Matcher) -> bool:
    # a text may be JSON, or hold the value in any other way: so CSV's is searched too
    forms = {form for key in matcher.keys for form in (key.text, json.dumps(key.text)[1:-1])}
    return any(
        (isinstance(value, str) and any(form in value for form in forms))
        or (isinstance(value, bytes) and holds_bytes(matcher.keys, value))
        or any(is_value(value, key.text) for key in matcher.keys)
        for batch in pq.ParquetFile(io.BytesIO(content)).iter_batches()
        for column in batch.columns
        for value in _leaves(column.to_pylist())
    )


def _leaves(value: Any) -> Iterator[Any]:
    """Values within lists and objects, however deep; a map is a list of pairs."""
    left = [value]
    while left:
        one = left.pop()
        if isinstance(one, dict):
            left.extend(one.values())
        elif isinstance(one, list | tuple):
            left.extend(one)
        else:
            yield one


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
        return {"event_id", "payload", "dataset", "tenant", "stage"}
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
    columns = [batch.column(name).to_pylist() for name in ("dataset", "tenant", "stage", "payload")]
    return [place for place, row in enumerate(zip(*columns, strict=True)) if is_refused(matchers, *row)]


def is_refused(
    matchers: dict[str, Matcher], dataset: str, tenant: str | None, stage: str | None, payload: bytes | None
) -> bool:
    """Whether a row of a quarantine table is the subject's."""
    matcher = matchers.get(dataset)
    if matcher is None or payload is None or (matcher.shared and tenant not in {None, matcher.tenant}):
        return False
    raw = bytes(payload)
    return matcher.is_refused(raw, stage, tenant) or matcher.is_error_records(raw)


def rewrite(
    s3: S3Client, one: Stored, form: Form, matcher: Matcher, replacing: Callable[[str, str], None] | None = None
) -> Cut:
    """Write an object without the subject's records, under the same key.

    Where the bucket keeps versions, the one that was replaced is deleted. An older version isn't written anew: it goes.

    Args:
        s3: where it is.
        one: the object.
        form: how it is read.
        matcher: tells the subject's records.
        replacing: told before it is written, with the SHA-256 of what is stored and of what is going to be.

    Returns:
        what was taken out; nothing where the object has gone, holds the subject no more, or can't be read as a whole.

    Raises:
        CommitConflictError: others changed it, again and again.
    """
    tried = Cut(b"", 0)
    for _ in range(_ATTEMPTS):
        body = _read(s3, one)
        cut = _cut(body, one, form, matcher) if body is not None else None
        if body is None or cut is None or not cut.records:
            return tried  # with records, where S3's reply to our own write was lost
        if body.is_damaged and one.is_newest:
            return tried  # others' records may be in what can't be unpacked
        try:
            if one.is_newest:
                packed = gzip.compress(cut.body, mtime=0) if body.packed else cut.body
                if replacing is not None:
                    replacing(*(hashlib.sha256(stored).hexdigest() for stored in (body.stored, packed)))
                _put(s3, one, body, packed)
        except ClientError as error:
            if error_code(error) not in _CHANGED:
                raise
            tried = cut
            continue  # written since it was read: looked at once more
        _delete_version(s3, one, body.answer.get("VersionId"))
        return cut
    raise CommitConflictError(f"object {one.uri}: it was changed by others {_ATTEMPTS} times; try again")


def _put(s3: S3Client, one: Stored, body: _Body, packed: bytes) -> None:
    kept = ("ContentType", "ContentEncoding", "ContentDisposition", "ContentLanguage", "CacheControl", "Metadata")
    given: Any = {name: body.answer[name] for name in kept if body.answer.get(name)}
    tags = s3.get_object_tagging(Bucket=one.bucket, Key=one.key).get("TagSet", [])
    if tags:
        given["Tagging"] = urlencode([(tag["Key"], tag["Value"]) for tag in tags])
    s3.put_object(Bucket=one.bucket, Key=one.key, Body=packed, IfMatch=body.etag, **given)


def delete_object(s3: S3Client, one: Stored) -> None:
    """Delete an object, and where the bucket keeps versions the version too, or only that if it isn't the newest."""
    if one.is_newest:
        s3.delete_object(Bucket=one.bucket, Key=one.key)
    _delete_version(s3, one, one.version)


def _delete_version(s3: S3Client, one: Stored, version: str | None) -> None:
    if version is not None:
        s3.delete_object(Bucket=one.bucket, Key=one.key, VersionId=version)
