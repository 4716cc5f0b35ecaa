"""Whose row is it: CSV as people and spreadsheets write it, of which every other row keeps its bytes."""

from dataclasses import replace

import pytest

from lake.drops import Drop
from lake.erasure import Key
from spark_jobs.erase_csv import cut_csv
from spark_jobs.erase_match import Matcher

USER = Matcher((Key("user_id", "u-42"),), "solo")
NUMBER = Matcher((Key("user_id", "42"),), "solo", numbers=frozenset({"user_id"}))
MAIL = Matcher((Key("contact.email", "zoë@x.org"),), "solo")
DROP = Drop("d", "solo", "visits", "b", "raw/")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\r\n", "\n", "\r"])
def test_rows_of_csv_go_and_every_other_keeps_its_bytes(delimiter, end):
    rows = [
        "\ufeffuser_id,page\r\n",
        'u-1,"a\nu-42"\r\n',
        "\r\n",
        'u-42,"x\r\ny"\r\n',
        "\r\n",
        '"u-42",\r\n',
        "u-421,u-42\r\n",
        'u-7,"""',
    ]
    body = [row.replace("\r\n", end).replace(",", delimiter).encode() for row in rows]
    cut = cut_csv(b"".join(body), USER)
    assert cut.records == 2
    assert cut.body == b"".join(body[at] for at in (0, 1, 2, 4, 6, 7))


def test_csv_without_the_field_is_not_judged():
    assert cut_csv(b"a,b\nu-42,1\n", USER) is None
    assert cut_csv(b"", USER) is None
    assert cut_csv(b"\n \n", USER) is None
    assert cut_csv(b'"user_id\nu-42\n', USER) is None
    assert cut_csv(b'["' + b"x" * 2_000_000 + b'"]', USER) is None


HEAD = b"id,size,user_id\n"


@pytest.mark.parametrize(
    ("gone", "kept"),
    [
        # a quote too many swallows no row behind it, nor one within a cell
        (b"2,6,u-42\n", b'1,"5 pipe,u-1\n'),
        (b"2,6,u-42\n", b'1,5" pipe,u-1\n'),
        (b"2,6,u-42\n", b'1,"5" pipe,u-1\n'),
        # one that is no row goes if it holds the value anywhere
        (b'1,"5 pipe,u-42\n', b"2,6,u-1\n"),
        (b'1,"5" pipe,u-42\n', b"2,6,u-1\n"),
        # cells that are too many or too few may stand in any column
        (b"u-42,6,u-1,7\n", b"2,u-42,u-1\n"),
        (b"u-42\n", b"u-421\n"),
        # longer than Python's own limit, and than the door's
        (b"2,6,u-42\n", b"1," + b"x" * 140_000 + b",u-1\n"),
        (b"1," + b"x" * 140_000 + b",u-42\n", b"2,6,u-1\n"),
        (b"1," + b"x" * 1_200_000 + b",u-42\n", b"2,6,u-1\n"),
        (b"2,6,u-42\n", b"1," + b"x" * 3_000_000 + b",u-1\n"),
    ],
)
def test_what_is_badly_written_hides_nothing_and_costs_nobody_elses_row(gone, kept):
    for body in (HEAD + gone + kept, HEAD + kept + gone, HEAD + kept + gone + kept):
        cut = cut_csv(body, USER)
        assert (cut.records, cut.body) == (1, body.replace(gone, b""))


@pytest.mark.parametrize("name", ["user_id", "User ID", "USER-ID", '" user  id "', "\ufeffUserId"])
def test_columns_have_the_names_that_the_door_takes_for_the_fields(name):
    head = f"{name},x\n".encode()
    assert cut_csv(head + b"u-42,1\nu-1,u-42\n", USER).body == head + b"u-1,u-42\n"


def test_a_field_that_has_two_columns_is_looked_for_in_both():
    cut = cut_csv(b"user_id,x,User ID\nu-1,2,u-42\nu-42,2,u-1\nu-1,u-42,u-1\n", USER)
    assert cut.body == b"user_id,x,User ID\nu-1,u-42,u-1\n"


def test_a_number_is_found_however_it_is_written_and_a_text_as_it_is_only():
    rows = [b"042\n", b"42.0\n", b"+42\n", b" 42 \n", b"4.2e1\n", b"420\n", b"n42\n", b"nan\n", b'""\n']
    assert cut_csv(b"user_id\n" + b"".join(rows), NUMBER).body == b"user_id\n" + b"".join(rows[5:])
    text = cut_csv(b"user_id\n" + b"".join(rows), replace(NUMBER, numbers=frozenset()))
    assert text.body == b"user_id\n" + b"".join([*rows[:3], *rows[4:]])


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "latin-1"])
@pytest.mark.parametrize("told", [None, "utf-8", "windows-1252", "latin-1"])
def test_letters_are_read_as_they_are_encoded_whatever_the_drop_tells(encoding, told):
    drop = replace(DROP, encoding=told) if told else None
    other = "bob,Zürich\n".encode(encoding)
    body = "email,city\n".encode(encoding) + other + "zoë@x.org,Brno\n".encode(encoding) + b"x\x81,\n"
    cut = cut_csv(body, MAIL, drop)
    assert (cut.records, cut.body) == (1, b"email,city\n" + other + b"x\x81,\n")


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("mark", ["\ufeff", ""])
def test_a_file_in_utf_16_is_cut_like_any_other(codec, mark):
    drop = replace(DROP, encoding="utf-16")
    head, mine, other = f"{mark}email;city\r\n", 'zoë@x.org;"Br\r\nno"\r\n', "bob;Zürich \U0001f600\r\n"
    body = f'{head}{other}{mine}zoë@x.org;"x\r\n{other}'.encode(codec)
    wanted = f"{head}{other}{other}".encode(codec)
    if mark or codec == "utf-16-le":
        cut = cut_csv(body, MAIL, drop)
        assert (cut.records, cut.body) == (2, wanted)
    if mark:
        assert cut_csv(body, MAIL).body == wanted
        assert cut_csv(body + b"\xd8", MAIL) is None  # half a letter


@pytest.mark.parametrize("told", [None, "utf-8", "windows-1252", "latin-1"])
def test_a_header_is_read_in_the_encoding_of_its_rows(told):
    drop = replace(DROP, encoding=told) if told else None
    body = "Straße,email\nA,zoë@x.org\nB,bob@x.org\n".encode("cp1252")
    assert cut_csv(body, MAIL, drop).body == "Straße,email\nB,bob@x.org\n".encode("cp1252")
    assert cut_csv("Straße,'email\nA,x\n".encode("cp1252"), MAIL, drop) is None
    name = Matcher((Key("straße", "Weg 1"),), "solo")
    assert cut_csv("Straße,email\nWeg 1,x\n".encode("cp1252"), name, drop).body == "Straße,email\n".encode("cp1252")


@pytest.mark.parametrize(
    ("matcher", "head", "gone", "kept"),
    [
        (MAIL, "id,contact", '1,"{""email"": ""zoë@x.org""}"', '1,"{""email"": ""bob@x.org""}"'),
        (MAIL, "id,Contact", '1,"[{""a"":1},{""email"":""zo\\u00eb@x.org""}]"', "1,zoë@x.org"),
        (MAIL, "id,contact", '1,"{""email"":""zoë@x.org"", bad"', '1,"{""e"":""zoë@x.org""}"'),
        (MAIL, "id,email", '1,"[""zoë@x.org""]"', '1,"[""zoë@x.org.uk""]"'),
        (MAIL, "id,contact", '1,"{""email"":""zoë@x.org""}",x', '1,"{""email"":""bob@x.org""}",zoë@x.org'),
        (NUMBER, "id,user_id", '1,"[7, [42]]"', '42,"[420]"'),
        (MAIL, "email,contact", '"","{""email"":""zoë@x.org""}"', '"","{}"'),
    ],
)
def test_a_cell_that_the_door_takes_as_json_is_looked_into(matcher, head, gone, kept):
    body = f"{head}\n{kept}\n{gone}\n{kept}".encode()
    cut = cut_csv(body, matcher)
    assert (cut.records, cut.body.decode()) == (1, f"{head}\n{kept}\n{kept}")


def test_a_broken_row_is_searched_in_either_encoding():
    rows = ['1,"Zürich" x,zoë@x.org\n'.encode(one) for one in ("utf-8", "cp1252")]
    assert cut_csv(b"id,city,email\n" + b"".join(rows), MAIL).body == b"id,city,email\n"


def test_windows_letters_that_latin_1_has_not_are_found():
    who = Matcher((Key("name", "O\u2019Brien"), Key("name", "Šimon")), "solo")
    body = "name,city\nO\u2019Brien,Brno\nŠimon,Zürich\nBob,Zürich\n".encode("cp1252")
    assert cut_csv(body, who).body == "name,city\nBob,Zürich\n".encode("cp1252")


def test_one_line_in_another_encoding_leaves_the_others_readable():
    body = "email,city\nzoë@x.org,Brno\n".encode() + "bob,Zürich\nzoë@x.org,Zürich\n".encode("cp1252")
    assert cut_csv(body, MAIL).body == b"email,city\n" + "bob,Zürich\n".encode("cp1252")


def test_a_drop_tells_how_its_files_are_written_and_one_that_is_not_is_read_nevertheless():
    drop = replace(DROP, delimiter="#", quote="'")
    body = b"user_id#a,b;c\n'u-42'#'x\ny'\nu-1#u-42\n"
    assert cut_csv(body, USER, drop).body == b"user_id#a,b;c\nu-1#u-42\n"
    assert cut_csv(body, USER) is None
    for wrong in (b'user_id;page\n"u-42";1\nu-1;2\n', b"user_id;page\n'u-42';1\nu-1;2\n"):
        cut = cut_csv(wrong, USER, replace(drop, quote=chr(wrong[13])))
        assert cut.body == b"user_id;page\nu-1;2\n"
