"""Owns the file of those who may call the server: keys in the form of AWS's own credentials file.

    [site-ewr]
    aws_access_key_id = AKIA…
    aws_secret_access_key = …
    aws_session_token = …                    (with temporary ones: each request then carries it)
    expiration = 2026-12-31T23:59:59Z        (if they end)

A section's name is for people. Nobody but the file's owner may read it.
"""

from __future__ import annotations

import configparser
import os
import stat
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from lake.errors import EnvironmentProblemError

__all__ = ["Credential", "check_private", "read_credentials"]

_NEEDED = ("aws_access_key_id", "aws_secret_access_key")
_ALLOWED = (*_NEEDED, "aws_session_token", "expiration")
_OTHERS = stat.S_IRWXG | stat.S_IRWXO


@dataclass(frozen=True, slots=True)
class Credential:
    """What one caller signs with."""

    name: str
    """The section's."""
    access_key: str
    secret_key: str
    token: str | None = None
    expires: float | None = None
    """Seconds since the epoch."""

    def __repr__(self) -> str:
        """Without what is secret."""
        return f"Credential({self.name}, {self.access_key})"


def read_credentials(path: Path) -> dict[str, Credential]:
    """Read the file; returns credentials by access key.

    Raises:
        EnvironmentProblemError: it can't be read, others may read it, or it says something that isn't allowed.
    """
    check_private("--credentials", path)
    parser = configparser.RawConfigParser(default_section="", interpolation=None, strict=True)
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise EnvironmentProblemError(f"--credentials {path}: {error.strerror}") from None
    except (configparser.Error, UnicodeDecodeError) as error:
        # a parser's message would show the line, and with it a secret
        where = getattr(error, "lineno", None)
        place = f", line {where}" if where else ""
        raise EnvironmentProblemError(
            f"--credentials {path}{place}: not in the form of AWS's credentials file"
        ) from None
    found: dict[str, Credential] = {}
    for name in parser.sections():
        one = _credential(path, name, dict(parser[name]))
        if one.access_key in found:
            raise EnvironmentProblemError(
                f"--credentials {path}: [{found[one.access_key].name}] and [{name}] have the same aws_access_key_id"
            )
        found[one.access_key] = one
    if not found:
        raise EnvironmentProblemError(f"--credentials {path}: there is no section: nobody could call the server")
    return found


def _credential(path: Path, name: str, given: dict[str, str]) -> Credential:
    where = f"--credentials {path}: [{name}]"
    for key in given:
        if key not in _ALLOWED:
            raise EnvironmentProblemError(f"{where}: {key}: allowed are: {', '.join(_ALLOWED)}")
    for key in _NEEDED:
        if not given.get(key):
            raise EnvironmentProblemError(f"{where}: {key} is missing")
    expires = None
    if "expiration" in given:
        try:
            moment = datetime.fromisoformat(given["expiration"])
        except ValueError:
            raise EnvironmentProblemError(
                f"{where}: expiration: got {given['expiration']!r}, a time like 2026-12-31T23:59:59Z is needed"
            ) from None
        expires = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return Credential(
        name=name,
        access_key=given["aws_access_key_id"],
        secret_key=given["aws_secret_access_key"],
        token=given.get("aws_session_token") or None,
        expires=expires,
    )


def check_private(option: str, path: Path) -> None:
    """Make sure that a file with secrets is its owner's alone.

    Raises:
        EnvironmentProblemError: it isn't there, or others may read it.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise EnvironmentProblemError(f"{option} {path}: {error.strerror}") from None
    if not stat.S_ISREG(mode):
        raise EnvironmentProblemError(f"{option} {path}: a file is needed")
    # in systemd's folder of credentials the group's bits are an access control list's mask, not a group's
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if folder and path.parent == Path(folder):
        return
    if mode & _OTHERS:
        raise EnvironmentProblemError(
            f"{option} {path}: others than its owner may read it (mode {stat.S_IMODE(mode):04o}): chmod 600 {path}"
        )
