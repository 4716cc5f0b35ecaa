"""Group commit, and which segments are removed when."""

from __future__ import annotations

import asyncio
import errno
import threading
from array import array
from uuid import UUID, uuid4

import pytest

from firehose.frames import Intent
from firehose.journal import Journal, LogUnavailableError
from firehose.objects import Compression, Recipe
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
    await journal.done(intent.delivery, intent.numbers)


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
        await journal.done(many.delivery, array("Q", [1]))
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
