"""Files of converted records, read back by others."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import duckdb
import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pyarrow import orc, parquet

from firehose.columnar import ColumnarError, bloom_columns, columnar, prove
from firehose.conversion import Conversion
from firehose.hive_types import parse_hive_type

COLUMNS = {
    "id": "string",
    "t": "tinyint",
    "s": "smallint",
    "i": "int",
    "b": "bigint",
    "f": "float",
    "d": "double",
    "m": "decimal(20,3)",
    "ok": "boolean",
    "day": "date",
    "at": "timestamp",
    "code": "varchar(10)",
    "tags": "array<string>",
    "person": "struct<name:string,seen:timestamp>",
    "attrs": "map<string,array<int>>",
}
FULL = {
    "id": "a\n\u00e9",
    "t": -128,
    "s": 32767,
    "i": -5,
    "b": 2**63 - 1,
    "f": 1.5,
    "d": 0.1,
    "m": "12345678901234567.8905",
    "ok": True,
    "day": "1969-12-31",
    "at": "1969-12-31T23:59:59.250Z",
    "code": "xyz",
    "tags": ["a", None, ""],
    "person": {"name": "Zoe", "seen": "2013-05-07 10:00:00"},
    "attrs": {"k": [1, None], "n": None},
}
WRITTEN = {
    **FULL,
    "m": Decimal("12345678901234567.891"),
    "day": date(1969, 12, 31),
    "at": datetime(1969, 12, 31, 23, 59, 59, 250_000),  # noqa: DTZ001 - a file's timestamps have no zone
    "person": {"name": "Zoe", "seen": datetime(2013, 5, 7, 10)},  # noqa: DTZ001 - likewise
    "attrs": [("k", [1, None]), ("n", None)],
}
NOTHING = dict.fromkeys(COLUMNS)
PARQUET, ORC = {"ParquetSerDe": {}}, {"OrcSerDe": {}}


def conversion(serializer=PARQUET, **columns):
    return Conversion(tuple((columns or COLUMNS).items()), {"OpenXJsonSerDe": {}}, serializer)


def read(made, raw):
    table = (orc.read_table if made.is_orc else parquet.read_table)(pa.BufferReader(raw))
    return table.to_pylist()


def plain(rows):
    """Rows with Python's own moments."""
    return [
        {
            name: {key: moment(one) for key, one in value.items()} if isinstance(value, dict) else moment(value)
            for name, value in row.items()
        }
        for row in rows
    ]


def moment(value):
    return value.to_pydatetime() if hasattr(value, "to_pydatetime") else value


@pytest.mark.parametrize("serializer", [PARQUET, ORC])
def test_every_type_is_read_back(serializer):
    made = conversion(serializer)
    assert plain(read(made, columnar(made, [orjson.dumps(FULL), b"{}{}"]))) == [WRITTEN, NOTHING, NOTHING]


def test_duckdb_reads_the_same_from_parquet(tmp_path):
    (tmp_path / "one.parquet").write_bytes(columnar(conversion(), [orjson.dumps(FULL), b"{}"]))
    found = duckdb.read_parquet(f"{tmp_path}/one.parquet")
    names = [one[0] for one in found.description]
    full, nothing = found.fetchall()
    assert dict(zip(names, full, strict=True)) == {**WRITTEN, "attrs": {"k": [1, None], "n": None}}
    assert set(nothing) == {None}


@pytest.mark.parametrize(
    ("options", "codec", "encodings", "version"),
    [
        ({}, "SNAPPY", False, 1),
        ({"Compression": "GZIP", "EnableDictionaryCompression": True}, "GZIP", True, 1),
        ({"Compression": "UNCOMPRESSED", "WriterVersion": "V2"}, "UNCOMPRESSED", False, 2),
    ],
)
def test_parquets_options_are_kept(options, codec, encodings, version):
    made = conversion({"ParquetSerDe": options}, id="string")
    raw = columnar(made, [orjson.dumps({"id": "same" * 50})] * 5000)
    column = parquet.ParquetFile(pa.BufferReader(raw)).metadata.row_group(0).column(0)
    assert (column.compression, "RLE_DICTIONARY" in column.encodings) == (codec, encodings)
    # a page's header tells its type: 3 is the second version's
    assert (b"\x15\x06" in raw[: column.data_page_offset + 2][column.data_page_offset :]) == (version == 2)
    assert read(made, raw) == [{"id": "same" * 50}] * 5000


def test_pages_are_as_big_as_asked_for():
    data = [orjson.dumps({"id": f"{n:0200d}"}) for n in range(20_000)]
    small = conversion({"ParquetSerDe": {"PageSizeBytes": 65_536, "Compression": "UNCOMPRESSED"}}, id="string")
    large = conversion({"ParquetSerDe": {"Compression": "UNCOMPRESSED"}}, id="string")
    assert len(columnar(small, data)) > len(columnar(large, data)) + 500  # a header and statistics each


def test_a_row_group_is_as_big_as_a_block():
    block = 64 << 20
    data = [b'{"id":"' + b"x" * 900_000 + b'"}'] * 200
    made = conversion({"ParquetSerDe": {"BlockSizeBytes": block}}, id="string")
    found = parquet.ParquetFile(pa.BufferReader(columnar(made, data))).metadata
    assert (found.num_rows, found.num_row_groups) == (200, 3)


@pytest.mark.parametrize(
    ("options", "codec", "version"),
    [
        ({}, "SNAPPY", "0.12"),
        ({"Compression": "ZLIB", "FormatVersion": "V0_11", "DictionaryKeyThreshold": 0.0}, "ZLIB", "0.11"),
        ({"Compression": "NONE", "PaddingTolerance": 0.1, "EnablePadding": True}, "UNCOMPRESSED", "0.12"),
    ],
)
def test_orcs_options_are_kept(options, codec, version):
    made = conversion({"OrcSerDe": options})
    raw = columnar(made, [orjson.dumps(FULL)] * 20)
    found = orc.ORCFile(pa.BufferReader(raw))
    assert (found.compression, found.file_version, found.row_index_stride) == (codec, version, 10_000)
    assert plain(read(made, raw)) == [WRITTEN] * 20


def test_orcs_stripes_and_strides_are_as_asked_for():
    options = {"StripeSizeBytes": 8 << 20, "RowIndexStride": 1000, "Compression": "NONE", "DictionaryKeyThreshold": 0}
    data = [orjson.dumps({"id": f"{n:0500d}"}) for n in range(40_000)]
    found = orc.ORCFile(pa.BufferReader(columnar(conversion({"OrcSerDe": options}, id="string"), data)))
    assert (found.row_index_stride, found.nrows, found.nstripes > 1) == (1000, 40_000, True)


def test_bloom_filters_are_of_the_columns_named():
    types = [(name, parse_hive_type(hive)) for name, hive in COLUMNS.items()]
    assert bloom_columns(types, ["id", "tags", "person", "ATTRS"]) == [1, 13, 15, 18]
    data = [orjson.dumps({"id": f"{n}", "d": n}) for n in range(2000)]
    without, with_one = (
        columnar(conversion({"OrcSerDe": {"BloomFilterColumns": names}}), data) for names in ([], ["d"])
    )
    assert len(with_one) > len(without) + 500


@pytest.mark.parametrize("serializer", [PARQUET, {"ParquetSerDe": {"EnableDictionaryCompression": True}}, ORC])
def test_a_file_made_again_has_the_same_bytes(serializer):
    made = conversion(serializer)
    data = [orjson.dumps({**FULL, "b": n}) for n in range(12_000)]
    again = Conversion.from_dict(orjson.loads(orjson.dumps(made.to_dict())))
    assert again == made
    first = columnar(made, data)
    script = (
        "import sys, orjson; from firehose.conversion import Conversion; from firehose.columnar import columnar;"
        "made, data = orjson.loads(sys.stdin.buffer.read());"
        "sys.stdout.buffer.write(columnar(Conversion.from_dict(made), [one.encode() for one in data]))"
    )
    asked = orjson.dumps([made.to_dict(), [one.decode() for one in data]])
    other = subprocess.run([sys.executable, "-c", script], input=asked, capture_output=True, check=True)
    assert other.stdout == first


def test_rows_stay_in_the_order_of_the_records():
    made = conversion(i="int")
    data = [b'{"i":%d}{"i":%d}' % (2 * n, 2 * n + 1) for n in range(7000)]
    assert [row["i"] for row in read(made, columnar(made, data))] == list(range(14_000))


def test_many_rows_of_few_bytes_take_little_memory():
    # 4 MB of records are 2 million rows of 60 columns: 1 GB of them at once
    script = (
        "from pathlib import Path; from firehose.conversion import Conversion; from firehose.columnar import columnar;"
        "columns = tuple((f'c{n}', 'bigint') for n in range(60));"
        "serializer = {'ParquetSerDe': {'BlockSizeBytes': 64 << 20}};"
        "made = columnar(Conversion(columns, {'OpenXJsonSerDe': {}}, serializer), [b'{}' * 100_000] * 5);"
        # not ru_maxrss, which begins with what the process had that started this one
        "print(len(made), int(Path('/proc/self/status').read_text().partition('VmHWM:')[2].split()[0]) // 1024)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True)
    size, megabytes = map(int, done.stdout.split())
    assert (size < 2_000_000, megabytes < 600) == (True, True), (size, megabytes)


def test_pyarrow_is_loaded_by_the_first_file_only():
    script = "import sys, firehose.schemas, firehose.objects, firehose.serve; print('pyarrow' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True, text=True)
    assert done.stdout == "False\n"


@pytest.mark.parametrize("deserializer", [{"OpenXJsonSerDe": {}}, {"HiveJsonSerDe": {}}])
@pytest.mark.parametrize("serializer", [PARQUET, ORC])
def test_what_can_be_written_is_proven(serializer, deserializer):
    prove(Conversion(tuple(COLUMNS.items()), deserializer, serializer))


def test_what_can_not_be_written_is_known_before_a_record_waits_for_it():
    # ORC's timestamps need the machine's time zones
    script = (
        "from firehose.conversion import Conversion; from firehose.columnar import prove; import sys;"
        "prove(Conversion((('t', sys.argv[1]),), {'HiveJsonSerDe': {}}, {'OrcSerDe': {}}))"
    )
    told = [
        subprocess.run(
            [sys.executable, "-c", script, hive],
            env={**os.environ, "TZDIR": "/nowhere"},
            capture_output=True,
            text=True,
            check=False,
        ).stderr
        for hive in ("array<timestamp>", "string")
    ]
    assert f"{ColumnarError.__name__}: Unknown error: Time zone file /nowhere/GMT does not exist" in told[0]
    assert told[1] == ""


ROWS = st.fixed_dictionaries(
    {},
    optional={
        "id": st.text(st.characters(codec="utf-8"), max_size=20),
        "t": st.integers(-128, 127),
        "b": st.integers(-(2**63), 2**63 - 1),
        "d": st.floats(allow_nan=False, allow_infinity=False),
        "ok": st.booleans(),
        "day": st.dates().map(str),
        "at": st.datetimes(min_value=datetime(1678, 1, 1), max_value=datetime(2261, 1, 1)).map(  # noqa: DTZ001 - no zone
            lambda one: one.isoformat(sep=" ")
        ),
        "tags": st.lists(st.text(st.characters(codec="utf-8"), max_size=5) | st.none(), max_size=3),
        "attrs": st.dictionaries(st.sampled_from("abc"), st.lists(st.integers(0, 9), max_size=2), max_size=2),
    },
)


@settings(max_examples=60, deadline=None)
@given(st.lists(ROWS, min_size=1, max_size=8), st.sampled_from([PARQUET, ORC]))
def test_rows_are_read_back_as_they_were_sent(rows, serializer):
    made = conversion(serializer)
    found = plain(read(made, columnar(made, [orjson.dumps(one) for one in rows])))
    for row, sent in zip(found, rows, strict=True):
        wanted = {**NOTHING, **sent}
        if sent.get("day"):
            wanted["day"] = date.fromisoformat(sent["day"])
        if sent.get("at"):
            wanted["at"] = datetime.fromisoformat(sent["at"])
        if "attrs" in sent:
            wanted["attrs"] = list(sent["attrs"].items())
        assert row == wanted


def test_years_from_1_to_9999_are_kept(tmp_path):
    data = [b'{"at":"0001-01-01 00:00:00"}', b'{"at":"9999-12-31T23:59:59.999999Z"}']
    (tmp_path / "one.parquet").write_bytes(columnar(conversion(at="timestamp"), data))
    found = parquet.read_table(tmp_path / "one.parquet", coerce_int96_timestamp_unit="us")["at"]
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    assert [epoch + timedelta(microseconds=one) for one in found.cast(pa.int64()).to_pylist()] == [
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    ]
