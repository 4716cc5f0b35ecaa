"""Owns what a job takes where it is given nothing else: the clock of this machine, and nobody who listens."""

from __future__ import annotations

from datetime import UTC, datetime

__all__ = ["now", "silent"]


def now() -> datetime:
    """This moment."""
    return datetime.now(UTC)


def silent(_: str) -> None:
    """Say nothing."""
