"""The files job on a real Spark, S3, Glue and DynamoDB: CSV in, rows of an Iceberg table out, all accounted for."""

import csv
import gzip
import io
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from lake.audit import balance, gather
from lake.contract import Contract, Field, PartitionField, Primitive
from lake.declaration import Buffering, Dataset, Jobs, Lake, Tenant, Tier
from lake.drops import Drop
from lake.errors import DeclarationError, TransientError
from lake.provision import Outcome, provision_storage
from lake.tables import glue_catalog
from spark_jobs import files, ingest
from spark_jobs.commands import run_job

ROOT = Path(__file__).parents[2]
DATA = ROOT.parent / "shared" / "data"
needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="the shared test data is not on this machine")
ORDERS = Contract(
    dataset="orders",
    version="1.0.0",
    fields=(
        Field("invoice_no", Primitive("string"), required=True),
        Field("stock_code", Primitive("string"), required=True),
        Field("description", Primitive("string")),
        Field("quantity", Primitive("int"), required=True),
        Field("invoice_date", Primitive("timestamptz"), required=True),
        Field("unit_price", Primitive("decimal", 12, 3), required=True),
        Field("customer_id", Primitive("long")),
        Field("country", Primitive("string")),
    ),
    partition=(PartitionField("month", "event_time"),),
    sort=("event_time",),
)
HEADER = "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
_numbers = itertools.count(1)


def line(number, *, day=1, quantity=None, price="2.55"):
    shown = number if quantity is None else quantity
    return f"A{number},S{number},Cup {number},{shown},2010-12-{day:02d} 08:26:00,{price},17850.0,Norway\n"


def rows_of(*numbers, **options):
    return "".join(line(number, **options) for number in numbers)


@dataclass
class Shop:
    """A lake with a drop of each of its tenants: `solo` of its own tier, `ann` and `bob` pooled or none."""

    spark: Any
    cloud: Any
    lake: Lake

    def put(self, name, text, drop="solo"):
        one = next(found for found in self.lake.drops if found.name == drop)
        body = text if isinstance(text, bytes) else text.encode()
        self.cloud.s3.put_object(Bucket=one.bucket, Key=f"{one.prefix}{name}", Body=body)
        return f"s3://{one.bucket}/{one.prefix}{name}"

    def files(self, **options):
        return files.run(lambda: self.spark, self.lake, self.cloud, **options)

    def ingest(self, **options):
        return ingest.run(self.spark, self.lake, self.cloud, **options)

    def rows(self, owner="solo", name="orders"):
        table = glue_catalog(self.cloud).load_table((self.lake.names.database(owner), name))
        found = table.scan().to_arrow().to_pylist()
        return sorted(found, key=lambda row: (row["producer_id"] or "", row["sequence"]))

    def invoices(self, owner="solo"):
        return sorted(row["invoice_no"] for row in self.rows(owner))

    def sheet(self):
        return balance(gather(self.lake, self.cloud, "orders"))

    def line(self, tenant="solo"):
        (found,) = (row for row in self.sheet().rows if row.tenant == tenant)
        return found


@pytest.fixture
def shops(spark, cloud):
    def make(*, pool=False, **changes):
        number = next(_numbers)
        pooled = (Tenant("ann", Tier.POOLED), Tenant("bob", Tier.POOLED)) if pool else ()
        tenants = (Tenant("solo", Tier.DEDICATED), *pooled)
        lake = Lake(
            company=f"files{number}",
            environment="test",
            region="us-east-1",
            tenants=tenants,
            datasets=(Dataset("orders", ORDERS, Buffering()),),
            jobs=Jobs(),
        )
        drops = [
            Drop(one.id, one.id, "orders", lake.names.bucket(one.id), f"raw/{one.id}/", event_time="invoice_date")
            for one in tenants
        ]
        lake = replace(lake, drops=tuple(replace(one, **changes) for one in drops))
        for _ in provision_storage(lake, cloud):
            pass
        return Shop(spark, cloud, lake)

    return make


@pytest.fixture
def shop(shops):
    return shops()


@pytest.fixture
def pool(shops):
    return shops(pool=True)


def test_a_file_becomes_rows_with_the_contracts_types(shop):
    shop.put("a.csv", HEADER + 'C5,85123A,"a ""white"" cup, large",-6,2010-12-01 08:26:00,2.55,17850.0,\n')
    report = shop.files()
    shop.ingest()
    (row,) = shop.rows()
    assert {name: row[name] for name in ORDERS.field_names()} == {
        "invoice_no": "C5",
        "stock_code": "85123A",
        "description": 'a "white" cup, large',
        "quantity": -6,
        "invoice_date": datetime(2010, 12, 1, 8, 26, tzinfo=UTC),
        "unit_price": Decimal("2.550"),
        "customer_id": 17850,
        "country": "",
    }
    assert (row["event_time"], row["sequence"], row["schema_version"]) == (row["invoice_date"], 0, "1.0.0")
    (drop,) = report.drops
    assert (drop.files, drop.rows, drop.events, drop.refused) == (1, 1, 1, 0)


@needs_data
def test_the_rows_of_real_files_are_what_the_csv_module_reads_and_the_audit_balances(shop):
    paths = sorted((DATA / "retail-by-day").glob("*.csv"))[:12]
    expected = []
    for path in paths:
        shop.put(path.name, gzip.compress(path.read_bytes()) if path.stem.endswith("5") else path.read_bytes())
        expected += list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
    report = shop.files()
    shop.ingest()
    assert report.drops[0].rows == len(expected) > 20_000

    def plain(row):
        return (
            row["invoice_no"],
            row["stock_code"],
            row["description"],
            str(row["quantity"]),
            row["invoice_date"].strftime("%Y-%m-%d %H:%M:%S"),
            row["unit_price"],
            row["customer_id"],
            row["country"],
        )

    wanted = [
        (
            one["InvoiceNo"],
            one["StockCode"],
            one["Description"],
            one["Quantity"],
            one["InvoiceDate"],
            Decimal(one["UnitPrice"]),
            int(float(one["CustomerID"])) if one["CustomerID"] else None,
            one["Country"],
        )
        for one in expected
    ]
    by_text = {"key": lambda row: tuple(map(str, row))}
    assert sorted(map(plain, shop.rows()), **by_text) == sorted(wanted, **by_text)
    sheet = shop.sheet()
    assert sheet.balanced
    assert (sheet.total.sent, sheet.total.ingested, sheet.total.duplicates) == (len(expected), len(expected), 0)


def test_running_again_takes_nothing_and_asks_for_no_spark(shop):
    shop.put("a.csv", HEADER + rows_of(1, 2))
    shop.files()

    def spark():
        raise AssertionError

    report = files.run(spark, shop.lake, shop.cloud)
    assert [(one.files, one.rows) for one in report.drops] == [(0, 0)]
    shop.ingest()
    assert shop.invoices() == ["A1", "A2"]


def test_a_pooled_tenants_file_goes_by_the_landing_bucket_into_its_own_table(pool):
    pool.put("a.csv", HEADER + rows_of(1, 2), "ann")
    pool.put("a.csv", HEADER + rows_of(3), "bob")
    pool.put("a.csv", HEADER + rows_of(4))
    report = pool.files()
    assert [(one.drop, one.events) for one in report.drops] == [("solo", 1), ("ann", 2), ("bob", 1)]
    landed = pool.cloud.s3.list_objects_v2(Bucket=pool.lake.names.bucket("pooled"), Prefix="processed/orders/")
    folders = {one["Key"].rpartition("/")[0] for one in landed["Contents"]}
    assert folders == {f"processed/orders/tenant={name}/year=2010/month=12/day=01" for name in ("ann", "bob")}
    pool.ingest()
    assert (pool.invoices(), pool.invoices("ann"), pool.invoices("bob")) == (["A4"], ["A1", "A2"], ["A3"])
    assert pool.sheet().balanced


def test_what_becomes_no_event_is_in_quarantine_with_its_reason_and_bytes_and_the_audit_balances(shop):
    uri = shop.put("a.csv", HEADER.encode() + line(1).encode() + b'A2,"S2\nA3,\xff,c,1,2010-12-01,1,,\nA4,S4\n')
    whole = gzip.compress((HEADER + rows_of(5, 6, 7)).encode())[:-9]
    broken = shop.put("b.csv.gz", whole)
    report = shop.files()
    assert [(one.uri, one.rows, one.refused) for one in report.refused_files] == [(broken, 1, 1)]
    shop.ingest()
    assert shop.invoices() == ["A1"]
    found = {
        (row["stage"], row["reason"], row["payload"], row["sequence"], row["tenant"])
        for row in shop.rows(name="quarantine")
    }
    assert found == {
        ("files", "malformed_csv", b'A2,"S2', 1, "solo"),
        ("files", "undecodable_text", b"A3,\xff,c,1,2010-12-01,1,,", 2, "solo"),
        ("files", "wrong_column_count", b"A4,S4", 3, "solo"),
        ("files", "unreadable_file", whole, 0, "solo"),
    }
    messages = {row["message"] for row in shop.rows(name="quarantine")}
    assert f"{uri}, line 5: the row has 2 columns, and the header has 8" in messages
    assert shop.sheet().balanced
    row = shop.line()
    assert (row.sent, row.ingested, row.refused, row.difference) == (5, 1, 4, 0)


def test_what_is_no_value_of_its_type_is_refused_by_ingest_with_its_reason(shop):
    shop.put("a.csv", HEADER + line(1) + line(2, quantity="many") + line(3, price='"2,55"'))
    shop.files()
    shop.ingest()
    assert [(row["stage"], row["reason"], row["message"]) for row in shop.rows(name="quarantine")] == [
        ("ingest", "wrong_type", "quantity: got 'many' (a string), allowed is a whole number of 32 bits"),
        ("ingest", "wrong_type", "unit_price: got '2,55' (a string), allowed is a number that fits decimal(12, 3)"),
    ]
    assert shop.invoices() == ["A1"]
    assert shop.sheet().balanced


def test_an_unknown_column_is_rescued(shop):
    shop.put("a.csv", HEADER.strip() + ",Gate\n" + line(1).strip() + ",5\n")
    shop.files()
    shop.ingest()
    assert json.loads(shop.rows()[0]["_rescued"]) == {"Gate": "5"}


def test_between_this_job_and_ingest_every_row_is_in_flight_the_refused_ones_too(shop):
    shop.put("a.csv", HEADER + rows_of(1, 2) + "A3,S3\n")
    shop.files()
    row = shop.line()
    assert (row.sent, row.in_flight, row.difference) == (3, 3, 0)


def test_a_file_that_was_replaced_brings_its_new_rows_and_the_same_content_none(shop):
    shop.put("a.csv", HEADER + rows_of(1))
    shop.files()
    shop.ingest()
    shop.put("a.csv", HEADER + rows_of(2, 3))
    assert shop.files().drops[0].rows == 2
    shop.put("a.csv", HEADER + rows_of(1))
    report = shop.files()
    assert (report.drops[0].files, shop.invoices()) == (0, ["A1"])
    shop.ingest()
    assert shop.invoices() == ["A1", "A2", "A3"]
    assert shop.sheet().balanced


def test_the_day_of_a_file_is_its_keys_where_no_column_tells_it(shops):
    shop = shops(event_time=None)
    shop.put("year=2026/month=11/day=20/a.csv", HEADER + rows_of(1))
    shop.put("loose.csv", HEADER + rows_of(2))
    report = shop.files()
    shop.ingest()
    assert [row["event_time"].date() for row in shop.rows()] == [date(2026, 11, 20)]
    (refused,) = report.refused_files
    assert "drop solo declares no event_time, and the key names no day" in refused.message


def test_only_the_tenants_and_datasets_asked_for_are_taken(pool):
    for name in ("solo", "ann", "bob"):
        pool.put("a.csv", HEADER + rows_of(1), name)
    assert [one.drop for one in pool.files(tenants=["ann"]).drops] == ["ann"]
    assert [(one.drop, one.files) for one in pool.files(datasets=["orders"]).drops] == [
        ("solo", 1),
        ("ann", 0),
        ("bob", 1),
    ]
    with pytest.raises(DeclarationError, match=r"tenant: got 'anna', allowed are: ann, bob, solo"):
        pool.files(tenants=["anna"])


def test_a_lake_without_drops_says_so(shop):
    bare = replace(shop.lake, drops=())
    with pytest.raises(DeclarationError, match="drops: the lake declares none"):
        files.run(lambda: shop.spark, bare, shop.cloud)


def test_a_bucket_that_is_not_there_is_named_and_holds_up_no_other_drop(pool):
    gone = replace(pool.lake.drops[0], bucket="nobodys-bucket-at-all")
    pool.put("a.csv", HEADER + rows_of(1), "ann")
    lake = replace(pool.lake, drops=(gone, *pool.lake.drops[1:]))
    with pytest.raises(TransientError, match="drop solo: there is no bucket nobodys-bucket-at-all; `lakehose apply`"):
        files.run(lambda: pool.spark, lake, pool.cloud)
    pool.ingest()
    assert pool.invoices("ann") == ["A1"]


def test_applying_makes_the_bucket_of_a_drop_once_and_leaves_one_that_is_there_as_it_is(shop):
    theirs, ours = f"theirs-{next(_numbers)}", f"{shop.lake.company}-incoming"
    shop.cloud.s3.create_bucket(Bucket=theirs)
    drops = tuple(Drop(name, "solo", "orders", bucket, "") for name, bucket in (("a", theirs), ("b", ours)))
    lake = replace(shop.lake, drops=drops)

    def apply():
        changes = {one.name: one.outcome for one in provision_storage(lake, shop.cloud)}
        return changes[theirs], changes[ours]

    assert apply() == (Outcome.UNCHANGED, Outcome.CREATED)
    assert apply() == (Outcome.UNCHANGED, Outcome.UNCHANGED)
    made = shop.cloud.s3.get_bucket_encryption(Bucket=ours)["ServerSideEncryptionConfiguration"]["Rules"][0]
    assert made["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "aws:kms"
    assert shop.cloud.s3.get_public_access_block(Bucket=ours)["PublicAccessBlockConfiguration"]["BlockPublicPolicy"]


def test_a_folder_that_a_console_made_is_no_file(shop):
    shop.put("", b"")
    shop.put("in/", b"")
    assert shop.files().drops[0].files == 0


def test_two_runs_side_by_side_take_the_same_files_and_every_row_is_there_once(shop):
    for name in "abcdef":
        shop.put(f"{name}.csv", HEADER + rows_of(*range(ord(name) * 100, ord(name) * 100 + 20)))
    threads = [threading.Thread(target=shop.files) for _ in range(2)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    shop.ingest()
    assert len(shop.invoices()) == len(set(shop.invoices())) == 120
    row = shop.line()
    assert (row.sent, row.ingested, row.duplicates, row.redelivered, row.difference) == (120, 120, 0, 0, 0)


def declare(shop, folder):
    """The shop's lake as files on disk."""
    kinds = {
        "string": {"logicalType": "string"},
        "int": {"logicalType": "integer", "physicalType": "int"},
        "long": {"logicalType": "integer", "physicalType": "long"},
        "timestamptz": {"logicalType": "timestamp"},
        "decimal": {"logicalType": "number", "physicalType": "decimal(12,3)"},
    }
    properties = [{"name": one.name, **kinds[one.type.name], "required": one.required} for one in ORDERS.fields]
    schema = [{"name": "orders", "logicalType": "object", "properties": properties}]
    head = {"apiVersion": "v3.1.0", "kind": "DataContract", "id": "orders", "version": "1.0.0", "status": "active"}
    (folder / "orders.yaml").write_text(json.dumps({**head, "schema": schema}))
    drop = {"tenant": "solo", "dataset": "orders", "event_time": "invoice_date"}
    lake = {
        "company": shop.lake.company,
        "environment": "test",
        "tenants": {"solo": {"tier": "dedicated"}},
        "datasets": {"orders": {"contract": "orders.yaml"}},
        "drops": {"solo": drop},
    }
    (folder / "lake.yaml").write_text(json.dumps(lake))
    return str(folder / "lake.yaml")


def test_a_job_killed_in_the_middle_is_finished_by_the_next_one(shop, ministack, tmp_path):
    count = 60
    for number in range(count):
        body = HEADER + rows_of(number * 100, day=1) + rows_of(number * 100 + 1, day=2) + f"A{number}\n"
        shop.put(f"{number}.csv", body)
    command = [sys.executable, "-m", "spark_jobs.files", "--lake", declare(shop, tmp_path), "--endpoint", ministack]
    process = subprocess.Popen(
        command, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL, start_new_session=True
    )
    bucket = shop.lake.names.bucket("solo")
    try:
        deadline = time.monotonic() + 120
        while not shop.cloud.s3.list_objects_v2(Bucket=bucket, Prefix="processed/orders/", MaxKeys=1)["KeyCount"]:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(0.01)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)
    shop.ingest()  # of what is there
    report = shop.files()
    assert 0 < report.drops[0].files <= count
    shop.ingest()
    assert len(shop.invoices()) == len(set(shop.invoices())) == 2 * count
    row = shop.line()
    assert (row.sent, row.ingested, row.refused, row.redelivered, row.difference) == (
        3 * count,
        2 * count,
        count,
        0,
        0,
    )
    assert shop.sheet().balanced


@pytest.fixture
def told(shop, ministack, tmp_path, monkeypatch):
    """Run the command as a cluster does, in a process of its own; answers its status and what it printed."""

    def run(*arguments):
        done = subprocess.run(
            [
                *(sys.executable, "-m", "spark_jobs.files", "--lake", declare(shop, tmp_path)),
                *("--endpoint", ministack, *arguments),
            ],
            env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"},
            capture_output=True,
            text=True,
            check=False,
        )
        return done.returncode, done.stdout, done.stderr

    return run


def test_the_command_prints_what_it_took_and_starts_no_spark_for_nothing(shop, told):
    shop.put("a.csv", HEADER + rows_of(1, 2) + "A3\n")
    refused = shop.put("b.csv", b"")
    status, out, err = told("--owner", "solo")
    assert status == 0, err
    header, row, last = out.splitlines()[1:]
    assert header.split() == ["drop", "tenant", "dataset", "files", "rows", "events", "refused"]
    assert row.split() == ["solo", "solo", "orders", "2", "4", "2", "2"]
    assert last.startswith("files: 2 taken in ")
    assert f"refused: {refused}: the file is empty: not even a header is in it" in err
    status, out, err = told("--json")
    assert (status, err) == (0, "")
    assert json.loads(out)["drops"][0]["files"] == 0


def test_a_lake_without_drops_is_refused_before_spark_starts(capsys):
    assert run_job("files", ["--lake", str(ROOT / "lake.yaml")]) == 2
    assert capsys.readouterr().err.startswith("files: drops: the lake declares none")
