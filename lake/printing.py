"""Owns how texts that others chose are printed: as they are, within their line, and never as a command to a terminal.

A tenant may be whatever a record claims, and a partition whatever a field holds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["PlainTable", "printable"]


def printable(text: str) -> str:
    r"""A text with what isn't printed escaped, as Python writes it.

    >>> printable("a\x1b[2Jb\nc")
    'a\\x1b[2Jb\\nc'
    """
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


class PlainTable(Table):
    """A table whose cells are no markup."""

    def add_row(self, *renderables: RenderableType | None, **options: Any) -> None:
        """Add a row; a text stands there as it is."""
        plain = (Text(printable(one)) if isinstance(one, str) else one for one in renderables)
        super().add_row(*plain, **options)
