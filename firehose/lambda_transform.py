"""Owns the Lambda processor: a function invoked with a batch of records, and what becomes of each by its answer.

A batch whose function fails is tried again, and is then a failure of each record: nothing is lost. An answer that makes
no sense is not asked for again. Codes and sentences are the service's, as its errors tell them and as floci and another
project captured them; the function's own words go to the log.
Source: https://docs.aws.amazon.com/firehose/latest/dev/data-transformation.html,
https://docs.aws.amazon.com/firehose/latest/dev/data-transformation-failure-handling.html and
https://docs.aws.amazon.com/firehose/latest/dev/monitoring-with-cloudwatch-logs.html
"""

from __future__ import annotations

import base64
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import orjson
from botocore.exceptions import BotoCoreError, ClientError

from firehose.lambda_answer import PAYLOAD_BYTES, Problem, failed_call, failed_function, read_answer
from firehose.processing import Reason
from firehose.records import Failed, Record

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from uuid import UUID

    from lake.clients import Cloud

__all__ = ["INVOCATION_SECONDS", "LambdaTransform", "invoking_client", "transform"]

_log = logging.getLogger(__name__)
INVOCATION_SECONDS = 300
"""How long the service waits for a function."""
_OUTPUT_TYPE = "processing-failed"
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0
"""Seconds between attempts, doubling. The service's own aren't documented; four attempts were seen within some 20 s."""
_TOO_LARGE = Problem(
    "Lambda.InvocationFailure",
    f"The record makes an invocation larger than the {PAYLOAD_BYTES:,} bytes that AWS Lambda takes.",
)


@dataclass(frozen=True, slots=True)
class LambdaTransform:
    """A Lambda processor's parameters."""

    arn: str
    """Of the function, a version or an alias."""
    retries: int = 3
    """How often a failed invocation is tried again."""
    size_bytes: int = 1 << 20
    """Records of so many bytes are a batch."""
    interval_ms: int = 60_000
    """So are those whose oldest came so long ago."""


def invoking_client(cloud: Cloud, connections: int, **options: Any) -> Any:
    """Make a client of the Lambda API that invokes functions.

    The processor owns the retries, and a function may take its five minutes.

    Args:
        cloud: where the functions are.
        connections: how many are invoked at once.
        options: of `botocore.config.Config`, in place of these.
    """
    own = {"read_timeout": INVOCATION_SECONDS + 5, "max_pool_connections": connections, "tcp_keepalive": True}
    return cloud.single_try("lambda", **{**own, **options})


def transform(
    settings: LambdaTransform,
    client: Any,
    stream_arn: str,
    records: Sequence[Record],
    *,
    now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    new_id: Callable[[], UUID] = uuid4,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[list[Record], list[Failed]]:
    """Have the function transform a batch; blocks until it has, or has failed for good.

    Args:
        settings: which function, and how often it is tried again.
        client: of the Lambda API, as `invoking_client` makes.
        stream_arn: the stream's, whose region the function is told.
        records: the batch; one that is too large for an invocation becomes several.
        now_ms: the clock, milliseconds since 1970.
        new_id: makes ids of invocations and records.
        sleep: waits between attempts, so many seconds.

    Returns:
        what the function made, in the order of the records, and the records that failed.
    """
    call = _Call(settings, client, stream_arn, now_ms, new_id, sleep)
    made: list[Record] = []
    failed: list[Failed] = []
    for batch in _invocations(records, call.head_bytes, new_id):
        call.run(batch, made, failed)
    return made, failed


@dataclass(frozen=True, slots=True)
class _Batch:
    """Records of one invocation, as parallel lists."""

    records: list[Record]
    ids: list[str]
    """The same in each attempt."""
    rendered: list[bytes]
    """Each as the function's event has it."""
    fits: bool = True


def _invocations(records: Sequence[Record], head_bytes: int, new_id: Callable[[], UUID]) -> Iterator[_Batch]:
    """Render records, and cut the batch where an invocation is full; a record that never fits is alone."""
    first = f"{new_id().int:039d}"
    batch = _Batch([], [], [])
    left = PAYLOAD_BYTES - head_bytes
    for number, record in enumerate(records):
        identity = f"{first}{number:010d}"
        rendered = orjson.dumps(
            {
                "recordId": identity,
                "approximateArrivalTimestamp": record.arrival_ms,
                "data": base64.b64encode(record.raw).decode(),
            }
        )
        if head_bytes + len(rendered) + 1 > PAYLOAD_BYTES:
            yield _Batch([record], [identity], [], fits=False)
            continue
        if len(rendered) + 1 > left:
            yield batch
            batch, left = _Batch([], [], []), PAYLOAD_BYTES - head_bytes
        batch.records.append(record)
        batch.ids.append(identity)
        batch.rendered.append(rendered)
        left -= len(rendered) + 1
    if batch.records:
        yield batch


@dataclass(frozen=True, slots=True)
class _Call:
    """What is the same for all invocations of one batch."""

    settings: LambdaTransform
    client: Any
    stream_arn: str
    now_ms: Callable[[], int]
    new_id: Callable[[], UUID]
    sleep: Callable[[float], None]

    @property
    def head_bytes(self) -> int:
        """How large a payload is without records."""
        return len(self._payload([]))

    def run(self, batch: _Batch, made: list[Record], failed: list[Failed]) -> None:
        """Invoke the function with one batch; adds what it made, and what failed."""
        answer, attempts = self._answer(batch) if batch.fits else (_TOO_LARGE, 0)
        ended = self.now_ms()
        found = answer if isinstance(answer, Problem) else read_answer(answer, batch.ids)
        verdicts = [found] * len(batch.ids) if isinstance(found, Problem) else found
        for record, verdict in zip(batch.records, verdicts, strict=True):
            if isinstance(verdict, Problem):
                reason = Reason(_OUTPUT_TYPE, verdict.code, verdict.message, attempts, self.settings.arn)
                failed.append(Failed(record.kept, record.arrival_ms, ended, reason))
            elif verdict is not None:
                made.append(Record(verdict.data, record.arrival_ms, verdict.keys))

    def _answer(self, batch: _Batch) -> tuple[bytes | Problem, int]:
        """What the function answered, or why it didn't; and how often it was invoked."""
        most = self.settings.retries + 1
        pause = _FIRST_PAUSE
        for attempt in range(1, most + 1):
            answer = self._invoke(self._payload(batch.rendered))
            if not isinstance(answer, Problem):
                return answer, attempt
            _log.warning(
                "function %s: attempt %d of %d with %d records: %s: %s",
                *(self.settings.arn, attempt, most, len(batch.ids), answer.code, answer.detail or answer.message),
            )
            if attempt < most:
                self.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
        return answer, most

    def _invoke(self, payload: bytes) -> bytes | Problem:
        try:
            answer = self.client.invoke(
                FunctionName=self.settings.arn, InvocationType="RequestResponse", Payload=payload
            )
            # a function can't answer more; whoever does is not read to the end
            body: bytes = answer["Payload"].read(PAYLOAD_BYTES + 1)
        except (ClientError, BotoCoreError, OSError) as error:
            return failed_call(error)
        if answer.get("FunctionError") or len(body) > PAYLOAD_BYTES:
            return failed_function(body)
        return body

    def _payload(self, rendered: list[bytes]) -> bytes:
        # each attempt is an invocation of its own
        head = {
            "invocationId": str(self.new_id()),
            "deliveryStreamArn": self.stream_arn,
            "region": self.stream_arn.split(":")[3],
        }
        return orjson.dumps(head)[:-1] + b',"records":[' + b",".join(rendered) + b"]}"
