"""Owns where lineage events go: the manifest, always, and an OpenLineage endpoint, where the declaration names one.

An event is in the manifest before it is sent, with a mark that it isn't sent; the mark goes once the endpoint has taken
it. Sending is a thread's, which nobody waits for longer than a few seconds: an endpoint that is away or slow costs a
job that much, once, and the next job sends what is marked. Items (`pk` is `OWNER#DATASET#lineage`):

- `lineage#RUN#TURN`: an event, gzipped JSON; a run's id begins with its time;
- `unsent#RUN#TURN`: the mark, and when it was made.
"""

from __future__ import annotations

import gzip
import json
import os
import queue
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lake.defaults import now
from lake.items import Items, item_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import datetime

    from mypy_boto3_dynamodb import DynamoDBClient

    from lake.declaration import LineageTarget

__all__ = ["LineageLog", "Sender", "Told", "lineage_partition"]

_RESENT = 500  # events that one run sends again at most, of each owner's dataset
_EMPTY_MS = 86_400_000  # from when on a mark without an event is one that a killed run left
_KEY_VARIABLE = "OPENLINEAGE_API_KEY"


@dataclass(frozen=True)
class Told:
    """An event, and whose it is."""

    owner: str
    dataset: str
    event: dict[str, Any]

    @property
    def key(self) -> str:
        """What tells it from other events of its owner's dataset."""
        return f"{self.event['run']['runId']}#{self.event['eventType']}"


class LineageLog:
    """Events in the manifest table, by its name.

    Args:
        dynamodb: the client.
        table: the table's name.
        clock: tells the time.
    """

    def __init__(self, dynamodb: DynamoDBClient, table: str, *, clock: Callable[[], datetime] = now) -> None:
        self._items = Items(dynamodb, table)
        self._clock = clock

    def _now_ms(self) -> int:
        return int(self._clock().timestamp() * 1000)

    def record(self, told: Told, *, unsent: bool) -> None:
        """Keep an event, over one of the same run and turn; with a mark if it is to be sent."""
        pk = lineage_partition(told.owner, told.dataset)
        body = gzip.compress(json.dumps(told.event, sort_keys=True).encode(), mtime=0)
        if unsent:
            # first: a mark without an event is nothing to send, an event without a mark never would be
            self._items.put({**item_key(pk, f"unsent#{told.key}"), "marked_at_ms": {"N": str(self._now_ms())}})
        self._items.put({**item_key(pk, f"lineage#{told.key}"), "event": {"B": body}})

    def sent(self, told: Told) -> None:
        """Take the mark from an event."""
        self._items.delete([(lineage_partition(told.owner, told.dataset), f"unsent#{told.key}")])

    def events(self, owner: str, dataset: str, *, run: str = "", since: str = "") -> Iterator[Told]:
        """Events of an owner's dataset, in the order in which their runs began.

        Args:
            owner: whose.
            dataset: of which dataset.
            run: only this run's.
            since: only of runs whose id is this or comes later.
        """
        first = f"lineage#{run or since}"
        last = f"lineage#{run}$" if run else "lineage$"  # the next sign after #
        for item in self._items.between(lineage_partition(owner, dataset), first, last):
            yield Told(owner, dataset, json.loads(gzip.decompress(_bytes(item["event"]["B"]))))

    def unsent(self, owner: str, dataset: str, most: int = _RESENT) -> Iterator[Told]:
        """Events that are marked, the oldest first."""
        pk = lineage_partition(owner, dataset)
        for count, item in enumerate(self._items.beginning(pk, "unsent#")):
            if count == most:
                return
            key = item["sk"]["S"].partition("#")[2]
            kept = self._items.get(pk, f"lineage#{key}")
            if kept is None:
                # its event may be on its way this very moment, from this run or another
                if int(item["marked_at_ms"]["N"]) < self._now_ms() - _EMPTY_MS:
                    self._items.delete([(pk, item["sk"]["S"])])
                continue
            yield Told(owner, dataset, json.loads(gzip.decompress(_bytes(kept["event"]["B"]))))


def lineage_partition(owner: str, dataset: str) -> str:
    """Leading key of the lineage of an owner's dataset.

    >>> lineage_partition("solo", "visits")
    'solo#visits#lineage'
    """
    return f"{owner}#{dataset}#lineage"


def _bytes(given: Any) -> bytes:
    return bytes(given.value) if hasattr(given, "value") else bytes(given)


class Sender:
    """Keeps events and sends them, for as long as a run of a job takes."""

    def __init__(self, log: LineageLog, target: LineageTarget | None, say: Callable[[str], None]) -> None:
        self._log = log
        self._target = target
        self._say = say
        self._waiting: queue.SimpleQueue[Told | Iterable[Told] | None] = queue.SimpleQueue()
        self._problem = ""
        self._sent: dict[tuple[str, str, str], dict[str, Any]] = {}
        self._thread: threading.Thread | None = None
        if target is not None:
            self._thread = threading.Thread(target=self._work, name="lineage", daemon=True)
            self._thread.start()

    def tell(self, told: Told) -> None:
        """Keep an event, and have it sent when its turn comes."""
        self._log.record(told, unsent=self._target is not None)
        if self._thread is not None:
            self._waiting.put(told)

    def resend(self, owner: str, dataset: str) -> None:
        """Have what earlier runs couldn't send be sent."""
        if self._thread is not None:
            self._waiting.put(self._log.unsent(owner, dataset))

    def close(self) -> None:
        """Wait for what is under way, no longer than declared, and say what is left for the next run."""
        if self._thread is None or self._target is None:
            return
        self._waiting.put(None)
        self._thread.join(self._target.timeout_seconds)
        if self._thread.is_alive() and not self._problem:
            self._problem = f"no end within {self._target.timeout_seconds:g} s"
        if self._problem:
            self._say(
                f"lineage: {self._target.url}: {self._problem}; what it didn't take is kept, and sent by the next run"
            )

    def _work(self) -> None:
        # a second to load, which no job without an endpoint need wait for
        transport = self._transport()
        while (one := self._waiting.get()) is not None:
            try:
                for told in [one] if isinstance(one, Told) else one:
                    if self._problem:
                        break  # each try would take as long as the first: the next run tries again
                    place = (told.owner, told.dataset, told.key)
                    if self._sent.get(place) == told.event:
                        continue  # it was marked by this very run when the marks were looked up
                    transport.emit(told.event)
                    self._log.sent(told)
                    self._sent[place] = told.event
            except Exception as error:  # noqa: BLE001 - whatever it is, no job fails for it; it is said at the end
                self._problem = f"{type(error).__name__}: {error}"

    def _transport(self) -> Any:
        from openlineage.client.transport.http import (  # noqa: PLC0415
            ApiKeyTokenProvider,
            HttpConfig,
            HttpTransport,
            TokenProvider,
        )

        target = self._target
        if target is None:
            raise RuntimeError("a sender without a target has no transport")
        key = os.environ.get(_KEY_VARIABLE)
        auth = ApiKeyTokenProvider({"api_key": key}) if key else TokenProvider({})
        return HttpTransport(
            HttpConfig(
                url=target.url,
                endpoint=target.endpoint,
                timeout=target.timeout_seconds,
                auth=auth,
                retry={"total": 0},
            )
        )
