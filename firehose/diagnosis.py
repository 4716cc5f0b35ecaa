"""Owns what is wrong with a stream's definition, in plain words: all of it, and what to do about each.

Three kinds: errors, which the service refuses; limits, which AWS takes and the server here doesn't do; and advice. The
checks are the server's own: botocore's model of the service, then the rules across members.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from botocore.model import ListShape, StructureShape

from firehose.advice import advise
from firehose.streams import S3_DESTINATIONS, problems
from firehose.validation import input_shape, path_text, violations
from lake.errors import known_values

if TYPE_CHECKING:
    from collections.abc import Iterator

    from botocore.model import Shape

    from firehose.validation import Violation, Where

__all__ = ["Finding", "Kind", "diagnose", "value_at"]

_OPERATION = "CreateDeliveryStream"
_NULL = "Member must not be null"
_ENUM = "Member must satisfy enum value set: "


class Kind(StrEnum):
    """What a finding means."""

    ERROR = "error"
    """The service refuses the definition."""
    LIMIT = "limit"
    """AWS takes it, the server here doesn't."""
    ADVICE = "advice"
    """It works, and isn't what most people want."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing about a definition."""

    kind: Kind
    where: Where
    """The member, from the request down, places in lists from 0; empty for the request as a whole."""
    message: str
    """What is wrong and what is allowed."""
    given: Any
    """What is there; None if nothing is."""
    remedy: dict[str, Any] | None = None
    """Members that would do, to be put where this one is; None if there is no one answer."""
    source: str | None = None
    """URL of what a piece of advice rests on."""

    def to_dict(self) -> dict[str, Any]:
        """Render as JSON; what isn't there is left out, but for `given`."""
        made = {"kind": self.kind.value, "where": path_text(self.where), "given": self.given, "message": self.message}
        more = {"putIn": self.remedy, "source": self.source}
        return {**made, **{name: value for name, value in more.items() if value is not None}}


def diagnose(request: dict[str, Any], filled: tuple[Where, ...] = ()) -> list[Finding]:
    """Find all that can be said against a CreateDeliveryStream request.

    Args:
        request: the request, parsed from JSON.
        filled: members that hold a stand-in, as their value is known only when the stream is made; nothing is said
            against those.
    """
    unmet = violations("firehose", _OPERATION, request)
    found = [_of_violation(one) for one in unmet]
    found += _unknown(input_shape("firehose", _OPERATION), request, ())
    # the rules across members are held to what is left when members of a wrong shape are taken out
    wrong = [one.where for one in unmet if one.mistyped or one.given is None]
    told = {one.where for one in unmet}
    rest = _without(request, wrong)
    if isinstance(rest, dict):
        found += [
            one
            for one in _across(rest, request)
            if one.where not in told and not any(_touches(one.where, place) for place in wrong)
        ]
    known = [one for one in found if not any(_touches(one.where, place) for place in filled)]
    return [_settled(one, known) for one in known if not _is_answered(one, known)]


def _across(rest: dict[str, Any], request: dict[str, Any]) -> Iterator[Finding]:
    for one in problems(rest):
        kind = Kind.LIMIT if one.is_limit else Kind.ERROR
        yield Finding(kind, one.where, str(one), value_at(request, one.where), one.remedy)
    for name in S3_DESTINATIONS:
        for advice in advise(rest[name], str(rest.get("DeliveryStreamName", ""))) if rest.get(name) else ():
            where = (name, *advice.where)
            given = value_at(request, where)
            yield Finding(Kind.ADVICE, where, advice.message, given, advice.remedy, advice.source)


def _is_answered(one: Finding, found: list[Finding]) -> bool:
    # what is to be put there for an error follows the advice too
    return one.kind is Kind.ADVICE and any(
        other.kind is Kind.ERROR and other.where == one.where and other.remedy is not None for other in found
    )


def _settled(one: Finding, found: list[Finding]) -> Finding:
    # a remedy keeps what was given, so it is none where a part of that is wrong by itself
    size = len(one.where)
    wrong_inside = any(other.kind is Kind.ERROR and len(other.where) > size == _shared(one, other) for other in found)
    return replace(one, remedy=None) if one.remedy is not None and wrong_inside else one


def _shared(one: Finding, other: Finding) -> int:
    size = min(len(one.where), len(other.where))
    return size if one.where[:size] == other.where[:size] else 0


def _of_violation(one: Violation) -> Finding:
    if one.mistyped:
        message = f"{one.needed}, not {type(one.given).__name__}"
    elif one.needed == _NULL:
        message = "It is needed"
    elif one.needed.startswith(_ENUM):
        message = known_values(one.given, one.needed.removeprefix(_ENUM).strip("[]").split(", "))
    else:
        message = f"It {one.needed.removeprefix('Member ')}"
    return Finding(Kind.ERROR, one.where, message, one.given)


def _unknown(shape: Shape, value: Any, where: Where) -> Iterator[Finding]:
    # the service ignores them, so that a slip of the pen switches off what it names; SDKs and CloudFormation refuse
    if isinstance(shape, StructureShape) and isinstance(value, dict):
        for name, inner in value.items():
            if name in shape.members:
                yield from _unknown(shape.members[name], inner, (*where, name))
            else:
                message = f"There is no such member: {known_values(name, shape.members)}"
                yield Finding(Kind.ERROR, (*where, name), message, inner)
    elif isinstance(shape, ListShape) and isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _unknown(shape.member, inner, (*where, index))


def _without(request: dict[str, Any], wrong: list[Where]) -> Any:
    rest: Any = copy.deepcopy(request)
    for where in wrong:
        # of a list's element that lacks something, nothing is left
        place = where[:-1] if len(where) > 1 and isinstance(where[-2], int) else where
        holder = value_at(rest, place[:-1]) if place else None
        if isinstance(holder, dict):
            holder.pop(place[-1], None)
        elif isinstance(holder, list) and isinstance(place[-1], int):
            holder[place[-1]] = None
        elif not place:
            return None
    return _filtered(rest)


def _filtered(value: Any) -> Any:
    if isinstance(value, list):
        return [_filtered(one) for one in value if one is not None]
    if isinstance(value, dict):
        return {name: _filtered(one) for name, one in value.items() if one is not None}
    return value


def _touches(where: Where, wrong: Where) -> bool:
    shorter = min(len(where), len(wrong))
    return bool(shorter) and where[:shorter] == wrong[:shorter]


def value_at(request: Any, where: Where) -> Any:
    """What is at a place of a request; None if nothing is."""
    for step in where:
        if isinstance(request, dict):
            request = request.get(step)
        elif isinstance(request, list) and isinstance(step, int) and step < len(request):
            request = request[step]
        else:
            return None
    return request
