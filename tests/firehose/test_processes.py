"""A server of several processes: as one to its callers, whichever process they reach, and whichever dies."""

from __future__ import annotations

import base64
import gzip
import http.client
import os
import random
import re
import signal
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from contextlib import contextmanager

import orjson
import pytest
from botocore.exceptions import ClientError

from firehose.layout import owner
from tests.firehose.conftest import ROLE

NAMES = ["clicks", "flights", "orders", "taps", "visits", "weather"]


class Connection:
    """One connection, kept open, to whichever process took it."""

    def __init__(self, server):
        self.http = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)

    def call(self, operation, target="Firehose_20150804", **request):
        return self.send(operation, orjson.dumps(request), target)

    def send(self, operation, body, target="Firehose_20150804"):
        self.http.request("POST", "/", body, {"X-Amz-Target": f"{target}.{operation}"})
        answer = self.http.getresponse()
        return answer.status, orjson.loads(answer.read())

    def put(self, stream, records):
        return self.call("PutRecordBatch", **batch(stream, records))


def batch(stream, records):
    return {
        "DeliveryStreamName": stream,
        "Records": [{"Data": base64.b64encode(record).decode()} for record in records],
    }


def delivered(bucket, prefix=""):
    counted = Counter()
    for key in bucket.objects(prefix):
        raw = bucket.body(key)
        counted.update((gzip.decompress(raw) if key.endswith(".gz") else raw).splitlines())
    return counted


def workers(server):
    """Pids of the processes, by number."""
    return {one["process"]: one["pid"] for one in server.status()["processes"]}


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:  # noqa: PTH123 - read at once
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@contextmanager
def away(server, number, wait_for):
    """The server while a process of it is dead, and afterwards as it was."""
    pid = workers(server)[number]
    os.kill(server.process.pid, signal.SIGSTOP)  # or it would be back too soon to be looked at
    try:
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not alive(pid))
        yield
    finally:
        os.kill(server.process.pid, signal.SIGCONT)
    wait_for(lambda: server.status()["away"] == [], seconds=60)


def scraped(server):
    with urllib.request.urlopen(f"{server.url}/metrics") as answer:
        return answer.read().decode()


def figure(text, start):
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(start))


def test_what_is_put_on_any_connection_arrives_once(three, bucket, wait_for):
    connections = [Connection(three) for _ in range(24)]
    for name in NAMES:
        three.create(name, bucket.plain(Prefix=f"{name}/", CompressionFormat="GZIP"))
    sent = {name: Counter() for name in NAMES}
    for round_ in range(4):
        for number, connection in enumerate(connections):
            name = NAMES[(number + round_) % len(NAMES)]
            records = [f"{name} {round_} {number} {one}\n".encode() for one in range(20)]
            status, answer = connection.put(name, records)
            assert (status, answer["FailedPutCount"], len(answer["RequestResponses"])) == (200, 0, 20)
            sent[name].update(record.rstrip(b"\n") for record in records)
    flushed = three.flush()
    assert {name: one["records"] for name, one in flushed.items()} == dict.fromkeys(NAMES, 320)
    assert {name: delivered(bucket, f"{name}/") for name in NAMES} == sent
    assert {owner(name, 3) for name in NAMES} == {0, 1, 2}

    def every_process_has_handed_on():
        for name in NAMES:
            assert Connection(three).put(name, [b"later\n"])[0] == 200
        found = scraped(three)
        return all(figure(found, f'firehose_handed_on_requests_total{{process="{one}"') > 0 for one in range(3))

    # which process takes a connection is the system's choice, and on a busy machine one may go without for a while
    wait_for(every_process_has_handed_on, seconds=60)


def test_a_change_is_known_on_every_connection_once_it_is_answered(three, bucket):
    draw = random.Random(20_150_804)  # noqa: S311 - which connection, no secret
    connections = [Connection(three) for _ in range(16)]
    there = {}

    def check():
        for connection in draw.sample(connections, len(connections)):
            status, answer = connection.call("ListDeliveryStreams", Limit=100)
            assert (status, answer["DeliveryStreamNames"]) == (200, sorted(there))
            if not there:
                continue
            name = draw.choice(sorted(there))
            _, answer = connection.call("DescribeDeliveryStream", DeliveryStreamName=name)
            found = answer["DeliveryStreamDescription"]
            prefix = found["Destinations"][0]["ExtendedS3DestinationDescription"]["Prefix"]
            assert (found["VersionId"], prefix) == there[name][:2]
            _, answer = connection.call("ListTagsForDeliveryStream", DeliveryStreamName=name)
            assert [one["Key"] for one in answer["Tags"]] == sorted(there[name][2])
            assert connection.put(name, [b"x\n"])[0] == 200

    def change():
        connection = draw.choice(connections)
        name = draw.choice(NAMES)
        if name not in there:
            status, answer = connection.call(
                "CreateDeliveryStream", DeliveryStreamName=name, ExtendedS3DestinationConfiguration=bucket.plain()
            )
            there[name] = ("1", "raw/", set())
        elif (what := draw.choice(["update", "tag", "delete"])) == "update":
            version, _, tags = there[name]
            there[name] = (str(int(version) + 1), f"v{version}/", tags)
            status, answer = connection.call(
                "UpdateDestination",
                DeliveryStreamName=name,
                CurrentDeliveryStreamVersionId=version,
                DestinationId="destinationId-000000000001",
                ExtendedS3DestinationUpdate={"Prefix": f"v{version}/"},
            )
        elif what == "tag":
            tag = f"t{draw.randrange(40)}"
            there[name][2].add(tag)
            status, answer = connection.call("TagDeliveryStream", DeliveryStreamName=name, Tags=[{"Key": tag}])
        else:
            del there[name]
            status, answer = connection.call("DeleteDeliveryStream", DeliveryStreamName=name)
        assert status == 200, answer

    for _ in range(40):
        change()
        check()
    for connection in connections:
        assert connection.put("gone", [b"x"])[1]["__type"] == "ResourceNotFoundException"


def test_an_update_divides_what_is_delivered_before_and_behind_it(three, bucket):
    for name in NAMES:
        three.create(name, bucket.plain(Prefix=f"before/{name}/"))
        Connection(three).put(name, [b"old\n"])
        three.firehose.update_destination(
            DeliveryStreamName=name,
            CurrentDeliveryStreamVersionId="1",
            DestinationId="destinationId-000000000001",
            ExtendedS3DestinationUpdate={"Prefix": f"behind/{name}/"},
        )
        Connection(three).put(name, [b"new\n"])
    three.flush()
    for name in NAMES:
        assert delivered(bucket, f"before/{name}/") == {b"old": 1}
        assert delivered(bucket, f"behind/{name}/") == {b"new": 1}


def test_the_quota_of_partitions_is_a_streams_and_known_to_all(three, bucket, event):
    one = Connection(three)
    three.create("flights", bucket.partitioned())
    desired = {"ServiceCode": "firehose", "QuotaCode": "L-1A7E4053", "DesiredValue": 503}
    status, _ = one.call("RequestServiceQuotaIncrease", "ServiceQuotasV20190624", **desired)
    assert status == 200
    for _ in range(12):
        _, answer = Connection(three).call("ListServiceQuotas", "ServiceQuotasV20190624", ServiceCode="firehose")
        assert answer["Quotas"][0]["Value"] == 503
    records = [event(number, tenant=f"t{number}") for number in range(520)]
    for start in range(0, 520, 40):
        Connection(three).put("flights", records[start : start + 40])
    three.flush()
    assert len(bucket.objects("processed/")) == 503
    (refused,) = bucket.objects("errors/activePartitionExceeded")
    assert len(bucket.body(refused).splitlines()) == 17


def test_status_and_figures_are_of_all(three, offline_bucket):
    for number, name in enumerate(NAMES):
        three.create(name, offline_bucket.plain())
        for _ in range(number + 1):
            Connection(three).put(name, [b"abc", b"d"])
    status = three.status()
    assert {name: one["pendingRecords"] for name, one in status["streams"].items()} == {
        name: 2 * (number + 1) for number, name in enumerate(NAMES)
    }
    assert (status["pendingRecords"], status["pendingBytes"], status["activePartitionQuota"]) == (42, 84, 500)
    assert sum(one["pendingRecords"] for one in status["processes"]) == 42
    assert (status["logFailing"], status["away"]) == (False, [])
    found = scraped(three)
    for number, name in enumerate(NAMES):
        told = [
            line for line in found.splitlines() if line.startswith(f'firehose_incoming_records_total{{stream="{name}"')
        ]
        assert told == [f'firehose_incoming_records_total{{stream="{name}"}} {2.0 * (number + 1)}']
    assert figure(found, "firehose_pending_bytes{process=") == 84
    assert figure(found, "firehose_process_up{") == 3
    assert figure(found, "firehose_active_partition_quota ") == 500
    assert found.count("# TYPE firehose_pending_bytes gauge") == 1
    assert figure(found, 'process_resident_memory_bytes{process="2"}') > 1e6
    with urllib.request.urlopen(f"{three.url}/_lakehose/health") as answer:
        assert orjson.loads(answer.read()) == {"status": "ok"}


def test_one_stream_is_flushed_by_itself_and_one_that_isnt_there_is_told(three, bucket):
    for name in NAMES[:2]:
        three.create(name, bucket.plain())
        Connection(three).put(name, [b"x\n"])
    assert three.flush(NAMES[0]) == {NAMES[0]: {"objects": 1, "records": 1}}
    assert three.status()["pendingRecords"] == 1
    with pytest.raises(urllib.error.HTTPError) as caught:
        three.flush("gone")
    assert (caught.value.code, orjson.loads(caught.value.read())) == (404, {"message": "no stream 'gone'"})


class Load:
    """Threads that put numbered records of all streams, each on connections of its own, and note what was taken."""

    def __init__(self, server, threads=6):
        self.server = server
        self.taken = []
        self.refused = Counter()
        self.going = True
        self.threads = [threading.Thread(target=self.work, args=(number,)) for number in range(threads)]
        for thread in self.threads:
            thread.start()

    def work(self, number):
        connection = Connection(self.server)
        name = NAMES[number]
        for round_ in range(1_000_000):
            if not self.going:
                return
            records = [f"{name} {number} {round_} {one}".encode() for one in range(10)]
            try:
                status, answer = connection.put(name, [record + b"\n" for record in records])
            except (OSError, http.client.HTTPException):  # its process was killed
                self.refused["connection"] += 1
                connection = Connection(self.server)
                continue
            if status == 200:
                self.taken += records
            else:
                self.refused[answer["__type"]] += 1
                time.sleep(0.01)

    def stop(self):
        self.going = False
        for thread in self.threads:
            thread.join()
        return self.taken


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_a_process_killed_under_load_comes_back_and_nothing_acknowledged_is_lost(three, bucket, wait_for, victim):
    for name in NAMES:
        three.create(name, bucket.plain())
    before = workers(three)
    load = Load(three)
    wait_for(lambda: len(load.taken) > 500)
    os.kill(before[victim], signal.SIGKILL)
    killed_at = len(load.taken)
    wait_for(lambda: workers(three).get(victim, before[victim]) != before[victim], seconds=60)
    wait_for(lambda: len(load.taken) > killed_at + 500, seconds=60)
    taken = load.stop()
    assert set(load.refused) <= {"connection", "ServiceUnavailableException"}
    three.flush()
    counted = delivered(bucket)
    assert [record for record in taken if counted[record] != 1] == []
    assert max(counted.values()) == 1
    after = workers(three)
    assert {number for number in before if before[number] != after[number]} == {victim}
    assert any(f"process {victim} of the server ended (SIGKILL)" in line for line in three.errors)


def test_while_a_process_is_away_the_others_serve_on(servers, offline_bucket, wait_for):
    server = servers("--processes", "2")
    kept, lost = (next(name for name in NAMES if owner(name, 2) == number) for number in range(2))
    for name in (kept, lost):
        server.create(name, offline_bucket.plain())
    with away(server, 1, wait_for):
        answers = [Connection(server).put(name, [b"x"]) for name in (kept, lost, kept)]
        assert [status for status, _ in answers] == [200, 503, 200]
        # whoever has spoken to it before may see the connection end first
        gone = "process-1 (isn't there|ended), it is being started again"
        assert re.fullmatch(rf"The service is unavailable: {gone}\.", answers[1][1]["message"])
        assert answers[1][1]["__type"] == "ServiceUnavailableException"
        status = server.status()
        assert (status["away"], list(status["streams"])) == ([1], [kept])
        assert 'firehose_process_up{process="1"} 0.0' in scraped(server)
        with urllib.request.urlopen(f"{server.url}/_lakehose/health") as answer:
            assert orjson.loads(answer.read()) == {"status": "degraded", "away": [1]}
        for stream in (lost, None):
            with pytest.raises(urllib.error.HTTPError) as caught:
                server.flush(stream)
            assert caught.value.code == 503
        # what is changed meanwhile it knows when it comes
        assert Connection(server).call("DeleteDeliveryStream", DeliveryStreamName=kept)[0] == 200
    for connection in [Connection(server) for _ in range(8)]:
        assert connection.put(lost, [b"x"])[0] == 200
        assert connection.call("ListDeliveryStreams")[1]["DeliveryStreamNames"] == [lost]


def test_a_change_is_not_answered_before_a_process_that_stands_still_knows_it(servers, offline_bucket):
    server = servers("--processes", "2")
    pid = workers(server)[1]
    answered = threading.Event()

    def create():
        server.create("late", offline_bucket.plain())
        answered.set()

    os.kill(pid, signal.SIGSTOP)
    try:
        # by the process that goes on: the other one takes no connection now
        thread = threading.Thread(target=create)
        thread.start()
        assert not answered.wait(1.5)
    finally:
        os.kill(pid, signal.SIGCONT)
    thread.join(30)
    assert answered.is_set()
    for _ in range(8):
        assert Connection(server).call("ListDeliveryStreams")[1]["DeliveryStreamNames"] == ["late"]


def test_a_change_is_known_everywhere_though_processes_are_killed(three, offline_bucket):
    """The tag `count` only rises, so whoever tells less than was answered is stale."""
    three.create("clicks", offline_bucket.plain())
    draw = random.Random(5)  # noqa: S311 - whom to kill, no secret
    going = True

    def kill():
        while going:
            time.sleep(draw.uniform(1, 4))
            there = workers(three)
            os.kill(there[draw.choice(sorted(there))], signal.SIGKILL)

    def answered(operation, **request):
        while True:
            try:
                status, answer = Connection(three).call(operation, DeliveryStreamName="clicks", **request)
            except (OSError, http.client.HTTPException):  # its process was killed
                continue
            if status == 200:
                return answer
            assert (status, answer["__type"]) == (503, "ServiceUnavailableException")
            time.sleep(0.02)

    killing = threading.Thread(target=kill)
    killing.start()
    try:
        deadline = time.monotonic() + 25
        count = 0
        while time.monotonic() < deadline:
            count += 1
            answered("TagDeliveryStream", Tags=[{"Key": "count", "Value": str(count)}])
            for _ in range(6):
                assert answered("ListTagsForDeliveryStream")["Tags"] == [{"Key": "count", "Value": str(count)}]
    finally:
        going = False
        killing.join()
    assert count > 20


def test_calls_that_are_wrong_are_refused_as_by_one_process(three, offline_bucket):
    three.create("clicks", offline_bucket.plain())
    for connection in [Connection(three) for _ in range(9)]:
        for operation, body, code in (
            ("PutRecordBatch", b"{", "SerializationException"),
            ("PutRecordBatch", b'{"Records": [{"Data": "YQ=="}]}', "ValidationException"),
            ("PutRecordBatch", b'{"DeliveryStreamName": "clicks", "Records": []}', "ValidationException"),
            ("PutRecord", b'{"DeliveryStreamName": "clicks", "Record": {"Data": "?"}}', "SerializationException"),
            ("UpdateDestination", b"{}", "ValidationException"),
            ("Frobnicate", b"{}", "UnknownOperationException"),
        ):
            status, answer = connection.send(operation, body)
            assert (status, answer["__type"]) == (400, code)
    with pytest.raises(ClientError, match="ResourceInUseException"):
        three.firehose.create_delivery_stream(
            DeliveryStreamName="clicks",
            S3DestinationConfiguration={"RoleARN": ROLE, "BucketARN": "arn:aws:s3:::b"},
        )
