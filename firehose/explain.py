"""Owns where sample events would come to lie: their partition keys, the prefix and an object, or why they are refused.

An event goes through the very stream that the server runs, from the processors to the buffers and the object's name;
only that nothing is written. What is told is what the server does, as there is no other code for it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from uuid import UUID

from firehose.buffers import Partition
from firehose.converted import destination_of
from firehose.live import LiveStream
from firehose.making import Gathering
from firehose.prefixes import FROM_LAMBDA
from firehose.processing import Chunk
from firehose.streams import DeliveryStream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from firehose.buffers import Buffer
    from firehose.processing import Reason
    from firehose.records import Failed, Record

__all__ = ["Landing", "explain"]

_CALL_RECORDS = 500
"""Records of one PutRecordBatch; partitions are opened call by call."""


@dataclass(frozen=True, slots=True)
class Landing:
    """Where a record comes to lie."""

    event: int
    """Place of its event among those given, from 0."""
    keys: dict[str, str]
    """Values of the partition keys; none without dynamic partitioning, or for a record that is refused."""
    bucket: str
    prefix: str
    """As evaluated, with the default suffix."""
    key: str
    """Of an object that could hold it: its id, and a random string in its prefix, are others each time."""
    reason: Reason | None = None
    """Why it is refused; None if it isn't."""
    record: bytes | None = None
    """What processors made of the event; None if it goes as it came."""
    function: str | None = None
    """ARN of the function that it goes through; it is taken to change nothing, with `<name>` for the keys it gives."""

    def to_dict(self) -> dict[str, Any]:
        """Render as JSON; `event` is from 1."""
        made: dict[str, Any] = {"event": self.event + 1, "keys": self.keys or None}
        if self.reason is not None:
            made["refused"] = {
                "errorOutputType": self.reason.output_type,
                "errorCode": self.reason.code,
                "errorMessage": self.reason.message,
            }
        if self.record is not None:
            made["record"] = self.record.decode("utf-8", "replace")
        if self.function is not None:
            made["function"] = self.function
        return {**made, "bucket": self.bucket, "prefix": self.prefix, "key": self.key}


def explain(
    request: dict[str, Any],
    events: Sequence[bytes],
    *,
    at_ms: int,
    quota: int,
    unique: Callable[[], UUID],
) -> list[Landing]:
    """Tell where each event would come to lie, in the order given.

    Events that share a partition share an object, and a partition above the quota is refused, as in the server.

    Args:
        request: CreateDeliveryStream's; the stream is taken as it is then, at version 1.
        events: records as they would be put, before base64.
        at_ms: their arrival, milliseconds since the epoch.
        quota: partitions that may be active.
        unique: makes ids of objects.

    Raises:
        ServiceError: the request makes no sense.
    """
    name = request["DeliveryStreamName"]
    stream = DeliveryStream(
        name=name,
        identity=UUID(int=0),
        arn=f"arn:aws:firehose:us-east-1:000000000000:deliverystream/{name}",
        version=1,
        created=at_ms / 1000,
        request=request,
        destination=destination_of(request, None),
    )
    live = LiveStream(stream)
    buffers: list[Buffer] = []
    for start in range(0, len(events), _CALL_RECORDS):
        part = list(events[start : start + _CALL_RECORDS])
        if live.gathering is None:
            buffers += live.take(Chunk(part, range(start, start + len(part)), at_ms), at_ms, quota)
            continue
        for number, event in enumerate(part, start):
            records, failed = _made(live, event, at_ms)
            buffers += live.take_made([number] * (len(records) + len(failed)), records, failed, at_ms, quota)
    buffers += live.buffers.take_all()
    found = [landing for buffer in buffers for landing in _landings(live, buffer, events, str(unique()))]
    return sorted(found, key=lambda landing: landing.event)


def _made(live: LiveStream, event: bytes, at_ms: int) -> tuple[list[Record], list[Failed]]:
    destination = live.stream.destination
    (batch,) = Gathering(destination.makers).add(Chunk([event], [0], at_ms), at_ms)
    keys = tuple((name, f"<{name}>") for namespace, name in destination.keys or () if namespace == FROM_LAMBDA)
    return [replace(one, keys=keys) for one in batch.records], batch.failed


def _landings(live: LiveStream, buffer: Buffer, events: Sequence[bytes], unique: str) -> Iterator[Landing]:
    destination = live.stream.destination
    prefix, key = live.name_object(buffer.target, buffer.oldest_ms, unique)
    if isinstance(buffer.target, Partition):
        names = [name for _, name in destination.keys or ()]
        keys = dict(zip(names, buffer.target.values, strict=True))
        function = None if destination.function is None else destination.function.arn
        for number, raw in zip(buffer.numbers, buffer.data, strict=True):
            record = None if raw == events[number] else raw
            yield Landing(number, keys, destination.bucket, prefix, key, record=record, function=function)
    else:
        for number, refused in zip(buffer.numbers, buffer.refused, strict=True):
            record = None if refused.raw == events[number] else refused.raw
            yield Landing(number, {}, destination.bucket, prefix, key, refused.reason, record)
