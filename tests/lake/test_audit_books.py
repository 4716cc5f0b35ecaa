"""The books on a real DynamoDB: every batch counts once, whoever adds up, whenever, and wherever it is stopped."""

import random
from itertools import count
from threading import Thread

import pytest

from lake.books import FOLD_EVERY, Books
from lake.figures import Counts, Figures, summed
from lake.items import Items
from lake.manifest import BatchId, BatchReceipt, Lane, Manifest
from lake.ranges import Ranges

SERIES = BatchId("solo", "visits", Lane.EVENTS, "solo", 0)
STEPS = ("months", "piece", "sum", "swept")


class Stop(BaseException):
    """A crash: nothing may catch it."""


def held(number, *, wide=False):
    """What batch N holds: its own hundred numbers over three days of two months, and one record that tells no day."""
    first = 100 * number
    days = [f"2013-{month:02d}-{day:02d}" for month, day in ((1, 1 + number % 28), (1, 30), (2, 1 + number % 20))]
    counts = {("solo", day): Counts(10, 7, 2, 1) for day in days} | {("solo", "-"): Counts(1, 0, 0, 1, 0, 1)}
    seen = {("solo", "phone", day): Ranges(((first + 10 * one, first + 10 * one + 9),)) for one, day in enumerate(days)}
    if wide:
        seen["solo", "holes", days[0]] = Ranges(tuple((10 * one, 10 * one) for one in range(number, 100_000, 15)))
    return Figures(counts, seen)


def receipt(number, **options):
    batch = BatchId("solo", "visits", Lane.EVENTS, "solo", number)
    return BatchReceipt(batch, 1, "1.0.0", 0, {f"s3://b/{number}.gz": 31}, held(number, **options))


def filled(cloud, table, batches, **options):
    """A manifest with receipts and books in which nothing was added up yet."""
    books = Books(cloud.dynamodb, table)
    books.record(receipt(1, **options))
    manifest = Manifest(cloud.dynamodb, table)
    for number in range(2, batches + 1):
        manifest.record(receipt(number, **options))
    return books


def assert_holds(books, batches, **options):
    """Whatever was added up: the figures are those of just these batches."""
    expected = summed(held(number, **options) for number in range(1, batches + 1))
    (account,) = books.accounts("solo", "visits", days=True)
    assert account.series.number == batches
    assert account.total == expected.without_days()
    assert account.days == expected


def crash_at(step, after=1):
    left = count(1)

    def stop(done):
        if done == step and next(left) == after:
            raise Stop

    return stop


def test_without_batches_there_are_no_books(cloud, table):
    assert Books(cloud.dynamodb, table).accounts("solo", "visits") == []


def test_batches_behind_the_sums_count_too(cloud, table):
    assert_holds(filled(cloud, table, 5), 5)


def test_added_up_they_are_the_same(cloud, table):
    books = filled(cloud, table, 5)
    assert books.fold(SERIES, at_least=6) == 0
    assert books.fold(SERIES, at_least=5) == 5
    assert_holds(books, 5)
    assert books.fold(SERIES, at_least=1) == 5
    assert_holds(books, 5)


def test_an_ingest_adds_up_now_and_then(cloud, table):
    books = Books(cloud.dynamodb, table)
    for number in range(1, FOLD_EVERY + 3):
        books.record(receipt(number))
    assert books.fold(SERIES, at_least=FOLD_EVERY) == FOLD_EVERY
    assert_holds(books, FOLD_EVERY + 2)


def test_a_receipt_that_is_noted_again_after_it_was_added_counts_once(cloud, table):
    books = filled(cloud, table, 4)
    books.fold(SERIES, at_least=1)
    for number in (1, 4):
        books.record(receipt(number))
    assert_holds(books, 4)


def test_days_before_the_one_asked_for_are_left_out_and_those_that_are_unknown_are_not(cloud, table):
    books = filled(cloud, table, 3)
    for _ in range(2):
        (account,) = books.accounts("solo", "visits", days=True, since="2013-02-03")
        assert sorted({day for _, day in account.days.counts}) == ["-", "2013-02-03", "2013-02-04"]
        assert account.days.counts["solo", "-"] == Counts(3, 0, 0, 3, 0, 3)
        books.fold(SERIES, at_least=1)


def test_batches_behind_a_missing_receipt_wait_for_it(cloud, table):
    books = filled(cloud, table, 3)
    Manifest(cloud.dynamodb, table).record(receipt(5))
    assert books.fold(SERIES, at_least=1) == 3
    Manifest(cloud.dynamodb, table).record(receipt(4))
    assert books.fold(SERIES, at_least=1) == 5
    assert_holds(books, 5)


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("nth", [1, 2, 3])
@pytest.mark.parametrize("step", STEPS)
def test_adding_up_that_is_killed_anywhere_loses_and_doubles_nothing(cloud, table, step, nth, wide):
    books = filled(cloud, table, 4, wide=wide)
    books.fold(SERIES, at_least=1)
    for number in (5, 6):
        Manifest(cloud.dynamodb, table).record(receipt(number, wide=wide))
    try:
        Books(cloud.dynamodb, table, after=crash_at(step, nth)).fold(SERIES, at_least=1)
        crashed = False
    except Stop:
        crashed = True
    # the sums and January have two pieces each where they are wide
    assert crashed is {"months": nth == 1, "sum": nth == 1, "piece": wide and nth < 3, "swept": True}[step]
    assert_holds(books, 6, wide=wide)
    Manifest(cloud.dynamodb, table).record(receipt(7, wide=wide))
    assert books.fold(SERIES, at_least=1) == 7
    assert_holds(books, 7, wide=wide)


def whole_fold(books, table, cloud):
    books.fold(SERIES, at_least=1)


def more_batches(books, table, cloud):
    number = Manifest(cloud.dynamodb, table).last_receipt(SERIES) + 1
    Manifest(cloud.dynamodb, table).record(receipt(number))


def batches_and_fold(books, table, cloud):
    more_batches(books, table, cloud)
    books.fold(SERIES, at_least=1)


def anew(books, table, cloud):
    books.start_anew(SERIES)


def anew_and_batches(books, table, cloud):
    books.start_anew(SERIES)
    batches_and_fold(books, table, cloud)


def killed_fold(books, table, cloud):
    with pytest.raises(Stop):
        Books(cloud.dynamodb, table, after=crash_at("months")).fold(SERIES, at_least=1)


MEANWHILE = (whole_fold, more_batches, batches_and_fold, anew, anew_and_batches, killed_fold)


@pytest.mark.parametrize("meanwhile", MEANWHILE)
@pytest.mark.parametrize(("step", "nth"), [("months", 1), ("sum", 1), ("swept", 1), ("swept", 2), ("swept", 4)])
@pytest.mark.parametrize("job", ["fold", "anew"])
def test_whatever_another_does_between_two_steps_nothing_is_lost_or_doubled(cloud, table, job, step, nth, meanwhile):  # noqa: PLR0917
    books = filled(cloud, table, 4)
    books.fold(SERIES, at_least=1)
    Manifest(cloud.dynamodb, table).record(receipt(5))
    left = count(1)

    def other(done):
        if done == step and next(left) == nth:
            try:
                meanwhile(Books(cloud.dynamodb, table), table, cloud)
            except pytest.fail.Exception:
                if meanwhile is not killed_fold:  # it had nothing to do
                    raise

    one = Books(cloud.dynamodb, table, after=other)
    if job == "anew":
        one.start_anew(SERIES)
    else:
        one.fold(SERIES, at_least=1)
    last = Manifest(cloud.dynamodb, table).last_receipt(SERIES)
    assert_holds(books, last)
    assert books.fold(SERIES, at_least=1) == last
    assert_holds(books, last)


def test_reading_while_another_adds_up_is_of_one_moment(cloud, table, monkeypatch):
    books = filled(cloud, table, 4)
    reader = Books(cloud.dynamodb, table)
    tail = Books._tail
    turns = count()

    def slow(self, one):
        found = tail(self, one)
        if self is reader and next(turns) < 2:
            batches_and_fold(books, table, cloud)
        return found

    monkeypatch.setattr(Books, "_tail", slow)
    assert_holds(reader, 6)


def test_a_reader_does_not_take_months_that_were_begun_anew_for_none(cloud, table, monkeypatch):
    books = filled(cloud, table, 4)
    books.fold(SERIES, at_least=1)
    reader = Books(cloud.dynamodb, table)
    tail = Books._tail
    turns = count()

    def slow(self, one):
        found = tail(self, one)
        if self is reader and next(turns) == 0:
            anew(books, table, cloud)
        return found

    monkeypatch.setattr(Books, "_tail", slow)
    assert_holds(reader, 4)


class SweptBetween(Books):
    """Another begins the books anew before this one sweeps, and draws up the months while it does."""

    def __init__(self, *place):
        super().__init__(*place)
        self.place = place

    def _sweep(self, series):
        with pytest.raises(Stop):
            Books(*self.place, after=crash_at("swept")).start_anew(series)
        super()._sweep(series)

    def _months(self, pk, since):
        found = list(super()._months(pk, since))
        Books(*self.place).fold(SERIES, at_least=1)
        yield from found


def test_pieces_that_dynamodb_leaves_at_first_are_swept_all_the_same(cloud, table, busy):
    filled(cloud, table, 7, wide=True).fold(SERIES, at_least=1)
    Manifest(cloud.dynamodb, table).record(receipt(8, wide=True))
    client = busy("BatchWriteItem", times=2)
    Books(client, table).fold(SERIES, at_least=1)
    assert_holds(Books(cloud.dynamodb, table), 8, wide=True)
    pieces = list(Items(cloud.dynamodb, table).beginning("solo#visits", "piece#", keys_only=True))
    versions = {item["sk"]["S"].split("#")[1] for item in pieces}
    there = [one for kind in ("sum#", "month#") for one in Items(cloud.dynamodb, table).beginning("solo#visits", kind)]
    assert len(client.calls) > 2
    assert versions
    assert versions <= {item["version"]["S"] for item in there}


def test_sweeping_leaves_the_months_that_another_drew_up_meanwhile(cloud, table):
    books = filled(cloud, table, 4)
    books.fold(SERIES, at_least=1)
    SweptBetween(cloud.dynamodb, table).start_anew(SERIES)
    assert_holds(books, 4)


@pytest.mark.parametrize("seed", range(4))
def test_four_at_once_leave_the_books_right(cloud, table, seed):
    books = filled(cloud, table, 3)
    rng = random.Random(seed)  # noqa: S311 - to repeat it
    plans = [[rng.choice((whole_fold, anew, whole_fold)) for _ in range(4)] for _ in range(3)]
    failed = []

    def work(plan):
        try:
            for act in plan:
                act(Books(cloud.dynamodb, table), table, cloud)
        except BaseException as error:  # noqa: BLE001 - told by the test
            failed.append(error)

    def ingest():
        for number in range(4, 20):
            Books(cloud.dynamodb, table).record(receipt(number))

    threads = [Thread(target=work, args=(plan,)) for plan in plans] + [Thread(target=ingest)]
    for one in threads:
        one.start()
    for one in threads:
        one.join(120)
    assert failed == []
    assert_holds(books, 19)
    books.fold(SERIES, at_least=1)
    assert_holds(books, 19)


def test_begun_anew_the_months_of_before_are_gone(cloud, table):
    books = filled(cloud, table, 3)
    books.fold(SERIES, at_least=1)
    # a batch that turns out to hold something else
    Manifest(cloud.dynamodb, table).record(
        BatchReceipt(receipt(2).batch, 1, "1.0.0", 0, {}, Figures({("solo", "2014-05-05"): Counts(1, 1)}))
    )
    books.start_anew(SERIES)
    expected = summed([held(1), Figures({("solo", "2014-05-05"): Counts(1, 1)}), held(3)])
    (account,) = books.accounts("solo", "visits", days=True)
    assert (account.total, account.days) == (expected.without_days(), expected)
    found = cloud.dynamodb.query(
        TableName=table,
        KeyConditionExpression="pk = :pk AND begins_with(sk, :sk)",
        ExpressionAttributeValues={":pk": {"S": "solo#visits"}, ":sk": {"S": "month#"}},
    )["Items"]
    assert sorted(item["sk"]["S"] for item in found) == [
        "month#-#events#solo",
        "month#2013-01#events#solo",
        "month#2013-02#events#solo",
        "month#2014-05#events#solo",
    ]
