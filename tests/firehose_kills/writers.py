"""Owns the campaign's writers: threads that put records as fast as they are answered, and note which were."""

from __future__ import annotations

import base64
import http.client
import random
import threading
from typing import TYPE_CHECKING

import orjson

from tests.firehose_kills.streams import STREAMS

if TYPE_CHECKING:
    from tests.firehose_kills.model import Model

__all__ = ["Writer"]

_ANSWER_SECONDS = 30
_PAUSE = 0.05
_LARGEST_PUT = 60


class Writer(threading.Thread):
    """One of them; goes on until it is told to end, through servers that come and go."""

    def __init__(self, place: int, seed: int, model: Model, port: int) -> None:
        super().__init__(daemon=True)
        self._place = place
        self._draw = random.Random(f"{seed} writer {place}")  # noqa: S311 - repeatable
        self._model = model
        self._port = port
        self._number = 0
        self._connection: http.client.HTTPConnection | None = None
        self._ends = threading.Event()
        self.refused = 0
        self.puts = 0
        self.unexpected: str | None = None
        """An answer that no put may get."""

    def end(self) -> None:
        """Have it end."""
        self._ends.set()

    def run(self) -> None:
        """Put until it is told to end."""
        while not self._ends.is_set():
            try:
                if not self._put():
                    self._ends.wait(_PAUSE)
            except (OSError, http.client.HTTPException):
                self._close()
                self._ends.wait(_PAUSE)
        self._close()

    def _close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _put(self) -> bool:
        draw = self._draw
        stream = draw.choice(STREAMS)
        records = []
        for _ in range(draw.randint(1, _LARGEST_PUT)):
            self._number += 1
            records.append(stream.record(self._place * 10**9 + self._number, draw))
        if self._connection is None:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_ANSWER_SECONDS)
            connection.connect()
            self._connection = connection
        data = [{"Data": base64.b64encode(one.raw).decode()} for one in records]
        single = len(data) == 1
        body = orjson.dumps(
            {"DeliveryStreamName": stream.name, **({"Record": data[0]} if single else {"Records": data})}
        )
        put = self._model.sending(stream.name, records)
        operation = "PutRecord" if single else "PutRecordBatch"
        self._connection.request("POST", "/", body, {"X-Amz-Target": f"Firehose_20150804.{operation}"})
        answer = self._connection.getresponse()
        told = answer.read()
        self.puts += 1
        if answer.status == http.client.OK:
            if not single and orjson.loads(told)["FailedPutCount"]:
                self.unexpected = told[:300].decode()
            self._model.answered(put)
            return True
        self.refused += 1
        if answer.status != http.client.SERVICE_UNAVAILABLE:
            self.unexpected = f"{answer.status}: {told[:300]!r}"
        return False
