"""What nobody would send, through a real ingest: in the table or in quarantine, counted, in the way of nothing else."""

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from lake.manifest import Counts, Lane
from spark_jobs import kept
from spark_jobs.kept import kept_records
from spark_jobs.lanes import Events
from spark_jobs.objects import StoredObject

NAUGHTY = Path(__file__).parents[3] / "shared" / "data" / "naughty-strings" / "blns.json"
MIB = 2**20


def put(world, name, body):
    key = f"processed/visits/tenant=solo/year=2013/month=01/day=01/{name}"
    world.cloud.s3.put_object(Bucket=world.bucket("solo"), Key=key, Body=body)
    return f"s3://{world.bucket('solo')}/{key}"


def line(world, number, **changes):
    return json.dumps(world.event(number, **changes)).encode()


def told(world):
    """What quarantine says: object's name, line, reason, bytes kept."""
    return [
        (row["object"].rpartition("/")[2], row["position"], row["reason"], len(row["payload"] or b""))
        for row in world.rows("solo", "quarantine")
    ]


def test_objects_that_cannot_be_read_stand_beside_those_that_can(world):
    packed = gzip.compress(b"\n".join(line(world, number) for number in range(100, 200)))
    put(world, "cut.gz", packed[:-20])
    put(world, "mangled.gz", packed[:200] + b"\xff\xff" + packed[202:])
    gone = put(world, "gone.gz", packed)
    put(world, "no-gzip.gz", line(world, 5))
    world.deliver("good", [world.event(1), world.event(2)])

    def vanish(step):
        if step == "plan":
            world.cloud.s3.delete_object(Bucket=world.bucket("solo"), Key=gone.split("/", 3)[3])

    report = world.ingest(after=vanish)
    assert report.totals == {"solo": Counts(records=6, ingested=2, quarantined=4, unidentified=4)}
    assert told(world) == [
        ("cut.gz", None, "unreadable_object", 0),
        ("gone.gz", None, "unreadable_object", 0),
        ("mangled.gz", None, "unreadable_object", 0),
        ("no-gzip.gz", None, "unreadable_object", 0),
    ]
    assert [row["sequence"] for row in world.rows("solo")] == [1, 2]


def test_objects_with_the_longest_keys_that_s3_takes_are_ingested_and_told_apart(world):
    prefix = "processed/visits/tenant=solo/year=2013/month=01/day=01/"
    for number in (1, 2, 3):
        key = f"{prefix.ljust(1020, 'x')}{number}.gz"
        world.put(world.bucket("solo"), key, [world.event(number)])
    world.ingest()
    world.ingest(listed=True)
    assert [row["event_id"] for row in world.rows("solo")] == [world.event(number)["event_id"] for number in (1, 2, 3)]
    assert world.manifest().waiting("solo", "visits", Lane.EVENTS, "solo") == []


def test_lines_that_are_no_events_stand_beside_those_that_are(world):
    good = line(world, 3)
    bad = [
        b"\xef\xbb\xbf" + good,
        good.replace(b'"sequence": 3', b'"sequence": 3, "sequence": 4'),
        good.replace(b'"sequence": 3', b'"sequence": 9223372036854775808'),
        good.replace(b'"seconds": 3', b'"seconds": 123456789012345678901234567890'),
        good.replace(b'"seconds": 3', b'"seconds": 3.0'),
        good.replace(b'"page": "/"', b'"page": "\xff\xfe"'),
        good.replace(b'"page": "/"', b'"page": "\\ud800"'),
        good.replace(b'"seconds": 3', b'"seconds": NaN'),
        good + good,
        good[:-5],
        b"[" * 100_000,
        b"\x00" * 1000,
        b"null",
    ]
    put(world, "lines", b"\n".join([line(world, 1), *bad, b"", b"  \t\r", line(world, 2)]))
    report = world.ingest()
    assert report.totals["solo"].ingested == 2
    assert report.totals["solo"].quarantined == len(bad)
    assert [(position, reason) for _, position, reason, _ in told(world)] == [
        (1, "malformed_json"),
        (2, "malformed_json"),
        (3, "wrong_type"),
        (4, "wrong_type"),
        (5, "wrong_type"),
        *((at, "malformed_json") for at in range(6, 14)),
    ]
    assert [row["payload"] for row in world.rows("solo", "quarantine")] == bad


def test_a_line_without_an_end_and_a_bomb_cost_one_record_each(world):
    long = b'{"event_id":"' + b"x" * 20 * MIB
    put(world, "long.gz", gzip.compress(line(world, 1) + b"\n" + long + b"\n" + line(world, 2), 1))
    # 1 GB of zeros in one line, and 300 MB of nothing but newlines around an event
    put(world, "bomb.gz", b"".join([gzip.compress(b"0" * MIB, 1)] * 1024))
    put(world, "blank.gz", gzip.compress(b"\n" * 150 * MIB + line(world, 3) + b"\n" * 150 * MIB, 1))
    world.deliver("good", [world.event(4)])
    report = world.ingest()
    assert report.totals == {"solo": Counts(records=6, ingested=4, quarantined=2, unidentified=2)}
    assert told(world) == [("bomb.gz", 0, "too_large", 65_536), ("long.gz", 1, "too_large", 65_536)]
    found = world.rows("solo", "quarantine")[1]
    assert found["payload"] == long[:65_536]
    assert found["message"] == "the line has 20,971,533 bytes, allowed are 16,777,216; its beginning is kept"
    assert [(row["sequence"], row["_object"].rpartition("/")[2]) for row in world.rows("solo")] == [
        (1, "long.gz"),
        (2, "long.gz"),
        (3, "blank.gz"),
        (4, "good.gz"),
    ]


@pytest.mark.skipif(not NAUGHTY.exists(), reason="the strings aren't on this machine")
def test_naughty_strings_come_through_unchanged(world):
    strings = json.loads(NAUGHTY.read_text(encoding="utf-8"))
    events = [world.event(number, payload={"page": text or "-"}) for number, text in enumerate(strings)]
    put(world, "texts.gz", gzip.compress(b"\n".join(json.dumps(one).encode() for one in events[::2])))
    put(world, "plain", b"\n".join(json.dumps(one, ensure_ascii=False).encode() for one in events[1::2]))
    put(world, "raw", b"\n".join(text.encode() for text in strings if text.strip() and "\n" not in text))
    report = world.ingest()
    assert report.totals["solo"].ingested == len(strings)
    assert [row["page"] for row in world.rows("solo")] == [text or "-" for text in strings]
    assert {row["reason"] for row in world.rows("solo", "quarantine")} == {"malformed_json"}


def _numbers(world, objects, monkeypatch, **limits):
    """Which lines become rows, and the tally, with other limits than usual."""
    for name, value in limits.items():
        monkeypatch.setattr(kept, name, value)
    contract = world.lake.datasets[0].contract
    rules = Events(contract, "solo", round(datetime(2026, 3, 1, tzinfo=UTC).timestamp() * 1000))
    there = world.spark.createDataFrame([(world.event(7)["event_id"],), ("other",)], "event_id string")
    with kept_records(world.spark, objects, world.cloud, rules) as records:
        counted = records.tally()
        rows = records.rows(counted, there).collect()
    return sorted((row["sequence"], row["_object"].rpartition("/")[2], row["$position"]) for row in rows), counted


def test_duplicates_are_found_by_fingerprints_as_by_comparing_all(world, monkeypatch):
    names = {
        "a.gz": [1, 2, 3, 3, 7],
        "b.gz": [4, 2, 5],
        "c.gz": [6],
    }
    objects = []
    for name, numbers in names.items():
        body = gzip.compress(b"\n".join(line(world, number) for number in numbers))
        objects.append(StoredObject(put(world, name, body), len(body)))
    expected = [
        *((1, "a.gz", 0), (2, "a.gz", 1), (3, "a.gz", 2)),
        *((4, "b.gz", 0), (5, "b.gz", 2), (6, "c.gz", 0)),
    ]
    usual = _numbers(world, objects, monkeypatch)
    assert usual[0] == expected
    assert usual[1].good == {("solo", "2024-04-21"): 9}
    assert {key: str(one) for key, one in usual[1].seen.items()} == {("solo", "solo-phone", "2024-04-21"): "1-7"}
    compared = _numbers(world, objects, monkeypatch, _MOST_PRINTS=0, _MOST_RUNS=0)
    assert compared == usual
