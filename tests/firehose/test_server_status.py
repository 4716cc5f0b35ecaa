"""`lakehose firehose status`: a server's streams in a table, what is wrong with it, and the exit status for cron."""

from __future__ import annotations

import orjson
import pytest

from firehose.server_status import ServerStatus, StreamStatus, read_status, tell_status, troubles
from lake.errors import TerminalError
from tests.firehose.test_firehose_commands import command

MIB = 1 << 20


def stream(name="clicks", **changes):
    plain = {
        "pending": 0,
        "oldest_seconds": None,
        "buffers": 0,
        "partitions": 0,
        "writing": 0,
        "objects": 0,
        "records": 0,
        "refused": 0,
        "trouble": None,
    }
    return StreamStatus(name, **{**plain, **changes})


def server(*streams, **changes):
    plain = {
        "log_bytes": 64 * MIB,
        "log_limit": None,
        "log_failing": False,
        "log_full": False,
        "pending_bytes": 0,
        "quota": 500,
        "faults": False,
    }
    return ServerStatus(streams, **{**plain, **changes})


def test_streams_are_a_table():
    busy = stream(
        pending=12_345, oldest_seconds=42.04, buffers=3, partitions=2, writing=1, objects=9, records=90_000, refused=7
    )
    old = stream("old", pending=1, oldest_seconds=7300, buffers=1)
    assert list(tell_status(server(busy, old, pending_bytes=3 * MIB), [])) == [
        "stream  pending  oldest  buffers  partitions  writing  objects  records  refused",
        "clicks   12,345  42.0 s        3    2 of 500        1        9   90,000        7",
        "old           1     2 h        1                    0        0        0        0",
        "log 64.0 MiB, 3.0 MiB of records not delivered",
    ]


@pytest.mark.parametrize(
    ("found", "max_age", "said"),
    [
        (server(stream(pending=1, oldest_seconds=90_000)), None, []),
        (
            server(stream(pending=1, oldest_seconds=130)),
            60,
            ["clicks: its oldest record waits for 2 min, allowed are 60 s"],
        ),
        (server(stream(pending=1, oldest_seconds=59)), 60, []),
        (
            server(stream(trouble="NoSuchBucket")),
            None,
            ["clicks: S3 doesn't take its objects: NoSuchBucket"],
        ),
        (server(log_failing=True), None, ["the log can't be written: puts are refused"]),
        (
            server(log_full=True, log_limit=2048 * MIB),
            None,
            ["the log has reached its limit of 2.0 GiB: puts are refused"],
        ),
    ],
)
def test_what_is_wrong_is_a_sentence(found, max_age, said):
    assert troubles(found, max_age) == said


def test_a_server_that_is_well_ends_with_0(servers, bucket):
    one = servers("--max-log-gib", "1")
    one.create("clicks", bucket.plain())
    one.batch("clicks", [b"a", b"b"])
    run = command("status", "--url", one.url, "--max-age", "60")
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.splitlines()[1].split()[:2] == ["clicks", "2"]
    assert "log 4.0 MiB of 1.0 GiB, 2 B of records not delivered" in run.stdout
    assert read_status(one.status()).streams[0].pending == 2


def test_a_server_whose_bucket_is_gone_ends_with_1(servers, make_bucket, wait_for):
    one = servers()
    one.create("clicks", make_bucket(exists=False).plain(BufferingHints={"SizeInMBs": 1, "IntervalInSeconds": 0}))
    one.batch("clicks", [b"a"])
    wait_for(lambda: one.status()["streams"]["clicks"]["trouble"])
    run = command("status", "--url", one.url)
    assert run.returncode == 1
    assert "trouble: clicks: S3 doesn't take its objects: s3://lake-" in run.stdout
    asked = command("status", "--url", one.url, "--json")
    told = orjson.loads(asked.stdout)
    assert (asked.returncode, len(told["troubles"]), told["streams"]["clicks"]["pendingRecords"]) == (1, 1, 1)


def test_a_record_that_waits_too_long_ends_with_1(servers, offline_bucket, wait_for):
    one = servers()
    one.create("clicks", offline_bucket.plain())
    one.batch("clicks", [b"a"])
    wait_for(lambda: one.status()["streams"]["clicks"]["oldestRecordAgeSeconds"] > 1)
    run = command("status", "--url", one.url, "--max-age", "1")
    assert (run.returncode, "allowed are 1.0 s" in run.stdout) == (1, True)


def test_a_server_that_is_away_ends_with_1_and_no_server_at_all_with_2():
    away = command("status", "--url", "http://127.0.0.1:9")
    assert (away.returncode, "no answer" in away.stderr) == (1, True)
    assert command("status").returncode == 2


@pytest.mark.parametrize("answer", [{"message": "hello"}, {"streams": {"s": {}}}, {"streams": {"s": None}}])
def test_an_answer_of_something_else_is_told(answer):
    with pytest.raises(TerminalError, match="isn't one of a server of this version"):
        read_status(answer)


def test_something_else_at_the_url_is_told(ministack):
    run = command("status", "--url", ministack)
    assert run.returncode == 2, run.stdout
    assert run.stderr.startswith("firehose: status: ")
