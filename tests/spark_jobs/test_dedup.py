"""Where duplicates are looked for: narrow spans of event ids, in the contract's window, and nowhere else."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest

from spark_jobs.counting import count_rows, merge_counts
from spark_jobs.dedup import first_id, id_spans, joined

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = 86_400_000


def at(days, number=0):
    """An event id made so many days before now."""
    head = first_id(round(NOW.timestamp() * 1000) - round(days * DAY))
    return f"{head}-7000-8000-{number:012d}"


def spans(ids, *, days=30):
    """Of ids that one worker counted."""
    rows = pa.record_batch(
        {
            "event_id": pa.array(ids),
            "event_time": pa.array([NOW] * len(ids), pa.timestamp("us", tz="UTC")),
            "producer_id": pa.array(["phone"] * len(ids)),
            "sequence": pa.array(range(len(ids)), pa.int64()),
        }
    )
    sums, _, _ = count_rows([], "ann", rows, [])
    return id_spans(merge_counts([sums])["ends"], days, round(NOW.timestamp() * 1000))


def test_the_first_id_of_a_moment_comes_before_every_id_of_it_and_after_all_earlier_ones():
    moment = 1_700_000_000_000
    assert first_id(moment) == "018bcfe5-6800"
    assert (
        f"{first_id(moment - 1)}-7fff-bfff-ffffffffffff"
        < first_id(moment)
        < f"{first_id(moment)}-7000-8000-000000000000"
    )


def test_a_batch_of_one_day_is_one_span():
    ids = [at(0.5, 1), at(0.2, 2), at(0.1, 3)]
    assert spans(ids) == [(ids[0], ids[2])]


def test_a_late_event_does_not_stretch_the_span_over_all_between():
    late, today = at(20), [at(0.1, 1), at(0.01, 2)]
    found = spans([late, *today])
    assert (late, late) in found
    assert all(first == late or first >= today[0] for first, _ in found)


def test_ids_older_than_the_window_are_not_looked_for():
    old, fresh = at(40), at(1.5)
    assert spans([old, fresh]) == [(fresh, fresh)]


def test_a_span_that_begins_before_the_window_is_cut_at_its_edge():
    ids = [at(30.2, 1), at(29.8, 2)]
    ((first, last),) = spans(ids)
    assert first == first_id(round((NOW - timedelta(days=30)).timestamp() * 1000))
    assert last == ids[1]


def test_an_id_that_is_no_uuid_is_always_looked_for():
    assert spans(["order-17"]) == [("order-17", "order-17")]


@pytest.mark.parametrize("most", [1, 2, 3])
def test_spans_are_joined_nearest_first_until_there_are_few(most):
    whole = [(at(9), at(8)), (at(5), at(4.5)), (at(4.4), at(4))]
    expected = {
        3: whole,
        2: [(at(9), at(8)), (at(5), at(4))],
        1: [(at(9), at(4))],
    }
    assert joined(whole, most) == expected[most]
