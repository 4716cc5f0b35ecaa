"""Small rewrites by Arrow: what it carries, what it leaves to Spark, and that its files are those that Spark writes."""

import math
import struct
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyiceberg.schema import Schema
from pyiceberg.types import DoubleType, ListType, LongType, MapType, NestedField, StringType, TimeType, UUIDType

from lake.contract import Contract, Field, ListOf, PartitionField, Primitive, StructOf
from lake.errors import FindingError
from spark_jobs import compact, compact_look
from spark_jobs.compact_arrow import ArrowRewriter, holds
from spark_jobs.compact_columns import UnfitError, aligned, arrow_schema, longest, order_of, repeating
from spark_jobs.compact_plan import Rules
from spark_jobs.compact_rewrite import Rewriter

STEPS = ("plan", "stage", "write", "prove")
RICH = Contract(
    dataset="visits",
    version="1.0.0",
    fields=(
        Field("page", Primitive("string")),
        Field("seconds", Primitive("int")),
        Field("price", Primitive("decimal", 20, 4)),
        Field("fee", Primitive("decimal", 9, 2)),
        Field("ratio", Primitive("double")),
        Field("small", Primitive("float")),
        Field("never", Primitive("double")),
        Field("born", Primitive("date")),
        Field("local", Primitive("timestamp")),
        Field("flag", Primitive("boolean")),
        Field("tags", ListOf(Primitive("string"))),
        Field("place", StructOf((Field("city", Primitive("string")), Field("spots", ListOf(Primitive("int")))))),
        Field("raw", Primitive("binary")),
    ),
    partition=(PartitionField("day", "event_time"),),
    sort=("event_time", "ratio"),
)
VALUES = {
    "event_id": "uuid()",
    "sequence": "id",
    "event_time": "timestamp'2013-01-01 01:00:00' + make_dt_interval(int(id % 3), 0, 0, int(id % 5))",
    "page": "concat('/a/page/with/a/long/name/', id, '\u00e9')",
    "seconds": "IF(id % 7 = 0, NULL, int(id % 100))",
    "price": "IF(id % 5 = 0, NULL, CAST(id AS decimal(20, 4)) / 8)",
    "fee": "CAST(-id AS decimal(9, 2))",
    "ratio": "CASE id % 4 WHEN 0 THEN double('NaN') WHEN 1 THEN NULL WHEN 2 THEN double('-Infinity') ELSE id / 3 END",
    # a negative zero within the bounds: as a bound, Parquet's rules make it a plain one
    "small": "IF(id % 3 = 0, float('NaN'), float(CASE id % 4 WHEN 0 THEN -double(0) WHEN 1 THEN id ELSE -id END))",
    "never": "double('NaN')",
    "born": "date_add(date'1960-01-01', int(id * 400))",
    "local": "timestamp_ntz'2013-03-31 02:30:00' + make_dt_interval(0, 0, 0, id)",
    "flag": "IF(id % 3 = 0, NULL, id % 2 = 0)",
    "tags": "IF(id % 4 = 0, NULL, array('a', NULL, string(id)))",
    "place": "IF(id % 6 = 0, NULL, named_struct('city', IF(id % 2 = 0, NULL, 'Oslo'), 'spots', array(int(id), NULL)))",
    "raw": "unhex(hex(id))",
}


def append(world, first, count, values, *, spark=None):
    """Append rows as one write, a file for each day."""
    session = spark or world.spark
    name = f"lake.{world.lake.names.database('solo')}.visits"
    columns = [
        f"CAST({values[one]} AS {kind}) AS {one}" if one in values else f"CAST(NULL AS {kind}) AS {one}"
        for one, kind in session.table(name).dtypes
    ]
    session.range(first, first + count, 1, 1).selectExpr(*columns).writeTo(name).append()


SIMPLE = {one: VALUES[one] for one in ("event_id", "sequence", "event_time", "page", "seconds")}


@pytest.fixture
def by(monkeypatch):
    """Compact by Arrow or by Spark, where the same table lets one choose."""

    def compacted(world, way="arrow", **options):
        monkeypatch.setattr(compact_look, "Rules", partial(Rules, arrow_bytes=2**26 if way == "arrow" else 0))
        given = {"datasets": ["visits"], "owners": ["solo"], **options}
        (done,) = compact.run(world.spark, world.lake, world.cloud, **given).tables
        return done

    return compacted


def delete(world, condition):
    name = f"lake.{world.lake.names.database('solo')}.visits"
    world.spark.newSession().sql(f"DELETE FROM {name} WHERE {condition}")  # noqa: S608 - the test's own


def data_files(world):
    return [task.file for task in world.table("solo").scan().plan_files()]


def writers(world):
    """The programs that wrote a table's files, as their footers tell."""
    table = world.table("solo")
    found = set()
    for one in data_files(world):
        with table.io.new_input(one.file_path).open() as stream:
            found.add(pq.ParquetFile(stream).metadata.created_by.split()[0])
    return found


def objects(world):
    pages = world.cloud.s3.get_paginator("list_objects_v2").paginate(Bucket=world.bucket("solo"))
    return {one["Key"] for page in pages for one in page.get("Contents", []) if one["Key"].endswith(".parquet")}


def told(world):
    """Rows as text, in which a NaN equals another, as PyIceberg reads them and as Spark does."""
    name = f"lake.{world.lake.names.database('solo')}.visits"
    spark = [repr(row.asDict(recursive=True)) for row in world.spark.newSession().table(name).collect()]
    return [repr(row) for row in world.rows("solo")], sorted(spark)


def described(world):
    """What the manifests say of each file, but its name and sizes, by partition."""
    return {
        repr(one.partition): {
            "spec": one.spec_id,
            "order": one.sort_order_id,
            "rows": one.record_count,
            "row groups": len(one.split_offsets),
            "values": one.value_counts,
            "nulls": one.null_value_counts,
            "no numbers": one.nan_value_counts,
            "from": one.lower_bounds,
            "to": one.upper_bounds,
        }
        for one in data_files(world)
    }


def test_arrow_writes_the_files_that_spark_writes(worlds, by):
    ways = {}
    for way in ("spark", "arrow"):
        world = worlds(RICH)
        for number in range(3):
            append(world, number * 30, 30, {**VALUES, "event_id": "lpad(string(id * 37 % 90), 36, '0')"})
        before = told(world)
        assert by(world, way).files_after == 3
        assert told(world) == before
        ways[way] = (writers(world), described(world))
        assert not by(world, way).rewritten
    assert (ways["spark"][0], ways["arrow"][0]) == ({"parquet-mr"}, {"parquet-cpp-arrow"})
    assert ways["arrow"][1] == ways["spark"][1]


def test_rows_lie_in_the_same_order_as_spark_puts_them(worlds, by):
    orders = []
    for way in ("spark", "arrow"):
        world = worlds(RICH)
        for number in range(3):
            # no two rows alike by both keys, but for those without a second
            append(world, number * 30, 30, {**VALUES, "event_time": "timestamp'2013-01-01 01:00:00'"})
        by(world, way)
        (file,) = data_files(world)
        with world.table("solo").io.new_input(file.file_path).open() as stream:
            found = pq.ParquetFile(stream).read(["ratio"]).column(0)
        orders.append([str(one) for one in found.to_pylist()])
    assert orders[0] == orders[1]
    assert (orders[0][0], orders[0][-1]) == ("None", "nan")


def test_a_query_that_rules_out_a_file_by_its_bounds_still_does(world, by):
    for number in range(3):
        append(world, number * 30, 30, SIMPLE)
    by(world)
    assert writers(world) == {"parquet-cpp-arrow"}
    scan = world.table("solo").scan
    assert [len(list(scan(row_filter=one).plan_files())) for one in ("sequence > 90", "sequence = 89")] == [0, 1]
    name = f"lake.{world.lake.names.database('solo')}.visits"
    assert world.spark.table(name).where("sequence >= 88").count() == 2


def test_a_row_that_is_no_number_outlives_a_delete_that_the_bounds_alone_would_grant(worlds, by):
    world = worlds(RICH)
    for number in range(2):
        values = {**SIMPLE, "event_time": "timestamp'2013-01-01'", "ratio": "IF(id % 2 = 0, double('NaN'), 1)"}
        append(world, number * 10, 10, values)
    by(world)
    assert writers(world) == {"parquet-cpp-arrow"}
    delete(world, "ratio < 5")
    assert [math.isnan(row["ratio"]) for row in world.rows("solo")] == [True] * 10


def test_files_from_before_a_column_came_or_widened_are_read_as_the_table_is_now(world, by):
    append(world, 0, 10, SIMPLE)
    with world.table("solo").update_schema() as change:
        change.add_column("mood", StringType())
        change.update_column("seconds", field_type=LongType())
    values = {**SIMPLE, "seconds": "5000000000", "mood": "'fine'"}
    append(world, 10, 10, values, spark=world.spark.newSession())
    before = told(world)
    by(world)
    assert writers(world) == {"parquet-cpp-arrow"}
    assert told(world) == before


def test_a_column_that_was_dropped_and_made_anew_shows_nothing_of_the_old(world, by):
    append(world, 0, 10, SIMPLE)
    with world.table("solo").update_schema() as change:
        change.delete_column("page")
    with world.table("solo").update_schema() as change:
        change.add_column("page", StringType())
    append(world, 10, 10, {**SIMPLE, "page": "'new'"}, spark=world.spark.newSession())
    by(world)
    assert writers(world) == {"parquet-cpp-arrow"}
    assert {row["page"] for row in world.rows("solo")} == {None, "new"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("write.parquet.bloom-filter-enabled.column.page", "true"),
        ("write.parquet.compression-codec", "lz4"),
    ],
)
def test_a_table_that_asks_for_more_is_left_to_spark(world, by, name, value):
    world.spark.sql(
        f"ALTER TABLE lake.{world.lake.names.database('solo')}.visits SET TBLPROPERTIES ('{name}' = '{value}')"
    )
    for number in range(2):
        append(world, number * 10, 10, SIMPLE)
    before = sorted(row["sequence"] for row in world.rows("solo"))
    assert by(world).rewritten
    assert writers(world) == {"parquet-mr"}
    assert sorted(row["sequence"] for row in world.rows("solo")) == before


def test_rows_of_a_later_version_have_ids_and_are_left_to_spark(world, by, monkeypatch):
    name = f"lake.{world.lake.names.database('solo')}.visits"
    world.spark.sql(f"ALTER TABLE {name} SET TBLPROPERTIES ('format-version' = '3')")
    for number in range(2):
        append(world, number * 10, 10, SIMPLE)

    def stop(*_):
        raise FindingError("this is Spark's")

    monkeypatch.setattr(Rewriter, "_write", stop)
    with pytest.raises(FindingError, match="this is Spark's"):
        by(world)


def test_files_with_deletes_or_long_texts_are_left_to_spark(worlds, by):
    for values in (SIMPLE, {**SIMPLE, "page": "repeat('x', 5000)"}):
        world = worlds()
        name = f"lake.{world.lake.names.database('solo')}.visits"
        world.spark.sql(f"ALTER TABLE {name} SET TBLPROPERTIES ('write.delete.mode' = 'merge-on-read')")
        for number in range(2):
            append(world, number * 10, 10, {**values, "event_time": "timestamp'2013-01-01'"})
        gone = "sequence = 3" if values is SIMPLE else "sequence = 100"
        delete(world, gone)
        assert by(world).rewritten
        assert writers(world) == {"parquet-mr"}
        assert {row["sequence"] for row in world.rows("solo")} == set(range(20)) - ({3} if values is SIMPLE else set())


def test_files_lie_where_the_table_wants_them_and_packed_as_it_says(world, by):
    name = f"lake.{world.lake.names.database('solo')}.visits"
    world.spark.sql(
        f"ALTER TABLE {name} SET TBLPROPERTIES ('write.object-storage.enabled' = 'true', "
        "'write.parquet.compression-codec' = 'gzip', 'write.parquet.row-group-size-bytes' = '4096')"
    )
    for number in range(2):
        append(world, number * 900, 900, {**SIMPLE, "event_time": "timestamp'2013-01-01'"})
    before = told(world)
    by(world)
    (file,) = data_files(world)
    folders = file.file_path.removeprefix(world.table("solo").location()).split("/")
    assert all(set(one) <= {"0", "1"} for one in folders[2:6])
    with world.table("solo").io.new_input(file.file_path).open() as stream:
        found = pq.ParquetFile(stream).metadata
    assert (found.created_by.split()[0], found.row_group(0).column(0).compression) == ("parquet-cpp-arrow", "GZIP")
    assert found.num_row_groups == len(file.split_offsets) > 4
    assert told(world) == before


def test_a_table_without_partitions_has_its_files_where_spark_puts_them(worlds, by):
    folders = []
    for way in ("spark", "arrow"):
        world = worlds(Contract(dataset="visits", version="1.0.0", fields=RICH.fields[:2], partition=(), sort=()))
        for number in range(2):
            append(world, number * 10, 10, SIMPLE)
        before = told(world)
        by(world, way)
        (file,) = data_files(world)
        folders.append(file.file_path.removeprefix(world.table("solo").location()).rpartition("/")[0])
        assert told(world) == before
    assert folders == ["/data", "/data"]


@pytest.mark.parametrize("way", ["spark", "arrow"])
def test_files_with_other_content_than_was_read_are_never_committed(world, by, way):
    world.spark.sql(
        f"ALTER TABLE lake.{world.lake.names.database('solo')}.visits "
        "SET TBLPROPERTIES ('write.parquet.compression-codec' = 'uncompressed')"
    )
    for number in range(3):
        append(world, number * 20, 20, {**SIMPLE, "event_time": "timestamp'2013-01-01'", "page": "concat('/p', id)"})
    before, snapshot, rows = objects(world), world.table("solo").current_snapshot(), told(world)

    def spoil(step):
        if step == "write":
            (key,) = objects(world) - before
            at = {"Bucket": world.bucket("solo"), "Key": key}
            body = world.cloud.s3.get_object(**at)["Body"].read()
            assert b"/p17" in body
            world.cloud.s3.put_object(**at, Body=body.replace(b"/p17", b"/p71"))

    with pytest.raises(FindingError, match="60 rows went in and 60 came out, or with other"):
        by(world, way, after=spoil)
    assert world.table("solo").current_snapshot() == snapshot
    assert (objects(world), told(world)) == (before, rows)


@pytest.mark.parametrize("way", ["spark", "arrow"])
def test_a_file_that_is_cut_short_is_never_committed(world, by, way):
    for number in range(3):
        append(world, number * 20, 20, {**SIMPLE, "event_time": "timestamp'2013-01-01'"})
    before = objects(world)

    def spoil(step):
        if step == "write":
            (key,) = objects(world) - before
            at = {"Bucket": world.bucket("solo"), "Key": key}
            world.cloud.s3.put_object(**at, Body=world.cloud.s3.get_object(**at)["Body"].read()[:-100])

    snapshot = world.table("solo").current_snapshot()
    with pytest.raises(Exception, match="visits"):
        by(world, way, after=spoil)
    assert world.table("solo").current_snapshot() == snapshot
    assert objects(world) == before


def test_what_was_written_before_a_failure_is_taken_away_again(world, by, monkeypatch):
    for number in range(3):
        append(world, number * 30, 30, SIMPLE)
    before, put, calls = objects(world), ArrowRewriter._put, []

    def fail_at_the_second(self, path, output):
        calls.append(path)
        if len(calls) == 2:
            raise OSError("the way there is cut")
        put(self, path, output)

    monkeypatch.setattr(ArrowRewriter, "_put", fail_at_the_second)
    with pytest.raises(Exception, match="the way there is cut"):
        by(world)
    assert (len(calls), objects(world)) == (2, before)


@pytest.mark.parametrize("way", ["spark", "arrow"])
@pytest.mark.parametrize("step", STEPS)
def test_no_row_that_is_deleted_meanwhile_comes_back(world, by, step, way):
    name = f"lake.{world.lake.names.database('solo')}.visits"
    world.spark.sql(f"ALTER TABLE {name} SET TBLPROPERTIES ('write.delete.mode' = 'merge-on-read')")
    for number in range(2):
        append(world, number * 10, 10, {**SIMPLE, "event_time": "timestamp'2013-01-01'"})

    def interfere(at):
        if at == step:
            delete(world, "sequence IN (3, 15)")

    done = by(world, way, after=interfere)
    assert len(done.conflicts) == 1
    assert {row["sequence"] for row in world.rows("solo")} == set(range(20)) - {3, 15}


PLAIN = arrow_schema(Schema(NestedField(1, "a", LongType()), NestedField(2, "x", DoubleType())))


@pytest.mark.parametrize(
    "kind",
    [
        UUIDType(),
        TimeType(),
        MapType(3, StringType(), 4, StringType()),
        ListType(3, DoubleType()),
    ],
)
def test_types_that_arrow_does_not_carry_bit_for_bit_are_refused(kind):
    with pytest.raises(UnfitError):
        arrow_schema(Schema(NestedField(1, "a", kind)))


@pytest.mark.parametrize(
    "found",
    [
        pa.schema([pa.field("a", pa.int64())]),
        pa.schema([pa.field("a", pa.string(), metadata={"PARQUET:field_id": "1"})]),
        pa.schema([pa.field("x", pa.int64(), metadata={"PARQUET:field_id": "2"})]),
    ],
)
def test_files_without_ids_or_with_other_types_are_refused(found):
    with pytest.raises(UnfitError):
        aligned(found.empty_table(), PLAIN, ())


def test_a_column_that_a_file_leaves_to_its_partition_is_not_taken_for_null():
    found = pa.schema([PLAIN.field("x")]).empty_table()
    assert aligned(found, PLAIN, ()).num_columns == 2
    with pytest.raises(UnfitError):
        aligned(found, PLAIN, {1})


def test_order_is_nulls_first_and_what_is_no_number_last():
    given = pa.table({"x": [2.0, math.nan, None, -math.inf, math.inf], "t": ["e", "d", "c", "b", "a"]})
    assert list(order_of(given, ["x"])) == [2, 3, 0, 4, 1]
    assert list(order_of(given, ["t"])) == [4, 3, 2, 1, 0]
    assert order_of(given, []) is None


def test_the_longest_text_is_found_inside_of_structs_too():
    assert longest(pa.table({"s": [{"t": "abc"}, None], "n": [1, 2]})) == 3


def test_only_columns_whose_values_repeat_get_a_dictionary(tmp_path):
    count = 5000
    place = [{"city": "Oslo", "spots": [1, number % 3]} for number in range(count)]
    given = pa.table(
        {
            "time": pa.array(range(count), pa.timestamp("us", "UTC")),
            "id": [f"{number:036}" for number in range(count)],
            "page": [f"/page/{number % 90}" if number % 4 else None for number in range(count)],
            "amount": [number % 7 / 8 for number in range(count)],
            "never": pa.nulls(count, pa.string()),
            "flag": [number % 2 == 0 for number in range(count)],
            "place": place,
        }
    )
    pq.write_table(given, tmp_path / "f.parquet", use_dictionary=repeating(given))
    group = pq.read_metadata(tmp_path / "f.parquet").row_group(0)
    columns = [group.column(index) for index in range(group.num_columns)]
    coded = [one.path_in_schema for one in columns if one.has_dictionary_page]
    assert coded == ["page", "amount", "place.city", "place.spots.list.element"]


def other_nan():
    return struct.unpack("<d", struct.pack("<Q", 0x7FF8000000000001))[0]


@pytest.mark.parametrize(
    ("rows", "same"),
    [
        ([(3, math.nan), (1, None), (2, 0.0)], True),
        ([(3, math.nan), (1, None), (2, -0.0)], False),
        ([(3, None), (1, None), (2, 0.0)], False),
        ([(3, other_nan()), (1, None), (2, 0.0)], False),
        ([(1, None), (3, math.nan), (2, 0.0)], False),
        ([(3, math.nan), (1, None), (1, None)], False),
        ([(3, math.nan), (1, None)], False),
        ([(3, math.nan), (1, None), (2, 0.0), (2, 0.0)], False),
    ],
)
def test_a_file_is_proven_only_by_the_very_rows_in_their_places(tmp_path, rows, same):
    def table(values):
        return pa.Table.from_arrays(
            [pa.array(one, kind) for one, kind in zip(values, PLAIN.types, strict=True)], schema=PLAIN
        )

    source = table([[1, 2, 3], [None, 0.0, math.nan]])
    pq.write_table(table(list(zip(*rows, strict=True))), tmp_path / "f.parquet", store_schema=False)
    assert holds(pq.ParquetFile(tmp_path / "f.parquet"), source, np.array([2, 0, 1])) is same


def test_an_order_that_leaves_a_row_out_proves_nothing(tmp_path):
    source = pa.Table.from_arrays([pa.array([1, 2], pa.int64()), pa.array([1.0, 2.0])], schema=PLAIN)
    pq.write_table(source.take([0, 0]), tmp_path / "f.parquet", store_schema=False)
    assert not holds(pq.ParquetFile(tmp_path / "f.parquet"), source, np.array([0, 0]))
