"""Rows of CSV text: what is one, what isn't, and that nothing of it is lost."""

import csv
import gzip
import io
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from lake.drops import Drop
from spark_jobs import csv_rows
from spark_jobs.csv_rows import BadRow, CsvReason, UnreadableFileError, open_text, rows

DROP = Drop("orders", "solo", "visits", "b", "raw/orders/")
DATA = Path(__file__).parents[3] / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the shared test data is not on this machine")


def read(body, **changes):
    drop = replace(DROP, **changes)
    text = open_text(io.BytesIO(body), drop)
    return list(rows(text, drop))


def values(body, **changes):
    return [row.values for row in read(body, **changes)]


def refusal(body, **changes):
    with pytest.raises(UnreadableFileError) as caught:
        read(body, **changes)
    return caught.value.reason, str(caught.value)


def test_line_breaks_and_doubled_quotes_inside_quotes_are_the_values_own():
    assert values(b'a,b\r\n"x\r\ny","say ""hi"""\r\n') == [["a", "b"], ["x\r\ny", 'say "hi"']]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_each_kind_of_line_end_is_taken(end):
    assert values(end.join([b"a,b", b"1,2", b"3,4"])) == [["a", "b"], ["1", "2"], ["3", "4"]]


def test_blank_lines_are_no_rows_and_count_as_lines():
    assert [(row.number, row.line) for row in read(b"\n\na\n\n1\n\n2")] == [(0, 3), (1, 5), (2, 7)]


def test_a_rows_raw_text_is_as_it_was_without_the_lines_end():
    assert [row.raw for row in read(b'a,b\r\n"1\n2", x \r3,"4"')] == ["a,b", '"1\n2", x ', '3,"4"']


def test_a_delimiter_and_a_quote_are_taken_as_declared():
    assert values(b"a;b\n';';\"\n", delimiter=";", quote="'") == [["a", "b"], [";", '"']]


def test_the_mark_of_utf_8_is_no_part_of_the_header():
    assert values(b"\xef\xbb\xbfa,b\n1,2")[0] == ["a", "b"]


@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le"])
def test_utf_16_is_read_with_and_without_its_mark(codec):
    assert values("a,b\n1,é😀\n".encode(codec), encoding="utf-16") == [["a", "b"], ["1", "é😀"]]


def test_big_endian_utf_16_is_told_by_its_mark():
    assert values(b"\xfe\xff" + "a\né\n".encode("utf-16-be"), encoding="utf-16") == [["a"], ["é"]]


@pytest.mark.parametrize(("encoding", "byte", "text"), [("latin-1", b"\xe9", "é"), ("windows-1252", b"\x80", "€")])
def test_one_byte_encodings_are_read_as_declared(encoding, byte, text):
    assert values(b"a\n" + byte, encoding=encoding)[1] == [text]


def test_gzip_is_told_by_its_first_bytes_and_may_have_several_members():
    assert values(gzip.compress(b"a\n1\n") + gzip.compress(b"2\n")) == [["a"], ["1"], ["2"]]


def test_bytes_that_are_no_text_refuse_their_row_alone_and_are_kept():
    drop = DROP
    text = open_text(io.BytesIO(b"a,b\n1,\xff\xc3\n2,\xc3\xa9\n"), drop)
    _, bad, good = rows(text, drop)
    assert (bad.reason, bad.line, bad.message) == (
        CsvReason.UNDECODABLE_TEXT,
        2,
        "byte 0xff is no text in the drop's encoding",
    )
    assert text.encode(bad.raw) == b"1,\xff\xc3"
    assert good.values == ["2", "é"]


def test_text_behind_a_closing_quote_refuses_its_row_alone():
    bad, good = read(b'a,b\n"x"y,1\n2,3\n')[1:]
    assert (bad.number, bad.reason, bad.raw) == (1, CsvReason.MALFORMED_CSV, '"x"y,1')
    assert (good.number, good.values) == (2, ["2", "3"])


def test_a_quote_that_is_never_closed_refuses_its_line_and_not_the_rest_of_the_file():
    bad, *good = read(b'a,b\n"x,1\n2,3\n4,5')[1:]
    assert (bad.line, bad.raw, bad.message) == (2, '"x,1', "a quote is opened and never closed")
    assert [row.values for row in good] == [["2", "3"], ["4", "5"]]


def test_a_quote_that_swallows_more_than_a_row_may_hold_refuses_its_line_alone(monkeypatch):
    monkeypatch.setattr(csv_rows, "LONGEST_ROW", 40)
    bad, *good = read(b'a,b\n"x,1\n' + b"2,3\n" * 20 + b'"4",5\n')[1:]
    assert (bad.reason, bad.raw) == (CsvReason.MALFORMED_CSV, '"x,1')
    assert [row.values for row in good] == [["2", "3"]] * 20 + [["4", "5"]]


def test_a_line_longer_than_a_row_may_be_is_refused_and_its_beginning_kept(monkeypatch):
    monkeypatch.setattr(csv_rows, "LONGEST_ROW", 40)
    bad, good = read(b"a,b\n" + b"x" * 200 + b",1\n2,3\n")[1:]
    assert (bad.reason, bad.raw) == (CsvReason.ROW_TOO_LONG, "x" * 40)
    assert (good.line, good.values) == (3, ["2", "3"])


def test_a_file_without_a_byte_has_no_header():
    told = (CsvReason.BAD_HEADER, "the file is empty: not even a header is in it")
    assert refusal(b"") == told
    assert refusal(gzip.compress(b"")) == told


@pytest.mark.parametrize("cut", [1, 8, 12])
def test_a_gzip_that_was_cut_short_is_refused_as_a_whole(cut):
    body = gzip.compress(b"a\n" + b"1\n" * 1000)
    reason, message = refusal(body[:-cut])
    assert reason == CsvReason.UNREADABLE_FILE
    assert message.startswith("the file is no whole gzip: ")


def test_a_gzip_whose_bytes_were_changed_is_refused_before_a_row_of_it_is_taken():
    body = bytearray(gzip.compress(b"page\n" + b"/a\n/b\n" * 500))
    body[-6] ^= 1  # of the checksum, which only the end of the file can tell
    assert refusal(bytes(body))[0] == CsvReason.UNREADABLE_FILE


def test_a_mark_of_another_encoding_than_the_declared_one_is_named():
    assert refusal("a\n1".encode("utf-16")) == (
        CsvReason.UNREADABLE_FILE,
        "the file begins with the mark of utf-16, and the drop's encoding is utf-8",
    )
    assert refusal(b"\xef\xbb\xbfa", encoding="latin-1")[1] == (
        "the file begins with the mark of utf-8, and the drop's encoding is latin-1"
    )


def test_utf_16_that_breaks_off_is_refused_as_a_whole():
    assert refusal("a\n1".encode("utf-16")[:-1], encoding="utf-16") == (
        CsvReason.UNREADABLE_FILE,
        "the file is not utf-16, as its drop says: truncated data",
    )


def test_a_workbook_is_no_csv():
    assert refusal(b"PK\x03\x04rest")[1] == "the file is a ZIP archive or a workbook of Excel, and no CSV"


def test_whatever_the_bytes_are_every_line_is_in_a_row_or_a_refusal():
    seed = random.Random(20261120)  # noqa: S311 - the same bytes each time
    for _ in range(300):
        body = bytes(seed.choice(b'ab",\n\r\xff\xc3\xa9 \x00') for _ in range(seed.randrange(1, 120)))
        text = open_text(io.BytesIO(body), DROP)
        found = list(rows(text, DROP))
        assert [row.number for row in found] == list(range(len(found)))
        kept = b"".join(text.encode(row.raw) for row in found)
        ends = bytes.maketrans(b"", b"")
        assert kept.translate(ends, b"\r\n") == body.translate(ends, b"\r\n")


@needs_data
@pytest.mark.parametrize("path", sorted((DATA / "csv-spectrum" / "csvs").glob("*.csv")), ids=lambda path: path.stem)
def test_the_csv_spectrum_is_read_as_its_expected_json(path):
    header, *found = values(path.read_bytes())
    expected = json.loads((path.parents[1] / "json" / f"{path.stem}.json").read_text(encoding="utf-8"))
    if path.stem == "location_coordinates":
        # the collection's own two files differ here, and this one's is a single object
        expected = [{**expected, "Contact Phone Number": "2095257564"}]
    assert [dict(zip(header, row, strict=True)) for row in found] == expected


@needs_data
def test_hostile_values_come_out_as_they_went_in():
    naughty = json.loads((DATA / "naughty-strings" / "blns.json").read_text(encoding="utf-8"))
    out = io.StringIO(newline="")
    csv.writer(out).writerows([["at", "value"], *([str(at), one] for at, one in enumerate(naughty))])
    assert [row[1] for row in values(out.getvalue().encode())[1:]] == naughty


@needs_data
@pytest.mark.parametrize(
    ("name", "encoding"),
    [
        ("mac_newlines", "utf-8"),
        ("test_utf8_bom", "utf-8"),
        ("test_utf16_little", "utf-16"),
        ("test_utf16_big", "utf-16"),
        ("test_latin1", "latin-1"),
        ("test_header_newline", "utf-8"),
        ("null_byte", "utf-8"),
        ("optional_quote_characters", "utf-8"),
    ],
)
def test_files_of_other_programs_are_read_as_the_csv_module_reads_them(name, encoding):
    body = (DATA / "csv-fixtures" / f"{name}.csv").read_bytes()
    codec = {"utf-8": "utf-8-sig"}.get(encoding, encoding)
    expected = [row for row in csv.reader(io.StringIO(body.decode(codec), newline="")) if row]
    assert values(body, encoding=encoding) == expected
    assert len(expected) > 1


@needs_data
def test_every_fixture_is_read_to_its_end_whatever_is_in_it():
    for path in sorted((DATA / "csv-fixtures").glob("*.csv")):
        try:
            found = read(path.read_bytes())
        except UnreadableFileError as error:
            assert path.stem in {"empty", "test_utf16_big", "test_utf16_little"}, (path, error)  # noqa: PT017
        else:
            assert not [row for row in found if isinstance(row, BadRow)] or path.stem == "test_latin1", path


@pytest.mark.timeout(120)
def test_a_file_of_nothing_but_quotes_that_do_not_end_is_read_soon():
    # each was looked for a million characters on: hours
    body = b"a,b\n" + b'x","\n' * 200_000 + b'1,"two\nlines"\n'
    found = read(body)
    assert len(found) == 200_002
    assert found[-1].values == ["1", "two\nlines"]
    bad = [one for one in found if isinstance(one, BadRow)]
    assert len(bad) == 200_000
    assert {one.reason for one in bad} == {CsvReason.MALFORMED_CSV}
    assert {one.raw for one in bad} == {'x","'}
