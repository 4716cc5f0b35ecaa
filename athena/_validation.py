"""Owns the check of requests against the model of Athena's API that botocore carries."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

import botocore.session

from athena.wire import invalid_request
from lake.aws_json import ServiceError

if TYPE_CHECKING:
    from botocore.model import ServiceModel, Shape

__all__ = ["validate"]

_PYTHON_TYPES: dict[str, type | tuple[type, ...]] = {
    "structure": dict,
    "map": dict,
    "list": list,
    "string": str,
    "integer": int,
    "long": int,
    "boolean": bool,
    "double": (int, float),
}


@cache
def _model() -> ServiceModel:
    session = botocore.session.get_session()
    return session.get_service_model("athena")


def validate(operation: str, request: dict[str, Any]) -> None:
    """Check types, required members, lengths, ranges, patterns and enums of a request; unknown members pass, as on AWS.

    Raises:
        ServiceError: UnknownOperationException, or InvalidRequestException that names every problem.
    """
    if operation not in _model().operation_names:
        raise ServiceError("UnknownOperationException", f"Athena has no operation {operation!r}")
    shape = _model().operation_model(operation).input_shape
    problems: list[str] = []
    if shape is not None:
        _check(shape, request, "", problems)
    if problems:
        count = f"{len(problems)} validation error{'s' if len(problems) > 1 else ''} detected: "
        raise invalid_request(count + "; ".join(problems))


def _check(shape: Shape, value: Any, place: str, problems: list[str]) -> None:
    wanted = _PYTHON_TYPES.get(shape.type_name)
    # in Python a boolean is an integer, in JSON it isn't
    if wanted and (not isinstance(value, wanted) or (wanted is int and isinstance(value, bool))):
        problems.append(
            f"Value at '{place or 'the request'}' failed to satisfy constraint: Member must be of type "
            f"{shape.type_name}"
        )
        return
    problems += [f"{_value(value)} at '{place}' failed to satisfy constraint: {one}" for one in _broken(shape, value)]
    if shape.type_name == "structure":
        members: dict[str, Shape] = getattr(shape, "members", {})
        for name in getattr(shape, "required_members", []):
            if value.get(name) is None:
                problems.append(
                    f"Value null at '{_inside(place, name)}' failed to satisfy constraint: Member must not be null"
                )
        for name, member in members.items():
            if value.get(name) is not None:
                _check(member, value[name], _inside(place, name), problems)
    elif shape.type_name == "list":
        for index, one in enumerate(value):
            _check(getattr(shape, "member"), one, f"{place}.{index + 1}.member", problems)  # noqa: B009 - untyped


def _broken(shape: Shape, value: Any) -> list[str]:
    """Sentences on the constraints that a value of the right type breaks."""
    least, most = shape.metadata.get("min"), shape.metadata.get("max")
    found: list[str] = []
    if shape.type_name in {"string", "list"}:
        if least is not None and len(value) < least:
            found.append(f"Member must have length greater than or equal to {least}")
        if most is not None and len(value) > most:
            found.append(f"Member must have length less than or equal to {most}")
    elif shape.type_name in {"integer", "long"}:
        if least is not None and value < least:
            found.append(f"Member must have value greater than or equal to {least}")
        if most is not None and value > most:
            found.append(f"Member must have value less than or equal to {most}")
    pattern = shape.metadata.get("pattern")
    if pattern is not None and shape.type_name == "string" and not _matches(pattern, value):
        found.append(f"Member must satisfy regular expression pattern: {pattern}")
    enum = getattr(shape, "enum", None)
    if enum and value not in enum:
        found.append(f"Member must satisfy enum value set: [{', '.join(enum)}]")
    return found


def _matches(pattern: str, value: str) -> bool:
    try:
        return re.fullmatch(pattern, value) is not None
    except re.error:
        return True  # Java's syntax, which Python can't read


def _inside(place: str, name: str) -> str:
    member = name[0].lower() + name[1:]
    return f"{place}.{member}" if place else member


def _value(value: Any) -> str:
    return f"Value '{value}'" if isinstance(value, str | int) else "Value"
