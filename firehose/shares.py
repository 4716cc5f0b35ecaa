"""Owns what each of a server's processes may use of what the server may."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from firehose.incoming import MOST_BYTES

if TYPE_CHECKING:
    from firehose.serve import Settings

__all__ = ["share_of"]


_LEAST_PENDING = 8 << 20


def share_of(settings: Settings) -> Settings:
    """Return the settings of one of a server's processes: an even part of each limit.

    Of memory a process has at least what the largest put takes, and one of everything else.
    """
    processes, limits, requests = settings.processes, settings.limits, settings.requests
    if processes == 1:
        return settings
    return replace(
        settings,
        limits=replace(
            limits,
            # a put that is allowed must find room where nothing else is
            pending_bytes=max(min(limits.pending_bytes, _LEAST_PENDING), limits.pending_bytes // processes),
            uploads=max(1, limits.uploads // processes),
            invocations=max(1, limits.invocations // processes),
        ),
        requests=replace(
            requests,
            connections=max(1, requests.connections // processes),
            body_bytes=max(MOST_BYTES, requests.body_bytes // processes),
        ),
        log_bytes=None if settings.log_bytes is None else settings.log_bytes // processes,
    )
