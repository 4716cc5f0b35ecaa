"""Owns what the fuzz run sends to the server's application, and what it may answer.

Requests are made from botocore's model of the service: mostly right, wrong in a member or two, then maybe changed as
bytes, with headers, methods and paths to match. The application is the real one, with its log on disk; S3 is away.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import json
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import orjson
from botocore.model import ListShape, MapShape, StructureShape
from hypothesis import strategies as st

from firehose.api import FirehoseApi
from firehose.app import App
from firehose.delivery import S3Writer, s3_client
from firehose.engine import Engine, Limits
from firehose.exposition import Exposition
from firehose.incoming import Room
from firehose.quotas import Quotas
from firehose.registry import DataFolder, Registry
from firehose.schemas import Catalog
from firehose.validation import service_model
from lake.clients import Cloud

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from botocore.model import Shape

__all__ = ["CREATE", "RIGHT", "STREAMS", "TARGET", "Answer", "Fuzzed", "Sent", "problems", "requests"]

MODEL = service_model("firehose")
TARGET = "Firehose_20150804"
STREAMS = ("plain", "partitioned")
_ANSWER_SECONDS = 60
COMMON = {"ValidationException", "SerializationException", "UnknownOperationException"}
"""What any AWS JSON service answers beside an operation's own errors."""
_OF_QUOTAS = {"NoSuchResourceException", "IllegalArgumentException"}
_STATUSES = {200, 400, 404, 408, 503}
_ODD_TEXTS = (
    *("", " ", "a", "x" * 65, "x" * 1025, "\x00", "\u0130", "\ud7ff\ue000", "😀" * 20, "../..", "a/b", "null", "-1"),
    *("!{timestamp:yyyy}", "!{timestamp:", "!{firehose:error-output-type}", "!{partitionKeyFromQuery:t}", "!{}", "}{"),
    *("JQ-1.6", "{t: .t}", "{t: .t[0:2]}", "{", ".", "input", "{t: env}", "{(.a): 1}", "{t: .t} | {t: .t}", "error"),
    *("UTC", "Europe/Berlin", "Mars/Phobos", ".gz", "arn:aws:s3:::lake", "arn:aws:s3:::", "\\n", "MQ=="),
)
_ODD_VALUES = (None, True, 0, -1, 1, 2**31, 2**63, 10**40, 1.5, -0.0, 1e308, "", "1", [], {}, [[]], [None], {"": None})
_PIECES = (
    b'"',
    b"{",
    b"}",
    b"[",
    b",",
    b":",
    b"null",
    b"1e999",
    b"NaN",
    b"\xff",
    b"\xef\xbb\xbf",
    b"\\ud800",
    b"\x00",
    b"[" * 2000,
)


@dataclass(frozen=True)
class Sent:
    """A request."""

    target: bytes | None
    body: bytes
    method: str = "POST"
    path: str = "/"
    query: bytes = b""
    pieces: int = 1
    """In how many the body comes; 0: the client goes away in the middle."""


@dataclass(frozen=True)
class Answer:
    """What came back."""

    status: int
    headers: dict[str, str]
    body: bytes
    seconds: float
    """Of the processor: the clock's are the machine's."""


@dataclass
class Fuzzed:
    """The application at work, in a thread of its own."""

    folder: Path
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    faults: list[BaseException] = field(default_factory=list)
    """What ended the server's work."""

    def __enter__(self) -> Self:
        self._data = DataFolder(self.folder)
        registry = Registry(self._data)
        limits = Limits(pending_bytes=8 << 20, segment_bytes=1 << 20)
        writer = S3Writer(s3_client("http://127.0.0.1:9", "us-east-1", 2))
        self.engine = Engine(self._data, registry, writer, time.time, limits)
        self._room = Room(32 << 20, time.monotonic)
        nowhere = Cloud("us-east-1", "http://127.0.0.1:9")
        catalog = Catalog(lambda _: nowhere.single_try("glue"), "000000000000", "us-east-1")
        self._app = App(
            FirehoseApi(self.engine, registry, "000000000000", "us-east-1", time.time, catalog=catalog),
            Quotas(registry, "000000000000", "us-east-1", time.time),
            self.engine,
            Exposition(self.engine, time.time),
            self._room,
        )
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._run(self._begin())
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self.engine.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._data.release()

    async def _begin(self) -> None:
        self.engine.start(self.faults.append)

    def _run(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_ANSWER_SECONDS)

    def send(self, sent: Sent) -> Answer:
        """Send a request.

        Raises:
            TimeoutError: there is no answer.
        """
        started = time.process_time()
        status, headers, body = self._run(self._send(sent))
        return Answer(status, headers, body, time.process_time() - started)

    async def _send(self, sent: Sent) -> tuple[int, dict[str, str], bytes]:
        size = -(-len(sent.body) // max(1, sent.pieces)) or 1
        parts = [sent.body[at : at + size] for at in range(0, len(sent.body), size)] or [b""]
        told = [
            {"type": "http.request", "body": part, "more_body": sent.pieces == 0 or number < len(parts)}
            for number, part in enumerate(parts, 1)
        ]
        told.append({"type": "http.disconnect"})
        coming = iter(told)
        answered: list[Any] = []

        incoming = self._room.open()

        async def receive() -> Any:
            message = next(coming)
            self._room.take(incoming, message.get("body", b""))
            return message

        async def send(message: Any) -> None:
            answered.append(message)

        headers = [(b"host", b"firehose"), *([(b"x-amz-target", sent.target)] if sent.target is not None else [])]
        scope = {
            "type": "http",
            "method": sent.method,
            "path": sent.path,
            "query_string": sent.query,
            "headers": headers,
            "state": {"incoming": incoming},
        }
        await self._app(scope, receive, send)
        start, *bodies = answered
        found = {name.decode(): value.decode("latin-1") for name, value in start["headers"]}
        return start["status"], found, b"".join(one.get("body", b"") for one in bodies)


def problems(sent: Sent, answer: Answer) -> str | None:
    """What is wrong with an answer, if anything is."""
    if answer.status not in _STATUSES:
        return f"status {answer.status}: {answer.body[:300]!r}"
    if int(answer.headers["content-length"]) != len(answer.body):
        return "another content-length than its body's"
    if sent.path.startswith("/_lakehose/") or sent.path == "/metrics":
        return None
    try:
        told = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return f"no JSON: {answer.body[:300]!r}"
    if answer.status == 200:
        return None
    code = told.get("__type")
    operation = (sent.target or b"").decode("latin-1").partition(".")[2]
    allowed = COMMON | {"RequestTimeoutException"} | _OF_QUOTAS
    if operation in MODEL.operation_names:
        allowed = (allowed - _OF_QUOTAS) | {one.name for one in MODEL.operation_model(operation).error_shapes}
    if code not in allowed:
        return f"{operation}: {code} is not among its errors: {told.get('message')}"
    if answer.headers.get("x-amzn-errortype") != code or not told.get("message"):
        return f"{code} without its header or message"
    return None


def requests() -> st.SearchStrategy[Sent]:
    """Requests of all kinds."""
    whole = st.one_of(_nearly_right(), _nearly_right(), *(_of(name) for name in MODEL.operation_names))
    near = _nearly_right()
    changed = st.builds(
        _changed, whole, st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 40), _piece()), max_size=3)
    )
    other = st.builds(
        Sent,
        target=st.none()
        | st.binary(max_size=40)
        | st.sampled_from(
            [
                b"Firehose_20150804",
                b"Firehose_20150804.",
                b"X.PutRecord",
                b"ServiceQuotasV20190624.GetServiceQuota",
                b"ServiceQuotasV20190624.ListServiceQuotas",
            ]
        ),
        body=st.binary(max_size=200) | st.sampled_from([b"", b"{}", b"[]", b'{"ServiceCode": "firehose"}']),
        method=st.sampled_from(["POST", "GET", "PUT", "DELETE", "HEAD", "OPTIONS", "X"]),
        path=st.sampled_from(
            ["/", "/metrics", "/_lakehose/status", "/_lakehose/health", "/_lakehose/x", "//", "/é", "*", ""]
        ),
        query=st.sampled_from([b"", b"stream=x", b"stream", b"stream=%ff", b"&&=", b"a=" + b"x" * 3000]),
        pieces=st.integers(0, 3),
    )
    return st.one_of(near, near, whole, changed, other)


def _parted(kind: str) -> list[dict[str, Any]]:
    query = [("MetadataExtractionQuery", "{t: .t}"), ("JsonParsingEngine", "JQ-1.6")]
    given = {"MetadataExtraction": query, "AppendDelimiterToRecord": [("Delimiter", "\\n")]}[kind]
    return [{"ParameterName": name, "ParameterValue": value} for name, value in given]


PLAIN = {"RoleARN": "arn:aws:iam::000000000000:role/r", "BucketARN": "arn:aws:s3:::lake"}
PARTITIONED = {
    **PLAIN,
    "Prefix": "p/!{partitionKeyFromQuery:t}/!{timestamp:yyyy/MM}/",
    "ErrorOutputPrefix": "e/!{firehose:error-output-type}/",
    "BufferingHints": {"SizeInMBs": 64, "IntervalInSeconds": 60},
    "CompressionFormat": "GZIP",
    "CustomTimeZone": "Europe/Berlin",
    "DynamicPartitioningConfiguration": {"Enabled": True},
    "ProcessingConfiguration": {
        "Enabled": True,
        "Processors": [
            {"Type": kind, "Parameters": _parted(kind)} for kind in ("MetadataExtraction", "AppendDelimiterToRecord")
        ],
    },
}
CREATE = {
    "plain": {"DeliveryStreamName": "plain", "S3DestinationConfiguration": PLAIN},
    "partitioned": {"DeliveryStreamName": "partitioned", "ExtendedS3DestinationConfiguration": PARTITIONED},
}
_UPDATE = {"CurrentDeliveryStreamVersionId": "1", "DestinationId": "destinationId-000000000001"}
RIGHT: tuple[tuple[str, dict[str, Any]], ...] = (
    *(("CreateDeliveryStream", {**CREATE["partitioned"], "DeliveryStreamName": f"new-{one}"}) for one in range(5)),
    ("CreateDeliveryStream", {**CREATE["plain"], "DeliveryStreamName": "new-5", "Tags": [{"Key": "k", "Value": "v"}]}),
    ("DeleteDeliveryStream", {"DeliveryStreamName": "new-1", "AllowForceDelete": True}),
    ("DescribeDeliveryStream", {"DeliveryStreamName": "partitioned", "Limit": 1}),
    ("ListDeliveryStreams", {"Limit": 2, "DeliveryStreamType": "DirectPut", "ExclusiveStartDeliveryStreamName": "a"}),
    ("ListTagsForDeliveryStream", {"DeliveryStreamName": "plain", "Limit": 2, "ExclusiveStartTagKey": "a"}),
    ("TagDeliveryStream", {"DeliveryStreamName": "plain", "Tags": [{"Key": "k", "Value": "v"}, {"Key": "l"}]}),
    ("UntagDeliveryStream", {"DeliveryStreamName": "plain", "TagKeys": ["k"]}),
    ("StartDeliveryStreamEncryption", {"DeliveryStreamName": "plain"}),
    ("StopDeliveryStreamEncryption", {"DeliveryStreamName": "plain"}),
    ("UpdateDestination", {"DeliveryStreamName": "plain", **_UPDATE, "S3DestinationUpdate": {"Prefix": "x/"}}),
    (
        "UpdateDestination",
        {"DeliveryStreamName": "partitioned", **_UPDATE, "ExtendedS3DestinationUpdate": {"CompressionFormat": "ZIP"}},
    ),
    ("PutRecord", {"DeliveryStreamName": "plain", "Record": {"Data": "YQ=="}}),
    ("PutRecordBatch", {"DeliveryStreamName": "partitioned", "Records": [{"Data": "eyJ0IjoiYSJ9"}, {"Data": "YQ=="}]}),
)


def _nearly_right() -> st.SearchStrategy[Sent]:
    changes = st.lists(
        st.tuples(
            st.integers(0, 1 << 16),
            st.sampled_from(_ODD_VALUES) | st.sampled_from(_ODD_TEXTS) | _data() | st.just(_GONE),
        ),
        max_size=2,
    )
    return st.builds(_with, st.sampled_from(RIGHT), changes)


_GONE = object()


def _with(right: tuple[str, dict[str, Any]], changes: list[tuple[int, Any]]) -> Sent:
    operation, value = right
    made = orjson.loads(orjson.dumps(value))
    for at, change in changes:
        places = list(_places(made))
        holder, key = places[at % len(places)]
        if change is _GONE:
            del holder[key]
        else:
            holder[key] = copy.deepcopy(change)
        if not made:
            break
    return Sent(f"{TARGET}.{operation}".encode(), _json(made))


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()  # orjson makes no whole numbers beyond 64 bits


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in pairs:
        yield value, key
        yield from _places(item)


def _piece() -> st.SearchStrategy[bytes]:
    return st.sampled_from(_PIECES) | st.binary(max_size=6)


def _changed(sent: Sent, changes: list[tuple[int, int, bytes]]) -> Sent:
    body = sent.body
    for at, length, piece in changes:
        place = at % (len(body) + 1)
        body = body[:place] + piece + body[place + length :]
    return Sent(sent.target, body, pieces=1 + len(changes))


def _of(name: str) -> st.SearchStrategy[Sent]:
    shape = MODEL.operation_model(name).input_shape
    return st.builds(lambda value: Sent(f"{TARGET}.{name}".encode(), _json(value)), _value(shape, name, 0))


def _value(shape: Shape, name: str, depth: int) -> st.SearchStrategy[Any]:
    right = _right(shape, name, depth)
    return st.one_of(right, right, right, right, right, right, right, st.sampled_from(_ODD_VALUES)) if depth else right


def _right(shape: Shape, name: str, depth: int) -> st.SearchStrategy[Any]:
    if isinstance(shape, StructureShape):
        return _structure(shape, depth)
    if isinstance(shape, ListShape):
        if name == "Parameters":
            return _parameters()
        return st.lists(_value(shape.member, name, depth + 1), max_size=3)
    if isinstance(shape, MapShape):
        return st.dictionaries(st.sampled_from(_ODD_TEXTS), _value(shape.value, name, depth + 1), max_size=3)
    kind = shape.type_name
    if name == "DeliveryStreamName":
        return st.sampled_from([*STREAMS, "gone", *(f"new-{one}" for one in range(6))])
    if kind == "blob":
        return st.binary(max_size=60).map(lambda raw: base64.b64encode(raw).decode()) | _data()
    if kind == "boolean":
        return st.booleans()
    if kind in {"integer", "long"}:
        return st.integers(-1, 1000)
    if kind in {"double", "float", "timestamp"}:
        return st.floats(allow_nan=False, allow_infinity=False)
    return _text(shape, name)


def _text(shape: Shape, name: str) -> st.SearchStrategy[str]:
    if shape.enum:  # type: ignore[attr-defined]  # set by StringShape
        return st.sampled_from(shape.enum)  # type: ignore[attr-defined]
    good = {
        "RoleARN": "arn:aws:iam::000000000000:role/r",
        "BucketARN": "arn:aws:s3:::lake",
        "DestinationId": "destinationId-000000000001",
        "CurrentDeliveryStreamVersionId": "1",
        "ErrorOutputPrefix": "errors/!{firehose:error-output-type}/",
        "Prefix": "p/!{partitionKeyFromQuery:t}/",
    }.get(name, "x")
    return st.just(good) | st.sampled_from([good, *_ODD_TEXTS]) | st.text(max_size=12)


def _data() -> st.SearchStrategy[str]:
    events = [
        b'{"t": "a"}',
        b'{"t": ""}',
        b'{"t": 1e400}',
        b'{"t": ["a"]}',
        b"[" * 3000,
        b'{"t": "\\ud800"}',
        b"\xff",
        b"",
    ]
    bad = ["=", "====", "a", "YQ", "YQ=", "YQ==YQ==", "Y Q==", "YQ==\n", "é===", "-_-_", "YQ=a"]
    return st.sampled_from([*(base64.b64encode(one).decode() for one in events), *bad])


def _parameters() -> st.SearchStrategy[Any]:
    extraction = [
        {"ParameterName": "MetadataExtractionQuery", "ParameterValue": "{t: .t}"},
        {"ParameterName": "JsonParsingEngine", "ParameterValue": "JQ-1.6"},
    ]
    names = MODEL.shape_for("ProcessorParameterName").enum  # type: ignore[attr-defined]
    odd = st.fixed_dictionaries(
        {"ParameterName": st.sampled_from(names), "ParameterValue": st.sampled_from([one for one in _ODD_TEXTS if one])}
    )
    return (
        st.just(extraction) | st.lists(odd, max_size=3) | st.lists(odd, max_size=1).map(lambda some: extraction + some)
    )


@st.composite
def _structure(draw: Any, shape: StructureShape, depth: int) -> dict[str, Any]:
    made = {}
    for name, member in shape.members.items():
        # few members below the top, or everything is wrong at once; of destinations ours more often than others
        often = name in shape.required_members or name.startswith("ExtendedS3") or name == "Prefix"
        if draw(st.integers(0, 19)) < (19 if often else 3 + 2 * depth if depth < 3 else 0):
            made[name] = draw(_value(member, name, depth + 1))
    if draw(st.integers(0, 30)) == 0:
        made[draw(st.sampled_from(["Unknown", "", "__type", "records"]))] = draw(st.sampled_from(_ODD_VALUES))
    return made
