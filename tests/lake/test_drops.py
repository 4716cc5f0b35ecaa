"""Drops in `lake.yaml`: what they default to, what is refused and how, and the memory of taken files."""

import itertools
import shutil
from pathlib import Path

import pytest

from lake.declaration import read_lake
from lake.drops import Drop, TakenFile, TakenFiles, file_producer
from lake.errors import DeclarationError

ROOT = Path(__file__).parents[2]
LAKE = (ROOT / "lake.yaml").read_text()
_numbers = itertools.count(1)
CONTRACT = """
apiVersion: v3.1.0
kind: DataContract
id: user_events
version: 1.0.0
status: active
schema:
  - name: user_events
    logicalType: object
    properties:
      - {name: page, logicalType: string, required: true}
      - {name: seconds, logicalType: integer}
      - {name: occurred_at, logicalType: timestamp}
"""


@pytest.fixture
def declare(tmp_path):
    shutil.copytree(ROOT / "contracts", tmp_path / "contracts")
    (tmp_path / "contracts" / "user_events.yaml").write_text(CONTRACT)
    text = LAKE.replace("datasets:\n", "datasets:\n  user_events: {contract: contracts/user_events.yaml}\n")

    def write(drops, *, jobs=""):
        (tmp_path / "lake.yaml").write_text(text[: text.index("jobs:")] + f"drops:\n{drops}\n{jobs}")
        return tmp_path / "lake.yaml"

    return write


def refusal(path):
    with pytest.raises(DeclarationError) as caught:
        read_lake(path)
    return str(caught.value).replace(f"{path}: ", "")


def test_a_drop_is_below_raw_in_its_tenants_own_bucket_unless_it_says_otherwise(declare):
    lake = read_lake(
        declare("  shop: {tenant: ewr, dataset: user_events}\n  kiosk: {tenant: jfk, dataset: user_events}")
    )
    assert lake.drops == (
        Drop("shop", "ewr", "user_events", "acme-ewr-demo-datalake", "raw/shop/"),
        Drop("kiosk", "jfk", "user_events", "acme-jfk-demo-datalake", "raw/kiosk/"),
    )
    assert lake.drops[0].uri == "s3://acme-ewr-demo-datalake/raw/shop/"


def test_everything_about_a_drop_can_be_declared(declare):
    drop = (
        "  user_events:\n    tenant: ewr\n    dataset: user_events\n    bucket: user-events\n    prefix: ''\n"
        "    event_time: occurred_at\n    timezone: Europe/Berlin\n    delimiter: ';'\n    quote: \"'\"\n"
        "    encoding: latin-1"
    )
    assert read_lake(declare(drop)).drops == (
        Drop(
            *("user_events", "ewr", "user_events", "user-events", "", "occurred_at"),
            timezone="Europe/Berlin",
            delimiter=";",
            quote="'",
            encoding="latin-1",
        ),
    )


def test_the_files_job_is_the_first_of_the_pipeline_where_there_are_drops(declare):
    path = declare("  shop: {tenant: ewr, dataset: user_events}", jobs="jobs:\n  files: {schedule: '@every 30s'}\n")
    lake = read_lake(path)
    assert [(one.name, one.after) for one in lake.pipeline()] == [
        ("files", ()),
        ("ingest", ("files",)),
        ("compact", ("ingest",)),
        ("maintain", ("compact",)),
    ]
    assert lake.job("files").schedule.seconds == 30


def test_without_drops_there_is_no_files_job_and_nothing_to_set_of_it(tmp_path, declare):
    path = declare("", jobs="jobs:\n  files: {retries: 1}\n")
    path.write_text(path.read_text().replace("drops:\n", ""))
    assert refusal(path) == "jobs.files: there is no such job without `drops:`, whose files it takes"


@pytest.mark.parametrize(
    ("drop", "told"),
    [
        (
            "{tenant: efr, dataset: user_events}",
            "drops.shop.tenant: got 'efr', allowed are: ewr, jfk, lga; did you mean 'ewr'?",
        ),
        (
            "{tenant: ewr, dataset: user_event}",
            "drops.shop.dataset: got 'user_event', allowed are: flights, user_events; did you mean 'user_events'?",
        ),
        (
            "{tenant: ewr, dataset: user_events, event_time: occured_at}",
            (
                "drops.shop.event_time: got 'occured_at', allowed are: occurred_at, page, seconds; did you mean "
                "'occurred_at'? (the fields of the contract of user_events)"
            ),
        ),
        (
            "{tenant: ewr, dataset: user_events, event_time: seconds}",
            (
                "drops.shop.event_time: the contract's seconds is a long, allowed are: "
                "timestamptz, timestamp, date, string"
            ),
        ),
        (
            "{tenant: ewr, dataset: user_events, timezone: Berlin}",
            "drops.shop.timezone: got 'Berlin', allowed is an IANA name, as in Europe/Berlin",
        ),
        (
            "{tenant: ewr, dataset: user_events, delimiter: '\"'}",
            "drops.shop.quote: got '\"', which is the delimiter too",
        ),
        (
            "{tenant: ewr, dataset: user_events, delimiter: ';;'}",
            "drops.shop.delimiter: String should match pattern '^[^\\r\\n\\x00]$'; got ';;'",
        ),
        (
            "{tenant: ewr, dataset: user_events, encoding: utf8}",
            "drops.shop.encoding: Input should be 'utf-8', 'utf-16', 'latin-1' or 'windows-1252'; got 'utf8'",
        ),
        (
            "{tenant: ewr, dataset: user_events, prefix: incoming/}",
            (
                "drops.shop.prefix: got 'incoming/'; in the lake's own bucket acme-ewr-demo-datalake a drop lies below "
                "'raw/', as the rest of it holds what the jobs write"
            ),
        ),
        (
            "{tenant: ewr, dataset: user_events, bucket: acme-pooled-demo-landing}",
            (
                "drops.shop.bucket: acme-pooled-demo-landing is the lake's bucket of pooled, and the drop is tenant "
                "ewr's; leave `bucket` out for acme-ewr-demo-datalake, or name a bucket of its own"
            ),
        ),
    ],
)
def test_what_is_not_allowed_is_refused_by_its_place_with_what_is(declare, drop, told):
    assert refusal(declare(f"  shop: {drop}")) == told


def test_an_unknown_key_of_a_drop_is_refused_with_what_was_meant(declare):
    told = refusal(declare("  shop: {tenant: ewr, dataset: user_events, delimeter: ';'}"))
    assert told.startswith("drops.shop.delimeter: unknown key: got 'delimeter', allowed are: bucket, dataset, ")
    assert told.endswith("did you mean 'delimiter'?")


@pytest.mark.parametrize("name", ["Shop", "a--b", "-a", "a" * 41])
def test_a_name_that_no_prefix_should_hold_is_refused(declare, name):
    told = refusal(declare(f"  '{name}': {{tenant: ewr, dataset: user_events}}"))
    assert (
        told
        == f"drops: got {name!r}, allowed are a-z, 0-9 and single hyphens or underscores, a letter first, at most 40"
    )


def test_two_drops_that_would_take_the_same_file_are_refused(declare):
    told = refusal(
        declare(
            "  all: {tenant: ewr, dataset: user_events, bucket: incoming, prefix: ''}\n"
            "  some: {tenant: ewr, dataset: flights, bucket: incoming, prefix: flights/}"
        )
    )
    assert told == (
        "drops.some: s3://incoming/flights/ and s3://incoming/ of drop 'all' overlap: a file would be taken twice; "
        "give each a prefix that isn't the beginning of the other's"
    )


def test_a_bucket_holds_the_drops_of_one_tenant(declare):
    told = refusal(
        declare(
            "  one: {tenant: ewr, dataset: user_events, bucket: incoming, prefix: ewr/}\n"
            "  two: {tenant: jfk, dataset: user_events, bucket: incoming, prefix: jfk/}"
        )
    )
    assert told == (
        "drops.two.bucket: incoming is tenant ewr's by drop 'one', and this drop is tenant jfk's: "
        "a bucket is one tenant's"
    )


def test_a_files_producer_is_told_by_its_place_and_content_alone():
    made = file_producer("s3://b/a.csv", "00ff")
    assert made == "file-928547d28915435230b0"
    assert file_producer("s3://b/a.csv", "00fe") != made
    assert file_producer("s3://b/b.csv", "00ff") != made


@pytest.fixture
def memory(cloud):
    table = f"files-{next(_numbers)}"
    cloud.dynamodb.create_table(
        TableName=table,
        KeySchema=[{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        AttributeDefinitions=[{"AttributeName": name, "AttributeType": "S"} for name in ("pk", "sk")],
        BillingMode="PAY_PER_REQUEST",
    )
    return TakenFiles(cloud.dynamodb, table)


def test_taken_files_are_remembered_by_address_and_etag(memory):
    drop = Drop("shop", "ewr", "user_events", "b", "raw/")
    one = TakenFile("s3://b/raw/a#1.csv", "e1", "file-1", 7, 2, 1000)
    other = TakenFile("s3://b/raw/a#1.csv", "e2", "file-2", 8, 0, 2000)
    longer = TakenFile("s3://b/raw/a#1.csv#1", "e3", "file-3", 1, 0, 3000)
    for taken in (one, one, other, longer):
        memory.record(drop, taken)
    assert memory.of_drop(drop) == {(taken.uri, taken.etag) for taken in (one, other, longer)}
    assert memory.of_file(drop, "s3://b/raw/a#1.csv") == [one, other]


def test_a_file_that_was_taken_is_known_by_the_content_that_it_is_going_to_have(memory):
    drop = Drop("shop", "ewr", "user_events", "b", "raw/")
    uri = "s3://b/raw/a.csv"
    memory.record(drop, TakenFile(uri, "e1", file_producer(uri, "aa"), 7, 2, 1000))
    memory.rewritten(drop, uri, "bb", "cc")  # what is there now was never taken
    memory.rewritten(drop, "s3://b/raw/b.csv", "aa", "cc")
    assert len(memory.of_drop(drop)) == 1
    for before, after in (("aa", "dd"), ("aa", "dd"), ("dd", "ee")):
        memory.rewritten(drop, uri, before, after)
    known = {one.producer_id: (one.rows, one.refused) for one in memory.of_file(drop, uri)}
    assert known == {file_producer(uri, one): (7, 2) for one in ("aa", "dd", "ee")}


def test_files_with_the_longest_keys_that_s3_takes_are_told_apart(memory):
    drop = Drop("shop", "ewr", "user_events", "b" * 63, "é" * 200)
    long = drop.uri + "x" * 623
    one, other = TakenFile(f"{long}1", "e1", "file-1", 7, 2, 1000), TakenFile(f"{long}2", "e2", "file-2", 8, 0, 2000)
    memory.record(drop, one)
    memory.record(drop, other)
    assert memory.of_drop(drop) == {(one.uri, "e1"), (other.uri, "e2")}
    assert memory.of_file(drop, one.uri) == [one]


def test_another_drop_remembers_its_own_files_only(memory):
    drop = Drop("shop", "ewr", "user_events", "b", "raw/shop/")
    memory.record(drop, TakenFile("s3://b/raw/shop/a.csv", "e1", "file-1", 7, 2, 1000))
    assert memory.of_drop(Drop("kiosk", "ewr", "user_events", "b", "raw/kiosk/")) == set()
