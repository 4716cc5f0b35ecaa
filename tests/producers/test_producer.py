from __future__ import annotations

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from botocore.exceptions import EndpointConnectionError

from lake.errors import TerminalError, TransientError
from lake.manifest import ProducerLedger
from lake.ranges import Ranges
from producers import NewEvent, SendOptions, SpoolError, SpoolFullError
from producers.testing import TAKE, THROTTLE, FailRecords, RecordedFirehose, Refuse

MOMENT = datetime(2026, 1, 31, 12, 0, tzinfo=UTC)


def test_a_sent_event_arrives_with_its_envelope(make_producer):
    firehose = RecordedFirehose()
    producer = make_producer(firehose, ids=lambda: "0198f2f0-0000-7000-8000-000000000001")
    event = producer.send({"carrier": "UA"}, MOMENT)
    producer.flush()
    assert firehose.calls[0].stream == "acme-test-flights-ewr"
    assert firehose.taken == [
        (
            b'{"event_id":"0198f2f0-0000-7000-8000-000000000001","tenant":"ewr","dataset":"flights",'
            b'"event_time":"2026-01-31T12:00:00.000Z","producer_id":"site-1","sequence":0,"schema_version":"1.0.0",'
            b'"payload":{"carrier":"UA"}}'
        )
    ]
    assert (event.event_id, event.sequence) == ("0198f2f0-0000-7000-8000-000000000001", 0)


def test_nothing_is_sent_before_it_is_asked_for(make_producer):
    firehose = RecordedFirehose()
    make_producer(firehose).send({}, MOMENT)
    assert firehose.calls == []


def test_many_events_are_taken_in_any_form_and_in_order(make_producer):
    firehose = RecordedFirehose()
    producer = make_producer(firehose)
    count = producer.send_many(
        [NewEvent({"n": 0}, MOMENT), ({"n": 1}, MOMENT), ({"n": 2}, MOMENT, "own-id"), NewEvent({"n": 3}, MOMENT, "x")]
    )
    producer.flush()
    assert count == 4
    assert [(one["sequence"], one["payload"]["n"]) for one in firehose.events()] == [(0, 0), (1, 1), (2, 2), (3, 3)]
    assert [one["event_id"] for one in firehose.events()][2:] == ["own-id", "x"]


def test_many_events_may_come_from_a_generator_of_any_length(make_producer):
    firehose = RecordedFirehose()
    producer = make_producer(firehose)
    assert producer.send_many(({"n": n}, MOMENT) for n in range(5001)) == 5001
    assert producer.next_sequence == 5001
    producer.flush()
    assert sorted(one["sequence"] for one in firehose.events()) == list(range(5001))


def test_a_generator_that_breaks_leaves_whole_groups_and_no_gap(make_producer):
    def breaks():
        for n in range(3000):
            yield ({"n": n}, MOMENT)
        raise RuntimeError("the source broke")

    producer = make_producer(RecordedFirehose())
    with pytest.raises(RuntimeError, match="the source broke"):
        producer.send_many(breaks())
    assert producer.next_sequence == 2000
    assert producer.send({}, MOMENT).sequence == 2000


def test_threads_that_send_at_once_leave_no_gap(make_producer):
    firehose = RecordedFirehose()
    producer = make_producer(firehose)
    threads = [
        threading.Thread(target=lambda: [producer.send({}, MOMENT) for _ in range(50)]),
        threading.Thread(target=lambda: producer.send_many([({}, MOMENT)] * 50)),
        threading.Thread(target=lambda: [producer.pump() for _ in range(20)]),
        threading.Thread(target=lambda: [producer.send({}, MOMENT) for _ in range(50)]),
    ]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    producer.flush()
    assert sorted(one["sequence"] for one in firehose.events()) == list(range(150))
    assert len({one["event_id"] for one in firehose.events()}) == 150


def test_a_record_of_1024000_bytes_is_sent_and_one_byte_more_is_a_dead_letter(make_producer):
    firehose = RecordedFirehose()
    producer = make_producer(firehose)
    around = len(producer.send({"text": ""}, MOMENT).encode())
    producer.send({"text": "x" * (1_024_000 - around)}, MOMENT)
    producer.send({"text": "x" * (1_024_000 - around + 1)}, MOMENT)
    producer.send({"text": "after"}, MOMENT)
    producer.flush()
    assert [len(data) for data in firehose.taken[1:2]] == [1_024_000]
    assert [one["sequence"] for one in firehose.events()] == [0, 1, 3]
    (buried,) = producer.dead_letters()
    assert (buried.sequence, len(buried.data)) == (2, 1_024_001)
    assert buried.reason == "encoded it has 1,024,001 bytes; a record may have 1,024,000"


def test_an_event_that_cannot_be_encoded_is_kept_with_the_reason_and_the_rest_goes_on(make_producer):
    firehose = RecordedFirehose()
    producer = make_producer(firehose)
    producer.send_many([({"n": 0}, MOMENT), ({"n": {1, 2}}, MOMENT), ({"n": 2}, MOMENT)])
    producer.flush()
    assert [one["sequence"] for one in firehose.events()] == [0, 2]
    (buried,) = producer.dead_letters()
    assert (buried.sequence, buried.reason) == (
        1,
        "can't be encoded: TypeError: Type is not JSON serializable: set",
    )
    assert b'"payload":{"n":"{1, 2}"}' in buried.data
    assert producer.ledger().dead_letters == Ranges(((1, 1),))


def test_an_event_that_is_nested_deeper_than_python_goes_is_told_and_the_rest_goes_on(make_producer):
    firehose = RecordedFirehose()
    producer = make_producer(firehose)
    deep = []
    for _ in range(100_000):
        deep = [deep]
    producer.send_many([({"n": 0}, MOMENT), ({"n": 1, "deep": deep}, MOMENT), ({"n": 2}, MOMENT)])
    producer.flush()
    assert [one["sequence"] for one in firehose.events()] == [0, 2]
    (buried,) = producer.dead_letters()
    assert b"nested too deep to be kept, with the keys ['n', 'deep']" in buried.data


def test_an_encoder_of_ones_own_is_used_and_what_it_gives_is_checked(make_producer):
    firehose = RecordedFirehose()
    producer = make_producer(
        firehose, encode=lambda event: b"line %d" % event.sequence if event.sequence != 1 else "a string"
    )
    producer.send_many([({}, MOMENT)] * 3)
    producer.flush()
    assert firehose.taken == [b"line 0", b"line 2"]
    assert [one.reason for one in producer.dead_letters()] == ["can't be encoded: encode gave str"]


def test_an_event_time_without_a_time_zone_is_refused(make_producer):
    producer = make_producer(RecordedFirehose())
    with pytest.raises(ValueError, match="event time 2026-01-31T12:00:00 has no time zone"):
        producer.send({}, datetime(2026, 1, 31, 12))  # noqa: DTZ001
    assert producer.next_sequence == 0


@pytest.mark.parametrize("bad", ["", 'a"b', "a\\b", "a b", "ä", "x" * 257])
def test_an_event_id_that_could_not_be_read_back_is_refused(make_producer, bad):
    producer = make_producer(RecordedFirehose())
    with pytest.raises(ValueError, match="event id: got"):
        producer.send({}, MOMENT, event_id=bad)
    assert producer.next_sequence == 0


def test_flush_sends_again_until_all_is_acknowledged(make_producer, clock):
    firehose = RecordedFirehose(FailRecords(0), THROTTLE, THROTTLE)
    producer = make_producer(firehose)
    producer.send_many([({"n": n}, MOMENT) for n in range(3)])
    producer.flush()
    assert [len(call.records) for call in firehose.calls] == [3, 1, 1, 1]
    assert clock.slept == pytest.approx([0.05, 0.05, 0.1])


def test_flush_gives_up_at_its_deadline_and_tells_how_many_wait_and_why(make_producer, clock, tmp_path):
    producer = make_producer(RecordedFirehose(*[THROTTLE] * 1000))
    producer.send_many([({"n": n}, MOMENT) for n in range(1234)])
    with pytest.raises(TransientError) as raised:
        producer.flush(timeout=30)
    assert str(raised.value) == (
        "delivery stream acme-test-flights-ewr: after 30 s 1,234 events still wait in "
        f"{tmp_path}/spool/ewr.flights.site-1.spool, none is lost; they are sent with the next flush or start. What it "
        "said last: ServiceUnavailableException: Slow down."
    )
    assert clock.monotonic() == pytest.approx(30)


def test_flush_of_a_stream_that_is_not_there_says_so_at_once(make_producer, clock):
    producer = make_producer(RecordedFirehose(streams={"another"}))
    producer.send({}, MOMENT)
    with pytest.raises(TerminalError, match="delivery stream acme-test-flights-ewr: there is none of this name"):
        producer.flush()
    assert clock.slept == []
    assert producer.status().waiting == 1


def test_pump_sends_what_it_can_and_does_not_wait(make_producer, clock):
    firehose = RecordedFirehose(FailRecords(1), TAKE, THROTTLE)
    producer = make_producer(firehose, options=SendOptions(batch_records=2, max_in_flight=1))
    producer.send_many([({"n": n}, MOMENT) for n in range(4)])
    assert producer.pump() == 3
    clock.advance(60)
    assert producer.pump() == 0
    assert clock.slept == []
    clock.advance(60)
    assert producer.pump() == 1


def test_shipped_up_to_is_the_last_number_before_the_first_that_waits(make_producer):
    producer = make_producer(RecordedFirehose(FailRecords(2)))
    assert producer.shipped_up_to == -1
    producer.send_many([({"n": n}, MOMENT) for n in range(5)])
    assert producer.shipped_up_to == -1
    producer.pump()
    assert producer.shipped_up_to == 1
    producer.flush()
    assert producer.shipped_up_to == 4


def test_the_ledger_is_reported_after_flush_and_at_close_when_it_has_changed(make_producer):
    reported = []
    producer = make_producer(RecordedFirehose(), ledger_to=reported.append)
    producer.send_many([({"n": n}, MOMENT) for n in range(3)])
    producer.send({"n": {1}}, MOMENT)
    producer.flush()
    expected = ProducerLedger("ewr", "flights", "site-1", 4, 3, 1, 1769860800000, Ranges(((3, 3),)))
    assert [replace(one, days={}) for one in reported] == [expected]
    # all of now, or, at midnight, of two days
    assert Ranges.of(span for one in reported[0].days.values() for span in one.spans) == Ranges(((0, 3),))
    producer.flush()
    producer.close()
    assert len(reported) == 1


def test_the_ledger_at_close_counts_what_waits(make_producer):
    reported = []
    producer = make_producer(RecordedFirehose(), ledger_to=reported.append)
    producer.send({}, MOMENT)
    producer.close()
    assert [(one.sent, one.acknowledged, one.dead_lettered) for one in reported] == [(1, 0, 0)]


def test_leaving_the_context_flushes(make_producer):
    firehose = RecordedFirehose()
    with make_producer(firehose) as producer:
        producer.send({"n": 1}, MOMENT)
    assert len(firehose.taken) == 1


def test_leaving_the_context_by_an_error_sends_nothing_and_hides_nothing(make_producer):
    firehose = RecordedFirehose()

    def unreachable(_):
        raise EndpointConnectionError(endpoint_url="http://dynamodb")

    def leave_by_an_error():
        with make_producer(firehose, ledger_to=unreachable) as producer:
            producer.send({}, MOMENT)
            raise RuntimeError("of the application")

    with pytest.raises(RuntimeError, match="of the application"):
        leave_by_an_error()
    assert firehose.calls == []
    assert make_producer(firehose).status().waiting == 1


def test_a_ledger_that_cannot_be_reported_is_an_error_and_the_spool_is_closed_all_the_same(make_producer):
    def unreachable(_):
        raise EndpointConnectionError(endpoint_url="http://dynamodb")

    producer = make_producer(RecordedFirehose(), ledger_to=unreachable)
    producer.send({}, MOMENT)
    with pytest.raises(EndpointConnectionError):
        producer.close()
    assert make_producer(RecordedFirehose()).next_sequence == 1


def test_what_waited_is_sent_after_a_restart_with_the_same_bytes(make_producer):
    firehose = RecordedFirehose(FailRecords(1))
    first = make_producer(firehose)
    first.send_many([({"n": n}, MOMENT) for n in range(3)])
    first.pump()
    first.close()
    second = make_producer(firehose)
    assert second.next_sequence == 3
    second.send({"n": 3}, MOMENT)
    second.flush()
    assert firehose.taken[2] == firehose.calls[0].records[1]
    assert [one["sequence"] for one in firehose.events()] == [0, 2, 1, 3]


def test_two_producers_of_a_tenant_have_spools_of_their_own(make_producer):
    firehose = RecordedFirehose()
    one, other = make_producer(firehose), make_producer(firehose, producer_id="site-2")
    assert (one.send({}, MOMENT).sequence, other.send({}, MOMENT).sequence) == (0, 0)


def test_a_second_producer_of_the_same_id_is_refused(make_producer):
    make_producer(RecordedFirehose())
    with pytest.raises(SpoolError, match="a spool has one owner at a time"):
        make_producer(RecordedFirehose())


def test_back_pressure_refuses_events_until_some_are_sent(make_producer):
    firehose = RecordedFirehose()
    producer = make_producer(firehose, options=SendOptions(record_bytes=1000, spool_max_bytes=1000))
    producer.send({"text": "x" * 700}, MOMENT)
    with pytest.raises(SpoolFullError, match="its limit is 1,000 bytes: the event was not taken, nothing is lost"):
        producer.send({"text": "x" * 700}, MOMENT)
    producer.flush()
    assert producer.send({"text": "x" * 700}, MOMENT).sequence == 1


def test_status_tells_what_waits_since_when_and_what_is_in_the_way(make_producer, clock):
    producer = make_producer(RecordedFirehose(THROTTLE))
    producer.send_many([({"n": n}, MOMENT) for n in range(2)])
    clock.advance(90)
    producer.pump()
    found = producer.status()
    assert (found.waiting, found.oldest_seconds, found.not_taken) == (2, 90.0, 2)
    assert found.trouble == "ServiceUnavailableException: Slow down."
    producer.flush()
    assert (producer.status().waiting, producer.status().trouble) == (0, "")


def wait_for(condition, seconds=10):
    waiting = threading.Event()
    for _ in range(int(seconds / 0.01)):
        if condition():
            return
        waiting.wait(0.01)
    raise AssertionError(f"not within {seconds} s")


def test_the_background_sender_sends_without_a_flush(make_producer):
    firehose = RecordedFirehose(THROTTLE, FailRecords(0))
    producer = make_producer(firehose, clock=None, options=SendOptions(linger=0.01, backoff_base=0.01))
    producer.start()
    producer.start()
    producer.send_many([({"n": n}, MOMENT) for n in range(10)])
    wait_for(lambda: len(firehose.taken) == 10)
    producer.send({"n": 10}, MOMENT)
    wait_for(lambda: producer.status().waiting == 0)
    producer.close()
    assert sorted(one["sequence"] for one in firehose.events()) == list(range(11))


def test_the_background_sender_outlives_a_refusal_and_tells_it(make_producer):
    firehose = RecordedFirehose(Refuse("AccessDeniedException", "not authorized"))
    producer = make_producer(firehose, clock=None, options=SendOptions(linger=0.0, backoff_base=0.2, backoff_cap=0.2))
    producer.start()
    producer.send({}, MOMENT)
    wait_for(lambda: "AccessDeniedException: not authorized" in producer.status().trouble)
    wait_for(lambda: len(firehose.taken) == 1)
    wait_for(lambda: not producer.status().trouble)


def test_flush_beside_the_background_sender_sends_everything_once(make_producer):
    firehose = RecordedFirehose()
    producer = make_producer(firehose, clock=None)
    producer.start()
    producer.send_many([({"n": n}, MOMENT) for n in range(3000)])
    producer.flush()
    assert sorted(one["sequence"] for one in firehose.events()) == list(range(3000))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"batch_records": 501}, "producer option batch_records: got 501, allowed are 1 to 500"),
        ({"record_bytes": 1_024_001}, "producer option record_bytes: got 1024001, allowed are 1 to 1024000"),
        ({"max_in_flight": 0}, "producer option max_in_flight: got 0, allowed are 1 to 64"),
        ({"spool_max_bytes": 5}, "producer option spool_max_bytes: got 5, allowed are 1024000 to 1125899906842624"),
    ],
)
def test_an_option_that_is_not_allowed_names_itself(options, sentence):
    with pytest.raises(TerminalError) as raised:
        SendOptions(**options)
    assert str(raised.value) == sentence


def test_the_time_spooled_is_the_clocks(make_producer, clock):
    producer = make_producer(RecordedFirehose())
    producer.send({}, MOMENT - timedelta(days=400))
    assert producer.status().oldest_seconds == 0.0
