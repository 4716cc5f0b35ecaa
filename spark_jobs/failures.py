"""Owns what failures of Spark, and of PyIceberg beside it, mean: a conflict, a passing one, or a lasting one."""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from py4j.protocol import Py4JError  # type: ignore[import-untyped]
from pyspark.errors import PySparkException

from lake.clients import is_passing
from lake.errors import EnvironmentProblemError, LakehoseError, TerminalError, TransientError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Conflict", "conflict_of", "sentence", "spoken"]

# how an error of ours looks in the text of a worker that raised it
_OURS = re.compile(r"lake\.errors\.\w+: (.+)")
_CAUSE = re.compile(r"^Caused by: (?:[\w.$]+\.)?(\w+(?:Exception|Error): .+)$", re.MULTILINE)
_LONGEST = 600
# what AWS, or the way there, says when it is busy or away; a commit that others overtook
_PASSING = re.compile(
    r"SlowDown|Throttl|TooManyRequests|ProvisionedThroughputExceeded|RequestTimeout|ServiceUnavailable|InternalError"
    r"|Status Code: 50[0234]|Connection (?:reset|refused)|ConnectException|SocketTimeoutException|SocketException"
    r"|NoHttpResponseException|ConnectionClosedException|EOFException: Unexpected EOF|Premature end of"
    r"|Acquire operation took longer|Unable to execute HTTP request"
    r"|timed out|CommitFailedException|ConcurrentModification|executor .*lost|ExecutorLostFailure"
    # the same of botocore in a worker
    r"|botocore\.exceptions\.(?:\w*(?:Timeout|Connection)\w*|(?:ResponseStreaming|IncompleteRead|FlexibleChecksum)Error)"
    # a worker was killed: in its work, or while it waited for some
    r"|Python worker exited unexpectedly|PythonWorkerFactory\.\S*stopWorker"
)
# the text of another try would be the same: whatever it quotes, or is told of beside it, doesn't pass
_LASTING = re.compile(r"\bPatternSyntaxException\b")
# how Iceberg says that another's commit came between; the last of them, that manifests it was to replace were replaced
_OVERTAKEN = re.compile(r"\b(?:ValidationException|CommitFailedException|arraySize cannot be negative)\b")
_UNKNOWN = re.compile(r"\bCommitStateUnknownException\b")
# what Py4J says when nobody is at the other end any more
_GONE = re.compile(
    r"does not exist in the JVM|Answer from Java side is empty|Error while sending|trying to connect to the"
    # an answer that ended before it began; any other such sentence goes on with what happened
    r"|^An error occurred while calling \S+\s*$"
)


@dataclass(frozen=True)
class Conflict:
    """Another writer's commit that came between, or may have."""

    name: str
    """What Iceberg calls it."""
    is_unknown: bool = False
    """Whether ours was committed isn't known; else it wasn't, and nothing was changed."""


def conflict_of(error: Exception) -> Conflict | None:
    """The conflict that made a commit by Iceberg in Spark fail; None where something else did."""
    text = str(error)
    # first, as it may have another for its cause
    if found := _UNKNOWN.search(text):
        return Conflict(found[0], is_unknown=True)
    found = _OVERTAKEN.search(text)
    return Conflict(found[0]) if found else None


@contextmanager
def spoken(doing: str) -> Iterator[None]:
    """Turn a failure of Spark, or of PyIceberg's reading, inside into one sentence.

    Args:
        doing: what was being done, for the sentence.

    Raises:
        TransientError: in place of the exception, which is its cause, where another try may help.
        TerminalError: in its place where it won't.
        EnvironmentProblemError: Spark's JVM has ended: nothing will work in this process any more.
    """
    try:
        yield
    except (PySparkException, Py4JError, OSError) as error:
        raise _told(doing, error) from error
    except EOFError as error:
        if not _is_gone(error):
            raise
        raise _ended(doing) from error


def _is_gone(error: Exception) -> bool:
    """Whether Spark's JVM has ended, as Py4J or PySpark finds it; any other end of a file comes with words."""
    if isinstance(error, EOFError):
        return not error.args
    return isinstance(error, Py4JError) and _GONE.search(str(error)) is not None


def _ended(doing: str) -> EnvironmentProblemError:
    return EnvironmentProblemError(
        f"{doing}: Spark's JVM has ended: was it killed, or out of memory? Start the job again"
    )


def _told(doing: str, error: Exception) -> LakehoseError:
    text = str(error)
    if isinstance(error, OSError):
        kind: type[LakehoseError] = TransientError if is_passing(error) else TerminalError
        return kind(f"{doing}: {text[:_LONGEST]}")
    if _is_gone(error):
        return _ended(doing)
    ours = _OURS.search(text)
    if ours:
        kind = TransientError if "TransientError" in ours[0] else TerminalError
        return kind(f"{doing}: {ours[1].strip()}")
    causes = _CAUSE.findall(text)
    said = causes[-1] if causes else text.strip().partition("\n")[0]
    kind = TransientError if _PASSING.search(text) and not _LASTING.search(text) else TerminalError
    return kind(f"{doing}: Spark failed: {said[:_LONGEST]}")


def sentence(doing: str, error: Exception) -> str:
    """What any failure is told as, in one line; arguments as `spoken` has them."""
    is_sparks = isinstance(error, PySparkException | Py4JError | OSError) or _is_gone(error)
    told = _told(doing, error) if is_sparks else error
    return " ".join(str(told).split()) or type(told).__name__
