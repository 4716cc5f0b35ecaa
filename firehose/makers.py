"""Owns reading the parameters of processors that make records of others: de-aggregation, decompression, Lambda.

Where the service's own sentence is known, the error begins with it.
Source: https://docs.aws.amazon.com/firehose/latest/APIReference/API_ProcessorParameter.html
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from typing import TYPE_CHECKING

from firehose.deaggregation import SplitDelimited, SplitJson
from firehose.decompression import ExtractMessages, Gunzip
from firehose.definition_error import invalid
from firehose.lambda_transform import LambdaTransform
from lake.errors import known_values

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from firehose.definition_error import DefinitionError
    from firehose.records import Maker

__all__ = ["MAKERS", "maker_of", "maker_problems"]

_PARAMETERS = {
    "Decompression": ("CompressionFormat",),
    "CloudWatchLogProcessing": ("DataMessageExtraction",),
    "RecordDeAggregation": ("SubRecordType", "Delimiter"),
    "Lambda": ("LambdaArn", "NumberOfRetries", "RoleArn", "BufferSizeInMBs", "BufferIntervalInSeconds"),
}
MAKERS = tuple(_PARAMETERS)
"""Processor types that are read here, in the order the service applies them."""
_FUNCTION = re.compile(
    r"arn:aws[a-z-]*:lambda:[a-z0-9-]+:\d{12}:function:[a-zA-Z0-9_-]{1,140}(:(\$LATEST|[a-zA-Z0-9_-]{1,129}))?"
)
_ROLE = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/[a-zA-Z_0-9+=,.@\-_/]+")
_LEAST_SIZE, _MOST_SIZE = 0.2, 3.0
_MOST_SECONDS, _MOST_RETRIES = 900, 300
_MEBIBYTE = 1 << 20


def maker_of(kind: str, parameters: Mapping[str, str]) -> Maker | LambdaTransform:
    """Make a processor of its parameters.

    Args:
        kind: one of `MAKERS`.
        parameters: its parameters' values by their names.

    Raises:
        DefinitionError: a parameter is missing, not one of this type, or not what is allowed.
    """
    foreign = [name for name in parameters if name not in _PARAMETERS[kind]]
    if foreign:
        raise invalid(f"Processor {kind}: parameter {known_values(foreign[0], _PARAMETERS[kind])}")
    match kind:
        case "Decompression":
            return _decompression(parameters)
        case "CloudWatchLogProcessing":
            return _extraction(parameters)
        case "RecordDeAggregation":
            return _deaggregation(parameters)
        case _:
            return _lambda(parameters)


def maker_problems(kinds: Collection[str], *, partitioned: bool) -> Iterator[DefinitionError]:
    """Find what processors of a stream lack beside them.

    Args:
        kinds: types of all the stream's processors.
        partitioned: whether dynamic partitioning is on.
    """
    if "CloudWatchLogProcessing" in kinds and "Decompression" not in kinds:
        yield invalid(
            "CloudWatchLogProcessingProcessor can only be enabled with DecompressionProcessor:"
            " add a processor of type Decompression",
            "ProcessingConfiguration",
        )
    if "RecordDeAggregation" in kinds and not partitioned:
        yield invalid(
            "RecordDeAggregationProcessor can only be present when Dynamic Partitioning is enabled",
            "DynamicPartitioningConfiguration",
            remedy={"DynamicPartitioningConfiguration": {"Enabled": True}},
        )


def _decompression(parameters: Mapping[str, str]) -> Gunzip:
    given = parameters.get("CompressionFormat", "GZIP")
    if given != "GZIP":
        raise invalid(f"Decompression: CompressionFormat: {known_values(given, ['GZIP'])}")
    return Gunzip()


def _extraction(parameters: Mapping[str, str]) -> ExtractMessages:
    given = parameters.get("DataMessageExtraction")
    if given is None or given.lower() not in {"true", "false"}:
        raise invalid(
            "Invalid parameter value for DataMessageExtraction. Allowed values are True and False."
            f" CloudWatchLogProcessing: got {_shown(given)}"
        )
    return ExtractMessages(enabled=given.lower() == "true")


def _deaggregation(parameters: Mapping[str, str]) -> SplitJson | SplitDelimited:
    kind, delimiter = parameters.get("SubRecordType"), parameters.get("Delimiter")
    if kind not in {"JSON", "DELIMITED"}:
        raise invalid(f"SubRecordType has to be one of JSON, DELIMITED; RecordDeAggregation: got {_shown(kind)}")
    if kind == "JSON":
        if delimiter is not None:
            raise invalid(
                f"RecordDeAggregation: Delimiter: got {_shown(delimiter)}, allowed only with SubRecordType DELIMITED"
            )
        return SplitJson()
    if delimiter is None:
        raise invalid("Delimiter should be present for DELIMITED; RecordDeAggregation: got none")
    try:
        found = base64.b64decode(delimiter, validate=True)
    except (binascii.Error, ValueError):
        found = b""  # not the alphabet, or not all of it
    if not found:
        example = base64.b64encode(delimiter.encode()).decode()
        raise invalid(
            f"RecordDeAggregation: Delimiter: got {_shown(delimiter)}, it has to be base64 of at least one byte:"
            f" {example} is that of {_shown(delimiter)}"
        )
    return SplitDelimited(found)


def _lambda(parameters: Mapping[str, str]) -> LambdaTransform:
    arn, role = parameters.get("LambdaArn"), parameters.get("RoleArn")
    if arn is None:
        raise invalid("LambdaArn is required when Lambda processor is used.")
    if not _FUNCTION.fullmatch(arn):
        raise invalid(
            f"Lambda: LambdaArn: got {_shown(arn)}, allowed is the ARN of a function, a version or an alias, as in"
            " arn:aws:lambda:us-east-1:123456789012:function:name:$LATEST"
        )
    if role is not None and not _ROLE.fullmatch(role):
        raise invalid(
            f"Lambda: RoleArn: got {_shown(role)}, allowed is the ARN of a role, as in"
            " arn:aws:iam::123456789012:role/name"
        )
    size, interval = parameters.get("BufferSizeInMBs"), parameters.get("BufferIntervalInSeconds")
    if (size is None) != (interval is None):
        raise invalid(
            "Both BufferSizeInMBs and BufferIntervalInSeconds are required to configure buffering for lambda processor:"
            f" got BufferSizeInMBs {_shown(size)}, BufferIntervalInSeconds {_shown(interval)}"
        )
    chosen = {} if size is None or interval is None else {"size_bytes": _size(size), "interval_ms": _interval(interval)}
    retries = parameters.get("NumberOfRetries")
    if retries is not None:
        chosen["retries"] = _whole(
            retries, _MOST_RETRIES, f"Number of retries for lambda must be between 0 and {_MOST_RETRIES}"
        )
    return LambdaTransform(arn, **chosen)


def _size(given: str) -> int:
    try:
        found = float(given)
    except ValueError:
        found = math.nan
    if not _LEAST_SIZE <= found <= _MOST_SIZE:
        raise invalid(
            f"BufferSizeInMBs for lambda processor must be between 0.2 and 3: got {_shown(given)}",
        )
    return round(found * _MEBIBYTE)


def _interval(given: str) -> int:
    words = f"BufferIntervalInSeconds for lambda processor must be between 0 and {_MOST_SECONDS}"
    return _whole(given, _MOST_SECONDS, words) * 1000


def _whole(given: str, most: int, words: str) -> int:
    # digits of other scripts are numbers to Python
    if given.isascii() and given.isdigit() and len(given) <= len(str(most)) and int(given) <= most:
        return int(given)
    raise invalid(f"{words}: got {_shown(given)}, a whole number is needed")


def _shown(given: str | None) -> str:
    return "none" if given is None else repr(given[:80])
