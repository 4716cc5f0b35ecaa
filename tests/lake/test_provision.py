from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pytest

from lake.contract import Field, Primitive
from lake.declaration import read_lake
from lake.errors import FindingError
from lake.provision import Outcome, provision_storage
from lake.tables import glue_catalog

LAKE = replace(read_lake(Path(__file__).parents[2] / "lake.yaml"), company="provisioned")


@pytest.fixture(scope="module")
def first(cloud):
    return list(provision_storage(LAKE, cloud))


def test_the_first_time_everything_is_made(first):
    assert {one.outcome for one in first} == {Outcome.CREATED}
    kinds = [one.kind for one in first]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "key": 4,
        "bucket": 4,
        "queue": 2,
        "database": 4,
        "table": 7,
        "manifest": 1,
    }


def test_the_second_time_nothing_changes(first, cloud):
    again = list(provision_storage(LAKE, cloud))
    assert {one.outcome for one in again} == {Outcome.UNCHANGED}
    assert len(again) == len(first)


def test_each_bucket_is_encrypted_with_its_owners_key_and_closed_to_the_public(first, cloud):
    rule = cloud.s3.get_bucket_encryption(Bucket="provisioned-jfk-demo-datalake")["ServerSideEncryptionConfiguration"]
    own = cloud.kms.describe_key(KeyId="alias/provisioned-demo-jfk")["KeyMetadata"]["Arn"]
    assert rule["Rules"][0]["ApplyServerSideEncryptionByDefault"] == {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": own}
    closed = cloud.s3.get_public_access_block(Bucket="provisioned-jfk-demo-datalake")["PublicAccessBlockConfiguration"]
    assert all(closed.values())


def test_a_bucket_whose_encryption_was_changed_by_hand_is_put_right(first, cloud):
    cloud.s3.put_bucket_encryption(
        Bucket="provisioned-lga-demo-datalake",
        ServerSideEncryptionConfiguration={
            "Rules": [{"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "AES256"}}]
        },
    )
    changes = [one for one in provision_storage(LAKE, cloud) if one.outcome is not Outcome.UNCHANGED]
    assert [(one.kind, one.name, one.outcome) for one in changes] == [
        ("bucket", "provisioned-lga-demo-datalake", Outcome.UPDATED)
    ]


def test_a_table_has_the_contracts_columns_and_layout(first, cloud):
    table = glue_catalog(cloud).load_table(("provisioned_ewr_demo", "flights"))
    assert table.format_version == 2
    assert table.location() == "s3://provisioned-ewr-demo-datalake/analytics-ready/flights"
    assert [one.name for one in table.schema().fields][:3] == ["event_id", "tenant", "dataset"]
    assert str(table.schema().find_type("event_time")) == "timestamptz"
    assert str(table.schema().find_type("distance")) == "int"
    assert [(one.name, str(one.transform)) for one in table.spec().fields] == [("event_time_month", "month")]
    assert table.properties["write.target-file-size-bytes"] == "134217728"


def test_a_contract_that_grew_a_column_and_a_type_evolves_its_tables_and_keeps_their_rows(first, cloud):
    catalog, name = glue_catalog(cloud), ("provisioned_ewr_demo", "flights")
    table = catalog.load_table(name)
    moment = pa.array([datetime(2013, 1, 1, tzinfo=UTC)], pa.timestamp("us", tz="UTC"))
    table.append(pa.table({"event_id": ["e-1"], "event_time": moment, "distance": pa.array([7], pa.int32())}))
    dataset = LAKE.datasets[0]
    wider = tuple(
        replace(one, type=Primitive("long")) if one.name == "distance" else one for one in dataset.contract.fields
    )
    grown = replace(dataset.contract, fields=(*wider, Field("gate", Primitive("string"), description="Where")))
    lake = replace(LAKE, datasets=(replace(dataset, contract=grown),))
    changed = [one for one in provision_storage(lake, cloud) if one.outcome is not Outcome.UNCHANGED]
    assert [(one.name, one.outcome) for one in changed] == [
        (f"provisioned_{tenant}_demo.flights", Outcome.UPDATED) for tenant in ("ewr", "jfk", "lga")
    ]
    table = catalog.load_table(name)
    assert (str(table.schema().find_type("distance")), str(table.schema().find_type("gate"))) == ("long", "string")
    assert table.schema().find_field("gate").doc == "Where"
    rows = table.scan(selected_fields=("event_id", "distance", "gate")).to_arrow().to_pylist()
    assert rows == [{"event_id": "e-1", "distance": 7, "gate": None}]
    # the older contract goes on with the table that grew
    assert {one.outcome for one in provision_storage(LAKE, cloud)} == {Outcome.UNCHANGED}


def test_a_contract_whose_column_is_of_another_type_is_refused_with_the_way_out(first, cloud):
    dataset = LAKE.datasets[0]
    other = tuple(
        replace(one, type=Primitive("string")) if one.name == "flight" else one for one in dataset.contract.fields
    )
    lake = replace(LAKE, datasets=(replace(dataset, contract=replace(dataset.contract, fields=other)),))
    with pytest.raises(
        FindingError, match=r"column flight is int, and the contract says string, .*a dataset, and so a"
    ):
        list(provision_storage(lake, cloud))
