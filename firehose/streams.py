"""Owns delivery streams as the server knows them: a CreateDeliveryStream request, checked and turned into types.

The checks here are those across members of the request; single members were checked against botocore's model before.
Source: https://docs.aws.amazon.com/firehose/latest/APIReference/API_CreateDeliveryStream.html
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, tzinfo
from typing import TYPE_CHECKING, Any, TypeVar
from zoneinfo import ZoneInfo

from firehose.extraction import ExtractKeys, QueryError, compile_query
from firehose.objects import Compression
from firehose.prefixes import Prefix, PrefixError, parse_prefix
from firehose.processing import ORDER, AppendDelimiter, Chain, Step
from lake.aws_json import ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
    from uuid import UUID

__all__ = [
    "S3_DESTINATIONS",
    "DefinitionError",
    "DeliveryStream",
    "Destination",
    "invalid",
    "parse_destination",
    "problems",
    "requested_destination",
]

_Made = TypeVar("_Made")

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
_ERROR_PREFIX = {"ErrorOutputPrefix": "errors/!{firehose:error-output-type}/"}
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


class DefinitionError(ServiceError):
    """What makes no sense in a request, and where."""

    def __init__(self, message: str, where: tuple[str | int, ...], remedy: dict[str, Any] | None) -> None:
        super().__init__("InvalidArgumentException", message)
        self.where = where
        """The member; of a destination's members, from the destination down. Empty for the request as a whole."""
        self.remedy = remedy
        """Members of the destination that would do, if there is one answer."""


def invalid(message: str, *where: str | int, remedy: dict[str, Any] | None = None) -> DefinitionError:
    """Make the error of a request that makes no sense."""
    return DefinitionError(message, where, remedy)


def requested_destination(request: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Find the S3 destination of a CreateDeliveryStream request, and whether it is an extended one.

    Raises:
        ServiceError: InvalidArgumentException: none or several, or something this server doesn't do.
    """
    kind = request.get("DeliveryStreamType") or "DirectPut"
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
    _refuse(_unsupported(given))
    partitioned = bool((given.get("DynamicPartitioningConfiguration") or {}).get("Enabled"))
    prefix = _prefix(given, "Prefix")
    error_prefix = _prefix(given, "ErrorOutputPrefix")
    steps: dict[str, Step] = {}
    _refuse(_steps(given.get("ProcessingConfiguration") or {}, steps))
    extraction = _extraction_of(steps)
    _refuse(_prefix_problems(given, prefix, error_prefix))
    _refuse(_key_problems(given, prefix, extraction, partitioned=partitioned))
    keys = _partition_keys(prefix, extraction, partitioned=partitioned)
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


def problems(request: dict[str, Any]) -> list[DefinitionError]:
    """List all that `parse_destination` would refuse, of a request whose members are of the right types.

    A check that reads what another one refused is left out. `where` is from the request down.
    """
    found = list(_request_problems(request))
    for name in _given_destinations(request):
        if name in S3_DESTINATIONS:
            for one in _destination_problems(request[name]):
                place = (name, *one.where)
                # two rules may ask for the same member
                if one.remedy is None or (place, one.remedy) not in [(other.where, other.remedy) for other in found]:
                    found.append(invalid(str(one), *place, remedy=one.remedy))
    return found


def _given_destinations(request: dict[str, Any]) -> list[str]:
    return [name for name in request if name.endswith("DestinationConfiguration") and request[name] is not None]


def _request_problems(request: dict[str, Any]) -> Iterator[DefinitionError]:
    # each part by itself, so that one that is refused doesn't hide the next
    destinations = {name: request[name] for name in _given_destinations(request)}
    others = {name: value for name, value in request.items() if name not in destinations}
    yield from _tried(lambda: requested_destination(destinations))
    for name, value in others.items():
        part = {name: value, S3_DESTINATIONS[0]: {}}
        for one in _tried(lambda part=part: requested_destination(part)):  # type: ignore[misc]  # bound at once
            yield invalid(str(one), name)


def _destination_problems(given: dict[str, Any]) -> Iterator[DefinitionError]:
    partitioned = bool((given.get("DynamicPartitioningConfiguration") or {}).get("Enabled"))
    yield from _unsupported(given)
    prefix = yield from _tried(lambda: _prefix(given, "Prefix"))
    error_prefix = yield from _tried(lambda: _prefix(given, "ErrorOutputPrefix"))
    steps: dict[str, Step] = {}
    broken = list(_steps(given.get("ProcessingConfiguration") or {}, steps))
    yield from broken
    if prefix is not None and error_prefix is not None:
        yield from _prefix_problems(given, prefix, error_prefix)
    if prefix is not None and not broken:
        yield from _key_problems(given, prefix, _extraction_of(steps), partitioned=partitioned)
    yield from _tried(lambda: _hints(given, partitioned=partitioned))
    yield from _tried(lambda: _zone(given.get("CustomTimeZone")))


def _tried(make: Callable[[], _Made]) -> Generator[DefinitionError, None, _Made | None]:
    try:
        return make()
    except DefinitionError as error:
        yield error
        return None


def _refuse(found: Iterable[DefinitionError]) -> None:
    for one in found:
        raise one


def _unsupported(given: dict[str, Any]) -> Iterator[DefinitionError]:
    if given.get("S3BackupMode") == "Enabled" or given.get("S3BackupConfiguration"):
        yield invalid("S3BackupMode: got Enabled, this server supports: Disabled", "S3BackupMode")
    conversion = given.get("DataFormatConversionConfiguration")
    if conversion is not None and conversion.get("Enabled", True):
        yield invalid(
            "DataFormatConversionConfiguration: this server doesn't support format conversion",
            "DataFormatConversionConfiguration",
        )


def _prefix(given: dict[str, Any], name: str) -> Prefix:
    try:
        return parse_prefix(given.get(name) or "")
    except PrefixError as error:
        raise invalid(f"{name}: {error}", name) from None


def _prefix_problems(given: dict[str, Any], prefix: Prefix, error_prefix: Prefix) -> Iterator[DefinitionError]:
    if prefix.has("firehose", "error-output-type"):
        yield invalid("Prefix: !{firehose:error-output-type} is only allowed in ErrorOutputPrefix", "Prefix")
    if error_prefix.has("partitionKeyFromQuery"):
        yield invalid(
            "Dynamic Partitioning Namespaces can't be part of an error prefix expression",
            "ErrorOutputPrefix",
            remedy=_ERROR_PREFIX,
        )
    if error_prefix.has_expressions and not error_prefix.has("firehose", "error-output-type"):
        yield invalid(
            "ErrorOutputPrefix: an expression needs !{firehose:error-output-type} beside it",
            "ErrorOutputPrefix",
            remedy={"ErrorOutputPrefix": f"{error_prefix.text}!{{firehose:error-output-type}}/"},
        )
    if prefix.has_expressions and not given.get("ErrorOutputPrefix"):
        yield invalid(
            "ErrorOutputPrefix is needed when Prefix contains expressions", "ErrorOutputPrefix", remedy=_ERROR_PREFIX
        )


def _steps(configuration: dict[str, Any], steps: dict[str, Step]) -> Iterator[DefinitionError]:
    # puts the steps that make sense into `steps`, by their type
    if not configuration.get("Enabled"):
        return
    for index, processor in enumerate(configuration.get("Processors") or []):
        kind = processor["Type"]
        where = ("ProcessingConfiguration", "Processors", index)
        if kind not in _SUPPORTED:
            yield invalid(f"Processor type: got {kind}, this server supports: {', '.join(_SUPPORTED)}", *where)
        elif kind in steps:
            yield invalid(f"Processor type {kind} is there twice", *where)
        else:
            parameters = {one["ParameterName"]: one["ParameterValue"] for one in processor.get("Parameters") or []}
            try:
                steps[kind] = _step(kind, parameters)
            except DefinitionError as error:
                yield invalid(str(error), *where, remedy=error.remedy)


def _step(kind: str, parameters: dict[str, str]) -> Step:
    if kind == "MetadataExtraction":
        return _extraction(parameters)
    _only(kind, parameters, ("Delimiter",))
    return AppendDelimiter(_unescape(parameters.get("Delimiter", _DEFAULT_DELIMITER)))


def _extraction_of(steps: dict[str, Step]) -> ExtractKeys | None:
    step = steps.get("MetadataExtraction")
    return step if isinstance(step, ExtractKeys) else None


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


def _key_problems(
    given: dict[str, Any], prefix: Prefix, extraction: ExtractKeys | None, *, partitioned: bool
) -> Iterator[DefinitionError]:
    if not partitioned:
        switch = {"DynamicPartitioningConfiguration": {"Enabled": True}}
        if prefix.partition_keys:
            yield invalid(
                "Prefix: partitionKeyFromQuery needs DynamicPartitioningConfiguration to be enabled",
                "DynamicPartitioningConfiguration",
                remedy=switch,
            )
        if extraction is not None:
            yield invalid(
                "MetadataExtraction needs DynamicPartitioningConfiguration to be enabled",
                "DynamicPartitioningConfiguration",
                remedy=switch,
            )
        return
    yield from _missing(given, prefix, extraction)
    # where the query's text doesn't show its keys, a key that is missing is found at each record
    known = None if extraction is None else extraction.known_keys
    if known is None:
        return
    if len(known) > _MAX_KEYS:
        yield invalid(
            f"MetadataExtractionQuery makes {len(known)} partition keys, at most {_MAX_KEYS} are allowed",
            "ProcessingConfiguration",
        )
    for key in sorted(prefix.partition_keys - set(known)):
        made = ", ".join(known)
        yield invalid(f"Prefix: partition key {key} is not made by MetadataExtractionQuery: {made}", "Prefix")
    for key in sorted(set(known) - prefix.partition_keys) if prefix.partition_keys else ():
        yield invalid(f"MetadataExtractionQuery: partition key {key} is not used in Prefix", "ProcessingConfiguration")


def _missing(given: dict[str, Any], prefix: Prefix, extraction: ExtractKeys | None) -> Iterator[DefinitionError]:
    # what dynamic partitioning can't be without
    keys = sorted(prefix.partition_keys) or list((extraction and extraction.known_keys) or ["tenant"])
    wanted = {"Prefix": "".join(f"{key}=!{{partitionKeyFromQuery:{key}}}/" for key in keys)}
    if not given.get("Prefix"):
        yield invalid("Prefix is needed when dynamic partitioning is enabled", "Prefix", remedy=wanted)
    if not given.get("ErrorOutputPrefix"):
        yield invalid(
            "ErrorOutputPrefix is needed when dynamic partitioning is enabled",
            "ErrorOutputPrefix",
            remedy=_ERROR_PREFIX,
        )
    if extraction is None:
        yield invalid(
            "Dynamic partitioning needs a MetadataExtraction processor to take partition keys from",
            "ProcessingConfiguration",
            remedy=_processing(keys),
        )
    if given.get("Prefix") and not prefix.partition_keys:
        yield invalid(
            "Prefix: dynamic partitioning needs an expression !{partitionKeyFromQuery:key}",
            "Prefix",
            remedy={"Prefix": f"{prefix.text.removesuffix('/')}/{wanted['Prefix']}"},
        )


def _processing(keys: list[str]) -> dict[str, Any]:
    query = ", ".join(f"{key}: .{key}" for key in keys)
    parameters = {"MetadataExtractionQuery": f"{{{query}}}", "JsonParsingEngine": _ENGINE}
    given = [{"ParameterName": name, "ParameterValue": value} for name, value in parameters.items()]
    processors = [
        {"Type": "MetadataExtraction", "Parameters": given},
        {"Type": "AppendDelimiterToRecord", "Parameters": [{"ParameterName": "Delimiter", "ParameterValue": "\\n"}]},
    ]
    return {"ProcessingConfiguration": {"Enabled": True, "Processors": processors}}


def _partition_keys(prefix: Prefix, extraction: ExtractKeys | None, *, partitioned: bool) -> tuple[str, ...] | None:
    if not partitioned or extraction is None:
        return None
    known = extraction.known_keys
    return tuple(sorted(prefix.partition_keys)) if known is None else known


def _hints(given: dict[str, Any], *, partitioned: bool) -> tuple[int, int]:
    hints = given.get("BufferingHints") or {}
    size, interval = hints.get("SizeInMBs"), hints.get("IntervalInSeconds")
    if (size is None) != (interval is None):
        given_too = {"SizeInMBs": size, "IntervalInSeconds": interval}
        defaults = {"SizeInMBs": DEFAULT_SIZE_MB, "IntervalInSeconds": DEFAULT_INTERVAL}
        raise invalid(
            "BufferingHints: SizeInMBs and IntervalInSeconds go together: both, or neither",
            "BufferingHints",
            remedy={
                "BufferingHints": {
                    name: defaults[name] if value is None else value for name, value in given_too.items()
                }
            },
        )
    size = DEFAULT_SIZE_MB if size is None else size
    interval = DEFAULT_INTERVAL if interval is None else interval
    if partitioned and interval < _PARTITIONED_INTERVAL:
        raise invalid(
            f"BufferingHints: IntervalInSeconds: got {interval},"
            f" with dynamic partitioning {_PARTITIONED_INTERVAL} to 900 are allowed",
            "BufferingHints",
            "IntervalInSeconds",
        )
    return size * MEBIBYTE, interval * 1000


def _zone(name: str | None) -> tzinfo:
    if not name or name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        message = f"CustomTimeZone: got {name}, a name of the tz database is needed, as in Europe/Berlin"
        raise invalid(message, "CustomTimeZone") from None
