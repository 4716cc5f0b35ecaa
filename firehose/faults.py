"""Owns faults on demand: what a test has the server do wrong, which it does by a seed and then stops doing.

A fault strikes each time, a share of the times or every n-th, so many times or for so long. `POST /_lakehose/faults`
takes `{"faults": [...]}` with a `Fault`'s members by their names in camelCase, adds them to those that are there, and
answers like GET with all of them and how often each struck; DELETE ends them. Nothing of it is there without
`--allow-faults`.
"""

from __future__ import annotations

import random
import re
import threading
import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from firehose.delivery import S3UnavailableError, S3Writer
from lake.aws_json import ServiceError
from lake.errors import TerminalError, known_values

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from firehose.objects import Compression

__all__ = ["CODES", "FAILED", "Fault", "Faults", "FaultyWriter", "Kind", "parse_faults"]

FAILED = "A fault that was asked for."
CODES = {
    "ServiceUnavailableException": 503,
    "InternalFailure": 500,
    "ResourceNotFoundException": 400,
    "InvalidArgumentException": 400,
    "InvalidKMSResourceException": 400,
    "InvalidSourceException": 400,
}
"""What a put may answer, and the HTTP status of each."""
_RECORD_CODES = ("ServiceUnavailableException", "InternalFailure")
"""What a record of a batch may: https://docs.aws.amazon.com/firehose/latest/APIReference/API_PutRecordBatch.html."""
_MOST_SECONDS = 3600.0
# <prefix><stream>-<version>-yyyy-MM-dd-HH-mm-ss-<uuid><extension>
_OBJECT = re.compile(r"([^/]+)-\d+-\d{4}(?:-\d\d){5}-[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}[^/]*$")


class Kind(StrEnum):
    """What goes wrong."""

    RECORD = "record"
    """A record of a PutRecordBatch, or a PutRecord, isn't taken; the batch's others are."""
    CALL = "call"
    """Nothing of a put is taken."""
    THROTTLE = "throttle"
    """The same as above a quota: told as throttled in the metrics too."""
    LOST_ANSWER = "lost-answer"
    """A put's records are taken, and the answer says that they are not: sent again, they are there twice."""
    DELAY = "delay"
    """A put waits before anything of it is taken."""
    S3 = "s3"
    """S3 doesn't take an object; delivery tries again."""
    S3_LOST_ANSWER = "s3-lost-answer"
    """S3 takes an object, and delivery isn't told."""
    S3_DELAY = "s3-delay"
    """An object waits before it goes to S3."""


_DELAYS = (Kind.DELAY, Kind.S3_DELAY)
_CODED = (Kind.RECORD, Kind.CALL, Kind.LOST_ANSWER)


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that goes wrong."""

    kind: Kind
    share: float = 1.0
    """How many of the occasions it strikes, above 0 and up to 1, drawn by the seed."""
    every: int | None = None
    """It strikes each so many-th occasion; in place of a share."""
    count: int | None = None
    """After so many strikes it is over."""
    seconds: float | None = None
    """After so long it is over."""
    stream: str | None = None
    """Only this one's puts, and its objects if their prefix ends in a slash; all if it's left out."""
    code: str = "ServiceUnavailableException"
    """What is answered, for a record, a call and a lost answer."""
    delay_seconds: float = 0.0
    """For the two delays."""
    seed: int = 0


_MEMBERS = {
    "kind": "kind",
    "share": "share",
    "every": "every",
    "count": "count",
    "seconds": "seconds",
    "stream": "stream",
    "code": "code",
    "delaySeconds": "delay_seconds",
    "seed": "seed",
}


def parse_faults(given: Any) -> list[Fault]:
    """Read the body of `POST /_lakehose/faults`.

    Raises:
        TerminalError: it isn't of that shape; says where, what was given and what is allowed.
    """
    if not isinstance(given, dict) or set(given) != {"faults"} or not isinstance(given["faults"], list):
        raise TerminalError('faults: a JSON object {"faults": [{"kind": "record", "share": 0.1}, …]} is needed')
    return [_fault(one, f"faults[{index}]") for index, one in enumerate(given["faults"])]


def _fault(given: Any, where: str) -> Fault:
    if not isinstance(given, dict):
        raise TerminalError(f"{where}: got {given!r}, an object is needed")
    for name in given:
        if name not in _MEMBERS:
            raise TerminalError(f"{where}: {known_values(name, _MEMBERS)}")
    kinds = [kind.value for kind in Kind]
    if given.get("kind") not in kinds:
        raise TerminalError(f"{where}.kind: {known_values(given.get('kind'), kinds)}")
    fault = Fault(
        **{_MEMBERS[name]: value for name, value in given.items() if name != "kind"}, kind=Kind(given["kind"])
    )
    _check_number(where, "share", fault.share, 1.0)
    _check_number(where, "seconds", fault.seconds, _MOST_SECONDS)
    for name, value in (("every", fault.every), ("count", fault.count)):
        if value is not None and (not _whole(value) or value < 1):
            raise TerminalError(f"{where}.{name}: got {value!r}, a whole number above 0 is needed")
    if not _whole(fault.seed):
        raise TerminalError(f"{where}.seed: got {fault.seed!r}, a whole number is needed")
    if fault.every is not None and "share" in given:
        raise TerminalError(f"{where}: share and every can't both be given")
    if fault.stream is not None and not isinstance(fault.stream, str):
        raise TerminalError(f"{where}.stream: got {fault.stream!r}, a stream's name is needed")
    _check_own(where, given, fault)
    return fault


def _check_own(where: str, given: Mapping[str, Any], fault: Fault) -> None:
    # members that only some kinds have
    if fault.kind in _DELAYS:
        _check_number(where, "delaySeconds", fault.delay_seconds, _MOST_SECONDS)
    elif "delaySeconds" in given:
        raise TerminalError(f"{where}.delaySeconds: only {' and '.join(_DELAYS)} have it, this is {fault.kind}")
    if "code" in given:
        if fault.kind not in _CODED:
            raise TerminalError(f"{where}.code: only {', '.join(_CODED)} have it, this is {fault.kind}")
        allowed = _RECORD_CODES if fault.kind is Kind.RECORD else tuple(CODES)
        if fault.code not in allowed:
            raise TerminalError(f"{where}.code: {known_values(fault.code, allowed)}")


def _check_number(where: str, name: str, value: Any, most: float) -> None:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= most):
        raise TerminalError(f"{where}.{name}: got {value!r}, a number above 0 and up to {most:g} is needed")


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass(slots=True)
class _Active:
    fault: Fault
    until: float | None
    """By the clock."""
    draws: random.Random
    occasions: int = 0
    struck: int = 0

    def strikes(self, now: float) -> bool:
        if self.over(now):
            return False
        self.occasions += 1
        if self.fault.every is not None:
            found = self.occasions % self.fault.every == 0
        else:
            found = self.fault.share >= 1 or self.draws.random() < self.fault.share
        self.struck += found
        return found

    def over(self, now: float) -> bool:
        return (self.until is not None and now >= self.until) or (
            self.fault.count is not None and self.struck >= self.fault.count
        )


@dataclass(slots=True)
class Faults:
    """Faults that were asked for; asked from the event loop and from the threads that upload.

    Args:
        clock: seconds, never going back.
    """

    clock: Callable[[], float]
    _active: list[_Active] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def add(self, faults: list[Fault]) -> None:
        """Begin with these, beside those that are there."""
        now = self.clock()
        with self._lock:
            self._active += [
                _Active(
                    fault,
                    None if fault.seconds is None else now + fault.seconds,
                    random.Random(fault.seed),  # noqa: S311 - to be repeated
                )
                for fault in faults
            ]

    def clear(self) -> None:
        """End all."""
        with self._lock:
            self._active = []

    def to_dict(self) -> dict[str, Any]:
        """Tell all that are there, and how often each struck, as JSON."""
        now = self.clock()
        with self._lock:
            return {
                "faults": [
                    {
                        **{name: getattr(one.fault, attribute) for name, attribute in _MEMBERS.items()},
                        "occasions": one.occasions,
                        "struck": one.struck,
                        "over": one.over(now),
                    }
                    for one in self._active
                ]
            }

    def strike(self, kind: Kind, stream: str) -> Fault | None:
        """Tell what goes wrong on an occasion of a kind; None if nothing does."""
        if not self._active:
            return None
        now = self.clock()
        with self._lock:
            for one in self._active:
                if one.fault.kind is kind and one.fault.stream in {None, stream} and one.strikes(now):
                    return one.fault
        return None

    def fail(self, kind: Kind, stream: str) -> None:
        """Raise what an occasion's fault says.

        Raises:
            ServiceError: with the fault's code.
        """
        fault = self.strike(kind, stream)
        if fault is not None:
            raise ServiceError(fault.code, FAILED, CODES[fault.code])


@dataclass(frozen=True, slots=True)
class FaultyWriter(S3Writer):
    """Writes objects to S3, unless a fault strikes."""

    faults: Faults
    sleep: Callable[[float], None] = time.sleep

    def write(self, bucket: str, key: str, body: bytes, compression: Compression, kms_key: str | None) -> None:
        """Write one object; as `S3Writer.write`."""
        stream = _stream_of(key)
        delay = self.faults.strike(Kind.S3_DELAY, stream)
        if delay is not None:
            self.sleep(delay.delay_seconds)
        fault = self.faults.strike(Kind.S3, stream)
        if fault is None:
            S3Writer.write(self, bucket, key, body, compression, kms_key)
            fault = self.faults.strike(Kind.S3_LOST_ANSWER, stream)
        # an error's traceback would hold the body
        del body
        if fault is not None:
            raise S3UnavailableError(f"s3://{bucket}/{key}: {fault.kind}: {FAILED}")


def _stream_of(key: str) -> str:
    found = _OBJECT.search(key)
    return found[1] if found else ""
