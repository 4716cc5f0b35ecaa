"""A server of several processes: what one is told, refuses or limits holds for all."""

from __future__ import annotations

import os
import signal
import time
import urllib.error
import urllib.request
from collections import Counter

import orjson
import pytest

from firehose.connections import RequestLimits
from firehose.encryption import Encryption
from firehose.engine import Limits
from firehose.layout import owner
from firehose.merging import merge_faults, merge_statuses
from firehose.serve import Settings
from firehose.server_status import read_status, troubles
from firehose.shares import share_of
from tests.firehose.conftest import client
from tests.firehose.test_access import FILE, SITE, caller, made_certificate, refusal
from tests.firehose.test_firehose_commands import command
from tests.firehose.test_processes import NAMES, Connection, away, delivered, figure, scraped
from tests.firehose.test_server_conversion import COLUMNS, converting, rows, table_input
from tests.firehose.test_server_processing import NEWLINE, processing, processor

MANY = 24
"""Connections, so that each process has some."""
GROUP = sorted(next(name for name in NAMES if owner(name, 3) == number) for number in range(3))
"""A stream of each of three processes."""


def faults(server, method, body=None):
    data = None if body is None else orjson.dumps({"faults": [body]})
    request = urllib.request.Request(f"{server.url}/_lakehose/faults", data, method=method)
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, orjson.loads(answer.read())
    except urllib.error.HTTPError as error:
        return error.code, orjson.loads(error.read())


def answers(server, name):
    """What a put to a stream is answered on many connections, counted."""
    return Counter(
        (status, answer.get("__type"), answer.get("Encrypted"))
        for status, answer in (Connection(server).put(name, [b"x"]) for _ in range(MANY))
    )


def told(server, name):
    """What many connections tell of a stream's encryption."""
    found = (
        Connection(server).call("DescribeDeliveryStream", DeliveryStreamName=name)[1]["DeliveryStreamDescription"]
        for _ in range(MANY)
    )
    return {one["DeliveryStreamEncryptionConfiguration"]["Status"] for one in found}


def test_encryption_is_on_its_way_and_done_in_all_processes_alike(servers, offline_bucket, wait_for):
    server = servers("--processes", "3", "--creating-seconds", "3")
    for name in GROUP:
        server.create(name, offline_bucket.plain())
    wait_for(lambda: answers(server, GROUP[-1]) == {(200, None, False): MANY})
    for change, going, done, before in (
        ("StartDeliveryStreamEncryption", "ENABLING", "ENABLED", False),
        ("StopDeliveryStreamEncryption", "DISABLING", "DISABLED", True),
    ):
        for name in GROUP:
            assert Connection(server).call(change, DeliveryStreamName=name)[0] == 200
        for name in GROUP:
            assert told(server, name) == {going}
            assert answers(server, name) == {(200, None, before): MANY}
        status, answer = Connection(server).call(change, DeliveryStreamName=GROUP[0])
        assert (status, answer["__type"]) == (400, "ResourceInUseException")
        wait_for(lambda: told(server, GROUP[-1]) == {done})  # noqa: B023
        for name in GROUP:
            assert told(server, name) == {done}
            assert answers(server, name) == {(200, None, not before): MANY}


def test_what_is_under_way_of_encryption_is_taken_over(stream_of_now):
    at = [100.0]
    one, other = (Encryption(lambda: at[0], seconds=5) for _ in range(2))
    stream = stream_of_now
    one.changed(stream, before=True)
    other.changed(stream, before=False)
    other.follow(orjson.loads(orjson.dumps(one.under_way)))
    assert (other.encrypted(stream), other.describe(stream)["Status"]) == (True, "DISABLING")
    at[0] = 105.0
    assert (other.encrypted(stream), other.describe(stream)["Status"]) == (False, "DISABLED")
    assert one.under_way == {}


@pytest.fixture
def stream_of_now():
    from tests.firehose.test_layout import stream  # noqa: PLC0415 - its fixtures would be in the way here

    return stream("clicks")


def test_faults_strike_in_all_processes_and_are_told_and_ended_in_all(servers, offline_bucket):
    server = servers("--processes", "3", "--allow-faults")
    for name in GROUP:
        server.create(name, offline_bucket.plain())
    status, answer = faults(server, "POST", {"kind": "call", "code": "InternalFailure"})
    assert (status, answer["faults"][0]["struck"]) == (200, 0)
    for name in GROUP:
        assert answers(server, name) == {(500, "InternalFailure", None): MANY}
    for _ in range(6):
        status, answer = faults(server, "GET")
        (one,) = answer["faults"]
        assert (status, one["kind"], one["struck"], one["over"]) == (200, "call", 3 * MANY, False)
    assert server.status()["faults"] is True
    status, answer = faults(server, "POST", {"kind": "nonsense"})
    assert (status, "kind: got 'nonsense'" in answer["message"]) == (400, True)
    assert faults(server, "DELETE") == (200, {"faults": []})
    for name in GROUP:
        assert answers(server, name) == {(200, None, False): MANY}


def test_faults_are_not_asked_of_some_while_others_are_away(servers, offline_bucket, wait_for):
    server = servers("--processes", "2", "--allow-faults")
    kept = next(name for name in NAMES if owner(name, 2) == 0)
    server.create(kept, offline_bucket.plain())
    with away(server, 1, wait_for):
        said = {"message": "process 1 of the server is away: faults are as they were"}
        assert faults(server, "POST", {"kind": "call"}) == (503, said)
        assert Connection(server).put(kept, [b"x"])[0] == 200
        # for cron
        run = command("status", "--url", server.url)
        assert (run.returncode, "trouble: process 1 is away" in run.stdout) == (1, True)
    run = command("status", "--url", server.url)
    assert (run.returncode, "trouble" in run.stdout) == (0, False)


def test_keys_and_certificates_are_read_again_by_all_also_by_those_started_later(servers, tmp_path, wait_for):
    path = tmp_path / "credentials"
    path.write_text(FILE)
    path.chmod(0o600)
    cert, key = made_certificate(tmp_path)
    server = servers("--processes", "3", "--credentials", str(path), "--tls-cert", str(cert), "--tls-key", str(key))
    url = server.url.replace("http://", "https://")
    new = ("AKIANEW", "new")

    def call(known):
        return caller(server, known, url=url, verify=str(cert)).list_delivery_streams

    for _ in range(MANY):
        assert call(SITE)()["DeliveryStreamNames"] == []
    path.write_text("[new]\naws_access_key_id = AKIANEW\naws_secret_access_key = new\n")
    made_certificate(tmp_path)
    os.kill(server.process.pid, signal.SIGHUP)
    # the parent too, as it starts those that come later
    wait_for(lambda: sum("are read again" in line for line in server.errors) == 4)
    pids = set(children(server.process.pid))
    assert len(pids) == 3
    os.kill(max(pids), signal.SIGKILL)
    wait_for(lambda: len(set(children(server.process.pid)) | pids) == 4)
    wait_for(lambda: sum("it is started again" in line for line in server.errors) == 1)
    time.sleep(3)
    for _ in range(MANY):
        assert call(new)()["DeliveryStreamNames"] == []
        assert refusal(call(SITE))[0] == "UnrecognizedClientException"


def children(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:  # noqa: PTH123 - read at once
        return [int(one) for one in file.read().split()]


def test_without_a_signature_nothing_is_handed_on(servers, tmp_path):
    path = tmp_path / "credentials"
    path.write_text(FILE)
    path.chmod(0o600)
    server = servers("--processes", "3", "--credentials", str(path))
    for _ in range(MANY):
        for name in GROUP:
            status, answer = Connection(server).put(name, [b"x"])
            assert (status, answer["__type"]) == (400, "MissingAuthenticationTokenException")
        assert faults(server, "GET")[1]["__type"] == "MissingAuthenticationTokenException"
    found = scraped(server)
    assert figure(found, 'firehose_errors_total{process="') == 4 * MANY
    # the scrape itself asks the two others
    assert figure(found, "firehose_handed_on_requests_total{") == 0


def test_an_error_is_counted_once_whoever_makes_it(servers):
    server = servers("--processes", "3")
    for _ in range(MANY):
        for name in GROUP:
            assert Connection(server).put(name, [b"x"])[1]["__type"] == "ResourceNotFoundException"
    found = [line for line in scraped(server).splitlines() if line.startswith("firehose_errors_total{")]
    assert {line.rpartition(",")[2].partition("}")[0] for line in found} == {'code="ResourceNotFoundException"'}
    # by the process that has the stream
    assert [float(line.rpartition(" ")[2]) for line in found] == [MANY] * 3


def test_a_streams_quota_is_one_for_all_connections_and_goes_with_the_stream(servers, offline_bucket):
    server = servers("--processes", "3", "--quotas", "eu-central-1,records=100,requests=1000,bytes=1000000")
    connections = [Connection(server) for _ in range(MANY)]
    for name in GROUP:
        for _ in range(2):
            server.create(name, offline_bucket.plain())
            taken, started = 0, time.monotonic()
            for connection in connections:
                status, answer = connection.put(name, [b"x"] * 20)
                taken += 20 - answer["FailedPutCount"] if status == 200 else 0
            assert 100 <= taken <= 100 + 100 * (time.monotonic() - started)
            assert taken < 20 * MANY
            server.firehose.delete_delivery_stream(DeliveryStreamName=name)


def test_a_change_is_known_to_all_whatever_path_it_was_asked_at(servers, offline_bucket):
    server = servers("--processes", "3")
    for number, name in enumerate(GROUP):
        body = {"DeliveryStreamName": name, "ExtendedS3DestinationConfiguration": offline_bucket.plain()}
        connection = Connection(server)
        target = {"X-Amz-Target": "Firehose_20150804.CreateDeliveryStream"}
        connection.http.request("POST", "/any/path", orjson.dumps(body), target)
        assert connection.http.getresponse().status == 200
        for _ in range(MANY):
            assert Connection(server).call("ListDeliveryStreams")[1]["DeliveryStreamNames"] == sorted(
                GROUP[: number + 1]
            )


def test_a_tables_new_column_is_known_to_the_process_of_each_stream(servers, s3_url, bucket, wait_for):
    server = servers("--processes", "3", "--schema-seconds", "1", "--glue-endpoint", s3_url)
    glue, table = client("glue", s3_url), f"t{bucket.name[-12:]}"
    glue.create_database(DatabaseInput={"Name": table})
    glue.create_table(DatabaseName=table, TableInput=table_input(table, COLUMNS))
    for name in GROUP:
        server.create(name, {**converting(bucket, table), "Prefix": f"{name}/"})
        assert Connection(server).put(name, [b'{"id":"a","more":1}'])[0] == 200
    glue.update_table(DatabaseName=table, TableInput=table_input(table, [*COLUMNS, ("more", "bigint")]))
    wait_for(lambda: sum("has changed: version" in line for line in server.errors) == 3)
    for name in GROUP:
        # what was in its buffer goes out as it was
        wait_for(lambda: bucket.objects(f"{name}/"))  # noqa: B023
        assert Connection(server).put(name, [b'{"id":"b","more":2}'])[0] == 200
    server.flush()
    for name in GROUP:
        found = [row for key in bucket.objects(f"{name}/") for row in rows(bucket, key)]
        assert sorted((row["id"], row.get("more", "-")) for row in found) == [("a", "-"), ("b", 2)]
    # each by one process alone
    assert sum("has changed: version" in line for line in server.errors) == 3


def test_limits_are_shared_and_a_share_takes_any_call(tmp_path):
    settings = Settings(
        tmp_path,
        limits=Limits(pending_bytes=900, uploads=8, invocations=2),
        requests=RequestLimits(connections=100, body_bytes=64 << 20),
        log_bytes=3_000,
    )
    assert share_of(settings) is settings
    share = share_of(Settings(**{**vars(settings), "processes": 3}))
    # what is allowed in one put must find room
    assert (share.limits.pending_bytes, share.limits.uploads, share.limits.invocations) == (900, 2, 1)
    assert (share.requests.connections, share.requests.body_bytes, share.log_bytes) == (33, (64 << 20) // 3, 1_000)
    share = share_of(Settings(**{**vars(settings), "processes": 64}))
    assert (share.requests.body_bytes, share.limits.uploads) == (16 << 20, 1)
    for pending, processes, each in ((1 << 30, 4, 256 << 20), (16 << 20, 8, 8 << 20)):
        limits = {"limits": Limits(pending_bytes=pending), "processes": processes}
        assert share_of(Settings(**{**vars(settings), **limits})).limits.pending_bytes == each


def test_what_was_made_what_stays_for_the_backup_and_what_was_carried_keeps_with_another_number(
    servers, make_bucket, bucket, wait_for
):
    """Records of the first segment wait for a bucket, in objects and beside; all else of a long log is delivered."""
    waiting, kept = make_bucket(exists=False), make_bucket(exists=False)
    server = servers("--segment-mib", "1", "--processes", "1")
    apart = processing(processor("RecordDeAggregation", SubRecordType="JSON"), NEWLINE)
    for name in GROUP:
        source = kept.plain(Prefix=f"{name}/", BufferingHints={"SizeInMBs": 1, "IntervalInSeconds": 900})
        destination = waiting.plain(Prefix=f"{name}/", BufferingHints={"SizeInMBs": 1, "IntervalInSeconds": 900})
        server.create(name, {**destination, **apart, "S3BackupMode": "Enabled", "S3BackupConfiguration": source})
    server.create("flowing", bucket.plain())
    given, made = ({name: Counter() for name in GROUP} for _ in range(2))

    def put(life):
        for name in GROUP:
            some = [[b'{"life":%d,"n":%d,"part":%d}' % (life, n, part) for part in range(3)] for n in range(4)]
            server.batch(name, [b"".join(one) + b"\n" for one in some])
            given[name].update(b"".join(one) for one in some)
            made[name].update(part for one in some for part in one)

    put(0)
    # the first objects are announced and can't be written; what comes behind them is in no object
    with pytest.raises(OSError, match="timed out"):
        urllib.request.urlopen(f"{server.url}/_lakehose/flush?stream={GROUP[0]}", b"", timeout=2)
    put(1)
    records = [os.urandom(8_000) for _ in range(100)]
    for _ in range(10):
        server.batch("flowing", records)
        server.flush("flowing")
    wait_for(lambda: not (server.data / "log" / "0000000000000001.wal").exists())
    for life, processes in enumerate((3, 2, 1, 3), 2):
        server.kill()
        server.options[-1] = str(processes)
        server.start()
        put(life)
    for one in (waiting, kept):
        one.s3.create_bucket(Bucket=one.name)
    server.flush()
    assert server.status()["pendingRecords"] == 0
    for name in GROUP:
        assert delivered(waiting, f"{name}/") == made[name]
        assert delivered(kept, f"{name}/") == given[name]


def test_a_server_of_one_process_has_no_others_and_no_sockets(servers, offline_bucket):
    server = servers("--processes", "2")
    server.kill()
    assert len(list(server.data.glob("*.sock"))) == 2
    server.options[-1] = "1"
    server.start()
    server.create("clicks", offline_bucket.plain())
    assert Connection(server).put("clicks", [b"x"])[0] == 200
    assert children(server.process.pid) == []
    assert sorted(one.name for one in server.data.iterdir()) == ["lock", "log", "processes.json", "streams.json"]
    assert {"away", "processes", "pid"} & set(server.status()) == set()
    assert "process=" not in scraped(server)
    assert "firehose_handed_on" not in scraped(server)


def test_a_limit_of_the_log_is_enough_for_each_process(tmp_path):
    options = ("--max-log-gib", "0.9", "--processes", 2)
    run = command("serve", "--data-dir", tmp_path / "data", "--port", 0, *options)
    assert run.returncode == 2
    assert "got 0.9, at least 16 segments of --segment-mib 64 are needed, 8 for each of 2 processes" in run.stderr


def test_faults_of_processes_are_added_up_by_what_they_are():
    def fault(kind, occasions, struck, *, over):
        return {"kind": kind, "share": 0.5, "occasions": occasions, "struck": struck, "over": over}

    first = [fault("call", 10, 5, over=True), fault("call", 1, 0, over=False), fault("s3", 2, 2, over=True)]
    # this one was started again, and asked for one since
    second = [fault("s3", 3, 1, over=False)]
    assert merge_faults([{"faults": first}, {"faults": second}, {"faults": first}]) == {
        "faults": [
            fault("call", 20, 10, over=True),
            fault("call", 2, 0, over=False),
            fault("s3", 7, 5, over=False),
        ]
    }


def test_a_status_of_several_is_read_as_one_and_tells_who_is_away():
    one = {
        "streams": {},
        "pendingRecords": 1,
        "pendingBytes": 2,
        "logBytes": 5,
        "logFailing": False,
        "activePartitionQuota": 500,
        "logLimitBytes": 100,
        "logFull": True,
        "faults": False,
        "pid": 7,
    }
    status = read_status(merge_statuses({0: one, 1: None, 2: {**one, "logFull": False}}))
    assert (status.log_limit, status.log_full, status.pending_bytes, status.away) == (200, True, 4, (1,))
    assert "process 1 is away: puts to its streams are refused or wait" in troubles(status)
    del one["pid"]
    assert read_status(one).away == ()
