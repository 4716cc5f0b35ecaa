"""Owns finding the helm program, and the client that drives it."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pyhelm3 import Client, Command
from pyhelm3.errors import CommandCancelledError, Error, ReleaseNotFoundError

from lake.errors import EnvironmentProblemError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["OLDEST", "Access", "find_helm", "helm_client"]

OLDEST = (3, 14)
"""Oldest version of helm that has all that is asked of it; 3.22 is the one the tests run."""
_NEXT = 5
_VERSION = re.compile(r"v?(\d+)\.(\d+)\.(\d+)(\S*)")


@dataclass(frozen=True)
class Access:
    """Which cluster."""

    kubeconfig: Path | None = None
    """File; KUBECONFIG, or the one at its usual place, without it."""
    context: str | None = None
    """Context in it; the current one without it."""


def find_helm(given: str | None = None) -> Path:
    """Find the helm program and check its version.

    Args:
        given: its path; PATH is searched without it.

    Raises:
        EnvironmentProblemError: there is none, it doesn't run, or its version is unreadable, too old or too new.
    """
    found = shutil.which(given or "helm")
    how = "install Helm 3 (its program is one file) and put it on PATH, or name it with --helm"
    if found is None:
        where = f"--helm {given}: no such program" if given else "there is no helm on PATH"
        raise EnvironmentProblemError(f"{where}; {how}")
    try:
        done = subprocess.run(
            [found, "version", "--template", "{{.Version}}"], capture_output=True, text=True, check=False, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentProblemError(f"{found}: it doesn't run: {error}; {how}") from None
    said = done.stdout.strip()
    version = _VERSION.fullmatch(said)
    if done.returncode or version is None:
        # a build without its version stamped in calls itself v3.22, which can't be compared with anything
        told = f"got {said!r}" if said else (done.stderr.strip() or f"it ended with {done.returncode}")
        raise EnvironmentProblemError(
            f"{found}: `helm version` tells no version of three numbers, as v3.22.0: {told}; {how}"
        )
    numbers = int(version[1]), int(version[2])
    if numbers < OLDEST or numbers[0] >= _NEXT:
        raise EnvironmentProblemError(
            f"{found}: it is helm {said}; {OLDEST[0]}.{OLDEST[1]} or newer, below {_NEXT}, is needed; {how}"
        )
    return Path(found).absolute()


def helm_client(helm: Path, access: Access, *, timeout: int, unpack: Path) -> Client:
    """A client for one cluster.

    Args:
        helm: the program, as `find_helm` found it.
        access: which cluster.
        timeout: seconds that helm waits for what it installs.
        unpack: folder for the charts it pulls.
    """
    command = _Command(
        executable=str(helm),
        default_timeout=f"{timeout}s",
        kubeconfig=access.kubeconfig,
        kubecontext=access.context,
        unpack_directory=str(unpack),
    )
    return Client(command, executable=str(helm))


class _Command(Command):  # type: ignore[misc]  # pyhelm3 publishes no types
    """Runs helm itself, where pyhelm3 runs a shell that runs helm.

    Ending the shell would leave helm at work, and the release pending until helm's own time-out. It also keeps quiet
    about commands that fail, as a release that isn't there yet is one.
    """

    async def run(self, command: list[object], input: bytes | None = None) -> bytes:  # noqa: A002 - pyhelm3's name
        """Run a command of helm's, with its standard input; answers its standard output.

        Raises:
            Error: it failed.
        """
        words = [self._executable, *map(str, command)]
        words += ["--kubeconfig", str(self._kubeconfig)] if self._kubeconfig else []
        words += ["--kube-context", self._kubecontext] if self._kubecontext else []
        pipe = asyncio.subprocess.PIPE
        source = pipe if input is not None else asyncio.subprocess.DEVNULL
        process = await asyncio.create_subprocess_exec(*words, stdin=source, stdout=pipe, stderr=pipe)
        answer = asyncio.ensure_future(process.communicate(input))
        try:
            out, err = await asyncio.shield(answer)
        except asyncio.CancelledError:
            if process.returncode is None:
                process.terminate()
            # it notes the failure of the release, and undoes it if it was told to
            await answer
            raise
        if process.returncode:
            raise _kind(err)(process.returncode, out, err)
        return out


def _kind(err: bytes) -> Callable[[int, bytes, bytes], Error]:
    kinds: tuple[tuple[bytes, Callable[[int, bytes, bytes], Error]], ...] = (
        (b"release: not found", ReleaseNotFoundError),
        (b"context canceled", CommandCancelledError),
    )
    return next((kind for mark, kind in kinds if mark in err), Error)
