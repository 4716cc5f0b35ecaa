"""Owns the schemas of streams that convert: Glue's tables, read when a stream is made and looked at now and then.

A stream keeps the schema that was read last, on disk beside its definition: without Glue it goes on, and starts again.
Source: https://docs.aws.amazon.com/firehose/latest/APIReference/API_SchemaConfiguration.html
"""

from __future__ import annotations

import logging
from dataclasses import replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from botocore.exceptions import BotoCoreError, ClientError, InvalidRegionError, ParamValidationError

from firehose.columnar import ColumnarError, prove
from firehose.conversion import TableSchema
from firehose.conversion_config import conversion_of, converts
from firehose.converted import destination_of
from firehose.definition_error import invalid
from firehose.streams import requested_destination
from lake.aws_json import ServiceError

if TYPE_CHECKING:
    from collections.abc import Callable

    from mypy_boto3_glue import GlueClient

    from firehose.streams import DeliveryStream

__all__ = ["Catalog"]

_log = logging.getLogger(__name__)
_LATEST = "LATEST"
_CLIENTS = 8
_SERVER_ERROR = 500
_THROTTLED = ("ThrottlingException", "OperationTimeoutException")
_PLACE = ("DataFormatConversionConfiguration", "SchemaConfiguration")


class Catalog:
    """Reads tables; every method blocks.

    Args:
        client_of: makes a client of Glue in a region.
        account: whose catalog it is where a stream names none.
        region: of the catalog where a stream names none.
    """

    def __init__(self, client_of: Callable[[str], GlueClient], account: str, region: str) -> None:
        # a client takes megabytes, and a region is what anyone names
        self._client_of = lru_cache(maxsize=_CLIENTS)(client_of)
        self._account = account
        self._region = region
        self._troubled: set[str] = set()

    def schema_of(self, request: dict[str, Any], there: DeliveryStream | None = None) -> TableSchema | None:
        """Read the table of a CreateDeliveryStream request; None if it converts nothing.

        Args:
            request: the request; its members are of the right types.
            there: the stream that it changes; its schema stays where the table is the same and Glue doesn't answer.

        Raises:
            ServiceError: InvalidArgumentException: the request makes no sense, or the table isn't there;
                ServiceUnavailableException: Glue doesn't answer.
        """
        destination_of(request, None)  # what makes no sense without a table is told first
        given = requested_destination(request)
        if not converts(given):
            return None
        wanted = given["DataFormatConversionConfiguration"]["SchemaConfiguration"]
        try:
            found = self._read(wanted)
        except (BotoCoreError, ClientError) as error:
            if _is_answer(error):
                raise invalid(f"SchemaConfiguration: {_told(wanted)}: {_words(error)}", *_PLACE) from None
            if there is not None and there.schema is not None and _table_of(there) == wanted:
                return there.schema
            raise ServiceError(
                "ServiceUnavailableException", f"Glue can't be asked for {_told(wanted)}: {error}", 503
            ) from None
        try:
            prove(conversion_of(given, found))
        except ColumnarError as error:
            raise invalid(f"SchemaConfiguration: {_told(wanted)} can't be written: {error}", *_PLACE) from None
        return found

    def refreshed(self, stream: DeliveryStream) -> DeliveryStream | None:
        """Read a stream's table again; returns the stream as it is by the table now, or None if nothing changes.

        A table that can't be read, or whose columns can't be converted to any more, changes nothing: it is logged.
        """
        wanted = _table_of(stream)
        if stream.schema is None or wanted is None or wanted.get("VersionId", _LATEST) != _LATEST:
            return None
        try:
            found = self._read(wanted)
            made = None if found.columns == stream.schema.columns else _by(stream, found)
        except (BotoCoreError, ClientError, ServiceError, ColumnarError) as error:
            if stream.name not in self._troubled:
                _log.warning(
                    "stream %s: %s can't be used: %s; it goes on by the schema that was read last",
                    *(stream.name, _told(wanted), error),
                )
            self._troubled.add(stream.name)
            return None
        self._troubled.discard(stream.name)
        if made is not None:
            _log.info("stream %s: %s has changed: version %s", stream.name, _told(wanted), found.version)
        return made

    def _read(self, wanted: dict[str, Any]) -> TableSchema:
        region = wanted.get("Region") or self._region
        glue = self._client_of(region)
        database, name = wanted["DatabaseName"], wanted["TableName"]
        catalog = {"CatalogId": wanted["CatalogId"]} if wanted.get("CatalogId") else {}
        version = wanted.get("VersionId") or _LATEST
        table: Any = glue.get_table(DatabaseName=database, Name=name, **catalog)["Table"]
        if version not in {_LATEST, table.get("VersionId")}:
            answer: Any = glue.get_table_version(DatabaseName=database, TableName=name, VersionId=version, **catalog)
            table = {"VersionId": version, **answer["TableVersion"]["Table"]}
        columns = (table.get("StorageDescriptor") or {}).get("Columns") or []
        owner = wanted.get("CatalogId") or self._account
        return TableSchema(
            tuple((one["Name"], one.get("Type") or "string") for one in columns),
            table.get("VersionId") or "",
            {
                "catalogId": owner,
                "databaseName": database,
                "tableName": name,
                "region": region,
                "versionId": version,
                "catalogArn": f"arn:aws:glue:{region}:{owner}:catalog",
            },
        )


def _by(stream: DeliveryStream, schema: TableSchema) -> DeliveryStream:
    prove(conversion_of(requested_destination(stream.request), schema))
    return replace(stream, schema=schema, destination=destination_of(stream.request, schema))


def _table_of(stream: DeliveryStream) -> dict[str, Any] | None:
    given = requested_destination(stream.request)
    if not converts(given):
        return None
    found: dict[str, Any] = given["DataFormatConversionConfiguration"]["SchemaConfiguration"]
    return found


def _told(wanted: dict[str, Any]) -> str:
    version = wanted.get("VersionId") or _LATEST
    behind = "" if version == _LATEST else f", version {version}"
    return f"table {wanted['DatabaseName']}.{wanted['TableName']}{behind}"


def _is_answer(error: Exception) -> bool:
    # what asking again wouldn't change
    if not isinstance(error, ClientError):
        return isinstance(error, (InvalidRegionError, ParamValidationError))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", _SERVER_ERROR)
    return status < _SERVER_ERROR and error.response["Error"].get("Code") not in _THROTTLED


def _words(error: Exception) -> str:
    if not isinstance(error, ClientError):
        return str(error)
    said = error.response["Error"]
    return f"{said.get('Message', '')} (Service: AWSGlue; Error Code: {said.get('Code', 'unknown')})"
