"""Owns delivery streams as the server knows them: a CreateDeliveryStream request, checked and turned into types.

The checks here are those across members of the request; single members were checked against botocore's model before.
Source: https://docs.aws.amazon.com/firehose/latest/APIReference/API_CreateDeliveryStream.html
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from firehose.extraction import ExtractKeys, QueryError, compile_query
from firehose.objects import Compression
from firehose.prefixes import Prefix, PrefixError, parse_prefix
from firehose.processing import ORDER, AppendDelimiter, Chain, Step
from lake.aws_json import ServiceError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from uuid import UUID

__all__ = [
    "S3_DESTINATIONS",
    "DeliveryStream",
    "Destination",
    "invalid",
    "parse_destination",
    "requested_destination",
]

MEBIBYTE = 1 << 20
DEFAULT_SIZE_MB, DEFAULT_INTERVAL = 5, 300
# with dynamic partitioning AWS excludes zero by name, and no other value of 0 to 900; texts that say 60 are of before
# there were shorter intervals: https://docs.aws.amazon.com/firehose/latest/dev/buffering.html
_PARTITIONED_INTERVAL = 1
_MAX_KEYS = 50
S3_DESTINATIONS = ("ExtendedS3DestinationConfiguration", "S3DestinationConfiguration")
_NOT_SUPPORTED = (
    *("DeliveryStreamEncryptionConfigurationInput", "KinesisStreamSourceConfiguration"),
    *("MSKSourceConfiguration", "DatabaseSourceConfiguration"),
)
_SUPPORTED = ("MetadataExtraction", "AppendDelimiterToRecord")
_ENGINE = "JQ-1.6"
# The service's default where AppendDelimiterToRecord has no Delimiter isn't documented; a newline is what it's for.
_DEFAULT_DELIMITER = "\\n"
_ESCAPES = {"\\n": "\n", "\\t": "\t", "\\r": "\r", "\\\\": "\\"}


@dataclass(frozen=True, slots=True)
class Destination:
    """Where and how a stream's records are delivered."""

    bucket: str
    prefix: Prefix
    error_prefix: Prefix
    size_bytes: int
    """A buffer this big, before compression, is delivered."""
    interval_ms: int
    """A buffer whose oldest record is this old is delivered."""
    compression: Compression
    extension: str
    """What object names end in."""
    zone: tzinfo
    """Zone of the timestamps in prefixes."""
    kms_key: str | None
    keys: tuple[str, ...] | None
    """Names of the partition keys; None without dynamic partitioning."""
    chain: Chain
    """Processors, in order."""


@dataclass(frozen=True, slots=True)
class DeliveryStream:
    """A stream that exists."""

    name: str
    identity: UUID
    """Tells it from a deleted stream of the same name."""
    arn: str
    version: int
    """1, and one more with each change."""
    created: float
    """Seconds since the epoch."""
    request: dict[str, Any]
    """The CreateDeliveryStream request that makes it as it is now, for DescribeDeliveryStream and the next start."""
    destination: Destination
    updated: float | None = None
    """Of its last update, seconds since the epoch."""
    tags: Mapping[str, str] = field(default_factory=dict)


def invalid(message: str) -> ServiceError:
    """Make the error of a request that makes no sense."""
    return ServiceError("InvalidArgumentException", message)


def requested_destination(request: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Find the S3 destination of a CreateDeliveryStream request, and whether it is an extended one.

    Raises:
        ServiceError: InvalidArgumentException: none or several, or something this server doesn't do.
    """
    kind = request.get("DeliveryStreamType", "DirectPut")
    if kind != "DirectPut":
        raise invalid(f"DeliveryStreamType: got {kind}, this server supports: DirectPut")
    given = [name for name in request if name.endswith("DestinationConfiguration") and request[name] is not None]
    foreign = [name for name in given if name not in S3_DESTINATIONS]
    if foreign:
        raise invalid(f"{foreign[0]}: this server supports: {', '.join(S3_DESTINATIONS)}")
    if len(given) != 1:
        raise invalid(f"Exactly one destination configuration is supported for a Firehose, got {len(given)}")
    for name in _NOT_SUPPORTED:
        if request.get(name) is not None:
            raise invalid(f"{name}: this server doesn't support it")
    return request[given[0]], given[0] == S3_DESTINATIONS[0]


def parse_destination(request: dict[str, Any]) -> Destination:
    """Check the destination of a CreateDeliveryStream request and turn it into types.

    Raises:
        ServiceError: InvalidArgumentException that says what was given and what is allowed.
    """
    given, _ = requested_destination(request)
    _refuse_unsupported(given)
    partitioned = bool((given.get("DynamicPartitioningConfiguration") or {}).get("Enabled"))
    prefix = _prefix(given, "Prefix")
    error_prefix = _prefix(given, "ErrorOutputPrefix")
    steps, extraction = _steps(given.get("ProcessingConfiguration") or {})
    _check_prefixes(given, prefix, error_prefix)
    keys = _partition_keys(given, prefix, extraction, partitioned=partitioned)
    if extraction is not None and keys is not None:
        steps["MetadataExtraction"] = extraction.using(keys)
    size_bytes, interval_ms = _hints(given, partitioned=partitioned)
    compression = Compression(given.get("CompressionFormat") or Compression.UNCOMPRESSED)
    encryption = (given.get("EncryptionConfiguration") or {}).get("KMSEncryptionConfig") or {}
    return Destination(
        bucket=given["BucketARN"].partition(":::")[2],
        prefix=prefix,
        error_prefix=error_prefix if given.get("ErrorOutputPrefix") else prefix,
        size_bytes=size_bytes,
        interval_ms=interval_ms,
        compression=compression,
        extension=given.get("FileExtension") or compression.extension,
        zone=_zone(given.get("CustomTimeZone")),
        kms_key=encryption.get("AWSKMSKeyARN"),
        keys=keys,
        chain=Chain(tuple(steps[kind] for kind in ORDER if kind in steps)),
    )


def _refuse_unsupported(given: dict[str, Any]) -> None:
    if given.get("S3BackupMode") == "Enabled" or given.get("S3BackupConfiguration"):
        raise invalid("S3BackupMode: got Enabled, this server supports: Disabled")
    conversion = given.get("DataFormatConversionConfiguration")
    if conversion is not None and conversion.get("Enabled", True):
        raise invalid("DataFormatConversionConfiguration: this server doesn't support format conversion")


def _prefix(given: dict[str, Any], name: str) -> Prefix:
    try:
        return parse_prefix(given.get(name) or "")
    except PrefixError as error:
        raise invalid(f"{name}: {error}") from None


def _check_prefixes(given: dict[str, Any], prefix: Prefix, error_prefix: Prefix) -> None:
    if prefix.has("firehose", "error-output-type"):
        raise invalid("Prefix: !{firehose:error-output-type} is only allowed in ErrorOutputPrefix")
    if error_prefix.has("partitionKeyFromQuery"):
        raise invalid("Dynamic Partitioning Namespaces can't be part of an error prefix expression")
    if error_prefix.has_expressions and not error_prefix.has("firehose", "error-output-type"):
        raise invalid("ErrorOutputPrefix: an expression needs !{firehose:error-output-type} beside it")
    if prefix.has_expressions and not given.get("ErrorOutputPrefix"):
        raise invalid("ErrorOutputPrefix is needed when Prefix contains expressions")


def _steps(configuration: dict[str, Any]) -> tuple[dict[str, Step], ExtractKeys | None]:
    steps: dict[str, Step] = {}
    extraction: ExtractKeys | None = None
    if not configuration.get("Enabled"):
        return steps, None
    for processor in configuration.get("Processors") or []:
        kind = processor["Type"]
        if kind not in _SUPPORTED:
            raise invalid(f"Processor type: got {kind}, this server supports: {', '.join(_SUPPORTED)}")
        if kind in steps:
            raise invalid(f"Processor type {kind} is there twice")
        parameters = {one["ParameterName"]: one["ParameterValue"] for one in processor.get("Parameters") or []}
        if kind == "MetadataExtraction":
            extraction = _extraction(parameters)
            steps[kind] = extraction
        else:
            _only(kind, parameters, ("Delimiter",))
            steps[kind] = AppendDelimiter(_unescape(parameters.get("Delimiter", _DEFAULT_DELIMITER)))
    return steps, extraction


def _extraction(parameters: dict[str, str]) -> ExtractKeys:
    _only("MetadataExtraction", parameters, ("MetadataExtractionQuery", "JsonParsingEngine"))
    engine = parameters.get("JsonParsingEngine")
    if engine != _ENGINE:
        raise invalid(f"MetadataExtraction: JsonParsingEngine: got {engine}, allowed is {_ENGINE}")
    if "MetadataExtractionQuery" not in parameters:
        raise invalid("MetadataExtraction needs the parameter MetadataExtractionQuery")
    try:
        return compile_query(parameters["MetadataExtractionQuery"])
    except QueryError as error:
        raise invalid(str(error)) from None


def _only(kind: str, parameters: dict[str, str], allowed: tuple[str, ...]) -> None:
    foreign = [name for name in parameters if name not in allowed]
    if foreign:
        raise invalid(f"Processor {kind}: parameter {foreign[0]}: allowed are: {', '.join(allowed)}")


def _unescape(text: str) -> bytes:
    made, at = "", 0
    while at < len(text):
        escape = _ESCAPES.get(text[at : at + 2])
        made += escape or text[at]
        at += 2 if escape else 1
    return made.encode()


def _partition_keys(
    given: dict[str, Any], prefix: Prefix, extraction: ExtractKeys | None, *, partitioned: bool
) -> tuple[str, ...] | None:
    if not partitioned:
        if prefix.partition_keys:
            raise invalid("Prefix: partitionKeyFromQuery needs DynamicPartitioningConfiguration to be enabled")
        if extraction is not None:
            raise invalid("MetadataExtraction needs DynamicPartitioningConfiguration to be enabled")
        return None
    extraction = _required(given, prefix, extraction)
    # where the query's text doesn't show its keys, a key that is missing is found at each record
    known = extraction.known_keys
    if known is None:
        return tuple(sorted(prefix.partition_keys))
    if len(known) > _MAX_KEYS:
        raise invalid(f"MetadataExtractionQuery makes {len(known)} partition keys, at most {_MAX_KEYS} are allowed")
    undefined = sorted(prefix.partition_keys - set(known))
    if undefined:
        made = ", ".join(known)
        raise invalid(f"Prefix: partition key {undefined[0]} is not made by MetadataExtractionQuery: {made}")
    unused = sorted(set(known) - prefix.partition_keys)
    if unused:
        raise invalid(f"MetadataExtractionQuery: partition key {unused[0]} is not used in Prefix")
    return known


def _required(given: dict[str, Any], prefix: Prefix, extraction: ExtractKeys | None) -> ExtractKeys:
    for name in ("Prefix", "ErrorOutputPrefix"):
        if not given.get(name):
            raise invalid(f"{name} is needed when dynamic partitioning is enabled")
    if extraction is None:
        raise invalid("Dynamic partitioning needs a MetadataExtraction processor to take partition keys from")
    if not prefix.partition_keys:
        raise invalid("Prefix: dynamic partitioning needs an expression !{partitionKeyFromQuery:key}")
    return extraction


def _hints(given: dict[str, Any], *, partitioned: bool) -> tuple[int, int]:
    hints = given.get("BufferingHints") or {}
    size, interval = hints.get("SizeInMBs"), hints.get("IntervalInSeconds")
    if (size is None) != (interval is None):
        raise invalid("BufferingHints: SizeInMBs and IntervalInSeconds go together: both, or neither")
    size = DEFAULT_SIZE_MB if size is None else size
    interval = DEFAULT_INTERVAL if interval is None else interval
    if partitioned and interval < _PARTITIONED_INTERVAL:
        raise invalid(
            f"BufferingHints: IntervalInSeconds: got {interval},"
            f" with dynamic partitioning {_PARTITIONED_INTERVAL} to 900 are allowed"
        )
    return size * MEBIBYTE, interval * 1000


def _zone(name: str | None) -> tzinfo:
    if not name or name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise invalid(f"CustomTimeZone: got {name}, a name of the tz database is needed, as in Europe/Berlin") from None
