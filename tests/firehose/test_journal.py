"""Group commit, and which segments are removed when."""

from __future__ import annotations

import asyncio
import errno
import threading
from array import array
from dataclasses import replace
from uuid import UUID, uuid4

import pytest

from firehose.found import PendingMade, PendingPut
from firehose.journal import Journal, LogUnavailableError
from firehose.objects import Compression, Recipe
from firehose.payloads import Intent
from firehose.processing import Reason
from firehose.records import Failed, Record
from firehose.recovery import recover
from firehose.wal import OsDisk

STREAM = UUID(int=7)
SEGMENT = 64 << 10
BIG = b"x" * 40_000  # one a segment


def run(folder, work, disk=None):
    async def main():
        journal = Journal(folder, SEGMENT, recover(folder, {STREAM}), disk=disk)
        journal.start()
        try:
            return await work(journal)
        finally:
            await journal.stop()

    return asyncio.run(main())


async def deliver(journal, *numbers):
    intent = Intent(uuid4(), STREAM, "bucket", "key", Recipe(Compression.GZIP), array("Q", numbers))
    await journal.intend(intent)
    await journal.done(intent)


def segments(folder):
    return [int(path.stem) for path in sorted(folder.glob("*.wal"))]


def test_concurrent_puts_get_numbers_of_their_own(tmp_path):
    async def work(journal):
        return await asyncio.gather(*(journal.put(STREAM, 1, [b"a", b"b"]) for _ in range(5)))

    assert run(tmp_path, work) == [1, 3, 5, 7, 9]


def test_one_sync_serves_all_puts_that_wait(tmp_path):
    class Counting(OsDisk):
        syncs = 0

        def sync(self, descriptor):
            self.syncs += 1
            super().sync(descriptor)

    disk = Counting()

    async def work(journal):
        await asyncio.gather(*(journal.put(STREAM, 1, [b"a"]) for _ in range(200)))

    run(tmp_path, work, disk)
    assert disk.syncs < 20


def test_a_segment_goes_when_all_its_records_are_delivered(tmp_path):
    async def work(journal):
        for _ in range(3):
            await journal.put(STREAM, 1, [BIG])
        await deliver(journal, 1)
        await journal.put(STREAM, 1, [b"small"])

    run(tmp_path, work)
    assert segments(tmp_path) == [2, 3]


def test_a_segment_stays_while_an_older_one_has_records(tmp_path):
    async def work(journal):
        for _ in range(3):
            await journal.put(STREAM, 1, [BIG])
        await deliver(journal, 2)
        await journal.put(STREAM, 1, [b"small"])

    run(tmp_path, work)
    assert segments(tmp_path) == [1, 2, 3]


def test_an_object_of_records_of_several_segments_frees_them_all(tmp_path):
    async def work(journal):
        for _ in range(3):
            await journal.put(STREAM, 1, [BIG])
        await deliver(journal, 3, 1, 2)
        await journal.put(STREAM, 1, [BIG])

    run(tmp_path, work)
    assert segments(tmp_path) == [4]


def test_an_intent_that_opens_a_segment_does_not_claim_the_puts_before_it(tmp_path):
    async def work(journal):
        await journal.put(STREAM, 1, [BIG])
        many = Intent(uuid4(), STREAM, "b", "k", Recipe(Compression.GZIP), array("Q", [1] * 4_000))
        waiting = [journal.intend(many), journal.put(STREAM, 1, [b"small"]), journal.put(STREAM, 1, [BIG])]
        await asyncio.gather(*waiting)
        await journal.done(replace(many, numbers=array("Q", [1])))
        await journal.put(STREAM, 1, [BIG])

    run(tmp_path, work)
    assert segments(tmp_path)[0] == 2
    assert sum(len(put.data) for put in recover(tmp_path, {STREAM}).puts) == 3


def test_what_was_delivered_before_a_restart_is_removed_after_it(tmp_path):
    async def before(journal):
        for _ in range(3):
            await journal.put(STREAM, 1, [BIG])
        await deliver(journal, 2)

    async def after(journal):
        await deliver(journal, 1)
        assert await journal.put(STREAM, 1, [b"next"]) == 4

    run(tmp_path, before)
    run(tmp_path, after)
    assert segments(tmp_path) == [3, 4]


def test_forgotten_records_free_their_segment(tmp_path):
    async def work(journal):
        for _ in range(2):
            await journal.put(STREAM, 1, [BIG])
        journal.forget([1])
        await journal.put(STREAM, 1, [b"small"])

    run(tmp_path, work)
    assert segments(tmp_path) == [2]


def test_a_put_that_could_not_be_logged_fails_and_the_next_one_succeeds(tmp_path):
    class Full(OsDisk):
        full = True

        def create(self, path, size):
            if self.full:
                raise OSError(errno.ENOSPC, "No space left on device")
            return super().create(path, size)

    disk = Full()

    async def work(journal):
        with pytest.raises(LogUnavailableError, match="No space left on device"):
            await journal.put(STREAM, 1, [b"lost"])
        assert journal.failing
        disk.full = False
        await journal.put(STREAM, 1, [b"kept"])
        assert not journal.failing

    run(tmp_path, work, disk)
    assert [put.data for put in recover(tmp_path, {STREAM}).puts] == [[b"kept"]]


def test_a_put_is_not_acknowledged_before_its_records_are_synced(tmp_path):
    class Held(OsDisk):
        may_sync = threading.Event()

        def sync(self, descriptor):
            assert self.may_sync.wait(30)
            super().sync(descriptor)

    disk = Held()

    async def work(journal):
        putting = asyncio.create_task(journal.put(STREAM, 1, [b"a"]))
        done, _ = await asyncio.wait([putting], timeout=0.2)
        assert done == set()
        disk.may_sync.set()
        assert await putting == 1

    run(tmp_path, work, disk)


async def fill(journal, count=8):
    """Make a long log of which nothing is pending."""
    numbers = [await journal.put(STREAM, 1, [BIG]) for _ in range(count)]
    await deliver(journal, *numbers)


async def tidied(journal):
    return sum([await journal.tidy() for _ in range(20)])


def test_what_waits_for_long_is_carried_on_and_its_segment_goes(tmp_path):
    async def work(journal):
        await journal.put(STREAM, 7, [b"a", b"b", b"c"])
        await fill(journal)
        assert segments(tmp_path)[0] == 1
        await deliver(journal, 2)
        assert await tidied(journal) == 1
        await journal.put(STREAM, 1, [b"next"])

    run(tmp_path, work)
    assert len(segments(tmp_path)) <= 2
    found = recover(tmp_path, {STREAM})
    assert [(one.numbers, one.data, one.arrival_ms) for one in found.puts[:1]] == [([1, 3], [b"a", b"c"], 7)]
    assert found.next_number == 13


def test_what_is_carried_is_delivered_once_before_and_after_a_restart(tmp_path):
    async def before(journal):
        await journal.put(STREAM, 7, [b"a", b"b"])
        await fill(journal)
        await tidied(journal)
        await deliver(journal, 1)

    async def after(journal):
        await fill(journal)
        await tidied(journal)
        await deliver(journal, 2)
        await fill(journal, 2)

    run(tmp_path, before)
    assert [one.data for one in recover(tmp_path, {STREAM}).puts] == [[b"b"]]
    run(tmp_path, after)
    assert recover(tmp_path, {STREAM}).puts == []
    assert len(segments(tmp_path)) <= 3


def test_a_delivery_that_waits_for_long_is_made_again_under_its_key(tmp_path):
    intent = Intent(uuid4(), STREAM, "bucket", "its/key", Recipe(Compression.GZIP), array("Q", [2, 1]))

    async def before(journal):
        await journal.put(STREAM, 7, [b"a", b"b"])
        await journal.intend(intent)
        await fill(journal)
        assert await tidied(journal) == 1
        await journal.put(STREAM, 1, [b"next"])

    async def after(journal):
        await fill(journal)
        await tidied(journal)
        await journal.done(intent)
        await fill(journal, 2)

    run(tmp_path, before)
    assert segments(tmp_path)[0] > 1
    found = recover(tmp_path, {STREAM})
    assert [(one.intent.key, one.data) for one in found.deliveries] == [("its/key", [b"b", b"a"])]
    assert [one.data for one in found.puts] == [[b"next"]]
    run(tmp_path, after)
    found = recover(tmp_path, {STREAM})
    assert (found.deliveries, [one.data for one in found.puts]) == ([], [[b"next"]])


@pytest.mark.parametrize("stays", [True, False])
def test_what_was_made_is_carried_with_its_keys_and_reasons_and_sources_that_stay(tmp_path, stays):
    records = [Record(b"m1", 5, (("k", "v"),)), Record(b"m2", 6)]
    failed = [Failed(b"m3", 5, 9, Reason("processing-failed", "Lambda.X", "why", 3, "arn"))]

    async def work(journal):
        await journal.put(STREAM, 7, [b"a", b"b"])
        await journal.make(STREAM, [1, 2], records, failed, sources_stay=stays)
        await fill(journal)
        await deliver(journal, 4)
        for _ in range(2):  # carried on, and carried on again
            await tidied(journal)
            await fill(journal)

    run(tmp_path, work)
    assert segments(tmp_path)[0] > 1
    found = recover(tmp_path, {STREAM}).puts
    sources = [one for one in found if isinstance(one, PendingPut)]
    assert [(one.numbers, one.data, one.is_made) for one in sources] == (
        [([1, 2], [b"a", b"b"], True)] if stays else []
    )
    (made,) = [one for one in found if isinstance(one, PendingMade)]
    assert (made.numbers, made.records, made.failed) == ([3, 5], records[:1], failed)


def test_a_log_of_which_much_is_pending_stays_as_it_is(tmp_path):
    async def work(journal):
        for _ in range(12):
            await journal.put(STREAM, 1, [BIG])
        await deliver(journal, 3)
        assert await tidied(journal) == 0

    run(tmp_path, work)
    assert len(segments(tmp_path)) >= 12


def test_records_that_are_settled_while_they_are_carried_are_not_there_twice(tmp_path):
    async def work(journal):
        first = await journal.put(STREAM, 7, [b"%d" % at for at in range(200)])
        await fill(journal)
        # deliveries end, and a stream is deleted, at every moment of it
        some = [deliver(journal, number) for number in range(first, first + 100)]
        await asyncio.gather(tidied(journal), *some, asyncio.to_thread(lambda: None))
        journal.forget(range(first + 100, first + 150))
        await tidied(journal)

    run(tmp_path, work)
    found = recover(tmp_path, {STREAM}).puts
    # what was forgotten without a frame is read again; nothing that is done is
    assert sorted(number for one in found for number in one.numbers)[-50:] == list(range(151, 201))
    assert not {number for one in found for number in one.numbers} & set(range(1, 101))


def test_a_segment_whose_records_can_not_be_carried_stays(tmp_path):
    disk = FailingDisk()

    async def work(journal):
        await journal.put(STREAM, 7, [b"a" * 30_000])
        await fill(journal)
        disk.full = True
        with pytest.raises(LogUnavailableError):
            await journal.put(STREAM, 1, [BIG])
        with pytest.raises(LogUnavailableError):
            await tidied(journal)
        disk.full = False
        assert await tidied(journal) == 1

    run(tmp_path, work, disk)
    assert [one.data for one in recover(tmp_path, {STREAM}).puts] == [[b"a" * 30_000]]


class FailingDisk(OsDisk):
    full = False

    def create(self, path, size):
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().create(path, size)


def test_an_object_of_records_that_were_carried_and_of_others_frees_what_it_held_and_no_more(tmp_path):
    async def work(journal):
        await journal.put(STREAM, 7, [b"a"])
        await fill(journal)
        await tidied(journal)
        new = [await journal.put(STREAM, 1, [BIG]) for _ in range(6)]
        await deliver(journal, 1, *new[:3])

    run(tmp_path, work)
    assert len(segments(tmp_path)) == 3
    found = recover(tmp_path, {STREAM})
    assert [one.data for one in found.puts] == [[BIG]] * 3
    assert [one.pending for one in found.segments if one.pending] == [1] * 3


@pytest.mark.parametrize("done", [False, True])
def test_an_intent_outlives_the_segment_that_had_it_when_its_records_are_carried(tmp_path, done):
    intent = Intent(uuid4(), STREAM, "bucket", "its/key", Recipe(Compression.GZIP), array("Q", [1]))

    async def work(journal):
        await journal.put(STREAM, 7, [b"a"])
        await fill(journal, 3)
        await journal.intend(intent)  # into a segment behind that of its record
        await fill(journal)
        await tidied(journal)
        await asyncio.sleep(0.2)  # it is the log's thread that removes segments
        assert segments(tmp_path)[0] > 3
        if done:
            await journal.done(intent)

    run(tmp_path, work)
    found = recover(tmp_path, {STREAM})
    assert found.puts == []
    assert [(one.intent.key, one.data) for one in found.deliveries] == ([] if done else [("its/key", [b"a"])])


def test_a_delivery_is_known_to_be_done_when_its_records_outlive_its_intent(tmp_path):
    intent = Intent(uuid4(), STREAM, "bucket", "its/key", Recipe(Compression.GZIP), array("Q", [2, 1]))

    async def work(journal):
        await journal.put(STREAM, 7, [b"a", b"b", b"c"])
        await fill(journal, 3)
        await journal.intend(intent)
        await fill(journal)
        assert await journal.tidy()  # its records, and not yet its intent
        await journal.done(intent)
        await fill(journal, 2)

    run(tmp_path, work)
    found = recover(tmp_path, {STREAM})
    assert [one.data for one in found.puts] == [[b"c"]]
    assert found.deliveries == []


def test_an_intent_of_a_deleted_stream_keeps_no_segment(tmp_path):
    intents = [Intent(uuid4(), STREAM, "b", "k", Recipe(Compression.GZIP), array("Q", [n])) for n in (1, 2)]

    async def work(journal):
        await journal.put(STREAM, 7, [b"a", b"b"])
        await journal.intend(intents[0])
        coming = asyncio.create_task(journal.intend(intents[1]))
        await asyncio.sleep(0)
        for one in intents:
            journal.abandon(one.delivery)
        journal.forget([1, 2])
        await coming
        await fill(journal, 3)

    run(tmp_path, work)
    assert segments(tmp_path)[0] > 1
