from __future__ import annotations

import io

import pytest

from athena.locations import Location
from athena.results import csv_line, read_page, text_lines, write_rows
from lake.aws_json import ServiceError

ROWS = [("a", None), ("", 'say "hi",\nok'), (None, "ø"), ('"', '""')]
FILE = b"".join(csv_line(row) for row in ROWS)


def reader(content, reads=None):
    def read(start, end):
        if reads is not None:
            reads.append((start, end))
        return content[start:end]

    return read


def pages(content, most, *, is_csv=True):
    found, start = [], 0
    while start is not None:
        page = read_page(reader(content), len(content), start, most, is_csv=is_csv)
        found.append(list(page.rows))
        start = page.next_byte
    return found


def test_values_are_quoted_and_null_is_an_empty_field():
    assert FILE == b'"a",\n"","say ""hi"",\nok"\n,"\xc3\xb8"\n"""",""""""\n'


@pytest.mark.parametrize("most", [1, 2, 3, 4, 1000])
def test_what_was_written_is_read_back_in_pages_of_any_length(most):
    assert pages(FILE, most) == [ROWS[start : start + most] for start in range(0, len(ROWS), most)]


def test_a_page_starts_where_the_last_one_ended():
    first = read_page(reader(FILE), len(FILE), 0, 1, is_csv=True)
    assert first.next_byte == 5
    assert read_page(reader(FILE), len(FILE), 5, 1, is_csv=True).rows == (("", 'say "hi",\nok'),)


def test_an_empty_file_has_no_rows_and_no_next_page():
    page = read_page(reader(b""), 0, 0, 1000, is_csv=True)
    assert (page.rows, page.next_byte) == ((), None)


def test_a_file_of_one_null_is_one_row():
    assert pages(csv_line([None]), 10) == [[(None,)]]


def test_a_row_longer_than_a_read_comes_whole():
    long = "x" * 1_000_000 + '"' * 7
    assert pages(csv_line([long, "b"]) + csv_line(["c", "d"]), 1) == [[(long, "b")], [("c", "d")]]


def test_a_page_of_a_large_file_reads_no_more_than_it_needs():
    content = csv_line(["x" * 98]) * 100_000
    reads = []
    read_page(reader(content, reads), len(content), 5_000_000 - 5_000_000 % 101, 1000, is_csv=True)
    assert sum(end - start for start, end in reads) == 262_144


def test_a_text_answer_has_tabs_between_its_values():
    assert text_lines(["a", None, "b\tc\nd"]) == b"a\t\tb c d\n"


def test_a_text_of_many_lines_becomes_as_many_rows():
    assert pages(text_lines(["CREATE TABLE (\n  a int\n)"]), 10, is_csv=False) == [
        [("CREATE TABLE (",), ("  a int",), (")",)]
    ]


def test_rows_are_rendered_and_counted():
    out = io.BytesIO()
    assert write_rows(out, [[1, None], [2, True]], [str, lambda value: str(value).lower()], csv_line) == 2
    assert out.getvalue() == b'"1",\n"2","true"\n'


@pytest.mark.parametrize(
    ("given", "file"),
    [
        ("s3://bucket", "s3://bucket/id.csv"),
        ("s3://bucket/", "s3://bucket/id.csv"),
        ("s3://bucket/a/b", "s3://bucket/a/b/id.csv"),
        ("s3://bucket/a/b/", "s3://bucket/a/b/id.csv"),
    ],
)
def test_a_result_lies_below_its_location(given, file):
    assert Location.parse(given).below("id.csv") == file


@pytest.mark.parametrize("given", ["bucket/a", "s3://", "s3:///a", "http://bucket/a", "s3://Bucket/a"])
def test_what_is_no_location_is_refused(given):
    with pytest.raises(ServiceError, match="not a valid S3 path"):
        Location.parse(given)
