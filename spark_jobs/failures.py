"""Owns what Spark's failures become: a sentence about the cause, in place of two stack traces."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from py4j.protocol import Py4JError  # type: ignore[import-untyped]
from pyspark.errors import PySparkException

from lake.errors import TerminalError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["spoken"]

# how an error of ours looks in the text of a worker that raised it
_OURS = re.compile(r"lake\.errors\.\w+: (.+)")
_CAUSE = re.compile(r"^Caused by: (?:[\w.$]+\.)?(\w+(?:Exception|Error): .+)$", re.MULTILINE)
_LONGEST = 600


@contextmanager
def spoken(doing: str) -> Iterator[None]:
    """Turn a failure of Spark inside into one sentence.

    Args:
        doing: what was being done, for the sentence.

    Raises:
        TerminalError: in place of Spark's exception, which is its cause.
    """
    try:
        yield
    except (PySparkException, Py4JError) as error:
        text = str(error)
        ours = _OURS.search(text)
        if ours:
            raise TerminalError(f"{doing}: {ours[1].strip()}") from error
        causes = _CAUSE.findall(text)
        said = causes[-1] if causes else text.strip().partition("\n")[0]
        raise TerminalError(f"{doing}: Spark failed: {said[:_LONGEST]}") from error
