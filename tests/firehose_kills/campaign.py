"""Owns the campaign: a server is killed again and again under load, and at times everything is delivered and compared.

A life begins with the server's start and ends with kill -9, at a moment that its strike draws. Writers go on through
all lives. After so many kills they end, the server delivers what its log holds, and all that acknowledged records make
has to be in S3, whole and once, in its stream's and its partition's place. Of a server of several processes a kill
takes all, or one, and then the life that follows begins while the others go on.
"""

from __future__ import annotations

import queue
import random
import resource
import threading
import time
import urllib.request
from collections import Counter
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

import orjson
from botocore.exceptions import BotoCoreError, ClientError

from tests.conftest import free_port
from tests.faults.processes import EndedError
from tests.firehose.conftest import client
from tests.firehose_kills.model import DifferenceError, Model
from tests.firehose_kills.servers import Servers
from tests.firehose_kills.streams import STREAMS
from tests.firehose_kills.surroundings import Surroundings
from tests.firehose_kills.way import Way
from tests.firehose_kills.writers import Writer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

__all__ = ["STRIKES", "Campaign", "Life"]

STRIKES = {
    "a moment": 10,
    "while it starts": 2,
    "at a request to S3": 4,
    "S3's answer is lost": 4,
    "S3 is away": 3,
    "the disk is full": 3,
    "while it flushes": 2,
    "while a stream is updated": 2,
    "after a longer life": 3,
}
"""What a life ends with, and how often beside the others."""
_WRITERS = 3
_READY_SECONDS = 90
_LONGEST = 1.2
"""Seconds under load before the kill."""
_WATCHED_SECONDS = 5
_FLUSH_SECONDS = 180
_LONGER = (3.0, 8.0)
"""Seconds of a life in which the log's segments come and go."""
_SEGMENT_MIB = 1
_ALONE_SHARE = 0.6
"""Of the kills of a server of several processes: those that take one of them."""
_AGAIN_SECONDS = 0.1
_FAULTS = ("Traceback", "a fault of the server", "is damaged at", "can't be written again", "(exit status")
"""What no server may log, whatever it is killed at."""


@dataclass
class Life:
    """What became of one."""

    number: int
    strike: str
    after: float
    """Seconds from the start of its work to the kill, as drawn."""
    processes: int = 1
    """Of the server."""
    alone: bool = False
    """Whether one of them was killed, and not all."""
    struck: bool = True
    """Whether what the strike waits for came."""
    pending: int = 0
    """Records that the server before it left in the log."""
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)


class Campaign:
    """One server's folder, its writers, its S3.

    Args:
        seed: what everything is drawn from.
        s3_url: of S3, Glue and Lambda; to Lambda there is no way that is cut, or records would fail.
        folder: for the server's folder and its log.
        processes: of the server. Where it's more than one, some starts are with another number.
    """

    def __init__(self, seed: int, s3_url: str, folder: Path, processes: int = 1) -> None:
        self._draw = random.Random(seed)  # noqa: S311 - repeatable
        self._seed = seed
        self._folder = folder
        self._s3 = client("s3", s3_url)
        self._around = Surroundings.create(s3_url)
        self._functions = s3_url
        self._way = Way(s3_url)
        self._port = free_port()
        self._log = folder / "server.log"
        self._server = Servers(self._log)
        self._processes = processes
        self._is_killed = True
        self._victim = 0
        """Id of the process that a strike at one is for; 0 leaves it to a draw."""
        self.model = Model()
        self.puts: Counter[str] = Counter()
        self._kills = 0
        self._lots: list[str] = []

    def __enter__(self) -> Self:
        self._start()
        firehose = client("firehose", self._url)
        for stream in STREAMS:
            firehose.create_delivery_stream(
                DeliveryStreamName=stream.name,
                ExtendedS3DestinationConfiguration=stream.destination(self._around),
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._server.end()
        self._way.stop()

    def rounds(self, kills: int, every: int, own: Sequence[str] = ()) -> Iterator[list[Life]]:
        """Kill so many times, and compare after each `every`; `own` are the first strikes.

        Raises:
            DifferenceError: what is in S3 isn't what was acknowledged, or the server doesn't come up or deliver.
        """
        self._lots = list(reversed(own))
        done = 0
        while done < kills:
            lives = []
            with self._writing():
                for _ in range(min(every, kills - done)):
                    lives.append(self._life())
                    done += 1
                # what is put behind the last kill isn't made good by another start
                self._way.heal()
                if not self._server.is_alive:
                    self._start()
                time.sleep(self._draw.uniform(0, 2))
            self._settle(lives)
            yield lives

    @property
    def _url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def _start(self, *, wait: bool = True) -> None:
        if not self._is_killed:
            raise DifferenceError(f"after kill {self._kills} the server has ended by itself; see {self._log}")
        count = self._processes
        if count > 1 and (not wait or self._draw.random() < 0.3):  # the logs are divided anew
            count = self._draw.choice([one for one in (1, 2, 3) if one != self._server.processes])
        self._server.start(
            *("serve", "--data-dir", str(self._folder / "data"), "--port", str(self._port)),
            *("--s3-endpoint", self._way.url, "--lambda-endpoint", self._functions),
            *("--segment-mib", str(_SEGMENT_MIB), "--max-pending-mib", "64"),
            processes=count,
        )
        self._is_killed = False
        if wait:
            try:
                self._server.ready(_READY_SECONDS)
            except (EndedError, TimeoutError) as error:
                raise DifferenceError(f"after kill {self._kills} the server doesn't start: see {self._log}") from error

    def _kill(self, life: Life) -> None:
        if life.alone:
            self._server.kill_one(self._victim or self._any_worker())
        else:
            self._kill_all()
        self._kills += 1

    def _any_worker(self) -> int:
        # one draw, however many there are at the moment: the seed decides on what follows
        place, workers = self._draw.random(), self._server.workers
        return workers[int(place * len(workers))] if workers else 0

    def _kill_all(self) -> None:
        self._is_killed = True
        self._server.kill()

    @contextmanager
    def _writing(self) -> Iterator[None]:
        seeds = [self._draw.randrange(1 << 30) for _ in range(_WRITERS)]
        numbers = range(self._kills * 10, self._kills * 10 + _WRITERS)
        writers = [Writer(number, seed, self.model, self._port) for number, seed in zip(numbers, seeds, strict=True)]
        for one in writers:
            one.start()
        try:
            yield
        finally:
            for one in writers:
                one.end()
            for one in writers:
                one.join()
                self.puts.update(puts=one.puts, refused=one.refused)
        unexpected = [one.unexpected for one in writers if one.unexpected]
        if unexpected:
            raise DifferenceError(f"a put was answered by {unexpected[0]}")

    def _strike(self) -> str:
        if not self._lots:
            self._lots = [name for name, times in STRIKES.items() for _ in range(times)]
            self._draw.shuffle(self._lots)
        return self._lots.pop()

    def _life(self) -> Life:
        life = Life(self._kills, self._strike(), self._draw.uniform(0, 1) ** 2 * _LONGEST)
        started = time.monotonic()
        self._victim = 0
        starts = life.strike == "while it starts"
        if starts and self._server.is_alive:  # of several processes, the life before may have taken one
            self._kill_all()
        if not self._server.is_alive:
            self._start(wait=not starts)
        life.processes = self._server.processes
        # until all of them have started once, the server ends with any of them
        life.alone = life.processes > 1 and not starts and self._draw.random() < _ALONE_SHARE
        if not starts:
            with suppress(OSError):
                life.pending = self._status()["pendingRecords"]
        _DOING[life.strike](self, life)
        self._kill(life)
        self._way.heal()
        life.seconds = time.monotonic() - started
        return life

    def _wait(self, life: Life) -> None:
        time.sleep(life.after)

    def _wait_longer(self, life: Life) -> None:
        life.after = self._draw.uniform(*_LONGER)
        time.sleep(life.after)

    def _away(self, life: Life) -> None:
        # sometimes for lives to come, until one ends that heals it
        self._way.cut()
        time.sleep(life.after + self._draw.choice((0.0, 0.0, 3.0)))
        if self._draw.random() < 0.5:
            self._way.heal()
            time.sleep(self._draw.uniform(0, 0.5))

    def _watched(self, what: str, life: Life) -> None:
        time.sleep(life.after / 2)
        came: queue.SimpleQueue[bool] = queue.SimpleQueue()
        goes_on = self._draw.random() < 0.5

        def kill(port: int) -> bool:
            if life.alone:  # the one that asks, or is answered
                self._victim = self._server.worker_at(port) or 0
                self._server.kill_one(self._victim)
            else:
                self._kill_all()
            came.put(True)
            return goes_on and what == "request"

        self._way.watch(what, kill)
        try:
            came.get(timeout=_WATCHED_SECONDS)
        except queue.Empty:
            life.struck = False

    def _disk_full(self, life: Life) -> None:
        # no file of the process may grow past this, which is what a full disk looks like to it
        least = self._draw.choice((0, 4096, self._draw.randrange(_SEGMENT_MIB << 20)))
        self._victim = self._any_worker()
        self._limit(self._victim, least)
        deadline = time.monotonic() + _WATCHED_SECONDS
        while not (is_full := self._is_log_failing()) and time.monotonic() < deadline:
            time.sleep(0.05)
        life.struck = is_full
        time.sleep(life.after)
        if self._draw.random() < 0.5:
            self._limit(self._victim, resource.RLIM_INFINITY)
            time.sleep(life.after)

    @staticmethod
    def _limit(pid: int, least: int) -> None:
        with suppress(ProcessLookupError):
            if pid:  # 0 is this process
                resource.prlimit(pid, resource.RLIMIT_FSIZE, (least, resource.RLIM_INFINITY))

    def _is_log_failing(self) -> bool:
        # not by what it logs, as that is a file too
        with suppress(OSError):
            return bool(self._status()["logFailing"])
        return False

    def _flushing(self, life: Life) -> None:
        self._beside(lambda: self._flush(10), life)

    def _updating(self, life: Life) -> None:
        stream = self._draw.choice(STREAMS)
        hints = {"SizeInMBs": stream.size_mb, "IntervalInSeconds": stream.seconds + self._draw.randint(0, 1)}

        def update() -> None:
            firehose = client("firehose", self._url)
            told = firehose.describe_delivery_stream(DeliveryStreamName=stream.name)["DeliveryStreamDescription"]
            firehose.update_destination(
                DeliveryStreamName=stream.name,
                CurrentDeliveryStreamVersionId=told["VersionId"],
                DestinationId=told["Destinations"][0]["DestinationId"],
                ExtendedS3DestinationUpdate={"BufferingHints": hints},
            )

        self._beside(update, life)

    def _beside(self, do: Callable[[], Any], life: Life) -> None:
        def quietly() -> None:
            with suppress(OSError, BotoCoreError, ClientError):
                do()

        time.sleep(life.after / 2)
        threading.Thread(target=quietly, daemon=True).start()
        time.sleep(life.after / 2)

    def _status(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"{self._url}/_lakehose/status", timeout=30) as answer:
            told: dict[str, Any] = orjson.loads(answer.read())
            return told

    def _flush(self, seconds: float) -> None:
        request = urllib.request.Request(f"{self._url}/_lakehose/flush", method="POST")
        urllib.request.urlopen(request, timeout=seconds).close()

    def _settle(self, lives: list[Life]) -> None:
        started = time.monotonic()
        left = self._delivered(started + _FLUSH_SECONDS)
        if left:
            raise DifferenceError(f"after kill {self._kills} {left} records stay pending")
        lives[-1].notes.append(f"delivered in {time.monotonic() - started:.1f} s")
        self.model.compare(self._found())
        logged = self._log.read_text(encoding="utf-8", errors="replace").splitlines()
        if wrong := [line for line in logged if any(one in line for one in _FAULTS)]:
            raise DifferenceError(f"after kill {self._kills} {self._log} has {len(wrong)} lines as {wrong[0]!r}")

    def _delivered(self, deadline: float) -> int:
        """Have all delivered; returns how many records stay pending."""
        while True:
            try:
                self._flush(_FLUSH_SECONDS)
                while (status := self._status())["pendingRecords"] and time.monotonic() < deadline:
                    time.sleep(0.05)
                if not status.get("away"):
                    return int(status["pendingRecords"])
            except OSError as error:
                # while a process of several is away, the others can't answer for it
                if self._server.processes == 1 or time.monotonic() > deadline:
                    raise DifferenceError(f"after kill {self._kills} the server doesn't deliver: {error!r}") from error
            time.sleep(_AGAIN_SECONDS)

    def _found(self) -> Iterator[tuple[str, str, bytes]]:
        # read, and taken away, so that the next comparison begins with none
        streams = {stream.name: stream for stream in STREAMS}
        pages = self._s3.get_paginator("list_objects_v2").paginate(Bucket=self._around.bucket)
        for key in [one["Key"] for page in pages for one in page.get("Contents", [])]:
            stream = streams[key.partition("/")[0]]
            raw = self._s3.get_object(Bucket=self._around.bucket, Key=key)["Body"].read()
            yield from ((stream.name, place, item) for place, item in stream.items(key, raw))
            self._s3.delete_object(Bucket=self._around.bucket, Key=key)
            self.model.total["objects"] += 1


_DOING: dict[str, Callable[[Campaign, Life], None]] = {
    "a moment": Campaign._wait,
    "while it starts": Campaign._wait,
    "at a request to S3": lambda campaign, life: campaign._watched("request", life),
    "S3's answer is lost": lambda campaign, life: campaign._watched("answer", life),
    "S3 is away": Campaign._away,
    "the disk is full": Campaign._disk_full,
    "while it flushes": Campaign._flushing,
    "while a stream is updated": Campaign._updating,
    "after a longer life": Campaign._wait_longer,
}
