"""Owns how new objects become known: by S3's events, taken from a queue into the manifest, and by a bounded listing.

S3 tells a queue of each object that a door has written; a run takes what the queue holds, notes it in the manifest and
only then deletes the messages. S3 delivers nearly every event, and says that it may lose one: so each run also lists a
few of the folders that are written to these days, in turn, and notes what it did not know. It goes on where the run
before ended, and from the top once a day: keys are in order of time, but for late ones. Neither grows with the lake.

Events: https://docs.aws.amazon.com/AmazonS3/latest/userguide/notification-content-structure.html
"""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote_plus

from botocore.exceptions import ClientError

from lake.clients import error_code
from lake.errors import FindingError
from lake.manifest import NO_TENANT, Arrival, Lane
from lake.names import Names, day_folders
from lake.provision import queue_is_missing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from mypy_boto3_s3 import S3Client
    from mypy_boto3_sqs import SQSClient
    from mypy_boto3_sqs.type_defs import MessageTypeDef

    from lake.clients import Cloud
    from lake.declaration import Lake, Stream
    from lake.manifest import Manifest

__all__ = ["Arrivals", "lane_of", "relist"]

_AT_ONCE = 10  # messages of one call: the most SQS gives
_INVISIBLE_SECONDS = 120  # to others, while we note them down
_EMPTY_ANSWERS = 2  # one empty answer may come from a part of the queue that has none
_RECEIVERS = 4
_NET_FOLDERS = 6  # listed in a run, in turn: each a tenant's or an error's, with a prefix for each of the recent days
_NET_PAGES = 2  # of 1,000 objects, of a prefix in one run
_NET_DAYS = 3
_STRAY_BYTES, _STRAY_HEAD = 200, 12
"""Of a tenant that isn't one, quoted; and characters that are left of a longer one."""


def lane_of(stream: Stream, key: str) -> tuple[Lane, str] | None:
    """Lane and tenant of an object in a stream's bucket, by its key; None where it isn't one of the stream's.

    >>> str(lane_of(stream, "processed/flights/tenant=ewr/year=2013/x.gz"))  # doctest: +SKIP
    "(<Lane.EVENTS: 'events'>, 'ewr')"
    """
    door, _, rest = key.partition("/")
    if door == "errors":
        _, _, behind = rest.partition("/")
        return (Lane.REFUSED, NO_TENANT) if behind.startswith(f"{stream.dataset.name}/") else None
    prefix = Names.processed_prefix(stream.dataset.name)
    if not key.startswith(prefix):
        return None
    folder, slash, _ = key.removeprefix(prefix).partition("/")
    tenant = folder.removeprefix("tenant=") if slash and folder.startswith("tenant=") else ""
    if not tenant:
        return Lane.STRAYS, NO_TENANT
    return (Lane.EVENTS, tenant) if tenant in stream.tenants else (Lane.STRAYS, _stray(tenant))


def _stray(tenant: str) -> str:
    # whatever somebody sent: it becomes a part of DynamoDB's keys, which take 1,024 bytes
    if len(quote(tenant, safe="")) <= _STRAY_BYTES:
        return tenant
    return f"{tenant[:_STRAY_HEAD]}~{hashlib.sha256(tenant.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}"


@dataclass(frozen=True)
class Arrivals:
    """Takes what is new into the manifest."""

    lake: Lake
    cloud: Cloud
    manifest: Manifest
    say: Callable[[str], None]

    def collect(self, streams: Sequence[Stream], now: datetime) -> int:
        """Note down what the queues tell and what the net finds; answers how many objects were told of.

        Args:
            streams: the streams whose objects are asked for; a queue tells of all streams into its bucket.
            now: the net lists the days before it.

        Raises:
            FindingError: a queue is missing.
        """
        owners = sorted({one.owner for one in streams})
        with ThreadPoolExecutor(max(1, min(8, len(owners)))) as pool:
            told = sum(pool.map(self._drain, owners))
        return told + sum(self._cast_net(one, now) for one in streams)

    def _drain(self, owner: str) -> int:
        name = self.lake.names.queue(owner)
        sqs = self.cloud.sqs
        try:
            url = sqs.get_queue_url(QueueName=name)["QueueUrl"]
        except ClientError as error:
            if not queue_is_missing(error):
                raise
            raise FindingError(f"queue {name}: there is none; `lakehose apply` makes it") from None
        streams = [one for one in self.lake.streams() if one.owner == owner]
        held, told = self._receive(sqs, url, streams)
        # only a full answer says that there is more than one can take alone
        receivers = _RECEIVERS if held == _AT_ONCE else 1
        with ThreadPoolExecutor(receivers) as pool:
            return told + sum(pool.map(lambda _: self._receive_all(sqs, url, streams, held), range(receivers)))

    def _receive_all(self, sqs: SQSClient, url: str, streams: Sequence[Stream], held: int) -> int:
        """Receive until the queue seems empty, after an answer that held so many messages."""
        empty, told = int(not held), 0
        while empty < _EMPTY_ANSWERS:
            messages, arrived = self._receive(sqs, url, streams)
            empty = 0 if messages else empty + 1
            told += arrived
        return told

    def _receive(self, sqs: SQSClient, url: str, streams: Sequence[Stream]) -> tuple[int, int]:
        """One answer's messages, noted down and deleted; answers how many, and of how many objects they told."""
        answer = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=_AT_ONCE, VisibilityTimeout=_INVISIBLE_SECONDS)
        messages = answer.get("Messages", [])
        arrivals, done = self._read(messages, streams)
        self.manifest.arrived(arrivals)
        if done:
            # what isn't deleted is told again, and noted again, which changes nothing
            sqs.delete_message_batch(QueueUrl=url, Entries=done)  # type: ignore[arg-type]
        return len(messages), len(arrivals)

    def _read(
        self, messages: Iterable[MessageTypeDef], streams: Sequence[Stream]
    ) -> tuple[list[Arrival], list[dict[str, str]]]:
        found: list[Arrival] = []
        done: list[dict[str, str]] = []
        for number, message in enumerate(messages):
            try:
                found += _arrivals(json.loads(message["Body"]), streams)
            except (ValueError, KeyError, TypeError) as error:
                # left in the queue, SQS puts it aside after a few rounds, into the queue of dead letters
                self.say(f"queue of {streams[0].owner}: a message that is no event of S3: {error!r}")
                continue
            done.append({"Id": str(number), "ReceiptHandle": message["ReceiptHandle"]})
        return found, done

    def _cast_net(self, stream: Stream, now: datetime) -> int:
        """List a few folders' recent days, starting behind the last folder of the run before."""
        folders = _recent(stream, _error_folders(self.cloud.s3, stream), now)
        start = self.manifest.net_position(stream.owner, stream.dataset.name) % len(folders)
        turn = list(islice(cycle(folders), start, start + min(_NET_FOLDERS, len(folders))))
        found = sum(self._list_folder(stream, folder, folders[folder], now) for folder in turn)
        if len(folders) > len(turn):
            self.manifest.set_net_position(stream.owner, stream.dataset.name, (start + len(turn)) % len(folders))
        return found

    def _list_folder(self, stream: Stream, folder: str, prefixes: Sequence[str], now: datetime) -> int:
        """List what of a folder's recent days wasn't listed today yet."""
        owner, dataset, today = stream.owner, stream.dataset.name, f"{now.astimezone(UTC):%Y-%m-%d}"
        before = self.manifest.net_marks(owner, dataset, folder, today)
        marks: dict[str, str] = {}
        found = 0
        for prefix in prefixes:
            mark = before.get(prefix, "")
            for last, arrivals in _listed(self.cloud.s3, stream, prefix, _NET_PAGES, behind=mark):
                new = self.manifest.unknown(arrivals)
                self.manifest.arrived(new)
                mark = last
                found += len(new)
                for one in new:
                    self.say(f"object {one.uri}: S3's events didn't tell of it; found by listing")
            if mark:
                marks[prefix] = mark
        if marks != before:
            self.manifest.set_net_marks(owner, dataset, folder, today, marks)
        return found


def relist(cloud: Cloud, manifest: Manifest, streams: Iterable[Stream]) -> int:
    """Note down all objects there are and no batch has taken: for a lake whose queue came later than its objects.

    Its cost grows with the lake; it is asked for by a person.
    """
    found = 0
    for stream in streams:
        for prefix in (Names.processed_prefix(stream.dataset.name), *_error_folders(cloud.s3, stream)):
            for _, arrivals in _listed(cloud.s3, stream, prefix, None):
                new = manifest.unknown(arrivals)
                manifest.arrived(new)
                found += len(new)
    return found


def _arrivals(event: Any, streams: Sequence[Stream]) -> Iterator[Arrival]:
    if event.get("Event") == "s3:TestEvent":  # S3 sends it when the notification is set up
        return
    for record in event["Records"]:
        if not str(record["eventName"]).removeprefix("s3:").startswith("ObjectCreated:"):
            continue
        bucket, thing = record["s3"]["bucket"]["name"], record["s3"]["object"]
        key, size = unquote_plus(thing["key"]), int(thing["size"])
        for stream in streams:
            if stream.bucket == bucket and (one := _arrival(stream, key, size)):
                yield one


def _arrival(stream: Stream, key: str, size: int) -> Arrival | None:
    place = lane_of(stream, key)
    # a console makes empty objects named like folders
    if place is None or (key.endswith("/") and size == 0):
        return None
    return Arrival(stream.owner, stream.dataset.name, *place, f"s3://{stream.bucket}/{key}", size)


def _recent(stream: Stream, error_folders: Sequence[str], now: datetime) -> dict[str, list[str]]:
    """Prefixes that a stream writes to these days, by folder; the folders are the same in each run of a day."""
    days = [(now.astimezone(UTC) - timedelta(days=back)) for back in range(-1, _NET_DAYS)]
    found = {folder: [folder + day.strftime("%Y/%m/%d/") for day in days] for folder in error_folders}
    for tenant in stream.tenants:
        folder = Names.processed_prefix(stream.dataset.name, tenant)
        found[folder] = [folder + day_folders(day) for day in days]
    return found


def _listed(
    s3: S3Client, stream: Stream, prefix: str, pages: int | None, behind: str = ""
) -> Iterator[tuple[str, list[Arrival]]]:
    """Objects of a prefix behind a key, page by page, each with the last key that it looked at."""
    after: Any = {"StartAfter": behind} if behind else {}
    try:
        answers = s3.get_paginator("list_objects_v2").paginate(Bucket=stream.bucket, Prefix=prefix, **after)
        for page in islice(answers, pages):
            listed = page.get("Contents", [])
            if not listed:
                return
            found = (_arrival(stream, one["Key"], one["Size"]) for one in listed)
            yield listed[-1]["Key"], [one for one in found if one is not None]
    except ClientError as error:
        if error_code(error) == "NoSuchBucket":
            raise FindingError(f"bucket {stream.bucket}: there is none; `lakehose apply` makes it") from None
        raise


def _error_folders(s3: S3Client, stream: Stream) -> list[str]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=stream.bucket, Prefix="errors/", Delimiter="/")
    kinds = [one["Prefix"] for page in pages for one in page.get("CommonPrefixes", [])]
    return [f"{kind}{stream.dataset.name}/" for kind in kinds]
