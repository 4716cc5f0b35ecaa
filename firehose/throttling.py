"""Owns the quotas of direct puts: what a stream takes in a second, and which records are turned away above that.

A quota is one for PutRecord and PutRecordBatch together and for each stream by itself. Figures:
https://docs.aws.amazon.com/firehose/latest/dev/limits.html. When the service refuses a call above them and when some of
its records isn't documented, only that both happen. Here a call beyond the requests a second is refused; of a call
beyond records or bytes a second, what there is room for is taken, and the call is refused where there is room for none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from lake.aws_json import ServiceError
from lake.errors import TerminalError, known_values

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["SLOW_DOWN", "PutQuota", "Throttle", "TokenBucket", "put_quota", "throttled"]

SLOW_DOWN = "Slow down."
"""What the service says."""
_BURST_SECONDS = 1.0
"""How much of a quota may be used at once; the service's own figure isn't documented."""
_LARGE = ("us-east-1", "us-west-2", "eu-west-1")
_REGION = re.compile(r"[a-z]{2,}(-[a-z]+)+-\d")


@dataclass(frozen=True, slots=True)
class PutQuota:
    """What a stream takes in a second."""

    records: int
    requests: int
    bytes: int
    """Of records, before base64."""


_IN_LARGE = PutQuota(500_000, 2_000, 5 << 20)
_ELSEWHERE = PutQuota(100_000, 1_000, 1 << 20)


def put_quota(text: str) -> PutQuota:
    """Read an option's value: a region, or figures of one's own for some of a region's.

    Raises:
        TerminalError: it is neither.

    >>> put_quota("eu-west-1")
    PutQuota(records=500000, requests=2000, bytes=5242880)
    >>> put_quota("eu-central-1,bytes=2097152")
    PutQuota(records=100000, requests=1000, bytes=2097152)
    """
    region, *rest = text.split(",")
    if not _REGION.fullmatch(region):
        raise TerminalError(
            f"--quotas: got {text!r}, a region is needed, and after it figures of your own if you like:"
            " eu-central-1,records=100000,requests=1000,bytes=1048576"
        )
    figures = {one.name: getattr(_IN_LARGE if region in _LARGE else _ELSEWHERE, one.name) for one in fields(PutQuota)}
    for one in rest:
        name, _, value = one.partition("=")
        if name not in figures:
            raise TerminalError(f"--quotas: {one!r}: {known_values(name, figures)}")
        if not value.isdecimal() or not int(value):
            raise TerminalError(f"--quotas: {one!r}: a whole number above 0 is needed")
        figures[name] = int(value)
    return PutQuota(**figures)


def throttled() -> ServiceError:
    """Make the error of a call above a quota."""
    return ServiceError("ServiceUnavailableException", SLOW_DOWN, 503)


class TokenBucket:
    """So many tokens a second, and no more than a second's at once.

    Args:
        rate: tokens a second.
        clock: seconds, never going back.
    """

    def __init__(self, rate: float, clock: Callable[[], float]) -> None:
        self._rate = rate
        self._most = rate * _BURST_SECONDS
        self._clock = clock
        self._left = self._most
        self._at = clock()

    def take(self, count: float, *, overdraw: bool = False) -> bool:
        """Take so many if they are there.

        Args:
            count: of tokens.
            overdraw: of a full bucket, more are taken than it ever holds, and paid back after.
        """
        now = self._clock()
        self._left = min(self._most, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < (min(count, self._most) if overdraw else count):
            return False
        self._left -= count
        return True

    def give_back(self, count: float) -> None:
        """Undo a `take`."""
        self._left += count


class Throttle:
    """One stream's quota.

    Args:
        quota: of the stream.
        clock: seconds, never going back.
    """

    def __init__(self, quota: PutQuota, clock: Callable[[], float]) -> None:
        self._requests = TokenBucket(quota.requests, clock)
        self._records = TokenBucket(quota.records, clock)
        self._bytes = TokenBucket(quota.bytes, clock)

    def admit(self, lengths: Sequence[int]) -> list[int]:
        """Take a call into account; returns the indices of the records that are turned away.

        Args:
            lengths: of its records, in bytes.

        Raises:
            ServiceError: ServiceUnavailableException: the call as a whole is turned away.
        """
        if not self._requests.take(1):
            raise throttled()
        if self._take(len(lengths), sum(lengths)):
            return []
        # each by itself: a small one may have room where the one before it had none
        away = [index for index, length in enumerate(lengths) if not self._take(1, length, overdraw=True)]
        if len(away) == len(lengths):
            raise throttled()
        return away

    def _take(self, records: int, size: int, *, overdraw: bool = False) -> bool:
        if not self._records.take(records):
            return False
        if not self._bytes.take(size, overdraw=overdraw):
            self._records.give_back(records)
            return False
        return True
