"""What a job hears when S3 or Glue is away: reads ask again for a while, and then say whether another try may help."""

from __future__ import annotations

import json
import urllib.request
from dataclasses import replace

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from py4j.protocol import Py4JError, Py4JNetworkError

from lake.clients import Cloud, is_passing
from lake.erasure import parse_subject
from lake.errors import CommitConflictError, EnvironmentProblemError, TerminalError, TransientError
from lake.manifest import BatchId, Lane
from lake.provision import provision_storage
from lake.tables import glue_catalog, load_table
from spark_jobs.erase_files import Form, Stored, rewrite
from spark_jobs.erase_match import Matcher
from spark_jobs.failures import spoken
from spark_jobs.objects import StoredObject
from spark_jobs.plan import Plan, read_plan, write_plan
from tests.faults.processes import Child
from tests.faults.world import DATASET, REGION, TENANT, lake_of


@pytest.fixture(scope="module")
def relay(ministack, tmp_path_factory):
    child = Child.python("tests.faults.relay", "--upstream", ministack, log=tmp_path_factory.mktemp("manners") / "log")
    yield f"http://127.0.0.1:{int(child.line(30))}"
    child.end()


@pytest.fixture(scope="module")
def identifier(ministack):
    lake = lake_of("manners")
    for _ in provision_storage(lake, Cloud(REGION, ministack)):
        pass
    return lake.names.database(TENANT), DATASET


def refuse(relay, **rule):
    request = urllib.request.Request(f"{relay}/_faults", json.dumps([rule]).encode(), method="PUT")
    urllib.request.urlopen(request).close()


@pytest.mark.parametrize("rule", [{"action": "refuse", "code": "SlowDown"}, {"action": "cut"}])
def test_a_table_is_read_though_s3_fails_four_times(relay, identifier, rule):
    refuse(relay, service="s3", times=4, **rule)
    table = load_table(glue_catalog(Cloud(REGION, relay)), identifier)
    assert table.name() == identifier


def test_a_table_that_s3_does_not_give_for_long_is_a_transient_error_that_names_it(relay, identifier):
    refuse(relay, service="s3", times=100, action="refuse", code="SlowDown")
    with pytest.raises(TransientError, match=rf"table {identifier[0]}\.{DATASET}: its metadata can't be read: .*503"):
        load_table(glue_catalog(Cloud(REGION, relay)), identifier)


@pytest.fixture
def bucket(ministack):
    s3 = Cloud(REGION, ministack).s3
    s3.create_bucket(Bucket="manners")
    return s3


def test_a_plan_whose_reply_was_lost_is_our_own_and_another_ones_is_a_conflict(relay, bucket):
    s3 = Cloud(REGION, relay).s3
    plan = Plan(BatchId(TENANT, DATASET, Lane.EVENTS, TENANT, 1), (StoredObject("s3://b/a", 5),), "1.0.0", 1000)
    refuse(relay, service="s3", call="PutObject", action="lose")
    write_plan(s3, "manners", plan)
    assert read_plan(bucket, "manners", plan.batch) == plan
    with pytest.raises(CommitConflictError, match="another ingest has planned it"):
        write_plan(s3, "manners", replace(plan, planned_at_ms=1001))


def test_an_object_whose_rewrite_lost_its_reply_was_rewritten(relay, bucket):
    lines = [json.dumps({"event_id": "e", "tenant": TENANT, "payload": {"user_id": one}}) for one in ("ann", "bob")]
    bucket.put_object(Bucket="manners", Key="processed/a", Body="\n".join(lines).encode())
    lake = lake_of("manners")
    matcher = Matcher(parse_subject(lake, TENANT, ["user_id=ann"]).keys, TENANT)
    refuse(relay, service="s3", call="PutObject", action="lose")
    size = sum(map(len, lines)) + 1
    found = rewrite(Cloud(REGION, relay).s3, Stored("manners", "processed/a", size), Form.LINES, matcher)
    assert found.records == 1
    assert bucket.get_object(Bucket="manners", Key="processed/a")["Body"].read().decode() == f"\n{lines[1]}"


def refusal(code):
    return ClientError({"Error": {"Code": code}}, "GetObject")


@pytest.mark.parametrize(
    ("error", "passing"),
    [
        (refusal("SlowDown"), True),
        (refusal("ConcurrentModificationException"), True),
        (refusal("AccessDenied"), False),
        (EndpointConnectionError(endpoint_url="http://x"), True),
        (OSError("When getting information for key 'a': AWS Error NETWORK_CONNECTION during HeadObject"), True),
        (OSError("When getting information for key 'a': AWS Error ACCESS_DENIED during HeadObject"), False),
        (OSError("AWS Error NO_SUCH_BUCKET during GetObject operation"), False),
        (FileNotFoundError("s3://b/k"), False),
        (ConnectionResetError(104, "reset"), True),
        (ValueError("no"), False),
    ],
)
def test_an_error_tells_whether_another_try_may_help(error, passing):
    assert is_passing(error) is passing


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (OSError("AWS Error SLOW_DOWN"), TransientError, "ingest: AWS Error SLOW_DOWN"),
        (PermissionError("no"), TerminalError, "ingest: no"),
        (
            Py4JError("org does not exist in the JVM"),
            EnvironmentProblemError,
            "ingest: Spark's JVM has ended: was it killed, or out of memory? Start the job again",
        ),
        (
            Py4JNetworkError("Answer from Java side is empty"),
            EnvironmentProblemError,
            "ingest: Spark's JVM has ended: was it killed, or out of memory? Start the job again",
        ),
        # an answer that was cut off before its first sign
        (Py4JError("An error occurred while calling o80.newSession"), EnvironmentProblemError, "ingest: Spark's JVM"),
        (Py4JError("An error occurred while calling o80.sql. Trace:\nx"), TerminalError, "ingest: Spark failed: "),
        # PySpark's, of rows that were still to come
        (EOFError(), EnvironmentProblemError, "ingest: Spark's JVM has ended: was it killed, or out of memory?"),
        (Py4JError("Caused by: a.SdkClientException: (Status Code: 503)"), TransientError, "ingest: Spark failed: "),
        # of an answer that was cut short
        (
            Py4JError("Caused by: java.io.EOFException: Unexpected EOF with 4 bytes remaining"),
            TransientError,
            "ingest: ",
        ),
        (Py4JError("o.a.s.SparkException: Python worker exited unexpectedly (crashed)"), TransientError, "ingest: "),
        (
            Py4JError(
                "java.io.IOException: Stream closed\n"
                "\tat org.apache.spark.api.python.PythonWorkerFactory.$anonfun$stopWorker$1(Factory.scala:479)"
            ),
            TransientError,
            "ingest: Spark failed: ",
        ),
        (
            Py4JError(
                'java.io.IOException: Cannot run program "python4"\n'
                "\tat org.apache.spark.api.python.PythonWorkerFactory.startDaemon(PythonWorkerFactory.scala:300)"
            ),
            TerminalError,
            "ingest: Spark failed: ",
        ),
    ],
)
def test_a_failure_becomes_a_sentence_and_a_kind(error, kind, said):
    with pytest.raises(kind) as caught, spoken("ingest"):
        raise error
    assert type(caught.value) is kind
    assert str(caught.value).startswith(said)


def test_another_end_of_a_file_is_nobodys_jvm():
    with pytest.raises(EOFError, match="Compressed file ended"), spoken("ingest"):
        raise EOFError("Compressed file ended before the end-of-stream marker was reached")
