"""Owns the names of everything a lake makes in AWS, as pure functions of the declaration.

Each kind of name has its own alphabet and length. A name that doesn't fit is cut and gets a tag: eight hexadecimal
digits of the SHA-256 of the whole, so that two long names that differ only behind the cut stay apart.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import date

__all__ = ["POOL", "Names", "bucket_and_key", "day_folders", "shorten"]

POOL = "pooled"
"""Owner of what pooled tenants share: the landing bucket and its database. No tenant may be called so."""

_BUCKET = 63
_STREAM = 64
_ROLE = 64
_DATABASE = 128  # Glue takes 255, Trino and ODBC drivers are happier with less
_TABLE = 255
_NAMESPACE = 63
_QUEUE = 80


def shorten(name: str, limit: int, *, joint: str = "-") -> str:
    """Cut a name to a limit of characters, keeping it apart from all others.

    >>> shorten("a" * 70, 63)
    'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-6bd5e503'
    """
    if len(name) <= limit:
        return name
    tag = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: limit - len(tag) - 1].rstrip('-_')}{joint}{tag}"


def bucket_and_key(uri: str) -> tuple[str, str]:
    """Bucket and key of an address in S3, or the prefix of a folder's; as Hadoop writes it (`s3a://`) too.

    >>> bucket_and_key("s3://acme-jfk-dev-datalake/processed/flights/a.gz")
    ('acme-jfk-dev-datalake', 'processed/flights/a.gz')
    """
    bucket, _, key = uri.partition("://")[2].partition("/")
    return bucket, key


def day_folders(day: date) -> str:
    """Folders of a day below a dataset's and a tenant's.

    >>> from datetime import date
    >>> day_folders(date(826, 11, 5))
    'year=0826/month=11/day=05/'
    """
    # not by strftime, whose years before 1000 have fewer digits
    return f"year={day.year:04d}/month={day.month:02d}/day={day.day:02d}/"


@dataclass(frozen=True)
class Names:
    """Names for one company and environment."""

    company: str
    environment: str

    def bucket(self, owner: str) -> str:
        """Bucket of a tenant, or the landing bucket of the pool."""
        kind = "landing" if owner == POOL else "datalake"
        # the kind stays readable when the middle is cut
        return f"{shorten(f'{self.company}-{owner}-{self.environment}', _BUCKET - len(kind) - 1)}-{kind}"

    def database(self, owner: str) -> str:
        """Glue database of a tenant, or of the pool."""
        return shorten(f"{self.company}_{owner}_{self.environment}".replace("-", "_"), _DATABASE, joint="_")

    def stream(self, dataset: str, owner: str) -> str:
        """Delivery stream of a dataset: a dedicated tenant's, or the pool's."""
        return shorten(f"{self.company}-{self.environment}-{dataset}-{owner}", _STREAM)

    def role(self, dataset: str, owner: str) -> str:
        """IAM role that the delivery stream assumes."""
        return shorten(f"{self.company}-{self.environment}-{dataset}-{owner}-firehose", _ROLE)

    def job_role(self, job: str, owner: str) -> str:
        """IAM role that a job has in the workspace of an owner."""
        return shorten(f"{self.company}-{self.environment}-{owner}-{job}", _ROLE)

    def namespace(self, owner: str) -> str:
        """Kubernetes namespace in which the jobs of a dedicated tenant, or of the pool, run."""
        return shorten(f"{self.company}-{self.environment}-{owner}", _NAMESPACE)

    def key_alias(self, owner: str) -> str:
        """Alias of the KMS key that encrypts the owner's bucket."""
        return f"alias/{self.company}-{self.environment}-{owner}"

    def queue(self, owner: str) -> str:
        """SQS queue in which S3 tells of new objects in an owner's bucket."""
        return shorten(f"{self.company}-{self.environment}-{owner}-arrivals", _QUEUE - len("-dead"))

    def dead_queue(self, owner: str) -> str:
        """SQS queue that takes messages which nobody could read."""
        return f"{self.queue(owner)}-dead"

    def manifest_table(self) -> str:
        """DynamoDB table of objects, batches and producers."""
        return shorten(f"{self.company}-{self.environment}-manifest", _TABLE)

    @staticmethod
    def processed_prefix(dataset: str, tenant: str | None = None) -> str:
        """Where a door puts what satisfies the contract; of one tenant, or of all."""
        return f"processed/{dataset}/" + (f"tenant={tenant}/" if tenant is not None else "")

    @staticmethod
    def table_location(bucket: str, table: str) -> str:
        """Root of an Iceberg table."""
        return f"s3://{bucket}/analytics-ready/{table}"

    @staticmethod
    def plan_key(dataset: str, tenant: str, lane: str, number: int) -> str:
        """Key of a batch's plan, written once before the batch runs."""
        return f"batches/{dataset}/{lane}/tenant={tenant}/{number:09d}.json"
