"""Owns what a transform function answered: a verdict for each record, or why there is none.

Source: https://docs.aws.amazon.com/firehose/latest/dev/data-transformation-status-model.html
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
from botocore.exceptions import ClientError, ConnectTimeoutError, ReadTimeoutError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["PAYLOAD_BYTES", "Problem", "Transformed", "failed_call", "failed_function", "read_answer"]

PAYLOAD_BYTES = 6 << 20
"""Most bytes that AWS Lambda takes and gives in an invocation."""
_DETAIL = 1000
"""Characters of a function's own words that are told."""


@dataclass(frozen=True, slots=True)
class Problem:
    """Why a record, or each one of a batch, was not transformed."""

    code: str
    message: str
    detail: str = ""
    """What the function or the API said itself: for the log."""


@dataclass(frozen=True, slots=True)
class Transformed:
    """A record as the function made it."""

    data: bytes
    keys: tuple[tuple[str, str], ...] = ()
    """Partition keys; one that is null is an empty text, which no partition can have either."""


_FUNCTION_ERROR = "Lambda.FunctionError"
_ERROR_RESULT = "The Lambda function was successfully invoked but it returned an error result."
_INVALID = (
    "Invalid output structure. Check your function and make sure the processed records contain valid result status of"
    " Dropped, Ok, or ProcessingFailed."
)
# AWS documents this code, and its error objects had it in 2022; one capture of 2026 has Lambda.FunctionError instead.
_TIMED_OUT = Problem(
    "Lambda.FunctionTimedOut",
    "The Lambda function invocation timed out. Increase the Timeout setting in the Lambda function.",
)
_UNPARSABLE = Problem(
    "Lambda.JsonProcessingException",
    "There was an error parsing returned records from the Lambda function. Ensure that the returned records follow the"
    " status model required by Amazon Data Firehose.",
)
_MISSING = Problem(
    "Lambda.MissingRecordId",
    "One or more record Ids were not returned. Ensure that the Lambda function returns all received record Ids.",
)
_DUPLICATED = Problem(
    "Lambda.DuplicatedRecordId",
    "Multiple records were returned with the same record Id. Ensure that the Lambda function returns a unique record Id"
    " for each record.",
)
_FAILED = Problem("Lambda.ProcessingFailedStatus", "ProcessingFailed status set for record")
_NO_DATA = Problem(
    "Lambda.InvalidReturnFormat",
    "The data field cannot be null when the SourceType is DirectPut or KinesisStreamAsSource and processing result is"
    " Ok. The value field cannot be null when the SourceType is MSKAsSource and processing result is Ok.",
)
_LIMIT = (
    "Lambda.InvokeLimitExceeded",
    "The Lambda concurrent execution limit is exceeded. Increase the concurrent execution limit.",
)
_DENIED = (
    "Lambda.InvokeAccessDenied",
    "Access was denied. Ensure that the access policy allows access to the Lambda function.",
)
_NOT_FOUND = (
    "Lambda.ResourceNotFound",
    "The specified Lambda function does not exist. Use a different function that does exist.",
)
_CALLING = "Amazon Data Firehose encountered {} when calling the AWS Lambda service."
_CODES = {
    "ResourceNotFoundException": _NOT_FOUND,
    "TooManyRequestsException": _LIMIT,
    "EC2ThrottledException": _LIMIT,
    "ThrottlingException": _LIMIT,
    "Throttling": _LIMIT,
    "AccessDeniedException": _DENIED,
    "AccessDenied": _DENIED,
    "UnrecognizedClientException": ("Lambda.InvalidSecurityToken", _CALLING.format("an invalid security token")),
    "InvalidSubnetIDException": (
        "Lambda.InvalidSubnetIDException",
        "Lambda failed to set up the VPC access: the subnet ID is invalid.",
    ),
    "InvalidSecurityGroupIDException": (
        "Lambda.InvalidSecurityGroupIDException",
        "Lambda failed to set up the VPC access: the security group ID is invalid.",
    ),
    "SubnetIPAddressLimitReachedException": (
        "Lambda.SubnetIPAddressLimitReachedException",
        "Lambda failed to set up the VPC access: subnets have no available IP addresses.",
    ),
    "ENILimitReachedException": (
        "Lambda.ENILimitReachedException",
        "Lambda failed to set up the VPC access: the limit for network interfaces is reached.",
    ),
    "InvalidZipFileException": ("Lambda.InvalidZipFileException", _CALLING.format("InvalidZipFileException")),
    "ServiceException": ("Lambda.InternalServerError", _CALLING.format("InternalServerError")),
    "KMSAccessDeniedException": (
        _FUNCTION_ERROR,
        "Lambda was unable to decrypt the environment variables because KMS access was denied.",
    ),
}
"""AWS Lambda's codes, and Firehose's with its sentence."""
_SERVER_ERROR, _UNAVAILABLE = 500, 503
_TIMEOUT_WORDS = re.compile(r"Task timed out after [0-9.]+ seconds")


def failed_call(error: Exception) -> Problem:
    """Tell what it means that the Lambda API refused a call, or couldn't be reached."""
    detail = str(error)[:_DETAIL]
    if isinstance(error, ClientError):
        answer: Any = error.response
        code = str(answer.get("Error", {}).get("Code", ""))
        status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        if code in _CODES:
            return Problem(*_CODES[code], detail)
        if status == _UNAVAILABLE:
            return Problem("Lambda.ServiceUnavailable", _CALLING.format("ServiceUnavailable"), detail)
        if status >= _SERVER_ERROR:
            return Problem("Lambda.InternalServerError", _CALLING.format("InternalServerError"), detail)
        return Problem("Lambda.InvocationFailure", _CALLING.format("errors"), detail)
    if isinstance(error, (ReadTimeoutError, ConnectTimeoutError)):
        message = _CALLING.format("Request did not complete before the request timeout configuration error")
        return Problem("Lambda.FunctionRequestTimedOut", message, detail)
    message = _CALLING.format("Error: Target server failed to respond")
    return Problem("Lambda.TargetServerFailedToRespond", message, detail)


def failed_function(answer: bytes) -> Problem:
    """Tell what it means that the function ended in an error, or said too much; the answer is AWS Lambda's about it."""
    detail = answer[:_DETAIL].decode("utf-8", "replace")
    if _TIMEOUT_WORDS.search(detail):
        return Problem(_TIMED_OUT.code, _TIMED_OUT.message, detail)
    return Problem(_FUNCTION_ERROR, _ERROR_RESULT, detail)


def read_answer(answer: bytes, ids: Sequence[str]) -> list[Transformed | Problem | None] | Problem:
    """Read a verdict for each record; None is a dropped one.

    Records that the batch doesn't have are overlooked, as by the service.

    Args:
        answer: what the function returned, as JSON.
        ids: of the batch's records.

    Returns:
        a verdict for each id, in their order, or what is wrong with the answer as a whole.
    """
    try:
        document: Any = orjson.loads(answer)
    except orjson.JSONDecodeError:
        return _UNPARSABLE
    if document is None:
        document = {}
    if type(document) is not dict:
        return _UNPARSABLE
    returned = document.get("records") or []
    if type(returned) is not list or any(type(one) is not dict for one in returned):
        return _UNPARSABLE
    found: dict[Any, Transformed | Problem | None] = {}
    for one in returned:
        identity = one.get("recordId")
        if type(identity) is not str:
            continue
        try:
            verdict = _verdict(one)
        except _UnusableError as error:
            return error.problem
        found[identity] = _DUPLICATED if identity in found else verdict
    return [found.get(identity, _MISSING) for identity in ids]


class _UnusableError(Exception):
    """A member of an answer for which the service refuses all of it."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def _verdict(one: dict[str, Any]) -> Transformed | Problem | None:
    match one.get("result"):
        case "Ok":
            data = one.get("data")
            return _NO_DATA if data is None else Transformed(_decoded(data), _keys(one.get("metadata")))
        case "Dropped":
            return None
        case "ProcessingFailed":
            return _FAILED
        case _:
            raise _UnusableError(Problem(_FUNCTION_ERROR, _INVALID))


def _decoded(data: object) -> bytes:
    try:
        return base64.b64decode(data, validate=True)  # type: ignore[arg-type]  # what is no text raises
    except (binascii.Error, ValueError, TypeError):
        raise _UnusableError(Problem(_FUNCTION_ERROR, _INVALID)) from None


def _keys(metadata: Any) -> tuple[tuple[str, str], ...]:
    given = {} if metadata is None else metadata.get("partitionKeys") if type(metadata) is dict else metadata
    if given is None:
        return ()
    if type(given) is not dict or any(isinstance(value, (dict, list)) for value in given.values()):
        raise _UnusableError(_UNPARSABLE)
    return tuple((name, _text(value)) for name, value in given.items())


def _text(value: Any) -> str:
    if value is None:
        return ""
    return value if isinstance(value, str) else orjson.dumps(value).decode()
