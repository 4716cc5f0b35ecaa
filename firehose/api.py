"""Owns the operations of the Firehose API: requests checked, carried out, answered in the documented shapes.

Source: https://docs.aws.amazon.com/firehose/latest/APIReference/API_Operations.html
"""

from __future__ import annotations

import asyncio
import binascii
import secrets
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from pybase64 import b64decode, b64encode

from firehose.admission import Admission
from firehose.converted import destination_of
from firehose.definition_error import invalid
from firehose.description import describe
from firehose.encryption import INPUT, Encryption, check_input
from firehose.faults import CODES
from firehose.put_bodies import read_batch
from firehose.streams import DeliveryStream
from firehose.update import updated_request
from firehose.validation import service_model, validate
from lake.aws_json import Reply, ServiceError, decode, json_reply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from firehose.admission import Refusal
    from firehose.engine import Engine
    from firehose.live import LiveStream
    from firehose.registry import Registry
    from firehose.schemas import Catalog

__all__ = ["FirehoseApi"]

_RECORD_BYTES, _CALL_BYTES, _CALL_RECORDS = 1_024_000, 4 << 20, 500
_ID = "\0"
"""Stands for a call's id in its records' answers; no other text of them has it."""
_LIST_DEFAULT = 10
"""Names a page of ListDeliveryStreams has where no Limit is given."""
_TAGS = 50
"""Tags of a stream, and of a page of ListTagsForDeliveryStream, at the most."""
_DEPTH = 100  # levels of a request; the deepest that the service takes has some ten
_SHOWN = 60
"""Characters of a record's data that an error shows."""


class FirehoseApi:
    """Answers Firehose calls.

    Args:
        engine: does the work.
        registry: knows the streams.
        account: that ARNs name.
        region: that ARNs name.
        catalog: where tables are that streams convert by.
        now: seconds since the epoch.
        creating_seconds: how long a new stream is CREATING, as on AWS for a minute or so, and how long its encryption
            takes; here it is done at once.
        admission: asked about each put; lets all pass if it's left out.
        encryption: what is told of it; without the service's limit of changes if it's left out.
    """

    def __init__(
        self,
        engine: Engine,
        registry: Registry,
        account: str,
        region: str,
        now: Callable[[], float],
        *,
        catalog: Catalog,
        creating_seconds: float = 0.0,
        admission: Admission | None = None,
        encryption: Encryption | None = None,
    ) -> None:
        self._engine = engine
        self._registry = registry
        self._account = account
        self._region = region
        self._catalog = catalog
        self._now = now
        self._creating_seconds = creating_seconds
        self._admission = admission or Admission(None, None, None, time.monotonic)
        self._encryption = encryption or Encryption(now, seconds=creating_seconds)
        self._changes = asyncio.Lock()
        # record ids differ between servers and starts
        self._run = secrets.token_hex(12)
        self._taken = [f'{{"RecordId":"{_ID}{at:03d}"}}' for at in range(_CALL_RECORDS)]
        self._operations: dict[str, Callable[[dict[str, Any]], Awaitable[Any]]] = {
            "CreateDeliveryStream": self._create,
            "DeleteDeliveryStream": self._delete,
            "DescribeDeliveryStream": self._describe,
            "ListDeliveryStreams": self._list,
            "ListTagsForDeliveryStream": self._list_tags,
            "StartDeliveryStreamEncryption": self._start_encryption,
            "StopDeliveryStreamEncryption": self._stop_encryption,
            "TagDeliveryStream": self._tag,
            "UntagDeliveryStream": self._untag,
            "UpdateDestination": self._update,
        }

    async def call(self, operation: str, body: bytes) -> Reply:
        """Answer one call.

        Raises:
            ServiceError: anything the caller has to know.
        """
        if operation == "PutRecordBatch":
            return await self._put_record_batch(body)
        if operation == "PutRecord":
            return await self._put_record(decode(body))
        answer = self._operations.get(operation)
        if answer is None:
            known = operation in service_model("firehose").operation_names
            text = f"Firehose: {operation} is not supported by this server" if known else f"no operation {operation}"
            raise ServiceError("UnknownOperationException", text)
        request = _given(decode(body))
        validate("firehose", operation, request)
        return json_reply(await answer(request))

    async def refresh_schemas(self) -> None:
        """Read the tables again that streams convert by; one that has changed counts for what is put from now on."""
        for stream in list(self._registry.streams.values()):
            changed = await asyncio.to_thread(self._catalog.refreshed, stream)
            async with self._changes:
                # it may have been changed or deleted in between: then the next time
                if changed is not None and self._registry.get(stream.name) is stream:
                    await asyncio.to_thread(self._registry.put, changed)
                    self._engine.update(changed)

    async def _create(self, request: dict[str, Any]) -> dict[str, Any]:
        name = request["DeliveryStreamName"]
        schema = await asyncio.to_thread(self._catalog.schema_of, request)
        destination = destination_of(request, schema)
        if request.get(INPUT) is not None:
            request[INPUT] = check_input(request[INPUT])
        else:
            request.pop(INPUT, None)
        tags = _with_tags(name, {}, request.get("Tags") or [])
        async with self._changes:
            if self._registry.get(name) is not None:
                raise ServiceError(
                    "ResourceInUseException", f"Firehose {name} under account {self._account} already exists."
                )
            stream = DeliveryStream(
                name=name,
                identity=uuid4(),
                arn=f"arn:aws:firehose:{self._region}:{self._account}:deliverystream/{name}",
                version=1,
                created=self._now(),
                request=request,
                destination=destination,
                schema=schema,
                tags=tags,
            )
            await asyncio.to_thread(self._registry.put, stream)
            self._engine.add(stream)
            if INPUT in request:
                self._encryption.changed(stream, before=False)
        return {"DeliveryStreamARN": stream.arn}

    async def _delete(self, request: dict[str, Any]) -> dict[str, Any]:
        name = request["DeliveryStreamName"]
        async with self._changes:
            stream = self._active(name)
            await asyncio.to_thread(self._registry.remove, name)
            self._engine.remove(name)
            self._admission.forget(stream.identity)
            self._encryption.forget(stream)
        return {}

    async def _update(self, request: dict[str, Any]) -> dict[str, Any]:
        name = request["DeliveryStreamName"]
        while True:
            stream = self._active(name)
            made = updated_request(stream, request)
            # other changes don't wait for Glue
            schema = await asyncio.to_thread(self._catalog.schema_of, made, stream)
            changed = replace(
                stream,
                version=stream.version + 1,
                updated=self._now(),
                request=made,
                destination=destination_of(made, schema),
                schema=schema,
            )
            async with self._changes:
                if self._registry.get(name) is stream:
                    await asyncio.to_thread(self._registry.put, changed)
                    self._engine.update(changed)
                    return {}

    async def _describe(self, request: dict[str, Any]) -> dict[str, Any]:
        stream = self._stream(request["DeliveryStreamName"])
        status = "CREATING" if self._creating(stream) else "ACTIVE"
        return {"DeliveryStreamDescription": describe(stream, status, self._encryption.describe(stream))}

    async def _start_encryption(self, request: dict[str, Any]) -> dict[str, Any]:
        wanted = check_input(request.get(INPUT))
        return await self._encrypt(request["DeliveryStreamName"], wanted)

    async def _stop_encryption(self, request: dict[str, Any]) -> dict[str, Any]:
        return await self._encrypt(request["DeliveryStreamName"], None)

    async def _encrypt(self, name: str, wanted: dict[str, Any] | None) -> dict[str, Any]:
        async with self._changes:
            stream = self._active(name)
            self._encryption.check(stream)
            before = INPUT in stream.request
            if wanted != stream.request.get(INPUT):
                made = {key: value for key, value in stream.request.items() if key != INPUT}
                changed = replace(stream, request=made if wanted is None else {**made, INPUT: wanted})
                await asyncio.to_thread(self._registry.put, changed)
                self._encryption.changed(changed, before=before)
        return {}

    async def _tag(self, request: dict[str, Any]) -> dict[str, Any]:
        return await self._retag(request, lambda stream: _with_tags(stream.name, stream.tags, request["Tags"]))

    async def _untag(self, request: dict[str, Any]) -> dict[str, Any]:
        gone = set(request["TagKeys"])
        return await self._retag(
            request, lambda stream: {key: value for key, value in stream.tags.items() if key not in gone}
        )

    async def _retag(
        self, request: dict[str, Any], change: Callable[[DeliveryStream], Mapping[str, str]]
    ) -> dict[str, Any]:
        async with self._changes:
            stream = self._active(request["DeliveryStreamName"])
            await asyncio.to_thread(self._registry.put, replace(stream, tags=change(stream)))
        return {}

    async def _list_tags(self, request: dict[str, Any]) -> dict[str, Any]:
        after, limit = request.get("ExclusiveStartTagKey", ""), request.get("Limit", _TAGS)
        tags = sorted(self._stream(request["DeliveryStreamName"]).tags.items())
        left = [_tag(key, value) for key, value in tags if key > after]
        return {"Tags": left[:limit], "HasMoreTags": len(left) > limit}

    async def _list(self, request: dict[str, Any]) -> dict[str, Any]:
        after = request.get("ExclusiveStartDeliveryStreamName", "")
        kind = request.get("DeliveryStreamType", "DirectPut")
        names = [name for name in self._registry.streams if name > after] if kind == "DirectPut" else []
        limit = request.get("Limit", _LIST_DEFAULT)
        return {"DeliveryStreamNames": names[:limit], "HasMoreDeliveryStreams": len(names) > limit}

    async def _put_record(self, request: dict[str, Any]) -> Reply:
        started = time.perf_counter()
        try:
            text = request["Record"]["Data"]
            data = _decoded(text)
        except (KeyError, TypeError):
            validate("firehose", "PutRecord", request)
            raise
        stream = self._target("PutRecord", request)
        if len(data) > _RECORD_BYTES:
            raise _too_long("record.data", text)
        live = self._live(stream.name)
        for refusal in (await self._admission.admit(live, [len(data)])).values():
            raise ServiceError(refusal.code, refusal.message, CODES[refusal.code])
        first = await self._put(stream.name, [data])
        live.metrics.put_record.note(1, len(data), time.perf_counter() - started)
        self._admission.answered(stream.name)
        return json_reply({"RecordId": f"{self._call_id(first)}000", "Encrypted": self._encryption.encrypted(stream)})

    async def _put_record_batch(self, body: bytes) -> Reply:
        started = time.perf_counter()
        request, data = _batch(body)
        if not 0 < len(data) <= _CALL_RECORDS:
            shown = [{"Data": ""}] * len(data) if data else request["Records"]
            validate("firehose", "PutRecordBatch", {**request, "Records": shown})
        stream = self._target("PutRecordBatch", request)
        lengths = list(map(len, data))
        if max(lengths) > _RECORD_BYTES:
            at = next(index for index, length in enumerate(lengths) if length > _RECORD_BYTES)
            raise _too_long(f"records.{at + 1}.member.data", b64encode(data[at][:_SHOWN]).decode())
        size = sum(lengths)
        if size > _CALL_BYTES:
            raise invalid("Records size exceeds 4 MB limit")
        live = self._live(stream.name)
        refused = await self._admission.admit(live, lengths)
        taken = data
        if refused:
            taken = [one for index, one in enumerate(data) if index not in refused]
            size = sum(map(len, taken))
        first = 0
        if taken:
            first = await self._put(stream.name, taken)
            live.metrics.put_record_batch.note(len(taken), size, time.perf_counter() - started)
            self._admission.answered(stream.name)
        # numbering the records within the call needs no formatting of each: a third of the time
        answers = ",".join(_with_refusals(self._taken[: len(taken)], refused)).replace(_ID, self._call_id(first))
        encrypted = "true" if self._encryption.encrypted(stream) else "false"
        return Reply(
            f'{{"FailedPutCount":{len(refused)},"Encrypted":{encrypted},"RequestResponses":[{answers}]}}'.encode()
        )

    async def _put(self, name: str, data: list[bytes]) -> int:
        try:
            return await self._engine.put(name, data)
        except KeyError:  # it was deleted in between
            raise self._not_found(name) from None

    def _live(self, name: str) -> LiveStream:
        live = self._engine.streams.get(name)
        if live is None:
            raise self._not_found(name)
        return live

    def _call_id(self, first: int) -> str:
        # behind it comes a record's place in the call, of three digits
        return f"{self._run}{first:021d}"

    def _target(self, operation: str, request: dict[str, Any]) -> DeliveryStream:
        name = request.get("DeliveryStreamName")
        stream = self._registry.get(name) if isinstance(name, str) else None
        # while it is being created the service knows nothing of it where records are put
        if stream is not None and not self._creating(stream):
            return stream
        filler = {"Record": {"Data": ""}} if operation == "PutRecord" else {"Records": [{"Data": ""}]}
        validate("firehose", operation, {"DeliveryStreamName": name, **filler})
        raise self._not_found(str(name))

    def _stream(self, name: str) -> DeliveryStream:
        stream = self._registry.get(name)
        if stream is None:
            raise self._not_found(name)
        return stream

    def _creating(self, stream: DeliveryStream) -> bool:
        return bool(self._creating_seconds) and self._now() < stream.created + self._creating_seconds

    def _active(self, name: str) -> DeliveryStream:
        stream = self._stream(name)
        if self._creating(stream):
            raise ServiceError(
                "ResourceInUseException", f"Firehose {name} under account {self._account} is CREATING: wait for ACTIVE"
            )
        return stream

    def _not_found(self, name: str) -> ServiceError:
        return ServiceError("ResourceNotFoundException", f"Firehose {name} under account {self._account} not found.")


def _with_tags(name: str, there: Mapping[str, str], given: list[dict[str, str]]) -> dict[str, str]:
    tags = {**there, **{one["Key"]: one.get("Value", "") for one in given}}
    if len(tags) > _TAGS:
        raise ServiceError(
            "LimitExceededException", f"Firehose {name} would have {len(tags)} tags, at most {_TAGS} are allowed"
        )
    return tags


def _given(value: Any, deep: int = 0) -> Any:
    if deep > _DEPTH:
        raise ServiceError("SerializationException", f"The request is nested deeper than {_DEPTH} levels")
    # a member that is null is one that isn't there
    if isinstance(value, dict):
        return {key: _given(item, deep + 1) for key, item in value.items() if item is not None}
    return [_given(item, deep + 1) for item in value] if isinstance(value, list) else value


def _tag(key: str, value: str) -> dict[str, str]:
    return {"Key": key, "Value": value}


def _batch(body: bytes) -> tuple[dict[str, Any], list[bytes]]:
    read = read_batch(body)
    if read is not None:
        name, data = read
        return {"DeliveryStreamName": name}, data
    request = decode(body)
    try:
        return request, _all_decoded([record["Data"] for record in request["Records"]])
    except (KeyError, TypeError):
        validate("firehose", "PutRecordBatch", request)
        raise


def _decoded(text: Any) -> bytes:
    try:
        return b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ServiceError("SerializationException", f"Data is not base64: {text[:_SHOWN]!r}") from None


def _all_decoded(texts: list[Any]) -> list[bytes]:
    try:
        return [b64decode(text, None, True) for text in texts]  # by name, it takes twice as long
    except (binascii.Error, ValueError):
        return [_decoded(text) for text in texts]  # tells which


def _with_refusals(taken: list[str], refused: Mapping[int, Refusal]) -> list[str]:
    # an entry for each record of the call, in its order
    if not refused:
        return taken
    left = iter(taken)
    return [
        next(left)
        if (refusal := refused.get(index)) is None
        else f'{{"ErrorCode":"{refusal.code}","ErrorMessage":"{refusal.message}"}}'
        for index in range(len(taken) + len(refused))
    ]


def _too_long(path: str, text: str) -> ServiceError:
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    return ServiceError(
        "ValidationException",
        f"1 validation error detected: Value '{shown}' at '{path}' failed to satisfy constraint:"
        f" Member must have length less than or equal to {_RECORD_BYTES}",
    )
