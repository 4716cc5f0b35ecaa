"""Owns the rules of prefixes and of dynamic partitioning: what each needs beside it, and what would do.

Source: https://docs.aws.amazon.com/firehose/latest/dev/dynamic-partitioning.html and
https://docs.aws.amazon.com/firehose/latest/dev/s3-prefixes.html
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from firehose.definition_error import DefinitionError, invalid
from firehose.prefixes import FROM_LAMBDA, FROM_QUERY
from firehose.processors import JSON_ENGINE

if TYPE_CHECKING:
    from collections.abc import Iterator

    from firehose.extraction import ExtractKeys
    from firehose.prefixes import Prefix

__all__ = ["ERROR_PREFIX", "is_partitioned", "key_problems", "prefix_problems", "query_keys"]

ERROR_PREFIX = "errors/!{firehose:error-output-type}/"
"""An ErrorOutputPrefix that will do where there is none."""
_REMEDY = {"ErrorOutputPrefix": ERROR_PREFIX}
_MAX_KEYS = 50


def is_partitioned(destination: dict[str, Any]) -> bool:
    """Tell whether an S3 destination, as requests and descriptions have it, has dynamic partitioning."""
    return bool((destination.get("DynamicPartitioningConfiguration") or {}).get("Enabled"))


def prefix_problems(given: dict[str, Any], prefix: Prefix, error_prefix: Prefix) -> Iterator[DefinitionError]:
    """Find what is wrong with an S3 destination's prefixes, by themselves and beside each other."""
    if prefix.has("firehose", "error-output-type"):
        yield invalid("Prefix: !{firehose:error-output-type} is only allowed in ErrorOutputPrefix", "Prefix")
    if error_prefix.keys(FROM_QUERY) or error_prefix.keys(FROM_LAMBDA):
        yield invalid(
            "Dynamic Partitioning Namespaces can't be part of an error prefix expression",
            "ErrorOutputPrefix",
            remedy=_REMEDY,
        )
    if error_prefix.has_expressions and not error_prefix.has("firehose", "error-output-type"):
        yield invalid(
            "ErrorOutputPrefix: an expression needs !{firehose:error-output-type} beside it",
            "ErrorOutputPrefix",
            remedy={"ErrorOutputPrefix": f"{error_prefix.text}!{{firehose:error-output-type}}/"},
        )
    if prefix.has_expressions and not given.get("ErrorOutputPrefix"):
        yield invalid(
            "ErrorOutputPrefix is needed when Prefix contains expressions", "ErrorOutputPrefix", remedy=_REMEDY
        )


def key_problems(
    given: dict[str, Any], prefix: Prefix, extraction: ExtractKeys | None, *, has_function: bool
) -> Iterator[DefinitionError]:
    """Find what dynamic partitioning lacks or has too much of: the switch, prefixes, a source of keys, the keys.

    Args:
        given: the destination.
        prefix: its Prefix.
        extraction: its MetadataExtraction, if it has one.
        has_function: whether it has a Lambda processor.
    """
    if not is_partitioned(given):
        switch = {"DynamicPartitioningConfiguration": {"Enabled": True}}
        for namespace in (FROM_QUERY, FROM_LAMBDA):
            if prefix.keys(namespace):
                yield invalid(
                    f"Prefix: {namespace} needs DynamicPartitioningConfiguration to be enabled",
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
    yield from _missing(given, prefix, extraction, has_function=has_function)
    if prefix.keys(FROM_LAMBDA) and not has_function:
        yield invalid("Prefix: partitionKeyFromLambda needs a Lambda processor", "ProcessingConfiguration")
    # where the query's text doesn't show its keys, a key that is missing is found at each record
    known = None if extraction is None else extraction.known_keys
    if known is None:
        return
    if len(known) > _MAX_KEYS:
        yield invalid(
            f"MetadataExtractionQuery makes {len(known)} partition keys, at most {_MAX_KEYS} are allowed",
            "ProcessingConfiguration",
        )
    used = prefix.keys(FROM_QUERY)
    for key in sorted(used - set(known)):
        made = ", ".join(known)
        yield invalid(f"Prefix: partition key {key} is not made by MetadataExtractionQuery: {made}", "Prefix")
    for key in sorted(set(known) - used) if used else ():
        yield invalid(f"MetadataExtractionQuery: partition key {key} is not used in Prefix", "ProcessingConfiguration")


def _missing(
    given: dict[str, Any], prefix: Prefix, extraction: ExtractKeys | None, *, has_function: bool
) -> Iterator[DefinitionError]:
    # what dynamic partitioning can't be without
    used = prefix.keys(FROM_QUERY)
    keys = sorted(used) or list((extraction and extraction.known_keys) or ["tenant"])
    wanted = {"Prefix": "".join(f"{key}=!{{partitionKeyFromQuery:{key}}}/" for key in keys)}
    if not given.get("Prefix"):
        yield invalid("Prefix is needed when dynamic partitioning is enabled", "Prefix", remedy=wanted)
    if not given.get("ErrorOutputPrefix"):
        yield invalid(
            "ErrorOutputPrefix is needed when dynamic partitioning is enabled",
            "ErrorOutputPrefix",
            remedy=_REMEDY,
        )
    if extraction is None and (used or not has_function):
        yield invalid(
            "Dynamic partitioning needs a MetadataExtraction processor to take partition keys from",
            "ProcessingConfiguration",
            remedy=_processing(keys),
        )
    if given.get("Prefix") and not used and not prefix.keys(FROM_LAMBDA):
        yield invalid(
            "Prefix: dynamic partitioning needs an expression !{partitionKeyFromQuery:key}",
            "Prefix",
            remedy={"Prefix": f"{prefix.text.removesuffix('/')}/{wanted['Prefix']}"},
        )


def _processing(keys: list[str]) -> dict[str, Any]:
    query = ", ".join(f"{key}: .{key}" for key in keys)
    parameters = {"MetadataExtractionQuery": f"{{{query}}}", "JsonParsingEngine": JSON_ENGINE}
    given = [{"ParameterName": name, "ParameterValue": value} for name, value in parameters.items()]
    processors = [
        {"Type": "MetadataExtraction", "Parameters": given},
        {"Type": "AppendDelimiterToRecord", "Parameters": [{"ParameterName": "Delimiter", "ParameterValue": "\\n"}]},
    ]
    return {"ProcessingConfiguration": {"Enabled": True, "Processors": processors}}


def query_keys(prefix: Prefix, extraction: ExtractKeys) -> tuple[str, ...]:
    """Names of the partition keys that records get by a query, in order."""
    known = extraction.known_keys
    return tuple(sorted(prefix.keys(FROM_QUERY))) if known is None else known
