"""Tables read from Glue: versions, regions and catalogs, as the service's own model has them."""

from __future__ import annotations

import logging
from uuid import UUID

import boto3
import pytest
from botocore.stub import Stubber

from firehose.conversion import TableSchema
from firehose.converted import destination_of
from firehose.schemas import Catalog
from firehose.streams import DeliveryStream
from lake.aws_json import ServiceError

ROLE = "arn:aws:iam::000000000000:role/firehose"
ASKED = {"DatabaseName": "lake", "Name": "flights"}


def table(version, *names):
    columns = [{"Name": name, "Type": "string"} for name in names]
    return {"Name": "flights", "VersionId": version, "StorageDescriptor": {"Columns": columns}}


def request_of(**schema):
    conversion = {
        "SchemaConfiguration": {"RoleARN": ROLE, "DatabaseName": "lake", "TableName": "flights", **schema},
        "InputFormatConfiguration": {"Deserializer": {"OpenXJsonSerDe": {}}},
        "OutputFormatConfiguration": {"Serializer": {"ParquetSerDe": {}}},
    }
    given = {"RoleARN": ROLE, "BucketARN": "arn:aws:s3:::lake", "DataFormatConversionConfiguration": conversion}
    return {"DeliveryStreamName": "s", "ExtendedS3DestinationConfiguration": given}


@pytest.fixture
def stub():
    client = boto3.client("glue", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")  # noqa: S106
    with Stubber(client) as made:
        yield made


@pytest.fixture
def asked_of():
    return []


@pytest.fixture
def catalog(stub, asked_of):
    return Catalog(lambda region: asked_of.append(region) or stub.client, "123456789012", "us-east-1")


def stream(request, schema):
    return DeliveryStream("s", UUID(int=1), "arn", 1, 0.0, request, destination_of(request, schema), schema=schema)


def test_a_table_is_read_by_its_catalog_and_region(catalog, stub, asked_of):
    stub.add_response("get_table", {"Table": table("4", "id")}, {**ASKED, "CatalogId": "999999999999"})
    found = catalog.schema_of(request_of(CatalogId="999999999999", Region="eu-west-1"))
    assert asked_of == ["eu-west-1"]
    assert (found.columns, found.version) == ((("id", "string"),), "4")
    assert found.table == {
        "catalogId": "999999999999",
        "databaseName": "lake",
        "tableName": "flights",
        "region": "eu-west-1",
        "versionId": "LATEST",
        "catalogArn": "arn:aws:glue:eu-west-1:999999999999:catalog",
    }


def test_an_older_version_is_read_as_such_and_stays(catalog, stub):
    stub.add_response("get_table", {"Table": table("4", "id", "more")}, ASKED)
    stub.add_response(
        "get_table_version",
        {"TableVersion": {"VersionId": "2", "Table": table("2", "id")}},
        {"DatabaseName": "lake", "TableName": "flights", "VersionId": "2"},
    )
    request = request_of(VersionId="2")
    found = catalog.schema_of(request)
    assert (found.columns, found.version, found.table["versionId"]) == ((("id", "string"),), "2", "2")
    assert catalog.refreshed(stream(request, found)) is None
    stub.assert_no_pending_responses()


def test_a_version_that_is_the_current_one_is_not_asked_for_again(catalog, stub):
    stub.add_response("get_table", {"Table": table("4", "id")}, ASKED)
    assert catalog.schema_of(request_of(VersionId="4")).version == "4"


def test_a_version_that_is_not_there_is_told(catalog, stub):
    stub.add_response("get_table", {"Table": table("4", "id")}, ASKED)
    stub.add_client_error("get_table_version", "EntityNotFoundException", "Version 9 not found", 400)
    with pytest.raises(ServiceError) as caught:
        catalog.schema_of(request_of(VersionId="9"))
    assert (caught.value.code, str(caught.value)) == (
        "InvalidArgumentException",
        (
            "SchemaConfiguration: table lake.flights, version 9: Version 9 not found"
            " (Service: AWSGlue; Error Code: EntityNotFoundException)"
        ),
    )


def test_what_glue_can_not_answer_now_is_told_as_such(catalog, stub):
    stub.add_client_error("get_table", "ThrottlingException", "Rate exceeded", 400)
    with pytest.raises(ServiceError) as caught:
        catalog.schema_of(request_of())
    assert (caught.value.code, caught.value.status) == ("ServiceUnavailableException", 503)


def test_a_table_that_has_changed_changes_the_stream_and_one_that_has_not_does_not(catalog, stub):
    request, schema = request_of(), TableSchema((("id", "string"),), "1", {})
    there = stream(request, schema)
    stub.add_response("get_table", {"Table": table("2", "id")}, ASKED)
    assert catalog.refreshed(there) is None
    stub.add_response("get_table", {"Table": table("3", "id", "more")}, ASKED)
    changed = catalog.refreshed(there)
    assert (changed.schema.columns, changed.schema.version) == ((("id", "string"), ("more", "string")), "3")
    assert (changed.version, changed.identity) == (there.version, there.identity)


def test_trouble_is_logged_once_until_it_is_over(catalog, stub, caplog):
    caplog.set_level(logging.WARNING, "firehose.schemas")
    there = stream(request_of(), TableSchema((("id", "string"),), "1", {}))
    for _ in range(2):
        stub.add_client_error("get_table", "AccessDeniedException", "No", 400)
        assert catalog.refreshed(there) is None
    assert len(caplog.records) == 1
    stub.add_response("get_table", {"Table": table("1", "id")}, ASKED)
    assert catalog.refreshed(there) is None
    stub.add_client_error("get_table", "AccessDeniedException", "No", 400)
    catalog.refreshed(there)
    assert len(caplog.records) == 2


def test_a_stream_that_converts_nothing_asks_nothing(catalog, asked_of):
    given = {"RoleARN": ROLE, "BucketARN": "arn:aws:s3:::lake", "DataFormatConversionConfiguration": {"Enabled": False}}
    request = {"DeliveryStreamName": "s", "ExtendedS3DestinationConfiguration": given}
    assert catalog.schema_of(request) is None
    assert catalog.refreshed(stream(request, None)) is None
    assert asked_of == []


def test_clients_of_regions_are_few_and_a_name_that_is_no_region_is_the_callers_fault():
    made = []

    def client_of(region):
        made.append(region)
        return boto3.client("glue", region_name=region, aws_access_key_id="x", aws_secret_access_key="x")  # noqa: S106

    catalog = Catalog(client_of, "123456789012", "us-east-1")
    with pytest.raises(ServiceError) as caught:
        catalog.schema_of(request_of(Region="eu_west_1"))
    assert caught.value.code == "InvalidArgumentException"
    assert "eu_west_1" in str(caught.value)
    found = Catalog(lambda region: made.append(region) or object(), "123456789012", "us-east-1")
    for number in range(20):
        found._client_of(f"us-east-{number}")
    found._client_of("us-east-19")
    assert len(made) == 21
    assert found._client_of.cache_info().currsize <= 8
