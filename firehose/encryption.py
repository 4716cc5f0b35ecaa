"""Owns a stream's server-side encryption as the API tells it: on or off, by whose key, and on its way there.

It is kept in the request that the stream is made of, as CreateDeliveryStream takes it. What is told is what was asked
for: the server itself doesn't encrypt its log. Rules and states:
https://docs.aws.amazon.com/firehose/latest/APIReference/API_StartDeliveryStreamEncryption.html
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING, Any
from uuid import UUID

from firehose.definition_error import invalid
from lake.aws_json import ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from firehose.streams import DeliveryStream

__all__ = ["INPUT", "Encryption", "check_input"]

_log = logging.getLogger(__name__)
INPUT = "DeliveryStreamEncryptionConfigurationInput"
_OWNED, _CUSTOMER = "AWS_OWNED_CMK", "CUSTOMER_MANAGED_CMK"
_CALLS, _CALLS_SECONDS = 25, 24 * 3600
"""Start and stop together, for a stream."""


def check_input(given: dict[str, Any] | None) -> dict[str, Any]:
    """Check the configuration of CreateDeliveryStream or StartDeliveryStreamEncryption; returns it with its default.

    Raises:
        ServiceError: InvalidArgumentException: a key's ARN without a key of one's own, or the other way round.
    """
    made = {"KeyType": _OWNED, **(given or {})}
    if made["KeyType"] == _CUSTOMER and not made.get("KeyARN"):
        raise invalid(f"{INPUT}: KeyType {_CUSTOMER} needs KeyARN", INPUT, "KeyARN")
    if made["KeyType"] == _OWNED and made.get("KeyARN"):
        raise invalid(f"{INPUT}: KeyARN is only allowed with KeyType {_CUSTOMER}, got {_OWNED}", INPUT, "KeyARN")
    return made


class Encryption:
    """What streams tell of their encryption.

    Args:
        now: seconds since the epoch.
        seconds: how long ENABLING and DISABLING last.
        limited: whether the service's limit of 25 changes of a stream a day holds.
    """

    def __init__(self, now: Callable[[], float], *, seconds: float = 0.0, limited: bool = False) -> None:
        self._now = now
        self._seconds = seconds
        self._limited = limited
        # a restart finishes what was under way
        self._changes: dict[UUID, tuple[float, bool]] = {}
        self._calls: dict[UUID, deque[float]] = {}

    def check(self, stream: DeliveryStream) -> None:
        """Ask whether a stream's encryption may be changed now.

        Raises:
            ServiceError: ResourceInUseException: the change before isn't over; LimitExceededException.
        """
        if self._before(stream) is not None:
            raise ServiceError(
                "ResourceInUseException", f"Firehose {stream.name}: encryption is {self._status(stream)}"
            )
        self._count(stream)

    def changed(self, stream: DeliveryStream, *, before: bool) -> None:
        """Note that a stream's encryption was changed just now; `before` says whether it was on."""
        if INPUT in stream.request:
            _log.warning(
                "stream %s: it is told as encrypted, the log in --data-dir isn't: encrypt its disk", stream.name
            )
        if self._seconds:
            self._changes[stream.identity] = (self._now() + self._seconds, before)

    def describe(self, stream: DeliveryStream) -> dict[str, Any]:
        """Make a DeliveryStreamEncryptionConfiguration."""
        return {**stream.request.get(INPUT, {}), "Status": self._status(stream)}

    def encrypted(self, stream: DeliveryStream) -> bool:
        """Whether a put is answered as encrypted: once it is on, and until it is off."""
        before = self._before(stream)
        return INPUT in stream.request if before is None else before

    @property
    def under_way(self) -> dict[str, tuple[float, bool]]:
        """Changes that aren't over, by the stream's identity in hex: until when, and whether it was on before."""
        now = self._now()
        return {identity.hex: one for identity, one in self._changes.items() if now < one[0]}

    def follow(self, under_way: Mapping[str, Sequence[Any]]) -> None:
        """Take what `under_way` of another process says in the place of what is known here."""
        self._changes = {UUID(identity): (until, before) for identity, (until, before) in under_way.items()}

    def forget(self, stream: DeliveryStream) -> None:
        """Let go of a stream that was deleted."""
        self._changes.pop(stream.identity, None)
        self._calls.pop(stream.identity, None)

    def _status(self, stream: DeliveryStream) -> str:
        on, done = INPUT in stream.request, self._before(stream) is None
        return ("ENABL" if on else "DISABL") + ("ED" if done else "ING")

    def _before(self, stream: DeliveryStream) -> bool | None:
        # whether it was on before the change that is under way; None if none is
        until, before = self._changes.get(stream.identity, (0.0, False))
        return before if self._now() < until else None

    def _count(self, stream: DeliveryStream) -> None:
        if not self._limited:
            return
        calls, now = self._calls.setdefault(stream.identity, deque()), self._now()
        while calls and calls[0] <= now - _CALLS_SECONDS:
            calls.popleft()
        if len(calls) >= _CALLS:
            raise ServiceError(
                "LimitExceededException",
                f"Firehose {stream.name}: its encryption was changed {_CALLS} times in 24 hours, no more is allowed",
            )
        calls.append(now)
