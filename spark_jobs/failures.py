"""Owns what Spark's failures become: a sentence about the cause, and whether another try may help."""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING

from py4j.protocol import Py4JError  # type: ignore[import-untyped]
from pyspark.errors import PySparkException

from lake.errors import TerminalError, TransientError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["spoken"]

# how an error of ours looks in the text of a worker that raised it
_OURS = re.compile(r"lake\.errors\.\w+: (.+)")
_CAUSE = re.compile(r"^Caused by: (?:[\w.$]+\.)?(\w+(?:Exception|Error): .+)$", re.MULTILINE)
_LONGEST = 600
# what AWS, or the way there, says when it is busy or away; a commit that others overtook
_PASSING = re.compile(
    r"SlowDown|Throttl|TooManyRequests|ProvisionedThroughputExceeded|RequestTimeout|ServiceUnavailable|InternalError"
    r"|Status Code: 50[0234]|Connection (?:reset|refused)|ConnectException|SocketTimeoutException|SocketException"
    r"|NoHttpResponseException|ConnectionClosedException|Acquire operation took longer|Unable to execute HTTP request"
    r"|timed out|CommitFailedException|ConcurrentModification|executor .*lost|ExecutorLostFailure"
)


@contextmanager
def spoken(doing: str) -> Iterator[None]:
    """Turn a failure of Spark inside into one sentence.

    Args:
        doing: what was being done, for the sentence.

    Raises:
        TransientError: in place of Spark's exception, which is its cause, where another try may help.
        TerminalError: in its place where it won't.
    """
    try:
        yield
    except (PySparkException, Py4JError) as error:
        text = str(error)
        ours = _OURS.search(text)
        if ours:
            kind = TransientError if "TransientError" in ours[0] else TerminalError
            raise kind(f"{doing}: {ours[1].strip()}") from error
        causes = _CAUSE.findall(text)
        said = causes[-1] if causes else text.strip().partition("\n")[0]
        kind = TransientError if _PASSING.search(text) else TerminalError
        raise kind(f"{doing}: Spark failed: {said[:_LONGEST]}") from error
