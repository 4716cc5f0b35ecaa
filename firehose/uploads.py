"""Owns writing objects until S3 takes them: how many at once, how much memory they may take, when it is tried again."""

from __future__ import annotations

import asyncio
import logging
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from firehose.objects import render

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from firehose.delivery import S3Writer
    from firehose.live import LiveStream
    from firehose.payloads import Intent

__all__ = ["FIRST_PAUSE", "LONGEST_PAUSE", "WORKER", "Uploads", "working"]

_log = logging.getLogger(__name__)
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
"""Seconds between attempts: doubling, with jitter."""
WORKER = "firehose-worker"
"""What names of threads begin with that wait for another service."""


class Uploads:
    """Objects on their way to S3.

    Args:
        writer: makes one attempt.
        at_once: how many are written at once.
        most_bytes: records in objects that are written at once; a larger object is written alone.
    """

    def __init__(self, writer: S3Writer, at_once: int, most_bytes: int) -> None:
        self._writer = writer
        self._pool = ThreadPoolExecutor(at_once, thread_name_prefix=WORKER)
        self._slots = asyncio.Semaphore(at_once)
        self._most = most_bytes
        self._turn = asyncio.Lock()
        self._writing = 0
        self._written = asyncio.Event()

    def stop(self) -> None:
        """Begin nothing more; what is under way is not waited for."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def write(self, live: LiveStream, intent: Intent, data: list[bytes], size: int) -> None:
        """Write an object until S3 takes it; a stream's trouble is told as long as it doesn't.

        Args:
            live: the stream.
            intent: the object.
            data: its records.
            size: their bytes.
        """
        loop = asyncio.get_running_loop()
        pause = FIRST_PAUSE
        while True:
            live.written(intent).attempts += 1
            try:
                async with self._room(size), self._slots:
                    await loop.run_in_executor(self._pool, self._write, intent, data)
            except Exception as error:  # noqa: BLE001 - whatever it is, the records stay, and it is told and tried again
                live.written(intent).failures += 1
                if live.trouble is None:
                    _log.warning("stream %s: %s; it is tried until it succeeds", live.stream.name, error)
                live.trouble = str(error) or repr(error)
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                pause = min(pause * 2, LONGEST_PAUSE)
            else:
                if live.trouble is not None:
                    _log.warning("stream %s: S3 takes objects again", live.stream.name)
                live.trouble = None
                return

    @asynccontextmanager
    async def _room(self, size: int) -> AsyncIterator[None]:
        async with self._turn:  # in order: small objects must not keep a large one waiting for ever
            while self._writing and self._writing + size > self._most:
                self._written.clear()
                await self._written.wait()
            self._writing += size
        try:
            yield
        finally:
            self._writing -= size
            self._written.set()

    def _write(self, intent: Intent, data: list[bytes]) -> None:
        compression = intent.recipe.compression
        # without a name here the body is gone as soon as the attempt is over, however it ended
        self._writer.write(
            intent.bucket, intent.key, render(intent.recipe, data, intent.delivery), compression, intent.kms_key
        )


def working() -> list[threading.Thread]:
    """Threads of this process that wait for another service, or are about to end."""
    return [one for one in threading.enumerate() if one.name.startswith(WORKER)]
