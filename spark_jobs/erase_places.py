"""Owns where a subject's data can lie: prefixes of buckets, and tables, of one tenant.

A dedicated tenant's bucket is searched as far as doors and queries write to it. Of what pooled tenants share, only the
tenant's own prefix is searched, and the error objects and the backup, in which a record that names another tenant is
left alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from lake.erasure import personal_paths
from lake.manifest import Arrival, Lane
from lake.names import POOL, Names
from lake.tables import QUARANTINE
from spark_jobs.erase_files import Form, Stored, list_objects
from spark_jobs.erase_match import Matcher
from spark_jobs.erase_tables import Target

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

    from lake.declaration import Dataset, Lake
    from lake.drops import Drop
    from lake.erasure import Subject
    from lake.manifest import Manifest

__all__ = ["ObjectPlace", "datasets_of", "object_places", "targets"]

_NUMBERS = {"int", "long", "float", "double", "decimal"}
_RESULTS = ("query-results/", "athena-results/")


@dataclass(frozen=True)
class ObjectPlace:
    """Objects below a prefix."""

    owner: str
    bucket: str
    prefix: str
    form: Form
    matcher: Matcher
    dataset: str = ""
    """Of the objects that ingest takes; empty for the others."""

    @property
    def name(self) -> str:
        """`s3://bucket/prefix`, with a dataset's part of what several share."""
        middle = f"*/{self.dataset}/" if self.form is Form.ERRORS else ""
        return f"s3://{self.bucket}/{self.prefix}{middle}"

    def tenant_of(self, key: str) -> str | None:
        """Tenant under which ingest counts a record that names none; None where the place of an object tells none."""
        if self.form is not Form.LINES:
            return self.matcher.tenant if self.form is Form.RAW else None
        folder = key.removeprefix(Names.processed_prefix(self.dataset)).partition("/")[0]
        return folder.removeprefix("tenant=") or None if folder.startswith("tenant=") else None

    def objects(self, s3: S3Client) -> list[Stored]:
        """All of its objects, in each of their versions."""
        return [one for one in list_objects(s3, self.bucket, self.prefix) if self._is_its(one.key)]

    def _is_its(self, key: str) -> bool:
        if key.endswith("/"):
            return False
        return self.form is not Form.ERRORS or key.split("/")[2:3] == [self.dataset]

    def taken(self, manifest: Manifest, objects: list[Stored]) -> set[str]:
        """Addresses of those objects that may be changed: ingest has taken them, and counted what they held."""
        if not self.dataset:
            return {one.address for one in objects}
        asked = [Arrival(self.owner, self.dataset, Lane.EVENTS, "", one.address, one.size) for one in objects]
        return {one.uri for one in manifest.taken_of(asked)} if asked else set()


def datasets_of(lake: Lake, subject: Subject) -> list[Dataset]:
    """Datasets whose contracts know any of the subject's keys as personal data."""
    return [one for one in lake.datasets if subject.keys_of(one.contract)]


def object_places(lake: Lake, subject: Subject, manifest: Manifest) -> list[ObjectPlace]:
    """Prefixes in which the subject is looked for."""
    tenant = subject.tenant
    numbers = _numbers(lake)
    found: list[ObjectPlace] = []
    for dataset in datasets_of(lake, subject):
        stream = lake.stream_of(dataset.name, tenant)
        keys = subject.keys_of(dataset.contract)
        shared = stream.owner == POOL
        ledgers = {one.producer_id: owner for owner in stream.tenants for one in manifest.ledgers(owner, dataset.name)}
        place = (stream.owner, stream.bucket)
        refused = Matcher(keys, tenant, shared, ledgers, numbers, _drops_of(lake, dataset.name, tenant))
        events = Names.processed_prefix(dataset.name, tenant if shared else None)
        found += [
            ObjectPlace(*place, events, Form.LINES, Matcher(keys, tenant), dataset.name),
            ObjectPlace(*place, "errors/", Form.ERRORS, refused, dataset.name),
        ]
    everything = Matcher(subject.keys, tenant, numbers=numbers, drops=lake.drops)
    own = lake.names.bucket(tenant)
    found += [ObjectPlace(tenant, own, prefix, Form.RESULT, everything) for prefix in _RESULTS]
    found.append(ObjectPlace(tenant, own, "raw/", Form.RAW, everything))
    if any(place.owner == POOL for place in found):
        landing = lake.names.bucket(POOL)
        found.append(ObjectPlace(POOL, landing, "raw/", Form.RAW, replace(everything, shared=True)))
    return found


def _drops_of(lake: Lake, dataset: str, tenant: str) -> tuple[Drop, ...]:
    return tuple(one for one in lake.drops if (one.dataset, one.tenant) == (dataset, tenant))


def _numbers(lake: Lake) -> frozenset[str]:
    kinds = [item for one in lake.datasets for item in personal_paths(one.contract).items()]
    return frozenset(path for path, kind in kinds if kind.name in _NUMBERS)


def targets(lake: Lake, subject: Subject) -> list[tuple[Target, str]]:
    """Tables in which the subject is looked for, each with its owner."""
    tenant = subject.tenant
    found: list[tuple[Target, str]] = []
    for dataset in datasets_of(lake, subject):
        stream = lake.stream_of(dataset.name, tenant)
        keys = subject.keys_of(dataset.contract)
        database = lake.names.database(tenant)
        rows = Target(database, dataset.name, Form.ROWS, {"": Matcher(keys, tenant)}, dataset.contract)
        found.append((rows, tenant))
        for owner in dict.fromkeys((tenant, stream.owner)):
            rows_of = _drops_of(lake, dataset.name, tenant)
            refused = {dataset.name: Matcher(keys, tenant, owner == POOL, numbers=_numbers(lake), drops=rows_of)}
            found.append((Target(lake.names.database(owner), QUARANTINE, Form.REFUSED_ROWS, refused), owner))
    return found
