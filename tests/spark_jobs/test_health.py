"""What one sees of tables before anything is done: `lakehose table health`, and dry runs, as a user calls them."""

import json
from datetime import UTC, datetime

import pytest

from lake.errors import DeclarationError, FindingError
from spark_jobs import compact
from spark_jobs.health import look
from tests.spark_jobs.conftest import declare

NOW = datetime(2013, 1, 2, 12, tzinfo=UTC)


def seen(world, **options):
    (found,) = look(world.lake, world.cloud, datasets=["visits"], owners=["solo"], clock=lambda: NOW, **options)
    return found


def ingest(world, number, *days):
    world.deliver(f"a{number}", [world.event(10 * number + day, day=day) for day in days])
    world.ingest(tenants=["solo"])


def sql(world, text):
    world.spark.newSession().sql(text.format(f"lake.{world.lake.names.database('solo')}.visits")).collect()


def test_an_empty_table_is_told_as_one(world):
    found = seen(world)
    assert (found.partitions, found.manifests, found.snapshots, found.waiting) == ((), 0, 0, 0)
    assert (found.oldest_snapshot, found.last_commit, found.last_compaction) == (None, None, None)


def test_files_order_deletes_and_what_compaction_would_gain_are_told_by_partition(world):
    for number in range(3):
        ingest(world, number, 1, 3)
    sql(world, "ALTER TABLE {} SET TBLPROPERTIES ('write.delete.mode' = 'merge-on-read')")
    sql(world, "INSERT INTO {} (sequence, event_time) SELECT id, timestamp'2013-01-01' FROM range(5)")
    sql(world, "DELETE FROM {} WHERE sequence = 4")
    found = seen(world)
    first, third = found.partitions
    assert (first.partition, first.closed, first.rows, first.files, first.small) == (
        "event_time_day=2013-01-01",
        False,
        8,
        4,
        4,
    )
    assert (first.delete_files, first.deleted, first.to_rewrite, first.becomes) == (1, 1, 4, 1)
    assert (third.rows, third.files, third.deleted, third.to_rewrite, third.becomes) == (3, 3, 0, 3, 1)
    assert found.total("rows") == 11
    assert first.bytes == sum(
        one["file_size_in_bytes"]
        for one in world.table("solo").inspect.data_files().to_pylist()
        if one["partition"]["event_time_day"].day == 1
    )
    assert (found.snapshots, found.waiting, found.last_compaction) == (5, 0, None)


def test_after_a_compaction_there_is_nothing_to_gain_and_its_time_is_told(world):
    for number in range(2):
        ingest(world, number, 1)
    compact.run(world.spark, world.lake, world.cloud, owners=["solo"])
    found = seen(world)
    assert [(one.files, one.to_rewrite, one.becomes, one.disorder) for one in found.partitions] == [(1, 0, 0, 1)]
    assert found.last_compaction == found.last_commit
    assert found.last_compaction is not None


def test_a_day_is_closed_once_late_events_had_a_day_of_grace(world):
    ingest(world, 0, 1)
    assert not seen(world).partitions[0].closed
    (found,) = look(world.lake, world.cloud, datasets=["visits"], clock=lambda: datetime(2013, 1, 3, tzinfo=UTC))
    assert found.partitions[0].closed


def test_a_batch_that_is_staged_and_not_published_waits(world):
    ingest(world, 0, 1)
    session = world.spark.newSession()
    session.conf.set("spark.wap.id", "visits/events/solo/solo/2")
    name = f"lake.{world.lake.names.database('solo')}.visits"
    session.sql(f"INSERT INTO {name} (sequence) VALUES (9)")  # noqa: S608
    assert seen(world).waiting == 1
    (staged,) = {one.snapshot_id for one in world.table("solo").metadata.snapshots} - {
        world.table("solo").current_snapshot().snapshot_id
    }
    sql(world, f"ALTER TABLE {{}} CREATE BRANCH held_2 AS OF VERSION {staged}")
    assert seen(world).waiting == 0
    sql(world, "ALTER TABLE {} DROP BRANCH held_2")
    session.conf.unset("spark.wap.id")
    session.sql(f"CALL lake.system.publish_changes('{name}', 'visits/events/solo/solo/2')")
    assert seen(world).waiting == 0


def test_what_is_not_declared_or_not_there_is_named(world):
    with pytest.raises(DeclarationError, match=r"dataset: got 'visit', allowed are: visits; did you mean 'visits'\?"):
        look(world.lake, world.cloud, datasets=["visit"])
    world.cloud.glue.delete_table(DatabaseName=world.lake.names.database("solo"), Name="visits")
    with pytest.raises(FindingError, match=r"\.visits: there is none; `lakehose apply` makes it"):
        seen(world)


@pytest.fixture
def declared(world, tmp_path):
    """A world whose declaration is in files."""
    declare(world, tmp_path)
    return world


def test_health_is_printed_as_a_table_by_partition_and_as_json(declared, lakehose):
    for number in range(2):
        ingest(declared, number, 1)
    database = declared.lake.names.database("solo")
    done = lakehose("table", "health", "--partitions")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    (visits,) = (one for one in lines if one.split()[:1] == [f"{database}.visits"] and len(one.split()) > 1)
    # partitions, rows, files, small, MiB, deleted, disorder, gain, manifests, snapshots, waiting
    assert visits.split()[1:12] == ["1", "2", "2", "2", "0.0", "0", "1", "1", "2", "2", "0"]
    assert any(one.split()[:2] == [f"{database}.quarantine", "0"] for one in lines)
    assert any(
        one.split() == ["event_time_day=2013-01-01", "2", "2", "2", "0.0", "0", "1", "1", "yes"] for one in lines
    )
    done = lakehose("table", "health", "--dataset", "visits", "--tenant", "solo", "--owner", "solo", "--json")
    assert done.returncode == 0, done.stderr
    (one,) = json.loads(done.stdout)["tables"]
    assert (one["table"], one["snapshots"], one["partitions"][0]["files"]) == (f"{database}.visits", 2, 2)


def test_what_a_compaction_would_do_is_printed_and_nothing_done(declared, lakehose):
    for number in range(3):
        ingest(declared, number, 1)
    database, before = declared.lake.names.database("solo"), declared.table("solo").metadata_location
    done = lakehose("run", "compact", "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    (row,) = (one.split() for one in done.stdout.splitlines() if one.strip().startswith(database))
    assert row == [f"{database}.visits", "event_time_day=2013-01-01", "3", "1", "0.0", "3", "small"]
    assert done.stdout.splitlines()[-1] == "compact: 1 partitions, 0.0 MiB to rewrite, 2 files fewer; nothing was done"
    done = lakehose("run", "compact", "--dry-run", "--json")
    told = json.loads(done.stdout)
    assert [(one["partition"], one["files"], one["becomes"], one["rows"]) for one in told["rewrites"]] == [
        ("event_time_day=2013-01-01", 3, 1, 3)
    ]
    assert told["left_by_the_budget"] == {}
    assert declared.table("solo").metadata_location == before
    compact.run(declared.spark, declared.lake, declared.cloud)
    assert lakehose("run", "compact", "--dry-run").stdout == "compact: nothing to do\n"


def test_what_maintenance_would_do_is_printed_and_nothing_done(declared, lakehose):
    ingest(declared, 0, 1)
    before = declared.table("solo").metadata_location
    done = lakehose("run", "maintain", "--dry-run")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].strip() == "maintenance, if it ran now"
    assert lines[-1].startswith("maintain: 2 tables in ")
    assert lines[-1].endswith("; nothing was done")
    assert declared.table("solo").metadata_location == before


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ("table", "health", "--dataset", "visit"),
            "dataset: got 'visit', allowed are: visits; did you mean 'visits'?",
        ),
        (("table", "health", "--tenant", "sol"), "tenant: got 'sol', allowed are: solo; did you mean 'solo'?"),
        (("run", "ingest", "--dry-run"), "--dry-run: got job 'ingest', allowed are compact and maintain"),
        (("run", "files", "--dry-run"), "--dry-run: got job 'files', allowed are compact and maintain"),
        (
            ("run", "compact", "--on", "k8s", "--dry-run"),
            "--every, --relist and --dry-run: they are for --on local",
        ),
        (("table", "health", "--owner", "nobody"), "owner: got 'nobody', allowed are: "),
    ],
    ids=["dataset", "tenant", "ingest", "files", "cluster", "owner"],
)
def test_bad_input_is_answered_in_one_sentence(lakehose, declared, arguments, said):
    done = lakehose(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(f"lakehose: {said}")
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_a_lake_that_was_never_made_is_told_so(lakehose, declared):
    database = declared.lake.names.database("solo")
    declared.cloud.glue.delete_table(DatabaseName=database, Name="visits")
    for command in (("table", "health"), ("run", "compact", "--dry-run")):
        done = lakehose(*command)
        assert done.returncode == 1
        assert done.stderr == f"lakehose: table {database}.visits: there is none; `lakehose apply` makes it\n"
