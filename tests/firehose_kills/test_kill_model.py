"""What the campaign that kills the server looks for, it finds."""

from __future__ import annotations

import random

import pytest

from tests.firehose_kills.model import BACKUP, DESTINATION, DifferenceError, Model, Sent
from tests.firehose_kills.streams import STREAMS

ONE = Sent(b"1\n", ((DESTINATION, b"1 made\n"), (BACKUP, b"1\n")))
OTHER = Sent(b"2\n", ((DESTINATION, b"2 made\n"), (BACKUP, b"2\n")))
ALL = [("s", place, raw) for sent in (ONE, OTHER) for place, raw in sent.makes]


def model(*records, answered):
    made = Model()
    put = made.sending("s", records)
    if answered:
        made.answered(put)
    return made


def test_what_is_there_whole_and_once_is_no_difference_and_then_forgotten():
    made = model(ONE, OTHER, answered=True)
    made.compare(ALL)
    assert made.places == {("s", DESTINATION): 2, ("s", BACKUP): 2}
    made.compare([])


@pytest.mark.parametrize("found", [[], ALL])
def test_of_a_put_that_was_not_answered_all_may_be_there_or_nothing(found):
    model(ONE, OTHER, answered=False).compare(found)


@pytest.mark.parametrize(
    ("found", "answered", "difference"),
    [
        (ALL[:-1], True, "{'missing': {'s backup': 1}}"),
        ([*ALL, ALL[0]], True, "{'twice': {'s destination': 1}}"),
        ([*ALL, ("s", DESTINATION, b"3 made\n")], True, "{\"nobody's\": {'s destination': 1}}"),
        ([*ALL[:-1], ("s", "errors/x", b"2\n")], True, "{'missing': {'s backup': 1}, \"nobody's\": {'s errors/x': 1}}"),
        ([*ALL[:-1], ("s", BACKUP, b"2")], True, "{'missing': {'s backup': 1}, \"nobody's\": {'s backup': 1}}"),
        (
            [*ALL[:-1], ("other", BACKUP, b"2\n")],
            True,
            "{'missing': {'s backup': 1}, \"nobody's\": {'other backup': 1}}",
        ),
        (ALL[:-1], False, "{'in part': {'s destination': 1}}"),
        ([*ALL, ALL[0]], False, "{'twice': {'s destination': 1}}"),
    ],
)
def test_any_difference_is_told_with_its_place(found, answered, difference):
    with pytest.raises(DifferenceError) as raised:
        model(ONE, OTHER, answered=answered).compare(found)
    assert str(raised.value).endswith(f"acknowledged items: {difference}")


@pytest.mark.parametrize("stream", STREAMS, ids=lambda one: one.name)
def test_a_torn_object_is_told(stream):
    with pytest.raises(DifferenceError, match="can't be read"):
        stream.items(f"{stream.name}/destination/t=t1/x", b"torn")
    with pytest.raises(DifferenceError, match="can't be read"):
        stream.items(f"{stream.name}/errors/processing-failed/x", b'{"rawData":"YQ=="}\n{"rawD')


def test_a_record_in_another_partition_is_told():
    stream = next(one for one in STREAMS if one.name == "dp-uncompressed")
    assert stream.items("dp-uncompressed/destination/t=t1/x", b'{"tenant":"t1"}\n')
    with pytest.raises(DifferenceError, match=r"holds records of \['t2'\]"):
        stream.items("dp-uncompressed/destination/t=t1/x", b'{"tenant":"t1"}\n{"tenant":"t2"}\n')


def test_no_record_of_a_stream_is_like_another_and_all_its_places_come_up():
    draw = random.Random(1)  # noqa: S311 - repeatable
    for stream in STREAMS:
        sent = [stream.record(number, draw) for number in range(2000)]
        made = [item for one in sent for item in one.makes]
        assert len(set(made)) == len(made)
        assert {place for place, _ in made} == stream.places
