"""Owns lineage: each batch, and each other run of a job, told as OpenLineage events.

A batch is one run, whose id is made of the batch's own id and the moment it was planned: whoever carries it out, after
a crash too, tells the same run. It starts; it completes once its rows are in the table, or is aborted once somebody
refused them; one that a quality rule holds back is still running. The lines of objects are its input, the tenant's
table and the quarantine its outputs. Datasets are named as OpenLineage names them, so that other tools' events meet
ours. Source: https://openlineage.io/docs/spec/naming/
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import attr
from openlineage.client import event_v2 as ol
from openlineage.client import facet_v2 as facets
from openlineage.client.serde import Serde
from openlineage.client.uuid import generate_static_uuid

from lake.contract import ListOf, StructOf
from lake.envelope import ENVELOPE
from lake.manifest import NO_TENANT, Lane
from lake.names import Names, bucket_and_key
from lake.quality import Severity
from lake.tables import QUARANTINE, QUARANTINE_COLUMNS, columns

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from lake.contract import Field
    from lake.declaration import Lake, Stream
    from lake.manifest import BatchId, BatchReceipt
    from lake.quality import Result

__all__ = [
    "PRODUCER",
    "BatchStory",
    "Parent",
    "TableStory",
    "Turn",
    "batch_event",
    "batch_run_id",
    "iso",
    "job_run_id",
    "table_event",
]

PRODUCER = "urn:lakehose"
"""Who tells the events."""
_MOST_LOCATIONS = 200
_ASSERTIONS = {
    "nullValues": "not_null",
    "missingValues": "not_null",
    "invalidValues": "accepted_values",
    "duplicateValues": "unique",
    "rowCount": "row_count",
    "latency": "freshness",
    "volumeDeviation": "volume",
}


class Turn(StrEnum):
    """What has happened to a run, by OpenLineage's names."""

    START = "START"
    RUNNING = "RUNNING"
    """It is held back by a quality rule."""
    COMPLETE = "COMPLETE"
    FAIL = "FAIL"
    ABORT = "ABORT"
    """Its rows were refused."""


@dataclass(frozen=True)
class Parent:
    """The run of a job that a batch is a part of."""

    job: str
    run_id: str
    root: tuple[str, str, str] | None = None
    """Namespace, job and run that started it all, as a scheduler says in OPENLINEAGE_PARENT_ID."""

    @classmethod
    def of(cls, job: str, run_id: str) -> Parent:
        """A run of a job, and what started it, as the environment says."""
        parts = os.environ.get("OPENLINEAGE_PARENT_ID", "").split("/")
        known = len(parts) == len(("namespace", "job", "run"))
        return cls(job, run_id, (parts[0], parts[1], parts[2]) if known else None)


@dataclass(frozen=True)
class BatchStory:
    """What is known of a batch by its plan."""

    batch: BatchId
    planned_at_ms: int
    schema_version: str
    objects: Mapping[str, int]
    """Bytes as stored, by object (`s3://…`)."""


@dataclass(frozen=True)
class TableStory:
    """What a job did to one table."""

    job: str
    """`compact`, `maintain`, `erase`, `replay` or `backfill`."""
    owner: str
    """Whose table it is."""
    table: str
    run_id: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Numbers of the job's report."""
    snapshot_id: int | None = None
    rows: int | None = None
    """Rows that it wrote."""


@attr.define
class _FactsRunFacet(facets.RunFacet):
    """What lakehose knows of a run beside what OpenLineage has words for."""

    facts: dict[str, Any] = attr.field(factory=dict)


def batch_run_id(batch: BatchId, planned_at_ms: int) -> str:
    """Id of a batch's run, a UUIDv7 of the moment it was planned."""
    return str(generate_static_uuid(_moment(planned_at_ms), str(batch).encode()))


def job_run_id(started_ms: int, *names: str) -> str:
    """Id of a run of a job, a UUIDv7 of when it started."""
    return str(generate_static_uuid(_moment(started_ms), "/".join(names).encode()))


def _moment(moment_ms: int) -> datetime:
    return datetime.fromtimestamp(moment_ms / 1000, UTC)


def iso(moment_ms: int) -> str:
    """A moment (milliseconds since 1970) as events have it.

    >>> iso(1_700_000_000_123)
    '2023-11-14T22:13:20.123Z'
    """
    return _moment(moment_ms).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _namespace(lake: Lake) -> str:
    return f"lakehose://{lake.company}/{lake.environment}"


def batch_event(
    lake: Lake,
    stream: Stream,
    story: BatchStory,
    turn: Turn,
    at_ms: int,
    *,
    parent: Parent,
    receipt: BatchReceipt | None = None,
    results: Sequence[Result] = (),
    problem: str = "",
) -> dict[str, Any]:
    """One event of a batch, as JSON takes it.

    Args:
        lake: the declaration.
        stream: that the batch came by.
        story: of its plan.
        turn: what has happened.
        at_ms: when, milliseconds since 1970.
        parent: the run that carries it out.
        receipt: what it found, once it is known.
        results: what quality rules found.
        problem: why it failed.
    """
    batch = story.batch
    facts: dict[str, Any] = {
        "batch": str(batch),
        "plan": f"s3://{stream.bucket}/{Names.plan_key(batch.dataset, batch.tenant, batch.lane, batch.number)}",
        "contractVersion": story.schema_version,
        "objects": len(story.objects),
    }
    if receipt is not None:
        facts["counts"] = {tenant: dict(vars(counts)) for tenant, counts in sorted(receipt.counts.items())}
    run: dict[str, facets.RunFacet] = {
        "nominalTime": facets.nominal_time_run.NominalTimeRunFacet(iso(story.planned_at_ms), producer=PRODUCER),
        "parent": _parent_facet(lake, parent),
        "lakehose": _FactsRunFacet(facts, producer=PRODUCER),
    }
    if problem:
        run["errorMessage"] = facets.error_message_run.ErrorMessageRunFacet(problem, "Python", producer=PRODUCER)
    name = f"ingest.{batch.series.replace('/', '.')}"
    inputs = _inputs(story, receipt, results)
    told = turn in {Turn.COMPLETE, Turn.ABORT}
    outputs = _outputs(lake, stream, batch, inputs, receipt) if told else []
    ours = (batch_run_id(batch, story.planned_at_ms), run)
    return _event(lake, turn, at_ms, job=(name, "INGEST"), run=ours, inputs=inputs, outputs=outputs)


def table_event(lake: Lake, story: TableStory, turn: Turn, at_ms: int, *, parent: Parent) -> dict[str, Any]:
    """One event of a job's work at one table, which it reads and writes; arguments as `batch_event` has them."""
    run: dict[str, facets.RunFacet] = {
        "parent": _parent_facet(lake, parent),
        "lakehose": _FactsRunFacet(dict(story.facts), producer=PRODUCER),
    }
    fields = QUARANTINE_COLUMNS if story.table == QUARANTINE else columns(lake.dataset(story.table).contract)
    output = _table(lake, story.owner, story.table, fields, snapshot_id=story.snapshot_id, rows=story.rows)
    name = f"{story.job}.{story.table}.{story.owner}"
    source = ol.InputDataset(output.namespace, output.name)
    ours = (story.run_id, run)
    return _event(lake, turn, at_ms, job=(name, story.job.upper()), run=ours, inputs=[source], outputs=[output])


def _event(
    lake: Lake,
    turn: Turn,
    at_ms: int,
    *,
    job: tuple[str, str],
    run: tuple[str, dict[str, facets.RunFacet]],
    inputs: Sequence[ol.InputDataset],
    outputs: Sequence[ol.OutputDataset],
) -> dict[str, Any]:
    name, kind = job
    job_type = facets.job_type_job.JobTypeJobFacet("BATCH", "LAKEHOSE", kind, producer=PRODUCER)
    event = ol.RunEvent(
        eventTime=iso(at_ms),
        producer=PRODUCER,
        eventType=ol.RunState(turn),
        run=ol.Run(run[0], facets=run[1]),
        job=ol.Job(_namespace(lake), name, facets={"jobType": job_type}),
        inputs=list(inputs),
        outputs=list(outputs),
    )
    return Serde.to_dict(event)


def _parent_facet(lake: Lake, parent: Parent) -> facets.RunFacet:
    one = facets.parent_run
    root = None
    if parent.root is not None:
        namespace, job, run_id = parent.root
        root = one.Root(one.RootRun(run_id), one.RootJob(namespace, job))
    return one.ParentRunFacet(
        run=one.Run(parent.run_id), job=one.Job(_namespace(lake), parent.job), root=root, producer=PRODUCER
    )


def _inputs(story: BatchStory, receipt: BatchReceipt | None, results: Sequence[Result]) -> list[ol.InputDataset]:
    places: dict[tuple[str, str], list[str]] = {}
    for uri in story.objects:
        places.setdefault(_input_place(uri, story.batch), []).append(uri)
    return [_input(place, uris, story, receipt, results) for place, uris in sorted(places.items())]


def _input_place(uri: str, batch: BatchId) -> tuple[str, str]:
    """Namespace and name of what an object is a part of: not of its day, which would be another dataset every day."""
    bucket, key = bucket_and_key(uri)
    top = key.partition("/")[0]
    if batch.lane is Lane.REFUSED:
        name = f"errors/{batch.dataset}"
    elif top == "processed":
        name = Names.processed_prefix(batch.dataset, None if batch.tenant == NO_TENANT else batch.tenant).rstrip("/")
    else:
        name = f"{top}/{batch.dataset}"
    return f"s3://{bucket}", name


def _input(
    place: tuple[str, str],
    uris: list[str],
    story: BatchStory,
    receipt: BatchReceipt | None,
    results: Sequence[Result],
) -> ol.InputDataset:
    records = sum(receipt.objects.get(uri, 0) for uri in uris) if receipt is not None else None
    found: dict[str, facets.InputDatasetFacet] = {
        "inputStatistics": facets.input_statistics_input_dataset.InputStatisticsInputDatasetFacet(
            rowCount=records,
            size=sum(story.objects[uri] for uri in uris),
            fileCount=len(uris),
            producer=PRODUCER,
        )
    }
    if len(uris) <= _MOST_LOCATIONS:  # of more, the plan that the run names has the list
        where = facets.base_subset_dataset.LocationSubsetCondition(sorted(uris))
        found["subset"] = facets.base_subset_dataset.InputSubsetInputDatasetFacet(where, producer=PRODUCER)
    if results:
        found["dataQualityAssertions"] = facets.data_quality_assertions_dataset.DataQualityAssertionsDatasetFacet(
            [_assertion(one) for one in results], producer=PRODUCER
        )
    return ol.InputDataset(*place, inputFacets=found)


def _assertion(one: Result) -> facets.data_quality_assertions_dataset.Assertion:
    return facets.data_quality_assertions_dataset.Assertion(
        assertion=_ASSERTIONS[one.metric],
        success=one.passed,
        column=one.columns[0] if len(one.columns) == 1 else None,
        severity="warn" if one.severity is Severity.WARNING else one.severity.value,
        name=one.rule,
        description=one.description or None,
        expected=one.limit,
        actual=None if one.value is None else f"{one.value:.10g}",
        params={"metric": one.metric, "unit": one.unit.value, "columns": list(one.columns)},
    )


def _outputs(
    lake: Lake,
    stream: Stream,
    batch: BatchId,
    inputs: Sequence[ol.InputDataset],
    receipt: BatchReceipt | None,
) -> list[ol.OutputDataset]:
    if receipt is None:
        return []
    found = []
    counts = receipt.counts.values()
    refused = sum(one.quarantined + one.refused for one in counts)
    owner = stream.owner
    if batch.lane is Lane.EVENTS:
        owner, fields = batch.tenant, columns(stream.dataset.contract)
        rows = sum(one.ingested for one in counts)
        table = _table(lake, owner, batch.dataset, fields, snapshot_id=receipt.snapshot_id, rows=rows)
        lineage = _column_lineage(fields, inputs)
        found.append(attr.evolve(table, facets={**(table.facets or {}), "columnLineage": lineage}))
    if refused:
        found.append(_table(lake, owner, QUARANTINE, QUARANTINE_COLUMNS, snapshot_id=None, rows=refused))
    return found


def _table(
    lake: Lake, owner: str, table: str, fields: Sequence[Field], *, snapshot_id: int | None, rows: int | None
) -> ol.OutputDataset:
    """A table by where it lies, and by the name that Athena, and who asks it, has for it."""
    namespace, name = bucket_and_key(Names.table_location(lake.names.bucket(owner), table))
    athena = facets.symlinks_dataset.Identifier(
        f"awsathena://athena.{lake.region}.amazonaws.com",
        f"AwsDataCatalog.{lake.names.database(owner)}.{table}",
        "TABLE",
    )
    found: dict[str, facets.DatasetFacet] = {
        "symlinks": facets.symlinks_dataset.SymlinksDatasetFacet([athena], producer=PRODUCER),
        "schema": facets.schema_dataset.SchemaDatasetFacet([_schema_field(one) for one in fields], producer=PRODUCER),
        "storage": facets.storage_dataset.StorageDatasetFacet("iceberg", "parquet", producer=PRODUCER),
    }
    if snapshot_id is not None:
        found["version"] = facets.dataset_version_dataset.DatasetVersionDatasetFacet(
            str(snapshot_id), producer=PRODUCER
        )
    written: dict[str, facets.OutputDatasetFacet] = {}
    if rows is not None:
        written["outputStatistics"] = facets.output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(
            rowCount=rows, producer=PRODUCER
        )
    return ol.OutputDataset(f"s3://{namespace}", name, facets=found, outputFacets=written)


def _schema_field(one: Field) -> facets.schema_dataset.SchemaDatasetFacetFields:
    make = facets.schema_dataset.SchemaDatasetFacetFields
    match one.type:
        case StructOf(inner):
            return make(one.name, "struct", one.description or None, fields=[_schema_field(part) for part in inner])
        case ListOf():
            return make(one.name, "array", one.description or None)
        case kind:
            return make(one.name, str(kind), one.description or None)


def _column_lineage(
    fields: Sequence[Field], inputs: Sequence[ol.InputDataset]
) -> facets.column_lineage_dataset.ColumnLineageDatasetFacet:
    """Each column is a field of the event, as it was; which events become rows, their ids decide."""
    one = facets.column_lineage_dataset
    direct = [one.Transformation("DIRECT", "IDENTITY")]
    found = {}
    for column in fields:
        if column.name.startswith("_"):
            continue  # ingest's own
        path = column.name if column.name in ENVELOPE else f"payload.{column.name}"
        sources = [one.InputField(source.namespace, source.name, path, direct) for source in inputs]
        found[column.name] = one.Fields(sources)
    dropped = [one.Transformation("INDIRECT", "FILTER", "an event that is in the table is dropped")]
    ids = [one.InputField(source.namespace, source.name, "event_id", dropped) for source in inputs]
    return one.ColumnLineageDatasetFacet(found, ids, producer=PRODUCER)
