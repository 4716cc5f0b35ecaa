"""Owns telling a process again that was started earlier, perhaps by somebody else."""

from __future__ import annotations

import psutil

__all__ = ["living_process"]


def living_process(pid: int, created: float) -> psutil.Process | None:
    """The process, or None when it has ended, even if its number is in use again.

    Args:
        pid: its number.
        created: when it started, seconds since 1970, as the system tells it.
    """
    try:
        found = psutil.Process(pid)
        same = abs(found.create_time() - created) < 1 and found.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return None
    return found if same else None
