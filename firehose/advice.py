"""Owns advice on S3 destinations: what the service takes, and people are sorry for later. Each names its source."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from firehose.conversion_config import converts
from firehose.definition import log_options
from firehose.hints import default_hints
from firehose.partitioning import ERROR_PREFIX, is_partitioned
from firehose.prefixes import Part, Prefix, PrefixError, parse_prefix

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from firehose.validation import Where

__all__ = ["Advice", "advise"]

_GUIDE = "https://docs.aws.amazon.com/firehose/latest/dev"
_JAVA = "https://docs.oracle.com/en/java/javase/17/docs/api/java.base/java/time/format/DateTimeFormatter.html"
_SMALL_MB = 64
"""What the guide's own samples of dynamic partitioning have."""
_NEWLINE = {"Type": "AppendDelimiterToRecord", "Parameters": [{"ParameterName": "Delimiter", "ParameterValue": "\\n"}]}
_MISTAKEN: tuple[tuple[str, Callable[[set[str]], bool], str], ...] = (
    ("Y", lambda letters: not letters & {"w", "e", "c"}, "Y is the year that the week belongs to; the year is y"),
    ("D", lambda letters: bool(letters & {"M", "L"}), "D is the day of the year; the day of the month is d"),
    ("h", lambda letters: not letters & {"a", "B"}, "h is 1 to 12 for morning and afternoon; 0 to 23 is H"),
    ("m", lambda letters: not letters & {"H", "h", "K", "k"}, "m is the minute; the month is M"),
)
"""Letter, when it is a mistake beside the pattern's other letters, and what it is."""


@dataclass(frozen=True, slots=True)
class Advice:
    """One piece of advice."""

    where: Where
    """The member, from the destination down."""
    message: str
    source: str
    """URL of what it rests on."""
    remedy: dict[str, Any] | None = None
    """Members of the destination that would do, if there is one answer."""


def advise(given: dict[str, Any], stream: str) -> Iterator[Advice]:
    """Advise on an S3 destination of a CreateDeliveryStream request.

    Args:
        given: the destination; its members are of the right types.
        stream: the stream's name.
    """
    prefix, error_prefix = _parsed(given, "Prefix"), _parsed(given, "ErrorOutputPrefix")
    yield from _delimiter(given)
    for name, one in (("Prefix", prefix), ("ErrorOutputPrefix", error_prefix)):
        if one is not None:
            yield from _slash(name, one)
            yield from _times(name, one)
    yield from _errors(given, prefix, error_prefix)
    yield from _size(given)
    yield from _log(given, stream)


def _parsed(given: dict[str, Any], name: str) -> Prefix | None:
    try:
        return parse_prefix(given[name]) if given.get(name) else None
    except PrefixError:  # an error, told as such
        return None


def _processors(given: dict[str, Any]) -> list[dict[str, Any]]:
    configuration = given.get("ProcessingConfiguration") or {}
    return (configuration.get("Processors") or []) if configuration.get("Enabled") else []


def _delimiter(given: dict[str, Any]) -> Iterator[Advice]:
    there = _processors(given)
    # a function may add the newline, and columns need none
    if converts(given) or {"AppendDelimiterToRecord", "Lambda"} & {one.get("Type") for one in there}:
        return
    yield Advice(
        ("ProcessingConfiguration",),
        "Records are put together with nothing between them: unless each ends in a newline when it is sent, no reader"
        " of JSON lines can take them apart. The processor AppendDelimiterToRecord puts one behind each",
        f"{_GUIDE}/basic-deliver.html",
        {"ProcessingConfiguration": {"Enabled": True, "Processors": [*there, _NEWLINE]}},
    )


def _slash(name: str, prefix: Prefix) -> Iterator[Advice]:
    last = prefix.parts[-1]
    # an expression of a time may end in the slash itself
    if (last if isinstance(last, str) else last.value).endswith("/"):
        return
    behind = "the stream's name" if prefix.has_expressions else "the year"
    yield Advice(
        (name,),
        f"It doesn't end in a slash, so {behind} follows it in the same folder's name",
        f"{_GUIDE}/s3-prefixes.html",
        {name: f"{prefix.text}/"},
    )


def _times(name: str, prefix: Prefix) -> Iterator[Advice]:
    patterns = [part.value for part in prefix.parts if isinstance(part, Part) and part.namespace == "timestamp"]
    letters = {letter for pattern in patterns for letter in re.findall(r"[A-Za-z]", re.sub(r"'[^']*'", "", pattern))}
    for letter, mistaken, meaning in _MISTAKEN:
        if letter in letters and mistaken(letters):
            yield Advice((name,), f"In !{{timestamp:…}}, {meaning}", _JAVA)


def _errors(given: dict[str, Any], prefix: Prefix | None, error_prefix: Prefix | None) -> Iterator[Advice]:
    source = f"{_GUIDE}/s3-prefixes.html"
    if not given.get("ErrorOutputPrefix"):
        may_fail = any(one.get("Type") != "AppendDelimiterToRecord" for one in _processors(given))
        if may_fail or converts(given):
            yield Advice(
                ("ErrorOutputPrefix",),
                "Records that can't be processed lie between the good ones, as there is no prefix for them",
                source,
                {"ErrorOutputPrefix": ERROR_PREFIX},
            )
    elif prefix is not None and error_prefix is not None:
        literal, error_literal = (one.text.partition("!{")[0] for one in (prefix, error_prefix))
        head = literal[: literal.rfind("/") + 1]
        if head and error_literal.startswith(head):
            yield Advice(
                ("ErrorOutputPrefix",),
                f"It lies below {head!r}, so what reads that prefix reads the refused records too",
                source,
                {"ErrorOutputPrefix": ERROR_PREFIX},
            )


def _size(given: dict[str, Any]) -> Iterator[Advice]:
    hints = default_hints(given) | {name: one for name, one in (given.get("BufferingHints") or {}).items() if one}
    size = hints["SizeInMBs"]
    if is_partitioned(given) and size < _SMALL_MB:
        yield Advice(
            ("BufferingHints", "SizeInMBs"),
            f"Each partition has a buffer of its own: at {size} MiB there are many small objects, and with dynamic"
            " partitioning objects are billed by their number",
            "https://aws.amazon.com/firehose/pricing/",
            {"BufferingHints": {**hints, "SizeInMBs": _SMALL_MB}},
        )


def _log(given: dict[str, Any], stream: str) -> Iterator[Advice]:
    if not (given.get("CloudWatchLoggingOptions") or {}).get("Enabled"):
        yield Advice(
            ("CloudWatchLoggingOptions",),
            "Why a delivery fails is logged nowhere: a role that can't write to the bucket looks like a quiet stream",
            f"{_GUIDE}/monitoring-with-cloudwatch-logs.html",
            {"CloudWatchLoggingOptions": log_options(stream)},
        )
