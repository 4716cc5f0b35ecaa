"""Owns what an answer of PutRecordBatch means: for each record of the call, and for the call that was refused."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    HTTPClientError,
    IncompleteReadError,
)
from botocore.exceptions import (
    ConnectionError as AwsConnectionError,
)
from botocore.parsers import ResponseParserError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mypy_boto3_firehose.type_defs import PutRecordBatchOutputTypeDef

    from producers.spool import WaitingEvent

__all__ = ["CALL_ERRORS", "Outcome", "Verdict", "judge", "read_answer", "said"]

CALL_ERRORS = (ClientError, BotoCoreError, ResponseParserError)
"""What a boto3 call raises."""


class Verdict(Enum):
    """What to do about a call that was refused as a whole."""

    TRY_LATER = "try later"
    """The service is away, throttles or failed; the same call may pass later."""
    TOO_BIG = "too big"
    """A record, or all of them together, are more than the service takes."""
    GIVE_UP = "give up"
    """Only a person can change the answer."""


@dataclass
class Outcome:
    """What became of the records of one or more calls, by their sequence numbers."""

    acknowledged: list[int] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    """Refused one by one, for now."""
    dead: dict[int, str] = field(default_factory=dict)
    """Refused for good, and why."""
    untried: int = 0
    """How many were in calls that were refused as a whole."""
    error: Exception | None = None
    """Why the last call was refused as a whole."""
    last_refusal: str = ""
    """What Firehose said of the last record or call that it refused."""

    def __add__(self, other: Outcome) -> Outcome:
        return Outcome(
            acknowledged=self.acknowledged + other.acknowledged,
            failed=self.failed + other.failed,
            dead=self.dead | other.dead,
            untried=self.untried + other.untried,
            error=other.error or self.error,
            last_refusal=other.last_refusal or self.last_refusal,
        )


def read_answer(records: Sequence[WaitingEvent], answer: PutRecordBatchOutputTypeDef) -> Outcome:
    """Sort the records of a call by what its answer says of each.

    A record is acknowledged only where its own entry has a RecordId and no error: an answer that is too short, or whose
    FailedPutCount doesn't fit, acknowledges no more than that.
    """
    outcome = Outcome()
    entries = answer.get("RequestResponses", [])
    for index, record in enumerate(records):
        entry = entries[index] if index < len(entries) else {}
        if entry.get("RecordId") and not entry.get("ErrorCode"):
            outcome.acknowledged.append(record.sequence)
        else:
            outcome.failed.append(record.sequence)
            outcome.last_refusal = f"{entry.get('ErrorCode', 'no answer for the record')}: " + entry.get(
                "ErrorMessage", ""
            )
    return outcome


# As the service words them: a record over its limit, and a call over its own. The name of the member counts, as a
# stream's name can be too long in the same words.
_TOO_BIG = re.compile(r"'records\b.*length less than or equal to|records size exceeds", re.IGNORECASE | re.DOTALL)
_HTTP_TOO_BIG = 413
# throttling in all its spellings: https://docs.aws.amazon.com/sdkref/latest/guide/feature-retry-behavior.html
_TRY_LATER_CODES = {
    "BandwidthLimitExceeded",
    "InternalFailure",
    "InternalServerError",
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "RequestThrottledException",
    "RequestTimeout",
    "RequestTimeoutException",
    "ServiceUnavailable",
    "ServiceUnavailableException",
    "SlowDown",
    "Throttling",
    "ThrottledException",
    "ThrottlingException",
    "TooManyRequestsException",
    "TransactionInProgressException",
}
_HTTP_TRY_LATER = {408, 429}
_HTTP_SERVER_ERROR = 500


def judge(error: Exception) -> Verdict:
    """Decide about a call that raised one of `CALL_ERRORS`."""
    if isinstance(error, ClientError):
        return _judge_answer(error)
    # a proxy's page instead of JSON is as transient as a lost connection
    away = (AwsConnectionError, HTTPClientError, IncompleteReadError, CredentialRetrievalError, ResponseParserError)
    return Verdict.TRY_LATER if isinstance(error, away) else Verdict.GIVE_UP


def _judge_answer(error: ClientError) -> Verdict:
    code, message, status = _parts(error)
    if status == _HTTP_TOO_BIG:
        return Verdict.TOO_BIG
    if code in _TRY_LATER_CODES or status in _HTTP_TRY_LATER or status >= _HTTP_SERVER_ERROR:
        return Verdict.TRY_LATER
    return Verdict.TOO_BIG if _TOO_BIG.search(message) else Verdict.GIVE_UP


def said(error: Exception) -> str:
    """What the service said, as `Code: message`; or what went wrong on the way to it."""
    if not isinstance(error, ClientError):
        return str(error)
    code, message, _ = _parts(error)
    return f"{code}: {message}"


def _parts(error: ClientError) -> tuple[str, str, int]:
    told = error.response.get("Error", {})
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    return told.get("Code", ""), told.get("Message", ""), status
