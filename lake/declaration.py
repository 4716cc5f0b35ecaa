"""Owns the declaration: `lake.yaml`, parsed once into a frozen `Lake`, from which everything else is derived.

Every refusal names the file, the key, what was given and what is allowed.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from lake.contract import Contract, read_contract
from lake.errors import DeclarationError, known_values
from lake.names import POOL, Names

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["Buffering", "Dataset", "Jobs", "Lake", "Stream", "Tenant", "Tier", "read_lake"]


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


@dataclass(frozen=True)
class Jobs:
    """Sizes of the jobs' work."""

    ingest_objects: int = 500
    """Most objects one ingest commit takes."""
    ingest_mib: int = 512
    """Most MiB (as stored) one ingest commit takes."""
    compact_target_mib: int = 128
    """Size compaction aims a data file at."""


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


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


_Slug = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=40)]


class _Tenant(_Strict):
    tier: Tier


class _Buffering(_Strict):
    # with dynamic partitioning AWS takes 60 to 900 s and refuses to buffer nothing
    size_mib: Annotated[int, Field(ge=1, le=128)] = Buffering.size_mib
    interval_seconds: Annotated[int, Field(ge=60, le=900)] = Buffering.interval_seconds
    compression: Annotated[str, Field(pattern="^(GZIP|UNCOMPRESSED)$")] = Buffering.compression


class _Dataset(_Strict):
    contract: str
    buffering: _Buffering = _Buffering()


class _Ingest(_Strict):
    max_objects: Annotated[int, Field(ge=1, le=100_000)] = Jobs.ingest_objects
    max_mib: Annotated[int, Field(ge=1, le=1_000_000)] = Jobs.ingest_mib


class _Compact(_Strict):
    target_mib: Annotated[int, Field(ge=1, le=2048)] = Jobs.compact_target_mib


class _Jobs(_Strict):
    ingest: _Ingest = _Ingest()
    compact: _Compact = _Compact()


class _Quotas(_Strict):
    active_partitions: Annotated[int, Field(ge=500, le=5000)] = 500


class _Lake(_Strict):
    company: Annotated[_Slug, Field(max_length=20)]
    environment: Annotated[_Slug, Field(max_length=12)]
    region: Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")] = "us-east-1"
    tenants: Annotated[dict[str, _Tenant], Field(min_length=1)]
    datasets: Annotated[dict[str, _Dataset], Field(min_length=1)]
    quotas: _Quotas = _Quotas()
    jobs: _Jobs = _Jobs()


_SLUG = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_DATASET = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
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
    try:
        model = _Lake.model_validate(raw)
    except ValidationError as error:
        raise DeclarationError("\n".join(_sentence(str(path), one) for one in error.errors())) from None
    _check_ids(str(path), model)
    return Lake(
        company=model.company,
        environment=model.environment,
        region=model.region,
        tenants=tuple(Tenant(name, one.tier) for name, one in model.tenants.items()),
        datasets=tuple(
            Dataset(
                name,
                read_contract(path.parent / one.contract, name),
                Buffering(one.buffering.size_mib, one.buffering.interval_seconds, one.buffering.compression),
            )
            for name, one in model.datasets.items()
        ),
        active_partitions=model.quotas.active_partitions,
        jobs=Jobs(model.jobs.ingest.max_objects, model.jobs.ingest.max_mib, model.jobs.compact.target_mib),
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


def _sentence(path: str, error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"]) or "the file"
    if error["type"] == "extra_forbidden":
        *parents, key = error["loc"]
        model: Any = _Lake
        for parent in parents:
            model = _inner(model, str(parent))
        return f"{path}: {place}: unknown key: {known_values(key, model.model_fields)}"
    return f"{path}: {place}: {error['msg']}; got {error['input']!r}"


def _inner(model: Any, key: str) -> Any:
    # inside `tenants` and `datasets` the keys are the user's own names: the model is the values'
    if model is _Lake and key == "tenants":
        return {"*": _Tenant}
    if model is _Lake and key == "datasets":
        return {"*": _Dataset}
    if isinstance(model, dict):
        return model["*"]
    return model.model_fields[key].annotation


def _check_ids(path: str, model: _Lake) -> None:
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
