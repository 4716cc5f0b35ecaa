"""The roles against what the jobs really ask AWS for: the jobs run, each request is noted and held to its role.

The endpoint enforces no IAM, so the test does what IAM would: it looks for a statement that allows the request. And the
other way about: an action that a role has and no job asked for is one too many.
"""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit
from xml.etree import ElementTree as ET

import pytest
import yaml

from k8s.policies import job_policy, key_owners
from lake.clients import Cloud
from lake.declaration import read_lake
from lake.provision import provision_storage
from tests.k8s.conftest import ROOT

ACCOUNT = "123456789012"
HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade"}
CONTRACT = """
apiVersion: v3.1.0
kind: DataContract
id: visits
version: 1.0.0
status: active
schema:
  - name: visits
    logicalType: object
    properties: [{name: page, logicalType: string, required: true}]
"""
RUNS = (
    ("files", "solo"),
    *((job, owner) for job in ("ingest", "compact", "maintain") for owner in ("solo", "pooled")),
)
RUN_JOBS = """
import json, sys, urllib.request
from spark_jobs.commands import run_job
lake, endpoint, runs = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
for job, owner in runs:
    urllib.request.urlopen(f"{endpoint}/_phase/{job}/{owner}").close()
    code = run_job(job, ["--lake", lake, "--endpoint", endpoint, "--owner", owner])
    if code:
        sys.exit(f"{job} of {owner} ended with {code}")
"""
# What S3 asks of KMS by itself; what Iceberg does after a failed commit, of a large upload, or every fifty commits; and
# noting where the listing for lost events goes on, where there are more prefixes than one run lists
NOT_ASKED_FOR_HERE = {
    *("kms:Decrypt", "kms:GenerateDataKey", "s3:AbortMultipartUpload", "s3:DeleteObject"),
    "dynamodb:PutItem",
}


@dataclass(frozen=True)
class Request:
    """One request, as IAM sees it."""

    action: str
    resource: str
    context: dict[str, list[str]] = field(default_factory=dict, hash=False)

    def is_allowed_by(self, policy):
        return any(self._matches(one) for one in policy["Statement"])

    def _matches(self, statement):
        named = (self.action in _list(statement["Action"])) and any(
            fnmatchcase(self.resource, one) for one in _list(statement["Resource"])
        )
        return named and all(
            self._holds(operator, key, _list(values))
            for operator, pairs in statement.get("Condition", {}).items()
            for key, values in pairs.items()
        )

    def _holds(self, operator, key, values):
        given = self.context.get(key)
        match operator:
            case "StringLikeIfExists":
                return given is None or any(fnmatchcase(given[0], one) for one in values)
            case "ForAllValues:StringEquals":
                return all(one in values for one in given or [])
        raise AssertionError(operator)


def _list(value):
    return [value] if isinstance(value, str) else value


def requests_of(method, target, headers, body):
    """What a request asks for; a call of Glue needs the right to all it is about."""
    service = headers.get("X-Amz-Target", "")
    if service.startswith("AWSGlue."):
        return _glue(service.partition(".")[2], json.loads(body))
    if service.startswith("DynamoDB_20120810."):
        return _dynamodb(service.partition(".")[2], json.loads(body))
    if service.startswith("AmazonSQS."):
        return _sqs(service.partition(".")[2], json.loads(body))
    return _s3(method, target, body)


def _glue(call, body):
    arn = f"arn:aws:glue:us-east-1:{ACCOUNT}"
    database = body.get("DatabaseName") or body.get("Name")
    about = ["catalog", f"database/{database}"]
    table = body["Name"] if call == "GetTable" else body.get("TableInput", {}).get("Name")
    return [Request(f"glue:{call}", f"{arn}:{one}") for one in about + ([f"table/{database}/{table}"] if table else [])]


def _dynamodb(call, body):
    if call == "BatchWriteItem":
        ((table, items),) = body["RequestItems"].items()
        asked = [one["PutRequest"]["Item"] if "PutRequest" in one else one["DeleteRequest"]["Key"] for one in items]
        keys = [one["pk"]["S"] for one in asked]
    elif call == "BatchGetItem":
        ((table, items),) = body["RequestItems"].items()
        keys = [one["pk"]["S"] for one in items["Keys"]]
    elif call == "GetItem":
        table, keys = body["TableName"], [body["Key"]["pk"]["S"]]
    else:
        table = body["TableName"]
        keys = [(body.get("Item") or {}).get("pk", {}).get("S") or body["ExpressionAttributeValues"][":pk"]["S"]]
    arn = f"arn:aws:dynamodb:us-east-1:{ACCOUNT}:table/{table}"
    return [Request(f"dynamodb:{call}", arn, {"dynamodb:LeadingKeys": keys})]


def _sqs(call, body):
    name = body.get("QueueName") or body["QueueUrl"].rpartition("/")[2]
    # a batch needs the right to its one call
    return [Request(f"sqs:{call.removesuffix('Batch')}", f"arn:aws:sqs:us-east-1:{ACCOUNT}:{name}")]


def _s3(method, target, body):
    parts = urlsplit(target)
    bucket, _, key = unquote(parts.path).lstrip("/").partition("/")
    query = parse_qs(parts.query, keep_blank_values=True)
    arn = f"arn:aws:s3:::{bucket}"
    if not key and method == "GET":
        return [Request("s3:ListBucket", arn, {"s3:prefix": query.get("prefix", [""])})]
    if not key and method == "HEAD":
        return [Request("s3:ListBucket", arn)]
    if not key and "delete" in query:
        names = [one.text for one in ET.fromstring(body).iter() if one.tag.endswith("Key")]  # noqa: S314 - our own
        return [Request("s3:DeleteObject", f"{arn}/{name}") for name in names]
    if method == "DELETE":
        return [Request("s3:AbortMultipartUpload" if "uploadId" in query else "s3:DeleteObject", f"{arn}/{key}")]
    actions = {"GET": "s3:GetObject", "HEAD": "s3:GetObject", "PUT": "s3:PutObject", "POST": "s3:PutObject"}
    return [Request(actions[method], f"{arn}/{key}")]


class Recorder(ThreadingHTTPServer):
    """Hands requests on to the endpoint, and notes what each phase asked for."""

    daemon_threads = True

    def __init__(self, target):
        super().__init__(("127.0.0.1", 0), _Relay)
        self.target = urlsplit(target)
        self.phase = None
        self.seen = {}
        self.lock = threading.Lock()

    def note(self, requests):
        with self.lock:
            self.seen.setdefault(self.phase, []).extend(requests)


class _Relay(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def _do(self):
        if self.path.startswith("/_phase/"):
            self.server.phase = tuple(self.path.split("/")[2:])
            self._answer(200, {}, b"")
            return
        body = self._body()
        self.server.note(requests_of(self.command, self.path, self.headers, body))
        upstream = http.client.HTTPConnection(self.server.target.hostname, self.server.target.port, timeout=60)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in {*HOP_BY_HOP, "expect"}}
        if "Transfer-Encoding" in self.headers:
            headers["Content-Length"] = str(len(body))
        upstream.request(self.command, self.path, body, headers)
        answer = upstream.getresponse()
        content = answer.read()
        self._answer(answer.status, dict(answer.getheaders()), content)
        upstream.close()

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _do  # noqa: N815 - http.server's names

    def _body(self):
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def _answer(self, status, headers, content):
        self.send_response_only(status)
        for name, value in headers.items():
            if name.lower() not in {*HOP_BY_HOP, "content-length"}:
                self.send_header(name, value)
        length = headers.get("content-length") or headers.get("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


def event(tenant, number):
    made = {
        "event_id": f"018f0000-0000-7000-8000-{number:012d}",
        "tenant": tenant,
        "dataset": "visits",
        "event_time": "2013-01-01T10:00:00.000Z",
        "producer_id": f"{tenant}-phone",
        "sequence": number,
        "schema_version": "1.0.0",
        "payload": {"page": "/"},
    }
    return json.dumps(made).encode()


@pytest.fixture(scope="module")
def recorded(ministack, tmp_path_factory):
    """A lake, and what each job of each workspace asked AWS for while it did all that it can."""
    folder = tmp_path_factory.mktemp("recorded")
    (folder / "visits.yaml").write_text(CONTRACT)
    raw = {
        "company": "held",
        "environment": "test",
        "tenants": {"solo": {"tier": "dedicated"}, "ann": {"tier": "pooled"}, "bob": {"tier": "pooled"}},
        "datasets": {"visits": {"contract": "visits.yaml"}},
        "drops": {"clicks": {"tenant": "solo", "dataset": "visits"}},
        "jobs": {"ingest": {"max_objects": 1}},
    }
    path = folder / "lake.yaml"
    path.write_text(yaml.safe_dump(raw))
    lake, cloud = read_lake(path), Cloud("us-east-1", ministack)
    list(provision_storage(lake, cloud))
    for tenant, bucket in (("solo", "solo"), ("ann", "pooled"), ("bob", "pooled"), ("nobody", "pooled")):
        where = lake.names.bucket(bucket)
        for number in range(4):
            lines = [event(tenant, number + 1), b"no JSON"]
            key = f"processed/visits/tenant={tenant}/year=2013/month=01/day=01/{number}.gz"
            cloud.s3.put_object(Bucket=where, Key=key, Body=gzip.compress(b"\n".join(lines)))
        refused = {"errorCode": "x", "errorMessage": "y", "rawData": base64.b64encode(b"z").decode()}
        key = f"errors/metadata-extraction-failed/visits/2013/01/01/{tenant}"
        cloud.s3.put_object(Bucket=where, Key=key, Body=json.dumps(refused).encode())
    body = b"page\nhome\nabout,too,much\n"
    cloud.s3.put_object(Bucket=lake.names.bucket("solo"), Key="raw/clicks/year=2013/month=01/day=02/a.csv", Body=body)
    recorder = Recorder(ministack)
    threading.Thread(target=recorder.serve_forever, daemon=True).start()
    endpoint = f"http://127.0.0.1:{recorder.server_address[1]}"
    done = subprocess.run(
        [sys.executable, "-c", RUN_JOBS, str(path), endpoint, json.dumps(RUNS)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=540,
    )
    recorder.shutdown()
    recorder.server_close()
    assert done.returncode == 0, done.stdout + done.stderr
    return lake, recorder.seen, done.stdout


def role(lake, job, owner):
    workspace = lake.workspace(owner)
    keys = {one: f"arn:aws:kms:us-east-1:{ACCOUNT}:key/{one}" for one in key_owners(workspace)}
    return job_policy(lake, lake.job(job), workspace, account=ACCOUNT, keys=keys)


@pytest.mark.parametrize(("job", "owner"), RUNS)
def test_all_that_a_job_asks_for_is_allowed_to_its_role(recorded, job, owner):
    lake, seen, printed = recorded
    policy = role(lake, job, owner)
    assert sorted({str(one) for one in seen[job, owner] if not one.is_allowed_by(policy)}) == []
    # and it did something
    assert f"{job}: nothing" not in printed


@pytest.mark.parametrize(("job", "owner"), RUNS)
def test_a_role_has_no_action_that_its_job_never_asks_for(recorded, job, owner):
    lake, seen, _ = recorded
    allowed = {action for one in role(lake, job, owner)["Statement"] for action in _list(one["Action"])}
    asked = {one.action for one in seen[job, owner]}
    # a lake that is minutes old has nothing to maintain; what it would write, compaction writes too
    asked |= {"glue:UpdateTable", "s3:PutObject"} if job == "maintain" else set()
    assert allowed - asked - NOT_ASKED_FOR_HERE == set()


@pytest.mark.parametrize("job", ["ingest", "compact", "maintain"])
def test_what_one_workspaces_job_asks_for_is_refused_to_the_others_role(recorded, job):
    lake, seen, _ = recorded
    for owner, other in (("solo", "pooled"), ("pooled", "solo")):
        data = [one for one in seen[job, owner] if not one.resource.endswith((":catalog", "-manifest"))]
        policy = role(lake, job, other)
        assert data
        assert [one for one in data if one.is_allowed_by(policy)] == []
