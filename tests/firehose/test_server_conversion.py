"""Records converted by the server: a table in a real Glue, objects in a real S3, and the same ones after a crash."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from urllib.request import urlopen
from uuid import uuid4

import orjson
import pyarrow as pa
import pytest
from botocore.exceptions import BotoCoreError, ClientError
from pyarrow import orc, parquet

from tests.firehose.conftest import ROLE, client

COLUMNS = [("id", "string"), ("number", "int"), ("at", "timestamp")]
GOOD = [b'{"id":"a","number":1,"at":"2013-05-07T10:00:00Z"}\n', b'{"ID":"b"} {"id":"c","number":"3"}']
BAD = [b'{"number":"x"}', b"not json", b"[1]"]


@pytest.fixture
def glue(s3_url):
    return client("glue", s3_url)


@pytest.fixture
def table(glue):
    """A table of the test's own: its name, in a database of that name."""
    name = f"t{uuid4().hex[:12]}"
    glue.create_database(DatabaseInput={"Name": name})
    glue.create_table(DatabaseName=name, TableInput=table_input(name, COLUMNS))
    return name


def table_input(name, columns):
    described = [{"Name": column, "Type": hive} for column, hive in columns]
    return {
        "Name": name,
        "StorageDescriptor": {"Columns": described},
        "PartitionKeys": [{"Name": "day", "Type": "string"}],
    }


def converting(bucket, table, kind="ParquetSerDe", **changes):
    schema = {"RoleARN": ROLE, "DatabaseName": table, "TableName": table}
    conversion = {
        "SchemaConfiguration": schema,
        "InputFormatConfiguration": {"Deserializer": {"OpenXJsonSerDe": {}}},
        "OutputFormatConfiguration": {"Serializer": {kind: {}}},
    }
    given = {
        "ErrorOutputPrefix": "errors/!{firehose:error-output-type}/",
        "DataFormatConversionConfiguration": conversion,
    }
    return bucket.plain(**{**given, **changes})


@pytest.fixture
def make(servers, s3_url):
    return lambda *options, **named: servers("--glue-endpoint", s3_url, *options, **named)


def rows(bucket, key):
    raw = pa.BufferReader(bucket.body(key))
    return (orc if key.endswith(".orc") else parquet).read_table(raw).to_pylist()


WRITTEN = [
    {"id": "a", "number": 1, "at": datetime(2013, 5, 7, 10)},  # noqa: DTZ001 - a file's timestamps have no zone
    {"id": "b", "number": None, "at": None},
    {"id": "c", "number": 3, "at": None},
]


@pytest.mark.parametrize(("kind", "ending"), [("ParquetSerDe", ".parquet"), ("OrcSerDe", ".orc")])
def test_records_are_delivered_as_columns_and_those_that_do_not_fit_as_errors(make, bucket, table, kind, ending):
    server = make()
    server.create("s", converting(bucket, table, kind))
    server.batch("s", [GOOD[0], BAD[0], GOOD[1], *BAD[1:]])
    assert server.flush() == {"s": {"objects": 2, "records": 5}}
    (key,) = bucket.objects("raw/")
    assert key.endswith(ending)
    assert rows(bucket, key) == WRITTEN
    told = bucket.s3.head_object(Bucket=bucket.name, Key=key)
    assert (told["ContentEncoding"], told["ContentType"]) == ("hadoop-snappy", "application/octet-stream")

    (error,) = bucket.objects("errors/")
    assert error.startswith("errors/format-conversion-failed/s-1-")
    lines = [orjson.loads(line) for line in bucket.body(error).splitlines()]
    assert [(line["lastErrorCode"], line["lastErrorMessage"]) for line in lines] == [
        ("DataFormatConversion.MalformedData", 'Data does not match the schema. For input string: "x"'),
        ("DataFormatConversion.ParseError", "Encountered malformed JSON. Expecting value at character 0"),
        (
            "DataFormatConversion.MalformedData",
            "Data does not match the schema. An array of JSON documents is not a valid input.",
        ),
    ]
    first = lines[0]
    assert list(first) == [
        *("attemptsMade", "arrivalTimestamp", "lastErrorCode", "lastErrorMessage", "attemptEndingTimestamp"),
        *("rawData", "sequenceNumber", "subSequenceNumber", "dataCatalogTable"),
    ]
    assert (first["rawData"], first["subSequenceNumber"]) == ("eyJudW1iZXIiOiJ4In0=", 0)
    assert [int(line["sequenceNumber"]) for line in lines] == sorted({int(line["sequenceNumber"]) for line in lines})
    assert first["dataCatalogTable"] == {
        "catalogId": "000000000000",
        "databaseName": table,
        "tableName": table,
        "region": "us-east-1",
        "versionId": "LATEST",
        "catalogArn": "arn:aws:glue:us-east-1:000000000000:catalog",
    }


def test_what_was_converted_and_what_was_not_is_counted(make, s3_url, bucket, table, wait_for):
    server = make("--cloudwatch-endpoint", s3_url, "--cloudwatch-seconds", "1")
    server.create(table, converting(bucket, table))
    server.batch(table, [*GOOD, *BAD])
    with urlopen(f"{server.url}/metrics") as answer:
        shown = dict(line.rsplit(" ", 1) for line in answer.read().decode().splitlines() if not line.startswith("#"))
    figures = {"Succeed": GOOD, "Failed": BAD}
    for kind, records in figures.items():
        name = f"firehose_{kind.lower()}_conversion"
        found = [float(shown[f'{name}_{what}_total{{stream="{table}"}}']) for what in ("records", "bytes")]
        assert found == [len(records), sum(map(len, records))]
    cloudwatch = client("cloudwatch", s3_url)

    def told(name):
        found = cloudwatch.get_metric_statistics(
            Namespace="AWS/Firehose",
            MetricName=name,
            Dimensions=[{"Name": "DeliveryStreamName", "Value": table}],
            StartTime=datetime.now(UTC) - timedelta(minutes=10),
            EndTime=datetime.now(UTC) + timedelta(minutes=10),
            Period=3600,
            Statistics=["Sum"],
        )
        return sum(one["Sum"] for one in found["Datapoints"])

    wait_for(lambda: told("SucceedConversion.Records") == len(GOOD))
    assert told("FailedConversion.Records") == len(BAD)
    assert told("FailedConversion.Bytes") == sum(map(len, BAD))


def test_partitions_are_converted_each_by_itself(make, bucket, table, event):
    server = make()
    given = bucket.partitioned(CompressionFormat="UNCOMPRESSED")
    conversion = converting(bucket, table)["DataFormatConversionConfiguration"]
    server.create("s", {**given, "DataFormatConversionConfiguration": conversion})
    server.batch("s", [event(1, "ewr"), event(2, "jfk"), event(3, "ewr"), b'{"tenant":"jfk","number":"x"}'])
    server.flush()
    found = {key.split("/")[1]: [row["number"] for row in rows(bucket, key)] for key in bucket.objects("processed/")}
    assert found == {"tenant=ewr": [1, 3], "tenant=jfk": [2]}


def test_a_table_that_is_not_there_is_told_at_creation(make, bucket, table):
    server = make()
    given = converting(bucket, table)
    given["DataFormatConversionConfiguration"]["SchemaConfiguration"]["TableName"] = "missing"
    with pytest.raises(server.firehose.exceptions.InvalidArgumentException) as caught:
        server.create("s", given)
    message = caught.value.response["Error"]["Message"]
    assert message.startswith(f"SchemaConfiguration: table {table}.missing: ")
    assert "Error Code: EntityNotFoundException" in message
    assert server.firehose.list_delivery_streams()["DeliveryStreamNames"] == []


def test_a_stream_is_not_made_while_glue_is_away(servers, bucket, table):
    server = servers("--glue-endpoint", "http://127.0.0.1:9")
    with pytest.raises(ClientError) as caught:
        server.create("s", converting(bucket, table))
    assert caught.value.response["Error"]["Code"] == "ServiceUnavailableException"
    assert f"Glue can't be asked for table {table}.{table}" in caught.value.response["Error"]["Message"]


def test_a_column_that_the_table_gains_is_written_from_then_on(make, glue, bucket, table, wait_for):
    server = make("--schema-seconds", "1")
    server.create("s", converting(bucket, table))
    server.batch("s", [b'{"id":"a","more":1}'])
    glue.update_table(DatabaseName=table, TableInput=table_input(table, [*COLUMNS, ("more", "bigint")]))
    wait_for(lambda: bucket.objects("raw/") or server.status()["streams"]["s"]["deliveriesUnderWay"])
    server.batch("s", [b'{"id":"b","more":2}'])
    server.flush()
    found = [row for key in bucket.objects("raw/") for row in rows(bucket, key)]
    assert sorted((row["id"], row.get("more", "-")) for row in found) == [("a", "-"), ("b", 2)]
    described = server.firehose.describe_delivery_stream(DeliveryStreamName="s")["DeliveryStreamDescription"]
    assert described["VersionId"] == "1"


def test_a_table_that_is_gone_or_can_not_be_written_any_more_stops_nothing(make, glue, bucket, table, wait_for):
    server = make("--schema-seconds", "1")
    server.create("s", converting(bucket, table))
    glue.update_table(DatabaseName=table, TableInput=table_input(table, [*COLUMNS, ("pic", "binary")]))
    wait_for(lambda: any("pic: Hive type 'binary'" in line for line in server.errors))
    glue.delete_table(DatabaseName=table, Name=table)
    server.batch("s", GOOD)
    server.flush()
    (key,) = bucket.objects("raw/")
    assert rows(bucket, key) == WRITTEN


def test_a_server_starts_and_converts_without_glue(make, servers, bucket, table):
    server = make()
    server.create("s", converting(bucket, table))
    server.batch("s", GOOD[:1])
    server.kill()
    server.options = ["--glue-endpoint", "http://127.0.0.1:9", "--schema-seconds", "1"]
    server.start()
    server.batch("s", GOOD[1:])
    server.flush()
    (key,) = bucket.objects("raw/")
    assert rows(bucket, key) == WRITTEN
    # what doesn't concern the table can be changed without Glue; another table can't
    update = {"DeliveryStreamName": "s", "DestinationId": "destinationId-000000000001"}
    server.firehose.update_destination(
        **update, CurrentDeliveryStreamVersionId="1", ExtendedS3DestinationUpdate={"Prefix": "other/"}
    )
    schema = {"SchemaConfiguration": {"TableName": "other"}}
    with pytest.raises(ClientError, match=f"Glue can't be asked for table {table}.other"):
        server.firehose.update_destination(
            **update,
            CurrentDeliveryStreamVersionId="2",
            ExtendedS3DestinationUpdate={"DataFormatConversionConfiguration": schema},
        )
    server.batch("s", GOOD)
    server.flush()
    (key,) = bucket.objects("other/")
    assert rows(bucket, key) == WRITTEN


def test_conversion_is_switched_on_and_off_by_an_update(make, bucket, table):
    server = make()
    server.create("s", bucket.plain())
    update = {"DeliveryStreamName": "s", "DestinationId": "destinationId-000000000001"}
    conversion = converting(bucket, table)["DataFormatConversionConfiguration"]
    server.firehose.update_destination(
        **update,
        CurrentDeliveryStreamVersionId="1",
        ExtendedS3DestinationUpdate={"DataFormatConversionConfiguration": conversion},
    )
    server.batch("s", GOOD)
    server.firehose.update_destination(
        **update,
        CurrentDeliveryStreamVersionId="2",
        ExtendedS3DestinationUpdate={"DataFormatConversionConfiguration": {"Enabled": False}},
    )
    server.batch("s", [b"plain"])
    server.flush()
    keys = {key.endswith(".parquet"): key for key in bucket.objects("raw/")}
    assert rows(bucket, keys[True]) == WRITTEN
    assert bucket.body(keys[False]) == b"plain"


@pytest.mark.parametrize("kind", ["ParquetSerDe", "OrcSerDe"])
def test_an_object_written_just_before_a_crash_is_written_again_with_its_bytes(make, proxy, bucket, table, kind):
    server = make(s3=proxy.url)
    server.create("s", converting(bucket, table, kind, BufferingHints={"SizeInMBs": 64, "IntervalInSeconds": 1}))
    proxy.victim = server
    server.batch("s", GOOD)
    server.process.wait(timeout=30)
    # the intent holds the schema by which the object was begun
    glue = client("glue", bucket.s3.meta.endpoint_url)
    glue.update_table(DatabaseName=table, TableInput=table_input(table, [("id", "string")]))
    server.start()
    server.flush()
    assert [path for path, _ in proxy.written] == [proxy.written[0][0]] * 2
    assert proxy.written[0] == proxy.written[1]
    (key,) = bucket.objects("raw/")
    assert rows(bucket, key) == WRITTEN


def test_other_changes_do_not_wait_for_a_glue_that_says_nothing(make, bucket, table):
    server = make()
    server.create("s", converting(bucket, table))
    server.create("other", bucket.plain())
    server.kill()
    hole = socket.create_server(("127.0.0.1", 0))
    server.options = ["--glue-endpoint", f"http://127.0.0.1:{hole.getsockname()[1]}"]
    server.start()

    def update():
        with suppress(ClientError, BotoCoreError):
            server.firehose.update_destination(
                DeliveryStreamName="s",
                DestinationId="destinationId-000000000001",
                CurrentDeliveryStreamVersionId="1",
                ExtendedS3DestinationUpdate={"Prefix": "o/"},
            )

    updating = threading.Thread(target=update, daemon=True)
    updating.start()
    hole.settimeout(30)
    asked, _ = hole.accept()  # Glue has been asked
    server.firehose.tag_delivery_stream(DeliveryStreamName="other", Tags=[{"Key": "a", "Value": "b"}])
    assert updating.is_alive()
    asked.close()
    hole.close()
