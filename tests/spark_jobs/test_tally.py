"""The day on which an event was made, as its id tells: the same to Spark SQL, to Arrow and to Python."""

import pyarrow as pa

from lake.envelope import made_day
from spark_jobs.counting import made_days
from spark_jobs.tally import MADE_DAY

ID = "013bf3f5-6800-7000-8000-000000000001"
IDS = [ID, f"{ID}\n", f"{ID}\r\n", f"{ID}\u2028", f"\n{ID}", f"{ID} ", ID.upper(), ID[:-1], "x", ""]


def test_all_three_take_the_same_ids_for_uuids_of_version_7(spark):
    rows = spark.createDataFrame([(one,) for one in IDS], "event_id string").selectExpr(f"{MADE_DAY} AS day").collect()
    by_python = [made_day(one) != "-" for one in IDS]
    assert by_python == [True] + [False] * (len(IDS) - 1)
    assert [row.day is not None for row in rows] == by_python
    assert [one >= 0 for one in made_days(pa.array(IDS))] == by_python
    assert rows[0].day == made_days(pa.array([ID]))[0]
