"""Owns the checks of DataFormatConversionConfiguration, and the conversion that it makes together with a table.

Messages, and which of them comes first, are the service's, as floci's authors saw them.
Source: https://docs.aws.amazon.com/firehose/latest/APIReference/API_DataFormatConversionConfiguration.html and
https://github.com/floci-io/floci/pull/3236
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from firehose.columnar import bloom_columns
from firehose.conversion import Conversion, TableSchema, serde_of
from firehose.definition_error import DefinitionError, invalid
from firehose.hive_types import HiveTypeError, parse_hive_type
from firehose.java_time import PatternError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["CONVERTED_SIZE_MB", "conversion_of", "conversion_problems", "converts"]

CONVERTED_SIZE_MB = 128
"""SizeInMBs of a stream that converts and has none."""
_LEAST_SIZE_MB = 64
_MEMBER = "DataFormatConversionConfiguration"
_SERDES = {
    "InputFormatConfiguration": ("Deserializer", ("OpenXJsonSerDe", "HiveJsonSerDe")),
    "OutputFormatConfiguration": ("Serializer", ("ParquetSerDe", "OrcSerDe")),
}
_NEEDED = {"RoleARN": "RoleArn", "DatabaseName": "DatabaseName", "TableName": "TableName"}
"""What a schema needs, and how the service's messages spell it."""


def converts(given: dict[str, Any]) -> bool:
    """Tell whether a destination converts: without `Enabled` it does."""
    configuration = given.get(_MEMBER)
    return configuration is not None and configuration.get("Enabled") is not False


def conversion_problems(given: dict[str, Any]) -> Iterator[DefinitionError]:
    """List what makes no sense in a destination's conversion, but for its table."""
    if not converts(given):
        return
    yield from _beside(given)
    configuration = given[_MEMBER]
    for name in (*_SERDES, "SchemaConfiguration"):
        if configuration.get(name) is None:
            yield invalid(f"{name} must not be null", _MEMBER)
    for name, (part, kinds) in _SERDES.items():
        if configuration.get(name) is not None:
            yield from _serde_problems(configuration[name].get(part) or {}, part, kinds, (_MEMBER, name))
    schema = configuration.get("SchemaConfiguration")
    for member, told in _NEEDED.items() if schema is not None else ():
        if not schema.get(member):
            yield invalid(f"SchemaConfiguration.{told} must not be null or empty", _MEMBER, "SchemaConfiguration")


def _beside(given: dict[str, Any]) -> Iterator[DefinitionError]:
    # the destination's other members
    if given.get("CompressionFormat") not in {None, "UNCOMPRESSED"}:
        yield invalid(
            "The S3 destination's compression format must be set to UNCOMPRESSED when data format conversion is"
            " enabled. To enable compression within the converted output format, set the appropriate serialization"
            " option in the output format configuration.",
            "CompressionFormat",
            remedy={"CompressionFormat": "UNCOMPRESSED"},
        )
    hints = given.get("BufferingHints") or {}
    if (hints.get("SizeInMBs") or CONVERTED_SIZE_MB) < _LEAST_SIZE_MB:
        yield invalid(
            f"BufferingHints.SizeInMBs must be at least {_LEAST_SIZE_MB} when data format conversion is enabled.",
            *("BufferingHints", "SizeInMBs"),
            remedy={"BufferingHints": {**hints, "SizeInMBs": CONVERTED_SIZE_MB}},
        )


def _serde_problems(
    found: dict[str, Any], part: str, kinds: tuple[str, str], where: tuple[str, ...]
) -> Iterator[DefinitionError]:
    given = [kind for kind in kinds if found.get(kind) is not None]
    if not given:
        yield invalid(f"{part} must not be null", *where)
    elif len(given) > 1:
        yield invalid(f"More than one {part.lower()} specified. Only one may be chosen.", *where, part)
    elif part == "Deserializer":
        try:
            serde_of(found)
        except PatternError as error:
            yield invalid(f"Invalid deserializer option(s): {error}", *where, part)
    else:
        chance = found[given[0]].get("BloomFilterFalsePositiveProbability")
        if chance is not None and not 0 < chance < 1:
            yield invalid(
                f"Invalid serializer option(s): BloomFilterFalsePositiveProbability: got {chance},"
                " a number between 0 and 1, and neither of them, is needed",
                *(*where, part),
            )


def conversion_of(given: dict[str, Any], schema: TableSchema) -> Conversion:
    """Make the conversion of a destination that has no problems.

    Raises:
        DefinitionError: the table has columns that can't be written, or lacks one that the serializer is told of.
    """
    configuration = given[_MEMBER]
    place = (_MEMBER, "SchemaConfiguration")
    told = ".".join(configuration["SchemaConfiguration"][name] for name in ("DatabaseName", "TableName"))
    if not schema.columns:
        raise invalid(f"SchemaConfiguration: table {told} has no columns", *place)
    names = [name.lower() for name, _ in schema.columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise invalid(f"SchemaConfiguration: table {told}: column {twice[0]} is there twice", *place)
    types = []
    for name, hive in schema.columns:
        try:
            types.append((name, parse_hive_type(hive)))
        except HiveTypeError as error:
            raise invalid(f"SchemaConfiguration: table {told}: column {name}: {error}", *place) from None
    made = Conversion(
        schema.columns,
        configuration["InputFormatConfiguration"]["Deserializer"],
        configuration["OutputFormatConfiguration"]["Serializer"],
        schema.table,
    )
    try:
        bloom_columns(types, made.options.get("BloomFilterColumns") or [])
    except KeyError as error:
        raise invalid(
            f"Invalid serializer option(s): BloomFilterColumns: got {error.args[0]},"
            f" table {told} has: {', '.join(name for name, _ in types)}",
            *(_MEMBER, "OutputFormatConfiguration", "Serializer"),
        ) from None
    return made
