"""Owns what a put has to get past before it is logged: faults asked for, the log's limit, the stream's quota."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from firehose.faults import FAILED, Kind
from firehose.throttling import SLOW_DOWN, Throttle, throttled
from lake.aws_json import ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from uuid import UUID

    from firehose.faults import Faults
    from firehose.live import LiveStream
    from firehose.throttling import PutQuota

__all__ = ["Admission", "LogLimit", "Refusal"]

_LOOK_SECONDS = 0.05
"""How old the log's size may be that is gone by; the log counts it a segment at a time."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a record isn't taken, as the answer says it."""

    code: str
    message: str


_THROTTLED = Refusal("ServiceUnavailableException", SLOW_DOWN)


class LogLimit:
    """How large the log may be on disk.

    What frees room is written all the same: intents, completions, records that are carried on or made of others.

    Args:
        most: bytes.
        segment: bytes that the log grows by at once.
        size: tells the log's size.
        clock: seconds, never going back.
    """

    LEAST_SEGMENTS = 8
    """Below, puts could be refused before the log is long enough to be tidied."""

    def __init__(self, most: int, segment: int, size: Callable[[], int], clock: Callable[[], float]) -> None:
        self.most = most
        """Bytes."""
        self._segment = segment
        self._size = size
        self._clock = clock
        self._looked: float | None = None
        self._full = False

    @property
    def full(self) -> bool:
        """Whether another segment would be too much."""
        now = self._clock()
        if self._looked is None or now - self._looked >= _LOOK_SECONDS:
            self._looked = now
            self._full = self._size() + self._segment > self.most
        return self._full


class Admission:
    """Asked about each put, between its check and the log.

    Args:
        quota: of each stream; None where there is none.
        faults: that were asked for; None where none may be.
        log: how large the log may be; None where only the disk's size counts.
        clock: seconds, never going back.
    """

    def __init__(
        self, quota: PutQuota | None, faults: Faults | None, log: LogLimit | None, clock: Callable[[], float]
    ) -> None:
        self._quota = quota
        self._faults = faults
        self._log = log
        self._clock = clock
        self._throttles: dict[UUID, Throttle] = {}

    async def admit(self, live: LiveStream, lengths: Sequence[int]) -> Mapping[int, Refusal]:
        """Let a put's records pass; returns those that don't, by their index.

        Args:
            live: the stream.
            lengths: of the records, in bytes.

        Raises:
            ServiceError: nothing of the put passes.
        """
        refused: dict[int, Refusal] = {}
        if self._faults is not None:
            refused = await self._failing(self._faults, live, len(lengths))
        if self._log is not None and self._log.full:
            live.metrics.throttled += len(lengths)
            raise ServiceError("ServiceUnavailableException", "Slow down: the log has reached its limit.", 503)
        if self._quota is not None:
            refused |= self._throttle(live, self._quota, lengths)
        return refused

    def answered(self, stream: str) -> None:
        """Come between records that were taken and the answer that says so.

        Raises:
            ServiceError: the answer is lost.
        """
        if self._faults is not None:
            self._faults.fail(Kind.LOST_ANSWER, stream)

    def forget(self, identity: UUID) -> None:
        """Let go of a stream that was deleted."""
        self._throttles.pop(identity, None)

    async def _failing(self, faults: Faults, live: LiveStream, count: int) -> dict[int, Refusal]:
        name = live.stream.name
        delay = faults.strike(Kind.DELAY, name)
        if delay is not None:
            await asyncio.sleep(delay.delay_seconds)
        faults.fail(Kind.CALL, name)
        if faults.strike(Kind.THROTTLE, name) is not None:
            live.metrics.throttled += count
            raise throttled()
        struck = ((index, faults.strike(Kind.RECORD, name)) for index in range(count))
        return {index: Refusal(fault.code, FAILED) for index, fault in struck if fault is not None}

    def _throttle(self, live: LiveStream, quota: PutQuota, lengths: Sequence[int]) -> dict[int, Refusal]:
        throttle = self._throttles.get(live.stream.identity)
        if throttle is None:
            throttle = self._throttles[live.stream.identity] = Throttle(quota, self._clock)
        try:
            away = throttle.admit(lengths)
        except ServiceError:
            live.metrics.throttled += len(lengths)
            raise
        live.metrics.throttled += len(away)
        return dict.fromkeys(away, _THROTTLED)
