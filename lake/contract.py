"""Owns contracts: an Open Data Contract Standard v3.1 file a dataset, read once into frozen types.

The file is read with `open-data-contract-standard`; what lakehose needs of it becomes a `Contract`. Types are a small
tree (`Primitive`, `ListOf`, `StructOf`) that names no engine: the Iceberg schema, Spark's reader and the Glue table are
each derived from it. Source: https://bitol-io.github.io/open-data-contract-standard/v3.1.0/
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import yaml
from open_data_contract_standard.model import OpenDataContractStandard, SchemaObject, SchemaProperty
from pydantic import ValidationError

from lake.contract_terms import PartitionField, partition_terms, sort_columns, zorder_columns
from lake.envelope import ENVELOPE, SYSTEM_COLUMNS
from lake.errors import DeclarationError, first_repeated, known_values
from lake.quality_reading import latency_rules, quality_rules, unique_names

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from lake.quality import Rule

__all__ = [
    "Contract",
    "Field",
    "FieldType",
    "ListOf",
    "PartitionField",
    "Primitive",
    "StructOf",
    "objects_of",
    "only_object",
    "read_contract",
]

PrimitiveName = Literal[
    "boolean", "int", "long", "float", "double", "decimal", "date", "timestamp", "timestamptz", "string", "binary"
]


@dataclass(frozen=True)
class Primitive:
    """A type without parts, by its Iceberg name."""

    name: PrimitiveName
    precision: int = 0
    """Digits in all, of a decimal."""
    scale: int = 0
    """Digits behind the point, of a decimal."""

    def __str__(self) -> str:
        return f"decimal({self.precision}, {self.scale})" if self.name == "decimal" else self.name


@dataclass(frozen=True)
class ListOf:
    """A list of one type."""

    element: FieldType


@dataclass(frozen=True)
class StructOf:
    """Named fields in order."""

    fields: tuple[Field, ...]


FieldType = Primitive | ListOf | StructOf


@dataclass(frozen=True)
class Field:
    """One field of a dataset's payload."""

    name: str
    type: FieldType
    required: bool = False
    """Whether an event without it is refused."""
    description: str = ""
    pii: bool = False
    """Whether the contract classifies it as personal data."""


@dataclass(frozen=True)
class Contract:
    """What a dataset's events look like, and how its table is laid out."""

    dataset: str
    version: str
    """Semantic version, as events carry it in `schema_version`."""
    fields: tuple[Field, ...]
    partition: tuple[PartitionField, ...]
    sort: tuple[str, ...]
    """Columns that files are sorted by, ascending."""
    description: str = ""
    dedup_days: int = 365
    """An event that comes again within so many days of its making is dropped."""
    skew_minutes: int = 1440
    """An event whose time lies further ahead than this, when it is ingested, is refused."""
    zorder: tuple[str, ...] = ()
    """Columns that queries ask by, each about as often: they tell the files of a large partition apart."""

    quality: tuple[Rule, ...] = ()
    """What each batch is held to."""

    def field_names(self) -> list[str]:
        """Names of the payload's fields, in the contract's order."""
        return [field.name for field in self.fields]

    def required_names(self) -> list[str]:
        """Names of the payload's fields that must be there."""
        return [field.name for field in self.fields if field.required]


_LOGICAL: dict[str, PrimitiveName] = {
    "string": "string",
    "boolean": "boolean",
    "integer": "long",
    "number": "double",
    "date": "date",
    "timestamp": "timestamptz",
}
# A physicalType narrows what the logicalType leaves open; Spark's, Iceberg's and Athena's spellings are all in use.
_PHYSICAL: dict[str, dict[str, PrimitiveName]] = {
    "string": {"string": "string", "varchar": "string"},
    "boolean": {"boolean": "boolean"},
    "integer": {"int": "int", "integer": "int", "long": "long", "bigint": "long"},
    "number": {"float": "float", "real": "float", "double": "double"},
    "date": {"date": "date"},
    "timestamp": {"timestamp": "timestamptz", "timestamptz": "timestamptz", "timestamp_ntz": "timestamp"},
}
_MOST_DIGITS = 38  # of a decimal, in Iceberg, Spark and Athena alike
_DECIMAL = re.compile(r"decimal\(\s*(\d{1,2})\s*,\s*(\d{1,2})\s*\)")
_COLUMN = re.compile(r"[a-z_][a-z0-9_]{0,127}")
_VERSION = re.compile(r"\d+\.\d+\.\d+")
_LISTS = ("lakehose.partitionBy", "lakehose.sortBy", "lakehose.zorderBy")
_NUMBERS = {"lakehose.dedupDays": (1, 3650), "lakehose.clockSkewMinutes": (1, 5_256_000)}
_OUR_PROPERTIES = (*_LISTS, *_NUMBERS)


def read_contract(path: Path, dataset: str) -> Contract:
    """Read the contract of a dataset.

    Raises:
        DeclarationError: the file is missing, is no ODCS v3.1 document, has a key that ODCS doesn't know, a type that
            lakehose can't store, or a field name that is taken.
    """
    where = str(path)
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DeclarationError(f"{where}: no such contract file (dataset {dataset!r} names it)") from None
    except yaml.YAMLError as error:
        raise DeclarationError(f"{where}: not YAML: {error}") from None
    if not isinstance(raw, dict):
        raise DeclarationError(f"{where}: a contract is a mapping, got {type(raw).__name__}")
    try:
        document = OpenDataContractStandard.model_validate(raw)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise DeclarationError(f"{where}: {place}: {first['msg']}, got {first['input']!r}") from None
    _refuse_unknown_keys(raw, document.model_dump(by_alias=True, exclude_unset=True), where, "")
    return _contract(document, dataset, where)


def objects_of(path: Path) -> list[str]:
    """Names of the objects that a contract describes.

    Raises:
        DeclarationError: the file is missing, or is no contract.
    """
    try:
        raw = yaml.safe_load(path.read_text(encoding="utf-8"))
        return [str(one["name"]) for one in raw["schema"]]
    except FileNotFoundError:
        raise DeclarationError(f"{path}: no such contract file") from None
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise DeclarationError(f"{path}: no contract: {error!r}") from None


def only_object(path: Path) -> str:
    """Name of the one object that a contract describes.

    Raises:
        DeclarationError: the file is missing, is no contract, or describes several objects.
    """
    names = objects_of(path)
    if len(names) != 1:
        raise DeclarationError(f"{path}: schema: it describes {', '.join(names)}; name one with --dataset")
    return names[0]


def _refuse_unknown_keys(raw: Any, kept: Any, where: str, path: str) -> None:
    # The model ignores keys it doesn't know; a typo would then silently drop a rule of the contract.
    if isinstance(raw, dict) and isinstance(kept, dict):
        for key, value in raw.items():
            here = f"{path}.{key}" if path else str(key)
            if key not in kept:
                raise DeclarationError(f"{where}: {here}: the Open Data Contract Standard v3.1 has no such key")
            _refuse_unknown_keys(value, kept[key], where, here)
    elif isinstance(raw, list) and isinstance(kept, list):
        for index, (item, other) in enumerate(zip(raw, kept, strict=True)):
            name = item.get("name", index) if isinstance(item, dict) else index
            _refuse_unknown_keys(item, other, where, f"{path}[{name}]")


def _contract(document: OpenDataContractStandard, dataset: str, where: str) -> Contract:
    if not (document.apiVersion or "").startswith("v3."):
        raise DeclarationError(f"{where}: apiVersion: got {document.apiVersion!r}, allowed is v3.1.0")
    if not _VERSION.fullmatch(document.version or ""):
        raise DeclarationError(f"{where}: version: got {document.version!r}, allowed is MAJOR.MINOR.PATCH, as in 1.0.0")
    objects = document.schema_ or []
    found = next((one for one in objects if one.name == dataset), None)
    if found is None:
        names = known_values(dataset, [one.name or "" for one in objects])
        raise DeclarationError(f"{where}: schema: no object has the dataset's name: {names}")
    fields = tuple(_field(one, f"{where}: schema[{dataset}]") for one in found.properties or [])
    if not fields:
        raise DeclarationError(f"{where}: schema[{dataset}]: properties: at least one is needed")
    taken = [field.name for field in fields if field.name in {*ENVELOPE, *SYSTEM_COLUMNS}]
    if taken:
        raise DeclarationError(f"{where}: schema[{dataset}]: {taken[0]!r} is a name of the event's envelope")
    _refuse_repeated(fields, f"{where}: schema[{dataset}]")
    kinds = {name: _ENVELOPE_KINDS.get(name, "string") for name in ENVELOPE} | dict(_kinds(fields))
    columns = {name: kind for name, kind in kinds.items() if "." not in name}
    custom = _custom(found, where, dataset)
    lists = {name: [str(one) for one in custom[name]] for name in _LISTS if name in custom}
    partition_by, sort_by, zorder_by = _LISTS
    purpose = document.description.purpose if document.description else None
    return Contract(
        dataset=dataset,
        version=document.version or "",
        fields=fields,
        partition=partition_terms(lists.get(partition_by, ["day(event_time)"]), columns, f"{where}: {partition_by}"),
        sort=sort_columns(lists.get(sort_by, ["event_time"]), columns, f"{where}: {sort_by}"),
        description=found.description or purpose or "",
        dedup_days=custom.get("lakehose.dedupDays", Contract.dedup_days),
        skew_minutes=custom.get("lakehose.clockSkewMinutes", Contract.skew_minutes),
        quality=_quality(document, found, kinds, where),
        zorder=zorder_columns(lists.get(zorder_by, []), columns, f"{where}: {zorder_by}"),
    )


def _refuse_repeated(fields: tuple[Field, ...], where: str) -> None:
    twice = first_repeated(field.name for field in fields)
    if twice is not None:
        raise DeclarationError(f"{where}: {twice!r} is there twice")


_ENVELOPE_KINDS = {"event_time": "timestamptz", "sequence": "long"}


def _quality(
    document: OpenDataContractStandard, found: SchemaObject, kinds: dict[str, str], where: str
) -> tuple[Rule, ...]:
    """Rules of the object, of its properties and of the service levels, in this order."""
    here = f"{where}: schema[{found.name}]"
    rules = quality_rules(found.quality or [], None, kinds, here)
    for path, source in _properties(found.properties or []):
        if source.quality and path not in kinds:
            raise DeclarationError(f"{here}.{path}: quality: rules of what is in a list can't be checked")
        rules += quality_rules(source.quality or [], path, kinds, f"{here}.{path}")
    return unique_names([*rules, *latency_rules(document.slaProperties or [], found.name or "", kinds, where)])


def _properties(sources: list[SchemaProperty], above: str = "") -> Iterator[tuple[str, SchemaProperty]]:
    for one in sources:
        path = f"{above}{one.name}"
        yield path, one
        yield from _properties(one.properties or [], f"{path}.")
        if one.items is not None:
            yield f"{path}[]", one.items
            yield from _properties(one.items.properties or [], f"{path}[].")


def _kinds(fields: tuple[Field, ...], above: str = "") -> Iterator[tuple[str, str]]:
    """Name of the type by path; what is in a list has none."""
    for one in fields:
        path = f"{above}{one.name}"
        match one.type:
            case Primitive(name):
                yield path, name
            case ListOf():
                yield path, "list"
            case StructOf(inner):
                yield path, "struct"
                yield from _kinds(inner, f"{path}.")


def _custom(found: SchemaObject, where: str, dataset: str) -> dict[str, Any]:
    custom: dict[str, Any] = {}
    for one in found.customProperties or []:
        name = one.property or ""
        if not name.startswith("lakehose."):
            continue  # other tools' properties are theirs
        if name not in _OUR_PROPERTIES:
            raise DeclarationError(
                f"{where}: schema[{dataset}].customProperties: {known_values(name, _OUR_PROPERTIES)}"
            )
        if name in _NUMBERS:
            least, most = _NUMBERS[name]
            if type(one.value) is not int or not least <= one.value <= most:
                raise DeclarationError(f"{where}: {name}: got {one.value!r}, allowed are {least} to {most}")
        elif not isinstance(one.value, list):
            raise DeclarationError(f"{where}: {name}: a list is needed, got {one.value!r}")
        custom[name] = one.value
    return custom


def _field(source: SchemaProperty, where: str) -> Field:
    name = source.name or ""
    if not _COLUMN.fullmatch(name):
        raise DeclarationError(f"{where}: field name: got {name!r}, allowed are a-z, 0-9 and _, at most 128")
    return Field(
        name=name,
        type=_type(source, f"{where}.{name}"),
        required=bool(source.required),
        description=source.description or "",
        pii=source.classification in {"pii", "PII", "personal", "restricted"},
    )


def _type(source: SchemaProperty, where: str) -> FieldType:
    logical = source.logicalType or ""
    if logical == "object":
        if not source.properties:
            raise DeclarationError(f"{where}: an object needs properties")
        fields = tuple(_field(one, where) for one in source.properties)
        _refuse_repeated(fields, where)
        return StructOf(fields)
    if logical == "array":
        if source.items is None:
            raise DeclarationError(f"{where}: an array needs items")
        return ListOf(_type(source.items, f"{where}[]"))
    if logical not in _LOGICAL:
        raise DeclarationError(f"{where}: logicalType: {known_values(logical, [*_LOGICAL, 'object', 'array'])}")
    if not source.physicalType:
        return Primitive(_LOGICAL[logical])
    physical = source.physicalType.lower()
    decimal = _DECIMAL.fullmatch(physical)
    if decimal and logical in {"number", "integer"}:
        precision, scale = int(decimal[1]), int(decimal[2])
        if not (1 <= precision <= _MOST_DIGITS and scale <= precision):
            raise DeclarationError(
                f"{where}: physicalType: got {physical!r}, allowed are 1 to {_MOST_DIGITS} digits, of which 0 to "
                "all are behind the point"
            )
        return Primitive("decimal", precision, scale)
    if physical not in _PHYSICAL[logical]:
        allowed = [*_PHYSICAL[logical], *(["decimal(p,s)"] if logical in {"number", "integer"} else [])]
        raise DeclarationError(f"{where}: physicalType of a {logical}: {known_values(physical, allowed)}")
    return Primitive(_PHYSICAL[logical][physical])
