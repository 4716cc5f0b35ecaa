"""What a rewrite's proof looks at, and tables of all kinds: types, columns that came later, other partitions."""

import datetime as dt
import math
from decimal import Decimal

import pytest

from lake.contract import Contract, Field, ListOf, PartitionField, Primitive, StructOf
from lake.declaration import Jobs
from spark_jobs import compact
from spark_jobs.compact_digest import digest, sums
from spark_jobs.compact_order import interleaved, quantiles


def seen(spark, schema, *rows):
    made = spark.createDataFrame(list(rows), schema)
    return digest(made.agg(*sums(made)).collect()[0].asDict())


@pytest.mark.parametrize(
    ("schema", "one", "other"),
    [
        ("a int, b int", (1, None), (None, 1)),
        ("a int, b int", (1, 1), (1, None)),
        ("a string, b string", ("ab", "c"), ("a", "bc")),
        ("a string", ("",), (None,)),
        ("s struct<a: int, b: int>", ((1, None),), ((None, 1),)),
        ("s struct<a: int, b: int>", ((None, None),), (None,)),
        ("s struct<a: struct<b: int>, c: struct<b: int>>", (((None,), None),), ((None, (None,)),)),
        ("l array<int>", ([1, None],), ([None, 1],)),
        ("l array<int>", ([],), (None,)),
        ("l array<int>", ([],), ([None],)),
        ("l array<array<int>>", ([[], [1]],), ([[1], []],)),
        ("l array<struct<a: int, b: int>>", ([(1, None)],), ([(None, 1)],)),
        ("d decimal(20, 2)", (Decimal("1.10"),), (Decimal("11.00"),)),
        ("d decimal(38, 2)", (Decimal("123456789012345678901234567890.12"),), (Decimal("0.12"),)),
        ("b binary", (b"\x00",), (b"\x00\x00",)),
        ("b binary", (b"",), (None,)),
        ("x double", (math.nan,), (None,)),
        ("x double", (math.nan,), (0.0,)),
        ("t timestamp", (dt.datetime(2020, 1, 1, tzinfo=dt.UTC),), (dt.datetime(2020, 1, 1, 0, 0, 0, 1, dt.UTC),)),
    ],
)
def test_what_differs_in_any_way_has_another_digest(spark, schema, one, other):
    assert seen(spark, schema, one) != seen(spark, schema, other)


def test_the_order_of_rows_makes_no_difference_and_their_number_does(spark):
    schema, rows = "a int, x double", [(1, math.nan), (2, None), (1, math.nan)]
    assert seen(spark, schema, *rows) == seen(spark, schema, *reversed(rows))
    assert seen(spark, schema, *rows) != seen(spark, schema, *rows[:2])
    # two equal rows don't cancel each other out
    assert seen(spark, schema, *rows, *rows) != seen(spark, schema)


RICH = Contract(
    dataset="visits",
    version="1.0.0",
    fields=(
        Field("price", Primitive("decimal", 20, 4)),
        Field("ratio", Primitive("double")),
        Field("small", Primitive("float")),
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
_VALUES = {
    "price": "IF(id % 5 = 0, NULL, CAST(id AS decimal(20, 4)) / 8)",
    "ratio": "CASE id % 4 WHEN 0 THEN double('NaN') WHEN 1 THEN NULL WHEN 2 THEN double('-Infinity') ELSE id / 3 END",
    "small": "CAST(IF(id % 3 = 0, float('NaN'), id) AS float)",
    "born": "date_add(date'2013-01-01', int(id))",
    "local": "timestamp_ntz'2013-03-31 02:30:00'",
    "flag": "IF(id % 3 = 0, NULL, id % 2 = 0)",
    "tags": "IF(id % 4 = 0, NULL, array('a', NULL, string(id)))",
    "place": "IF(id % 6 = 0, NULL, named_struct('city', IF(id % 2 = 0, NULL, 'Oslo'), 'spots', array(int(id), NULL)))",
    "raw": "unhex(hex(id))",
}


def append(world, first, count, values, *, spark=None, files=1):
    given = {"event_id": "string(id)", "event_time": "timestamp'2013-01-01 01:00:00' + make_dt_interval(0, 0, id)"}
    given |= values
    session = spark or world.spark
    name = f"lake.{world.lake.names.database('solo')}.visits"
    columns = [
        f"{given[one]} AS {one}" if one in given else f"CAST(NULL AS {kind}) AS {one}"
        for one, kind in session.table(name).dtypes
    ]
    rows = session.range(first, first + count, 1, files).selectExpr(*columns)
    rows.writeTo(name).option("distribution-mode", "none").append()


def compacted(world):
    (done,) = compact.run(world.spark, world.lake, world.cloud, datasets=["visits"], owners=["solo"]).tables
    return done


def told(world):
    """Rows as text, in which a NaN equals another."""
    return [repr(row) for row in world.rows("solo")]


def test_every_type_survives_with_its_nulls_and_what_is_no_number(worlds):
    world = worlds(RICH)
    for number in range(3):
        append(world, number * 20, 20, _VALUES)
    before = told(world)
    assert compacted(world).files_after == 1
    assert told(world) == before
    assert "nan" in before[0]


def test_files_from_before_a_column_came_or_widened_are_rewritten_with_those_from_after(world):
    append(world, 0, 10, {"page": "'/old'", "seconds": "int(id)"})
    with world.table("solo").update_schema() as change:
        change.add_column("mood", world.table("solo").schema().find_type("page"))
        change.update_column("seconds", field_type=world.table("solo").schema().find_type("sequence"))
    append(world, 10, 10, {"page": "'/new'", "seconds": "5000000000", "mood": "'fine'"}, spark=world.spark.newSession())
    before = told(world)
    assert compacted(world).files_after == 1
    assert told(world) == before
    rows = world.rows("solo")
    assert {(one["page"], one["mood"]) for one in rows} == {("/old", None), ("/new", "fine")}
    assert {one["seconds"] for one in rows} == {*range(10), 5_000_000_000}


def test_a_column_that_comes_while_a_rewrite_is_under_way_is_no_obstacle(world):
    for number in range(3):
        append(world, number * 10, 10, {"page": "'/'"})

    def grow(step):
        if step == "write":
            with world.table("solo").update_schema() as change:
                change.add_column("mood", world.table("solo").schema().find_type("page"))

    (done,) = compact.run(world.spark, world.lake, world.cloud, datasets=["visits"], owners=["solo"], after=grow).tables
    assert (done.rewritten, done.files_after) == (True, 1)
    assert [one["mood"] for one in world.rows("solo")] == [None] * 30


def test_files_of_an_older_partitioning_stay_in_it(world):
    for number in range(2):
        append(world, number * 10, 10, {"page": "'/a'"})
    with world.table("solo").update_spec() as change:
        change.add_identity("page")
    for number in range(2, 6):
        append(world, number * 10, 10, {"page": f"'/{number % 2}'"}, spark=world.spark.newSession())
    before = told(world)
    assert compacted(world).files_after == 3
    assert told(world) == before
    files = world.table("solo").inspect.data_files().to_pylist()
    assert sorted((one["spec_id"], one["partition"]["page"]) for one in files) == [(0, None), (1, "/0"), (1, "/1")]
    assert not compacted(world).rewritten


def test_quantiles_leave_out_what_has_no_order():
    assert quantiles([3.0, math.nan, None, 1.0, 2.0, 4.0], 2) == [3.0]
    assert quantiles([None], 4) == []


def test_the_highest_bits_of_all_keys_come_first():
    assert interleaved((0b100000, 0)) > interleaved((0b011111, 0b111111))
    assert interleaved((0b111111, 0b111111)) == 2**12 - 1


ZORDERED = Contract(
    dataset="visits",
    version="1.0.0",
    fields=(Field("page", Primitive("string")), Field("seconds", Primitive("int"))),
    partition=(PartitionField("month", "event_time"),),
    sort=("event_time",),
    zorder=("page", "seconds"),
)


def opened(world, condition):
    """Files that a query opens."""
    return len(list(world.table("solo").scan(row_filter=condition).plan_files()))


def test_in_z_order_a_query_by_either_key_opens_few_files(worlds):
    world = worlds(ZORDERED, Jobs(compact_target_mib=1))
    spark = world.spark
    spark.sql(
        f"ALTER TABLE lake.{world.lake.names.database('solo')}.visits "
        "SET TBLPROPERTIES ('write.parquet.compression-codec' = 'uncompressed')"
    )
    for number in range(4):
        # a fifth of the rows is of one page
        page = "concat('/p/', IF(id % 5 = 0, '0', lpad((id * 7919) % 500, 3, 0)))"
        moment = "timestamp'2013-01-01' + make_dt_interval(0, 0, 0, id)"
        values = {"event_id": "uuid()", "event_time": moment, "producer_id": "uuid()"}
        values |= {"page": page, "seconds": "int((id * 104729) % 1000)"}
        append(world, number * 30_000, 30_000, values, files=6)
    done = compacted(world)
    assert (done.files_before, done.files_after >= 8) == (24, True)
    assert spark.table(f"lake.{world.lake.names.database('solo')}.visits").count() == 120_000
    # where one value falls depends on where files begin; ten of them together don't
    by_page = [opened(world, f"page = '/p/{number:03d}'") for number in range(1, 500, 50)]
    by_seconds = [opened(world, f"seconds = {number}") for number in range(0, 1000, 100)]
    assert sum(by_page) / 10 <= done.files_after / 2
    assert sum(by_seconds) / 10 <= done.files_after / 2
    assert not compacted(world).rewritten
