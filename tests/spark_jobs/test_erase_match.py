"""Whose record is it: lines of JSON, Firehose's error records, and what is none of them."""

import base64
import gzip
import json
import time
from dataclasses import replace

import pytest

from lake.drops import Drop
from lake.envelope import Identity
from lake.erasure import Key
from lake.error_record import FILES_STAGE, ErrorRecord
from spark_jobs.erase_lines import cut_lines, side_by_side
from spark_jobs.erase_match import Matcher
from spark_jobs.erase_values import holds_bytes

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
        (USER, b'{"payload":{"user_id":"u-42"},"payload":{}}', True),
        (USER, b'[{"user_id":"u-42"}]', True),
        (USER, b'[{"payload":{"user_id":"u-7"}},[{"payload":{"user_id":"u-42"}}]]', True),
        (USER, b'[{"page":"u-42","user_id":"u-7"}, "u-42"]', False),
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
        (MAIL, '{"payload":{"contact":{"email":"zoë@x.org"},"contact":{}}}'.encode(), True),
        (MAIL, b'{"payload":{"contact":{"email":"zo\\u00EB@x.org","pa', True),
        (MAIL, b'{"payload":{"contact":{"email":"zo\\u00eB@x.org","pa', True),
        (MAIL, b'{"payload":{"contact":{"email":"\\u007Aoe@x.org","pa', False),
        (MAIL, b'{"payload":{"contact":{"em\\u0061il":[ ["\\u007Ao\\u00eb\\u0040x.org"], {bad', True),
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


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"payload":{"user_id":"u-42"},"producer_id":"x","tenant":"bob"}', False),
        (b'{"payload":{"user_id":"u-42"},"producer_id":"x","tenant":"ann"}', True),
        (b'{"payload":{"user_id":"u-42"},"producer_id":"bob-phone"}', False),
        (b'{"tenant":"b\\u006fb","payload":{"user_id":"u-42"}}', False),
        (b'{"payload":{"user_id":"u-42","tenant":"bob"}}', True),
        (b'{"meta":{"tenant":"bob"},"tenant":"ann","payload":{"user_id":"u-42"}}', True),
        (b'{"meta":{"tenant":"ann"},"tenant":"bob","payload":{"user_id":"u-42"}}', False),
        # a key that is there twice is none for ingest: it takes what stands before the payload
        (b'{"tenant":"bob","payload":{"user_id":"u-42"},"tenant":"ann"}', False),
        (b'{"tenant":"ann","payload":{"user_id":"u-42"},"tenant":"bob"}', True),
        (b'[{"payload":{"user_id":"u-42"},"tenant":"bob"}]', False),
        (b'[{"tenant":"ann","payload":{"user_id":"u-42"}},{"payload":{"user_id":"u-42"},"tenant":"bob"}]', False),
        (b'[{"payload":{"user_id":"u-42"}}]', True),
    ],
)
def test_whose_a_record_is_stands_anywhere_in_it_where_tenants_share_a_place(raw, expected):
    matcher = Matcher((Key("user_id", "u-42"),), "ann", shared=True, producers={"bob-phone": "bob"})
    assert matcher.is_subjects(raw) is expected


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b'{"payload":{"user_id":"u-42"},"event_id":"e","producer_id":"p","sequence":7,"tenant":"solo"}', True),
        (b'{"event_id":"\\u0065","producer_id":"p","sequence":7,"tenant":"solo","payload":{"user_id":"u-42"}}', True),
        # for ingest it is no JSON
        (b'{"payload":{"user_id":"u-42","x":1,"x":2},"event_id":"e","producer_id":"p","tenant":"solo"}', False),
    ],
)
def test_a_record_that_goes_is_told_by_its_keys_as_ingest_tells_it(raw, expected):
    who = Identity("e", "solo", "p", 7) if expected else Identity()
    assert cut_lines(raw, USER).identities == (who,)


LONG = "12345678901234567890123"


@pytest.mark.parametrize(
    ("text", "written", "expected"),
    [
        (LONG, LONG, True),
        (LONG, f'"{LONG}"', True),
        (LONG, f"{LONG[:-1]}4", False),
        (LONG, f"[{LONG}]", True),
        (LONG, f'{LONG},"n":[1e99999999999999999999,1E5000]', True),
        ("1e22", "10000000000000000000001", False),
        ("1e22", "10000000000000000000000.0", True),
        ("0.12345678901234567891", "0.12345678901234567891", True),
        ("0.12345678901234567891", "0.12345678901234567892", False),
        ("42", "42.0", True),
    ],
)
def test_a_number_is_compared_digit_by_digit_however_long_it_is(text, written, expected):
    matcher = Matcher((Key("account", text),), "solo")
    assert matcher.is_subjects(f'{{"payload":{{"account":{written}}}}}'.encode()) is expected
    assert matcher.is_in_rescued(f'{{"account":{written}}}') is expected
    assert not matcher.is_subjects(b'{"payload":{"account":NaN}}')


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


def test_a_packed_record_in_an_error_record_is_unpacked():
    packed = gzip.compress(event({"user_id": "u-1"}) + event({"user_id": "u-42"}) + b"\n" + event({"user_id": "u-3"}))

    def lines(raw):
        return ErrorRecord("x", "", raw, Identity()).encode()

    assert cut_lines(lines(packed), USER, errors=True).records == 1
    assert cut_lines(lines(packed[:-4]), USER, errors=True).records == 1
    assert cut_lines(lines(gzip.compress(event({"user_id": "u-421"}))), USER, errors=True).records == 0
    assert cut_lines(lines(gzip.compress(b"no gzip")), USER, errors=True).records == 0


@pytest.mark.parametrize("shift", [0, 5, 10, 2**20])
def test_a_packed_record_is_searched_to_its_end_however_much_it_is(shift):
    filler = b'{"page":"/"}\n' * 2_700_000 + b" " * shift
    matcher = replace(USER, tenant="ann", shared=True)
    for tenant, user, expected in (("ann", "u-42", 1), ("ann", "u-421", 0), ("bob", "u-42", 0)):
        mine = event({"user_id": user}, tenant=tenant)
        # by its head, as what is no JSON
        packed = gzip.compress(event({}, tenant=tenant) + b"\n" + filler + mine, compresslevel=1)
        assert cut_lines(ErrorRecord("x", "", packed, Identity()).encode(), matcher, errors=True).records == expected


@pytest.mark.parametrize(
    ("matcher", "raw", "expected"),
    [
        (USER, b"1,u-42,x", True),
        (USER, b"u-42", True),
        (USER, b'1;"u-42";', True),
        (USER, b"1\t u-42 \tx", True),
        (USER, b"1,'u-42'", True),
        (USER, b"id,user_id\r\n1,u-42\r\n2,u-7", True),
        (USER, b"1,u-421,xu-42", False),
        (USER, b"1#u-42#2", False),
        (USER, '1,"u-42'.encode("utf-16"), True),
        (USER, '1,"u-42'.encode("utf-16-be"), True),
        (USER, b"1,u-42,\xe9", True),
        (USER, gzip.compress(b"id,user_id\n1,u-42\n", mtime=0)[:-4], True),
        (USER, gzip.compress(bytes(40 * 2**20) + b"\n1,u-42\n", mtime=0), True),
        (USER, gzip.compress(bytes(40 * 2**20) + b"\n1,u-421\n", mtime=0), False),
        (USER, b"u-42,a\0b,c,d", True),
        (USER, b"u-42,\xe9\0b,c,d", True),
        (USER, b"u-421,a\0b,c,d", False),
        (NUMBER, b'1,"[7, 42]"', True),
        (replace(USER, drops=(Drop("d", "solo", "visits", "b", "raw/", delimiter="#", quote="^"),)), b"^u-42^#2", True),
        (NUMBER, b"1,042", False),
        (replace(NUMBER, numbers=frozenset({"user_id"})), b"1,042", True),
        (Matcher((Key("name", "Zoë, O'Brien"),), "solo"), '1,"Zoë, O\'Brien",x'.encode("cp1252"), True),
        (Matcher((Key("name", 'a "b" c'),), "solo"), b'1,"a ""b"" c",x', True),
        (Matcher((Key("name", 'a "b" c'),), "solo"), b'1,a,b,"c"', False),
    ],
)
def test_a_row_that_was_refused_of_a_file_is_the_subjects_if_a_cell_is_the_value(matcher, raw, expected):
    who = Identity(None, "solo", "file-1", 7)
    body = ErrorRecord("wrong_column_count", "", raw, who, None, FILES_STAGE).encode()
    cut = cut_lines(body, matcher, errors=True)
    assert (cut.records, cut.identities) == ((1, (who,)) if expected else (0, ()))
    # what another stage refused is a record, with names
    assert not cut_lines(ErrorRecord("x", "", raw, who, None, "ingest").encode(), matcher, errors=True).records


def test_of_rows_that_were_refused_another_tenants_stay():
    matcher = replace(USER, shared=True)
    for tenant, count in (("solo", 1), (None, 1), ("bob", 0)):
        body = ErrorRecord("x", "", b"1,u-42", Identity(tenant=tenant), None, FILES_STAGE).encode()
        assert cut_lines(body, matcher, errors=True).records == count


def nested(depth, inner):
    return b'{"payload":{"user_id":' + b"[" * depth + inner + b"]" * depth + b"}}"


@pytest.mark.parametrize("depth", [300, 990, 1010, 5000])
@pytest.mark.parametrize("beside", [b"", b',"x":"\\u0041"'])
def test_however_deep_a_record_is_it_is_judged(depth, beside):
    def raw(value):
        return nested(depth, b'"' + value + b'"').replace(b"}}", beside + b"}}")

    assert USER.is_subjects(raw(b"u-42"))
    assert not USER.is_subjects(raw(b"u-7"))


def test_what_blanks_cost_grows_with_them_and_not_with_their_square():
    def seconds(blanks):
        raw = b'{"payload":{"user_id":' + b" " * blanks + b"x"
        start = time.process_time()
        assert not USER.is_subjects(raw)
        return time.process_time() - start

    # with a square the last of them takes a quarter of an hour
    assert seconds(1_000_000) < 2


def test_fields_that_were_rescued_and_are_no_json_are_searched_by_their_names():
    assert USER.is_in_rescued('{"user_id":[Infinity],"user_id":"u-42"}')
    assert MAIL.is_in_rescued('{"contact.email":"zoë@x.org","x":NaN}')
    assert not USER.is_in_rescued('{"user_id":[Infinity],"page":"u-42"}')
    assert USER.is_in_rescued('{"user_id":' + "[" * 900 + '"u-42"' + "]" * 900 + "}")


MINE, OTHERS, ALSO = event({"user_id": "u-42"}), event({"user_id": "u-1", "at": "}{"}), event({"user_id": "u-2"})


@pytest.mark.parametrize(
    ("line", "kept", "records"),
    [
        (OTHERS + MINE + ALSO, OTHERS + ALSO, 1),
        (MINE + b" \t" + OTHERS + b"\r" + MINE, b" \t" + OTHERS, 2),
        (MINE + MINE, b"", 2),
        (OTHERS + ALSO + b"\r", OTHERS + ALSO + b"\r", 0),
        # one that is broken ends where the next begins, and a part that was cut off is a record too
        (OTHERS + b'{"payload":{bad}' + MINE + ALSO, OTHERS + b'{"payload":{bad}' + ALSO, 1),
        (OTHERS + MINE[:-3], OTHERS, 1),
        (OTHERS + nested(5000, b'"u-42"') + ALSO, OTHERS + ALSO, 1),
    ],
)
def test_of_records_side_by_side_only_the_subjects_go(line, kept, records):
    body = b"\n".join((ALSO, line, OTHERS, b""))
    cut = cut_lines(body, USER, joined=True)
    assert cut.body == b"\n".join((ALSO, kept, OTHERS, b""))
    assert (cut.records, len(cut.identities)) == (records, records)


@pytest.mark.parametrize("unit", [b'{"user_id":x}', b"x}{"])
def test_what_broken_records_side_by_side_cost_grows_with_them_and_not_with_their_square(unit):
    line = unit * (700_000 // len(unit))
    start = time.process_time()
    assert b"".join(side_by_side(line)) == line
    # with a square it takes more than a minute
    assert time.process_time() - start < 15


@pytest.mark.parametrize("size", [*range(4060, 4110), 32_760, 32_768, 300_000])
def test_records_side_by_side_may_be_of_any_length(size):
    def record(front, end):
        return front + b"x" * (size - len(front) - len(end)) + end

    number = b"-0." + b"1" * (size - 9) + b"25e-17"
    long = [record(b'{"a":"', b'"}'), record(b'{"a":', b"}"), record(b'{"a":"', b'\\u00e9"}'), number]
    for one in long:
        parts = [b'{"a":1}', one, b'{"b":"}{"}', b"{bad}", b'{"c":2}']
        assert list(side_by_side(b"".join(parts))) == parts


def test_of_records_side_by_side_another_tenants_stays_where_tenants_share():
    matcher = Matcher((Key("user_id", "u-42"),), "ann", shared=True)
    bobs, anns = (event({"user_id": "u-42"}, tenant=one) for one in ("bob", "ann"))
    assert cut_lines(bobs + anns + bobs, matcher, joined=True).body == bobs + bobs
    assert cut_lines(anns + bobs + anns, matcher, joined=True).body == bobs


def test_bytes_hold_a_value_as_it_is_or_escaped():
    assert holds_bytes(MAIL.keys, "x zoë@x.org".encode())
    assert holds_bytes(MAIL.keys, b'"zo\\u00eb@x.org"')
    assert not holds_bytes(MAIL.keys, b"zoe@x.org")
