"""Owns destinations with their conversion: what `parse_destination` makes of a request, completed by a table."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from firehose.conversion import ConvertFormat
from firehose.conversion_config import conversion_of, converts
from firehose.objects import Compression
from firehose.processing import Chain
from firehose.streams import Destination, parse_destination, requested_destination

if TYPE_CHECKING:
    from firehose.conversion import TableSchema

__all__ = ["CONVERTED_ENCODING", "destination_of"]

CONVERTED_ENCODING = Compression.HADOOP_SNAPPY
"""What S3 is told of a converted file. The service labels Parquet files `hadoop-snappy`, although they are plain ones
(floci's authors saw it); that it does so with ORC is taken from its saying that a conversion compresses that way."""


def destination_of(request: dict[str, Any], schema: TableSchema | None) -> Destination:
    """Check a CreateDeliveryStream request's destination and turn it into types, with the conversion, if it has one.

    Args:
        request: the request; its members are of the right types.
        schema: of the table that it converts by; None where none was read: then nothing is converted, and the rest is
            as it would be.

    Raises:
        ServiceError: InvalidArgumentException that says what was given and what is allowed.
    """
    destination = parse_destination(request)
    given = requested_destination(request)
    if not converts(given):
        return destination
    is_orc = given["DataFormatConversionConfiguration"]["OutputFormatConfiguration"]["Serializer"].get("OrcSerDe")
    made = replace(
        destination,
        compression=CONVERTED_ENCODING,
        extension=given.get("FileExtension") or (".parquet" if is_orc is None else ".orc"),
    )
    if schema is None:
        return made
    conversion = conversion_of(given, schema)
    return replace(made, chain=Chain((*made.chain.steps, ConvertFormat(conversion))), conversion=conversion)
