"""The server killed, its disk full, its S3 away: no acknowledged record is lost, and none is delivered twice."""

from __future__ import annotations

import gzip
import resource
import threading
import zipfile
from collections import Counter
from io import BytesIO

import pytest
from botocore.exceptions import BotoCoreError, ClientError


def unzipped(raw):
    with zipfile.ZipFile(BytesIO(raw)) as archive:
        return archive.read(archive.namelist()[0])


READERS = {"GZIP": gzip.decompress, "ZIP": unzipped}


def delivered(bucket):
    counted = Counter()
    for key in bucket.objects():
        raw = bucket.body(key)
        counted.update((gzip.decompress(raw) if key.endswith(".gz") else raw).splitlines())
    return counted


def put_until_killed(server, stream, records):
    """Put records one batch after the other; returns those that were acknowledged."""
    acknowledged = []
    firehose = server.firehose
    for batch in records:
        try:
            firehose.put_record_batch(DeliveryStreamName=stream, Records=[{"Data": record} for record in batch])
        except (BotoCoreError, ClientError):
            break
        acknowledged += batch
    return acknowledged


def test_every_acknowledged_record_arrives_once_when_the_server_is_killed_while_putting(servers, bucket, event):
    server = servers()
    server.create(
        "flights", bucket.partitioned(Prefix="t=!{partitionKeyFromQuery:tenant}/!{partitionKeyFromQuery:day}/")
    )
    acknowledged, tried = [], []
    for life in range(3):
        lives = [
            [[event(((life * 4 + worker) * 400 + n) * 50 + i, f"t{i % 7}") for i in range(50)] for n in range(400)]
            for worker in range(2)
        ]
        tried += [record for batches in lives for batch in batches for record in batch]
        found = [[], []]

        def work(worker, lives=lives, found=found):
            found[worker] = put_until_killed(server, "flights", lives[worker])

        threads = [threading.Thread(target=work, args=(worker,)) for worker in range(2)]
        for thread in threads:
            thread.start()
        flushing = threading.Thread(target=lambda: flush_quietly(server))
        threading.Event().wait(0.4)
        flushing.start()  # so that deliveries are under way
        threading.Event().wait(0.15)
        server.kill()
        for thread in [*threads, flushing]:
            thread.join()
        acknowledged += [record for part in found for record in part]
        server.start()
    server.flush()

    counted = delivered(bucket)
    assert len(acknowledged) > 1_000
    assert [record for record in acknowledged if counted[record] != 1] == []
    assert set(counted) <= set(tried)
    assert max(counted.values()) == 1
    assert server.status()["pendingRecords"] == 0


def flush_quietly(server):
    try:
        server.flush()
    except OSError:
        return


@pytest.mark.parametrize("compression", READERS)
def test_an_object_written_just_before_a_crash_is_written_again_under_its_key_with_its_bytes(
    servers, bucket, proxy, event, compression
):
    server = servers(s3=proxy.url)
    server.create("flights", bucket.partitioned(CompressionFormat=compression))
    server.batch("flights", [event(1), event(2), b"not json"])
    server.batch("flights", [event(3)])
    proxy.victim = server
    flush_quietly(server)
    server.process.wait()
    assert len(bucket.objects()) >= 1

    server.start()
    server.flush()

    assert len(bucket.objects()) == 2
    written = Counter(path for path, _ in proxy.written)
    assert max(written.values()) == 2
    assert len({(path, body) for path, body in proxy.written}) == 2
    (key,) = bucket.objects("processed/")
    assert READERS[compression](bucket.body(key)).splitlines() == [event(1), event(2), event(3)]


def test_arrival_times_survive_a_crash(servers, bucket, wait_for):
    server = servers()
    server.create("raw", bucket.plain(BufferingHints={"SizeInMBs": 1, "IntervalInSeconds": 2}))
    server.batch("raw", [b"x"])
    server.kill()
    server.start()
    wait_for(bucket.objects, seconds=10)
    # freed a moment after the object is there
    wait_for(lambda: server.status()["pendingRecords"] == 0, seconds=10)


def test_puts_fail_while_the_disk_is_full_and_work_when_there_is_room_again(servers, bucket):
    server = servers("--segment-mib", "1")
    server.create("raw", bucket.plain())
    server.batch("raw", [b"a" * 900_000 + b"\n"])
    # no file of the process may grow, which is what a full disk looks like to it
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (500_000, resource.RLIM_INFINITY))
    for _ in range(2):
        with pytest.raises(server.firehose.exceptions.ServiceUnavailableException, match="the log can't be written"):
            server.firehose.put_record(DeliveryStreamName="raw", Record={"Data": b"b" * 900_000})
    assert server.status()["logFailing"] is True
    resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    server.batch("raw", [b"c\n"])
    server.kill()
    server.start()
    server.flush()
    assert delivered(bucket) == {b"a" * 900_000: 1, b"c": 1}


def test_a_stopped_server_goes_on_where_it_was(servers, bucket):
    server = servers()
    server.create("raw", bucket.plain())
    server.batch("raw", [b"one\n", b"two\n"])
    assert server.stop() == 0
    server.start()
    assert server.status()["pendingRecords"] == 2
    assert server.flush() == {"raw": {"objects": 1, "records": 2}}
    assert server.stop() == 0
    server.start()
    assert server.status()["pendingRecords"] == 0


def test_records_wait_in_the_log_while_s3_is_away(servers, bucket, s3_url, wait_for):
    server = servers(s3="http://127.0.0.1:9")
    server.create("raw", bucket.plain(BufferingHints={"SizeInMBs": 1, "IntervalInSeconds": 0}))
    server.batch("raw", [b"patient\n"])
    wait_for(lambda: server.status()["streams"]["raw"]["trouble"])
    server.kill()
    server.s3_url = s3_url
    server.start()
    server.flush()
    assert delivered(bucket) == {b"patient": 1}
