"""Owns reading a ProcessingConfiguration: its processors checked, and turned into steps.

Source: https://docs.aws.amazon.com/firehose/latest/APIReference/API_Processor.html
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from firehose.definition_error import DefinitionError, invalid, tried, unsupported
from firehose.extraction import ExtractKeys, QueryError, compile_query
from firehose.lambda_transform import LambdaTransform
from firehose.makers import maker_of
from firehose.processing import ORDER, AppendDelimiter, Step
from firehose.records import Maker

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["JSON_ENGINE", "Processor", "extraction_of", "function_of", "makers_of", "read_processors"]

JSON_ENGINE = "JQ-1.6"
"""The only value of JsonParsingEngine."""
_MAKERS = ("Decompression", "CloudWatchLogProcessing", "RecordDeAggregation")
Processor = Step | Maker | LambdaTransform
# The service's default where AppendDelimiterToRecord has no Delimiter isn't documented; a newline is what it's for.
_DEFAULT_DELIMITER = "\\n"
_ESCAPES = {"\\n": "\n", "\\t": "\t", "\\r": "\r", "\\\\": "\\"}


def read_processors(configuration: dict[str, Any], found: dict[str, Processor]) -> Iterator[DefinitionError]:
    """Put the processors that make sense into `found`, by their type; yields what is wrong with the others."""
    if not configuration.get("Enabled"):
        return
    for index, processor in enumerate(configuration.get("Processors") or []):
        kind = processor["Type"]
        where = ("ProcessingConfiguration", "Processors", index)
        if kind not in ORDER:
            yield unsupported(f"Processor type: got {kind}, this server supports: {', '.join(ORDER)}", *where)
        elif kind in found:
            yield invalid(f"Processor type {kind} is there twice", *where)
        else:
            parameters = {one["ParameterName"]: one["ParameterValue"] for one in processor.get("Parameters") or []}
            one = yield from tried(partial(_processor, kind, parameters), *where)
            if one is not None:
                found[kind] = one


def extraction_of(found: Mapping[str, Processor]) -> ExtractKeys | None:
    """Find MetadataExtraction among processors."""
    one = found.get("MetadataExtraction")
    return one if isinstance(one, ExtractKeys) else None


def function_of(found: Mapping[str, Processor]) -> LambdaTransform | None:
    """Find the function among processors."""
    one = found.get("Lambda")
    return one if isinstance(one, LambdaTransform) else None


def makers_of(found: Mapping[str, Processor]) -> tuple[Maker, ...]:
    """Find those that make other records by themselves, in the order in which the service applies them."""
    return tuple(found[kind] for kind in ORDER if kind in found and kind in _MAKERS)  # type: ignore[misc]  # as made


def _processor(kind: str, parameters: dict[str, str]) -> Processor:
    if kind == "MetadataExtraction":
        return _extraction(parameters)
    if kind == "AppendDelimiterToRecord":
        _only(kind, parameters, ("Delimiter",))
        return AppendDelimiter(_unescape(parameters.get("Delimiter", _DEFAULT_DELIMITER)))
    return maker_of(kind, parameters)


def _extraction(parameters: dict[str, str]) -> ExtractKeys:
    _only("MetadataExtraction", parameters, ("MetadataExtractionQuery", "JsonParsingEngine"))
    engine = parameters.get("JsonParsingEngine")
    if engine != JSON_ENGINE:
        raise invalid(f"MetadataExtraction: JsonParsingEngine: got {engine}, allowed is {JSON_ENGINE}")
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
