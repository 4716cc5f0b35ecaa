"""Owns Athena's view of the Glue catalog: data catalogs, databases and tables as its API lists them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError

from athena.paging import page_bounds, paged
from athena.wire import invalid_request, metadata_error

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mypy_boto3_glue import GlueClient

__all__ = ["CATALOG", "Catalog"]

CATALOG = "AwsDataCatalog"
_PAGE = 50


@dataclass(frozen=True)
class Catalog:
    """Answers the catalog operations from Glue."""

    glue: GlueClient

    def list_data_catalogs(self, _request: dict[str, Any]) -> dict[str, Any]:
        """ListDataCatalogs: Glue is the only one."""
        return {"DataCatalogsSummary": [{"CatalogName": CATALOG, "Type": "GLUE"}]}

    def get_data_catalog(self, request: dict[str, Any]) -> dict[str, Any]:
        """GetDataCatalog."""
        if request["Name"].lower() != CATALOG.lower():
            raise invalid_request(f"Data catalog {request['Name']} is not found")
        return {"DataCatalog": {"Name": CATALOG, "Type": "GLUE", "Description": "", "Parameters": {}}}

    def list_databases(self, request: dict[str, Any]) -> dict[str, Any]:
        """ListDatabases."""
        _check_catalog(request)
        pages = self.glue.get_paginator("get_databases").paginate()
        found = _asked(lambda: [one for page in pages for one in page["DatabaseList"]], "databases")
        return _listed("DatabaseList", [_database(one) for one in found], request)

    def get_database(self, request: dict[str, Any]) -> dict[str, Any]:
        """GetDatabase."""
        _check_catalog(request)
        name = request["DatabaseName"]
        found = _asked(lambda: self.glue.get_database(Name=name), f"database {name}")
        return {"Database": _database(found["Database"])}

    def list_table_metadata(self, request: dict[str, Any]) -> dict[str, Any]:
        """ListTableMetadata; the expression is a regular expression on names."""
        _check_catalog(request)
        name = request["DatabaseName"]
        pattern = _pattern(request.get("Expression"))
        pages = self.glue.get_paginator("get_tables").paginate(DatabaseName=name)
        found = _asked(lambda: [one for page in pages for one in page["TableList"]], f"database {name}")
        tables = [_table(one) for one in found if pattern is None or pattern.fullmatch(one["Name"])]
        return _listed("TableMetadataList", tables, request)

    def get_table_metadata(self, request: dict[str, Any]) -> dict[str, Any]:
        """GetTableMetadata."""
        _check_catalog(request)
        database, name = request["DatabaseName"], request["TableName"]
        found = _asked(lambda: self.glue.get_table(DatabaseName=database, Name=name), f"table {database}.{name}")
        return {"TableMetadata": _table(found["Table"])}


def _check_catalog(request: dict[str, Any]) -> None:
    if request["CatalogName"].lower() != CATALOG.lower():
        raise metadata_error(f"Catalog {request['CatalogName']} is not found; there is {CATALOG}")


def _pattern(expression: str | None) -> re.Pattern[str] | None:
    if not expression:
        return None
    try:
        # Hive's star, which isn't a regular expression by itself
        return re.compile(re.sub(r"(?<![.\])])\*", ".*", expression), re.IGNORECASE)
    except re.error as error:
        raise invalid_request(f"Expression {expression!r} is no regular expression: {error}") from None


def _asked(call: Callable[[], Any], what: str) -> Any:
    try:
        return call()
    except ClientError as error:
        code = error.response["Error"]["Code"]
        if code == "EntityNotFoundException":
            raise metadata_error(f"EntityNotFoundException: {what} is not found") from None
        raise metadata_error(f"{code}: {error.response['Error'].get('Message', '')}") from error
    except BotoCoreError as error:
        raise metadata_error(f"Glue can't be reached: {error}") from error


def _listed(name: str, found: list[dict[str, Any]], request: dict[str, Any]) -> dict[str, Any]:
    # Glue is read whole: not every one pages by itself, or filters by expression
    start, most = page_bounds(request, _PAGE)
    ordered = sorted(found, key=lambda one: one["Name"])
    return paged(name, ordered[start : start + most], start, len(ordered))


def _database(one: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "Name": one["Name"],
        "Description": one.get("Description", ""),
        "Parameters": dict(one.get("Parameters", {})),
    }


def _table(one: Mapping[str, Any]) -> dict[str, Any]:
    storage = one.get("StorageDescriptor", {})
    serde = storage.get("SerdeInfo", {})
    physical = {
        "location": storage.get("Location"),
        "inputformat": storage.get("InputFormat"),
        "outputformat": storage.get("OutputFormat"),
        "serde.serialization.lib": serde.get("SerializationLibrary"),
        **{f"serde.param.{key}": value for key, value in serde.get("Parameters", {}).items()},
    }
    times = {
        "CreateTime": one.get("CreateTime"),
        "LastAccessTime": one.get("LastAccessTime"),
    }
    return {
        "Name": one["Name"],
        "TableType": one.get("TableType", ""),
        "Columns": [_column(column) for column in storage.get("Columns", [])],
        "PartitionKeys": [_column(column) for column in one.get("PartitionKeys", [])],
        "Parameters": {
            **one.get("Parameters", {}),
            **{key: value for key, value in physical.items() if value is not None},
        },
        **{key: value.timestamp() for key, value in times.items() if value is not None},
    }


def _column(one: Mapping[str, Any]) -> dict[str, str]:
    comment = {"Comment": one["Comment"]} if one.get("Comment") else {}
    return {"Name": one["Name"], "Type": one.get("Type", ""), **comment}
