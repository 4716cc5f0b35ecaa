"""Owns the declaration: `lake.yaml`, parsed once into a frozen `Lake`, from which everything else is derived.

Every refusal names the file, the key, what was given and what is allowed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import yaml

from lake.contract import Contract, read_contract
from lake.drops import RAW, Drop, check_drops
from lake.errors import DeclarationError, known_values
from lake.jobs import COMPACT, FILES, INGEST, MAINTAIN, Job
from lake.kubernetes import Kubernetes, TierLimits
from lake.names import POOL, Names
from lake.shape import (
    COMPACT_MAX_MIB,
    COMPACT_TARGET_MIB,
    INGEST_MIB,
    INGEST_OBJECTS,
    ORPHAN_HOURS,
    SNAPSHOT_HOURS,
    SNAPSHOTS_LEAST,
    SNAPSHOTS_MOST,
    LakeShape,
    checked_shape,
)

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "Buffering",
    "Dataset",
    "Jobs",
    "Lake",
    "LineageTarget",
    "Stream",
    "Tenant",
    "Tier",
    "Upkeep",
    "Workspace",
    "read_lake",
]


class Tier(StrEnum):
    """How a tenant's events travel."""

    DEDICATED = "dedicated"
    """Own delivery stream into the tenant's own bucket."""
    POOLED = "pooled"
    """A stream shared by many, partitioned by tenant into the landing bucket."""


@dataclass(frozen=True)
class Tenant:
    """A customer: own bucket, own database, own key."""

    id: str
    tier: Tier


@dataclass(frozen=True)
class Buffering:
    """When a delivery stream writes an object, whichever comes first."""

    size_mib: int = 64
    interval_seconds: int = 60
    compression: str = "GZIP"


@dataclass(frozen=True)
class Dataset:
    """A kind of event, with its contract and the way its streams buffer."""

    name: str
    contract: Contract
    buffering: Buffering
    contract_path: str = ""
    """The contract's file, relative to the declaration's folder."""


@dataclass(frozen=True)
class Upkeep:
    """What maintenance keeps of a table's past."""

    snapshot_hours: int = SNAPSHOT_HOURS
    """Snapshots younger than this are kept, for queries of the past and those under way."""
    snapshots_least: int = SNAPSHOTS_LEAST
    """Snapshots of the history that are kept whatever their age."""
    snapshots_most: int = SNAPSHOTS_MOST
    """Above so many the oldest go although they are young: each commit writes the list of all snapshots."""
    orphan_hours: int = ORPHAN_HOURS
    """Files that no snapshot knows are left alone until they are so old: a commit under way may need them."""


@dataclass(frozen=True)
class Jobs:
    """The jobs, and sizes of their work."""

    ingest_objects: int = INGEST_OBJECTS
    """Most objects one ingest commit takes."""
    ingest_mib: int = INGEST_MIB
    """Most MiB (as stored) one ingest commit takes."""
    compact_target_mib: int = COMPACT_TARGET_MIB
    """Size compaction aims a data file at."""
    pipeline: tuple[Job, ...] = (INGEST, COMPACT, MAINTAIN)
    """Every job, in the order of a run."""
    compact_max_mib: int = COMPACT_MAX_MIB
    """Most MiB (as stored) one run of compaction rewrites."""
    upkeep: Upkeep = field(default_factory=Upkeep)


@dataclass(frozen=True)
class LineageTarget:
    """Who is told of lineage, beside the manifest."""

    url: str
    """Of an OpenLineage endpoint, as Marquez is."""
    endpoint: str = "api/v1/lineage"
    """Path below it that takes events."""
    timeout_seconds: float = 3.0
    """Longest that an event may take, and that a job waits at its end."""


@dataclass(frozen=True)
class Stream:
    """A delivery stream: of one dataset, into one bucket."""

    name: str
    dataset: Dataset
    owner: str
    """The tenant it is dedicated to, or `pooled`."""
    bucket: str
    role: str
    database: str
    """Database of the owner, whose quarantine table takes what the stream refused."""
    tenants: tuple[str, ...]
    """Tenants whose events it carries."""


@dataclass(frozen=True)
class Workspace:
    """Where jobs run: one for each dedicated tenant, and one for all pooled tenants together.

    Thousands of pooled tenants share their jobs as they share a stream; a dedicated tenant's jobs run in a namespace
    of their own, under roles that reach nothing else.
    """

    owner: str
    """The dedicated tenant, or `pooled`."""
    tier: Tier
    tenants: tuple[str, ...]
    """Tenants whose tables its jobs write."""
    namespace: str
    """Kubernetes namespace."""


@dataclass(frozen=True)
class Lake:
    """Everything one `lake.yaml` declares for one environment."""

    company: str
    environment: str
    region: str
    tenants: tuple[Tenant, ...]
    datasets: tuple[Dataset, ...]
    active_partitions: int = 500
    """Partitions a delivery stream may hold open at once; AWS's default is 500, it grants up to 5,000."""
    jobs: Jobs = field(default_factory=Jobs)
    kubernetes: Kubernetes = field(default_factory=Kubernetes)
    drops: tuple[Drop, ...] = ()
    lineage: LineageTarget | None = None

    @property
    def names(self) -> Names:
        """Names of what the lake makes."""
        return Names(self.company, self.environment)

    def tenant(self, tenant_id: str) -> Tenant:
        """Find a declared tenant.

        Raises:
            DeclarationError: the lake declares none of this name.
        """
        for one in self.tenants:
            if one.id == tenant_id:
                return one
        raise DeclarationError(f"tenant: {known_values(tenant_id, [one.id for one in self.tenants])}")

    def dataset(self, name: str) -> Dataset:
        """Find a declared dataset.

        Raises:
            DeclarationError: the lake declares none of this name.
        """
        for one in self.datasets:
            if one.name == name:
                return one
        raise DeclarationError(f"dataset: {known_values(name, [one.name for one in self.datasets])}")

    @property
    def has_pool(self) -> bool:
        """Whether any tenant is pooled, so that there is a landing bucket."""
        return any(one.tier is Tier.POOLED for one in self.tenants)

    def owners(self) -> tuple[str, ...]:
        """Owners of buckets, keys and databases: each tenant, and the pool if any tenant is in it."""
        return (*(one.id for one in self.tenants), *([POOL] if self.has_pool else []))

    def owner(self, name: str) -> str:
        """Find an owner: a tenant, or the pool.

        Raises:
            DeclarationError: there is none of this name.
        """
        if name not in self.owners():
            raise DeclarationError(f"owner: {known_values(name, self.owners())}")
        return name

    def workspaces(self) -> tuple[Workspace, ...]:
        """Where jobs run, in the declaration's order, the pool last."""
        names = self.names
        found = [
            Workspace(one.id, one.tier, (one.id,), names.namespace(one.id))
            for one in self.tenants
            if one.tier is Tier.DEDICATED
        ]
        if self.has_pool:
            pooled = tuple(one.id for one in self.tenants if one.tier is Tier.POOLED)
            found.append(Workspace(POOL, Tier.POOLED, pooled, names.namespace(POOL)))
        return tuple(found)

    def workspace(self, name: str) -> Workspace:
        """Find the workspace of an owner, or of a tenant.

        Raises:
            DeclarationError: there is no such owner and no such tenant.
        """
        for one in self.workspaces():
            if name == one.owner or name in one.tenants:
                return one
        raise DeclarationError(f"owner: {known_values(name, self.owners())}")

    def pipeline(self) -> tuple[Job, ...]:
        """Every job, in the order of a run."""
        return self.jobs.pipeline

    def jobs_of(self, workspace: Workspace) -> tuple[Job, ...]:
        """The jobs that have something to do in a workspace: files are taken where some of its tenants drop them."""
        if any(one.tenant in workspace.tenants for one in self.drops):
            return self.pipeline()
        left = [one for one in self.pipeline() if one.name != FILES.name]
        return tuple(replace(one, after=tuple(name for name in one.after if name != FILES.name)) for one in left)

    def job(self, name: str) -> Job:
        """Find a job.

        Raises:
            DeclarationError: there is none of this name.
        """
        for one in self.pipeline():
            if one.name == name:
                return one
        raise DeclarationError(f"job: {known_values(name, [one.name for one in self.pipeline()])}")

    def limits(self, tier: Tier) -> TierLimits:
        """What a namespace of a tier may take of a cluster."""
        return self.kubernetes.dedicated if tier is Tier.DEDICATED else self.kubernetes.pooled

    def streams(self) -> tuple[Stream, ...]:
        """All delivery streams, in the declaration's order."""
        pooled = tuple(one.id for one in self.tenants if one.tier is Tier.POOLED)
        found: list[Stream] = []
        for dataset in self.datasets:
            found += [self._stream(dataset, one.id, (one.id,)) for one in self.tenants if one.tier is Tier.DEDICATED]
            if pooled:
                found.append(self._stream(dataset, POOL, pooled))
        return tuple(found)

    def stream_of(self, dataset: str, tenant: str) -> Stream:
        """The stream that carries a tenant's events of a dataset."""
        self.dataset(dataset)
        self.tenant(tenant)
        return next(one for one in self.streams() if one.dataset.name == dataset and tenant in one.tenants)

    def _stream(self, dataset: Dataset, owner: str, tenants: tuple[str, ...]) -> Stream:
        names = self.names
        return Stream(
            name=names.stream(dataset.name, owner),
            dataset=dataset,
            owner=owner,
            bucket=names.bucket(owner),
            role=names.role(dataset.name, owner),
            database=names.database(owner),
            tenants=tenants,
        )


_SLUG = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_DATASET = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_DROP = re.compile(r"[a-z][a-z0-9]*([_-][a-z0-9]+)*")
_RESERVED_DATASETS = {"quarantine"}
_LONGEST_ID = 40


def read_lake(path: Path) -> Lake:
    """Read `lake.yaml` and the contracts it names, which are relative to it.

    Raises:
        DeclarationError: a file is missing, or says something that isn't allowed.
    """
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_NoTwins)  # noqa: S506 - a SafeLoader of ours
    except FileNotFoundError:
        raise DeclarationError(f"{path}: no such file; name the declaration with --lake") from None
    except yaml.YAMLError as error:
        raise DeclarationError(f"{path}: not YAML: {error}") from None
    model = checked_shape(str(path), raw)
    _check_ids(str(path), model)
    lake = _lake(path, model)
    contracts = {one.name: one.contract for one in lake.datasets}
    check_drops(str(path), lake.drops, contracts, {owner: lake.names.bucket(owner) for owner in lake.owners()})
    return lake


def _lake(path: Path, model: LakeShape) -> Lake:
    return Lake(
        company=model.company,
        environment=model.environment,
        region=model.region,
        tenants=tuple(Tenant(name, Tier(one.tier)) for name, one in model.tenants.items()),
        datasets=tuple(
            Dataset(
                name,
                read_contract(path.parent / one.contract, name),
                Buffering(one.buffering.size_mib, one.buffering.interval_seconds, one.buffering.compression),
                one.contract,
            )
            for name, one in model.datasets.items()
        ),
        active_partitions=model.quotas.active_partitions,
        jobs=Jobs(
            model.jobs.ingest.max_objects,
            model.jobs.ingest.max_mib,
            model.jobs.compact.target_mib,
            model.jobs.pipeline(with_files=bool(model.drops)),
            model.jobs.compact.max_mib,
            Upkeep(
                model.jobs.maintain.snapshot_hours,
                model.jobs.maintain.snapshots_least,
                model.jobs.maintain.snapshots_most,
                model.jobs.maintain.orphan_hours,
            ),
        ),
        kubernetes=model.kubernetes.settings(),
        drops=tuple(_drop(path, model, name) for name in model.drops),
        lineage=LineageTarget(**model.lineage.model_dump()) if model.lineage else None,
    )


def _drop(path: Path, model: LakeShape, name: str) -> Drop:
    one, here = model.drops[name], f"{path}: drops.{name}"
    if one.tenant not in model.tenants:
        raise DeclarationError(f"{here}.tenant: {known_values(one.tenant, model.tenants)}")
    if one.dataset not in model.datasets:
        raise DeclarationError(f"{here}.dataset: {known_values(one.dataset, model.datasets)}")
    return Drop(
        name=name,
        tenant=one.tenant,
        dataset=one.dataset,
        bucket=one.bucket or Names(model.company, model.environment).bucket(one.tenant),
        prefix=f"{RAW}{name}/" if one.prefix is None else one.prefix,
        event_time=one.event_time,
        timezone=one.timezone,
        delimiter=one.delimiter,
        quote=one.quote,
        encoding=one.encoding,
    )


class _NoTwins(yaml.SafeLoader):
    """A safe loader that refuses a key given twice, where YAML would let the last one win."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:  # noqa: FBT001, FBT002
        keys = [key.value for key, _ in node.value]
        for index, key in enumerate(keys):
            if key in keys[:index]:
                raise yaml.MarkedYAMLError(
                    problem=f"{key!r} is there twice", problem_mark=node.value[index][0].start_mark
                )
        return super().construct_mapping(node, deep)


def _check_ids(path: str, model: LakeShape) -> None:
    for name in model.tenants:
        if not _SLUG.fullmatch(name) or len(name) > _LONGEST_ID:
            allowed = f"a-z, 0-9 and single hyphens, a letter first, at most {_LONGEST_ID}"
            raise DeclarationError(f"{path}: tenants: got {name!r}, allowed are {allowed}")
        if name == POOL:
            raise DeclarationError(f"{path}: tenants: {POOL!r} is the name of what pooled tenants share")
    for name in model.datasets:
        if not _DATASET.fullmatch(name) or len(name) > _LONGEST_ID:
            allowed = f"a-z, 0-9 and single underscores, a letter first, at most {_LONGEST_ID}"
            raise DeclarationError(f"{path}: datasets: got {name!r}, allowed are {allowed}")
        if name in _RESERVED_DATASETS:
            raise DeclarationError(f"{path}: datasets: {name!r} is the name of the table of refused records")
    if "files" in model.jobs.model_fields_set and not model.drops:
        raise DeclarationError(f"{path}: jobs.files: there is no such job without `drops:`, whose files it takes")
    for name in model.drops:
        if not _DROP.fullmatch(name) or len(name) > _LONGEST_ID:
            allowed = f"a-z, 0-9 and single hyphens or underscores, a letter first, at most {_LONGEST_ID}"
            raise DeclarationError(f"{path}: drops: got {name!r}, allowed are {allowed}")
