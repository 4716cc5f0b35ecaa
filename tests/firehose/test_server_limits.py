"""What the server takes of the machine while S3 is away or hangs."""

from __future__ import annotations

import secrets
import socket
import threading
import time

import psutil
import pytest
from botocore.exceptions import ClientError

MIB = 1 << 20


@pytest.fixture
def hanging():
    """URL of an S3 that takes requests and never answers."""
    listener = socket.create_server(("127.0.0.1", 0))
    taken = []

    def take():
        try:
            while True:
                taken.append(listener.accept()[0])
        except OSError:
            return

    threading.Thread(target=take, daemon=True).start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    listener.close()
    for one in taken:
        one.close()


def fill(server, stream):
    """Put until the server takes no more; answers how many records it took."""
    firehose, count = server.firehose, 0
    records = [{"Data": secrets.token_bytes(150).hex().encode()} for _ in range(500)]
    while True:
        try:
            firehose.put_record_batch(DeliveryStreamName=stream, Records=records)
        except ClientError as error:
            assert error.response["Error"]["Code"] == "ServiceUnavailableException"  # noqa: PT017
            return count
        count += len(records)


def test_memory_stays_within_bounds_however_often_s3_refuses(servers, offline_bucket, wait_for):
    limit = 64
    server = servers("--max-pending-mib", str(limit), s3="http://127.0.0.1:9")
    hints = {"SizeInMBs": 8, "IntervalInSeconds": 1}
    server.create("s", offline_bucket.plain(BufferingHints=hints, CompressionFormat="GZIP"))
    process = psutil.Process(server.process.pid)
    before, most = process.memory_info().rss, 0
    records = fill(server, "s")
    assert records * 300 > limit * MIB // 2
    ends = time.monotonic() + 12
    while time.monotonic() < ends:
        most = max(most, process.memory_info().rss)
        time.sleep(0.05)
    assert server.status()["streams"]["s"]["trouble"]
    # the records, one more time what is being written, and the calls under way
    assert (most - before) / MIB < 2 * limit + 64
    assert server.status()["pendingRecords"] == records


def test_a_server_whose_s3_hangs_ends_all_the_same_and_keeps_its_records(servers, hanging, s3_url, bucket, wait_for):
    server = servers(s3=hanging)
    server.create("s", bucket.plain(BufferingHints={"SizeInMBs": 1, "IntervalInSeconds": 1}))
    server.batch("s", [b"kept\n"])
    wait_for(lambda: server.status()["streams"]["s"]["deliveriesUnderWay"] == 1)
    assert server.stop() == 0  # within 30 s, where an upload would wait for a minute
    server.s3_url = s3_url
    server.start()
    server.flush()
    (key,) = bucket.objects()
    assert bucket.body(key) == b"kept\n"
