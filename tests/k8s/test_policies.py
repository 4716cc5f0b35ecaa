"""What each job's role may do: what it calls and no more, and nothing of another workspace."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from k8s.policies import LARGEST_POLICY, job_policy, key_owners, trust_policy
from lake.declaration import Lake, Tenant, Tier, read_lake
from lake.drops import Drop
from lake.errors import TerminalError
from lake.jobs import Job
from tests.k8s.conftest import ROOT

ACCOUNT = "123456789012"
DEMO = read_lake(ROOT / "lake.yaml")
DROPS = (
    Drop("bookings", "ewr", "flights", "acme-ewr-demo-datalake", "raw/bookings/"),
    Drop("desk", "jfk", "flights", "user-events", ""),
)
WITH_DROPS = replace(DEMO, drops=DROPS)
FILES = Job("files")


def policy(job, owner, lake: Lake = DEMO):
    workspace = lake.workspace(owner)
    keys = {one: f"arn:aws:kms:us-east-1:{ACCOUNT}:key/{one}" for one in key_owners(workspace)}
    found = FILES if job == "files" else lake.job(job)
    return job_policy(lake, found, workspace, account=ACCOUNT, keys=keys)


def statement(made, sid):
    (found,) = [one for one in made["Statement"] if one["Sid"] == sid]
    return found


def resources(made):
    return [
        one
        for each in made["Statement"]
        for one in ([each["Resource"]] if isinstance(each["Resource"], str) else each["Resource"])
    ]


EVERY = [(job, owner) for job in ("ingest", "compact", "maintain", "files") for owner in ("ewr", "pooled")]


@pytest.mark.parametrize(("job", "owner"), EVERY)
def test_no_role_reaches_everything_of_a_service(job, owner):
    made = policy(job, owner, WITH_DROPS)
    for one in resources(made):
        service, _, rest = one.removeprefix("arn:aws:").partition(":")
        name = rest.lstrip(":").removeprefix(f"us-east-1:{ACCOUNT}:")
        assert service in {"s3", "glue", "kms", "dynamodb", "sqs"}
        assert not name.startswith("*")
        # below a prefix, a database or a drop's bucket, never beside it
        assert "*" not in name.partition("/")[0]
    assert all("*" not in action for each in made["Statement"] for action in ([each["Action"]] if isinstance(
        each["Action"], str) else each["Action"]))  # fmt: skip


@pytest.mark.parametrize(("job", "owner"), EVERY)
def test_a_dedicated_tenants_role_names_nothing_of_the_others_and_theirs_nothing_of_it(job, owner):
    text = json.dumps(policy(job, owner, WITH_DROPS)["Statement"])
    others = ("jfk", "lga", "pooled", "user-events") if owner == "ewr" else ("ewr",)
    assert [name for name in others if name in text] == []


def test_ingest_lists_and_reads_what_was_delivered_and_writes_its_plans():
    made = policy("ingest", "ewr")
    bucket = "arn:aws:s3:::acme-ewr-demo-datalake"
    assert statement(made, "ListDelivered") == {
        "Sid": "ListDelivered",
        "Effect": "Allow",
        "Action": "s3:ListBucket",
        "Resource": bucket,
        "Condition": {"StringLikeIfExists": {"s3:prefix": ["processed/*", "errors/*", "batches/*"]}},
    }
    assert statement(made, "ReadDelivered")["Resource"] == [f"{bucket}/processed/*", f"{bucket}/errors/*"]
    assert statement(made, "Plans")["Resource"] == f"{bucket}/batches/*"


def test_the_pools_ingest_reads_the_landing_bucket_and_writes_its_tenants_tables_and_the_pools_quarantine():
    made = policy("ingest", "pooled")
    assert statement(made, "ListDelivered")["Resource"] == "arn:aws:s3:::acme-pooled-demo-landing"
    buckets = ("acme-jfk-demo-datalake", "acme-lga-demo-datalake", "acme-pooled-demo-landing")
    assert statement(made, "TableFiles")["Resource"] == [f"arn:aws:s3:::{one}/analytics-ready/*" for one in buckets]


def test_the_manifest_is_held_to_the_workspaces_own_items():
    made = policy("ingest", "pooled")
    own = [f"pooled#flights{kind}" for kind in ("", "#new", "#objects", "#lineage")]
    read, written = (statement(made, one)["Condition"] for one in ("ReadManifest", "WriteManifest"))
    assert read == {"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": [*own, "jfk#flights", "lga#flights"]}}
    assert written == {"ForAllValues:StringEquals": {"dynamodb:LeadingKeys": own}}
    assert statement(made, "WriteManifest")["Resource"] == (
        f"arn:aws:dynamodb:us-east-1:{ACCOUNT}:table/acme-demo-manifest"
    )


def test_compaction_touches_tables_and_keys_alone():
    assert [one["Sid"] for one in policy("compact", "ewr")["Statement"]] == ["TableFiles", "Tables", "Keys", "Lineage"]


def test_maintenance_lists_the_tables_files_and_nothing_else():
    made = policy("maintain", "ewr")
    assert [one["Sid"] for one in made["Statement"]] == ["ListTableFiles", "TableFiles", "Tables", "Keys", "Lineage"]
    assert statement(made, "ListTableFiles") == {
        "Sid": "ListTableFiles",
        "Effect": "Allow",
        "Action": "s3:ListBucket",
        "Resource": ["arn:aws:s3:::acme-ewr-demo-datalake"],
        "Condition": {"StringLikeIfExists": {"s3:prefix": ["analytics-ready/*"]}},
    }


def test_keys_are_used_through_s3_alone():
    assert statement(policy("compact", "ewr"), "Keys") == {
        "Sid": "Keys",
        "Effect": "Allow",
        "Action": ["kms:Decrypt", "kms:GenerateDataKey"],
        "Resource": [f"arn:aws:kms:us-east-1:{ACCOUNT}:key/ewr"],
        "Condition": {"StringEquals": {"kms:ViaService": "s3.us-east-1.amazonaws.com"}},
    }


def test_the_files_job_reads_the_drops_and_writes_where_the_streams_do():
    made = policy("files", "pooled", WITH_DROPS)
    assert statement(made, "ReadDrops")["Resource"] == ["arn:aws:s3:::user-events/*"]
    landing = "arn:aws:s3:::acme-pooled-demo-landing"
    assert statement(made, "WriteEvents")["Resource"] == [
        f"{landing}/processed/flights/tenant=jfk/*",
        f"{landing}/errors/*/flights/*",
    ]


def test_a_job_without_anything_to_do_in_a_workspace_has_no_role():
    assert policy("files", "pooled", replace(DEMO, drops=DROPS[:1])) is None


def test_where_spark_writes_its_event_logs_its_role_may():
    lake = replace(DEMO, kubernetes=replace(DEMO.kubernetes, event_logs="s3a://acme-logs/spark"))
    made = policy("compact", "ewr", lake)
    assert statement(made, "EventLogs")["Resource"].startswith("arn:aws:s3:::acme-logs/spark")
    assert statement(made, "EventLogs")["Resource"].endswith("/*")
    assert statement(made, "ListEventLogs")["Resource"] == "arn:aws:s3:::acme-logs"


def test_a_role_is_taken_by_one_service_account_alone():
    (one,) = trust_policy(DEMO.workspace("ewr"), DEMO.job("ingest"))["Statement"]
    assert one["Principal"] == {"Service": "pods.eks.amazonaws.com"}
    assert one["Action"] == ["sts:AssumeRole", "sts:TagSession"]
    assert one["Condition"] == {
        "StringEquals": {
            "aws:RequestTag/kubernetes-namespace": "acme-demo-ewr",
            "aws:RequestTag/kubernetes-service-account": "ingest",
        }
    }


def test_every_job_of_a_lake_is_known():
    for lake in (DEMO, WITH_DROPS):
        for job in lake.pipeline():
            for workspace in lake.workspaces():
                policy(job.name, workspace.owner, lake)


def test_a_job_that_is_not_known_is_refused():
    with pytest.raises(TerminalError, match="got 'polish', allowed are: compact, files, ingest, maintain"):
        job_policy(DEMO, Job("polish"), DEMO.workspace("ewr"), account=ACCOUNT, keys={"ewr": "x"})


def test_a_pool_that_is_too_large_for_one_role_is_refused_with_the_numbers():
    many = tuple(Tenant(f"tenant-{number:03d}", Tier.POOLED) for number in range(100))
    with pytest.raises(
        TerminalError, match="role of ingest for pooled: its policy for 100 tenants takes 29,192 characters"
    ):
        policy("ingest", "pooled", replace(DEMO, tenants=many))


def test_about_as_many_pooled_tenants_fit_into_a_role_as_the_documents_say():
    def fits(count):
        tenants = tuple(Tenant(f"t{number:02d}", Tier.POOLED) for number in range(count))
        try:
            made = policy("ingest", "pooled", replace(DEMO, tenants=tenants))
        except TerminalError:
            return False
        return len(json.dumps(made, separators=(",", ":"))) <= LARGEST_POLICY

    assert max(count for count in range(1, 60) if fits(count)) == 34
