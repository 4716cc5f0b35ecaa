"""Owns reading the quality rules of a contract: what the Open Data Contract Standard says, held to what can be checked.

Whatever a batch can't be held to is refused by name, so that no rule of a contract is dropped in silence. A text is for
people, and is left to them. Source:
https://bitol-io.github.io/open-data-contract-standard/v3.1.0/data-quality/
"""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import date, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any, TypeGuard

from lake.errors import DeclarationError, known_values
from lake.patterns import trouble_of
from lake.quality import (
    Check,
    Duplicates,
    Freshness,
    Invalid,
    Limit,
    Missing,
    Nulls,
    Operator,
    RowCount,
    Rule,
    Scalar,
    Severity,
    Span,
    Unit,
    Volume,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from open_data_contract_standard.model import DataQuality, ServiceLevelAgreementProperty

__all__ = ["latency_rules", "quality_rules", "unique_names"]

_OF_COLUMN = ("nullValues", "missingValues", "invalidValues", "duplicateValues")
_OF_OBJECT = ("rowCount", "duplicateValues")
_ENGINE, _VOLUME = "lakehose", "volumeDeviation"
_INTEGERS, _NUMBERS = {"int", "long"}, {"int", "long", "float", "double", "decimal"}
_TIMES = {"date", "timestamp", "timestamptz"}
_MOST_DAYS, _MOST_LAST = 3650, 1000
_MOST_DIGITS = 38  # of a decimal
_LATENCY = {"latency", "ly", "freshness"}
_SECONDS = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1),
    **dict.fromkeys(("min", "minute", "minutes"), 60),
    **dict.fromkeys(("h", "hr", "hour", "hours"), 3600),
    **dict.fromkeys(("d", "day", "days"), 86_400),
}
_SEVERITY = "lakehose.severity"


def quality_rules(
    quality: Sequence[DataQuality], column: str | None, kinds: Mapping[str, str], where: str
) -> list[Rule]:
    """The rules of an object, or of one of its columns.

    Args:
        quality: the `quality` block.
        column: path of the column, with dots between levels; None is the object.
        kinds: name of the type by path, of every column.
        where: place in the contract, for messages.

    Raises:
        DeclarationError: a rule says something that can't be checked.
    """
    found = []
    for index, one in enumerate(quality):
        here = f"{where}.quality[{one.name or one.id or index}]"
        rule = _rule(one, column, kinds, here)
        if rule is not None:
            found.append(rule)
    return found


def unique_names(rules: Iterable[Rule]) -> tuple[Rule, ...]:
    """Rules with names of their own: a name that comes again gets a number."""
    found: dict[str, Rule] = {}
    for one in rules:
        name, number = one.name, 1
        while name in found:
            number += 1
            name = f"{one.name}-{number}"
        found[name] = replace(one, name=name)
    return tuple(found.values())


def _rule(one: DataQuality, column: str | None, kinds: Mapping[str, str], where: str) -> Rule | None:
    kind = one.type or "library"
    if kind == "text":
        return None
    if one.schedule or one.scheduler:
        raise DeclarationError(
            f"{where}: schedule: rules are checked with each batch; leave schedule and scheduler out"
        )
    if kind == "custom" and one.engine == _ENGINE:
        metric, arguments, check = _custom(one, column, where)
    elif kind == "library":
        metric = one.metric or ""
        if one.rule and not metric:
            raise DeclarationError(f"{where}: rule: it is `metric` since version 3.1 of the standard")
        arguments = dict(one.arguments or {})
        check = _library(metric, arguments, column, kinds, where)
    else:
        engine = f" of engine {one.engine!r}" if kind == "custom" else ""
        raise DeclarationError(
            f"{where}: type: got {kind!r}{engine}, allowed are library, text, and custom of engine {_ENGINE!r}"
        )
    if arguments:
        raise DeclarationError(f"{where}: arguments: {metric} takes no {', '.join(map(repr, sorted(arguments)))}")
    limits = _limits(one, where)
    severity = _severity(one.severity, f"{where}: severity")
    if isinstance(check, Volume) and check.of is Span.DAYS and severity is Severity.ERROR:
        raise DeclarationError(f"{where}: severity: a day that ended can't be held back; allowed are warning and info")
    return Rule(
        name=one.name or one.id or ".".join(filter(None, (column, metric))),
        check=check,
        limits=limits,
        severity=severity,
        unit=_unit(one.unit, check, where),
        description=one.description or "",
    )


def _library(metric: str, arguments: dict[str, Any], column: str | None, kinds: Mapping[str, str], where: str) -> Check:
    allowed = _OF_OBJECT if column is None else _OF_COLUMN
    if metric not in allowed:
        raise DeclarationError(f"{where}: metric: {known_values(metric, allowed)}")
    if metric == "rowCount":
        return RowCount()
    if metric == "duplicateValues":
        return _duplicates(arguments, column, kinds, where)
    name = column or ""
    kind = kinds[name]
    match metric:
        case "nullValues":
            return Nulls(name)
        case "missingValues":
            values = arguments.pop("missingValues", None)
            if not isinstance(values, list) or not values:
                raise DeclarationError(f"{where}: arguments.missingValues: a list of values is needed, got {values!r}")
            return Missing(
                name, tuple(_value(v, kind, f"{where}: missingValues") if v is not None else v for v in values)
            )
        case _:
            return _invalid(name, arguments, kind, where)


def _duplicates(arguments: dict[str, Any], column: str | None, kinds: Mapping[str, str], where: str) -> Duplicates:
    names = [column] if column is not None else arguments.pop("properties", None)
    if not isinstance(names, list) or not names:
        raise DeclarationError(f"{where}: arguments.properties: a list of columns is needed, got {names!r}")
    for one in names:
        if one not in kinds:
            raise DeclarationError(f"{where}: arguments.properties: {known_values(one, kinds)}")
        if kinds[one] in {"list", "struct"}:
            raise DeclarationError(f"{where}: {one}: a {kinds[one]} can't be compared; name one of its fields")
    days = arguments.pop("days", Duplicates.days)
    return Duplicates(tuple(names), _within(days, 0, _MOST_DAYS, f"{where}: arguments.days"))


def _invalid(column: str, arguments: dict[str, Any], kind: str, where: str) -> Invalid:
    given = {
        name: arguments.pop(name) for name in ("validValues", "pattern", "minimum", "maximum") if name in arguments
    }
    if not given and not arguments:
        raise DeclarationError(
            f"{where}: arguments: invalidValues needs validValues, pattern, minimum or maximum (lakehose's own two)"
        )
    valid, pattern = given.get("validValues", []), given.get("pattern")
    if not isinstance(valid, list) or ("validValues" in given and not valid):
        raise DeclarationError(f"{where}: arguments.validValues: a list of values is needed, got {valid!r}")
    if pattern is not None:
        _check_pattern(pattern, kind, f"{where}: arguments.pattern")
    for name in ("minimum", "maximum"):
        if name in given and kind not in _NUMBERS | _TIMES:
            raise DeclarationError(f"{where}: arguments.{name}: it is for numbers and times, and {column} is a {kind}")
    ends = {
        name: _value(given[name], kind, f"{where}: {name}") if name in given else None
        for name in ("minimum", "maximum")
    }
    for name, end in ends.items():
        if type(end) is float and not math.isfinite(end):
            raise DeclarationError(f"{where}: arguments.{name}: got {end}, allowed is a finite number")
    return Invalid(column, tuple(_value(one, kind, f"{where}: validValues") for one in valid), pattern, **ends)


def _check_pattern(pattern: Any, kind: str, where: str) -> None:
    if kind != "string":
        raise DeclarationError(f"{where}: it is for strings, and the column is a {kind}")
    trouble = trouble_of(pattern) if isinstance(pattern, str) else "it is no text"
    if trouble is not None:
        raise DeclarationError(f"{where}: got {pattern!r}, allowed is a regular expression of Java: {trouble}")


def _value(value: Any, kind: str, where: str) -> Scalar:
    """A value of the contract, as the column's type has it; times as text, in the one form that Spark takes."""
    if kind == "string" and isinstance(value, str):
        return value
    if kind == "boolean" and isinstance(value, bool):
        return value
    if kind in _INTEGERS and type(value) is int and abs(value) < 2**63:
        return value
    if kind == "decimal" and _is_finite(value) and _fits_decimal(value):
        return value  # a whole number as it is: a float has room for 15 digits
    if kind in {"float", "double"} and (_is_finite(value) or type(value) is float):
        return float(value)
    if kind in _TIMES:
        # YAML makes dates of what looks like one
        text = value.isoformat() if isinstance(value, date) else value
        for form in (date,) if kind == "date" else (date, datetime):
            try:
                # Python reads other forms of the standard too, as 20260131
                return form.fromisoformat(text).isoformat()
            except (TypeError, ValueError):
                continue
    raise DeclarationError(f"{where}: got {value!r}, which is no value of a {kind}")


def _is_finite(value: Any) -> TypeGuard[int | float]:
    try:
        return type(value) in {int, float} and math.isfinite(value)
    except OverflowError:  # a whole number that no float comes near to
        return False


def _fits_decimal(value: float) -> bool:
    """Whether Spark has a decimal for a number: of at most 38 digits, before and behind the point."""
    told = Decimal(str(value))
    return told.adjusted() < _MOST_DIGITS and -int(told.as_tuple().exponent) <= _MOST_DIGITS


def _custom(one: DataQuality, column: str | None, where: str) -> tuple[str, dict[str, Any], Check]:
    given = one.implementation
    if column is not None or not isinstance(given, dict) or given.get("metric") != _VOLUME:
        raise DeclarationError(
            f"{where}: implementation: got {given!r}, allowed is, of an object, "
            f"{{metric: {_VOLUME}, of: batches, last: 10}}"
        )
    left = {key: value for key, value in given.items() if key != "metric"}
    of, last = left.pop("of", Volume.of), left.pop("last", Volume.last)
    if of not in tuple(Span):
        raise DeclarationError(f"{where}: implementation.of: {known_values(of, Span)}")
    return _VOLUME, left, Volume(Span(of), _within(last, 1, _MOST_LAST, f"{where}: implementation.last"))


def _within(value: Any, least: int, most: int, where: str) -> int:
    if type(value) is not int or not least <= value <= most:
        raise DeclarationError(f"{where}: got {value!r}, allowed are {least} to {most}")
    return value


def _limits(one: DataQuality, where: str) -> tuple[Limit, ...]:
    found = []
    for operator in Operator:
        given = getattr(one, operator.value)
        if given is None:
            continue
        two = operator in {Operator.BETWEEN, Operator.NOT_BETWEEN}
        bounds = list(given) if two else [given]
        if not all(map(_is_finite, bounds)) or (two and bounds[0] >= bounds[1]):
            allowed = "two numbers, the smaller first" if two else "a number"
            raise DeclarationError(f"{where}: {operator}: got {given!r}, allowed is {allowed}")
        found.append(Limit(operator, tuple(float(bound) for bound in bounds)))
    if not found:
        raise DeclarationError(f"{where}: it says no limit; one of: {', '.join(Operator)}")
    return tuple(found)


def _severity(given: Any, where: str) -> Severity:
    if given is None:
        return Severity.WARNING
    if given not in tuple(Severity):
        raise DeclarationError(f"{where}: {known_values(given, Severity)}")
    return Severity(given)


def _unit(given: str | None, check: Check, where: str) -> Unit:
    allowed: tuple[Unit, ...] = (Unit.ROWS, Unit.PERCENT)
    if isinstance(check, Volume | RowCount):
        allowed = (Unit.PERCENT,) if isinstance(check, Volume) else (Unit.ROWS,)
    if given is None:
        return allowed[0]
    if given not in allowed:
        raise DeclarationError(f"{where}: unit: {known_values(given, allowed)}")
    return Unit(given)


def latency_rules(
    levels: Sequence[ServiceLevelAgreementProperty], dataset: str, kinds: Mapping[str, str], where: str
) -> list[Rule]:
    """Rules of a dataset that the service levels make: `latency`, which some call freshness; the others are left alone.

    Args:
        levels: the `slaProperties` block.
        dataset: name of the object.
        kinds: name of the type by path, of every column.
        where: the contract, for messages.

    Raises:
        DeclarationError: a latency is no length of time, or is of a column that tells none.
    """
    found = []
    for index, one in enumerate(levels):
        if (one.property or "").lower() not in _LATENCY:
            continue
        here = f"{where}: slaProperties[{one.id or index}]"
        unit = (one.unit or "").lower()
        if unit not in _SECONDS:
            raise DeclarationError(f"{here}.unit: {known_values(one.unit, _SECONDS)}")
        if not _is_finite(one.value):
            raise DeclarationError(f"{here}.value: got {one.value!r}, allowed is a number of {one.unit}")
        limit = Limit(Operator.AT_MOST, (float(one.value) * _SECONDS[unit],))
        custom = {prop.property: prop.value for prop in one.customProperties or []}
        severity = _severity(custom.get(_SEVERITY), f"{here}: {_SEVERITY}")
        for column in _elements(one.element, dataset, kinds, here):
            name = one.id or f"{column}.latency"
            found.append(Rule(name, Freshness(column), (limit,), severity, Unit.SECONDS, one.description or ""))
    return found


def _elements(given: str | None, dataset: str, kinds: Mapping[str, str], where: str) -> list[str]:
    columns = []
    for text in (given or "event_time").split(","):
        name = text.strip().removeprefix(f"{dataset}.")
        if name not in kinds:
            if "." in name and name.partition(".")[0] not in kinds:
                continue  # of another object
            raise DeclarationError(f"{where}.element: {known_values(name, kinds)}")
        if kinds[name] not in {"timestamp", "timestamptz"}:
            raise DeclarationError(f"{where}.element: {name} is a {kinds[name]}, and a timestamp is needed")
        columns.append(name)
    return columns
