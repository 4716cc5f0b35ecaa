"""A stream's buffers: closed by size, by age, or when asked."""

from __future__ import annotations

from firehose.buffers import Buffers, ErrorOutput, Partition
from firehose.processing import Reason, Refused

A, B = ("a",), ("b",)


def buffers():
    return Buffers(size_bytes=10, interval_ms=1_000)


def test_a_buffer_is_full_when_its_records_and_delimiters_reach_the_size():
    made = buffers()
    assert made.spread([A], [b"1234"], [1], 0, b"\n") == []
    (full,) = made.spread([A], [b"5678"], [2], 0, b"\n")
    assert (full.data, list(full.numbers), full.size, full.suffix) == ([b"1234", b"5678"], [1, 2], 10, b"\n")
    assert len(made) == 0


def test_a_big_batch_becomes_several_full_buffers_and_a_rest():
    made = buffers()
    full = made.spread([A] * 5, [b"12345"] * 5, range(5), 0, b"")
    assert [list(one.numbers) for one in full] == [[0, 1], [2, 3]]
    (rest,) = made.take_all()
    assert list(rest.numbers) == [4]


def test_records_without_keys_are_buffered_just_so():
    made, alike = buffers(), buffers()
    for first in range(0, 12, 3):
        data = [b"123", b"12", b"1"]
        numbers = range(first, first + 3)
        assert made.add(data, numbers, 0, b"\n") == alike.spread([()] * 3, data, numbers, 0, b"\n")
    assert [list(one.numbers) for one in made.take_all()] == [list(one.numbers) for one in alike.take_all()]


def test_records_of_a_put_keep_their_order_in_each_partition():
    made = buffers()
    data = [b"1", b"2", b"3", b"4", b"5"]
    assert made.spread([A, B, A, A, B], data, range(5), 0, b"") == []
    found = {one.target.values: (one.data, list(one.numbers), one.size) for one in made.take_all()}
    assert found == {A: ([b"1", b"3", b"4"], [0, 2, 3], 3), B: ([b"2", b"5"], [1, 4], 2)}


def test_an_error_and_a_partition_of_the_same_name_are_apart():
    made = buffers()
    made.spread([("processing-failed",)], [b"good"], [1], 0, b"")
    made.add_refused([Refused(2, b"bad", 10, 20, Reason("processing-failed", "C", "m"))])
    assert [one.data for one in made.due(1_000)] == [[b"good"]]
    assert [one.data for one in made.take_all()] == [[b"bad"]]
    assert len(made) == 0


def test_a_buffer_is_due_when_its_oldest_record_is_as_old_as_the_interval():
    made = buffers()
    made.spread([A], [b"1"], [1], 500, b"")
    made.spread([B], [b"2"], [2], 900, b"")
    assert made.due(1_499) == []
    (due,) = made.due(1_500)
    assert due.target == Partition(A)
    assert made.oldest_ms == 900


def test_a_record_that_arrived_earlier_makes_its_buffer_older():
    made = buffers()
    made.spread([A], [b"1"], [1], 900, b"")
    made.spread([A], [b"2"], [2], 400, b"")
    assert made.oldest_ms == 400


def test_a_partition_is_active_while_it_has_a_buffer():
    made = buffers()
    made.spread([A], [b"1"], [1], 0, b"")
    assert (made.inactive([B, A, B]), made.active_partitions) == ([B], 1)
    made.take_all()
    assert (made.inactive([A]), made.active_partitions) == ([A], 0)


def test_errors_are_buffered_by_kind_and_are_no_partitions():
    made = buffers()
    one = Refused(1, b"bad", 10, 20, Reason("processing-failed", "C", "m"))
    other = Refused(2, b"more", 10, 20, Reason("activePartitionExceeded", "C", "m"))
    assert made.add_refused([one, other]) == []
    assert made.active_partitions == 0
    assert [(buffer.target, buffer.refused) for buffer in made.take_all()] == [
        (ErrorOutput("processing-failed"), [one]),
        (ErrorOutput("activePartitionExceeded"), [other]),
    ]
