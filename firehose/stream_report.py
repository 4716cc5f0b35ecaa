"""Owns how what is known of stream definitions is told to a person: findings, plans, where events would go."""

from __future__ import annotations

import json
import textwrap
from typing import TYPE_CHECKING, Any

from firehose.diagnosis import Kind
from firehose.validation import path_text

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from firehose.comparison import Difference
    from firehose.definition_file import Definition
    from firehose.diagnosis import Finding
    from firehose.explain import Landing

__all__ = ["tell_differences", "tell_findings", "tell_landings"]

_WIDTH = 108
"""Columns of a message."""
_SHOWN = 72
"""Characters of an event, or a value, that a line shows."""
_NAMES = {
    Kind.ERROR: ("error", "errors"),
    Kind.LIMIT: ("limit of the server here", "limits of the server here"),
    Kind.ADVICE: ("piece of advice", "pieces of advice"),
}


def tell_findings(definition: Definition, findings: Sequence[Finding]) -> Iterator[str]:
    """Tell what was found about a definition, line by line, errors first."""
    counts = {kind: sum(one.kind is kind for one in findings) for kind in Kind}
    told = [f"{count} {_NAMES[kind][count > 1]}" for kind, count in counts.items() if count]
    verdict = ", ".join(told if counts[Kind.ERROR] else ["valid", *told])
    yield f"{definition.name} ({definition.source}): {verdict}"
    for one in sorted(findings, key=lambda finding: list(Kind).index(finding.kind)):
        yield f"  {one.kind:<8}{path_text(one.where) or '(the request)'}"
        for line in textwrap.wrap(one.message, _WIDTH, break_long_words=False, break_on_hyphens=False):
            yield f"          {line}"
        if one.where:
            yield f"          given: {'nothing' if one.given is None else _short(json.dumps(one.given))}"
        if one.remedy is not None:
            yield "          put in:"
            # without the braces: it goes beside what is there
            for line in _laid_out(one.remedy)[1:-1]:
                yield f"          {line}"
        if one.source is not None:
            yield f"          see:   {one.source}"


def tell_differences(definition: Definition, action: str, differences: Sequence[Difference]) -> Iterator[str]:
    """Tell what a plan comes to, line by line."""
    yield f"{action:<9}{definition.name} ({definition.source})"
    for one in differences:
        yield f"  {path_text(one.where)}"
        yield f"    ours:   {_value(one.ours)}"
        yield f"    theirs: {_value(one.theirs)}"
        if one.fixed is not None:
            yield f"    can't be changed in place: {one.fixed}; it takes another stream"
        elif one.ours is None:
            yield "    an update that doesn't name it leaves it as it is"


def tell_landings(definition: Definition, landings: Sequence[Landing], events: Sequence[bytes]) -> Iterator[str]:
    """Tell where events would come to lie, line by line."""
    yield f"{definition.name} ({definition.source})"
    for one in landings:
        yield f"  event {one.event + 1}: {_short(events[one.event].decode('utf-8', 'replace'))}"
        if one.record is not None:
            yield f"    record  {_short(one.record.decode('utf-8', 'replace'))}"
        if one.function is not None:
            yield f"    through {one.function}, taken to change nothing, with <name> for the keys that it gives"
        if one.reason is not None:
            yield f"    refused {one.reason.output_type}: {one.reason.code}: {one.reason.message}"
        elif one.keys:
            yield f"    keys    {', '.join(f'{name}={value}' for name, value in one.keys.items())}"
        yield f"    prefix  {one.prefix}"
        yield f"    object  s3://{one.bucket}/{one.key}"


def _laid_out(value: dict[str, Any] | list[Any], indent: str = "") -> list[str]:
    """Lay out JSON in lines: what is inside is on one line if that is short."""
    opened, closed = ("{", "}") if isinstance(value, dict) else ("[", "]")
    inner = indent + "  "
    pairs = value.items() if isinstance(value, dict) else ((None, one) for one in value)
    made: list[list[str]] = []
    for name, one in pairs:
        head = inner if name is None else f"{inner}{json.dumps(name)}: "
        flat = head + json.dumps(one)
        if len(flat) <= _WIDTH or not isinstance(one, (dict, list)):
            made.append([flat])
        else:
            lines = _laid_out(one, inner)
            made.append([head + lines[0].lstrip(), *lines[1:]])
    for lines in made[:-1]:
        lines[-1] += ","
    return [indent + opened, *(line for lines in made for line in lines), indent + closed]


def _value(value: Any) -> str:
    return "nothing" if value is None else json.dumps(value, default=str)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 1]}…"
