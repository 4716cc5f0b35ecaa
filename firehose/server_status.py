"""Owns what `lakehose firehose status` tells of a server: its streams in a table, and what is wrong with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lake.errors import TerminalError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ServerStatus", "StreamStatus", "read_status", "tell_status", "troubles"]

_GAP = "  "
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")
_STEP = 1024
_MINUTE, _HOUR, _DAY = 60, 3600, 86400


@dataclass(frozen=True, slots=True)
class StreamStatus:
    """One stream, as the server tells it."""

    name: str
    pending: int
    """Records that are acknowledged and not delivered."""
    oldest_seconds: float | None
    """Age of the oldest of them."""
    buffers: int
    partitions: int
    """Active ones."""
    writing: int
    """Objects on their way to S3."""
    objects: int
    """Delivered since the server started."""
    records: int
    """In them."""
    refused: int
    """Records sent to the error prefix."""
    trouble: str | None
    """Why S3 doesn't take its objects."""


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """A server."""

    streams: tuple[StreamStatus, ...]
    log_bytes: int
    log_limit: int | None
    log_failing: bool
    log_full: bool
    pending_bytes: int
    quota: int
    """Partitions a stream may have active."""
    faults: bool
    """Whether faults are asked for."""
    away: tuple[int, ...] = ()
    """Processes that don't answer, by number."""


def read_status(answer: dict[str, Any]) -> ServerStatus:
    """Read the answer of `GET /_lakehose/status`.

    Raises:
        TerminalError: it isn't one.
    """
    try:
        return _status(answer)
    except (KeyError, TypeError, AttributeError) as error:
        raise TerminalError(f"status: the answer isn't one of a server of this version: {error!r}") from None


def _status(answer: dict[str, Any]) -> ServerStatus:
    streams = tuple(
        StreamStatus(
            name=name,
            pending=one["pendingRecords"],
            oldest_seconds=one["oldestRecordAgeSeconds"],
            buffers=one["buffers"],
            partitions=one["activePartitions"],
            writing=one["deliveriesUnderWay"],
            objects=one["deliveredObjects"],
            records=one["deliveredRecords"],
            refused=sum(one["refusedRecords"].values()),
            trouble=one["trouble"],
        )
        for name, one in sorted(answer["streams"].items())
    )
    return ServerStatus(
        streams=streams,
        log_bytes=answer["logBytes"],
        log_limit=answer["logLimitBytes"],
        log_failing=answer["logFailing"],
        log_full=answer["logFull"],
        pending_bytes=answer["pendingBytes"],
        quota=answer["activePartitionQuota"],
        faults=answer["faults"],
        # a server with one process has none that could be away
        away=tuple(answer.get("away", ())),
    )


def troubles(status: ServerStatus, max_age: float | None = None) -> list[str]:
    """List what is wrong, each as a sentence.

    Args:
        status: of the server.
        max_age: seconds that a record may wait for its delivery.
    """
    found = [f"process {number} is away: puts to its streams are refused or wait" for number in status.away]
    if status.log_failing:
        found.append("the log can't be written: puts are refused")
    if status.log_full:
        found.append(f"the log has reached its limit of {_size(status.log_limit or 0)}: puts are refused")
    for one in status.streams:
        if one.trouble is not None:
            found.append(f"{one.name}: S3 doesn't take its objects: {one.trouble}")
        if max_age is not None and one.oldest_seconds is not None and one.oldest_seconds > max_age:
            found.append(
                f"{one.name}: its oldest record waits for {_age(one.oldest_seconds)}, allowed are {_age(max_age)}"
            )
    return found


def tell_status(status: ServerStatus, found: list[str]) -> Iterator[str]:
    """Render a server's status as lines.

    Args:
        status: of the server.
        found: its troubles.
    """
    head = ("stream", "pending", "oldest", "buffers", "partitions", "writing", "objects", "records", "refused")
    rows = [
        (
            one.name,
            f"{one.pending:,}",
            "" if one.oldest_seconds is None else _age(one.oldest_seconds),
            f"{one.buffers:,}",
            f"{one.partitions:,} of {status.quota:,}" if one.partitions else "",
            f"{one.writing:,}",
            f"{one.objects:,}",
            f"{one.records:,}",
            f"{one.refused:,}",
        )
        for one in status.streams
    ]
    yield from _table([head, *rows]) if rows else ["no streams"]
    limit = "" if status.log_limit is None else f" of {_size(status.log_limit)}"
    yield f"log {_size(status.log_bytes)}{limit}, {_size(status.pending_bytes)} of records not delivered"
    if status.faults:
        yield "faults are asked for: `lakehose firehose faults`"
    for one in found:
        yield f"trouble: {one}"


def _table(rows: list[tuple[str, ...]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        first, *others = zip(row, widths, strict=True)
        cells = [first[0].ljust(first[1]), *(text.rjust(width) for text, width in others)]
        yield _GAP.join(cells).rstrip()


def _age(seconds: float) -> str:
    for size, unit in ((_DAY, "d"), (_HOUR, "h"), (_MINUTE, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.1f} s" if seconds < _MINUTE else f"{seconds:.0f} s"


def _size(count: float) -> str:
    for unit in _UNITS[:-1]:
        if count < _STEP:
            return f"{count:.0f} {unit}" if unit == _UNITS[0] else f"{count:.1f} {unit}"
        count /= _STEP
    return f"{count:.1f} {_UNITS[-1]}"
