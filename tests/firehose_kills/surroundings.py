"""Owns what the campaign's streams need around them: a bucket, a table to convert by, a function to be invoked."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from io import BytesIO
from uuid import uuid4

from tests.firehose.conftest import client

__all__ = ["COLUMNS", "DROPPED", "FAILED", "MADE", "ROLE", "Surroundings"]

ROLE = "arn:aws:iam::000000000000:role/firehose"
COLUMNS = [("number", "bigint"), ("part", "int"), ("tenant", "string"), ("text", "string")]
"""Of the table; a row's number and part tell it from all others."""
DROPPED, FAILED = b"drop ", b"fail "
"""What a record begins with of which the function makes nothing, or that it fails."""
MADE = b" made\n"
"""What the function puts behind any other, for its newline."""
_FUNCTION = f"""
import base64

def handler(event, context):
    return {{"records": [answer(record) for record in event["records"]]}}

def answer(record):
    raw = base64.b64decode(record["data"])
    if raw.startswith({DROPPED!r}):
        return {{"recordId": record["recordId"], "result": "Dropped"}}
    if raw.startswith({FAILED!r}):
        return {{"recordId": record["recordId"], "result": "ProcessingFailed"}}
    data = base64.b64encode(raw.rstrip() + {MADE!r}).decode()
    return {{"recordId": record["recordId"], "result": "Ok", "data": data}}
"""


@dataclass(frozen=True)
class Surroundings:
    """Names of them, of one campaign's own."""

    bucket: str
    table: str
    """Its database has the same name."""
    function: str
    """ARN."""

    @classmethod
    def create(cls, url: str) -> Surroundings:
        """Make them behind an endpoint."""
        name = f"kills-{uuid4().hex[:12]}"
        table = name.replace("-", "_")
        client("s3", url).create_bucket(Bucket=name)
        glue = client("glue", url)
        glue.create_database(DatabaseInput={"Name": table})
        columns = [{"Name": column, "Type": kind} for column, kind in COLUMNS]
        described = {"Name": table, "StorageDescriptor": {"Columns": columns}}
        glue.create_table(DatabaseName=table, TableInput=described)
        packed = BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            archive.writestr("function.py", _FUNCTION)
        made = client("lambda", url).create_function(
            FunctionName=name,
            Runtime="python3.11",
            Role=ROLE,
            Handler="function.handler",
            Code={"ZipFile": packed.getvalue()},
            Timeout=30,
        )
        return cls(name, table, made["FunctionArn"])
