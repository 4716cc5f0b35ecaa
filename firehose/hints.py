"""Owns BufferingHints: how large and how old a destination's buffers get, and what holds where nothing is said of it.

Source: https://docs.aws.amazon.com/firehose/latest/APIReference/API_BufferingHints.html
"""

from __future__ import annotations

from typing import Any

from firehose.conversion_config import CONVERTED_SIZE_MB, converts
from firehose.definition_error import invalid
from firehose.partitioning import is_partitioned

__all__ = ["default_hints", "read_hints"]

_MEBIBYTE = 1 << 20
_INTERVAL = 300
# of a destination that doesn't convert
_DEFAULT = {"SizeInMBs": 5, "IntervalInSeconds": _INTERVAL}
# with dynamic partitioning AWS excludes zero by name, and no other value of 0 to 900; texts that say 60 are of before
# there were shorter intervals: https://docs.aws.amazon.com/firehose/latest/dev/buffering.html
_PARTITIONED_INTERVAL = 1


def default_hints(given: dict[str, Any]) -> dict[str, int]:
    """Tell what holds for a destination that has no hints."""
    return {"SizeInMBs": CONVERTED_SIZE_MB, "IntervalInSeconds": _INTERVAL} if converts(given) else _DEFAULT


def read_hints(given: dict[str, Any]) -> tuple[int, int]:
    """Read a destination's hints: bytes and milliseconds.

    Raises:
        DefinitionError: one of the two is missing, or the interval is too short for dynamic partitioning.
    """
    default = default_hints(given)
    hints = {name: value for name, value in (given.get("BufferingHints") or {}).items() if value is not None}
    if len(hints) == 1:
        raise invalid(
            "BufferingHints: SizeInMBs and IntervalInSeconds go together: both, or neither",
            "BufferingHints",
            remedy={"BufferingHints": {**default, **hints}},
        )
    size, interval = (hints.get(name, default[name]) for name in ("SizeInMBs", "IntervalInSeconds"))
    if is_partitioned(given) and interval < _PARTITIONED_INTERVAL:
        raise invalid(
            f"BufferingHints: IntervalInSeconds: got {interval},"
            f" with dynamic partitioning {_PARTITIONED_INTERVAL} to 900 are allowed",
            "BufferingHints",
            "IntervalInSeconds",
        )
    return size * _MEBIBYTE, interval * 1000
