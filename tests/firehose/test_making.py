"""Records gathered for processors that make others: batches by size and by age, faults that lose nothing."""

from __future__ import annotations

import pytest

from firehose.making import Gathering, chunks_of
from firehose.processing import Chunk
from firehose.records import Record


class Twice:
    """Makes two records of each; a record `bad` makes it fail."""

    def apply(self, records, now_ms):  # noqa: ARG002 - as makers have it
        if any(one.raw == b"bad" for one in records):
            raise ValueError("bad")
        return [one for one in records for _ in range(2)], []


def put(*data, first=1, at=1_000):
    return Chunk(list(data), range(first, first + len(data)), at)


def test_without_a_size_each_put_is_a_batch():
    gathering = Gathering([Twice()])
    (batch,) = gathering.add(put(b"a", b"b"), 2_000)
    assert (list(batch.numbers), batch.data) == ([1, 2], [b"a", b"b"])
    assert [one.raw for one in batch.records] == [b"a", b"a", b"b", b"b"]
    assert (gathering.oldest_ms, gathering.take()) == (None, [])


def test_puts_are_gathered_until_what_was_made_of_them_is_large_enough():
    gathering = Gathering([Twice()], size_bytes=8, interval_ms=60_000)
    assert gathering.add(put(b"abc", at=5_000), 5_000) == []
    (batch,) = gathering.add(put(b"d", first=2, at=4_000), 6_000)
    assert (list(batch.numbers), batch.oldest_ms, batch.size) == ([1, 2], 4_000, 8)


@pytest.mark.parametrize(("now_ms", "batches"), [(60_999, 0), (61_000, 1)])
def test_a_batch_is_due_when_its_oldest_record_is_as_old_as_the_interval(now_ms, batches):
    gathering = Gathering([], size_bytes=100, interval_ms=60_000)
    gathering.add(put(b"a"), 1_000)
    assert len(gathering.due(now_ms)) == batches


def test_a_processor_of_ours_that_fails_refuses_the_record_and_nothing_else():
    gathering = Gathering([Twice()], size_bytes=100, interval_ms=60_000)
    gathering.add(put(b"good"), 1_000)
    gathering.add(put(b"bad", b"beside", first=2), 2_000)
    (batch,) = gathering.take()
    assert [one.raw for one in batch.records] == [b"good", b"good", b"beside", b"beside"]
    assert [(one.raw, one.ended_ms, one.reason.code) for one in batch.failed] == [(b"bad", 2_000, "InternalFailure")]
    assert "ValueError('bad')" in batch.failed[0].reason.message


def test_made_records_go_on_by_arrival_with_the_keys_they_were_given():
    records = [Record(b"a", 1), Record(b"b", 1), Record(b"c", 2, (("k", "v"),)), Record(b"d", 1)]
    chunks = list(chunks_of(range(10, 14), records))
    assert [(one.data, list(one.numbers), one.arrival_ms, one.lambda_keys) for one in chunks] == [
        ([b"a", b"b"], [10, 11], 1, None),
        ([b"c"], [12], 2, [{"k": "v"}]),
        ([b"d"], [13], 1, None),
    ]
