"""Whose record is it: lines of JSON, Firehose's error records, rows of CSV, and what is none of them."""

import base64
import json

import pytest

from lake.erasure import Key
from spark_jobs.erase_match import Matcher, cut_csv, cut_lines, holds_bytes

USER = Matcher((Key("user_id", "u-42"),), "solo")
NUMBER = Matcher((Key("user_id", "42"),), "solo")
MAIL = Matcher((Key("contact.email", "zoë@x.org"),), "solo")


def event(payload, **envelope):
    return json.dumps({"event_id": "e", "tenant": "solo", **envelope, "payload": payload}).encode()


@pytest.mark.parametrize(
    ("matcher", "raw", "expected"),
    [
        (USER, event({"user_id": "u-42"}), True),
        (USER, event({"user_id": "u-421"}), False),
        (USER, event({"user_id": "U-42"}), False),
        (USER, event({"user_id": None, "page": "u-42"}), False),
        (USER, event({"friend": {"user_id": "u-42"}}), False),
        (USER, b'{"user_id":"u-42","page":"/"}', True),
        (USER, b'{"payload":{"user_id":"\\u0075-42"}}', True),
        (USER, b'{"payload":{"\\u0075ser_id":"u-42"}}', True),
        (USER, b'{"payload":{"user_id":"u-42","user_id":"u-7"}}', True),
        (USER, b'{"payload":{"user_id":"u-7"},"payload":{"user_id":"u-42"}}', True),
        (USER, b'[{"user_id":"u-42"}]', False),
        (USER, b'{"payload":{"page":"/","user_id":"u-42', True),
        (USER, b'{"payload":{"page":"/","user_id":"u-4', False),
        (USER, b'{"payload":{"user_id": "u-42"} trailing', True),
        (USER, b'{"payload":{"user_id":["u-1","u-42"]}}', True),
        (USER, b"\xff\xfe user_id", False),
        (NUMBER, event({"user_id": 42}), True),
        (NUMBER, event({"user_id": "42"}), True),
        (NUMBER, event({"user_id": 42.0}), True),
        (NUMBER, event({"user_id": 420}), False),
        (NUMBER, event({"user_id": True}), False),
        (NUMBER, b'{"payload":{"user_id":42', True),
        (NUMBER, b'{"payload":{"user_id":421', False),
        (NUMBER, b'{"payload":{"user_id":99999999999999999999999}}', False),
        (MAIL, event({"contact": {"email": "zoë@x.org"}}), True),
        (MAIL, json.dumps({"payload": {"contact": {"email": "zoë@x.org"}}}, ensure_ascii=False).encode(), True),
        (MAIL, event({"contact": [{"email": "a"}, {"email": "zoë@x.org"}]}), True),
        (MAIL, event({"email": "zoë@x.org"}), False),
    ],
)
def test_a_record_is_the_subjects_if_it_holds_the_key_where_the_contract_has_it(matcher, raw, expected):
    assert matcher.is_subjects(raw) is expected


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        ({"tenant": "ann"}, True),
        ({"tenant": "bob"}, False),
        ({"tenant": None, "producer_id": "ann-phone"}, True),
        ({"tenant": None, "producer_id": "bob-phone"}, False),
        ({"tenant": None, "producer_id": "nobodys"}, True),
    ],
)
def test_where_tenants_share_a_place_another_tenants_record_is_left_alone(record, expected):
    producers = {"ann-phone": "ann", "bob-phone": "bob"}
    matcher = Matcher((Key("user_id", "u-42"),), "ann", shared=True, producers=producers)
    assert matcher.is_subjects(event({"user_id": "u-42"}, **record)) is expected


def test_fields_that_the_contract_did_not_know_are_searched_by_their_paths():
    assert USER.is_in_rescued('{"user_id":"u-42"}')
    assert not USER.is_in_rescued('{"other":"u-42"}')
    assert not USER.is_in_rescued(None)
    assert MAIL.is_in_rescued('{"contact":{"email":"zoë@x.org"}}')
    assert MAIL.is_in_rescued('{"contact.email":"zoë@x.org"}')


def test_a_line_that_goes_leaves_an_empty_one_and_the_others_their_bytes_and_places():
    first, last = event({"user_id": "u-1"}), b'  {bad "user_id" '
    mine = event({"user_id": "u-42"}, producer_id="p", sequence=7)
    cut = cut_lines(b"\n".join((first, mine, last, b"")), USER)
    assert cut.body.split(b"\n") == [first, b"", last, b""]
    assert [(who.event_id, who.producer_id, who.sequence) for who in cut.identities] == [("e", "p", 7)]


def test_an_error_record_is_judged_by_what_it_carries():
    def wrapped(raw):
        return json.dumps({"errorCode": "x", "rawData": base64.b64encode(raw).decode()}).encode()

    body = b"\n".join((wrapped(event({"user_id": "u-42"})), wrapped(event({"user_id": "u-1"})), b"{broken", b""))
    cut = cut_lines(body, USER, errors=True)
    assert cut.records == 1
    assert cut.body.split(b"\n")[0] == b""
    assert cut.body.split(b"\n")[1:] == body.split(b"\n")[1:]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_rows_of_csv_go_and_every_other_keeps_its_bytes(delimiter):
    rows = [
        "\ufeffuser_id,page\r\n",
        'u-1,"a\nu-42"\r\n',
        'u-42,"x\r\ny"\r\n',
        '"u-42",\r\n',
        "u-421,u-42\r\n",
        'u-7,"""',
    ]
    body = [row.replace(",", delimiter).encode() for row in rows]
    cut = cut_csv(b"".join(body), USER)
    assert cut.records == 2
    assert cut.body == body[0] + body[1] + body[4] + body[5]


def test_csv_without_the_field_is_not_judged():
    assert cut_csv(b"a,b\nu-42,1\n", USER) is None
    assert cut_csv(b"", USER) is None


def test_bytes_hold_a_value_as_it_is_or_escaped():
    assert holds_bytes(MAIL.keys, "x zoë@x.org".encode())
    assert holds_bytes(MAIL.keys, b'"zo\\u00eb@x.org"')
    assert not holds_bytes(MAIL.keys, b"zoe@x.org")
