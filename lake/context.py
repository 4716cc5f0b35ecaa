"""Owns what every command gets: which declaration, and which cloud."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from lake.clients import Cloud
from lake.declaration import Lake, read_lake

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["CommandContext"]


@dataclass(frozen=True)
class CommandContext:
    """The `lakehose` command's global options, read when a command asks for them."""

    lake_path: Path
    endpoint: str | None = None

    @cached_property
    def _lake(self) -> Lake:
        return read_lake(self.lake_path)

    def lake(self) -> Lake:
        """The declaration.

        Raises:
            DeclarationError: it can't be read, or says something that isn't allowed.
        """
        return self._lake

    @cached_property
    def _cloud(self) -> Cloud:
        return Cloud.from_environment(self._lake.region, self.endpoint)

    def cloud(self) -> Cloud:
        """AWS in the declaration's region, or the endpoint given."""
        return self._cloud
