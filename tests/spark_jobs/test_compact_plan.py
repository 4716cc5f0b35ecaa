"""What compaction decides to rewrite: pure, from what the metadata tells."""

import random
import time
from datetime import UTC, datetime

import pytest
from pyiceberg.partitioning import PartitionField, PartitionSpec
from pyiceberg.transforms import BucketTransform, DayTransform, HourTransform, MonthTransform, YearTransform

from spark_jobs.compact_plan import (
    Group,
    Rules,
    _rows_below,
    disorder,
    groups_of,
    is_closed,
    slot_bounds,
    units_of,
    within_budget,
)
from spark_jobs.layout import FileFacts, Layout, Place, _until

MIB = 2**20
RULES = Rules(128 * MIB)
NOW = datetime(2026, 3, 10, tzinfo=UTC)


def file(name, mib, run=None, *, span=(None, None), rows=1000, deleted=0, delete_files=0):
    return FileFacts(name, int(mib * MIB), rows, run or name, *span, deleted, delete_files)


def place(*files, name="day=2026-03-01", until=datetime(2026, 3, 2, tzinfo=UTC)):
    return Place(0, (name,), name, until, tuple(files))


def groups(*files, rules=RULES):
    return groups_of("db.t", Layout(1, 1, (place(*files),)), rules, NOW)


def taken(*files, rules=RULES):
    found = groups(*files, rules=rules)
    return [one.path for one in found[0].files] if found else []


def test_small_files_of_several_writes_become_one():
    (group,) = groups(file("a", 5), file("b", 6), file("c", 7))
    assert (len(group.files), group.outputs, group.gain, group.reasons) == (3, 1, 2, ("small",))


@pytest.mark.parametrize(
    "files",
    [
        [],
        [file("a", 5)],
        [file("a", 128), file("b", 120)],
        [file("a", 60, "one"), file("b", 60, "one")],
        [file("a", 128, span=(0, 9)), file("b", 128, span=(5, 20))],
    ],
    ids=["none", "one small", "large ones", "small ones of one write", "two that overlap"],
)
def test_what_is_well_is_left_alone(files):
    assert groups(*files) == []


def test_a_lot_of_tiny_files_of_one_write_become_one():
    tiny = [file(str(number), 1, "one") for number in range(5)]
    assert taken(*tiny[:4]) == []
    (group,) = groups(*tiny)
    assert (len(group.files), group.outputs, group.reasons) == (5, 1, ("small",))


def test_a_late_event_does_not_rewrite_a_month():
    assert groups(file("month", 80), file("late", 0.01)) == []


def test_late_files_are_merged_with_each_other_and_not_with_a_month():
    assert taken(file("month", 80), file("late1", 0.01), file("late2", 0.02)) == ["late1", "late2"]


def test_once_the_late_ones_weigh_enough_they_go_into_the_month():
    assert taken(file("month", 80), file("late1", 20), file("late2", 20)) == ["month", "late1", "late2"]


def test_two_large_runs_are_merged_though_one_between_is_too_large_for_what_is_before_it():
    assert taken(file("a", 0.5), file("b", 50), file("c", 55)) == ["a", "b", "c"]


def test_a_byte_is_rewritten_a_few_times_however_many_batches_follow():
    there, written, number = [], 0.0, 0
    for batch in range(500):
        there.append(file(f"batch{batch}", 0.1))
        for group in groups(*there):
            number += 1
            merged = sum(one.bytes for one in group.files)
            written += merged
            gone = {one.path for one in group.files}
            there = [one for one in there if one.path not in gone] + [file(f"merged{number}", merged / MIB)]
    assert written / (50 * MIB) < 12
    assert len(there) <= 6


def test_runs_over_the_same_keys_are_sorted_together():
    files = [file(name, 128, span=(0, 100)) for name in "abc"]
    (group,) = groups(*files)
    assert (group.outputs, group.gain, group.reasons) == (3, 0, ("disorder",))


def test_files_of_one_write_are_in_order_by_themselves():
    files = [file(name, 128, "one", span=(0, 100)) for name in "abc"]
    assert groups(*files) == []
    assert disorder(files) == 1


def test_ranges_that_touch_are_in_order():
    files = [file(str(start), 128, span=(start, start + 10)) for start in range(0, 100, 10)]
    assert groups(*files) == []
    assert disorder(files) == 1


def test_disorder_is_the_most_writes_over_one_key():
    spans = [(0, 10), (5, 20), (8, 9), (30, 40)]
    assert disorder([file(str(span), 1, span=span) for span in spans]) == 3
    assert disorder([file("a", 1)]) == 0


def test_a_large_file_takes_part_only_where_it_lies_under_too_many_runs():
    here = [file(name, 128, span=(0, 10)) for name in "abc"]
    assert taken(*here, file("elsewhere", 128, span=(20, 30))) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("deleted", "delete_files", "wanted"), [(100, 1, ["a"]), (99, 1, []), (5, 5, ["a"])], ids=["10%", "less", "files"]
)
def test_a_file_is_rewritten_once_a_tenth_of_it_is_deleted_or_five_files_delete_from_it(deleted, delete_files, wanted):
    assert taken(file("a", 128, deleted=deleted, delete_files=delete_files)) == wanted


def test_what_is_deleted_counts_no_more_towards_the_files_it_becomes():
    (group,) = groups(file("a", 256, rows=1000, deleted=600, delete_files=1))
    assert (group.outputs, group.reasons) == (1, ("deletes",))


def test_a_table_may_ask_for_more_files_before_a_rewrite_is_worth_it():
    nine = [file(str(number), 0.1) for number in range(9)]
    assert taken(*nine, rules=Rules(128 * MIB, least=10)) == []
    assert len(taken(*nine, file("tenth", 0.1), rules=Rules(128 * MIB, least=10))) == 10


def test_a_partition_is_closed_a_day_after_its_time():
    assert is_closed(place(until=datetime(2026, 3, 9, tzinfo=UTC)), NOW)
    assert not is_closed(place(until=datetime(2026, 3, 9, 0, 0, 1, tzinfo=UTC)), NOW)
    assert not is_closed(place(until=None), NOW)
    assert not is_closed(place(until=datetime.max.replace(tzinfo=UTC)), NOW)


@pytest.mark.parametrize(
    ("transform", "ordinal", "until"),
    [
        (HourTransform(), 0, datetime(1970, 1, 1, 1, tzinfo=UTC)),
        (DayTransform(), 15_768, datetime(2013, 3, 5, tzinfo=UTC)),
        (MonthTransform(), 11, datetime(1971, 1, 1, tzinfo=UTC)),
        (YearTransform(), -1, datetime(1970, 1, 1, tzinfo=UTC)),
        # 9999-12-31 and what lies behind it has no end that Python could tell
        (DayTransform(), 2_932_896, None),
        (HourTransform(), 70_389_527, None),
        (MonthTransform(), 96_359, None),
        (YearTransform(), 8_029, None),
        (DayTransform(), 2_147_483_647, None),
        (DayTransform(), -2_147_483_648, None),
        (BucketTransform(8), 3, None),
    ],
)
def test_the_end_of_a_partition_is_told_by_its_time(transform, ordinal, until):
    spec = PartitionSpec(PartitionField(1, 1000, BucketTransform(4), "b"), PartitionField(2, 1001, transform, "t"))
    assert _until(spec, (2, ordinal)) == until
    assert _until(spec, (2, None)) is None


def group(name, mib, *, closed=True, count=2, outputs=1):
    files = tuple(file(f"{name}{number}", mib / count) for number in range(count))
    return Group("db.t", place(*files, name=name), files, outputs, closed, ("small",))


def test_closed_partitions_come_first_and_then_most_files_for_a_byte():
    one, two, three = group("open", 1, closed=False), group("few", 10), group("many", 10, count=8)
    assert within_budget([one, two, three], 100 * MIB, RULES) == ([three, two, one], [])


def test_what_the_budget_has_no_room_for_is_left_for_later_runs():
    small, large = group("small", 10, count=9), group("large", 95)
    assert within_budget([large, small], 100 * MIB, RULES) == ([small], [large])


def test_a_group_larger_than_the_budget_is_cut_to_its_smallest_runs():
    files = tuple(file(str(mib), mib) for mib in (10, 20, 30, 40))
    whole = Group("db.t", place(*files), files, 1, True, ("small",))
    (cut,), left = within_budget([whole], 65 * MIB, RULES)
    assert [one.path for one in cut.files] == ["10", "20", "30"]
    assert left == [whole]
    (cut,), _ = within_budget([whole], MIB, RULES)
    assert [one.path for one in cut.files] == ["10", "20"]


def test_partitions_that_become_one_file_each_are_rewritten_together_and_larger_ones_alone():
    small = [group(f"p{number}", 100) for number in range(4)]
    large = group("large", 600, outputs=5)
    assert [len(unit) for unit in units_of([*small[:3], large, small[3]], RULES)] == [2, 1, 1, 1]


def test_outputs_begin_where_the_rows_are_halved():
    halves = (file("a", 128, span=(0, 100), rows=1000), file("b", 128, span=(100, 1100), rows=1000))
    assert slot_bounds(Group("db.t", place(*halves), halves, 2, True, ())) == [100]
    assert slot_bounds(Group("db.t", place(*halves), halves, 4, True, ())) == [50, 100, 600]


def test_outputs_of_files_that_overlap_begin_where_counting_each_file_at_each_key_says():
    chance = random.Random(7)  # noqa: S311 - of the test's own numbers
    for _ in range(200):
        spans = [(low, low + chance.choice([0, 0, 1, 5, 50])) for low in chance.choices(range(100), k=30)]
        files = tuple(file(str(n), 1, span=span, rows=chance.randint(1, 99)) for n, span in enumerate(spans))
        keys = sorted({key for span in spans for key in span})

        def part(one, key):
            return 1.0 if key >= one.high else 0.0 if key < one.low else (key - one.low) / (one.high - one.low)

        counted = [sum(one.rows * part(one, key) for one in files) for key in keys]
        assert _rows_below([(one.low, one.high, one.rows) for one in files], keys) == pytest.approx(counted)


def test_between_files_far_apart_no_rows_lie_whatever_rounding_left():
    files = tuple(file(str(at), 1, span=(at, at + 3), rows=1) for at in (0, 7, 10**18))
    assert slot_bounds(Group("db.t", place(*files), files, 3, True, ())) == [3, 10]


def test_outputs_of_twenty_thousand_files_are_planned_at_once():
    files = tuple(file(str(at), 1, span=(at, at + 5), rows=10) for at in range(20_000))
    group = Group("db.t", place(*files), files, 200, True, ())
    began = time.process_time()
    assert len(slot_bounds(group)) == 199
    assert time.process_time() - began < 5


def test_outputs_of_words_have_to_be_sampled():
    words = (file("a", 128, span=("a", "b")), file("b", 128, span=("a", "z")))
    assert slot_bounds(Group("db.t", place(*words), words, 2, True, ())) is None
