"""Reading a small rewrite's files: in their order, as the table has its columns, no more than there is room for."""

import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.schema import Schema
from pyiceberg.types import LongType, NestedField, StringType

from spark_jobs.compact_columns import UnfitError, arrow_schema
from spark_jobs.compact_fetch import fetched, read_groups

IO = PyArrowFileIO()
WANTED = arrow_schema(Schema(NestedField(1, "number", LongType()), NestedField(2, "text", StringType())))


def stored(path, numbers, *, kind=None, **options):
    """A file of one column, which is the table's first."""
    field = pa.field("number", kind or pa.int64(), metadata={"PARQUET:field_id": "1"})
    made = pa.Table.from_arrays([pa.array(numbers, field.type)], schema=pa.schema([field]))
    pq.write_table(made, path, store_schema=False, **options)
    return str(path)


def read(groups, *, room=2**20):
    return read_groups(IO, groups, WANTED, given=(), room=room)


def test_groups_and_the_files_of_each_keep_their_order(tmp_path):
    names = [stored(tmp_path / f"{number}.parquet", [number, -number]) for number in range(100)]
    first, second = read([names[60:], names[:60]])
    assert first.column("number").to_pylist() == [sign * one for one in range(60, 100) for sign in (1, -1)]
    assert second.column("number").to_pylist() == [sign * one for one in range(60) for sign in (1, -1)]
    assert second.column("text").null_count == 120


def test_files_of_several_shapes_are_joined_as_the_table_is_now(tmp_path):
    both = pa.table({"t": ["a", None], "n": [3, 4]}).cast(
        pa.schema([WANTED.field("text").with_name("t"), WANTED.field("number").with_name("n")])
    )
    pq.write_table(both, tmp_path / "b.parquet", store_schema=False)
    narrow = stored(tmp_path / "a.parquet", [1, 2], kind=pa.int32())
    (found,) = read([[narrow, str(tmp_path / "b.parquet"), narrow]])
    assert found.schema.equals(WANTED, check_metadata=True)
    assert found.to_pylist() == [
        {"number": 1, "text": None},
        {"number": 2, "text": None},
        {"number": 3, "text": "a"},
        {"number": 4, "text": None},
        {"number": 1, "text": None},
        {"number": 2, "text": None},
    ]
    assert {one.num_chunks for one in found.itercolumns()} == {1}


def test_rows_that_need_more_room_than_there_is_are_refused(tmp_path):
    names = [stored(tmp_path / f"{number}.parquet", [0] * 1000) for number in range(3)]
    each = 8 * 1000 + 125  # and a bit a row that says which are null
    assert read([names], room=3 * each)[0].num_rows == 3000
    with pytest.raises(UnfitError, match="too much"):
        read([names], room=3 * each - 1)


def test_of_a_long_text_in_a_dictionary_no_more_is_decoded_than_there_is_room_for(tmp_path):
    made = pa.table({"text": ["x" * 100_000] * 3000}, schema=pa.schema([WANTED.field("text")]))
    pq.write_table(made, tmp_path / "x.parquet", store_schema=False, compression="zstd")
    del made
    assert (tmp_path / "x.parquet").stat().st_size < 2000
    pool = pa.default_memory_pool()
    usual = pa.proxy_memory_pool(pool)  # tells the most of what is taken from now on
    pa.set_memory_pool(usual)
    try:
        with pytest.raises(UnfitError, match="too much"):
            read([[str(tmp_path / "x.parquet")]], room=2**20)
    finally:
        pa.set_memory_pool(pool)
    assert usual.max_memory() < 64 * 2**20


@pytest.mark.parametrize(
    ("rows", "kind", "pieces"),
    [(500, pa.int64(), 1), (70_000, pa.int64(), 2), (500, pa.list_(pa.int64()), 4)],
)
def test_a_small_flat_file_is_decoded_in_one_piece(tmp_path, monkeypatch, rows, kind, pieces):
    seen = []

    class Noted(pq.ParquetFile):
        def iter_batches(self, *given, **named):
            for one in super().iter_batches(*given, **named):
                seen.append(one.num_rows)
                yield one

    values = [1] * rows if kind == pa.int64() else [[1]] * rows
    field = pa.field("number", kind, metadata={"PARQUET:field_id": "1"})
    wanted = pa.schema([field])
    pq.write_table(pa.Table.from_arrays([pa.array(values, kind)], schema=wanted), tmp_path / "x", store_schema=False)
    monkeypatch.setattr(pq, "ParquetFile", Noted)
    (found,) = read_groups(IO, [[str(tmp_path / "x")]], wanted, given=(), room=2**24)
    assert found.num_rows == rows
    assert len(seen) == pieces


def test_what_is_too_much_as_it_is_stored_is_not_decoded(tmp_path, monkeypatch):
    name = stored(tmp_path / "x.parquet", list(range(1000)), use_dictionary=False)
    monkeypatch.setattr(pq.ParquetFile, "iter_batches", lambda *_, **__: pytest.fail("decoded"))
    with pytest.raises(UnfitError, match="too much"):
        read([[name]], room=7000)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not Parquet at all" * 100])
def test_what_is_no_parquet_is_left_to_spark(tmp_path, content):
    (tmp_path / "x.parquet").write_bytes(content)
    with pytest.raises(UnfitError):
        read([[stored(tmp_path / "y.parquet", [1]), str(tmp_path / "x.parquet")]])


def test_a_file_of_other_columns_is_refused(tmp_path):
    with pytest.raises(UnfitError, match="column number"):
        read([[stored(tmp_path / "x.parquet", ["a"], kind=pa.string())]])


def test_a_file_that_is_gone_is_no_matter_of_formats(tmp_path):
    name = stored(tmp_path / "x.parquet", [1])
    with pytest.raises(FileNotFoundError):
        read([[name, str(tmp_path / "gone.parquet")]])


def test_bytes_are_the_objects_own(tmp_path):
    (tmp_path / "x").write_bytes(b"0123456789" * 1000)
    assert fetched(IO, str(tmp_path / "x")).to_pybytes() == b"0123456789" * 1000


def test_after_a_refusal_no_more_is_fetched(tmp_path):
    (tmp_path / "0.parquet").write_bytes(b"not Parquet at all")
    names = [stored(tmp_path / f"{number}.parquet", [number]) for number in range(1, 3000)]
    asked = []

    class Counted(PyArrowFileIO):
        def new_input(self, location):
            asked.append(location)
            time.sleep(0.01)
            return super().new_input(location)

    with pytest.raises(UnfitError):
        read_groups(Counted(), [[str(tmp_path / "0.parquet"), *names]], WANTED, given=(), room=2**20)
    assert len(asked) < 1500
