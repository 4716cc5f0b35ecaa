"""Owns the manifests as files in a folder: writing them, removing our own that are left over, telling stale ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

from k8s.render import HEADER
from lake.errors import EnvironmentProblemError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

__all__ = ["stale_files", "write_files"]


def _ours(folder: Path) -> dict[str, str]:
    """Files of the folder that `render` has written, by name; what a person put beside them is theirs."""
    found = {}
    for path in sorted(folder.glob("*.yaml")) if folder.is_dir() else []:
        text = path.read_text(encoding="utf-8", errors="replace")
        if text.startswith(HEADER):
            found[path.name] = text
    return found


def write_files(folder: Path, files: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Write what differs, remove what is no longer made; tells what was done to each file.

    Args:
        folder: where; it is made.
        files: text by name.

    Raises:
        EnvironmentProblemError: the folder can't be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        there = _ours(folder)
        for name, text in files.items():
            path = folder / name
            outcome = "unchanged" if there.get(name) == text else "updated" if path.exists() else "created"
            if outcome != "unchanged":
                path.write_text(text, encoding="utf-8")
            yield outcome, name
        for name in sorted(set(there) - set(files)):
            (folder / name).unlink()
            yield "removed", name
    except OSError as error:
        raise EnvironmentProblemError(f"{folder}: the manifests can't be written: {error}") from None


def stale_files(folder: Path, files: Mapping[str, str]) -> list[tuple[str, str]]:
    """Files that aren't as they would be written, each with what is wrong with it."""
    there = _ours(folder)
    found = [
        (name, "differs from the declaration" if name in there else "missing")
        for name, text in files.items()
        if there.get(name) != text
    ]
    return found + [(name, "no longer declared") for name in sorted(set(there) - set(files))]
