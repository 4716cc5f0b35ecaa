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

from firehose.description import describe
from firehose.streams import DeliveryStream, invalid, parse_destination
from firehose.update import updated_request
from firehose.validation import service_model, validate
from lake.aws_json import Reply, ServiceError, decode, json_reply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from firehose.engine import Engine
    from firehose.metrics import StreamMetrics
    from firehose.registry import Registry

__all__ = ["FirehoseApi"]

_RECORD_BYTES, _CALL_BYTES, _CALL_RECORDS = 1_024_000, 4 << 20, 500
_LIST_DEFAULT = 10
"""Names a page of ListDeliveryStreams has where no Limit is given."""
_TAGS = 50
"""Tags of a stream, and of a page of ListTagsForDeliveryStream, at the most."""
_SHOWN = 60
"""Characters of a record's data that an error shows."""


class FirehoseApi:
    """Answers Firehose calls.

    Args:
        engine: does the work.
        registry: knows the streams.
        account: that ARNs name.
        region: that ARNs name.
        now: seconds since the epoch.
        creating_seconds: how long a new stream is CREATING, as on AWS for a minute or so; here it is ready at once.
    """

    def __init__(
        self,
        engine: Engine,
        registry: Registry,
        account: str,
        region: str,
        now: Callable[[], float],
        *,
        creating_seconds: float = 0.0,
    ) -> None:
        self._engine = engine
        self._registry = registry
        self._account = account
        self._region = region
        self._now = now
        self._creating_seconds = creating_seconds
        self._changes = asyncio.Lock()
        # record ids differ between servers and starts
        self._run = secrets.token_hex(12)
        self._operations: dict[str, Callable[[dict[str, Any]], Awaitable[Any]]] = {
            "CreateDeliveryStream": self._create,
            "DeleteDeliveryStream": self._delete,
            "DescribeDeliveryStream": self._describe,
            "ListDeliveryStreams": self._list,
            "ListTagsForDeliveryStream": self._list_tags,
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
            return await self._put_record_batch(decode(body))
        if operation == "PutRecord":
            return await self._put_record(decode(body))
        answer = self._operations.get(operation)
        if answer is None:
            known = operation in service_model("firehose").operation_names
            text = f"Firehose: {operation} is not supported by this server" if known else f"no operation {operation}"
            raise ServiceError("UnknownOperationException", text)
        request = decode(body)
        validate("firehose", operation, request)
        return json_reply(await answer(request))

    async def _create(self, request: dict[str, Any]) -> dict[str, Any]:
        name = request["DeliveryStreamName"]
        destination = parse_destination(request)
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
                tags=tags,
            )
            await asyncio.to_thread(self._registry.put, stream)
            self._engine.add(stream)
        return {"DeliveryStreamARN": stream.arn}

    async def _delete(self, request: dict[str, Any]) -> dict[str, Any]:
        name = request["DeliveryStreamName"]
        async with self._changes:
            self._active(name)
            await asyncio.to_thread(self._registry.remove, name)
            self._engine.remove(name)
        return {}

    async def _update(self, request: dict[str, Any]) -> dict[str, Any]:
        async with self._changes:
            stream = self._active(request["DeliveryStreamName"])
            made = updated_request(stream, request)
            changed = replace(
                stream,
                version=stream.version + 1,
                updated=self._now(),
                request=made,
                destination=parse_destination(made),
            )
            await asyncio.to_thread(self._registry.put, changed)
            self._engine.update(changed)
        return {}

    async def _describe(self, request: dict[str, Any]) -> dict[str, Any]:
        stream = self._stream(request["DeliveryStreamName"])
        return {"DeliveryStreamDescription": describe(stream, "CREATING" if self._creating(stream) else "ACTIVE")}

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
        name = self._target("PutRecord", request)
        if len(data) > _RECORD_BYTES:
            raise _too_long("record.data", text)
        first, metrics = await self._put(name, [data])
        metrics.put_record.note(1, len(data), time.perf_counter() - started)
        return json_reply({"RecordId": self._record_id(first), "Encrypted": False})

    async def _put_record_batch(self, request: dict[str, Any]) -> Reply:
        started = time.perf_counter()
        try:
            texts = [record["Data"] for record in request["Records"]]
            data = [_decoded(text) for text in texts]
        except (KeyError, TypeError):
            validate("firehose", "PutRecordBatch", request)
            raise
        if not 0 < len(data) <= _CALL_RECORDS:
            shown = [{"Data": ""}] * len(data) if data else request["Records"]
            validate("firehose", "PutRecordBatch", {**request, "Records": shown})
        name = self._target("PutRecordBatch", request)
        lengths = list(map(len, data))
        if max(lengths) > _RECORD_BYTES:
            at = next(index for index, length in enumerate(lengths) if length > _RECORD_BYTES)
            raise _too_long(f"records.{at + 1}.member.data", texts[at])
        if sum(lengths) > _CALL_BYTES:
            raise invalid("Records size exceeds 4 MB limit")
        first, metrics = await self._put(name, data)
        metrics.put_record_batch.note(len(data), sum(lengths), time.perf_counter() - started)
        ids = ",".join([f'{{"RecordId":"{self._run}{number:024d}"}}' for number in range(first, first + len(data))])
        return Reply(f'{{"FailedPutCount":0,"Encrypted":false,"RequestResponses":[{ids}]}}'.encode())

    async def _put(self, name: str, data: list[bytes]) -> tuple[int, StreamMetrics]:
        try:
            metrics = self._engine.streams[name].metrics
            return await self._engine.put(name, data), metrics
        except KeyError:  # it was deleted in between
            raise self._not_found(name) from None

    def _record_id(self, number: int) -> str:
        return f"{self._run}{number:024d}"

    def _target(self, operation: str, request: dict[str, Any]) -> str:
        name = request.get("DeliveryStreamName")
        stream = self._registry.get(name) if isinstance(name, str) else None
        # while it is being created the service knows nothing of it where records are put
        if stream is not None and not self._creating(stream):
            return stream.name
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


def _tag(key: str, value: str) -> dict[str, str]:
    return {"Key": key, "Value": value}


def _decoded(text: Any) -> bytes:
    try:
        return binascii.a2b_base64(text, strict_mode=True)
    except (binascii.Error, ValueError):
        raise ServiceError("SerializationException", f"Data is not base64: {text[:_SHOWN]!r}") from None


def _too_long(path: str, text: str) -> ServiceError:
    shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    return ServiceError(
        "ValidationException",
        f"1 validation error detected: Value '{shown}' at '{path}' failed to satisfy constraint:"
        f" Member must have length less than or equal to {_RECORD_BYTES}",
    )
