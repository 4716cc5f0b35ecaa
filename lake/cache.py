"""Owns where downloads live: Spark's jars and Trino, shared by all checkouts of a user."""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["cache_folder"]


def cache_folder(given: Path | None = None) -> Path:
    """The folder given, or LAKEHOSE_CACHE, or `lakehose` below XDG_CACHE_HOME or `~/.cache`."""
    if given is not None:
        return given
    named = os.environ.get("LAKEHOSE_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lakehose"
