"""Parts of the upkeep that need no Spark: whose batches a history tells of, a backfill's objects, a replay's."""

from datetime import UTC, date, datetime
from types import SimpleNamespace

import pytest

from spark_jobs import replay
from spark_jobs.backfill_state import Source, _day_prefixes, backfill_objects
from spark_jobs.history import batch_parts, numbers_of
from spark_jobs.replay import _chunks, _Fit
from spark_jobs.snapshots import _is_past


def history_of(*ids):
    """A table whose snapshots were published by these ids, the oldest first."""
    made = [
        SimpleNamespace(
            snapshot_id=number,
            parent_snapshot_id=number - 1,
            summary=SimpleNamespace(additional_properties={"published-wap-id": one}),
        )
        for number, one in enumerate(ids, 1)
    ]
    return SimpleNamespace(metadata=SimpleNamespace(snapshots=made, current_snapshot_id=len(made)), properties={})


def test_what_others_publish_by_ids_of_their_own_has_no_number():
    ours = "visits/events/solo/solo"
    found = numbers_of(
        history_of(f"{ours}/7", "etl/run-7", f"{ours}/8", "etl/\u0663", "etl/", f"etl/{'9' * 5000}", "run")
    )
    assert found == {ours: 8}


@pytest.mark.parametrize("staged", ["etl/run-7", f"etl/{'9' * 5000}", "etl/\u0663", "7", "/7"])
def test_what_others_staged_is_past_no_number(staged):
    assert batch_parts(staged) is None
    assert not _is_past(staged, {"etl": 10**9, "": 10})


class Listed:
    """An S3 that lists some keys, all put on the second of January."""

    def __init__(self, *keys):
        self._keys = keys

    def get_paginator(self, _):
        return self

    def paginate(self, **_):
        moment = datetime(2026, 1, 2, tzinfo=UTC)
        return [{"Contents": [{"Key": one, "Size": 3, "LastModified": moment} for one in self._keys]}]


def test_a_key_that_only_looks_like_a_day_has_the_day_it_was_put_on():
    stream = SimpleNamespace(dataset=SimpleNamespace(name="visits"), owner="solo")
    keys = ["raw/visits/2026/13/01/a.json", "raw/visits/0000/01/01/b.json", "raw/visits/2026/01/01/c.json"]
    found, left = backfill_objects(
        Listed(*keys), None, stream, "solo", bucket="b", source=Source.RAW, days=(date(2026, 1, 2), date(2026, 1, 3))
    )
    assert ([one.uri for one in found], left) == ([f"s3://b/{keys[0]}", f"s3://b/{keys[1]}"], 0)


def test_the_days_of_a_backfill_may_go_to_the_last_there_is():
    found = list(_day_prefixes("visits", "solo", (date(9999, 12, 30), date.max)))
    assert [one.partition("/year=")[2] for one in found] == ["9999/month=12/day=30/", "9999/month=12/day=31/"]


def fit(number, size):
    return _Fit("solo", "day=01/", str(number), str(number), b"x" * size)


def test_a_replays_object_ends_at_so_many_records_or_bytes(monkeypatch):
    monkeypatch.setattr(replay, "_RECORDS", 4)
    monkeypatch.setattr(replay, "_LINE_BYTES", 100)
    sizes = [1] * 9 + [49, 49, 49, 500, 99, 99]
    chunks = [[len(one.line) for one in chunk] for chunk in _chunks(fit(*one) for one in enumerate(sizes))]
    assert chunks == [[1] * 4, [1] * 4, [1, 49], [49, 49], [500], [99], [99]]


def test_records_as_large_as_firehose_takes_them_become_objects_of_64_mib():
    line = b"x" * 1000 * 1024
    made = [_Fit("solo", "day=01/", str(number), str(number), line) for number in range(600)]
    assert [len(chunk) for chunk in _chunks(made)] == [65] * 9 + [15]
