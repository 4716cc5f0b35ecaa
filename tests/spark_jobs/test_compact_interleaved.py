"""Deletes, appends and other compactions in the middle of a compaction: no row comes back, none is lost.

One table lives through all schedules, so that each starts from what the one before it has left. Writers are other
sessions of Spark, PyIceberg, and in the last test a process of its own.
"""

import json
import os
import random
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from spark_jobs import compact

ROOT = Path(__file__).parents[2]
STEPS = ("plan", "stage", "write", "prove")
DAY = 86_400


class Table:
    """A table, what it is to hold, and those who change it."""

    def __init__(self, world):
        self.world = world
        self.database = world.lake.names.database("solo")
        self.name = f"lake.{self.database}.visits"
        self.wanted = set()
        self.following = 0
        self.done = Counter()

    def append(self, chance):
        """A few rows of one of two days, in a file of their own."""
        numbers = range(self.following, self.following + chance.randint(3, 9))
        self.following = numbers.stop
        moment = datetime.fromtimestamp(1_356_998_400 + DAY * chance.randint(0, 1), UTC)
        times = pa.array([moment] * len(numbers), pa.timestamp("us", "UTC"))
        self.iceberg().append(pa.table({"sequence": pa.array(list(numbers), pa.int64()), "event_time": times}))
        self.wanted |= set(numbers)

    def delete_merge_on_read(self, chance):
        self._delete(chance, "merge-on-read", chance.choice(["file", "partition"]))

    def delete_copy_on_write(self, chance):
        self._delete(chance, "copy-on-write", "file")

    def _delete(self, chance, mode, granularity):
        gone = self._some(chance)
        session = self.world.spark.newSession()
        session.sql(
            f"ALTER TABLE {self.name} SET TBLPROPERTIES "
            f"('write.delete.mode' = '{mode}', 'write.delete.granularity' = '{granularity}')"
        )
        session.sql(f"DELETE FROM {self.name} WHERE sequence IN ({', '.join(map(str, gone))})")  # noqa: S608
        self.wanted -= set(gone)

    def delete_by_pyiceberg(self, chance):
        gone = self._some(chance)
        self.iceberg().delete(f"sequence in ({', '.join(map(str, gone))})")
        self.wanted -= set(gone)

    def compact_too(self, _):
        self.compact()

    def _some(self, chance):
        return chance.sample(sorted(self.wanted), min(3, len(self.wanted)))

    def iceberg(self):
        return self.world.table("solo")

    def compact(self, after=lambda _: None):
        run = compact.run(
            self.world.spark, self.world.lake, self.world.cloud, datasets=["visits"], owners=["solo"], after=after
        )
        return run.tables[0]

    def rows(self):
        """As Spark reads them; two of a number count twice."""
        return sorted(row["sequence"] for row in self.world.spark.newSession().table(self.name).collect())

    def rows_by_pyiceberg(self):
        return sorted(self.iceberg().scan(selected_fields=("sequence",)).to_arrow()["sequence"].to_pylist())


@pytest.fixture(scope="module")
def table(worlds):
    return Table(worlds())


WRITERS = {
    "append": Table.append,
    "merge-on-read": Table.delete_merge_on_read,
    "copy-on-write": Table.delete_copy_on_write,
    "pyiceberg": Table.delete_by_pyiceberg,
    "compaction": Table.compact_too,
}


@pytest.mark.parametrize("seed", range(36))
def test_whoever_comes_between_at_any_step_rows_equal_the_model(table, seed):
    chance = random.Random(seed)  # noqa: S311 - no secret
    for _ in range(chance.randint(2, 3)):
        table.append(chance)
    if seed % 3 == 0:
        table.delete_merge_on_read(chance)
    # every writer comes between at every step once, as the first to do so; half of the time another comes after it
    first = list(WRITERS)[seed % 5], STEPS[seed // 5 % 4]
    second = (chance.choice(list(WRITERS)), chance.choice(STEPS)) if seed % 2 else None
    schedule = [one for one in (first, second) if one is not None]
    seen = set()

    def between(step):
        for who, when in schedule:
            if when == step and (who, when) not in seen:
                seen.add((who, when))
                WRITERS[who](table, chance)
                table.done[who, when] += 1

    done = table.compact(after=between)
    assert table.rows() == sorted(table.wanted), f"seed {seed}: {schedule}"
    if all(who == "append" for who, _ in schedule):
        assert done.conflicts == ()
    if seed % 6 == 5:
        assert table.rows_by_pyiceberg() == sorted(table.wanted)


def test_every_writer_came_between_at_every_step(table):
    assert set(table.done) == {(who, when) for who in WRITERS for when in STEPS}


def test_once_nobody_comes_between_everything_is_compact(table):
    done = table.compact()
    assert done.conflicts == ()
    table.compact()
    assert table.rows() == table.rows_by_pyiceberg() == sorted(table.wanted)
    files = table.iceberg().inspect.data_files().to_pylist()
    assert len({one["partition"]["event_time_day"] for one in files}) == len(files)


WRITER = """
import json, random, sys
import pyarrow as pa
from datetime import UTC, datetime
from pyiceberg.exceptions import CommitFailedException, ValidationException
from lake.clients import Cloud
from lake.tables import glue_catalog

database, endpoint, first = sys.argv[1], sys.argv[2], int(sys.argv[3])
catalog, chance, mine = glue_catalog(Cloud("us-east-1", endpoint)), random.Random(first), []
moment = datetime(2013, 1, 1, tzinfo=UTC)
for turn in range(int(sys.argv[4])):
    table = catalog.load_table((database, "visits"))
    try:
        if turn % 2 and mine:
            gone = chance.sample(mine, 2)
            table.delete(f"sequence in ({gone[0]}, {gone[1]})")
            mine = [one for one in mine if one not in gone]
        else:
            new = list(range(first, first + 5))
            first += 5
            times = pa.array([moment] * 5, pa.timestamp("us", "UTC"))
            table.append(pa.table({"sequence": pa.array(new, pa.int64()), "event_time": times}))
            mine += new
    except (CommitFailedException, ValidationException):
        pass  # another was faster, and nothing was changed
    print(json.dumps(mine), flush=True)
"""


def test_processes_of_their_own_write_and_delete_while_compaction_goes_on(table, ministack):
    table.append(random.Random(0))  # noqa: S311 - no secret
    command = [sys.executable, "-c", WRITER, table.database, ministack]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    writers = [
        subprocess.Popen([*command, str(first), "12"], env=environment, stdout=subprocess.PIPE, text=True)
        for first in (100_000, 200_000)
    ]
    rounds = 0
    try:
        while any(one.poll() is None for one in writers) and rounds < 200:
            table.compact()
            rounds += 1
    finally:
        said = [one.communicate(timeout=300)[0] for one in writers]
    assert [one.returncode for one in writers] == [0, 0]
    assert rounds >= 2
    for lines in said:
        table.wanted |= set(json.loads(lines.splitlines()[-1]))
    assert table.rows() == sorted(table.wanted)
    table.compact()
    assert table.rows() == table.rows_by_pyiceberg() == sorted(table.wanted)
