"""Owns the shape of `lake.yaml`: which keys there are, what they may hold, and the sentences that refuse the rest."""

from __future__ import annotations

import types
from dataclasses import replace
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from lake.drops import Drop
from lake.errors import DeclarationError, known_values
from lake.jobs import COMPACT, FILES, INGEST, MAINTAIN, Executors, Job, PodSize, Schedule
from lake.kubernetes import Kubernetes, TierLimits

__all__ = ["LakeShape", "checked_shape"]

INGEST_OBJECTS, INGEST_MIB, COMPACT_TARGET_MIB, COMPACT_MAX_MIB = 500, 512, 128, 16_384
SNAPSHOT_HOURS, SNAPSHOTS_LEAST, SNAPSHOTS_MOST, ORPHAN_HOURS = 72, 10, 500, 72


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _schedule(text: str) -> str:
    return Schedule.parse(text).text


_Slug = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(-[a-z0-9]+)*$", max_length=40)]
_Cpu = Annotated[str, Field(pattern=r"^([1-9][0-9]*m?|[0-9]+\.[0-9]{1,3})$")]
_S3a = Annotated[str, Field(pattern=r"^s3a://[a-z0-9.-]{3,63}(/.*)?$")]
_ImageName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9._:/@-]*$", max_length=500)]
_Name = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", max_length=253)]
_ScheduleText = Annotated[str, AfterValidator(_schedule)]


class _Tenant(_Strict):
    tier: Literal["dedicated", "pooled"]


class _Buffering(_Strict):
    # with dynamic partitioning AWS refuses to buffer nothing
    size_mib: Annotated[int, Field(ge=1, le=128)] = 64
    interval_seconds: Annotated[int, Field(ge=1, le=900)] = 60
    compression: Literal["GZIP", "UNCOMPRESSED"] = "GZIP"


class _Dataset(_Strict):
    contract: str
    buffering: _Buffering = _Buffering()


class _Drop(_Strict):
    tenant: str
    dataset: str
    bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")] | None = None
    # 800 bytes at most of the 1,024 that a key may have: behind the prefix comes the file's name
    prefix: Annotated[str, Field(pattern=r"^([^/\s].*)?$", max_length=200)] | None = None
    event_time: str | None = None
    timezone: str = Drop.timezone
    delimiter: Annotated[str, Field(pattern=r"^[^\r\n\x00]$")] = Drop.delimiter
    quote: Annotated[str, Field(pattern=r"^[^\s\x00]$")] = Drop.quote
    encoding: Literal["utf-8", "utf-16", "latin-1", "windows-1252"] = "utf-8"


class _PodSize(_Strict):
    cores: Annotated[int, Field(ge=1, le=64)] | None = None
    # Spark refuses a driver with less
    memory_mib: Annotated[int, Field(ge=512, le=1_000_000)] | None = None
    cpu: _Cpu | None = None

    def over(self, size: PodSize) -> PodSize:
        """What is given here, and the rest from a default."""
        return PodSize(self.cores or size.cores, self.memory_mib or size.memory_mib, self.cpu or size.cpu)


class _Executors(_Strict):
    least: Annotated[int, Field(ge=0, le=1000)] = Executors.least
    most: Annotated[int, Field(ge=1, le=1000)] = Executors.most

    @model_validator(mode="after")
    def _in_order(self) -> _Executors:
        if self.least > self.most:
            raise ValueError(f"least ({self.least}) is more than most ({self.most})")
        return self


class _Job(_Strict):
    # None is a value here: a job that runs by hand only
    schedule: _ScheduleText | None = None
    retries: Annotated[int, Field(ge=0, le=100)] | None = None
    retry_seconds: Annotated[int, Field(ge=1, le=3600)] | None = None
    timeout_minutes: Annotated[int, Field(ge=1, le=10_080)] | None = None
    driver: _PodSize = _PodSize()
    executor: _PodSize = _PodSize()
    executors: _Executors | None = None

    def over(self, job: Job) -> Job:
        """What is given here, and the rest from a default."""
        given = self.model_fields_set
        schedule = (self.schedule and Schedule(self.schedule)) if "schedule" in given else job.schedule
        return Job(
            name=job.name,
            after=job.after,
            schedule=schedule or None,
            retries=job.retries if self.retries is None else self.retries,
            retry_seconds=self.retry_seconds or job.retry_seconds,
            timeout_minutes=self.timeout_minutes or job.timeout_minutes,
            driver=self.driver.over(job.driver),
            executor=self.executor.over(job.executor),
            executors=Executors(self.executors.least, self.executors.most) if self.executors else job.executors,
            overhead=job.overhead,
        )


class _Ingest(_Job):
    max_objects: Annotated[int, Field(ge=1, le=100_000)] = INGEST_OBJECTS
    max_mib: Annotated[int, Field(ge=1, le=1_000_000)] = INGEST_MIB
    every_seconds: Annotated[int, Field(ge=1, le=3600)] | None = None

    @model_validator(mode="after")
    def _started_by_something(self) -> _Ingest:
        if self.every_seconds and "schedule" in self.model_fields_set and self.schedule is None:
            raise ValueError("every_seconds needs a schedule, which starts the job and starts it again where it ended")
        return self

    def over(self, job: Job) -> Job:
        """What is given here, and the rest from a default."""
        return replace(super().over(job), every_seconds=self.every_seconds)


class _Compact(_Job):
    target_mib: Annotated[int, Field(ge=1, le=2048)] = COMPACT_TARGET_MIB
    max_mib: Annotated[int, Field(ge=1, le=100_000_000)] = COMPACT_MAX_MIB


class _Maintain(_Job):
    snapshot_hours: Annotated[int, Field(ge=1, le=87_600)] = SNAPSHOT_HOURS
    snapshots_least: Annotated[int, Field(ge=1, le=100_000)] = SNAPSHOTS_LEAST
    snapshots_most: Annotated[int, Field(ge=10, le=100_000)] = SNAPSHOTS_MOST
    # Iceberg's own guard: a younger file may belong to a commit that is under way
    orphan_hours: Annotated[int, Field(ge=24, le=87_600)] = ORPHAN_HOURS

    @model_validator(mode="after")
    def _snapshots_in_order(self) -> _Maintain:
        if self.snapshots_least > self.snapshots_most:
            raise ValueError(
                f"snapshots_least ({self.snapshots_least}) is more than snapshots_most ({self.snapshots_most})"
            )
        return self


class _Jobs(_Strict):
    files: _Job = _Job()
    ingest: _Ingest = _Ingest()
    compact: _Compact = _Compact()
    maintain: _Maintain = _Maintain()

    def pipeline(self, *, with_files: bool) -> tuple[Job, ...]:
        """Every job, in the order of a run."""
        ingest, rest = self.ingest.over(INGEST), (self.compact.over(COMPACT), self.maintain.over(MAINTAIN))
        if not with_files:
            return (ingest, *rest)
        return (self.files.over(FILES), replace(ingest, after=(FILES.name,)), *rest)


class _TierLimits(_Strict):
    priority: Annotated[int, Field(ge=-1_000_000, le=1_000_000_000)]
    cpu: Annotated[int, Field(ge=1, le=1_000_000)]
    memory_gib: Annotated[int, Field(ge=1, le=10_000_000)]
    pods: Annotated[int, Field(ge=2, le=1_000_000)]

    def limits(self) -> TierLimits:
        return TierLimits(self.priority, self.cpu, self.memory_gib, self.pods)


class _Tiers(_Strict):
    dedicated: _TierLimits | None = None
    pooled: _TierLimits | None = None


class _Kubernetes(_Strict):
    image: _ImageName | None = None
    firehose_image: _ImageName | None = None
    pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    cluster: Annotated[str, Field(pattern=r"^[0-9A-Za-z][A-Za-z0-9_-]{0,99}$")] | None = None
    credentials_secret: _Name | None = None
    event_logs: _S3a | None = None
    shuffle_fallback: Annotated[_S3a, Field(pattern="/$")] | None = None
    spot: bool | None = None
    local_nvme: bool | None = None
    scratch_gib: Annotated[int, Field(ge=1, le=100_000)] | None = None
    history: Annotated[int, Field(ge=1, le=1000)] | None = None
    keep_finished_hours: Annotated[int, Field(ge=1, le=8760)] | None = None
    tiers: _Tiers = _Tiers()

    def settings(self) -> Kubernetes:
        """What is given here, and the defaults for the rest."""
        given: dict[str, Any] = self.model_dump(exclude={"tiers"}, exclude_none=True)
        tiers = {"dedicated": self.tiers.dedicated, "pooled": self.tiers.pooled}
        given |= {name: one.limits() for name, one in tiers.items() if one}
        return Kubernetes(**given)


class _Lineage(_Strict):
    url: Annotated[str, Field(pattern=r"^https?://[^\s/]+(/\S*)?$")]
    endpoint: Annotated[str, Field(pattern=r"^[^/\s]\S*$")] = "api/v1/lineage"
    timeout_seconds: Annotated[float, Field(ge=0.1, le=60)] = 3.0


class _Quotas(_Strict):
    active_partitions: Annotated[int, Field(ge=500, le=5000)] = 500


class LakeShape(_Strict):
    """`lake.yaml` as it was written, with defaults filled in."""

    company: Annotated[_Slug, Field(max_length=20)]
    environment: Annotated[_Slug, Field(max_length=12)]
    region: Annotated[str, Field(pattern=r"^[a-z]{2}(-[a-z]+)+-\d$")] = "us-east-1"
    tenants: Annotated[dict[str, _Tenant], Field(min_length=1)]
    datasets: Annotated[dict[str, _Dataset], Field(min_length=1)]
    drops: dict[str, _Drop] = {}
    quotas: _Quotas = _Quotas()
    jobs: _Jobs = _Jobs()
    kubernetes: _Kubernetes = _Kubernetes()
    lineage: _Lineage | None = None


def checked_shape(path: str, raw: object) -> LakeShape:
    """Hold a parsed `lake.yaml` to its shape.

    Args:
        path: name of the file, for messages.
        raw: what YAML made of it.

    Raises:
        DeclarationError: a key is unknown or missing, or a value isn't allowed; one line for each.
    """
    try:
        return LakeShape.model_validate(raw)
    except ValidationError as error:
        raise DeclarationError("\n".join(_sentence(path, one) for one in error.errors())) from None


def _sentence(path: str, error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"]) or "the file"
    if error["type"] == "extra_forbidden":
        *parents, key = error["loc"]
        model: Any = LakeShape
        for parent in parents:
            model = _inner(model, str(parent))
        return f"{path}: {place}: unknown key: {known_values(key, model.model_fields)}"
    return f"{path}: {place}: {error['msg'].removeprefix('Value error, ')}; got {error['input']!r}"


def _inner(model: Any, key: str) -> Any:
    # inside `tenants` and `datasets` the keys are the user's own names: the model is the values'
    kind: Any = model["*"] if isinstance(model, dict) else model.model_fields[key].annotation
    if get_origin(kind) in {Union, types.UnionType}:
        kind = next(one for one in get_args(kind) if one is not type(None))
    origin: Any = get_origin(kind)
    return {"*": get_args(kind)[1]} if origin is dict else kind
