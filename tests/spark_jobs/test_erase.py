"""Erasure on a real Spark, S3, Glue and DynamoDB: a subject is gone from everywhere, and nobody else is touched."""

import gzip
import io
import json
import zlib
from dataclasses import replace
from datetime import UTC, datetime

import pyarrow.parquet as pq
import pytest
from py4j.protocol import Py4JJavaError

from lake.audit import balance, gather
from lake.contract import Contract, Field, ListOf, PartitionField, Primitive, StructOf
from lake.drops import Drop
from lake.erasure import parse_subject, read_receipt
from lake.errors import DeclarationError, FindingError, TerminalError, TransientError
from lake.lines import is_gzip
from lake.manifest import Counts
from lake.quality import Invalid, Limit, Operator, Rule, Severity
from spark_jobs import compact, erase, erase_tables, files
from spark_jobs.erase_verify import verify
from spark_jobs.failures import conflict_of
from spark_jobs.quality_hold import Ruling, Verdict, write_ruling
from tests.spark_jobs.conftest import Stop, stop_after

AT_NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
# smaller than all others: it is the lower bound that manifests keep
WHO = "aa-secret-7"
PEOPLE = Contract(
    dataset="visits",
    version="1.2.0",
    fields=(
        Field("page", Primitive("string")),
        Field("user_id", Primitive("string"), pii=True),
        Field("contact", StructOf((Field("email", Primitive("string"), pii=True),))),
        Field("cards", ListOf(StructOf((Field("number", Primitive("long"), pii=True),)))),
    ),
    partition=(PartitionField("day", "event_time"),),
    sort=("event_time",),
    dedup_days=3650,
)


@pytest.fixture
def world(worlds):
    return worlds(PEOPLE)


@pytest.fixture
def shared(worlds):
    return worlds(PEOPLE, pool=True)


def visit(world, number, user, tenant="solo", **changes):
    changes.setdefault("sequence", number - 1)
    return world.event(number, tenant, payload={"page": "/", "user_id": user}, **changes)


def subject(world, *given, tenant="solo"):
    return parse_subject(world.lake, tenant, given or (f"user_id={WHO}",))


def erase_subject(world, who=None, **options):
    options.setdefault("erasure_id", "e1")
    return erase.run(world.spark, world.lake, world.cloud, who or subject(world), clock=lambda: AT_NOON, **options)


def is_clean(world, erasure="e1", who=None):
    return verify(world.spark, world.lake, world.cloud, who or subject(world), erasure).is_clean


def places_holding(world, bucket, text=WHO):
    """Keys of all objects, in all their versions, in which a text is, however it is packed."""
    found = []
    s3 = world.cloud.s3
    for one in s3.list_object_versions(Bucket=bucket).get("Versions", []):
        body = s3.get_object(Bucket=bucket, Key=one["Key"], VersionId=one["VersionId"])["Body"].read()
        if body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        if body[:4] == b"PAR1":
            body = str(pq.read_table(io.BytesIO(body)).to_pylist()).encode()
        if text.encode() in body:
            found.append(one["Key"])
    return found


def bounds_of(world, owner, name="visits"):
    """All that manifests of any snapshot keep of columns' values."""
    table = world.table(owner, name)
    files = [
        entry.data_file
        for snapshot in table.metadata.snapshots
        for manifest in snapshot.manifests(table.io)
        for entry in manifest.fetch_manifest_entry(table.io, discard_deleted=False)
    ]
    return b" ".join(
        value for one in files for kept in (one.lower_bounds, one.upper_bounds) for value in (kept or {}).values()
    )


def balanced(world):
    sheet = balance(gather(world.lake, world.cloud, "visits"))
    return sheet.balanced, [(one.table.partition(".")[2], one.rows, one.by_batches, one.erased) for one in sheet.tables]


def test_a_subject_is_gone_from_everywhere_and_everybody_else_stays_bit_by_bit(world):
    bucket = world.bucket("solo")
    bad = visit(world, 8, WHO)
    del bad["payload"]["page"]
    bad["payload"]["user_id"], bad["payload"]["contact"] = WHO, "no object"
    others_bad = visit(world, 9, "zz", event_time="never")
    mixed = world.deliver("a", [visit(world, 1, "bb"), visit(world, 2, WHO), bad, visit(world, 3, "cc", day=2)])
    world.deliver("b", [visit(world, 4, WHO, day=2), others_bad])
    world.ingest()
    world.deliver("c", [visit(world, 5, "dd"), visit(world, 2, WHO), visit(world, 6, WHO, day=3)])
    cut_short = json.dumps(visit(world, 7, WHO)).encode()[:-3]
    other_refused = json.dumps(visit(world, 10, "ee")).encode()
    errors = world.refuse("e.gz", [cut_short, other_refused])
    world.ingest()
    world.put(bucket, "raw/visits.jsonl", [visit(world, 2, WHO), visit(world, 1, "bb")])
    world.cloud.s3.put_object(Bucket=bucket, Key="raw/people.csv", Body=f'user_id,x\nbb,"a\n"\n{WHO},1\n'.encode())
    world.cloud.s3.put_object(Bucket=bucket, Key="raw/picture.png", Body=b"\x89PNG\0")
    for name in ("1.csv", "1.csv.metadata"):
        world.cloud.s3.put_object(Bucket=bucket, Key=f"query-results/{name}", Body=f'"u"\n"{WHO}"\n'.encode())
    world.cloud.s3.put_object(Bucket=bucket, Key="query-results/2.csv", Body=b'"u"\n"bb"\n')
    before = world.rows("solo"), world.rows("solo", "quarantine")
    assert len(places_holding(world, bucket)) > 8
    assert WHO.encode() in bounds_of(world, "solo")

    receipt = erase_subject(world)

    assert places_holding(world, bucket) == []
    assert WHO.encode() not in bounds_of(world, "solo") + bounds_of(world, "solo", "quarantine")
    assert world.rows("solo") == [row for row in before[0] if row["user_id"] != WHO]
    assert world.rows("solo", "quarantine") == [row for row in before[1] if WHO.encode() not in bytes(row["payload"])]
    assert len(world.rows("solo")), len(world.rows("solo", "quarantine")) == (3, 2)
    read = world.cloud.s3.get_object(Bucket=bucket, Key=mixed.removeprefix(f"s3://{bucket}/"))["Body"].read()
    kept = [json.dumps(visit(world, 1, "bb")), "", "", json.dumps(visit(world, 3, "cc", day=2)), ""]
    assert gzip.decompress(read).decode().split("\n") == kept
    error_lines = gzip.decompress(
        world.cloud.s3.get_object(Bucket=bucket, Key=errors.removeprefix(f"s3://{bucket}/"))["Body"].read()
    ).split(b"\n")
    assert (error_lines[0], len(error_lines[1]) > 100) == (b"", True)
    csv = world.cloud.s3.get_object(Bucket=bucket, Key="raw/people.csv")["Body"].read()
    assert csv == b'user_id,x\nbb,"a\n"\n'
    left = [one["Key"] for one in world.cloud.s3.list_objects_v2(Bucket=bucket, Prefix="query-results/")["Contents"]]
    assert left == ["query-results/2.csv"]

    database = world.lake.names.database("solo")
    assert receipt == read_receipt(world.cloud.s3, bucket, "e1")
    assert receipt.finished_at == "2024-05-01T12:00:00+00:00"
    assert receipt.events == {"visits": 5}
    assert receipt.erased_rows == {"visits": {f"{database}.visits": 3, f"{database}.quarantine": 2}}
    assert receipt.sequences == {"visits": {"solo-phone": "1,3,5-7"}}
    removed = {name.rpartition(bucket)[2]: place.removed for name, place in receipt.places.items()}
    assert removed == {
        "/processed/visits/": 5,
        "/errors/*/visits/": 1,
        "/query-results/": 2,
        "/athena-results/": 0,
        "/raw/": 2,
        f"{database}.visits": 3,
        f"{database}.quarantine (visits)": 2,
    }
    assert {place.remaining for place in receipt.places.values()} == {0}
    assert WHO not in str(receipt)
    assert is_clean(world)
    assert balanced(world) == (True, [("visits", 3, 3, 3), ("quarantine", 2, 2, 2)])


def test_after_it_the_next_batches_have_the_next_numbers_and_an_erased_event_does_not_come_back(world):
    world.deliver("a", [visit(world, 1, "bb"), visit(world, 2, WHO), b"{bad"])
    world.ingest()
    world.deliver("b", [visit(world, 3, "cc"), b"{worse"])
    world.ingest()
    erase_subject(world)
    assert [row["_batch"] for row in world.rows("solo")] == [1, 2]
    assert world.ingest().batches == ()
    world.deliver("c", [visit(world, 2, WHO), visit(world, 3, "cc"), visit(world, 4, "dd"), b"{worst"])
    report = world.ingest()
    assert [str(one.batch) for one in report.batches] == ["visits/events/solo/solo/3"]
    assert report.totals == {"solo": Counts(records=4, ingested=1, duplicates=2, quarantined=1, unidentified=1)}
    assert [(row["user_id"], row["_batch"]) for row in world.rows("solo")] == [("bb", 1), ("cc", 2), ("dd", 3)]
    assert len(world.rows("solo", "quarantine")) == 3
    assert balanced(world)[0]
    assert not is_clean(world)  # the object that came again holds it
    assert erase_subject(world, erasure_id="e2").id == "e2"
    assert is_clean(world, "e2")
    assert world.ingest(listed=True).batches == ()
    assert balanced(world)[0]


def test_what_no_batch_has_taken_yet_is_counted_before_it_goes(world):
    world.deliver("a", [visit(world, 1, "bb"), visit(world, 2, WHO)])
    world.ingest()
    world.deliver("b", [visit(world, 2, WHO), visit(world, 3, WHO), visit(world, 4, "cc")])
    world.withhold_messages("solo")
    receipt = erase_subject(world)
    assert places_holding(world, world.bucket("solo")) == []
    assert [row["user_id"] for row in world.rows("solo")] == ["bb", "cc"]
    sheet = balance(gather(world.lake, world.cloud, "visits"))
    assert sheet.balanced
    # the second of its events was never a duplicate of anything
    assert (sheet.total.delivered, sheet.total.ingested, sheet.total.duplicates) == (5, 4, 1)
    assert receipt.events == {"visits": 2}
    assert receipt.erased_rows["visits"][f"{world.lake.names.database('solo')}.visits"] == 2
    assert is_clean(world)


def test_a_row_that_a_delete_file_hides_and_a_file_that_nobody_knows_hold_it_too(world):
    world.deliver("a", [visit(world, 1, "bb"), visit(world, 2, WHO), visit(world, 3, "cc"), visit(world, 4, "dd")])
    world.ingest()
    name = f"lake.{world.lake.names.database('solo')}.visits"
    world.spark.sql(f"ALTER TABLE {name} SET TBLPROPERTIES ('write.delete.mode' = 'merge-on-read')")
    world.spark.sql(f"DELETE FROM {name} WHERE user_id = '{WHO}' OR user_id = 'dd'")  # noqa: S608 - names of the test
    bucket = world.bucket("solo")
    files = world.cloud.s3.list_objects_v2(Bucket=bucket, Prefix="analytics-ready/visits/data/")["Contents"]
    data = next(one["Key"] for one in files if "delete" not in one["Key"])
    body = world.cloud.s3.get_object(Bucket=bucket, Key=data)["Body"].read()
    world.cloud.s3.put_object(Bucket=bucket, Key=f"{data.rpartition('/')[0]}/left-by-a-crash.parquet", Body=body)
    receipt = erase_subject(world)
    assert places_holding(world, bucket) == []
    assert [row["user_id"] for row in world.rows("solo")] == ["bb", "cc"]
    assert receipt.erased_rows["visits"][name.removeprefix("lake.")] == 0
    assert is_clean(world)


def test_every_snapshot_tag_and_branch_that_holds_it_goes_and_the_others_stay(world):
    world.deliver("a", [visit(world, 1, "bb")])
    world.ingest()
    name = f"lake.{world.lake.names.database('solo')}.visits"
    clean = world.table("solo").current_snapshot().snapshot_id
    world.spark.sql(f"ALTER TABLE {name} CREATE TAG clean")
    world.deliver("b", [visit(world, 2, WHO), visit(world, 3, "cc")])
    world.ingest()
    world.spark.sql(f"ALTER TABLE {name} CREATE TAG held")
    world.spark.sql(f"ALTER TABLE {name} CREATE BRANCH trial")
    compact.run(world.spark, world.lake, world.cloud)
    receipt = erase_subject(world)
    table = world.table("solo")
    assert set(table.refs()) == {"main", "clean"}
    assert table.refs()["clean"].snapshot_id == clean
    assert sorted(one.partition(": ")[2] for one in receipt.notes) == [
        "branch trial held the subject, and is dropped",
        "tag held held the subject, and is dropped",
    ]
    assert places_holding(world, world.bucket("solo")) == []
    assert [row["user_id"] for row in world.rows("solo")] == ["bb", "cc"]


def test_a_bucket_with_versions_keeps_none_of_it(world):
    bucket = world.bucket("solo")
    world.cloud.s3.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    world.put(bucket, "raw/old.jsonl", [visit(world, 2, WHO)])
    world.put(bucket, "raw/old.jsonl", [visit(world, 1, "bb")])
    world.put(bucket, "query-results/1.csv", [WHO.encode()])
    world.deliver("a", [visit(world, 1, "bb"), visit(world, 2, WHO)])
    world.ingest()
    erase_subject(world)
    assert places_holding(world, bucket) == []
    assert is_clean(world)
    assert [row["user_id"] for row in world.rows("solo")] == ["bb"]
    old = world.cloud.s3.get_object(Bucket=bucket, Key="raw/old.jsonl")["Body"].read()
    assert old == json.dumps(visit(world, 1, "bb")).encode() + b"\n"


def test_of_what_pooled_tenants_share_only_the_subjects_tenants_records_go(shared):
    for tenant in ("ann", "bob"):
        shared.deliver("a", [visit(shared, 1, WHO, tenant), visit(shared, 2, "cc", tenant), b'{"tenant":"bob"'], tenant)
        raws = [json.dumps(visit(shared, 3, WHO, one)).encode()[:-2] for one in ("ann", "bob")]
        shared.refuse(f"{tenant}.gz", [*raws, b'{"user_id":"other"}'], tenant)
    shared.ingest()
    bobs = shared.rows("bob"), shared.rows("bob", "quarantine")
    pools = shared.rows("pooled", "quarantine")
    assert len(pools) == 6
    who = subject(shared, tenant="ann")
    receipt = erase_subject(shared, who)
    assert [row["user_id"] for row in shared.rows("ann")] == ["cc"]
    assert (shared.rows("bob"), shared.rows("bob", "quarantine")) == bobs
    assert shared.rows("pooled", "quarantine") == [row for row in pools if row["tenant"] != "ann"]
    held = places_holding(shared, shared.bucket("ann"))
    assert [key for key in held if "tenant=ann" in key] == []
    assert is_clean(shared, who=who)
    assert receipt.notes == ("records that name no tenant, in what pooled tenants share, were taken for this tenant's",)
    assert balanced(shared)[0]


def test_files_that_somebody_brought_lose_only_the_subjects_part_and_what_can_not_be_searched_is_told(world):
    bucket, s3 = world.bucket("solo"), world.cloud.s3
    drop = Drop("people", "solo", "visits", bucket, "raw/people/", delimiter="#", quote="'")
    world.lake = replace(world.lake, drops=(drop,))
    events = [json.dumps(visit(world, number, user)).encode() for number, user in ((1, "bb"), (2, WHO), (3, "cc"))]
    printed = [json.dumps(json.loads(one), indent=2).encode() for one in events]
    rows = f"page#User ID\n'a\n'#{WHO}\nit's#bb\n".encode()
    bomb = zlib.compressobj(9, zlib.DEFLATED, 31)
    files = {
        "backup/1": (b"".join(events), events[0] + events[2]),
        "people/1.csv": (rows, b"page#User ID\nit's#bb\n"),
        "tail.gz": (gzip.compress(events[0] + b"\n") + events[1], events[0] + b"\n"),
        "array.json": (b"[" + b",\n ".join(events) + b"]", b"[" + events[0] + b",\n " + events[2] + b"]"),
        "printed.json": (b"\n".join(printed), printed[0] + b"\n\n" + printed[2]),
        "wide.csv": (f"user_id\tpage\nbb\t/\n{WHO}\t/\n".encode("utf-16"), "user_id\tpage\nbb\t/\n".encode("utf-16")),
        "pages.csv": (b"page,user_id\n" + WHO.encode() + b",bb\n",) * 2,
        "damaged.gz": (gzip.compress(events[0] + b"\n")[:-6],) * 2,
        "large.gz": (b"".join(bomb.compress(bytes(2**24)) for _ in range(33)) + bomb.flush(),) * 2,
    }
    for name, (body, _) in files.items():
        s3.put_object(Bucket=bucket, Key=f"raw/{name}", Body=body)

    receipt = erase_subject(world)

    for name, (before, after) in files.items():
        body = s3.get_object(Bucket=bucket, Key=f"raw/{name}")["Body"].read()
        assert (name, body if body == before else gzip.decompress(body) if is_gzip(body) else body) == (name, after)
    place = receipt.places[f"s3://{bucket}/raw/"]
    assert (place.removed, place.remaining) == (6, 0)
    assert place.unread == tuple(f"s3://{bucket}/raw/{name}" for name in ("damaged.gz", "large.gz", "pages.csv"))
    assert is_clean(world)


def test_a_row_of_a_file_that_the_door_refused_goes_by_its_cells(shared):
    lake = shared.lake
    drops = [
        Drop(name, name, "visits", lake.names.bucket(name), "raw/people/", delimiter=";") for name in ("ann", "bob")
    ]
    shared.lake = replace(lake, drops=tuple(drops))
    rows = f"page;user_id\n/;{WHO}\n/;bb\n/;{WHO};x\n/;bb;{WHO}1\n\"/;'{WHO}'\n"
    for drop in drops:
        key = "raw/people/year=2024/month=05/day=01/a.csv"
        shared.cloud.s3.put_object(Bucket=drop.bucket, Key=key, Body=rows.encode())
    files.run(lambda: shared.spark, shared.lake, shared.cloud)
    shared.ingest()
    assert len(shared.rows("ann", "quarantine") + shared.rows("pooled", "quarantine")) == 6
    bobs = [row for row in shared.rows("pooled", "quarantine") if row["tenant"] == "bob"]

    who = subject(shared, tenant="ann")
    receipt = erase_subject(shared, who)

    left = shared.rows("ann", "quarantine") + shared.rows("pooled", "quarantine")
    assert [row for row in left if row["tenant"] == "bob"] == bobs
    assert [row["payload"] for row in left if row["tenant"] != "bob"] == [f"/;bb;{WHO}1".encode()]
    assert [row["user_id"] for row in shared.rows("ann")] == ["bb"]
    assert sum(place.removed for name, place in receipt.places.items() if "errors/" in name) == 2
    assert is_clean(shared, who=who)
    assert balanced(shared)[0]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("step", [None, "objects"])
def test_a_file_that_was_taken_is_not_taken_again_when_a_subject_is_out_of_it(world, packed, step):
    lake, s3 = world.lake, world.cloud.s3
    world.lake = replace(lake, drops=(Drop("people", "solo", "visits", world.bucket("solo"), "raw/people/"),))
    rows = f"page,user_id\n/a,bb\n/b,{WHO}\n/c,cc\n".encode()
    key = "raw/people/year=2024/month=05/day=01/a.csv"
    s3.put_object(Bucket=world.bucket("solo"), Key=key, Body=gzip.compress(rows) if packed else rows)

    def take():
        report = files.run(lambda: world.spark, world.lake, world.cloud)
        world.ingest()
        return [(one.files, one.same) for one in report.drops]

    assert take() == [(1, 0)]
    if step is not None:
        with pytest.raises(Stop):
            erase_subject(world, after=stop_after(step))
        assert take() == [(0, 1)]
    erase_subject(world)
    assert take() == [(0, 0 if step else 1)]
    assert take() == [(0, 0)]
    assert sorted(row["page"] for row in world.rows("solo")) == ["/a", "/c"]
    body = s3.get_object(Bucket=world.bucket("solo"), Key=key)["Body"].read()
    assert (gzip.decompress(body) if packed else body) == b"page,user_id\n/a,bb\n/c,cc\n"
    assert is_clean(world)
    assert balanced(world)[0]
    # one that a customer puts there anew is
    s3.put_object(Bucket=world.bucket("solo"), Key=key, Body=b"page,user_id\n/d,dd\n")
    assert take() == [(1, 0)]


def test_keys_inside_of_objects_and_lists_and_what_an_older_contract_did_not_know(world):
    def paid(number, payload):
        return world.event(number, payload={"page": "/", **payload})

    world.deliver(
        "a",
        [
            paid(1, {"contact": {"email": "z@x.org"}}),
            paid(2, {"cards": [{"number": 1}, {"number": 4000000000000002}]}),
            paid(3, {"cards": [{"number": 4}], "contact": {"email": "y@x.org"}}),
            paid(4, {"user_id": "u", "contact": None}),
        ],
    )
    world.ingest()
    name = f"lake.{world.lake.names.database('solo')}.visits"
    rescued = json.dumps({"contact": {"email": "z@x.org"}})
    world.spark.sql(f"UPDATE {name} SET _rescued = '{rescued}' WHERE sequence = 4")  # noqa: S608 - names of the test
    who = subject(world, "contact.email=z@x.org", "cards.number=4000000000000002")
    erase_subject(world, who)
    assert [row["sequence"] for row in world.rows("solo")] == [3]
    assert places_holding(world, world.bucket("solo"), "z@x.org") == []


def test_the_same_command_again_begins_a_new_receipt_that_finds_nothing(world):
    world.deliver("a", [visit(world, 1, WHO)])
    world.ingest()
    erase_subject(world)
    before = world.table("solo").current_snapshot()
    again = erase_subject(world, erasure_id="e2")
    assert (again.id, again.rounds, sum(place.removed for place in again.places.values())) == ("e2", 0, 0)
    assert world.table("solo").current_snapshot() == before


def test_it_refuses_to_run_for_nobody_or_for_what_no_contract_calls_personal(world):
    fields = "cards.number, contact.email, user_id"
    with pytest.raises(TerminalError, match=rf"--subject: at least one is needed.* fields are: {fields}"):
        parse_subject(world.lake, "solo", [])
    with pytest.raises(TerminalError, match=rf"got 'page', allowed are: {fields}.* \(fields that a contract"):
        subject(world, "page=/")
    with pytest.raises(TerminalError, match="got 'user_id', allowed is FIELD=VALUE"):
        subject(world, "user_id")
    with pytest.raises(TerminalError, match=r"cards.number: got 'x', the contract's type is long"):
        subject(world, "cards.number=x")
    with pytest.raises(DeclarationError, match="tenant: got 'sola', allowed are: solo"):
        subject(world, tenant="sola")


def test_a_receipt_is_gone_on_with_and_verified_by_who_knows_the_subject_only(world):
    world.deliver("a", [visit(world, 1, WHO)])
    world.ingest()
    erase_subject(world)
    other = subject(world, "user_id=bb")
    with pytest.raises(TerminalError, match="erasure e1: it is of another subject"):
        verify(world.spark, world.lake, world.cloud, other, "e1")
    with pytest.raises(TerminalError, match=r"erasure: got 'e9', allowed are: e1 .receipts in s3://"):
        verify(world.spark, world.lake, world.cloud, subject(world), "e9")
    with pytest.raises(TerminalError, match="erasure e1: it was finished at 2024-05-01T12:00:00"):
        erase_subject(world, resume="e1")


@pytest.mark.parametrize("verdict", list(Verdict))
def test_a_batch_that_is_held_back_has_to_be_decided_about_first(worlds, verdict):
    rule = Rule("pages", Invalid("page", ("/home",)), (Limit(Operator.BE, (0.0,)),), Severity.ERROR)
    world = worlds(replace(PEOPLE, quality=(rule,)))
    world.deliver("a", [visit(world, 1, "bb"), visit(world, 2, WHO)])
    (hold,) = world.ingest().held
    with pytest.raises(FindingError, match=f"batch {hold.batch} is held back by a quality rule"):
        erase_subject(world)
    ruling = Ruling(hold.batch, verdict, "a test", "somebody", 0)
    write_ruling(world.cloud.s3, world.bucket("solo"), ruling)
    assert erase_subject(world).is_finished
    assert places_holding(world, world.bucket("solo")) == []
    assert is_clean(world)
    assert balanced(world)[0]


def test_rows_are_counted_where_iceberg_tells_a_conflict_with_its_own_commit(world, monkeypatch):
    world.deliver("a", [visit(world, 1, "bb"), visit(world, 2, WHO), visit(world, 3, WHO)])
    refused = {**visit(world, 4, WHO), "event_time": "never"}
    world.deliver("b", [refused, {**visit(world, 5, "cc"), "event_time": "never"}])
    world.ingest()
    overwrite, conflicts = erase_tables._overwrite, []

    def and_once_more(*arguments, **named):
        overwrite(*arguments, **named)
        # as after a lost reply: the same change upon a table that has it already
        try:
            return overwrite(*arguments, **named)
        except Py4JJavaError as error:
            conflicts.append(conflict_of(error))
            raise

    monkeypatch.setattr(erase_tables, "_overwrite", and_once_more)
    erase_subject(world)
    assert [one.is_unknown for one in conflicts] == [False, False]  # a table's and its quarantine's
    assert balanced(world) == (True, [("visits", 1, 1, 2), ("quarantine", 1, 1, 1)])
    assert is_clean(world)


def test_an_erasure_that_was_broken_off_is_counted_though_another_one_made_the_history_forget(world):
    world.deliver("a", [visit(world, 1, "bb"), visit(world, 2, WHO), visit(world, 3, WHO), visit(world, 4, "cc")])
    world.ingest()

    def broken_off(step):
        if step == "rows":
            raise TransientError("broken off")

    with pytest.raises(TransientError, match="broken off"):
        erase_subject(world, after=broken_off)
    erase_subject(world, subject(world, "user_id=bb"), erasure_id="e2")
    erase_subject(world)
    assert balanced(world) == (True, [("visits", 1, 1, 3), ("quarantine", 0, 0, 0)])
    properties = world.table("solo").properties
    assert [name for name in properties if "eras" in name] == []
    assert is_clean(world)
