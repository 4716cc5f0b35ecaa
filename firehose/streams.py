"""Owns delivery streams as the server knows them: a CreateDeliveryStream request, checked and turned into types.

The checks here are those across members of the request; single members were checked against botocore's model before.
Source: https://docs.aws.amazon.com/firehose/latest/APIReference/API_CreateDeliveryStream.html
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, tzinfo
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from firehose.conversion_config import conversion_problems
from firehose.definition_error import DefinitionError, invalid, refuse, tried, unsupported
from firehose.encryption import INPUT, check_input
from firehose.hints import read_hints
from firehose.making import Gathering
from firehose.objects import Compression
from firehose.partitioning import is_partitioned, key_problems, prefix_problems, query_keys
from firehose.prefixes import FROM_LAMBDA, FROM_QUERY, Prefix, PrefixError, parse_prefix
from firehose.processing import AppendDelimiter, Chain, LambdaKeys, Step
from firehose.processors import Processor, extraction_of, function_of, makers_of, read_processors

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from uuid import UUID

    from firehose.conversion import Conversion, TableSchema
    from firehose.extraction import ExtractKeys
    from firehose.lambda_transform import LambdaTransform
    from firehose.records import Maker

__all__ = [
    "S3_DESTINATIONS",
    "DeliveryStream",
    "Destination",
    "only_destination",
    "parse_destination",
    "problems",
    "requested_destination",
]

S3_DESTINATIONS = ("ExtendedS3DestinationConfiguration", "S3DestinationConfiguration")
_NOT_SUPPORTED = ("KinesisStreamSourceConfiguration", "MSKSourceConfiguration", "DatabaseSourceConfiguration")


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
    keys: tuple[tuple[str, str], ...] | None = None
    """Namespaces and names of the partition keys; None without dynamic partitioning."""
    chain: Chain = field(default_factory=Chain)
    """Processors that leave records as they are, in order."""
    makers: tuple[Maker, ...] = ()
    """Processors before them that make other records, in order."""
    function: LambdaTransform | None = None
    """The Lambda function between the two."""
    conversion: Conversion | None = None
    """What records become in their objects, by the chain's last step; None where they stay as they are."""
    backup: Destination | None = None
    """Where source records are written too."""

    def gathering(self) -> Gathering | None:
        """Make what gathers records for the processors that make others; None where nothing is to be gathered."""
        if self.function is not None:
            return Gathering(self.makers, self.function.size_bytes, self.function.interval_ms)
        return Gathering(self.makers) if self.makers or self.backup is not None else None


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
    schema: TableSchema | None = None
    """Of the table that its records are converted by, as it was read last; None if they aren't."""


def requested_destination(request: dict[str, Any]) -> dict[str, Any]:
    """Find the S3 destination of a CreateDeliveryStream request.

    Raises:
        DefinitionError: none or several, or something this server doesn't do.
    """
    kind = request.get("DeliveryStreamType") or "DirectPut"
    if kind != "DirectPut":
        raise unsupported(f"DeliveryStreamType: got {kind}, this server supports: DirectPut")
    name = only_destination(
        *(request, "Configuration", S3_DESTINATIONS),
        needed="Exactly one destination configuration is supported for a Firehose, got {}",
    )
    for other in _NOT_SUPPORTED:
        if request.get(other) is not None:
            raise unsupported(f"{other}: this server doesn't support it")
    destination: dict[str, Any] = request[name]
    return destination


def only_destination(request: dict[str, Any], ending: str, allowed: tuple[str, ...], *, needed: str) -> str:
    """Find the name of the one destination of a request.

    Args:
        request: the request.
        ending: what is behind `Destination` in the names of all destinations.
        allowed: those that this server has.
        needed: what is said where there isn't one, with a place for how many there are.

    Raises:
        DefinitionError: another destination, none, or several.
    """
    given = _given_destinations(request, ending)
    foreign = [name for name in given if name not in allowed]
    if foreign:
        raise unsupported(f"{foreign[0]}: this server supports: {', '.join(allowed)}")
    if len(given) != 1:
        raise invalid(needed.format(len(given)))
    return given[0]


def parse_destination(request: dict[str, Any]) -> Destination:
    """Check the destination of a CreateDeliveryStream request and turn it into types.

    Raises:
        ServiceError: InvalidArgumentException that says what was given and what is allowed.
    """
    given = requested_destination(request)
    refuse(conversion_problems(given))
    prefix = _prefix(given, "Prefix")
    error_prefix = _prefix(given, "ErrorOutputPrefix")
    found: dict[str, Processor] = {}
    refuse(read_processors(given.get("ProcessingConfiguration") or {}, found))
    extraction, function = extraction_of(found), function_of(found)
    refuse(prefix_problems(given, prefix, error_prefix))
    refuse(key_problems(given, prefix, extraction, has_function=function is not None))
    return replace(
        _written_as(given, prefix, error_prefix),
        keys=_keys(prefix, extraction) if is_partitioned(given) else None,
        chain=_chain(prefix, extraction, found.get("AppendDelimiterToRecord")),
        makers=makers_of(found),
        function=function,
        backup=_backup(given),
    )


def _written_as(given: dict[str, Any], prefix: Prefix, error_prefix: Prefix) -> Destination:
    size_bytes, interval_ms = read_hints(given)
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
    )


def _keys(prefix: Prefix, extraction: ExtractKeys | None) -> tuple[tuple[str, str], ...]:
    by_query = () if extraction is None else query_keys(prefix, extraction)
    return (
        *((FROM_LAMBDA, name) for name in sorted(prefix.keys(FROM_LAMBDA))),
        *((FROM_QUERY, name) for name in by_query),
    )


def _chain(prefix: Prefix, extraction: ExtractKeys | None, delimiter: Processor | None) -> Chain:
    steps: list[Step] = []
    if names := prefix.keys(FROM_LAMBDA):
        steps.append(LambdaKeys(tuple(sorted(names))))
    if extraction is not None:
        steps.append(extraction.using(query_keys(prefix, extraction)))
    if isinstance(delimiter, AppendDelimiter):
        steps.append(delimiter)
    return Chain(tuple(steps))


def _backup(given: dict[str, Any]) -> Destination | None:
    if given.get("S3BackupMode") != "Enabled":
        return None
    backup = given.get("S3BackupConfiguration")
    if not backup:
        raise invalid("S3BackupConfiguration is needed when S3BackupMode is Enabled", "S3BackupConfiguration")
    place = "S3BackupConfiguration"
    prefix = _prefix(backup, "Prefix", place)
    error_prefix = _prefix(backup, "ErrorOutputPrefix", place)
    refuse(one.at(place) for one in prefix_problems(backup, prefix, error_prefix))
    for namespace in (FROM_QUERY, FROM_LAMBDA):
        if prefix.keys(namespace):
            raise invalid(f"Prefix: {namespace}: the backup has no partition keys", place, "Prefix")
    try:
        return _written_as(backup, prefix, error_prefix)
    except DefinitionError as error:
        raise error.at(place) from None


def problems(request: dict[str, Any]) -> list[DefinitionError]:
    """List all that `parse_destination` would refuse, of a request whose members are of the right types.

    A check that reads what another one refused is left out. `where` is from the request down.
    """
    found = list(_request_problems(request))
    for name in _given_destinations(request):
        if name in S3_DESTINATIONS:
            for one in _destination_problems(request[name]):
                placed = one.at(name)
                # two rules may ask for the same member
                told = [(other.where, other.remedy) for other in found]
                if one.remedy is None or (placed.where, placed.remedy) not in told:
                    found.append(placed)
    return found


def _given_destinations(request: dict[str, Any], ending: str = "Configuration") -> list[str]:
    return [name for name in request if name.endswith(f"Destination{ending}") and request[name] is not None]


def _request_problems(request: dict[str, Any]) -> Iterator[DefinitionError]:
    # each part by itself, so that one that is refused doesn't hide the next
    destinations = {name: request[name] for name in _given_destinations(request)}
    others = {name: value for name, value in request.items() if name not in destinations}
    yield from tried(lambda: requested_destination(destinations))
    if request.get(INPUT) is not None:
        yield from tried(lambda: check_input(request[INPUT]))
    for name, value in others.items():
        part = {name: value, S3_DESTINATIONS[0]: {}}
        yield from tried(lambda part=part: requested_destination(part), name)  # type: ignore[misc]  # bound at once


def _destination_problems(given: dict[str, Any]) -> Iterator[DefinitionError]:
    yield from conversion_problems(given)
    prefix = yield from tried(lambda: _prefix(given, "Prefix"))
    error_prefix = yield from tried(lambda: _prefix(given, "ErrorOutputPrefix"))
    found: dict[str, Processor] = {}
    broken = list(read_processors(given.get("ProcessingConfiguration") or {}, found))
    yield from broken
    if prefix is not None and error_prefix is not None:
        yield from prefix_problems(given, prefix, error_prefix)
    if prefix is not None and not broken:
        yield from key_problems(given, prefix, extraction_of(found), has_function=function_of(found) is not None)
    yield from tried(lambda: read_hints(given))
    yield from tried(lambda: _zone(given.get("CustomTimeZone")))
    yield from tried(lambda: _backup(given))


def _prefix(given: dict[str, Any], name: str, *place: str) -> Prefix:
    try:
        return parse_prefix(given.get(name) or "")
    except PrefixError as error:
        raise invalid(f"{name}: {error}", *place, name) from None


def _zone(name: str | None) -> tzinfo:
    if not name or name == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        message = f"CustomTimeZone: got {name}, a name of the tz database is needed, as in Europe/Berlin"
        raise invalid(message, "CustomTimeZone") from None
