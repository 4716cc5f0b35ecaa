"""Error records, Firehose's and ours."""

import json

import pytest

from lake.envelope import Identity
from lake.error_record import ErrorRecord


def firehose(**changes):
    record = {
        "attemptsMade": 1,
        "arrivalTimestamp": 1357034400000,
        "errorCode": "DynamicPartitioning.MetadataExtractionFailed",
        "errorMessage": "partition keys can't be read",
        "attemptEndingTimestamp": 1357034460000,
        "rawData": "eyJwcm9kdWNlcl9pZCI6InZhbiIsInNlcXVlbmNlIjo3fQ==",
    }
    return json.dumps({key: value for key, value in {**record, **changes}.items() if value is not ...}).encode()


def test_a_record_is_read_as_it_was_written():
    record = ErrorRecord(
        "malformed_csv",
        "a quote is opened",
        b'a,"\xff',
        Identity(tenant="acme", producer_id="file-1", sequence=3),
        1357034400000,
        "files",
    )
    line = record.encode()
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    assert ErrorRecord.parse(line) == record


def test_of_a_record_of_firehose_the_identity_is_read_from_what_was_received():
    assert ErrorRecord.parse(firehose()) == ErrorRecord(
        "DynamicPartitioning.MetadataExtractionFailed",
        "partition keys can't be read",
        b'{"producer_id":"van","sequence":7}',
        Identity(producer_id="van", sequence=7),
        1357034400000,
    )


def test_an_identity_that_is_told_is_not_looked_for_in_what_was_received():
    told = ErrorRecord.parse(firehose(identity={"tenant": "acme", "sequence": -1, "producer_id": 7}))
    assert told.identity == Identity(tenant="acme")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"oops", "unexpected character"),
        (b"[]", "it is JSON, but no object"),
        (firehose(errorCode=...), "errorCode: got None, allowed is a string"),
        (firehose(errorMessage=5), "errorMessage: got 5, allowed is a string"),
        (firehose(rawData="*"), "rawData: "),
        (firehose(rawData="é"), "ASCII"),
    ],
)
def test_a_line_that_is_none_says_why(line, told):
    with pytest.raises(ValueError, match=told):
        ErrorRecord.parse(line)


def test_a_code_that_is_nested_too_deeply_to_be_written_is_told():
    with pytest.raises(ValueError, match="errorCode: got a list, allowed is a string"):
        ErrorRecord.parse(b'{"errorCode":' + b"[" * 1_000 + b"]" * 1_000 + b"}")
