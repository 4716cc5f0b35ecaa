"""Owns the test doubles that applications use too: a Firehose that records and fails as told, and a clock to wind.

    firehose = RecordedFirehose(FailRecords(0, 2), THROTTLE)
    producer = Producer(..., firehose=firehose.client, clock=ManualClock())
    producer.send({"carrier": "UA"}, moment)
    producer.flush()
    assert firehose.taken == [...]

`client` is a real boto3 client: requests are rendered, and answers and errors parsed, by botocore; only the wire is
missing. For producers in other processes `serve()` puts one behind a port of this machine.
"""

from __future__ import annotations

import base64
import io
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Self

import boto3
import orjson
from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.config import Config
from botocore.exceptions import EndpointConnectionError

from producers.options import BATCH_BYTES, BATCH_RECORDS, RECORD_BYTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mypy_boto3_firehose import FirehoseClient

__all__ = ["TAKE", "THROTTLE", "Call", "Disconnect", "FailRecords", "ManualClock", "RecordedFirehose", "Refuse"]

_OK = 200
_BAD_REQUEST = 400


@dataclass(frozen=True)
class Call:
    """One PutRecordBatch as it came in."""

    stream: str
    records: tuple[bytes, ...]


@dataclass(frozen=True, init=False)
class FailRecords:
    """Take a call, but refuse the records at some of its indices."""

    indices: tuple[int, ...]
    code: str
    message: str

    def __init__(self, *indices: int, code: str = "ServiceUnavailableException", message: str = "Slow down.") -> None:
        object.__setattr__(self, "indices", indices)
        object.__setattr__(self, "code", code)
        object.__setattr__(self, "message", message)


@dataclass(frozen=True)
class Refuse:
    """Refuse a call as a whole."""

    code: str
    message: str
    status: int = _BAD_REQUEST


@dataclass(frozen=True)
class Disconnect:
    """Break the connection."""

    after_taking: bool = False
    """Whether the records were taken, and only the answer got lost."""


TAKE = FailRecords()
"""Take a call whole."""
THROTTLE = Refuse("ServiceUnavailableException", "Slow down.", 503)
"""Refuse a call as a stream above its quota does."""


class RecordedFirehose:
    """A Firehose that keeps what it is sent, enforces the service's limits, and fails as told.

    Args:
        script: what becomes of each call, in order; after the last one calls are taken.
        streams: names of the streams there are; any name will do when None.
        fails: records that are refused by themselves (InternalFailure) each time, picked by their bytes.
        oversize: records for which a whole call is refused, as for one above the limit, picked by their bytes.
    """

    def __init__(
        self,
        *script: FailRecords | Refuse | Disconnect,
        streams: set[str] | None = None,
        fails: Callable[[bytes], bool] = lambda _: False,
        oversize: Callable[[bytes], bool] = lambda data: len(data) > RECORD_BYTES,
    ) -> None:
        self.script = list(script)
        """What becomes of the next calls; add to it at any time."""
        self.calls: list[Call] = []
        """Every call, whatever became of it."""
        self.taken: list[bytes] = []
        """Records that were taken, in order; more than once if they were sent more than once."""
        self._streams = streams
        self._fails = fails
        self._oversize = oversize
        self._mutex = threading.Lock()
        self.client: FirehoseClient = boto3.client(
            "firehose",
            region_name="us-east-1",
            endpoint_url="http://firehose.invalid",
            aws_access_key_id="test",
            aws_secret_access_key="test",  # noqa: S106 - no secret
            config=Config(retries={"mode": "standard", "total_max_attempts": 1}),
        )
        self.client.meta.events.register("before-send.firehose.PutRecordBatch", self._before_send)  # type: ignore[arg-type]

    def events(self) -> list[dict[str, Any]]:
        """The records that were taken, parsed."""
        return [orjson.loads(data) for data in self.taken]

    def answer(self, body: bytes) -> tuple[int, bytes]:
        """Answer the body of a PutRecordBatch with an HTTP status and a body.

        Raises:
            ConnectionResetError: the script says so.
        """
        request = orjson.loads(body)
        call = Call(request["DeliveryStreamName"], tuple(base64.b64decode(one["Data"]) for one in request["Records"]))
        with self._mutex:
            self.calls.append(call)
            step = self.script.pop(0) if self.script else TAKE
            refusal = step if isinstance(step, Refuse) else self._refusal(call)
            if isinstance(step, Disconnect) and not step.after_taking:
                raise ConnectionResetError("as scripted: before anything was taken")
            if refusal is not None:
                return refusal.status, orjson.dumps({"__type": refusal.code, "message": refusal.message})
            told = step if isinstance(step, FailRecords) else TAKE
            entries = [self._take(record, index, told) for index, record in enumerate(call.records)]
            if isinstance(step, Disconnect):
                raise ConnectionResetError("as scripted: the answer is lost")
        failed = sum("ErrorCode" in entry for entry in entries)
        return _OK, orjson.dumps({"FailedPutCount": failed, "Encrypted": False, "RequestResponses": entries})

    @contextmanager
    def serve(self) -> Iterator[str]:
        """Answer over HTTP on a free port of this machine; gives the URL."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    def _refusal(self, call: Call) -> Refuse | None:
        if self._streams is not None and call.stream not in self._streams:
            return Refuse("ResourceNotFoundException", f"Firehose {call.stream} under account 000000000000 not found.")
        if len(call.records) > BATCH_RECORDS:
            return _invalid("records", f"Member must have length less than or equal to {BATCH_RECORDS}")
        if not call.records:
            return _invalid("records", "Member must have length greater than or equal to 1")
        for number, record in enumerate(call.records, 1):
            if self._oversize(record):
                limit = f"Member must have length less than or equal to {RECORD_BYTES}"
                return _invalid(f"records.{number}.member.data", limit)
        if sum(map(len, call.records)) > BATCH_BYTES:
            return Refuse("InvalidArgumentException", "Records size exceeds 4 MB limit")
        return None

    def _take(self, record: bytes, index: int, step: FailRecords) -> dict[str, str]:
        if index in step.indices:
            return {"ErrorCode": step.code, "ErrorMessage": step.message}
        if self._fails(record):
            return {"ErrorCode": "InternalFailure", "ErrorMessage": "Internal failure."}
        self.taken.append(record)
        return {"RecordId": f"{len(self.taken):056d}"}

    def _before_send(self, request: Any, **_: Any) -> AWSResponse:
        try:
            status, body = self.answer(request.body)
        except ConnectionResetError as error:
            raise EndpointConnectionError(endpoint_url=request.url, error=error) from error
        headers = HTTPHeaders()
        headers["Content-Type"] = "application/x-amz-json-1.1"
        return AWSResponse(request.url, status, headers, _Raw(body))


class ManualClock:
    """A clock that stands still until it is told, or slept on."""

    def __init__(self, now: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._start = now
        self._elapsed = 0.0
        self.slept: list[float] = []
        """Each sleep, in seconds."""

    def now(self) -> datetime:
        """The wall clock."""
        return self._start + timedelta(seconds=self._elapsed)

    def monotonic(self) -> float:
        """Seconds since the start."""
        return self._elapsed

    def sleep(self, seconds: float) -> None:
        """Wind the clock, without blocking."""
        self.slept.append(seconds)
        self.advance(seconds)

    def advance(self, seconds: float) -> Self:
        """Wind the clock."""
        self._elapsed += seconds
        return self


class _Raw(io.BytesIO):
    """A body as urllib3 gives it."""

    def stream(self, **_: Any) -> Iterator[bytes]:
        yield self.read()


def _invalid(member: str, constraint: str) -> Refuse:
    return Refuse(
        "ValidationException",
        f"1 validation error detected: Value '[...]' at '{member}' failed to satisfy constraint: {constraint}",
    )


def _handler(firehose: RecordedFirehose) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            try:
                status, body = firehose.answer(self.rfile.read(int(self.headers["Content-Length"])))
            except ConnectionResetError:
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - http.server's name
            """Say nothing: what came in is in `calls`."""

    return Handler
