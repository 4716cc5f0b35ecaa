from __future__ import annotations

import pytest

from lake.errors import TerminalError
from producers.options import SendOptions, backoff
from producers.sender import Sender, batches
from producers.spool import NewRow, Spool, SpoolFullError, SpoolIdentity, WaitingEvent
from producers.testing import TAKE, THROTTLE, Disconnect, FailRecords, RecordedFirehose, Refuse


@pytest.fixture
def spool(tmp_path):
    opened = Spool(tmp_path, SpoolIdentity("ewr", "flights", "site-1"))
    yield opened
    opened.close()


@pytest.fixture
def make_sender(spool, clock):
    made = []

    def make(firehose, *, rng=lambda: 0.5, **options):
        sender = Sender(
            spool, firehose.client, "s", options=SendOptions(**({"max_in_flight": 1} | options)), clock=clock, rng=rng
        )
        made.append(sender)
        return sender

    yield make
    for sender in made:
        sender.close()


def fill(spool, *data):
    spool.append([NewRow(f"id-{n}", one) for n, one in enumerate(data)], 0)


def numbers(count):
    return [b"%04d" % n for n in range(count)]


def run(sender, clock, rounds=100):
    """Go on as `flush` does until nothing waits."""
    for _ in range(rounds):
        pause = sender.round().pause
        if pause is None:
            return
        clock.advance(pause)
    raise AssertionError("still something waits")


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ([], []),
        ([4, 4], [[4, 4]]),
        ([4, 4, 4], [[4, 4], [4]]),
        ([3, 3, 3, 1], [[3, 3, 3], [1]]),
        ([5, 5, 1], [[5, 5], [1]]),
        ([11, 1], [[11], [1]]),
    ],
)
def test_batches_stay_within_three_records_and_ten_bytes(sizes, expected):
    records = [WaitingEvent(n, b"x" * size) for n, size in enumerate(sizes)]
    found = batches(records, 3, 10)
    assert [[len(record.data) for record in batch] for batch in found] == expected


def test_a_batch_of_exactly_500_records_is_one_call_and_501_are_two(spool, make_sender, clock):
    firehose = RecordedFirehose()
    sender = make_sender(firehose)
    fill(spool, *numbers(500))
    run(sender, clock)
    fill(spool, *numbers(501))
    run(sender, clock)
    assert [len(call.records) for call in firehose.calls] == [500, 500, 1]


def test_a_batch_of_exactly_4_mib_is_one_call_and_one_byte_more_makes_two(spool, make_sender, clock):
    firehose = RecordedFirehose()
    sender = make_sender(firehose)
    full = [b"x" * 1_000_000] * 4 + [b"x" * (4 * 1024 * 1024 - 4_000_000)]
    fill(spool, *full)
    run(sender, clock)
    fill(spool, *full[:4], full[4] + b"x")
    run(sender, clock)
    assert [len(call.records) for call in firehose.calls] == [5, 4, 1]


def test_only_the_records_that_failed_are_sent_again(spool, make_sender, clock):
    firehose = RecordedFirehose(FailRecords(1, 3))
    fill(spool, b"0", b"1", b"2", b"3")
    run(make_sender(firehose), clock)
    assert [call.records for call in firehose.calls] == [(b"0", b"1", b"2", b"3"), (b"1", b"3")]
    assert firehose.taken == [b"0", b"2", b"1", b"3"]


def test_an_acknowledged_record_leaves_the_spool_before_the_failed_ones_pass(spool, make_sender):
    fill(spool, b"0", b"1", b"2")
    make_sender(RecordedFirehose(FailRecords(1))).round()
    assert spool.read(skip=(), records=10, size=100) == [WaitingEvent(1, b"1")]
    assert spool.tally.acknowledged == 2


def test_what_failed_is_sent_before_what_came_later(spool, make_sender, clock):
    firehose = RecordedFirehose(FailRecords(0, 1))
    sender = make_sender(firehose)
    fill(spool, b"0", b"1")
    sender.round()
    fill(spool, b"2")
    clock.advance(60)
    sender.round()
    assert firehose.calls[1].records == (b"0", b"1", b"2")


def test_a_throttled_call_is_made_again_whole_after_a_pause(spool, make_sender, clock):
    firehose = RecordedFirehose(THROTTLE, TAKE)
    sender = make_sender(firehose)
    fill(spool, b"0", b"1")
    assert sender.round().pause == pytest.approx(0.05)
    assert sender.last_refusal == "ServiceUnavailableException: Slow down."
    assert sender.round().tried == 0
    clock.advance(0.06)
    assert sender.round().acknowledged == 2
    assert sender.last_refusal == ""
    assert firehose.taken == [b"0", b"1"]


@pytest.mark.parametrize(
    "failure",
    [THROTTLE, Disconnect(), Refuse("InternalFailure", "", 500), Refuse("ThrottlingException", "Rate exceeded")],
    ids=["throttle", "connection", "server error", "throttling"],
)
def test_pauses_double_with_each_failure_in_a_row_and_start_over_after_a_success(spool, make_sender, clock, failure):
    firehose = RecordedFirehose(failure, failure, failure, failure, TAKE, failure)
    sender = make_sender(firehose, rng=lambda: 1.0)
    pauses = []
    fill(spool, b"0")
    while (pause := sender.round().pause) is not None:
        pauses.append(pause)
        clock.advance(pause)
    fill(spool, b"1")
    pauses.append(sender.round().pause)
    assert pauses == pytest.approx([0.1, 0.2, 0.4, 0.8, 0.1])


def test_backoff_is_full_jitter_below_a_doubling_ceiling_and_a_cap():
    options = SendOptions(backoff_base=0.1, backoff_cap=20)
    assert [backoff(options, n, lambda: 1.0) for n in (0, 1, 2, 7, 8, 10_000)] == pytest.approx(
        [0.1, 0.2, 0.4, 12.8, 20, 20]
    )
    assert backoff(options, 3, lambda: 0.25) == pytest.approx(0.2)
    assert backoff(options, 3, lambda: 0.0) == 0


def test_a_lost_answer_sends_the_same_bytes_again(spool, make_sender, clock):
    firehose = RecordedFirehose(Disconnect(after_taking=True))
    fill(spool, b"0", b"1")
    run(make_sender(firehose), clock)
    assert firehose.taken == [b"0", b"1", b"0", b"1"]
    assert spool.tally.acknowledged == 2


def test_a_record_that_never_passes_is_tried_ever_less_often_and_slows_nobody(spool, make_sender, clock):
    firehose = RecordedFirehose(fails=lambda data: data == b"0003")
    sender = make_sender(firehose, batch_records=10, rng=lambda: 1.0)
    fill(spool, *numbers(1000))
    while sender.round().tried:
        pass
    assert clock.monotonic() == 0
    assert spool.tally.acknowledged == 999
    tried_at = []
    for _ in range(6):
        clock.advance(sender.round().pause or 0)
        tried_at.append(round(clock.monotonic(), 3))
    assert sorted(set(tried_at)) == [0.1, 0.3, 0.7]
    assert spool.read(skip=(), records=10, size=100) == [WaitingEvent(3, b"0003")]


def test_when_all_records_are_refused_one_by_one_sending_pauses(spool, make_sender):
    firehose = RecordedFirehose(fails=lambda _: True)
    sender = make_sender(firehose, batch_records=10)
    fill(spool, *numbers(100))
    sender.round()
    found = sender.round()
    assert (found.tried, found.pause) == (0, pytest.approx(0.05))
    assert len(firehose.calls) == 1


@pytest.mark.parametrize("place", [0, 1, 250, 499])
def test_a_poison_record_is_split_out_and_buried_and_the_rest_of_its_batch_passes(spool, make_sender, clock, place):
    poison = b"%04d" % place
    firehose = RecordedFirehose(oversize=lambda data: data == poison)
    fill(spool, *numbers(500))
    run(make_sender(firehose), clock)
    assert sorted(firehose.taken) == [one for one in numbers(500) if one != poison]
    (buried,) = spool.dead_letters()
    assert (buried.sequence, buried.data) == (place, poison)
    assert buried.reason.startswith("Firehose refuses its 4 bytes: ValidationException: 1 validation error detected")
    assert (spool.tally.acknowledged, spool.tally.dead_lettered) == (499, 1)
    assert len(firehose.calls) <= 1 + 2 * 9


def test_a_call_that_is_too_big_for_the_service_is_made_as_two(spool, make_sender, clock):
    firehose = RecordedFirehose(Refuse("InvalidArgumentException", "Records size exceeds 4 MB limit"))
    fill(spool, b"0", b"1", b"2", b"3")
    run(make_sender(firehose), clock)
    assert [call.records for call in firehose.calls[1:]] == [(b"0", b"1"), (b"2", b"3")]
    assert spool.tally.dead_lettered == 0


def test_halves_that_passed_are_settled_when_the_other_half_meets_a_failure(spool, make_sender, clock):
    firehose = RecordedFirehose(Refuse("InvalidArgumentException", "Records size exceeds 4 MB limit"), TAKE, THROTTLE)
    fill(spool, b"0", b"1", b"2", b"3")
    run(make_sender(firehose), clock)
    assert firehose.taken == [b"0", b"1", b"2", b"3"]


@pytest.mark.parametrize(
    ("refusal", "sentence"),
    [
        (
            Refuse("ResourceNotFoundException", "Firehose s under account 000000000000 not found."),
            (
                "delivery stream s: there is none of this name; `lakehose apply` makes it (ResourceNotFoundException: "
                "Firehose s under account 000000000000 not found.); 1 events wait in {path}, none is lost"
            ),
        ),
        (
            Refuse("AccessDeniedException", "User is not authorized"),
            (
                "delivery stream s: it takes nothing, and trying again can't help: AccessDeniedException: User is not "
                "authorized; 1 events wait in {path}, none is lost"
            ),
        ),
    ],
)
def test_a_refusal_that_only_a_person_can_change_is_raised_and_the_spool_is_kept(spool, make_sender, refusal, sentence):
    sender = make_sender(RecordedFirehose(refusal))
    fill(spool, b"0")
    with pytest.raises(TerminalError) as raised:
        sender.round()
    assert str(raised.value) == sentence.format(path=spool.path)
    assert spool.tally.waiting == 1
    assert sender.round().acknowledged == 1


def test_two_calls_in_flight_send_everything_once(spool, make_sender, clock):
    firehose = RecordedFirehose(FailRecords(0), THROTTLE)
    sender = make_sender(firehose, max_in_flight=2, batch_records=50)
    fill(spool, *numbers(1000))
    run(sender, clock)
    assert sorted(firehose.taken) == numbers(1000)
    assert spool.tally.acknowledged == 1000


def test_what_was_acknowledged_on_a_full_disk_is_not_sent_again(spool, make_sender, clock):
    firehose = RecordedFirehose()
    sender = make_sender(firehose)
    fill(spool, b"0", b"1")
    settle = spool.settle

    def no_room(*_):
        raise SpoolFullError("no room")

    spool.settle = no_room
    with pytest.raises(SpoolFullError):
        sender.round()
    spool.settle = settle
    run(sender, clock)
    assert firehose.taken == [b"0", b"1"]
    assert spool.tally.acknowledged == 2
