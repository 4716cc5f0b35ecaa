"""Bodies of PutRecordBatch as SDKs write them: read without a parser, and never otherwise than a parser reads them."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode

import boto3
import pytest
from botocore.awsrequest import AWSResponse
from hypothesis import example, given, settings
from hypothesis import strategies as st

from firehose.put_bodies import read_batch

SPELLINGS = {"Python": (", ", ": "), "others": (",", ":")}


def body_of(name, data, spelling="others", *, name_last=False):
    records = [{"Data": b64encode(one).decode()} for one in data]
    made = {"DeliveryStreamName": name, "Records": records}
    if name_last:
        made = dict(reversed(made.items()))
    return json.dumps(made, separators=SPELLINGS[spelling]).encode()


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("name_last", [False, True])
@given(data=st.lists(st.binary(max_size=40), min_size=1, max_size=5))
def test_what_sdks_write_is_read_without_a_parser(spelling, name_last, data):
    assert read_batch(body_of("a-stream.1", data, spelling, name_last=name_last)) == ("a-stream.1", data)


class Empty:
    def stream(self):
        return iter([b'{"FailedPutCount":0,"RequestResponses":[]}'])


@pytest.mark.parametrize("members", [("DeliveryStreamName", "Records"), ("Records", "DeliveryStreamName")])
def test_what_boto3_sends_is_read_without_a_parser(members):
    given = {"DeliveryStreamName": "s", "Records": [{"Data": b"x"}, {"Data": b"\xff\xff\xfe"}]}
    keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
    firehose = boto3.client("firehose", endpoint_url="http://127.0.0.1:9", **keys)
    sent = []

    def answer(request, **_):
        sent.append(request.body)
        return AWSResponse(request.url, 200, {}, Empty())

    firehose.meta.events.register("before-send.firehose.PutRecordBatch", answer)
    firehose.put_record_batch(**{name: given[name] for name in members})
    assert read_batch(sent[0]) == ("s", [b"x", b"\xff\xff\xfe"])


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b'{"DeliveryStreamName":"s","Records":[]}',
        b'{"DeliveryStreamName":"s","Records":[{"Data":"eA=="}]} ',
        b'{"DeliveryStreamName":"s","Records":[{"Data":"eA=="},{"Data":"eA="}]}',
        b'{"DeliveryStreamName":"s","Records":[{"Data":"eA=="}, {"Data": "eA=="}]}',
        b'{"DeliveryStreamName":"s","Records":[{"Data":"eA==","Data":"eA=="}]}',
        b'{"DeliveryStreamName":"s","Records":[{"Data":"eA\\u003d="}]}',
        b'{"DeliveryStreamName":"s","Records":[{"Data":"\\/\\/\\/\\/"}]}',
        b'{"DeliveryStreamName":"s","Records":[{"Data":"eA=="}],"DeliveryStreamName":"t"}',
        b'{"Records":[{"Data":"eA=="}]}',
        b'{"DeliveryStreamName":"","Records":[{"Data":"eA=="}]}',
        b'{"DeliveryStreamName":"s","Records":[{"Data":"eA=="}],"More":1}',
        b'{"DeliveryStreamName":"s","More":1,"Records":[{"Data":"eA=="}]}',
        b'{"DeliveryStreamName":"s","Records":[{"Data":"}]}',
        b'{"DeliveryStreamName":"s","Records":[{"Data":"eA=="},{"Data":"}]}',
        b'{"DeliveryStreamName":"s","Records":[{"Data":"},{"Data":"eA=="}]}',
        b'{"DeliveryStreamName": "s", "Records": [{"Data": "}, {"Data": "}]}',
        b'{"DeliveryStreamName":"s","Records":[{"Data":"eA==\n"}]}',
    ],
)
def test_all_else_is_left_to_the_parser(body):
    assert read_batch(body) is None


PIECES = st.sampled_from([b'"', b"\\", b",", b":", b"{", b"}", b"[", b"]", b" ", b"=", b"A", b"\n", b"\xff", b"\x00"])
PIECES |= st.sampled_from([b'"},{"Data":"', b'"}, {"Data": "', b'"}]', b'"}]}', b'{"Data":"', b'"Records":[', b"null"])


@st.composite
def bent(draw):
    data = draw(st.lists(st.binary(max_size=6), max_size=4))
    whole = body_of("s", data, draw(st.sampled_from(sorted(SPELLINGS))), name_last=draw(st.booleans()))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(whole)))
        whole = whole[:at] + draw(PIECES) + whole[at + draw(st.integers(0, 3)) :]
    return whole


@settings(max_examples=2_000)
@given(body=bent())
@example(b'{"DeliveryStreamName":"s","Records":[{"Data":"AAnull=="}]}')  # its last sign has bits that count for nothing
def test_what_is_read_is_what_a_parser_reads(body):
    read = read_batch(body)
    if read is not None:
        name, data = read
        parsed = json.loads(body)
        assert parsed == {"DeliveryStreamName": name, "Records": [{"Data": one["Data"]} for one in parsed["Records"]]}
        assert data == [b64decode(one["Data"], validate=True) for one in parsed["Records"]]
