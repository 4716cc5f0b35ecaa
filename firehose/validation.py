"""Owns the check of a request against botocore's model of the service, worded as AWS words it.

The model (required members, types, enums, patterns, lengths, ranges) is the one boto3 ships, so what an AWS client can
say and what this server takes are the same by construction. Members the model doesn't know are ignored, as by AWS.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import botocore.session
from botocore.model import ListShape, MapShape, Shape, StructureShape

from lake.aws_json import ServiceError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from botocore.model import ServiceModel

__all__ = ["Violation", "Where", "input_shape", "path_text", "service_model", "validate", "violations"]

Where = tuple[str | int, ...]
"""A member, from the request down, as requests name it; places in lists are from 0."""

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


@dataclass(frozen=True, slots=True)
class Violation:
    """A constraint of the model that a request doesn't meet."""

    where: Where
    path: str
    """The same as AWS writes it, as in `tags.1.member.key`."""
    given: Any
    needed: str
    """What is allowed, as AWS words it: `Member must have value less than or equal to 128`."""
    mistyped: bool = False
    """The value is of a wrong type; what is in it is not looked at."""

    def __str__(self) -> str:
        """Say it in AWS's words."""
        try:
            given = repr(self.given) if self.mistyped else f"'{self.given}'"
        except RecursionError:
            given = "what is nested too deep to be shown"
        if self.mistyped:
            return f"{self.path or 'the request'}: got {given}, {self.needed}"
        given = "null" if self.given is None else given
        return f"Value {given} at '{self.path}' failed to satisfy constraint: {self.needed}"


@dataclass(frozen=True, slots=True)
class _Place:
    where: Where = ()
    path: str = ""

    def member(self, name: str) -> _Place:
        # AWS names members by their Java properties
        lowered = name[0].lower() + name[1:]
        return _Place((*self.where, name), f"{self.path}.{lowered}" if self.path else lowered)

    def item(self, index: int) -> _Place:
        return _Place((*self.where, index), f"{self.path}.{index + 1}.member")

    def entry(self, key: str) -> _Place:
        return _Place((*self.where, key), f"{self.path}.{key}")

    def unmet(self, given: Any, needed: str) -> Violation:
        return Violation(self.where, self.path, given, f"Member must {needed}")


def validate(service: str, operation: str, request: dict[str, Any]) -> None:
    """Check a request, already parsed from JSON, against the operation's input shape.

    Raises:
        ServiceError: SerializationException for a value of a wrong type; ValidationException that lists every
            constraint that isn't met, in AWS's words.
    """
    found = violations(service, operation, request)
    for one in found:
        if one.mistyped:
            raise ServiceError("SerializationException", str(one))
    if found:
        many = "error" if len(found) == 1 else "errors"
        text = f"{len(found)} validation {many} detected: {'; '.join(map(str, found))}"
        raise ServiceError("ValidationException", text)


def violations(service: str, operation: str, request: dict[str, Any]) -> list[Violation]:
    """List every constraint of the operation's input shape that a request, parsed from JSON, doesn't meet."""
    return list(_violations(input_shape(service, operation), request, _Place()))


def input_shape(service: str, operation: str) -> StructureShape:
    """Shape of an operation's request, as botocore's model has it."""
    shape = service_model(service).operation_model(operation).input_shape
    if shape is None:  # none of the services here has such an operation
        raise LookupError(f"{service}: {operation} takes nothing")
    return shape


def path_text(where: Where) -> str:
    """Write a place as a path: `Tags[0].Key`.

    >>> path_text(("Tags", 0, "Key"))
    'Tags[0].Key'
    """
    made = ""
    for step in where:
        made += f"[{step}]" if isinstance(step, int) else f".{step}" if made else str(step)
    return made


def _violations(shape: Shape, value: Any, place: _Place) -> Iterator[Violation]:
    if not _fits(shape, value):
        yield Violation(place.where, place.path, value, f"a {shape.type_name} is needed", mistyped=True)
    elif isinstance(shape, StructureShape):
        yield from _members(shape, value, place)
    elif isinstance(shape, ListShape):
        yield from _length(shape, value, place)
        for index, item in enumerate(value):
            yield from _violations(shape.member, item, place.item(index))
    elif isinstance(shape, MapShape):
        for key, item in value.items():
            yield from _violations(shape.value, item, place.entry(key))
    elif shape.type_name in {"string", "character"}:
        yield from _text(shape, value, place)
    elif shape.type_name in _NUMBERS:
        yield from _range(shape, value, place)


def _fits(shape: Shape, value: Any) -> bool:
    allowed = _TYPES[shape.type_name]
    return isinstance(value, allowed) and (bool in allowed or not isinstance(value, bool))


def _members(shape: StructureShape, value: dict[str, Any], place: _Place) -> Iterator[Violation]:
    for name in shape.required_members:
        if value.get(name) is None:
            yield place.member(name).unmet(None, "not be null")
    for name, member in shape.members.items():
        if value.get(name) is not None:
            yield from _violations(member, value[name], place.member(name))


def _text(shape: Shape, value: str, place: _Place) -> Iterator[Violation]:
    if shape.enum and value not in shape.enum:  # type: ignore[attr-defined]  # set by StringShape
        yield place.unmet(value, f"satisfy enum value set: [{', '.join(shape.enum)}]")  # type: ignore[attr-defined]
    pattern, most = shape.metadata.get("pattern"), shape.metadata.get("max")
    # some of the model's patterns take quadratic time
    if pattern and (most is None or len(value) <= most) and not _pattern(pattern).fullmatch(value):
        yield place.unmet(value, f"satisfy regular expression pattern: {pattern}")
    yield from _length(shape, value, place)


def _length(shape: Shape, value: Any, place: _Place) -> Iterator[Violation]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if most is not None and len(value) > most:
        yield place.unmet(value, f"have length less than or equal to {most}")
    if least is not None and len(value) < least:
        yield place.unmet(value, f"have length greater than or equal to {least}")


def _range(shape: Shape, value: float, place: _Place) -> Iterator[Violation]:
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    if most is not None and value > most:
        yield place.unmet(value, f"have value less than or equal to {most}")
    if least is not None and value < least:
        yield place.unmet(value, f"have value greater than or equal to {least}")


@cache
def _pattern(pattern: str) -> re.Pattern[str]:
    # Java's classes, as tags have them, in Python's spelling; the underscore in \w is one that those patterns allow
    for java, python in (("\\p{L}", r"\w"), ("\\p{N}", r"\d"), ("\\p{Z}", r"\s")):
        pattern = pattern.replace(java, python)
    return re.compile(pattern)
