"""Owns making a row of the spool from what an application gives: the envelope, the bytes, and why an event can't go."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from lake.envelope import Event
from producers.spool import NewRow

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from producers.spool import SpoolIdentity

__all__ = ["NewEvent", "Renderer"]

_EVENT_ID = re.compile(r"[!#-\[\]-~]{1,256}")  # printable, without what JSON would escape


@dataclass(frozen=True, slots=True)
class NewEvent:
    """An event to send."""

    payload: Mapping[str, Any]
    event_time: datetime
    """When it happened; aware."""
    event_id: str | None = None
    """Its own, where it has one: a UUIDv7, as the lake prunes by it. Made when None."""


@dataclass(frozen=True, slots=True)
class Renderer:
    """Puts one producer's envelope round payloads."""

    identity: SpoolIdentity
    schema_version: str
    encode: Callable[[Event], bytes]
    ids: Callable[[], str]
    record_bytes: int
    """Most bytes of an encoded event."""

    def render(self, new: NewEvent, sequence: int) -> tuple[Event, NewRow]:
        """Make the event and its row; a row that can't be sent says why, and keeps what it can of the event.

        Raises:
            ValueError: the event time has no time zone, or the event id isn't allowed.
        """
        if new.event_time.tzinfo is None:
            raise ValueError(f"event time {new.event_time.isoformat()} has no time zone; give it one, as in tzinfo=UTC")
        if new.event_id is not None and not _EVENT_ID.fullmatch(new.event_id):
            raise ValueError(
                f"event id: got {new.event_id[:300]!r}, allowed are 1 to 256 printable ASCII characters without "
                "spaces, quotes and backslashes"
            )
        event = Event(
            event_id=self.ids() if new.event_id is None else new.event_id,
            tenant=self.identity.tenant,
            dataset=self.identity.dataset,
            event_time=new.event_time,
            producer_id=self.identity.producer_id,
            sequence=sequence,
            schema_version=self.schema_version,
            payload=new.payload,
        )
        return event, self._row(event)

    def _row(self, event: Event) -> NewRow:
        try:
            data: object = self.encode(event)
        except Exception as error:  # noqa: BLE001 - the encoder is the application's: whatever it raises, the event stays
            return NewRow(event.event_id, _as_it_is(event), f"can't be encoded: {type(error).__name__}: {error}")
        if not isinstance(data, bytes):
            return NewRow(event.event_id, _as_it_is(event), f"can't be encoded: encode gave {type(data).__name__}")
        if len(data) > self.record_bytes:
            reason = f"encoded it has {len(data):,} bytes; a record may have {self.record_bytes:,}"
            return NewRow(event.event_id, data, reason)
        return NewRow(event.event_id, data)


def _as_it_is(event: Event) -> bytes:
    """What can be kept of an event that can't be encoded."""
    fields = {name: getattr(event, name) for name in event.__slots__}
    try:
        return orjson.dumps(fields, default=repr, option=orjson.OPT_NON_STR_KEYS)
    except TypeError:
        pass
    try:
        return repr(fields).encode("utf-8", "backslashreplace")
    except RecursionError:
        shallow = {**fields, "payload": f"nested too deep to be kept, with the keys {list(fields['payload'])}"}
        return repr(shallow).encode("utf-8", "backslashreplace")
