"""Owns the three site processes while they push: their progress, and bringing up one that was killed."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING

from lake.errors import FindingError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from lake.clients import Cloud

__all__ = ["SiteProcess", "Sites"]

_RESTARTS = 5
_SAY_EVERY = 5.0


@dataclass
class SiteProcess:
    """One running site and what it told last."""

    tenant: str
    process: subprocess.Popen[str]
    restarts: int = 0
    sent: int = 0
    acknowledged: int = 0
    reader: threading.Thread | None = None


@dataclass
class Sites:
    """The sites of a demo run."""

    tenants: tuple[str, ...]
    events: int | None
    folder: Path
    """Where each keeps its spool."""
    lake_path: Path
    cloud: Cloud
    say: Callable[[str], None]
    wanted: dict[str, int]
    """Events each has to send."""
    running: dict[str, SiteProcess] = field(default_factory=dict)

    def push(self, *, midway: Callable[[Sites], None] | None = None) -> None:
        """Run all sites to their end.

        Args:
            midway: called once, when about half of all events are acknowledged.

        Raises:
            FindingError: a site ended with an error, or was killed more often than it is brought up again.
        """
        for tenant in self.tenants:
            self.running[tenant] = self._start(tenant)
        said = time.monotonic()
        try:
            while alive := [one for one in self.running.values() if not self._ended(one)]:
                time.sleep(0.2)
                if midway and sum(one.acknowledged for one in self.running.values()) * 2 > sum(self.wanted.values()):
                    midway(self)
                    midway = None
                if time.monotonic() - said > _SAY_EVERY:
                    said = time.monotonic()
                    self.say(
                        ", ".join(f"{one.tenant} {one.acknowledged:,}/{self.wanted[one.tenant]:,}" for one in alive)
                    )
        finally:
            for one in self.running.values():
                if one.process.poll() is None:
                    one.process.terminate()
                    one.process.wait(60)

    def kill(self, tenant: str) -> None:
        """End a site as a power cut would."""
        self.running[tenant].process.kill()

    def _start(self, tenant: str) -> SiteProcess:
        command = [sys.executable, "-m", "demo.site", "--tenant", tenant, "--lake", str(self.lake_path)]
        command += ["--spool", str(self.folder / tenant)]
        command += ["--events", str(self.events)] if self.events else []
        command += ["--endpoint", self.cloud.endpoint] if self.cloud.endpoint else []
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env={**os.environ, **self.cloud.environment()}
        )
        found = SiteProcess(tenant, process)
        if process.stdout:
            found.reader = threading.Thread(target=_read, args=(process.stdout, found), daemon=True)
            found.reader.start()
        return found

    def _ended(self, one: SiteProcess) -> bool:
        status = one.process.poll()
        if status is None:
            return False
        if one.reader:
            one.reader.join(10)
        if status == 0:
            return True
        if status == -signal.SIGKILL and one.restarts < _RESTARTS:
            self.say(f"site {one.tenant} was killed; starting it again, it goes on from its spool")
            fresh = self._start(one.tenant)
            fresh.restarts = one.restarts + 1
            fresh.acknowledged = one.acknowledged
            self.running[one.tenant] = fresh
            return False
        raise FindingError(
            f"site {one.tenant} ended with status {status} after {one.acknowledged:,} acknowledged events; "
            f"its spool has the rest: `make demo RESUME=1` goes on"
        )


def _read(stream: IO[str], into: SiteProcess) -> None:
    for line in stream:
        told = json.loads(line)
        into.sent, into.acknowledged = told["sent"], told["acknowledged"]
