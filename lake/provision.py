"""Owns making a lake's storage real: keys, buckets, databases, tables and the manifest, by ordinary boto3 calls.

Every step looks first and changes only what differs, so applying twice changes nothing. Nothing is ever deleted.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from lake.errors import FindingError
from lake.names import POOL
from lake.tables import QUARANTINE, QUARANTINE_COLUMNS, columns, ensure_table, glue_catalog, load_table

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pyiceberg.catalog.glue import GlueCatalog

    from lake.clients import Cloud
    from lake.contract import Field
    from lake.declaration import Lake

__all__ = ["Change", "Outcome", "error_code", "key_arn", "provision_storage"]


class Outcome(StrEnum):
    """What applying did to one resource."""

    CREATED = "created"
    UPDATED = "updated"
    UNCHANGED = "unchanged"


@dataclass(frozen=True)
class Change:
    """One resource, and what applying did to it."""

    kind: str
    name: str
    outcome: Outcome

    @classmethod
    def made(cls, kind: str, name: str, *, created: bool, updated: bool = False) -> Change:
        """A change from what its step reports."""
        outcome = Outcome.CREATED if created else Outcome.UPDATED if updated else Outcome.UNCHANGED
        return cls(kind, name, outcome)


def error_code(error: ClientError) -> str:
    """AWS's code of a failed call, as in `NoSuchBucket`."""
    return str(error.response.get("Error", {}).get("Code", ""))


def key_arn(lake: Lake, cloud: Cloud, owner: str) -> str | None:
    """ARN of the key that encrypts an owner's bucket; None before it is made."""
    try:
        return cloud.kms.describe_key(KeyId=lake.names.key_alias(owner))["KeyMetadata"]["Arn"]
    except ClientError as error:
        if error_code(error) == "NotFoundException":
            return None
        raise


def provision_storage(lake: Lake, cloud: Cloud) -> Iterator[Change]:
    """Make keys, buckets, databases, tables and the manifest; tells each as it is done."""
    names = lake.names
    for owner in lake.owners():
        yield _key(lake, cloud, owner)
        yield _bucket(lake, cloud, names.bucket(owner), owner)
    yield from _drop_buckets(lake, cloud)
    for owner in lake.owners():
        yield _database(cloud, names.database(owner), f"s3://{names.bucket(owner)}/analytics-ready")
    yield from _tables(lake, cloud)
    yield _manifest(cloud, names.manifest_table())


def _key(lake: Lake, cloud: Cloud, owner: str) -> Change:
    alias = lake.names.key_alias(owner)
    if key_arn(lake, cloud, owner) is not None:
        return Change.made("key", alias, created=False)
    tags = [{"TagKey": "lakehose:owner", "TagValue": owner}]
    key = cloud.kms.create_key(Description=f"lakehose: everything of {owner}", Tags=tags)  # type: ignore[arg-type]
    key_id = key["KeyMetadata"]["KeyId"]
    cloud.kms.enable_key_rotation(KeyId=key_id)
    cloud.kms.create_alias(AliasName=alias, TargetKeyId=key_id)
    return Change.made("key", alias, created=True)


def _drop_buckets(lake: Lake, cloud: Cloud) -> Iterator[Change]:
    """Buckets that drops name and nobody has made; what is there already is its owner's, and left as it is."""
    own = {lake.names.bucket(owner) for owner in lake.owners()}
    for bucket, tenant in {one.bucket: one.tenant for one in lake.drops if one.bucket not in own}.items():
        if _bucket_exists(cloud, bucket, fix="name another in the drop's `bucket`"):
            yield Change.made("bucket", bucket, created=False)
        else:
            yield _bucket(lake, cloud, bucket, tenant)


def _bucket(lake: Lake, cloud: Cloud, bucket: str, owner: str) -> Change:
    created = not _bucket_exists(cloud, bucket)
    if created:
        # us-east-1 is the one region that may not be named
        where: dict[str, Any] = (
            {} if lake.region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": lake.region}}
        )
        cloud.s3.create_bucket(Bucket=bucket, **where)
    encryption = {
        "Rules": [
            {
                "ApplyServerSideEncryptionByDefault": {
                    "SSEAlgorithm": "aws:kms",
                    "KMSMasterKeyID": key_arn(lake, cloud, owner),
                },
                "BucketKeyEnabled": True,  # one KMS call for many objects
            }
        ]
    }
    updated = _found_encryption(cloud, bucket) != encryption["Rules"]
    if updated:
        cloud.s3.put_bucket_encryption(
            Bucket=bucket,
            ServerSideEncryptionConfiguration=encryption,  # type: ignore[arg-type]
        )
    closed = dict.fromkeys(("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets"), True)
    if _found_public_access(cloud, bucket) != closed:
        cloud.s3.put_public_access_block(Bucket=bucket, PublicAccessBlockConfiguration=closed)  # type: ignore[arg-type]
        updated = True
    return Change.made("bucket", bucket, created=created, updated=updated)


_OTHER_NAMES = "change `company` or `environment` in the declaration"


def _bucket_exists(cloud: Cloud, bucket: str, *, fix: str = _OTHER_NAMES) -> bool:
    try:
        cloud.s3.head_bucket(Bucket=bucket)
    except ClientError as error:
        if error_code(error) in {"404", "NoSuchBucket"}:
            return False
        if error_code(error) in {"403", "AccessDenied"}:
            raise FindingError(f"bucket {bucket}: it exists and is not yours; {fix}") from None
        raise
    return True


def _found_encryption(cloud: Cloud, bucket: str) -> Any:
    try:
        found = cloud.s3.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]["Rules"]
    except ClientError as error:
        if error_code(error) == "ServerSideEncryptionConfigurationNotFoundError":
            return None
        raise
    # AWS adds what it decides by itself (blocked encryption types): only what we declare is compared
    kept = ("ApplyServerSideEncryptionByDefault", "BucketKeyEnabled")
    return [{key: value for key, value in rule.items() if key in kept} for rule in found]


def _found_public_access(cloud: Cloud, bucket: str) -> Any:
    try:
        return cloud.s3.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
    except ClientError as error:
        if error_code(error) == "NoSuchPublicAccessBlockConfiguration":
            return None
        raise


def _database(cloud: Cloud, database: str, location: str) -> Change:
    try:
        cloud.glue.create_database(DatabaseInput={"Name": database, "LocationUri": location})
    except ClientError as error:
        if error_code(error) != "AlreadyExistsException":
            raise
        return Change.made("database", database, created=False)
    return Change.made("database", database, created=True)


def _tables(lake: Lake, cloud: Cloud) -> Iterator[Change]:
    catalog = glue_catalog(cloud)
    target = lake.jobs.compact_target_mib
    for owner in lake.owners():
        database, bucket = lake.names.database(owner), lake.names.bucket(owner)
        for dataset in lake.datasets if owner != POOL else ():
            contract = dataset.contract
            made = ensure_table(
                catalog,
                (database, dataset.name),
                columns(contract),
                lake.names.table_location(bucket, dataset.name),
                target_mib=target,
                partition=contract.partition,
                sort=contract.sort,
            )
            if not made:
                _check_columns(catalog, (database, dataset.name), columns(contract))
            yield Change.made("table", f"{database}.{dataset.name}", created=made)
        location = lake.names.table_location(bucket, QUARANTINE)
        made = ensure_table(catalog, (database, QUARANTINE), QUARANTINE_COLUMNS, location, target_mib=target)
        yield Change.made("table", f"{database}.{QUARANTINE}", created=made)


def _check_columns(catalog: GlueCatalog, identifier: tuple[str, str], declared: tuple[Field, ...]) -> None:
    table = load_table(catalog, identifier)
    there = {one.name for one in table.schema().fields} if table else set()
    lacking = [one.name for one in declared if one.name not in there]
    if lacking:
        raise FindingError(
            f"table {'.'.join(identifier)}: the contract has columns that the table lacks: {', '.join(lacking)}; "
            f"take them out of the contract of {identifier[1]!r}, or give the dataset a new name"
        )


def _manifest(cloud: Cloud, table: str) -> Change:
    try:
        cloud.dynamodb.create_table(
            TableName=table,
            KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
            AttributeDefinitions=[
                {"AttributeName": "pk", "AttributeType": "S"},
                {"AttributeName": "sk", "AttributeType": "S"},
            ],
            BillingMode="PAY_PER_REQUEST",
            SSESpecification={"Enabled": True},
        )
    except ClientError as error:
        if error_code(error) != "ResourceInUseException":
            raise
        return Change.made("manifest", table, created=False)
    cloud.dynamodb.get_waiter("table_exists").wait(TableName=table, WaiterConfig={"Delay": 1, "MaxAttempts": 120})
    return Change.made("manifest", table, created=True)
