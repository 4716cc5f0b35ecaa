"""A stream's buffers: closed by size, by age, or when asked."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

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


RECORDS = st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 12)), max_size=8)
PUTS = st.lists(st.tuples(st.integers(0, 5), RECORDS), max_size=6)


def one_by_one(puts):
    """What the records of puts become where each is looked at by itself."""
    full, opened, number = [], {}, 0
    for arrival, records in puts:
        for key, size in records:
            numbers, held, oldest = opened.pop(key, ([], 0, arrival))
            found = (key, [*numbers, number], held + size + 1, min(oldest, arrival))
            number += 1
            if found[2] >= 10:
                full.append(found)
            else:
                opened[key] = found[1:]
    return full, {(key, *rest) for key, rest in ((key, (tuple(one[0]), *one[1:])) for key, one in opened.items())}


@given(puts=PUTS)
def test_many_records_at_once_become_what_they_become_one_by_one(puts):
    made, number, full = buffers(), 0, []
    for arrival, records in puts:
        keys, data = [(key,) for key, _ in records], [b"x" * size for _, size in records]
        found = made.find(keys, arrival)
        assert found is None or [one.target.values for one in found] == keys
        full += made.spread(keys, data, range(number, number + len(records)), arrival, b"\n", found=found)
        number += len(records)
    told = [(one.target.values[0], list(one.numbers), one.size, one.oldest_ms) for one in full]
    rest = {(one.target.values[0], tuple(one.numbers), one.size, one.oldest_ms) for one in made.take_all()}
    assert (told, rest) == one_by_one(puts)


def test_a_buffer_that_would_become_older_is_not_found():
    made = buffers()
    made.spread([A], [b"1"], [1], 900, b"")
    assert made.find([A], 899) is None
    assert made.find([A, B], 900) is None
    (found,) = made.find([A], 900)
    assert found.target == Partition(A)


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
