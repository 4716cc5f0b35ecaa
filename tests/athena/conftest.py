"""Fixtures of Athena's tests: MiniStack and our Athena behind one port, a real Trino, and an Iceberg table."""

from __future__ import annotations

import datetime as dt
import threading
import time
from decimal import Decimal

import httpx
import pyarrow as pa
import pytest
import uvicorn
from pyiceberg.catalog.glue import GlueCatalog

from athena.app import AthenaSettings, create_app
from athena.trino import TrinoServer, fetch
from lake.clients import Cloud
from lake.errors import EnvironmentProblemError

DATABASE = "shop"
BUCKET = "athena-tests"
HOP_BY_HOP = {b"host", b"connection", b"keep-alive", b"transfer-encoding", b"content-length"}


class OnePort:
    """Sends Athena's calls to the app, and all others to MiniStack, as the local endpoint does."""

    def __init__(self, athena, ministack):
        self.athena = athena
        self.ministack = httpx.AsyncClient(base_url=ministack, timeout=60, trust_env=False)

    async def __call__(self, scope, receive, send):
        if scope["type"] == "lifespan" or dict(scope["headers"]).get(b"x-amz-target", b"").startswith(b"AmazonAthena."):
            await self.athena(scope, receive, send)
            return
        body = bytearray()
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        headers = [one for one in scope["headers"] if one[0] not in HOP_BY_HOP]
        url = httpx.URL(scope["raw_path"].decode(), query=scope["query_string"] or None)
        request = self.ministack.build_request(scope["method"], url, headers=headers, content=bytes(body))
        answer = await self.ministack.send(request, stream=True)
        content = b"".join([part async for part in answer.aiter_raw()])
        await answer.aclose()
        kept = [(name.lower(), value) for name, value in answer.headers.raw if name.lower() not in HOP_BY_HOP]
        length = answer.headers.get("content-length", str(len(content))).encode()
        await send(
            {
                "type": "http.response.start",
                "status": answer.status_code,
                "headers": [*kept, (b"content-length", length)],
            }
        )
        await send({"type": "http.response.body", "body": content})


class Served:
    """An ASGI application on a free port, in a thread."""

    def __init__(self, app):
        self.server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=2))
        self.thread = threading.Thread(target=self.server.run)

    def __enter__(self):
        self.thread.start()
        while not self.server.started:
            if not self.thread.is_alive():
                raise RuntimeError("the server did not come up")
            time.sleep(0.02)
        port = self.server.servers[0].sockets[0].getsockname()[1]
        return f"http://127.0.0.1:{port}"

    def __exit__(self, *_):
        self.server.should_exit = True
        self.thread.join(30)


@pytest.fixture(scope="session")
def stack_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("athena")


@pytest.fixture(scope="session")
def trino_home():
    try:
        return fetch(print)
    except EnvironmentProblemError as error:
        pytest.skip(f"Trino can't be fetched: {error}")


@pytest.fixture(scope="session")
def lake_cloud(ministack, stack_dir):
    """One endpoint for S3, Glue and our Athena; Trino starts when a test asks a query."""
    app = create_app(AthenaSettings(endpoint=ministack, region="us-east-1", state_dir=stack_dir))
    with Served(OnePort(app, ministack)) as url:
        made = Cloud("us-east-1", url)
        made.s3.create_bucket(Bucket=BUCKET)
        yield made
    trino = TrinoServer.running(stack_dir)
    if trino is not None:
        trino.stop()


@pytest.fixture(scope="session")
def everything():
    """Two rows of all types: values, and nulls."""
    utc = dt.UTC
    row = {
        "id": 1,
        "flag": True,
        "small": 7,
        "big": 9007199254740993,
        "ratio": 0.1,
        "huge": 1.5e10,
        "price": Decimal("12345678.90"),
        "name": 'say "hi", ok',
        "empty": "",
        "day": dt.date(2013, 1, 31),
        "at": dt.datetime(2013, 1, 31, 5, 6, 7, 123456),  # noqa: DTZ001 - a timestamp without a zone
        "at_utc": dt.datetime(2013, 1, 31, 5, 6, 7, 123456, tzinfo=utc),
        "raw": b"\x00\xffz",
        "tags": ["a", None, "b"],
        "counts": [("x", 1)],
        "place": {"city": "Oslo", "size": 2.0},
    }
    schema = pa.schema(
        [
            pa.field("id", pa.int32()),
            pa.field("flag", pa.bool_()),
            pa.field("small", pa.int32()),
            pa.field("big", pa.int64()),
            pa.field("ratio", pa.float32()),
            pa.field("huge", pa.float64()),
            pa.field("price", pa.decimal128(12, 2)),
            pa.field("name", pa.string()),
            pa.field("empty", pa.string()),
            pa.field("day", pa.date32()),
            pa.field("at", pa.timestamp("us")),
            pa.field("at_utc", pa.timestamp("us", tz="UTC")),
            pa.field("raw", pa.binary()),
            pa.field("tags", pa.list_(pa.string())),
            pa.field("counts", pa.map_(pa.string(), pa.int32())),
            pa.field("place", pa.struct([pa.field("city", pa.string()), pa.field("size", pa.float64())])),
        ]
    )
    nulls = dict.fromkeys(row) | {"id": 2}
    return pa.Table.from_pylist([row, nulls], schema=schema)


@pytest.fixture(scope="session")
def tables(lake_cloud, ministack, everything, trino_home):
    """Database `shop` with `everything`, `numbers` (2,500 rows in two appends) and 60 empty tables."""
    catalog = GlueCatalog(
        "glue",
        **{
            "glue.endpoint": ministack,
            "glue.region": "us-east-1",
            "glue.access-key-id": "test",
            "glue.secret-access-key": "test",
            "s3.endpoint": ministack,
            "s3.region": "us-east-1",
            "s3.access-key-id": "test",
            "s3.secret-access-key": "test",
            "warehouse": f"s3://{BUCKET}/warehouse",
        },
    )
    catalog.create_namespace(DATABASE)
    catalog.create_table(f"{DATABASE}.everything", everything.schema).append(everything)
    numbers = catalog.create_table(f"{DATABASE}.numbers", pa.schema([("n", pa.int64()), ("half", pa.float64())]))
    for start in (0, 1250):
        part = range(start, start + 1250)
        numbers.append(pa.table({"n": list(part), "half": [n / 2 for n in part]}))
    for index in range(60):
        lake_cloud.glue.create_table(
            DatabaseName=DATABASE,
            TableInput={
                "Name": f"plain_{index:02}",
                "TableType": "EXTERNAL_TABLE",
                "StorageDescriptor": {
                    "Columns": [{"Name": "a", "Type": "string", "Comment": "a letter"}],
                    "Location": f"s3://{BUCKET}/plain/{index}/",
                },
                "PartitionKeys": [{"Name": "day", "Type": "date"}],
                "Parameters": {"classification": "json"},
            },
        )
    return catalog


@pytest.fixture(scope="session")
def athena(lake_cloud):
    return lake_cloud.athena


@pytest.fixture(scope="session")
def results():
    return f"s3://{BUCKET}/results/"


@pytest.fixture(scope="session")
def ask(athena, wait, results, tables):
    """Run a statement to its end; answers its QueryExecution."""

    def run(sql, **request):
        started = athena.start_query_execution(
            QueryString=sql,
            QueryExecutionContext={"Database": DATABASE},
            ResultConfiguration={"OutputLocation": results},
            **request,
        )
        return wait(started["QueryExecutionId"])

    return run


@pytest.fixture(scope="session")
def wait(athena):
    """Wait until a query has ended; answers its QueryExecution."""

    def until(execution_id, seconds=120):
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            found = athena.get_query_execution(QueryExecutionId=execution_id)["QueryExecution"]
            if found["Status"]["State"] in {"SUCCEEDED", "FAILED", "CANCELLED"}:
                return found
            time.sleep(0.1)
        raise TimeoutError(f"query {execution_id} did not end in {seconds} s")

    return until


@pytest.fixture
def run_forever(athena, results):
    """Start a query that takes hours, and wait until it runs; answers its id."""

    query = (
        "SELECT count(*) FROM UNNEST(sequence(1, 10000)) a(x), UNNEST(sequence(1, 10000)) b(x), "
        "UNNEST(sequence(1, 10000)) c(x) WHERE a.x * b.x * c.x = 7"
    )

    def begin(comment=""):
        sql = comment + query
        started = athena.start_query_execution(QueryString=sql, ResultConfiguration={"OutputLocation": results})
        execution_id = started["QueryExecutionId"]
        while _state(athena, execution_id) == "QUEUED":
            time.sleep(0.05)
        return execution_id

    return begin


def _state(athena, execution_id):
    return athena.get_query_execution(QueryExecutionId=execution_id)["QueryExecution"]["Status"]["State"]
