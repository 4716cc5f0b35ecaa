"""Rows as events: the header against the contract, time, identity."""

import json
import uuid
from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from lake.contract import Contract, Field, Primitive
from lake.drops import Drop
from spark_jobs.csv_events import Events, RefusedRow, event_id
from spark_jobs.csv_rows import CsvReason, Row, UnreadableFileError
from spark_jobs.records import Judge
from spark_jobs.records import Row as IngestedRow

CONTRACT = Contract(
    dataset="orders",
    version="1.2.0",
    fields=(
        Field("invoice_no", Primitive("string"), required=True),
        Field("quantity", Primitive("int")),
        Field("at", Primitive("timestamptz")),
    ),
    partition=(),
    sort=(),
)
DROP = Drop("orders", "acme", "orders", "b", "raw/orders/", event_time="at")
KEY = "raw/orders/a.csv"


def events(header, *, key=KEY, contract=CONTRACT, **changes):
    return Events(replace(DROP, **changes), contract, producer_id="file-1", key=key, header=header)


def take(header, values, **options):
    return events(header, **options).take(Row(1, 2, values, ""))


def payload(header, values, **options):
    return json.loads(take(header, values, **options).line)["payload"]


def refusal(header, **options):
    with pytest.raises(UnreadableFileError) as caught:
        events(header, **options)
    return caught.value.reason, str(caught.value)


AT = "2026-11-20T10:00:00Z"


def test_a_row_is_an_event_with_the_whole_envelope_in_its_order():
    made = take(["invoice_no", "quantity", "at"], ["7", "3", "2026-11-20T23:30:00-01:00"])
    assert made.day == date(2026, 11, 21)
    assert list(json.loads(made.line).items()) == [
        ("event_id", "01a1fb82-8f40-736f-a018-eaf20b4fd964"),
        ("tenant", "acme"),
        ("dataset", "orders"),
        ("event_time", "2026-11-21T00:30:00.000Z"),
        ("producer_id", "file-1"),
        ("sequence", 0),
        ("schema_version", "1.2.0"),
        ("payload", {"invoice_no": "7", "quantity": 3, "at": "2026-11-21T00:30:00Z"}),
    ]


def test_what_is_made_is_what_ingest_takes():
    row = take(["invoice_no", "quantity", "at"], ["7", "3", AT])
    judged = Judge(CONTRACT, "acme", datetime(2026, 11, 21, tzinfo=UTC)).judge(row.line)
    assert isinstance(judged, IngestedRow)
    assert judged.values[7:] == ("7", 3, datetime(2026, 11, 20, 10, tzinfo=UTC), None)


@pytest.mark.parametrize("name", ["invoice_no", "InvoiceNo", " Invoice No ", "INVOICE-NO", "invoice  no"])
def test_a_column_is_told_by_its_name_however_it_is_spaced_and_cased(name):
    assert payload([name, "at"], ["7", AT])["invoice_no"] == "7"


def test_an_unknown_column_is_kept_as_it_is_under_its_own_name():
    assert payload(["invoice_no", "at", "Gate "], ["7", AT, " 5"])["Gate "] == " 5"


def test_a_column_without_a_name_is_kept_only_where_it_holds_something():
    header = ["invoice_no", "at", "", " "]
    assert payload(header, ["7", AT, "", "x"]) == {"invoice_no": "7", "at": AT, "$4": "x"}


def test_a_cell_that_is_not_the_contracts_type_stays_text_for_ingest_to_refuse():
    assert payload(["invoice_no", "quantity", "at"], ["7", "many", AT])["quantity"] == "many"


def test_an_empty_cell_that_is_no_text_is_left_out():
    assert payload(["invoice_no", "quantity", "at"], ["", "", AT]) == {"invoice_no": "", "at": AT}


def test_two_columns_of_one_field_are_refused():
    assert refusal(["Invoice No", "invoice_no", "at"]) == (
        CsvReason.BAD_HEADER,
        "the columns 'Invoice No', 'invoice_no' all are the contract's invoice_no",
    )


def test_a_column_that_may_be_two_fields_is_refused():
    both = replace(CONTRACT, fields=(*CONTRACT.fields, Field("invoiceno", Primitive("string"))))
    assert refusal(["Invoice No", "at"], contract=both)[1] == (
        "the column 'Invoice No' may be invoice_no or invoiceno of the contract"
    )
    assert payload(["invoiceno", "invoice_no", "at"], ["1", "2", AT], contract=both) == {
        "invoiceno": "1",
        "invoice_no": "2",
        "at": AT,
    }


def test_an_unknown_column_that_is_there_twice_is_refused():
    assert refusal(["invoice_no", "at", "x", "x"])[1] == "the column 'x' is there twice"


def test_a_required_column_that_is_missing_refuses_the_file():
    assert refusal(["quantity", "at"])[1] == ("required columns are missing: invoice_no; the file has 'quantity', 'at'")


def test_a_first_line_of_data_is_no_header_and_the_delimiter_is_named():
    reason, message = refusal(["7;3;2026"])
    assert reason == CsvReason.BAD_HEADER
    assert message == (
        "the first line is no header of orders: it has '7;3;2026', and the contract: invoice_no, quantity, at; "
        "columns are told apart by ','"
    )


def test_a_file_without_the_column_that_tells_the_time_is_refused():
    assert refusal(["invoice_no"]) == (
        CsvReason.BAD_HEADER,
        "there is no column at, which tells when an event happened",
    )


def test_without_event_time_the_day_is_the_keys_and_a_day_of_utc():
    made = take(["invoice_no"], ["7"], event_time=None, timezone="Asia/Tokyo", key="in/year=2026/month=11/day=20/a.csv")
    assert (made.day, json.loads(made.line)["event_time"]) == (date(2026, 11, 20), "2026-11-20T00:00:00.000Z")


@pytest.mark.parametrize("key", ["a.csv", "year=2026/month=11/a.csv", "year=2026/month=02/day=30/a.csv"])
def test_without_event_time_a_key_that_names_no_day_refuses_the_file(key):
    reason, message = refusal(["invoice_no"], event_time=None, key=key)
    assert reason == CsvReason.NO_EVENT_TIME
    assert "put the file below year=YYYY/month=MM/day=DD/" in message


def test_a_row_whose_time_cannot_be_read_is_refused_with_what_is_allowed():
    assert take(["invoice_no", "at"], ["7", "20.11.2026"]) == RefusedRow(
        CsvReason.NO_EVENT_TIME,
        "at: got '20.11.2026', allowed is ISO 8601, as 2026-11-20T10:00:00Z, 2026-11-20 10:00:00 (UTC) or 2026-11-20",
    )


@pytest.mark.parametrize("values", [["7"], ["7", AT, "more"]])
def test_a_row_of_another_width_than_the_header_is_refused(values):
    made = take(["invoice_no", "at"], values)
    assert (made.reason, made.message) == (
        CsvReason.WRONG_COLUMN_COUNT,
        f"the row has {len(values)} columns, and the header has 2",
    )


def test_an_event_id_is_a_version_7_uuid_of_the_events_time_and_the_same_each_time():
    happened = datetime(2026, 11, 20, 10, tzinfo=UTC)
    made = uuid.UUID(event_id("file-1", 7, happened))
    assert (made.version, made.variant) == (7, uuid.RFC_4122)
    assert made.int >> 80 == round(happened.timestamp() * 1000)
    assert str(made) == event_id("file-1", 7, happened)
    assert len({event_id(f"file-{file}", row, happened) for file in range(10) for row in range(100)}) == 1000


def test_an_event_before_1970_has_an_id_too():
    assert event_id("file-1", 0, datetime(1952, 3, 1, tzinfo=UTC)).startswith("00000000-0000-7")


@pytest.mark.timeout(60)
def test_a_header_of_very_many_columns_is_read_soon():
    assert refusal(["invoice_no", "at", *(f"c{one}" for one in range(200_000)), "c0"])[1] == (
        "the column 'c0' is there twice"
    )
