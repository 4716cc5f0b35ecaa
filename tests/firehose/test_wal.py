"""The log on disk: what was appended is read again, and nothing else."""

from __future__ import annotations

import errno
from array import array
from uuid import UUID

import pytest

from firehose.frames import HEADER_BYTES, Kind, encode_frame, read_frames
from firehose.objects import Compression, Recipe
from firehose.payloads import Intent, encode_intent, encode_put
from firehose.recovery import recover
from firehose.wal import Entry, Log, OsDisk
from lake.errors import EnvironmentProblemError

STREAM = UUID(int=7)
DELIVERY = UUID(int=8)
SEGMENT = 64 << 10


def put(first, *data, stream=STREAM, arrival=1_000):
    return Entry(Kind.PUT, encode_put(stream, first, arrival, data))


def intent(*numbers, delivery=DELIVERY):
    recipe = Recipe(Compression.GZIP, b"\n")
    made = Intent(delivery, STREAM, "bucket", "some/key.gz", recipe, array("Q", numbers), "arn:key")
    return Entry(Kind.INTENT, encode_intent(made))


def done(delivery=DELIVERY):
    return Entry(Kind.DONE, delivery.bytes)


def log_of(folder, *entries, **options):
    log = Log(folder, SEGMENT, **options)
    results = log.append(entries)
    log.close()
    return results


def records(folder):
    return [(one.numbers, one.data) for one in recover(folder, {STREAM}).puts]


class FailingDisk(OsDisk):
    """A disk on which one kind of call fails while it is told to."""

    def __init__(self):
        self.fails = set()

    def _maybe(self, what, number=errno.EIO):
        if what in self.fails:
            raise OSError(number, "as the test wants")

    def create(self, path, size):
        self._maybe("create", errno.ENOSPC)
        return super().create(path, size)

    def write(self, descriptor, parts, offset):
        if "write" in self.fails:
            super().write(descriptor, [b"".join(parts)[:-1]], offset)
        self._maybe("write")
        super().write(descriptor, parts, offset)

    def sync(self, descriptor):
        self._maybe("sync")
        super().sync(descriptor)

    def cut(self, descriptor, size):
        self._maybe("cut")
        super().cut(descriptor, size)


def test_records_are_read_as_they_were_put(tmp_path):
    assert log_of(tmp_path, put(1, b"a", b"", b"\x00\xff"), put(4, b"d", arrival=2_000)) == [1, 1]
    found = recover(tmp_path, {STREAM})
    assert [(one.numbers, one.data, one.arrival_ms) for one in found.puts] == [
        ([1, 2, 3], [b"a", b"", b"\x00\xff"], 1_000),
        ([4], [b"d"], 2_000),
    ]
    assert (found.next_index, found.next_sequence, found.next_number) == (2, 3, 5)


def test_an_empty_folder_is_an_empty_log(tmp_path):
    found = recover(tmp_path, set())
    assert (found.puts, found.deliveries, found.next_index, found.next_number) == ([], [], 1, 1)


def test_a_delivered_record_is_not_read_again(tmp_path):
    log_of(tmp_path, put(1, b"a", b"b", b"c"), intent(1, 3), done())
    assert records(tmp_path) == [([2], [b"b"])]
    assert recover(tmp_path, {STREAM}).deliveries == []


def test_a_delivery_without_its_completion_is_made_again_with_the_same_records_in_order(tmp_path):
    log_of(tmp_path, put(1, b"a", b"b", b"c"), intent(3, 1))
    found = recover(tmp_path, {STREAM})
    (once_more,) = found.deliveries
    again = once_more.intent
    assert (again.delivery, again.bucket, again.key, again.kms_key) == (DELIVERY, "bucket", "some/key.gz", "arn:key")
    assert again.recipe == Recipe(Compression.GZIP, b"\n")
    assert once_more.data == [b"c", b"a"]
    assert once_more.oldest_ms == found.puts[0].arrival_ms
    assert [(one.numbers, one.data) for one in found.puts] == [([2], [b"b"])]


def test_records_of_a_stream_that_is_gone_are_not_read(tmp_path):
    log_of(tmp_path, put(1, b"a", stream=UUID(int=99)), put(2, b"b"))
    found = recover(tmp_path, {STREAM})
    assert [one.data for one in found.puts] == [[b"b"]]
    assert [one.pending for one in found.segments] == [1]


@pytest.mark.parametrize("lost", [1, 10, 30, 60])
def test_a_torn_tail_is_cut_at_the_last_whole_frame(tmp_path, lost):
    log_of(tmp_path, put(1, b"first"), put(2, b"second"))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-lost])
    assert records(tmp_path) == [([1], [b"first"])]


def test_a_changed_byte_ends_the_log_there(tmp_path):
    log_of(tmp_path, put(1, b"first"), put(2, b"second"))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-1] + b"X")
    assert records(tmp_path) == [([1], [b"first"])]


def test_the_log_goes_on_behind_a_torn_tail(tmp_path):
    log_of(tmp_path, put(1, b"first"), put(2, b"torn"))
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    found = recover(tmp_path, {STREAM})
    log_of(
        tmp_path,
        put(2, b"next"),
        next_index=found.next_index,
        previous_end=found.previous_end,
        next_sequence=found.next_sequence,
    )
    assert records(tmp_path) == [([1], [b"first"]), ([2], [b"next"])]


def test_entries_that_do_not_fit_open_the_next_segment(tmp_path):
    assert log_of(tmp_path, put(1, b"a" * 50_000), put(2, b"b" * 50_000), put(3, b"c")) == [1, 2, 2]
    assert [data[0][:1] for _, data in records(tmp_path)] == [b"a", b"b", b"c"]


def test_an_entry_bigger_than_a_segment_gets_one_of_its_size(tmp_path):
    assert log_of(tmp_path, put(1, b"a" * 300_000), put(2, b"b")) == [1, 2]
    assert [len(data[0]) for _, data in records(tmp_path)] == [300_000, 1]


@pytest.mark.parametrize("failing", [{"write"}, {"sync"}, {"write", "cut"}, {"sync", "cut"}])
def test_entries_whose_write_failed_are_not_in_the_log(tmp_path, failing):
    disk = FailingDisk()
    log = Log(tmp_path, SEGMENT, disk=disk)
    log.append([put(1, b"before")])
    disk.fails = failing
    results = log.append([put(2, b"lost"), put(3, b"lost too")])
    assert [type(result) for result in results] == [OSError, OSError]
    disk.fails = set()
    assert log.append([put(4, b"after")]) == [2]
    log.close()
    assert records(tmp_path) == [([1], [b"before"]), ([4], [b"after"])]


def test_a_full_disk_refuses_puts_and_still_takes_completions(tmp_path):
    disk = FailingDisk()
    log = Log(tmp_path, SEGMENT, disk=disk)
    log.append([put(1, b"a" * 50_000)])
    disk.fails = {"create"}
    refused, intended, completed, refused_too = log.append(
        [put(2, b"b" * 50_000), intent(1), done(), put(3, b"c" * 50_000)]
    )
    assert (refused.errno, intended, completed, refused_too.errno) == (errno.ENOSPC, 1, 1, errno.ENOSPC)
    disk.fails = set()
    assert log.append([put(4, b"d" * 50_000)]) == [2]
    log.close()
    assert [numbers for numbers, _ in records(tmp_path)] == [[4]]


def test_nothing_is_left_of_a_segment_that_could_not_be_opened(tmp_path):
    disk = FailingDisk()
    disk.fails = {"sync"}
    log = Log(tmp_path, SEGMENT, disk=disk)
    (result,) = log.append([put(1, b"a")])
    assert isinstance(result, OSError)
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_segment_before_the_last_is_kept_aside(tmp_path, caplog):
    log_of(tmp_path, put(1, b"a" * 30_000), put(2, b"b" * 20_000), put(3, b"c" * 50_000))
    first = min(tmp_path.iterdir())
    raw = bytearray(first.read_bytes())
    raw[40_000] ^= 1
    first.write_bytes(raw)
    assert [numbers for numbers, _ in records(tmp_path)] == [[1], [3]]
    assert first.with_suffix(".damaged").exists()
    assert "is damaged at offset" in caplog.text


def test_a_segment_of_another_version_is_refused(tmp_path):
    log_of(tmp_path, put(1, b"a"))
    (path,) = tmp_path.iterdir()
    raw = bytearray(path.read_bytes())
    raw[8] = 2
    path.write_bytes(raw)
    with pytest.raises(EnvironmentProblemError, match="format version 2, this program reads version 1"):
        recover(tmp_path, set())


def test_a_last_segment_that_got_no_header_is_removed(tmp_path):
    log_of(tmp_path, put(1, b"a"))
    (tmp_path / "0000000000000002.wal").write_bytes(bytes(1000))
    assert records(tmp_path) == [([1], [b"a"])]
    assert recover(tmp_path, {STREAM}).next_index == 2


def test_a_frame_whose_sequence_does_not_rise_is_not_part_of_the_log():
    def frame(sequence, payload):
        return encode_frame(Kind.PUT, sequence, payload) + payload

    data = bytes(HEADER_BYTES) + frame(5, b"five") + frame(6, b"six") + frame(4, b"stale")
    assert [bytes(one.payload) for one in read_frames(memoryview(data), 4)] == [b"five", b"six"]
    assert list(read_frames(memoryview(data), 5)) == []
