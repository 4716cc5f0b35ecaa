"""Owns the operations of the Firehose API: requests checked, carried out, answered in the documented shapes.

Source: https://docs.aws.amazon.com/firehose/latest/APIReference/API_Operations.html
"""

from __future__ import annotations

import asyncio
import binascii
import secrets
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from firehose.description import describe
from firehose.streams import DeliveryStream, invalid, parse_destination
from firehose.validation import service_model, validate
from lake.aws_json import Reply, ServiceError, decode, json_reply

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from firehose.engine import Engine
    from firehose.registry import Registry

__all__ = ["FirehoseApi"]

_RECORD_BYTES, _CALL_BYTES, _CALL_RECORDS = 1_024_000, 4 << 20, 500
_LIST_DEFAULT = 10
"""Names a page of ListDeliveryStreams has where no Limit is given."""
_SHOWN = 60
"""Characters of a record's data that an error shows."""


class FirehoseApi:
    """Answers Firehose calls."""

    def __init__(self, engine: Engine, registry: Registry, account: str, region: str, now: Callable[[], float]) -> None:
        self._engine = engine
        self._registry = registry
        self._account = account
        self._region = region
        self._now = now
        self._changes = asyncio.Lock()
        # record ids differ between servers and starts
        self._run = secrets.token_hex(12)
        self._operations: dict[str, Callable[[dict[str, Any]], Awaitable[Any]]] = {
            "CreateDeliveryStream": self._create,
            "DeleteDeliveryStream": self._delete,
            "DescribeDeliveryStream": self._describe,
            "ListDeliveryStreams": self._list,
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
            )
            await asyncio.to_thread(self._registry.add, stream)
            self._engine.add(stream)
        return {"DeliveryStreamARN": stream.arn}

    async def _delete(self, request: dict[str, Any]) -> dict[str, Any]:
        name = request["DeliveryStreamName"]
        async with self._changes:
            self._stream(name)
            await asyncio.to_thread(self._registry.remove, name)
            self._engine.remove(name)
        return {}

    async def _describe(self, request: dict[str, Any]) -> dict[str, Any]:
        return {"DeliveryStreamDescription": describe(self._stream(request["DeliveryStreamName"]))}

    async def _list(self, request: dict[str, Any]) -> dict[str, Any]:
        after = request.get("ExclusiveStartDeliveryStreamName", "")
        kind = request.get("DeliveryStreamType", "DirectPut")
        names = [name for name in self._registry.streams if name > after] if kind == "DirectPut" else []
        limit = request.get("Limit", _LIST_DEFAULT)
        return {"DeliveryStreamNames": names[:limit], "HasMoreDeliveryStreams": len(names) > limit}

    async def _put_record(self, request: dict[str, Any]) -> Reply:
        try:
            text = request["Record"]["Data"]
            data = _decoded(text)
        except (KeyError, TypeError):
            validate("firehose", "PutRecord", request)
            raise
        name = self._target("PutRecord", request)
        if len(data) > _RECORD_BYTES:
            raise _too_long("record.data", text)
        first = await self._put(name, [data])
        return json_reply({"RecordId": self._record_id(first), "Encrypted": False})

    async def _put_record_batch(self, request: dict[str, Any]) -> Reply:
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
        first = await self._put(name, data)
        ids = ",".join([f'{{"RecordId":"{self._run}{number:024d}"}}' for number in range(first, first + len(data))])
        return Reply(f'{{"FailedPutCount":0,"Encrypted":false,"RequestResponses":[{ids}]}}'.encode())

    async def _put(self, name: str, data: list[bytes]) -> int:
        try:
            return await self._engine.put(name, data)
        except KeyError:  # it was deleted in between
            raise self._not_found(name) from None

    def _record_id(self, number: int) -> str:
        return f"{self._run}{number:024d}"

    def _target(self, operation: str, request: dict[str, Any]) -> str:
        name = request.get("DeliveryStreamName")
        if isinstance(name, str) and self._registry.get(name) is not None:
            return name
        filler = {"Record": {"Data": ""}} if operation == "PutRecord" else {"Records": [{"Data": ""}]}
        validate("firehose", operation, {"DeliveryStreamName": name, **filler})
        return self._stream(str(name)).name

    def _stream(self, name: str) -> DeliveryStream:
        stream = self._registry.get(name)
        if stream is None:
            raise self._not_found(name)
        return stream

    def _not_found(self, name: str) -> ServiceError:
        return ServiceError("ResourceNotFoundException", f"Firehose {name} under account {self._account} not found.")


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
