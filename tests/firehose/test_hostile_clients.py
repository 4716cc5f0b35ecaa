"""Clients that want the server's memory, connections, time or disk, by raw sockets; others are served meanwhile."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import selectors
import socket
import time
import tracemalloc
from contextlib import ExitStack, suppress

import psutil
import pytest
from botocore.exceptions import ClientError

from firehose.incoming import MOST_BYTES, Room

MIB = 1 << 20
PUT = b"X-Amz-Target: Firehose_20150804.PutRecordBatch\r\nContent-Type: application/x-amz-json-1.1\r\n"


def head(length, more=b""):
    return b"POST / HTTP/1.1\r\nHost: x\r\n" + PUT + more + b"Content-Length: %d\r\n\r\n" % length


@pytest.fixture
def connect():
    with ExitStack() as opened:

        def make(server):
            made = opened.enter_context(socket.create_connection(("127.0.0.1", server.port), timeout=30))
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return made

        yield make


def answer(connection):
    """All that comes until the server closes."""
    parts = []
    with suppress(ConnectionError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


def ended_after(connection):
    started = time.monotonic()
    said = answer(connection)
    return time.monotonic() - started, said


def test_bodies_of_a_thousand_clients_stay_within_the_room(servers, offline_bucket, connect):
    # 16 MiB each would be 16 GiB; a quarter of them send all but the last byte as fast as they can
    server = servers("--max-request-mib", "32", "--max-connections", "2000")
    server.create("s", offline_bucket.plain())
    process = psutil.Process(server.process.pid)
    before = most = process.memory_info().rss
    clients = [connect(server) for _ in range(1000)]
    for one in clients:
        one.sendall(head(MOST_BYTES))
        one.setblocking(False)
    piece, sent = b"x" * 65536, dict.fromkeys(clients[:250], 0)
    with selectors.DefaultSelector() as waiting:
        for one in sent:
            waiting.register(one, selectors.EVENT_WRITE)
        ends = time.monotonic() + 15
        while waiting.get_map() and time.monotonic() < ends:
            for key, _ in waiting.select(0.5):
                one = key.fileobj
                try:
                    sent[one] += one.send(piece[: MOST_BYTES - 1 - sent[one]])
                except BlockingIOError:
                    continue
                except ConnectionError:
                    waiting.unregister(one)
                    continue
                if sent[one] >= MOST_BYTES - 1:
                    waiting.unregister(one)
            most = max(most, process.memory_info().rss)
    assert sum(sent.values()) > 4 * 32 * MIB
    # the room, the requests being joined, and a thousand connections' own
    assert (most - before) / MIB < 32 + 100
    assert server.status()["pendingRecords"] == 0
    time.sleep(2.5)  # a quick machine sends all of it within the time for which those that still come are left in peace
    server.batch("s", [b"x" * 1000] * 500)
    assert server.status()["pendingRecords"] == 500


def test_bodies_that_stop_give_their_room_to_those_that_come(servers, offline_bucket, connect):
    server = servers("--max-request-mib", "16")
    server.create("s", offline_bucket.plain())
    stopped = connect(server)
    stopped.sendall(head(MOST_BYTES) + b"x" * (15 * MIB))
    time.sleep(2.5)
    for _ in range(5):
        server.batch("s", [b"x" * 1_000_000] * 4)
    stopped.sendall(b"x" * MIB)
    assert b"ServiceUnavailableException" in stopped.recv(65536)


def test_a_body_has_to_come_in_time(servers, connect):
    server = servers("--request-seconds", "2")
    dripping = connect(server)
    dripping.sendall(head(1000))
    started = time.monotonic()
    with suppress(ConnectionError):
        while time.monotonic() - started < 30:
            dripping.sendall(b"x")
            time.sleep(0.2)
    assert 1.5 < time.monotonic() - started < 10
    assert b"RequestTimeoutException" in answer(dripping)


@pytest.mark.parametrize("said", [b"", b"POST / HT", b"POST / HTTP/1.1\r\nHost: x\r\nX-Amz-"])
def test_headers_have_to_come_in_time(servers, connect, said):
    server = servers("--request-seconds", "2")
    idle = connect(server)
    idle.sendall(said)
    seconds, told = ended_after(idle)
    assert 1.5 < seconds < 10
    assert (b" 408 " in told) == bool(said)


def test_an_answer_under_way_outlives_the_time_for_requests(servers, bucket):
    # what takes long on the server's side is no slow client
    server = servers("--request-seconds", "1", "--allow-faults")
    server.create("s", bucket.plain())
    from tests.firehose.test_faults import faults  # noqa: PLC0415 - its tests would run here too

    faults(server, "POST", {"kind": "delay", "delaySeconds": 3, "count": 1})
    server.batch("s", [b"a"])


@pytest.mark.parametrize(
    "said",
    [
        b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nX-Long: " + b"a" * 70_000,
        b"GET / HTTP/1.1\r\n" + b"".join(b"X-%d: a\r\n" % n for n in range(10_000)) + b"\r\n",
    ],
)
def test_headers_above_their_size_are_refused(module_server, connect, said):
    long = connect(module_server)
    long.sendall(said)
    seconds, told = ended_after(long)
    assert seconds < 10
    assert b" 431 " in told


def test_a_header_without_an_end_is_cut_off(module_server, connect):
    endless, sent = connect(module_server), 0
    endless.sendall(b"GET / HTTP/1.1\r\nX-Long: ")
    with suppress(ConnectionError):
        while sent < 64 * MIB:
            endless.sendall(b"a" * 65536)
            sent += 65536
    assert sent < 16 * MIB


@pytest.mark.parametrize("path", [b"/\xff", b"//[", b"http://[", b"*"])
def test_a_path_that_is_none_is_answered_and_forgotten(module_server, connect, path):
    one = connect(module_server)
    one.sendall(b"GET " + path + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert b" 40" in answer(one)[:12]


def test_requests_one_behind_the_other_are_answered_in_order_and_not_without_end(module_server, connect):
    ask = b"GET /_lakehose/%s HTTP/1.1\r\nHost: x\r\n\r\n"
    few = connect(module_server)
    few.sendall(
        b"".join(ask % name for name in (b"health", b"nope", b"health"))
        + ask.replace(b"Host", b"Connection: close\r\nHost") % b"nope"
    )
    assert re.findall(rb"HTTP/1.1 (\d+)", answer(few)) == [b"200", b"404", b"200", b"404"]
    many = connect(module_server)
    with suppress(ConnectionError):
        many.sendall(ask % b"health" * 5000)
    assert answer(many).count(b"HTTP/1.1 200") < 5000


def test_connections_above_their_number_are_turned_away_and_others_served(servers, offline_bucket, connect):
    server = servers("--max-connections", "20")
    server.create("s", offline_bucket.plain())
    held = [connect(server) for _ in range(40)]
    time.sleep(0.5)
    told = answer(held[-1])
    assert b" 503 " in told
    assert b"too many connections" in told
    for one in held[:5]:
        one.close()
    for _ in range(100):
        with suppress(OSError, ClientError):
            server.batch("s", [b"a"])
            break
        time.sleep(0.1)
    else:
        raise AssertionError("nobody is served")


def test_a_body_that_is_too_big_is_refused_at_its_end(servers, connect):
    server = servers()
    big = connect(server)
    big.sendall(head(MOST_BYTES + MIB, b"Connection: close\r\n"))
    for _ in range(17):
        big.sendall(b"x" * MIB)
    assert b"Records size exceeds 4 MB limit" in answer(big)


def test_a_client_that_does_not_read_its_answers_is_let_go(servers, offline_bucket, connect, wait_for):
    server = servers("--request-seconds", "2")
    for number in range(60):
        server.create(f"stream-{number:03d}" + "x" * 50, offline_bucket.plain())
    deaf = connect(server)
    deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    ask = b"GET /_lakehose/status HTTP/1.1\r\nHost: x\r\n\r\n"
    process = psutil.Process(server.process.pid)
    there = deaf.getsockname()[1]

    def open_there():
        return any(one.raddr and one.raddr.port == there for one in process.net_connections("tcp"))

    deaf.setblocking(False)
    ends = time.monotonic() + 5
    while time.monotonic() < ends:
        try:
            deaf.send(ask)
        except BlockingIOError:
            time.sleep(0.1)
        except ConnectionError:
            break
    wait_for(lambda: not open_there(), 15)
    assert process.memory_info().rss < 400 * MIB


def test_the_log_stays_within_its_limit(servers, offline_bucket, wait_for):
    server = servers("--max-log-gib", str(40 / 1024), s3="http://127.0.0.1:9")
    server.create("s", offline_bucket.plain())
    firehose, records = server.firehose, [{"Data": b"x" * 8000} for _ in range(400)]
    taken = 0
    for _ in range(30):
        try:
            firehose.put_record_batch(DeliveryStreamName="s", Records=records)
            taken += 400
        except ClientError as error:
            assert error.response["Error"]["Code"] == "ServiceUnavailableException"  # noqa: PT017
            assert "the log has reached its limit" in error.response["Error"]["Message"]  # noqa: PT017
    on_disk = sum(one.stat().st_blocks * 512 for one in (server.data / "log").iterdir())
    assert 28 * MIB < on_disk <= 40 * MIB
    told = server.status()
    assert (told["logFull"], told["logLimitBytes"], told["pendingRecords"]) == (True, 40 * MIB, taken)


def test_a_full_log_is_emptied_and_takes_records_again(servers, bucket, wait_for):
    server = servers("--max-log-gib", str(32 / 1024))
    server.create("s", bucket.plain())
    records = [b"x" * 8000] * 400
    taken = 0
    while True:
        try:
            server.batch("s", records)
            taken += 400
        except ClientError:
            break
    server.flush()
    wait_for(lambda: not server.status()["logFull"])
    server.batch("s", records)
    server.flush()
    assert sum(len(bucket.body(key)) for key in bucket.objects()) == (taken + 400) * 8000


def test_a_stream_that_cannot_deliver_does_not_fill_the_log_for_the_others(servers, bucket, make_bucket, wait_for):
    server = servers("--max-log-gib", str(32 / 1024))
    server.create("stuck", make_bucket(exists=False).plain(BufferingHints={"SizeInMBs": 1, "IntervalInSeconds": 0}))
    server.create("s", bucket.plain())
    server.batch("stuck", [b"kept"])
    records = [b"x" * 8000] * 400
    for _ in range(20):  # twice the limit

        def put():
            try:
                return server.batch("s", records)
            except ClientError:
                return None

        wait_for(put, 60)
        server.flush("s")
    assert server.status()["streams"]["stuck"]["pendingRecords"] == 1


def test_a_limit_of_the_log_below_eight_segments_is_told(tmp_path):
    from tests.firehose.test_firehose_commands import command  # noqa: PLC0415 - its tests would run here too

    run = command("serve", "--data-dir", tmp_path / "data", "--port", 0, "--max-log-gib", "0.4")
    assert run.returncode == 2
    assert "at least 8 segments of --segment-mib 64 are needed" in run.stderr


def test_a_put_of_the_largest_size_is_taken(servers, offline_bucket):
    # the limits are above what any valid call needs: 4 MiB of records, base64 with every slash escaped
    server = servers("--max-request-mib", "16")
    server.create("s", offline_bucket.plain())
    data = base64.b64encode(b"\xff" * 1_000_000).decode().replace("/", "\\/")
    body = json.dumps({"DeliveryStreamName": "s", "Records": []}).replace(
        "[]", "[" + ",".join(f'{{"Data":"{data}"}}' for _ in range(4)) + "]"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=30) as one:
        one.sendall(head(len(body), b"Connection: close\r\n") + body.encode())
        assert b'"FailedPutCount":0' in answer(one)


def test_room_is_counted_and_given_back():
    at = [0.0]
    room = Room(100, lambda: at[0])
    first, second, third = room.open(), room.open(), room.open()
    assert room.take(first, bytes(60))
    assert room.take(second, bytes(40))
    assert not room.take(third, bytes(1))
    assert (room.used, third.refusal.code) == (100, "ServiceUnavailableException")
    at[0] = 3.0
    fourth = room.open()
    assert room.take(fourth, bytes(50))  # the first one has been coming for too long
    assert (first.refusal is None, second.refusal is None, room.used) == (False, True, 90)
    assert not room.take(first, bytes(1))
    for one in (first, second, third, fourth, fourth):
        room.close(one)
    assert room.used == 0
    assert not room.take(second, bytes(1))
    assert room.used == 0


def test_a_body_above_its_size_gives_its_room_back_at_once():
    room = Room(1 << 30, lambda: 0.0)
    body = room.open()
    assert room.take(body, bytes(MOST_BYTES))
    assert not room.take(body, bytes(1))
    assert (room.used, body.refusal.code) == (0, "InvalidArgumentException")


def test_what_requests_used_is_free_after_them(servers, offline_bucket, connect, wait_for):
    # cut off in their body, refused, pipelined and never answered, answered: nothing stays counted
    server = servers("--max-request-mib", "16")
    server.create("s", offline_bucket.plain())
    for _ in range(6):
        gone = connect(server)
        gone.sendall(head(MOST_BYTES) + b"x" * (4 * MIB))
        gone.close()
        wrong = connect(server)
        wrong.sendall((head(3 * MIB) + b"x" * (3 * MIB)) * 2)
        wrong.close()
    for _ in range(4):
        server.batch("s", [b"x" * 1_000_000] * 4)
    full = b'{"DeliveryStreamName": "s", "Records": [' + b" " * (15 * MIB) + b"]}"
    one = connect(server)
    one.sendall(head(len(full), b"Connection: close\r\n") + full)
    assert b"ValidationException" in answer(one)


def test_very_many_small_pieces_take_little_more_than_their_bytes():
    room = Room(1 << 30, lambda: 0.0)
    body = room.open()
    tracemalloc.start()
    try:
        for number in range(200_000):
            room.take(body, b"%02d" % (number % 100))
        took, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert took < 2 * 400_000


def test_pieces_of_all_sizes_come_together_in_their_order():
    room = Room(1 << 30, lambda: 0.0)
    body = room.open()
    pieces = [bytes([number]) * size for number, size in enumerate([5, 2000, 3, 4, 100_000, 70_000, 1, 1023, 1024, 9])]
    for piece in pieces:
        room.take(body, piece)

    async def end():
        return {"type": "http.request", "body": b"", "more_body": False}

    assert asyncio.run(room.read(body, end)) == b"".join(pieces)
