"""Owns making a lake's delivery streams real: quota, log group, role and stream, by ordinary boto3 calls.

Every step looks first and changes only what differs. What a stream can't change any more is said, never ignored.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from firehose.comparison import compare, differences
from firehose.definition import LOG_STREAM, create_request, log_group, role_policy, trust_policy
from firehose.validation import path_text
from lake.clients import error_code
from lake.errors import FindingError, TransientError
from lake.provision import Change, key_arn

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lake.clients import Cloud
    from lake.declaration import Lake, Stream

__all__ = ["provision_streams"]

_QUOTA = "dynamic partitions"
"""Name of the quota of active partitions in Service Quotas, in lower case: its code is nowhere documented."""
_POLICY = "deliver"
_NEW_ROLE_SECONDS = 60  # IAM is eventually consistent: Firehose may not see a new role for a while


def provision_streams(lake: Lake, cloud: Cloud) -> Iterator[Change]:
    """Raise the partition quota and make each stream with its role; the buckets and keys must be there."""
    yield _quota(lake, cloud)
    for stream in lake.streams():
        arn = key_arn(lake, cloud, stream.owner)
        if arn is None:
            raise FindingError(f"stream {stream.name}: the key of {stream.owner} isn't there; run `lakehose apply`")
        yield _log_group(cloud, log_group(stream.name))
        yield _role(lake, cloud, stream, arn)
        yield _stream(cloud, stream, arn)


def _quota(lake: Lake, cloud: Cloud) -> Change:
    name = f"{lake.active_partitions} active partitions a stream"
    pages = cloud.quotas.get_paginator("list_service_quotas").paginate(ServiceCode="firehose")
    quota = next((one for page in pages for one in page["Quotas"] if _QUOTA in one["QuotaName"].lower()), None)
    if quota is None:
        if lake.active_partitions > 500:  # noqa: PLR2004 - AWS's default
            raise FindingError(
                f"quotas.active_partitions: the account's Service Quotas list no {_QUOTA!r} for Firehose; "
                f"ask AWS support for {lake.active_partitions}, or declare 500"
            )
        return Change.made("quota", name, created=False)
    if quota["Value"] >= lake.active_partitions:
        return Change.made("quota", name, created=False)
    try:
        cloud.quotas.request_service_quota_increase(
            ServiceCode="firehose", QuotaCode=quota["QuotaCode"], DesiredValue=lake.active_partitions
        )
    except ClientError as error:
        if error_code(error) != "ResourceAlreadyExistsException":  # asked for before, and not decided yet
            raise
        return Change.made("quota", name, created=False)
    return Change.made("quota", name, created=False, updated=True)


def _log_group(cloud: Cloud, name: str) -> Change:
    try:
        cloud.logs.create_log_group(logGroupName=name)
    except ClientError as error:
        if error_code(error) != "ResourceAlreadyExistsException":
            raise
        return Change.made("log group", name, created=False)
    cloud.logs.create_log_stream(logGroupName=name, logStreamName=LOG_STREAM)
    cloud.logs.put_retention_policy(logGroupName=name, retentionInDays=30)
    return Change.made("log group", name, created=True)


def _role(lake: Lake, cloud: Cloud, stream: Stream, arn: str) -> Change:
    trust = trust_policy(cloud.account)
    policy = role_policy(stream, region=lake.region, account=cloud.account, key_arn=arn)
    created = updated = False
    try:
        found = cloud.iam.get_role(RoleName=stream.role)["Role"]
    except ClientError as error:
        if error_code(error) != "NoSuchEntity":
            raise
        cloud.iam.create_role(RoleName=stream.role, AssumeRolePolicyDocument=json.dumps(trust))
        created = True
    else:
        if _document(found["AssumeRolePolicyDocument"]) != trust:
            cloud.iam.update_assume_role_policy(RoleName=stream.role, PolicyDocument=json.dumps(trust))
            updated = True
    if _role_policy(cloud, stream.role) != policy:
        cloud.iam.put_role_policy(RoleName=stream.role, PolicyName=_POLICY, PolicyDocument=json.dumps(policy))
        updated = True
    return Change.made("role", stream.role, created=created, updated=updated)


def _role_policy(cloud: Cloud, role: str) -> Any:
    try:
        return _document(cloud.iam.get_role_policy(RoleName=role, PolicyName=_POLICY)["PolicyDocument"])
    except ClientError as error:
        if error_code(error) == "NoSuchEntity":
            return None
        raise


def _document(found: Any) -> Any:
    # botocore decodes the documents that IAM answers URL-encoded; a local endpoint may answer text
    return json.loads(found) if isinstance(found, str) else found


def _stream(cloud: Cloud, stream: Stream, arn: str) -> Change:
    wanted = create_request(stream, account=cloud.account, key_arn=arn)
    try:
        found = cloud.firehose.describe_delivery_stream(DeliveryStreamName=stream.name)
    except ClientError as error:
        if error_code(error) != "ResourceNotFoundException":
            raise
    else:
        return Change.made("stream", stream.name, created=False, updated=_update(cloud, stream, wanted, found))
    _create(cloud, stream, wanted)
    return Change.made("stream", stream.name, created=True)


def _update(cloud: Cloud, stream: Stream, wanted: dict[str, Any], found: Any) -> bool:
    description = found["DeliveryStreamDescription"]
    fixed = [one for one in compare(wanted, description) if one.fixed and one.ours is not None]
    if fixed:
        told = "; ".join(f"{path_text(one.where[1:] or one.where)}: {one.fixed}" for one in fixed)
        raise FindingError(
            f"stream {stream.name}: what runs differs from the declaration in what can't be changed: {told}; "
            f"delete the stream and apply again, or declare what runs"
        )
    (destination,) = description["Destinations"]
    given = wanted["ExtendedS3DestinationConfiguration"]
    members = {one.where[0] for one in differences(given, destination["ExtendedS3DestinationDescription"])}
    if members:
        changes: Any = {name: given[name] for name in given if name in members}
        cloud.firehose.update_destination(
            DeliveryStreamName=stream.name,
            # where somebody changed it since, this is refused, and applying again looks anew
            CurrentDeliveryStreamVersionId=description["VersionId"],
            DestinationId=destination["DestinationId"],
            ExtendedS3DestinationUpdate=changes,
        )
    return bool(members)


def _create(cloud: Cloud, stream: Stream, wanted: dict[str, Any]) -> None:
    deadline = time.monotonic() + _NEW_ROLE_SECONDS
    while True:
        try:
            cloud.firehose.create_delivery_stream(**wanted)
            break
        except ClientError as error:
            unseen_role = error_code(error) == "InvalidArgumentException" and "assume" in str(error)
            if not unseen_role or time.monotonic() > deadline:
                raise
            time.sleep(3)
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        found = cloud.firehose.describe_delivery_stream(DeliveryStreamName=stream.name)["DeliveryStreamDescription"]
        status = found["DeliveryStreamStatus"]
        if status == "ACTIVE":
            return
        if status.endswith("FAILED"):
            reason = found.get("FailureDescription", {}).get("Details", "no reason given")
            raise FindingError(f"stream {stream.name}: {status}: {reason}")
        time.sleep(2)
    raise TransientError(f"stream {stream.name}: still not ACTIVE after 300 s; apply again")
