"""Owns the Iceberg tables: schema, partition spec, sort order and properties, derived from a contract.

Tables are made through PyIceberg, so `apply` needs no JVM. All columns are optional in Iceberg: what a contract
requires is enforced by ingest, which can say why, and a later version may relax it without a rewrite.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from pyiceberg.catalog.glue import GlueCatalog
from pyiceberg.exceptions import CommitFailedException, NoSuchTableError
from pyiceberg.partitioning import PartitionField as IcebergPartitionField
from pyiceberg.partitioning import PartitionSpec
from pyiceberg.schema import Schema
from pyiceberg.table.sorting import SortField, SortOrder
from pyiceberg.transforms import IDENTITY, parse_transform
from pyiceberg.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IcebergType,
    IntegerType,
    ListType,
    LongType,
    NestedField,
    StringType,
    StructType,
    TimestampType,
    TimestamptzType,
)

from lake.clients import is_passing
from lake.contract import Contract, Field, FieldType, ListOf, PartitionField, Primitive
from lake.errors import CommitConflictError, FindingError, TransientError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pyiceberg.table import Table

    from lake.clients import Cloud

__all__ = [
    "QUARANTINE",
    "QUARANTINE_COLUMNS",
    "change_table",
    "columns",
    "ensure_table",
    "evolve_table",
    "existing_table",
    "glue_catalog",
    "iceberg_schema",
    "lacks",
    "load_table",
    "table_properties",
]

_EVOLVE_ATTEMPTS = 5

_Answer = TypeVar("_Answer")

QUARANTINE = "quarantine"
"""Name of the table of refused records, one in each owner's database."""

_STRING = Primitive("string")
_LONG = Primitive("long")
_MOMENT = Primitive("timestamptz")

QUARANTINE_COLUMNS: tuple[Field, ...] = (
    Field("quarantined_at", _MOMENT, description="When the batch that found it ran"),
    Field("dataset", _STRING, description="Dataset of the stream it came by"),
    Field("tenant", _STRING, description="Tenant it claims; empty where it claims none"),
    Field("stage", _STRING, description="What refused it: firehose, files or ingest"),
    Field("reason", _STRING, description="Reason code"),
    Field("message", _STRING, description="The reason in words"),
    Field("payload", Primitive("binary"), description="The record as it was received, byte for byte"),
    Field("object", _STRING, description="S3 object it was found in"),
    Field("position", _LONG, description="Line of the object, from 0"),
    Field("event_id", _STRING),
    Field("producer_id", _STRING),
    Field("sequence", _LONG),
    Field("arrival_time", _MOMENT, description="When it was received, where known"),
    Field("_batch", _STRING, description="Batch that put it here"),
)
"""The one shape of everything that any stage refused."""

_ENVELOPE_COLUMNS: tuple[Field, ...] = (
    Field("event_id", _STRING, required=True, description="UUIDv7, ordered by time"),
    Field("tenant", _STRING, required=True),
    Field("dataset", _STRING, required=True),
    Field("event_time", _MOMENT, required=True, description="When it happened"),
    Field("producer_id", _STRING, required=True),
    Field("sequence", _LONG, required=True, description="Gapless for each producer and dataset"),
    Field("schema_version", _STRING, required=True, description="Contract's version that the producer spoke"),
)
_SYSTEM_COLUMNS: tuple[Field, ...] = (
    Field("_rescued", _STRING, description="Fields that the contract doesn't know, as JSON"),
    Field("_object", _STRING, description="S3 object it came in"),
    Field("_batch", _LONG, description="Number of the batch that brought it"),
)

_PRIMITIVES: dict[str, IcebergType] = {
    "boolean": BooleanType(),
    "int": IntegerType(),
    "long": LongType(),
    "float": FloatType(),
    "double": DoubleType(),
    "date": DateType(),
    "timestamp": TimestampType(),
    "timestamptz": TimestamptzType(),
    "string": StringType(),
    "binary": BinaryType(),
}


def columns(contract: Contract) -> tuple[Field, ...]:
    """All columns of a dataset's table, in order: envelope, payload, what ingest adds."""
    return (*_ENVELOPE_COLUMNS, *contract.fields, *_SYSTEM_COLUMNS)


def iceberg_schema(fields: tuple[Field, ...]) -> Schema:
    """An Iceberg schema with field ids counted from 1, nested ones after their parent."""
    ids = iter(range(1, 100_000))
    return Schema(*(_nested(one, ids) for one in fields))


def _nested(field: Field, ids: Iterator[int]) -> NestedField:
    field_id = next(ids)
    return NestedField(
        field_id=field_id,
        name=field.name,
        field_type=_iceberg_type(field.type, ids),
        required=False,
        doc=field.description or None,
    )


def _iceberg_type(kind: FieldType, ids: Iterator[int]) -> IcebergType:
    if isinstance(kind, Primitive):
        return DecimalType(kind.precision, kind.scale) if kind.name == "decimal" else _PRIMITIVES[kind.name]
    if isinstance(kind, ListOf):
        element_id = next(ids)
        return ListType(element_id=element_id, element_type=_iceberg_type(kind.element, ids), element_required=False)
    return StructType(*(_nested(one, ids) for one in kind.fields))


def _partition_spec(terms: tuple[PartitionField, ...], schema: Schema) -> PartitionSpec:
    return PartitionSpec(
        *(
            IcebergPartitionField(
                source_id=schema.find_field(term.column).field_id,
                field_id=1000 + index,
                transform=parse_transform(term.transform),
                name=term.name,
            )
            for index, term in enumerate(terms)
        )
    )


def table_properties(target_mib: int) -> dict[str, str]:
    """Properties of every table of ours: format v2 (Athena reads no later one), zstd, bounded metadata."""
    return {
        "format-version": "2",
        "write.format.default": "parquet",
        "write.parquet.compression-codec": "zstd",
        "write.target-file-size-bytes": str(target_mib * 1024 * 1024),
        "write.metadata.delete-after-commit.enabled": "true",
        "write.metadata.previous-versions-max": "50",
        # looking for duplicates reads every manifest, and each commit adds one: Iceberg's own 100 would be 100 requests
        "commit.manifest.min-count-to-merge": "10",
        # two writers at once are usual here: ingest and compaction
        "commit.retry.num-retries": "20",
        # ingest stages each batch under its id and publishes it: Iceberg publishes no id twice
        "write.wap.enabled": "true",
    }


def glue_catalog(cloud: Cloud) -> GlueCatalog:
    """PyIceberg's view of the same Glue catalog that Spark and Athena use."""
    settings: dict[str, Any] = {
        "glue.region": cloud.region,
        "s3.region": cloud.region,
        "s3.retry-strategy-impl": "lake.retries.PatientRetries",
    }
    if cloud.endpoint:
        credentials = cloud.environment()
        settings |= {
            "glue.endpoint": cloud.endpoint,
            "s3.endpoint": cloud.endpoint,
            "s3.force-virtual-addressing": False,
        }
        if "AWS_ACCESS_KEY_ID" in credentials:
            for prefix in ("glue", "s3"):
                settings[f"{prefix}.access-key-id"] = credentials["AWS_ACCESS_KEY_ID"]
                settings[f"{prefix}.secret-access-key"] = credentials["AWS_SECRET_ACCESS_KEY"]
    return GlueCatalog("lake", **settings)


def ensure_table(
    catalog: GlueCatalog,
    identifier: tuple[str, str],
    fields: tuple[Field, ...],
    location: str,
    *,
    target_mib: int,
    partition: tuple[PartitionField, ...] = (),
    sort: tuple[str, ...] = (),
) -> bool:
    """Make a table unless it is there; answers whether it was made."""
    found = load_table(catalog, identifier)
    if found is not None:
        return False
    schema = iceberg_schema(fields)
    order = SortOrder(
        *(SortField(source_id=schema.find_field(name).field_id, transform=parse_transform(IDENTITY)) for name in sort)
    )
    catalog.create_table(
        identifier,
        schema=schema,
        location=location,
        partition_spec=_partition_spec(partition, schema),
        sort_order=order,
        properties=table_properties(target_mib),
    )
    return True


def evolve_table(catalog: GlueCatalog, identifier: tuple[str, str], fields: tuple[Field, ...]) -> tuple[str, ...]:
    """Give a table the columns and the wider types that a contract has grown; files and readers stay as they are.

    A table may hold more than the contract says, and wider types: another version of the contract may have been here.

    Args:
        catalog: the table's.
        identifier: database and table.
        fields: what the contract says, all columns.

    Returns:
        the columns added or widened, in words; none where the table had it all.

    Raises:
        FindingError: there is no such table, or a column has another type, which would need a rewrite.
        CommitConflictError: other writers were faster, again and again.
    """

    def change(table: Table) -> tuple[str, ...]:
        steps = list(_steps(table.schema().as_struct(), iceberg_schema(fields).as_struct(), (), ".".join(identifier)))
        if not steps:
            return ()
        with table.update_schema() as update:
            for path, kind, doc, is_new in steps:
                if is_new:
                    update.add_column(path, kind, doc=doc)
                else:
                    update.update_column(path, field_type=kind)
        return tuple(
            f"{'.'.join(path)} {'added' if is_new else f'widened to {kind}'}" for path, kind, _, is_new in steps
        )

    return change_table(catalog, identifier, change, attempts=_EVOLVE_ATTEMPTS)


def change_table(
    catalog: GlueCatalog, identifier: tuple[str, str], change: Callable[[Table], _Answer], *, attempts: int = 10
) -> _Answer:
    """Change a table as it is now, and again as it is then where another writer was faster; answers what `change` does.

    Args:
        catalog: the table's.
        identifier: database and table.
        change: looks at the table and commits to it, if there is anything to change.
        attempts: how often it may be overtaken.

    Raises:
        FindingError: there is no such table.
        CommitConflictError: other writers were faster, again and again.
    """
    for _ in range(attempts):
        table = existing_table(catalog, identifier)
        try:
            return change(table)
        except CommitFailedException:
            continue
    raise CommitConflictError(f"table {'.'.join(identifier)}: other writers were faster {attempts} times")


def lacks(table: Table, fields: tuple[Field, ...]) -> bool:
    """Whether a table as it was read lacks a column or a wider type that a contract has; asks nobody.

    Raises:
        FindingError: a column has another type, as `evolve_table` says.
    """
    return any(_steps(table.schema().as_struct(), iceberg_schema(fields).as_struct(), (), ".".join(table.name())))


_Step = tuple[tuple[str, ...], IcebergType, str | None, bool]


def _steps(there: StructType, declared: StructType, above: tuple[str, ...], table: str) -> Iterator[_Step]:
    """What to add or widen: path, type, description, and whether it is new."""
    known = {one.name: one for one in there.fields}
    for field in declared.fields:
        path = (*above, field.name)
        if field.name not in known:
            yield path, field.field_type, field.doc, True
        else:
            yield from _type_steps(known[field.name].field_type, field.field_type, path, table)


def _type_steps(there: IcebergType, declared: IcebergType, path: tuple[str, ...], table: str) -> Iterator[_Step]:
    if isinstance(there, StructType) and isinstance(declared, StructType):
        yield from _steps(there, declared, path, table)
    elif isinstance(there, ListType) and isinstance(declared, ListType):
        yield from _type_steps(there.element_type, declared.element_type, (*path, "element"), table)
    elif there != declared and _widens(there, declared):
        yield path, declared, None, False
    elif there != declared and not _widens(declared, there):
        raise FindingError(
            f"table {table}: column {'.'.join(path)} is {there}, and the contract says {declared}, which would rewrite "
            "it; a breaking change is a new major version: a dataset, and so a table, of its own"
        )


def _widens(old: IcebergType, new: IcebergType) -> bool:
    if isinstance(old, DecimalType) and isinstance(new, DecimalType):
        return old.scale == new.scale and old.precision < new.precision
    return (type(old), type(new)) in {(IntegerType, LongType), (FloatType, DoubleType)}


def existing_table(catalog: GlueCatalog, identifier: tuple[str, str]) -> Table:
    """The table that `lakehose apply` has made.

    Raises:
        FindingError: there is none of that name.
        TransientError: as `load_table` says.
    """
    table = load_table(catalog, identifier)
    if table is None:
        raise FindingError(f"table {'.'.join(identifier)}: there is none; `lakehose apply` makes it")
    return table


def load_table(catalog: GlueCatalog, identifier: tuple[str, str]) -> Table | None:
    """The table, or None where there is none of that name.

    Raises:
        TransientError: S3 or the way there is away, so that its metadata can't be read.
    """
    try:
        return catalog.load_table(identifier)
    except NoSuchTableError:
        return None
    except OSError as error:
        if not is_passing(error):
            raise
        raise TransientError(f"table {'.'.join(identifier)}: its metadata can't be read: {error}") from error
