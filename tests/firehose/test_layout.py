"""Logs divided anew: what they hold, in whatever state, is held by the process that has its stream, and by no other."""

from __future__ import annotations

from array import array
from collections import Counter
from uuid import uuid4

import pytest

from firehose import layout
from firehose.found import PendingMade
from firehose.frames import Kind
from firehose.layout import lay_out, owner
from firehose.objects import Compression, Recipe
from firehose.payloads import (
    Carried,
    Intent,
    Made,
    Stage,
    encode_carried,
    encode_intent,
    encode_made,
    encode_put,
)
from firehose.processing import Reason
from firehose.records import Failed, Record
from firehose.recovery import recover
from firehose.registry import DataFolder, Registry
from firehose.streams import DeliveryStream, parse_destination
from firehose.wal import Entry, Log
from lake.errors import EnvironmentProblemError

SEGMENT = 1 << 16
NAMES = [f"stream-{number}" for number in range(12)]
REASON = Reason("processing-failed", "Lambda.MissingRecordId", "no such record", 4, "arn:f")


def stream(name):
    request = {
        "ExtendedS3DestinationConfiguration": {
            "RoleARN": "arn:aws:iam::000000000000:role/r",
            "BucketARN": "arn:aws:s3:::lake",
        }
    }
    return DeliveryStream(name, uuid4(), f"arn/{name}", 1, 0.0, request, parse_destination(request))


@pytest.fixture
def folder(tmp_path):
    made = DataFolder(tmp_path / "data")
    registry = Registry(made)
    for name in NAMES:
        registry.put(stream(name))
    yield made
    made.release()


def intent(of, numbers, *, backup=False):
    recipe = Recipe(Compression.GZIP, b"\n")
    key = f"key-{uuid4()}"
    return Intent(uuid4(), of, "lake", key, recipe, array("Q", numbers), kms_key="k", is_backup=backup)


def write_everything(path, identities):
    """Write a log that has, of each stream, records in every state."""
    log = Log(path, SEGMENT)
    first = 1

    def append(kind, payload):
        (result,) = log.append([Entry(kind, payload)])
        assert isinstance(result, int)

    def put(of, arrival, *data):
        nonlocal first
        append(Kind.PUT, encode_put(of, first, arrival, data))
        first += len(data)
        return list(range(first - len(data), first))

    for place, of in enumerate(identities):
        base = 1_000 * place
        put(of, base + 1, b"free %d" % place, b"free too", b"x" * 9_000)
        done, left, announced, backed_up, stays, made_of = put(
            of, base + 2, b"done", b"left", b"announced", b"backed up", b"stays", b"made of"
        )
        written = intent(of, [done])
        append(Kind.INTENT, encode_intent(written))
        append(Kind.DONE, written.delivery.bytes)
        append(Kind.INTENT, encode_intent(intent(of, [announced])))
        records = [Record(b"made %d" % place, base + 3, (("tenant", "ewr"),)), Record(b"in an object", base + 3)]
        failed = [Failed(b"failed", base + 3, base + 9, REASON)]
        append(Kind.MADE, encode_made(Made(of, first, [backed_up, stays], True, records=records, failed=failed)))
        append(Kind.INTENT, encode_intent(intent(of, [first + 1])))
        append(Kind.INTENT, encode_intent(intent(of, [backed_up], backup=True)))
        first += 3
        append(
            Kind.MADE,
            encode_made(Made(of, first, [made_of], False, records=[Record(b"made alone", base + 4)], failed=[])),
        )
        first += 1
        assert left
        data = [
            b"moved",
            b"moved, in an object",
            b"moved, done",
            b"moved, made of",
            b"moved, stays",
            b"moved, backed up",
        ]
        numbers = put(of, base + 5, *data)
        free, announced, done, made_of, stays, backed_up = numbers
        records = [
            Record(b"moved, made", base + 6, (("tenant", "lga"),)),
            Record(b"moved, made, in an object", base + 6),
        ]
        failed = [Failed(b"moved, failed", base + 6, base + 8, REASON)]
        append(Kind.MADE, encode_made(Made(of, first, [stays, backed_up], True, records=records, failed=failed)))
        again = encode_intent(intent(of, [announced]))
        append(Kind.INTENT, again)
        sources = [Record(raw, base + 5) for raw in data]
        append(Kind.CARRIED, encode_carried(Carried(of, Stage.PUT, numbers[:4], records=sources[:4], failed=[])))
        append(Kind.CARRIED, encode_carried(Carried(of, Stage.STAYED, numbers[4:], records=sources[4:], failed=[])))
        moved = Carried(of, Stage.MADE, [first, first + 1, first + 2], records=records, failed=failed)
        append(Kind.CARRIED, encode_carried(moved))
        append(Kind.INTENT, again)
        append(Kind.INTENT, encode_intent(intent(of, [first + 1])))
        append(Kind.INTENT, encode_intent(intent(of, [backed_up], backup=True)))
        written = intent(of, [done])
        append(Kind.INTENT, encode_intent(written))
        append(Kind.DONE, written.delivery.bytes)
        first += 3
        append(
            Kind.MADE,
            encode_made(Made(of, first, [made_of], False, records=[Record(b"moved, made alone", base + 7)], failed=[])),
        )
        first += 1
        assert free
    log.close()


def held(path, identities):
    """All that a log holds of each stream, by state."""
    found = recover(path, set(identities))
    told = Counter()
    for one in found.puts:
        if isinstance(one, PendingMade):
            assert len(one.numbers) == len(one.records) + len(one.failed)
            told.update((one.stream, "made", record) for record in (*one.records, *one.failed))
        else:
            told.update((one.stream, "source" if one.is_made else "free", one.arrival_ms, raw) for raw in one.data)
    for one in found.deliveries:
        what = one.intent
        told[
            what.stream, "object", what.delivery, what.bucket, what.key, repr(what.recipe), what.kms_key,
            what.is_backup, tuple(one.data), one.oldest_ms,
        ] += 1  # fmt: skip
    return told


def test_each_stream_has_one_process_the_same_everywhere():
    assert [owner(name, 4) for name in ("clicks", "flights", "orders", "taps")] == [3, 1, 1, 0]
    spread = Counter(owner(f"events-{number}", 8) for number in range(8_000))
    assert min(spread.values()) > 850


def test_what_logs_hold_goes_to_the_process_of_its_stream_however_often_their_number_changes(folder):
    identities = {name: one.identity for name, one in Registry(folder).streams.items()}
    write_everything(folder.path / "log", identities.values())
    before = held(folder.path / "log", identities.values())
    assert before.total() == 12 * 19
    states = Counter(one[1] for one in before.elements())
    assert states == {"free": 12 * 5, "source": 12 * 2, "made": 12 * 6, "object": 12 * 6}
    for processes in (1, 3, 2, 2, 5, 1, 4):
        logs = lay_out(folder, processes, SEGMENT)
        after = Counter()
        for index, path in enumerate(logs):
            found = held(path, identities.values())
            assert {one[0] for one in found} == {
                identity for name, identity in identities.items() if owner(name, processes) == index
            }
            after += found
        assert after == before
        assert sorted(one.name for one in folder.path.iterdir() if one.is_dir()) == sorted(one.name for one in logs)


def test_with_one_process_from_the_beginning_there_is_one_log_and_no_further_file(folder):
    assert lay_out(folder, 1, SEGMENT) == [folder.path / "log"]
    assert sorted(one.name for one in folder.path.iterdir()) == ["lock", "log", "streams.json"]


class CutOffError(Exception):
    """As if the process ended there."""


@pytest.mark.parametrize("after", range(2))
def test_a_division_that_is_cut_off_leaves_all_or_has_done_all(folder, monkeypatch, after):
    identities = [one.identity for one in Registry(folder).streams.values()]
    write_everything(folder.path / "log", identities)
    before = held(folder.path / "log", identities)
    write, remove = DataFolder.write, layout._remove

    def written(self, name, value):
        if not after:
            raise CutOffError
        write(self, name, value)

    def removed(of, names):
        if "log" in names:
            raise CutOffError
        remove(of, names)

    with monkeypatch.context() as patched:
        patched.setattr(DataFolder, "write", written)
        patched.setattr(layout, "_remove", removed)
        with pytest.raises(CutOffError):
            lay_out(folder, 3, SEGMENT)
    assert (folder.path / "log").is_dir()
    assert (folder.path / "log-1-0").is_dir()
    for processes in (1, 3):
        logs = lay_out(folder, processes, SEGMENT)
        assert sum((held(path, identities) for path in logs), Counter()) == before
        assert [one for one in folder.path.glob("log*") if one not in logs] == []


def test_where_there_is_no_room_for_a_division_nothing_changes(folder, monkeypatch):
    identities = [one.identity for one in Registry(folder).streams.values()]
    write_everything(folder.path / "log", identities)
    before = held(folder.path / "log", identities)

    def append(self, entries):
        return [OSError(28, "No space left on device")] * len(entries)

    with monkeypatch.context() as patched:
        patched.setattr(Log, "append", append)
        with pytest.raises(EnvironmentProblemError) as caught:
            lay_out(folder, 2, SEGMENT)
    assert str(caught.value) == (
        f"--processes 2: {folder.path}: what 1 wrote can't be divided anew: No space left on device;"
        " make room, or start with --processes 1"
    )
    assert [one.name for one in folder.path.glob("log*")] == ["log"]
    assert held(folder.path / "log", identities) == before


def test_a_damaged_segment_that_was_kept_stays_when_its_log_goes(folder):
    for _ in range(2):
        for path in lay_out(folder, 1, SEGMENT):
            (path / "0000000000000001.damaged").write_bytes(b"to look at")
        lay_out(folder, 2, SEGMENT)
    assert sorted(one.name for one in folder.path.glob("*.damaged")) == [
        "log-0000000000000001.1.damaged",
        "log-0000000000000001.2.damaged",
    ]


@pytest.mark.parametrize("damaged", ["[]", '{"logs": []}', '{"logs": ["../x"]}', '{"logs": "log"}', "{"])
def test_a_damaged_list_of_logs_is_told(folder, damaged):
    (folder.path / "processes.json").write_text(damaged)
    with pytest.raises(EnvironmentProblemError, match=r"processes\.json: damaged"):
        lay_out(folder, 2, SEGMENT)
