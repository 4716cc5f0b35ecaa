"""Owns quality rules: what a contract asks of each batch, and how a measured value is held to it.

The vocabulary is that of the Open Data Contract Standard, its `quality` and its `slaProperties`; `lake.quality_reading`
reads it. A rule measures one number of a batch's new rows and holds it to limits. Source:
https://bitol-io.github.io/open-data-contract-standard/v3.1.0/data-quality/
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = [
    "Check",
    "Duplicates",
    "Freshness",
    "Invalid",
    "Limit",
    "Missing",
    "Nulls",
    "Operator",
    "Result",
    "RowCount",
    "Rule",
    "Scalar",
    "Severity",
    "Span",
    "Unit",
    "Volume",
    "deviation",
    "digest",
    "judge",
]

Scalar = str | int | float | bool


class Severity(StrEnum):
    """What becomes of a batch that breaks a rule."""

    ERROR = "error"
    """It is held back: nothing of it is published until a person, or another contract, decides."""
    WARNING = "warning"
    """It is published, and the broken rule is said and stored. A rule without a severity is one of these."""
    INFO = "info"
    """As `warning`, for what need not be looked at."""


class Unit(StrEnum):
    """What a measured value is."""

    ROWS = "rows"
    PERCENT = "percent"
    """Of the batch's new rows; of a volume, the deviation from the mean."""
    SECONDS = "seconds"


class Operator(StrEnum):
    """How a value is held to a limit, by the standard's names."""

    BE = "mustBe"
    NOT_BE = "mustNotBe"
    ABOVE = "mustBeGreaterThan"
    AT_LEAST = "mustBeGreaterOrEqualTo"
    BELOW = "mustBeLessThan"
    AT_MOST = "mustBeLessOrEqualTo"
    BETWEEN = "mustBeBetween"
    """Without its ends: the standard says that it equals `mustBeGreaterThan` and `mustBeLessThan`."""
    NOT_BETWEEN = "mustNotBeBetween"


_SIGNS = {
    Operator.BE: "=",
    Operator.NOT_BE: "≠",
    Operator.ABOVE: ">",
    Operator.AT_LEAST: "≥",
    Operator.BELOW: "<",
    Operator.AT_MOST: "≤",
}


@dataclass(frozen=True)
class Limit:
    """What a value must be."""

    operator: Operator
    bounds: tuple[float, ...]
    """One number; two of the operators that say between."""

    def holds(self, value: float) -> bool:
        """Whether a value is within the limit."""
        first = self.bounds[0]
        match self.operator:
            case Operator.BE:
                return value == first
            case Operator.NOT_BE:
                return value != first
            case Operator.ABOVE:
                return value > first
            case Operator.AT_LEAST:
                return value >= first
            case Operator.BELOW:
                return value < first
            case Operator.AT_MOST:
                return value <= first
            case Operator.BETWEEN:
                return first < value < self.bounds[1]
            case Operator.NOT_BETWEEN:
                return not first < value < self.bounds[1]

    def __str__(self) -> str:
        if self.operator in _SIGNS:
            return f"{_SIGNS[self.operator]} {self.bounds[0]:g}"
        word = "between" if self.operator is Operator.BETWEEN else "not between"
        return f"{word} {self.bounds[0]:g} and {self.bounds[1]:g}"


@dataclass(frozen=True)
class Nulls:
    """`nullValues`: rows in which a column is null."""

    column: str


@dataclass(frozen=True)
class Missing:
    """`missingValues`: rows in which a column has one of the values that stand for none."""

    column: str
    values: tuple[Scalar | None, ...]


@dataclass(frozen=True)
class Invalid:
    """`invalidValues`: rows in which a column has a value that isn't one of those allowed; null isn't a value."""

    column: str
    valid: tuple[Scalar, ...] = ()
    """Any of these; empty is anything."""
    pattern: str | None = None
    """Regular expression that is found in it."""
    minimum: Scalar | None = None
    maximum: Scalar | None = None


@dataclass(frozen=True)
class Duplicates:
    """`duplicateValues`: rows that repeat what another row has in these columns, in the batch or in the table.

    The table is asked only for events that were made in the days before the batch was planned, so that the cost doesn't
    grow with it. A row in which any of the columns is null repeats nothing.
    """

    columns: tuple[str, ...]
    days: int = 1
    """0 looks in the batch only."""


@dataclass(frozen=True)
class RowCount:
    """`rowCount`: new rows of the batch."""


@dataclass(frozen=True)
class Freshness:
    """The service level `latency`: from the newest time in a column to the planning of the batch."""

    column: str


class Span(StrEnum):
    """What is held against the mean of those before it."""

    BATCHES = "batches"
    """The rows of this batch."""
    DAYS = "days"
    """The rows of the last day that ended, in UTC by when batches were planned."""


@dataclass(frozen=True)
class Volume:
    """`volumeDeviation`, lakehose's own: how far the rows are from the mean, in percent; fewer are negative."""

    of: Span = Span.BATCHES
    last: int = 10
    """Batches or days that the mean is taken of; without any there is nothing to hold the rows to."""


Check = Nulls | Missing | Invalid | Duplicates | RowCount | Freshness | Volume

METRICS: Mapping[type[Check], str] = {
    Nulls: "nullValues",
    Missing: "missingValues",
    Invalid: "invalidValues",
    Duplicates: "duplicateValues",
    RowCount: "rowCount",
    Freshness: "latency",
    Volume: "volumeDeviation",
}


@dataclass(frozen=True)
class Rule:
    """One quality rule of a contract."""

    name: str
    """Unique within its contract."""
    check: Check
    limits: tuple[Limit, ...]
    """All of them hold, or the rule is broken."""
    severity: Severity = Severity.WARNING
    unit: Unit = Unit.ROWS
    description: str = ""

    @property
    def metric(self) -> str:
        """Name of what it measures."""
        return METRICS[type(self.check)]

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns it looks at, with dots between levels; empty where it counts rows."""
        match self.check:
            case Duplicates(columns):
                return columns
            case RowCount() | Volume():
                return ()
            case one:
                return (one.column,)

    @property
    def limit(self) -> str:
        """Its limits in words."""
        return " and ".join(map(str, self.limits))


@dataclass(frozen=True)
class Result:
    """What a rule found in a batch."""

    rule: str
    metric: str
    columns: tuple[str, ...]
    value: float | None
    """In `unit`; None where there was nothing to measure, which breaks no rule."""
    unit: Unit
    limit: str
    severity: Severity
    passed: bool
    description: str = ""

    @property
    def blocks(self) -> bool:
        """Whether the batch must be held back for it."""
        return not self.passed and self.severity is Severity.ERROR

    def __str__(self) -> str:
        value = "nothing" if self.value is None else f"{self.value:,.10g}"
        return f"rule {self.rule} ({self.severity}): {self.metric} is {value} {self.unit}, must be {self.limit}"


def judge(rules: Iterable[Rule], values: Mapping[str, float | None], rows: int) -> tuple[Result, ...]:
    """Hold what was measured to the rules; pure.

    Args:
        rules: the contract's.
        values: by rule: rows that were counted, seconds, or percent of a deviation; None where there was nothing.
        rows: new rows of the batch, of which counted ones may be a percentage.
    """
    return tuple(_judged(one, values[one.name], rows) for one in rules)


def _judged(rule: Rule, measured: float | None, rows: int) -> Result:
    value = measured
    counts = not isinstance(rule.check, RowCount | Freshness | Volume)
    if value is not None and counts and rule.unit is Unit.PERCENT:
        value = 100 * value / rows if rows else 0.0
    passed = value is None or all(one.holds(value) for one in rule.limits)
    return Result(
        rule=rule.name,
        metric=rule.metric,
        columns=rule.columns,
        value=value,
        unit=rule.unit,
        limit=rule.limit,
        severity=rule.severity,
        passed=passed,
        description=rule.description,
    )


def deviation(rows: int, before: Iterable[int]) -> float | None:
    """How far rows are from the mean of those before, in percent of it; None where that tells nothing.

    >>> deviation(150, [100, 100])
    50.0
    """
    known = list(before)
    mean = sum(known) / len(known) if known else 0.0
    return 100 * (rows - mean) / mean if mean else None


def digest(rules: Iterable[Rule]) -> str:
    """A short text that is another one for other rules that block."""
    told = "\n".join(sorted(repr(one) for one in rules if one.severity is Severity.ERROR))
    return hashlib.sha256(told.encode()).hexdigest()[:16]
