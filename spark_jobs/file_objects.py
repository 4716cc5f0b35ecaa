"""Owns the objects that become of one dropped file: its events below `processed/`, what it refused below `errors/`.

Their keys and bytes are a function of the file and the declaration alone: whoever takes the same file again, after a
crash or beside another run, writes the same objects over.
"""

from __future__ import annotations

import gzip
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from lake.names import Names, day_folders

if TYPE_CHECKING:
    from datetime import date

    from mypy_boto3_s3 import S3Client

    from lake.error_record import ErrorRecord

__all__ = ["FileObjects"]

# Unpacked: an object is what a task of ingest holds in memory, the buffers together what a task of this job does
_OBJECT_BYTES = 32 * 2**20
_BUFFERED_BYTES = 64 * 2**20
_GZIP_LEVEL = 4  # part of the format, as bytes written again have to be the same
_UPLOADS = 8
_ERROR_TYPE = "file-failed"
"""Folder beside those of Firehose's error types."""


class FileObjects:
    """Buffers one file's events by day, and its refused rows, and writes them as objects."""

    def __init__(self, s3: S3Client, bucket: str, *, dataset: str, tenant: str, producer_id: str) -> None:
        self._s3 = s3
        self._bucket = bucket
        self._events_prefix = Names.processed_prefix(dataset, tenant)
        self._errors_prefix = f"errors/{_ERROR_TYPE}/{dataset}/"
        self._producer_id = producer_id
        self._buffers: dict[str, list[bytes]] = defaultdict(list)
        self._sizes: dict[str, int] = defaultdict(int)
        self._parts: dict[str, int] = defaultdict(int)
        self._size = 0
        self._last_day: date | None = None
        self._last_prefix = ""
        self.written = 0
        """Objects in S3."""

    def event(self, day: date, line: bytes) -> None:
        """Take an event.

        Args:
            day: UTC day that it happened on.
            line: the event, without a line's end.
        """
        if day != self._last_day:
            self._last_day = day
            self._last_prefix = self._events_prefix + day_folders(day)
        self._add(self._last_prefix, line + b"\n")

    def refused(self, record: ErrorRecord) -> None:
        """Take a row that became no event, or a file that could not be read."""
        self._add(self._errors_prefix, record.encode())

    def _add(self, prefix: str, line: bytes) -> None:
        self._buffers[prefix].append(line)
        self._sizes[prefix] += len(line)
        self._size += len(line)
        if self._sizes[prefix] >= _OBJECT_BYTES:
            self._write([prefix])
        elif self._size >= _BUFFERED_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write all that is buffered."""
        self._write(sorted(self._buffers))

    def _write(self, prefixes: list[str]) -> None:
        objects: list[tuple[str, list[bytes]]] = []
        for prefix in prefixes:
            self._parts[prefix] += 1
            self._size -= self._sizes.pop(prefix)
            key = f"{prefix}{self._producer_id}-{self._parts[prefix]:05d}.gz"
            objects.append((key, self._buffers.pop(prefix)))
        with ThreadPoolExecutor(min(_UPLOADS, len(objects)) or 1) as pool:
            # a file may hold a year of days, and each is an object
            for _ in pool.map(self._put, objects):
                self.written += 1

    def _put(self, one: tuple[str, list[bytes]]) -> None:
        key, lines = one
        body = gzip.compress(b"".join(lines), _GZIP_LEVEL, mtime=0)
        self._s3.put_object(
            Bucket=self._bucket,
            Key=key,
            Body=body,
            ContentType="application/octet-stream",
            ContentEncoding="gzip",
        )
