"""Records that CloudWatch Logs packed: what is in them, and what can't be unpacked."""

from __future__ import annotations

import base64
import gzip
import json
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firehose import decompression
from firehose.deaggregation import SplitJson
from firehose.decompression import CALL_BYTES, RECORD_BYTES, ControlMessages, ExtractMessages, Gunzip
from firehose.lambda_transform import LambdaTransform, invoking_client, transform
from firehose.making import Gathering
from firehose.processing import Chunk
from firehose.records import Record
from lake.clients import Cloud


def envelope(*messages, kind="DATA_MESSAGE", **changes):
    """A record as a subscription of CloudWatch Logs sends it, unpacked."""
    document = {
        "messageType": kind,
        "owner": "123456789012",
        "logGroup": "/aws/lambda/one",
        "logStream": "2026/01/31/[$LATEST]1",
        "subscriptionFilters": ["all"],
        "logEvents": [
            {"id": str(at), "timestamp": 1510109208016, "message": message} for at, message in enumerate(messages)
        ],
        **changes,
    }
    return json.dumps(document).encode()


def run(maker, *raws):
    made, failed = maker.apply([Record(raw, 5) for raw in raws], 9)
    assert {one.arrival_ms for one in (*made, *failed)} <= {5}
    return [one.raw for one in made], failed


def only_message(maker, raw):
    made, (failed,) = run(maker, raw)
    assert made == []
    assert (failed.raw, failed.ended_ms) == (raw, 9)
    assert (failed.reason.output_type, failed.reason.code) == ("decompression-failed", "Decompression failed.")
    return failed.reason.message


def test_a_record_is_unpacked():
    assert run(Gunzip(), gzip.compress(envelope("one"))) == ([envelope("one")], [])


def test_all_members_of_a_gzip_are_unpacked():
    packed = gzip.compress(b'{"a":1}\n') + gzip.compress(b'{"a":2}')
    assert run(Gunzip(), packed) == ([b'{"a":1}\n{"a":2}'], [])


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "The record is not gzip"),
        (b'{"a":1}', "The record is not gzip"),
        (zlib.compress(b'{"a":1}'), "The record is not gzip"),
        (b"\x1f\x8b", "The record is no whole gzip: it ends before its end-of-stream marker"),
        (
            gzip.compress(envelope("one"), mtime=0)[:-9],
            "The record is no whole gzip: it ends before its end-of-stream marker",
        ),
        (
            gzip.compress(b"{}", mtime=0)[:-4] + b"\1\0\0\0",
            "The record is no whole gzip: Error -3 while decompressing data",
        ),
        (gzip.compress(b"{}", mtime=0) + b"more", "The record is no whole gzip: Error -3 while decompressing data"),
        (gzip.compress(b"plain text", mtime=0), "The record is not valid JSON at character 0: Expecting value"),
        (gzip.compress(b"", mtime=0), "The record holds no JSON object"),
    ],
)
def test_what_cannot_be_unpacked_goes_to_the_errors_as_it_came(raw, message):
    assert only_message(Gunzip(), raw).startswith(message)


def test_json_that_is_not_of_cloudwatch_logs_is_unpacked_too():
    assert run(Gunzip(), gzip.compress(b'[1, "two"]')) == ([b'[1, "two"]'], [])


def bomb(size):
    """Gzipped JSON of so many bytes, made without holding it."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    parts = [packer.compress(b'{"a":"')]
    block = b"0" * (1 << 20)
    parts += [packer.compress(block[: min(len(block), size - at)]) for at in range(0, size, len(block))]
    return b"".join([*parts, packer.compress(b'"}'), packer.flush()])


def test_a_bomb_is_refused_before_it_is_unpacked():
    packed = bomb(200 << 20)
    assert len(packed) < 1_024_000
    tracemalloc.start()
    try:
        assert only_message(Gunzip(), packed) == f"The record unpacks to more than {RECORD_BYTES:,} bytes"
        assert tracemalloc.get_traced_memory()[1] < 2 * RECORD_BYTES
    finally:
        tracemalloc.stop()


def test_json_that_would_take_much_memory_to_read_is_refused():
    packed = gzip.compress(b'{"a":[' + b"[]," * 5_000_000 + b"[]]}")
    tracemalloc.start()
    try:
        assert only_message(Gunzip(), packed) == "The record holds more than 1,000,000 values"
        assert tracemalloc.get_traced_memory()[1] < 4 * RECORD_BYTES
    finally:
        tracemalloc.stop()


@pytest.mark.timeout(60)
@pytest.mark.parametrize("ending", [b'"', b"\\", b'\\"'])
def test_a_large_string_full_of_quotes_that_does_not_end_is_told_soon(ending):
    # with a look at each of its quotes, to the end each, it took the better part of an hour
    unpacked = b'{"a":"' + b'\\"' * 600_000 + ending
    assert "not valid JSON" in only_message(Gunzip(), gzip.compress(unpacked))


def test_objects_without_a_comma_are_values_too():
    assert only_message(Gunzip(), gzip.compress(b"{}" * 1_100_000)) == "The record holds more than 1,000,000 values"


@pytest.mark.timeout(60)
def test_thousands_of_empty_members_are_unpacked_soon():
    packed = gzip.compress(b"") * 50_000 + gzip.compress(b"{}")
    assert run(Gunzip(), packed) == ([b"{}"], [])


@pytest.mark.parametrize("member", ["messageType", "logEvents"])
def test_a_record_that_is_nested_too_deeply_takes_no_other_along(member):
    deep = b'{"messageType":"DATA_MESSAGE","' + member.encode() + b'":' + b"[" * 1_010 + b"]" * 1_010 + b"}"
    good = envelope("one")
    for maker in (ExtractMessages(), Gathering([ExtractMessages()])):
        if isinstance(maker, Gathering):
            (batch,) = maker.add(Chunk([good, deep, good], range(3), 5), 9)
            made, failed = [one.raw for one in batch.records], batch.failed
        else:
            made, failed = run(maker, good, deep, good)
        assert made == [b"one\n", b"one\n"]
        assert [one.raw for one in failed] == [deep]
        assert failed[0].reason.code == "Decompression failed."


def test_a_large_record_of_long_messages_is_taken():
    large = envelope(*[f'{at}, {{"a": [1, 2, 3]}}, ' + "x, " * 100 for at in range(20_000)])
    assert 7_000_000 < len(large) < RECORD_BYTES
    assert run(Gunzip(), gzip.compress(large)) == ([large], [])


def test_many_small_bombs_in_one_put_are_refused_from_where_they_are_too_much():
    packed = bomb(RECORD_BYTES - 8)
    made, failed = run(Gunzip(), *[packed] * 20)
    assert len(made) == CALL_BYTES // RECORD_BYTES
    assert {one.reason.message for one in failed} == {"The records of one put unpack to more than 268,435,456 bytes"}
    assert len(failed) == 20 - len(made)


def test_the_messages_of_a_record_become_one_record_with_a_newline_behind_each():
    assert run(ExtractMessages(), envelope("one", "", "two\n", "drei: ü")) == (
        [b"one\n\ntwo\n\ndrei: \xc3\xbc\n"],
        [],
    )


def test_messages_of_several_records_in_one_gzip_are_all_taken():
    unpacked, _ = run(Gunzip(), gzip.compress(envelope("one")) + gzip.compress(envelope("two")))
    assert run(ExtractMessages(), *unpacked) == ([b"one\ntwo\n"], [])


def test_a_control_message_is_dropped():
    control = envelope("CWL CONTROL MESSAGE: Checking health of destination Firehose.", kind="CONTROL_MESSAGE")
    assert run(ExtractMessages(), control, envelope("one")) == ([b"one\n"], [])


def test_a_control_message_is_an_empty_record_where_that_is_wanted(monkeypatch):
    monkeypatch.setattr(decompression, "CONTROL_MESSAGES", ControlMessages.EMPTY)
    assert run(ExtractMessages(), envelope("x", kind="CONTROL_MESSAGE")) == ([b""], [])


def test_a_record_without_log_events_is_no_record():
    assert run(ExtractMessages(), envelope()) == ([], [])


def test_half_of_a_character_becomes_a_question_mark():
    assert run(ExtractMessages(), envelope("cut \ud83d")) == ([b"cut ?\n"], [])


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b'{"a":1}', "messageType: got nothing, allowed are DATA_MESSAGE and CONTROL_MESSAGE"),
        (envelope(kind="OTHER"), "messageType: got 'OTHER', allowed are DATA_MESSAGE and CONTROL_MESSAGE"),
        (envelope(logEvents={"a": 1}), "logEvents: got \"{'a': 1}\", allowed is a list"),
        (envelope("one", 2), "logEvents[1].message: got '2', allowed is a string"),
        (envelope(logEvents=["one"]), "logEvents[0].message: got nothing, allowed is a string"),
        (b"[]", "The record holds an array at character 0: allowed are JSON objects"),
        (b"\x1f\x8b", "The record is not valid UTF-8 at byte 1"),
    ],
)
def test_what_is_not_of_cloudwatch_logs_goes_to_the_errors(raw, message):
    assert only_message(ExtractMessages(), raw) == message


def test_without_message_extraction_records_go_on_as_they_are():
    assert run(ExtractMessages(enabled=False), envelope("one"), b"any") == ([envelope("one"), b"any"], [])


@given(st.lists(st.text(st.characters(codec="utf-8")), min_size=1, max_size=5))
def test_whatever_is_logged_comes_out(messages):
    unpacked, _ = run(Gunzip(), gzip.compress(envelope(*messages)))
    assert run(ExtractMessages(), *unpacked) == (["".join(f"{one}\n" for one in messages).encode()], [])


@given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 255))
def test_whatever_comes_is_unpacked_or_told_to_be_broken(content, at, byte):
    packed = bytearray(gzip.compress(json.dumps(content.hex()).encode()))
    packed[at % len(packed)] = byte
    made, failed = run(Gunzip(), bytes(packed), content)
    assert len(made) + len(failed) == 2


def test_what_fails_later_is_stored_as_it_came():
    packed = gzip.compress(b'{"a":1}')
    unpacked, _ = Gunzip().apply([Record(packed, 5)], 9)
    _, (failed,) = ExtractMessages().apply(unpacked, 9)
    assert failed.raw == packed
    packed = gzip.compress(envelope("one", "{}"))
    extracted, _ = ExtractMessages().apply(Gunzip().apply([Record(packed, 5)], 9)[0], 9)
    _, (failed,) = SplitJson().apply(extracted, 9)
    assert failed.raw == packed
    # a function that can't be reached
    nowhere = LambdaTransform("arn:aws:lambda:us-east-1:123456789012:function:f", retries=0)
    client = invoking_client(Cloud("us-east-1", "http://127.0.0.1:9"), 1)
    stream = "arn:aws:firehose:us-east-1:123456789012:deliverystream/s"
    _, (failed,) = transform(nowhere, client, stream, extracted)
    assert failed.raw == packed


def test_a_record_taken_out_of_others_is_stored_by_itself():
    unpacked, _ = Gunzip().apply([Record(gzip.compress(b'{"a":1}{"a":2}'), 5)], 9)
    made, _ = SplitJson().apply(unpacked, 9)
    assert [one.kept for one in made] == [b'{"a":1}', b'{"a":2}']


def gzipped_logs(*messages):
    return gzip.compress(envelope(*messages))


def test_logs_reach_s3_as_lines_and_what_is_broken_as_it_came(server, bucket):
    def processor(kind, **parameters):
        given = [{"ParameterName": name, "ParameterValue": value} for name, value in parameters.items()]
        return {"Type": kind, "Parameters": given}

    destination = bucket.plain(
        ErrorOutputPrefix="errors/!{firehose:error-output-type}/",
        ProcessingConfiguration={
            "Enabled": True,
            "Processors": [
                processor("Decompression", CompressionFormat="GZIP"),
                processor("CloudWatchLogProcessing", DataMessageExtraction="true"),
            ],
        },
    )
    server.create("logs", destination)
    strange = gzip.compress(b'{"no":"logs"}')
    control = gzip.compress(envelope("CWL CONTROL MESSAGE", kind="CONTROL_MESSAGE"))
    server.batch("logs", [gzipped_logs("one", "two"), control, b"not packed", strange, gzipped_logs("three")])
    server.flush("logs")
    (key,) = bucket.objects("raw/")
    assert bucket.body(key) == b"one\ntwo\nthree\n"
    (errors,) = bucket.objects("errors/decompression-failed/")
    failed = [json.loads(line) for line in bucket.body(errors).splitlines()]
    assert [base64.b64decode(one["rawData"]) for one in failed] == [b"not packed", strange]
    assert {(one["errorCode"], one["attemptsMade"]) for one in failed} == {("Decompression failed.", 1)}
    assert server.status()["pendingRecords"] == 0
