"""Owns making a lake's storage real: keys, buckets, databases, tables and the manifest, by ordinary boto3 calls.

Every step looks first and changes only what differs, so applying twice changes nothing. Nothing is ever deleted.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from lake.clients import error_code
from lake.errors import FindingError
from lake.names import POOL
from lake.tables import QUARANTINE, QUARANTINE_COLUMNS, columns, ensure_table, evolve_table, glue_catalog

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lake.clients import Cloud
    from lake.declaration import Lake

__all__ = ["Change", "Outcome", "key_arn", "provision_storage", "queue_is_missing"]


_RETENTION_SECONDS = 14 * 86_400  # the longest that SQS keeps a message
_RECEIVES = 5  # a message that nobody could read so often is put aside


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


def queue_is_missing(error: ClientError) -> bool:
    """Whether a call failed because there is no such queue; SQS has two names for it."""
    return error_code(error) in {"QueueDoesNotExist", "AWS.SimpleQueueService.NonExistentQueue"}


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
    for owner in dict.fromkeys(one.owner for one in lake.streams()):
        yield _arrivals(lake, cloud, owner)
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


def _arrivals(lake: Lake, cloud: Cloud, owner: str) -> Change:
    """The queue in which S3 tells of new objects, and a second one for messages that nobody can read."""
    name, bucket = lake.names.queue(owner), lake.names.bucket(owner)
    dead, created_dead = _queue(cloud, lake.names.dead_queue(owner), {})
    redrive = {"deadLetterTargetArn": dead, "maxReceiveCount": _RECEIVES}
    arn, created = _queue(cloud, name, {"RedrivePolicy": _compact_json(redrive)})
    updated = _set_queue(cloud, name, {"Policy": _compact_json(_queue_policy(arn, bucket, cloud.account))})
    updated |= _notify(cloud, bucket, arn)
    return Change.made("queue", name, created=created or created_dead, updated=updated)


def _queue(cloud: Cloud, name: str, attributes: dict[str, str]) -> tuple[str, bool]:
    """ARN of a queue, and whether it had to be made."""
    sqs = cloud.sqs
    created = False
    try:
        url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
    except ClientError as error:
        if not queue_is_missing(error):
            raise
        kept = {"MessageRetentionPeriod": str(_RETENTION_SECONDS), "SqsManagedSseEnabled": "true"}
        url = sqs.create_queue(QueueName=name, Attributes={**kept, **attributes})["QueueUrl"]  # type: ignore[dict-item]
        created = True
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    return arn, created


def _set_queue(cloud: Cloud, name: str, attributes: dict[str, str]) -> bool:
    """Give a queue attributes, each a JSON document, unless it has them; answers whether it hadn't."""
    url = cloud.sqs.get_queue_url(QueueName=name)["QueueUrl"]
    names: Any = list(attributes)
    there: Any = cloud.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=names).get("Attributes", {})
    differing = {
        key: value for key, value in attributes.items() if json.loads(there.get(key) or "null") != json.loads(value)
    }
    if differing:
        cloud.sqs.set_queue_attributes(QueueUrl=url, Attributes=differing)  # type: ignore[arg-type]
    return bool(differing)


def _queue_policy(arn: str, bucket: str, account: str) -> dict[str, Any]:
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "s3.amazonaws.com"},
                "Action": "sqs:SendMessage",
                "Resource": arn,
                # only this bucket of this account, whoever else knows the queue's name
                "Condition": {
                    "ArnEquals": {"aws:SourceArn": f"arn:aws:s3:::{bucket}"},
                    "StringEquals": {"aws:SourceAccount": account},
                },
            }
        ],
    }


def _notify(cloud: Cloud, bucket: str, queue: str) -> bool:
    """Have S3 tell the queue, leaving the bucket's other notifications as they are; answers whether it didn't yet."""
    there = cloud.s3.get_bucket_notification_configuration(Bucket=bucket)
    found: dict[str, Any] = {key: value for key, value in there.items() if key != "ResponseMetadata"}
    ours = [
        {
            "Id": f"lakehose-{door}",
            "QueueArn": queue,
            "Events": ["s3:ObjectCreated:*"],
            "Filter": {"Key": {"FilterRules": [{"Name": "prefix", "Value": f"{door}/"}]}},
        }
        for door in ("processed", "errors")
    ]
    queues = found.get("QueueConfigurations", [])
    if {_notification(one) for one in ours} <= {_notification(one) for one in queues}:
        return False
    others = [one for one in queues if not one.get("Id", "").startswith("lakehose-")]
    cloud.s3.put_bucket_notification_configuration(
        Bucket=bucket,
        NotificationConfiguration={**found, "QueueConfigurations": [*others, *ours]},  # type: ignore[typeddict-item]
    )
    return True


def _notification(one: dict[str, Any]) -> tuple[str, ...]:
    rules = one.get("Filter", {}).get("Key", {}).get("FilterRules", [])
    # AWS answers `Prefix` where `prefix` was given
    prefixes = [rule["Value"] for rule in rules if rule["Name"].lower() == "prefix"]
    return (one.get("Id", ""), one["QueueArn"], *one["Events"], *prefixes)


def _compact_json(document: dict[str, Any]) -> str:
    return json.dumps(document, separators=(",", ":"))


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
            grown = () if made else evolve_table(catalog, (database, dataset.name), columns(contract))
            yield Change.made("table", f"{database}.{dataset.name}", created=made, updated=bool(grown))
        location = lake.names.table_location(bucket, QUARANTINE)
        made = ensure_table(catalog, (database, QUARANTINE), QUARANTINE_COLUMNS, location, target_mib=target)
        yield Change.made("table", f"{database}.{QUARANTINE}", created=made)


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
