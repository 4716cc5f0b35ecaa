"""Owns what a contract says of a table's layout: the terms of its partition spec, and the columns that files go by.

Each is held to the types of the columns, so that what a contract says can be made into a table. Source:
https://iceberg.apache.org/spec/#partition-transforms
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from lake.errors import DeclarationError, first_repeated, known_values

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["NESTED", "PartitionField", "partition_terms", "sort_columns", "zorder_columns"]

NESTED = frozenset({"list", "struct"})
"""Names of the types that have parts, beside those of `Primitive`."""

_TERM = re.compile(r"(?:(year|month|day|hour)\((\w+)\)|(bucket|truncate)\((\d+),\s*(\w+)\)|(\w+))", re.ASCII)
_TIMES = ("date", "timestamp", "timestamptz")
_TAKES = {
    "year": _TIMES,
    "month": _TIMES,
    "day": _TIMES,
    "hour": ("timestamp", "timestamptz"),
    "bucket": ("int", "long", "decimal", *_TIMES, "string", "binary"),
    "truncate": ("int", "long", "decimal", "string", "binary"),
}
"""Types that a transform is of; `identity` is of all without parts."""
_MOST_WIDTH = 2**31 - 1
_MOST_ZORDERED = 4  # with more, each has next to no say


@dataclass(frozen=True)
class PartitionField:
    """A term of a table's partition spec or sort order, as in `month(event_time)`."""

    transform: str
    """`identity`, `year`, `month`, `day`, `hour`, `bucket[N]` or `truncate[N]`."""
    column: str

    @property
    def name(self) -> str:
        """What the table's partition spec calls it.

        >>> PartitionField("bucket[8]", "page").name
        'page_bucket8'
        """
        if self.transform == "identity":
            return self.column
        return f"{self.column}_{re.sub('[^a-z0-9]', '', self.transform)}"


def partition_terms(texts: Sequence[str], kinds: Mapping[str, str], where: str) -> tuple[PartitionField, ...]:
    """Terms of a partition spec.

    Args:
        texts: the terms, as in `bucket(8, page)`.
        kinds: name of the type by column, of `NESTED` or `Primitive`.
        where: place in the contract, for messages.

    Raises:
        DeclarationError: a term is none, its column has a type that it isn't of, or one is there twice; or a column has
            the name that a term has in the table, which Iceberg refuses.
    """
    terms = tuple(_term(text, kinds, where) for text in texts)
    twice = first_repeated(one.name for one in terms)
    if twice is not None:
        raise DeclarationError(f"{where}: got {', '.join(texts)}: {twice!r} is there twice")
    for text, one in zip(texts, terms, strict=True):
        if one.name != one.column and one.name in kinds:
            raise DeclarationError(
                f"{where}: got {text!r}: the table's partition would be named {one.name!r}, as a field is; "
                "give the field another name"
            )
    return terms


def _term(text: str, kinds: Mapping[str, str], where: str) -> PartitionField:
    match = _TERM.fullmatch(text.strip())
    if not match:
        allowed = "year(c), month(c), day(c), hour(c), bucket(n, c), truncate(n, c) or a column"
        raise DeclarationError(f"{where}: got {text!r}, allowed is {allowed}")
    of_time, time_column, of_width, width, width_column, plain = match.groups()
    column = time_column or width_column or plain
    if column not in kinds:
        raise DeclarationError(f"{where}: {known_values(column, kinds)}")
    kind, transform = kinds[column], of_time or of_width
    if kind in NESTED:
        raise DeclarationError(f"{where}: got {text!r}: {column} is a {kind}, and a column without parts is needed")
    if transform and kind not in _TAKES[transform]:
        raise DeclarationError(
            f"{where}: got {text!r}: {column} is a {kind}, and {transform} is of: {', '.join(_TAKES[transform])}"
        )
    if of_width and not 1 <= int(width) <= _MOST_WIDTH:
        raise DeclarationError(f"{where}: got {text!r}: of {of_width}, 1 to {_MOST_WIDTH:,} are allowed")
    return PartitionField(of_time or (f"{of_width}[{int(width)}]" if of_width else "identity"), column)


def sort_columns(names: Sequence[str], kinds: Mapping[str, str], where: str) -> tuple[str, ...]:
    """Columns that files are sorted by; arguments as `partition_terms` has them.

    Raises:
        DeclarationError: one isn't there, has parts, or is named twice.
    """
    _refuse_unordered(names, kinds, where)
    twice = first_repeated(names)
    if twice is not None:
        raise DeclarationError(f"{where}: got {', '.join(names)}: {twice!r} is there twice")
    return tuple(names)


def zorder_columns(names: Sequence[str], kinds: Mapping[str, str], where: str) -> tuple[str, ...]:
    """Columns that tell the files of a large partition apart; arguments as `partition_terms` has them.

    Raises:
        DeclarationError: one isn't there or has parts, or they are too few, too many, or not different.
    """
    _refuse_unordered(names, kinds, where)
    if names and not (1 < len(set(names)) == len(names) <= _MOST_ZORDERED):
        raise DeclarationError(f"{where}: got {', '.join(names)}, allowed are 2 to {_MOST_ZORDERED} different columns")
    return tuple(names)


def _refuse_unordered(names: Sequence[str], kinds: Mapping[str, str], where: str) -> None:
    columns = [name for name, kind in kinds.items() if kind not in NESTED]
    for name in names:
        if name not in columns:
            found = f" ({name} is a {kinds[name]})" if name in kinds else ""
            raise DeclarationError(f"{where}: {known_values(name, columns)}{found}")
