"""Owns every error lakehose raises: one base, and types that retry policy can ask.

A message names what was given, where, and what is allowed. `exit_code` is what the `lakehose` command exits with.
"""

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "CommitConflictError",
    "DeclarationError",
    "EnvironmentProblemError",
    "FindingError",
    "LakehoseError",
    "TerminalError",
    "TransientError",
    "first_repeated",
    "known_values",
]


class LakehoseError(Exception):
    """Base of all errors of lakehose; `str(error)` is a plain sentence for the person at the keyboard."""

    exit_code = 2


class TerminalError(LakehoseError):
    """Trying again without changing something can't help."""


class TransientError(LakehoseError):
    """Trying again later may help: a service is away, throttles, or a lock is held."""

    exit_code = 1


class DeclarationError(TerminalError):
    """The user's `lake.yaml` or a contract says something that isn't allowed."""


class EnvironmentProblemError(TerminalError):
    """The machine lacks something: Java, a free port, disk, a running endpoint."""


class CommitConflictError(TransientError):
    """Another process committed first; the work can be planned again."""


class FindingError(LakehoseError):
    """A check ran to its end and found something wrong: an audit's gap, a failed query."""

    exit_code = 1


def first_repeated(names: Iterable[str]) -> str | None:
    """The first name that was there before; None where each is there once.

    >>> first_repeated(["a", "b", "a", "b"])
    'a'
    """
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def known_values(given: object, allowed: Iterable[str]) -> str:
    """Say what was given and what is allowed, with a guess at what was meant.

    >>> known_values("dedicted", ["dedicated", "pooled"])
    "got 'dedicted', allowed are: dedicated, pooled; did you mean 'dedicated'?"
    """
    names = sorted(allowed)
    close = get_close_matches(str(given), names, n=1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"got {given!r}, allowed are: {', '.join(names) or '(none)'}{hint}"
