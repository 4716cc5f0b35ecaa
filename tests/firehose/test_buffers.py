"""A stream's buffers: closed by size, by age, or when asked."""

from __future__ import annotations

from firehose.buffers import Buffers, ErrorOutput, Partition
from firehose.processing import Reason, Refused

A, B = Partition(("a",)), Partition(("b",))


def buffers():
    return Buffers(size_bytes=10, interval_ms=1_000)


def test_a_buffer_is_full_when_its_records_and_delimiters_reach_the_size():
    made = buffers()
    assert made.add(A, [b"1234"], [1], 0, b"\n") == []
    (full,) = made.add(A, [b"5678"], [2], 0, b"\n")
    assert (full.data, list(full.numbers), full.size, full.suffix) == ([b"1234", b"5678"], [1, 2], 10, b"\n")
    assert len(made) == 0


def test_a_big_batch_becomes_several_full_buffers_and_a_rest():
    made = buffers()
    full = made.add(A, [b"12345"] * 5, range(5), 0, b"")
    assert [list(one.numbers) for one in full] == [[0, 1], [2, 3]]
    (rest,) = made.take_all()
    assert list(rest.numbers) == [4]


def test_a_buffer_is_due_when_its_oldest_record_is_as_old_as_the_interval():
    made = buffers()
    made.add(A, [b"1"], [1], 500, b"")
    made.add(B, [b"2"], [2], 900, b"")
    assert made.due(1_499) == []
    (due,) = made.due(1_500)
    assert due.target == A
    assert made.oldest_ms == 900


def test_a_record_that_arrived_earlier_makes_its_buffer_older():
    made = buffers()
    made.add(A, [b"1"], [1], 900, b"")
    made.add(A, [b"2"], [2], 400, b"")
    assert made.oldest_ms == 400


def test_a_partition_is_active_while_it_has_a_buffer():
    made = buffers()
    made.add(A, [b"1"], [1], 0, b"")
    assert (made.is_active(A), made.is_active(B), made.active_partitions) == (True, False, 1)
    made.take_all()
    assert (made.is_active(A), made.active_partitions) == (False, 0)


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
