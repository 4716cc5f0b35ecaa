"""Owns access to the manifest table: items read in order, page by page, and written many at a time, until all are.

Reads are consistent. What DynamoDB leaves of a batch it is asked for again, a little later each time; what it leaves
even then is an error, so nothing counts as done that isn't. One item is deleted as a batch of one, as a job's role may
write items and delete them this way. Source:
https://docs.aws.amazon.com/amazondynamodb/latest/APIReference/API_BatchWriteItem.html
"""

from __future__ import annotations

import hashlib
import time
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError

from lake.clients import error_code
from lake.errors import TransientError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from mypy_boto3_dynamodb import DynamoDBClient

__all__ = ["Item", "Items", "item_key", "shortened"]

Item = dict[str, Any]
"""As DynamoDB has it: `{"pk": {"S": "solo#visits"}, "sk": {"S": "net"}, "position": {"N": "6"}}`."""

_BATCH_WRITE, _BATCH_READ = 25, 100  # items of one call: the most DynamoDB takes
_PAUSES = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0)  # seconds between the attempts at one batch


def item_key(pk: str, sk: str) -> Item:
    """An item's key.

    >>> item_key("solo#visits", "net")
    {'pk': {'S': 'solo#visits'}, 'sk': {'S': 'net'}}
    """
    return {"pk": {"S": pk}, "sk": {"S": sk}}


def shortened(text: str, most: int) -> str:
    """A text as it stands in a sort key, which DynamoDB takes up to 1,024 bytes of: an address in S3 may be longer.

    Args:
        text: what is told; it stays as it is up to a length.
        most: that length in bytes, up to 959. Of what is longer the digest (SHA-256) stands behind as much.
    """
    encoded = text.encode()
    if len(encoded) <= most:
        return text
    return f"{encoded[:most].decode(errors='ignore')}#{hashlib.sha256(encoded).hexdigest()}"


class Items:
    """The items of one table.

    Args:
        dynamodb: the client.
        table: the table's name.
        pause: waits so many seconds, before what DynamoDB has left is asked for again.
    """

    def __init__(self, dynamodb: DynamoDBClient, table: str, *, pause: Callable[[float], None] = time.sleep) -> None:
        self._dynamodb = dynamodb
        self.table = table
        self._pause = pause

    def get(self, pk: str, sk: str) -> Item | None:
        """One item; None where there is none."""
        return self._dynamodb.get_item(TableName=self.table, Key=item_key(pk, sk), ConsistentRead=True).get("Item")

    def put(self, item: Item) -> None:
        """Write one item, over what has its key."""
        self._dynamodb.put_item(TableName=self.table, Item=item)

    def put_if(self, item: Item, condition: str, values: Mapping[str, Any] | None = None) -> bool:
        """Write one item where a condition holds; answers whether it did.

        A reply may be lost and the request be made again, so what fails the condition may be this very item.

        Args:
            item: the item.
            condition: on what has its key, in DynamoDB's words: `version = :old`.
            values: of the condition's placeholders.
        """
        given: dict[str, Any] = {"TableName": self.table, "Item": item, "ConditionExpression": condition}
        return _held(self._dynamodb.put_item, given, values)

    def delete_if(self, pk: str, sk: str, condition: str, values: Mapping[str, Any] | None = None) -> bool:
        """Delete one item where a condition holds; answers whether it did. Arguments as for `put_if`."""
        given: dict[str, Any] = {"TableName": self.table, "Key": item_key(pk, sk), "ConditionExpression": condition}
        return _held(self._dynamodb.delete_item, given, values)

    def beginning(
        self, pk: str, prefix: str, *, newest_first: bool = False, keys_only: bool = False, page: int | None = None
    ) -> Iterator[Item]:
        """Items whose sort keys begin with a prefix, in their order; each page is asked for when it is come to.

        Args:
            pk: their partition key.
            prefix: what the sort keys begin with.
            newest_first: the last key first.
            keys_only: nothing but `sk`.
            page: items of one request; as many as DynamoDB gives without it.
        """
        where, values = "begins_with(sk, :sk)", {":pk": {"S": pk}, ":sk": {"S": prefix}}
        return self._query(where, values, newest_first=newest_first, keys_only=keys_only, page=page)

    def between(
        self,
        pk: str,
        first: str,
        last: str,
        *,
        newest_first: bool = False,
        keys_only: bool = False,
        page: int | None = None,
    ) -> Iterator[Item]:
        """Items whose sort keys are one, another, or lie between; other arguments as for `beginning`."""
        where, values = "sk BETWEEN :first AND :last", {":pk": {"S": pk}, ":first": {"S": first}, ":last": {"S": last}}
        return self._query(where, values, newest_first=newest_first, keys_only=keys_only, page=page)

    def _query(
        self, where: str, values: Mapping[str, Any], *, newest_first: bool, keys_only: bool, page: int | None
    ) -> Iterator[Item]:
        options: Any = {"ProjectionExpression": "sk"} if keys_only else {}
        answers = self._dynamodb.get_paginator("query").paginate(
            TableName=self.table,
            KeyConditionExpression=f"pk = :pk AND {where}",
            ExpressionAttributeValues=values,
            ScanIndexForward=not newest_first,
            ConsistentRead=True,
            PaginationConfig={} if page is None else {"PageSize": page},
            **options,
        )
        for one in answers:
            yield from one["Items"]

    def existing(self, keys: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
        """Of these keys, `(pk, sk)`, the ones that there are.

        Raises:
            TransientError: DynamoDB left some unread, again and again.
        """
        ordered = sorted(set(keys))
        found: set[tuple[str, str]] = set()

        def read(left: list[Item]) -> list[Item]:
            request: Any = {self.table: {"Keys": left, "ProjectionExpression": "pk, sk", "ConsistentRead": True}}
            answer: Any = self._dynamodb.batch_get_item(RequestItems=request)
            found.update((one["pk"]["S"], one["sk"]["S"]) for one in answer["Responses"].get(self.table, []))
            unread: list[Item] = answer.get("UnprocessedKeys", {}).get(self.table, {}).get("Keys", [])
            return unread

        for start in range(0, len(ordered), _BATCH_READ):
            self._until_none_left([item_key(*one) for one in ordered[start : start + _BATCH_READ]], read, "keys unread")
        return found

    def write(self, items: Iterable[Item]) -> None:
        """Write items in their order, over what has their keys; of two with one key, the later.

        Raises:
            TransientError: DynamoDB left some unwritten, again and again.
        """
        by_key = {(one["pk"]["S"], one["sk"]["S"]): one for one in items}
        self._write_batches([{"PutRequest": {"Item": one}} for one in by_key.values()])

    def delete(self, keys: Iterable[tuple[str, str]]) -> None:
        """Delete what has these keys, `(pk, sk)`; what isn't there is left at that.

        Raises:
            TransientError: DynamoDB left some undeleted, again and again.
        """
        self._write_batches([{"DeleteRequest": {"Key": item_key(*one)}} for one in dict.fromkeys(keys)])

    def _write_batches(self, requests: list[Item]) -> None:
        def write(left: list[Item]) -> list[Item]:
            answer: Any = self._dynamodb.batch_write_item(RequestItems={self.table: left})  # type: ignore[dict-item]
            unwritten: list[Item] = answer.get("UnprocessedItems", {}).get(self.table, [])
            return unwritten

        for start in range(0, len(requests), _BATCH_WRITE):
            self._until_none_left(requests[start : start + _BATCH_WRITE], write, "items unwritten")

    def _until_none_left(self, asked: list[Item], ask: Callable[[list[Item]], list[Item]], what: str) -> None:
        left = ask(asked)
        for seconds in _PAUSES:
            if not left:
                return
            self._pause(seconds)
            left = ask(left)
        if left:
            raise TransientError(
                f"manifest table {self.table}: DynamoDB left {len(left)} of {len(asked)} {what}; try again"
            )


def _held(call: Callable[..., Any], given: dict[str, Any], values: Mapping[str, Any] | None) -> bool:
    try:
        call(**given, **({"ExpressionAttributeValues": values} if values else {}))
    except ClientError as error:
        if error_code(error) != "ConditionalCheckFailedException":
            raise
        return False
    return True
