"""Owns how a contract may change: what each change means to producers and readers, and the version it asks for.

Rules, by Semantic Versioning of a contract:

- a new optional field, a wider type, a field that is no longer required: **minor**. Old producers and readers go on;
- a description, a limit of ours, the order of rows in files: **patch**;
- everything else breaks somebody, and is a **major** version: a dataset of its own, with a table of its own, so that
  old producers keep working beside new ones.

Wider is what Iceberg can read without a rewrite: https://iceberg.apache.org/spec/#schema-evolution
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from lake.contract import Contract, Field, FieldType, ListOf, Primitive, StructOf

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Change", "Step", "compare", "is_accepted", "is_wider", "needed_step", "step_between", "verdict"]


class Step(IntEnum):
    """How far a version goes up."""

    NONE = 0
    PATCH = 1
    MINOR = 2
    MAJOR = 3


@dataclass(frozen=True)
class Change:
    """One difference between two versions of a contract."""

    path: str
    """Field, with dots between levels; empty for the contract itself."""
    step: Step
    sentence: str


_WIDER = {("int", "long"), ("float", "double")}


def is_wider(old: Primitive, new: Primitive) -> bool:
    """Whether every value of the old type is one of the new, without rewriting files.

    >>> is_wider(Primitive("int"), Primitive("long"))
    True
    """
    if old.name == new.name == "decimal":
        return new.scale == old.scale and new.precision > old.precision
    return (old.name, new.name) in _WIDER


def compare(old: Contract, new: Contract) -> list[Change]:
    """All differences, in the new contract's order."""
    found = list(_fields(old.fields, new.fields, ""))
    if old.partition != new.partition:
        # files that are there keep their layout, and a table's spec isn't changed behind its readers' backs
        found.append(Change("", Step.MAJOR, "lakehose.partitionBy is another: the files are laid out by the old"))
    for name, before, after in (
        ("lakehose.sortBy", old.sort, new.sort),
        ("lakehose.zorderBy", old.zorder, new.zorder),
        ("lakehose.dedupDays", old.dedup_days, new.dedup_days),
        ("lakehose.clockSkewMinutes", old.skew_minutes, new.skew_minutes),
        ("description", old.description, new.description),
    ):
        if before != after:
            found.append(Change("", Step.PATCH, f"{name} was {_said(before)}, and is {_said(after)}"))
    rules = {one.name: one for one in old.quality}
    told = [f"rule {one.name} is new or another" for one in new.quality if rules.pop(one.name, None) != one]
    told += [f"rule {name} is gone" for name in rules]
    found += [Change("", Step.PATCH, f"quality: {one}") for one in told]
    return found


def _said(value: object) -> str:
    return ", ".join(map(str, value)) or "none" if isinstance(value, tuple) else repr(value)


def _fields(old: Sequence[Field], new: Sequence[Field], above: str) -> Iterator[Change]:
    before, after = {one.name: one for one in old}, {one.name: one for one in new}
    for name, field in after.items():
        path = f"{above}{name}"
        if name not in before:
            if field.required:
                yield Change(path, Step.MAJOR, "is new and required: events of older producers are refused")
            else:
                yield Change(path, Step.MINOR, "is new")
            continue
        yield from _field(before[name], field, path)
    for name in before:
        if name not in after:
            yield Change(f"{above}{name}", Step.MAJOR, "is gone: what reads it finds nothing more")


def _field(old: Field, new: Field, path: str) -> Iterator[Change]:
    yield from _types(old.type, new.type, path)
    if new.required and not old.required:
        yield Change(path, Step.MAJOR, "is required now: events without it are refused")
    if old.required and not new.required:
        yield Change(path, Step.MINOR, "is no longer required")
    if old.pii != new.pii:
        yield Change(path, Step.PATCH, "is personal data now" if new.pii else "is no longer personal data")
    if old.description != new.description:
        yield Change(path, Step.PATCH, "has another description")


def _types(old: FieldType, new: FieldType, path: str) -> Iterator[Change]:
    if old == new:
        return
    if isinstance(old, StructOf) and isinstance(new, StructOf):
        yield from _fields(old.fields, new.fields, f"{path}.")
    elif isinstance(old, ListOf) and isinstance(new, ListOf):
        yield from _types(old.element, new.element, f"{path}[]")
    elif isinstance(old, Primitive) and isinstance(new, Primitive) and is_wider(old, new):
        yield Change(path, Step.MINOR, f"was {old}, and is {new}, which holds all of it")
    else:
        yield Change(path, Step.MAJOR, f"was {_kind(old)}, and is {_kind(new)}")


def _kind(kind: FieldType) -> str:
    if isinstance(kind, Primitive):
        return str(kind)
    return "an object" if isinstance(kind, StructOf) else f"a list of {_kind(kind.element)}"


def needed_step(changes: Sequence[Change]) -> Step:
    """The step that the changes ask for."""
    return max((one.step for one in changes), default=Step.NONE)


def step_between(old: str, new: str) -> Step | None:
    """The step from one version to another; None where it goes down.

    >>> step_between("1.2.0", "1.3.0")
    <Step.MINOR: 2>
    """
    before, after = ([int(part) for part in text.split(".")] for text in (old, new))
    if after < before:
        return None
    for index, step in enumerate((Step.MAJOR, Step.MINOR, Step.PATCH)):
        if after[index] != before[index]:
            return step
    return Step.NONE


def is_accepted(needed: Step, made: Step | None, *, own_table: bool) -> bool:
    """Whether a version that went up so far may become what the changes make of it.

    Args:
        needed: what the changes ask for.
        made: how far the version went up; None where it went down.
        own_table: whether the new version is a dataset beside the old one, which goes on as it is.
    """
    if made is None:
        return False
    return made is Step.MAJOR if own_table else made >= needed and needed is not Step.MAJOR


def verdict(needed: Step, made: Step | None, *, own_table: bool = False) -> str:
    """What to say of a version that went up so far; arguments as for `is_accepted`."""
    if made is None:
        return "REFUSED: a version can't go down"
    if own_table:
        if made is Step.MAJOR:
            return "accepted: a new major version with a table of its own, beside which the old one goes on"
        return "REFUSED: a table of its own is for a new major version; under the same one give the same name"
    if needed is Step.MAJOR:
        return (
            "REFUSED: a change breaks producers or readers. Leave this contract as it is, and declare a dataset of its "
            "own for the new major version: old producers keep working beside new ones, each with its own table"
        )
    if made < needed:
        return f"REFUSED: the changes ask for a new {needed.name.lower()} version"
    return "accepted" if needed else "accepted: nothing changed"
