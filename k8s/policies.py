"""Owns what a job's pods may do in AWS: for each job and workspace the policy of its role, and nothing it doesn't call.

What a job calls is told by its code: `spark_jobs/`, `lake/tables.py`, `lake/manifest.py`, `lake/drops.py`. A job that
isn't known here has no role, and making roles says so.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from k8s.applications import application
from lake.errors import TerminalError, known_values
from lake.lineage_log import lineage_partition
from lake.manifest import new_partition, objects_partition

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from lake.declaration import Lake, Workspace
    from lake.jobs import Job

__all__ = ["LARGEST_POLICY", "job_policy", "key_owners", "trust_policy"]

LARGEST_POLICY = 10_240
"""Characters without blanks that a role's own policies may have.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_iam-quotas.html"""

_VERSION = "2012-10-17"
_TABLE_ACTIONS = ["s3:AbortMultipartUpload", "s3:DeleteObject", "s3:GetObject", "s3:PutObject"]
_Statement = dict[str, Any]


def trust_policy(workspace: Workspace, job: Job) -> dict[str, Any]:
    """Who may take the role: EKS Pod Identity, for this one service account.

    https://docs.aws.amazon.com/eks/latest/userguide/pod-id-role.html
    """
    return {
        "Version": _VERSION,
        "Statement": [
            {
                "Sid": "PodIdentity",
                "Effect": "Allow",
                "Principal": {"Service": "pods.eks.amazonaws.com"},
                "Action": ["sts:AssumeRole", "sts:TagSession"],
                "Condition": {
                    "StringEquals": {
                        "aws:RequestTag/kubernetes-namespace": workspace.namespace,
                        "aws:RequestTag/kubernetes-service-account": job.name,
                    }
                },
            }
        ],
    }


@dataclass(frozen=True)
class _Reach:
    """What there is for a workspace's jobs to reach."""

    lake: Lake
    job: Job
    workspace: Workspace
    account: str
    keys: Mapping[str, str]
    """ARN of each owner's key."""

    @property
    def table_owners(self) -> tuple[str, ...]:
        """Whose databases the jobs write: the tenants', and the pool's own, which has its quarantine."""
        return tuple(dict.fromkeys((*self.workspace.tenants, self.workspace.owner)))

    @property
    def landing(self) -> str:
        """ARN of the bucket that the workspace's streams write to."""
        return f"arn:aws:s3:::{self.lake.names.bucket(self.workspace.owner)}"

    def tables(self) -> list[_Statement]:
        """Read and commit to Iceberg tables.

        Iceberg removes what it wrote in vain, and metadata that is too old.
        """
        names = self.lake.names
        glue = f"arn:aws:glue:{self.lake.region}:{self.account}"
        databases = [names.database(one) for one in self.table_owners]
        return [
            _allow(
                "TableFiles",
                _TABLE_ACTIONS,
                [f"arn:aws:s3:::{names.bucket(one)}/analytics-ready/*" for one in self.table_owners],
            ),
            _allow(
                "Tables",
                ["glue:GetTable", "glue:UpdateTable"],
                # Glue asks for the right to a table, to its database and to the catalog
                [
                    f"{glue}:catalog",
                    *(f"{glue}:database/{one}" for one in databases),
                    *(f"{glue}:table/{one}/*" for one in databases),
                ],
            ),
        ]

    def key(self, owners: Iterable[str]) -> list[_Statement]:
        """Use keys, through S3 only."""
        return [
            _allow(
                "Keys",
                ["kms:Decrypt", "kms:GenerateDataKey"],
                [self.keys[one] for one in dict.fromkeys(owners)],
                {"StringEquals": {"kms:ViaService": f"s3.{self.lake.region}.amazonaws.com"}},
            )
        ]

    def items(self, sid: str, actions: list[str], leading: Iterable[str]) -> _Statement:
        """Items of the manifest with these leading keys.

        https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/specifying-conditions.html
        """
        table = self.lake.names.manifest_table()
        return _allow(
            sid,
            actions,
            f"arn:aws:dynamodb:{self.lake.region}:{self.account}:table/{table}",
            {"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": list(dict.fromkeys(leading))}},
        )

    def lineage(self) -> _Statement:
        """Keep what is told of tables, and send again what an endpoint didn't take."""
        leading = [lineage_partition(owner, one.name) for owner in self.table_owners for one in self.lake.datasets]
        actions = ["dynamodb:PutItem"]
        if self.lake.lineage is not None:
            actions = ["dynamodb:BatchWriteItem", "dynamodb:GetItem", *actions, "dynamodb:Query"]
        return self.items("Lineage", actions, leading)

    def spark_folders(self) -> list[_Statement]:
        """Folders that Spark itself writes: event logs, and shuffle blocks that nobody else has room for."""
        conf = application(self.lake, self.job, self.workspace, run_id="0").spec.spark_conf
        named = {"spark.eventLog.dir": "EventLogs", "spark.storage.decommission.fallbackStorage.path": "Shuffle"}
        return [one for name, sid in named.items() if name in conf for one in _s3a(sid, conf[name])]


def _allow(
    sid: str, actions: list[str] | str, resources: list[str] | str, condition: dict[str, Any] | None = None
) -> _Statement:
    made: _Statement = {"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resources}
    return {**made, "Condition": condition} if condition else made


def _listing(sid: str, bucket: str | list[str], prefixes: list[str]) -> _Statement:
    # Without the right to list, S3 answers 403 for an object that isn't there, where the jobs look for a 404. Such a
    # request names no prefix, hence IfExists.
    return _allow(sid, "s3:ListBucket", bucket, {"StringLikeIfExists": {"s3:prefix": prefixes}})


def _s3a(sid: str, url: str) -> list[_Statement]:
    bucket, _, folder = url.removeprefix("s3a://").partition("/")
    arn, folder = f"arn:aws:s3:::{bucket}", folder.strip("/")
    below = f"{folder}/*" if folder else "*"
    return [
        _listing(f"List{sid}", arn, [folder, below] if folder else [below]),
        _allow(sid, _TABLE_ACTIONS, f"{arn}/{below}"),
    ]


def _ingest(reach: _Reach) -> list[_Statement]:
    """Lists and reads what was delivered, keeps its plans, commits to the tables, keeps receipts."""
    owner, tenants = reach.workspace.owner, reach.workspace.tenants
    batches = [
        leading
        for one in reach.lake.datasets
        for leading in (
            f"{owner}#{one.name}",
            new_partition(owner, one.name),
            objects_partition(owner, one.name),
            lineage_partition(owner, one.name),
        )
    ]
    ledgers = [f"{tenant}#{one.name}" for tenant in tenants for one in reach.lake.datasets]
    return [
        _listing("ListDelivered", reach.landing, ["processed/*", "errors/*", "batches/*"]),
        _allow("ReadDelivered", "s3:GetObject", [f"{reach.landing}/{one}/*" for one in ("processed", "errors")]),
        _allow("Plans", ["s3:GetObject", "s3:PutObject"], f"{reach.landing}/batches/*"),
        *reach.tables(),
        *reach.key((*reach.table_owners, owner)),
        _allow(
            "Arrivals",
            ["sqs:DeleteMessage", "sqs:GetQueueUrl", "sqs:ReceiveMessage"],
            f"arn:aws:sqs:{reach.lake.region}:{reach.account}:{reach.lake.names.queue(owner)}",
        ),
        reach.items("ReadManifest", ["dynamodb:Query"], [*batches, *ledgers]),
        reach.items(
            "WriteManifest",
            ["dynamodb:BatchGetItem", "dynamodb:BatchWriteItem", "dynamodb:GetItem", "dynamodb:PutItem"],
            batches,
        ),
    ]


def _compact(reach: _Reach) -> list[_Statement]:
    """Rewrites tables."""
    return [*reach.tables(), *reach.key(reach.table_owners), reach.lineage()]


def _maintain(reach: _Reach) -> list[_Statement]:
    """Expires, rewrites and tidies tables, and lists their files for those that nothing knows."""
    buckets = [f"arn:aws:s3:::{reach.lake.names.bucket(one)}" for one in reach.table_owners]
    listing = _listing("ListTableFiles", buckets, ["analytics-ready/*"])
    return [listing, *reach.tables(), *reach.key(reach.table_owners), reach.lineage()]


def _files(reach: _Reach) -> list[_Statement]:
    """Reads dropped files, writes their events where the streams write, and notes what was taken."""
    drops = [one for one in reach.lake.drops if one.tenant in reach.workspace.tenants]
    if not drops:
        return []
    sources = [one.bucket for one in drops]
    return [
        *(
            _listing(
                f"ListDrops{number}",
                f"arn:aws:s3:::{bucket}",
                [f"{one.prefix}*" for one in drops if one.bucket == bucket],
            )
            for number, bucket in enumerate(dict.fromkeys(sources))
        ),
        _allow("ReadDrops", "s3:GetObject", [f"arn:aws:s3:::{one.bucket}/{one.prefix}*" for one in drops]),
        _allow(
            "WriteEvents",
            "s3:PutObject",
            list(
                dict.fromkeys(
                    path
                    for one in drops
                    for path in (
                        f"{reach.landing}/{reach.lake.names.processed_prefix(one.dataset, one.tenant)}*",
                        f"{reach.landing}/errors/*/{one.dataset}/*",
                    )
                )
            ),
        ),
        # a drop's bucket has its tenant's key, whether it is the lake's or the drop's own
        *reach.key([reach.workspace.owner, *(one.tenant for one in drops)]),
        reach.items(
            "Manifest", ["dynamodb:PutItem", "dynamodb:Query"], [f"{one.tenant}#{one.dataset}" for one in drops]
        ),
    ]


_KNOWN: dict[str, Callable[[_Reach], list[_Statement]]] = {
    "files": _files,
    "ingest": _ingest,
    "compact": _compact,
    "maintain": _maintain,
}


def key_owners(workspace: Workspace) -> tuple[str, ...]:
    """Owners whose keys a workspace's jobs use."""
    return tuple(dict.fromkeys((*workspace.tenants, workspace.owner)))


def job_policy(
    lake: Lake, job: Job, workspace: Workspace, *, account: str, keys: Mapping[str, str]
) -> dict[str, Any] | None:
    """What a job's role may do in a workspace; None where the job has nothing to do there.

    Args:
        lake: the declaration.
        job: the job.
        workspace: whose data.
        account: the account's number, 12 digits.
        keys: ARN of the key of each of `key_owners`.

    Raises:
        TerminalError: it isn't known what the job calls; or the workspace has too many tenants for one role.
    """
    if job.name not in _KNOWN:
        raise TerminalError(
            f"job: {known_values(job.name, _KNOWN)} (what others call isn't known, so they get no role)"
        )
    reach = _Reach(lake, job, workspace, account, keys)
    statements = _KNOWN[job.name](reach)
    if not statements:
        return None
    policy = {"Version": _VERSION, "Statement": [*statements, *reach.spark_folders()]}
    size = sum(not one.isspace() for one in _text(policy))
    if size > LARGEST_POLICY:
        raise TerminalError(
            f"role of {job.name} for {workspace.owner}: its policy for {len(workspace.tenants)} tenants takes {size:,} "
            f"characters, and IAM allows {LARGEST_POLICY:,}; declare the tenants in several lakes, or have some "
            "dedicated"
        )
    return policy


def _text(policy: dict[str, Any]) -> str:
    return json.dumps(policy, separators=(",", ":"))
