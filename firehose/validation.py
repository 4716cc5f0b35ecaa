"""Owns the check of a request against botocore's model of the service, worded as AWS words it.

The model (required members, types, enums, patterns, lengths, ranges) is the one boto3 ships, so what an AWS client can
say and what this server takes are the same by construction. Members the model doesn't know are ignored, as by AWS.
"""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

import botocore.session
from botocore.model import ListShape, MapShape, Shape, StructureShape

from lake.aws_json import ServiceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from botocore.model import ServiceModel

__all__ = ["service_model", "validate"]

_NUMBERS = {"integer", "long", "float", "double", "timestamp"}
_TYPES: dict[str, tuple[type, ...]] = {
    "structure": (dict,),
    "map": (dict,),
    "list": (list,),
    "string": (str,),
    "character": (str,),
    "blob": (str,),
    "boolean": (bool,),
    "integer": (int,),
    "long": (int,),
    "float": (int, float),
    "double": (int, float),
    "timestamp": (int, float),
}


@cache
def service_model(service: str) -> ServiceModel:
    """Load botocore's model of a service, for example `firehose` or `service-quotas`."""
    return botocore.session.Session().get_service_model(service)


def validate(service: str, operation: str, request: dict[str, Any]) -> None:
    """Check a request, already parsed from JSON, against the operation's input shape.

    Raises:
        ServiceError: SerializationException for a value of a wrong type; ValidationException that lists every
            constraint that isn't met, in AWS's words.
    """
    shape = service_model(service).operation_model(operation).input_shape
    if shape is None:
        return
    problems = list(_problems(shape, request, ""))
    if problems:
        many = "error" if len(problems) == 1 else "errors"
        text = f"{len(problems)} validation {many} detected: {'; '.join(problems)}"
        raise ServiceError("ValidationException", text)


def _problems(shape: Shape, value: Any, path: str) -> Iterator[str]:
    _require_type(shape, value, path)
    if isinstance(shape, StructureShape):
        yield from _members(shape, value, path)
    elif isinstance(shape, ListShape):
        yield from _length(shape, value, path)
        for index, item in enumerate(value, start=1):
            yield from _problems(shape.member, item, f"{path}.{index}.member")
    elif isinstance(shape, MapShape):
        for key, item in value.items():
            yield from _problems(shape.value, item, f"{path}.{key}")
    elif shape.type_name in {"string", "character"}:
        yield from _text(shape, value, path)
    elif shape.type_name in _NUMBERS:
        yield from _range(shape, value, path)


def _members(shape: StructureShape, value: dict[str, Any], path: str) -> Iterator[str]:
    for name in shape.required_members:
        if value.get(name) is None:
            yield f"Value null at '{_join(path, name)}' failed to satisfy constraint: Member must not be null"
    for name, member in shape.members.items():
        if value.get(name) is not None:
            yield from _problems(member, value[name], _join(path, name))


def _require_type(shape: Shape, value: Any, path: str) -> None:
    allowed = _TYPES[shape.type_name]
    if not isinstance(value, allowed) or (isinstance(value, bool) and bool not in allowed):
        where = path or "the request"
        raise ServiceError("SerializationException", f"{where}: got {value!r}, a {shape.type_name} is needed")


def _text(shape: Shape, value: str, path: str) -> Iterator[str]:
    said = f"Value '{value}' at '{path}' failed to satisfy constraint: Member must satisfy"
    if shape.enum and value not in shape.enum:  # type: ignore[attr-defined]  # set by StringShape
        yield f"{said} enum value set: [{', '.join(shape.enum)}]"  # type: ignore[attr-defined]
    pattern = shape.metadata.get("pattern")
    if pattern and not _pattern(pattern).fullmatch(value):
        yield f"{said} regular expression pattern: {pattern}"
    yield from _length(shape, value, path)


def _length(shape: Shape, value: Any, path: str) -> Iterator[str]:
    said = f"Value '{value}' at '{path}' failed to satisfy constraint: Member must have length"
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if most is not None and len(value) > most:
        yield f"{said} less than or equal to {most}"
    if least is not None and len(value) < least:
        yield f"{said} greater than or equal to {least}"


def _range(shape: Shape, value: float, path: str) -> Iterator[str]:
    said = f"Value '{value}' at '{path}' failed to satisfy constraint: Member must have value"
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if most is not None and value > most:
        yield f"{said} less than or equal to {most}"
    if least is not None and value < least:
        yield f"{said} greater than or equal to {least}"


@cache
def _pattern(pattern: str) -> re.Pattern[str]:
    # Java's classes, as tags have them, in Python's spelling; the underscore in \w is one that those patterns allow
    for java, python in (("\\p{L}", r"\w"), ("\\p{N}", r"\d"), ("\\p{Z}", r"\s")):
        pattern = pattern.replace(java, python)
    return re.compile(pattern)


def _join(path: str, name: str) -> str:
    # AWS names members by their Java properties
    lowered = name[0].lower() + name[1:]
    return f"{path}.{lowered}" if path else lowered
