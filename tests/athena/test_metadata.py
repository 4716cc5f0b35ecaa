from __future__ import annotations

import pytest


def test_tables_are_listed_in_pages_of_fifty(athena, tables):
    first = athena.list_table_metadata(CatalogName="AwsDataCatalog", DatabaseName="shop")
    assert len(first["TableMetadataList"]) == 50
    second = athena.list_table_metadata(CatalogName="AwsDataCatalog", DatabaseName="shop", NextToken=first["NextToken"])
    names = {one["Name"] for page in (first, second) for one in page["TableMetadataList"]}
    assert {"everything", "numbers", "plain_00", "plain_59"} <= names


def test_an_expression_picks_tables_by_name(athena, tables):
    pages = athena.get_paginator("list_table_metadata").paginate(
        CatalogName="AwsDataCatalog", DatabaseName="shop", Expression="plain_0*"
    )
    names = [one["Name"] for page in pages for one in page["TableMetadataList"]]
    assert sorted(names) == [f"plain_0{index}" for index in range(10)]


def test_a_table_tells_columns_partitions_and_parameters(athena, tables):
    found = athena.get_table_metadata(CatalogName="AwsDataCatalog", DatabaseName="shop", TableName="plain_07")
    table = found["TableMetadata"]
    assert table["Columns"] == [{"Name": "a", "Type": "string", "Comment": "a letter"}]
    assert table["PartitionKeys"] == [{"Name": "day", "Type": "date"}]
    assert table["Parameters"] == {"classification": "json", "location": "s3://athena-tests/plain/7/"}
    assert table["TableType"] == "EXTERNAL_TABLE"


def test_an_iceberg_table_is_known_by_its_parameter(athena, tables):
    found = athena.get_table_metadata(CatalogName="awsdatacatalog", DatabaseName="shop", TableName="numbers")
    table = found["TableMetadata"]
    assert table["Parameters"]["table_type"].upper() == "ICEBERG"
    assert [(one["Name"], one["Type"]) for one in table["Columns"]] == [("n", "bigint"), ("half", "double")]


def test_databases_are_listed(athena, tables):
    pages = athena.get_paginator("list_databases").paginate(CatalogName="AwsDataCatalog")
    assert "shop" in [one["Name"] for page in pages for one in page["DatabaseList"]]
    assert athena.get_database(CatalogName="AwsDataCatalog", DatabaseName="shop")["Database"]["Name"] == "shop"


@pytest.mark.parametrize(
    ("database", "table", "message"),
    [("nope", "numbers", "not found"), ("shop", "nope", "table shop.nope is not found")],
)
def test_a_name_that_the_catalog_does_not_have_is_a_metadata_error(athena, tables, database, table, message):
    with pytest.raises(athena.exceptions.MetadataException, match=message):
        athena.get_table_metadata(CatalogName="AwsDataCatalog", DatabaseName=database, TableName=table)


def test_glue_is_the_only_data_catalog(athena, lake_cloud):
    assert athena.list_data_catalogs()["DataCatalogsSummary"] == [{"CatalogName": "AwsDataCatalog", "Type": "GLUE"}]
    assert athena.get_data_catalog(Name="AwsDataCatalog")["DataCatalog"]["Type"] == "GLUE"
    with pytest.raises(athena.exceptions.InvalidRequestException, match="Data catalog other is not found"):
        athena.get_data_catalog(Name="other")
