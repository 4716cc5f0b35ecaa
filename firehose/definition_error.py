"""Owns the error of a stream's definition that makes no sense: what, where, and what would do in its place."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from lake.aws_json import ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable

    from firehose.validation import Where

__all__ = ["DefinitionError", "invalid", "refuse", "tried", "unsupported"]

_Made = TypeVar("_Made")


class DefinitionError(ServiceError):
    """What makes no sense in a request, and where."""

    def __init__(
        self, message: str, where: Where, remedy: dict[str, Any] | None = None, *, is_limit: bool = False
    ) -> None:
        super().__init__("InvalidArgumentException", message)
        self.where = where
        """The member; of a destination's members, from the destination down. Empty for the request as a whole."""
        self.remedy = remedy
        """Members of the destination that would do, if there is one answer."""
        self.is_limit = is_limit
        """Whether AWS takes it, and only the server here doesn't."""

    def at(self, *where: str | int) -> DefinitionError:
        """The same, told of a place further up."""
        return DefinitionError(str(self), (*where, *self.where), self.remedy, is_limit=self.is_limit)


def invalid(message: str, *where: str | int, remedy: dict[str, Any] | None = None) -> DefinitionError:
    """Make the error of a request that makes no sense."""
    return DefinitionError(message, where, remedy)


def unsupported(message: str, *where: str | int) -> DefinitionError:
    """Make the error of a request that AWS takes, and this server doesn't."""
    return DefinitionError(message, where, is_limit=True)


def tried(make: Callable[[], _Made], *where: str | int) -> Generator[DefinitionError, None, _Made | None]:
    """Yield what a check raises, told of a place further up; returns what it made, or None."""
    try:
        return make()
    except DefinitionError as error:
        yield error.at(*where)
        return None


def refuse(found: Iterable[DefinitionError]) -> None:
    """Raise the first of what checks found."""
    for one in found:
        raise one
